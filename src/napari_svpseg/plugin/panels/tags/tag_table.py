"""The table model of tags: images in rows, classes in columns."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt

from ...callbacks import reports_errors
from ...layers.images.tagged_image import TaggedImage
from ..plain_text import tip_text
from .tag_set import TagSet
from .thumbnails import Thumbnails

IS_NONE = Qt.ItemDataRole.UserRole
"""Role of a cell: whether its image has none of the classes."""

NAME = 0
"""Column of the thumbnail and the name; the classes follow."""


@reports_errors("_show_thumbnail")
class TagTable(QAbstractTableModel):
    """Images in rows, classes in columns.

    Parameters
    ----------
    tags : TagSet
    """

    def __init__(self, tags: TagSet) -> None:
        super().__init__()
        self.tags = tags
        self._thumbnails = Thumbnails()
        self._thumbnails.ready.connect(self._show_thumbnail)
        tags.resetting.connect(self.beginResetModel)
        tags.reset.connect(self._on_reset)
        tags.reclassing.connect(lambda: self.layoutAboutToBeChanged.emit())
        tags.reclassed.connect(self._on_reclassed)
        tags.retagged.connect(self._on_retagged)

    def close(self) -> None:
        """Make no more thumbnails."""
        self._thumbnails.close()

    def _on_reset(self) -> None:
        self._thumbnails.clear()
        self.endResetModel()

    def _on_reclassed(self) -> None:
        self.layoutChanged.emit()
        n = len(self.tags.classes)
        self.headerDataChanged.emit(Qt.Orientation.Horizontal, 0, n)

    def _on_retagged(self) -> None:
        if self.tags.images:
            last = self.index(len(self.tags.images) - 1, len(self.tags.classes))
            self.dataChanged.emit(self.index(0, NAME), last)

    def _show_thumbnail(self, image: TaggedImage) -> None:
        if image in self.tags.images:
            cell = self.index(self.tags.images.index(image), NAME)
            self.dataChanged.emit(cell, cell, [Qt.ItemDataRole.DecorationRole])

    # ------------------------------------------------------------ as Qt asks for it

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Return the number of images."""
        return 0 if parent is not None and parent.isValid() else len(self.tags.images)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        """Return the name's column and one for each class."""
        return 1 + len(self.tags.classes)

    def headerData(
        self,
        section: int,
        orientation: Qt.Orientation,
        role: int = Qt.ItemDataRole.DisplayRole,
    ) -> Any:
        """Return the digit of a class, and its name as a tip."""
        if orientation != Qt.Orientation.Horizontal or section > len(self.tags.classes):
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return "Image" if section == NAME else str(section)
        if role == Qt.ItemDataRole.TextAlignmentRole and section == NAME:
            return Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        if role == Qt.ItemDataRole.ToolTipRole and section > NAME:
            return tip_text(self.tags.classes[section - 1])
        return None

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        """Return the item flags of a cell."""
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        if index.column() > NAME:
            flags |= Qt.ItemFlag.ItemIsUserCheckable
        return flags

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return the value of a cell for a role."""
        image, column = self.tags.images[index.row()], index.column()
        if column > NAME:
            if role == IS_NONE:
                return self.tags.tags.get(image.key) == frozenset()
            if role == Qt.ItemDataRole.CheckStateRole:
                on = self.tags.classes[column - 1] in self.tags.tags.get(image.key, ())
                return Qt.CheckState.Checked if on else Qt.CheckState.Unchecked
            if role == Qt.ItemDataRole.ToolTipRole:
                return tip_text(self.tags.classes[column - 1])
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return image.title
        if role == Qt.ItemDataRole.ToolTipRole:
            return tip_text(f"{image.path or image.key}\n{self._told(image)}")
        if role == Qt.ItemDataRole.DecorationRole:
            return self._thumbnails.get(image)
        return None

    def _told(self, image: TaggedImage) -> str:
        if image.key not in self.tags.tags:
            return "No tag yet"
        return ", ".join(self.tags.tags_of(image)) or "None of the classes"

    def setData(
        self, index: QModelIndex, value: Any, role: int = Qt.ItemDataRole.EditRole
    ) -> bool:
        """Set or take a tag."""
        if role != Qt.ItemDataRole.CheckStateRole or index.column() == NAME:
            return False
        has = self.data(index, role) == Qt.CheckState.Checked
        if has != (Qt.CheckState(value) == Qt.CheckState.Checked):
            self.tags.toggle([index.row()], index.column() - 1)
        return True
