"""Partly labelled images: what a fine-tuning trains on and is checked on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..fingerprint import array_fingerprint, fingerprint
from ..geometry import Box
from ..image import normalise, to_three_channels
from ..prompt import Prompt
from .partial_labels import UNKNOWN
from .validation_split import ValidationPart


@dataclass(frozen=True, eq=False)
class PartialImage:
    """An image and its partial labels.

    Parameters
    ----------
    plane : (Y, X, C) array
        Intensities, one to three channels.
    intensities : (C, 2) array
        Percentiles of the whole image.
    ids : (Y, X) int32 array
        -1 = unknown, 0 = background, 1, 2, ... = objects.
    validation : (Y, X) bool array
        Where labels are kept out of training.
    name : str
    rgb : bool
    channels : tuple of int, optional
        Of the source, as in `Prompt`.
    """

    plane: np.ndarray
    intensities: np.ndarray
    ids: np.ndarray
    validation: np.ndarray
    name: str = ""
    rgb: bool = False
    channels: tuple[int, ...] | None = None

    @cached_property
    def training_ids(self) -> np.ndarray:
        """(Y, X) int32 ids; those of the validation set are unknown."""
        return np.where(self.validation, UNKNOWN, self.ids).astype(np.int32)

    @cached_property
    def three_channels(self) -> np.ndarray:
        """(Y, X, 3) float32 intensities, about 0 to 1."""
        standard = to_three_channels(normalise(self.plane, self.intensities))
        return np.asarray(standard * 0.25 + 0.5, np.float32)

    def prompt(self, box: Box, ids: np.ndarray | None = None) -> Prompt:
        """Return the prompt in a box, with ``ids`` instead of the training labels."""
        mask = np.maximum(self.training_ids if ids is None else ids, 0)
        prompt = Prompt.from_image(
            self.plane,
            mask,
            box,
            rgb=self.rgb,
            source=self.name,
            name=f"{self.name or 'image'} y={box.y} x={box.x}",
            intensities=self.intensities,
        )
        return replace(prompt, channels=self.channels)


@dataclass(frozen=True, eq=False)
class FineTuneData:
    """The images of a fine-tuning.

    Parameters
    ----------
    images : sequence of PartialImage
        Their names differ, and their validation pixels are marked.
    validation : ValidationPart, optional
        How the validation set was chosen.
    unlabelled : sequence of (str, (Y, X, 3) uint8 array)
        Names and pixels of further images, for ``settings.self_supervised_first``.
    """

    images: Sequence[PartialImage]
    validation: ValidationPart | None = None
    unlabelled: Sequence[tuple[str, np.ndarray]] = ()

    def fingerprint(self) -> str:
        """Return the hash of the images and their labels."""
        images = [
            fingerprint(
                {"rgb": i.rgb, "channels": i.channels},
                *(
                    array_fingerprint(a, whole=True)
                    for a in (i.plane, i.intensities, i.ids, i.validation)
                ),
            )
            for i in self.images
        ]
        others = [
            array_fingerprint(pixels, whole=True) for _, pixels in self.unlabelled
        ]
        return fingerprint({"images": images, "unlabelled": others})
