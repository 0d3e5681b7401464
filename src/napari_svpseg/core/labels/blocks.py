"""The stitcher: labels of large images made block by block, one id for each object.

A large image is labelled in the blocks of a grid. Each block is labelled together with
a halo around it, but only its core is kept. Two neighbouring blocks have both labelled
the band around their seam, and what they found there decides which of their objects are
one. What is compared are tables of ids, areas and counts. They can be made anywhere and
in any order, so that the result does not depend on which process made which part.

Two callers share this module: `instances.instances_in_blocks` labels maps in memory
(`label_blocks`, `fill_holes`, `renumber`), and `workflows.segment_large` labels files
on many workers (`describe`, `seam`, `stitch`, `renamed`). Arrays have any number of
axes, except where (Y, X) is stated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from scipy import ndimage, sparse

from .confidence import ObjectEvidence, confident_objects, new_ids, on_outline

Array = np.ndarray
Index = tuple[int, ...]
Window = tuple[slice, ...]

SAME_SHARE = 0.5
"""Share of the smaller of two objects that lies in the other if they are one."""

NOWHERE = np.iinfo(np.int64).max
"""Position of the first pixel of an object that has none."""


# ------------------------------------------------------------------------- the grid
@dataclass(frozen=True)
class Block:
    """One piece of an image.

    Parameters
    ----------
    at : tuple of int
        Its place in the grid.
    core : tuple of slice
        The pixels that are the block's own; the cores fill the image once.
    view : tuple of slice
        The pixels that are read: core and halo.
    shape : tuple of int
        Of the whole image.
    """

    at: Index
    core: Window
    view: Window
    shape: Index


Grid = dict[Index, Block]
"""Blocks by their place, in row-major order."""


def block_grid(
    shape: Index, side: int | Index, halo: int | Index, *, even: bool = False
) -> Grid:
    """Return the blocks of an image by their place.

    Parameters
    ----------
    shape : tuple of int
    side, halo : int or tuple of int
        Pixels along a core, and around it as far as the image goes.
    even : bool
        Make all blocks about equally large, instead of a smaller last one.

    Examples
    --------
    >>> list(block_grid((5, 9), 5, 2))
    [(0, 0), (0, 1)]
    """
    sides, halos = (
        (n,) * len(shape) if isinstance(n, int) else n for n in (side, halo)
    )
    axes = [
        [
            (slice(low, high), slice(max(0, low - h), min(n, high + h)))
            for low, high in pairwise(_cuts(n, s, even))
        ]
        for n, s, h in zip(shape, sides, halos, strict=True)
    ]
    return {
        at: Block(
            at,
            tuple(pieces[i][0] for pieces, i in zip(axes, at, strict=True)),
            tuple(pieces[i][1] for pieces, i in zip(axes, at, strict=True)),
            tuple(shape),
        )
        for at in product(*(range(len(pieces)) for pieces in axes))
    }


def _cuts(length: int, side: int, even: bool) -> list[int]:
    """Return where the cores along an axis begin, and the length."""
    n = max(1, -(-length // side))
    if even:
        return [round(i * length / n) for i in range(n + 1)]
    return [*range(0, n * side, side), length]


def neighbours_before(at: Index) -> dict[int, Index]:
    """Return the place of the block before one along each axis that has one."""
    return {
        axis: (*at[:axis], i - 1, *at[axis + 1 :]) for axis, i in enumerate(at) if i > 0
    }


def _neighbours_after(at: Index, grid: Grid) -> Iterator[Index]:
    for axis, i in enumerate(at):
        after = (*at[:axis], i + 1, *at[axis + 1 :])
        if after in grid:
            yield after


def within(window: Window, frame: Window) -> Window:
    """Return a window of the image as a window of the frame it lies in."""
    return tuple(
        slice(w.start - f.start, w.stop - f.start)
        for w, f in zip(window, frame, strict=True)
    )


def band_of(one: Block, two: Block) -> Window:
    """Return the window of the image that is in the view of both blocks."""
    return tuple(
        slice(max(a.start, b.start), min(a.stop, b.stop))
        for a, b in zip(one.view, two.view, strict=True)
    )


# -------------------------------------------------------- what is known of a block
@dataclass(frozen=True, eq=False)
class BlockTable:
    """Statistics of the objects 1 to n of a block; the first entry is object 1.

    Parameters
    ----------
    areas : (n,) int64 array
        Pixels in the core.
    first : (n,) int64 array
        Position in the flattened image of the first pixel in the core.
    peaks, outline, length : (n,) arrays
        `ObjectEvidence` in the core.
    alone : (n,) bool array
        Touches no other object, so it was not split.
    beyond : (n,) bool array
        In the core, and so large that it leaves the view.
    """

    areas: Array
    first: Array
    peaks: Array
    outline: Array
    length: Array
    alone: Array
    beyond: Array

    @property
    def n(self) -> int:
        """How many objects there are, those outside the core among them."""
        return len(self.areas)

    @property
    def evidence(self) -> ObjectEvidence:
        """How sure the network is of each object."""
        return ObjectEvidence(self.peaks, self.outline, self.length)


def describe(
    found: Array,
    block: Block,
    foreground: Array | None = None,
    boundary: Array | None = None,
) -> BlockTable:
    """Return the statistics of the objects found in a block's view.

    Parameters
    ----------
    found : int array of the view's shape
        Ids 1 to n, 0 is background.
    block : Block
    foreground : float array of the view's shape, optional
        Probability in [0, 1]; 1 where it is not known.
    boundary : float array of the view's shape, optional
        Probability in [0, 1].
    """
    n = int(found.max(initial=0))
    if not n:
        none, no = np.zeros(0, np.int64), np.zeros(0, bool)
        return BlockTable(none, none, np.zeros(0, np.float32), none, none, no, no)
    inner = within(block.core, block.view)
    core = found[inner]
    areas = np.bincount(core.ravel(), minlength=n + 1)
    evidence = ObjectEvidence.nothing(n)
    if foreground is None:
        evidence.peaks[:] = 1
    else:
        edge = None if boundary is None else boundary[inner]
        evidence.add(core, foreground[inner], edge, on_outline(found)[inner])
    alone = np.ones(n + 1, bool)
    beyond = np.zeros(n + 1, bool)
    for axis, (view, length) in enumerate(zip(block.view, block.shape, strict=True)):
        along = np.moveaxis(found, axis, 0)
        one, two = along[1:], along[:-1]
        touching = (one != two) & (one > 0) & (two > 0)
        alone[one[touching]] = alone[two[touching]] = False
        # an edge of the image cuts nothing off: only the view's own edges count
        beyond[along[0]] |= view.start > 0
        beyond[along[-1]] |= view.stop < length
    first = _first_pixels(core, block, n)
    return BlockTable(
        areas[1:],
        first[1:],
        **vars(evidence.of(slice(1, None))),
        alone=alone[1:],
        beyond=(beyond & (areas > 0))[1:],
    )


def _first_pixels(core: Array, block: Block, n: int) -> Array:
    """Return the position in the flattened image of the first pixel of 0 to ``n``."""
    flat = core.ravel()
    first = np.full(n + 1, NOWHERE)
    # assigned from the end: of the pixels of an id, the first is written last and stays
    first[flat[::-1]] = np.arange(flat.size)[::-1]
    ids = np.flatnonzero(first < NOWHERE)
    at = np.unravel_index(first[ids], core.shape)
    first[ids] = np.ravel_multi_index(
        [a + s.start for a, s in zip(at, block.core, strict=True)], block.shape
    )
    return first


# ------------------------------------------------------- which objects are one
@dataclass(frozen=True, eq=False)
class Seam:
    """Which objects of two blocks share pixels, and how much these look like one.

    Parameters
    ----------
    pairs : (N, 2) int array
        Ids in the one block and in the other.
    same : (N,) bool array
        Each is the other's best match, and most of the smaller is shared.
    """

    pairs: Array
    same: Array

    @classmethod
    def nothing(cls) -> Seam:
        """Return the seam of blocks that share no object."""
        return cls(np.zeros((0, 2), np.int64), np.zeros(0, bool))


Seams = Iterable[tuple[Index, Index, Seam]]
"""Places of two blocks, and what they have in common."""


def seam(one: Array, one_block: Block, two: Array, two_block: Block) -> Seam:
    """Return the seam: pixels that the labels of two blocks' views share."""
    band = band_of(one_block, two_block)
    return compare(one[within(band, one_block.view)], two[within(band, two_block.view)])


