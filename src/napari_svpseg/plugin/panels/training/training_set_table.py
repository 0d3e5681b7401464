"""The table of a training set: images, labels, and what they are used for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
)

from ....io.training_set import Entry
from ...callbacks import reports_errors
from ..plain_text import tip_text

COLUMNS = ("Image", "Cells", "Backgr.", "Use", "Check")
TIPS = (
    "Image of the training set",
    "Labelled cells, and their pixels",
    "Labelled pixels of background",
    "Train with this image. Uncheck it to leave the image out",
    "Use this image for validation only, not for training",
)
IMAGE, CELLS, BACKGROUND, USE, CHECK = range(5)
MIN_ROWS, MAX_ROWS = 2, 6


@reports_errors()
class TrainingSetTable(QTableWidget):
    """Shows entries; reports what the user switches on or off."""

    used = Signal(str, bool)
    validation = Signal(str, object)

    def __init__(self) -> None:
        super().__init__(0, len(COLUMNS))
        self.setAccessibleName("Images of the training set")
        self.setToolTip("Images of the training set, and what they are used for")
        self.setHorizontalHeaderLabels(COLUMNS)
        for i, tip in enumerate(TIPS):
            title = self.horizontalHeaderItem(i)
            assert title is not None
            title.setToolTip(tip_text(tip))
        header, rows = self.horizontalHeader(), self.verticalHeader()
        assert header is not None and rows is not None
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(IMAGE, QHeaderView.ResizeMode.Stretch)
        header.setMinimumSectionSize(30)
        header.setHighlightSections(False)
        rows.hide()
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setShowGrid(False)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.itemChanged.connect(self._on_changed)
        self._fit()

    def show_entries(self, entries: Sequence[Entry]) -> None:
        """Show the entries of a training set."""
        self.blockSignals(True)
        self.setRowCount(len(entries))
        for row, entry in enumerate(entries):
            for column, item in enumerate(_cells(entry)):
                self.setItem(row, column, item)
        self.blockSignals(False)
        self._fit()

    def _fit(self) -> None:
        """Set the height that the rows need, within limits."""
        header, rows = self.horizontalHeader(), self.verticalHeader()
        assert header is not None and rows is not None
        n = min(max(MIN_ROWS, self.rowCount()), MAX_ROWS)
        height = header.sizeHint().height() + n * rows.defaultSectionSize()
        self.setFixedHeight(height + 2 * self.frameWidth())

    def _on_changed(self, item: QTableWidgetItem) -> None:
        image = self.item(item.row(), IMAGE)
        assert image is not None
        name = image.data(Qt.ItemDataRole.UserRole)
        is_on = item.checkState() == Qt.CheckState.Checked
        if item.column() == USE:
            self.used.emit(name, is_on)
        elif item.column() == CHECK:
            self.validation.emit(name, True if is_on else None)


def _cells(entry: Entry) -> list[QTableWidgetItem]:
    counts: dict[str, Any] = entry.counts or {}
    pixels, n = counts.get("objects", 0), counts.get("n_objects", 0)
    image = QTableWidgetItem(entry.name)
    image.setData(Qt.ItemDataRole.UserRole, entry.name)
    source = entry.source or entry.name
    image.setToolTip(tip_text(f"{source}, labels no. {entry.version}"))
    cells = QTableWidgetItem(f"{n} ({pixels:,} px)")
    background = QTableWidgetItem(f"{counts.get('background', 0):,}")
    for item in (cells, background):
        item.setTextAlignment(
            Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        )
    return [
        image,
        cells,
        background,
        _switch(entry.used),
        _switch(bool(entry.validation)),
    ]


def _switch(is_on: bool) -> QTableWidgetItem:
    item = QTableWidgetItem()
    item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable)
    item.setCheckState(Qt.CheckState.Checked if is_on else Qt.CheckState.Unchecked)
    return item
