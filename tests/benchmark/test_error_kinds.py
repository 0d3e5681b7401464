"""Every lost object has one reason, and reasons sum up to what is lost."""

from __future__ import annotations

import numpy as np
import pytest

from napari_svpseg.benchmark.error_kinds import (
    error_kinds,
    oracle_foreground,
    oracle_ids,
)
from napari_svpseg.core.labels.metrics import match_instances
from napari_svpseg.core.result import Maps, ObjectProperties
from napari_svpseg.core.settings import PostprocessSettings


def two_squares() -> np.ndarray:
    labels = np.zeros((40, 60), np.int32)
    labels[10:30, 5:25] = 1
    labels[10:30, 30:50] = 2
    return labels


def kinds(found: np.ndarray, ignore: np.ndarray | None = None) -> dict[str, int]:
    counts = error_kinds(found, two_squares(), ignore)
    return {kind: n for kind, n in counts.items() if n}


def test_a_perfect_result_loses_nothing() -> None:
    assert kinds(two_squares() * 7) == {}


def test_each_error_is_told() -> None:
    truth = two_squares()
    assert kinds(truth * (truth == 1)) == {"missed": 1}
    more = truth.copy()
    more[34:39, 5:30] = 9
    assert kinds(more) == {"false": 1}
    joined = (truth > 0).astype(np.int32)
    joined[10:30, 25:30] = 1
    assert kinds(joined) == {"merged": 3}
    parted = truth.copy()
    parted[20:30, 5:25] = 9
    parted[10:20, 5:15] = 8
    parted[20:25, 5:25] = 7
    assert kinds(parted)["split"] >= 4
    narrow = truth.copy()
    narrow[10:16, 5:25] = 0
    narrow[25:30, 5:25] = 0
    narrow[16:25, 21:25] = 0
    assert kinds(narrow) in ({"overlap": 2}, {"missed": 1, "overlap": 1})


@pytest.mark.parametrize("seed", range(4))
def test_reasons_sum_up_to_the_lost_objects(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = np.kron(rng.integers(0, 9, (8, 12)), np.ones((5, 5), int)) * 1000
    ignore = rng.random(found.shape) < 0.2
    match = match_instances(found, two_squares(), 0.5, ignore)
    assert sum(error_kinds(found, two_squares(), ignore).values()) == (
        match.fp + match.fn
    )


def test_true_ids_part_what_was_merged_and_keep_what_is_false() -> None:
    truth = two_squares()
    found = (truth > 0).astype(np.int32)
    found[10:30, 25:30] = 1
    found[34:39, 52:58] = 2
    labels = oracle_ids(found, truth)
    match = match_instances(labels, truth)
    assert (match.tp, match.fp, match.fn) == (2, 1, 0)
    nothing = np.zeros_like(truth)
    assert np.array_equal(oracle_ids(found, nothing), found)


def test_true_foreground_leaves_the_splitting_to_us() -> None:
    truth = two_squares()
    maps = Maps(np.zeros(truth.shape, np.float32), None, None, ObjectProperties(20.0))
    labels = oracle_foreground(maps, truth, PostprocessSettings())
    assert match_instances(labels, truth).f1 == 1
