"""The trust: what a result's maps tell of its Dice."""

from __future__ import annotations

import numpy as np
import pytest

from napari_svpseg.core.labels.reliability import MARGIN, SIGNS, expected_dice, signs
from napari_svpseg.core.result import Maps


def discs(inside: float, outside: float, rim: float = 0.9) -> Maps:
    """Return maps of 16 discs."""
    y, x = np.mgrid[:200, :200]
    far = np.hypot(y % 50 - 25, x % 50 - 25)
    foreground = np.where(far <= 16, inside, outside).astype(np.float32)
    boundary = np.where(np.abs(far - 16) < 2, rim, 0.02).astype(np.float32)
    return Maps(foreground, None, boundary)


def test_signs_of_a_sure_and_of_a_doubtful_result():
    sure = dict(zip(SIGNS, signs(discs(0.98, 0.02), 0.9), strict=True))
    assert sure["consistency"] == 0.9
    assert sure["stability"] == 1 and sure["confident"] == 1
    assert sure["outline"] == pytest.approx(0.9, abs=0.01)
    doubtful = dict(zip(SIGNS, signs(discs(0.7, 0.3, 0.2), 0.9), strict=True))
    assert doubtful["stability"] == 0 and doubtful["outline"] < 0.3


def test_trust_falls_with_each_sign():
    best = expected_dice(discs(0.98, 0.02), 0.95)
    assert best > 0.8
    assert expected_dice(discs(0.7, 0.3), 0.95) < best - 0.3  # unstable
    assert expected_dice(discs(0.98, 0.02, 0.1), 0.95) < best - 0.1  # no outlines
    some = discs(0.98, 0.02)
    some.foreground[:, 100:] = np.where(some.foreground[:, 100:] > 0.5, 0.6, 0.02)
    assert expected_dice(some, 0.95) < best - 0.1  # half of the objects are faint


def test_a_sure_result_that_does_not_lead_back_is_not_trusted():
    assert expected_dice(discs(0.98, 0.02), 0.1) == pytest.approx(0.1 + MARGIN)


def test_nothing_found_has_no_trust():
    assert expected_dice(discs(0.4, 0.02), 0.9) == 0


def test_everything_found_and_no_boundary_map_have_a_trust():
    whole = Maps(np.full((9, 9), 0.99, np.float32))
    assert 0 < expected_dice(whole, 1.0) <= 1
    assert signs(whole, 1.0)[SIGNS.index("outline")] == 0.5


def test_a_large_map_is_sampled(monkeypatch):
    maps = discs(0.98, 0.02)
    every = signs(maps, 0.9)
    monkeypatch.setattr("napari_svpseg.core.labels.reliability.MAX_PIXELS", 10_000)
    np.testing.assert_allclose(signs(maps, 0.9), every, atol=0.1)


def test_an_object_between_the_samples_is_no_error(monkeypatch):
    monkeypatch.setattr("napari_svpseg.core.labels.reliability.MAX_PIXELS", 100)
    foreground = np.zeros((40, 40), np.float32)
    foreground[5, 5] = 0.9
    assert 0 <= expected_dice(Maps(foreground, None, foreground), 0.9) <= 1
