"""Curves that grow while a model is trained."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from qtpy.QtWidgets import QVBoxLayout, QWidget

from .controls import note

logger = logging.getLogger(__name__)

COLORS = ("#ffb000", "#35c9ff", "#9be564", "#ff7ab8", "#c69cff", "#ffe14d")
INK = "#8a919c"
"""Of axes and numbers; readable on dark and on light."""


class Curves(QWidget):
    """Numbers against steps: losses below, scores (0 to 1) above them.

    pyqtgraph is loaded with the first point. Where it is not installed, the latest
    numbers are shown as text.

    Parameters
    ----------
    scores : collection of str
        Names of the series that are scores.
    x_name : str
        What is counted along x.
    """

    def __init__(self, scores: Collection[str] = (), x_name: str = "step") -> None:
        super().__init__()
        self.points: dict[str, tuple[list[float], list[float]]] = {}
        self._scores = frozenset(scores)
        self._x_name = x_name
        self._lines: dict[str, Any] = {}
        self._plots: dict[bool, Any] = {}
        self._numbers = note()
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(2)
        self._column.addWidget(self._numbers)

    def add_point(self, series: str, x: float, y: float) -> None:
        """Add a point to the end of a series; its name is its entry in the legend."""
        xs, ys = self.points.setdefault(series, ([], []))
        xs.append(float(x))
        ys.append(float(y))
        if not self._plots:
            self._make_plots()
        line = self._line(series)
        if line is not None:
            line.setData(xs, ys)
        self._show_numbers()

    def clear(self) -> None:
        """Begin anew."""
        for series, line in self._lines.items():
            self._plots[series in self._scores].removeItem(line)
        self._lines.clear()
        self.points.clear()
        self._numbers.setText("")

    def color(self, series: str) -> str:
        """Return the colour of a series."""
        return COLORS[list(self.points).index(series) % len(COLORS)]

    def _line(self, series: str) -> Any:
        plot = self._plots.get(series in self._scores)
        if plot is None:
            return None
        if series not in self._lines:
            pen = {"color": self.color(series), "width": 2}
            symbol = "o" if series in self._scores else None
            self._lines[series] = plot.plot(
                pen=pen,
                symbol=symbol,
                symbolSize=5,
                symbolBrush=self.color(series),
                symbolPen=None,
            )
        return self._lines[series]

    def _make_plots(self) -> None:
        """Load pyqtgraph and make what is drawn on."""
        try:
            import pyqtgraph
        except ImportError:
            logger.info("pyqtgraph is not installed: numbers instead of curves")
            self._numbers.setToolTip('Curves need pip install "napari-svpseg[train]"')
            return
        frame = pyqtgraph.GraphicsLayoutWidget()
        frame.setBackground(None)
        frame.setFixedHeight(220 if self._scores else 140)
        frame.ci.setContentsMargins(0, 0, 0, 0)
        if self._scores:
            scores = self._plots[True] = frame.addPlot(row=0, col=0)
            scores.setYRange(0, 1, padding=0.05)
            scores.setLabel("left", "score", color=INK)
        below = self._plots[False] = frame.addPlot(row=len(self._plots), col=0)
        below.setLabel("left", "loss", color=INK)
        below.setLabel("bottom", self._x_name, color=INK)
        for plot in self._plots.values():
            plot.setMenuEnabled(False)
            plot.hideButtons()
            plot.setMouseEnabled(x=False, y=False)
            plot.setXLink(below)
            plot.getAxis("left").setWidth(44)
            for side in ("left", "bottom"):
                plot.getAxis(side).setPen(INK)
                plot.getAxis(side).setTextPen(INK)
        self._column.insertWidget(0, frame)

    def _show_numbers(self) -> None:
        """Write the legend: each series in its colour, with its latest number."""
        self._numbers.setText(
            " &nbsp; ".join(
                f'<span style="color:{self.color(name)}">●</span> {name} {ys[-1]:.3g}'
                for name, (_, ys) in self.points.items()
            )
        )
