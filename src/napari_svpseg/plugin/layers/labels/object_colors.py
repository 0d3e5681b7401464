"""Colours of objects, chosen by contrast with the image that they lie on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import CyclicLabelColormap

from ....core.geometry import window_of
from ....core.labels.palette import contrasting_colors, main_colors

if TYPE_CHECKING:
    from napari.layers import Image

PALETTE = "palette"
"""Entry in the metadata of a layer: its colours, ``#rrggbb``, in the order of ids."""

N_SAMPLES = 64
"""Pixels along each side that the colours of an image are taken from."""


def palette_of(image: Image) -> list[str]:
    """Return colours for the objects of an image, in the order of their ids."""
    colors = contrasting_colors(main_colors(seen_pixels(image)))
    return [
        "#" + "".join(f"{round(255 * value):02x}" for value in one)
        for one in colors.tolist()
    ]


def colormap_of(palette: list[str]) -> CyclicLabelColormap:
    """Return the colours as a colormap: an id has the same colour in each run."""
    rgb = [[int(one[i : i + 2], 16) / 255 for i in (1, 3, 5)] for one in palette]
    rgba = [[0.0] * 4, *([*one, 1.0] for one in rgb)]
    return CyclicLabelColormap(colors=np.array(rgba, np.float32), name="svpseg")


def seen_pixels(image: Image) -> np.ndarray:
    """Return some pixels of an image in the colours in which it is shown.

    Returns
    -------
    (n, 3) float array in [0, 1]
    """
    return seen_image(image, N_SAMPLES).reshape(-1, 3)


def seen_image(image: Image, side: int) -> np.ndarray:
    """Return a small picture of an image in the colours in which it is shown.

    Arrays that are not in memory are not read: their thumbnail has to do.

    Parameters
    ----------
    image : Image
    side : int
        About the length of the longest side.

    Returns
    -------
    (Y, X, 3) float array in [0, 1]
        Of the middle plane.
    """
    data: Any = image.data
    if image.multiscale or not isinstance(data, np.ndarray):
        return _cropped(np.asarray(image.thumbnail, float) / 255)
    while data.ndim > 2 + bool(image.rgb):
        data = data[len(data) // 2]
    step = max(1, -(-max(data.shape[:2]) // side))
    data = data[::step, ::step]
    if image.rgb:
        most = 255.0 if data.dtype == np.uint8 else 1.0
        return np.asarray(np.clip(data[..., :3].astype(float) / most, 0, 1))
    low, high = image.contrast_limits
    scaled = (np.nan_to_num(data.astype(float)) - low) / max(high - low, 1e-9)
    scaled = np.clip(scaled, 0, 1) ** image.gamma
    colors = np.asarray(image.colormap.map(scaled.ravel()), float)
    return colors[:, :3].reshape(*data.shape, 3)


def _cropped(thumbnail: np.ndarray) -> np.ndarray:
    """Return a thumbnail of napari without the transparent borders."""
    shown = thumbnail[..., 3] > 0
    if not shown.any():
        return np.zeros((0, 0, 3))
    return np.asarray(thumbnail[window_of(shown)][..., :3])