def compare(one: Array, two: Array) -> Seam:
    """Return which objects of two labellings of the same pixels overlap."""
    both = (one > 0) & (two > 0)
    # one number for each pair of ids, so that a single sort counts them all
    stride = int(two.max(initial=0)) + 1
    keys, shared = np.unique(
        one[both].astype(np.int64) * stride + two[both], return_counts=True
    )
    a, b = np.divmod(keys, stride)
    best = is_best(a, shared) & is_best(b, shared)
    smaller = np.minimum(_areas(one, a), _areas(two, b))
    return Seam(np.stack([a, b], axis=1), best & (shared >= SAME_SHARE * smaller))


def is_best(ids: Array, shared: Array) -> Array:
    """Return True at the first entry of each id that shares the most."""
    order = np.lexsort((-shared, ids))
    best = np.zeros(len(ids), bool)
    best[order[np.unique(ids[order], return_index=True)[1]]] = True
    return best


def _areas(labels: Array, ids: Array) -> Array:
    values, counts = np.unique(labels, return_counts=True)
    return np.asarray(counts[np.searchsorted(values, ids)])


def union(n: int, pairs: Array) -> Array:
    """Return for each of 0 to ``n`` the lowest id that pairs connect it with.

    Parameters
    ----------
    n : int
        Ids may be of 64 bits; only those in pairs cost more than their entry.
    pairs : (N, 2) int array
    """
    from scipy.sparse.csgraph import connected_components  # slow: not for a dock

    owner = np.arange(n + 1, dtype=np.int64)
    if len(pairs):
        # the graph holds the ids in pairs only, which are few: those at seams
        ids, at = np.unique(pairs, return_inverse=True)
        one, two = at.reshape(-1, 2).T
        links = sparse.coo_array((np.ones(len(one), bool), (one, two)), (len(ids),) * 2)
        group = connected_components(links, directed=False)[1]
        owner[ids] = ids[np.unique(group, return_index=True)[1]][group]
    return owner


