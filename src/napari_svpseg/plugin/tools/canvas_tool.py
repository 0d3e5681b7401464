"""Base of the mouse tools that take clicks and drags on an image."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from ...core.image import ImageError
from ..callbacks import reports_errors
from ..layers.images.image_source import ImageSource
from ..layers.images.visibility import (
    activate,
    bring_into_sight,
    camera_of,
    is_in_sight,
)
from ..layers.metadata import is_image
from ..layers.world import NOT_YX, WorldPoint, shows_yx, world_point
from ..messages import sentence

if TYPE_CHECKING:
    from napari.layers import Image, Shapes

    from ..layers.prompts.prompt_book import PromptBook

CLICK_PIXELS = 8
"""A press and release closer than this on the screen is a click, not a drag."""

NEEDS_2D = "Switch to the 2-D view to draw or click."


@reports_errors("stop")
class CanvasTool(QObject):
    """Takes clicks and drags on an image, until another tool or layer is chosen.

    The layer of the boxes is the active one meanwhile: there are the keys, and a click
    on it neither paints nor moves the view.

    Parameters
    ----------
    book : PromptBook
        Knows the layer of the boxes of each image.
    """

    switched = Signal(bool)

    def __init__(self, book: PromptBook) -> None:
        super().__init__(book)
        self.book = book
        book.closed.connect(self.stop)
        self._layer: Shapes | None = None

    @property
    def is_on(self) -> bool:
        """Whether the next click is taken."""
        return self._layer is not None

    def problem(self, layer: Image) -> str:
        """Return why the tool is of no use on an image now; empty if it is."""
        if self.book.viewer.dims.ndisplay != 2:
            return NEEDS_2D
        try:
            source = self.book.source_of(layer)
            self._check(source)
        except (ImageError, ValueError) as error:
            return sentence(error)
        is_seen = shows_yx(self.book.viewer, source.companion.axes)
        return "" if is_seen else NOT_YX.format(source.name)

    def start(self, layer: Image) -> bool:
        """Start taking clicks on an image; return whether that is possible."""
        viewer, problem = self.book.viewer, self.problem(layer)
        if problem:
            self.book.message.emit(problem, True)
            self.switched.emit(False)
            return False
        source = self.book.source_of(layer)
        boxes = self.book.boxes.layer_on(source)
        self.stop()
        if not is_in_sight(viewer, layer):
            bring_into_sight(viewer, layer)
        activate(viewer, boxes)
        boxes.visible = True
        boxes.mode = "pan_zoom"
        boxes.mouse_pan = False
        boxes.cursor = "cross"
        boxes.mouse_drag_callbacks.append(self._on_drag)
        self._layer = boxes
        self._connect(boxes)
        self.switched.emit(True)
        return True

    def stop(self) -> None:
        """Stop taking clicks."""
        layer, self._layer = self._layer, None
        if layer is None:
            return
        self._disconnect(layer)
        if self._on_drag in layer.mouse_drag_callbacks:
            layer.mouse_drag_callbacks.remove(self._on_drag)
        layer.cursor = "standard"
        if layer in self.book.viewer.layers and str(layer.mode) == "pan_zoom":
            layer.mouse_pan = True
            layer.mode = "select"
        self.switched.emit(False)

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Add or remove layers without this being taken for another tool."""
        selection = self.book.viewer.layers.selection.events.active
        boxes = self._layer
        if boxes is not None:
            selection.disconnect(self._on_active)
        try:
            yield
        finally:
            if boxes is not None:
                activate(self.book.viewer, boxes)
                selection.connect(self._on_active)

    # ------------------------------------------------------------ of a tool

    def _check(self, source: ImageSource) -> None:
        """Raise `ImageError` or ValueError where the tool is of no use on an image."""

    def _press(self, source: ImageSource, point: WorldPoint) -> None:
        """Take the press of the button."""

    def _drag(self, source: ImageSource, points: list[WorldPoint]) -> None:
        """Show a drag so far, from its first point to the latest."""

    def _click(self, source: ImageSource, point: WorldPoint, *, more: bool) -> None:
        """Take a click; ``more`` is whether Shift was held."""

    def _release(
        self, source: ImageSource, points: list[WorldPoint], *, more: bool
    ) -> None:
        """Take a drag that has ended."""

    # ------------------------------------------------------------ events

    def _connect(self, layer: Shapes) -> None:
        """Stop as soon as the user turns to another tool or layer."""
        layers = self.book.viewer.layers
        layer.events.mode.connect(self._on_mode)
        layers.selection.events.active.connect(self._on_active)
        layers.events.removed.connect(self._on_removed)

    def _disconnect(self, layer: Shapes) -> None:
        layers = self.book.viewer.layers
        layer.events.mode.disconnect(self._on_mode)
        layers.selection.events.active.disconnect(self._on_active)
        layers.events.removed.disconnect(self._on_removed)

    def _on_mode(self, event: Any) -> None:
        if str(event.mode) != "pan_zoom":
            self.stop()

    def _on_active(self, event: Any) -> None:
        if event.value != self._layer:
            self.stop()

    def _on_removed(self, event: Any) -> None:
        if event.value == self._layer:
            self.stop()

    def _on_drag(self, layer: Shapes, event: Any) -> Generator[None, None, None]:
        if event.button != 1 or layer != self._layer:
            return
        viewer = self.book.viewer
        points, moved = [world_point(viewer, event.position)], False
        source = self._source_at(points[0], self.book.boxes.image_of(layer))
        if not shows_yx(viewer, source.companion.axes):
            self.book.message.emit(NOT_YX.format(source.name), True)
            self.stop()
            return
        event.handled = True
        self._press(source, points[0])
        yield
        while event.type == "mouse_move":
            end = world_point(viewer, event.position)
            distance = np.abs(np.subtract(end, points[0])).max()
            moved = moved or float(distance * camera_of(viewer).zoom) > CLICK_PIXELS
            event.handled = True
            points.append(end)
            if moved and source.contains(points[0]):
                self._drag(source, points)
            yield
        points.append(world_point(viewer, event.position))
        more = "Shift" in event.modifiers
        if moved and source.contains(points[0]):
            self._release(source, points, more=more)
        else:
            self._click(source, points[0], more=more)

    def _source_at(self, point: tuple[float, ...], preferred: Image) -> ImageSource:
        """Return the preferred image, or the topmost one that lies under the point."""
        source = self.book.source_of(preferred)
        if source.contains(point):
            return source
        for layer in reversed(self.book.viewer.layers):
            if layer.visible and is_image(layer):
                try:
                    other = self.book.source_of(layer)
                except ImageError:
                    continue
                if other.contains(point):
                    return other
        return source
