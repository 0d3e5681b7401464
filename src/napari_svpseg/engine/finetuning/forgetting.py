"""Forgetting: background that a network in fine-tuning begins to take for objects.

Labels show cells and what is beside them. A network that learns from these alone may
begin to find objects in the empty rest of an image. The validation labels do not show
it, because they lie among cells as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ...core.annotation.partial_images import PartialImage
from ...core.annotation.partial_labels import UNKNOWN
from ...core.geometry import inside
from ...core.jobs.finetune_job import FineTuneSettings
from ...core.prompt import PromptSet
from ...models.base import PromptSegmenter
from ..inference.device import Device
from .validation import predict_parts

Array = np.ndarray
Place = tuple[PartialImage, tuple[slice, ...], Array]
"""An image, a part of it, and the pixels (H, W) of the part that were background."""

MAX_FORGETTING = 0.125
"""Share of the former background in which a network that is kept may find objects."""
BACKGROUND = 0.2
"""Foreground probability below which a pixel was background before."""
MIN_PIXELS = 2000
"""Pixels of former background that are needed to measure forgetting."""
N_IMAGES, SIDE = 3, 512
"""Images that are measured, and the side of the part around their labels."""


class Forgetting:
    """Measures in how much of the former background a network finds objects.

    Parameters
    ----------
    images : sequence of PartialImage
        Those with the most unlabelled pixels near their labels are measured.
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
        self.places: list[Place] = []
        if settings.unlabelled_is_background:
            return
        parts = [(i, _around_labels(i)) for i in images if (i.training_ids >= 0).any()]
        free = [(i, where, i.ids[where] == UNKNOWN) for i, where in parts]
        free.sort(key=lambda part: -int(part[2].sum()))
        self.places = [part for part in free[:N_IMAGES] if part[2].any()]
        self.places = [
            (image, where, unlabelled & (foreground < BACKGROUND))
            for (image, where, unlabelled), foreground in self._foregrounds(network)
        ]
        if sum(int(p[2].sum()) for p in self.places) < MIN_PIXELS:
            self.places = []

    def __call__(self, network: PromptSegmenter) -> float:
        """Return the share of the former background that is foreground, 0 to 1."""
        found = total = 0
        for (_, _, background), foreground in self._foregrounds(network):
            found += int((background & (foreground > 0.5)).sum())
            total += int(background.sum())
        return found / total if total else 0.0

    def _foregrounds(self, network: PromptSegmenter) -> Iterator[tuple[Place, Array]]:
        """Yield each place and the foreground that a network finds there."""
        places = [(image, where) for image, where, _ in self.places]
        found = predict_parts(places, self.prompts, network, self.device)
        for place, prediction in zip(self.places, found, strict=True):
            yield place, prediction.maps.foreground


def _around_labels(image: PartialImage) -> tuple[slice, ...]:
    """Return a part of the image whose middle is the mean place of its labels."""
    place = np.nonzero(image.training_ids >= 0)
    return tuple(
        inside(p.mean() - SIDE / 2, SIDE, n)
        for p, n in zip(place, image.ids.shape, strict=True)
    )
