"""A range of one measurement, chosen in its histogram or typed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QDoubleSpinBox, QSizePolicy, QVBoxLayout, QWidget

from ...core.labels.measure import Table
from ..callbacks import reports_errors
from .controls import button, combo, side_by_side
from .histogram import Histogram
from .plain_text import tip_text

if TYPE_CHECKING:
    from ..docks.objects_controller import Range

REST_MS = 200
"""From the last change of the range to its being applied."""

FIRST_COLUMN = "area"
DECIMALS = 3
LIMIT = 1e15


@reports_errors()
class RangeFilter(QWidget):
    """Chooses a measurement, and the range in which objects are kept."""

    ranged = Signal(str, float, float)
    """Name of the measurement, least and largest value that is kept."""
    reset = Signal()
    """All objects are to be kept."""

    def __init__(self) -> None:
        super().__init__()
        self._table: Table = {}
        self._limits: Range | None = None
        self.column = combo("Measurement that the histogram shows and the range is of")
        self.column.setAccessibleName("Measurement")
        self.histogram = Histogram()
        self.low, self.high = _number("Least value kept"), _number("Largest value kept")
        self.keep_all = button("Keep all", "Bring back all objects that were removed")
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(REST_MS)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(self.column)
        column.addWidget(self.histogram, 1)
        column.addWidget(side_by_side(self.low, self.high, self.keep_all))
        self.column.currentTextChanged.connect(self._on_column)
        self.histogram.ranged.connect(self._on_moved)
        for box in (self.low, self.high):
            box.valueChanged.connect(self._on_typed)
        self.keep_all.clicked.connect(self._on_keep_all)
        self._timer.timeout.connect(self._on_rest)
        self.show_table({}, None)

    def show_table(self, table: Table, limits: Range | None) -> None:
        """Show the measurements to choose from, and the range that holds."""
        self._table, self._limits = table, limits
        chosen = self.column.currentText() if limits is None else limits.column
        self.column.blockSignals(True)
        self.column.clear()
        self.column.addItems(list(table))
        self.column.setCurrentText(chosen if chosen in table else FIRST_COLUMN)
        self.column.blockSignals(False)
        for control in (self.column, self.low, self.high, self.keep_all):
            control.setEnabled(bool(table))
        self._on_column()

    def show_limits(self, limits: Range | None) -> None:
        """Show the range that holds, unless it is being changed."""
        if limits != self._limits and not self._timer.isActive():
            self._limits = limits
            self._on_column()

    def _on_column(self) -> None:
        """Show the values of the chosen measurement, and the range that is kept."""
        name, limits = self.column.currentText(), self._limits
        values = np.asarray(self._table.get(name, ()), float)
        finite = values[np.isfinite(values)]
        low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
        if limits is not None and limits.column == name:
            low, high = max(low, limits.low), min(high, limits.high)
        self.histogram.show_values(values, (float(low), float(high)))
        self._show_numbers(float(low), float(high))

    def _show_numbers(self, low: float, high: float) -> None:
        for box, value in ((self.low, low), (self.high, high)):
            box.blockSignals(True)
            box.setSingleStep(max(abs(high - low) / 50, 10.0**-DECIMALS))
            box.setValue(value)
            box.blockSignals(False)

    def _on_moved(self, low: float, high: float) -> None:
        self._show_numbers(low, high)
        self._timer.start()

    def _on_typed(self) -> None:
        self.histogram.show_range(self.low.value(), self.high.value())
        self._timer.start()

    def _on_rest(self) -> None:
        name = self.column.currentText()
        if name:
            # the numbers are rounded: the extremes are inside all the same
            slack = 0.5 * 10.0**-DECIMALS
            low, high = self.low.value() - slack, self.high.value() + slack
            self.ranged.emit(name, low, high)

    def _on_keep_all(self) -> None:
        self._timer.stop()
        self._limits = None
        self._on_column()
        self.reset.emit()


def _number(tip: str) -> QDoubleSpinBox:
    """Return a number for one end of the range."""
    box = QDoubleSpinBox()
    box.setToolTip(tip_text(tip))
    box.setAccessibleName(tip)
    box.setRange(-LIMIT, LIMIT)
    box.setDecimals(DECIMALS)
    box.setKeyboardTracking(False)
    box.setButtonSymbols(QDoubleSpinBox.ButtonSymbols.NoButtons)
    # it would ask for the width of its limit, or less than napari's themes draw
    box.setMinimumWidth(90)
    box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    return box
