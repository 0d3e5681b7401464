"""Ids that we write into Labels layers, and whether the user has changed them."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from ..metadata import metadata_of

if TYPE_CHECKING:
    from napari.layers import Labels

MAX_UNDOABLE = 16_000_000
"""Pixels that a write may change in place; larger results get a layer of their own."""

WRITTEN = "svpseg_written"
"""Key in a result's metadata: the ids that we wrote."""


def write_ids(
    layer: Labels,
    region: tuple[slice, ...],
    new: np.ndarray,
    record: Callable[[int], None] | None = None,
) -> int:
    """Write ids into a part of a Labels layer through its own history.

    Only pixels that change are written, so that napari's own undo and redo stay right:
    replacing ``layer.data`` would leave them pointing at the old array.

    Parameters
    ----------
    layer : Labels
    region : tuple of slice
    new : int array
        Ids in the region.
    record : callable, optional
        Notes the change (undo, recipe), given the number of pixels. It is called once
        the ids are in the layer and before they are drawn, because drawing may fail.

    Returns
    -------
    int
        Number of pixels changed.
    """
    changed = np.nonzero(np.asarray(layer.data[region]) != new)
    n = int(changed[0].size)
    try:
        if n:
            parts = zip(changed, region, strict=True)
            indices = tuple(c + part.start for c, part in parts)
            set_ids(layer, indices, new[changed])
    except Exception:
        is_written = np.array_equal(np.asarray(layer.data[region]), new)
        if is_written and record is not None:
            record(n)
        raise
    if record is not None:
        record(n)
    if n:
        layer.refresh()
    return n


def set_ids(layer: Labels, indices: tuple[np.ndarray, ...], ids: np.ndarray) -> None:
    """Set pixels of a Labels layer through its own history; they are not drawn yet."""
    if not layer.visible or not layer.loaded:
        # napari takes the dtype of ids from what it shows of the layer, and that is one
        # 8-bit pixel as long as the layer has not been visible
        layer.set_view_slice()
    layer.data_setitem(indices, ids.astype(layer.data.dtype), refresh=False)


def keep_written(
    layer: Labels,
    region: tuple[slice, ...] | None = None,
    ids: np.ndarray | None = None,
) -> None:
    """Keep a copy of what we wrote in the metadata, to find corrections later."""
    now = np.asarray(layer.data)
    if now.size > MAX_UNDOABLE:
        layer.metadata.pop(WRITTEN, None)
        return
    kept = layer.metadata.get(WRITTEN)
    if region is None or kept is None or kept.shape != now.shape:
        kept = layer.metadata[WRITTEN] = now.copy()
    if region is not None:
        kept[region] = now[region] if ids is None else ids


def fingerprints(
    data: np.ndarray, axes: str, region: tuple[slice, ...] | None = None
) -> dict[tuple[int, ...], int]:
    """Return a checksum of each plane of labels.

    Parameters
    ----------
    data : int array
    axes : str
        Of ``data``.
    region : tuple of slice, optional
        Only the planes in it.

    Returns
    -------
    dict
        Index of the plane along all axes but Y and X -> number.
    """
    spans = [
        range(n)[region[i]] if region is not None else range(n)
        for i, n in enumerate(data.shape)
    ]
    stacked = [i for i, a in enumerate(axes) if a not in "YX"]
    prints = {}
    for plane in product(*(spans[i] for i in stacked)):
        index: list[Any] = [slice(None)] * data.ndim
        for i, position in zip(stacked, plane, strict=True):
            index[i] = position
        ids = np.ascontiguousarray(data[tuple(index)])
        prints[plane] = zlib.crc32(ids.view(np.uint8).reshape(-1).data)
    return prints


def is_untouched(layer: Labels, region: tuple[slice, ...] | None = None) -> bool:
    """Return whether a result, or a region of it, is as we wrote it."""
    metadata = metadata_of(layer) or {}
    written, axes = metadata.get("written"), metadata.get("axes")
    if not written or not axes or len(axes) != layer.data.ndim:
        return False
    found = fingerprints(np.asarray(layer.data), axes, region)
    return all(written.get(plane) == value for plane, value in found.items())


def region_of(atom: Any) -> tuple[slice, ...]:
    """Return the bounding box of one step of napari's history of a Labels layer."""
    key = getattr(atom, "slice_key", None)
    if key is not None:
        return tuple(key)
    return tuple(
        slice(int(np.min(i)), int(np.max(i)) + 1) if np.size(i) else slice(0, 0)
        for i in atom[0]
    )
