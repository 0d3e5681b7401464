"""Training on one image and one prompt."""

from __future__ import annotations

import math

import pytest
import torch

from napari_svpseg.core.progress import Cancelled
from napari_svpseg.engine.training.one_image import (
    Example,
    OneImageSettings,
    fit_one_image,
)
from napari_svpseg.models.svp_attention import AttentionSegmenter

CPU = torch.device("cpu")


def stripes(side: int, seed: int) -> Example:
    mask = (torch.arange(side) % 16 < 6).long().expand(side, side)
    noise = torch.randn(3, side, side, generator=torch.Generator().manual_seed(seed))
    return Example(2.0 * mask - 1 + 0.3 * noise, mask)


def network(**arguments) -> AttentionSegmenter:
    torch.manual_seed(0)
    return AttentionSegmenter(width=4, features=8, **arguments)


def test_one_image_teaches_it():
    model = network()
    settings = OneImageSettings(steps=25, side=48)
    losses = fit_one_image(model, stripes(64, 0), stripes(32, 1), settings, CPU)
    assert len(losses) == 25
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert not model.training


def test_the_released_loss_cannot_fall_below_its_floor():
    model = network(form="released")
    settings = OneImageSettings(steps=3, side=32, loss="released", augment=False)
    losses = fit_one_image(model, stripes(40, 0), stripes(32, 1), settings, CPU)
    assert min(losses) > math.log(1 + math.exp(-1))


def test_without_augmentation_the_same_pixels_are_seen_each_time():
    settings = OneImageSettings(steps=2, side=32, augment=False, learning_rate=0.0)
    losses = fit_one_image(network(), stripes(48, 0), stripes(32, 1), settings, CPU)
    assert losses[0] == losses[1]


def test_it_can_be_stopped():
    def stop(done, total, text=""):
        raise Cancelled

    with pytest.raises(Cancelled):
        fit_one_image(
            network(),
            stripes(48, 0),
            stripes(32, 1),
            OneImageSettings(side=32),
            CPU,
            stop,
        )
