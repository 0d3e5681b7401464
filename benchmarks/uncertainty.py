"""Prompts at uncertain places against prompts at random, with a simulated user.

    python benchmarks/uncertainty.py DATA... [--prompts 2] [--added 4] [--output FILE]

A simulated user has a few images open and one box in the first of them. She adds boxes
with true labels, one at a time:

- uncertainty:        in the next uncertain image, at the next uncertain place
- random:             a random legal box (`docs/benchmark.md`) in a random open image
- anywhere:           any box in a random open image
- uncertainty, here:  at the next uncertain place, always in the first image
- random, here:       a random legal box in the first image

Places without an object of the kind are skipped, as a user would. After each box,
images that she never labels are segmented, and the first one again (without its boxes).
The random user continues to ``--most`` boxes, for the gain per prompt. Nothing is tuned
here: the rule that ranks places was chosen on the base sets
(``docs/experiments/where-a-prompt-helps.md``).

Writes a line for each task and draw; ``--resume`` continues an interrupted run.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from napari_svpseg.benchmark.baselines import Query
from napari_svpseg.benchmark.one_shot_tasks import BenchmarkSettings, Task, plan
from napari_svpseg.benchmark.protocol import BoxRule, find_box
from napari_svpseg.benchmark.report import paired_interval
from napari_svpseg.core.geometry import Box
from napari_svpseg.core.image import intensity_range
from napari_svpseg.core.labels.instances import instances_from_maps
from napari_svpseg.core.labels.metrics import dice, f1
from napari_svpseg.core.labels.uncertainty import image_uncertainty, uncertain_places
from napari_svpseg.core.prompt import Prompt, PromptSet
from napari_svpseg.core.result import Maps
from napari_svpseg.core.settings import PostprocessSettings, SegmentSettings
from napari_svpseg.engine.inference.predict import predict
from napari_svpseg.io.model_store import load_model

Rng = np.random.Generator
Place = tuple[int, Box]

TRIES = 60
PAIRS = (
    ("uncertainty", "random"),
    ("uncertainty", "anywhere"),
    ("uncertainty, here", "random, here"),
    ("random", "random, here"),
)


@dataclass(frozen=True, eq=False)
class Answer:
    """The model's result for one image."""

    maps: Maps
    labels: np.ndarray
    trust: float


@dataclass(eq=False)
class Session:
    """The open images, and the boxes in them so far.

    Parameters
    ----------
    network : PromptSegmenter
    rule : BoxRule
    images : list of Query
        The first box is in the first of them.
    boxes : list of (int, Box)
        Number of the image and box of each prompt.
    visited : list of int
        Images that the user was led to since she last visited all of them.
    """

    network: Any
    rule: BoxRule
    images: list[Query]
    boxes: list[Place]
    visited: list[int] = field(default_factory=list)

    def prompts(self) -> PromptSet:
        """Return the boxes as prompts, with true labels."""
        return PromptSet([self._prompt(i, box) for i, box in self.boxes])

    def _prompt(self, i: int, box: Box) -> Prompt:
        query = self.images[i]
        assert query.truth is not None
        return Prompt.from_image(query.plane, query.truth, box)

    def taken(self, i: int) -> list[Box]:
        """Return the boxes in an image."""
        return [box for j, box in self.boxes if j == i]

    def is_usable(self, i: int, box: Box) -> bool:
        """Return whether a box shows an object of the kind, and all of it is known."""
        query = self.images[i]
        assert query.truth is not None
        known = query.ignore is None or not query.ignore[box.slices].any()
        return known and bool(query.truth[box.slices].any())

    def answer(self, query: Query, *, trust: bool = False) -> Answer:
        """Return the model's result for an image with the boxes so far as prompts."""
        settings = SegmentSettings(trust=trust)
        found = predict(
            query.plane,
            self.prompts(),
            self.network,
            None,
            settings,
            intensity_range(query.plane),
        )
        labels = instances_from_maps(found.maps, PostprocessSettings())
        return Answer(found.maps, labels, found.trust)


