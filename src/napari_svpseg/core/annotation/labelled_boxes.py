"""Boxes of partly labelled images that can be cut out as prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..geometry import PROMPT_SIZE, Box
from ..labels.object_size import median_diameter
from .partial_labels import UNKNOWN

Array = np.ndarray

LEGAL_SHARE = (0.03, 0.95)
"""Foreground of a window that can be a prompt."""


def prompt_boxes(ids: Sequence[Array], n: int, seed: int = 0) -> list[tuple[int, Box]]:
    """Return boxes in which all is labelled, to be cut out as prompts.

    Boxes are 64 pixels wide, larger for large objects, smaller where less is labelled.
    They come from as many images as possible, and those that show objects come first.

    Parameters
    ----------
    ids : sequence of (Y, X) int array
        With -1 = unknown.
    n : int
        Boxes wanted at most.
    seed : int

    Returns
    -------
    list of (int, Box)
        Number of the image, and the box.
    """
    diameters = [median_diameter(np.maximum(a, 0)) for a in ids if (a > 0).any()]
    diameter = float(np.median(diameters)) if diameters else 0.0
    wanted = int(np.clip(2.5 * diameter, PROMPT_SIZE, 4 * PROMPT_SIZE))
    rng = np.random.default_rng([seed, 19])
    each = [_boxes_of(a, wanted, n, rng) for a in ids]
    found: list[tuple[int, Box]] = []
    for rank in range(n):
        for image in rng.permutation(len(ids)):
            if rank < len(each[image]):
                found.append((int(image), each[image][rank]))
    return found[:n]


def _boxes_of(ids: Array, wanted: int, n: int, rng: np.random.Generator) -> list[Box]:
    free = ids != UNKNOWN
    boxes: list[Box] = []
    sides = [wanted, *(s for s in (128, 96, 64, 48, 40, 32, 24) if s < wanted)]
    for side in sides:
        if boxes and side < 0.6 * wanted:
            break
        while len(boxes) < n:
            box = _best_box(ids, free, side, rng)
            if box is None:
                break
            boxes.append(box)
            free = free.copy()
            free[box.slices] = False
    return boxes


def _best_box(
    ids: Array, free: Array, side: int, rng: np.random.Generator
) -> Box | None:
    if min(ids.shape) < side:
        return None
    area = side * side
    inside = _window_sums(free, side) == area
    if not inside.any():
        return None
    share = _window_sums(ids > 0, side) / area
    low, high = LEGAL_SHARE
    legal = inside & (share >= low) & (share <= high)
    if not legal.any():
        return None
    # near one half tells most of both; a little chance between equals
    value = np.minimum(share, 0.4) + 0.05 * rng.random(share.shape)
    y, x = np.unravel_index(np.argmax(np.where(legal, value, -1)), share.shape)
    return Box(int(y), int(x), side)


def _window_sums(mask: Array, side: int) -> Array:
    sums = np.pad(mask.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    return np.asarray(
        sums[side:, side:]
        - sums[:-side, side:]
        - sums[side:, :-side]
        + sums[:-side, :-side]
    )
