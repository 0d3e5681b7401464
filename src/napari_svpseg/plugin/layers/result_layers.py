"""Results in the viewer: where they are written, and how that is undone."""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ...core.geometry import Tile
from ...core.result import Maps, Recipe, Result
from .class_colors import class_entries, dress, with_labels
from .image_source import (
    MARK,
    ImageSource,
    fingerprints,
    is_picture,
    is_untouched,
    mark_of,
)
from .visibility import is_in_sight

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels, Layer

MAX_UNDOABLE = 16_000_000
"""Pixels that a write may change in place; larger results get a layer of their own."""

WRITTEN = "svpseg_written"
"""Key, in a result's metadata, of the ids that we wrote."""

MAX_KEPT_BYTES = 1_000_000_000
"""Maps kept in memory, so that the result options need no new run."""


class Edit(Protocol):
    """Something we did to the viewer, and the way back."""

    text: str

    def undo(self) -> str:
        """Take it back; return what was done, for the user."""

    def is_possible(self, layers: Container[Layer]) -> bool:
        """Tell whether it can still be taken back, by the layers that are there."""

    @property
    def layers(self) -> list[Layer]:
        """What it has changed."""


@dataclass(eq=False)
class LayerAdded:
    """A result in a layer of its own."""

    viewer: ViewerModel
    layer: Labels
    text: str = "Run"

    def undo(self) -> str:
        """Remove the layer, unless the user has painted in it since."""
        if self.layer not in self.viewer.layers:
            return f"'{self.layer.name}' is gone already."
        if not is_untouched(self.layer):
            return f"'{self.layer.name}' was edited since and is kept."
        self.viewer.layers.remove(self.layer)
        return f"Removed '{self.layer.name}'."

    def is_possible(self, layers: Container[Layer]) -> bool:
        """Tell whether the layer is there."""
        return self.layer in layers

    @property
    def layers(self) -> list[Layer]:
        """The layer."""
        return [self.layer]


@dataclass(eq=False)
class LabelsWritten:
    """New ids in a part of one of our layers."""

    layer: Labels
    region: tuple[slice, ...]
    before: np.ndarray
    after: np.ndarray
    mark: dict[str, Any]
    text: str = "Run"

    def undo(self) -> str:
        """Put the old ids back, but not where the user has painted since."""
        now = np.asarray(self.layer.data[self.region])
        unchanged = now == self.after
        write_ids(self.layer, self.region, np.where(unchanged, self.before, now))
        self.layer.metadata[MARK] = dict(self.mark)
        remember(self.layer, self.region, self.before)
        dress(self.layer)
        kept = " Your own edits are kept." if not unchanged.all() else ""
        return f"'{self.layer.name}' is as it was before.{kept}"

    def is_possible(self, layers: Container[Layer]) -> bool:
        """Tell whether the layer is there."""
        return self.layer in layers

    @property
    def layers(self) -> list[Layer]:
        """The layer."""
        return [self.layer]


@dataclass(eq=False)
class Together:
    """Edits that belong to one run and are taken back at once."""

    edits: list[Edit]
    text: str = "Run"

    def undo(self) -> str:
        """Take all back, the newest first."""
        told = [edit.undo() for edit in reversed(self.edits)]
        return " ".join(told) if len(told) < 3 else f"Took back {len(told)} changes."

    def is_possible(self, layers: Container[Layer]) -> bool:
        """Tell whether any is left, and forget the others."""
        self.edits = [edit for edit in self.edits if edit.is_possible(layers)]
        return bool(self.edits)

    @property
    def layers(self) -> list[Layer]:
        """The layers of all of them."""
        return [layer for edit in self.edits for layer in edit.layers]


class Journal:
    """What was done, newest last."""

    def __init__(self, limit: int = 20) -> None:
        self.edits: list[Edit] = []
        self._limit = limit
        self._run: Together | None = None

    def begin(self) -> None:
        """From now on, edits belong to one run."""
        self._run = Together([])

    def end(self) -> None:
        """Close the run: later edits are on their own."""
        self._run = None

    def add(self, edit: Edit) -> None:
        """Remember an edit; the oldest are forgotten."""
        if self._run is not None:
            self._run.edits.append(edit)
            if self._run in self.edits:
                return
            edit = self._run
        self.edits = [*self.edits, edit][-self._limit :]

    def follow(self, layers: Container[Layer]) -> None:
        """Forget what was done to layers that have gone."""
        self.edits = [edit for edit in self.edits if edit.is_possible(layers)]

    def undo(self) -> str:
        """Take the newest edit back."""
        if not self.edits:
            return "Nothing to undo."
        return self.edits.pop().undo()


