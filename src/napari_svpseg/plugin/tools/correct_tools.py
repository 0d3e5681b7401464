"""Mouse tools that correct the objects of a result by a click or a line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ..callbacks import guarded, reports_errors
from ..layers.images.image_source import ImageSource
from ..layers.prompts.prompt_item import PromptItem
from ..layers.world import WorldPoint
from ..messages import sentence
from .canvas_tool import CanvasTool

if TYPE_CHECKING:
    from napari.layers import Image, Shapes

    from ..docks.correct_controller import CorrectController
    from ..layers.prompts.prompt_book import PromptBook

NOT_THIS = (
    "Click on a wrong object, or drag over several: they are removed, and what is like "
    "them in all images."
)
THE_WRONG_ONE = "Click on what is wrong in this box: the rest of it is no longer wrong."
SPLIT = "Draw a line through objects that are one and should be two."
JOIN = "Click on two objects that should be one."
JOIN_OTHER = "Now click on the other one."
STEP = 0.5
"""Pixels between the points at which a drag is looked at."""


class CorrectTool(CanvasTool):
    """Takes clicks on the objects of a result.

    Parameters
    ----------
    book : PromptBook
    correct : CorrectController
    """

    hint = ""
    """What to do, shown when the tool is chosen."""

    def __init__(self, book: PromptBook, correct: CorrectController) -> None:
        super().__init__(book)
        self.correct = correct
        self._trail: Shapes | None = None

    def start(self, layer: Image) -> bool:
        """Start taking clicks on an image."""
        is_on = super().start(layer)
        if is_on and self._layer is not None:
            escape = guarded(self, lambda _: self._escape())
            self._layer.bind_key("Escape", escape, overwrite=True)
            self.book.message.emit(self.hint, False)
        return is_on

    def stop(self) -> None:
        """Stop taking clicks."""
        if self._layer is not None:
            self._layer.bind_key("Escape", None)
        self._drop_trail()
        super().stop()

    def _escape(self) -> None:
        self.stop()

    def _check(self, source: ImageSource) -> None:
        self.correct.seen(source, source.shown_plane(self.book.viewer))

    def _try(self, action: Callable[[], object]) -> bool:
        """Return whether a correction could be made; show why it could not."""
        try:
            action()
        except ValueError as error:
            self.book.message.emit(sentence(error), True)
            return False
        return True

    # ------------------------------------------------------------ drags

    def _drag(self, source: ImageSource, points: list[WorldPoint]) -> None:
        """Show the line that is drawn."""
        layer = self.book.boxes.layer_on(source)
        path = np.stack([source.point_to_data(p) for p in points])
        with self.book.boxes.quiet():
            self._drop_trail()
            layer.add_paths([path], edge_color="white")
            self._trail = layer

    def _drop_trail(self) -> None:
        layer, self._trail = self._trail, None
        if layer is not None and layer in self.book.viewer.layers:
            with self.book.boxes.quiet():
                layer.remove([layer.nshapes - 1])


@reports_errors("stop")
class NotThisTool(CorrectTool):
    """Removes the objects that are clicked on or dragged over."""

    hint = NOT_THIS

    def __init__(self, book: PromptBook, correct: CorrectController) -> None:
        super().__init__(book, correct)
        self._instead: PromptItem | None = None

    def replace_box(self, item: PromptItem) -> None:
        """Ask which object in a box is wrong; the click replaces the box."""
        if item.source is None:
            return
        self.stop()
        if self.start(item.source.layer):
            self._instead = item
            self.book.message.emit(THE_WRONG_ONE, False)

    def stop(self) -> None:
        """Stop taking clicks."""
        self._instead = None
        super().stop()

    def _click(self, source: ImageSource, point: WorldPoint, *, more: bool) -> None:
        self._remove(source, [point])

    def _release(
        self, source: ImageSource, points: list[WorldPoint], *, more: bool
    ) -> None:
        self._drop_trail()
        self._remove(source, points)

    def _remove(self, source: ImageSource, points: list[WorldPoint]) -> None:
        path = between(pixels_of(source, points))
        plane, instead = source.plane_at(points[0]), self._instead
        done = self._try(lambda: self.correct.not_this(source, plane, path, instead))
        if done and instead is not None:
            self.stop()


@reports_errors("stop")
class SplitTool(CorrectTool):
    """Divides an object along a line."""

    hint = SPLIT

    def _click(self, source: ImageSource, point: WorldPoint, *, more: bool) -> None:
        self.book.message.emit(SPLIT, False)

    def _release(
        self, source: ImageSource, points: list[WorldPoint], *, more: bool
    ) -> None:
        self._drop_trail()
        path = np.array(pixels_of(source, points))
        plane = source.plane_at(points[0])
        self._try(lambda: self.correct.split(source, plane, path))


@reports_errors("stop")
class JoinTool(CorrectTool):
    """Makes one of two objects that are clicked on."""

    hint = JOIN

    def __init__(self, book: PromptBook, correct: CorrectController) -> None:
        super().__init__(book, correct)
        self._one: WorldPoint | None = None

    def stop(self) -> None:
        """Stop taking clicks."""
        self._one = None
        super().stop()

    def _click(self, source: ImageSource, point: WorldPoint, *, more: bool) -> None:
        one, self._one = self._one, None
        if one is None:
            self._one = point
            self.book.message.emit(JOIN_OTHER, False)
            return
        self._join(source, [one, point])

    def _release(
        self, source: ImageSource, points: list[WorldPoint], *, more: bool
    ) -> None:
        """Join the objects at both ends of a drag."""
        self._drop_trail()
        self._join(source, [points[0], points[-1]])

    def _join(self, source: ImageSource, points: list[WorldPoint]) -> None:
        ends, plane = pixels_of(source, points), source.plane_at(points[0])
        self._try(lambda: self.correct.join(source, plane, ends))


def pixels_of(
    source: ImageSource, points: list[WorldPoint]
) -> list[tuple[float, float]]:
    """Return points of the world as (y, x) on a plane of an image."""
    found = [source.point_to_data(p)[source.companion.yx] for p in points]
    return [(float(y), float(x)) for y, x in found]


def between(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return a line's points so close together that no pixel is left out."""
    ends = np.array(points)
    lengths = np.r_[0, np.cumsum(np.hypot(*np.diff(ends, axis=0).T))]
    at = np.arange(0, lengths[-1] + STEP, STEP)
    rows, columns = (np.interp(at, lengths, ends[:, i]) for i in (0, 1))
    return list(zip(rows.tolist(), columns.tolist(), strict=True))
