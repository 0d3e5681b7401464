"""The rows of a table of objects, as Qt shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt, Signal
from qtpy.QtGui import QColor, QPalette
from qtpy.QtWidgets import QApplication

from ...core.labels.measure import Table
from .plain_text import tip_text

if TYPE_CHECKING:
    from napari.layers import Labels

Role = Qt.ItemDataRole
NO_INDEX = QModelIndex()


class ObjectRows(QAbstractTableModel):
    """Objects and their measurements; the first column says whether one is kept.

    Rows are sorted here and not by a proxy: thousands are sorted at once.
    """

    ticked = Signal(int, bool)
    """A row of the table of measurements, and whether it is to be kept."""

    def __init__(self) -> None:
        super().__init__()
        self.columns: Table = {}
        self.names: list[str] = []
        self.keep = np.zeros(0, bool)
        self.order = np.zeros(0, np.intp)
        self._layer: Labels | None = None
        self._sorted: tuple[int, Qt.SortOrder] | None = None

    def show_table(self, table: Table, keep: np.ndarray, layer: Labels | None) -> None:
        """Show other rows."""
        self.beginResetModel()
        self.columns, self.names = table, list(table)
        self.keep, self._layer = keep, layer
        self.order = np.arange(len(keep))
        if self._sorted is not None:
            self.order = self._order(*self._sorted)
        self.endResetModel()

    def show_kept(self, keep: np.ndarray) -> None:
        """Show which rows are kept."""
        if len(keep) == len(self.keep) and len(keep):
            self.keep = keep
            last = self.index(len(keep) - 1, len(self.names) - 1)
            self.dataChanged.emit(self.index(0, 0), last)

    def row_of(self, label: int) -> int | None:
        """Return the place of an object in the table, or None."""
        if "label" not in self.columns:
            return None
        found = np.flatnonzero(self.columns["label"][self.order] == label)
        return int(found[0]) if len(found) else None

    def text(self, row: int, column: int) -> str:
        """Return the content of a cell."""
        value = self.columns[self.names[column]][self.order[row]]
        if isinstance(value, np.floating):
            return "" if np.isnan(value) else f"{value:.5g}"
        return str(value)

    # ------------------------------------------------------------ for Qt

    def rowCount(self, parent: QModelIndex = NO_INDEX) -> int:
        """Return the number of objects."""
        return 0 if parent.isValid() else len(self.order)

    def columnCount(self, parent: QModelIndex = NO_INDEX) -> int:
        """Return the number of measurements."""
        return 0 if parent.isValid() else len(self.names)

    def headerData(
        self, section: int, side: Qt.Orientation, role: int = Role.DisplayRole
    ) -> Any:
        """Return the name of a column."""
        if side == Qt.Orientation.Vertical or section >= len(self.names):
            return None
        if role == Role.ToolTipRole:
            return tip_text(self.names[section])
        return self.names[section] if role == Role.DisplayRole else None

    def data(self, index: QModelIndex, role: int = Role.DisplayRole) -> Any:
        """Return what a cell shows."""
        if not index.isValid():
            return None
        row, first = self.order[index.row()], index.column() == 0
        if role == Role.DisplayRole:
            return self.text(index.row(), index.column())
        if role == Role.CheckStateRole and first:
            return Qt.CheckState.Checked if self.keep[row] else Qt.CheckState.Unchecked
        if role == Role.TextAlignmentRole and not first:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        if role == Role.ForegroundRole and not self.keep[row]:
            group = QPalette.ColorGroup.Disabled
            return QApplication.palette().color(group, QPalette.ColorRole.Text)
        if role == Role.DecorationRole and first and self._layer is not None:
            color = self._layer.get_color(int(self.columns["label"][row]))
            return None if color is None else QColor.fromRgbF(*map(float, color[:3]))
        return None

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        """Return what can be done with a cell."""
        found = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        if index.column() == 0:
            found |= Qt.ItemFlag.ItemIsUserCheckable
        return found

    def setData(
        self, index: QModelIndex, value: Any, role: int = Role.EditRole
    ) -> bool:
        """Keep an object, or remove it."""
        if role != Role.CheckStateRole or index.column() != 0:
            return False
        keep = Qt.CheckState(value) == Qt.CheckState.Checked
        self.ticked.emit(int(self.order[index.row()]), keep)
        return True

    def sort(
        self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder
    ) -> None:
        """Sort the rows by a column."""
        if not 0 <= column < len(self.names):
            return
        self.layoutAboutToBeChanged.emit()
        before = self.persistentIndexList()
        rows = [int(self.order[i.row()]) for i in before]
        self._sorted = (column, order)
        self.order = self._order(column, order)
        place = np.argsort(self.order)
        after = [
            self.index(int(place[row]), i.column())
            for row, i in zip(rows, before, strict=True)
        ]
        self.changePersistentIndexList(before, after)
        self.layoutChanged.emit()

    def _order(self, column: int, order: Qt.SortOrder) -> np.ndarray:
        if column >= len(self.names):
            return np.arange(len(self.keep))
        values = np.asarray(self.columns[self.names[column]])
        found = np.argsort(values, kind="stable")
        is_down = order == Qt.SortOrder.DescendingOrder
        return found[::-1] if is_down else found
