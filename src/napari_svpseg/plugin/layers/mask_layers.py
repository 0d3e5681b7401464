"""The Labels layers that the masks of prompts are painted in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .image_source import MARK, ImageSource, mark_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels


def mask_layer(viewer: ViewerModel, source: ImageSource) -> Labels:
    """Return the layer to paint masks of an image's prompts in, made if need be."""
    for layer in viewer.layers:
        mark = mark_of(layer, "mask")
        if (
            mark is not None
            and mark["image"] == source.layer.unique_id
            and tuple(layer.data.shape) == source.companion_shape
        ):
            return layer
    return viewer.add_labels(
        np.zeros(source.companion_shape, np.uint16),
        name=f"SVPSeg mask [{source.name}]",
        opacity=0.5,
        metadata={MARK: {"kind": "mask", "image": source.layer.unique_id}},
        **source.placement(),
    )


def fill(layer: Labels, region: tuple[slice, ...], found: np.ndarray) -> None:
    """Write labels into a part of a layer, numbered from 1, if nothing is there yet."""
    if np.asarray(layer.data[region]).any():
        return
    at = np.nonzero(found)
    if at[0].size:
        ids = np.unique(found[at], return_inverse=True)[1] + 1
        whole = tuple(i + part.start for i, part in zip(at, region, strict=True))
        layer.data_setitem(whole, ids.astype(layer.data.dtype))
