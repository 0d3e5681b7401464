"""How long a folder takes: images of 512 x 512 with one set of prompts.

    python benchmarks/bench_folder.py             500 images, labels only
    python benchmarks/bench_folder.py --images 50 --formats ome-tiff,rois,geojson,csv

The images are drawn: about 190 cells each, none like another. Prints seconds an image
and what 500 would take, and beside it the processor's time, which does not grow where
other programs work at the same time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

from napari_svpseg.batch import run_batch
from napari_svpseg.core.batch import BatchJob
from napari_svpseg.core.prompt import Prompt, PromptSet
from napari_svpseg.engine.device import choose
from napari_svpseg.io.prompts import save_prompts

SIDE, STEP = 512, 36


def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a uint8 image of discs and their labels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    labels = np.zeros((SIDE, SIDE), np.int32)
    corners = range(STEP // 2, SIDE - STEP // 2, STEP)
    for n, (cy, cx) in enumerate(((a, b) for a in corners for b in corners), start=1):
        dy, dx = rng.integers(-5, 6, 2)
        labels[(y - cy - dy) ** 2 + (x - cx - dx) ** 2 <= rng.integers(7, 13) ** 2] = n
    image = 30 + 140 * (labels > 0) + rng.normal(0, 8, labels.shape)
    return np.clip(image, 0, 255).astype(np.uint8), labels


def main() -> None:
    """Draw the folder, run it once, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--formats", default="ome-tiff")
    parser.add_argument("--model", default="svp")
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        for seed in range(asked.images):
            tifffile.imwrite(folder / f"images/{seed:04}.tif", draw(seed)[0])
        prompt = Prompt.from_image(*draw(asked.images), (8, 8))
        prompts = save_prompts(PromptSet([prompt]), folder / "cells.svprompt")
        job = BatchJob(
            (str(folder / "images"),), str(prompts), str(folder / "out"), asked.model,
            {"device": asked.device}, tuple(asked.formats.split(",")),
        )
        start, worked = time.perf_counter(), time.process_time()
        outcomes = run_batch(job)
        seconds = time.perf_counter() - start
        worked = time.process_time() - worked
    each = seconds / asked.images
    failed = sum(outcome.status != "done" for outcome in outcomes)
    print(
        f"{asked.images} images, {asked.formats}, on {choose(asked.device)}: "
        f"{seconds:.1f} s, {each:.3f} s an image, 500 in {500 * each / 60:.1f} min; "
        f"{worked / asked.images:.3f} s of one core an image; "
        f"{failed} failed, {outcomes[0].objects} objects in the first, "
        f"trust {outcomes[0].trust:.2f}"
    )


if __name__ == "__main__":
    main()