def offsets_of(tables: dict[Index, BlockTable]) -> dict[Index, int]:
    """Return the offset of the ids of each block that makes them unique."""
    counts = np.array([table.n for table in tables.values()], np.int64)
    before = np.cumsum(counts) - counts
    return {at: int(n) for at, n in zip(tables, before, strict=True)}


def owners_of(tables: dict[Index, BlockTable], seams: Seams) -> Array:
    """Return the object of each id: the lowest of the ids that are one object.

    Two ids are one object if both reach their block's core, and they are each other's
    best match in the band or touch no other object. What lies in the halo only does not
    count, because its own block knows it better. What touches no other object was not
    split, so that any shared pixel joins it.

    Parameters
    ----------
    tables : dict
        Of all blocks, in the order of the grid.
    seams : iterable
        Places of two blocks and what they have in common.

    Returns
    -------
    (n + 1,) int64 array
        For the ids of all blocks moved by `offsets_of`; 0 stays 0.
    """
    offsets = offsets_of(tables)
    pairs = [np.zeros((0, 2), np.int64)]
    for one, two, common in seams:
        a, b = common.pairs.T.astype(np.int64)
        left, right = tables[one], tables[two]
        in_core = (left.areas[a - 1] > 0) & (right.areas[b - 1] > 0)
        alone = left.alone[a - 1] & right.alone[b - 1]
        keep = in_core & (common.same | alone)
        pairs.append(np.stack([a + offsets[one], b + offsets[two]], axis=1)[keep])
    n = sum(table.n for table in tables.values())
    return union(n, np.concatenate(pairs))


