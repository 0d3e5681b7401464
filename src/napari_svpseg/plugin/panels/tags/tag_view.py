"""The table of tags on screen: digits toggle classes, Enter goes on."""

from __future__ import annotations

from qtpy.QtCore import (
    QAbstractItemModel,
    QEvent,
    QItemSelection,
    QItemSelectionModel,
    QModelIndex,
    QRect,
    QSize,
    Qt,
    Signal,
)
from qtpy.QtGui import QColor, QKeyEvent, QPainter, QPen
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableView,
)

from ...callbacks import reports_errors
from ...layers.labels.class_colors import class_color
from .tag_table import IS_NONE, NAME, TagTable
from .thumbnails import THUMBNAIL


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
        model.tags.toggle([index.row()], index.column() - 1)
        return True


@reports_errors("_lay_out", "_note_selection", "_restore")
class TagView(QTableView):
    """The table on screen, worked with the keyboard or the mouse."""

    selected = Signal(object)
    """The `TaggedImage` that is looked at."""
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
        rows, head = self.verticalHeader(), self.horizontalHeader()
        assert rows is not None and head is not None
        rows.hide()
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        rows.setDefaultSectionSize(THUMBNAIL + 4)
        head.setMinimumSectionSize(22)
        head.setHighlightSections(False)
        self.setAccessibleName("Images and their tags")
        self.setToolTip(
            "1 to 9: toggle a class. 0: none of the classes. Enter: next image. "
            "Backspace: clear the tags. Ctrl+Z: undo. All selected rows are tagged."
        )
        table.modelReset.connect(self._lay_out)
        table.layoutAboutToBeChanged.connect(self._note_selection)
        table.layoutChanged.connect(self._restore)
        self._lay_out()

    def selected_rows(self) -> list[int]:
        """Return the selected rows, top first."""
        return sorted(index.row() for index in self._selection().selectedRows())

    def select(self, row: int) -> None:
        """Select one row and bring it into view."""
        if 0 <= row < len(self.table.tags.images):
            flag = QItemSelectionModel.SelectionFlag
            cell = self.table.index(row, NAME)
            self._selection().setCurrentIndex(cell, flag.ClearAndSelect | flag.Rows)
            self.scrollTo(cell)

    def _selection(self) -> QItemSelectionModel:
        model = self.selectionModel()
        assert model is not None
        return model

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        """Tag with digits, go on with Enter."""
        assert event is not None
        key, rows = event.key(), self.selected_rows()
        no_keys = event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
        control = Qt.KeyboardModifier.ControlModifier
        if key == Qt.Key.Key_Z and event.modifiers() & control:
            self.table.tags.undo()
        elif Qt.Key.Key_1 <= key <= Qt.Key.Key_9 and not no_keys:
            self.table.tags.toggle(rows, key - Qt.Key.Key_1)
        elif key == Qt.Key.Key_0 and not no_keys:
            self.table.tags.set_none(rows)
        elif key in (Qt.Key.Key_Backspace, Qt.Key.Key_Delete):
            self.table.tags.clear(rows)
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            back = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
            self._go_on(rows, back)
        else:
            super().keyPressEvent(event)
            return
        event.accept()

    def currentChanged(self, current: QModelIndex, previous: QModelIndex) -> None:
        """Report which image is looked at."""
        super().currentChanged(current, previous)
        if current.isValid() and current.row() != previous.row():
            self.selected.emit(self.table.tags.images[current.row()])

    def _go_on(self, rows: list[int], back: bool) -> None:
        if not rows:
            self.select(0)
        elif back:
            self.select(max(0, rows[0] - 1))
        elif rows[-1] + 1 < len(self.table.tags.images):
            self.select(rows[-1] + 1)
        else:
            self.last_passed.emit()

    def _note_selection(self) -> None:
        self._before = self.selected_rows()

    def _restore(self) -> None:
        """Select the same rows in a table with other classes."""
        self._lay_out()
        self.blockSignals(True)
        for i, row in enumerate(self._before):
            last = self.table.index(row, self.table.columnCount() - 1)
            rows = QItemSelection(self.table.index(row, NAME), last)
            flag = QItemSelectionModel.SelectionFlag
            self._selection().select(rows, flag.Select if i else flag.ClearAndSelect)
        self.blockSignals(False)

    def _lay_out(self) -> None:
        """Give the name all the room that the classes leave."""
        head = self.horizontalHeader()
        assert head is not None
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
