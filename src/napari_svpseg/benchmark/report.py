"""Reports of benchmark records: means, intervals, tables and contact sheets."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from skimage.segmentation import find_boundaries

Records = Sequence[Mapping[str, Any]]
MEASURES = ("dice", "iou", "f1", "ap")
BASELINE = "forest"
"""The baseline that all other contestants are compared with."""
N_RESAMPLES = 2000
"""Bootstrap samples."""
TOLERANCE = 0.02
"""A task counts as worse than the baseline if its Dice is lower by more than this."""
COLOURS = ((255, 176, 0), (0, 180, 255))
"""Outlines in contact sheets: orange, blue."""
NO_ROWS = "no images for the sheet"


def task_name(record: Mapping[str, Any]) -> str:
    """Return ``data set / class``."""
    return f"{record['dataset']} / {record['class']}"


def task_means(records: Records, measure: str) -> dict[str, dict[str, float]]:
    """Return the mean of a measure for each model and task.

    A task's mean is taken over prompts, of the means over queries: a prompt with few
    queries counts as much as any. Tasks without values of the measure are left out.

    Parameters
    ----------
    records : sequence of mapping
        As in the benchmark's JSON file.
    measure : str
        Name of a field of the records.

    Returns
    -------
    dict
        ``means[model][task]``.
    """
    # by (model, task, draw)
    values: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for record in records:
        if record[measure] is not None:
            key = (record["model"], task_name(record), record["draw"])
            values[key].append(float(record[measure]))
    draws: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (model, task, _), scores in values.items():
        draws[model][task].append(float(np.mean(scores)))
    return {
        model: {task: float(np.mean(means)) for task, means in tasks.items()}
        for model, tasks in draws.items()
    }


def worst_quarter(values: Iterable[float]) -> float:
    """Return the mean of the lowest quarter of the values (at least one).

    Examples
    --------
    >>> worst_quarter([0.9, 0.1, 0.3, 0.8, 0.7])
    0.2
    """
    ordered = sorted(values)
    if not ordered:
        return math.nan
    return float(np.mean(ordered[: math.ceil(len(ordered) / 4)]))


def paired_interval(
    ours: Mapping[str, float], theirs: Mapping[str, float], seed: int = 0
) -> tuple[float, float, float]:
    """Return the mean difference over common tasks and its 95 % bootstrap interval.

    Tasks are resampled, not images, because the question is what to expect of another
    kind of cell.

    Parameters
    ----------
    ours, theirs : mapping of str to float
        Scores of each task.
    seed : int

    Returns
    -------
    mean, low, high : float
        NaN without a common task.
    """
    tasks = sorted(set(ours) & set(theirs))
    if not tasks:
        return (math.nan, math.nan, math.nan)
    differences = np.array([ours[t] - theirs[t] for t in tasks])
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(tasks), size=(N_RESAMPLES, len(tasks)))  # with replacement
    low, high = np.percentile(differences[picks].mean(axis=1), [2.5, 97.5])
    return (float(differences.mean()), float(low), float(high))


def summarise(records: Records, baseline: str = BASELINE) -> dict[str, dict[str, Any]]:
    """Return the scores of each model over all tasks, and its gain over the baseline.

    Parameters
    ----------
    records : sequence of mapping
    baseline : str
        Model that the others are compared with, if it took part.

    Returns
    -------
    dict
        For each model: ``tasks`` (their number), ``dice``, ``iou``, ``f1``, ``ap``
        (means over tasks), ``dice_worst_quarter``, ``f1_worst_quarter``, ``seconds``
        (median over records), ``peak_mb`` (largest). With the baseline also
        ``dice_gain`` and ``f1_gain`` (mean, low, high), ``times_faster`` (median over
        queries) and ``tasks_below`` (names of tasks in which it is worse by more than
        `TOLERANCE`).
    """
    means = {measure: task_means(records, measure) for measure in MEASURES}
    return {
        model: _summary_of(model, records, means, baseline) for model in means["dice"]
    }


def _summary_of(
    model: str,
    records: Records,
    means: dict[str, dict[str, dict[str, float]]],
    baseline: str,
) -> dict[str, Any]:
    """Return the summary of one model, see `summarise`."""
    own = [r for r in records if r["model"] == model]
    seconds = [r["seconds"] for r in own if r["seconds"] is not None]
    peaks = [r["peak_mb"] for r in own if r["peak_mb"] is not None]
    row: dict[str, Any] = {"tasks": len(means["dice"][model])}
    for measure in MEASURES:
        scores = list(means[measure].get(model, {}).values())
        row[measure] = float(np.mean(scores)) if scores else None
    for measure in ("dice", "f1"):
        scores = list(means[measure].get(model, {}).values())
        row[f"{measure}_worst_quarter"] = worst_quarter(scores) if scores else None
    row["seconds"] = float(np.median(seconds)) if seconds else None
    row["peak_mb"] = max(peaks) if peaks else None
    if model != baseline and baseline in means["dice"]:
        for measure in ("dice", "f1"):
            gain = paired_interval(
                means[measure].get(model, {}), means[measure].get(baseline, {})
            )
            row[f"{measure}_gain"] = None if math.isnan(gain[0]) else list(gain)
        row["times_faster"] = _times_faster(records, model, baseline)
        row["tasks_below"] = [
            task
            for task, score in means["dice"][model].items()
            if score < means["dice"][baseline].get(task, -1) - TOLERANCE
        ]
    return row


def _times_faster(records: Records, model: str, baseline: str) -> float | None:
    """Return the median ratio of the baseline's time to the model's, by query."""

    def key(record: Mapping[str, Any]) -> tuple[Any, ...]:
        return (task_name(record), record["draw"], record["query"])

    theirs = {key(r): r["seconds"] for r in records if r["model"] == baseline}
    ratios = [
        theirs[key(r)] / r["seconds"]
        for r in records
        if r["model"] == model and r["seconds"] and theirs.get(key(r))
    ]
    return float(np.median(ratios)) if ratios else None


def to_markdown(report: Mapping[str, Any]) -> str:
    """Return the report as markdown: a summary, then a table of tasks per measure."""
    records, summary = report["records"], report["summary"]
    models = list(summary)
    parts = [
        "| model | tasks | Dice | worst quarter | F1@0.5 | worst quarter | AP@0.5 "
        "| Dice against forest | F1 against forest | s | times faster | peak MB |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|---|\n"
        + "".join(_summary_line(model, summary[model]) for model in models)
    ]
    for measure, title in (("dice", "Dice"), ("f1", "F1@0.5")):
        means = task_means(records, measure)
        tasks = sorted({t for scores in means.values() for t in scores})
        if tasks:
            rule = "|---" * (len(models) + 1)
            parts.append(
                f"{title} per task\n\n| task | {' | '.join(models)} |\n{rule}|\n"
                + "".join(_task_line(task, models, means) for task in tasks)
            )
    return "\n".join(parts)


def _summary_line(model: str, row: Mapping[str, Any]) -> str:
    """Return a model's line of the summary table."""
    cells = [
        model,
        str(row["tasks"]),
        _number(row["dice"]),
        _number(row["dice_worst_quarter"]),
        _number(row["f1"]),
        _number(row["f1_worst_quarter"]),
        _number(row["ap"]),
        _gain(row.get("dice_gain")),
        _gain(row.get("f1_gain")),
        _number(row["seconds"]),
        _number(row.get("times_faster"), 1),
        _number(row["peak_mb"], 0),
    ]
    return "| " + " | ".join(cells) + " |\n"


