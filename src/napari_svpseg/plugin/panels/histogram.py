"""Histogram of a column of measurements, in which a range is chosen."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from qtpy.QtCore import QEvent, Signal
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from ..callbacks import reports_errors
from .controls import note
from .training.curves import COLORS, INK

logger = logging.getLogger(__name__)

MAX_BINS = 60
BAND = (138, 145, 156, 70)
"""Colour of the range; seen on dark and on light themes."""
NO_PLOTS = 'The histogram needs pip install "napari-svpseg[train]".'


@reports_errors()
class Histogram(QWidget):
    """Bars, and two lines that are moved to the ends of a range.

    pyqtgraph is loaded with the first values. Where it is not installed, a note says
    so; the range can still be typed.
    """

    ranged = Signal(float, float)
    """The ends of the range, after the user has moved one."""

    def __init__(self) -> None:
        super().__init__()
        self.setMinimumHeight(60)
        self._plot: Any = None
        self._bars: Any = None
        self._region: Any = None
        self._note = note()
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.addWidget(self._note)
        self._note.hide()

    def show_values(self, values: np.ndarray, kept: tuple[float, float]) -> None:
        """Show how often values occur, and the range that is kept."""
        finite = values[np.isfinite(values)]
        if self._plot is None and not len(finite):
            return  # pyqtgraph takes longer to load than a dock to open
        if not self._has_plot():
            return
        self._plot.setVisible(len(finite) > 0)
        if not len(finite):
            return
        counts, edges = np.histogram(finite, bins=n_bins(finite))
        self._bars.setOpts(
            x0=edges[:-1], x1=edges[1:], height=counts, brush=COLORS[1], pen=None
        )
        self._region.blockSignals(True)  # new bounds move the range
        self._region.setBounds((edges[0], edges[-1]))
        self._region.blockSignals(False)
        self.show_range(*kept)
        self._plot.setXRange(edges[0], edges[-1], padding=0.02)
        self._plot.setYRange(0, max(1, int(counts.max())), padding=0.05)

    def show_range(self, low: float, high: float) -> None:
        """Show a range; `ranged` is not emitted."""
        if self._region is None:
            return
        self._region.blockSignals(True)
        self._region.setRegion((low, high))
        self._region.blockSignals(False)

    def changeEvent(self, event: QEvent | None) -> None:
        """Follow a change of napari's theme."""
        super().changeEvent(event)
        is_style = event is not None and event.type() == QEvent.Type.StyleChange
        if is_style and self._plot is not None:
            self._plot.resetCachedContent()

    def _has_plot(self) -> bool:
        """Return whether there is a plot; it is made with the first values."""
        if self._plot is not None:
            return True
        try:
            import pyqtgraph
        except ImportError:
            logger.info("pyqtgraph is not installed: no histogram")
            self._note.setText(NO_PLOTS)
            self._note.show()
            return False
        self._plot = pyqtgraph.PlotWidget(background=None, enableMenu=False)
        self._plot.setMouseEnabled(x=False, y=False)
        self._plot.hideButtons()
        policy = QSizePolicy.Policy.Ignored  # it would ask for 640 x 480
        self._plot.setSizePolicy(policy, policy)
        for side in ("left", "bottom"):
            axis = self._plot.getAxis(side)
            axis.setPen(INK)
            axis.setTextPen(INK)
            axis.enableAutoSIPrefix(False)
        self._bars = pyqtgraph.BarGraphItem(x0=[0], x1=[1], height=[0])
        self._region = pyqtgraph.LinearRegionItem(brush=BAND)
        self._region.sigRegionChanged.connect(self._on_moved)
        self._plot.addItem(self._bars)
        self._plot.addItem(self._region)
        self._column.addWidget(self._plot)
        return True

    def _on_moved(self) -> None:
        low, high = self._region.getRegion()
        self.ranged.emit(float(low), float(high))


def n_bins(values: np.ndarray) -> int:
    """Return the number of bars for some values.

    Examples
    --------
    >>> n_bins(np.arange(100)), n_bins(np.ones(5))
    (10, 1)
    """
    if np.ptp(values) == 0:
        return 1
    return int(np.clip(np.sqrt(len(values)), 5, MAX_BINS))
