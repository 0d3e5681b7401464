"""The mouse tool that places prompt boxes by a click or a drag."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import Signal

from ...core.geometry import MIN_BOX_SIZE, Box
from ..callbacks import reports_errors
from ..layers.images.image_source import ImageSource
from ..layers.images.visibility import is_in_sight
from ..layers.prompts.prompt_item import PromptItem
from ..layers.world import WorldPoint
from ..messages import SHOWING
from .canvas_tool import CanvasTool

if TYPE_CHECKING:
    from napari.layers import Image, Shapes

    from ..layers.prompts.prompt_book import PromptBook

DRAW = (
    "Click on a typical cell, or drag a square around a few. Hold Shift to place more "
    "than one box."
)
OUTSIDE = "That is outside '{}': click on the image."


@reports_errors()
class BoxTool(CanvasTool):
    """Places a box where the user clicks or drags on an image.

    Parameters
    ----------
    book : PromptBook
        Gets the boxes.
    """

    placed = Signal(object, tuple)
    """A box after which the tool is off, and row and column of the click in its image.
    """

    def __init__(self, book: PromptBook) -> None:
        super().__init__(book)
        self._rubber: Shapes | None = None

    def start(self, layer: Image) -> bool:
        """Start drawing: the next click or drag on the image places a box."""
        is_hidden = not is_in_sight(self.book.viewer, layer)
        is_on = super().start(layer)
        if is_on:
            self.book.intensities.request(self.book.source_of(layer))
            shown = SHOWING.format(layer.name) + " " if is_hidden else ""
            self.book.message.emit(shown + DRAW, False)
        return is_on

    def _check(self, source: ImageSource) -> None:
        Box(0, 0, self.book.size).clamped(source.plane_shape)

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

    def _drag(self, source: ImageSource, points: list[WorldPoint]) -> None:
        """Show the box that releasing the button would place."""
        start, end = points[0], points[-1]
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

    def _click(self, source: ImageSource, point: WorldPoint, *, more: bool) -> None:
        self._drop_rubber()
        item = self._stamp(source, point)
        if item is not None and not more:
            y, x = source.point_to_data(point)[source.companion.yx]
            self.stop()
            self.placed.emit(item, (float(y), float(x)))

    def _release(
        self, source: ImageSource, points: list[WorldPoint], *, more: bool
    ) -> None:
        self._drop_rubber()
        start, end = points[0], points[-1]
        box = self._dragged(source, start, end)
        item = self.book.place(source, source.plane_at(start), box)
        if not more:
            self.stop()
            self.placed.emit(item, _middle(item))

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


def _middle(item: PromptItem) -> tuple[float, float]:
    """Return row and column of the middle of a prompt's box."""
    assert item.box is not None
    half = (item.box.size - 1) / 2
    return item.box.y + half, item.box.x + half
