"""Comparison of rules that predict where one more prompt helps.

    python benchmarks/uncertainty_rules.py DATA... [--prompts 2] [--output rules.jsonl]

It is meant for base sets: the rules of `core.labels.uncertainty` were chosen with it.
With one box as the first prompt, three random legal boxes in each of a few open images
are tried as the second prompt, one at a time. The gain of each on images that are never
labelled is compared with the score that several rules gave it before. The gain of a
rule is that of the box (or image) it ranks first, minus the mean over all boxes tried
with the same first box.

Writes a line for each box tried; ``--resume`` continues an interrupted run.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from napari_svpseg.benchmark.baselines import Query
from napari_svpseg.benchmark.one_shot_tasks import Task
from napari_svpseg.core.geometry import Box
from napari_svpseg.core.image import intensity_range, normalise
from napari_svpseg.core.labels.metrics import dice, f1
from napari_svpseg.core.labels.uncertainty import (
    MIN_IMAGE_UNCERTAINTY,
    POSSIBLE_FOREGROUND,
    image_uncertainty,
)
from uncertainty import Answer, Session, options_of, random_in, run_draws

TRIED = 3
"""Boxes tried in each image."""

PLACE_RULES = (
    "summed uncertainty where something may be",
    "mean uncertainty where something may be",
    "summed uncertainty, all pixels",
    "possible but not labelled",
    "objects",
    "intensities unlike the first box",
)
IMAGE_RULES = (
    "low trust",
    "mean uncertainty where something may be, image",
    "both, as in `core.labels.uncertainty.image_uncertainty`",
    "expected Dice",
    "another image",
    "its true Dice (cannot be known)",
)


def place_signs(query: Query, answer: Answer, box: Box, first: Any) -> list[float]:
    """Return the scores of a box by `PLACE_RULES`, in this order."""
    p, labels = answer.maps.foreground[box.slices], answer.labels[box.slices]
    uncertainty = answer.maps.uncertainty[box.slices]
    possible = p >= POSSIBLE_FOREGROUND
    low_high = intensity_range(query.plane)
    here = normalise(np.asarray(query.plane[box.slices]), low_high)
    there = normalise(first.image, first.intensities)
    return [
        float(uncertainty[possible].sum()) / box.size**2,
        float(uncertainty[possible].mean()) if possible.any() else 0.0,
        float(uncertainty.mean()),
        float(p[possible & (labels == 0)].sum()) / box.size**2,
        float((np.unique(labels) > 0).sum()),
        abs(float(here.mean()) - float(there.mean())),
    ]


def image_signs(query: Query, answer: Answer, is_other: bool) -> list[float]:
    """Return the scores of an image by `IMAGE_RULES`, in this order."""
    p = answer.maps.foreground
    found, possible = p >= 0.5, np.where(p >= POSSIBLE_FOREGROUND, p, 0)
    both = 2 * float(p[found].sum()) / max(float(possible.sum() + found.sum()), 1e-9)
    assert query.truth is not None
    return [
        1 - answer.trust,
        image_uncertainty(answer.maps),
        image_uncertainty(answer.maps, answer.trust),
        1 - both,
        float(is_other),
        1 - dice(found, query.truth > 0, query.ignore),
    ]


def look_ahead(
    task: Task, number: int, network: Any, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Yield the gain of each box that is tried, and its scores by all rules."""
    draw = task.draws[number]
    rng = np.random.default_rng([options.seed, number])
    others = rng.permutation([q for q in task.queries if q != draw.image]).tolist()
    untouched = [task.query(name) for name in others[: options.queries]]
    opened = [draw.image, *others[options.queries :][: options.open - 1]]
    images = [task.query(name) for name in opened]
    session = Session(network, task.rule, images, [(0, draw.box)])
    first = session.prompts()[0]
    before = scores(session, task, untouched)
    answers = [session.answer(q, trust=True) for q in images]
    for i, (query, answer) in enumerate(zip(images, answers, strict=True)):
        signs = image_signs(query, answer, i > 0)
        for _ in range(TRIED):
            place = random_in(session, rng, [i])
            if place is None:
                break
            session.boxes.append(place)
            after = scores(session, task, untouched)
            session.boxes.pop()
            yield {
                "dataset": task.dataset.name,
                "class": task.name,
                "draw": number,
                "image": i,
                "dice": after[0] - before[0],
                "f1": after[1] - before[1] if task.has_objects else None,
                "place": place_signs(query, answer, place[1], first),
                "image_signs": signs,
            }


