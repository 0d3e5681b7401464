"""A simulated user who corrects by clicks: scores on other images by clicks.

    python benchmarks/corrections.py DATA... [--clicks 0,1,2,5,10,20] [--seeds 0,1]
        [--json FILE] [--png FILE] [--fine-tune] [--model NAMES]

The user starts from one box of the one-shot protocol and corrects three images, one
after the other. She takes the kinds of mistakes in turns, the largest of each first:

- wrong: an object where none is (*Not this*)
- missed: none where one is (*This too*). Where the proposed outline overlaps the true
  one by less than half, she paints it.
- merged: one object for several (*Split here*), which teaches the split strength
- pieces: several objects for one (*Join*), which teaches it too
- outline: an object whose outline overlaps the true one by less than half, painted anew

Scored are other images that nobody touches, with F1@0.5 and Dice; and F1@0.5 of the
three that are corrected. Rows:

- clicks: this user
- guided: she answers what *Next doubtful place* asks; each answer is a click
- random boxes: as many further boxes of other images as clicks, at most seven
- boxes of corrected images: instead of the clicks, a box of each image that she has
  corrected so far, with what its result shows in it then
- forest: a random forest on the pixels of the prompts that the clicks made
- five boxes fine-tuned, clicks fine-tuned (--fine-tune; last column only)

Every task's records are appended to the file of --json at once; a second run goes on
from there. Base sets are for tuning, novel sets for reporting. Of several models
(--model FOLDER,FOLDER) the first is taken that was not trained on the set.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import zlib
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import napari_svpseg as svpseg
from napari_svpseg.benchmark.baselines import Query
from napari_svpseg.benchmark.one_shot_tasks import BenchmarkSettings, Task, plan
from napari_svpseg.benchmark.pixel_forest import (
    PixelForest,
    pixel_features,
    split_objects,
)
from napari_svpseg.benchmark.protocol import find_good_box
from napari_svpseg.benchmark.unseen import first_unseen
from napari_svpseg.core.annotation.corrections import fixed_by, with_fixed
from napari_svpseg.core.annotation.mending import (
    Lesson,
    divided_like,
    learned_strength,
)
from napari_svpseg.core.annotation.partial_labels import (
    BACKGROUND,
    from_labels,
    from_objects,
)
from napari_svpseg.core.annotation.patches import Patch
from napari_svpseg.core.annotation.proposals import propose_object
from napari_svpseg.core.jobs.finetune_job import FineTuneError
from napari_svpseg.core.labels.doubts import Answer, Doubt, doubts, questions
from napari_svpseg.core.labels.instances import instances_from_maps
from napari_svpseg.core.labels.metrics import dice, iou, match_instances
from napari_svpseg.core.prompt import UNKNOWN, Prompt, PromptSet
from napari_svpseg.core.settings import PostprocessSettings
from napari_svpseg.io.model_store import find_model

IMAGES = 3
"""Images in which the user corrects."""
SCORED = 3
"""Images that are scored."""
SIDE = 384
"""Side of the part of an image that is corrected or scored, in network pixels."""
BOXES = 8
"""Boxes that are drawn for a task, the first one among them."""
APART = 0.1
"""Largest share of an object that an other one may cover for it to be missed."""
CLICKS, GUIDED, RANDOM, FOREST = "clicks", "guided", "random boxes", "forest"
BOXED = "boxes of corrected images"
TUNED_BOXES, TUNED_CLICKS = "five boxes fine-tuned", "clicks fine-tuned"
OF_CLICKS = {CLICKS: (BOXED, FOREST, TUNED_CLICKS)}
"""Rows that need those clicks."""
KINDS = ("wrong", "missed", "merged", "pieces", "outline")
MODEL = "svp"
SETTINGS = svpseg.SegmentSettings(trust=False)

Record = dict[str, Any]


def part_of(task: Task, name: str, rng: np.random.Generator) -> Query:
    """Return a part of an image around a random object, with its truth."""
    query = task.query(name)
    assert query.truth is not None  # `Task.query` reads it
    side = round(SIDE / task.scale)
    pixels = np.argwhere(query.truth)
    centre = pixels[rng.integers(len(pixels))]
    window = tuple(
        slice(s := int(np.clip(c - side // 2, 0, max(0, n - side))), s + side)
        for c, n in zip(centre, query.shape, strict=True)
    )
    ignore = None if query.ignore is None else query.ignore[window]
    return Query(query.plane[window], task.scale, query.truth[window], ignore, name)


def pixels_of(query: Query) -> tuple[np.ndarray, str]:
    """Return the pixels of a part, and their axes."""
    if query.plane.shape[2] > 1:
        return query.plane, "YXC"
    return query.plane[..., 0], "YX"


def segmented(
    query: Query,
    prompts: PromptSet,
    split_strength: float = 0.5,
    model: Any = MODEL,
) -> svpseg.Result:
    """Return our result for a part of an image."""
    plane, axes = pixels_of(query)
    return svpseg.segment(
        plane,
        prompts,
        model,
        axes=axes,
        settings=SETTINGS,
        postprocess=PostprocessSettings(split_strength=split_strength),
    )


def settings_of(result: svpseg.Result) -> PostprocessSettings:
    """Return the settings with which the labels of a result were made."""
    return PostprocessSettings.from_dict(result.recipe.postprocess)


def forest_labels(query: Query, forest: PixelForest) -> np.ndarray:
    """Return the labels of a forest for a part of an image."""
    features = query.once("features", lambda: pixel_features(query.scaled))
    mask = query.full_size(forest.foreground(features)) > 0.5
    return split_objects(mask, forest.splitting, 1 / query.scale)


def scores(query: Query, labels: np.ndarray) -> tuple[float, float]:
    """Return F1@0.5 and Dice."""
    assert query.truth is not None
    found = match_instances(labels, query.truth, 0.5, query.ignore)
    return found.f1, dice(labels, query.truth, query.ignore)


# ------------------------------------------------------------------ mistakes


class Mistake(NamedTuple):
    """What is wrong in a result: its kind, its pixels, and a point on it."""

    kind: str
    mask: np.ndarray
    point: tuple[int, int]


def mistakes(query: Query, labels: np.ndarray, fixed: np.ndarray) -> list[Mistake]:
    """Return the largest mistake of each kind; what was decided before is none."""
    truth = query.truth
    assert truth is not None
    skip = fixed != UNKNOWN
    if query.ignore is not None:
        skip = skip | (query.ignore > 0)
    matched = {t for _, t, _ in match_instances(labels, truth, 0.5, query.ignore).pairs}
    largest: dict[str, np.ndarray] = {}

    def note(kind: str, mask: np.ndarray) -> None:
        if kind not in largest or mask.sum() > largest[kind].sum():
            largest[kind] = mask

    for found in np.unique(labels[labels > 0]):
        mask = labels == found
        if np.mean((truth[mask] > 0) | skip[mask]) <= APART:
            note("wrong", mask)
    for true in np.unique(truth[truth > 0]):
        mask = truth == true
        pieces = np.isin(labels, inside(labels, mask))
        if np.unique(labels[pieces]).size > 1 and not skip[pieces].any():
            note("pieces", pieces)
            continue
        if true in matched or skip[mask].mean() > APART:
            continue
        if np.mean(labels[mask] > 0) <= APART:
            note("missed", mask)
            continue
        ids, counts = np.unique(labels[mask & (labels > 0)], return_counts=True)
        whole = labels == ids[np.argmax(counts)]
        if len(inside(truth, whole)) > 1 and not skip[whole].any():
            note("merged", whole)
        else:
            note("outline", mask)
    return [Mistake(k, m, point_on(m, labels, k)) for k, m in largest.items()]


def inside(truth: np.ndarray, mask: np.ndarray) -> list[int]:
    """Return the true objects of which at least half lies in a mask."""
    ids, counts = np.unique(truth[mask & (truth > 0)], return_counts=True)
    return [
        int(i)
        for i, n in zip(ids, counts, strict=True)
        if 2 * n >= np.count_nonzero(truth == i)
    ]


def point_on(mask: np.ndarray, labels: np.ndarray, kind: str) -> tuple[int, int]:
    """Return the pixel of a mistake that is nearest to its middle."""
    free = np.argwhere(mask & (labels == 0) if kind == "missed" else mask)
    y, x = free[np.argmin(np.abs(free - free.mean(0)).sum(1))]
    return int(y), int(x)


# ------------------------------------------------------------------ the user


class Seen:
    """An image as the user sees it: its result, and what she corrected in it."""

    def __init__(self, query: Query) -> None:
        self.query = query
        self.fixed = np.full(query.shape, UNKNOWN, np.int32)
        self.here = PromptSet()
        self.result: svpseg.Result | None = None


class User:
    """Corrects images one after the other by clicks.

    Parameters
    ----------
    images : list of Query
    prompts : PromptSet
        Of one box.
    model : str
        Name or folder.
    """

    def __init__(
        self, images: list[Query], prompts: PromptSet, model: str = MODEL
    ) -> None:
        self.images = [Seen(query) for query in images]
        self.prompts = prompts
        self.model = model
        self.split_strength = 0.5
        self.made: dict[str, int] = dict.fromkeys(("painted", "here only", *KINDS), 0)
        self._lessons: list[Lesson] = []
        self._turn = 0
        self._number = 0

    def look_at(self, seen: Seen) -> svpseg.Result:
        """Return the result of an image with all prompts so far."""
        if seen.result is None:
            prompts = self.prompts.added(*seen.here)
            found = segmented(seen.query, prompts, self.split_strength, self.model)
            labels = with_fixed(found.labels, seen.fixed)
            seen.result = replace(found, labels=labels)
        return seen.result

    def click(self, n_clicks: int, of: int) -> None:
        """Correct one mistake, in the next image where none is left."""
        wanted = n_clicks * IMAGES // max(of, IMAGES)
        self._number = max(self._number, min(wanted, len(self.images) - 1))
        for seen in self.images[self._number :]:
            found = mistakes(seen.query, self.look_at(seen).labels, seen.fixed)
            by_kind = {mistake.kind: mistake for mistake in found}
            for i in range(len(KINDS)):
                kind = KINDS[(self._turn + i) % len(KINDS)]
                if kind in by_kind:
                    self.correct(seen, by_kind[kind])
                    self._turn += i + 1
                    return

    def correct(self, seen: Seen, mistake: Mistake) -> None:
        """Correct a mistake; all images follow."""
        self.made[mistake.kind] += 1
        if mistake.kind == "merged":
            truth = seen.query.truth
            assert truth is not None
            own = np.where(np.isin(truth, inside(truth, mistake.mask)), truth, 0)
            self._mend(seen, divided_like(mistake.mask, own))
        elif mistake.kind == "pieces":
            self._mend(seen, mistake.mask.astype(np.int32))
        else:
            self._teach(seen, mistake)
        for other in self.images:
            if other is not seen:
                other.result = None

    def _teach(self, seen: Seen, mistake: Mistake) -> None:
        result = self.look_at(seen)
        wrong = mistake.kind == "wrong"
        outline = mistake.mask
        plane, _ = pixels_of(seen.query)
        if mistake.kind == "missed":
            proposed = propose_object(result.maps, result.labels, mistake.point, plane)
            if iou(proposed.mask, outline) >= 0.5:
                outline = proposed.mask
            else:
                self.made["painted"] += 1
        done = svpseg.correct(
            plane,
            self.prompts,
            result,
            not_this=[mistake.point] if wrong else [],
            this_too=[] if wrong else [outline],
            fixed=seen.fixed,
            here_only=seen.here,
        )
        self.prompts, seen.result = done.prompts, done.result
        seen.fixed, seen.here = done.fixed, done.here_only
        self.made["here only"] += bool(done.notes)

    def _mend(self, seen: Seen, parts: np.ndarray) -> None:
        """Replace what is there by objects 1, 2, ... of the same pixels, and learn."""
        result, whole = self.look_at(seen), parts > 0
        objects = [parts == n for n in range(1, int(parts.max()) + 1)]
        patch = Patch.of(np.where(whole, parts, UNKNOWN))
        self._lessons.append(Lesson.of(result.maps, result.labels, patch))
        seen.fixed = fixed_by(seen.fixed, whole.shape, [], objects)
        settings = settings_of(result)
        self.split_strength = learned_strength(self._lessons, settings)
        settings = replace(settings, split_strength=self.split_strength)
        labels = instances_from_maps(result.maps, settings)
        seen.result = replace(
            result,
            labels=with_fixed(labels, seen.fixed),
            recipe=replace(result.recipe, postprocess=settings.to_dict()),
        )


class GuidedUser(User):
    """Answers the questions of *Next doubtful place*."""

    def __init__(
        self, images: list[Query], prompts: PromptSet, model: str = MODEL
    ) -> None:
        super().__init__(images, prompts, model)
        self._answers: list[tuple[Seen, Answer]] = []
        self._doubts: dict[int, tuple[svpseg.Result, list[Doubt]]] = {}
        self.made |= {"asked": 0}

    def click(self, n_clicks: int, of: int) -> None:
        """Answer one question."""
        found = [
            [
                doubt
                for doubt in self._doubts_of(i)
                if seen.fixed[doubt.point] == UNKNOWN and not self._knows(seen, doubt)
            ]
            for i, seen in enumerate(self.images)
        ]
        asked = questions(found, [answer for _, answer in self._answers])
        if not asked:
            return
        seen, doubt = self.images[asked[0].image], asked[0].doubt
        mistake = self._judged(seen, doubt)
        self.made["asked"] += 1
        self._answers.append((seen, Answer(doubt, mistake is not None)))
        if mistake is not None:
            self.correct(seen, mistake)

    def _doubts_of(self, i: int) -> list[Doubt]:
        """Return what is doubtful in an image, looked for in each result once."""
        result = self.look_at(self.images[i])
        if i not in self._doubts or self._doubts[i][0] is not result:
            found = doubts(result.maps, result.labels, settings_of(result))
            self._doubts[i] = result, found
        return self._doubts[i][1]

    def _knows(self, seen: Seen, doubt: Doubt) -> bool:
        return any(
            where is seen and doubt.is_about(answer.doubt.kind, answer.doubt.point)
            for where, answer in self._answers
        )

    def _judged(self, seen: Seen, doubt: Doubt) -> Mistake | None:
        """Return the mistake that a question is about; None if there is none."""
        labels, truth = self.look_at(seen).labels, seen.query.truth
        assert truth is not None
        mask = labels == labels[doubt.point]
        if doubt.kind == "missed":
            true = truth == truth[doubt.point]
            missed = truth[doubt.point] > 0 and np.mean(labels[true] > 0) <= APART
            return Mistake("missed", true, doubt.point) if missed else None
        if doubt.kind == "touching":
            many = len(inside(truth, mask)) > 1
            return Mistake("merged", mask, doubt.point) if many else None
        wrong = np.mean(truth[mask] > 0) <= APART
        return Mistake("wrong", mask, doubt.point) if wrong else None


# ------------------------------------------------------------------ a task


def curves(
    task: Task, clicks: list[int], seed: int, rows: list[str], model: str = MODEL
) -> list[Record]:
    """Return the records of each row after each number of clicks."""
    rng = np.random.default_rng([seed, zlib.crc32(task.dataset.name.encode())])
    first = task.draws[0]
    names = [n for n in task.queries if n != first.image]
    if len(names) < IMAGES + 1 or not task.has_objects:
        return []
    images = [part_of(task, name, rng) for name in names[:IMAGES]]
    scored = [part_of(task, name, rng) for name in names[IMAGES : IMAGES + SCORED]]
    start = PromptSet([task.prompt(first)])
    used = {query.name for query in scored}
    boxes = [task.prompt(d) for d in task.draws[1:] if d.image not in used]
    records: list[Record] = []

    def note(row: str, n: int, found: list[np.ndarray], **more: Any) -> None:
        if row not in rows:
            return
        f1, overlap = np.mean(
            [scores(q, labels) for q, labels in zip(scored, found, strict=True)], axis=0
        )
        records.append(
            {
                "set": task.dataset.name,
                "class": task.name,
                "seed": seed,
                "row": row,
                "clicks": n,
                "f1": round(float(f1), 4),
                "dice": round(float(overlap), 4),
                **more,
            }
        )

    for row, kind in ((CLICKS, User), (GUIDED, GuidedUser)):
        if not {row, *OF_CLICKS.get(row, ())} & set(rows):
            continue
        user = kind(images, start, model)
        labels: list[np.ndarray] = []
        shown: tuple[int, float] | None = None
        for n in range(max(clicks) + 1):
            if n:
                user.click(n, max(clicks))
            if n not in clicks:
                continue
            strength = user.split_strength
            if shown != (len(user.prompts), strength):  # prompts only grow
                shown = len(user.prompts), strength
                labels = [
                    segmented(q, user.prompts, strength, model).labels for q in scored
                ]
            own = [scores(s.query, user.look_at(s).labels)[0] for s in user.images]
            note(
                row,
                n,
                labels,
                f1_corrected=round(float(np.mean(own)), 4),
                made=dict(user.made),
                split_strength=strength,
            )
            if row == CLICKS and BOXED in rows:
                more = start.added(*corrected_boxes(user, task, rng))
                note(BOXED, n, [segmented(q, more, model=model).labels for q in scored])
            if row == CLICKS and FOREST in rows:
                forest = PixelForest.fit(user.prompts)
                note(FOREST, n, [forest_labels(q, forest) for q in scored])
        if row == CLICKS and TUNED_CLICKS in rows:
            partial = [taught(seen.fixed) for seen in user.images]
            planes = [pixels_of(q)[0] for q in images]
            box = [task.dataset.image(first.image)]
            first_box = [from_labels(task.truth(first.image), [first.box])]
            try:
                found = tuned(box + planes, first_box + partial, scored, model)
            except FineTuneError as error:  # too little was corrected
                print(f"{task.dataset.name} {TUNED_CLICKS}: {error}", flush=True)
            else:
                note(TUNED_CLICKS, max(clicks), found)
    if RANDOM in rows:
        for n in clicks:
            more = start.added(*boxes[:n])
            note(RANDOM, n, [segmented(q, more, model=model).labels for q in scored])
    if TUNED_BOXES in rows:
        drawn = [d for d in task.draws if d.image not in used][:5]
        planes = [task.dataset.image(d.image) for d in drawn]
        partial = [from_labels(task.truth(d.image), [d.box]) for d in drawn]
        note(TUNED_BOXES, max(clicks), tuned(planes, partial, scored, model))
    return records


def corrected_boxes(user: User, task: Task, rng: np.random.Generator) -> list[Prompt]:
    """Return a box of each image that was corrected, as the user sees it now."""
    found = []
    for seen in user.images:
        result = user.look_at(seen)
        if (seen.fixed == UNKNOWN).all():
            continue
        box = find_good_box(result.labels.astype(np.int32), task.rule, rng)
        if box is not None:
            plane, _ = pixels_of(seen.query)
            ranges = np.asarray(result.recipe.intensities)
            found.append(
                Prompt.from_image(plane, result.labels, box, intensities=ranges)
            )
    return found


def taught(fixed: np.ndarray) -> np.ndarray:
    """Return corrections as partial labels, as the dock does.

    An outline that was corrected is known on both sides.
    """
    partial = from_objects(np.maximum(fixed, 0))
    partial[fixed == 0] = BACKGROUND
    return partial


def tuned(
    planes: list[np.ndarray],
    partial: list[np.ndarray],
    scored: list[Query],
    model: str,
) -> list[np.ndarray]:
    """Return the labels of a model that was fine-tuned with the quick preset."""
    kept = [i for i, labels in enumerate(partial) if labels.any()]
    with tempfile.TemporaryDirectory() as folder:
        done = svpseg.finetune(
            [planes[i] for i in kept],
            [partial[i] for i in kept],
            start_from=model,
            output=Path(folder) / "model",
        )
        own = svpseg.load_prompts(Path(folder) / "model" / "prompts.svprompt")
        return [segmented(q, own, model=done.model).labels for q in scored]


# ------------------------------------------------------------------ the report


def draw(records: list[Record], path: Path) -> None:
    """Write the curves as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    colours: dict[str, str] = {}
    for score, line, where in (
        ("f1", "-", ""),
        ("f1_corrected", "--", ",\ncorrected images"),
    ):
        for row, by_clicks in table(records, score).items():
            values = [np.mean(list(tasks.values())) for tasks in by_clicks.values()]
            style = line if len(by_clicks) > 1 else ""
            (drawn,) = axes.plot(
                list(by_clicks),
                values,
                style,
                marker="o",
                label=f"{row}{where}",
                color=colours.get(row),
            )
            colours[row] = drawn.get_color()
    axes.set(xlabel="clicks", ylabel="F1@0.5")
    axes.set_xticks(sorted({r["clicks"] for r in records}))
    figure.legend(loc="outside right upper")
    figure.savefig(path, dpi=150)


