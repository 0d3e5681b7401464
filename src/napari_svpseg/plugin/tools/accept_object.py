"""The mouse tool that copies the cells of a result into the labels to learn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from ...core.annotation.partial_labels import PartialLabelError
from ..callbacks import reports_errors
from ..layers.images.image_source import ImageSource
from ..layers.images.visibility import activate, camera_of
from ..layers.labels.partial_label_layers import accept, results_on
from ..layers.world import NOT_YX, shows_yx, world_point
from .canvas_tool import CLICK_PIXELS

if TYPE_CHECKING:
    from napari.components import ViewerModel

NO_RESULT = (
    "Nothing to accept: no result is shown on '{}'. Run Segment from prompts first."
)
CLICK = (
    "Click on correctly found cells: they are copied into the labels. Zoom and move as "
    "usual."
)
NO_CELL = "There is no cell of a result here."
ACCEPTED = (
    "Accepted {}: it is now among the labels to learn. To undo, select that layer and "
    "press Ctrl+Z."
)


@reports_errors()
class AcceptTool(QObject):
    """Copies cells of results into the labels to learn when they are clicked on.

    Parameters
    ----------
    viewer : napari.Viewer
    source : callable
        Returns the image whose results are accepted, or None.
    """

    switched = Signal(bool)
    accepted = Signal()
    message = Signal(str, bool)
    """A sentence, and whether it is an error."""

    def __init__(
        self, viewer: ViewerModel, source: Callable[[], ImageSource | None]
    ) -> None:
        super().__init__()
        self.viewer, self.source = viewer, source
        self.is_on = False

    def start(self) -> None:
        """Start taking clicks; the image is selected, so that they do not paint."""
        source = self.source()
        if source is None or self.is_on:
            return
        if not results_on(self.viewer, source):
            self.message.emit(NO_RESULT.format(source.name), True)
            self.switched.emit(False)
            return
        activate(self.viewer, source.layer)
        self.is_on = True
        self.viewer.mouse_drag_callbacks.append(self._on_drag)
        self.viewer.layers.selection.events.active.connect(self._on_active)
        self.switched.emit(True)
        self.message.emit(CLICK, False)

    def stop(self) -> None:
        """Stop taking clicks."""
        if not self.is_on:
            return
        self.is_on = False
        self.viewer.layers.selection.events.active.disconnect(self._on_active)
        if self._on_drag in self.viewer.mouse_drag_callbacks:
            self.viewer.mouse_drag_callbacks.remove(self._on_drag)
        self.switched.emit(False)

    def take(self, point: tuple[float, ...]) -> None:
        """Accept the cell at a point of the world."""
        source = self.source()
        if source is None:
            return
        active = self.viewer.layers.selection.active
        self.viewer.layers.selection.events.active.disconnect(self._on_active)
        try:
            what = accept(self.viewer, source, point)
        except (PartialLabelError, ValueError, IndexError) as error:
            self.message.emit(str(error), True)
            return
        finally:
            activate(self.viewer, active)  # a layer may have been made for it
            self.viewer.layers.selection.events.active.connect(self._on_active)
        if what is None:
            self.message.emit(NO_CELL, False)
            return
        self.accepted.emit()
        self.message.emit(ACCEPTED.format(what), False)

    def _on_active(self, event: Any) -> None:
        self.stop()

    def _on_drag(self, viewer: Any, event: Any) -> Iterator[None]:
        if event.button != 1 or viewer.dims.ndisplay != 2:
            return
        source = self.source()
        if source is not None and not shows_yx(viewer, source.companion.axes):
            self.message.emit(NOT_YX.format(source.name), True)
            return
        start, moved = world_point(viewer, event.position), False
        yield
        while event.type == "mouse_move":
            distance = np.subtract(event.position, start) * camera_of(viewer).zoom
            moved = moved or float(np.abs(distance).max()) > CLICK_PIXELS
            yield
        if not moved:
            self.take(start)
