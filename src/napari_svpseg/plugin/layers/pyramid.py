"""Layers with several levels: their data and shape at full size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari.layers import Image, Labels


def level_factors(layer: Image, level: int) -> np.ndarray:
    """Return the length of a level's pixel in pixels at full size, by axis."""
    if not layer.multiscale:
        return np.ones(layer.ndim)
    return np.asarray(layer.downsample_factors[level], float)


def full_shape(layer: Image) -> tuple[int, ...]:
    """Return the shape of a layer's data at full resolution, colours included."""
    return tuple(int(n) for n in full_data(layer).shape)


def full_data(layer: Image | Labels) -> Any:
    """Return a layer's data at full resolution, lazily where it is lazy."""
    return layer.data[0] if layer.multiscale else layer.data
