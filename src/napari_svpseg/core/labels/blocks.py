"""Labels of large images made block by block: objects joined across the seams.

Each block is labelled together with a halo around it, but writes its core only. Two
neighbours have both labelled the band around their seam, so what they found there tells
which of their objects are one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse.csgraph import connected_components

from .confidence import add_peaks, new_ids

Array = np.ndarray
Window = tuple[slice, slice]
SAME_SHARE = 0.5
"""Share of the smaller of two objects that lies in the other if they are one."""


@dataclass(frozen=True)
class Block:
    """One piece of an image: ``core`` is written, ``view`` (core and halo) is read.

    ``at`` is its row and column among the blocks.
    """

    at: tuple[int, int]
    core: Window
    view: Window


def block_grid(shape: tuple[int, ...], side: int, halo: int) -> list[list[Block]]:
    """Return rows of blocks whose cores fill the image once.

    Parameters
    ----------
    shape : (Y, X)
    side : int
        Longest side of a core in pixels.
    halo : int
        Pixels read around a core, as far as the image goes.
    """
    rows, columns = (_pieces(length, side, halo) for length in shape)
    return [
        [Block((i, j), (y, x), (tall, wide)) for j, (x, wide) in enumerate(columns)]
        for i, (y, tall) in enumerate(rows)
    ]


def _pieces(length: int, side: int, halo: int) -> list[tuple[slice, slice]]:
    n = max(1, -(-length // side))
    cuts = [round(i * length / n) for i in range(n + 1)]
    return [
        (slice(low, high), slice(max(0, low - halo), min(length, high + halo)))
        for low, high in pairwise(cuts)
    ]


def label_blocks(
    label: Callable[[Window], Array], grid: list[list[Block]]
) -> tuple[Array, Array]:
    """Return the labels of all blocks, and which of them are one object.

    Parameters
    ----------
    label : callable
        From a window of the image to its labels (int array, 0 is background).
    grid : list of list of Block
        From `block_grid`. With a halo as wide as an object and its neighbours the
        result is that of the whole image; without a halo nothing is joined.

    Returns
    -------
    labels : (Y, X) uint32 array
        Ids that differ from block to block.
    owner : (n + 1,) int array
        The object of each id; that of 0 is 0.
    """
    height, width = (axis.stop for axis in grid[-1][-1].core)
    labels = np.zeros((height, width), np.uint32)
    facts, seams, n = [np.zeros((1, 2), bool)], [], 0
    bands: dict[tuple[tuple[int, int], tuple[int, int]], Array] = {}
    for block, before, after in _with_neighbours(grid):
        found = np.asarray(label(block.view)).astype(np.uint32)
        core = found[within(block.core, block.view)]
        facts.append(_facts(found, core))
        found[found > 0] += n
        n += len(facts[-1])
        labels[block.core] = core
        for other in before:
            band = within(_shared(other, block), block.view)
            seams.append(compare(bands.pop((other.at, block.at)), found[band]))
        for other in after:
            band = within(_shared(block, other), block.view)
            bands[block.at, other.at] = found[band].copy()
    return labels, join(n, _one_object(seams, np.concatenate(facts)))


def _with_neighbours(
    grid: list[list[Block]],
) -> Iterator[tuple[Block, list[Block], list[Block]]]:
    """Yield each block, those to its left and above, and those right and below."""
    for i, row in enumerate(grid):
        for j, block in enumerate(row):
            before = row[max(j - 1, 0) : j] + [r[j] for r in grid[max(i - 1, 0) : i]]
            after = row[j + 1 : j + 2] + [r[j] for r in grid[i + 1 : i + 2]]
            yield block, before, after


def within(window: Window, frame: Window) -> Window:
    """Return a window of the image as a window of the frame it lies in."""
    y, x = (
        slice(w.start - f.start, w.stop - f.start)
        for w, f in zip(window, frame, strict=True)
    )
    return y, x


def _shared(one: Block, two: Block) -> Window:
    """Return the window that both blocks see."""
    y, x = (
        slice(max(a.start, b.start), min(a.stop, b.stop))
        for a, b in zip(one.view, two.view, strict=True)
    )
    return y, x


def _facts(found: Array, core: Array) -> Array:
    """Tell of each object whether it reaches the core, and whether it touches none."""
    facts = np.zeros((int(found.max(initial=0)) + 1, 2), bool)
    facts[core.ravel(), 0] = True
    facts[:, 1] = True
    for one, two in ((found[1:], found[:-1]), (found[:, 1:], found[:, :-1])):
        touching = (one != two) & (one > 0) & (two > 0)
        facts[one[touching], 1] = facts[two[touching], 1] = False
    return facts[1:]


def compare(one: Array, two: Array) -> tuple[Array, Array]:
    """Return which objects of two labellings of the same pixels overlap.

    Returns
    -------
    pairs : (N, 2) int array
        Ids of ``one`` and ``two`` that share pixels.
    same : (N,) bool array
        True where each is the other's best match and most of the smaller is shared.
    """
    both = (one > 0) & (two > 0)
    stride = int(two.max(initial=0)) + 1
    keys, shared = np.unique(
        one[both].astype(np.int64) * stride + two[both], return_counts=True
    )
    a, b = np.divmod(keys, stride)
    best = is_best(a, shared) & is_best(b, shared)
    smaller = np.minimum(_areas(one, a), _areas(two, b))
    return np.stack([a, b], axis=1), best & (shared >= SAME_SHARE * smaller)


def is_best(ids: Array, shared: Array) -> Array:
    """Return True at the first entry of each id that shares the most."""
    order = np.lexsort((-shared, ids))
    best = np.zeros(len(ids), bool)
    best[order[np.unique(ids[order], return_index=True)[1]]] = True
    return best


def _areas(labels: Array, ids: Array) -> Array:
    values, counts = np.unique(labels, return_counts=True)
    return np.asarray(counts[np.searchsorted(values, ids)])


def _one_object(seams: list[tuple[Array, Array]], facts: Array) -> Array:
    """Return the pairs of ids that are one object.

    Only what reaches its own core counts: the rest is some block's better known object.
    Objects that touch no other were not split, so any shared pixel joins them.
    """
    if not seams:
        return np.zeros((0, 2), np.int64)
    pairs = np.concatenate([pairs for pairs, _ in seams])
    same = np.concatenate([same for _, same in seams])
    in_core, alone = facts[pairs].all(axis=1).T
    return np.asarray(pairs[in_core & (same | alone)])


def join(n: int, pairs: Array) -> Array:
    """Return for each of 0 to ``n`` the first id that pairs connect it with."""
    links = sparse.coo_array(
        (np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(n + 1, n + 1)
    )
    group = connected_components(links, directed=False)[1]
    return np.asarray(np.unique(group, return_index=True)[1][group])


def fill_holes(labels: Array, owner: Array, grid: list[list[Block]]) -> Array:
    """Give the holes of objects to them; a hole with another object stays open.

    Parameters
    ----------
    labels : (Y, X) uint32 array
        Changed: each piece of the background gets an id of its own.
    owner : (n + 1,) int array
        From `label_blocks`, which ``labels`` are from too.
    grid : list of list of Block

    Returns
    -------
    (m + 1,) int array
        The object of each id now in ``labels``; 0 for open background.
    """
    last = n = len(owner) - 1
    for block in chain(*grid):
        core = labels[block.core]
        pieces, n_pieces = ndimage.label(core == 0)
        core[pieces > 0] = pieces[pieces > 0] + last
        last += n_pieces
    group = join(last, _background_over_seams(labels, n, grid))
    low = np.full(last + 1, np.iinfo(np.int64).max)
    high = np.zeros(last + 1, np.int64)
    for block in chain(*grid):
        y, x = block.core
        window = labels[y.start : y.stop + 1, x.start : x.stop + 1]
        for one, two in (
            (window[1:], window[:-1]), (window[:-1], window[1:]),
            (window[:, 1:], window[:, :-1]), (window[:, :-1], window[:, 1:]),
        ):  # fmt: skip
            touching = (one > n) & (two <= n)
            holes, objects = group[one[touching]], owner[two[touching]]
            np.minimum.at(low, holes, objects)
            np.maximum.at(high, holes, objects)
    for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        high[group[side]] = -1
    pieces_owner = np.where(low == high, high, 0)[group[n + 1 :]]
    return np.concatenate([owner, pieces_owner])


def _background_over_seams(labels: Array, n: int, grid: list[list[Block]]) -> Array:
    """Return pairs of background pieces (ids above ``n``) that meet at a seam."""
    rows = [row[0].core[0].start for row in grid[1:]]
    columns = [block.core[1].start for block in grid[0][1:]]
    lines = [(labels[y - 1], labels[y]) for y in rows]
    lines += [(labels[:, x - 1], labels[:, x]) for x in columns]
    pairs = [np.zeros((0, 2), labels.dtype)]
    for one, two in lines:
        meet = (one > n) & (two > n)
        pairs.append(np.unique(np.stack([one[meet], two[meet]], axis=1), axis=0))
    return np.concatenate(pairs)


def renumber(
    labels: Array,
    owner: Array,
    grid: list[list[Block]],
    min_area: int,
    foreground: Array | None = None,
    confidence: float = 0.0,
) -> int:
    """Turn ids into those of their objects, without the small and the doubtful.

    Parameters
    ----------
    labels : (Y, X) uint32 array
        Changed in place.
    owner : (n + 1,) int array
        From `label_blocks` or `fill_holes`.
    grid : list of list of Block
    min_area : int
        Objects under this many pixels become background.
    foreground : (Y, X) float array, optional
        Probability in [0, 1].
    confidence : float
        See `confidence.sure`.

    Returns
    -------
    int
        How many objects there are; their ids are 1, 2, 3, ...
    """
    areas = np.zeros(len(owner), np.int64)
    peaks = np.zeros(len(owner), np.float32)
    for block in chain(*grid):
        core = labels[block.core]
        areas += np.bincount(core.ravel(), minlength=len(owner))
        if foreground is not None and confidence > 0:
            add_peaks(peaks, owner[core], foreground[block.core])
    areas = np.bincount(owner, areas, len(owner)).astype(np.int64)
    kept = new_ids(areas, peaks, min_area, confidence)
    new = kept[owner]
    for block in chain(*grid):
        labels[block.core] = new[labels[block.core]]
    return int(kept.max())
