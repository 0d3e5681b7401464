"""Objects from the maps of a network, and the maps that a network is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage
from skimage.measure import label as connected_components

from ..result import DEFAULT_SPLIT, Maps, ObjectProperties
from ..settings import AUTO, PostprocessSettings
from .blocks import block_grid, fill_holes, label_blocks, renumber
from .confidence import ObjectEvidence, new_ids, on_outline
from .holes import close_gaps, fill_object_holes
from .ids import compact_ids
from .metrics import f1
from .object_size import is_net, median_diameter
from .splitting import depth_of, split_touching

Array = np.ndarray

DEFAULT_MIN_AREA = 20
"""Objects with fewer pixels are removed when the size of the objects is unknown."""

MAX_HOLE_FRACTION = 0.03
"""Area of the holes in the prompts' objects above which holes are not filled."""

MAX_WHOLE_PIXELS = 2048 * 2048
"""Images with more pixels are labelled block by block, to save memory."""

BLOCK_SIDE = 1536
"""Side of a block together with its halo, in pixels."""

HALO_RANGE = (64, 256)
"""Smallest and largest halo of a block, in pixels."""


SPLIT_STRENGTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8)
"""Split strengths that are tried on the prompts."""

MAX_SPLIT = 0.5
"""Highest strength that the prompts choose: more cuts other images to pieces."""

SPLIT_TOLERANCE = 0.03
"""Strengths whose F1 on the prompts differs by less are equally good."""


def targets(labels: Array) -> tuple[Array, Array, Array]:
    """Return the maps that a network is trained to predict from an image.

    Parameters
    ----------
    labels : (Y, X) int array
        Object ids; 0 is background.

    Returns
    -------
    foreground : (Y, X) float32 array
        1 inside objects.
    distance : (Y, X) float32 array
        Distance to the border of the object divided by the largest in this object:
        small at the border, 1 in the centre, 0 outside. Small and large objects alike
        have one peak of height 1, which makes them separable by one rule.
    boundary : (Y, X) float32 array
        1 within a pixel of the outline of an object.
    """
    foreground = labels > 0
    if not foreground.any():
        empty = np.zeros(labels.shape, np.float32)
        return empty, empty.copy(), empty.copy()
    labels = compact_ids(labels)
    outline = on_outline(labels)
    # Measured to the outline and not to the background, so that the distance drops
    # between touching objects; the outline itself is half a pixel deep, not 0.
    depth = depth_of(foreground & ~outline) + 0.5 * outline
    deepest = ndimage.maximum(depth, labels, np.arange(int(labels.max()) + 1))
    deepest = np.maximum(np.asarray(deepest), 1e-3)  # ids that do not occur have 0
    distance = np.where(foreground, depth / deepest[labels], 0)
    boundary = ndimage.binary_dilation(outline)
    return (
        foreground.astype(np.float32),
        distance.astype(np.float32),
        boundary.astype(np.float32),
    )


def instances_from_maps(maps: Maps, settings: PostprocessSettings) -> Array:
    """Return the labels of the objects that the maps of a network show.

    1. Pixels whose foreground probability reaches the threshold are foreground.
    2. Touching objects are split by a watershed on the distance map (or, without one,
       on the distance transform of the mask), see `splitting`. A net, such as
       membranes, is not split if the prompts show a net, and otherwise at its
       crossings only.
    3. Holes are filled; by default unless the objects of the prompts have holes.
    4. Small objects, and those that the network is much less sure of than of the
       typical object (see `confidence`), are removed.

    Images above `MAX_WHOLE_PIXELS` are labelled block by block.

    Parameters
    ----------
    maps : Maps
    settings : PostprocessSettings

    Returns
    -------
    (Y, X) uint32 array
        Consecutive ids from 1, or 0 and 1 for classes. Where the maps have classes,
        each object has one class, and labels of classes are the class ids.
    """
    if maps.classes is not None:
        return _instances_of_classes(maps, settings)
    if maps.foreground.size > MAX_WHOLE_PIXELS:
        return instances_in_blocks(maps, settings)
    labels = _split_foreground(maps, settings)
    if _fills_holes(maps, settings):
        labels = fill_object_holes(labels)
    labels = filter_objects(
        labels,
        smallest_area(maps, settings),
        maps.foreground,
        outline_evidence(maps),
        confidence=settings.min_confidence,
    )
    if settings.labels == "classes":
        return (labels > 0).astype(np.uint32)
    return labels


def _instances_of_classes(maps: Maps, settings: PostprocessSettings) -> Array:
    """Return the objects of all classes, each class labelled by itself."""
    assert maps.classes is not None
    found = np.zeros(maps.foreground.shape, np.uint32)
    foreground = maps.foreground >= settings.threshold
    for value in np.unique(maps.classes[foreground]).tolist():
        # One class by one, so that touching objects of two classes are never one.
        own = maps.classes == value
        of_class = replace(
            maps, foreground=np.where(own, maps.foreground, 0), classes=None
        )
        part = instances_from_maps(of_class, settings)
        # An object of another class looks like a hole to this class: give it back.
        part[foreground & ~own] = 0
        if settings.labels == "classes":
            found[part > 0] = value
        else:
            part[part > 0] += found.max(initial=0)
            # Two classes may have filled the same hole; the later one keeps it.
            np.maximum(found, part, out=found)
    return found