def scores(session: Session, task: Task, images: list[Query]) -> tuple[float, float]:
    """Return mean Dice and F1 of some images."""
    found = []
    for query in images:
        labels = session.answer(query).labels
        assert query.truth is not None
        objects = f1(labels, query.truth, 0.5, query.ignore) if task.has_objects else 0
        found.append((dice(labels > 0, query.truth > 0, query.ignore), objects))
    return float(np.mean([d for d, _ in found])), float(np.mean([f for _, f in found]))


def gains(
    records: Sequence[dict[str, Any]],
    key: Callable[[dict[str, Any]], tuple[Any, ...]],
    sign: Callable[[dict[str, Any]], float],
) -> dict[str, tuple[float, int]]:
    """Return the gain of the boxes that a rule ranks first, beyond the mean gain.

    It is the mean over tasks of the mean over groups (records with the same ``key``).

    Returns
    -------
    dict
        Gain and number of tasks, for ``dice`` and ``f1``.
    """
    result = {}
    for measure in ("dice", "f1"):
        known = sorted((r for r in records if r[measure] is not None), key=key)
        by_task: dict[str, list[float]] = {}
        for name, members in groupby(known, key):
            group = list(members)
            best = max(sign(r) for r in group)
            chosen = [r[measure] for r in group if sign(r) == best]
            gain = np.mean(chosen) - np.mean([r[measure] for r in group])
            by_task.setdefault(name[0], []).append(float(gain))
        means = [np.mean(g) for g in by_task.values()]
        result[measure] = (float(np.mean(means)), len(means))
    return result


def report(records: Sequence[dict[str, Any]]) -> str:
    """Return the table of rules as text."""

    def draw_of(r: dict[str, Any]) -> tuple[Any, ...]:
        return (f"{r['dataset']} / {r['class']}", r["draw"])

    def image_of(r: dict[str, Any]) -> tuple[Any, ...]:
        return (*draw_of(r), r["image"])

    lines = ["| rule | Dice | F1@0.5 | tasks |", "|---|---|---|---|"]
    for names, field, key in (
        (PLACE_RULES, "place", image_of),
        (IMAGE_RULES, "image_signs", draw_of),
    ):
        for i, name in enumerate(names):
            found = gains(records, key, lambda r, f=field, i=i: r[f][i])
            (d, n), (o, _) = found["dice"], found["f1"]
            lines.append(f"| {name} | {d:+.4f} | {o:+.4f} | {n} |")
    images = {image_of(r): r["image_signs"] for r in records}
    signs = np.array(list(images.values()))
    uncertainty, true = signs[:, 2], 1 - signs[:, -1]
    high = uncertainty >= MIN_IMAGE_UNCERTAINTY
    lines += [
        "",
        f"{len(signs)} images: correlation of their uncertainty and true Dice "
        f"{np.corrcoef(uncertainty, true)[0, 1]:+.2f}; Dice of those with an "
        f"uncertainty of {MIN_IMAGE_UNCERTAINTY} or more {true[high].mean():.3f}, "
        f"of the others {true[~high].mean():.3f}",
    ]
    return "\n".join(lines)


def main() -> None:
    """Read the options, run, print the table."""
    parser = options_of(__doc__, n_open=3, n_queries=2, output="rules.jsonl")
    records = run_draws(parser.parse_args(), (), look_ahead)
    print(report(records))


if __name__ == "__main__":
    main()
