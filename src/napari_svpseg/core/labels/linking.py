"""Objects made one across the cells of a large image, and across its planes.

A large image is labelled in cells of a fixed grid, each together with a halo. What two
neighbours found in the band that both saw tells which of their objects are one; across
planes it is the overlap that tells. All of it is tables of ids, areas and counts that
can be made anywhere and in any order, so that the result does not depend on who made
which part. Arrays have any number of axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from .blocks import compare, is_best
from .confidence import add_peaks, confident_objects

Array = np.ndarray
Index = tuple[int, ...]
Window = tuple[slice, ...]


@dataclass(frozen=True)
class Cell:
    """One piece of an image: ``core`` is its own, ``view`` (core and halo) is read.

    ``at`` is its place in the grid, ``shape`` that of the whole image.
    """

    at: Index
    core: Window
    view: Window
    shape: Index


@dataclass(frozen=True, eq=False)
class CellTable:
    """What is known of the objects 1 to n of a cell; the first entry is object 1.

    Parameters
    ----------
    areas : (n,) int64 array
        Pixels in the core.
    first : (n,) int64 array
        Position in the flattened image of the first pixel in the core.
    peaks : (n,) float32 array
        Greatest foreground probability in the core.
    alone : (n,) bool array
        Touches no other object, so it was not split.
    beyond : (n,) bool array
        In the core, and so large that it leaves the view.
    """

    areas: Array
    first: Array
    peaks: Array
    alone: Array
    beyond: Array

    @property
    def n(self) -> int:
        """How many objects there are, those outside the core among them."""
        return len(self.areas)


@dataclass(frozen=True, eq=False)
class Seam:
    """Which objects of two cells share pixels, and how much these look like one.

    Parameters
    ----------
    pairs : (N, 2) int array
        Ids in the one cell and in the other.
    same : (N,) bool array
        Each is the other's best match, and most of the smaller is shared.
    """

    pairs: Array
    same: Array


def cell_grid(shape: Index, side: int | Index, halo: int | Index) -> dict[Index, Cell]:
    """Return the cells of an image, in order, by their place.

    Parameters
    ----------
    shape : tuple of int
    side, halo : int or tuple of int
        Pixels of a core, and around it as far as the image goes.

    Examples
    --------
    >>> list(cell_grid((5, 9), 5, 2))
    [(0, 0), (0, 1)]
    """
    sides, halos = (
        (n,) * len(shape) if isinstance(n, int) else n for n in (side, halo)
    )
    counts = [-(-n // s) for n, s in zip(shape, sides, strict=True)]
    return {
        at: Cell(
            at,
            tuple(slice(i * s, min(n, (i + 1) * s))
                  for i, s, n in zip(at, sides, shape, strict=True)),
            tuple(slice(max(0, i * s - h), min(n, (i + 1) * s + h))
                  for i, s, h, n in zip(at, sides, halos, shape, strict=True)),
            shape,
        )
        for at in product(*(range(n) for n in counts))
    }  # fmt: skip


def neighbours_before(at: Index) -> Iterator[Index]:
    """Yield the places of the cells that come before one along each axis."""
    for axis, i in enumerate(at):
        if i > 0:
            yield (*at[:axis], i - 1, *at[axis + 1 :])


def within(window: Window, frame: Window) -> Window:
    """Return a window of the image as a window of the frame it lies in."""
    return tuple(
        slice(w.start - f.start, w.stop - f.start)
        for w, f in zip(window, frame, strict=True)
    )


def describe(found: Array, cell: Cell, foreground: Array | None = None) -> CellTable:
    """Return what is known of the objects found in a cell's view.

    Parameters
    ----------
    found : int array of the view's shape
        Ids 1 to n, 0 is background.
    cell : Cell
    foreground : float array of the view's shape, optional
        Probability in [0, 1]; 1 where it is not known.
    """
    n = int(found.max(initial=0))
    if not n:
        none, no = np.zeros(0, np.int64), np.zeros(0, bool)
        return CellTable(none, none, np.zeros(0, np.float32), no, no)
    core = found[within(cell.core, cell.view)]
    areas = np.bincount(core.ravel(), minlength=n + 1)
    first = np.full(n + 1, np.iinfo(np.int64).max)
    ids, where = np.unique(core.ravel(), return_index=True)
    at = np.unravel_index(where, core.shape)
    first[ids] = np.ravel_multi_index(
        [a + s.start for a, s in zip(at, cell.core, strict=True)], cell.shape
    )
    peaks = np.ones(n + 1, np.float32)
    if foreground is not None:
        peaks[:] = 0
        add_peaks(peaks, core, foreground[within(cell.core, cell.view)])
    alone = np.ones(n + 1, bool)
    beyond = np.zeros(n + 1, bool)
    for axis, (view, length) in enumerate(zip(cell.view, cell.shape, strict=True)):
        along = np.moveaxis(found, axis, 0)
        one, two = along[1:], along[:-1]
        touching = (one != two) & (one > 0) & (two > 0)
        alone[one[touching]] = alone[two[touching]] = False
        beyond[along[0]] |= view.start > 0
        beyond[along[-1]] |= view.stop < length
    return CellTable(
        areas[1:], first[1:], peaks[1:], alone[1:], (beyond & (areas > 0))[1:]
    )


def seam(one: Array, one_cell: Cell, two: Array, two_cell: Cell) -> Seam:
    """Return what the labels of two cells' views have in common."""
    band = tuple(
        slice(max(a.start, b.start), min(a.stop, b.stop))
        for a, b in zip(one_cell.view, two_cell.view, strict=True)
    )
    if any(s.stop <= s.start for s in band):
        return Seam(np.zeros((0, 2), np.int64), np.zeros(0, bool))
    return Seam(
        *compare(one[within(band, one_cell.view)], two[within(band, two_cell.view)])
    )


