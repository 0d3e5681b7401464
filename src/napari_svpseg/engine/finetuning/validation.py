"""The validation set: labels that are kept out of training, to score a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import ndimage

from ...core.annotation.partial_images import PartialImage
from ...core.annotation.partial_labels import (
    FEWEST_PIXELS,
    UNKNOWN,
    complete_ids,
    label_regions,
)
from ...core.jobs.finetune_job import FineTuneSettings, ValidationScore
from ...core.labels.instances import instances_from_maps
from ...core.labels.metrics import match_instances
from ...core.prompt import PromptSet
from ...core.settings import PostprocessSettings, SegmentSettings
from ...models.base import PromptSegmenter
from ..inference.device import Device, working_threads
from ..inference.predict import Prediction, predict

MARGIN = 48
"""Network pixels of context around validation labels when they are scored."""
MAX_WINDOWS = 12
"""Labelled regions that are scored, the largest first."""

Window = tuple[PartialImage, tuple[slice, ...], np.ndarray]
"""An image, a part of it, and the pixels (H, W) of the part that are scored."""


class ValidationSet:
    """The labels that score a network: those of the validation set, or else all.

    Parameters
    ----------
    images : sequence of PartialImage
    prompts : PromptSet
    device : Device
    settings : FineTuneSettings
    zoom : float
        Network pixels per image pixel.
    """

    def __init__(
        self,
        images: Sequence[PartialImage],
        prompts: PromptSet,
        device: Device,
        settings: FineTuneSettings,
        zoom: float,
    ) -> None:
        self.prompts, self.device, self.settings = prompts, device, settings
        self.is_validation = any(i.validation.any() for i in images)
        windows = [
            window
            for image in images
            for window in _windows(
                image,
                image.validation if self.is_validation else image.ids != UNKNOWN,
                round(MARGIN / zoom),
            )
        ]
        windows.sort(key=lambda w: -int(w[2].sum()))
        self.windows = windows[:MAX_WINDOWS]
        self.n_pixels = int(sum(w[2].sum() for w in self.windows))
        self._only_cut = not any(complete_ids(i.ids).size for i in images)
        self._former: list[np.ndarray] = []

    def score_start(self, network: PromptSegmenter) -> ValidationScore:
        """Return the score of the network at the start, and remember its objects.

        Where no whole object is labelled, these tell of later networks whether they
        join objects.
        """
        found: list[np.ndarray] = []
        score = self._score(network, found)
        if self._only_cut:
            self._former = found
        return score

    def __call__(self, network: PromptSegmenter) -> ValidationScore:
        """Return the score of a network."""
        return self._score(network, [])

    def _score(
        self, network: PromptSegmenter, seen: list[np.ndarray]
    ) -> ValidationScore:
        """Return the score; append the labels of each window to ``seen``."""
        both = found = true = tp = fp = fn = 0
        n_objects = n_parts = n_joined = 0
        post = PostprocessSettings()
        places = [(image, where) for image, where, _ in self.windows]
        predictions = predict_parts(places, self.prompts, network, self.device)
        pairs = zip(self.windows, predictions, strict=True)
        for n, ((image, where, scored), prediction) in enumerate(pairs):
            ids = np.maximum(image.ids[where], 0)
            p = (prediction.maps.foreground > 0.5) & scored
            t = (ids > 0) & scored
            both, found = both + int((p & t).sum()), found + int(p.sum())
            true += int(t.sum())
            if self.settings.semantic:
                continue
            here = np.where(scored, ids, UNKNOWN)
            labels = instances_from_maps(prediction.maps, post)
            seen.append(labels)
            former = self._former[n] if self._former else here
            parts = _large_parts(former)
            n_parts += len(parts)
            n_joined += count_joined(labels, former, parts)
            whole = complete_ids(here)
            if whole.size:
                # objects that are labelled in part are ignored, found or not
                known = scored & ((ids == 0) | np.isin(ids, whole))
                match = match_instances(labels, ids, 0.5, ~known)
                n_objects += len(whole)
                tp, fp, fn = tp + match.tp, fp + match.fp, fn + match.fn
        dice = 2 * both / (found + true) if found + true else math.nan
        f1 = 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else None
        joined = n_joined / n_parts if n_parts else 0.0
        return ValidationScore(dice, f1, self.n_pixels, n_objects, joined)


def predict_parts(
    places: Sequence[tuple[PartialImage, tuple[slice, ...]]],
    prompts: PromptSet,
    network: PromptSegmenter,
    device: Device,
) -> list[Prediction]:
    """Return the predictions of parts of images; on a CPU they run side by side."""

    def predicted(place: tuple[PartialImage, tuple[slice, ...]]) -> Prediction:
        image, where = place
        return predict(
            image.plane[where],
            prompts,
            network,
            device,
            SegmentSettings(trust=False),
            image.intensities,
            zoom=1.0,
        )

    with working_threads(len(places), device) as n, ThreadPoolExecutor(n) as pool:
        return list(pool.map(predicted, places))


def _large_parts(ids: np.ndarray) -> np.ndarray:
    """Return the ids of objects of which enough is labelled to tell where they are."""
    there, areas = np.unique(ids[ids > 0], return_counts=True)
    return np.asarray(there[areas >= FEWEST_PIXELS])


def count_joined(labels: np.ndarray, ids: np.ndarray, wanted: np.ndarray) -> int:
    """Return how many objects are found as one with another object.

    Parts of objects tell this as well as whole ones do.

    Parameters
    ----------
    labels : (Y, X) int array
        Objects found.
    ids : (Y, X) int array
        True ones: -1 = unknown, 0 = background, 1, 2, ... = objects.
    wanted : (N,) int array
        Ids of the objects that are counted.
    """
    found_as = []
    for i in wanted:
        found, areas = np.unique(labels[ids == i], return_counts=True)
        most = int(np.argmax(areas))
        if found[most] > 0 and 2 * areas[most] >= areas.sum():
            found_as.append(int(found[most]))
    n_each = np.bincount(found_as) if found_as else np.zeros(1, int)
    return int(n_each[n_each > 1].sum())


def _windows(image: PartialImage, scored: np.ndarray, margin: int) -> list[Window]:
    """Return a window around each region of the pixels that are scored."""
    regions, _ = label_regions(scored)
    windows: list[Window] = []
    for n, found in enumerate(ndimage.find_objects(regions), start=1):
        where = tuple(
            slice(max(0, s.start - margin), min(size, s.stop + margin))
            for s, size in zip(found, scored.shape, strict=True)
        )
        windows.append((image, where, regions[where] == n))
    return windows
