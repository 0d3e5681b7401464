"""The part of a dock in which images are tagged: images, classes and table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QVBoxLayout, QWidget

from ...callbacks import reports_errors, tell
from ...layers.images.tagged_image import TaggedImage
from ...layers.metadata import is_image
from ...messages import count, sentence
from ...services.background import Background
from ...services.tag_saver import (
    TagSaver,
    free_tags_file,
    open_images_file,
    user_place,
)
from ..controls import button, note, side_by_side
from ..plain_text import tip_text
from .class_list import ClassList
from .tag_set import TagSet
from .tag_table import TagTable
from .tag_view import TagView
from .thumbnails import THUMBNAIL

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from ....io.tag_files import Tags

TAGS_FILE = "tags.csv"
FROM_FOLDERS = "Tags are taken from the names of the folders."
ALL_TAGGED = "All images are tagged: press Train."
MOVED = "Tags are now saved in"
NO_IMAGES = "There are no images in"


@reports_errors("use_layers", "choose_folder")
class TagPanel(QWidget):
    """Tags of the open images or of a folder, saved as they are given.

    Parameters
    ----------
    viewer : ViewerModel
    """

    changed = Signal()
    selected = Signal(object)
    """The `TaggedImage` that is looked at."""
    message = Signal(str, bool)

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self.viewer = viewer
        self.folder: Path | None = None
        self.tags = TagSet()
        self.table = TagTable(self.tags)
        self.saver = TagSaver()
        self._lister = Background(partial(tell, self))
        self._keys: dict[Any, str] = {}
        self._unhook: list[Callable[[], None]] = []
        self._build()
        self._connect()
        self.use_layers()

    def selected_images(self) -> list[TaggedImage]:
        """Return the images whose rows are selected, top first."""
        return [self.tags.images[r] for r in self.view.selected_rows()]

    def _build(self) -> None:
        self.layers_button = button(
            "Open images", "Tag the images that are open in napari", checkable=True
        )
        self.folder_button = button(
            "Folder…", "Tag the images of a folder and its subfolders"
        )
        self.place = note()
        self.classes = ClassList(self.tags)
        self.view = TagView(self.table)
        self.view.setMinimumHeight(6 * (THUMBNAIL + 4) + 26)
        self.status = note()
        self.next = button("Next untagged", "Select the next image that has no tag")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(
            side_by_side(self.layers_button, self.folder_button, stretch=(1, 1))
        )
        column.addWidget(self.place)
        column.addWidget(self.classes)
        column.addWidget(self.view)
        column.addWidget(side_by_side(self.status, self.next, stretch=(1, 0)))

    def _connect(self) -> None:
        self.layers_button.clicked.connect(self.use_layers)
        self.folder_button.clicked.connect(lambda: self.choose_folder())
        self.classes.message.connect(self.message)
        self.next.clicked.connect(self._on_next)
        self.tags.edited.connect(self._on_edited)
        self.view.selected.connect(self.selected)
        self.view.last_passed.connect(self._on_last)
        self.saver.failed.connect(lambda text: self.message.emit(text, True))
        self.saver.moved.connect(self._on_moved)
        events = self.viewer.layers.events
        for emitter in (events.inserted, events.removed, events.reordered):
            self._hook(emitter, self._on_layers)

    def _hook(self, emitter: Any, callback: Callable[..., None]) -> None:
        emitter.connect(callback)
        self._unhook.append(lambda: emitter.disconnect(callback))

    def close_hooks(self) -> None:
        """Disconnect from the viewer, and wait until the tags are written."""
        for disconnect in self._unhook:
            disconnect()
        self._lister.close()
        self.table.close()
        self.saver.close()

    # ------------------------------------------------------------ images

    def use_layers(self) -> None:
        """Tag the images that are open."""
        self.folder = None
        images = self._open_images()
        self.view.blockSignals(True)  # what is on the canvas stays there
        self._load(open_images_file(), images, None)
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
                f"{NO_IMAGES} {folder.name}: choose a folder of TIFF, PNG or JPEG "
                "files.",
                True,
            )
            self._show_place()
            return
        self.folder = folder
        images = [TaggedImage(n, n, path=folder / n) for n in names]
        self._load(folder / TAGS_FILE, images, guess)

    def _load(self, path: Path, images: list[TaggedImage], guess: Tags | None) -> None:
        """Show images with the tags of a file, or those that their folders tell."""
        from ....io.tag_files import Tags, read_tags

        moved = user_place(path)
        path = moved if moved.exists() and not path.exists() else path
        tags = guess or Tags({})
        said = FROM_FOLDERS if guess else ""
        is_error = False
        if path.exists():
            try:
                tags, said = read_tags(path), ""
            except (ValueError, OSError) as error:
                path = free_tags_file(path)
                said = f"{sentence(error)} New tags go to {path.name}."
                is_error = True
        self.saver.use(path)
        self.tags.show(images, tags, tags.classes)
        self._show_place()
        self._show_classes()
        if images:
            self.view.select(max(0, self.tags.next_untagged(-1)))
        if said:
            self.message.emit(said, is_error)
        self.changed.emit()

    def _show_place(self) -> None:
        self.layers_button.setChecked(self.folder is None)
        path = self.saver.path
        where = "the open images" if self.folder is None else self.folder.name
        n = len(self.tags.images)
        name = path.name if path is not None else TAGS_FILE
        self.place.setText(
            f"{count(n, 'image')} of {where} · saved in {name}"
            if n
            else "No image is open yet."
        )
        self.place.setToolTip(tip_text(str(path or "")))

    def _open_images(self) -> list[TaggedImage]:
        layers = [la for la in self.viewer.layers if is_image(la)]
        paths = Counter(_path_of(la) for la in layers)
        images = []
        for layer in layers:
            path = _path_of(layer)
            key = path if path and paths[path] == 1 else layer.name
            images.append(TaggedImage(key, layer.name, layer=layer))
        return images

    def _on_layers(self, event: Any = None) -> None:
        """Follow the list of layers."""
        if self.folder is not None:
            return
        selected = {image.key for image in self.selected_images()}
        images = self._open_images()
        for image in images:
            layer = image.layer
            assert layer is not None
            known = self._keys.get(layer.unique_id)
            if known is None:
                self._hook(layer.events.name, self._on_layers)
            elif known != image.key:
                self.tags.rekey(known, image.key)
                selected.add(image.key)
            self._keys[layer.unique_id] = image.key
        now = [(i.key, i.layer) for i in self.tags.images]
        if [(i.key, i.layer) for i in images] == now:
            return  # other layers than images have come or gone
        self.tags.refresh(images)
        rows = [n for n, image in enumerate(images) if image.key in selected]
        self.view.blockSignals(True)  # the user is busy elsewhere
        self.view.select(rows[0] if rows else 0)
        self.view.blockSignals(False)
        self._show_place()
        self._show_classes()
        self.changed.emit()

    # ------------------------------------------------------------ tags

    def _on_edited(self) -> None:
        self.saver.save(self.tags.rows(), self.tags.classes)
        self._show_classes()
        self.changed.emit()

    def _show_classes(self) -> None:
        self.classes.refresh()
        n, done = len(self.tags.images), self.tags.n_tagged()
        self.status.setText(f"{done} of {n} tagged" if n else "")
        self.next.setEnabled(0 < n > done)

    def _on_next(self) -> None:
        rows = self.view.selected_rows()
        self.view.select(self.tags.next_untagged(rows[-1] if rows else -1))
        self.view.setFocus()

    def _on_last(self) -> None:
        left = len(self.tags.images) - self.tags.n_tagged()
        self.message.emit(
            f"That was the last image; {left} have no tag and are left out."
            if left
            else ALL_TAGGED,
            False,
        )

    def _on_moved(self, path: str) -> None:
        self._show_place()
        self.message.emit(f"{MOVED} {path}.", False)


def _listed(folder: Path) -> tuple[list[str], Tags | None]:
    """Return the images of a folder, and the tags that its subfolders are named by."""
    from ....io.tag_files import TagsError, image_files, tags_from_folders

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


def _path_of(layer: Image) -> str:
    """Return the file that a layer was opened from, or an empty string."""
    return str(getattr(layer.source, "path", None) or "")
