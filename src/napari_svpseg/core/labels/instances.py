"""From maps to objects, and from objects to the maps a network learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage
from skimage.measure import label as connected_components
from skimage.segmentation import watershed

from ..image import is_net, median_diameter
from ..result import USUAL_SPLIT, Maps, ObjectLook
from ..settings import AUTO, PostprocessSettings
from .blocks import Window, block_grid, fill_holes, label_blocks, renumber
from .confidence import add_peaks, new_ids
from .metrics import f1

Array = np.ndarray
SMALLEST_AREA = 20
"""Objects under this many pixels are removed when nothing is known of their size."""
HOLE_SHARE = 0.03
"""Holes of the prompts' objects, by their area, from which holes are left open."""
LARGEST_WHOLE = 2048 * 2048
"""Pixels from which an image is labelled block by block."""
BLOCK_SIDE = 1536
"""Pixels along a block and its halo."""
HALO_RANGE = (64, 256)
"""Least and most pixels that blocks see of their neighbours."""
CRUMB, CRUMB_DOUBT = 0.25, 3.0
"""A part this small, in typical objects, must rise this many times as much."""
WHOLE_DOUBT = 2.0
"""The same for two parts that together are no larger than one typical object."""
SPLITS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8)
"""Split strengths among which the prompts choose."""
ALIKE = 0.03
"""F1 on the prompts in which strengths hardly differ."""
CROSS = ndimage.generate_binary_structure(2, 1)
"""A pixel and its 4 neighbours; pixels that meet at a corner are two objects."""


def targets(labels: Array) -> tuple[Array, Array, Array]:
    """Return what a network is asked to say of each pixel.

    Parameters
    ----------
    labels : (Y, X) int array
        Object ids; 0 is background.

    Returns
    -------
    foreground : (Y, X) float32 array
        1 inside objects.
    distance : (Y, X) float32 array
        Depth inside the object divided by its greatest depth: small at the border, 1 in
        the middle, 0 outside.
    boundary : (Y, X) float32 array
        1 within a pixel of an object's outline.
    """
    foreground = labels > 0
    if not foreground.any():
        empty = np.zeros(labels.shape, np.float32)
        return empty, empty.copy(), empty.copy()
    outline = foreground & _differs_from_neighbour(labels)
    depth = _depth(foreground & ~outline) + 0.5 * outline
    deepest = ndimage.maximum(depth, labels, np.arange(int(labels.max()) + 1))
    deepest = np.maximum(np.asarray(deepest), 1e-3)
    distance = np.where(foreground, depth / deepest[labels], 0)
    boundary = ndimage.binary_dilation(outline)
    return (
        foreground.astype(np.float32),
        distance.astype(np.float32),
        boundary.astype(np.float32),
    )


def _differs_from_neighbour(labels: Array) -> Array:
    """Return True where one of the 4 neighbours has another id."""
    differs = np.zeros(labels.shape, bool)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    differs[1:] |= down
    differs[:-1] |= down
    differs[:, 1:] |= right
    differs[:, :-1] |= right
    return differs


def _depth(mask: Array) -> Array:
    """Return the distance to the nearest False pixel; outside the image is False."""
    return np.asarray(ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1])


def instances_from_maps(maps: Maps, settings: PostprocessSettings) -> Array:
    """Return labelled objects.

    The foreground is cut at the threshold. To split touching objects, the middle of
    each is sought in the distance map (or, without one, in the depth of the mask), and
    a watershed from the middles shares out the foreground. Where a mask is a thin net,
    such as membranes, that breaks it at its crossings at most; where the prompts show
    a net it is not split at all. Objects that are too small, or of which the model is
    much less sure than of the others, are left out.

    Parameters
    ----------
    maps : Maps
    settings : PostprocessSettings

    Returns
    -------
    (Y, X) uint32 array
        Consecutive ids from 1, or 0 and 1 for classes. Where the maps tell
        classes, each object is of one class, and labels of classes are the class ids.
    """
    if maps.classes is not None:
        return _instances_of_classes(maps, settings)
    if maps.foreground.size > LARGEST_WHOLE:
        return instances_in_blocks(maps, settings)
    labels = _pieces(maps, settings)
    if _fills_holes(maps, settings):
        labels = fill_object_holes(labels)
    labels = chosen_objects(
        labels, smallest_area(maps, settings), maps.foreground, settings.min_confidence
    )
    if settings.labels == "classes":
        return (labels > 0).astype(np.uint32)
    return labels


