"""A part of a dock that is scrolled to."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QScrollArea, QWidget

from ..callbacks import reports_errors

LAYOUT_MS = 500
"""Time in which what was added to a dock is laid out, in several steps."""


@reports_errors("_scroll")
class ScrollTarget(QObject):
    """Scrolls to a widget, and keeps it in view while it grows.

    Parameters
    ----------
    area : QScrollArea
    widget : QWidget
        In the area.
    """

    def __init__(self, area: QScrollArea, widget: QWidget) -> None:
        super().__init__(area)
        self._area, self._widget = area, widget
        self._is_resized = True
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(LAYOUT_MS)
        self._timer.timeout.connect(self._scroll)
        bar = area.verticalScrollBar()
        assert bar is not None
        bar.rangeChanged.connect(self._on_range)
        widget.installEventFilter(self)

    def show(self) -> None:
        """Bring the widget into view, now and when it is laid out."""
        self._is_resized = False
        self._timer.start()

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Wait for the area to follow the size of the widget.

        On a busy machine a plot is laid out long after it was added, so the first
        change of size counts whenever it comes.
        """
        if event is not None and event.type() == QEvent.Type.Resize:
            if self._timer.isActive() or not self._is_resized:
                self._timer.start()
            self._is_resized = True
        return False

    def _on_range(self) -> None:
        if self._timer.isActive():
            self._scroll()

    def _scroll(self) -> None:
        self._area.ensureWidgetVisible(self._widget, 0, 0)
