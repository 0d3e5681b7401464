"""Ways to choose how readily touching objects are split, from the prompts.

    python benchmarks/split_strength.py DATA... [--model svp] [--queries 2] [--seed 0]
        [--json FILE]

The maps of an image are the same for all of them, so the differences in F1@0.5 are
those of the choice alone: a fixed strength; or, of all strengths within a tolerance
of the best on the prompts, that nearest to the default, and a highest one at most.
Differences are to the present choice, with 95 % intervals over tasks and the worst
task. Boxes are those of `napari_svpseg.benchmark.more_boxes`.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_svpseg.benchmark.more_boxes import ROWS, Row, drawn_queries
from napari_svpseg.benchmark.one_shot_tasks import BenchmarkSettings, Task, plan
from napari_svpseg.benchmark.report import paired_interval
from napari_svpseg.core.labels.instances import (
    MAX_SPLIT,
    SPLIT_STRENGTHS,
    SPLIT_TOLERANCE,
    chosen_strength,
    instances_from_maps,
    split_scores,
)
from napari_svpseg.core.labels.metrics import match_instances
from napari_svpseg.core.prompt import PromptSet
from napari_svpseg.core.settings import PostprocessSettings, SegmentSettings
from napari_svpseg.engine.inference.device import choose
from napari_svpseg.engine.inference.forward import Forward, evaluating
from napari_svpseg.engine.inference.predict import predict
from napari_svpseg.engine.inference.prompt_features import (
    network_scale,
    prompt_code,
    prompt_maps,
    prompt_tensors,
)
from napari_svpseg.io.model_store import load_model
from napari_svpseg.models.base import PromptSegmenter

FIXED = (0.1, 0.2, 0.3, 0.4)
CHOICES = (
    *((0.03, highest) for highest in SPLIT_STRENGTHS[2:]),
    *((tolerance, highest) for tolerance in (0.06, 0.1) for highest in (0.5, 0.8)),
)
"""Tolerance and highest strength."""
PRESENT = (SPLIT_TOLERANCE, MAX_SPLIT)

Record = dict[str, Any]


def scores_of_prompts(
    prompts: PromptSet, network: PromptSegmenter
) -> list[list[float]]:
    """Return the F1 of each prompt with each strength, as the product measures it."""
    device, scale = choose("cpu"), network_scale(prompts, network)
    images, masks = prompt_tensors(prompts, scale)
    forward = Forward(network, device)
    with evaluating(network, device), torch.inference_mode():
        code = prompt_code(images, masks, forward)
        found = prompt_maps(prompts, images, forward, code, scale)
    shown = [p.mask for p in prompts.typical()][: len(found)]
    scores: list[list[float]] = split_scores(found, shown).tolist()
    return scores


def record_of(
    task: Task, image: str, row: Row, network: PromptSegmenter
) -> Record | None:
    """Return the F1 of an image with each strength; None for nets, never split."""
    query, prompts = task.query(image), PromptSet(row.prompts)
    assert query.truth is not None
    settings = SegmentSettings(device="cpu", trust=False)
    maps = predict(query.plane, prompts, network, None, settings).maps
    objects = maps.objects
    if objects is None or objects.net:
        return None
    scores = []
    for strength in SPLIT_STRENGTHS:
        other = replace(maps, objects=replace(objects, split=strength))
        labels = instances_from_maps(other, PostprocessSettings())
        scores.append(match_instances(labels, query.truth, 0.5, row.ignore).f1)
    return {
        "task": f"{task.dataset.name}:{task.name}",
        "image": image,
        "row": row.name,
        "f1": scores,
        "prompts": scores_of_prompts(prompts, network),
    }


def way_name(tolerance: float, highest: float) -> str:
    """Return the name of a choice by the prompts."""
    return f"by the prompts, tolerance {tolerance:g}, at most {highest:g}"


def to_markdown(records: list[Record]) -> str:
    """Return the table of all rows and ways to choose."""
    ways: dict[str, Callable[[Record], float]] = {
        f"{strength:g} for all": lambda _, s=strength: s for strength in FIXED
    }
    for tolerance, highest in CHOICES:
        ways[way_name(tolerance, highest)] = lambda r, t=tolerance, h=highest: (
            chosen_strength(np.array(r["prompts"]), t, h)
        )
    lines = [
        f"F1@0.5; differences in points to: {way_name(*PRESENT)}",
        "",
        "| boxes | tasks | way | F1@0.5 | difference | worst task |",
        "|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        by_task: dict[str, list[Record]] = defaultdict(list)
        for record in records:
            if record["row"] == row:
                by_task[record["task"]].append(record)
        if not by_task:
            continue

        def means(way: Any, by_task: dict[str, list[Record]] = by_task) -> Any:
            def f1(one: Record) -> float:
                return float(one["f1"][SPLIT_STRENGTHS.index(way(one))])

            return {t: float(np.mean([f1(r) for r in by_task[t]])) for t in by_task}

        present = means(ways[way_name(*PRESENT)])
        for name, way in ways.items():
            values = means(way)
            mean, low, high = (100 * v for v in paired_interval(values, present))
            worst = 100 * min(values[t] - present[t] for t in values)
            lines.append(
                f"| {row} | {len(values)} | {name} "
                f"| {np.mean(list(values.values())):.3f} "
                f"| {mean:+.1f} ({low:+.1f} to {high:+.1f}) | {worst:+.1f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Score all strengths and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+", type=Path, help="data folders")
    parser.add_argument("--model", default="svp")
    parser.add_argument("--queries", type=int, default=2, help="images of a task")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file of the records")
    options = parser.parse_args()
    network = load_model(options.model).network
    records: list[Record] = []
    settings = BenchmarkSettings(prompts=1, max_queries=1000)
    for task in plan(options.data, settings):
        if not task.has_objects:
            continue
        for image, rows in drawn_queries(task, options.queries, options.seed):
            found = [record_of(task, image, row, network) for row in rows]
            records += [r for r in found if r is not None]
        if options.json is not None:
            options.json.write_text(json.dumps(records), encoding="utf-8")
    print(to_markdown(records))


if __name__ == "__main__":
    main()
