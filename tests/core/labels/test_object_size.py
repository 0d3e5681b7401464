"""Notes about images whose objects are of another size than the prompts'."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_svpseg.core.image import ImageError
from napari_svpseg.core.labels.object_size import (
    is_net,
    mean_depth,
    median_diameter,
    size_notes,
)
from napari_svpseg.core.labels.uncertainty import LIKELY_FOREGROUND, mean_uncertainty
from napari_svpseg.core.result import Maps, ObjectProperties


def discs(radius: int) -> np.ndarray:
    """Return probabilities of 16 discs."""
    y, x = np.mgrid[:200, :200]
    inside = ((y % 50 - 25) ** 2 + (x % 50 - 25) ** 2) <= radius**2
    return np.where(inside, 0.97, 0.02).astype(np.float32)


def test_the_depth_of_discs_is_a_third_of_their_radius():
    assert mean_depth(discs(18), None) == pytest.approx(18 / 3, abs=0.7)


def test_objects_go_on_beyond_the_edge():
    half = np.zeros((40, 40), np.float32)
    half[:, :20] = 1
    assert mean_depth(half, None) == pytest.approx(np.mean(np.arange(1, 21)), abs=1)


def test_touching_objects_are_told_apart_by_their_boundary():
    whole = np.zeros((60, 60), np.float32)
    whole[10:50, 10:50] = 1
    boundary = np.zeros_like(whole)
    boundary[28:32, 10:50] = boundary[10:50, 28:32] = 1
    assert mean_depth(whole, boundary) < 0.6 * mean_depth(whole, None)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_where_there_is_one_thing_only_no_size_is_known(value):
    flat = np.full((9, 9), value, np.float32)
    assert np.isnan(mean_depth(flat, None))
    assert size_notes(Maps(flat, objects=ObjectProperties(9.0, depth=2.0))) == ()


@pytest.mark.parametrize(
    ("radius", "word"), [(8, "smaller"), (13, ""), (16, ""), (20, ""), (24, "")]
)
def test_a_note_tells_of_objects_of_another_size(radius, word):
    look = ObjectProperties(32.0, depth=mean_depth(discs(16), None))
    notes = size_notes(Maps(discs(radius), objects=look))
    assert [word in n for n in notes] == ([True] if word else [])
    small = replace(look, depth=look.depth / 2)
    assert "larger" in size_notes(Maps(discs(20), objects=small))[0]


def test_of_nets_and_of_what_is_doubtful_nothing_is_told():
    small, look = discs(7), ObjectProperties(32.0, depth=6.0)
    assert size_notes(Maps(small, objects=look))
    assert size_notes(Maps(small)) == ()
    assert size_notes(Maps(small, objects=replace(look, net=True))) == ()
    assert size_notes(Maps(small, objects=ObjectProperties(32.0))) == ()
    faint = np.where(small > 0.5, 0.6, 0.4).astype(np.float32)
    assert size_notes(Maps(faint, objects=look)) == ()


def test_doubt_is_that_of_what_may_be_there():
    assert mean_uncertainty(np.array([[0.0, 0.1, 1.0]]), LIKELY_FOREGROUND) == 0
    assert mean_uncertainty(np.array([[0.0, 0.5, 0.5]]), LIKELY_FOREGROUND) == 1
    assert mean_uncertainty(np.zeros((3, 3)), LIKELY_FOREGROUND) == 1


def test_the_diameter_of_whole_objects_counts():
    y, x = np.mgrid[:100, :100]
    labels = ((y - 50) ** 2 + (x - 50) ** 2 < 100).astype(int)
    labels[:4, :4] = 2  # cut by the border
    assert median_diameter(labels) == pytest.approx(20, abs=0.3)
    with pytest.raises(ImageError, match="mask is empty"):
        median_diameter(np.zeros((8, 8), int))


def test_a_grid_is_a_net_and_discs_are_not():
    net = np.zeros((64, 64), int)
    net[::16], net[:, ::16] = 1, 1
    assert is_net(net)
    y, x = np.mgrid[:64, :64]
    assert not is_net(((y % 32 - 16) ** 2 + (x % 32 - 16) ** 2 < 81).astype(int))
    assert not is_net(np.zeros((64, 64), int))
