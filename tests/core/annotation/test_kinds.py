"""A kind of its own goes with a wrong object; what resembles the right ones stays."""

from __future__ import annotations

import numpy as np
import pytest

from napari_svpseg.core.annotation.kinds import Scored, alike, kind_scores


def pixels(centre: float, n: int = 200, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return centre * np.array([1.0, -0.5, 0]) + rng.normal(0, 1, (n, 3))


def test_scores_are_near_zero_where_the_kinds_cannot_be_told_apart():
    right, wrong = pixels(4.0), pixels(-4.0, seed=1)
    score = kind_scores(right, wrong)
    assert score(right).mean() > 0.3
    assert score(wrong).mean() < -0.3
    same = kind_scores(right, pixels(4.0, seed=2))
    assert abs(same(right).mean()) < 0.1
    # a constant feature, and one far outside, do no harm
    odd = np.concatenate([right, np.full((1, 3), 1e9)])
    assert np.isfinite(kind_scores(odd * [1, 1, 0], wrong * [1, 1, 0])(odd)).all()


def test_a_gap_parts_a_kind_and_a_continuum_is_left_alone():
    right = np.array([0.55, 0.6, 0.65])
    apart = np.array([0.6, 0.5, -0.5, 0.7, -0.65])
    np.testing.assert_array_equal(alike(Scored(apart, right, -0.6)), apart < 0)
    spread = np.linspace(-0.7, 0.7, 21)
    assert not alike(Scored(spread, right, -0.6)).any()


@pytest.mark.parametrize(
    ("scores", "right", "wrong"),
    [
        ([], [0.5], -0.5),
        ([-0.5, 0.5], [], -0.5),
        ([-0.5, 0.5], [-0.5], 0.5),  # the wrong one is the better
        ([-0.5] * 9 + [0.5], [0.5], -0.5),  # nearly all of the image
        ([-0.5, 0.5, 0.6], [-0.6, 0.5, 0.5], -0.5),  # a right one is like it
    ],
)
def test_in_doubt_nothing_goes(scores, right, wrong):
    assert not alike(Scored(np.array(scores), np.array(right), wrong)).any()


def test_right_ones_on_both_sides_are_told_from_each_kind():
    # dark right ones, wrong ones between, bright right ones: scores of three prompts
    dark, between, bright = [0.5, 0.6], [-0.6, -0.55], [-2.0, -2.1]
    both = np.array([0.1, 0.2, 0.1, 0.15, 0.1, 0.2])
    pooled = Scored(both, np.array([0.1, 0.2]), 0.1)
    to_dark = Scored(np.array([*dark, *between, *bright]), np.array(dark), -0.6)
    to_bright = Scored(np.array([-2, -2.1, -0.6, -0.5, 0.5, 0.6]), np.array(dark), -0.6)
    assert not alike(pooled).any()
    found = alike(pooled, [to_dark, to_bright])
    assert found.tolist() == [False, False, True, True, False, False]
    # one kind of right ones that is like the wrong ones keeps them
    assert not alike(pooled, [to_dark, to_bright, pooled]).any()
