"""Fine-tuning on partial labels, compared with baselines and with full labels.

    python benchmarks/finetuning.py DATA... [--boxes 1,2,5] [--queries 4] [--output DIR]

In each task some images get one labelled box each (drawn as in `docs/benchmark.md`) or
scribbles on 1 % of their pixels. All contestants are trained on the same labels and
scored on the same other images:

- before:  the shipped model, with the boxes as its prompts
- after:   the fine-tuned model (or the model before, if it has the better validation
  score)
- student: a plain network trained on predictions of the fine-tuned model
- forest:  a random forest on filter features, fitted to the labelled pixels
- unet:    a small U-Net trained from scratch on the boxes
- full:    our network fine-tuned on all labels of the same images, the ceiling

``--baselines`` chooses among the last four. Scores that do not depend on the settings
of fine-tuning are kept in references.json and not computed again.

Writes partial.json, partial.md, boxes.png and, with ``--curve``, seconds.png.
``--resume`` continues an interrupted run, and adds baselines to a finished one. Several
processes share the work with ``--part 1/2`` and ``--part 2/2``: each writes its own
report into the same folder, and the last to finish writes the table of all. On a busy
machine the time limit would end training early: give ``--set seconds=100000`` and read
the processor seconds.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import napari_svpseg as svpseg
from napari_svpseg.benchmark.baselines import train_unet, unet_foreground
from napari_svpseg.benchmark.one_shot_tasks import (
    BenchmarkSettings,
    Draw,
    Task,
    plan,
)
from napari_svpseg.benchmark.pixel_forest import (
    PixelForest,
    pixel_features,
    split_objects,
)
from napari_svpseg.core.annotation.partial_labels import from_labels, to_ids
from napari_svpseg.core.geometry import inside
from napari_svpseg.core.image import (
    intensity_range,
    normalise,
    resize_image,
    resize_labels,
)
from napari_svpseg.core.jobs.finetune_job import FineTuneSettings
from napari_svpseg.core.labels.metrics import dice, f1
from napari_svpseg.core.model_card import ModelCard
from napari_svpseg.core.prompt import PromptSet
from napari_svpseg.io.atomic import atomic_path
from napari_svpseg.io.model_store import (
    LoadedModel,
    find_model,
    load_model,
    model_prompts,
)
from napari_svpseg.workflows import finetuning

SCRIBBLES = "scribbles"
LEAST_SCORED = 2
"""Images of a data set that get no box, so that they can be scored."""
MOST_NAMED = 10
"""Lines of a plot up to which there is a legend."""


@dataclass(frozen=True, eq=False)
class Job:
    """One task with a number of boxes (or scribbles) and the images to score.

    A data set with few images has fewer boxes than were ``asked`` for.
    """

    task: Task
    n_boxes: int
    asked: int
    scribbles: bool
    queries: tuple[str, ...]
    crop: int

    @property
    def key(self) -> str:
        """Name of the job in records."""
        labels = SCRIBBLES if self.scribbles else str(self.n_boxes)
        return f"{self.task.dataset.name} / {self.task.name} / {labels}"

    @property
    def draws(self) -> Sequence[Any]:
        """The boxes."""
        return self.task.draws[: self.n_boxes]

    def images(self) -> list[np.ndarray]:
        """Return the images with labels."""
        return [self.task.dataset.image(d.image) for d in self.draws]

    def labels(self, *, full: bool = False) -> list[np.ndarray]:
        """Return the partial labels of each image, or all its labels."""
        found = []
        for number, draw in enumerate(self.draws):
            truth = self.task.truth(draw.image)
            if full:
                found.append(from_labels(truth))
            elif self.scribbles:
                found.append(scribbled(truth, np.random.default_rng(number)))
            else:
                found.append(from_labels(truth, [draw.box]))
        return found

    def prompts(self) -> PromptSet:
        """Return the boxes as prompts."""
        return PromptSet(self.task.prompt(draw) for draw in self.draws)

    def query(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return a part of an image, its labels and the image's percentiles.

        The part lies around the middle of the image's objects.
        """
        plane = _three_axes(self.task.dataset.image(name))
        truth = self.task.truth(name)
        where = tuple(
            _around(found, n, round(self.crop / self.task.scale))
            for found, n in zip(np.nonzero(truth), truth.shape, strict=True)
        )
        return plane[where], truth[where], intensity_range(plane)


