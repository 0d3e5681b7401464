"""How long a correction takes: the visible image, and all others that follow.

    python benchmarks/bench_click.py [--images 30] [--side 512] [--boxes 1]

Drawn images with nuclei, `svp`, on the processor. All were segmented before, so that
their encoding is in the cache of the process, as it is in the engine of the dock.
Prints seconds and processor-seconds: only the latter mean something on a busy machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

import napari_svpseg as svpseg
from napari_svpseg.core.annotation.corrections import positive_example
from napari_svpseg.core.image import intensity_range
from napari_svpseg.core.prompt import Prompt, PromptSet
from napari_svpseg.engine.inference.cache import keep_query_features
from napari_svpseg.engine.jobs.processors import prepare_threads
from napari_svpseg.plugin.layers.results.run_step import MAX_TOGETHER
from napari_svpseg.workflows.correct_image import split_by_agreement
from napari_svpseg.workflows.segment_several import segment_several

SETTINGS = svpseg.SegmentSettings(device="cpu", trust=False)


def scene(side: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image of discs on a grid, and their ids."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    labels = np.zeros((side, side), np.int32)
    centres = [
        (r, c) for r in range(16, side - 12, 30) for c in range(16, side - 12, 30)
    ]
    for i, (row, column) in enumerate(centres, 1):
        at = row + rng.integers(-3, 4), column + rng.integers(-3, 4)
        labels[np.hypot(y - at[0], x - at[1]) <= rng.uniform(7, 10)] = i
    return 200 + 500.0 * (labels > 0) + rng.normal(0, 40, labels.shape), labels


def timed(what: str, work: Callable[[], object]) -> None:
    """Print how long something takes."""
    wall, own = time.perf_counter(), time.process_time()
    work()
    wall, own = time.perf_counter() - wall, time.process_time() - own
    print(f"| {what} | {wall:.2f} | {own:.2f} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=30)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--boxes", type=int, default=1)
    options = parser.parse_args()
    prepare_threads()
    keep_query_features()
    scenes = [scene(options.side, seed) for seed in range(options.images)]
    image, labels = scenes[0]
    prompts = PromptSet(
        Prompt.from_image(scenes[i][0], scenes[i][1], (40, 40), name=f"box {i}")
        for i in range(options.boxes)
    )
    svpseg.segment(image, prompts, settings=SETTINGS)  # imports and first use
    print(
        f"| {options.images} images of {options.side} x {options.side} | s | core-s |"
    )
    print("|---|---|---|")

    def all_images(given: PromptSet, first: int = 0) -> None:
        calls = [((s, given), {"settings": SETTINGS}) for s, _ in scenes[first:]]
        for i in range(0, len(calls), MAX_TOGETHER):
            segment_several(calls[i : i + MAX_TOGETHER], on_partial=lambda _: None)

    timed("first run of all images", lambda: all_images(prompts))
    result = svpseg.segment(image, prompts, settings=SETTINGS)
    y, x = np.argwhere(result.labels > 0)[5]
    missed = labels == np.median(labels[labels > 0]).astype(int)
    example = positive_example(
        image,
        result.labels,
        missed,
        prompts,
        intensities=intensity_range(image[..., None]),
    )
    wrong = svpseg.correct(image, prompts, result, not_this=[(int(y), int(x))])
    for what, grown in (
        ("Not this", wrong.prompts),
        ("This too", prompts.added(example)),
    ):
        timed(
            f"*{what}*, the visible image",
            lambda grown=grown: svpseg.segment(image, grown, settings=SETTINGS),
        )
        timed(
            f"*{what}*, check against the earlier examples",
            lambda grown=grown: split_by_agreement(
                prompts, PromptSet(list(grown)[len(prompts) :]), "svp", SETTINGS
            ),
        )
        timed(
            f"*{what}*, {options.images - 1} others",
            lambda grown=grown: all_images(grown, 1),
        )


if __name__ == "__main__":
    main()
