"""Choice of the labelled pixels that are kept out of training as a validation set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .partial_labels import FEWEST_PIXELS, UNKNOWN, PartialLabelError, label_regions

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class ValidationPart:
    """What is kept out of training.

    Parameters
    ----------
    masks : tuple of (Y, X) bool array
        One for each image: the held-back pixels.
    notes : tuple of str
    whole_images : bool
        The user said which images only check; else blocks were chosen here.
    """

    masks: tuple[Array, ...]
    notes: tuple[str, ...] = ()
    whole_images: bool = False

    @property
    def n_pixels(self) -> int:
        """Held-back pixels of all images."""
        return int(sum(mask.sum() for mask in self.masks))


def split_validation(
    ids: Sequence[Array], share: float, seed: int = 0, whole: Iterable[int] = ()
) -> ValidationPart:
    """Choose labels to be kept out of training, block by block.

    Labelled regions that do not touch are blocks. Where there are fewer than four, the
    largest are halved again and again; an object goes to one side as a whole. Single
    pixels are never dealt out, as neighbours say the same.

    Parameters
    ----------
    ids : sequence of (Y, X) int array
        -1 = unknown, 0 = background, 1, 2, ... = objects.
    share : float
        Of the labelled pixels, in [0, 0.8].
    seed : int
    whole : iterable of int
        Images all of whose labels are held back; nothing else is, then.

    Returns
    -------
    ValidationPart
        Both parts show objects and something else, or nothing is held back and a note
        says why.
    """
    nothing = tuple(np.zeros(a.shape, bool) for a in ids)
    whole = set(whole)
    if whole:
        masks = tuple((a != UNKNOWN) & (i in whole) for i, a in enumerate(ids))
        if _shows_both(ids, _rest(ids, masks)):
            return ValidationPart(masks, whole_images=True)
        raise PartialLabelError(
            "All labelled images are held out: leave at least one with objects and "
            "background to train on."
        )
    if share <= 0:
        return ValidationPart(nothing, ("No labels were held back, as was asked.",))
    units = _blocks(ids)
    total = sum(int(u.pixels.shape[1]) for u in units)
    drawn = np.random.default_rng([seed, 17]).permutation(len(units))
    order = sorted(drawn.tolist(), key=lambda i: not units[i].shows_both(ids))
    chosen = [m.copy() for m in nothing]
    taken, enough = 0, False
    for i in order:
        unit = units[i]
        if enough and taken + 0.5 * unit.size > share * total:
            continue
        if taken + unit.size > 0.6 * total:
            continue
        trial = [m.copy() for m in chosen]
        trial[unit.image][tuple(unit.pixels)] = True
        if not _shows_both(ids, _rest(ids, trial)):
            continue
        chosen, taken = trial, taken + unit.size
        enough = _shows_both(ids, chosen)
    if enough:
        return ValidationPart(tuple(chosen))
    return ValidationPart(
        nothing,
        (
            "There are too few labels to keep some back: the scores are of labels "
            "that were trained on. Label a second place to check it.",
        ),
    )


@dataclass(frozen=True, eq=False)
class _Unit:
    image: int
    pixels: Array  # (2, N)

    @property
    def size(self) -> int:
        return int(self.pixels.shape[1])

    def shows_both(self, ids: Sequence[Array]) -> bool:
        there = ids[self.image][tuple(self.pixels)]
        return min((there > 0).sum(), (there == 0).sum()) >= FEWEST_PIXELS // 2


def _blocks(ids: Sequence[Array]) -> list[_Unit]:
    units = [
        _Unit(i, np.stack(np.nonzero(regions == n)))
        for i, a in enumerate(ids)
        for regions, count in [label_regions(a != UNKNOWN)]
        for n in range(1, count + 1)
    ]
    for _ in range(8):
        if len(units) >= 4 or not units:
            break
        by_size = sorted(range(len(units)), key=lambda i: -units[i].size)
        cuts = ((i, _halved(units[i], ids[units[i].image])) for i in by_size)
        first = next((c for c in cuts if _is_fair(c[1], ids)), None)
        if first is None:
            break
        units[first[0] : first[0] + 1] = first[1]
    return units


def _is_fair(halves: list[_Unit], ids: Sequence[Array]) -> bool:
    return len(halves) == 2 and all(half.shows_both(ids) for half in halves)


def _halved(unit: _Unit, ids: Array) -> list[_Unit]:
    """Return a region cut across its longer side; objects stay whole."""
    extent = np.ptp(unit.pixels, axis=1)
    axis = int(np.argmax(extent))
    if extent[axis] < 16:
        return []
    middle = np.median(unit.pixels[axis])
    there = ids[tuple(unit.pixels)]
    side = unit.pixels[axis] > middle
    _, inverse = np.unique(there, return_inverse=True)
    above = np.bincount(inverse, side) / np.bincount(inverse)
    side = np.where(there > 0, above[inverse] > 0.5, side)
    return [_Unit(unit.image, unit.pixels[:, s]) for s in (~side, side)]


def _rest(ids: Sequence[Array], masks: Sequence[Array]) -> list[Array]:
    """Return what is known and not in the masks."""
    return [~m & (a != UNKNOWN) for a, m in zip(ids, masks, strict=True)]


def _shows_both(ids: Sequence[Array], masks: Sequence[Array]) -> bool:
    """Tell whether masks hold some foreground and some background."""
    foreground = sum(int((m & (a > 0)).sum()) for a, m in zip(ids, masks, strict=True))
    background = sum(int((m & (a == 0)).sum()) for a, m in zip(ids, masks, strict=True))
    return min(foreground, background) >= FEWEST_PIXELS // 2
