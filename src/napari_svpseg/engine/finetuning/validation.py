"""How well a network does on labels that were kept out of training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from ...core.annotation.partial_labels import UNKNOWN, complete_ids, label_regions
from ...core.jobs.finetune_job import FineTuneSettings, ValidationScore
from ...core.labels.instances import instances_from_maps
from ...core.labels.metrics import match_instances
from ...core.prompt import PromptSet
from ...core.settings import PostprocessSettings, SegmentSettings
from ...models.base import PromptSegmenter
from ..inference.device import Device
from ..inference.predict import predict
from .label_crops import PartialImage

MARGIN = 48
"""Network pixels of context around held-back labels when they are scored."""
MAX_WINDOWS = 12
"""Held-back regions that are scored, the largest first."""


class Check:
    """Scores a network on held-back labels, or on all where none are held back."""

    def __init__(
        self,
        images: Sequence[PartialImage],
        prompts: PromptSet,
        device: Device,
        settings: FineTuneSettings,
        zoom: float,
    ) -> None:
        self.prompts, self.device, self.settings = prompts, device, settings
        self.is_validation = any(i.held.any() for i in images)
        self.windows = [
            window
            for image in images
            for window in _check_windows(
                image,
                image.held if self.is_validation else image.ids != UNKNOWN,
                round(MARGIN / zoom),
            )
        ]
        self.windows.sort(key=lambda w: -int(w[2].sum()))
        self.windows = self.windows[:MAX_WINDOWS]
        self.n_pixels = int(sum(w[2].sum() for w in self.windows))

    def __call__(self, network: PromptSegmenter) -> ValidationScore:
        """Return the score of a network."""
        both = found = true = tp = fp = fn = n_objects = 0
        post = PostprocessSettings()
        for image, where, held in self.windows:
            prediction = predict(
                image.plane[where],
                self.prompts,
                network,
                self.device,
                SegmentSettings(trust=False),
                image.intensities,
            )
            ids = np.maximum(image.ids[where], 0)
            p, t = (prediction.maps.foreground > 0.5) & held, (ids > 0) & held
            both, found = both + int((p & t).sum()), found + int(p.sum())
            true += int(t.sum())
            if self.settings.semantic:
                continue
            whole = complete_ids(np.where(held, ids, UNKNOWN))
            if whole.size:  # objects that are cut off count for nobody
                labels = instances_from_maps(prediction.maps, post)
                known = held & ((ids == 0) | np.isin(ids, whole))
                match = match_instances(labels, ids, 0.5, ~known)
                n_objects += len(whole)
                tp, fp, fn = tp + match.tp, fp + match.fp, fn + match.fn
        dice = 2 * both / (found + true) if found + true else math.nan
        f1 = 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else None
        return ValidationScore(dice, f1, self.n_pixels, n_objects)


def _check_windows(
    image: PartialImage, held: np.ndarray, margin: int
) -> list[tuple[PartialImage, tuple[slice, slice], np.ndarray]]:
    regions, _ = label_regions(held)
    windows = []
    for n, found in enumerate(ndimage.find_objects(regions), start=1):
        where = tuple(
            slice(max(0, s.start - margin), min(size, s.stop + margin))
            for s, size in zip(found, held.shape, strict=True)
        )
        windows.append((image, where, regions[where] == n))
    return windows
