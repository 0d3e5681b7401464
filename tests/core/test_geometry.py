"""Boxes snap and stay inside; tiles cover."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_svpseg.core.geometry import (
    BOX_TOO_FAR,
    BOX_TOO_LARGE,
    BOX_TOO_SMALL,
    IMAGE_TOO_SMALL,
    NOT_WHOLE,
    OVERLAP_TOO_LARGE,
    Box,
    tile_starts,
)

CORNERS = [(10.2, 20.4), (73.9, 84.1)]


@pytest.mark.parametrize("mirror", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_the_drag_direction_does_not_matter(mirror):
    (y0, x0), (y1, x1) = CORNERS
    y = [y0, y1][:: -1 if mirror[0] else 1]
    x = [x0, x1][:: -1 if mirror[1] else 1]
    box = Box.from_corners(np.array([[y[0], x[0]], [y[1], x[1]]]), shape=(200, 200))
    assert box == Box(11, 21, 64)


def test_all_four_corners_in_any_order_give_one_box():
    corners = Box(5, 7, 40).corners
    for shift in range(4):
        rolled = np.roll(corners, shift, axis=0)
        assert Box.from_corners(rolled, shape=(100, 100)) == Box(5, 7, 40)
        assert Box.from_corners(rolled[::-1], shape=(100, 100)) == Box(5, 7, 40)


@given(
    st.integers(16, 300),
    st.integers(16, 300),
    st.lists(
        st.tuples(st.floats(-500, 500), st.floats(-500, 500)), min_size=2, max_size=5
    ),
)
def test_a_drawn_box_is_always_inside_the_image(height, width, corners):
    box = Box.from_corners(np.array(corners), shape=(height, width))
    assert box.fits((height, width))
    assert np.zeros((height, width))[box.slices].shape == (box.size, box.size)


def test_a_click_far_from_a_long_drag_keeps_the_longer_side():
    box = Box.from_corners(np.array([[0, 0], [9.5, 99.5]]), shape=(200, 200))
    assert box.size == 100


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0, 0, 15), BOX_TOO_SMALL),
        ((0, 0, 10**9), BOX_TOO_LARGE),
        ((10**12, 0, 64), BOX_TOO_FAR),
        ((0.5, 0, 64), NOT_WHOLE),
        ((0, 0, 8.5), NOT_WHOLE),
    ],
)
def test_bad_boxes_are_refused(values, message, pattern):
    with pytest.raises(ValueError, match=pattern(message)):
        Box(*values)


def test_an_image_smaller_than_any_box_is_refused(pattern):
    message = pattern(IMAGE_TOO_SMALL, height=10, width=90, smallest=16)
    with pytest.raises(ValueError, match=message):
        Box(0, 0).clamped((10, 90))


def test_clamping_moves_before_it_shrinks():
    assert Box(-5, 990, 64).clamped((1000, 1000)) == Box(0, 936, 64)
    assert Box(3, 3, 64).clamped((40, 100)) == Box(0, 3, 40)


@given(st.integers(1, 2000), st.integers(20, 400), st.integers(0, 19))
def test_tiles_cover_a_line_and_share_their_overlap(length, tile, overlap):
    starts = tile_starts(length, tile, overlap)
    ends = [min(s + tile, length) for s in starts]
    assert starts[0] == 0
    assert ends[-1] == length
    for end, start in zip(ends[:-1], starts[1:], strict=True):
        assert end - start >= overlap
    assert len(set(starts)) == len(starts)


def test_an_overlap_as_large_as_the_tile_is_refused(pattern):
    message = pattern(OVERLAP_TOO_LARGE, tile=32, overlap=32)
    with pytest.raises(ValueError, match=message):
        tile_starts(100, 32, 32)
