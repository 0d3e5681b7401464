"""Partial labels: every form people have becomes one, and a part is kept back."""

from __future__ import annotations

import numpy as np
import pytest

from napari_svpseg.core.annotation.partial_labels import (
    BAD_IDS,
    BOX_OUTSIDE,
    CONTRADICTION,
    LABELS_DIFFER,
    MAX_LABEL,
    RESULTS_DIFFER,
    UNKNOWN,
    WRONG_SIZE,
    PartialLabelError,
    check_partial_labels,
    complete_ids,
    from_correction,
    from_labels,
    from_objects,
    known_borders,
    label_counts,
    label_regions,
    look_ordinary,
    merge_partial_labels,
    to_ids,
)
from napari_svpseg.core.geometry import Box
from napari_svpseg.core.jobs.finetune_job import (
    FineTuneError,
    FineTuneSettings,
    ValidationScore,
)
from napari_svpseg.core.labels.ids import (
    FRACTIONS,
    NEGATIVE,
    NOT_A_PLANE,
    NOT_FINITE,
    NOT_NUMBERS,
)


def squares(*corners, side=8, shape=(64, 64)):
    labels = np.zeros(shape, np.int32)
    for i, (y, x) in enumerate(corners, 1):
        labels[y : y + side, x : x + side] = i
    return labels


LABELS = squares((4, 4), (4, 40), (40, 4), (40, 40))


def test_whole_labels_keep_their_ids_one_higher():
    partial = from_labels(LABELS)
    assert np.array_equal(partial - 1, LABELS)
    assert np.array_equal(to_ids(partial), LABELS)


def test_outside_boxes_nothing_is_known():
    partial = from_labels(LABELS, [Box(0, 0, 16), (32, 32, 20, 30)])
    known = partial > 0
    assert known[:16, :16].all() and known[32:52, 32:62].all()
    assert known.sum() == 16 * 16 + 20 * 30
    ids = to_ids(partial)
    assert set(np.unique(ids)) == {UNKNOWN, 0, 1, 4}
    assert np.array_equal(ids[known], LABELS[known])


def test_a_box_is_cut_at_the_border_and_refused_outside(pattern):
    assert (from_labels(LABELS, [(-8, -8, 16, 16)]) > 0).sum() == 64
    with pytest.raises(
        PartialLabelError, match=pattern(BOX_OUTSIDE, height=64, width=64)
    ):
        from_labels(LABELS, [(70, 0, 16, 16)])


def test_complete_objects_have_a_ring_of_background():
    one = np.where(LABELS == 2, LABELS, 0)
    partial = from_objects(one, ring=2)
    assert (partial == 3).sum() == 64
    assert (partial == 1).sum() == 12 * 12 - 8 * 8
    assert (from_objects(one, ring=0) == 1).sum() == 0
    assert complete_ids(to_ids(partial)).tolist() == [2]
    assert complete_ids(to_ids(from_objects(one, ring=0))).tolist() == []


def test_a_correction_labels_what_was_painted_erased_or_accepted():
    after = LABELS.copy()
    after[after == 1] = 0  # erased
    after[4:14, 40:50] = 2  # painted larger
    after[20:26, 20:26] = 9  # drawn anew
    partial = from_correction(LABELS, after, accepted=[3])
    ids = to_ids(partial)
    assert (ids[LABELS == 1] == 0).all()
    assert (ids == 2).sum() == 100 and (ids == 9).sum() == 36 and (ids == 3).sum() == 64
    assert (ids[LABELS == 4] == UNKNOWN).all()  # nobody looked at this one


def test_no_correction_gives_no_labels(pattern):
    assert not from_correction(LABELS, LABELS).any()
    with pytest.raises(PartialLabelError, match=pattern(RESULTS_DIFFER)):
        from_correction(LABELS, LABELS[1:])


