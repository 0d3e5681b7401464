"""Quality by the number of prompts: 1, 2, 4 and 8 boxes, each from another image.

    python benchmarks/more_prompts.py DATA... --queries 3

Prompts are those of the one-shot protocol, in groups of 1, 2, 4 and 8; each group is
one set of prompts. Only images without a prompt are scored. Tasks with too few images
for eight prompts and a query are left out.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from napari_svpseg.benchmark.one_shot_tasks import BenchmarkSettings, Task, plan
from napari_svpseg.core.labels.instances import instances_from_maps
from napari_svpseg.core.labels.metrics import dice, match_instances
from napari_svpseg.core.prompt import PromptSet
from napari_svpseg.core.settings import PostprocessSettings, SegmentSettings
from napari_svpseg.engine.inference.predict import predict
from napari_svpseg.io.model_store import load_model

SIZES = (1, 2, 4, 8)
"""Prompts of a set."""

MOST = max(SIZES)


def scores_of(task: Task, network: Any, n_queries: int) -> dict[str, dict[int, float]]:
    """Return mean Dice and F1 by the number of prompts; empty if too few images."""
    draws = task.draws[:MOST]
    taken = {draw.image for draw in draws}
    queries = [image for image in task.queries if image not in taken][:n_queries]
    if len(draws) < MOST or not queries:
        return {}
    prompts = [task.prompt(draw) for draw in draws]
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for image in queries:
        query = task.query(image)
        assert query.truth is not None  # `Task.query` reads it
        for size in SIZES:
            for start in range(0, MOST, size):
                maps = predict(
                    query.plane,
                    PromptSet(prompts[start : start + size]),
                    network,
                    None,
                    SegmentSettings(trust=False),
                ).maps
                labels = instances_from_maps(maps, PostprocessSettings())
                found["Dice"][size].append(
                    dice(labels > 0, query.truth > 0, query.ignore)
                )
                if task.has_objects:
                    match = match_instances(labels, query.truth, 0.5, query.ignore)
                    found["F1@0.5"][size].append(match.f1)
    return {
        score: {size: float(np.mean(v)) for size, v in by_size.items()}
        for score, by_size in found.items()
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="+", type=Path, help="data folders")
    parser.add_argument("--model", default="svp")
    parser.add_argument("--queries", type=int, default=3)
    parser.add_argument("--classes", help="only these, separated by commas")
    options = parser.parse_args()
    network = load_model(options.model).network
    tasks = plan(
        options.data,
        BenchmarkSettings(
            prompts=MOST,
            max_queries=1000,
            classes=options.classes.split(",") if options.classes else None,
        ),
    )
    print("| task | " + " | ".join(f"{n} prompts" for n in SIZES) + " |")
    print("|---|" + "---|" * len(SIZES))
    means: dict[str, list[list[float]]] = defaultdict(list)
    for task in tasks:
        for score, by_size in scores_of(task, network, options.queries).items():
            row = [by_size[n] for n in SIZES]
            means[score].append(row)
            cells = " | ".join(f"{value:.3f}" for value in row)
            name = f"{task.dataset.name} / {task.name}, {score}"
            print(f"| {name} | {cells} |", flush=True)
    for score, rows in means.items():
        cells = " | ".join(f"{value:.3f}" for value in np.mean(rows, axis=0))
        print(f"| **mean of {len(rows)} tasks, {score}** | {cells} |")


if __name__ == "__main__":
    main()