def window_instances(maps: Maps, settings: PostprocessSettings) -> Array:
    """Return the objects of one window of a large image, before small ones are removed.

    Whether an object is too small, or less confident than others, can only be decided
    once its parts in all windows are known.

    Parameters
    ----------
    maps : Maps
        Of the window.
    settings : PostprocessSettings

    Returns
    -------
    (Y, X) int array
        Ids from 1, with gaps.
    """
    labels = _split_foreground(maps, settings)
    if _fills_holes(maps, settings) and labels.any():
        return fill_object_holes(labels)
    return labels


def instances_in_blocks(
    maps: Maps,
    settings: PostprocessSettings,
    side: int | None = None,
    halo: int | None = None,
) -> Array:
    """Return the labels of `instances_from_maps`, with the memory of one block.

    Blocks overlap by their halo; objects at a seam are matched by their overlap there.
    Objects that lie with their neighbours inside the halo are the same as from the
    whole image; ids may differ.

    Parameters
    ----------
    maps : Maps
    settings : PostprocessSettings
    side, halo : int or None
        Side of a block, and pixels that it sees around it. By default the halo follows
        from the objects' diameter, and a block with its halo has `BLOCK_SIDE`.

    Returns
    -------
    (Y, X) uint32 array
    """
    if halo is None:
        # Without splitting, connected components are exact from a halo of 1 pixel on.
        halo = halo_width(maps.objects) if _splits(maps, settings) else 1
    side = side or BLOCK_SIDE - 2 * halo
    grid = block_grid(maps.foreground.shape, side, halo, even=True)
    labels, owner = label_blocks(
        lambda window: _split_foreground(maps.window(window), settings), grid
    )
    if _fills_holes(maps, settings):
        owner = fill_holes(labels, owner, grid)
    renumber(
        labels,
        owner,
        grid,
        smallest_area(maps, settings),
        maps.foreground,
        outline_evidence(maps),
        settings.min_confidence,
    )
    if settings.labels == "classes":
        np.minimum(labels, 1, out=labels)
    return labels


def halo_width(properties: ObjectProperties | None) -> int:
    """Return how many pixels around a block influence the objects in it.

    Two diameters: an object at the border and the neighbour that it is split from.
    """
    return int(np.clip(2 * (properties.diameter if properties else 0), *HALO_RANGE))


def _split_foreground(maps: Maps, settings: PostprocessSettings) -> Array:
    """Return labels of the foreground, before holes are filled and objects removed."""
    mask = maps.foreground >= settings.threshold
    if not mask.any():
        return np.zeros(mask.shape, np.int32)
    if _splits(maps, settings):
        return split_touching(mask, maps, _strength(maps, settings))
    return np.asarray(connected_components(mask, connectivity=1))


def _splits(maps: Maps, settings: PostprocessSettings) -> bool:
    """Return whether touching objects are split: neither nets nor semantic output."""
    net = maps.objects is not None and maps.objects.net
    return settings.split and settings.labels != "classes" and not net


def _strength(maps: Maps, settings: PostprocessSettings) -> float:
    """Return the split strength in [0, 1]; a setting of 0.5 means that of the prompts.

    The setting is a slider whose middle was fitted to the prompts and whose ends reach
    the ends of the range, wherever the middle lies.
    """
    fitted = maps.objects.split if maps.objects else DEFAULT_SPLIT
    return float(np.interp(settings.split_strength, (0, 0.5, 1), (0, fitted, 1)))


def smallest_area(maps: Maps, settings: PostprocessSettings) -> int:
    """Return the area in pixels under which objects are removed.

    The setting, or a twelfth of the area of the prompts' typical object (a sixth lost
    too many small nuclei on the benchmark).
    """
    if settings.min_area != AUTO:
        return settings.min_area
    if maps.objects is None or maps.objects.net:
        return DEFAULT_MIN_AREA
    return max(4, round(np.pi / 4 * maps.objects.diameter**2 / 12))


def _fills_holes(maps: Maps, settings: PostprocessSettings) -> bool:
    """Return whether holes are filled: "auto" asks the prompts' objects for holes."""
    properties = maps.objects
    has_holes = properties is not None and (properties.net or properties.holes)
    return settings.fill_holes == "yes" or (
        settings.fill_holes == "auto" and not has_holes
    )


