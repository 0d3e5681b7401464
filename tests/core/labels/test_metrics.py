"""Scores against cases worked by hand and against brute force."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_svpseg.core.labels.metrics import (
    SHAPES_DIFFER,
    average_precision,
    dice,
    expected_calibration_error,
    f1,
    iou,
    match_instances,
)

A = np.array([[1, 1, 0, 0], [1, 1, 0, 2], [0, 0, 0, 2], [0, 0, 0, 2]])
B = np.array([[5, 5, 0, 0], [5, 0, 0, 0], [0, 0, 0, 7], [3, 0, 0, 7]])


def test_dice_and_iou_by_hand():
    assert dice(A, B) == pytest.approx(2 * 5 / (7 + 6))
    assert iou(A, B) == pytest.approx(5 / 8)
    assert dice(A, A) == iou(A, A) == 1
    assert dice(A, 0 * A) == 0


def test_two_empty_labels_score_one():
    empty = np.zeros((3, 3), int)
    assert dice(empty, empty) == iou(empty, empty) == f1(empty, empty) == 1
    assert average_precision(empty, empty) == 1


def test_matching_by_hand():
    found = match_instances(A, B)
    assert (found.tp, found.fp, found.fn) == (2, 0, 1)
    assert found.pairs == ((1, 5, 0.75), (2, 7, pytest.approx(2 / 3)))
    assert found.f1 == pytest.approx(4 / 5)
    assert found.average_precision == pytest.approx(2 / 3)
    assert match_instances(A, B, 0.7).tp == 1


def test_ignored_pixels_do_not_count():
    ignore = np.zeros_like(A)
    ignore[3, 0] = 1
    assert f1(A, B, ignore=ignore) == 1
    assert dice(A, B, ignore=ignore) == pytest.approx(10 / 12)


def test_below_a_half_the_assignment_is_one_to_one_and_largest():
    truth = np.array([[1, 1, 1, 1, 2, 2, 2, 2]])
    found = np.array([[4, 4, 4, 5, 5, 5, 6, 6]])
    assert match_instances(found, truth, 0.2).tp == 2


def test_three_poor_pairs_are_more_than_two_good_ones():
    # each prediction is shifted by 15 of 100 pixels
    truth = np.repeat([0, 1, 2, 3, 0], [50, 100, 100, 100, 50])[None]
    found = np.repeat([1, 2, 3, 0], [65, 100, 100, 135])[None]
    matched = match_instances(found, truth, 0.05)
    assert [pair[:2] for pair in matched.pairs] == [(1, 1), (2, 2), (3, 3)]
    assert matched.pairs[0][2] == 15 / 150


def test_shapes_must_agree(pattern):
    with pytest.raises(ValueError, match=pattern(SHAPES_DIFFER)):
        dice(A, B[:2])


def brute_force(a: np.ndarray, b: np.ndarray, threshold: float) -> int:
    a_ids, b_ids = (np.unique(m[m > 0]).tolist() for m in (a, b))
    good = {
        (i, j)
        for i in a_ids
        for j in b_ids
        if ((a == i) & (b == j)).sum() / ((a == i) | (b == j)).sum() >= threshold
    }
    short, long = sorted((a_ids, b_ids), key=len)
    flip = len(a_ids) > len(b_ids)
    return max(
        sum(
            ((j, i) if flip else (i, j)) in good
            for i, j in zip(short, order, strict=False)
        )
        for order in permutations(long, len(short))
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 100_000), st.sampled_from([0.15, 0.3, 0.5, 0.8]))
def test_matching_agrees_with_brute_force(seed, threshold):
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 5, (4, 6))
    b = np.where(rng.random(a.shape) < 0.6, a, rng.integers(0, 5, a.shape))
    found = match_instances(a, b, threshold)
    assert found.tp == brute_force(a, b, threshold)
    assert found.tp + found.fp == len(np.unique(a[a > 0]))
    assert found.tp + found.fn == len(np.unique(b[b > 0]))
    assert len({p for p, _, _ in found.pairs}) == len({t for _, t, _ in found.pairs})


def test_ids_do_not_matter():
    renamed = np.where(A > 0, A * 50_000, 0)
    assert match_instances(renamed, B).f1 == match_instances(A, B).f1


def test_calibration_of_a_known_case():
    """Of 100 pixels promised at 0.8, 60 are true: the error is 0.2; with 80, none."""
    promised = np.full((10, 10), 0.8)
    pixels = np.arange(100).reshape(10, 10)
    assert expected_calibration_error(promised, pixels < 60) == pytest.approx(0.2)
    assert expected_calibration_error(promised, pixels < 80) == pytest.approx(0.0)


def test_calibration_weighs_bins_by_their_pixels():
    p = np.r_[np.full(90, 0.95), np.full(10, 0.05)]
    truth = np.r_[np.ones(90), np.ones(10)]  # right for the sure, wrong for the rest
    assert expected_calibration_error(p, truth) == pytest.approx(
        0.9 * 0.05 + 0.1 * 0.95
    )
    assert expected_calibration_error(p, truth, ignore=p < 0.5) == pytest.approx(0.05)
    assert np.isnan(expected_calibration_error(p, truth, ignore=np.ones(100)))
