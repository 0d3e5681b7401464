"""Peak memory of one run by image size: the maps grow, the rest must not.

    python benchmarks/bench_memory.py [--quick] [--model svp] [--json out.json]

Each size runs in a process of its own, after a warm-up on 256 x 256. `predict` and
`labels` are the peaks of the two halves of a run above the memory before it, without
the returned arrays (maps and labels). `whole` is the peak of one `segment` call.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

SIZES = (1024, 2048, 4096, 8192)
COLUMNS = ("side", "maps_mb", "predict_mb", "labels_mb", "whole_mb", "seconds")


def main() -> None:
    """Measure all sizes, or in a child process one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="svp")
    parser.add_argument("--quick", action="store_true", help="up to 4096 x 4096")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.model, options.threads)))
        return
    rows = []
    print(" ".join(f"{name:>11s}" for name in COLUMNS))
    for size in SIZES[:-1] if options.quick else SIZES:
        command = [
            sys.executable,
            __file__,
            "--one",
            str(size),
            "--model",
            options.model,
            "--threads",
            str(options.threads),
        ]
        text = subprocess.run(command, check=True, capture_output=True, text=True)
        row = json.loads(text.stdout.splitlines()[-1])
        rows.append(row)
        print(" ".join(f"{row[name]:11.0f}" for name in COLUMNS))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


def measure(side: int, model: str, threads: int) -> dict[str, float]:
    """Return the peak of one run on an image of ``side`` x ``side`` pixels."""
    import time

    import numpy as np
    import torch

    import napari_svpseg as svpseg
    from bench_speed import cells
    from napari_svpseg.core.labels.instances import instances_from_maps
    from napari_svpseg.engine.inference.predict import predict
    from napari_svpseg.engine.jobs.allocator import PeakMemory
    from napari_svpseg.io.model_store import load_model

    torch.set_num_threads(threads)
    image, labels = cells(256)
    prompts = svpseg.PromptSet([svpseg.Prompt.from_image(image, labels, box=(64, 64))])
    loaded = load_model(model)
    svpseg.segment(image, prompts, model=loaded, device="cpu")
    query = np.tile(image, (side // 256, side // 256))
    with PeakMemory() as predicting:
        maps = predict(query[..., None], prompts, loaded.network, "cpu").maps
    with PeakMemory() as labelling:
        labels = instances_from_maps(maps, svpseg.PostprocessSettings())
    arrays = (maps.foreground, maps.distance, maps.boundary)
    maps_mb = sum(m.nbytes for m in arrays if m is not None) / 1e6
    labels_mb = labels.nbytes / 1e6
    del maps, arrays, labels
    with PeakMemory() as whole:
        start = time.perf_counter()
        svpseg.segment(query, prompts, model=loaded, device="cpu")
        seconds = time.perf_counter() - start
    return {
        "side": side,
        "maps_mb": maps_mb,
        "predict_mb": (predicting.peak_mb or 0) - maps_mb,
        "labels_mb": (labelling.peak_mb or 0) - labels_mb,
        "whole_mb": whole.peak_mb or 0,
        "seconds": seconds,
    }


if __name__ == "__main__":
    main()
