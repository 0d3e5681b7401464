"""The one-shot protocol on data folders: tasks, prompt draws and queries.

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
from ..io.datasets import Dataset, read_dataset
from . import protocol
from .baselines import Query

log = logging.getLogger(__name__)

N_PROMPTS = 5
MAX_QUERIES = 12
MAX_LOOKED_AT = 20
"""Pictures from which the box and the kind of objects are told."""
OBJECTS = "objects"
"""Name of the only class of an instance data set."""


class BenchmarkError(ValueError):
    """A benchmark that cannot be run; the message says what to do."""


@dataclass(frozen=True)
class Draw:
    """One prompt of a task: a box on an image."""

    image: str
    box: Box


@dataclass(frozen=True, eq=False)
class Task:
    """One class of one data set, with its prompts and queries.

    Parameters
    ----------
    dataset : Dataset
    name : str
        Of the class; ``objects`` for an instance data set.
    value : int or None
        Of the class in the labels; None for instance labels.
    rule : BoxRule
    has_objects : bool
        Whether single objects are known, so that they can be scored.
    mosaic : bool
        Objects fill the image: their touching borders are taken as background.
    draws : tuple of Draw
    queries : tuple of str
        Names of the images to be scored.
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
        """Factor that brings the images to the scale of the prompt."""
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
        """Return an image to be segmented."""
        plane = self.dataset.image(image)
        return Query(
            plane if plane.ndim == 3 else plane[..., None],
            self.scale,
            self.truth(image),
            self.dataset.ignore(image),
            image,
        )

    def pairs(self) -> Iterator[tuple[str, int]]:
        """Yield query and draw of everything that is scored, query by query."""
        for image in self.queries:
            for number, draw in enumerate(self.draws):
                if draw.image != image:
                    yield image, number

    def to_dict(self) -> dict[str, Any]:
        """Return what the report tells of the task."""
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
    data: Iterable[Path | str],
    *,
    prompts: int = N_PROMPTS,
    max_queries: int = MAX_QUERIES,
    classes: Sequence[str] | None = None,
    seed: int = 0,
) -> list[Task]:
    """Return the tasks of some data folders, with prompts drawn and queries chosen.

    Parameters
    ----------
    data : iterable of path
        Data folders.
    prompts : int
        Draws per task.
    max_queries : int
        Queries per task, evenly spaced over the images that show the class.
    classes : sequence of str, optional
        Only these, by name or value, or ``DATASET:CLASS``.
    seed : int

    Raises
    ------
    BenchmarkError
        When nothing is left to be scored.
    """
    tasks = []
    for folder in data:
        dataset = read_dataset(Path(folder))
        for value, name in _classes_of(dataset):
            if classes is None or _wanted(dataset.name, name, value, classes):
                task = _plan_task(dataset, value, name, prompts, max_queries, seed)
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
            "No task is left: check the data folders"
            + (f" and the classes {', '.join(classes)}." if classes else ".")
        )
    return tasks


def scored_images(dataset: Dataset, max_queries: int = MAX_QUERIES) -> set[str]:
    """Return the images of a data set that are queries of any of its tasks."""
    scored: set[str] = set()
    for value, _ in _classes_of(dataset):
        scored |= {*_evenly(_shown(dataset, value), max_queries)}
    return scored


def _classes_of(dataset: Dataset) -> list[tuple[int | None, str]]:
    if dataset.kind == "instance":
        return [(None, OBJECTS)]
    return [(value, name) for value, name in sorted(dataset.classes.items()) if value]


def _wanted(dataset: str, name: str, value: int | None, classes: Sequence[str]) -> bool:
    keys = {name, str(value)}
    return bool((keys | {f"{dataset}:{key}" for key in keys}) & set(classes))


def _truth(dataset: Dataset, image: str, value: int | None, mosaic: bool) -> np.ndarray:
    labels = dataset.labels(image).astype(np.int32)
    if value is not None:
        return protocol.objects_of_class(labels, value)
    return protocol.cut_borders(labels) if mosaic else labels


def _shown(dataset: Dataset, value: int | None) -> list[str]:
    """Return the images that show a class, or any object."""
    return [
        image
        for image in dataset.ids
        if (dataset.labels(image) == value if value else dataset.labels(image)).any()
    ]


def _plan_task(
    dataset: Dataset,
    value: int | None,
    name: str,
    n_prompts: int,
    max_queries: int,
    seed: int,
) -> Task | None:
    shown = _shown(dataset, value)
    looked_at = [
        _truth(dataset, image, value, False) for image in _evenly(shown, MAX_LOOKED_AT)
    ]
    mosaic = value is None and protocol.is_mosaic(looked_at)
    if mosaic:
        looked_at = [protocol.cut_borders(labels) for labels in looked_at]
    network = value is not None and protocol.is_network(looked_at)
    start = round(PROMPT_SIZE / dataset.scale) if dataset.scale else None
    rule = protocol.choose_rule(looked_at, start=start, whole=not network, seed=seed)
    if rule is None:
        return None
    queries = _evenly(shown, max_queries)
    task = Task(dataset, name, value, rule, not network, mosaic)
    rng = np.random.default_rng([seed, zlib.crc32(f"{dataset.name}:{name}".encode())])
    draws = _draw(task, shown, queries, n_prompts, rng)
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

    Pictures that are not queries come first, so that few queries are lost.
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
    if len(items) <= n:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, n).round().astype(int)]