def next_uncertain(session: Session, rng: Rng) -> Place | None:
    """Return a place in the most uncertain image that was not visited yet."""
    n = len(session.images)
    answers = [session.answer(q, trust=True) for q in session.images]
    order = sorted(
        range(n), key=lambda i: -image_uncertainty(answers[i].maps, answers[i].trust)
    )
    if len(session.visited) == n:
        session.visited.clear()
    for i in [j for j in order if j not in session.visited]:
        session.visited.append(i)
        box = _place_in(session, i, answers[i])
        if box is not None:
            return i, box
    return None


def next_uncertain_here(session: Session, rng: Rng) -> Place | None:
    """Return an uncertain place in the first image."""
    box = _place_in(session, 0, session.answer(session.images[0]))
    return None if box is None else (0, box)


def _place_in(session: Session, i: int, answer: Answer) -> Box | None:
    """Return the most uncertain place of an image that shows an object."""
    places = uncertain_places(
        answer.maps, answer.labels, session.rule.size, taken=session.taken(i)
    )
    return next((p.box for p in places if session.is_usable(i, p.box)), None)


def random_box(session: Session, rng: Rng) -> Place | None:
    """Return a random legal box in a random image."""
    return random_in(session, rng, rng.permutation(len(session.images)).tolist())


def random_box_here(session: Session, rng: Rng) -> Place | None:
    """Return a random legal box in the first image."""
    return random_in(session, rng, [0])


def random_in(session: Session, rng: Rng, order: Sequence[int]) -> Place | None:
    """Return a random legal box in the first of some images that has a free one."""
    for i in order:
        query = session.images[i]
        assert query.truth is not None
        for _ in range(TRIES):
            box = find_box(query.truth, session.rule, rng, query.ignore)
            if box is None:
                break
            if not any(meet(box, other) for other in session.taken(i)):
                return i, box
    return None


def anywhere(session: Session, rng: Rng) -> Place | None:
    """Return a random box in a random image that shows an object."""
    size = session.rule.size
    for _ in range(TRIES * 10):
        i = int(rng.integers(len(session.images)))
        height, width, _ = session.images[i].plane.shape
        if min(height, width) < size:
            continue
        y, x = (int(rng.integers(n - size + 1)) for n in (height, width))
        box = Box(y, x, size)
        free = not any(meet(box, other) for other in session.taken(i))
        if free and session.is_usable(i, box):
            return i, box
    return None


def meet(a: Box, b: Box) -> bool:
    """Return whether two boxes overlap."""
    return (
        a.y < b.y + b.size
        and b.y < a.y + a.size
        and a.x < b.x + b.size
        and b.x < a.x + a.size
    )


USERS: dict[str, Callable[[Session, Rng], Place | None]] = {
    "uncertainty": next_uncertain,
    "random": random_box,
    "anywhere": anywhere,
    "uncertainty, here": next_uncertain_here,
    "random, here": random_box_here,
}


