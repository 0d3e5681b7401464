"""Objects that the network is less sure of than of the typical one."""

import numpy as np
import pytest
from scipy import ndimage

from napari_svpseg.core.labels.confidence import (
    ObjectEvidence,
    confident_objects,
    on_outline,
)
from napari_svpseg.core.labels.instances import filter_objects, instances_from_maps
from napari_svpseg.core.result import Maps, ObjectProperties
from napari_svpseg.core.settings import PostprocessSettings


def scene(edge_of_small):
    """Return maps of two large squares and a small one, and where the latter is."""
    foreground = np.zeros((60, 60), np.float32)
    for y, x, side in ((5, 5, 20), (5, 35, 20), (40, 40, 8)):
        foreground[y : y + side, x : x + side] = 0.99
    outline = on_outline((foreground > 0.5).astype(int))
    boundary = np.where(outline, 0.9, 0).astype(np.float32)
    boundary[40:48, 40:48] *= edge_of_small / 0.9
    return foreground, boundary, (43, 43)


def test_outline_is_where_the_neighbour_is_another():
    labels = np.array([[1, 1, 2], [1, 1, 2], [0, 0, 0]])
    assert on_outline(labels).tolist() == [
        [False, True, True],
        [True, True, True],
        [False, False, False],
    ]


@pytest.mark.parametrize(("edge", "kept"), [(0.9, True), (0.65, True), (0.5, False)])
def test_small_object_without_a_distinct_outline_is_dropped(edge, kept):
    foreground, boundary, at = scene(edge)
    labels = instances_from_maps(
        Maps(foreground, None, boundary), PostprocessSettings()
    )
    assert (labels[at] > 0) == kept
    assert labels[15, 15] and labels[15, 45]


def test_outline_counts_for_nothing_where_it_cannot_tell():
    foreground, boundary, at = scene(0.1)
    keep_all = PostprocessSettings(min_confidence=0.0)
    net = ObjectProperties(20, net=True)
    assert instances_from_maps(Maps(foreground, None, boundary), keep_all)[at]
    assert instances_from_maps(Maps(foreground), PostprocessSettings())[at]
    found = instances_from_maps(
        Maps(foreground, None, boundary, net), PostprocessSettings()
    )
    assert found[at]


def test_large_object_with_few_boundaries_stays():
    foreground, boundary, _ = scene(0.9)
    boundary[:30, :30] = 0.1
    labels = ndimage.label(foreground > 0.5)[0]
    kept = filter_objects(labels, 1, foreground, boundary, confidence=0.95)
    assert kept[15, 15]


def test_evidence_is_the_same_in_any_order():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, (40, 40))
    maps = rng.random((2, 40, 40)).astype(np.float32)
    outline = on_outline(labels)
    one, two = ObjectEvidence.nothing(4), ObjectEvidence.nothing(4)
    one.add(labels, *maps)
    for rows in (slice(23, 40), slice(0, 23)):
        two.add(labels[rows], *maps[:, rows], outline[rows])
    for name, values in vars(one).items():
        np.testing.assert_array_equal(values, vars(two)[name])
    areas = np.bincount(labels.ravel())
    np.testing.assert_array_equal(
        confident_objects(areas, one, 0.95), confident_objects(areas, two, 0.95)
    )
