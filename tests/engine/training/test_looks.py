"""Looks change colours and not shapes; painted masks stay near the true ones."""

from __future__ import annotations

import numpy as np
import pytest

from napari_svpseg.engine.training.looks import own_look, painted
from napari_svpseg.models.base import IGNORE


def discs() -> np.ndarray:
    y, x = np.mgrid[:64, :64]
    ids = np.zeros((64, 64), np.int32)
    for i, (cy, cx) in enumerate([(12, 12), (12, 44), (44, 12), (44, 44)], 1):
        ids[(y - cy) ** 2 + (x - cx) ** 2 <= 81] = i
    return ids


def stained() -> np.ndarray:
    """Return a picture (3, 64, 64) of purple discs on pink."""
    inside = discs() > 0
    return np.stack(
        [np.where(inside, a, b) for a, b in ((0.4, 0.9), (0.2, 0.7), (0.5, 0.8))]
    )


def test_a_look_keeps_the_contrast_of_objects() -> None:
    crop, inside = stained(), discs() > 0
    seen = set()
    for seed in range(40):
        found = own_look(crop, np.random.default_rng(seed))
        assert found.shape == crop.shape and np.isfinite(found).all()
        means = [np.stack([found[:, m].mean(1)]) for m in (inside, ~inside)]
        assert np.abs(means[0] - means[1]).max() > 0.1
        seen.add(round(float(found.mean()), 4))
    assert len(seen) > 30


def test_a_grey_picture_stays_grey() -> None:
    grey = np.repeat(stained()[:1], 3, axis=0)
    for seed in range(20):
        found = own_look(grey, np.random.default_rng(seed))
        assert np.ptp(found, axis=0).max() < 1e-6


@pytest.mark.parametrize("instances", [True, False])
def test_a_painted_mask_is_near_the_true_one(instances: bool) -> None:
    ids = discs()
    unknown = changed = 0
    for seed in range(60):
        mask = painted(ids, np.random.default_rng(seed), instances=instances)
        known = mask != IGNORE
        assert mask.min() >= IGNORE and (mask > 0).sum() >= 0.5 * (ids > 0).sum()
        assert ((mask > 0) == (ids > 0))[known].mean() > 0.85
        unknown += (~known).any()
        changed += (mask != ids).any()
    assert changed > 20
    assert (unknown > 0) == instances


def test_the_same_generator_gives_the_same_look() -> None:
    one, two = (own_look(stained(), np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(one, two)