def _instances_of_classes(maps: Maps, settings: PostprocessSettings) -> Array:
    """Return the objects of each class; holes are filled only with background."""
    assert maps.classes is not None
    found = np.zeros(maps.foreground.shape, np.uint32)
    sure = maps.foreground >= settings.threshold
    for value in np.unique(maps.classes[sure]).tolist():
        own = maps.classes == value
        of_class = replace(
            maps, foreground=np.where(own, maps.foreground, 0), classes=None
        )
        part = instances_from_maps(of_class, settings)
        part[sure & ~own] = 0
        if settings.labels == "classes":
            found[part > 0] = value
        else:
            part[part > 0] += found.max(initial=0)
            np.maximum(found, part, out=found)
    return found


def window_instances(maps: Maps, settings: PostprocessSettings) -> Array:
    """Return the objects of a part of an image, the smallest among them.

    Parameters
    ----------
    maps : Maps
        Of a window of a large image.
    settings : PostprocessSettings

    Returns
    -------
    (Y, X) int array
        Ids from 1, with gaps.
    """
    labels = _pieces(maps, settings)
    if _fills_holes(maps, settings) and labels.any():
        return fill_object_holes(labels)
    return labels


def instances_in_blocks(
    maps: Maps,
    settings: PostprocessSettings,
    side: int | None = None,
    halo: int | None = None,
) -> Array:
    """Return what `instances_from_maps` does, in the memory of one block.

    Objects at a seam between blocks are recognised by what both blocks see of them in
    their halo. Objects and their neighbours within the halo come out as from the whole
    image, with other ids.

    Parameters
    ----------
    maps : Maps
    settings : PostprocessSettings
    side, halo : int or None
        Block and halo in pixels; None chooses the halo by the objects' diameter, and
        blocks that with it take about `BLOCK_SIDE`.

    Returns
    -------
    (Y, X) uint32 array
    """
    if halo is None:
        halo = halo_of(maps.objects) if _splits(maps, settings) else 1
    grid = block_grid(maps.foreground.shape, side or BLOCK_SIDE - 2 * halo, halo)
    labels, owner = label_blocks(
        lambda window: _pieces(_cut(maps, window), settings), grid
    )
    if _fills_holes(maps, settings):
        owner = fill_holes(labels, owner, grid)
    renumber(
        labels,
        owner,
        grid,
        smallest_area(maps, settings),
        maps.foreground,
        settings.min_confidence,
    )
    if settings.labels == "classes":
        np.minimum(labels, 1, out=labels)
    return labels


def halo_of(look: ObjectLook | None) -> int:
    """Return how many pixels around a block decide on the objects in it."""
    return int(np.clip(2 * (look.diameter if look else 0), *HALO_RANGE))


def _cut(maps: Maps, window: Window) -> Maps:
    return replace(
        maps,
        foreground=maps.foreground[window],
        distance=None if maps.distance is None else maps.distance[window],
        boundary=None if maps.boundary is None else maps.boundary[window],
    )


def _pieces(maps: Maps, settings: PostprocessSettings) -> Array:
    """Return the foreground in pieces, still with holes and with the smallest."""
    mask = maps.foreground >= settings.threshold
    if not mask.any():
        return np.zeros(mask.shape, np.int32)
    if _splits(maps, settings):
        return _split(mask, maps, _strength(maps, settings))
    return np.asarray(connected_components(mask, connectivity=1))


def _splits(maps: Maps, settings: PostprocessSettings) -> bool:
    """Tell whether touching objects are split: not in nets, nor for one class."""
    net = maps.objects is not None and maps.objects.net
    return settings.split and settings.labels != "classes" and not net


