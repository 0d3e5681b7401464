"""Colours of objects, chosen by contrast with the image that they lie on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import CyclicLabelColormap

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

    Arrays that are not in memory are not read: their thumbnail has to do.

    Returns
    -------
    (n, 3) float array in [0, 1]
    """
    data: Any = image.data
    if image.multiscale or not isinstance(data, np.ndarray):
        shown = np.asarray(image.thumbnail, float).reshape(-1, 4) / 255
        return shown[shown[:, 3] > 0, :3]
    while data.ndim > 2 + bool(image.rgb):
        data = data[len(data) // 2]
    height, width = data.shape[:2]
    data = data[:: max(1, height // N_SAMPLES), :: max(1, width // N_SAMPLES)]
    if image.rgb:
        most = 255.0 if data.dtype == np.uint8 else 1.0
        values = np.clip(data[..., :3].astype(float) / most, 0, 1)
        return np.asarray(values.reshape(-1, 3))
    low, high = image.contrast_limits
    scaled = (np.nan_to_num(data.astype(float)) - low) / max(high - low, 1e-9)
    scaled = np.clip(scaled, 0, 1) ** image.gamma
    return np.asarray(image.colormap.map(scaled.ravel())[:, :3], float)
