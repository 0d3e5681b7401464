"""Rules of the one-shot protocol: what an object is, and which box is a fair prompt.

All functions work on label images; none reads files or runs models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.segmentation import find_boundaries

from ..core.geometry import PROMPT_SIZE, Box
from ..core.labels.ids import compact_ids

MIN_SHARE, MAX_SHARE = 0.05, 0.90
"""Smallest and largest share of foreground in a legal box."""

BOX_SIZES = (32, 48, 64, 96, 128, 192, 256)
TRIES = 60
"""Random boxes per image."""
CHOICES = 6
"""Legal boxes of which a person takes the best."""
GOOD_SHARE = 1 / 3
"""Share of foreground that a person aims at."""
SPECK = 12
"""Components with fewer pixels are mistakes in the labels, not objects."""
MIN_HOLES = 3
"""A component with at least this many holes is a strand of a net."""


@dataclass(frozen=True)
class BoxRule:
    """Rule that decides whether a box is a legal prompt for one task.

    Parameters
    ----------
    size : int
        Side in image pixels.
    min_whole_area : float
        The box must show an object of at least this area that does not touch the box's
        border. 0 = no whole object is required (membranes, regions).
    """

    size: int = PROMPT_SIZE
    min_whole_area: float = 0.0

    def allows(self, labels: np.ndarray) -> bool:
        """Return whether the labels in a box make a legal prompt."""
        share = np.count_nonzero(labels) / labels.size
        if not MIN_SHARE <= share <= MAX_SHARE:
            return False
        if not self.min_whole_area:
            return True
        ids, areas = np.unique(labels, return_counts=True)
        edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        whole = (ids > 0) & (areas >= self.min_whole_area) & ~np.isin(ids, edge)
        return bool(whole.any())


def objects_of_class(labels: np.ndarray, value: int) -> np.ndarray:
    """Return the connected components (8-connectivity) of one class.

    Parameters
    ----------
    labels : (Y, X) int array
        Class ids.
    value : int
        Id of the class.

    Returns
    -------
    (Y, X) int32 array
        Object ids from 1; 0 elsewhere.
    """
    # 8-connectivity: a thin membrane often continues along a diagonal
    return np.asarray(ndimage.label(labels == value, np.ones((3, 3)))[0], np.int32)


def cut_borders(labels: np.ndarray) -> np.ndarray:
    """Return labels in which the borders between touching objects are background.

    Where objects fill the image, all of it is foreground. With a line of background
    between neighbours (one pixel on each side), foreground means the inside of objects.
    """
    touching = find_boundaries(labels, mode="inner", background=0)
    background = labels == 0
    if background.any():  # borders of an object to the background stay
        near = ndimage.binary_dilation(background, np.ones((3, 3)))
        touching &= ~near
    return np.where(touching, 0, labels)


def is_mosaic(images: Sequence[np.ndarray]) -> bool:
    """Return whether objects fill the images, so that no box would be legal."""
    shares = [np.count_nonzero(labels) / labels.size for labels in images]
    return bool(shares) and float(np.median(shares)) > MAX_SHARE


def is_network(images: Sequence[np.ndarray]) -> bool:
    """Return whether components are parts of a net and not single objects.

    A component of a net has several holes: membranes around cells, the sheaths of
    touching axons. Worms are thin but have no hole, a ring of cytoplasm has one. The
    majority of the images decides.
    """
    votes = [_most_holes(labels) >= MIN_HOLES for labels in images]
    return bool(votes) and sum(votes) * 2 > len(votes)


def _most_holes(labels: np.ndarray) -> int:
    """Return the largest number of holes of an object; small holes do not count."""
    most, labels = 0, compact_ids(labels)
    for i, where in enumerate(ndimage.find_objects(labels), start=1):
        if where is None:
            continue
        mask = labels[where] == i
        holes, n = ndimage.label(ndimage.binary_fill_holes(mask) & ~mask)
        if n > most:  # small holes are counted only where it could matter
            most = max(most, int((np.bincount(holes.ravel())[1:] >= 4 * SPECK).sum()))
    return most


def find_box(
    labels: np.ndarray,
    rule: BoxRule,
    rng: np.random.Generator,
    ignore: np.ndarray | None = None,
) -> Box | None:
    """Return a random legal box, or None if none was found.

    Each try takes a random box that contains a random foreground pixel.

    Parameters
    ----------
    labels : (Y, X) int array
        Object ids.
    rule : BoxRule
    rng : numpy Generator
    ignore : (Y, X) array, optional
        Boxes with a pixel above 0 are not legal: the prompt's mask would be wrong.
    """
    rows, columns = (n - rule.size for n in labels.shape)
    foreground = np.flatnonzero(labels)
    if rows < 0 or columns < 0 or foreground.size == 0:
        return None
    for pixel in rng.choice(foreground, TRIES):
        y, x = divmod(int(pixel), labels.shape[1])
        # any corner with which the box contains the pixel and lies inside the image
        box = Box(
            int(rng.integers(max(0, y - rule.size + 1), min(y, rows) + 1)),
            int(rng.integers(max(0, x - rule.size + 1), min(x, columns) + 1)),
            rule.size,
        )
        known = ignore is None or not ignore[box.slices].any()
        if known and rule.allows(labels[box.slices]):
            return box
    return None


def find_good_box(
    labels: np.ndarray,
    rule: BoxRule,
    rng: np.random.Generator,
    ignore: np.ndarray | None = None,
) -> Box | None:
    """Return a legal box as a person would choose it, or None if none was found.

    Of `CHOICES` random legal boxes, that with the most whole objects (more than three
    count as three), and of these that whose share of foreground is nearest to a third.

    Parameters
    ----------
    labels : (Y, X) int array
        Object ids.
    rule : BoxRule
    rng : numpy Generator
    ignore : (Y, X) array, optional
        As for `find_box`.
    """
    boxes = [find_box(labels, rule, rng, ignore) for _ in range(CHOICES)]

    def merit(box: Box) -> tuple[int, float]:
        inside = labels[box.slices]
        edge = np.concatenate([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
        ids, areas = np.unique(inside, return_counts=True)
        whole = (ids > 0) & (areas >= SPECK) & ~np.isin(ids, edge)
        share = np.count_nonzero(inside) / inside.size
        return min(3, int(whole.sum())), -abs(share - GOOD_SHARE)

    legal = [box for box in boxes if box is not None]
    return max(legal, key=merit) if legal else None


def choose_rule(
    images: Sequence[np.ndarray],
    *,
    start: int | None = None,
    whole: bool = True,
    seed: int = 0,
) -> BoxRule | None:
    """Return the rule with the smallest box that is legal in half of the images.

    The box must show a whole object of at least half the median area, so that it fits
    typical objects and not only fragments. If no size does (regions that run through
    the image), the rule has the largest box that is legal without this condition.

    Parameters
    ----------
    images : sequence of (Y, X) int array
        Object ids of images of one task.
    start : int, optional
        Smallest side to try; by default 64, or less where objects are tiny.
    whole : bool
        Whether the box must show a whole object.
    seed : int

    Returns
    -------
    BoxRule or None
        None if no image has a legal box of any size.
    """
    areas = _areas(images)
    if areas.size == 0:
        return None
    median = float(np.median(areas))
    start = start or _start_size(median if whole else np.inf)
    sizes = [start, *(s for s in BOX_SIZES if s > start)]
    if whole:
        for size in sizes:
            rule = BoxRule(size, max(1.0, median / 2))
            if _n_legal(images, rule, seed) * 2 >= len(images):
                return rule
    counts = {s: _n_legal(images, BoxRule(s), seed) for s in sizes}
    enough = [s for s in sizes if counts[s] * 2 >= len(images)]
    if not enough:  # objects are in few images: be content with any
        enough = [s for s in sizes if counts[s]][:1]
    if not enough:
        return None
    return BoxRule(enough[-1] if whole else enough[0])


def _start_size(median_area: float) -> int:
    """Return the smallest box to try for objects of an area."""
    diameter = 2 * np.sqrt(median_area / np.pi)
    # enlarged to 64 x 64, tiny objects come to the size that models know
    if diameter < 8:
        return 32
    return 48 if diameter < 12 else PROMPT_SIZE


def _n_legal(images: Sequence[np.ndarray], rule: BoxRule, seed: int) -> int:
    """Return in how many images a legal box is found."""
    rng = np.random.default_rng(seed)
    return sum(find_box(labels, rule, rng) is not None for labels in images)


def _areas(images: Sequence[np.ndarray]) -> np.ndarray:
    """Return the areas of all objects of all images."""
    areas = [np.bincount(compact_ids(labels).ravel())[1:] for labels in images]
    joined = np.concatenate(areas) if areas else np.zeros(0, int)
    return joined[joined >= SPECK]
