"""What further boxes add: boxes of the query itself beside boxes of other images.

Rows of the table are one, two, four and eight boxes of other images, and one, four and
eight boxes of the query itself. Boxes are chosen as a person would
(`protocol.find_good_box`). All rows of an image are scored on the same pixels: those
outside its own boxes.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from ..core.labels.instances import instances_from_maps
from ..core.labels.metrics import dice, match_instances
from ..core.prompt import Prompt, PromptSet
from ..core.settings import PostprocessSettings, SegmentSettings
from .baselines import Query
from .error_kinds import KINDS, error_kinds, oracle_foreground, oracle_ids
from .one_shot_tasks import Draw, Task
from .pixel_forest import PixelForest, pixel_features, split_objects
from .protocol import find_good_box
from .report import paired_interval, worst_quarter

OTHER, OWN = (1, 2, 4, 8), (1, 4, 8)
ROWS = (*(f"other {n}" for n in OTHER), *(f"own {n}" for n in OWN))
PAIRS = (
    ("other 2", "other 1"),
    ("other 4", "other 1"),
    ("other 8", "other 1"),
    ("own 4", "own 1"),
    ("own 8", "own 1"),
    ("own 1", "other 1"),
)
"""Rows that are compared, the second subtracted from the first."""
FOREST = "forest"
OVERLAP = 0.25
"""Largest share of a box that may lie in other boxes of the same image."""
LEAST_LEFT = 0.2
"""Least share of an image that its own boxes must leave to be scored."""
TRUSTED = 0.8


@dataclass(frozen=True, eq=False)
class Row:
    """The prompts of one row of a query, and the pixels that are not scored.

    Parameters
    ----------
    name : str
        One of `ROWS`.
    prompts : tuple of Prompt
    ignore : (Y, X) bool array
    """

    name: str
    prompts: tuple[Prompt, ...]
    ignore: np.ndarray


def rows_of(task: Task, image: str, seed: int = 0) -> list[Row]:
    """Return the rows of a query, none if nothing would be left to score.

    Parameters
    ----------
    task : Task
    image : str
        Name of the query.
    seed : int
    """
    rng = np.random.default_rng(
        [seed, zlib.crc32(f"{task.dataset.name}:{task.name}:{image}".encode())]
    )
    truth, ignore = task.truth(image), task.dataset.ignore(image)
    ignore = np.zeros(truth.shape, bool) if ignore is None else ignore > 0
    covered = ignore.copy()
    own: list[Prompt] = []
    for _ in range(3 * max(OWN)):
        box = find_good_box(truth, task.rule, rng, ignore)
        if box is None or len(own) == max(OWN):
            break
        if covered[box.slices].mean() <= OVERLAP:
            covered[box.slices] = True
            own.append(task.prompt(Draw(image, box)))
    if covered.mean() > 1 - LEAST_LEFT or not truth[~covered].any():
        return []
    found = [Row(f"own {n}", tuple(own[:n]), covered) for n in OWN if len(own) >= n]
    others = rng.permutation([i for i in task.queries if i != image]).tolist()
    drawn: list[Prompt] = []
    for other in (others * max(OTHER))[: 3 * max(OTHER)]:
        if len(drawn) == max(OTHER):
            break
        rule, known = task.rule, task.dataset.ignore(other)
        box = find_good_box(task.truth(other), rule, rng, known)
        if box is not None:
            drawn.append(task.prompt(Draw(other, box)))
    found += [
        Row(f"other {n}", tuple(drawn[:n]), covered) for n in OTHER if len(drawn) >= n
    ]
    return found


def drawn_queries(task: Task, n: int, seed: int = 0) -> Iterator[tuple[str, list[Row]]]:
    """Yield ``n`` queries of a task drawn at random, those that have rows, with these.

    Parameters
    ----------
    task : Task
    n : int
        Fewer where fewer have rows.
    seed : int
        Of the draw, and of the boxes.
    """
    done = 0
    for image in np.random.default_rng(seed).permutation(task.queries).tolist():
        if rows := rows_of(task, image, seed):
            yield image, rows
            done += 1
        if done == n:
            return


def scored(
    task: Task, image: str, row: Row, models: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield the record of each contestant for one row of a query.

    Parameters
    ----------
    task : Task
    image : str
    row : Row
    models : mapping of str to network or None
        None is the random forest.
    """
    query = task.query(image)
    truth = query.truth
    assert truth is not None  # `Task.query` reads it
    post = PostprocessSettings()
    for name, network in models.items():
        record: dict[str, Any] = {
            "task": f"{task.dataset.name}:{task.name}",
            "image": image,
            "row": row.name,
            "model": name,
        }
        if network is None:
            labels = forest_labels(query, row.prompts)
        else:
            from ..engine.inference.predict import predict

            prediction = predict(
                query.plane, PromptSet(row.prompts), network, None, SegmentSettings()
            )
            labels = instances_from_maps(prediction.maps, post)
            record["trust"] = prediction.trust
            if task.has_objects:
                oracles = {
                    "true_foreground": oracle_foreground(prediction.maps, truth, post),
                    "true_ids": oracle_ids(labels, truth),
                }
                for key, other in oracles.items():
                    record[key] = match_instances(other, truth, 0.5, row.ignore).f1
        record["dice"] = dice(labels > 0, truth > 0, row.ignore)
        record["f1"] = None
        if task.has_objects:
            record["f1"] = match_instances(labels, truth, 0.5, row.ignore).f1
            record["errors"] = error_kinds(labels, truth, row.ignore)
        yield record


