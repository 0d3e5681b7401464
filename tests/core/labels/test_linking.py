"""Objects across cells and planes: laws in 2-D and 3-D, and cases by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_svpseg.core.labels.instances import filter_objects
from napari_svpseg.core.labels.linking import (
    cell_grid,
    describe,
    label_cells,
    link_planes,
    match,
    stitch,
    union,
)


def blobs(seed, shape):
    """Return random shapes of any size, each of one piece."""
    noise = np.random.default_rng(seed).normal(size=shape)
    return ndimage.gaussian_filter(noise, 1.2) > 0.05


def pieces(mask):
    return ndimage.label(mask)[0]


def discs(seed, shape, side=8):
    """Return labels of touching objects that a window alone cannot tell apart.

    Each is a full square of a grid with a gap here and there.
    """
    rng = np.random.default_rng(seed)
    grid = [-(-n // side) for n in shape]
    ids = rng.permutation(np.arange(1, np.prod(grid) + 1)).reshape(grid)
    ids[rng.random(grid) < 0.2] = 0
    for axis, n in enumerate(shape):
        ids = np.repeat(ids, side, axis=axis).take(range(n), axis=axis)
    return ids


def in_order(labels):
    """Return labels with ids 1, 2, 3, ... in the order in which objects begin."""
    ids, first = np.unique(labels, return_index=True)
    first, ids = first[ids > 0], ids[ids > 0]
    new = np.zeros(int(labels.max(initial=0)) + 1, np.int64)
    new[ids[np.argsort(first)]] = np.arange(1, len(ids) + 1)
    return new[labels]


def local(labels, window):
    """Return a window's labels with ids of its own, as from a method that sees it."""
    part = labels[window]
    ids, ranks = np.unique(part, return_inverse=True)
    return ranks.reshape(part.shape) + (ids[0] > 0)


SHAPES = st.one_of(
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.tuples(st.integers(1, 12), st.integers(1, 20), st.integers(1, 20)),
)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), SHAPES, st.integers(3, 40), st.integers(1, 5))
def test_pieces_are_those_of_the_whole_whatever_the_cells(seed, shape, side, halo):
    mask = blobs(seed, shape)
    labels = label_cells(lambda window: pieces(mask[window]), shape, side, halo)
    assert np.array_equal(labels, in_order(pieces(mask)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), SHAPES, st.integers(9, 40))
def test_touching_objects_are_those_of_the_whole_whatever_the_cells(seed, shape, side):
    whole = discs(seed, shape)
    labels = label_cells(lambda window: local(whole, window), shape, side, halo=8)
    assert np.array_equal(labels, in_order(whole))


@pytest.mark.parametrize("shape", [(40, 44), (12, 20, 22)])
def test_without_a_halo_the_law_is_broken(shape):
    mask = blobs(1, shape)
    labels = label_cells(lambda window: pieces(mask[window]), shape, 9, halo=0)
    assert labels.max() > pieces(mask).max()


def test_a_corner_that_four_cells_share_is_one_object():
    mask = np.zeros((20, 20), bool)
    mask[7:13, 7:13] = True
    labels = label_cells(lambda window: pieces(mask[window]), mask.shape, 10, 3)
    assert np.array_equal(labels, mask.astype(int))


def test_two_cells_that_touch_at_a_seam_stay_two():
    whole = np.zeros((16, 32), int)
    whole[2:14, 4:16], whole[2:14, 16:28] = 1, 2
    labels = label_cells(lambda window: local(whole, window), whole.shape, 16, 12)
    assert np.array_equal(labels, whole)


def test_small_objects_go_by_their_whole_area():
    mask = np.zeros((10, 20), bool)
    mask[2, 8:12], mask[6, 9:11] = True, True
    labels = label_cells(
        lambda window: pieces(mask[window]), mask.shape, 10, 3, min_area=3
    )
    assert labels.max() == 1 and np.count_nonzero(labels) == 4


def test_an_object_larger_than_the_halo_is_told_of():
    mask = np.zeros((10, 40), bool)
    mask[5, 2:38] = True
    cells = cell_grid(mask.shape, 10, 3)
    reach = [describe(pieces(mask[c.view]), c).beyond.any() for c in cells.values()]
    assert reach == [True, True, True, True]
    mask[5, 12:] = False
    cell = cells[0, 0]
    assert not describe(pieces(mask[cell.view]), cell).beyond.any()


