"""How far the foreground probabilities of a model can be taken at their word.

    python benchmarks/calibration.py DATA... --model svp

Prints the expected calibration error (15 bins, over pixels) of each task of the
one-shot protocol, the mean, and the share of true foreground in each bin.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from napari_svpseg.core.metrics import expected_calibration_error
from napari_svpseg.core.prompt import PromptSet
from napari_svpseg.core.settings import SegmentSettings
from napari_svpseg.engine.predict import predict
from napari_svpseg.io.oneshot import plan
from napari_svpseg.io.store import load_model

N_BINS = 10


def main() -> None:
    """Read the options, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="+", type=Path, help="data folders")
    parser.add_argument("--model", default="svp", help="name or folder")
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--max-queries", type=int, default=4)
    options = parser.parse_args()
    network = load_model(options.model).network
    settings = SegmentSettings(trust=False)
    errors: dict[str, float] = {}
    promised, true, pixels = (np.zeros(N_BINS) for _ in range(3))
    for task in plan(
        options.data, prompts=options.prompts, max_queries=options.max_queries
    ):
        found = []
        for image, draw in task.pairs():
            query, prompt = task.query(image), task.prompt(task.draws[draw])
            maps = predict(
                query.plane, PromptSet([prompt]), network, None, settings
            ).maps
            p, truth = maps.foreground, query.truth > 0
            found.append(expected_calibration_error(p, truth, query.ignore))
            bins = np.clip((p * N_BINS).astype(int), 0, N_BINS - 1).ravel()
            pixels += np.bincount(bins, minlength=N_BINS) / p.size
            promised += np.bincount(bins, p.ravel(), N_BINS) / p.size
            true += np.bincount(bins, truth.ravel(), N_BINS) / p.size
        name = f"{task.dataset.name} / {task.name}"
        errors[name] = float(np.mean(found))
        print(f"{name:52s} {errors[name]:.3f}", flush=True)
    mean = np.mean(list(errors.values()))
    print(f"{'mean expected calibration error':52s} {mean:.3f}")
    print("\nprobability   true share   share of pixels (every picture counts alike)")
    for p, t, n in zip(promised, true, pixels, strict=True):
        if n:
            print(f"{p / n:11.3f} {t / n:12.3f} {n / pixels.sum():17.3f}")


if __name__ == "__main__":
    main()