# ------------------------------------------------------------------- the final ids
def stitch(
    tables: dict[Index, BlockTable],
    seams: Seams,
    min_area: int = 1,
    confidence: float = 0.0,
    plane_of: Callable[[Index], int] = lambda at: 0,
) -> Array:
    """Return the final id of each object of each block.

    Parameters
    ----------
    tables, seams
        See `owners_of`.
    min_area : int
        Objects under this many pixels become background.
    confidence : float
        Objects much less certain than others of their plane as well; see
        `confidence.confident_objects`.
    plane_of : callable
        From the place of a block to the number of its plane.

    Returns
    -------
    (n + 1,) int64 array
        For the ids of all blocks moved by `offsets_of`; 0 stays 0. Final ids are 1, 2,
        3, ... in the order in which objects begin in the image, whatever the blocks.
    """
    owner = owners_of(tables, seams)
    areas = _joined([t.areas for t in tables.values()])
    first = _joined([t.first for t in tables.values()])
    total = np.zeros(len(owner), np.int64)
    np.add.at(total, owner, areas)
    kept = total >= max(min_area, 1)
    if confidence > 0:
        parts = [table.evidence for table in tables.values()]
        whole = ObjectEvidence.concatenated([ObjectEvidence.nothing(0), *parts])
        evidence = whole.joined(owner)
        planes = _joined([np.full(t.n, plane_of(at)) for at, t in tables.items()])
        for plane in np.unique(planes[1:]):
            there = np.flatnonzero((planes == plane) & (total > 0))
            own = evidence.of(there)
            kept[there] &= confident_objects(total[there], own, confidence)
    return ranked(owner, first, kept)


def _joined(columns: list[Array]) -> Array:
    """Return the columns one after the other, behind an entry for the background."""
    return np.concatenate([np.zeros(1, np.int64), *columns])


def ranked(owner: Array, first: Array, kept: Array) -> Array:
    """Return final ids: 1, 2, 3, ... in the order in which objects begin.

    Parameters
    ----------
    owner : (n + 1,) int64 array
        The object of each id.
    first : (n + 1,) int64 array
        Position of the first pixel of each id.
    kept : (n + 1,) bool array
        Objects that are not get 0.
    """
    begin = np.full(len(owner), NOWHERE)
    np.minimum.at(begin, owner, first)
    kept = np.flatnonzero(kept)
    kept = kept[kept > 0]
    new = np.zeros(len(owner), np.int64)
    new[kept[np.argsort(begin[kept], kind="stable")]] = np.arange(1, len(kept) + 1)
    return np.asarray(new[owner])


def renamed(labels: Array, new: Array, offset: int, n: int) -> Array:
    """Return a block's labels with final ids; of ``new`` only its own part is read."""
    own = np.concatenate([np.zeros(1, np.int64), new[offset + 1 : offset + n + 1]])
    return np.asarray(own[labels])


# ------------------------------------------------------------------ all in memory
def label_blocks(label: Callable[[Window], Array], grid: Grid) -> tuple[Array, Array]:
    """Return the labels of all blocks, and which of them are one object.

    Only the bands along seams are kept beside the labels.

    Parameters
    ----------
    label : callable
        From a window of the image to its labels (int array, 0 is background).
    grid : dict of Block
        From `block_grid`. With a halo as wide as an object and its neighbours the
        result is that of the whole image; without a halo nothing is joined.

    Returns
    -------
    labels : uint32 array of the image's shape
        Ids that differ from block to block.
    owner : (n + 1,) int64 array
        The object of each id; that of 0 is 0.
    """
    labels = np.zeros(next(iter(grid.values())).shape, np.uint32)
    tables: dict[Index, BlockTable] = {}
    seams: list[tuple[Index, Index, Seam]] = []
    bands: dict[tuple[Index, Index], Array] = {}
    n = 0
    for at, block in grid.items():
        found = np.asarray(label(block.view)).astype(np.uint32)
        tables[at] = describe(found, block)
        for before in neighbours_before(at).values():
            band = found[within(band_of(grid[before], block), block.view)]
            seams.append((before, at, compare(bands.pop((before, at)), band)))
        for after in _neighbours_after(at, grid):
            band = found[within(band_of(block, grid[after]), block.view)]
            bands[at, after] = band.copy()
        core = found[within(block.core, block.view)]
        labels[block.core] = np.where(core > 0, core + n, 0)
        n += tables[at].n
    return labels, owners_of(tables, seams)


