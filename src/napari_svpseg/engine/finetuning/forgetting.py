"""What a model in fine-tuning forgets where nothing is labelled.

Labels show cells and what is beside them. A network that learns from these alone may
come to find objects in the empty rest of a picture, and held-back labels, which lie
among cells as well, do not tell.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...core.annotation.partial_labels import UNKNOWN
from ...core.geometry import inside
from ...core.jobs.finetune_job import FineTuneSettings
from ...core.prompt import PromptSet
from ...core.settings import SegmentSettings
from ...models.base import PromptSegmenter
from ..inference.device import Device
from ..inference.predict import predict
from .label_crops import PartialImage

MOST = 0.125
"""Share of the former background on which a model that forgot finds objects."""
BACKGROUND = 0.2
"""Foreground probability under which a pixel was background before."""
ENOUGH = 2000
"""Pixels of former background; fewer tell nothing."""
N_IMAGES, SIDE = 3, 512
"""Images that are looked at, and the side of the part around their labels."""


class Forgetting:
    """Tells on how much of what was background a network now finds objects.

    Parameters
    ----------
    images : sequence of PartialImage
        Those with the most unlabelled pixels near their labels are taken.
    prompts : PromptSet
    network : PromptSegmenter
        As it is before training.
    device : Device
    settings : FineTuneSettings
    """

    def __init__(
        self,
        images: Sequence[PartialImage],
        prompts: PromptSet,
        network: PromptSegmenter,
        device: Device,
        settings: FineTuneSettings,
    ) -> None:
        self.prompts, self.device = prompts, device
        self.places: list[tuple[PartialImage, tuple[slice, ...], np.ndarray]] = []
        if settings.unlabelled_is_background:
            return
        parts = [(i, _around_labels(i)) for i in images if (i.taught >= 0).any()]
        free = [(i, where, i.ids[where] == UNKNOWN) for i, where in parts]
        free.sort(key=lambda part: -int(part[2].sum()))
        for image, where, unlabelled in free[:N_IMAGES]:
            if unlabelled.any():
                said = self._foreground(image, where, network)
                self.places.append((image, where, unlabelled & (said < BACKGROUND)))
        if sum(int(p[2].sum()) for p in self.places) < ENOUGH:
            self.places = []

    def __call__(self, network: PromptSegmenter) -> float:
        """Return the share of the former background that is foreground, 0 to 1."""
        found = total = 0
        for image, where, background in self.places:
            said = self._foreground(image, where, network)
            found += int((background & (said > 0.5)).sum())
            total += int(background.sum())
        return found / total if total else 0.0

    def _foreground(
        self, image: PartialImage, where: tuple[slice, ...], network: PromptSegmenter
    ) -> np.ndarray:
        return predict(
            image.plane[where],
            self.prompts,
            network,
            self.device,
            SegmentSettings(trust=False),
            image.intensities,
        ).maps.foreground


def _around_labels(image: PartialImage) -> tuple[slice, ...]:
    """Return a part of the image with the middle of its labels in its middle."""
    place = np.nonzero(image.taught >= 0)
    return tuple(
        inside(p.mean() - SIDE / 2, SIDE, n)
        for p, n in zip(place, image.ids.shape, strict=True)
    )
