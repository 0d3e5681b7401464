"""The one-shot protocol: one prompt box, all other images, the same for everyone.

For each data set and class, a few legal boxes are drawn by a seed; every contestant
gets the same boxes and segments the same images. See ``docs/benchmark.md``.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.image import intensity_range, normalise, to_three_channels
from ..core.labels.metrics import dice, iou, match_instances
from ..core.progress import Progress, ignore_progress
from ..core.prompt import Prompt, PromptSet
from ..core.result import versions
from ..core.settings import PostprocessSettings, SegmentSettings
from ..engine.jobs.allocator import PeakMemory
from ..io.atomic import atomic_path
from .baselines import (
    Answer,
    Contestant,
    ForestBaseline,
    FullUNetBaseline,
    OtsuBaseline,
    PromptUNetBaseline,
    Query,
)
from .one_shot_tasks import MAX_QUERIES, N_PROMPTS, BenchmarkError, Task, plan
from .report import outlined, sheet, summarise, to_markdown

log = logging.getLogger(__name__)

WINDOW_BOXES = 4
"""Side of what a contact sheet shows of a query, in boxes."""
PROTOCOL = 1

REFINED, REFINE_STEPS = "+refine", 40
"""Ending of a model's name that asks for fitting to the prompt, and its steps."""

UPPER_BOUNDS = ("forest-best", "unet-full")


@dataclass(frozen=True, eq=False)
class ModelContestant:
    """One of our models, run as `segment` runs it (without the trust check).

    Parameters
    ----------
    network : PromptSegmenter
    device : str
    classes : tuple of str
        Of a model that knows classes: it takes no prompt.
    asked : int or None
        The one of them, from 1, that a task is about.
    refine : int
        Steps of fitting to the prompt, see `engine.inference.refine`.
    """

    network: Any
    device: str = "auto"
    classes: tuple[str, ...] = ()
    asked: int | None = None
    refine: int = 0

    def knows(self, task: Task) -> bool:
        """Tell whether the model can be asked for the class of a task."""
        return not self.classes or self._class_of(task) is not None

    def for_task(self, task: Task) -> ModelContestant:
        """Return the contestant for the class of a task."""
        return replace(self, asked=self._class_of(task))

    def _class_of(self, task: Task) -> int | None:
        names = [name.casefold() for name in self.classes]
        for name in (task.name, str(task.value)):
            if name.casefold() in names:
                return names.index(name.casefold()) + 1
        return None

    def fit(self, prompt: Prompt) -> Answer:
        """Keep the prompt; it is encoded with each query, as for a user."""
        from ..core.labels.instances import instances_from_maps
        from ..engine.inference.device import choose
        from ..engine.inference.predict import predict

        device = choose(self.device)
        settings = SegmentSettings(device=self.device, trust=False, refine=self.refine)
        post = PostprocessSettings()

        def answer(query: Query) -> np.ndarray:
            maps = predict(
                query.plane, PromptSet([prompt]), self.network, device, settings
            ).maps
            if maps.classes is None:
                return instances_from_maps(maps, post)
            own = maps.classes == self.asked
            mine = replace(
                maps, foreground=np.where(own, maps.foreground, 0), classes=None
            )
            labels = instances_from_maps(mine, post)
            labels[(maps.foreground >= post.threshold) & ~own] = 0  # no hole of ours
            return labels

        return answer


def make_contestant(
    name: str, *, device: str = "auto", seed: int = 0, n_threads: int = 1
) -> tuple[Contestant, str]:
    """Return the contestant of a name, and the hash of its weights if it has some.

    Parameters
    ----------
    name : str
        A baseline (``forest``, ``forest-best``, ``otsu``, ``unet-prompt`` or
        ``unet-full``), a built-in model, or a model folder; ``svp+refine`` is ``svp``
        fitted to each prompt.
    device : str
    seed : int
        Of the baselines' fits.
    n_threads : int
        Of the forest.
    """
    if name in ("forest", "forest-best"):
        return ForestBaseline(seed, n_threads, name == "forest-best"), ""
    if name == "otsu":
        return OtsuBaseline(), ""
    if name == "unet-prompt":
        return PromptUNetBaseline(seed, device=_torch_device(device)), ""
    if name == "unet-full":
        return FullUNetBaseline(seed, device=_torch_device(device)), ""
    from ..io.model_store import load_model

    name, fitted, _ = name.partition(REFINED)
    model = load_model(name)
    return ModelContestant(
        model.network,
        device,
        tuple(model.card.classes),
        refine=REFINE_STEPS if fitted else 0,
    ), model.card.sha256


def _torch_device(device: str) -> str:
    from ..engine.inference.device import choose

    return str(choose(device).torch_device)


