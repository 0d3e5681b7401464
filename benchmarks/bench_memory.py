"""Peak memory of one run for growing pictures: the maps grow, the rest must not.

    python benchmarks/bench_memory.py [--quick] [--model svp] [--json out.json]

Each size runs in a process of its own, after a first run on 256 x 256. `work` is the
peak above what stood before, less the maps and labels that are handed back.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

SIZES = (1024, 2048, 4096, 8192)


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
    print(f"{'side':>6s} {'peak MB':>9s} {'handed back':>12s} {'work':>8s} {'s':>8s}")
    for size in SIZES[:-1] if options.quick else SIZES:
        command = [
            sys.executable, __file__, "--one", str(size), "--model", options.model,
            "--threads", str(options.threads),
        ]
        text = subprocess.run(command, check=True, capture_output=True, text=True)
        row = json.loads(text.stdout.splitlines()[-1])
        rows.append(row)
        print(f"{row['side']:6d} {row['peak_mb']:9.0f} {row['returned_mb']:12.0f} "
              f"{row['work_mb']:8.0f} {row['seconds']:8.1f}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


def measure(side: int, model: str, threads: int) -> dict[str, float]:
    """Return the peak of one run on a picture of ``side`` x ``side`` pixels."""
    import time

    import numpy as np
    import torch

    import napari_svpseg as svpseg
    from bench_speed import cells
    from napari_svpseg.engine.memory import PeakMemory
    from napari_svpseg.io.store import load_model

    torch.set_num_threads(threads)
    image, labels = cells(256)
    prompts = svpseg.PromptSet([svpseg.Prompt.from_image(image, labels, box=(64, 64))])
    loaded = load_model(model)
    svpseg.segment(image, prompts, model=loaded, device="cpu")
    query = np.tile(image, (side // 256, side // 256))
    with PeakMemory() as memory:
        start = time.perf_counter()
        result = svpseg.segment(query, prompts, model=loaded, device="cpu")
        seconds = time.perf_counter() - start
    maps = (result.maps.foreground, result.maps.distance, result.maps.boundary)
    returned = result.labels.nbytes + sum(m.nbytes for m in maps if m is not None)
    peak = memory.peak_mb or 0.0
    return {
        "side": side, "peak_mb": peak, "returned_mb": returned / 1e6,
        "work_mb": peak - returned / 1e6, "seconds": seconds,
    }


if __name__ == "__main__":
    main()