def _around(found: np.ndarray, length: int, side: int) -> slice:
    """Return ``side`` pixels of an axis around the mean of some coordinates."""
    middle = found.mean() if found.size else length / 2
    return inside(round(middle - side / 2), side, length)


def scribbled(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return short strokes on 1 % of the pixels, half of them on objects."""
    partial = np.zeros(truth.shape, np.int32)
    for value, mask in ((2, truth > 0), (1, truth == 0)):
        inside = np.flatnonzero(mask)
        wanted = truth.size // 200
        for _ in range(10_000):
            if (partial == value).sum() >= wanted or not inside.size:
                break
            y, x = np.unravel_index(rng.choice(inside), truth.shape)
            angle = rng.uniform(0, np.pi)
            along = np.arange(-8, 9)
            rows = np.round(y + along * np.sin(angle)).astype(int)
            columns = np.round(x + along * np.cos(angle)).astype(int)
            good = (
                (rows >= 0)
                & (columns >= 0)
                & (rows < truth.shape[0])
                & (columns < truth.shape[1])
            )
            rows, columns = rows[good], columns[good]
            same = truth[rows, columns] == truth[y, x]
            partial[rows[same], columns[same]] = value
    return partial


Segment = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Returns the labels of a plane (Y, X, C), given its percentiles."""


def our_model(model: Any, prompts: PromptSet | None) -> Segment:
    """Return our network as a contestant; by default it uses its own prompts."""

    def segment(plane: np.ndarray, intensities: np.ndarray) -> np.ndarray:
        return svpseg.segment(
            plane,
            prompts,
            model,
            axes="YXC",
            intensities=intensities,
            settings=svpseg.SegmentSettings(trust=False),
            channels=tuple(range(plane.shape[2])),
        ).labels

    return segment


def forest(job: Job) -> Segment:
    """Return a forest fitted to the labelled pixels."""
    if job.scribbles:
        images = [_three_axes(image) for image in job.images()]
        scale = job.task.scale
        fitted = PixelForest.fit_pixels(
            [_reduced(i, intensity_range(i), scale) for i in images],
            [resize_labels(ids, _shape(ids, scale)) for ids in job.labels()],
        )
    else:
        fitted = PixelForest.fit(job.prompts())

    def segment(plane: np.ndarray, intensities: np.ndarray) -> np.ndarray:
        mask = _at_scale(
            plane,
            intensities,
            job.task.scale,
            lambda image: fitted.foreground(pixel_features(image)),
        )
        return split_objects(mask, fitted.splitting, 1 / job.task.scale)

    return segment


def student(job: Job, model: str, settings: FineTuneSettings, folder: Path) -> Segment:
    """Return a plain network trained on predictions of the fine-tuned ``model``."""
    from napari_svpseg.core.annotation.partial_images import PartialImage
    from napari_svpseg.engine.finetuning.student import STUDENT, train_student
    from napari_svpseg.engine.inference.device import choose

    loaded, prompts = load_model(model), model_prompts(model)
    images = []
    for number, (image, labels) in enumerate(
        zip(job.images(), job.labels(), strict=True)
    ):
        plane = _three_axes(image)
        nothing = np.zeros(labels.shape, bool)
        images.append(
            PartialImage(
                plane,
                intensity_range(plane),
                to_ids(labels),
                nothing,
                f"image {number + 1}",
            )
        )
    network = train_student(
        loaded.network,
        prompts,
        images,
        settings,
        choose("cpu"),
        folder,
        lambda: False,
        lambda *_: None,
    )
    card = ModelCard("student", STUDENT.method, STUDENT.arguments)
    return our_model(LoadedModel(card, network), prompts)


def unet(job: Job, steps: int = 300) -> Segment:
    """Return a U-Net trained from scratch on the boxes."""
    prompts = job.prompts()
    network = train_unet(
        [(normalise(p.image, p.intensities), p.mask > 0) for p in prompts], steps=steps
    )
    splitting = PixelForest.fit([prompts[0]]).splitting

    def segment(plane: np.ndarray, intensities: np.ndarray) -> np.ndarray:
        mask = _at_scale(
            plane,
            intensities,
            job.task.scale,
            lambda image: unet_foreground(network, image),
        )
        return split_objects(mask, splitting, 1 / job.task.scale)

    return segment


def _three_axes(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 3 else image[..., None]


def _shape(image: np.ndarray, scale: float) -> tuple[int, int]:
    """Return height and width at the scale of the prompts."""
    height, width = (max(1, round(n * scale)) for n in image.shape[:2])
    return height, width


def _reduced(plane: np.ndarray, intensities: np.ndarray, scale: float) -> np.ndarray:
    return resize_image(normalise(plane, intensities), _shape(plane, scale))


def _at_scale(
    plane: np.ndarray,
    intensities: np.ndarray,
    scale: float,
    foreground: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    found = foreground(_reduced(plane, intensities, scale))
    return np.asarray(resize_image(found[..., None], plane.shape[:2])[..., 0] > 0.5)


def score(job: Job, segment: Segment) -> dict[str, float | None]:
    """Return mean Dice and F1@0.5 over the queries."""
    dices, f1s = [], []
    for name in job.queries:
        plane, truth, intensities = job.query(name)
        labels = segment(plane, intensities)
        dices.append(dice(labels, truth))
        f1s.append(f1(labels, truth))
    return {
        "dice": float(np.mean(dices)),
        "f1": float(np.mean(f1s)) if job.task.has_objects else None,
    }


def _read(path: Path) -> dict[str, Any]:
    """Return the contents of a JSON file, an empty dict if there is none."""
    if not path.exists():
        return {}
    return dict(json.loads(path.read_text(encoding="utf8")))


class References:
    """Scores that do not depend on the settings of fine-tuning, kept in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, dict[str, Any]] = _read(path)

    def get(self, key: str, compute: Callable[[], Segment], job: Job) -> dict[str, Any]:
        """Return ``dice``, ``f1`` and ``seconds`` of fitting, computed if unknown."""
        if key not in self.known:
            self.known |= _read(self.path)  # another process may have written it
        if key not in self.known:
            start = time.perf_counter()
            segment = compute()
            seconds = time.perf_counter() - start
            found = score(job, segment) | {"seconds": seconds}
            self.known |= _read(self.path) | {key: found}
            with atomic_path(self.path, overwrite=True) as temporary:
                temporary.write_text(json.dumps(self.known, indent=1), encoding="utf8")
        return self.known[key]


def train(
    job: Job, settings: FineTuneSettings, output: Path, model: str, curve: bool
) -> dict[str, Any]:
    """Return the record of fine-tuning on one job, with the scores after it."""
    card = find_model(model)
    record: dict[str, Any] = {
        "key": job.key,
        "boxes": job.n_boxes,
        "asked": job.asked,
        "scribbles": job.scribbles,
        "seen": how_seen(card, job.task),
        "seconds": {},
        "curve": [],
    }
    looked: list[float] = []

    def look(network: Any, prompts: PromptSet, seconds: float) -> None:
        if curve:
            began = time.process_time()
            loaded = LoadedModel(card, network)
            record["curve"].append(
                {"seconds": seconds} | score(job, our_model(loaded, prompts))
            )
            looked.append(time.process_time() - began)

    start, busy = time.perf_counter(), time.process_time()
    result = finetuning.finetune(
        job.images(),
        job.labels(),
        start_from=model,
        settings=settings,
        output=output,
        on_look=look,
    )
    record["seconds"]["after"] = time.perf_counter() - start - sum(looked)
    record["processor_seconds"] = time.process_time() - busy - sum(looked)
    record["kept"] = result.kept
    record["validation"] = {"before": result.before.value, "after": result.after.value}
    record["history"] = result.history
    record["after"] = score(job, our_model(result.model, None))
    record["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return record


def compare(
    record: dict[str, Any],
    job: Job,
    baselines: Sequence[str],
    settings: FineTuneSettings,
    tuned: Path,
    model: str,
    full_steps: float,
    references: References,
) -> None:
    """Add the scores of the other contestants to a record."""
    card = find_model(model)

    def refer(name: str, compute: Callable[[], Segment], about: str = "") -> None:
        key = f"{name} / {job.key} / {job.crop} / {','.join(job.queries)} / {about}"
        found = references.get(key, compute, job)
        record[name] = {n: found[n] for n in ("dice", "f1")}
        record["seconds"][name] = found["seconds"]

    network = f"{card.sha256} {json.dumps(card.arguments, sort_keys=True)}"
    refer("before", lambda: our_model(model, job.prompts()), network)
    if "student" in baselines and "student" not in record:
        start = time.perf_counter()
        trained = student(job, str(tuned), settings, tuned.with_name("student"))
        record["seconds"]["student"] = time.perf_counter() - start
        record["student"] = score(job, trained)
    if "forest" in baselines:
        refer("forest", lambda: forest(job))
    if "unet" in baselines and not job.scribbles:
        refer("unet", lambda: unet(job))
    if "full" in baselines:
        steps = max(1, round(full_steps * FineTuneSettings().steps))
        output = tuned.with_name("full")
        refer(
            "full",
            lambda: ceiling(job, model, steps, output),
            f"{network} {_recipe_of_ceiling(steps).to_dict()}",
        )


def ceiling(job: Job, model: str, steps: int, output: Path) -> Segment:
    """Return our network fine-tuned on all labels of the labelled images."""
    best = finetuning.finetune(
        job.images(),
        job.labels(full=True),
        start_from=model,
        settings=_recipe_of_ceiling(steps),
        output=output,
    )
    return our_model(best.model, None)


def _recipe_of_ceiling(steps: int) -> FineTuneSettings:
    return FineTuneSettings(steps=steps, seconds=1e6)


def how_seen(card: ModelCard, task: Task) -> str:
    """Return whether the model was trained or tuned on the data set of a task."""
    data = card.training.get("config", {}).get("data", {})
    for name, seen in (("datasets", "trained on"), ("validation", "tuned on")):
        if task.dataset.name in {d.partition(":")[0] for d in data.get(name, [])}:
            return seen
    return "unseen"


# ---------------------------------------------------------------- tables, plots

CONTESTANTS = ("before", "after", "student", "forest", "unet", "full")
TITLES = {"dice": "Dice", "f1": "F1 at an IoU of 0.5"}


def gap_closed(record: dict[str, Any], measure: str) -> float | None:
    """Return the share of the gap from before to full labels that was closed."""
    if "full" not in record or record["before"][measure] is None:
        return None
    before, after, full = (
        record[name][measure] for name in ("before", "after", "full")
    )
    return (after - before) / (full - before) if full - before > 0.01 else None


def to_markdown(records: Sequence[dict[str, Any]]) -> str:
    """Return a summary by number of boxes, and the table of all jobs."""
    names = [n for n in CONTESTANTS if any(n in r for r in records)]
    lines = [
        *_by_boxes(records, names),
        "",
        "| task / boxes | seen before | "
        + " | ".join(f"{n} Dice / F1" for n in names)
        + " | gap closed (Dice) | kept | s |",
        "|---|" + "---|" * (len(names) + 4),
    ]
    for r in records:
        cells = [_pair(r.get(n)) for n in names]
        gap = gap_closed(r, "dice")
        closed = "-" if gap is None else f"{100 * gap:.0f} %"
        lines.append(
            f"| {r['key']} | {r['seen']} | "
            + " | ".join(cells)
            + f" | {closed} | {r['kept']} | {r['seconds']['after']:.0f} |"
        )
    return "\n".join([*lines, "", *_summary(records)]) + "\n"


def _by_boxes(records: Sequence[dict[str, Any]], names: Sequence[str]) -> list[str]:
    """Return a table with one row for each number of boxes, and one for scribbles."""
    lines = [
        "| labels | tasks | "
        + " | ".join(f"{n} Dice / F1" for n in names)
        + " | gap closed, Dice / F1 | better than the forest | worse than before |",
        "|---|---|" + "---|" * (len(names) + 3),
    ]
    for labels, group in _groups(records).items():
        means = [
            _pair({m: _mean_of([r[n] for r in group if n in r], m) for m in TITLES})
            if any(n in r for r in group)
            else "-"
            for n in names
        ]
        gaps = [mean_gap(group, measure) for measure in TITLES]
        closed = " / ".join("-" if g is None else f"{g:.0%}" for g in gaps)
        against = [r for r in group if "forest" in r]
        wins = f"{_wins(against, 'forest')} of {len(against)}" if against else "-"
        lines.append(
            f"| {labels} | {len(group)} | "
            + " | ".join(means)
            + f" | {closed} | {wins} | {_losses(group)} |"
        )
    return lines


def _groups(records: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the records by number of boxes, then those with scribbles."""
    boxes = sorted({r["asked"] for r in records if not r["scribbles"]})
    groups = {
        "1 box" if n == 1 else f"{n} boxes": [
            r for r in records if not r["scribbles"] and r["asked"] == n
        ]
        for n in boxes
    }
    scribbled_ones = [r for r in records if r["scribbles"]]
    return groups | ({SCRIBBLES: scribbled_ones} if scribbled_ones else {})


def mean_gap(records: Sequence[dict[str, Any]], measure: str) -> float | None:
    """Return the closed share of the gap between the mean scores, see `gap_closed`."""
    both = [r for r in records if "full" in r and r["full"][measure] is not None]
    if not both:
        return None
    first, now, most = (
        _mean_of([r[n] for r in both], measure) for n in ("before", "after", "full")
    )
    return float((now - first) / (most - first)) if most > first else None


def _wins(records: Sequence[dict[str, Any]], baseline: str) -> int:
    return sum(r["after"]["dice"] > r[baseline]["dice"] for r in records)


def _losses(records: Sequence[dict[str, Any]]) -> int:
    """Return how many jobs became worse on unseen images, by over 0.005."""
    return sum(r["after"]["dice"] < r["before"]["dice"] - 0.005 for r in records)


def _pair(found: dict[str, Any] | None) -> str:
    if found is None:
        return "-"
    return " / ".join("-" if v is None else f"{v:.3f}" for v in found.values())


def _summary(records: Sequence[dict[str, Any]]) -> list[str]:
    """Return lines for all tasks, and for those the model has never seen."""
    lines = _totals(records)
    unseen = [r for r in records if r["seen"] == "unseen"]
    if unseen and len(unseen) < len(records):
        lines += ["", "Of the tasks on data sets that the model has never seen:", ""]
        lines += _totals(unseen)
    if not records:
        return lines
    seconds = [r["seconds"]["after"] for r in records]
    busy = [r["processor_seconds"] for r in records]
    return [
        *lines,
        "",
        f"- seconds of fine-tuning: median {np.median(seconds):.0f}, most "
        f"{max(seconds):.0f}",
        f"- processor seconds of it: median {np.median(busy):.0f}, most "
        f"{max(busy):.0f}",
        f"- peak memory: {max(r['peak_mb'] for r in records):.0f} MB",
    ]


def _totals(records: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for name in CONTESTANTS:
        means = [
            _mean_of([r[name] for r in records if name in r], m) for m in ("dice", "f1")
        ]
        if means[0] is not None:
            lines.append(
                f"- {name}, mean Dice / F1: "
                + " / ".join("-" if m is None else f"{m:.3f}" for m in means)
            )
    for measure, title in (("dice", "Dice"), ("f1", "F1")):
        gap = mean_gap(records, measure)
        if gap is not None:
            n_full = sum(r.get("full", {}).get(measure) is not None for r in records)
            lines.append(
                f"- gap closed, of the mean {title} of {n_full} tasks: {gap:.0%}"
            )
    for baseline in ("forest", "unet"):
        against = [r for r in records if baseline in r]
        if against:
            wins = _wins(against, baseline)
            lines.append(f"- better Dice than the {baseline}: {wins} of {len(against)}")
    worse = sum(
        r["kept"] == "after" and r["validation"]["after"] < r["validation"]["before"]
        for r in records
    )
    return [
        *lines,
        f"- worse than before on validation labels: {worse} of {len(records)}",
        f"- worse than before on unseen images, by over 0.005: {_losses(records)} of "
        f"{len(records)}",
    ]


def _mean_of(scores: Sequence[dict[str, Any]], measure: str) -> Any:
    values = [s[measure] for s in scores if s[measure] is not None]
    return float(np.mean(values)) if values else None


def draw_curves(records: Sequence[dict[str, Any]], folder: Path) -> None:
    """Write Dice and F1 over the number of boxes, and over seconds, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    boxed = [r for r in records if not r["scribbles"]]
    counts = sorted({r["asked"] for r in boxed})
    for axis, measure in zip(axes, TITLES, strict=True):
        for name in CONTESTANTS:
            means = [
                _mean_of(
                    [r[name] for r in boxed if r["asked"] == n and name in r], measure
                )
                for n in counts
            ]
            if any(m is not None for m in means):
                axis.plot(
                    counts,
                    [np.nan if m is None else m for m in means],
                    marker="o",
                    label=name,
                )
        axis.set(
            xlabel="labelled boxes, one per image",
            ylabel=TITLES[measure],
            xticks=counts,
            title=f"Mean {TITLES[measure]}, tasks: {_tasks(boxed)}",
        )
        axis.legend()
    figure.savefig(folder / "boxes.png", dpi=120)
    if not any(r["curve"] for r in records):
        return
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    for axis, measure in zip(axes, TITLES, strict=True):
        for r in records:
            points = [(0.0, r["before"][measure])]
            points += [(c["seconds"], c[measure]) for c in r["curve"]]
            if len(points) > 1 and points[0][1] is not None:
                axis.plot(*zip(*points, strict=True), marker=".", label=r["key"])
        axis.set(
            xlabel="seconds of training",
            ylabel=TITLES[measure],
            title=f"{TITLES[measure]} on unseen images",
        )
    named = axes[0].get_legend_handles_labels()
    if len(named[0]) <= MOST_NAMED:
        figure.legend(*named, fontsize=8, ncols=3, loc="outside lower center")
    figure.savefig(folder / "seconds.png", dpi=120)


def _tasks(records: Sequence[dict[str, Any]]) -> int:
    return len({r["key"].rpartition(" / ")[0] for r in records})


# ---------------------------------------------------------------- the run


def jobs_of(options: argparse.Namespace) -> list[Job]:
    """Return all jobs, those with few boxes first."""
    asked = [int(n) for n in options.boxes.split(",")]
    classes = options.classes.split(",") if options.classes else None
    tasks = plan(
        options.data,
        BenchmarkSettings(
            prompts=max(asked), max_queries=50, classes=classes, seed=options.seed
        ),
    )
    found = []
    part, _, parts = options.part.partition("/")
    for task in tasks[int(part) - 1 :: int(parts)]:
        counts, draws = usable_boxes(task, asked)
        task = replace(task, draws=draws)
        labelled = {d.image for d in draws}
        free = [q for q in task.queries if q not in labelled]
        at = np.linspace(0, len(free) - 1, min(options.queries, len(free)))
        queries = tuple(free[i] for i in at.round().astype(int))
        found += [
            Job(task, n, wanted, False, queries, options.crop)
            for n, wanted in counts.items()
        ]
        if options.scribbles:
            found.append(
                Job(task, max(counts), max(asked), True, queries, options.crop)
            )
    return found


def usable_boxes(
    task: Task, asked: Sequence[int]
) -> tuple[dict[int, int], tuple[Draw, ...]]:
    """Return the possible numbers of boxes, with the number asked for, and the draws.

    There is one box per image, and some images are left to score. A data set with too
    few images gets fewer boxes than asked for; a line on standard error says so.
    """
    by_image: dict[str, Draw] = {}
    for draw in task.draws:
        by_image.setdefault(draw.image, draw)
    left = len(task.queries) - LEAST_SCORED
    draws = tuple(by_image.values())[: max(1, left)]
    counts: dict[int, int] = {}
    for wanted in sorted(asked):
        n = min(wanted, len(draws))
        note = f"{task.dataset.name} / {task.name}: images for {n} of {wanted} boxes"
        if n in counts:
            print(f"{note}, skipped", file=sys.stderr)
        elif n < wanted:
            print(note, file=sys.stderr)
        counts.setdefault(n, wanted)
    return counts, draws


def parsed_options() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+", type=Path, help="data folders")
    parser.add_argument("--boxes", default="5", help="such as 1,2,5,10")
    parser.add_argument("--scribbles", action="store_true", help="1 %% of pixels too")
    parser.add_argument(
        "--baselines", default="forest,unet,full", help="of student,forest,unet,full"
    )
    parser.add_argument("--model", default="svp")
    parser.add_argument("--classes", help="names, values or DATASET:CLASS")
    parser.add_argument("--queries", type=int, default=4, help="images scored a task")
    parser.add_argument(
        "--crop",
        type=int,
        default=384,
        help="side of what is scored of each, at prompt scale",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--full-steps",
        type=float,
        default=2.0,
        help="steps on full labels, times those of fine-tuning",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of fine-tuning",
    )
    parser.add_argument("--curve", action="store_true", help="score while training")
    parser.add_argument("--output", type=Path, default=Path("bench-output/partial"))
    parser.add_argument(
        "--references",
        type=Path,
        help="file of scores that are known already; default: beside the report",
    )
    parser.add_argument(
        "--part",
        default="1/1",
        metavar="N/M",
        help="only every Mth task, from the Nth on",
    )
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Read the options, run, print the table."""
    options = parsed_options()
    options.output.mkdir(parents=True, exist_ok=True)
    part, _, parts = options.part.partition("/")
    name = "partial" if parts == "1" else f"partial-{part}"
    report = options.output / f"{name}.json"
    records = _read(report).get("records", []) if options.resume else []
    done = {r["key"]: r for r in records}
    settings = with_settings(options.set)
    references = References(options.references or options.output / "references.json")
    for job in jobs_of(options):
        tuned = options.output / "models" / job.key.replace(" / ", "-") / "after"
        record = done.get(job.key)
        if record is None:
            record = train(job, settings, tuned, options.model, options.curve)
            records.append(record)
        compare(
            record,
            job,
            options.baselines.split(","),
            settings,
            tuned,
            options.model,
            options.full_steps,
            references,
        )
        scores = {n: _pair(record.get(n)) for n in CONTESTANTS if n in record}
        print(job.key, scores, record["kept"], file=sys.stderr, flush=True)
        recipe = {
            "settings": settings.to_dict(),
            "data": [d.name for d in options.data],
            "queries": options.queries,
            "crop": options.crop,
            "seed": options.seed,
            "model": options.model,
            "full_steps": options.full_steps,
        }
        with atomic_path(report, overwrite=True) as temporary:
            temporary.write_text(
                json.dumps({"recipe": recipe, "records": records}, indent=1)
            )
    records = joined(options.output, report)
    table = to_markdown(records)
    (options.output / "partial.md").write_text(table, encoding="utf8")
    draw_curves(records, options.output)
    print(table)


def joined(folder: Path, report: Path) -> list[dict[str, Any]]:
    """Return the records of a report and of the reports of other parts."""
    own = _read(report)
    records = {r["key"]: r for r in own.get("records", [])}
    for path in sorted(folder.glob("partial*.json")):
        other = _read(path)
        if other["recipe"] == own.get("recipe"):
            records = {r["key"]: r for r in other["records"]} | records
    return sorted(
        records.values(),
        key=lambda r: (r["key"].rpartition(" / ")[0], r["scribbles"], r["boxes"]),
    )


def with_settings(words: Sequence[str]) -> FineTuneSettings:
    """Return the default settings with each ``NAME=VALUE`` changed."""
    settings = FineTuneSettings()
    for word in words:
        name, _, value = word.partition("=")
        default = getattr(settings, name)
        chosen = value if isinstance(default, str) else type(default)(float(value))
        settings = replace(settings, **{name: chosen})
    return settings


if __name__ == "__main__":
    main()
