"""Time and memory of every method on synthetic images.

    python benchmarks/bench_methods.py [--models alpnet,dspnet] [--repeats 3]

``processor s`` is the processor time of a 512 x 512 image on all cores, from the prompt
to the labels, with a loaded and warm model. ``peak MB`` is the peak of the process on
a 2048 x 2048 image with four prompts, beyond what it used before.
"""

from __future__ import annotations

import argparse
import time

import torch

import napari_svpseg as svpseg
from bench_speed import cells
from napari_svpseg.engine.jobs.allocator import PeakMemory
from napari_svpseg.io.model_store import load_model

MODELS = "svp,svp-concat,svp-attention,panet,alpnet,dspnet"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--large", type=int, default=2048, help="side, in pixels")
    given = parser.parse_args()
    torch.set_num_threads(1)
    source, mask = cells(256, seed=1)
    corners = ((64, 64), (0, 0), (128, 128), (192, 0))
    prompts = [svpseg.Prompt.from_image(source, mask, box=c) for c in corners]
    small, large = cells(512, seed=2)[0], cells(given.large, seed=3)[0]
    quick = svpseg.SegmentSettings(trust=False)
    print("| model | processor s | peak MB |\n|---|---|---|")
    for name in given.models.split(","):
        model = load_model(name)
        options = {"model": model, "device": "cpu", "settings": quick}
        seconds = []
        for _ in range(given.repeats + 1):
            start = time.process_time()
            svpseg.segment(small, svpseg.PromptSet(prompts[:1]), **options)
            seconds.append(time.process_time() - start)
        with PeakMemory() as memory:
            svpseg.segment(large, svpseg.PromptSet(prompts), **options)
        print(f"| {name} | {min(seconds[1:]):.2f} | {memory.peak_mb:.0f} |", flush=True)


if __name__ == "__main__":
    main()
