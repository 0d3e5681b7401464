"""The Labels layers that the masks of prompts are painted in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ....core.geometry import Box, Tile
from ..images.image_source import ImageSource, fits_on
from ..images.visibility import activate
from ..labels.object_colors import colormap_of, palette_of
from ..metadata import METADATA_KEY, find_layer, is_mask, is_of, layer_name
from ..results.written_labels import set_ids
from .prompt_item import PromptItem

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels


def mask_layer(viewer: ViewerModel, source: ImageSource) -> Labels:
    """Return the layer to paint masks of an image's prompts in, added if needed."""
    for layer in viewer.layers:
        if (
            is_of(layer, source.layer, "mask")
            and tuple(layer.data.shape) == source.companion.shape
        ):
            return layer
    return viewer.add_labels(
        np.zeros(source.companion.shape, np.uint16),
        name=layer_name(f"SVPSeg mask [{source.name}]"),
        opacity=0.5,
        colormap=colormap_of(palette_of(source.layer)),
        metadata={METADATA_KEY: source.entry("mask")},
        **source.placement(),
    )


def likely_masks(
    viewer: ViewerModel, item: PromptItem, chosen: Labels | None, wanted: str
) -> list[Labels]:
    """Return the layers that may hold the mask of a box, the most likely first.

    Parameters
    ----------
    viewer : ViewerModel
    item : PromptItem
        Whose box is on an image.
    chosen : Labels, optional
        What the user chose for another box.
    wanted : str
        Id of the layer that an earlier dock took it from; may be empty.
    """
    assert item.source is not None
    likely: list[Labels] = [
        la for la in reversed(viewer.layers) if is_mask(la) and fits_on(la, item.source)
    ]
    if chosen is not None and chosen in viewer.layers:
        likely.insert(0, chosen)
    before = find_layer(viewer.layers, wanted)
    if before is not None and is_mask(before):
        likely.insert(0, before)
    return likely


def paint_mask(
    viewer: ViewerModel, item: PromptItem, found: np.ndarray | None = None
) -> Labels:
    """Return the layer to paint the mask of a box in, selected and in paint mode.

    Parameters
    ----------
    viewer : ViewerModel
    item : PromptItem
        Whose box is on an image.
    found : (side, side) int array, optional
        Labels to begin with, where nothing is painted yet.
    """
    source, box, region = _place_of(item)
    layer = mask_layer(viewer, source)
    if found is not None:
        put_mask(viewer, item, found)
    activate(viewer, layer)
    layer.selected_label = int(layer.data[region].max(initial=0)) + 1
    layer.brush_size = max(2, round(box.size / 10))
    layer.mode = "paint"
    return layer


def put_mask(viewer: ViewerModel, item: PromptItem, found: np.ndarray) -> Labels:
    """Write a mask where nothing is painted yet in a box; return the layer for masks.

    Parameters
    ----------
    viewer : ViewerModel
    item : PromptItem
        Whose box is on an image.
    found : (side, side) int array
    """
    source, _, region = _place_of(item)
    layer = mask_layer(viewer, source)
    fill(layer, region, source.companion.expand(found, item.plane))
    return layer


def clear_mask(viewer: ViewerModel, item: PromptItem) -> None:
    """Remove what is painted in the box of an item, on the layer that is for masks."""
    source, _, region = _place_of(item)
    layer = mask_layer(viewer, source)
    at = np.nonzero(layer.data[region])
    if at[0].size:
        whole = tuple(i + part.start for i, part in zip(at, region, strict=True))
        set_ids(layer, whole, np.zeros(at[0].size, layer.data.dtype))
        layer.refresh()
    layer.selected_label = 1


def _place_of(item: PromptItem) -> tuple[ImageSource, Box, tuple[slice, ...]]:
    """Return the image, the box and the part of the mask layer of a prompt."""
    assert item.source is not None and item.box is not None
    source, box = item.source, item.box
    tile = Tile(box.y, box.y + box.size, box.x, box.x + box.size)
    return source, box, source.companion.index(item.plane, tile)


def fill(layer: Labels, region: tuple[slice, ...], found: np.ndarray) -> None:
    """Write labels, numbered from 1, into a part of a layer that is still empty."""
    if np.asarray(layer.data[region]).any():
        return
    at = np.nonzero(found)
    if at[0].size:
        ids = np.unique(found[at], return_inverse=True)[1] + 1
        whole = tuple(i + part.start for i, part in zip(at, region, strict=True))
        set_ids(layer, whole, ids)
        layer.refresh()