def test_merging_keeps_objects_apart_and_refuses_contradictions(pattern):
    first = from_labels(LABELS, [Box(0, 0, 16)])
    second = from_labels(squares((44, 44)), [Box(36, 36, 20)])
    both = merge_partial_labels(first, second)
    assert label_counts(both)["n_objects"] == 2
    contradiction = pattern(CONTRADICTION, name="a.tif", n=64)
    with pytest.raises(PartialLabelError, match=contradiction):
        merge_partial_labels(first, from_labels(0 * LABELS, [Box(0, 0, 16)]), "a.tif")
    with pytest.raises(PartialLabelError, match=pattern(LABELS_DIFFER)):
        merge_partial_labels(first, second[1:])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((3, 4, 5), int), NOT_A_PLANE),
        (np.zeros((64, 63), int), WRONG_SIZE),
        (np.full((64, 64), -1), NEGATIVE),
        (np.full((64, 64), 0.5), FRACTIONS),
        (np.full((64, 64), 2**40), BAD_IDS),
        (np.full((64, 64), "a"), NOT_NUMBERS),
        (np.full((64, 64), np.nan), NOT_FINITE),
    ],
)
def test_odd_labels_are_refused_in_one_line(labels, message, pattern):
    known = {"labels": "64 x 63", "image": "64 x 64", "largest": MAX_LABEL}
    with pytest.raises(FineTuneError, match=pattern(message, **known)) as error:
        check_partial_labels(labels, (64, 64), "cells.tif")
    assert "\n" not in str(error.value)


def test_a_mask_of_one_id_is_objects_and_a_class_is_none():
    binary = np.where(LABELS > 0, 255, 0)
    assert label_counts(from_labels(binary))["n_objects"] == 4
    assert label_counts(from_labels(binary, [Box(0, 0, 20)]))["n_objects"] == 1
    assert np.unique(from_labels(binary, classes=True)).tolist() == [1, 256]


def test_ordinary_labels_are_told_from_partial_ones():
    assert look_ordinary(LABELS)
    partial = from_labels(LABELS, [Box(0, 0, 20), Box(0, 36, 20)])
    assert not look_ordinary(partial) and not look_ordinary(from_objects(LABELS))
    stroke = np.where(LABELS > 1, LABELS, 0)
    stroke[20:23, 2:60] = 1
    assert not look_ordinary(stroke)
    assert not look_ordinary(np.where(LABELS > 1, LABELS, 1))  # known everywhere


def test_merged_ids_of_any_size_stay_apart():
    first = np.where(LABELS == 1, MAX_LABEL, 0)
    second = np.where(LABELS == 4, MAX_LABEL, np.where(LABELS == 2, 1, 0))
    merged = merge_partial_labels(first, second)
    assert (merged >= 0).all() and label_counts(merged)["n_objects"] == 2
    assert label_counts(merged)["background"] == 64


def test_whole_numbers_stored_as_floats_are_labels():
    assert check_partial_labels(LABELS.astype(float), (64, 64)).dtype == np.int32


def test_labelled_pixels_are_counted_by_class():
    partial = from_labels(LABELS, [Box(0, 0, 16)])
    assert label_counts(partial) == {
        "background": 192, "objects": 64, "n_objects": 1,
    }  # fmt: skip
    assert label_counts(partial, semantic=True) == {"background": 192, "class 2": 64}


def test_classes_become_one_kind_of_object():
    classes = np.array([[0, 1, 2, 3]])
    assert to_ids(classes, wanted=3).tolist() == [[UNKNOWN, 0, 0, 1]]
    assert to_ids(classes, unlabelled_is_background=True).tolist() == [[0, 0, 1, 2]]


def test_outlines_are_unknown_beside_unknown_pixels():
    ids = to_ids(from_labels(LABELS, [Box(0, 0, 24), Box(36, 6, 20)]))
    complete = complete_ids(ids)
    assert complete.tolist() == [1]  # the third is cut by its box
    depth, outline = known_borders(ids, complete)
    assert depth[ids == 1].all() and not depth[ids == 3].any()
    assert not outline[ids == UNKNOWN].any() and not outline[22:24, :24].any()
    everywhere = known_borders(LABELS, np.arange(1, 5))
    assert all(mask.all() for mask in everywhere)


def test_labels_a_few_pixels_apart_are_one_region():
    known = np.zeros((40, 80), bool)
    known[10, 5:10] = known[10, 13:20] = known[10, 60:70] = True
    assert label_regions(known)[1] == 2
    assert label_regions(np.zeros((5, 5), bool))[1] == 0


# ---------------------------------------------------------------- settings, scores


def test_presets_and_scores():
    assert FineTuneSettings.of_preset("thorough").steps > FineTuneSettings().steps
    assert FineTuneSettings.of_preset("quick", seed=7).seed == 7
    with pytest.raises(FineTuneError, match="no preset 'fast'"):
        FineTuneSettings.of_preset("fast")
    assert ValidationScore(0.5, None, 10, 0).value == 0.5
    assert ValidationScore(0.5, 1.0, 10, 2).value == 0.75
    assert str(ValidationScore(0.5, 1.0, 10, 2)) == "Dice 0.500, F1@0.5 1.000"
    assert str(ValidationScore(float("nan"), None, 0, 0)) == "not checked"
