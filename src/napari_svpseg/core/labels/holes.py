"""Holes of objects, and small gaps of painted masks, which are none."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.measure import label as connected_components

from .splitting import depth_of

Array = np.ndarray

GAP_DEPTH = 2 / 64
"""Largest distance of a gap's middle to its border, in sides of the mask: gaps between
the strokes of a brush are long at times, but narrow."""

GAP_SHARE = 0.1
"""Largest area of a gap, in areas of its object: the holes of rings are larger."""


def close_gaps(labels: Array) -> Array:
    """Return the mask of a prompt with the small gaps inside its objects closed.

    Parameters
    ----------
    labels : (side, side) int array
        Object ids; 0 is background, and -1 unknown, which stays.

    Returns
    -------
    (side, side) int array
        The same ids; `labels` itself where there is no gap.

    Examples
    --------
    >>> mask = np.zeros((64, 64), int); mask[10:30, 10:30] = 5; mask[15, 12:28] = 0
    >>> int((close_gaps(mask) == 5).sum()), int((mask == 5).sum())
    (400, 384)
    """
    objects = np.maximum(labels, 0)
    filled = fill_object_holes(objects)
    holes = np.asarray(connected_components(filled != objects, connectivity=1))
    n = int(holes.max(initial=0))
    if not n:
        return labels
    ids = np.arange(1, n + 1)
    depth = ndimage.maximum(depth_of(holes > 0), holes, ids)
    areas = np.bincount(holes.ravel(), minlength=n + 1)[1:]
    owners = ndimage.maximum(filled, holes, ids)
    whole, counts = np.unique(filled, return_counts=True)
    share = areas / counts[np.searchsorted(whole, owners)]
    limit = max(1.0, GAP_DEPTH * min(labels.shape))
    is_gap = np.concatenate([[False], (depth <= limit) & (share <= GAP_SHARE)])
    return np.where(is_gap[holes] & (labels == 0), filled, labels)


def fill_object_holes(labels: Array) -> Array:
    """Return the labels with the holes of each object filled.

    A hole is a background region that touches one object only and not the border of the
    image; one that holds another object stays open.

    Parameters
    ----------
    labels : (Y, X) int array

    Returns
    -------
    (Y, X) int array
    """
    # All holes at once: filling object by object would scan the image for each of them.
    background = connected_components(labels == 0, connectivity=1)
    n = int(background.max())
    # Background that reaches the border of the image may not be enclosed outside of it.
    edge = np.zeros(n + 1, bool)
    for side in (background[0], background[-1], background[:, 0], background[:, -1]):
        edge[side] = True
    edge[0] = True
    if edge.all():
        return labels
    # Smallest and largest id beside each background region: a hole has one neighbour,
    # so both are the same.
    low = np.full(n + 1, np.iinfo(np.int64).max)
    high = np.zeros(n + 1, np.int64)
    pairs = (
        (background[1:], labels[:-1]),
        (background[:-1], labels[1:]),
        (background[:, 1:], labels[:, :-1]),
        (background[:, :-1], labels[:, 1:]),
    )
    for hole, owner in pairs:
        touching = (hole > 0) & (owner > 0)
        np.minimum.at(low, hole[touching], owner[touching])
        np.maximum.at(high, hole[touching], owner[touching])
    owners = np.where(~edge & (low == high), high, 0)
    return np.where(labels == 0, owners[background], labels)
