"""The table of the objects of a result, with a filter and a histogram."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QItemSelectionModel, QTimer, Signal
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QSizePolicy,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from ...core.labels.measure import Table
from ...io.tables import tab_separated, write_table
from ..callbacks import reports_errors
from ..docks.objects_controller import ObjectsController
from ..layers.images.image_source import plain_name
from ..layers.images.visibility import activate, look_at
from ..messages import count
from .body_area import BodyArea
from .controls import button, can_be_seen, heading, is_alive, note, side_by_side
from .object_rows import ObjectRows
from .range_filter import RangeFilter

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels

    from ..docks.objects_controller import Range
    from ..docks.segment_controller import SegmentController

REST_MS = 300
"""From the last change of a layer to its being measured."""

OBJECT_PIXELS = 140
"""Least length on screen of an object that the camera moves to."""

SIDE_WIDTH = 440

SAVED = "Saved {objects} in {name}."
COPIED = "Copied {objects}: paste them into a spreadsheet."
NOTHING = "There are no objects to save: press Run."


@reports_errors("measure_soon", "save_table", "copy_table")
class ObjectsPanel(QWidget):
    """The objects of the selected image's result: measured, sorted, filtered.

    Parameters
    ----------
    viewer : ViewerModel
    runs : SegmentController
    """

    message = Signal(str, bool)

    def __init__(self, viewer: ViewerModel, runs: SegmentController) -> None:
        super().__init__()
        self.viewer = viewer
        self.controller = ObjectsController(self, runs)
        self._layer: Labels | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(REST_MS)
        self._timer.timeout.connect(self._on_rest)
        self._build()
        self._connect()

    def close_hooks(self) -> None:
        """Let go of the layer that is followed."""
        if is_alive(self):  # closed with the dock, or before it with the window
            self._timer.stop()
        self._follow_layer(None)
        self.controller.close()

    # ------------------------------------------------------------ layout

    def _build(self) -> None:
        self.title = heading("Objects")
        self.summary = note()
        self.filter = RangeFilter()
        self.save = button("Save table…", "Write the kept objects as CSV")
        self.copy = button("Copy table", "Copy the kept objects for a spreadsheet")
        self.rows = ObjectRows()
        self.table = QTableView()
        self.table.setModel(self.rows)
        self.table.setToolTip(
            "Click on a row to go to the object; uncheck it to remove the object"
        )
        self.table.setAccessibleName("Objects")
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setSortingEnabled(True)
        self._fit_headers()
        about = QWidget()
        column = QVBoxLayout(about)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(self.title)
        column.addWidget(self.summary)
        column.addStretch(1)
        column.addWidget(self.save)
        column.addWidget(self.copy)
        # beside each other, as this dock is low and wide
        side = side_by_side(about, self.filter, stretch=(1, 2))
        row = QHBoxLayout(self)
        row.setContentsMargins(6, 2, 6, 4)
        # in a low window the side scrolls, and the table is a few rows high
        area = BodyArea(side, SIDE_WIDTH)
        area.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Expanding)
        row.addWidget(area)
        row.addWidget(self.table, 1)

    def _fit_headers(self) -> None:
        across, down = self.table.horizontalHeader(), self.table.verticalHeader()
        assert across is not None and down is not None
        across.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        across.setStretchLastSection(False)
        down.setVisible(False)
        # a fixed height: Qt would ask thousands of rows for theirs
        down.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        down.setDefaultSectionSize(self.fontMetrics().height() + 6)

    def _connect(self) -> None:
        self.filter.ranged.connect(self.controller.filter)
        self.filter.reset.connect(self._on_reset)
        self.rows.ticked.connect(self._on_ticked)
        self.save.clicked.connect(lambda: self.save_table())
        self.copy.clicked.connect(self.copy_table)
        selection = self.table.selectionModel()
        assert selection is not None
        selection.currentRowChanged.connect(self._on_row)

    # ------------------------------------------------------------ of the controller

    def show_table(self, table: Table, keep: np.ndarray, layer: Labels | None) -> None:
        """Show rows, and which of them are kept."""
        self.rows.show_table(table, keep, layer)
        self._follow_layer(layer)
        self.filter.show_table(table, self.controller.limits)
        for name in range(len(table)):
            self.table.resizeColumnToContents(name)

    def show_kept(self, keep: np.ndarray, limits: Range | None) -> None:
        """Show which rows are kept, and the range that they are in."""
        self.rows.show_kept(keep)
        self.filter.show_limits(limits)

    def show_summary(self, title: str, text: str) -> None:
        """Show whose objects these are, and what they have in common."""
        self.title.setText(title or "Objects")
        self.summary.setText(text)

    def measure_soon(self) -> None:
        """Measure once the layer rests for a moment."""
        self._timer.start()

    def is_wanted(self) -> bool:
        """Return whether the table can be seen."""
        return can_be_seen(self)

    def say(self, text: str, error: bool = False) -> None:
        """Show a message in the dock."""
        self.message.emit(text, error)

    def showEvent(self, event: Any) -> None:
        """Measure what has come while the table was hidden."""
        super().showEvent(event)
        self.measure_soon()

    def _on_rest(self) -> None:
        self.controller.measure()

    def _on_reset(self) -> None:
        self.controller.reset()

    def _on_ticked(self, row: int, keep: bool) -> None:
        self.controller.tick(row, keep)

    # ------------------------------------------------------------ going there

    def _follow_layer(self, layer: Labels | None) -> None:
        if layer == self._layer:
            return
        if self._layer is not None:
            self._layer.events.selected_label.disconnect(self._on_label)
        self._layer = layer
        if layer is not None:
            layer.events.selected_label.connect(self._on_label)

    def _on_row(self, now: Any, before: Any = None) -> None:
        """Go to the object of a row, and select its label."""
        if not now.isValid() or self._layer is None:
            return
        found = self.controller.corners(int(self.rows.order[now.row()]))
        if found is None or self._layer not in self.viewer.layers:
            return
        corners, label = found
        activate(self.viewer, self._layer)
        self._layer.selected_label = label
        look_at(self.viewer, self._layer, corners, OBJECT_PIXELS)

    def _on_label(self) -> None:
        """Select the row of the label that is selected in napari."""
        row = (
            None
            if self._layer is None
            else self.rows.row_of(self._layer.selected_label)
        )
        if row is None or row == self.table.currentIndex().row():
            return
        selection = self.table.selectionModel()
        assert selection is not None
        selection.blockSignals(True)  # the view stays where it is
        index, flags = self.rows.index(row, 0), QItemSelectionModel.SelectionFlag
        selection.setCurrentIndex(index, flags.ClearAndSelect | flags.Rows)
        selection.blockSignals(False)
        self.table.scrollTo(index)
        viewport = self.table.viewport()
        assert viewport is not None
        viewport.update()

    # ------------------------------------------------------------ out of napari

    def save_table(self, path: str = "") -> None:
        """Write the kept objects as CSV; the file is asked for if none is given."""
        table = self.controller.kept_table()
        if not table:
            self.say(NOTHING, True)
            return
        if not path:
            name = f"{plain_name(self.title.text()).strip()}_objects.csv"
            path, _ = QFileDialog.getSaveFileName(
                self, "Save table", name, "CSV (*.csv)"
            )
        if not path:
            return
        file = Path(path)
        file = file if file.suffix else file.with_suffix(".csv")
        write_table(file, table, overwrite=True)
        n = len(table["label"])
        self.say(SAVED.format(objects=count(n, "object"), name=file.name))

    def copy_table(self) -> None:
        """Copy the kept objects as tab-separated text."""
        table = self.controller.kept_table()
        clipboard = QGuiApplication.clipboard()
        if not table or clipboard is None:
            self.say(NOTHING, True)
            return
        clipboard.setText(tab_separated(table))
        self.say(COPIED.format(objects=count(len(table["label"]), "object")))