def simulate(
    task: Task, number: int, network: Any, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Yield the scores of each user after each box, for one draw of a task."""
    draw = task.draws[number]
    seed = zlib.crc32(f"{task.dataset.name}:{task.name}".encode())
    rng = np.random.default_rng([options.seed, seed, number])
    others = rng.permutation([q for q in task.queries if q != draw.image]).tolist()
    untouched = [task.query(name) for name in others[: options.queries]]
    opened = [draw.image, *others[options.queries :][: options.open - 1]]
    images = [task.query(name) for name in opened]
    for n_user, (user, choose) in enumerate(USERS.items()):
        if options.users and user not in options.users.split(";"):
            continue
        session = Session(network, task.rule, images, [(0, draw.box)])
        rng = np.random.default_rng([options.seed, seed, number, n_user])
        most = options.most - 1 if user == "random" else options.added
        for added in range(most + 1):
            if added:
                place = choose(session, rng)
                if place is None:
                    break
                session.boxes.append(place)
            if added <= options.added or added == most:
                yield {
                    "dataset": task.dataset.name,
                    "class": task.name,
                    "draw": number,
                    "user": user,
                    "added": added,
                    "open": len(images),
                    **scores(session, task, untouched),
                }


def scores(session: Session, task: Task, untouched: list[Query]) -> dict[str, Any]:
    """Return Dice and F1 on unlabelled images, and Dice on the rest of the first.

    The rest is what lies in no box. It has no Dice if it shows no object.
    """
    found = [_scored(session, task, q, q.ignore) for q in untouched]
    first = session.images[0]
    hidden = np.zeros(first.plane.shape[:2], bool)
    if first.ignore is not None:
        hidden |= first.ignore > 0
    for box in session.taken(0):
        hidden[box.slices] = True
    assert first.truth is not None
    is_left = bool(first.truth[~hidden].any())
    rest = _scored(session, task, first, hidden) if is_left else (None, None)
    return {
        "dice": float(np.mean([d for d, _ in found])),
        "f1": float(np.mean([f for _, f in found])) if task.has_objects else None,
        "rest_dice": rest[0],
    }


def _scored(
    session: Session, task: Task, query: Query, ignore: np.ndarray | None
) -> tuple[float, float]:
    labels = session.answer(query).labels
    assert query.truth is not None
    objects = f1(labels, query.truth, 0.5, ignore) if task.has_objects else np.nan
    return dice(labels > 0, query.truth > 0, ignore), objects


# ------------------------------------------------------------------ the report


def mean_by_task(
    records: Sequence[dict[str, Any]], user: str, added: int, measure: str
) -> dict[str, float]:
    """Return a measure for each task, the mean over draws.

    A user who found no further place keeps the last score.
    """
    last: dict[tuple[str, int], dict[str, Any]] = {}
    for r in records:
        if r["user"] == user and r["added"] <= added:
            last[f"{r['dataset']} / {r['class']}", r["draw"]] = r
    tasks = sorted({task for task, _ in last})
    return {
        task: float(np.mean(values))
        for task in tasks
        if (
            values := [
                r[measure]
                for (t, _), r in last.items()
                if t == task and r[measure] is not None
            ]
        )
    }


def report(records: Sequence[dict[str, Any]], added: int, most: int) -> str:
    """Return the tables as text."""
    lines = []
    for measure, title in (
        ("dice", "Dice, untouched images"),
        ("f1", "F1@0.5, untouched images"),
        ("rest_dice", "Dice, rest of the first image"),
    ):
        steps = [*range(added + 1)]
        lines += [
            "",
            f"{title}",
            "",
            "| user | " + " | ".join(f"+{n}" for n in steps) + " |",
            "|---" * (len(steps) + 1) + "|",
        ]
        for user in USERS:
            means = [mean_by_task(records, user, n, measure) for n in steps]
            cells = [f"{np.mean(list(m.values())):.3f}" for m in means if m]
            lines.append(f"| {user} | " + " | ".join(cells) + " |")
        lines.append("")
        for ours, theirs in PAIRS:
            for n in (1, added):
                gain = paired_interval(
                    *(mean_by_task(records, u, n, measure) for u in (ours, theirs))
                )
                lines.append(f"{ours} - {theirs}, +{n}: " + _interval(gain))
    lines += [
        "",
        "Gain per prompt, random boxes",
        "",
        "| prompts | Dice | F1@0.5 |",
        "|---|---|---|",
    ]
    for n in (1, 2, 4, most):
        values = [mean_by_task(records, "random", n - 1, m) for m in ("dice", "f1")]
        cells = [f"{np.mean(list(v.values())):.3f}" for v in values if v]
        lines.append(f"| {n} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "By task, Dice of untouched images",
        "",
        f"| task | one box | uncertainty +{added} | random +{added} |",
        "|---" * 4 + "|",
    ]
    first = mean_by_task(records, "random", 0, "dice")
    ends = [mean_by_task(records, u, added, "dice") for u in ("uncertainty", "random")]
    lines += [
        f"| {task} | {first[task]:.3f} | {ends[0][task]:.3f} | {ends[1][task]:.3f} |"
        for task in first
        if task in ends[0]
    ]
    return "\n".join(lines).strip()


def _interval(gain: tuple[float, float, float]) -> str:
    return "{:+.3f} ({:+.3f} to {:+.3f})".format(*gain)


def main() -> None:
    """Read the options, run, print the tables."""
    parser = options_of(__doc__, n_open=4, n_queries=3, output="uncertainty.jsonl")
    parser.add_argument("--added", type=int, default=4, help="boxes of each user")
    parser.add_argument("--most", type=int, default=8, help="boxes of the random user")
    parser.add_argument("--users", help="only these, separated by semicolons")
    options = parser.parse_args()
    records = run_draws(options, ("added", "most"), simulate)
    print(report(records, options.added, options.most))


def options_of(
    about: str | None, n_open: int, n_queries: int, output: str
) -> argparse.ArgumentParser:
    """Return a parser with the options that all runs over first boxes share."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+", type=Path, help="data folders")
    parser.add_argument("--model", default="svp", help="name or folder")
    parser.add_argument("--prompts", type=int, default=2, help="draws of the first box")
    parser.add_argument("--open", type=int, default=n_open, help="images open")
    parser.add_argument(
        "--queries", type=int, default=n_queries, help="untouched images"
    )
    parser.add_argument("--max-queries", type=int, default=40)
    parser.add_argument("--classes", help="names, values or DATASET:CLASS")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("bench-output") / output)
    parser.add_argument("--resume", action="store_true")
    return parser


