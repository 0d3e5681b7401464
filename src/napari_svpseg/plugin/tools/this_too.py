"""The mouse tool that adds a missed object, with an outline that can be corrected."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.annotation.patches import Patch
from ...core.geometry import Tile
from ...core.prompt import UNKNOWN
from ..callbacks import guarded, reports_errors
from ..layers.images.image_source import ImageSource
from ..layers.metadata import METADATA_KEY
from ..layers.world import WorldPoint
from .correct_tools import CorrectTool, between, pixels_of

if TYPE_CHECKING:
    from napari.layers import Image, Labels

    from ..docks.correct_controller import CorrectController
    from ..layers.prompts.prompt_book import PromptBook

Plane = tuple[int, ...]

NAME = "SVPSeg outline"
KIND = "outline"
THIS_TOO = "Click on a missed object: its outline is proposed."
ACCEPT = (
    "Scroll to resize, drag to paint or cut. Click on it (or Enter) to accept, Escape "
    "to drop it."
)
DROPPED = "The outline was dropped. Click on a missed object."
NOTHING_LEFT = "Nothing is left of the outline: click on a missed object."
MARGIN = 1.0
"""Pixels around an outline that can be painted, in its own lengths."""
BRUSH = 0.12
"""Radius of the brush, in lengths of the outline."""


@reports_errors("stop")
class ThisTooTool(CorrectTool):
    """Proposes the outline of a missed object, and adds it when it is accepted.

    Parameters
    ----------
    book : PromptBook
    correct : CorrectController
    """

    hint = THIS_TOO

    def __init__(self, book: PromptBook, correct: CorrectController) -> None:
        super().__init__(book, correct)
        self._shown: Labels | None = None
        self._tile = Tile(0, 0, 0, 0)
        self._of: tuple[ImageSource, Plane] | None = None
        self._patches: list[Patch] = []
        self._at = 0
        self._adds = True
        self._n_painted = 0

    @property
    def outline(self) -> np.ndarray | None:
        """The outline that is shown, (Y, X) bool on its plane, or None."""
        if self._shown is None or self._of is None:
            return None
        source, _ = self._of
        mask = np.zeros(source.plane_shape, bool)
        mask[self._tile.slices] = self._ids() > 0
        return mask

    def start(self, layer: Image) -> bool:
        """Start taking clicks on an image."""
        is_on = super().start(layer)
        if is_on and self._layer is not None:
            self._layer.mouse_wheel_callbacks.append(self._on_wheel)
            accept = guarded(self, lambda _: self.accept())
            self._layer.bind_key("Enter", accept, overwrite=True)
        return is_on

    def stop(self) -> None:
        """Stop taking clicks; an outline that was not accepted is dropped."""
        layer = self._layer
        super().stop()
        if layer is not None:
            if self._on_wheel in layer.mouse_wheel_callbacks:
                layer.mouse_wheel_callbacks.remove(self._on_wheel)
            layer.bind_key("Enter", None)
            layer.mouse_zoom = True
        self.drop()

    def _escape(self) -> None:
        if self._shown is None:
            self.stop()
            return
        self.drop()
        self.book.message.emit(DROPPED, False)

    # ------------------------------------------------------------ the outline

    def offer(
        self, source: ImageSource, plane: Plane, patches: list[Patch], at: int
    ) -> None:
        """Show outlines to choose from, to correct and to accept.

        Parameters
        ----------
        source : ImageSource
        plane : tuple of int
        patches : list of Patch
            From the smallest to the largest.
        at : int
            Index of the one that is shown first.
        """
        if not self.is_on and not self.start(source.layer):
            return
        self.drop()
        self._of, self._patches, self._at = (source, plane), patches, at
        self._tile = _around(patches, source.plane_shape)
        ids = self._patch_ids()
        corner = source.companion.corner(plane, self._tile)
        from napari.utils.colormaps import DirectLabelColormap

        white = {None: "transparent", 0: "transparent", 1: "white"}
        with self.undisturbed():
            self._shown = self.book.viewer.add_labels(
                source.companion.expand(ids, plane),
                name=NAME,
                colormap=DirectLabelColormap(color_dict=white),
                opacity=0.6,
                metadata={METADATA_KEY: source.entry(KIND, corner)},
                **source.placement(corner),
            )
        if self._layer is not None:
            self._layer.mouse_zoom = False  # the wheel is for the outline now
        self.book.message.emit(ACCEPT, False)

    def drop(self) -> None:
        """Take the outline away."""
        layer, self._shown = self._shown, None
        self._of = None
        if layer is not None and layer in self.book.viewer.layers:
            with self.undisturbed():
                self.book.viewer.layers.remove(layer)
        if self._layer is not None:
            self._layer.mouse_zoom = True

    def accept(self) -> None:
        """Add the object whose outline is shown."""
        outline, of = self.outline, self._of
        if outline is None or of is None:
            return
        self.drop()
        if not outline.any():
            self.book.message.emit(NOTHING_LEFT, True)
            return
        self._try(lambda: self.correct.this_too(*of, outline))

    def resize(self, steps: int) -> None:
        """Show a smaller or larger outline."""
        if self._shown is None:
            return
        self._at = int(np.clip(self._at + steps, 0, len(self._patches) - 1))
        self._put(self._patch_ids())

    def _patch_ids(self) -> np.ndarray:
        plane = np.full(self._tile.shape, UNKNOWN, np.int32)
        patch = self._patches[self._at]
        moved = replace(patch, y=patch.y - self._tile.y0, x=patch.x - self._tile.x0)
        plane[moved.slices] = moved.ids
        return np.maximum(plane, 0).astype(np.uint8)

    def _ids(self) -> np.ndarray:
        assert self._shown is not None
        return np.asarray(self._shown.data).reshape(self._tile.shape)

    def _put(self, ids: np.ndarray) -> None:
        assert self._shown is not None
        self._shown.data = ids.reshape(self._shown.data.shape)

    def _holds(self, point: tuple[float, float]) -> bool:
        """Return whether a point of the plane is in the outline that is shown."""
        y, x = round(point[0]) - self._tile.y0, round(point[1]) - self._tile.x0
        height, width = self._tile.shape
        return 0 <= y < height and 0 <= x < width and bool(self._ids()[y, x] > 0)

    # ------------------------------------------------------------ the mouse

    def _press(self, source: ImageSource, point: WorldPoint) -> None:
        self._n_painted = 0
        if self._shown is not None:
            self._adds = self._holds(pixels_of(source, [point])[0])

    def _click(self, source: ImageSource, point: WorldPoint, *, more: bool) -> None:
        at = pixels_of(source, [point])[0]
        if self._shown is not None and self._holds(at):
            self.accept()
            return
        plane = source.plane_at(point)

        def propose() -> None:
            self.offer(source, plane, *self.correct.propose(source, plane, at))

        self._try(propose)

    def _drag(self, source: ImageSource, points: list[WorldPoint]) -> None:
        """Paint in the outline, or cut it."""
        if self._shown is None:
            return
        ids = self._ids().copy()
        radius = max(1.0, BRUSH * float(np.sqrt(4 / np.pi * (ids > 0).sum())))
        rows, columns = np.ogrid[: ids.shape[0], : ids.shape[1]]
        fresh = points[max(0, self._n_painted - 1) :]
        self._n_painted = len(points)
        for y, x in between(pixels_of(source, fresh)):
            near = np.hypot(rows - y + self._tile.y0, columns - x + self._tile.x0)
            ids[near <= radius] = self._adds
        self._put(ids)

    def _release(
        self, source: ImageSource, points: list[WorldPoint], *, more: bool
    ) -> None:
        self._drag(source, points)

    def _on_wheel(self, layer: Any, event: Any) -> None:
        if self._shown is not None:
            self.resize(1 if event.delta[1] > 0 else -1)
            event.handled = True


def _around(patches: list[Patch], shape: tuple[int, int]) -> Tile:
    """Return the part of a plane in which outlines can be painted."""
    spans = [p.slices for p in patches]
    low = [min(s[i].start for s in spans) for i in (0, 1)]
    high = [max(s[i].stop for s in spans) for i in (0, 1)]
    margin = round(MARGIN * max(high[0] - low[0], high[1] - low[1]))
    return Tile(
        max(0, low[0] - margin),
        min(shape[0], high[0] + margin),
        max(0, low[1] - margin),
        min(shape[1], high[1] + margin),
    )