def fill_holes(labels: Array, owner: Array, grid: Grid) -> Array:
    """Give the holes of objects to them; a hole with another object stays open.

    Parameters
    ----------
    labels : (Y, X) uint32 array
        Changed: each piece of the background gets an id of its own.
    owner : (n + 1,) int array
        From `label_blocks`, which ``labels`` are from too.
    grid : dict of Block

    Returns
    -------
    (m + 1,) int array
        The object of each id now in ``labels``; 0 for open background.
    """
    last = n = len(owner) - 1
    for block in grid.values():
        core = labels[block.core]
        pieces, n_pieces = ndimage.label(core == 0)
        core[pieces > 0] = pieces[pieces > 0] + last
        last += n_pieces
    group = union(last, _background_over_seams(labels, n, grid))
    # a piece whose neighbours have the same lowest and highest object has only that one
    low = np.full(last + 1, np.iinfo(np.int64).max)
    high = np.zeros(last + 1, np.int64)
    for block in grid.values():
        y, x = block.core
        # one pixel more than the core, so that pairs across a seam are seen as well
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
        high[group[side]] = -1  # what reaches the image's edge is no hole
    pieces_owner = np.where(low == high, high, 0)[group[n + 1 :]]
    return np.concatenate([owner, pieces_owner])


def _background_over_seams(labels: Array, n: int, grid: Grid) -> Array:
    """Return pairs of background pieces (ids above ``n``) that meet at a seam."""
    pairs = [np.zeros((0, 2), labels.dtype)]
    for axis in range(labels.ndim):
        along = np.moveaxis(labels, axis, 0)
        for start in sorted({block.core[axis].start for block in grid.values()} - {0}):
            one, two = along[start - 1], along[start]
            meet = (one > n) & (two > n)
            pairs.append(np.unique(np.stack([one[meet], two[meet]], axis=1), axis=0))
    return np.concatenate(pairs)


def renumber(
    labels: Array,
    owner: Array,
    grid: Grid,
    min_area: int,
    foreground: Array | None = None,
    boundary: Array | None = None,
    confidence: float = 0.0,
) -> int:
    """Turn ids into those of their objects, without the small and the doubtful.

    Parameters
    ----------
    labels : uint32 array
        Changed in place.
    owner : (n + 1,) int array
        From `label_blocks` or `fill_holes`.
    grid : dict of Block
    min_area : int
        Objects under this many pixels become background.
    foreground, boundary : float array of the shape of ``labels``, optional
        Probability in [0, 1].
    confidence : float
        See `confidence.confident_objects`.

    Returns
    -------
    int
        How many objects there are; their ids are 1, 2, 3, ...
    """
    areas = np.zeros(len(owner), np.int64)
    evidence = ObjectEvidence.nothing(len(owner) - 1)
    for block in grid.values():
        core = labels[block.core]
        areas += np.bincount(core.ravel(), minlength=len(owner))
        if foreground is not None and confidence > 0:
            edge = None if boundary is None else boundary[block.core]
            around = _grown(block.core)
            outline = on_outline(owner[labels[around]])[within(block.core, around)]
            evidence.add(owner[core], foreground[block.core], edge, outline)
    areas = np.bincount(owner, areas, len(owner)).astype(np.int64)
    kept = new_ids(areas, evidence, min_area, confidence)
    new = kept[owner]
    for block in grid.values():
        labels[block.core] = new[labels[block.core]]
    return int(kept.max())


def _grown(window: Window) -> Window:
    """Return a window of an image with the pixels beside it."""
    return tuple(slice(max(0, w.start - 1), w.stop + 1) for w in window)
