"""A part of a dock that is scrolled to."""

from __future__ import annotations

from qtpy.QtCore import QObject, QTimer
from qtpy.QtWidgets import QScrollArea, QWidget

LAYOUT_MS = 500
"""Time in which what was added to a dock is laid out."""


class ScrollTarget(QObject):
    """Scrolls to a widget, and keeps it in view while it is laid out.

    Parameters
    ----------
    area : QScrollArea
    widget : QWidget
        In the area.
    """

    def __init__(self, area: QScrollArea, widget: QWidget) -> None:
        super().__init__(area)
        self._area, self._widget = area, widget
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(LAYOUT_MS)
        self._timer.timeout.connect(self._scroll)
        bar = area.verticalScrollBar()
        assert bar is not None
        bar.rangeChanged.connect(self._on_laid_out)

    def show(self) -> None:
        """Bring the widget into view, now and while it is laid out."""
        self._timer.start()

    def _on_laid_out(self) -> None:
        if self._timer.isActive():
            self._scroll()

    def _scroll(self) -> None:
        self._area.ensureWidgetVisible(self._widget, 0, 0)
