"""Tasks of the one-shot benchmark: prompts and queries drawn from data folders.

The rules are those of `benchmark.protocol`; see ``docs/benchmark.md``.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.geometry import PROMPT_SIZE, Box
from ..core.prompt import Prompt
from ..core.settings import MAX_SEED, Settings, option
from ..io.datasets import Dataset, read_dataset
from . import protocol
from .baselines import Query

log = logging.getLogger(__name__)

MAX_QUERIES = 12
MAX_INSPECTED = 20
"""Images of a task from which the size of the box is chosen."""
OBJECTS = "objects"
"""Name of the only class of an instance data set."""
NO_TASK = "No task is left: check the data folders"


class BenchmarkError(ValueError):
    """A benchmark that cannot be run; the message says what to do."""


@dataclass(frozen=True)
class BenchmarkSettings(Settings):
    """Which prompts and queries are drawn, and how contestants run."""

    prompts: int = option(5, "Prompts drawn per task", low=1, high=1000)
    max_queries: int = option(
        MAX_QUERIES, "Images scored per task", low=1, high=100_000
    )
    classes: tuple[str, ...] | None = option(
        None, "Only these classes: names, values or DATASET:CLASS"
    )
    seed: int = option(
        0, "Seed of the prompt draws and of the baselines", low=0, high=MAX_SEED
    )
    device: str = option("auto", "Where models run: auto, cpu, cuda, cuda:1, mps")
    n_threads: int = option(1, "Threads of the random forest", low=1, high=256)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes is not None:
            object.__setattr__(self, "classes", tuple(self.classes))


@dataclass(frozen=True)
class Draw:
    """One prompt of a task: a box in an image."""

    image: str
    box: Box


@dataclass(frozen=True, eq=False)
class Task:
    """One class of one data set, with its prompts and queries.

    Parameters
    ----------
    dataset : Dataset
    name : str
        Name of the class; ``objects`` for an instance data set.
    value : int or None
        Value of the class in the labels; None for instance labels.
    rule : BoxRule
        What makes a box a legal prompt.
    has_objects : bool
        Whether single objects are known and scored.
    mosaic : bool
        Whether objects fill the image; then their touching borders are background.
    draws : tuple of Draw
        Prompts; each is scored by itself.
    queries : tuple of str
        Names of the images to segment.
    """

    dataset: Dataset
    name: str
    value: int | None
    rule: protocol.BoxRule
    has_objects: bool
    mosaic: bool
    draws: tuple[Draw, ...] = ()
    queries: tuple[str, ...] = ()

    @property
    def scale(self) -> float:
        """Prompt pixels per image pixel: 64 over the side of the box."""
        return PROMPT_SIZE / self.rule.size

    def truth(self, image: str) -> np.ndarray:
        """Return the (Y, X) object ids of an image."""
        return _truth(self.dataset, image, self.value, self.mosaic)

    def prompt(self, draw: Draw) -> Prompt:
        """Return the prompt of a draw."""
        return Prompt.from_image(
            self.dataset.image(draw.image),
            self.truth(draw.image),
            draw.box,
            name=f"{self.dataset.name} {self.name}",
            source=draw.image,
        )

    def query(self, image: str) -> Query:
        """Return an image to segment."""
        plane = self.dataset.image(image)
        return Query(
            plane if plane.ndim == 3 else plane[..., None],
            self.scale,
            self.truth(image),
            self.dataset.ignore(image),
            image,
        )

    def pairs(self) -> Iterator[tuple[str, int]]:
        """Yield each query with each number of a draw from another image."""
        for image in self.queries:
            for number, draw in enumerate(self.draws):
                if draw.image != image:
                    yield image, number

    def to_dict(self) -> dict[str, Any]:
        """Return the description of the task in the report."""
        return {
            "dataset": self.dataset.name,
            "class": self.name,
            "box": self.rule.size,
            "whole_object": self.rule.min_whole_area > 0,
            "objects_known": self.has_objects,
            "mosaic": self.mosaic,
            "draws": [
                {"image": d.image, "y": d.box.y, "x": d.box.x} for d in self.draws
            ],
            "queries": list(self.queries),
        }


def plan(
    data: Iterable[Path | str], settings: BenchmarkSettings | None = None
) -> list[Task]:
    """Return the tasks of data folders, with prompts drawn and queries chosen.

    Queries are evenly spaced over the images that show the class.

    Parameters
    ----------
    data : iterable of path
        Data folders.
    settings : BenchmarkSettings, optional

    Raises
    ------
    BenchmarkError
        If no task is left.
    """
    settings = BenchmarkSettings.of(settings)
    classes = settings.classes
    tasks = []
    for folder in data:
        dataset = read_dataset(Path(folder))
        for value, name in _classes_of(dataset):
            if classes is None or _is_wanted(dataset.name, name, value, classes):
                task = _plan_task(dataset, value, name, settings)
                if task is None:
                    log.warning(
                        "%s / %s: no legal box or no other image, left out",
                        dataset.name,
                        name,
                    )
                else:
                    tasks.append(task)
    if not tasks:
        raise BenchmarkError(
            NO_TASK + (f" and the classes {', '.join(classes)}." if classes else ".")
        )
    return tasks


def scored_images(dataset: Dataset, max_queries: int = MAX_QUERIES) -> set[str]:
    """Return the names of the images that are queries of any task of a data set."""
    scored: set[str] = set()
    for value, _ in _classes_of(dataset):
        scored |= {*_evenly(_shown(dataset, value), max_queries)}
    return scored


def _classes_of(dataset: Dataset) -> list[tuple[int | None, str]]:
    """Return value and name of each class; background is none."""
    if dataset.kind == "instance":
        return [(None, OBJECTS)]
    return [(value, name) for value, name in sorted(dataset.classes.items()) if value]


def _is_wanted(
    dataset: str, name: str, value: int | None, classes: Sequence[str]
) -> bool:
    """Return whether a class is among those given by name, value or DATASET:CLASS."""
    keys = {name, str(value)}
    return bool((keys | {f"{dataset}:{key}" for key in keys}) & set(classes))


def _truth(dataset: Dataset, image: str, value: int | None, mosaic: bool) -> np.ndarray:
    """Return the (Y, X) object ids of a class, or of all objects."""
    labels = dataset.labels(image).astype(np.int32)
    if value is not None:
        return protocol.objects_of_class(labels, value)
    return protocol.cut_borders(labels) if mosaic else labels


def _shown(dataset: Dataset, value: int | None) -> list[str]:
    """Return the names of the images that show a class, or any object."""
    return [
        image
        for image in dataset.ids
        if (dataset.labels(image) == value if value else dataset.labels(image)).any()
    ]


def _plan_task(
    dataset: Dataset, value: int | None, name: str, settings: BenchmarkSettings
) -> Task | None:
    """Return the task of a class, or None without a legal box or another image."""
    shown = _shown(dataset, value)
    inspected = [
        _truth(dataset, image, value, False) for image in _evenly(shown, MAX_INSPECTED)
    ]
    mosaic = value is None and protocol.is_mosaic(inspected)
    if mosaic:
        inspected = [protocol.cut_borders(labels) for labels in inspected]
    network = value is not None and protocol.is_network(inspected)
    start = round(PROMPT_SIZE / dataset.scale) if dataset.scale else None
    rule = protocol.choose_rule(
        inspected, start=start, whole=not network, seed=settings.seed
    )
    if rule is None:
        return None
    queries = _evenly(shown, settings.max_queries)
    task = Task(dataset, name, value, rule, not network, mosaic)
    # seeded by the task's name: its draws do not depend on which other tasks there are
    rng = np.random.default_rng(
        [settings.seed, zlib.crc32(f"{dataset.name}:{name}".encode())]
    )
    draws = _draw(task, shown, queries, settings.prompts, rng)
    task = replace(task, draws=tuple(draws), queries=tuple(queries))
    return task if any(task.pairs()) else None


def _draw(
    task: Task,
    shown: Sequence[str],
    queries: Sequence[str],
    n: int,
    rng: np.random.Generator,
) -> list[Draw]:
    """Return up to ``n`` prompts, each from another image where there are enough.

    Images that are not queries come first, because a query cannot be scored with a
    prompt from the same image.
    """
    others = [image for image in shown if image not in set(queries)]
    order = [*rng.permutation(others).tolist(), *rng.permutation(queries).tolist()]
    draws: list[Draw] = []
    for _ in range(n):
        for image in order:
            box = protocol.find_box(
                task.truth(image), task.rule, rng, task.dataset.ignore(image)
            )
            if box is not None:
                draws.append(Draw(image, box))
            if len(draws) == n:
                return draws
        if not draws:
            break
    return draws


def _evenly(items: Sequence[str], n: int) -> list[str]:
    """Return ``n`` items, evenly spaced, or all if there are fewer."""
    if len(items) <= n:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, n).round().astype(int)]
