"""Losses count known pixels only."""

from __future__ import annotations

import pytest
import torch

from napari_svpseg.models.losses import binary_loss, maps_loss, soft_dice_loss


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 1, 16, 16, generator=g)
    target = (torch.rand(2, 1, 16, 16, generator=g) > 0.5).float()
    known = torch.ones_like(target)
    known[..., 8:] = 0
    return logits, target, known


@pytest.mark.parametrize("loss", [binary_loss, soft_dice_loss])
def test_unknown_pixels_do_not_count(loss, batch):
    logits, target, known = batch
    changed = logits.clone()
    changed[..., 8:] = 50
    assert loss(changed, target, known) == loss(logits, target, known)
    changed[..., :8] = 50
    assert loss(changed, target, known) != loss(logits, target, known)


def test_a_perfect_answer_costs_next_to_nothing(batch):
    _, target, known = batch
    logits = 40 * (target - 0.5)
    assert binary_loss(logits, target, known) < 1e-6
    assert soft_dice_loss(logits, target, known) < 1e-3


def test_nothing_known_gives_a_finite_loss(batch):
    logits, target, known = batch
    assert binary_loss(logits, target, 0 * known) == 0
    assert torch.isfinite(soft_dice_loss(logits, target, 0 * known))


def test_instances_unknown_switches_off_distance_and_boundary(batch):
    logits, target, known = batch
    maps = {"foreground": logits, "distance": logits, "boundary": logits}
    truth = {
        "foreground": target,
        "distance": target,
        "boundary": target,
        "known": known,
        "instances": torch.zeros_like(known),
    }
    parts = maps_loss(maps, truth)
    assert parts["distance"] == 0
    assert parts["boundary"] == 0
    truth["instances"] = known
    assert maps_loss(maps, truth)["distance"] > 0
