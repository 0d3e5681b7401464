"""The part of a dock in which images are tagged: where from, classes, table."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from ...core.fingerprint import fingerprint
from ..layers.class_colors import class_color
from ..layers.image_source import is_picture
from ..services.background import Background
from .controls import button, note, sentence, side_by_side
from .tag_table import MAX_CLASSES, THUMBNAIL, Picture, TagTable, TagView

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from ...io.tag_files import Tags

TAGS_FILE = "tags.csv"


class TagFile(QObject):
    """A tags file that is written anew, in a thread, whenever tags change.

    The file is whole at any time, so what was tagged is there after a crash. Tags of a
    file that another program has changed since are not overwritten: ours go beside it.
    """

    failed = Signal(str)
    moved = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.path: Path | None = None
        self._writer = Background(1, limit=1)
        self._stamp: tuple[int, int] | None = None

    def use(self, path: Path) -> None:
        """Write to this file from now on; what it holds now is known."""
        self.path, self._stamp = path, _stamp(path)

    def save(self, tags: dict[str, tuple[str, ...]], classes: tuple[str, ...]) -> None:
        """Write the tags; of writes that wait only the newest is done."""
        self._writer.call(
            lambda: self._write(tags, classes),
            lambda moved: self.moved.emit(str(moved)) if moved else None,
            lambda error: self.failed.emit(sentence(error)),
        )

    def close(self) -> None:
        """Wait until all is written."""
        self._writer.close(finish=True)

    def _write(
        self, tags: dict[str, tuple[str, ...]], classes: tuple[str, ...]
    ) -> Path | None:
        """Write in the writer's thread; return the new place if it had to move."""
        from ...io.tag_files import Tags, write_tags

        assert self.path is not None
        moved = None
        if _stamp(self.path) != self._stamp:
            moved = self.path = free_name(self.path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_tags(self.path, Tags(tags, classes))
        except OSError:
            if user_place(self.path) == self.path:
                raise
            moved = self.path = user_place(self.path)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_tags(self.path, Tags(tags, classes))
        self._stamp = _stamp(self.path)
        return moved


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return what changes when a file is written; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def free_name(path: Path) -> Path:
    """Return a name beside a file that is not taken, such as ``tags-2.csv``."""
    n = 2
    while (other := path.with_name(f"{path.stem}-{n}{path.suffix}")).exists():
        n += 1
    return other


def user_place(path: Path) -> Path:
    """Return where tags go that cannot be written beside their images."""
    from ...io.model_store import user_folder

    home = user_folder().parent / "tags"
    if path.parent == home:
        return path
    folder = path.parent
    mark = fingerprint(str(folder))[:8]
    return home / f"{folder.name}-{mark}.csv"


class ClassRow(QWidget):
    """One class: its digit and colour, its name, how many images have it."""

    renamed = Signal(int, str)
    removed = Signal(int)

    def __init__(self, i: int) -> None:
        super().__init__()
        self.i = i
        digit = QLabel(str(i + 1) if i < MAX_CLASSES else "")
        digit.setFixedSize(18, 18)
        digit.setAlignment(Qt.AlignmentFlag.AlignCenter)
        digit.setStyleSheet(
            f"background: {class_color(i)}; color: #141414; border-radius: 3px;"
            " font-weight: bold;"
        )
        digit.setToolTip(f"Press {i + 1} in the table to toggle this class")
        self.name = QLineEdit()
        self.name.setFrame(False)
        self.name.setToolTip("Name of this class: click to change it")
        self.name.editingFinished.connect(
            lambda: self.renamed.emit(self.i, self.name.text())
        )
        self.count = QLabel()
        self.count.setAlignment(
            Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        )
        delete = QToolButton()
        delete.setText("✕")
        delete.setToolTip("Remove this class (Ctrl+Z in the table brings it back)")
        delete.setAccessibleName("Remove this class")
        delete.setFixedSize(24, 24)
        delete.clicked.connect(lambda: self.removed.emit(self.i))
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(6)
        row.addWidget(digit)
        row.addWidget(self.name, 1)
        row.addWidget(self.count)
        row.addWidget(delete)

    def show_class(self, name: str, n: int) -> None:
        """Show the present name and count."""
        if not self.name.hasFocus() or self.name.text() != name:
            self.name.setText(name)
            self.name.setCursorPosition(0)
        self.count.setText(f"{n} image{'' if n == 1 else 's'}")
        self.count.setEnabled(n > 0)


class TagPanel(QWidget):
    """Tags of the open images or of a folder, saved as they are given.

    Parameters
    ----------
    viewer : ViewerModel
    """

    changed = Signal()
    marked = Signal(object)
    message = Signal(str, bool)

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self.viewer = viewer
        self.folder: Path | None = None
        self.table = TagTable()
        self.file = TagFile()
        self._lister = Background(1)
        self._keys: dict[Any, str] = {}
        self._class_rows: list[ClassRow] = []
        self._unhook: list[Callable[[], None]] = []
        self._build()
        self._connect()
        self.use_layers()

    # ------------------------------------------------------------ what it says

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in the order of their digits."""
        return self.table.classes

    def tagged(self) -> list[tuple[Picture, tuple[str, ...]]]:
        """Return the images shown that are tagged, with their classes."""
        table = self.table
        return [(p, table.tags_of(p)) for p in table.pictures if p.key in table.tags]

    def problem(self) -> str:
        """Return why one cannot train with these tags, and what to do; or ""."""
        tagged = [frozenset(classes) for _, classes in self.tagged()]
        if not self.table.pictures:
            return "Open images, or choose a folder of images, to begin."
        if not self.classes:
            return "Add a class for each kind of thing that images may show."
        if not tagged:
            return "Tag some images: mark a row, press 1 to 9, then Enter."
        if len(tagged) == 1:
            return "One image is not enough to learn from: tag more."
        for name in self.classes:
            if not self.table.n_of(name):
                return f"No image has the class '{name}': tag one, or remove the class."
        if all(set(self.classes) <= classes for classes in tagged):
            return (
                "Each tagged image has all classes, so there is nothing to compare: "
                "tag images without some (0 says none of them)."
            )
        return ""

    def remark(self) -> str:
        """Return what would make the training better, or ""."""
        tagged = [classes for _, classes in self.tagged()]
        common = [c for c in self.classes if all(c in of for of in tagged)]
        if common:
            return (
                f"Each tagged image has '{common[0]}': where it is will be hard to "
                "learn, tag some without it. You can train already."
            )
        alone = {classes[0] for classes in tagged if len(classes) == 1}
        missing = [f"'{c}'" for c in self.classes if c not in alone]
        if missing:
            return (
                f"No image has {' or '.join(missing)} alone: the bank of examples will "
                "be better with some that do. You can train already."
            )
        left = len(self.table.pictures) - len(tagged)
        if left:
            return f"{left} without a tag will be left out. You can train already."
        return ""

    def mark(self, row: int) -> None:
        """Mark a row of the table."""
        self.view.mark(row)

    # ------------------------------------------------------------ layout

    def _build(self) -> None:
        self.layers_button = button(
            "Open images", "Tag the images that are open in napari", checkable=True
        )
        self.folder_button = button(
            "Folder…", "Tag the images of a folder, and of the folders in it"
        )
        self.place = note()
        self.class_box = QVBoxLayout()
        self.class_box.setSpacing(2)
        self.new_class = QLineEdit()
        self.new_class.setPlaceholderText("Add a class: type its name, press Enter")
        self.new_class.setAccessibleName("New class")
        self.view = TagView(self.table)
        self.view.setMinimumHeight(6 * (THUMBNAIL + 4) + 26)
        self.status = note()
        self.next = button("Next untagged", "Mark the next image that has no tag")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(
            side_by_side(self.layers_button, self.folder_button, stretch=(1, 1))
        )
        column.addWidget(self.place)
        column.addLayout(self.class_box)
        column.addWidget(self.new_class)
        column.addWidget(self.view)
        column.addWidget(side_by_side(self.status, self.next, stretch=(1, 0)))

    def _connect(self) -> None:
        self.layers_button.clicked.connect(self.use_layers)
        self.folder_button.clicked.connect(lambda: self.choose_folder())
        self.new_class.returnPressed.connect(self._on_new_class)
        self.next.clicked.connect(self._on_next)
        self.table.edited.connect(self._on_edited)
        self.view.marked.connect(self.marked.emit)
        self.view.last_passed.connect(self._on_last)
        self.file.failed.connect(lambda text: self.message.emit(text, True))
        self.file.moved.connect(self._on_moved)
        events = self.viewer.layers.events
        for emitter in (events.inserted, events.removed, events.reordered):
            self._hook(emitter, self._on_layers)

    def _hook(self, emitter: Any, callback: Callable[..., None]) -> None:
        emitter.connect(callback)
        self._unhook.append(lambda: emitter.disconnect(callback))

    def close_hooks(self) -> None:
        """Let go of the viewer, and wait until the tags are written."""
        for disconnect in self._unhook:
            disconnect()
        self._lister.close()
        self.table.close()
        self.file.close()

    # ------------------------------------------------------------ where from

    def use_layers(self) -> None:
        """Tag the images that are open."""
        self.folder = None
        pictures = self._open_pictures()
        self.view.blockSignals(True)  # what is on the canvas stays there
        self._load(_open_images_file(), pictures, None)
        self.view.blockSignals(False)
        self._on_layers()

    def choose_folder(self, path: str = "") -> None:
        """Tag the images of a folder; asks for it if none is given."""
        if not path:
            path = QFileDialog.getExistingDirectory(self, "Folder of images to tag")
        if not path:
            self._show_place()
            return
        folder = Path(path)
        self.place.setText(f"Reading {folder.name}…")
        self._lister.call(
            lambda: _listed(folder),
            lambda found: self._on_listed(folder, *found),
            lambda error: self.message.emit(f"{folder}: {error}", True),
        )

    def _on_listed(self, folder: Path, names: list[str], guess: Tags | None) -> None:
        if not names:
            self.message.emit(
                f"There are no images in {folder.name}: choose a folder of TIFF, PNG "
                "or JPEG files.",
                True,
            )
            self._show_place()
            return
        self.folder = folder
        pictures = [Picture(n, n, path=folder / n) for n in names]
        self._load(folder / TAGS_FILE, pictures, guess)

    def _load(self, path: Path, pictures: list[Picture], guess: Tags | None) -> None:
        """Show images with the tags of a file, or those that their folders tell."""
        from ...io.tag_files import Tags, read_tags

        moved = user_place(path)
        path = moved if moved.exists() and not path.exists() else path
        tags = guess or Tags({})
        said = "Tags are taken from the names of the folders." if guess else ""
        is_error = False
        if path.exists():
            try:
                tags, said = read_tags(path), ""
            except (ValueError, OSError) as error:
                path = free_name(path)
                said = f"{sentence(error)} New tags go to {path.name}."
                is_error = True
        self.file.use(path)
        self.table.show(pictures, tags, tags.classes)
        self._show_place()
        self._show_classes()
        if pictures:
            self.view.mark(max(0, self.table.next_untagged(-1)))
        if said:
            self.message.emit(said, is_error)
        self.changed.emit()

    def _show_place(self) -> None:
        self.layers_button.setChecked(self.folder is None)
        path = self.file.path
        where = "the open images" if self.folder is None else self.folder.name
        n = len(self.table.pictures)
        name = path.name if path is not None else TAGS_FILE
        self.place.setText(
            f"{n} image{'' if n == 1 else 's'} of {where} · saved in {name}"
            if n
            else "No image is open yet."
        )
        self.place.setToolTip(str(path or ""))

    def _open_pictures(self) -> list[Picture]:
        layers = [la for la in self.viewer.layers if is_picture(la)]
        paths = Counter(_path_of(la) for la in layers)
        pictures = []
        for layer in layers:
            path = _path_of(layer)
            key = path if path and paths[path] == 1 else layer.name
            pictures.append(Picture(key, layer.name, layer=layer))
        return pictures

    def _on_layers(self, event: Any = None) -> None:
        """Follow the list of layers."""
        if self.folder is not None:
            return
        marked = {p.key for p in self._marked()}
        pictures = self._open_pictures()
        for picture in pictures:
            layer = picture.layer
            assert layer is not None
            known = self._keys.get(layer.unique_id)
            if known is None:
                self._hook(layer.events.name, self._on_layers)
            elif known != picture.key:
                self.table.rekey(known, picture.key)
                marked.add(picture.key)
            self._keys[layer.unique_id] = picture.key
        now = [(p.key, p.layer) for p in self.table.pictures]
        if [(p.key, p.layer) for p in pictures] == now:
            return  # other layers than images have come or gone
        self.table.refresh(pictures)
        rows = [i for i, p in enumerate(pictures) if p.key in marked]
        self.view.blockSignals(True)  # the user is busy elsewhere
        self.view.mark(rows[0] if rows else 0)
        self.view.blockSignals(False)
        self._show_place()
        self._show_classes()
        self.changed.emit()

    def _marked(self) -> list[Picture]:
        return [self.table.pictures[r] for r in self.view.marked_rows()]

    # ------------------------------------------------------------ classes and tags

    def _on_new_class(self) -> None:
        try:
            self.table.add_class(self.new_class.text())
        except ValueError as error:
            self.message.emit(str(error), True)
            return
        self.new_class.clear()
        if len(self.classes) > 1:
            self.message.emit(
                "Click on the table, press a digit for each class you see, then Enter.",
                False,
            )

    def _on_renamed(self, i: int, name: str) -> None:
        try:
            self.table.rename_class(i, name)
        except ValueError as error:
            self.message.emit(str(error), True)
            self._class_rows[i].name.clearFocus()
            self._class_rows[i].name.setText(self.classes[i])

    def _on_edited(self) -> None:
        self.file.save(self.table.rows(), self.classes)
        self._show_classes()
        self.changed.emit()

    def _show_classes(self) -> None:
        while len(self._class_rows) > len(self.classes):
            row = self._class_rows.pop()
            self.class_box.removeWidget(row)
            row.hide()
            row.deleteLater()
        while len(self._class_rows) < len(self.classes):
            row = ClassRow(len(self._class_rows))
            row.renamed.connect(self._on_renamed)
            row.removed.connect(self.table.remove_class)
            self.class_box.addWidget(row)
            self._class_rows.append(row)
        for row, name in zip(self._class_rows, self.classes, strict=True):
            row.show_class(name, self.table.n_of(name))
        self.new_class.setVisible(len(self.classes) < MAX_CLASSES)
        n, done = len(self.table.pictures), self.table.n_tagged()
        self.status.setText(f"{done} of {n} tagged" if n else "")
        self.next.setEnabled(0 < n > done)

    def _on_next(self) -> None:
        rows = self.view.marked_rows()
        self.view.mark(self.table.next_untagged(rows[-1] if rows else -1))
        self.view.setFocus()

    def _on_last(self) -> None:
        left = len(self.table.pictures) - self.table.n_tagged()
        self.message.emit(
            f"That was the last image; {left} have no tag and are left out."
            if left
            else "All images are tagged: press Train.",
            False,
        )

    def _on_moved(self, path: str) -> None:
        self._show_place()
        self.message.emit(f"Tags are now saved in {path}.", False)


def _listed(folder: Path) -> tuple[list[str], Tags | None]:
    """Return the images of a folder, and the tags that the folders in it tell."""
    from ...io.tag_files import TagsError, image_files, tags_from_folders

    inside = sorted(
        p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")
    )
    names = [
        path.relative_to(folder).as_posix()
        for place in (folder, *inside)
        for path in image_files(place)
    ]
    try:
        tags = tags_from_folders(folder)
    except TagsError:
        return names, None
    return names, tags if len(tags.classes) > 1 else None


def _open_images_file() -> Path:
    from ...io.model_store import user_folder

    return user_folder().parent / "tags" / "open-images.csv"


def _path_of(layer: Image) -> str:
    """Return the file that a layer was opened from, or an empty string."""
    return str(getattr(layer.source, "path", None) or "")