def forest_labels(query: Query, prompts: Sequence[Prompt]) -> np.ndarray:
    """Return the labels that the random forest of these prompts finds."""
    forest = PixelForest.fit(prompts)
    features = query.once("features", lambda: pixel_features(query.scaled))
    mask = query.full_size(forest.foreground(features)) > 0.5
    return split_objects(mask, forest.splitting, 1 / query.scale)


def to_markdown(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the tables of records as markdown."""
    models = list(dict.fromkeys(r["model"] for r in records))
    rows = [row for row in ROWS if any(r["row"] == row for r in records)]
    parts = [_scores(records, models, rows)]
    if changes := _changes(records, models):
        parts.append(changes)
    parts += [
        table
        for table in (
            _errors(records, models, rows),
            _oracles(records, models, rows),
            _trust(records, models),
        )
        if table
    ]
    return "\n\n".join(parts)


def _means(
    records: Sequence[Mapping[str, Any]], model: str, row: str, key: str
) -> dict[str, float]:
    """Return the mean of a value for each task."""
    values: dict[str, list[float]] = defaultdict(list)
    for r in records:
        if (r["model"], r["row"]) == (model, row) and r.get(key) is not None:
            values[r["task"]].append(r[key])
    return {task: float(np.mean(found)) for task, found in values.items()}


def _scores(
    records: Sequence[Mapping[str, Any]], models: list[str], rows: list[str]
) -> str:
    """Return Dice / F1@0.5 and the worst quarter of Dice of each model and row."""
    lines = [
        "Dice / F1@0.5 (worst quarter of Dice; tasks)",
        "",
        f"| | {' | '.join(rows)} |",
        "|---" * (len(rows) + 1) + "|",
    ]
    for model in models:
        cells = []
        for row in rows:
            d, f = (_means(records, model, row, key) for key in ("dice", "f1"))
            cells.append(
                f"{_mean(d.values())} / {_mean(f.values())} "
                f"({worst_quarter(d.values()):.3f}; {len(d)})"
            )
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _changes(records: Sequence[Mapping[str, Any]], models: list[str]) -> str:
    """Return differences in points with 95 % intervals over the tasks of both rows."""
    compared = [((m, a), (m, b)) for m in models for a, b in PAIRS]
    if FOREST in models:
        ours = [m for m in models if m != FOREST]
        compared += [((m, row), (FOREST, row)) for m in ours for row in ROWS]
    lines = []
    for one, two in compared:
        cells = []
        tasks: set[str] = set()
        lost = ""
        for key in ("dice", "f1"):
            a, b = (_means(records, *side, key) for side in (one, two))
            mean, low, high = paired_interval(a, b)
            cells.append(f"{100 * mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})")
            if key == "dice":
                tasks = set(a) & set(b)
                if tasks:
                    task = min(tasks, key=lambda t: a[t] - b[t])
                    lost = f"{100 * (a[task] - b[task]):+.1f} {task}"
        if tasks:
            names = " - ".join(" ".join(side) for side in (one, two))
            lines.append(f"| {names} | {len(tasks)} | {' | '.join(cells)} | {lost} |")
    if not lines:
        return ""
    head = "| difference in points | tasks | Dice | F1@0.5 | least, of Dice |"
    return "\n".join([head, "|---" * 5 + "|", *lines])


def _errors(
    records: Sequence[Mapping[str, Any]], models: list[str], rows: list[str]
) -> str:
    """Return the share of each error in the lost F1, means over tasks."""
    lines = []
    for model in models:
        for row in rows:
            shares = defaultdict(list)
            for r in records:
                total = sum(r.get("errors", {}).values())
                if (r["model"], r["row"]) == (model, row) and total:
                    shares[r["task"]].append([r["errors"][k] / total for k in KINDS])
            if shares:
                means = np.mean([np.mean(s, axis=0) for s in shares.values()], axis=0)
                cells = " | ".join(f"{100 * v:.0f} %" for v in means)
                lines.append(f"| {model} | {row} | {cells} |")
    if not lines:
        return ""
    head = f"| lost F1 | row | {' | '.join(KINDS)} |"
    return "\n".join([head, "|---" * (len(KINDS) + 2) + "|", *lines])


def _oracles(
    records: Sequence[Mapping[str, Any]], models: list[str], rows: list[str]
) -> str:
    """Return the F1 with the true foreground, and with the true ids."""
    lines = []
    for model in models:
        for row in rows:
            f, foreground, ids = (
                _means(records, model, row, key)
                for key in ("f1", "true_foreground", "true_ids")
            )
            if foreground:
                values = (_mean(v.values()) for v in (f, foreground, ids))
                lines.append(f"| {model} | {row} | {' | '.join(values)} |")
    if not lines:
        return ""
    head = (
        "| F1@0.5 | row | as found | true foreground, our objects "
        "| our foreground, true ids |"
    )
    return "\n".join([head, "|---" * 5 + "|", *lines])


def _trust(records: Sequence[Mapping[str, Any]], models: list[str]) -> str:
    """Return how well the trust of each model tells its Dice."""
    lines = []
    for model in models:
        pairs = [
            (r["trust"], r["dice"])
            for r in records
            if r["model"] == model and r.get("trust") is not None
        ]
        if len(pairs) > 2:
            trust, score = np.array(pairs).T
            rank = float(spearmanr(trust, score).statistic)
            high = score[trust >= TRUSTED]
            bad = f"{100 * (high < 0.5).mean():.0f} %" if len(high) else "-"
            share = f"{100 * len(high) / len(score):.0f} %"
            lines.append(f"| {model} | {rank:.2f} | {share} | {bad} |")
    if not lines:
        return ""
    head = (
        "| trust | rank correlation with Dice | results of 0.8 or more "
        "| of these with Dice below 0.5 |"
    )
    return "\n".join([head, "|---" * 4 + "|", *lines])


def _mean(values: Any) -> str:
    """Return the mean of values as text, a dash without any."""
    values = list(values)
    return f"{np.mean(values):.3f}" if values else "-"