def table(
    records: list[Record], score: str = "f1"
) -> dict[str, dict[int, dict[str, float]]]:
    """Return the score of each task, averaged over seeds, by row and clicks."""
    every: dict[tuple[str, int, str], list[float]] = defaultdict(list)
    for r in records:
        if score in r:
            key = (r["row"], r["clicks"], f"{r['set']} / {r['class']}")
            every[key].append(r[score])
    found: dict[str, dict[int, dict[str, float]]] = {}
    for (row, n, task), values in sorted(every.items(), key=lambda item: item[0][1]):
        found.setdefault(row, {}).setdefault(n, {})[task] = float(np.mean(values))
    return found


def report(records: list[Record]) -> str:
    """Return tables: each row by clicks, and the differences to one box."""
    found = table(records)
    clicks = sorted({r["clicks"] for r in records})
    rule, lines = "|---|" + "---|" * len(clicks), []
    for score in ("f1", "dice", "f1_corrected"):
        head = " | ".join(f"{n} clicks" for n in clicks)
        lines += [
            f"| {score}, mean of tasks | {head} |",
            "|---|" + "---|" * len(clicks),
        ]
        for row, by_clicks in table(records, score).items():
            cells = [
                f"{np.mean(list(by_clicks[n].values())):.3f}" if n in by_clicks else ""
                for n in clicks
            ]
            lines.append(f"| {row} | {' | '.join(cells)} |")
        lines.append("")
    one = next(iter(found.values()))[0]
    lines += [
        "| points of F1 above one box | mean | 95 % interval | tasks losing a point |",
        "|---|---|---|---|",
    ]
    rng = np.random.default_rng(0)
    for row, by_clicks in found.items():
        for n in clicks:
            if not n or n not in by_clicks:
                continue
            gains = 100 * np.array([v - one[t] for t, v in by_clicks[n].items()])
            means = rng.choice(gains, (2000, len(gains))).mean(1)
            low, high = np.percentile(means, [2.5, 97.5])
            lines.append(
                f"| {row}, {n} ({len(gains)} tasks) | {gains.mean():+.1f} "
                f"| {low:+.1f} to {high:+.1f} | {np.count_nonzero(gains < -1)} |"
            )
    lines += ["", "| task | " + " | ".join(f"{CLICKS} {n}" for n in clicks) + " |"]
    lines.append(rule)
    by_clicks = found.get(CLICKS, {})
    for task in sorted(by_clicks.get(clicks[0], {})):
        cells = [f"{by_clicks[n][task]:.3f}" for n in clicks if task in by_clicks[n]]
        lines.append(f"| {task} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables, and write the records and the curves."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+", type=Path, help="data folders")
    parser.add_argument("--clicks", default="0,1,2,5,10,20")
    parser.add_argument("--classes", help="only these, separated by commas")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--model", default=MODEL, help="names or folders")
    parser.add_argument("--rows", default=f"{CLICKS},{GUIDED},{RANDOM},{FOREST}")
    parser.add_argument("--fine-tune", action="store_true")
    parser.add_argument("--json", type=Path, help="records, one a line")
    parser.add_argument("--png", type=Path, help="picture of the curves")
    options = parser.parse_args()
    clicks = sorted({0, *(int(word) for word in options.clicks.split(","))})
    rows = options.rows.split(",")
    rows += [TUNED_BOXES, TUNED_CLICKS] if options.fine_tune else []
    records: list[Record] = []
    if options.json and options.json.exists():
        text = options.json.read_text(encoding="utf-8")
        records = [json.loads(line) for line in text.splitlines()]
    cards = [find_model(name) for name in options.model.split(",")]
    done = {(r["set"], r["class"], r["seed"], r["row"]) for r in records}
    for seed in map(int, options.seeds.split(",")):
        settings = BenchmarkSettings(
            prompts=BOXES,
            max_queries=12,
            seed=seed,
            classes=options.classes.split(",") if options.classes else None,
        )
        for task in plan(options.data, settings):
            key = (task.dataset.name, task.name, seed)
            left = [row for row in rows if (*key, row) not in done]
            card = cards[0] if len(cards) == 1 else first_unseen(cards, key[0])
            if not left or card is None:
                continue
            found = curves(task, clicks, seed, left, card.path)
            records += found
            for r in found:
                print(f"{r['set']} {r['row']} {r['clicks']}: {r['f1']:.3f}", flush=True)
            if options.json and found:
                with options.json.open("a", encoding="utf-8") as file:
                    file.writelines(json.dumps(r) + "\n" for r in found)
    if records:
        print(report(records))
    if options.png and records:
        draw(records, options.png)


if __name__ == "__main__":
    main()
