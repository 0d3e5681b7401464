"""One-shot benchmark: segment whole images from the prompt in one box.

For each data set and class, a few legal boxes are drawn at random; every contestant
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
from ..io.content import content_fingerprint
from ..io.locks import claimed
from ..io.ownership import (
    FOREIGN,
    WRITTEN,
    ForeignTargetError,
    Origin,
    check_replaceable,
    file_hash,
    origin,
    read_json,
    sealed_json,
)
from .baselines import (
    Answer,
    Contestant,
    ForestBaseline,
    FullUNetBaseline,
    OtsuBaseline,
    PromptUNetBaseline,
    Query,
)
from .one_shot_tasks import BenchmarkError, BenchmarkSettings, Task, plan
from .report import outlined, sheet, summarise, to_markdown

log = logging.getLogger(__name__)

WINDOW_BOXES = 4
"""Side of the part of a query that a contact sheet shows, in boxes."""
PROTOCOL = 1
"""Version of the protocol; records of another version are not resumed."""

REFINED = "+refine"
"""Suffix of a model's name: the model is fitted to each prompt."""
REFINE_STEPS = 40

COMPARED = ("protocol", "prompts", "max_queries", "seed", "versions", "data")
"""Values that records are kept for, beside the weights, which each line names."""

NO_MODEL = "No model was named: for example forest,svp."

UPPER_BOUNDS = ("forest-best", "unet-full")
"""Baselines that use more labels than the prompt: their time is not comparable."""


@dataclass(frozen=True, eq=False)
class ModelContestant:
    """One of our models, run as `segment` runs it (without the trust check).

    Parameters
    ----------
    network : PromptSegmenter
    device : str
    classes : tuple of str
        Class names of a model trained on fixed classes, which takes no prompt.
    class_id : int or None
        The class, from 1, that the task is about.
    refine : int
        Steps of fitting to the prompt, see `engine.inference.refine`.
    """

    network: Any
    device: str = "auto"
    classes: tuple[str, ...] = ()
    class_id: int | None = None
    refine: int = 0

    def knows(self, task: Task) -> bool:
        """Return whether the model can segment the class of a task."""
        return not self.classes or self._class_of(task) is not None

    def for_task(self, task: Task) -> ModelContestant:
        """Return the contestant for the class of a task."""
        return replace(self, class_id=self._class_of(task))

    def _class_of(self, task: Task) -> int | None:
        """Return the id of the model's class with the task's name or value."""
        names = [name.casefold() for name in self.classes]
        for name in (task.name, str(task.value)):
            if name.casefold() in names:
                return names.index(name.casefold()) + 1
        return None

    def fit(self, prompt: Prompt) -> Answer:
        """Return the segmentation function of a prompt.

        The prompt is encoded again with each query, because a user waits for that too.
        """
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
            own = maps.classes == self.class_id
            mine = replace(
                maps, foreground=np.where(own, maps.foreground, 0), classes=None
            )
            labels = instances_from_maps(mine, post)
            # objects of other classes may have been filled in as holes
            labels[(maps.foreground >= post.threshold) & ~own] = 0
            return labels

        return answer


def make_contestant(name: str, settings: BenchmarkSettings) -> tuple[Contestant, str]:
    """Return a contestant by name, and the hash of its weights ("" for a baseline).

    Parameters
    ----------
    name : str
        A baseline (``forest``, ``forest-best``, ``otsu``, ``unet-prompt`` or
        ``unet-full``), a built-in model, or a model folder; ``svp+refine`` is ``svp``
        fitted to each prompt.
    settings : BenchmarkSettings
    """
    seed = settings.seed
    if name in ("forest", "forest-best"):
        return ForestBaseline(seed, settings.n_threads, name == "forest-best"), ""
    if name == "otsu":
        return OtsuBaseline(), ""
    if name == "unet-prompt":
        return PromptUNetBaseline(seed, device=_torch_device(settings.device)), ""
    if name == "unet-full":
        return FullUNetBaseline(seed, device=_torch_device(settings.device)), ""
    from ..io.model_store import load_model

    name, fitted, _ = name.partition(REFINED)
    model = load_model(name)
    return ModelContestant(
        model.network,
        settings.device,
        tuple(model.card.classes),
        refine=REFINE_STEPS if fitted else 0,
    ), model.card.sha256


def _torch_device(device: str) -> str:
    from ..engine.inference.device import choose

    return str(choose(device).torch_device)


