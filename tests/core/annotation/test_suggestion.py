"""The suggested mask finds drawn objects, whatever their intensities."""

from __future__ import annotations

import numpy as np
import pytest

from napari_svpseg.core.annotation.suggestion import suggest_mask
from napari_svpseg.core.labels.metrics import dice


def discs(side=64, spots=((20, 22), (44, 40), (12, 52)), r=8.0):
    """Return labels of discs; the first two do not touch."""
    yy, xx = np.indices((side, side))
    labels = np.zeros((side, side), int)
    for i, (y, x) in enumerate(spots, start=1):
        labels[(yy - y) ** 2 + (xx - x) ** 2 <= r * r] = i
    return labels


def noisy(labels, inside=200.0, outside=60.0):
    rng = np.random.default_rng(0)
    return np.where(labels > 0, inside, outside) + rng.normal(0, 8, labels.shape)


@pytest.mark.parametrize(("inside", "outside"), [(200, 60), (60, 200), (3e4, 1e4)])
def test_the_clicked_object_is_1_and_others_follow(inside, outside):
    truth = discs()
    found = suggest_mask(noisy(truth, inside, outside), (20, 22))
    assert found.dtype == np.int32 and found.shape == truth.shape
    assert dice(found > 0, truth > 0) > 0.95
    assert dice(found == 1, truth == 1) > 0.95
    assert sorted(np.unique(found)) == [0, 1, 2, 3]


def test_touching_objects_are_two():
    truth = discs(spots=((32, 22), (32, 40)), r=10.0)
    found = suggest_mask(noisy(truth), (32, 40))
    assert found.max() == 2
    assert dice(found == 1, truth == 2) > 0.9


def test_colours_of_equal_brightness_are_told_apart():
    truth = discs()
    image = np.full((64, 64, 3), (120, 120, 120), np.uint8)
    image[truth > 0] = (180, 60, 120)
    found = suggest_mask(image, (44, 40))
    assert dice(found > 0, truth > 0) > 0.95
    assert dice(found == 1, truth == 2) > 0.95


@pytest.mark.parametrize("side", [32, 96, 200])
def test_boxes_of_any_size(side):
    k = side / 64
    truth = discs(side, ((20 * k, 22 * k), (44 * k, 40 * k)), 8 * k)
    found = suggest_mask(noisy(truth), (20 * k, 22 * k))
    assert found.shape == truth.shape
    assert dice(found == 1, truth == 1) > 0.85


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan])
def test_where_nothing_stands_out_nothing_is_suggested(value):
    assert not suggest_mask(np.full((64, 64), value), (32, 32)).any()


def test_a_few_bad_pixels_do_not_matter():
    truth = discs()
    image = noisy(truth)
    image[0, :5] = np.nan
    image[1, :5] = np.inf
    assert dice(suggest_mask(image, (20, 22)) > 0, truth > 0) > 0.9
