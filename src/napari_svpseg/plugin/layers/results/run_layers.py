"""Layers that a run shows in the viewer, changes and takes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ....core.jobs.stored_labels import Filled, StoredLabels
from ..images.visibility import bring_into_sight, is_in_sight
from ..metadata import metadata_of
from .corrected import corrected
from .journal import OPTIONS
from .result_layers import Kept, Results, recipe_of
from .stored_edits import KIND as STORED
from .stored_results import StoredResults, stored_arguments
from .written_labels import is_untouched

if TYPE_CHECKING:
    import numpy as np
    from napari.components import ViewerModel
    from napari.layers import Image, Labels

    from ....core.geometry import Tile
    from ....core.result import Recipe, Result
    from ..images.image_source import ImageSource
    from .run_step import Step


class RunLayers:
    """The layers of a viewer, as a run reads and writes them.

    Parameters
    ----------
    viewer : ViewerModel
    results : Results
        Results in memory.
    stored : StoredResults
        Results on the disk.

    Attributes
    ----------
    latest : Labels or None
        Layer of the latest result.
    """

    def __init__(
        self, viewer: ViewerModel, results: Results, stored: StoredResults
    ) -> None:
        self.viewer, self.results, self.stored = viewer, results, stored
        self.journal = results.journal
        self.latest: Labels | None = None

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

    def begin(self) -> None:
        """Take all that is shown until `end` back by one undo."""
        self.journal.begin()

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
        self.latest = layer
        values = {
            "probability": result.foreground,
            "uncertainty": result.uncertainty,
        }
        for name in maps if step.tile is None else ():
            self.results.show_map(source, step.plane, values[name], name)
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
            self.latest = self.stored.begin(step.source, step.plane, step.store, value)

    # ------------------------------------------------------------ changing it

    @property
    def is_latest_stored(self) -> bool:
        """Whether the latest result lies on the disk."""
        return self.latest is not None and bool(metadata_of(self.latest, STORED))

    def latest_kept(self) -> Kept | None:
        """Return the maps of the latest result, if it is still there."""
        kept = self.results.kept.get(getattr(self.latest, "unique_id", None))
        return kept if kept is not None and self.holds(kept) else None

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

    def undo(self) -> tuple[str, Recipe | None]:
        """Take the last change back; return what was done, and the recipe now shown.

        The recipe is given where result options were taken back.
        """
        edits = self.journal.edits
        are_options = bool(edits) and edits[-1].text == OPTIONS
        if edits and not are_options:
            self.results.forget(edits[-1])
        text = self.journal.undo()
        if not are_options or self.latest is None:
            return text, None
        return text, recipe_of(self.latest)
