"""Curves that grow while a model is trained."""

from __future__ import annotations

import logging
from collections.abc import Collection
from html import escape
from typing import Any

from qtpy.QtCore import QEvent, QTimer, Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from ...callbacks import reports_errors
from ..controls import wrap
from ..plain_text import HtmlLabel

logger = logging.getLogger(__name__)

COLORS = ("#ffb000", "#35c9ff", "#9be564", "#ff7ab8", "#c69cff", "#ffe14d")
DRAWN_EVERY_MS = 150
ROOM = 1.4
"""End of an axis over its last point: the text of axes takes longer to draw than lines,
so axes are made longer only now and then."""
INK = "#8a919c"
"""Colour of axes and numbers; readable on dark and on light themes."""


@reports_errors("draw")
class Curves(QWidget):
    """Curves of losses, and above them of scores (0 to 1) once there are any.

    pyqtgraph is loaded with the first point. Where it is not installed, the latest
    numbers are shown as text.

    Parameters
    ----------
    scores : collection of str
        Names of the series that are scores.
    x_name : str
        What is counted along x.
    """

    grown = Signal()
    """A plot was added, so that the widget is higher."""

    def __init__(self, scores: Collection[str] = (), x_name: str = "step") -> None:
        super().__init__()
        self.points: dict[str, tuple[list[float], list[float]]] = {}
        self._scores = frozenset(scores)
        self._x_name = x_name
        self._lines: dict[str, Any] = {}
        self._plots: dict[bool, Any] = {}
        self._frame: Any = None
        self._changed: set[str] = set()
        self._ends: dict[str, float] = {}
        self._pause = QTimer(self)
        self._pause.setSingleShot(True)
        self._pause.setInterval(DRAWN_EVERY_MS)
        self._pause.timeout.connect(self.draw)
        self._numbers = HtmlLabel()
        wrap(self._numbers)
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(2)
        self._column.addWidget(self._numbers)

    def changeEvent(self, event: QEvent | None) -> None:
        """Follow a change of napari's theme."""
        super().changeEvent(event)
        is_style = event is not None and event.type() == QEvent.Type.StyleChange
        if is_style and self._frame is not None:
            self._frame.resetCachedContent()

    def add_point(self, series: str, x: float, y: float) -> None:
        """Add a point to the end of a series; its name is its entry in the legend."""
        xs, ys = self.points.setdefault(series, ([], []))
        xs.append(float(x))
        ys.append(float(y))
        self._changed.add(series)
        if not self._pause.isActive():
            self.draw()

    def draw(self) -> None:
        """Show the points added since; called now and then by itself."""
        for series in sorted(self._changed, key=list(self.points).index):
            line = self._line(series)
            if line is not None:
                line.setData(*self.points[series])
                self._make_room(series)
        if self._changed:
            self._show_numbers()
            self._pause.start()  # then points added meanwhile are drawn
        self._changed.clear()

    def _make_room(self, series: str) -> None:
        """Make the axes longer where points have reached their ends."""
        xs, ys = self.points[series]
        is_score = series in self._scores
        if max(xs) > self._ends.get("x", 0.0):
            self._ends["x"] = ROOM * max(xs)
        if not is_score and max(ys) > self._ends.get("y", 0.0):
            self._ends["y"] = ROOM * max(ys)
        ends = self._ends
        first = self._plots.get(False) or self._plots[True]  # the other follows along x
        (_, right), (_, top) = first.viewRange()
        if "x" in ends and ends["x"] != right:
            first.setXRange(0, ends["x"], padding=0)
        if "y" in ends and ends["y"] != top and False in self._plots:
            first.setYRange(0, ends["y"], padding=0)

    def clear(self) -> None:
        """Remove all points."""
        self._ends.clear()
        self._pause.stop()
        self._changed.clear()
        for series, line in self._lines.items():
            self._plots[series in self._scores].removeItem(line)
        self._lines.clear()
        self.points.clear()
        self._numbers.setText("")

    def color(self, series: str) -> str:
        """Return the colour of a series."""
        return COLORS[list(self.points).index(series) % len(COLORS)]

    def _line(self, series: str) -> Any:
        """Return the line of a series; None without pyqtgraph."""
        is_score = series in self._scores
        if is_score not in self._plots and not self._add_plot(is_score):
            return None
        if series not in self._lines:
            self._lines[series] = self._plots[is_score].plot(
                pen={"color": self.color(series), "width": 2},
                symbol="o" if is_score else None,
                symbolSize=5,
                symbolBrush=self.color(series),
                symbolPen=None,
            )
        return self._lines[series]

    def _add_plot(self, is_score: bool) -> bool:
        """Add the plot of the scores, or of the losses; return whether it is there."""
        try:
            import pyqtgraph
        except ImportError:
            logger.info("pyqtgraph is not installed: numbers instead of curves")
            self._numbers.setToolTip('Curves need pip install "napari-svpseg[train]"')
            return False
        if self._frame is None:
            self._frame = pyqtgraph.GraphicsLayoutWidget()
            self._frame.setBackground(None)
            self._frame.ci.setContentsMargins(0, 0, 0, 0)
            self._column.insertWidget(0, self._frame)
        plot = self._plots[is_score] = self._frame.addPlot(
            row=0 if is_score else 1, col=0, enableMenu=False
        )
        self._frame.setFixedHeight(120 * len(self._plots) + 12)
        self.grown.emit()
        if is_score:
            plot.setYRange(0, 1, padding=0.05)
        plot.hideButtons()
        plot.setMouseEnabled(x=False, y=False)
        plot.setLabel("left", "score" if is_score else "loss", color=INK)
        plot.getAxis("left").setWidth(44)
        for side in ("left", "bottom"):
            plot.getAxis(side).setPen(INK)
            plot.getAxis(side).setTextPen(INK)
            plot.getAxis(side).enableAutoSIPrefix(False)
        if not is_score:
            plot.setLabel("bottom", self._x_name, color=INK)
        if len(self._plots) == 2:
            self._plots[True].setXLink(self._plots[False])
            self._plots[True].getAxis("bottom").setStyle(showValues=False)
        return True

    def _show_numbers(self) -> None:
        """Write the legend: each series in its colour, with its latest number."""
        self._numbers.setText(
            " &nbsp; ".join(
                f'<span style="color:{self.color(name)}">●</span> '
                f"{escape(name)} {ys[-1]:.3g}"
                for name, (_, ys) in self.points.items()
            )
        )
