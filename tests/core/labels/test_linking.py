"""Objects of a stack, linked from plane to plane."""

from __future__ import annotations

import numpy as np

from napari_svpseg.core.labels.linking import link_planes, match


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
