"""Splitting of touching objects: which hills of a height map are separate objects."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.measure import label as connected_components

from ..result import Maps

Array = np.ndarray

FRAGMENT_AREA, FRAGMENT_FACTOR = 0.25, 3.0
"""A part smaller than this many typical objects needs this many times the drop."""

PAIR_FACTOR = 2.0
"""The same for two parts that together are no larger than one typical object."""

FOUR_NEIGHBOURS = ndimage.generate_binary_structure(2, 1)
"""A pixel and its 4 neighbours: pixels that touch at a corner only are two objects."""


def split_touching(mask: Array, maps: Maps, strength: float) -> Array:
    """Return the mask as labels, with touching objects split.

    Objects are the hills of a height map; `_basins` decides which hills are separate.

    Parameters
    ----------
    mask : (Y, X) bool array
    maps : Maps
    strength : float
        In [0, 1]. The drop of height between two objects that are split is smaller for
        a larger strength. The constants below are empirical; the drop is never 0, as
        each bump of noise would become an object.
    """
    diameter = maps.objects.diameter if maps.objects else 0.0
    # Large objects have bumps that are no objects: smooth by a fraction of their size.
    blur = float(np.clip(0.06 * diameter, 1.0, 12.0))
    if maps.distance is not None:
        height = np.where(mask, maps.distance, 0).astype(np.float32)
        if maps.boundary is not None:
            # A likely boundary cuts a valley where two objects touch broadly and the
            # distance alone hardly drops.
            height = height * (1 - 0.5 * maps.boundary * mask)
        height = ndimage.gaussian_filter(height, blur)
        drop = 0.30 * (1 - strength) + 0.03
    else:
        # The distance transform is in pixels: divide by the deepest point of each
        # connected group, so that the drop is a fraction as it is in a distance map.
        depth = ndimage.gaussian_filter(depth_of(mask), blur)
        groups = connected_components(mask, connectivity=1)
        deepest = np.asarray(
            ndimage.maximum(depth, groups, np.arange(int(groups.max()) + 1))
        )
        if maps.objects:
            # A clump may be deeper than its objects, which would then hardly drop.
            deepest = np.minimum(deepest, diameter / 2)
        height = np.where(mask, depth / np.maximum(deepest, 1.0)[groups], 0)
        height = height.astype(np.float32)
        # Cubed: at a neck the depth of a mask drops less than a learned distance map,
        # so that medium strengths need a smaller drop here.
        drop = 0.36 * (1 - strength) ** 3 + 0.06
    typical_area = np.pi / 4 * diameter**2 if maps.objects else None
    return _basins(height, mask, drop, typical_area)


def _basins(
    height: Array, mask: Array, drop: float, typical_area: float | None = None
) -> Array:
    """Return the mask divided among the hills of a height map that are separate.

    Two hills are separate if the lower summit rises by at least ``drop`` above the pass
    (the highest point of their border) between them. The result is that of a watershed
    from h-maxima; those are usually found by a morphological reconstruction, which is
    much slower than this watershed from all maxima, after which hills are merged.

    Parameters
    ----------
    height : (Y, X) float32 array
    mask : (Y, X) bool array
        All of it is divided; nothing outside gets a label.
    drop : float
        In the units of ``height``.
    typical_area : float, optional
        Area of one object in pixels. If given, parts that together have the size of one
        object need a larger drop, see `_drop_factor`.

    Returns
    -------
    (Y, X) int array
        Ids from 1, with gaps.
    """
    from skimage.segmentation import watershed  # slow: a dock opens without it

    # -inf outside: the border of the mask is never a summit.
    inside = np.where(mask, height, -np.inf).astype(np.float32)
    # A plateau is one summit: its pixels are all maxima, joined by their connection.
    summits = (
        ndimage.maximum_filter(inside, footprint=FOUR_NEIGHBOURS) == inside
    ) & mask
    seeds = connected_components(summits, connectivity=1)
    # Water rises from the summits downwards, so that borders follow the valleys.
    basins = np.asarray(watershed(-inside, seeds, mask=mask))
    n = int(seeds.max())
    top = np.zeros(n + 1, np.float32)
    top[seeds[summits]] = inside[summits]
    area = np.bincount(basins.ravel(), minlength=n + 1) / (typical_area or 1.0)
    owner = list(range(n + 1))
    # From the highest pass down: hills are merged with their closest partner first, and
    # a pass is judged by the summits of what has been merged above it.
    for low, high, saddle in _passes(basins, inside):
        one, two = _owner(owner, low), _owner(owner, high)
        # The lower of the two summits has to rise above the pass.
        if top[one] < top[two]:
            one, two = two, one
        if one == two:  # merged over another pass already
            continue
        needed = drop * _drop_factor(area[one], area[two]) if typical_area else drop
        if top[two] - saddle < needed:
            owner[two] = one
            area[one] += area[two]
    return np.array([_owner(owner, i) for i in range(n + 1)])[basins]


def _drop_factor(one: float, two: float) -> float:
    """Return the factor on the drop that keeps two neighbouring parts separate.

    Parts that are together as large as one object are probably one object that the
    network sees a dent in; a small fragment is even less likely an object of its own.

    Parameters
    ----------
    one, two : float
        Areas of the parts, in typical objects.

    Returns
    -------
    float
        `FRAGMENT_FACTOR` with a fragment; else from `PAIR_FACTOR` for up to one object
        together down to 1 for two objects or more.
    """
    # First the fragments: beside a large object they would count as two objects.
    if min(one, two) < FRAGMENT_AREA:
        return FRAGMENT_FACTOR
    return float(np.clip(PAIR_FACTOR + 1 - (one + two), 1, PAIR_FACTOR))


def _passes(basins: Array, height: Array) -> list[tuple[int, int, float]]:
    """Return each pair of neighbouring basins with its pass, highest pass first.

    Parameters
    ----------
    basins : (Y, X) int array
    height : (Y, X) float32 array
    """
    pairs, heights = [], []
    # All pairs of vertical, then of horizontal neighbours.
    for one, two in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        a, b = basins[one], basins[two]
        meet = (a != b) & (a > 0) & (b > 0)
        pairs.append(np.sort(np.stack([a[meet], b[meet]], axis=1), axis=1))
        # Crossing from one pixel to the other means to go through the lower of the two.
        heights.append(np.minimum(height[one][meet], height[two][meet]))
    pair, saddle = np.concatenate(pairs), np.concatenate(heights)
    order = np.argsort(-saddle, kind="stable")
    # The first occurrence of each pair in descending order is its highest crossing.
    _, first = np.unique(pair[order], axis=0, return_index=True)
    chosen = order[np.sort(first)]
    return [
        (int(a), int(b), float(s))
        for (a, b), s in zip(pair[chosen], saddle[chosen], strict=True)
    ]


def _owner(owner: list[int], i: int) -> int:
    """Return the basin that ``i`` has been merged into (union-find, path halving)."""
    while owner[i] != i:
        owner[i] = owner[owner[i]]
        i = owner[i]
    return i


def depth_of(mask: Array) -> Array:
    """Return the distance to the nearest False pixel; outside the image is False."""
    return np.asarray(ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1])
