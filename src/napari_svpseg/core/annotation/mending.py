"""Mending of labels by hand, and what splitting can learn of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy import ndimage
from skimage.draw import line
from skimage.measure import label as connected_components

from ..labels.ids import count_objects
from ..labels.instances import instances_from_maps
from ..labels.metrics import f1, match_instances
from ..prompt import UNKNOWN, PromptError
from ..result import Maps
from ..settings import PostprocessSettings
from .patches import Patch

Array = np.ndarray

LEAST_PART = 0.04
"""Least share of an object that a part of it must have; smaller ones are left whole."""

MARGIN = 64
"""Pixels around a mended object in which splitting is tried again."""

STRENGTHS = tuple(round(0.05 * i, 2) for i in range(21))
"""Split strengths that are tried."""

AS_PROMPTS = 0.5
"""Split strength that stands for that of the prompts."""

REACH = 0.1
"""How far from that of the prompts, 0.5, a learned split strength may be.

Farther it cost other images 5 points of F1 on average, as users split what they see,
and strengths that split it split right objects of other images too.
"""

MOST_OTHERS = 0.25
"""Largest share of the other objects around that a new strength may change."""

NOT_ON_OBJECT = "The line crosses no object: draw it through one."
NOT_DIVIDED = "The line does not divide the object: draw it from edge to edge."


class MendError(PromptError):
    """Labels that cannot be mended so; the message says what to do."""


def crossed_object(labels: Array, path: Array) -> int:
    """Return the id of the object that most of a drawn line lies on.

    Parameters
    ----------
    labels : (Y, X) int array
    path : (N, 2) float array
        Points (y, x) of the line.

    Raises
    ------
    MendError
        If it lies on none.
    """
    ids = labels[_pixels(path, labels.shape)]
    ids = ids[ids > 0]
    if not ids.size:
        raise MendError(NOT_ON_OBJECT)
    found, counts = np.unique(ids, return_counts=True)
    return int(found[np.argmax(counts)])


def divided(mask: Array, path: Array) -> Array:
    """Return an object divided along a line, which may end short of its edge.

    Parameters
    ----------
    mask : (Y, X) bool array
        The object.
    path : (N, 2) float array
        Points (y, x) of the line.

    Returns
    -------
    (Y, X) int32 array
        The parts as 1, 2, ...; 0 outside the object.

    Raises
    ------
    MendError
        If the line does not divide it.
    """
    longest = float(np.hypot(*mask.shape))
    for reach in (0.0, longest):
        parts = _parts(mask, _extended(np.asarray(path, float), reach))
        if int(parts.max(initial=0)) > 1:
            return parts
    raise MendError(NOT_DIVIDED)


def _extended(path: Array, reach: float) -> Array:
    """Return a line that goes on straight at both ends."""
    ends = []
    for end, before in ((path[0], path[1:]), (path[-1], path[-2::-1])):
        far = [p for p in before if np.hypot(*(end - p)) >= 1]
        step = end - far[min(len(far), 4) - 1] if far else np.zeros(2)
        ends.append(end + reach * step / max(float(np.hypot(*step)), 1e-9))
    return np.vstack([ends[0], path, ends[1]])


def divided_like(mask: Array, finer: Array) -> Array:
    """Return an object divided as other labels divide it.

    Parameters
    ----------
    mask : (Y, X) bool array
        The object.
    finer : (Y, X) int array
        Smaller objects; those outside the object do not count.

    Returns
    -------
    (Y, X) int32 array
        The parts as 1, 2, ...; 0 outside the object.
    """
    finer = np.where(mask, finer, 0)
    parts = np.unique(finer, return_inverse=True)[1].reshape(finer.shape)
    return _spread(parts, mask)


def _spread(parts: Array, mask: Array) -> Array:
    """Return parts of an object that are grown until they fill it."""
    nearest = ndimage.distance_transform_edt(
        parts == 0, return_distances=False, return_indices=True
    )
    return np.where(mask, parts[tuple(nearest)], 0).astype(np.int32)


def _pixels(path: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Return rows and columns of the pixels on a line, of those in a plane."""
    at = np.floor(np.asarray(path, float) + 0.5).astype(int)
    pieces = [line(*a, *b) for a, b in pairwise(at)]
    pieces = pieces or [(at[:, 0], at[:, 1])]
    rows, columns = (np.concatenate(part) for part in zip(*pieces, strict=True))
    height, width = shape
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return rows[inside], columns[inside]


