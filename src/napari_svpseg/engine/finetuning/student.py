"""The student: a network without prompts, trained on labels of the prompted network.

The last step of partially supervised learning. The prompted network labels whole
images; its labels are kept where it is confident, and true labels replace them where
there are some.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from ...core.annotation.partial_images import PartialImage
from ...core.annotation.partial_labels import UNKNOWN
from ...core.jobs.finetune_job import FineTuneSettings
from ...core.labels.instances import instances_from_maps
from ...core.progress import Progress, ignore_progress
from ...core.prompt import PromptSet
from ...core.settings import PostprocessSettings, SegmentSettings
from ...models.base import PromptSegmenter
from ...models.registry import ModelConfig, build
from ..inference.device import Device
from ..inference.predict import predict
from ..inference.prompt_features import network_scale
from .finetuner import FineTuner
from .label_crops import Windows

STUDENT = ModelConfig("unet")
LEARNING_RATE = 2e-3
"""Higher than that of fine-tuning, as the student starts from untrained weights."""
MIN_CONFIDENCE, KEPT_SHARE = 0.6, 0.8
"""Least confidence of a label, and the share of the pixels of a class that is kept."""
BORDER = 2
"""Pixels on both sides of an object's border that are not learned from."""


def self_labelled(
    images: Sequence[PartialImage],
    network: PromptSegmenter,
    prompts: PromptSet,
    device: Device,
) -> list[PartialImage]:
    """Return the images with labels wherever a network is confident, all for training.

    Of each class the `KEPT_SHARE` most confident pixels of all images are kept. True
    labels stay as they are, except that those of the validation set are not used.
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
    foregrounds = [maps.foreground for maps in found]
    background_limit = _limit([1 - p[p <= 0.5] for p in foregrounds])
    object_limit = _limit([p[p > 0.5] for p in foregrounds])
    labelled = []
    for image, maps in zip(images, found, strict=True):
        p = maps.foreground
        objects = instances_from_maps(maps, PostprocessSettings()).astype(np.int32)
        confident = np.where(p > 0.5, p >= object_limit, 1 - p >= background_limit)
        # not where foreground was dropped as too small, or background filled as a hole
        confident &= (objects > 0) == (p > 0.5)
        # the window around a pixel holds two ids where a border is near
        size = 2 * BORDER + 1
        edge = ndimage.grey_dilation(objects, size) != ndimage.grey_erosion(
            objects, size
        )
        true_ids = image.training_ids
        made = np.where(objects > 0, objects + int(true_ids.max(initial=0)), 0)
        ids = np.where(confident & ~edge, made, UNKNOWN)
        labelled.append(
            replace(
                image,
                ids=np.where(true_ids != UNKNOWN, true_ids, ids).astype(np.int32),
                validation=np.zeros(ids.shape, bool),
            )
        )
    return labelled


def _limit(confidences: list[np.ndarray]) -> float:
    """Return the confidence that `KEPT_SHARE` of the pixels of a class reach."""
    pixels = np.concatenate(confidences)
    if not pixels.size:
        return MIN_CONFIDENCE
    return max(MIN_CONFIDENCE, float(np.quantile(pixels, 1 - KEPT_SHARE)))


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
    """Return a plain network trained on labels that ``network`` makes of the images.

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
        Averaged weights, of the method in `STUDENT`.
    """
    labelled = self_labelled(images, network, prompts, device)
    scale = network_scale(prompts, network)
    return train_plain(
        labelled,
        prompts,
        scale,
        settings,
        device,
        folder,
        should_stop,
        lambda done, n, text="": on_progress(done, n, f"second network, {text}"),
    )


def train_plain(
    images: Sequence[PartialImage],
    prompts: PromptSet,
    scale: float,
    settings: FineTuneSettings,
    device: Device,
    folder: Path,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Progress = ignore_progress,
) -> PromptSegmenter:
    """Return a plain network, untrained at first, trained on the labels of the images.

    Parameters
    ----------
    prompts : PromptSet
        Only cut into the windows; the network does not look at them.
    scale : float
        Network pixels per image pixel.
    images, settings, device, folder, should_stop, on_progress
        As for `train_student`.
    """
    settings = replace(
        settings, learning_rate=LEARNING_RATE, anchor=0.0, pseudo_labels=False
    )
    windows = Windows(images, prompts, scale, settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = build(STUDENT)
    tuner = FineTuner(network, settings, folder, device.torch_device)
    while tuner.step < settings.steps and not should_stop():
        tuner.train_step(windows[tuner.step])
        on_progress(tuner.step, settings.steps, f"loss {tuner.loss_mean:.3f}")
        if not math.isfinite(tuner.loss_mean):
            break
    return tuner.average
