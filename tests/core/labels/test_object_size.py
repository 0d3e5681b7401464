"""Sizes of objects, and notes where they differ from those of the prompts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_svpseg.core.image import ImageError
from napari_svpseg.core.labels.object_size import (
    EMPTY_MASK,
    SIZE_NOTE,
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


def test_objects_continue_beyond_the_edge():
    half = np.zeros((40, 40), np.float32)
    half[:, :20] = 1
    assert mean_depth(half, None) == pytest.approx(np.mean(np.arange(1, 21)), abs=1)


def test_touching_objects_are_separated_by_their_boundary():
    whole = np.zeros((60, 60), np.float32)
    whole[10:50, 10:50] = 1
    boundary = np.zeros_like(whole)
    boundary[28:32, 10:50] = boundary[10:50, 28:32] = 1
    assert mean_depth(whole, boundary) < 0.6 * mean_depth(whole, None)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_no_size_without_both_objects_and_background(value):
    flat = np.full((9, 9), value, np.float32)
    assert np.isnan(mean_depth(flat, None))
    assert size_notes(Maps(flat, objects=ObjectProperties(9.0, depth=2.0))) == ()


@pytest.mark.parametrize(
    ("radius", "word"), [(8, "smaller"), (13, ""), (16, ""), (20, ""), (24, "")]
)
def test_a_note_for_objects_of_another_size(radius, word):
    shown = ObjectProperties(32.0, depth=mean_depth(discs(16), None))
    notes = size_notes(Maps(discs(radius), objects=shown))
    assert notes == ((SIZE_NOTE.format(than=word),) if word else ())
    small = replace(shown, depth=shown.depth / 2)
    notes = size_notes(Maps(discs(20), objects=small))
    assert notes == (SIZE_NOTE.format(than="larger"),)


def test_no_note_for_nets_or_uncertain_results():
    small, shown = discs(7), ObjectProperties(32.0, depth=6.0)
    assert size_notes(Maps(small, objects=shown))
    assert size_notes(Maps(small)) == ()
    assert size_notes(Maps(small, objects=replace(shown, net=True))) == ()
    assert size_notes(Maps(small, objects=ObjectProperties(32.0))) == ()
    faint = np.where(small > 0.5, 0.6, 0.4).astype(np.float32)
    assert size_notes(Maps(faint, objects=shown)) == ()


def test_mean_uncertainty_is_that_of_possible_foreground():
    assert mean_uncertainty(np.array([[0.0, 0.1, 1.0]]), LIKELY_FOREGROUND) == 0
    assert mean_uncertainty(np.array([[0.0, 0.5, 0.5]]), LIKELY_FOREGROUND) == 1
    assert mean_uncertainty(np.zeros((3, 3)), LIKELY_FOREGROUND) == 1


def test_the_diameter_is_that_of_whole_objects():
    y, x = np.mgrid[:100, :100]
    labels = ((y - 50) ** 2 + (x - 50) ** 2 < 100).astype(int)
    labels[:4, :4] = 2  # cut by the border
    assert median_diameter(labels) == pytest.approx(20, abs=0.3)
    with pytest.raises(ImageError, match=EMPTY_MASK):
        median_diameter(np.zeros((8, 8), int))


def test_specks_do_not_change_the_diameter():
    labels = np.zeros((64, 64), int)
    labels[:30, 5:40], labels[40:, 20:60] = 1, 2  # both are cut by the border
    clean = median_diameter(labels)
    labels[35, 10] = 3  # a whole object, and a slip of the brush
    assert median_diameter(labels) == clean
    labels[33:37, 45:49] = 4  # too many pixels for a slip
    assert median_diameter(labels) == pytest.approx(4.5, abs=0.1)


def test_specks_are_objects_where_they_are_many_or_all():
    labels = np.zeros((64, 64), int)
    labels[3, 3], labels[9, 9:11] = 1, 2
    assert median_diameter(labels) == pytest.approx(1.36, abs=0.01)
    spots = np.arange(36).reshape(6, 6) + 5
    labels[10:60:9, 10:60:9] = labels[11:61:9, 10:60:9] = spots
    labels[40:50, 55:63] = 99  # two that touch
    assert median_diameter(labels) == pytest.approx(1.6, abs=0.01)


def test_a_grid_is_a_net_and_discs_are_not():
    net = np.zeros((64, 64), int)
    net[::16], net[:, ::16] = 1, 1
    assert is_net(net)
    y, x = np.mgrid[:64, :64]
    assert not is_net(((y % 32 - 16) ** 2 + (x % 32 - 16) ** 2 < 81).astype(int))
    assert not is_net(np.zeros((64, 64), int))
