"""Choice of the labelled pixels that are kept out of training as a validation set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .partial_labels import FEWEST_PIXELS, UNKNOWN, PartialLabelError, label_regions

Array = np.ndarray

MIN_BLOCKS = 4
"""Fewer labelled regions than this are halved, so that there is a choice."""

MIN_EXTENT = 16
"""Regions shorter than this many pixels are not halved."""

MAX_FRACTION = 0.6
"""Largest fraction of the labelled pixels that validation may take."""

NOTHING_TO_TRAIN_ON = (
    "All labelled images are kept for validation: leave at least one with objects and "
    "background to train on."
)
NOT_ASKED_FOR = "No labels were kept for validation, as was asked."
TOO_FEW_LABELS = (
    "There are too few labels to keep some for validation: the scores are of labels "
    "that were trained on. Label a second place to check it."
)


@dataclass(frozen=True, eq=False)
class ValidationPart:
    """The labelled pixels that are kept out of training.

    Parameters
    ----------
    masks : tuple of (Y, X) bool array
        The validation pixels of each image.
    notes : tuple of str
        Reasons why there is no validation part.
    whole_images : bool
        The user chose whole images; otherwise blocks were chosen at random.
    """

    masks: tuple[Array, ...]
    notes: tuple[str, ...] = ()
    whole_images: bool = False

    @property
    def n_pixels(self) -> int:
        """Number of validation pixels in all images."""
        return int(sum(mask.sum() for mask in self.masks))


def split_validation(
    ids: Sequence[Array], share: float, seed: int = 0, whole: Iterable[int] = ()
) -> ValidationPart:
    """Return the labelled blocks that are kept out of training for validation.

    Labels are drawn in blocks, regions of labels that do not touch, and never pixel by
    pixel: neighbouring pixels are nearly equal, so that a score on them would repeat
    that of training. Of fewer than `MIN_BLOCKS` blocks the largest are halved; an
    object always stays whole.

    Parameters
    ----------
    ids : sequence of (Y, X) int array
        -1 = unknown, 0 = background, 1, 2, ... = objects.
    share : float
        Wanted fraction of the labelled pixels, in [0, 0.8].
    seed : int
    whole : iterable of int
        Images whose labels are all kept for validation; if given, nothing else is.

    Returns
    -------
    ValidationPart
        Training and validation both have objects and background, or the validation part
        is empty and a note gives the reason.

    Raises
    ------
    PartialLabelError
        If ``whole`` leaves nothing to train on.
    """
    empty = tuple(np.zeros(a.shape, bool) for a in ids)
    whole = set(whole)
    if whole:
        masks = tuple((a != UNKNOWN) & (i in whole) for i, a in enumerate(ids))
        if _has_both(ids, _rest(ids, masks)):
            return ValidationPart(masks, whole_images=True)
        raise PartialLabelError(NOTHING_TO_TRAIN_ON)
    if share <= 0:
        return ValidationPart(empty, (NOT_ASKED_FOR,))
    chosen = _drawn(ids, _blocks(ids), share, seed)
    if chosen is None:
        return ValidationPart(empty, (TOO_FEW_LABELS,))
    return ValidationPart(tuple(chosen))


@dataclass(frozen=True, eq=False)
class _Block:
    """A labelled region of one image; ``pixels`` are its (2, N) coordinates."""

    image: int
    pixels: Array

    @property
    def size(self) -> int:
        return int(self.pixels.shape[1])

    def has_both(self, ids: Sequence[Array]) -> bool:
        """Return whether the block has enough of both objects and background."""
        there = ids[self.image][tuple(self.pixels)]
        return min((there > 0).sum(), (there == 0).sum()) >= FEWEST_PIXELS // 2


def _drawn(
    ids: Sequence[Array], blocks: list[_Block], share: float, seed: int
) -> list[Array] | None:
    """Return the masks of blocks drawn at random, or None if no draw is possible."""
    chosen = [np.zeros(a.shape, bool) for a in ids]
    total = sum(block.size for block in blocks)
    drawn = np.random.default_rng([seed, 17]).permutation(len(blocks))
    # Blocks with objects and background first (the sort is stable): one of them is a
    # complete validation part, which background alone is not.
    order = sorted(drawn.tolist(), key=lambda i: not blocks[i].has_both(ids))
    taken, complete = 0, False
    for i in order:
        block = blocks[i]
        # Once complete, a block must bring the part nearer to the wanted size. Until
        # then any block may, as a large part is better than none.
        if complete and taken + 0.5 * block.size > share * total:
            continue
        if taken + block.size > MAX_FRACTION * total:
            continue
        trial = [m.copy() for m in chosen]
        trial[block.image][tuple(block.pixels)] = True
        if not _has_both(ids, _rest(ids, trial)):
            continue
        chosen, taken = trial, taken + block.size
        complete = _has_both(ids, chosen)
    return chosen if complete else None


def _blocks(ids: Sequence[Array]) -> list[_Block]:
    """Return the labelled regions of all images, halved until there are enough."""
    blocks = [
        _Block(i, np.stack(np.nonzero(regions == n)))
        for i, a in enumerate(ids)
        for regions, count in [label_regions(a != UNKNOWN)]
        for n in range(1, count + 1)
    ]
    # Each round adds one block by halving the largest that can be halved fairly.
    for _ in range(8):
        if len(blocks) >= MIN_BLOCKS or not blocks:
            break
        by_size = sorted(range(len(blocks)), key=lambda i: -blocks[i].size)
        cuts = ((i, _halved(blocks[i], ids[blocks[i].image])) for i in by_size)
        first = next((c for c in cuts if _is_fair(c[1], ids)), None)
        if first is None:
            break
        blocks[first[0] : first[0] + 1] = first[1]
    return blocks


def _is_fair(halves: list[_Block], ids: Sequence[Array]) -> bool:
    """Return whether a cut gave two halves with objects and background each."""
    return len(halves) == 2 and all(half.has_both(ids) for half in halves)


def _halved(block: _Block, ids: Array) -> list[_Block]:
    """Return the halves of a block cut across its longer side; empty if too short."""
    extent = np.ptp(block.pixels, axis=1)
    axis = int(np.argmax(extent))
    if extent[axis] < MIN_EXTENT:
        return []
    middle = np.median(block.pixels[axis])
    there = ids[tuple(block.pixels)]
    side = block.pixels[axis] > middle
    # An object on the cut goes to the side with most of its pixels: a network that has
    # seen one half of an object is no test for the other.
    _, inverse = np.unique(there, return_inverse=True)
    above = np.bincount(inverse, side) / np.bincount(inverse)
    side = np.where(there > 0, above[inverse] > 0.5, side)
    return [_Block(block.image, block.pixels[:, s]) for s in (~side, side)]


def _rest(ids: Sequence[Array], masks: Sequence[Array]) -> list[Array]:
    """Return the labelled pixels that are not in the masks."""
    return [~m & (a != UNKNOWN) for a, m in zip(ids, masks, strict=True)]


def _has_both(ids: Sequence[Array], masks: Sequence[Array]) -> bool:
    """Return whether the masks have enough of both objects and background."""
    foreground = sum(int((m & (a > 0)).sum()) for a, m in zip(ids, masks, strict=True))
    background = sum(int((m & (a == 0)).sum()) for a, m in zip(ids, masks, strict=True))
    return min(foreground, background) >= FEWEST_PIXELS // 2