def run(
    data: Iterable[Path | str],
    models: Sequence[str] | Mapping[str, Contestant],
    settings: BenchmarkSettings | None = None,
    *,
    output: Path | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_progress: Progress = ignore_progress,
) -> dict[str, Any]:
    """Run the one-shot protocol and return its report.

    Parameters
    ----------
    data : iterable of path
        Data folders.
    models : sequence of str, or mapping of str to Contestant
        Baselines, built-in models or model folders, see `make_contestant`; or
        contestants such as ``ModelContestant(network)`` by their name in the report.
    settings : BenchmarkSettings, optional
    output : path, optional
        JSON file of the report; a markdown file with the tables is written beside it.
        Each record is appended at once to ``<output>l`` (JSON lines).
    resume : bool
        Keep existing records that were made with the same protocol and weights.
    overwrite : bool
        Allow to replace files that no benchmark wrote.
    on_progress : Progress

    Returns
    -------
    dict
        ``recipe``, ``tasks``, ``records`` and ``summary`` (see `report.summarise`).
    """
    if not models:
        raise BenchmarkError(NO_MODEL)
    settings, data = BenchmarkSettings.of(settings), list(data)
    if output is None:
        return _run(data, models, settings, None, resume, on_progress)
    output = Path(output)
    for path in (output, output.with_suffix(".md")):  # now, and not after the work
        check_replaceable(path, overwrite, known=_report_hashes(output))
    check_journal(output, overwrite)
    with claimed(output.parent, f".svpseg-{output.name}.lock"):
        report = _run(data, models, settings, output, resume, on_progress)
        save_report(report, output, overwrite=overwrite)
    return report


def _run(
    data: list[Path | str],
    models: Sequence[str] | Mapping[str, Contestant],
    settings: BenchmarkSettings,
    output: Path | None,
    resume: bool,
    on_progress: Progress,
) -> dict[str, Any]:
    """Return the report of a run; see `run`."""
    tasks = plan(data, settings)
    contestants = {
        name: (models[name], "")
        if isinstance(models, Mapping)
        else make_contestant(name, settings)
        for name in dict.fromkeys(models)
    }
    recipe = {
        "protocol": PROTOCOL,
        "prompts": settings.prompts,
        "max_queries": settings.max_queries,
        "seed": settings.seed,
        "device": settings.device,
        "versions": versions(),
        "models": {name: sha256 for name, (_, sha256) in contestants.items()},
    }
    contents = {str(folder): content_fingerprint(folder) for folder in data}
    journal = _Journal(output, recipe | {"data": contents}, resume)
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
    return {
        "recipe": recipe,
        "tasks": [task.to_dict() for task in tasks],
        "records": records,
        "summary": summarise(records),
    }


def save_report(
    report: dict[str, Any], path: Path | str, *, overwrite: bool = False
) -> None:
    """Write a report as JSON, and its tables as markdown beside it.

    The tables carry no seal: the report has their hash.
    """
    path = Path(path)
    known = _report_hashes(path)
    with atomic_path(path.with_suffix(".md"), overwrite, known=known) as part:
        part.write_text(to_markdown(report), encoding="utf-8")
        tables = file_hash(part)
    with atomic_path(path, overwrite) as part:
        sealed_json(part, {**report, WRITTEN: {path.with_suffix(".md").name: tables}})


def _report_hashes(path: Path) -> list[str]:
    """Return the hashes of files in a report of ours that is there already."""
    if not path.is_file() or origin(path) is not Origin.OURS:
        return []
    return list(read_json(path).get(WRITTEN, {}).values())


def check_journal(output: Path, overwrite: bool) -> None:
    """Raise `ForeignTargetError` if the file of the records is another program's."""
    path = Path(f"{output}l")
    if overwrite or not path.exists():
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        head = file.readline()
    try:
        is_ours = "protocol" in json.loads(head)
    except (ValueError, TypeError):
        is_ours = False
    if not is_ours:
        raise ForeignTargetError(FOREIGN.format(path=path))


def _run_task(
    task: Task, contestants: dict[str, tuple[Contestant, str]], journal: _Journal
) -> Iterator[dict[str, Any]]:
    """Yield the records of a task, from the journal or newly made."""
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
    # a contestant is fitted once to each prompt; a query is kept while it is segmented
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
    """Return the contestant as configured for a task, if it depends on one."""
    if isinstance(contestant, ModelContestant):
        return contestant.for_task(task)
    if isinstance(contestant, FullUNetBaseline):
        return contestant.for_images(task.dataset.ids, task.query)
    return contestant


