"""Each representation of objects gives back its own true maps."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from napari_svpseg.core.labels.metrics import f1
from napari_svpseg.core.labels.object_size import median_diameter
from napari_svpseg.core.result import Maps, ObjectProperties

pytest.importorskip("numba")
pytest.importorskip("sklearn")
pytest.importorskip("torch")

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "object_representations.py"
WAYS = ("today", "new", "flow", "affinity", "star")
BENT = 10
"""Id of the object that is not star-convex."""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("object_representations", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def scene() -> np.ndarray:
    """Return nine discs, of which neighbours touch, and a bent rod around a disc."""
    y, x = np.mgrid[:96, :128]
    labels = np.zeros(y.shape, np.int32)
    for i in range(9):
        row, column = 16 + 16 * (i // 3), 16 + 17 * (i % 3)
        labels[(np.hypot(y - row, x - column) < 9) & (labels == 0)] = i + 1
    far = np.hypot(y - 60, x - 100)
    labels[(far > 15) & (far < 23) & (y > 56)] = BENT
    labels[far < 9] = BENT + 1
    return labels


def scored(script: ModuleType, maps: dict[str, Any], ids: np.ndarray) -> Any:
    """Return for each way the best F1 of its values."""
    objects = ObjectProperties(median_diameter(ids))
    found = Maps(maps["foreground"], maps["distance"], maps["boundary"], objects)
    return {
        way: max(
            f1(script.finished(script.divided(maps, way, v, found), 0, found), ids)
            for v in values
        )
        for way, values in script.WAYS.items()
    }


def test_true_maps_give_back_the_objects(script: ModuleType) -> None:
    labels = scene()
    scores = scored(script, script.true_maps(labels), labels)
    assert tuple(scores) == WAYS
    star = scores.pop("star")  # a bent rod is no star: it is lost, all else is found
    assert min(scores.values()) == 1, scores
    assert star > 0.8


def test_stars_give_back_discs(script: ModuleType) -> None:
    labels = np.where(scene() == BENT, 0, scene())
    assert scored(script, script.true_maps(labels), labels)["star"] == 1


@pytest.mark.parametrize("way", ["flow", "affinity", "star"])
def test_each_way_reads_its_own_map(script: ModuleType, way: str) -> None:
    # maps of another scene with the same foreground would be as good otherwise
    labels = scene()
    maps = script.true_maps(labels)
    joined = script.true_maps(np.where((labels > 0) & (labels < BENT), 1, labels))
    maps[way] = joined[way]
    scores = scored(script, maps, labels)
    assert scores[way] < 0.7
    assert all(scores[other] == 1 for other in WAYS if other not in (way, "star"))


def test_the_flow_leads_to_the_centre(script: ModuleType) -> None:
    labels = np.zeros((21, 21), np.int64)
    labels[np.hypot(*np.mgrid[-10:11, -10:11]) < 8] = 1
    down, right = script.flow_target(labels)
    assert down[4, 10] > 0.9 and down[16, 10] < -0.9
    assert right[10, 4] > 0.9 and right[10, 16] < -0.9
    assert np.hypot(down, right)[labels == 0].max() == 0


def test_rays_are_as_long_as_the_way_to_the_border(script: ModuleType) -> None:
    labels = np.zeros((41, 41), np.int64)
    labels[np.hypot(*np.mgrid[-20:21, -20:21]) < 12] = 1
    labels[:, 30:] = 2
    reach = script.star_target(labels, 8, 64)
    assert np.all(np.abs(reach[1:, 20, 20] - 12) <= 1)
    assert abs(reach[0, 20, 20] - 10) <= 1  # where the other object begins
    assert reach[0, 20, 35] < 0  # the ray left the image


def test_affinities_are_unknown_outside_and_between_background(
    script: ModuleType,
) -> None:
    import torch

    labels = torch.zeros((1, 1, 16, 16), dtype=torch.int64)
    labels[..., 4:8], labels[..., 8:12] = 1, 2
    same, known = script.affinity_target(labels)
    right = script.NEAR.index((0, 1))
    assert same[0, right, 0, 4:12].tolist() == [1, 1, 1, 0, 1, 1, 1, 0]
    assert known[0, right, 0].tolist() == [0] * 3 + [1] * 9 + [0] * 4
    assert not known[0, script.NEAR.index((1, 0)), -1].any()


def test_fragments_join_the_neighbour_with_the_longest_border(
    script: ModuleType,
) -> None:
    labels = np.zeros((12, 20), np.int64)
    labels[2:10, 2:9], labels[2:10, 10:18] = 1, 2
    labels[4:6, 9], labels[6:9, 9] = 3, 4
    labels[6, 9] = 2
    joined = script.without_fragments(labels, 8)
    assert set(np.unique(joined)) == {0, 1, 2}
    alone = np.diag([1, 0, 2])  # without a neighbour a fragment stays as it is
    assert np.array_equal(script.without_fragments(alone, 8), alone)
