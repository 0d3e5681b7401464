"""The table of images and their tags: digits toggle classes, Enter goes on.

An image that has none of the classes is tagged as well: it says what they are not. One
without a tag is not known.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import (
    QAbstractItemModel,
    QAbstractTableModel,
    QEvent,
    QItemSelection,
    QItemSelectionModel,
    QModelIndex,
    QRect,
    QSize,
    Qt,
    Signal,
)
from qtpy.QtGui import QColor, QImage, QKeyEvent, QPainter, QPen, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableView,
)

from ...core.image import Axes, ImageError
from ..layers.class_colors import class_color
from ..layers.image_source import ImageSource, known_axes
from ..services.background import Background
from .prompt_list import is_colour, visible

if TYPE_CHECKING:
    from napari.layers import Image

THUMBNAIL = 44
"""Side of a thumbnail on screen, in pixels."""

MAX_THUMBNAILS = 3000
"""Kept in memory; 25 MB."""

MAX_WAITING = 60
"""Thumbnails asked for at once; those scrolled by long ago are forgotten."""

MAX_THUMBNAIL_BYTES = 100_000_000
"""Larger files are not read for a thumbnail."""

MAX_CLASSES = 9
"""One for each digit."""

MAX_UNDO = 200

IS_NONE = Qt.ItemDataRole.UserRole
"""Role of a cell: whether its image has none of the classes."""

NAME = 0
"""Column of the picture and its name; the classes follow."""


@dataclass(frozen=True, eq=False)
class Picture:
    """An image that can be tagged.

    Parameters
    ----------
    key : str
        In the tags file: the file, relative to its folder, or an open image's file or
        name.
    title : str
        In the table.
    path : Path, optional
        Of an image in a folder.
    layer : Image, optional
        An open image.
    """

    key: str
    title: str
    path: Path | None = None
    layer: Image | None = None

    def plane(self) -> np.ndarray:
        """Return an image of one plane, (Y, X, C); a file is read.

        Raises
        ------
        ImageError
            If it is a stack, its axes are not known, or the file cannot be read.
        """
        if self.layer is not None:
            source = ImageSource.of(self.layer, known_axes(self.layer))
            index = (0,) * len(source.axes.stack)
            data, axes, n = source.query(index), source.axes, source.n_planes
        else:
            from ...io.images import read_image

            assert self.path is not None
            file = read_image(self.path)
            data, axes = file.array, file.axes
            n = len(list(axes.plane_indices(data.shape)))
        if n > 1:
            raise ImageError(
                f"'{self.title}' is a stack: open its planes as images of their own, "
                "or take its tag away (Backspace)."
            )
        return axes.to_plane(np.asarray(data))

    def small(self) -> np.ndarray:
        """Return a small view of the image; called in a thread.

        Returns
        -------
        (Y, X, 3) uint8 array, not much longer than twice `THUMBNAIL`
        """
        if self.layer is not None:
            return _small_of_layer(self.layer)
        assert self.path is not None
        if self.path.stat().st_size > MAX_THUMBNAIL_BYTES:
            raise ValueError(f"{self.path}: too large for a thumbnail.")
        from ...io.images import read_image

        file = read_image(self.path)
        return _small(np.asarray(file.array), file.axes)


def _small(array: np.ndarray, axes: Axes) -> np.ndarray:
    """Return the middle plane of an image, subsampled and stretched to 0-255.

    Colour pictures of 8 bit are shown as they are.
    """
    planes = list(axes.plane_indices(array.shape))
    plane = axes.to_plane(array[axes.plane_slices(planes[len(planes) // 2])])
    step = max(1, min(plane.shape[:2]) // (2 * THUMBNAIL))
    small = plane[::step, ::step, :3]
    if is_colour(small):
        return np.ascontiguousarray(small)
    return visible(small.astype(np.float32))


def _small_of_layer(layer: Image) -> np.ndarray:
    data = layer.data[-1] if layer.multiscale else layer.data
    if not isinstance(data, np.ndarray):  # what is lazy is not computed for this
        return np.ascontiguousarray(layer.thumbnail[..., :3], np.uint8)
    while data.ndim > 2 + bool(layer.rgb):
        data = data[len(data) // 2]
    return _small(data, Axes("YXC" if layer.rgb else "YX"))


@dataclass(frozen=True)
class Edit:
    """A change of tags or classes, and what was before."""

    classes: tuple[str, ...]
    tags: dict[str, frozenset[str] | None]


class TagTable(QAbstractTableModel):
    """Images in rows, classes in columns."""

    edited = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.pictures: list[Picture] = []
        self.classes: tuple[str, ...] = ()
        self.tags: dict[str, frozenset[str]] = {}
        self._background = Background(2, newest_first=True, limit=MAX_WAITING)
        self._pixmaps: OrderedDict[str, QPixmap | None] = OrderedDict()
        self._asked: OrderedDict[str, None] = OrderedDict()
        self._blank = QPixmap(THUMBNAIL, THUMBNAIL)
        self._blank.fill(QColor(60, 63, 70))
        self._edits: list[Edit] = []

    # ------------------------------------------------------------ what is tagged

    def show(
        self,
        pictures: Iterable[Picture],
        tags: Mapping[str, Iterable[str]],
        classes: Sequence[str],
    ) -> None:
        """Show other images.

        Parameters
        ----------
        pictures : iterable of Picture
        tags : dict
            Name of a picture -> its classes. Those of pictures that are not there are
            kept, so that they are saved again.
        classes : sequence of str
        """
        self.beginResetModel()
        self.pictures = list(pictures)
        self.tags = {name: frozenset(of) for name, of in tags.items()}
        used = sorted(frozenset().union(*self.tags.values()) - set(classes))
        self.classes = (*classes, *used)
        self._pixmaps.clear()
        self._asked.clear()
        self._edits.clear()
        self.endResetModel()

    def refresh(self, pictures: Iterable[Picture]) -> None:
        """Show the images that are there now; tags and undo stay."""
        self.beginResetModel()
        self.pictures = list(pictures)
        self._pixmaps.clear()
        self._asked.clear()
        self.endResetModel()

    def rekey(self, old: str, new: str) -> None:
        """Let the tags of an image follow its new name."""
        if old in self.tags and new not in self.tags:
            self.tags[new] = self.tags.pop(old)
            self.edited.emit()

    def tags_of(self, picture: Picture) -> tuple[str, ...]:
        """Return the classes of a picture, in the order of the classes."""
        found = self.tags.get(picture.key, frozenset())
        return tuple(c for c in self.classes if c in found)

    def rows(self) -> dict[str, tuple[str, ...]]:
        """Return all tags as they are saved: also of images that are not shown."""
        return {
            name: tuple(c for c in self.classes if c in found)
            for name, found in self.tags.items()
        }

    def n_tagged(self) -> int:
        """Return how many of the images shown have a tag."""
        return sum(1 for p in self.pictures if p.key in self.tags)

    def n_of(self, name: str) -> int:
        """Return how many of the images shown have a class."""
        return sum(1 for p in self.pictures if name in self.tags.get(p.key, ()))

    def next_untagged(self, row: int) -> int:
        """Return the row of the next image without a tag after a row; -1 for none."""
        n = len(self.pictures)
        after = [(row + 1 + i) % n for i in range(n)]
        return next((i for i in after if self.pictures[i].key not in self.tags), -1)

    def close(self) -> None:
        """Make no more thumbnails."""
        self._background.close()

    # ------------------------------------------------------------ changing it

    def toggle(self, rows: Iterable[int], i: int) -> None:
        """Give images a class, or take it away where all of them have it."""
        keys = [self.pictures[r].key for r in rows]
        if not keys or i >= len(self.classes):
            return
        name = self.classes[i]
        now = {k: self.tags.get(k, frozenset()) for k in keys}
        if all(name in of for of in now.values()):
            self._change({k: (of - {name}) or None for k, of in now.items()})
        else:
            self._change({k: of | {name} for k, of in now.items()})

    def set_none(self, rows: Iterable[int]) -> None:
        """Say that images have none of the classes."""
        self._change({self.pictures[r].key: frozenset() for r in rows})

    def clear(self, rows: Iterable[int]) -> None:
        """Take the tags of images away: they are not known."""
        self._change({self.pictures[r].key: None for r in rows})

    def add_class(self, name: str) -> None:
        """Add a class.

        Raises
        ------
        ValueError
            For a name that is empty or taken, or a tenth class.
        """
        if len(self.classes) >= MAX_CLASSES:
            raise ValueError(
                f"There are {MAX_CLASSES} classes, one for each digit: "
                "remove one first."
            )
        self._reclass((*self.classes, self._checked(name)), {})

    def rename_class(self, i: int, name: str) -> None:
        """Give a class another name, in all images.

        Raises
        ------
        ValueError
            For a name that is empty or taken.
        """
        old = self.classes[i]
        new = self._checked(name, but=old)
        classes = (*self.classes[:i], new, *self.classes[i + 1 :])
        self._reclass(
            classes,
            {n: of - {old} | {new} for n, of in self.tags.items() if old in of},
        )

    def remove_class(self, i: int) -> None:
        """Remove a class, also from the images that have it."""
        old = self.classes[i]
        self._reclass(
            (*self.classes[:i], *self.classes[i + 1 :]),
            {n: (of - {old}) or None for n, of in self.tags.items() if old in of},
        )

    def undo(self) -> bool:
        """Take the latest change back; False where there is none."""
        if not self._edits:
            return False
        edit = self._edits.pop()
        self._apply(edit.classes, edit.tags)
        return True

    def _checked(self, name: str, but: str = "") -> str:
        name = " ".join(name.split())
        if not name:
            raise ValueError("A class needs a name.")
        if set(name) & set(',;"#'):
            raise ValueError(f"'{name}': a class has a name without , ; # and quotes.")
        if name.casefold() in (c.casefold() for c in self.classes if c != but):
            raise ValueError(f"There is a class '{name}' already.")
        return name

    def _change(self, tags: Mapping[str, frozenset[str] | None]) -> None:
        self._reclass(self.classes, tags)

    def _reclass(
        self, classes: tuple[str, ...], tags: Mapping[str, frozenset[str] | None]
    ) -> None:
        before = {name: self.tags.get(name) for name in tags}
        if before == tags and classes == self.classes:
            return
        self._edits = [*self._edits, Edit(self.classes, before)][-MAX_UNDO:]
        self._apply(classes, tags)

    def _apply(
        self, classes: tuple[str, ...], tags: Mapping[str, frozenset[str] | None]
    ) -> None:
        for name, found in tags.items():
            if found is None:
                self.tags.pop(name, None)
            else:
                self.tags[name] = found
        if classes != self.classes:
            self.layoutAboutToBeChanged.emit()
            self.classes = classes
            self.layoutChanged.emit()
            self.headerDataChanged.emit(Qt.Orientation.Horizontal, 0, len(classes))
        elif self.pictures:
            last = self.index(len(self.pictures) - 1, len(self.classes))
            self.dataChanged.emit(self.index(0, NAME), last)
        self.edited.emit()

    # ------------------------------------------------------------ as Qt asks for it

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Return the number of images."""
        return 0 if parent is not None and parent.isValid() else len(self.pictures)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        """Return the name's column and one for each class."""
        return 1 + len(self.classes)

    def headerData(
        self,
        section: int,
        orientation: Qt.Orientation,
        role: int = Qt.ItemDataRole.DisplayRole,
    ) -> Any:
        """Return the digit of a class, and its name as a tip."""
        if orientation != Qt.Orientation.Horizontal or section > len(self.classes):
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return "Image" if section == NAME else str(section)
        if role == Qt.ItemDataRole.TextAlignmentRole and section == NAME:
            return Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        if role == Qt.ItemDataRole.ToolTipRole and section > NAME:
            return self.classes[section - 1]
        return None

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        """Return what can be done with a cell."""
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        if index.column() > NAME:
            flags |= Qt.ItemFlag.ItemIsUserCheckable
        return flags

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return what a cell shows."""
        picture, column = self.pictures[index.row()], index.column()
        if column > NAME:
            if role == IS_NONE:
                return self.tags.get(picture.key) == frozenset()
            if role == Qt.ItemDataRole.CheckStateRole:
                on = self.classes[column - 1] in self.tags.get(picture.key, ())
                return Qt.CheckState.Checked if on else Qt.CheckState.Unchecked
            if role == Qt.ItemDataRole.ToolTipRole:
                return self.classes[column - 1]
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return picture.title
        if role == Qt.ItemDataRole.ToolTipRole:
            return f"{picture.path or picture.key}\n{self._told(picture)}"
        if role == Qt.ItemDataRole.DecorationRole:
            return self._pixmap(picture)
        return None

    def _told(self, picture: Picture) -> str:
        if picture.key not in self.tags:
            return "No tag yet"
        return ", ".join(self.tags_of(picture)) or "None of the classes"

    def setData(
        self, index: QModelIndex, value: Any, role: int = Qt.ItemDataRole.EditRole
    ) -> bool:
        """Set or take a tag."""
        if role != Qt.ItemDataRole.CheckStateRole or index.column() == NAME:
            return False
        has = self.data(index, role) == Qt.CheckState.Checked
        if has != (Qt.CheckState(value) == Qt.CheckState.Checked):
            self.toggle([index.row()], index.column() - 1)
        return True

    def _pixmap(self, picture: Picture) -> QPixmap:
        """Return a thumbnail, or a blank one while it is made."""
        name = picture.key
        if name in self._pixmaps:
            self._pixmaps.move_to_end(name)
            return self._pixmaps[name] or self._blank
        if name not in self._asked:
            self._asked[name] = None
            while len(self._asked) > MAX_WAITING:  # so many the background keeps
                self._asked.popitem(last=False)
            self._background.call(
                picture.small,
                lambda array: self._keep(picture, array),
                lambda _: self._keep(picture, None),
            )
        return self._blank

    def _keep(self, picture: Picture, array: np.ndarray | None) -> None:
        self._asked.pop(picture.key, None)
        self._pixmaps[picture.key] = None if array is None else _pixmap(array)
        while len(self._pixmaps) > MAX_THUMBNAILS:
            self._pixmaps.popitem(last=False)
        if picture in self.pictures:
            cell = self.index(self.pictures.index(picture), NAME)
            self.dataChanged.emit(cell, cell, [Qt.ItemDataRole.DecorationRole])


def _pixmap(array: np.ndarray) -> QPixmap:
    """Return a picture cut to a square."""
    array = np.ascontiguousarray(array)
    height, width = array.shape[:2]
    image = QImage(array.data, width, height, 3 * width, QImage.Format.Format_RGB888)
    side = QSize(2 * THUMBNAIL, 2 * THUMBNAIL)
    scaled = QPixmap.fromImage(image.copy()).scaled(
        side,
        Qt.AspectRatioMode.KeepAspectRatioByExpanding,
        Qt.TransformationMode.SmoothTransformation,
    )
    left = (scaled.width() - side.width()) // 2
    top = (scaled.height() - side.height()) // 2
    cut = scaled.copy(QRect(left, top, side.width(), side.height()))
    cut.setDevicePixelRatio(2)
    return cut


class TagDelegate(QStyledItemDelegate):
    """Draws a class as a square in its colour: full, or only its outline."""

    def paint(
        self,
        painter: QPainter | None,
        option: QStyleOptionViewItem,
        index: QModelIndex,
    ) -> None:
        """Draw a cell."""
        assert painter is not None
        if option.state & QStyle.StateFlag.State_Selected:
            painter.fillRect(option.rect, option.palette.highlight())
        on = index.data(Qt.ItemDataRole.CheckStateRole) == Qt.CheckState.Checked
        color = QColor(class_color(index.column() - 1))
        side = 14
        box = QRect(0, 0, side, side)
        box.moveCenter(option.rect.center())
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(color if on else QColor(130, 134, 142), 1.4))
        painter.setBrush(color if on else Qt.BrushStyle.NoBrush)
        painter.drawRoundedRect(box, 3, 3)
        if on:
            painter.setPen(QPen(QColor(20, 20, 20), 2))
            painter.drawLine(
                box.left() + 3, box.center().y(), box.left() + 6, box.bottom() - 3
            )
            painter.drawLine(
                box.left() + 6, box.bottom() - 3, box.right() - 3, box.top() + 4
            )
        elif index.data(IS_NONE):
            y = box.center().y()
            painter.drawLine(box.left() + 3, y, box.right() - 3, y)
        painter.restore()

    def editorEvent(
        self,
        event: QEvent | None,
        model: QAbstractItemModel | None,
        option: QStyleOptionViewItem,
        index: QModelIndex,
    ) -> bool:
        """Toggle the class, wherever in the cell the click is."""
        assert event is not None and isinstance(model, TagTable)
        if event.type() != QEvent.Type.MouseButtonRelease:
            return False
        model.toggle([index.row()], index.column() - 1)
        return True


class TagView(QTableView):
    """The table on screen, worked with the keyboard or the mouse."""

    marked = Signal(object)
    last_passed = Signal()

    def __init__(self, table: TagTable) -> None:
        super().__init__()
        self.table = table
        self.setModel(table)
        self.setItemDelegate(QStyledItemDelegate(self))
        self._delegate = TagDelegate(self)
        self._before: list[int] = []
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setShowGrid(False)
        self.setIconSize(QSize(THUMBNAIL, THUMBNAIL))
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setTabKeyNavigation(False)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        rows = self.verticalHeader()
        rows.hide()
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        rows.setDefaultSectionSize(THUMBNAIL + 4)
        head = self.horizontalHeader()
        head.setMinimumSectionSize(22)
        head.setHighlightSections(False)
        self.setAccessibleName("Images and their tags")
        self.setToolTip(
            "1 to 9 toggle a class, 0 says none of them, Enter goes on, Backspace "
            "clears, Ctrl+Z takes back. Several marked rows are tagged at once."
        )
        table.modelReset.connect(self._lay_out)
        table.layoutAboutToBeChanged.connect(self._remember)
        table.layoutChanged.connect(self._restore)
        self._lay_out()

    def marked_rows(self) -> list[int]:
        """Return the rows that are marked, top first."""
        return sorted(index.row() for index in self.selectionModel().selectedRows())

    def mark(self, row: int) -> None:
        """Mark one row and bring it into view."""
        if 0 <= row < len(self.table.pictures):
            flag = QItemSelectionModel.SelectionFlag
            cell = self.table.index(row, NAME)
            self.selectionModel().setCurrentIndex(cell, flag.ClearAndSelect | flag.Rows)
            self.scrollTo(cell)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        """Tag with digits, go on with Enter."""
        assert event is not None
        key, rows = event.key(), self.marked_rows()
        no_keys = event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
        control = Qt.KeyboardModifier.ControlModifier
        if key == Qt.Key.Key_Z and event.modifiers() & control:
            self.table.undo()
        elif Qt.Key.Key_1 <= key <= Qt.Key.Key_9 and not no_keys:
            self.table.toggle(rows, key - Qt.Key.Key_1)
        elif key == Qt.Key.Key_0 and not no_keys:
            self.table.set_none(rows)
        elif key in (Qt.Key.Key_Backspace, Qt.Key.Key_Delete):
            self.table.clear(rows)
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            back = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
            self._go_on(rows, back)
        else:
            super().keyPressEvent(event)
            return
        event.accept()

    def currentChanged(self, current: QModelIndex, previous: QModelIndex) -> None:
        """Tell which image is looked at."""
        super().currentChanged(current, previous)
        if current.isValid() and current.row() != previous.row():
            self.marked.emit(self.table.pictures[current.row()])

    def _go_on(self, rows: list[int], back: bool) -> None:
        if not rows:
            self.mark(0)
        elif back:
            self.mark(max(0, rows[0] - 1))
        elif rows[-1] + 1 < len(self.table.pictures):
            self.mark(rows[-1] + 1)
        else:
            self.last_passed.emit()

    def _remember(self) -> None:
        self._before = self.marked_rows()

    def _restore(self) -> None:
        """Mark the same rows in a table with other classes."""
        self._lay_out()
        self.blockSignals(True)
        for i, row in enumerate(self._before):
            last = self.table.index(row, self.table.columnCount() - 1)
            rows = QItemSelection(self.table.index(row, NAME), last)
            flag = QItemSelectionModel.SelectionFlag
            self.selectionModel().select(
                rows, flag.Select if i else flag.ClearAndSelect
            )
        self.blockSignals(False)

    def _lay_out(self) -> None:
        """Give the name all the room that the classes leave."""
        head = self.horizontalHeader()
        for column in range(self.table.columnCount()):
            is_name = column == NAME
            head.setSectionResizeMode(
                column,
                QHeaderView.ResizeMode.Stretch
                if is_name
                else QHeaderView.ResizeMode.Fixed,
            )
            if not is_name:
                self.setColumnWidth(column, 26)
            self.setItemDelegateForColumn(column, None if is_name else self._delegate)