def union(n: int, pairs: Array) -> Array:
    """Return for each of 0 to ``n`` the lowest id that pairs connect it with.

    Parameters
    ----------
    n : int
        Ids may be of 64 bits; only those in pairs cost more than their entry.
    pairs : (N, 2) int array
    """
    owner = np.arange(n + 1, dtype=np.int64)
    if len(pairs):
        ids, at = np.unique(pairs, return_inverse=True)
        one, two = at.reshape(-1, 2).T
        links = sparse.coo_array((np.ones(len(one), bool), (one, two)), (len(ids),) * 2)
        group = connected_components(links, directed=False)[1]
        owner[ids] = ids[np.unique(group, return_index=True)[1]][group]
    return owner


def offsets_of(tables: dict[Index, CellTable]) -> dict[Index, int]:
    """Return what is added to the ids of each cell to tell them from all others."""
    counts = np.array([table.n for table in tables.values()], np.int64)
    before = np.cumsum(counts) - counts
    return {at: int(n) for at, n in zip(tables, before, strict=True)}


def stitch(
    tables: dict[Index, CellTable],
    seams: Iterable[tuple[Index, Index, Seam]],
    min_area: int = 1,
    confidence: float = 0.0,
    plane_of: Callable[[Index], int] = lambda at: 0,
) -> Array:
    """Return the final id of each object of each cell.

    Two objects are one if both reach their cell's core and they are each other's best
    match in the band, or were split from nothing.

    Parameters
    ----------
    tables : dict
        Of all cells, in the order of the grid.
    seams : iterable
        Places of two cells and what they have in common.
    min_area : int
        Objects under this many pixels become background.
    confidence : float
        Those much less sure than others of their plane as well; see `confidence.sure`.
    plane_of : callable
        From the place of a cell to the number of its plane.

    Returns
    -------
    (n + 1,) int64 array
        For the ids of all cells moved by `offsets_of`; 0 stays 0. Final ids are 1, 2,
        3, ... in the order in which objects begin in the image, whatever the cells.
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
    areas = _joined([t.areas for t in tables.values()])
    first = _joined([t.first for t in tables.values()])
    owner = union(len(areas) - 1, np.concatenate(pairs))
    total = np.zeros(len(owner), np.int64)
    np.add.at(total, owner, areas)
    kept = total >= max(min_area, 1)
    if confidence > 0:
        peaks = np.zeros(len(owner), np.float32)
        np.maximum.at(peaks, owner, _joined([t.peaks for t in tables.values()]))
        planes = _joined([np.full(t.n, plane_of(at)) for at, t in tables.items()])
        for plane in np.unique(planes[1:]):
            there = np.flatnonzero((planes == plane) & (total > 0))
            kept[there] &= confident_objects(total[there], peaks[there], confidence)
    return ranked(owner, first, kept)


def _joined(columns: list[Array]) -> Array:
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
    begin = np.full(len(owner), np.iinfo(np.int64).max)
    np.minimum.at(begin, owner, first)
    kept = np.flatnonzero(kept)
    kept = kept[kept > 0]
    new = np.zeros(len(owner), np.int64)
    new[kept[np.argsort(begin[kept], kind="stable")]] = np.arange(1, len(kept) + 1)
    return np.asarray(new[owner])


def label_cells(
    label: Callable[[Window], Array],
    shape: Index,
    side: int | Index,
    halo: int | Index,
    min_area: int = 1,
    foreground: Array | None = None,
    confidence: float = 0.0,
) -> Array:
    """Return the labels of an image made cell by cell, with one id for each object.

    Parameters
    ----------
    label : callable
        From a window of the image to its labels, 0 is background.
    shape : tuple of int
    side, halo : int or tuple of int
        As for `cell_grid`. Where a halo holds every object that reaches into it,
        together with what decides on it, the result is that of the whole image.
    min_area : int
    foreground : float array of ``shape``, optional
        Probability in [0, 1].
    confidence : float
        See `confidence.sure`.

    Returns
    -------
    int64 array of ``shape``
    """
    cells = cell_grid(shape, side, halo)
    found = {at: np.asarray(label(cell.view)) for at, cell in cells.items()}
    tables = {
        at: describe(
            found[at], cell, None if foreground is None else foreground[cell.view]
        )
        for at, cell in cells.items()
    }
    seams = (
        (other, at, seam(found[other], cells[other], found[at], cells[at]))
        for at in cells
        for other in neighbours_before(at)
    )
    new, offsets = stitch(tables, seams, min_area, confidence), offsets_of(tables)
    labels = np.zeros(shape, np.int64)
    for at, cell in cells.items():
        core = found[at][within(cell.core, cell.view)]
        labels[cell.core] = renamed(core, new, offsets[at], tables[at].n)
    return labels


def renamed(labels: Array, new: Array, offset: int, n: int) -> Array:
    """Return a cell's labels with final ids; of ``new`` its own part is read only."""
    own = np.concatenate([np.zeros(1, np.int64), new[offset + 1 : offset + n + 1]])
    return np.asarray(own[labels])


