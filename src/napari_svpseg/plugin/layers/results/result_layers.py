"""Results in memory: the Labels layers and maps that show them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ....core.geometry import Tile
from ....core.labels.ids import count_objects
from ....core.result import Maps, Recipe, Result
from ..images.image_source import ImageSource
from ..images.visibility import add_behind_boxes, is_in_sight
from ..labels.class_colors import class_entries, dress, plain_colors, with_labels
from ..labels.object_colors import PALETTE, colormap_of, palette_of
from ..metadata import METADATA_KEY, is_of, layer_name, metadata_of
from .journal import OPTIONS, RUN, Edit, Journal, LabelsWritten, LayerAdded
from .kept_objects import note_remade
from .written_labels import (
    MAX_UNDOABLE,
    fingerprints,
    is_untouched,
    keep_written,
    write_ids,
)

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels, Layer

MAX_KEPT_BYTES = 1_000_000_000
"""Size of the maps kept in memory, which the result options are applied to."""


class Results:
    """The Labels layers and maps that a dock has made.

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
            if (
                is_of(layer, source.layer, "labels")
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
            if is_of(layer, source.layer, "labels") and not is_untouched(layer)
        ]

    def show(
        self,
        source: ImageSource,
        plane: tuple[int, ...] | None,
        labels: np.ndarray,
        *,
        result: Result | None = None,
        text: str = RUN,
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
            sign = partial(self._sign, layer, source, result, region)
            self._update(layer, region, values, text, sign)
        else:
            layer = self._add(source, plane, values, text, result)
        return layer, edited_remark([la.name for la in edited], layer)

    @staticmethod
    def _sign(
        layer: Labels,
        source: ImageSource,
        result: Result | None,
        region: tuple[slice, ...] | None,
    ) -> None:
        """Note in the layer's metadata what was written, and the recipe of it."""
        old = metadata_of(layer, "labels") or {}
        prints = fingerprints(np.asarray(layer.data), source.companion.axes, region)
        metadata: dict[str, Any] = {
            **old,
            **source.entry("labels"),
            "axes": source.companion.axes,
            "written": {**old.get("written", {}), **prints},
        }
        if result is not None:
            is_part = source.n_planes > 1 and result.labels.ndim == 2
            metadata |= {
                "recipe": with_other_planes(result.recipe, old.get("recipe")),
                "trust": result.trust,
                "seconds": result.seconds,
                "objects": result.n_objects,
                "when": datetime.now().isoformat(timespec="microseconds"),
                **class_entries(result, is_part=is_part),
            }
        layer.metadata[METADATA_KEY] = metadata
        keep_written(layer, region)

    def show_again(
        self, kept: Kept, labels: np.ndarray, options: dict[str, Any]
    ) -> int:
        """Write labels made with other result options; return how many objects."""
        layer, source = kept.layer, kept.source
        values = source.companion.expand(labels, kept.plane)
        metadata = dict(metadata_of(layer) or {})
        is_part = metadata.get("kind") == "preview"
        region = (
            tuple(slice(0, n) for n in values.shape)
            if is_part
            else source.companion.index(kept.plane)
        )
        n = count_objects(labels)
        recipe = with_options(metadata.get("recipe") or {}, kept.plane, options)

        def sign() -> None:
            layer.metadata[METADATA_KEY] = {
                **metadata,
                "recipe": recipe,
                "objects": n,
                "written": metadata.get("written", {})
                | fingerprints(np.asarray(layer.data), source.companion.axes, region),
                **class_entries(
                    with_labels(kept.result, labels, options),
                    is_part=source.n_planes > 1
                    and kept.plane is not None
                    and not is_part,
                ),
            }
            keep_written(layer, region)

        self._update(layer, region, values, OPTIONS, sign)
        return n

    def mend(
        self,
        kept: Kept,
        region: tuple[slice, ...],
        values: np.ndarray,
        text: str,
    ) -> None:
        """Write ids that the user has corrected into a part of a result.

        Parameters
        ----------
        kept : Kept
        region : tuple of slice
            Whole planes of the layer.
        values : int array
        text : str
            What made them.
        """
        layer, axes = kept.layer, kept.source.companion.axes
        before = dict(metadata_of(layer) or {})

        def sign() -> None:
            data = np.asarray(layer.data)
            layer.metadata[METADATA_KEY] = {
                **before,
                "objects": count_objects(data),
                "written": before.get("written", {}) | fingerprints(data, axes, region),
            }
            keep_written(layer, region)

        self._update(layer, region, values, text, sign)

    def keep(
        self,
        layer: Labels,
        source: ImageSource,
        plane: tuple[int, ...] | None,
        result: Result,
        tile: Tile | None = None,
    ) -> None:
        """Keep the maps of a result in memory, for the result options."""
        self.kept = {
            key: k
            for key, k in self.kept.items()
            if k.layer in self.viewer.layers
            and (
                k.layer != layer or (None not in (plane, k.plane) and k.plane != plane)
            )
        }
        self.kept.pop((layer.unique_id, plane), None)  # the newest goes last
        self.kept[layer.unique_id, plane] = Kept(
            layer, source, plane, replace(result, labels=result.labels[:0]), tile
        )
        while sum(k.n_bytes for k in self.kept.values()) > MAX_KEPT_BYTES:
            del self.kept[next(iter(self.kept))]

    def forget(self, edit: Edit) -> None:
        """Drop the maps of results that are undone: the layer shows older ones."""
        changed = edit.layers
        self.kept = {k: v for k, v in self.kept.items() if v.layer not in changed}

    def planes_of(self, layer: Labels) -> list[Kept]:
        """Return the maps of a layer that are kept, of each plane that has its own."""
        return [k for k in self.kept.values() if k.layer == layer]

    def _update(
        self,
        layer: Labels,
        region: tuple[slice, ...],
        values: np.ndarray,
        text: str,
        sign: Callable[[], None],
    ) -> None:
        """Write ids into a layer; they are noted, and ``sign`` called, before drawing.

        Parameters
        ----------
        layer : Labels
        region : tuple of slice
        values : int array
        text : str
            What made them: `RUN` or `OPTIONS`.
        sign : callable
            Notes in the layer's metadata what was written.
        """
        edit = LabelsWritten(
            layer,
            region,
            np.array(layer.data[region]),
            values,
            dict(metadata_of(layer) or {}),
            text,
        )

        def record(n: int) -> None:
            if n:
                self.journal.add_or_extend(edit)
            note_remade(layer)
            sign()

        write_ids(layer, region, values, record)
        dress(layer)

    def _add(
        self,
        source: ImageSource,
        plane: tuple[int, ...] | None,
        values: np.ndarray,
        text: str,
        result: Result | None,
    ) -> Labels:
        """Show ids in a layer of their own, noted before it is in the viewer."""
        from napari.layers import Labels

        if plane is None or values.shape == source.companion.shape:
            data = np.ascontiguousarray(values, np.uint32)
        else:
            data = np.zeros(source.companion.shape, np.uint32)
            data[source.companion.index(plane)] = values
        layer = Labels(
            data,
            name=layer_name(f"{source.name} [svpseg]"),
            opacity=0.5,
            visible=is_in_sight(self.viewer, source.layer),
            **source.placement(),
        )
        self._sign(layer, source, result, None)
        layer.metadata[METADATA_KEY][PALETTE] = palette_of(source.layer)
        layer.colormap = plain_colors(layer)
        dress(layer)
        self.journal.show(LayerAdded(layer, self.viewer, text))
        return layer

    def show_map(
        self,
        source: ImageSource,
        plane: tuple[int, ...] | None,
        values: np.ndarray,
        name: str,
    ) -> Layer:
        """Show a probability or uncertainty map in place of the last one."""
        title = layer_name(f"{source.name} [svpseg] {name}")
        for layer in list(self.viewer.layers):
            if is_of(layer, source.layer, name):
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
                metadata={METADATA_KEY: source.entry(name, corner)},
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
        """Show the labels of the visible part in a layer that the next run removes."""
        values = np.ascontiguousarray(source.companion.expand(result.labels, plane))
        old = self.preview_of(source)
        region = source.companion.index(plane, tile)
        corner = tuple(s.start for s in region)
        metadata = {
            **source.entry("preview", corner),
            "axes": source.companion.axes,
            "recipe": result.recipe.to_dict(),
            "trust": result.trust,
            "region": region,
            PALETTE: palette_of(source.layer),
            **class_entries(result),
        }

        def signed(data: np.ndarray) -> dict[str, Any]:
            return {**metadata, "written": fingerprints(data, source.companion.axes)}

        if old is not None and self._same_place(old, region):
            layer = old

            def sign(_: int) -> None:
                layer.metadata[METADATA_KEY] = signed(np.asarray(layer.data))

            write_ids(layer, tuple(slice(0, n) for n in values.shape), values, sign)
        else:
            self.drop_preview(source)
            layer = add_behind_boxes(
                self.viewer,
                lambda: self.viewer.add_labels(
                    values,
                    name=layer_name(f"{source.name} [svpseg] preview"),
                    opacity=0.5,
                    colormap=colormap_of(metadata[PALETTE]),
                    metadata={METADATA_KEY: signed(values)},
                    **source.placement(corner),
                ),
            )
        dress(layer)
        return layer

    @staticmethod
    def _same_place(layer: Labels, region: tuple[slice, ...]) -> bool:
        return bool((metadata_of(layer) or {}).get("region") == region)

    def preview_of(self, source: ImageSource) -> Labels | None:
        """Return the preview of an image, unless the user has edited it."""
        for layer in self.viewer.layers:
            if is_of(layer, source.layer, "preview") and is_untouched(layer):
                return layer
        return None

    def drop_preview(self, source: ImageSource) -> None:
        """Remove the preview of an image; an edited one stays."""
        layer = self.preview_of(source)
        if layer is not None:
            self.viewer.layers.remove(layer)


@dataclass(eq=False)
class Kept:
    """The maps of a result that is shown."""

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


def edited_remark(edited: list[str], layer: Labels) -> str:
    """Return why a result is in a layer of its own; empty where nothing was edited."""
    if not edited:
        return ""
    return f" You edited '{edited[-1]}', so this is in '{layer.name}'."


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


def plane_recipe(
    recipe: dict[str, Any], plane: tuple[int, ...] | None
) -> dict[str, Any]:
    """Return the recipe of one plane of a layer, as plain values."""
    others = [o for o in recipe.get("other_planes", ()) if is_plane(o, plane)]
    return others[0] if others and not is_plane(recipe, plane) else recipe


def with_options(
    recipe: dict[str, Any], plane: tuple[int, ...] | None, options: dict[str, Any]
) -> dict[str, Any]:
    """Return a layer's recipe with the result options of a plane replaced."""
    changed = plane_recipe(recipe, plane)
    post = {**changed.get("postprocess", {}), **options}
    if changed is recipe:
        return {**recipe, "postprocess": post}
    others = tuple(
        {**other, "postprocess": post} if other is changed else other
        for other in recipe["other_planes"]
    )
    return {**recipe, "other_planes": others}


def is_plane(recipe: dict[str, Any], plane: tuple[int, ...] | None) -> bool:
    """Return whether a recipe is that of a plane of a stack."""
    return tuple(recipe.get("plane") or ()) == tuple(plane or ())


def recipe_of(layer: Labels) -> Recipe | None:
    """Return the recipe of one of our results, or None."""
    metadata = metadata_of(layer) or {}
    values = metadata.get("recipe")
    if not values:
        return None
    import json

    return Recipe.from_json(json.dumps(values))
