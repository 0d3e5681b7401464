"""A simulated user who corrects by clicks: scores on other images by clicks.

    python benchmarks/corrections.py DATA... [--clicks 0,1,2,5,10] [--png FILE]

The user starts from one box of the one-shot protocol, and corrects the first image,
then a second and a third: the largest wrong or missed object comes first, in turns. A
missed object is given with its true outline where the proposed one overlaps it by less
than half, as a user would paint it. Scored are other images, with F1@0.5. Rows: clicks,
random further boxes (as many as clicks), and a random forest on the pixels of the
prompts that the clicks made. Base sets are for tuning, novel sets for reporting.
"""

from __future__ import annotations

import argparse
import zlib
from collections import defaultdict
from pathlib import Path

import numpy as np

import napari_svpseg as svpseg
from napari_svpseg.benchmark.baselines import Query
from napari_svpseg.benchmark.one_shot_tasks import BenchmarkSettings, Task, plan
from napari_svpseg.benchmark.pixel_forest import (
    PixelForest,
    pixel_features,
    split_objects,
)
from napari_svpseg.core.annotation.proposals import propose_object
from napari_svpseg.core.labels.metrics import iou, match_instances
from napari_svpseg.core.prompt import PromptSet

IMAGES = 3
"""Images in which the user corrects."""
SIDE = 384
"""Side of the part of an image that is corrected or scored, in network pixels."""
ROWS = ("clicks", "random boxes", "forest")
SETTINGS = svpseg.SegmentSettings(trust=False)


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


def segmented(query: Query, prompts: PromptSet) -> svpseg.Result:
    """Return our result for a part of an image."""
    plane = query.plane if query.plane.shape[2] > 1 else query.plane[..., 0]
    axes = "YXC" if plane.ndim == 3 else "YX"
    return svpseg.segment(plane, prompts, axes=axes, settings=SETTINGS)


def forest_labels(query: Query, forest: PixelForest) -> np.ndarray:
    """Return the labels of a forest for a part of an image."""
    features = query.once("features", lambda: pixel_features(query.scaled))
    mask = query.full_size(forest.foreground(features)) > 0.5
    return split_objects(mask, forest.splitting, 1 / query.scale)


def f1(query: Query, labels: np.ndarray) -> float:
    """Return F1@0.5."""
    assert query.truth is not None
    return match_instances(labels, query.truth, 0.5, query.ignore).f1