def run(
    data: Iterable[Path | str],
    models: Sequence[str] | Mapping[str, Contestant],
    *,
    prompts: int = N_PROMPTS,
    max_queries: int = MAX_QUERIES,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    device: str = "auto",
    n_threads: int = 1,
    output: Path | str | None = None,
    resume: bool = False,
    on_progress: Progress = ignore_progress,
) -> dict[str, Any]:
    """Run the one-shot protocol and return its report.

    Parameters
    ----------
    data : iterable of path
        Data folders.
    models : sequence of str, or mapping of str to Contestant
        Baselines, built-in models or model folders, see `make_contestant`; or contestants by
        the name they get in the report, such as ``ModelContestant(network)``.
    prompts, max_queries, classes, seed
        As for `plan`.
    device : str
        For the models.
    n_threads : int
        For the forest.
    output : path, optional
        JSON file of the report; a markdown file with the tables is written beside it.
        Each record is kept at once in ``<output>l`` (JSON lines).
    resume : bool
        Take the records that are there already, if they were made with the same
        protocol and weights.
    on_progress : Progress

    Returns
    -------
    dict
        ``recipe``, ``tasks``, ``records`` and ``summary`` (see `report.summarise`).
    """
    if not models:
        raise BenchmarkError("No model was named: for example forest,svp.")
    tasks = plan(
        data, prompts=prompts, max_queries=max_queries, classes=classes, seed=seed
    )
    contestants = {
        name: (models[name], "")
        if isinstance(models, Mapping)
        else make_contestant(name, device=device, seed=seed, n_threads=n_threads)
        for name in dict.fromkeys(models)
    }
    recipe = {
        "protocol": PROTOCOL,
        "prompts": prompts,
        "max_queries": max_queries,
        "seed": seed,
        "device": device,
        "versions": versions(),
        "models": {name: sha256 for name, (_, sha256) in contestants.items()},
    }
    journal = _Journal(output, recipe, resume)
    total = len(contestants) * sum(len(list(task.pairs())) for task in tasks)
    records: list[dict[str, Any]] = []
    for task in tasks:
        for record in _run_task(task, contestants, journal):
            records.append(record)
            on_progress(
                len(records),
                total,
                f"{record['dataset']} / {record['class']}, {record['model']}",
            )
    report = {
        "recipe": recipe,
        "tasks": [task.to_dict() for task in tasks],
        "records": records,
        "summary": summarise(records),
    }
    if output is not None:
        save_report(report, output)
    return report


def save_report(report: dict[str, Any], path: Path | str) -> None:
    """Write a report as JSON, and its tables as markdown beside it."""
    path = Path(path)
    with atomic_path(path) as part:
        part.write_text(json.dumps(report, indent=1), encoding="utf-8")
    with atomic_path(path.with_suffix(".md")) as part:
        part.write_text(to_markdown(report), encoding="utf-8")


def _run_task(
    task: Task, contestants: dict[str, tuple[Contestant, str]], journal: _Journal
) -> Iterator[dict[str, Any]]:
    taking_part = {
        name: _for_task(contestant, task)
        for name, (contestant, _) in contestants.items()
        if not isinstance(contestant, ModelContestant) or contestant.knows(task)
    }
    for name in contestants.keys() - taking_part.keys():
        log.warning(
            "%s / %s: %s was not trained on that class, left out",
            task.dataset.name,
            task.name,
            name,
        )
    fitted: dict[tuple[str, int], tuple[Answer, float]] = {}
    query: Query | None = None
    for image, number in task.pairs():
        for name, contestant in taking_part.items():
            record = journal.find(task.dataset.name, task.name, name, number, image)
            if record is None:
                if (name, number) not in fitted:
                    prompt = task.prompt(task.draws[number])
                    start = time.perf_counter()
                    answer = contestant.fit(prompt)
                    fitted[name, number] = (answer, time.perf_counter() - start)
                if query is None or query.name != image:
                    query = task.query(image)
                record = _score(task, name, number, query, *fitted[name, number])
                journal.add(record)
            yield record


def _for_task(contestant: Contestant, task: Task) -> Contestant:
    if isinstance(contestant, ModelContestant):
        return contestant.for_task(task)
    if isinstance(contestant, FullUNetBaseline):
        return contestant.for_images(task.dataset.ids, task.query)
    return contestant


def _score(
    task: Task, model: str, draw: int, query: Query, answer: Answer, fit_s: float
) -> dict[str, Any]:
    query.take_reused_seconds()
    with PeakMemory() as memory:
        start = time.perf_counter()
        labels = answer(query)
        seconds = time.perf_counter() - start
    seconds += fit_s + query.take_reused_seconds()
    truth, ignore = query.truth, query.ignore
    assert truth is not None  # `Task.query` reads it
    match = match_instances(labels, truth, 0.5, ignore) if task.has_objects else None
    return {
        "dataset": task.dataset.name,
        "class": task.name,
        "model": model,
        "draw": draw,
        "query": query.name,
        "dice": dice(labels > 0, truth > 0, ignore),
        "iou": iou(labels > 0, truth > 0, ignore),
        "f1": None if match is None else match.f1,
        "ap": None if match is None else match.average_precision,
        "seconds": None if model in UPPER_BOUNDS else seconds,
        "peak_mb": memory.peak_mb,
    }


