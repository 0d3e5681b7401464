"""Drawing of the first box, which begins by itself."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QWidget

from ..callbacks import reports_errors
from ..layers.metadata import is_image
from ..panels.image_panel import ImagePanel
from .draw_box import BoxTool


@reports_errors("_start")
class FirstBox(QObject):
    """Starts the box tool while there is an image, and no prompt yet.

    It is started when the panel comes into sight, when an image is opened, and when its
    axes have been named; never while the user looks at another dock.

    Parameters
    ----------
    panel : QWidget
        With the button *Draw box*; owns this object.
    tool : BoxTool
    images : ImagePanel
        Whose selected image gets the box.
    """

    def __init__(self, panel: QWidget, tool: BoxTool, images: ImagePanel) -> None:
        super().__init__(panel)
        self._panel, self._tool, self._images = panel, tool, images
        self._soon = QTimer(self)  # after all layers of a sample, and its boxes
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self._start)
        layers = tool.book.viewer.layers
        layers.events.inserted.connect(self._on_inserted)
        tool.book.closed.connect(self._on_closed)
        images.redeclared.connect(self._on_redeclared)
        panel.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Ask for the first box when the panel comes into sight."""
        if event is not None and event.type() == QEvent.Type.Show:
            self._soon.start(0)
        return False

    def _on_inserted(self, event: Any) -> None:
        if is_image(event.value):
            self._soon.start(0)

    def _on_redeclared(self) -> None:
        self._soon.start(0)

    def _on_closed(self) -> None:
        self._soon.stop()
        layers = self._tool.book.viewer.layers
        layers.events.inserted.disconnect(self._on_inserted)

    def _start(self) -> None:
        layer = self._images.selected()
        if layer is None or self._tool.book.items or self._tool.is_on:
            return
        if self._panel.isVisible() and not self._tool.problem(layer):
            self._tool.start(layer)
