"""The places and images that a model uncertainties: another prompt may help there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..geometry import PROMPT_SIZE, Box, tile_starts
from ..result import Maps

POSSIBLE_FOREGROUND = 0.2
"""Foreground probability from which a pixel may be part of an object."""

LIKELY_FOREGROUND = 0.3
"""Foreground probability from which a pixel says how certain an answer is."""

MAX_PIXELS = 1_000_000
"""Pixels that tell enough of the uncertainty in an image."""

LEAST_DOUBT = 0.3
"""Mean uncertainty from which something is doubtful; clear edges cause less."""

TRUST_WEIGHT = 0.75
"""Of the trust in the uncertainty of an image."""

MIN_IMAGE_UNCERTAINTY = 0.15
"""An image is worth a look from this uncertainty on."""

LEAST_SHARE = 0.02
"""Share of a box that must be doubtful for it to be worth a look."""


@dataclass(frozen=True)
class UncertainPlace:
    """A box in which a model is not sure.

    Parameters
    ----------
    box : Box
    uncertainty : float
        Mean uncertainty of what is doubtful in it, in [0, 1].
    n_objects : int
        Objects that the box shows, or parts of them, as they are labelled now.
    """

    box: Box
    uncertainty: float
    n_objects: int


def uncertain_places(
    maps: Maps,
    labels: np.ndarray,
    size: int = PROMPT_SIZE,
    *,
    taken: Iterable[Box] = (),
    limit: int | None = None,
) -> list[UncertainPlace]:
    """Return boxes in which a prompt would help, the most doubtful first.

    The boxes lie inside the image and overlap neither each other nor those that are
    ``taken``. Those that show objects come first. They are ranked by the uncertainty of
    what is doubtful (`uncertain_pixels`), summed, so that a box with much to correct
    comes before a speck.

    Parameters
    ----------
    maps : Maps
        Of one plane.
    labels : (Y, X) int array
        What was made of the maps; 0 = background.
    size : int
        Side of the boxes, in pixels.
    taken : iterable of Box
        Prompts, and places that were looked at already.
    limit : int, optional
        At most so many.

    Returns
    -------
    list of UncertainPlace
        Empty where the image is smaller than a box, or nothing is doubtful.

    Raises
    ------
    ValueError
        If maps and labels differ in shape.
    """
    if labels.shape != maps.foreground.shape:
        raise ValueError(
            "maps and labels differ in shape: "
            f"{maps.foreground.shape} and {labels.shape}"
        )
    if min(labels.shape) < size:
        return []
    step = max(1, size // 4)
    ys, xs = (tile_starts(n, size, size - step) for n in labels.shape)
    doubtful = uncertain_pixels(maps)
    unsure = box_sums(np.where(doubtful, maps.uncertainty, 0), ys, xs, size)
    area = box_sums(doubtful, ys, xs, size)
    uncertainty = unsure / np.maximum(area, 1)
    shows_object = box_sums(labels > 0, ys, xs, size) > 0
    score = unsure + size * size * shows_object
    score[area < LEAST_SHARE * size * size] = -1
    rows, columns = np.array(ys), np.array(xs)
    for box in taken:
        score[np.ix_(*_near(rows, columns, box, size))] = -1
    places: list[UncertainPlace] = []
    while score.max() > 0 and (limit is None or len(places) < limit):
        best = np.argwhere(np.isclose(score, score.max()))
        i, j = best[len(best) // 2]  # of equal boxes the middle one: not at an edge
        box = Box(int(rows[i]), int(columns[j]), size)
        ids = np.unique(labels[box.slices])
        places.append(
            UncertainPlace(box, float(uncertainty[i, j]), int((ids > 0).sum()))
        )
        score[np.ix_(*_near(rows, columns, box, size))] = -1
    return places


def uncertain_pixels(maps: Maps) -> np.ndarray:
    """Return where there may be something of which the model is not sure.

    Connected pixels that may be foreground are taken together: the rim of a clear
    object is unsure too, but the object is not.

    Returns
    -------
    (Y, X) bool array
    """
    parts, n = ndimage.label(maps.foreground >= POSSIBLE_FOREGROUND)
    sums = np.bincount(parts.ravel(), maps.uncertainty.ravel(), n + 1)
    mean = sums / np.maximum(np.bincount(parts.ravel(), minlength=n + 1), 1)
    return np.asarray((mean >= LEAST_DOUBT)[parts] & (parts > 0))


def box_sums(
    values: np.ndarray, ys: Sequence[int], xs: Sequence[int], size: int
) -> np.ndarray:
    """Return the sums of an array over the boxes with corners ``ys`` x ``xs``.

    Parameters
    ----------
    values : (Y, X) array
    ys, xs : sequence of int
        From 0, increasing; the last boxes end at the array's border.
    size : int
        Side of the boxes.

    Returns
    -------
    (len(ys), len(xs)) float64 array
    """
    sums = np.asarray(values)
    for axis, starts in enumerate((np.array(ys), np.array(xs))):
        edges = np.union1d(starts, starts + size)
        between = np.add.reduceat(sums, edges[:-1], axis, np.float64)
        running = np.insert(np.cumsum(between, axis), 0, 0, axis)
        first, last = (np.searchsorted(edges, e) for e in (starts, starts + size))
        sums = running.take(last, axis) - running.take(first, axis)
    return np.asarray(sums)


def _near(
    rows: np.ndarray, columns: np.ndarray, box: Box, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows and columns begin boxes that overlap ``box``."""
    return (
        (rows > box.y - size) & (rows < box.y + box.size),
        (columns > box.x - size) & (columns < box.x + box.size),
    )


def image_uncertainty(maps: Maps, trust: float = float("nan")) -> float:
    """Return how doubtful the result of an image is as a whole.

    Made of how badly the result finds the prompts again and, with a third of the
    weight, of the mean uncertainty where something may be.

    Parameters
    ----------
    maps : Maps
        Of one plane; of a large one only some of the pixels are looked at.
    trust : float
        Of the result, in [0, 1]; NaN where it is not known.

    Returns
    -------
    float
        In [0, 1]; 1 where nothing may be there at all.
    """
    step = max(1, round((maps.foreground.size / MAX_PIXELS) ** 0.5))
    unsure = mean_uncertainty(maps.foreground[::step, ::step], POSSIBLE_FOREGROUND)
    if np.isnan(trust):
        return unsure
    return TRUST_WEIGHT * (1 - trust) + (1 - TRUST_WEIGHT) * unsure


def mean_uncertainty(foreground: np.ndarray, possible: float) -> float:
    """Return the mean uncertainty where something may be, 1 if there is nothing.

    Parameters
    ----------
    foreground : (Y, X) float array
        Probabilities.
    possible : float
        Probability from which something may be.
    """
    found = Maps(foreground[foreground >= possible])
    return float(found.uncertainty.mean()) if found.foreground.size else 1.0
