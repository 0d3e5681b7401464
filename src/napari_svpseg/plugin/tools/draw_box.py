"""The mouse tool that places prompt boxes by a click or a drag."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from ...core.geometry import MIN_BOX_SIZE, Box
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
from ..layers.prompts.prompt_item import PromptItem
from ..layers.world import NOT_YX, shows_yx, world_point
from ..messages import SHOWING, sentence

if TYPE_CHECKING:
    from napari.layers import Image, Shapes

    from ..layers.prompts.prompt_book import PromptBook

CLICK_PIXELS = 8
"""A press and release closer than this on the screen is a click, not a drag."""

NEEDS_2D = "Switch to the 2-D view to draw a box."
DRAW = (
    "Click on a typical cell, or drag a square around a few. Hold Shift to place more "
    "than one box."
)
OUTSIDE = "That is outside '{}': click on the image."


@reports_errors("stop")
class BoxTool(QObject):
    """Places a box where the user clicks or drags on an image.

    Parameters
    ----------
    book : PromptBook
        Gets the boxes.
    """

    switched = Signal(bool)
    placed = Signal(object, tuple)
    """A box after which the tool is off, and row and column of the click in its image.
    """

    def __init__(self, book: PromptBook) -> None:
        super().__init__(book)
        self.book = book
        book.closed.connect(self.stop)
        self._layer: Shapes | None = None
        self._rubber: Shapes | None = None

    def problem(self, layer: Image) -> str:
        """Return why no box can be drawn on an image now; empty if one can."""
        if self.book.viewer.dims.ndisplay != 2:
            return NEEDS_2D
        try:
            source = self.book.source_of(layer)
            Box(0, 0, self.book.size).clamped(source.plane_shape)
        except (ImageError, ValueError) as error:
            return sentence(error)
        is_seen = shows_yx(self.book.viewer, source.companion.axes)
        return "" if is_seen else NOT_YX.format(source.name)

    def start(self, layer: Image) -> None:
        """Start drawing: the next click or drag on the image places a box."""
        problem = self.problem(layer)
        if problem:
            self.book.message.emit(problem, True)
            self.switched.emit(False)
            return
        source = self.book.source_of(layer)
        boxes = self.book.boxes.layer_on(source)
        self.stop()
        shown = ""
        if not is_in_sight(self.book.viewer, layer):
            bring_into_sight(self.book.viewer, layer)
            shown = SHOWING.format(layer.name) + " "
        activate(self.book.viewer, boxes)
        boxes.visible = True
        boxes.mode = "pan_zoom"
        boxes.mouse_pan = False
        boxes.cursor = "cross"
        boxes.mouse_drag_callbacks.append(self._on_drag)
        self._layer = boxes
        self._connect(boxes)
        self.book.intensities.request(source)
        self.switched.emit(True)
        self.book.message.emit(shown + DRAW, False)

    def stop(self) -> None:
        """Stop drawing."""
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

    @property
    def is_on(self) -> bool:
        """Whether the next click places a box."""
        return self._layer is not None

    def _stamp(
        self, source: ImageSource, point: tuple[float, ...]
    ) -> PromptItem | None:
        """Place a box of the chosen size around a point of the world."""
        if not source.contains(point):
            self.book.message.emit(OUTSIDE.format(source.name), True)
            return None
        data = source.point_to_data(point)
        box = Box.centred(tuple(data[source.companion.yx]), self.book.size)
        return self.book.place(source, source.plane_at(point), box)

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
        start, moved = world_point(viewer, event.position), False
        source = self._source_at(start, self.book.boxes.image_of(layer))
        if not shows_yx(viewer, source.companion.axes):
            self.book.message.emit(NOT_YX.format(source.name), True)
            self.stop()
            return
        event.handled = True
        yield
        while event.type == "mouse_move":
            end = world_point(viewer, event.position)
            distance = np.abs(np.subtract(end, start)).max() * camera_of(viewer).zoom
            moved = moved or float(distance) > CLICK_PIXELS
            event.handled = True
            if moved and source.contains(start):
                self._show_rubber(source, start, end)
            yield
        self._drop_rubber()
        item: PromptItem | None
        if moved and source.contains(start):
            box = self._dragged(source, start, world_point(viewer, event.position))
            item = self.book.place(source, source.plane_at(start), box)
        else:
            item = self._stamp(source, start)
        if item is not None and "Shift" not in event.modifiers:
            self.stop()
            y, x = source.point_to_data(start)[source.companion.yx]
            self.placed.emit(item, _middle(item) if moved else (float(y), float(x)))

    def _show_rubber(
        self, source: ImageSource, start: tuple[float, ...], end: tuple[float, ...]
    ) -> None:
        """Show the box that releasing the button would place."""
        layer, box = self.book.boxes.layer_on(source), self._dragged(source, start, end)
        corners = source.companion.corners(source.plane_at(start), box)
        with self.book.boxes.quiet():
            if self._rubber is None:
                layer.add_rectangles([corners], edge_color="white")
                self._rubber = layer
            else:
                self._rubber.data = [
                    (d, "rectangle") for d in (*self._rubber.data[:-1], corners)
                ]

    def _drop_rubber(self) -> None:
        layer, self._rubber = self._rubber, None
        if layer is not None:
            with self.book.boxes.quiet():
                layer.remove([layer.nshapes - 1])

    @staticmethod
    def _dragged(
        source: ImageSource, start: tuple[float, ...], end: tuple[float, ...]
    ) -> Box:
        """Return the square that a drag spans, inside the image."""
        corners = np.stack(
            [source.point_to_data(p)[source.companion.yx] for p in (start, end)]
        )
        side = float(np.abs(corners[1] - corners[0]).max())
        direction = np.where(corners[1] >= corners[0], 1, -1)
        square = np.stack(
            [corners[0], corners[0] + direction * max(side, MIN_BOX_SIZE)]
        )
        return Box.from_corners(square, shape=source.plane_shape)

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


def _middle(item: PromptItem) -> tuple[float, float]:
    """Return row and column of the middle of a prompt's box."""
    assert item.box is not None
    half = (item.box.size - 1) / 2
    return item.box.y + half, item.box.x + half