def write_ids(layer: Labels, region: tuple[slice, ...], new: np.ndarray) -> int:
    """Write ids into a part of a Labels layer through its own history.

    Only pixels that change are written, so that napari's own undo and redo stay right:
    replacing ``layer.data`` would leave them pointing at the old array.

    Returns
    -------
    int
        Number of pixels changed.
    """
    old = np.asarray(layer.data[region])
    changed = np.nonzero(old != new)
    if not changed[0].size:
        return 0
    indices = tuple(c + part.start for c, part in zip(changed, region, strict=True))
    layer.data_setitem(indices, new[changed].astype(layer.data.dtype))
    return int(changed[0].size)


def remember(
    layer: Labels,
    region: tuple[slice, ...] | None = None,
    ids: np.ndarray | None = None,
) -> None:
    """Keep what we wrote beside the layer, so that corrections of it can be told."""
    now = np.asarray(layer.data)
    if now.size > MAX_UNDOABLE:
        layer.metadata.pop(WRITTEN, None)
        return
    kept = layer.metadata.get(WRITTEN)
    if region is None or kept is None or kept.shape != now.shape:
        kept = layer.metadata[WRITTEN] = now.copy()
    if region is not None:
        kept[region] = now[region] if ids is None else ids


class Results:
    """The Labels layers and maps that this dock has made.

    Parameters
    ----------
    viewer : ViewerModel
    journal : Journal
    """

    def __init__(self, viewer: ViewerModel, journal: Journal) -> None:
        self.viewer = viewer
        self.journal = journal
        self.kept: dict[Any, Kept] = {}

    def layer_of(
        self, source: ImageSource, region: tuple[slice, ...] | None = None
    ) -> Labels | None:
        """Return our result layer of an image, if the user has not edited it there."""
        for layer in reversed(self.viewer.layers):
            mark = mark_of(layer, "labels")
            if (
                mark is not None
                and mark.get("source_id") == source.layer.unique_id
                and tuple(layer.data.shape) == source.companion.shape
                and is_untouched(layer, region)
            ):
                return layer
        return None

    def edited_layers(self, source: ImageSource) -> list[Labels]:
        """Return our result layers of an image that the user has edited since."""
        return [
            layer
            for layer in self.viewer.layers
            if (mark := mark_of(layer, "labels")) is not None
            and mark.get("source_id") == source.layer.unique_id
            and not is_untouched(layer)
        ]

    def show(
        self,
        source: ImageSource,
        plane: tuple[int, ...] | None,
        labels: np.ndarray,
        *,
        result: Result | None = None,
        text: str = "Run",
    ) -> tuple[Labels, str]:
        """Show labels of a plane (or all) of an image; return the layer and a remark.

        They are written into our own layer of that image where the user has not
        edited it, else into a new one.
        """
        region = source.companion.index(plane)
        layer = self.layer_of(source, region)
        edited = self.edited_layers(source) if layer is None else []
        values = source.companion.expand(labels, plane)
        if layer is not None and values.size <= MAX_UNDOABLE:
            self._update(layer, region, values, text)
            self._sign(layer, source, result, region)
        else:
            layer = self._add(source, plane, values, text)
            self._sign(layer, source, result, None)
        remark = (
            f" You edited '{edited[-1].name}', so this is in '{layer.name}'."
            if edited
            else ""
        )
        return layer, remark

    @staticmethod
    def _sign(
        layer: Labels,
        source: ImageSource,
        result: Result | None,
        region: tuple[slice, ...] | None,
    ) -> None:
        """Write into the layer's metadata what we wrote and how it came about."""
        old = mark_of(layer, "labels") or {}
        prints = fingerprints(np.asarray(layer.data), source.companion.axes, region)
        mark: dict[str, Any] = {
            **old,
            "kind": "labels",
            "image": source.name,
            "source_id": source.layer.unique_id,
            "axes": source.companion.axes,
            "written": {**old.get("written", {}), **prints},
        }
        if result is not None:
            is_part = source.n_planes > 1 and result.labels.ndim == 2
            mark |= {
                "recipe": with_other_planes(result.recipe, old.get("recipe")),
                "trust": result.trust,
                "seconds": result.seconds,
                "objects": result.n_objects,
                "when": time.strftime("%Y-%m-%dT%H:%M:%S"),
                **class_entries(result, is_part=is_part),
            }
        layer.metadata[MARK] = mark
        remember(layer, region)
        dress(layer)

    def show_again(
        self, kept: Kept, labels: np.ndarray, options: dict[str, Any]
    ) -> int:
        """Write labels made with other result options; return how many objects."""
        layer, source = kept.layer, kept.source
        values = source.companion.expand(labels, kept.plane)
        mark = dict(mark_of(layer) or {})
        is_part = mark.get("kind") == "preview"
        region = (
            tuple(slice(0, n) for n in values.shape)
            if is_part
            else source.companion.index(kept.plane)
        )
        self._update(layer, region, values, "Options")
        n = int(np.unique(labels[labels > 0]).size)
        recipe = dict(mark.get("recipe") or {})
        recipe["postprocess"] = {**recipe.get("postprocess", {}), **options}
        layer.metadata[MARK] = {
            **mark,
            "recipe": recipe,
            "objects": n,
            "written": mark.get("written", {})
            | fingerprints(np.asarray(layer.data), source.companion.axes, region),
            **class_entries(
                with_labels(kept.result, labels, options),
                is_part=source.n_planes > 1 and kept.plane is not None and not is_part,
            ),
        }
        dress(layer)
        remember(layer, region)
        return n

    def keep(
        self,
        layer: Labels,
        source: ImageSource,
        plane: tuple[int, ...] | None,
        result: Result,
        tile: Tile | None = None,
    ) -> None:
        """Keep the maps of a result, for the result options."""
        self.kept = {
            k: v for k, v in self.kept.items() if v.layer in self.viewer.layers
        }
        self.kept[layer.unique_id] = Kept(
            layer, source, plane, replace(result, labels=result.labels[:0]), tile
        )
        while sum(k.n_bytes for k in self.kept.values()) > MAX_KEPT_BYTES:
            del self.kept[next(iter(self.kept))]

    def forget(self, edit: Edit) -> None:
        """Drop the maps of results that are taken back: the layer shows older ones."""
        for layer in edit.layers:
            self.kept.pop(layer.unique_id, None)

    def _update(
        self, layer: Labels, region: tuple[slice, ...], values: np.ndarray, text: str
    ) -> None:
        before = np.array(layer.data[region])
        mark = dict(mark_of(layer) or {})
        if write_ids(layer, region, values):
            edits = self.journal.edits
            last = edits[-1] if edits else None
            if (
                text == "Options"
                and isinstance(last, LabelsWritten)
                and last.text == text
                and last.layer == layer
                and last.region == region
            ):
                last.after = values  # one step of undo for one spell of sliding
                return
            self.journal.add(LabelsWritten(layer, region, before, values, mark, text))

    def _add(
        self,
        source: ImageSource,
        plane: tuple[int, ...] | None,
        values: np.ndarray,
        text: str,
    ) -> Labels:
        if plane is None or values.shape == source.companion.shape:
            data = np.ascontiguousarray(values, np.uint32)
        else:
            data = np.zeros(source.companion.shape, np.uint32)
            data[source.companion.index(plane)] = values
        layer = add_behind_boxes(
            self.viewer,
            lambda: self.viewer.add_labels(
                data,
                name=f"{source.name} [svpseg]",
                opacity=0.5,
                visible=is_in_sight(self.viewer, source.layer),
                **source.placement(),
            ),
        )
        self.journal.add(LayerAdded(self.viewer, layer, text))
        return layer

    def show_map(
        self,
        source: ImageSource,
        plane: tuple[int, ...] | None,
        values: np.ndarray,
        name: str,
    ) -> Layer:
        """Show a probability or uncertainty map under the result; ours is replaced."""
        title = f"{source.name} [svpseg] {name}"
        for layer in list(self.viewer.layers):
            mark = mark_of(layer, name)
            if mark and mark.get("source_id") == source.layer.unique_id:
                self.viewer.layers.remove(layer)
        corner = None
        if plane is not None:
            corner = source.companion.corner(plane)
        layer = add_behind_boxes(
            self.viewer,
            lambda: self.viewer.add_image(
                source.companion.expand(values, plane),
                name=title,
                colormap="magma" if name == "probability" else "inferno",
                contrast_limits=(0, 1),
                blending="additive",
                opacity=0.7,
                visible=is_in_sight(self.viewer, source.layer),
                metadata={MARK: {"kind": name, "source_id": source.layer.unique_id}},
                **source.placement(corner),
            ),
        )
        result = self.layer_of(source)
        if result is not None:
            layers = self.viewer.layers
            layers.move(layers.index(layer), layers.index(result))
        return layer

    def show_preview(
        self, source: ImageSource, plane: tuple[int, ...], tile: Tile, result: Result
    ) -> Labels:
        """Show the labels of the visible field in a layer that a run takes away."""
        values = np.ascontiguousarray(source.companion.expand(result.labels, plane))
        old = self.preview_of(source)
        region = source.companion.index(plane, tile)
        corner = tuple(s.start for s in region)
        if old is not None and self._same_place(old, region):
            write_ids(old, tuple(slice(0, n) for n in values.shape), values)
            layer = old
        else:
            self.drop_preview(source)
            layer = add_behind_boxes(
                self.viewer,
                lambda: self.viewer.add_labels(
                    values,
                    name=f"{source.name} [svpseg] preview",
                    opacity=0.5,
                    **source.placement(corner),
                ),
            )
        layer.metadata[MARK] = {
            "kind": "preview",
            "image": source.name,
            "source_id": source.layer.unique_id,
            "axes": source.companion.axes,
            "written": fingerprints(np.asarray(layer.data), source.companion.axes),
            "recipe": result.recipe.to_dict(),
            "trust": result.trust,
            "region": region,
            **class_entries(result),
        }
        dress(layer)
        return layer

    @staticmethod
    def _same_place(layer: Labels, region: tuple[slice, ...]) -> bool:
        return bool((mark_of(layer) or {}).get("region") == region)

    def preview_of(self, source: ImageSource) -> Labels | None:
        """Return our preview of an image, if the user has not edited it."""
        for layer in self.viewer.layers:
            mark = mark_of(layer, "preview")
            if (
                mark is not None
                and mark.get("source_id") == source.layer.unique_id
                and is_untouched(layer)
            ):
                return layer
        return None

    def drop_preview(self, source: ImageSource) -> None:
        """Take our preview of an image away; an edited one stays."""
        layer = self.preview_of(source)
        if layer is not None:
            self.viewer.layers.remove(layer)


