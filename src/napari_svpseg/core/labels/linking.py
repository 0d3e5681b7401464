"""Linking planes: objects of a stack that keep one id from plane to plane.

Objects of two neighbouring planes are one where they overlap most. All that is needed
of the planes are tables: which ids share how many pixels, and how large they are. The
tables come from an array in memory (`link_planes`) or from the files of a large run
(`workflows.segment_large`), and `linked_ids` makes the final ids of either.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from .blocks import NOWHERE, is_best, ranked, union
from .ids import compact_ids

Array = np.ndarray
Overlaps = tuple[Array, Array]
"""Pairs (N, 2) of ids in two neighbouring planes, and the pixels (N,) they share."""


def overlaps(one: Array, two: Array) -> Overlaps:
    """Return pairs (N, 2) of ids at the same pixels, and at how many (N,)."""
    both = (one > 0) & (two > 0)
    if not both.any():
        return np.zeros((0, 2), np.int64), np.zeros(0, np.int64)
    pairs = np.stack([one[both], two[both]], axis=1).astype(np.int64)
    return np.unique(pairs, axis=0, return_counts=True)


def joined_overlaps(parts: Sequence[Overlaps]) -> Overlaps:
    """Return the overlaps of all parts as one table."""
    return (
        np.concatenate([np.zeros((0, 2), np.int64), *(pairs for pairs, _ in parts)]),
        np.concatenate([np.zeros(0, np.int64), *(shared for _, shared in parts)]),
    )


def match(pairs: Array, shared: Array, areas: Array, min_overlap: float) -> Array:
    """Return the pairs (M, 2) of ids that are one object seen in two planes.

    Parameters
    ----------
    pairs : (N, 2) int array
        Ids in the one plane and in the other; a pair may come several times.
    shared : (N,) int array
        Pixels that each pair shares.
    areas : (n + 1,) int array
        Pixels of each id within its plane.
    min_overlap : float
        Least intersection over union. Of those above it, the best of both counts, so
        that no two objects of a plane become one.
    """
    if not len(pairs):
        return np.zeros((0, 2), np.int64)
    unique, at = np.unique(pairs, axis=0, return_inverse=True)
    both = np.bincount(at.ravel(), shared, len(unique))
    a, b = unique.T
    share = both / (areas[a] + areas[b] - both)
    best = is_best(a, share) & is_best(b, share)
    return np.asarray(unique[best & (share >= min_overlap)])


def linked_ids(
    along: Sequence[Overlaps], areas: Array, first: Array, min_overlap: float
) -> Array:
    """Return the final id of each id of a stack.

    Parameters
    ----------
    along : sequence of Overlaps
        Those of all neighbouring planes along each axis that is linked, one axis after
        the other: Z before T, so that it is whole objects that are followed in time.
    areas : (n + 1,) int array
        Pixels of each id; ids without any are left out.
    first : (n + 1,) int array
        Position of the first pixel of each id in the flattened stack.
    min_overlap : float
        Least intersection over union of two that are one.

    Returns
    -------
    (n + 1,) int64 array
        Ids 1, 2, 3, ... in the order in which objects begin; 0 stays 0.
    """
    owner = np.arange(len(areas), dtype=np.int64)
    for pairs, shared in along:
        total = np.zeros(len(areas), np.int64)
        np.add.at(total, owner, areas)
        same = match(owner[pairs], shared, total, min_overlap)
        owner = union(len(areas) - 1, same)[owner]
    return ranked(owner, first, np.bincount(owner, areas) > 0)


def link_planes(
    labels: Array, axes: int | tuple[int, ...], min_overlap: float
) -> Array:
    """Return a stack in which an object keeps its id from plane to plane.

    Parameters
    ----------
    labels : int array
        No id occurs in two planes.
    axes : int or tuple of int
        Axes to link along, one after the other, as in `linked_ids`.
    min_overlap : float
        Least intersection over union of two that are one.

    Returns
    -------
    array of the dtype of ``labels``
        Ids 1, 2, 3, ... in the order in which objects begin.
    """
    dtype, labels = labels.dtype, compact_ids(labels)
    along = [
        joined_overlaps(
            [overlaps(one, two) for one, two in pairwise(np.moveaxis(labels, axis, 0))]
        )
        for axis in ((axes,) if isinstance(axes, int) else axes)
    ]
    areas = np.bincount(labels.ravel(), minlength=1)
    first = np.full(len(areas), NOWHERE)
    ids, where = np.unique(labels.ravel(), return_index=True)
    first[ids] = where
    return linked_ids(along, areas, first, min_overlap)[labels].astype(dtype)
