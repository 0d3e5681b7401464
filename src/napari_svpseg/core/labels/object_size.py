"""Size of objects, and notes where it differs between an image and its prompts.

The objects of an image and of the prompts are compared by the mean distance of their
pixels to the border, in the maps of the network for both. This needs no separate
objects, and touching ones change nothing where a boundary is predicted between them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from ..geometry import inside
from ..image import ImageError
from ..result import Maps
from .uncertainty import LIKELY_FOREGROUND, mean_uncertainty

Array = np.ndarray

NET_WIDTH = 0.35
"""Width over equivalent diameter under which a mask is a net (a disc has 1.3)."""

MAX_SIZE_RATIO = 1.7
"""Ratio of the sizes in image and prompts from which a note is worth showing."""

MAX_UNCERTAINTY = 0.45
"""Mean uncertainty of the foreground above which its size means nothing."""

SPECK, SPECK_SHARE = 12, 1 / 16
"""Objects of fewer pixels are slips of a brush or of a threshold, and no objects to
measure, if all of them cover less than this share of the largest object's area."""

MAX_SIDE = 1024
"""Side in pixels of the central part of an image that is measured."""

EMPTY_MASK = "The prompt mask is empty: paint at least one object."
SIZE_NOTE = "objects look much {than} here than in the prompts: box some here too"


def median_diameter(labels: Array) -> float:
    """Return the median equivalent diameter of the objects in a label image.

    The equivalent diameter is that of a disc of the same area. Specks do not count, and
    objects cut by the border only if there is no whole one.

    Parameters
    ----------
    labels : (Y, X) int array
        Instance ids of any size; 0 is background.

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
    # unique instead of bincount: ids may be huge
    ids, ranks, areas = np.unique(labels, return_inverse=True, return_counts=True)
    areas[ids <= 0] = 0
    if not areas.any():
        raise ImageError(EMPTY_MASK)
    ranks = ranks.reshape(labels.shape)
    edge = np.concatenate([ranks[0], ranks[-1], ranks[:, 0], ranks[:, -1]])
    areas[specks(areas)] = 0
    # A cut object would make the typical one too small.
    whole = areas.copy()
    whole[edge] = 0
    areas = whole if whole.any() else areas
    return float(np.median(2 * np.sqrt(areas[areas > 0] / np.pi)))


def specks(areas: Any) -> Any:
    """Return which objects are specks, beside which larger ones are measured.

    Parameters
    ----------
    areas : (n,) int array or tensor
        Pixels of each object; 0 is none.

    Returns
    -------
    (n,) bool array or tensor

    Examples
    --------
    >>> specks(np.array([200, 2, 3, 90])).tolist()
    [False, True, True, False]
    """
    small = areas < SPECK
    few = (areas * small).sum() < SPECK_SHARE * areas.max()
    return small & few


def is_net(labels: Array) -> bool:
    """Return whether a mask is a net, such as membranes, and has no objects to measure.

    A net is far thinner than a disc of its area, and it continues beyond the crop (a
    ring inside the crop is an object).

    Parameters
    ----------
    labels : (Y, X) int array
        Ids; 0 is background.
    """
    mask = labels > 0
    if not mask.any():
        return False
    edge = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    if not edge.any():  # enclosed in the crop, such as a ring
        return False
    # Padded with its own edge: what reaches the border of the crop is no thinner there.
    depth = ndimage.distance_transform_edt(np.pad(mask, 1, mode="edge"))[1:-1, 1:-1]
    width = 4 * float(depth[mask].mean())  # in a long strip the mean is a quarter of it
    return bool(width < NET_WIDTH * median_diameter(labels))


def mean_depth(foreground: Array, boundary: Array | None) -> float:
    """Return the mean distance of the objects' pixels to their borders.

    Objects are taken to continue beyond the edge of the image.

    Parameters
    ----------
    foreground, boundary : (Y, X) float arrays
        Probabilities. Pixels belong to objects from a foreground of 0.5 on, unless the
        boundary reaches 0.5.

    Returns
    -------
    float
        In pixels; NaN if there are no objects, or nothing else.
    """
    core = foreground > 0.5
    if boundary is not None:
        core &= boundary < 0.5
    if not core.any() or core.all():
        return float("nan")
    # Without this margin the edge of the image would count as the border of objects.
    far = min(16, *core.shape)
    depth = ndimage.distance_transform_edt(np.pad(core, far, mode="edge"))
    return float(np.asarray(depth)[far:-far, far:-far][core].mean())


def size_notes(maps: Maps) -> tuple[str, ...]:
    """Return a note if the objects are much larger or smaller than the prompts'.

    Parameters
    ----------
    maps : Maps
        With the properties of the prompts' objects.

    Returns
    -------
    tuple of str
        One `SIZE_NOTE`, or nothing.
    """
    properties = maps.objects
    if properties is None or properties.net or not np.isfinite(properties.depth):
        return ()
    shape = maps.foreground.shape
    centre = tuple(inside((n - MAX_SIDE) // 2, MAX_SIDE, n) for n in shape)
    foreground = maps.foreground[centre]
    # A model that finds nothing clearly finds blobs of any size.
    if mean_uncertainty(foreground, LIKELY_FOREGROUND) > MAX_UNCERTAINTY:
        return ()
    boundary = None if maps.boundary is None else maps.boundary[centre]
    ratio = mean_depth(foreground, boundary) / properties.depth
    if not np.isfinite(ratio) or 1 / MAX_SIZE_RATIO < ratio < MAX_SIZE_RATIO:
        return ()
    return (SIZE_NOTE.format(than="larger" if ratio > 1 else "smaller"),)
