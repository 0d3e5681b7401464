"""Boxes of partly labelled images that can be cut out as prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from ..geometry import PROMPT_SIZE, Box
from ..labels.object_size import median_diameter
from .partial_labels import UNKNOWN

Array = np.ndarray

FOREGROUND_RANGE = (0.03, 0.95)
"""Smallest and largest fraction of foreground in a box that can be a prompt."""

ENOUGH = 0.4
"""Share of foreground from which more of it shows no more."""

LARGEST = 4
"""A larger box than this many prompts is reduced so much that outlines are lost."""

SQUARE = 0.9
"""Least ratio of the sides of a box, which the border of the image may cut."""

SMALLER_SIDES = (128, 96, 64, 48, 40, 32, 24)
"""Sides in pixels that are tried where no box of the wanted side is labelled."""


def prompt_boxes(ids: Sequence[Array], n: int, seed: int = 0) -> list[tuple[int, Box]]:
    """Return boxes in which every pixel is labelled, to be cut out as prompts.

    A labelled square is the box that a person drew, and is taken as it is: its objects
    may be cut, and their true size is not known. Other boxes are 64 pixels wide, larger
    for large objects, and smaller where less is labelled. They do not overlap and come
    from as many images as possible.

    Parameters
    ----------
    ids : sequence of (Y, X) int array
        -1 = unknown, 0 = background, 1, 2, ... = objects.
    n : int
        Largest number of boxes.
    seed : int

    Returns
    -------
    list of (int, Box)
        Number of the image, and the box.
    """
    diameters = [median_diameter(np.maximum(a, 0)) for a in ids if (a > 0).any()]
    diameter = float(np.median(diameters)) if diameters else 0.0
    # about two objects side by side
    wanted = int(np.clip(2.5 * diameter, PROMPT_SIZE, LARGEST * PROMPT_SIZE))
    rng = np.random.default_rng([seed, 19])
    each = [_boxes_of(a, wanted, n, rng) for a in ids]
    found: list[tuple[int, Box]] = []
    # The best box of every image, then the second best of every image, and so on.
    for rank in range(n):
        for image in rng.permutation(len(ids)):
            if rank < len(each[image]):
                found.append((int(image), each[image][rank]))
    return found[:n]


def _boxes_of(ids: Array, wanted: int, n: int, rng: np.random.Generator) -> list[Box]:
    """Return up to ``n`` boxes of one image, best first."""
    free = ids != UNKNOWN
    boxes = _drawn_boxes(ids, free)[:n]
    for drawn in boxes:
        free[drawn.slices] = False
    sides = [wanted, *(s for s in SMALLER_SIDES if s < wanted)]
    for side in sides:
        if boxes and side < 0.6 * wanted:
            break  # what has been found is better than a much smaller box
        while len(boxes) < n:
            box = _best_box(ids, free, side, rng)
            if box is None:
                break
            boxes.append(box)
            free[box.slices] = False
    return boxes


def _drawn_boxes(ids: Array, known: Array) -> list[Box]:
    """Return the labelled squares of a box's size, those with most objects first."""
    found = []
    regions, _ = ndimage.label(known)
    for where in ndimage.find_objects(regions):
        height, width = (s.stop - s.start for s in where)
        side, longer = sorted((height, width))
        is_square = side >= SQUARE * longer and known[where].all()
        # a whole image is labelled for other reasons
        if not is_square or (height, width) == ids.shape:
            continue
        if not SMALLER_SIDES[-1] <= side <= LARGEST * PROMPT_SIZE:
            continue
        box = Box(where[0].start, where[1].start, side)
        share = float((ids[box.slices] > 0).mean())
        if FOREGROUND_RANGE[0] <= share <= FOREGROUND_RANGE[1]:
            found.append((min(share, ENOUGH), box))
    found.sort(key=lambda f: -f[0])  # stable: of equal ones the first in the image
    return [box for _, box in found]


def _best_box(
    ids: Array, free: Array, side: int, rng: np.random.Generator
) -> Box | None:
    """Return the box of one side that shows most of objects and background, or None.

    Parameters
    ----------
    ids : (Y, X) int array
    free : (Y, X) bool array
        Labelled pixels that lie in no other box.
    side : int
    rng : numpy Generator
    """
    if min(ids.shape) < side:
        return None
    area = side * side
    inside = _window_sums(free, side) == area
    if not inside.any():
        return None
    foreground = _window_sums(ids > 0, side) / area
    low, high = FOREGROUND_RANGE
    allowed = inside & (foreground >= low) & (foreground <= high)
    if not allowed.any():
        return None
    # The random part varies the choice between nearly equal boxes with the seed.
    value = np.minimum(foreground, ENOUGH) + 0.05 * rng.random(foreground.shape)
    y, x = np.unravel_index(np.argmax(np.where(allowed, value, -1)), foreground.shape)
    return Box(int(y), int(x), side)


def _window_sums(mask: Array, side: int) -> Array:
    """Return the sum of a mask over the window at each position (summed-area table)."""
    sums = np.pad(mask.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    return np.asarray(
        sums[side:, side:]
        - sums[:-side, side:]
        - sums[side:, :-side]
        + sums[:-side, :-side]
    )
