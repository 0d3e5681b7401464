"""A part that scrolls up and down, as wide as what it holds."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtWidgets import QFrame, QScrollArea, QWidget


class BodyArea(QScrollArea):
    """Scrolls a body up and down; it is always wide enough for it.

    Parameters
    ----------
    body : QWidget
    min_width : int
        In pixels.
    """

    def __init__(self, body: QWidget, min_width: int) -> None:
        super().__init__()
        self._body, self._min_width = body, min_width
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWidget(body)

    def minimumSizeHint(self) -> QSize:
        """Return the width that the body needs with its contents and font."""
        bar, port = self.verticalScrollBar(), self.viewport()
        assert bar is not None and port is not None
        # A style may draw a shown bar wider than it says beforehand.
        room = bar.sizeHint().width()
        if bar.isVisible():
            room = max(room, self.width() - port.width())
        needed = self._body.minimumSizeHint().width() + room
        return QSize(max(self._min_width, needed), super().minimumSizeHint().height())

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Follow the width of the body."""
        if event is not None and event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return super().eventFilter(watched, event)
