"""How often the suggested mask of a box is right, on data sets with ground truth.

    python benchmarks/suggested_mask.py DATA... [--boxes 24] [--output FILE]

For each class of each data set, boxes are placed as a person places them: a random
object, a click at a random pixel well inside it (not nearer to its edge than 60 % of
its deepest point), and a box of the size of `docs/benchmark.md` around the click. The
suggestion is compared with all objects of the class in the box:

- dice:    Dice of suggested and true foreground
- clicked: whether a suggested object meets the clicked one with an IoU of 0.5 or more
- objects: share of the objects in the box that one meets with an IoU of 0.5 or more
- right:   whether the Dice is 0.8 or more

``otsu`` is the baseline: Otsu's threshold of the mean channel, on the side of the
click. Means are over classes; intervals are 95 % bootstrap intervals over classes.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage
from skimage.filters import gaussian, threshold_otsu

from napari_svpseg.benchmark.one_shot_tasks import BenchmarkSettings, Task, plan
from napari_svpseg.core.annotation.suggestion import suggest_mask
from napari_svpseg.core.geometry import Box
from napari_svpseg.core.labels.metrics import dice

Array = np.ndarray

SMALLEST_PART = 20
"""Pixels of an object inside a box below which it is not counted."""
MEASURES = ("dice", "clicked", "objects", "right")


@dataclass(frozen=True, eq=False)
class Case:
    """A box with its true labels and the click in it."""

    image: Array
    truth: Array
    click: tuple[int, int]


def cases(task: Task, n: int) -> Iterator[Case]:
    """Yield up to ``n`` boxes, from as many images as possible."""
    seed = zlib.crc32(f"{task.dataset.name}:{task.name}".encode())
    rng = np.random.default_rng(seed)
    names = rng.permutation(task.dataset.ids).tolist()
    each, left = -(-n // len(names)), n
    for name in names:
        truth, image = task.truth(name), task.dataset.image(name)
        ids, areas = np.unique(truth[truth > 0], return_counts=True)
        diameters = 2 * np.sqrt(areas / np.pi) / task.rule.size
        ids = ids[(diameters > 0.1) & (diameters < 0.95)]
        if min(truth.shape) < task.rule.size or not ids.size:
            continue
        for i in rng.permutation(ids)[: min(each, left)]:
            depth = ndimage.distance_transform_edt(np.pad(truth == i, 1))[1:-1, 1:-1]
            deep = np.argwhere(depth >= 0.6 * depth.max())
            y, x = (int(c) for c in deep[rng.integers(len(deep))])
            box = Box.centred((y, x), task.rule.size).clamped(truth.shape)
            part = (y - box.y, x - box.x)
            yield Case(image[box.slices], truth[box.slices], part)
            left -= 1


def otsu(image: Array, seed: tuple[float, float]) -> Array:
    """Return the objects beyond Otsu's threshold, on the side of the click."""
    plane = image.astype(float)
    plane = gaussian(plane.mean(axis=2) if plane.ndim == 3 else plane, 1)
    above = plane > threshold_otsu(plane)
    at = above[int(seed[0]), int(seed[1])]
    return np.asarray(ndimage.label(above == at)[0])


def score(found: Array, case: Case) -> dict[str, float]:
    """Return the measures of one suggestion."""
    truth = case.truth
    parts, areas = np.unique(truth[truth > 0], return_counts=True)
    hits = {}
    for part, area in zip(parts, areas, strict=True):
        inside = np.bincount(found[truth == part], minlength=2)
        inside[0] = 0
        best = int(inside.argmax())
        union = area + int((found == best).sum()) - int(inside[best])
        hits[part] = bool(inside[best] / union >= 0.5) if inside[best] else False
    counted = [hits[p] for p, a in zip(parts, areas, strict=True) if a >= SMALLEST_PART]
    overlap = dice(found > 0, truth > 0)
    return {
        "dice": overlap,
        "clicked": float(hits[truth[case.click]]),
        "objects": float(np.mean(counted)) if counted else 0.0,
        "right": float(overlap >= 0.8),
    }


def interval(values: Array, rng: np.random.Generator) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a mean."""
    draws = rng.choice(values, (2000, len(values))).mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    """Measure, print the table, and write the means of each class."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--boxes", type=int, default=24)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    methods = {"suggested": suggest_mask, "otsu": otsu}
    found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in methods}
    for task in plan(options.data, BenchmarkSettings(prompts=1)):
        if not task.has_objects:
            continue
        boxes = list(cases(task, options.boxes))
        key = f"{task.dataset.name}: {task.name}"
        for name, method in methods.items():
            rows = [score(method(case.image, case.click), case) for case in boxes]
            if rows:
                found[name][key] = {
                    m: float(np.mean([row[m] for row in rows])) for m in MEASURES
                }
        if boxes:
            print(key, *(f"{m} {v:.2f}" for m, v in found["suggested"][key].items()))
            sys.stdout.flush()
    rng = np.random.default_rng(0)
    for name, classes in found.items():
        for measure in MEASURES:
            values = np.array([row[measure] for row in classes.values()])
            low, high = interval(values, rng)
            print(f"{name}: {measure} {values.mean():.3f} ({low:.3f} to {high:.3f})")
    if options.output is not None:
        options.output.write_text(json.dumps(found, indent=1), encoding="utf8")


if __name__ == "__main__":
    main()
