"""How well the trust tells the Dice of a result, and the fit of its weights.

    python benchmarks/trust.py DATA... [--test DATA...] [--queries 2] [--seed 0]

Prints for the data sets, and for those of ``--test``: the rank correlation with the
Dice of the consistency alone and of the trust (with 95 % intervals over tasks), and how
many results of a trust of 0.8 or more have a Dice below 0.5. "Fitted" are weights from
the other data sets of the first group; those for `core.labels.reliability`, fitted to
all of it, are in the last line. Rows are one and four boxes of other images, as in
``benchmarks/more_boxes.py``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr

from napari_svpseg.benchmark.more_boxes import rows_of
from napari_svpseg.benchmark.one_shot_tasks import BenchmarkSettings, plan
from napari_svpseg.core.labels.instances import instances_from_maps
from napari_svpseg.core.labels.metrics import dice
from napari_svpseg.core.labels.reliability import MARGIN, expected_dice, signs
from napari_svpseg.core.prompt import PromptSet
from napari_svpseg.core.settings import PostprocessSettings
from napari_svpseg.engine.inference.predict import predict
from napari_svpseg.io.model_store import load_model

PENALTY = 0.02
"""Of the ridge regression, for signs of unit spread."""
ROWS = ("other 1", "other 4")


class Scored(NamedTuple):
    """Results of a group of data sets, an array entry each."""

    sets: np.ndarray
    tasks: np.ndarray
    signs: np.ndarray
    trust: np.ndarray
    dice: np.ndarray


def scored(folders: list[Path], queries: int, seed: int) -> Scored:
    """Return the results of data folders in which anything was found."""
    network, found = load_model("svp").network, []
    for task in plan(folders, BenchmarkSettings(prompts=1, max_queries=1000)):
        rng, name = np.random.default_rng(seed), task.dataset.name
        for image in rng.permutation(task.queries)[:queries].tolist():
            query, truth = task.query(image), task.truth(image)
            for row in rows_of(task, image, seed):
                if row.name not in ROWS:
                    continue
                made = predict(query.plane, PromptSet(row.prompts), network)
                if not (made.maps.foreground > 0.5).any():
                    continue
                labels = instances_from_maps(made.maps, PostprocessSettings())
                found.append(
                    (
                        name,
                        f"{name}:{task.name}",
                        signs(made.maps, made.consistency),
                        expected_dice(made.maps, made.consistency),
                        dice(labels > 0, truth > 0, row.ignore),
                    )
                )
        print(f"{name}: {task.name}", file=sys.stderr, flush=True)
    return Scored(*(np.array(column) for column in zip(*found, strict=True)))


def fit(x: np.ndarray, y: np.ndarray, tasks: np.ndarray) -> tuple[np.ndarray, float]:
    """Return weights and offset of a ridge regression; each task counts once."""
    _, number, n = np.unique(tasks, return_inverse=True, return_counts=True)
    share = 1 / n[number] / len(n)
    middle, target = share @ x, share @ y
    spread = np.sqrt(share @ (x - middle) ** 2)
    z = (x - middle) / spread
    gram = (z * share[:, None]).T @ z + PENALTY * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, (z * share[:, None]).T @ (y - target)) / spread
    return weights, float(target - middle @ weights)


def told(trust: np.ndarray, results: Scored) -> str:
    """Return how well a trust tells the Dice, as one line."""
    rng, names = np.random.default_rng(0), np.unique(results.tasks)
    of_task = [np.flatnonzero(results.tasks == name) for name in names]
    ranks = []
    for _ in range(500):
        chosen = np.concatenate(
            [of_task[i] for i in rng.integers(len(names), size=len(names))]
        )
        ranks.append(spearmanr(trust[chosen], results.dice[chosen]).statistic)
    low, high = np.quantile(ranks, [0.025, 0.975])
    sure = results.dice[trust >= 0.8]
    return (
        f"{spearmanr(trust, results.dice).statistic:.2f} ({low:.2f} to {high:.2f}), "
        f"off by {np.abs(trust - results.dice).mean():.3f}; "
        f"{len(sure)} of {len(trust)} have 0.8 or more, "
        f"{np.count_nonzero(sure < 0.5)} of these a Dice below 0.5"
    )


def fitted(results: Scored, by: Scored) -> np.ndarray:
    """Return the trust by weights fitted to other data sets than each result's."""
    found = np.zeros(len(results.dice))
    for name in np.unique(results.sets):
        own, other = results.sets == name, by.sets != name
        weights, offset = fit(by.signs[other], by.dice[other], by.tasks[other])
        value = np.minimum(
            results.signs[own] @ weights + offset, results.signs[own, 0] + MARGIN
        )
        found[own] = value.clip(0, 1)
    return found


def main() -> None:
    """Score all results and print what tells their Dice."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+", type=Path, help="data folders")
    parser.add_argument("--test", nargs="*", type=Path, default=[])
    parser.add_argument("--queries", type=int, default=2, help="images of a task")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    data = scored(options.data, options.queries, options.seed)
    groups = {"data": data}
    if options.test:
        groups["test"] = scored(options.test, options.queries, options.seed)
    for name, results in groups.items():
        print(f"{name}: {len(results.dice)} results, {len(set(results.tasks))} tasks")
        print("  consistency", told(results.signs[:, 0], results))
        print("  trust      ", told(results.trust, results))
        print("  fitted     ", told(fitted(results, data), results))
    weights, offset = fit(data.signs, data.dice, data.tasks)
    print("weights", np.round(weights, 2).tolist(), "offset", round(offset, 2))


if __name__ == "__main__":
    main()