def _strength(maps: Maps, settings: PostprocessSettings) -> float:
    """Return how readily is split: 0, what the prompts say, 1 for 0, 0.5, 1."""
    usual = maps.objects.split if maps.objects else USUAL_SPLIT
    return float(np.interp(settings.split_strength, (0, 0.5, 1), (0, usual, 1)))


def smallest_area(maps: Maps, settings: PostprocessSettings) -> int:
    """Return the area in pixels under which objects are removed.

    What the settings say, or else a twelfth of the prompts' typical object.
    """
    if settings.min_area != AUTO:
        return settings.min_area
    if maps.objects is None or maps.objects.net:
        return SMALLEST_AREA
    return max(4, round(np.pi / 4 * maps.objects.diameter**2 / 12))


def _fills_holes(maps: Maps, settings: PostprocessSettings) -> bool:
    """Tell whether holes are filled: not where the prompts' own objects have some."""
    look = maps.objects
    return settings.fill_holes and not (look and (look.net or look.holes))


def _split(mask: Array, maps: Maps, strength: float) -> Array:
    """Return the mask's pieces, each touching group shared out among its middles."""
    # small bumps inside large objects are no objects
    blur = float(
        np.clip(0.06 * (maps.objects.diameter if maps.objects else 0), 1.0, 12.0)
    )
    if maps.distance is not None:
        height = np.where(mask, maps.distance, 0).astype(np.float32)
        if maps.boundary is not None:
            height = height * (1 - 0.5 * maps.boundary * mask)
        height = ndimage.gaussian_filter(height, blur)
        drop = 0.30 * (1 - strength) + 0.03
    else:
        depth = ndimage.gaussian_filter(_depth(mask), blur)
        pieces = connected_components(mask, connectivity=1)
        deepest = np.asarray(
            ndimage.maximum(depth, pieces, np.arange(int(pieces.max()) + 1))
        )
        if maps.objects:  # a clump may be deeper in places than its objects
            deepest = np.minimum(deepest, maps.objects.diameter / 2)
        height = np.where(mask, depth / np.maximum(deepest, 1.0)[pieces], 0)
        height = height.astype(np.float32)
        drop = 0.36 * (1 - strength) ** 3 + 0.06
    typical = np.pi / 4 * maps.objects.diameter**2 if maps.objects else None
    return _basins(height, mask, drop, typical)


def _basins(
    height: Array, mask: Array, drop: float, typical: float | None = None
) -> Array:
    """Return the mask shared out among tops that rise by ``drop`` over all passes.

    Every top gets its basin; then basins are joined over their passes, the highest
    first, where the lower top rises less. This is the watershed from h-maxima, without
    the slow reconstruction by which those are usually found. Where the ``typical`` area
    of an object is known, parts that are one object's size together rise by more.
    """
    inside = np.where(mask, height, -np.inf).astype(np.float32)
    tops = (ndimage.maximum_filter(inside, footprint=CROSS) == inside) & mask
    seeds = connected_components(tops, connectivity=1)
    basins = np.asarray(watershed(-inside, seeds, mask=mask))
    n = int(seeds.max())
    top = np.zeros(n + 1, np.float32)
    top[seeds[tops]] = inside[tops]
    area = np.bincount(basins.ravel(), minlength=n + 1) / (typical or 1.0)
    owner = list(range(n + 1))
    for low, high, saddle in _passes(basins, inside):
        one, two = _owner(owner, low), _owner(owner, high)
        if top[one] < top[two]:
            one, two = two, one
        if one == two:
            continue
        needed = drop * _uncertainty(area[one], area[two]) if typical else drop
        if top[two] - saddle < needed:
            owner[two] = one
            area[one] += area[two]
    return np.array([_owner(owner, i) for i in range(n + 1)])[basins]


def _uncertainty(one: float, two: float) -> float:
    """Return by how much more two parts must rise to be two objects.

    Parameters
    ----------
    one, two : float
        Areas of the parts, in typical objects.
    """
    if min(one, two) < CRUMB:
        return CRUMB_DOUBT
    return float(np.clip(WHOLE_DOUBT + 1 - (one + two), 1, WHOLE_DOUBT))


