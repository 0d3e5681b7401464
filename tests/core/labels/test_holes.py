"""Gaps of painted masks, and whether holes of objects are filled."""

from __future__ import annotations

import numpy as np
import pytest

from napari_svpseg.core.labels.holes import close_gaps
from napari_svpseg.core.labels.instances import instances_from_maps, object_properties
from napari_svpseg.core.result import Maps
from napari_svpseg.core.settings import PostprocessSettings


def disc(radius=14, hole=-1, centre=32):
    yy, xx = np.indices((64, 64))
    distance = np.hypot(yy - centre, xx - centre)
    return ((distance <= radius) & (distance > hole)).astype(np.int32)


def painted(gaps=((24, 30), (30, 24), (36, 36), (40, 28), (28, 38)), side=3):
    """Return a disc as a hand paints it: with small gaps, in all 7 % of its area."""
    mask = disc()
    for y, x in gaps:
        mask[y : y + side, x : x + side] = 0
    return mask


def ring_maps(objects):
    return Maps(disc(20, 6).astype(np.float32), objects=objects)


def test_small_gaps_of_a_painted_mask_are_closed_and_holes_stay():
    np.testing.assert_array_equal(close_gaps(painted()), disc())
    slit = disc()
    slit[31:33, 24:40] = 0
    np.testing.assert_array_equal(close_gaps(slit), disc())
    for ring in (disc(14, 5), disc(5, 1.5)):
        assert close_gaps(ring) is ring or (close_gaps(ring) == ring).all()
    open_slit = disc()
    open_slit[32, :] = 0  # parts two cells
    np.testing.assert_array_equal(close_gaps(open_slit), open_slit)


@pytest.mark.parametrize(
    ("mask", "fill", "is_filled"),
    [
        (painted(), "auto", True),
        (painted(), "no", False),
        (disc(14, 5), "auto", False),
        (disc(14, 5), "yes", True),
        (disc(14, 5), True, True),
        (painted(), False, False),
    ],
)
def test_holes_are_filled_as_the_option_says(mask, fill, is_filled):
    maps = ring_maps(object_properties([mask], [1.0]))
    settings = PostprocessSettings(fill_holes=fill)
    assert bool(instances_from_maps(maps, settings)[32, 32]) == is_filled


def test_true_and_false_are_yes_and_no():
    assert PostprocessSettings(fill_holes=True).fill_holes == "yes"
    assert PostprocessSettings.from_dict({"fill_holes": False}).fill_holes == "no"
    with pytest.raises(ValueError, match="fill_holes"):
        PostprocessSettings(fill_holes="maybe")
