"""Places and images of which a model is uncertain, where another prompt may help."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..geometry import PROMPT_SIZE, Box, tile_starts
from ..result import Maps

POSSIBLE_FOREGROUND = 0.2
"""Foreground probability from which a pixel may belong to an object."""

LIKELY_FOREGROUND = 0.3
"""Foreground probability from which a pixel counts when two results are compared."""

MAX_PIXELS = 1_000_000
"""About as many pixels of an image are enough to measure its uncertainty."""

MIN_REGION_UNCERTAINTY = 0.3
"""Mean uncertainty from which a region is uncertain; clear objects have less."""

TRUST_WEIGHT = 0.75
"""Weight of the missing trust in the uncertainty of an image."""

MIN_IMAGE_UNCERTAINTY = 0.15
"""Uncertainty from which an image is worth checking."""

MIN_UNCERTAIN_FRACTION = 0.02
"""Fraction of a box that must be uncertain for the box to be worth checking."""

SHAPES_DIFFER = "maps and labels differ in shape: {maps} and {labels}"


@dataclass(frozen=True)
class UncertainPlace:
    """A box in which a model is uncertain.

    Parameters
    ----------
    box : Box
    uncertainty : float
        Mean uncertainty of the uncertain pixels in the box, in [0, 1].
    n_objects : int
        Objects of the labels that lie in the box, wholly or in part.
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
    """Return the boxes in which another prompt would help most, best first.

    Boxes that show objects come first. They are ranked by their total uncertainty, the
    sum over the `uncertain_pixels`, so that a box with much to correct comes before a
    speck. Boxes overlap neither each other nor those in ``taken``.

    Parameters
    ----------
    maps : Maps
        Of one plane.
    labels : (Y, X) int array
        Labels made from these maps; 0 = background.
    size : int
        Side of the boxes in pixels.
    taken : iterable of Box
        Prompts, and places that the user has checked.
    limit : int, optional
        Largest number of boxes.

    Returns
    -------
    list of UncertainPlace
        Empty if the image is smaller than a box, or nothing is uncertain.

    Raises
    ------
    ValueError
        If maps and labels differ in shape.
    """
    if labels.shape != maps.foreground.shape:
        raise ValueError(
            SHAPES_DIFFER.format(maps=maps.foreground.shape, labels=labels.shape)
        )
    if min(labels.shape) < size:
        return []
    # Candidates on a grid of a quarter of a box: close enough to the best position, and
    # few enough to be scored all at once.
    step = max(1, size // 4)
    ys, xs = (tile_starts(n, size, size - step) for n in labels.shape)
    uncertain = uncertain_pixels(maps)
    total = box_sums(np.where(uncertain, maps.uncertainty, 0), ys, xs, size)
    area = box_sums(uncertain, ys, xs, size)
    shows_object = box_sums(labels > 0, ys, xs, size) > 0
    # A pixel has an uncertainty of at most 1, so the bonus of a full box puts every box
    # with an object before all boxes without.
    score = total + size * size * shows_object
    score[area < MIN_UNCERTAIN_FRACTION * size * size] = -1
    rows, columns = np.array(ys), np.array(xs)
    # Where a prompt is, another one would show little new.
    for box in taken:
        score[np.ix_(*_overlapping(rows, columns, box, size))] = -1
    places: list[UncertainPlace] = []
    while score.max() > 0 and (limit is None or len(places) < limit):
        # A small region lies in several boxes alike: the middle one shows it centred.
        best = np.argwhere(np.isclose(score, score.max()))
        i, j = best[len(best) // 2]
        box = Box(int(rows[i]), int(columns[j]), size)
        ids = np.unique(labels[box.slices])
        mean = float(total[i, j] / max(area[i, j], 1))
        places.append(UncertainPlace(box, mean, int((ids > 0).sum())))
        score[np.ix_(*_overlapping(rows, columns, box, size))] = -1
    return places


def uncertain_pixels(maps: Maps) -> np.ndarray:
    """Return the pixels of regions that may be objects and that are uncertain.

    Connected pixels that may be foreground are judged together by their mean: the rim
    of every object is uncertain, but a clear object with its rim is not.

    Returns
    -------
    (Y, X) bool array
    """
    regions, n = ndimage.label(maps.foreground >= POSSIBLE_FOREGROUND)
    sums = np.bincount(regions.ravel(), maps.uncertainty.ravel(), n + 1)
    mean = sums / np.maximum(np.bincount(regions.ravel(), minlength=n + 1), 1)
    return np.asarray((mean >= MIN_REGION_UNCERTAINTY)[regions] & (regions > 0))


def box_sums(
    values: np.ndarray, ys: Sequence[int], xs: Sequence[int], size: int
) -> np.ndarray:
    """Return the sum of an array over each box of a grid.

    Parameters
    ----------
    values : (Y, X) array
    ys, xs : sequence of int
        Top and left coordinates of the boxes, increasing from 0; the last boxes end at
        the border of the array.
    size : int
        Side of the boxes.

    Returns
    -------
    (len(ys), len(xs)) float64 array
    """
    # Sums between all box edges first, then running sums of these: less memory, and
    # less rounding, than a summed-area table of every pixel.
    sums = np.asarray(values)
    for axis, starts in enumerate((np.array(ys), np.array(xs))):
        edges = np.union1d(starts, starts + size)
        between = np.add.reduceat(sums, edges[:-1], axis, np.float64)
        running = np.insert(np.cumsum(between, axis), 0, 0, axis)
        first, last = (np.searchsorted(edges, e) for e in (starts, starts + size))
        sums = running.take(last, axis) - running.take(first, axis)
    return np.asarray(sums)


def _overlapping(
    rows: np.ndarray, columns: np.ndarray, box: Box, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return at which rows and columns boxes of ``size`` overlap ``box``."""
    return (
        (rows > box.y - size) & (rows < box.y + box.size),
        (columns > box.x - size) & (columns < box.x + box.size),
    )


def image_uncertainty(maps: Maps, trust: float = float("nan")) -> float:
    """Return the uncertainty of the result of a whole image.

    Three parts are the lack of trust, one part is the mean uncertainty of the possible
    foreground.

    Parameters
    ----------
    maps : Maps
        Of one plane; a large one is sampled.
    trust : float
        Of the result, in [0, 1]; NaN if it is not known.

    Returns
    -------
    float
        In [0, 1]; 1 if there is no possible foreground.
    """
    # Every n-th row and column: neighbouring pixels are almost equally uncertain.
    step = max(1, round((maps.foreground.size / MAX_PIXELS) ** 0.5))
    uncertainty = mean_uncertainty(maps.foreground[::step, ::step], POSSIBLE_FOREGROUND)
    if np.isnan(trust):
        return uncertainty
    return TRUST_WEIGHT * (1 - trust) + (1 - TRUST_WEIGHT) * uncertainty


def mean_uncertainty(foreground: np.ndarray, possible: float) -> float:
    """Return the mean uncertainty of the possible foreground, 1 if there is none.

    Background is left out: a mostly empty image would seem certain whatever the model
    finds in it.

    Parameters
    ----------
    foreground : (Y, X) float array
        Probabilities in [0, 1].
    possible : float
        Probability from which a pixel is possible foreground.
    """
    found = Maps(foreground[foreground >= possible])
    return float(found.uncertainty.mean()) if found.foreground.size else 1.0