def _task_line(
    task: str, models: Sequence[str], means: Mapping[str, Mapping[str, float]]
) -> str:
    scores = [_number(means.get(model, {}).get(task)) for model in models]
    return f"| {task} | " + " | ".join(scores) + " |\n"


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _gain(gain: Sequence[float] | None) -> str:
    return "-" if gain is None else "{:+.3f} ({:+.3f} to {:+.3f})".format(*gain)


def outlined(
    image: np.ndarray, labels: np.ndarray | None, side: int, colour: int = 0
) -> np.ndarray:
    """Return an image resized into a square, with the objects outlined.

    Parameters
    ----------
    image : (Y, X, 3) float array
        In [0, 1].
    labels : (Y, X) int array or None
        Object ids; None draws no outlines.
    side : int
        Of the square, in pixels.
    colour : int
        Number of a colour in `COLOURS`.

    Returns
    -------
    (side, side, 3) uint8 array
        The image keeps its proportions; the rest is black.
    """
    # nearest neighbours, so that labels are resized in the same way
    zoom = side / max(image.shape[:2])
    shape = [max(1, round(n * zoom)) for n in image.shape[:2]]
    rows, columns = (
        np.minimum((np.arange(n) + 0.5) / zoom, size - 1).astype(int)
        for n, size in zip(shape, image.shape[:2], strict=True)
    )
    shown = np.round(255 * np.clip(image[np.ix_(rows, columns)], 0, 1))
    if labels is not None:
        lines = find_boundaries(labels[np.ix_(rows, columns)], mode="inner")
        shown[lines] = COLOURS[colour]
    square = np.zeros((side, side, 3), np.uint8)
    square[: shape[0], : shape[1]] = shown
    return square


def sheet(
    rows: Sequence[tuple[str, Sequence[np.ndarray]]], titles: Sequence[str]
) -> np.ndarray:
    """Return one image with rows of squares; the name of a row is written above it.

    Parameters
    ----------
    rows : sequence of (str, squares)
        Name and squares from `outlined`, all of one size.
    titles : sequence of str
        Titles of the columns.

    Returns
    -------
    (Y, X, 3) uint8 array
    """
    from PIL import Image, ImageDraw

    if not rows:
        raise ValueError(NO_ROWS)
    gap, line = 4, 14
    side = rows[0][1][0].shape[0]
    width = len(titles) * (side + gap) + gap
    height = line + gap + len(rows) * (side + line + gap)
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    for column, title in enumerate(titles):
        draw.text((gap + column * (side + gap), 1), title, fill="black")
    for row, (name, squares) in enumerate(rows):
        y = line + gap + row * (side + line + gap)
        draw.text((gap, y), name, fill="black")
        for column, square in enumerate(squares):
            x = gap + column * (side + gap)
            canvas.paste(Image.fromarray(square), (x, y + line))
    return np.asarray(canvas)