def object_properties(masks: list[Array], scales: list[float]) -> ObjectProperties:
    """Return the size and shape of the objects in prompt masks.

    Parameters
    ----------
    masks : list of (64, 64) int arrays
        Of prompts that show an object; -1 is unknown.
    scales : list of float
        Prompt pixels per query pixel of each mask.

    Returns
    -------
    ObjectProperties
        In pixels of the query.
    """
    # what is beside an unknown pixel may go on there: no hole is closed by it; gaps
    # between the strokes of a brush are no holes
    masks = [close_gaps(np.maximum(m, 0)) for m in masks]
    diameters = [median_diameter(m) / s for m, s in zip(masks, scales, strict=True)]
    hole_fractions = [
        np.count_nonzero(fill_object_holes(m) != m) / np.count_nonzero(m) for m in masks
    ]
    return ObjectProperties(
        diameter=float(np.median(diameters)),
        net=any(is_net(m) for m in masks),
        # A pixel left out by hand is no hole: some area of the objects is needed.
        holes=float(np.mean(hole_fractions)) > MAX_HOLE_FRACTION,
    )


def best_split_strength(found: Sequence[Maps], masks: Sequence[Array]) -> float:
    """Return the split strength that finds the objects of the prompts best.

    Most prompts show few touching objects or none, so that many strengths are equally
    good; of those within `SPLIT_TOLERANCE` of the best, the one nearest to the default
    is taken.

    Parameters
    ----------
    found : sequence of Maps
        The network's maps of each prompt that shows an object.
    masks : sequence of (Y, X) int arrays
        The objects of these prompts, at the pixels of the maps; -1 is unknown.

    Returns
    -------
    float
        One of `SPLIT_STRENGTHS`, `MAX_SPLIT` at most, or the default without prompts or
        for nets.
    """
    if not found or all(m.objects is not None and m.objects.net for m in found):
        return DEFAULT_SPLIT
    return chosen_strength(split_scores(found, masks))


def split_scores(found: Sequence[Maps], masks: Sequence[Array]) -> Array:
    """Return how well each split strength gives back the objects of each prompt.

    Parameters
    ----------
    found, masks
        As for `best_split_strength`.

    Returns
    -------
    (K, S) float array
        F1@0.5 of each prompt with each of the `SPLIT_STRENGTHS`.
    """
    # The objects of a prompt are certain: none may be lost to the confidence.
    settings = PostprocessSettings(min_confidence=0.0)

    def scores_of(maps: Maps, mask: Array) -> list[float]:
        properties = maps.objects or ObjectProperties(median_diameter(mask))
        known: dict[bytes, float] = {}  # many strengths find the same objects
        scores = []
        for strength in SPLIT_STRENGTHS:
            maps = replace(maps, objects=replace(properties, split=strength))
            labels = instances_from_maps(maps, settings)
            key = labels.tobytes()
            if key not in known:
                known[key] = f1(labels, np.maximum(mask, 0), ignore=mask < 0)
            scores.append(known[key])
        return scores

    return np.array([scores_of(*pair) for pair in zip(found, masks, strict=True)])


def chosen_strength(
    scores: Array, tolerance: float = SPLIT_TOLERANCE, highest: float = MAX_SPLIT
) -> float:
    """Return the strength nearest to the default of those that are nearly the best.

    Parameters
    ----------
    scores : (K, S) float array
        From `split_scores`.
    tolerance : float
        How much lower than the highest the mean over prompts may be.
    highest : float
        Taken where the choice is higher.
    """
    means = np.mean(scores, axis=0)
    good = np.array(SPLIT_STRENGTHS)[means > means.max() - tolerance]
    nearest = min(good, key=lambda strength: abs(strength - DEFAULT_SPLIT))
    return min(float(nearest), highest)


def outline_evidence(maps: Maps) -> Array | None:
    """Return the boundary map if it tells of objects: the pieces of a net have none."""
    net = maps.objects is not None and maps.objects.net
    return None if net else maps.boundary


def filter_objects(
    labels: Array,
    min_area: int,
    foreground: Array | None = None,
    boundary: Array | None = None,
    *,
    confidence: float = 0.0,
) -> Array:
    """Return the labels without small and unconfident objects, renumbered from 1.

    Parameters
    ----------
    labels : (Y, X) int array
    min_area : int
        Objects with fewer pixels are removed.
    foreground : (Y, X) float array, optional
        Probability in [0, 1]; without it confidence is not considered.
    boundary : (Y, X) float array, optional
        Probability in [0, 1].
    confidence : float
        Fraction of the typical peak probability, see `confidence.confident_objects`.

    Returns
    -------
    (Y, X) uint32 array
        Ids 1, 2, 3, ... in the order of the old ones.
    """
    labels = compact_ids(labels)
    areas = np.bincount(labels.ravel())
    evidence = ObjectEvidence.nothing(len(areas) - 1)
    if foreground is not None and confidence > 0:
        evidence.add(labels, foreground, boundary)
    return new_ids(areas, evidence, min_area, confidence)[labels]