@dataclass(eq=False)
class Kept:
    """Maps of a result that is shown."""

    layer: Labels
    source: ImageSource
    plane: tuple[int, ...] | None
    result: Result
    tile: Tile | None = None

    @property
    def maps(self) -> Maps:
        """The maps."""
        return self.result.maps

    @property
    def n_bytes(self) -> int:
        """Size of the maps."""
        arrays = (self.maps.foreground, self.maps.distance, self.maps.boundary)
        return sum(a.nbytes for a in arrays if a is not None)


def add_behind_boxes(viewer: ViewerModel, add: Callable[[], Any]) -> Any:
    """Add a layer below the boxes but above all images; the selection stays."""
    active = viewer.layers.selection.active
    layer = add()
    others = list(viewer.layers)[:-1]
    boxes = [i for i, la in enumerate(others) if mark_of(la, "boxes")]
    images = [i for i, la in enumerate(others) if is_picture(la)]
    place = max(min(boxes, default=len(others)), max(images, default=-1) + 1)
    if place < len(others):
        viewer.layers.move(len(others), place)
    if active is not None:
        viewer.layers.selection.active = active
    return layer


def with_other_planes(recipe: Recipe, before: dict[str, Any] | None) -> dict[str, Any]:
    """Return a plane's recipe with those of the layer's other planes.

    Planes may have been segmented with other prompts, options or models.
    """
    values = recipe.to_dict()
    if before and recipe.plane:
        one = {k: v for k, v in before.items() if k != "other_planes"}
        others = [*before.get("other_planes", ()), one]
        values["other_planes"] = tuple(
            other for other in others if tuple(other.get("plane", ())) != recipe.plane
        )
    return values


def recipe_of(layer: Labels) -> Recipe | None:
    """Return the recipe of one of our results, or None."""
    mark = mark_of(layer) or {}
    values = mark.get("recipe")
    if not values:
        return None
    import json

    return Recipe.from_json(json.dumps(values))
