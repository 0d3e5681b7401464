"""Time from click to mask on a 512 x 512 image, compared with the random forest.

    python benchmarks/bench_speed.py [--model svp] [--threads 2] [--json out.json]

Ours: from one prompt to the finished labels, including all post-processing, by the same
call that the dock makes, with a warm engine. Forest: filter features of prompt and
query, fit, predict, split. Both alternate in one run; medians are reported.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

import napari_svpseg as svpseg
from napari_svpseg.benchmark.baselines import ForestBaseline, Query
from napari_svpseg.io.model_store import load_model


def cells(side: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a synthetic fluorescence image (16 bit) and its labels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    labels = np.zeros((side, side), np.int32)
    for i in range(1, side * side // 1600):
        cy, cx = rng.integers(0, side, 2)
        height, width = rng.uniform(7, 13, 2)
        where = ((y - cy) / height) ** 2 + ((x - cx) / width) ** 2 <= 1
        if not labels[where].any():
            labels[where] = i
    image = 900 * ndimage.gaussian_filter((labels > 0).astype(float), 1.5)
    image = rng.poisson(100 + image * rng.uniform(0.5, 1.5, labels.max() + 1)[labels])
    return image.astype(np.uint16), labels


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="svp")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    source, mask = cells(256, seed=1)
    query, _ = cells(options.size, seed=2)
    prompt = svpseg.Prompt.from_image(source, mask, box=(64, 64))
    model = load_model(options.model)

    def ours(trust: bool = True) -> None:
        svpseg.segment(
            query,
            svpseg.PromptSet([prompt]),
            model=model,
            device=options.device,
            settings=svpseg.SegmentSettings(trust=trust),
        )

    def forest() -> None:
        fitted = ForestBaseline(n_threads=options.threads).fit(prompt)
        fitted(Query(query[..., None]))

    works: dict[str, Callable[[], None]] = {
        options.model: ours,
        f"{options.model} without trust": lambda: ours(trust=False),
        "forest": forest,
    }
    seconds = medians(works, options.repeats)
    for name, value in seconds.items():
        ratio = seconds["forest"] / value
        print(f"{name:24s} {value:7.3f} s   {ratio:5.2f} x the forest's speed")
    if options.json:
        options.json.write_text(
            json.dumps(
                {
                    "size": options.size,
                    "threads": options.threads,
                    "median_seconds": seconds,
                },
                indent=1,
            )
        )


def medians(works: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Return the median time of each piece of work, taken in turns after a warm-up."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    main()
