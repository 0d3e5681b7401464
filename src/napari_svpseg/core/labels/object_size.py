"""Whether an image's objects are as large as the prompts'.

The middles of objects are compared by how deep they lie, in the image and in what the
model finds in the prompts themselves: a measure that needs no single objects, and that
is the same for touching ones.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..geometry import inside
from ..image import ImageError
from ..result import Maps
from .uncertainty import LIKELY_FOREGROUND, mean_uncertainty

MUCH = 1.7
"""Ratio of sizes from which a note is worth its place."""
TOO_DOUBTFUL = 0.45
"""Mean uncertainty of what was found from which its size tells nothing."""
LARGEST = 1024
"""Side of the part, in the middle of an image, that is measured."""

NET_WIDTH = 0.35
"""Width over equivalent diameter under which a mask is a net (a disc has 1.3)."""

Array = np.ndarray


def median_diameter(labels: np.ndarray) -> float:
    """Return the median equivalent diameter of the objects in a label image.

    The equivalent diameter is that of a disc of the same area. Objects cut by the
    border count only when there is no whole one.

    Parameters
    ----------
    labels : (Y, X) int array
        Instance ids; 0 is background.

    Returns
    -------
    float
        Diameter in pixels.

    Raises
    ------
    ImageError
        If ``labels`` holds no object.

    Examples
    --------
    >>> labels = np.zeros((8, 8), int)
    >>> labels[2:4, 2:4] = 1
    >>> round(median_diameter(labels), 2)
    2.26
    """
    ids, ranks, areas = np.unique(labels, return_inverse=True, return_counts=True)
    areas[ids <= 0] = 0
    if not areas.any():
        raise ImageError("The prompt mask is empty: paint at least one object.")
    ranks = ranks.reshape(labels.shape)
    edge = np.concatenate([ranks[0], ranks[-1], ranks[:, 0], ranks[:, -1]])
    whole = areas.copy()
    whole[edge] = 0
    areas = whole if whole.any() else areas
    return float(np.median(2 * np.sqrt(areas[areas > 0] / np.pi)))


def is_net(labels: np.ndarray) -> bool:
    """Tell whether a mask is net-like, such as membranes, so that it has no diameter.

    A net is far thinner than a disc of its area, and it goes on beyond the crop (a ring
    inside the crop is an object).

    Parameters
    ----------
    labels : (Y, X) int array
        Ids; 0 is background.
    """
    mask = labels > 0
    if not mask.any():
        return False
    edge = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    if not edge.any():
        return False
    depth = ndimage.distance_transform_edt(np.pad(mask, 1, mode="edge"))[1:-1, 1:-1]
    width = 4 * float(depth[mask].mean())
    return bool(width < NET_WIDTH * median_diameter(labels))


def mean_depth(foreground: Array, boundary: Array | None) -> float:
    """Return the mean distance of objects' pixels to their borders, or NaN.

    Beyond the image's edge objects are taken to go on.

    Parameters
    ----------
    foreground, boundary : (Y, X) float arrays
        Probabilities. Pixels of objects are those from 0.5 on that are no boundary.

    Returns
    -------
    float
        In pixels; NaN where there are no objects, or nothing else.
    """
    core = foreground > 0.5
    if boundary is not None:
        core &= boundary < 0.5
    if not core.any() or core.all():
        return float("nan")
    far = min(16, *core.shape)
    depth = ndimage.distance_transform_edt(np.pad(core, far, mode="edge"))
    return float(np.asarray(depth)[far:-far, far:-far][core].mean())


def size_notes(maps: Maps) -> tuple[str, ...]:
    """Return a note where the objects are much larger or smaller than the prompts'.

    Parameters
    ----------
    maps : Maps
        With the look of the prompts' objects.

    Returns
    -------
    tuple of str
        Empty, or one.
    """
    look = maps.objects
    if look is None or look.net or not np.isfinite(look.depth):
        return ()
    shape = maps.foreground.shape
    middle = tuple(inside((n - LARGEST) // 2, LARGEST, n) for n in shape)
    foreground = maps.foreground[middle]
    if mean_uncertainty(foreground, LIKELY_FOREGROUND) > TOO_DOUBTFUL:
        return ()
    boundary = None if maps.boundary is None else maps.boundary[middle]
    ratio = mean_depth(foreground, boundary) / look.depth
    if not np.isfinite(ratio) or 1 / MUCH < ratio < MUCH:
        return ()
    than = "larger" if ratio > 1 else "smaller"
    return (f"objects look much {than} here than in the prompts: box some here too",)
