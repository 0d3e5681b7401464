"""Layers that a run shows in the viewer, changes and takes back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ....core.image import ImageError
from ....core.jobs.stored_labels import Filled, StoredLabels
from ....core.labels.ids import count_objects
from ..images.visibility import bring_into_sight, is_in_sight
from ..metadata import is_image, is_of, layer_id, metadata_of
from .corrected import corrected
from .journal import OPTIONS, RUN
from .result_layers import Kept, Results, plane_recipe, recipe_of
from .stored_edits import KIND as STORED
from .stored_results import StoredResults, stored_arguments
from .written_labels import is_untouched

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels

    from ....core.geometry import Tile
    from ....core.result import Recipe, Result
    from ..images.image_source import ImageSource
    from .run_step import Step


RESULTS = ("preview", "labels", STORED)
"""Kinds of our layers that show a result."""


@dataclass(frozen=True, eq=False)
class ShownResult:
    """The result of an image that is shown: its newest layer, at the plane in view.

    Parameters
    ----------
    layer : Labels
    kept : Kept or None
        Its maps, where they are in memory.
    is_stored : bool
        Whether it lies on the disk.
    options : dict
        The result options that it was made with.
    """

    layer: Labels
    kept: Kept | None
    is_stored: bool
    options: dict[str, Any]

    @property
    def n_objects(self) -> int:
        """Number of objects; of a stack those of all planes."""
        if self.is_stored:
            return int((metadata_of(self.layer) or {}).get("objects", 0))
        return count_objects(np.asarray(self.layer.data))

    @property
    def trust(self) -> float:
        """How well the result finds the prompts again; NaN where it is not known."""
        value = (metadata_of(self.layer) or {}).get("trust")
        return float("nan") if value is None else float(value)


class RunLayers:
    """The layers of a viewer, as a run reads and writes them.

    Parameters
    ----------
    viewer : ViewerModel
    results : Results
        Results in memory.
    stored : StoredResults
        Results on the disk.
    """

    def __init__(
        self, viewer: ViewerModel, results: Results, stored: StoredResults
    ) -> None:
        self.viewer, self.results, self.stored = viewer, results, stored
        self.journal = results.journal
        self._newest: dict[str, Labels] = {}

    def shown_plane(self, source: ImageSource) -> tuple[int, ...]:
        """Return the index of the plane of an image that is shown.

        Raises
        ------
        ImageError
            If the view does not show Y and X.
        """
        return source.shown_plane(self.viewer)

    def visible_tile(self, source: ImageSource) -> Tile:
        """Return the visible part of an image."""
        return source.visible_tile(self.viewer)

    def has(self, source: ImageSource) -> bool:
        """Return whether an image is still open."""
        return source.layer in self.viewer.layers

    def bring_into_sight(self, layer: Image) -> None:
        """Show an image unless it is seen already."""
        if not is_in_sight(self.viewer, layer):
            bring_into_sight(self.viewer, layer)

    # ------------------------------------------------------------ a run

    def begin(self, *, options: bool = False) -> None:
        """Take all that is shown until `end` back by one undo."""
        self.journal.begin(OPTIONS if options else RUN)

    def end(self) -> None:
        """End what belongs to one undo."""
        self.journal.end()

    def show_plane(
        self, source: ImageSource, index: tuple[int, ...], labels: np.ndarray
    ) -> None:
        """Show a plane of a stack whose other planes are still being segmented."""
        if labels.shape == source.plane_shape:
            labels = corrected(source, index, labels)
            self.results.show(source, index, labels, text="Plane")

    def show(
        self, step: Step, result: Result, maps: Sequence[str] = ()
    ) -> tuple[Labels, str]:
        """Show a result and some of its maps; return its layer and a remark.

        Parameters
        ----------
        step : Step
        result : Result
        maps : sequence of str
            ``probability`` and ``uncertainty``.
        """
        source = step.source
        labels = corrected(source, step.plane, result.labels, step.tile)
        result = replace(result, labels=labels)
        remark = ""
        if step.tile is not None:
            layer = self.results.show_preview(
                source, step.plane or (), step.tile, result
            )
        else:
            self.results.drop_preview(source)
            layer, remark = self.results.show(
                source, step.plane, result.labels, result=result
            )
        self.results.keep(layer, source, step.plane, result, step.tile)
        self._newest[layer_id(source.layer)] = layer
        for name in maps if step.tile is None else ():
            is_probability = name == "probability"
            values = result.foreground if is_probability else result.uncertainty
            self.results.show_map(source, step.plane, values, name)
        return layer, remark

    @staticmethod
    def stored_arguments(step: Step) -> tuple[Any, dict[str, Any]]:
        """Return image and further arguments of `segment_stored` for a step."""
        return stored_arguments(step.source, step.plane, step.store)

    def show_stored(self, step: Step, value: StoredLabels | Filled) -> None:
        """Show as much of a result on the disk as there is."""
        if isinstance(value, Filled):
            self.stored.show(value)
        else:
            self.results.drop_preview(step.source)
            layer = self.stored.begin(step.source, step.plane, step.store, value)
            self._newest[layer_id(step.source.layer)] = layer

    # ------------------------------------------------------------ changing it

    def shown_result(self, image: Image) -> ShownResult | None:
        """Return the result of an image that is shown, or None without one."""
        layer = self._newest.get(layer_id(image))
        if layer is None or layer not in self.viewer.layers:
            found = (
                la
                for la in reversed(self.viewer.layers)
                if is_of(la, image) and (metadata_of(la) or {}).get("kind") in RESULTS
            )
            layer = next(found, None)
        return None if layer is None else self._shown(layer)

    def every_result(self) -> list[ShownResult]:
        """Return all results: the newest of each image, and all planes of stacks."""
        return list(self._every())

    def _every(self) -> Iterator[ShownResult]:
        for image in self.viewer.layers:
            shown = self.shown_result(image) if is_image(image) else None
            if shown is None:
                continue
            planes = self.results.planes_of(shown.layer)
            options = shown.options
            for kept in planes:
                yield ShownResult(shown.layer, kept, shown.is_stored, options)
            if not planes:
                yield shown

    def _shown(self, layer: Labels) -> ShownResult:
        metadata = metadata_of(layer) or {}
        planes = self.results.planes_of(layer)
        plane = None
        for kept in planes:
            try:
                plane = self.shown_plane(kept.source)
            except ImageError:  # seen from the side
                continue
        match = [k for k in planes if k.plane is None or k.plane == plane]
        recipe = plane_recipe(metadata.get("recipe") or {}, plane)
        return ShownResult(
            layer,
            match[-1] if match else None,
            metadata.get("kind") == STORED,
            dict(recipe.get("postprocess") or {}),
        )

    def holds(self, kept: Kept) -> bool:
        """Return whether the layer of a result is still there."""
        return kept.layer in self.viewer.layers

    def is_edited(self, kept: Kept) -> bool:
        """Return whether the user has edited a result."""
        return not is_untouched(kept.layer)

    def show_again(
        self, kept: Kept, labels: np.ndarray, options: dict[str, Any]
    ) -> int:
        """Show a result with other options; return the number of its objects."""
        labels = corrected(kept.source, kept.plane, labels, kept.tile)
        return self.results.show_again(kept, labels, options)

    def undo(self, image: Image | None) -> tuple[str, Recipe | None]:
        """Take the last change back; return what was done, and the recipe now shown.

        The recipe is given where result options of this image were taken back.
        """
        edits = self.journal.edits
        are_options = bool(edits) and edits[-1].text == OPTIONS
        changed = edits[-1].layers if are_options else []
        if edits and not are_options:
            self.results.forget(edits[-1])
        text = self.journal.undo()
        shown = None if image is None else self.shown_result(image)
        if shown is None or shown.layer not in changed:
            return text, None
        return text, recipe_of(shown.layer)
