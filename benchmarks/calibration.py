"""Calibration of a model's foreground probabilities.

    python benchmarks/calibration.py DATA... --model svp
    python benchmarks/calibration.py DATA... --fit BASE...

Prints the expected calibration error (15 bins, over pixels) of each task of the
one-shot protocol, the mean, and the share of true foreground in each bin. With
``--fit`` the logits are recalibrated: by a factor alone (which does not change masks at
a threshold of 0.5), and by a factor and an offset, fitted to the data sets ``BASE``.
They must differ from ``DATA``, whose remaining error is printed.

References
----------
C. Guo et al. "On calibration of modern neural networks". ICML 2017.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from napari_svpseg.benchmark.one_shot_tasks import BenchmarkSettings, plan
from napari_svpseg.core.labels.metrics import expected_calibration_error
from napari_svpseg.core.prompt import PromptSet
from napari_svpseg.core.settings import SegmentSettings
from napari_svpseg.engine.inference.predict import predict
from napari_svpseg.io.model_store import load_model

N_BINS = 10
MAX_PIXELS = 30_000
"""Random pixels per image that are evaluated."""


@dataclass(frozen=True, eq=False)
class Pixels:
    """Pixels of one image: predicted probability and truth.

    Parameters
    ----------
    predicted : (N,) float array
    true : (N,) bool array
    """

    predicted: np.ndarray
    true: np.ndarray

    def recalibrated(self, factor: float, offset: float) -> Pixels:
        """Return the pixels with logits multiplied by a factor, plus an offset."""
        logits = logit(np.clip(self.predicted, 1e-6, 1 - 1e-6))
        return Pixels(expit(factor * logits + offset), self.true)

    @property
    def error(self) -> float:
        """The expected calibration error."""
        return expected_calibration_error(self.predicted, self.true)

    @property
    def log_loss(self) -> float:
        """Mean negative logarithm of the probability of the truth."""
        p = np.clip(np.where(self.true, self.predicted, 1 - self.predicted), 1e-6, 1)
        return float(-np.log(p).mean())


def pixels_of(
    data: Iterable[Path], network: Any, options: argparse.Namespace
) -> dict[str, list[Pixels]]:
    """Return the pixels of every scored image, by task."""
    settings = SegmentSettings(trust=False)
    rng = np.random.default_rng(0)
    found: dict[str, list[Pixels]] = {}
    sampling = BenchmarkSettings(
        prompts=options.prompts, max_queries=options.max_queries
    )
    for task in plan(data, sampling):
        name = f"{task.dataset.name} / {task.name}"
        for image, draw in task.pairs():
            query, prompt = task.query(image), task.prompt(task.draws[draw])
            maps = predict(
                query.plane, PromptSet([prompt]), network, None, settings
            ).maps
            assert query.truth is not None
            known = np.ones(query.truth.shape, bool)
            if query.ignore is not None:
                known = query.ignore == 0
            where = np.flatnonzero(known)
            where = rng.choice(where, min(MAX_PIXELS, where.size), replace=False)
            found.setdefault(name, []).append(
                Pixels(maps.foreground.ravel()[where], query.truth.ravel()[where] > 0)
            )
        print(f"{name:52s} {mean_error(found[name]):.3f}", flush=True)
    return found


def mean_error(images: Sequence[Pixels]) -> float:
    """Return the mean calibration error of images."""
    return float(np.mean([p.error for p in images]))


def fit(tasks: dict[str, list[Pixels]], *, with_offset: bool) -> tuple[float, float]:
    """Return the factor and the offset with the least log loss, mean over tasks."""

    def loss(x: np.ndarray) -> float:
        factor, offset = float(np.exp(x[0])), float(x[1]) if with_offset else 0.0
        return float(
            np.mean(
                [
                    np.mean([p.recalibrated(factor, offset).log_loss for p in images])
                    for images in tasks.values()
                ]
            )
        )

    start = {"initial_simplex": [[0.0, 0.0], [0.5, 0.0], [0.0, 0.5]], "xatol": 1e-3}
    best = minimize(loss, [0.0, 0.0], method="Nelder-Mead", options=start).x
    return float(np.exp(best[0])), float(best[1]) if with_offset else 0.0


def print_bins(tasks: dict[str, list[Pixels]]) -> None:
    """Print the share of true foreground by predicted probability.

    Every image has the same weight.
    """
    predicted, true, share = (np.zeros(N_BINS) for _ in range(3))
    images = [p for task in tasks.values() for p in task]
    for p in images:
        bins = np.clip((p.predicted * N_BINS).astype(int), 0, N_BINS - 1)
        weight = 1 / (p.true.size * len(images))
        share += np.bincount(bins, minlength=N_BINS) * weight
        predicted += np.bincount(bins, p.predicted, N_BINS) * weight
        true += np.bincount(bins, p.true, N_BINS) * weight
    print("\nprobability   true share   share of pixels (images weigh the same)")
    for p, t, n in zip(predicted, true, share, strict=True):
        if n:
            print(f"{p / n:11.3f} {t / n:12.3f} {n:17.3f}")


def main() -> None:
    """Read the options, run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+", type=Path, help="data folders")
    parser.add_argument("--fit", nargs="+", type=Path, default=[], help="data folders")
    parser.add_argument("--model", default="svp", help="name or folder")
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--max-queries", type=int, default=4)
    options = parser.parse_args()
    network = load_model(options.model).network
    tasks = pixels_of(options.data, network, options)
    before = np.mean([mean_error(images) for images in tasks.values()])
    print(f"{'mean expected calibration error':52s} {before:.3f}")
    print_bins(tasks)
    if not options.fit:
        return
    print("\nfitted to:")
    base = pixels_of(options.fit, network, options)
    for with_offset in (False, True):
        factor, offset = fit(base, with_offset=with_offset)
        print(f"\nlogits x {factor:.3f} + {offset:.3f}")
        for title, some in (("fitted", base), ("others", tasks)):
            errors, losses = [], []
            for images in some.values():
                after = [p.recalibrated(factor, offset) for p in images]
                errors.append((mean_error(images), mean_error(after)))
                losses.append(
                    np.mean(
                        [
                            (b.log_loss, a.log_loss)
                            for b, a in zip(images, after, strict=True)
                        ],
                        axis=0,
                    )
                )
            (b, a), (lb, la) = np.mean(errors, axis=0), np.mean(losses, axis=0)
            print(f"{title}: error {b:.3f} -> {a:.3f}, log loss {lb:.3f} -> {la:.3f}")


if __name__ == "__main__":
    main()
