"""Time of training from tags; by default 200 windows of 224 x 224, all passes.

    python benchmarks/tag_training_speed.py [--windows 200] [--side 224] [--passes 12]

The windows are synthetic, as their content does not matter for the time. With fewer
passes than in the default settings, the time of all passes is extrapolated.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from napari_svpseg import api
from napari_svpseg.core.annotation.image_tags import (
    TagTrainingProgress,
    TagTrainingSettings,
)

TRAINED = ("first stage", "second stage")


def windows(n: int, side: int) -> tuple[list[np.ndarray], list[list[str]]]:
    """Return windows (S, S, 3) uint8 with discs, bars, both or none, and their tags."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    images, tags = [], []
    for i in range(n):
        image = rng.normal(120, 10, (side, side, 3))
        shown = [name for j, name in enumerate(("disc", "bar")) if i >> j & 1]
        for cy, cx in rng.integers(0, side, (6, 2)):
            if "disc" in shown:
                image[(y - cy) ** 2 + (x - cx) ** 2 < 80] = (240, 200, 90)
            if "bar" in shown:
                image[(abs(y - cx) < 14) & (abs(x - cy) < 3)] = (30, 30, 110)
        images.append(np.clip(image, 0, 255).astype(np.uint8))
        tags.append(shown)
    return images, tags


def main() -> None:
    """Train once, and print the time of each stage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    own = TagTrainingSettings()
    parser.add_argument("--windows", type=int, default=200)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--passes", type=int, default=own.epochs)
    parser.add_argument("--variant", default=own.variant)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images, tags = windows(options.windows, options.side)
    seconds: dict[str, list[float]] = {}
    last = [time.perf_counter(), time.process_time()]

    def watch(value: object) -> None:
        if isinstance(value, TagTrainingProgress):
            now = [time.perf_counter(), time.process_time()]
            spent = seconds.setdefault(value.stage, [0.0, 0.0])
            for i in range(2):
                spent[i] += now[i] - last[i]
            last[:] = now

    settings = TagTrainingSettings(
        variant=options.variant,
        window=options.side,
        epochs=options.passes,
        second_epochs=options.passes,
    )
    with tempfile.TemporaryDirectory() as folder:
        api.train_from_tags(
            images,
            tags,
            settings=settings,
            output=Path(folder) / "model",
            device=options.device,
            on_partial=watch,
        )
    factor = own.epochs / options.passes
    total = [0.0, 0.0]
    print(
        f"{options.windows} windows of {options.side} x {options.side}, "
        f"variant {options.variant}, {options.device}, {options.threads} threads"
    )
    for stage, spent in seconds.items():
        all_passes = [s * (factor if stage in TRAINED else 1) for s in spent]
        total = [a + b for a, b in zip(total, all_passes, strict=True)]
        print(f"{stage:>14}: {spent[0]:6.1f} s ({spent[1]:.1f} s of processor)")
    print(
        f"all {own.epochs} passes of both stages: {total[0] / 60:.1f} min "
        f"({total[1] / 60:.1f} min of processor)"
    )


if __name__ == "__main__":
    main()