def run_draws(
    options: argparse.Namespace,
    names: Sequence[str],
    score: Callable[[Task, int, Any, argparse.Namespace], Iterable[dict[str, Any]]],
) -> list[dict[str, Any]]:
    """Return the records of every task and first box, those of earlier runs first.

    Parameters
    ----------
    options : argparse.Namespace
        From `options_of`.
    names : sequence of str
        Further options that must be the same when a run is resumed.
    score : callable
        Returns records, given a task, the number of a draw, a network and the options.
    """
    loaded = load_model(options.model)
    names = (*names, "open", "queries", "max_queries", "seed")
    records, done = begin(options, loaded.card.sha256, names)
    settings = BenchmarkSettings(
        prompts=options.prompts,
        max_queries=options.max_queries,
        classes=options.classes.split(",") if options.classes else None,
        seed=options.seed,
    )
    for task in plan(options.data, settings):
        for number in range(len(task.draws)):
            if (task.dataset.name, task.name, number) not in done:
                start = time.perf_counter()
                new = list(score(task, number, loaded.network, options))
                records += write(options.output, new)
                title = f"{task.dataset.name} / {task.name}, draw {number}"
                seconds = time.perf_counter() - start
                print(f"{title}: {seconds:.0f} s", file=sys.stderr, flush=True)
    return records


def begin(
    options: argparse.Namespace, weights: str, names: Sequence[str]
) -> tuple[list[dict[str, Any]], set[tuple[str, str, int]]]:
    """Start or resume a file: return its records, and which draws are done.

    The first line contains the settings. An incomplete last line is dropped.
    """
    path: Path = options.output
    head = {"model": weights, **{n: getattr(options, n) for n in names}}
    lines = [json.dumps(head)]
    if options.resume and path.exists():
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] or lines
    if json.loads(lines[0]) != head:
        raise SystemExit(
            f"{path} was made with other settings ({lines[0]}): choose another "
            "--output, or leave out --resume."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    records = [json.loads(line) for line in lines[1:]]
    return records, {(r["dataset"], r["class"], r["draw"]) for r in records}


def write(path: Path, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Append records to a file, and return them."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(r) + "\n" for r in records)
    return records


if __name__ == "__main__":
    main()