def overlaps(one: Array, two: Array) -> tuple[Array, Array]:
    """Return pairs (N, 2) of ids at the same pixels, and at how many (N,)."""
    both = (one > 0) & (two > 0)
    if not both.any():
        return np.zeros((0, 2), np.int64), np.zeros(0, np.int64)
    pairs = np.stack([one[both], two[both]], axis=1).astype(np.int64)
    return np.unique(pairs, axis=0, return_counts=True)


def match(pairs: Array, shared: Array, areas: Array, min_overlap: float) -> Array:
    """Return the pairs (M, 2) of ids that are one object seen in two planes.

    Parameters
    ----------
    pairs : (N, 2) int array
        Ids in the one plane and in the other; a pair may come several times.
    shared : (N,) int array
        Pixels that each pair shares.
    areas : (n + 1,) int array
        Pixels of each id within its plane.
    min_overlap : float
        Least intersection over union. Of those above it, the best of both counts, so
        that no two objects of a plane become one.
    """
    if not len(pairs):
        return np.zeros((0, 2), np.int64)
    unique, at = np.unique(pairs, axis=0, return_inverse=True)
    both = np.bincount(at.ravel(), shared, len(unique))
    a, b = unique.T
    share = both / (areas[a] + areas[b] - both)
    best = is_best(a, share) & is_best(b, share)
    return np.asarray(unique[best & (share >= min_overlap)])


def link_planes(labels: Array, axes: int | Index, min_overlap: float) -> Array:
    """Return a stack in which an object keeps its id from plane to plane.

    Parameters
    ----------
    labels : int array
        No id occurs in two planes.
    axes : int or tuple of int
        Axes to link along, one after the other: Z before T, so that it is whole
        objects that are followed through time.
    min_overlap : float
        Least intersection over union of two that are one.

    Returns
    -------
    array of the dtype of ``labels``
        Ids 1, 2, 3, ... in the order in which objects begin.
    """
    n = int(labels.max(initial=0))
    owner = np.arange(n + 1, dtype=np.int64)
    per_plane = np.bincount(labels.ravel(), minlength=n + 1)
    for axis in (axes,) if isinstance(axes, int) else axes:
        along = np.moveaxis(labels, axis, 0)
        areas = np.zeros(n + 1, np.int64)
        np.add.at(areas, owner, per_plane)
        found = [
            match(owner[pairs], shared, areas, min_overlap)
            for pairs, shared in (overlaps(one, two) for one, two in pairwise(along))
        ]
        owner = union(n, np.concatenate([np.zeros((0, 2), np.int64), *found]))[owner]
    first = np.full(n + 1, np.iinfo(np.int64).max)
    ids, where = np.unique(labels.ravel(), return_index=True)
    first[ids] = where
    kept = np.bincount(owner, per_plane) > 0
    return ranked(owner, first, kept)[labels].astype(labels.dtype)
