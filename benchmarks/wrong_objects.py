"""What one click on a wrong object costs the right ones, and takes off.

    python benchmarks/wrong_objects.py [DATA/monuseg_he_nuclei] [--image TCGA-21-5786]

Two tables. The drawn scenes have two kinds of objects, of which one is wanted: the
share of each kind that is found before and after one *Not this*, in three images. The
real image is one in which a box on unwanted nuclei, all of it background, once took
Dice from 0.71 to 0.44: Dice before, after that box, after a click on a wrong object
and after a click on a right one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import napari_svpseg as svpseg
from napari_svpseg.benchmark.one_shot_tasks import BenchmarkSettings, plan
from napari_svpseg.core.image import intensity_range
from napari_svpseg.core.labels.metrics import dice, match_instances
from napari_svpseg.core.prompt import Prompt, PromptSet

IMAGE = "TCGA-21-5786"
DRAW = 2
"""Which box of the one-shot protocol is drawn."""
SETTINGS = svpseg.SegmentSettings(trust=False)
SCENES, SIDE, STEP = 3, 160, 32
KINDS = ("brightness", "a hole")
"""By what the two kinds of a drawn scene differ."""


def two_kinds(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return an image of two kinds of discs, its ids, and which are unwanted."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    labels = np.zeros((SIDE, SIDE), np.int32)
    image = np.full((SIDE, SIDE), 200.0)
    centres = range(STEP // 2, SIDE, STEP)
    places = [(row, column) for row in centres for column in centres]
    unwanted = np.arange(len(places) + 1) % 2 == 0
    unwanted[0] = False
    for i, (row, column) in enumerate(places, 1):
        far = np.hypot(y - row - rng.integers(-4, 5), x - column)
        radius = rng.uniform(7.5, 9)
        labels[far <= radius] = i
        bright = 950 if unwanted[i] and kind == "brightness" else 600
        image[far <= radius] = bright
        if unwanted[i] and kind == "a hole":
            image[far <= 0.5 * radius] = 200
    return image + rng.normal(0, 40, image.shape), labels, unwanted


def found(labels: np.ndarray, truth: np.ndarray, ids: np.ndarray) -> float:
    """Return the share of some objects that is found."""
    return float(np.mean([np.mean(labels[truth == i] > 0) > 0.5 for i in ids]))


def scene_rows(kind: str) -> list[str]:
    """Return the rows of the drawn scenes of one kind."""
    image, truth, unwanted = two_kinds(kind, 0)
    noise = np.random.default_rng(1).normal(200, 40, image.shape)
    clean = np.where(unwanted[truth], noise, image)  # the box shows one kind only
    wanted_ids, other_ids = np.flatnonzero(~unwanted)[1:], np.flatnonzero(unwanted)
    prompt = Prompt.from_image(
        clean,
        np.where(unwanted[truth], 0, truth),
        (48, 48),
        intensities=intensity_range(image[..., None]),
    )
    result = svpseg.segment(image, prompt, settings=SETTINGS)
    at = np.argwhere((truth == other_ids[2]) & (result.labels > 0))
    grown = prompt_set = PromptSet([prompt])
    if len(at):
        y, x = at[len(at) // 2]
        done = svpseg.correct(image, prompt_set, result, not_this=[(int(y), int(x))])
        grown = done.prompts
    rows = []
    for name, prompts in (("one box", prompt_set), ("one click", grown)):
        shares = []
        for seed in range(SCENES):
            image, truth, _ = two_kinds(kind, seed)
            labels = svpseg.segment(image, prompts, settings=SETTINGS).labels
            shares.append([found(labels, truth, i) for i in (wanted_ids, other_ids)])
        wanted, other = np.mean(shares, axis=0)
        rows.append(f"| {kind}, {name} | {wanted:.2f} | {other:.2f} |")
    return rows


def real_rows(folder: Path, name: str) -> list[str]:
    """Return the rows of a real image."""
    (task,) = plan([folder], BenchmarkSettings())
    image = next(i for i in task.dataset.ids if name in i)
    query, start = task.query(image), PromptSet([task.prompt(task.draws[DRAW])])
    plane, truth = query.plane, query.truth
    assert truth is not None
    result = svpseg.segment(plane, start, axes="YXC", settings=SETTINGS)
    matched = match_instances(result.labels, truth, 0.5).pairs
    ids = np.unique(result.labels[result.labels > 0])
    wrong = [i for i in ids if np.mean(truth[result.labels == i] > 0) <= 0.1]
    rows = [f"| one box | {dice(result.labels, truth):.3f} |"]
    for what, chosen in (
        ("a wrong nucleus", wrong[:1]),
        ("a right nucleus", [p for p, _, _ in matched[:1]]),
    ):
        for label in chosen:
            y, x = np.argwhere(result.labels == label)[3]
            done = svpseg.correct(plane, start, result, not_this=[(int(y), int(x))])
            score = dice(done.result.labels, truth)
            rows.append(f"| a click on {what} | {score:.3f} |")
    # all of the box is background, right nuclei among it: an old negative box
    side = task.rule.size
    middle = np.argwhere(result.labels == (wrong or list(ids))[0]).mean(0)
    corner = [
        int(np.clip(round(c - side / 2), 0, n - side))
        for c, n in zip(middle, truth.shape, strict=True)
    ]
    box = Prompt.from_image(
        plane, None, (corner[0], corner[1]), size=side, negative=True
    )
    labels = svpseg.segment(
        plane, start.added(box), axes="YXC", settings=SETTINGS
    ).labels
    return [*rows, f"| a box of background | {dice(labels, truth):.3f} |"]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--image", default=IMAGE)
    options = parser.parse_args()
    print("| drawn scenes of two kinds, that differ in | wanted | unwanted found |")
    print("|---|---|---|")
    for kind in KINDS:
        print("\n".join(scene_rows(kind)), flush=True)
    if options.data is not None:
        print(f"\n| {options.data.name}, {options.image} | Dice |\n|---|---|")
        print("\n".join(real_rows(options.data, options.image)))


if __name__ == "__main__":
    main()
