"""Masks of every kind are understood in one way, and ids may be of any size."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_svpseg.core.labels.ids import (
    COLOURED,
    FRACTIONS,
    NEGATIVE,
    NOT_FINITE,
    NOT_NUMBERS,
    MaskError,
    as_objects,
    black_and_white,
    compact_ids,
    count_objects,
    present_ids,
    whole_numbers,
)
from napari_svpseg.core.labels.instances import filter_objects, targets
from napari_svpseg.core.labels.linking import link_planes


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, np.float64])
def test_a_mask_of_one_value_holds_its_pieces(disc_scene, dtype):
    mask = (disc_scene.labels > 0).astype(dtype)
    labels = as_objects(whole_numbers(mask))
    assert labels.dtype.kind in "iu" and count_objects(labels) == 5
    assert np.array_equal(labels > 0, mask > 0)


def test_unknown_pixels_belong_to_no_piece(disc_scene):
    mask = (disc_scene.labels > 0).astype(np.int16)
    mask[:10] = -1
    pieces = as_objects(mask)
    assert (pieces[:10] == -1).all()
    np.testing.assert_array_equal(pieces[10:] > 0, mask[10:] > 0)
    assert pieces.max() == 5


def test_several_ids_and_a_single_piece_stay_what_they_are(disc_scene):
    assert as_objects(disc_scene.labels) is disc_scene.labels
    one = np.where(disc_scene.labels == 2, 7, 0)
    assert as_objects(one) is one
    assert as_objects(np.zeros((4, 4), int)).max() == 0


def test_grey_saved_as_colours_is_grey_and_colours_are_refused(disc_scene, pattern):
    grey = np.repeat(disc_scene.labels[..., None].astype(np.uint8), 3, axis=2)
    assert np.array_equal(whole_numbers(grey), disc_scene.labels)
    grey[0, 0, 2] = 9
    with pytest.raises(MaskError, match=pattern(COLOURED, what="a.png")):
        whole_numbers(grey, "a.png")


@pytest.mark.parametrize(
    ("value", "message"),
    [(0.5, FRACTIONS), (np.nan, NOT_FINITE), (np.inf, NOT_FINITE), (-1, NEGATIVE),
     (1e300, FRACTIONS), (1j, NOT_NUMBERS)],
)  # fmt: skip
def test_what_is_no_id_is_refused(value, message, pattern):
    with pytest.raises(MaskError, match=pattern(message, what="the mask")):
        whole_numbers(np.array([[value, 0]]))


def test_blurred_black_and_white_is_told_from_ids(disc_scene):
    white = np.where(disc_scene.labels > 0, 255, 0).astype(float)
    blurred = np.clip(ndimage.gaussian_filter(white, 1), 0, 255).astype(np.uint8)
    found = black_and_white(blurred)
    assert found is not None and np.mean(found == white) > 0.98
    assert count_objects(as_objects(found)) == 5
    ids = np.arange(256, dtype=np.uint8).reshape(16, 16).repeat(6, 0).repeat(6, 1)
    assert black_and_white(ids) is None
    assert black_and_white(disc_scene.labels.astype(np.uint8)) is None


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.uint64])
@pytest.mark.parametrize("factor", [1, 20])
def test_the_ids_that_occur_are_those_of_sorting(disc_scene, dtype, factor):
    labels = (disc_scene.labels * factor)[:, ::-1].astype(dtype)
    if labels.dtype.kind == "i":
        labels[:3] = -1
    if factor > 1 and labels.itemsize > 2:
        labels *= 1_000_000  # too large to be counted
    expected = np.setdiff1d(labels, [-1, 0])
    assert expected.size == 5 and np.array_equal(present_ids(labels), expected)


def test_huge_ids_take_no_memory_and_change_nothing(disc_scene):
    labels = disc_scene.labels
    huge = np.where(labels > 0, labels.astype(np.int64) * 400_000_000, 0)
    assert np.array_equal(compact_ids(huge), labels)
    for small, large in zip(targets(labels), targets(huge), strict=True):
        assert np.array_equal(small, large)
    assert np.array_equal(filter_objects(huge, 1), filter_objects(labels, 1))
    stack = link_planes(np.stack([huge, np.where(huge, huge + 1, 0)]), 0, 0.25)
    assert np.array_equal(stack[0], stack[1]) and count_objects(stack) == 5