class _Journal:
    """The records so far: in memory and, line by line, in a file beside the output."""

    def __init__(
        self, output: Path | str | None, recipe: dict[str, Any], resume: bool
    ) -> None:
        self._path = None if output is None else Path(f"{output}l")
        self._weights: dict[str, str] = recipe["models"]
        self._records: dict[tuple[Any, ...], dict[str, Any]] = {}
        head = {n: recipe[n] for n in ("protocol", "prompts", "max_queries", "seed")}
        if self._path is None:
            return
        if resume and self._path.exists():
            self._read(self._path, head)
        else:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(head) + "\n", encoding="utf-8")

    def _read(self, path: Path, head: dict[str, Any]) -> None:
        lines = path.read_text(encoding="utf-8").split("\n")
        if lines[-1]:  # killed while writing: the torn line is dropped
            path.write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
        if len(lines) < 2 or json.loads(lines[0]) != head:
            raise BenchmarkError(
                f"{path} was made with other settings ({lines[0]}): choose another "
                "output, or start anew without --resume."
            )
        for line in lines[1:-1]:
            record = json.loads(line)
            if record.pop("weights") == self._weights.get(record["model"]):
                self._records[_key(record)] = record

    def find(self, *key: Any) -> dict[str, Any] | None:
        """Return the record of data set, class, model, draw and query, or None."""
        return self._records.get(key)

    def add(self, record: dict[str, Any]) -> None:
        """Keep a record, on disk too."""
        self._records[_key(record)] = record
        if self._path is not None:
            line = {**record, "weights": self._weights[record["model"]]}
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def _key(record: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(record[n] for n in ("dataset", "class", "model", "draw", "query"))


def contact_sheet(
    data: Iterable[Path | str],
    models: Sequence[str],
    path: Path | str,
    *,
    prompts: int = N_PROMPTS,
    max_queries: int = MAX_QUERIES,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    device: str = "auto",
    side: int = 192,
    on_progress: Progress = ignore_progress,
) -> Path:
    """Write an image that shows one draw of each task: what was asked, what came.

    Columns: the prompt with its mask, the query, the true objects (blue), and what
    each model found (orange). With the arguments of `run`, it shows the first draw of
    that run on its middle query.

    Parameters
    ----------
    data, models, prompts, max_queries, classes, seed, device
        As for `run`.
    path : path
        PNG file.
    side : int
        Of each image, in pixels.
    on_progress : Progress

    Returns
    -------
    Path
        Of the file.
    """
    from skimage.io import imsave

    tasks = plan(
        data, prompts=prompts, max_queries=max_queries, classes=classes, seed=seed
    )
    contestants = {m: make_contestant(m, device=device, seed=seed)[0] for m in models}
    rows = []
    for done, task in enumerate(tasks):
        title = f"{task.dataset.name} / {task.name}, box {task.rule.size}"
        on_progress(done, len(tasks), title)
        rows.append((title, _squares(task, contestants, side)))
    path = Path(path)
    page = sheet(rows, ["prompt", "query", "truth", *models])
    with atomic_path(path) as part:
        imsave(part, page, check_contrast=False)
    return path


def _squares(
    task: Task, contestants: dict[str, Contestant], side: int
) -> list[np.ndarray]:
    first = min(draw for _, draw in task.pairs())  # a draw may have no other image
    images = [image for image, draw in task.pairs() if draw == first]
    prompt, query = task.prompt(task.draws[first]), task.query(images[len(images) // 2])
    truth = task.truth(query.name)
    answers = [
        _for_task(contestant, task).fit(prompt)(query)
        for contestant in contestants.values()
    ]
    window = _window(truth, WINDOW_BOXES * task.rule.size)
    plane = _shown(query.plane, intensity_range(query.plane))[window]
    return [
        outlined(_shown(prompt.image, prompt.intensities), prompt.mask, side),
        outlined(plane, None, side),
        outlined(plane, truth[window], side, colour=1),
        *(outlined(plane, labels[window], side) for labels in answers),
    ]


def _window(truth: np.ndarray, side: int) -> tuple[slice, slice]:
    """Return a window of at most ``side`` pixels around the middle of what is true."""
    middle = np.median(np.argwhere(truth), axis=0)
    y, x = (
        slice(max(0, start), max(0, start) + side)
        for start in (
            min(int(m) - side // 2, n - side)
            for m, n in zip(middle, truth.shape, strict=True)
        )
    )
    return y, x


def _shown(image: np.ndarray, intensities: np.ndarray) -> np.ndarray:
    """Return an image as (Y, X, 3) in [0, 1]."""
    return to_three_channels(normalise(image, intensities) * 0.25 + 0.5)