def _passes(basins: Array, height: Array) -> list[tuple[int, int, float]]:
    """Return each pair of neighbouring basins and their highest pass, highest first."""
    pairs, heights = [], []
    for one, two in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        a, b = basins[one], basins[two]
        meet = (a != b) & (a > 0) & (b > 0)
        pairs.append(np.sort(np.stack([a[meet], b[meet]], axis=1), axis=1))
        heights.append(np.minimum(height[one][meet], height[two][meet]))
    pair, saddle = np.concatenate(pairs), np.concatenate(heights)
    order = np.argsort(-saddle, kind="stable")
    _, first = np.unique(pair[order], axis=0, return_index=True)
    chosen = order[np.sort(first)]
    return [
        (int(a), int(b), float(s))
        for (a, b), s in zip(pair[chosen], saddle[chosen], strict=True)
    ]


def _owner(owner: list[int], i: int) -> int:
    """Return the basin that ``i`` has been joined to, and shorten the way there."""
    while owner[i] != i:
        owner[i] = owner[owner[i]]
        i = owner[i]
    return i


def look_of(masks: list[Array], scales: list[float]) -> ObjectLook:
    """Return what the objects of prompt masks look like.

    Parameters
    ----------
    masks : list of (64, 64) int arrays
        Of prompts that show an object.
    scales : list of float
        Prompt pixels per query pixel of each.
    """
    diameters = [median_diameter(m) / s for m, s in zip(masks, scales, strict=True)]
    open_share = [
        np.count_nonzero(fill_object_holes(m) != m) / np.count_nonzero(m) for m in masks
    ]
    return ObjectLook(
        diameter=float(np.median(diameters)),
        net=any(is_net(m) for m in masks),
        holes=float(np.mean(open_share)) > HOLE_SHARE,
    )


def fitted_split(found: Sequence[Maps], masks: Sequence[Array]) -> float:
    """Return the split strength that finds the prompts' own objects best.

    Of those about as good (`ALIKE`) that nearest to the usual: most prompts show few
    touching objects, or none.

    Parameters
    ----------
    found : sequence of Maps
        What the model says of each prompt that shows an object.
    masks : sequence of (Y, X) int arrays
        Their objects, in the pixels of the maps.

    Returns
    -------
    float
        One of `SPLITS`.
    """

    def score(strength: float) -> float:
        settings = PostprocessSettings(min_confidence=0.0)
        scores = []
        for maps, mask in zip(found, masks, strict=True):
            look = maps.objects or ObjectLook(median_diameter(mask))
            maps = replace(maps, objects=replace(look, split=strength))
            scores.append(f1(instances_from_maps(maps, settings), mask))
        return float(np.mean(scores))

    if not found or all(m.objects is not None and m.objects.net for m in found):
        return USUAL_SPLIT
    scores = [score(strength) for strength in SPLITS]
    best = [s for s, n in zip(SPLITS, scores, strict=True) if n > max(scores) - ALIKE]
    return min(best, key=lambda s: abs(s - USUAL_SPLIT))


def fill_object_holes(labels: Array) -> Array:
    """Return labels of objects without holes; a hole with another object stays.

    Parameters
    ----------
    labels : (Y, X) int array
    """
    background = connected_components(labels == 0, connectivity=1)
    n = int(background.max())
    edge = np.zeros(n + 1, bool)
    for side in (background[0], background[-1], background[:, 0], background[:, -1]):
        edge[side] = True
    edge[0] = True
    if edge.all():
        return labels
    # a hole belongs to an object that is its only neighbour
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


def chosen_objects(
    labels: Array,
    min_area: int,
    foreground: Array | None = None,
    confidence: float = 0.0,
) -> Array:
    """Return labels without small and doubtful objects: uint32 1, 2, 3, ...

    Parameters
    ----------
    labels : (Y, X) int array
    min_area : int
        Objects under this many pixels are removed.
    foreground : (Y, X) float array, optional
        Probability in [0, 1].
    confidence : float
        See `confidence.sure`.
    """
    areas = np.bincount(labels.ravel())
    peaks = np.zeros(len(areas), np.float32)
    if foreground is not None and confidence > 0:
        add_peaks(peaks, labels, foreground)
    return new_ids(areas, peaks, min_area, confidence)[labels]