def test_tables_of_nothing_give_no_ids():
    cells = cell_grid((5, 5), 3, 1)
    tables = {
        at: describe(np.zeros([s.stop - s.start for s in cell.view], int), cell)
        for at, cell in cells.items()
    }
    assert stitch(tables, []).tolist() == [0]


def test_union_takes_ids_above_what_32_bits_hold_in_pairs_of_any_order():
    pairs = np.array([[5, 9], [9, 2], [7, 8]], np.int64)
    expected = np.arange(11)
    expected[[5, 9]], expected[8] = 2, 7
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        assert np.array_equal(union(10, pairs[order]), expected)
    assert union(3, pairs[:0]).dtype == np.int64


def test_more_ids_than_16_bits_hold():
    whole = np.zeros((600, 600), bool)
    whole[::2, ::2] = True
    labels = label_cells(lambda window: pieces(whole[window]), whole.shape, 128, 2)
    assert labels.max() == 90_000
    assert np.array_equal(labels[whole], np.arange(1, 90_001))


def stack_of(*planes):
    """Return planes as a stack in which no id occurs twice."""
    stack, last = np.zeros((len(planes), *planes[0].shape), np.uint32), 0
    for i, plane in enumerate(planes):
        stack[i] = np.where(plane > 0, plane + last, 0)
        last = int(stack.max())
    return stack


def test_objects_keep_their_id_from_plane_to_plane():
    plane = np.zeros((12, 24), int)
    plane[2:10, 2:10], plane[2:10, 14:22] = 1, 2
    moved = np.roll(plane, 1, axis=1)
    gone = np.where(plane == 2, 2, 0)
    linked = link_planes(stack_of(plane, moved, gone), 0, 0.25)
    assert [np.unique(p[p > 0]).tolist() for p in linked] == [[1, 2], [1, 2], [2]]
    assert np.array_equal(linked[1] > 0, moved > 0)


def test_no_two_objects_of_a_plane_become_one():
    one = np.zeros((10, 20), int)
    one[:, 2:18] = 1
    two = np.zeros((10, 20), int)
    two[:, 2:9], two[:, 10:18] = 1, 2
    linked = link_planes(stack_of(one, two), 0, 0.25)
    assert len(np.unique(linked[1])) == 3
    assert linked[1][5, 15] == linked[0][5, 15] == 1


def test_time_follows_whole_objects():
    plane = np.zeros((8, 8), int)
    plane[2:6, 2:6] = 1
    stack = np.zeros((2, 3, 8, 8), np.uint32)
    stack[0], stack[1] = stack_of(plane, plane, plane), stack_of(plane, plane, plane)
    stack[1][stack[1] > 0] += 3
    assert np.unique(link_planes(stack, (1, 0), 0.25)).tolist() == [0, 1]
    assert np.unique(link_planes(stack, 1, 0.25)).tolist() == [0, 1, 2]


def test_too_little_overlap_links_nothing():
    pairs, areas = np.array([[1, 2]]), np.array([0, 10, 10])
    assert len(match(pairs, np.array([3]), areas, 0.25)) == 0
    assert match(pairs, np.array([5]), areas, 0.25).tolist() == [[1, 2]]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(9, 40), st.floats(0.3, 1))
def test_doubtful_objects_are_those_of_the_whole_whatever_the_cells(seed, side, share):
    whole = discs(seed, (60, 54))
    rng = np.random.default_rng(seed)
    level = rng.random(int(whole.max()) + 1)[whole]
    foreground = (level * (0.5 + 0.5 * rng.random(whole.shape))).astype(np.float32)
    labels = label_cells(
        lambda window: local(whole, window), whole.shape, side, 8, 1, foreground, share
    )
    expected = filter_objects(in_order(whole), 1, foreground, share)
    assert np.array_equal(labels, expected)


def test_planes_are_measured_by_their_own_objects():
    tables = {
        (plane, 0, 0): replace(
            describe(np.array([[1, 1, 0, 2, 2, 2]]), cell_grid((1, 6), 6, 0)[0, 0]),
            peaks=np.array([low, high]),
            first=np.array([6 * plane, 6 * plane + 3]),
        )
        for plane, (low, high) in enumerate([(0.5, 0.9), (0.45, 0.5)])
    }
    together = stitch(tables, [], confidence=0.8)
    apart = stitch(tables, [], confidence=0.8, plane_of=lambda at: at[0])
    assert together.tolist() == [0, 1, 2, 3, 4]
    assert apart.tolist() == [0, 0, 1, 2, 3]
