"""A second network, trained on what the prompted one says of whole images.

The last step of partially supervised learning: labels made by the prompted model, kept
where it is sure, with the true ones in their places, teach a network without prompts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from ...core.annotation.partial_labels import UNKNOWN
from ...core.jobs.finetune_job import FineTuneSettings
from ...core.labels.instances import instances_from_maps
from ...core.progress import Progress
from ...core.prompt import PromptSet
from ...core.settings import PostprocessSettings, SegmentSettings
from ...models.base import PromptSegmenter
from ...models.registry import ModelConfig, build
from ..inference.device import Device
from ..inference.predict import predict
from ..inference.prompt_features import network_scale
from .finetuner import FineTuner
from .label_crops import PartialImage, Windows

CONFIG = ModelConfig("unet")
LEARNING_RATE = 2e-3
"""From scratch; the setting of fine-tuning is for trained weights."""
SURE, KEPT_SHARE = 0.6, 0.8
BORDER = 2
"""Pixels beside a border of what was found that are not learned from."""


def self_labelled(
    images: Sequence[PartialImage],
    network: PromptSegmenter,
    prompts: PromptSet,
    device: Device,
) -> list[PartialImage]:
    """Return the images with labels everywhere a network is sure, none held back.

    Of each class the share `KEPT_SHARE` of pixels it is surest of is kept, over all
    images together; true labels stay as they are.
    """
    found = [
        predict(
            image.plane,
            prompts,
            network,
            device,
            SegmentSettings(trust=False),
            image.intensities,
        ).maps
        for image in images
    ]
    limits = []
    for of_class in (lambda p: 1 - p[p <= 0.5], lambda p: p[p > 0.5]):
        sure = np.concatenate([of_class(maps.foreground) for maps in found])
        limits.append(
            max(SURE, float(np.quantile(sure, 1 - KEPT_SHARE))) if sure.size else SURE
        )
    labelled = []
    for image, maps in zip(images, found, strict=True):
        p = maps.foreground
        objects = instances_from_maps(maps, PostprocessSettings()).astype(np.int32)
        sure = np.where(p > 0.5, p >= limits[1], 1 - p >= limits[0])
        sure &= (objects > 0) == (p > 0.5)
        edge = ndimage.grey_dilation(objects, 2 * BORDER + 1) != ndimage.grey_erosion(
            objects, 2 * BORDER + 1
        )
        known = image.taught != UNKNOWN
        first = int(image.taught.max(initial=0))
        guessed = np.where(objects > 0, objects + first, 0)
        ids = np.where(sure & ~edge, guessed, UNKNOWN)
        labelled.append(
            replace(
                image,
                ids=np.where(known, image.taught, ids).astype(np.int32),
                held=np.zeros(known.shape, bool),
            )
        )
    return labelled


def train_student(
    network: PromptSegmenter,
    prompts: PromptSet,
    images: Sequence[PartialImage],
    settings: FineTuneSettings,
    device: Device,
    folder: Path,
    should_stop: Callable[[], bool],
    on_progress: Progress,
) -> PromptSegmenter:
    """Return a plain network trained on what ``network`` says of the images.

    Parameters
    ----------
    network : PromptSegmenter
        The prompted one.
    settings : FineTuneSettings
        Steps, batch, seed and time are those of the first training.
    folder : Path
        For checkpoints.

    Returns
    -------
    PromptSegmenter
        Averaged weights, of the method in `CONFIG`.
    """
    settings = replace(
        settings, learning_rate=LEARNING_RATE, anchor=0.0, pseudo_labels=False
    )
    labelled = self_labelled(images, network, prompts, device)
    windows = Windows(labelled, prompts, network_scale(prompts, network), settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        second = build(CONFIG)
    tuner = FineTuner(second, settings, folder, device.torch_device)
    while tuner.step < settings.steps and not should_stop():
        tuner.train_step(windows[tuner.step])
        on_progress(
            tuner.step, settings.steps, f"second network, loss {tuner.loss_mean:.3f}"
        )
        if not math.isfinite(tuner.loss_mean):
            break
    return tuner.average
