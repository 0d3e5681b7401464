"""Boxes in which everything is labelled become prompts."""

from __future__ import annotations

import numpy as np

from napari_svpseg.core.annotation.labelled_boxes import prompt_boxes
from napari_svpseg.core.annotation.partial_labels import UNKNOWN, from_labels, to_ids


def squares(*corners, side=8, shape=(64, 64)):
    labels = np.zeros(shape, np.int32)
    for i, (y, x) in enumerate(corners, 1):
        labels[y : y + side, x : x + side] = i
    return labels


LABELS = squares((4, 4), (4, 40), (40, 4), (40, 40))


def boxed(n_images, boxes=((0, 0, 24, 24), (36, 36, 24, 24))):
    return [to_ids(from_labels(LABELS, boxes)) for _ in range(n_images)]


def test_prompt_boxes_are_labelled_completely_and_do_not_overlap():
    many = np.tile(LABELS, (3, 3))
    ids = to_ids(from_labels(many, [(0, 0, 130, 180)]))
    boxes = prompt_boxes([ids], 5)
    assert boxes and {i for i, _ in boxes} == {0}
    seen = np.zeros(many.shape, int)
    for _, box in boxes:
        assert (ids[box.slices] != UNKNOWN).all() and (ids[box.slices] > 0).any()
        seen[box.slices] += 1
    assert seen.max() == 1


def test_prompt_boxes_come_from_all_images_and_shrink_to_what_is_labelled():
    ids = boxed(3, boxes=((0, 0, 40, 40),))
    boxes = prompt_boxes(ids, 3)
    assert sorted(i for i, _ in boxes) == [0, 1, 2]
    assert all(box.size == 40 for _, box in boxes)
    scribble = np.full((64, 64), UNKNOWN)
    scribble[4, 4:20], scribble[20, 4:20] = 1, 0
    assert prompt_boxes([scribble], 3) == []


def test_large_objects_get_large_boxes():
    large = squares((20, 20), (20, 150), (150, 20), side=60, shape=(256, 256))
    assert prompt_boxes([large], 1)[0][1].size > 128


def test_a_drawn_box_stays_the_box_it_is():
    """Cut objects look small; a box of that size would show pieces of them."""
    large = squares((20, 20), (20, 110), side=80, shape=(200, 200))
    drawn = (50, 60, 96, 96)  # the middle of both, cut on all sides but one
    for boxes in ([drawn], [drawn, (140, 160, 40, 24)]):  # with a strip beside it
        ids = to_ids(from_labels(large, boxes))
        first = prompt_boxes([ids], 3)[0][1]
        assert (first.y, first.x, first.size) == (50, 60, 96)
    whole = to_ids(from_labels(large))  # an image is no box
    assert prompt_boxes([whole[:100, :100]], 1)[0][1].size != 100
