"""The ids of a Labels layer at the pixels of a box on another layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..images.pyramid import full_data
from ..world import to_data

if TYPE_CHECKING:
    from napari.layers import Labels


def sample_labels(
    layer: Labels, to_world: Callable[[np.ndarray], Any], size: int
) -> np.ndarray:
    """Return the ids of a Labels layer at the pixels of a box on another layer.

    Read through the world, so that the two layers may differ in shape, scale, position
    and number of axes. Outside the labels is background.

    Parameters
    ----------
    layer : Labels
    to_world : callable
        Maps a pixel ``(y, x)`` of the box to a `WorldPoint`.
    size : int
        Side of the box.

    Returns
    -------
    (size, size) int array
    """
    index, inside = _pixels_of(layer, to_world, size)
    data = full_data(layer)
    ids = np.zeros(len(index), np.int64)
    if inside.any():
        low, high = index[inside].min(axis=0), index[inside].max(axis=0) + 1
        part = np.asarray(data[tuple(map(slice, low, high))])
        ids[inside] = part[tuple((index[inside] - low).T)]
    return ids.reshape(size, size)


def reaches(layer: Labels, to_world: Callable[[np.ndarray], Any], size: int) -> bool:
    """Return whether a Labels layer covers any of a box, as for `sample_labels`."""
    return bool(_pixels_of(layer, to_world, size)[1].any())


def _pixels_of(
    layer: Labels, to_world: Callable[[np.ndarray], Any], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return a layer's index for each pixel of a box, and whether it is inside."""

    def at(y: float, x: float) -> np.ndarray:
        return to_data(layer, to_world(np.array([y, x], float)))

    origin = at(0, 0)
    step = np.stack([at(1, 0) - origin, at(0, 1) - origin])  # the map is affine
    grid = np.indices((size, size)).reshape(2, -1).T
    index = np.rint(origin + grid @ step).astype(np.int64)
    shape = full_data(layer).shape
    return index, ((index >= 0) & (index < np.array(shape))).all(axis=1)