def _parts(mask: Array, path: Array) -> Array:
    left = mask.copy()
    left[_pixels(path, mask.shape)] = False
    # 4 neighbours only: a line of pixels that touch at their corners divides too
    pieces = np.asarray(connected_components(left, connectivity=1))
    areas = np.bincount(pieces.ravel())
    areas[0] = 0
    large = np.flatnonzero(areas >= max(4, LEAST_PART * np.count_nonzero(mask)))
    if large.size < 2:
        return mask.astype(np.int32)
    new = np.zeros(areas.size, np.int32)
    new[large] = np.arange(1, large.size + 1)
    # the line itself and specks go to the nearest part
    return _spread(new[pieces], mask)


def changed_objects(
    before: Array, after: Array, ignore: Array | None = None
) -> tuple[int, int]:
    """Return how many objects are gone, and how many are new.

    Parameters
    ----------
    before, after : int arrays of one shape
    ignore : array, optional
        Pixels where it is non-zero do not count, such as what was corrected by hand.
    """
    matching = match_instances(after, before, ignore=ignore)
    return matching.fn, matching.fp


@dataclass(frozen=True, eq=False)
class Lesson:
    """What one mended place says about splitting.

    Parameters
    ----------
    maps : Maps
        Of the plane around the place.
    wanted : (Y, X) int array
        The objects there; -1 = not mended.
    labels : (Y, X) int array
        The objects before.
    """

    maps: Maps
    wanted: Array
    labels: Array

    @classmethod
    def of(cls, maps: Maps, labels: Array, patch: Patch) -> Lesson:
        """Return the lesson of a patch.

        Parameters
        ----------
        maps : Maps
            Of the plane.
        labels : (Y, X) int array
            Of the plane, before it was mended.
        patch : Patch
        """
        rows, columns = patch.slices
        window = (
            slice(max(0, rows.start - MARGIN), rows.stop + MARGIN),
            slice(max(0, columns.start - MARGIN), columns.stop + MARGIN),
        )
        wanted = patch.on_plane((labels.shape[0], labels.shape[1]))[window]
        return cls(maps.window(window), wanted, labels[window])

    def score(self, settings: PostprocessSettings) -> float:
        """Return the F1 score of the mended objects with other settings.

        0 if too many of the objects around change.
        """
        found = instances_from_maps(self.maps, settings)
        mended = self.wanted != UNKNOWN
        others = np.where(np.isin(self.labels, self.labels[mended]), 0, self.labels)
        gone, _ = changed_objects(others, found, mended)
        if gone > MOST_OTHERS * max(4, count_objects(others)):
            return 0.0
        return f1(found, np.maximum(self.wanted, 0), ignore=~mended)


def learned_strength(lessons: Sequence[Lesson], settings: PostprocessSettings) -> float:
    """Return the split strength that mended places support.

    It is the one nearest to the present that gives most of the mended objects, within
    `REACH` of that of the prompts; the present one where no other is better.

    Parameters
    ----------
    lessons : sequence of Lesson
        All that were mended so far.
    settings : PostprocessSettings
        The present ones.
    """

    def total(strength: float) -> float:
        tried = replace(settings, split_strength=strength)
        return sum(lesson.score(tried) for lesson in lessons)

    present = settings.split_strength
    if not lessons or not settings.split:
        return present
    low, high = min(present, AS_PROMPTS - REACH), max(present, AS_PROMPTS + REACH)
    near = [s for s in STRENGTHS if low - 1e-6 <= s <= high + 1e-6]
    scores = {strength: total(strength) for strength in (present, *near)}
    best = max(scores.values())
    if best <= scores[present] + 1e-6:
        return present
    good = [s for s, score in scores.items() if score >= best - 1e-6]
    return min(good, key=lambda strength: abs(strength - present))
