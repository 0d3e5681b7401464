"""Dividing objects along a line, and the split strength that this supports."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_svpseg.core.annotation.mending import (
    REACH,
    STRENGTHS,
    Lesson,
    MendError,
    changed_objects,
    crossed_object,
    divided,
    learned_strength,
)
from napari_svpseg.core.annotation.patches import Patch
from napari_svpseg.core.geometry import Box
from napari_svpseg.core.labels.instances import instances_from_maps, targets
from napari_svpseg.core.prompt import UNKNOWN
from napari_svpseg.core.result import Maps, ObjectProperties
from napari_svpseg.core.settings import PostprocessSettings


def two_discs(gap=14, r=10):
    """Return a mask of two discs that run into each other, and their labels."""
    y, x = np.mgrid[:60, :80]
    one = (y - 30) ** 2 + (x - 30) ** 2 <= r * r
    two = (y - 30) ** 2 + (x - 30 - gap) ** 2 <= r * r
    labels = np.where(one, 1, 0)
    labels[two & (x > 30 + gap / 2)] = 2
    return one | two, labels


@pytest.mark.parametrize(
    "path",
    [
        [(10, 37), (50, 37)],  # beyond its edges
        [(25, 37), (34, 37)],  # short of them
        [(18, 34), (30, 37), (44, 40)],  # slanted, in steps
    ],
)
def test_a_line_divides_an_object(path):
    mask, _ = two_discs()
    parts = divided(mask, np.array(path, float))
    assert set(np.unique(parts)) == {0, 1, 2}
    np.testing.assert_array_equal(parts > 0, mask)  # no pixel is lost
    assert parts[30, 25] != parts[30, 50]


def test_a_line_beside_an_object_or_at_its_edge_divides_nothing():
    mask, labels = two_discs()
    with pytest.raises(MendError):
        divided(mask, np.array([(21, 0), (20.5, 79)], float))
    with pytest.raises(MendError):
        crossed_object(labels, np.array([(2, 2), (2, 70)], float))
    assert crossed_object(labels, np.array([(30, 5), (30, 33)], float)) == 1


def test_changes_are_counted_but_where_the_user_decided():
    _, before = two_discs(gap=30)
    after = np.where(before == 2, 0, before)
    after[:8, :8] = 5
    assert changed_objects(before, after) == (1, 1)
    assert changed_objects(before, after, before == 2) == (0, 1)


def fused(strength=0.1):
    """Return maps in which two discs are one object at a low strength."""
    mask, labels = two_discs(gap=12)
    distance = targets(mask.astype(int))[1]
    depth = np.maximum(targets(labels)[1] * 0.35 + 0.65 * distance, 0)
    maps = Maps(
        mask.astype(np.float32) * 0.9,
        depth.astype(np.float32),
        None,
        ObjectProperties(20.0, split=0.5),
    )
    return maps, labels


def test_a_split_moves_the_strength_no_farther_than_needed():
    maps, labels = fused()
    now = PostprocessSettings(split_strength=0.0)
    before = instances_from_maps(maps, now)
    assert before.max() == 1
    patch = Patch.of(np.where(labels > 0, labels, UNKNOWN))
    lesson = Lesson.of(maps, before, patch)
    learned = learned_strength([lesson], now)
    assert learned > 0
    tried = PostprocessSettings(split_strength=learned)
    assert instances_from_maps(maps, tried).max() == 2
    less = PostprocessSettings(split_strength=learned - 0.05)
    assert instances_from_maps(maps, less).max() == 1
    assert learned_strength([lesson], tried) == learned  # nothing left to learn


def test_a_learned_strength_stays_near_that_of_the_prompts():
    maps, labels = fused()
    maps = replace(maps, objects=replace(maps.objects, split=0.01))
    now = PostprocessSettings()
    before = instances_from_maps(maps, now)
    assert before.max() == 1
    lesson = Lesson.of(maps, before, Patch.of(np.where(labels > 0, labels, UNKNOWN)))
    for strength in STRENGTHS:
        tried = PostprocessSettings(split_strength=strength)
        if instances_from_maps(maps, tried).max() == 2:
            break
    assert strength > 0.5 + REACH, "the scene has to ask for more"
    assert learned_strength([lesson], now) == 0.5


def test_opposite_corrections_leave_the_strength_alone():
    maps, labels = fused()
    now = PostprocessSettings(split_strength=0.0)
    before = instances_from_maps(maps, now)
    split = Patch.of(np.where(labels > 0, labels, UNKNOWN))
    join = Patch.of(np.where(labels > 0, 1, UNKNOWN))
    lessons = [Lesson.of(maps, before, p) for p in (split, join, join)]
    assert learned_strength(lessons, now) == 0.0
    assert learned_strength([], now) == 0.0


def test_a_patch_is_the_known_part_and_plain_values():
    plane = np.full((40, 50), UNKNOWN, np.int32)
    plane[10:14, 20:30] = 0
    plane[11:13, 22:25] = 3
    patch = Patch.of(plane)
    assert (patch.y, patch.x, patch.ids.shape) == (10, 20, (4, 10))
    again = Patch.from_dict(patch.to_dict())
    np.testing.assert_array_equal(again.on_plane(plane.shape), plane)
    box = Box(5, 15, 16)
    np.testing.assert_array_equal(again.within(box), plane[box.slices])
    assert (again.within(Box(20, 0, 16)) == UNKNOWN).all()
    empty = Patch.of(np.full((4, 4), UNKNOWN))
    assert Patch.from_dict(empty.to_dict()).ids.size == 0
