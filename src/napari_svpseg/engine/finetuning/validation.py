"""The validation set: labels that are kept out of training, to score a network."""

from __future__ import annotations

import math
from collections.abc import Sequence

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
from ..inference.device import Device
from ..inference.predict import predict

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

    def __call__(self, network: PromptSegmenter) -> ValidationScore:
        """Return the score of a network."""
        both = found = true = tp = fp = fn = n_objects = 0
        post = PostprocessSettings()
        for image, where, scored in self.windows:
            prediction = predict(
                image.plane[where],
                self.prompts,
                network,
                self.device,
                SegmentSettings(trust=False),
                image.intensities,
                zoom=1.0,
            )
            ids = np.maximum(image.ids[where], 0)
            p = (prediction.maps.foreground > 0.5) & scored
            t = (ids > 0) & scored
            both, found = both + int((p & t).sum()), found + int(p.sum())
            true += int(t.sum())
            if self.settings.semantic:
                continue
            objects = _scored_objects(np.where(scored, ids, UNKNOWN))
            if objects.size:
                labels = instances_from_maps(prediction.maps, post)
                # of the others too little is labelled: ignored, found or not
                known = scored & ((ids == 0) | np.isin(ids, objects))
                match = match_instances(labels, ids, 0.5, ~known)
                n_objects += len(objects)
                tp, fp, fn = tp + match.tp, fp + match.fp, fn + match.fn
        dice = 2 * both / (found + true) if found + true else math.nan
        f1 = 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else None
        return ValidationScore(dice, f1, self.n_pixels, n_objects)


def _scored_objects(ids: np.ndarray) -> np.ndarray:
    """Return the ids of the objects that are scored: whole ones, and large parts.

    An object that goes on into unlabelled pixels is scored by its labelled part, as two
    parts that are found as one object show a network that joins what touches.
    """
    there, areas = np.unique(ids[ids > 0], return_counts=True)
    return np.union1d(complete_ids(ids), there[areas >= FEWEST_PIXELS])


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