def largest_mistake(
    query: Query, labels: np.ndarray, decided: np.ndarray, *, wrong: bool
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return pixels of the largest wrong or missed object, and a point on it.

    What the user decided on before is no mistake.
    """
    assert query.truth is not None
    shown, other = (labels, query.truth) if wrong else (query.truth, labels)
    skip = (decided != -1) | (other > 0)
    if query.ignore is not None:
        skip = skip | (query.ignore > 0)
    ids, index = np.unique(shown, return_inverse=True)
    index = index.reshape(shown.shape)
    area = np.bincount(index.ravel())
    share = np.bincount(index[skip].ravel(), minlength=len(ids)) / area
    area[(ids == 0) | (share > 0.1)] = 0
    if not area.max(initial=0):
        return None
    mask = index == int(area.argmax())
    free = np.argwhere(mask & ~skip)
    return mask, free[np.argmin(np.abs(free - free.mean(0)).sum(1))]


class User:
    """Corrects images one after the other by clicks.

    Parameters
    ----------
    images : list of Query
    prompts : PromptSet
        Of one box.
    """

    def __init__(self, images: list[Query], prompts: PromptSet) -> None:
        self.images, self.prompts = images, prompts
        self.n_painted = self.n_here_only = 0
        self._wrong_next = True
        self._open(0)

    def _open(self, number: int) -> None:
        self.number = number
        self.query = self.images[number]
        self.result = segmented(self.query, self.prompts)
        self.fixed = np.full(self.query.shape, -1, np.int32)
        self.here = PromptSet()

    def click(self, n_clicks: int) -> bool:
        """Correct one mistake; return False if there is none left."""
        wanted = min(n_clicks * IMAGES // 10, len(self.images) - 1)
        if wanted > self.number:
            self._open(wanted)
        for wrong in (self._wrong_next, not self._wrong_next):
            found = largest_mistake(
                self.query, self.result.labels, self.fixed, wrong=wrong
            )
            if found is not None:
                self._correct(*found, wrong=wrong)
                self._wrong_next = not wrong
                return True
        if self.number + 1 == len(self.images):
            return False
        self._open(self.number + 1)
        return self.click(n_clicks)

    def _correct(self, mask: np.ndarray, point: np.ndarray, *, wrong: bool) -> None:
        plane = self.query.plane
        plane = plane if plane.shape[2] > 1 else plane[..., 0]
        outline: np.ndarray = point
        if not wrong:
            outline = propose_object(
                self.result.maps, self.result.labels, tuple(point), plane
            ).mask
            if iou(outline, mask) < 0.5:
                outline = mask & (self.result.labels == 0)
                self.n_painted += 1
        done = svpseg.correct(
            plane,
            self.prompts,
            self.result,
            not_this=[tuple(point)] if wrong else [],
            this_too=[] if wrong else [outline],
            fixed=self.fixed,
            here_only=self.here,
        )
        self.prompts, self.result = done.prompts, done.result
        self.fixed, self.here = done.fixed, done.here_only
        self.n_here_only += bool(done.notes)


def curves(task: Task, clicks: list[int], seed: int) -> dict[str, list[float]]:
    """Return F1@0.5 of each row after each number of clicks; empty without images."""
    rng = np.random.default_rng([seed, zlib.crc32(task.dataset.name.encode())])
    first = task.draws[0]
    names = [n for n in task.queries if n != first.image]
    if len(names) < IMAGES + 1 or not task.has_objects:
        return {}
    images = [part_of(task, name, rng) for name in names[:IMAGES]]
    scored = [part_of(task, name, rng) for name in names[IMAGES : IMAGES + 3]]
    start = PromptSet([task.prompt(first)])
    used = {query.name for query in scored}
    boxes = [task.prompt(d) for d in task.draws[1:] if d.image not in used]
    user, found = User(images, start), defaultdict(list)
    for n in range(max(clicks) + 1):
        if n:
            user.click(n)
        if n not in clicks:
            continue
        more = start.added(*boxes[:n])
        forest = PixelForest.fit(user.prompts)
        for query in scored:
            row = {
                "clicks": segmented(query, user.prompts).labels,
                "random boxes": segmented(query, more).labels,
                "forest": forest_labels(query, forest),
            }
            for name, labels in row.items():
                found[f"{name} {n}"].append(f1(query, labels))
    print(
        f"{task.dataset.name} / {task.name}: {user.n_painted} outlines painted, "
        f"{user.n_here_only} examples used in one image only",
        flush=True,
    )
    return {
        name: [float(np.mean(found[f"{name} {n}"])) for n in clicks] for name in ROWS
    }


def draw(mean: dict[str, np.ndarray], clicks: list[int], path: Path) -> None:
    """Write the curves as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    for name, values in mean.items():
        axes.plot(clicks, values, marker="o", label=name)
    axes.set(xlabel="clicks", ylabel="F1@0.5 on other images")
    axes.legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    """Print the table, and write the curves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="+", type=Path, help="data folders")
    parser.add_argument("--clicks", default="0,1,2,5,10,20")
    parser.add_argument("--classes", help="only these, separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--png", type=Path, help="picture of the curves")
    options = parser.parse_args()
    clicks = [int(word) for word in options.clicks.split(",")]
    tasks = plan(
        options.data,
        BenchmarkSettings(
            prompts=8,
            max_queries=12,
            seed=options.seed,
            classes=options.classes.split(",") if options.classes else None,
        ),
    )
    found: dict[str, list[list[float]]] = defaultdict(list)
    print("| task, row | " + " | ".join(f"{n} clicks" for n in clicks) + " |")
    print("|---|" + "---|" * len(clicks))
    for task in tasks:
        for name, values in curves(task, clicks, options.seed).items():
            found[name].append(values)
            cells = " | ".join(f"{value:.3f}" for value in values)
            print(
                f"| {task.dataset.name} / {task.name}, {name} | {cells} |", flush=True
            )
    rng = np.random.default_rng(0)
    for name, rows in found.items():
        values = np.array(rows)
        cells = []
        for column in values.T:
            drawn = rng.choice(column, (2000, len(column))).mean(1)
            low, high = np.percentile(drawn, [2.5, 97.5])
            cells.append(f"{column.mean():.3f} ({low:.2f} to {high:.2f})")
        title = f"mean of {len(rows)} tasks, {name} (95 % interval over tasks)"
        print(f"| **{title}** | {' | '.join(cells)} |")
    if options.png and found:
        mean = {name: np.mean(rows, axis=0) for name, rows in found.items()}
        draw(mean, clicks, options.png)


if __name__ == "__main__":
    main()