def _score(
    task: Task, model: str, draw: int, query: Query, answer: Answer, fit_s: float
) -> dict[str, Any]:
    """Return the record of one contestant on one query.

    Its time is that of a user's click: fitting the prompt, the query, and whatever
    another contestant computed for this query before.
    """
    query.take_reused_seconds()  # of the contestants before
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
    """Records made so far, in memory and as JSON lines in a file beside the output.

    Parameters
    ----------
    output : path or None
        JSON file of the report; None keeps the records in memory only.
    recipe : dict
        As in the report.
    resume : bool
    """

    def __init__(
        self, output: Path | str | None, recipe: dict[str, Any], resume: bool
    ) -> None:
        self._path = None if output is None else Path(f"{output}l")
        self._weights: dict[str, str] = recipe["models"]
        self._records: dict[tuple[Any, ...], dict[str, Any]] = {}
        head = {n: recipe[n] for n in COMPARED}
        if self._path is None:
            return
        if resume and self._path.exists():
            self._read(self._path, head)
        else:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(self._path, overwrite=True) as part:
                part.write_text(json.dumps(head) + "\n", encoding="utf-8")

    def _read(self, path: Path, head: dict[str, Any]) -> None:
        """Read the records whose weights are unchanged."""
        lines = path.read_text(encoding="utf-8").split("\n")
        if lines[-1]:  # the process was killed while writing: drop the incomplete line
            with atomic_path(path, overwrite=True) as part:
                part.write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
        if len(lines) < 2 or json.loads(lines[0]) != head:
            raise BenchmarkError(
                f"{path} was made with other settings ({lines[0]}): choose another "
                "output, or start again without --resume."
            )
        for line in lines[1:-1]:
            record = json.loads(line)
            if record.pop("weights") == self._weights.get(record["model"]):
                self._records[_key(record)] = record

    def find(self, *key: Any) -> dict[str, Any] | None:
        """Return the record of data set, class, model, draw and query, or None."""
        return self._records.get(key)

    def add(self, record: dict[str, Any]) -> None:
        """Add a record, and append it to the file."""
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
    settings: BenchmarkSettings | None = None,
    *,
    side: int = 192,
    pick: int = 0,
    overwrite: bool = False,
    on_progress: Progress = ignore_progress,
) -> Path:
    """Write an overview of one draw of each task as an image, and return its path.

    The columns are the prompt with its mask, the query, the true objects (blue), and
    the objects found by each model (orange). With the settings of `run`, it shows the
    first draw of that run on its middle query. The rows are in the order of the Dice of
    the first model there, the worst first.

    Parameters
    ----------
    data, models, settings, on_progress
        See `run`.
    path : path
        PNG file to write.
    side : int
        Side of each square in pixels.
    pick : int
        Show only so many of the worst, the middle and the best tasks each; 0 shows all.
    overwrite : bool
        Allow to replace a file.
    """
    from skimage.io import imsave

    settings = BenchmarkSettings.of(settings)
    tasks = plan(data, settings)
    contestants = {m: make_contestant(m, settings)[0] for m in models}
    rows = []
    for done, task in enumerate(tasks):
        title = f"{task.dataset.name} / {task.name}, box {task.rule.size}"
        on_progress(done, len(tasks), title)
        score, squares = _squares(task, contestants, side)
        rows.append((score, f"{title}, Dice {score:.2f}", squares))
    rows.sort(key=lambda row: row[0])
    if 0 < 3 * pick < len(rows):
        middle = (len(rows) - pick) // 2
        rows = [*rows[:pick], *rows[middle : middle + pick], *rows[-pick:]]
    path = Path(path)
    page = sheet([row[1:] for row in rows], ["prompt", "query", "truth", *models])
    with atomic_path(path, overwrite) as part:
        imsave(part, page, check_contrast=False)
    return path


def _squares(
    task: Task, contestants: dict[str, Contestant], side: int
) -> tuple[float, list[np.ndarray]]:
    """Return the Dice of the first contestant, and the squares of a row."""
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
    score = dice(answers[0] > 0, truth > 0, task.dataset.ignore(query.name))
    return score, [
        outlined(_shown(prompt.image, prompt.intensities), prompt.mask, side),
        outlined(plane, None, side),
        outlined(plane, truth[window], side, colour=1),
        *(outlined(plane, labels[window], side) for labels in answers),
    ]


def _window(truth: np.ndarray, side: int) -> tuple[slice, slice]:
    """Return a window of at most ``side`` pixels around the middle of the objects."""
    middle = np.median(np.argwhere(truth), axis=0)  # not the mean: outliers may be far
    y, x = (
        slice(max(0, start), max(0, start) + side)
        for start in (
            min(int(m) - side // 2, n - side)
            for m, n in zip(middle, truth.shape, strict=True)
        )
    )
    return y, x


def _shown(image: np.ndarray, intensities: np.ndarray) -> np.ndarray:
    """Return an image as (Y, X, 3) in [0, 1], for display."""
    return to_three_channels(normalise(image, intensities) * 0.25 + 0.5)
