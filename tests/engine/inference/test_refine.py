"""Fitting a network to the prompts, and when the fit is used."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_svpseg.core.progress import Cancelled
from napari_svpseg.core.prompt import PromptSet
from napari_svpseg.core.settings import SegmentSettings
from napari_svpseg.engine.inference import predict as prediction
from napari_svpseg.engine.inference.predict import FITTED, predict
from napari_svpseg.engine.inference.prompt_features import prompt_tensors
from napari_svpseg.engine.inference.refine import refine, refined
from napari_svpseg.models.losses import maps_loss
from napari_svpseg.models.registry import ModelConfig, build


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    small = {"widths": (8, 8, 8, 8), "depths": (0, 0, 0), "features": 8,
             "pixel_features": 8, "decoder": (8, 8, 8)}  # fmt: skip
    return build(ModelConfig("svp", small)).eval()


@pytest.fixture
def tensors(disc_prompt):
    return prompt_tensors(PromptSet([disc_prompt]), 1.0)


def weights_of(network) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def loss_on_prompt(network, images, masks) -> float:
    foreground = (masks > 0).float()
    full = torch.ones_like(foreground)
    target = {"foreground": foreground, "known": full, "instances": 0 * full,
              "distance": foreground, "boundary": 0 * full}  # fmt: skip
    with torch.no_grad():
        maps = network(images[0], network.encode_prompts(images, masks))
    return float(maps_loss(maps, target)["dice"])


def test_the_fit_is_better_on_the_prompt_and_leaves_the_network_alone(network, tensors):
    before = weights_of(network)
    fitted = refine(network, *tensors, steps=25)
    assert loss_on_prompt(fitted, *tensors) < loss_on_prompt(network, *tensors)
    assert torch.equal(weights_of(network), before)
    assert not fitted.training


def test_same_seed_same_weights(network, tensors):
    one, two, other = (
        weights_of(refine(network, *tensors, steps=2, seed=s)) for s in (1, 1, 2)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_the_callers_random_numbers_are_left_alone(network, tensors):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    refine(network, *tensors, steps=1)
    assert torch.equal(torch.rand(1), expected)


def test_the_same_prompts_are_fitted_once(network, tensors):
    images, masks = tensors
    one = refined(network, images, masks, 1)
    assert refined(network, images.clone(), masks.clone(), 1) is one
    assert refined(network, images + 1, masks, 1) is not one
    assert refined(network, images, masks, 2) is not one


def test_unknown_pixels_and_negative_prompts_do_not_disturb_it(network, tensors):
    images, masks = tensors
    more = torch.cat([images, images], 1), torch.cat([masks, 0 * masks], 1)
    more[1][:, :, :, :9] = -1
    assert torch.isfinite(weights_of(refine(network, *more, steps=3))).all()


def test_it_can_be_cancelled(network, tensors):
    def stop(done: int, total: int, message: str = "") -> None:
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        refine(network, *tensors, steps=50, on_progress=stop)


@pytest.mark.parametrize(
    ("consistency", "uncertainty", "used"),
    [(0.9, 0.3, True), (0.49, 0.3, True), (0.4, 0.3, False), (0.9, 0.5, False)],
)
def test_the_fit_is_used_only_where_the_check_and_certainty_allow(
    network, disc_scene, disc_prompt, monkeypatch, consistency, uncertainty, used
):
    """Before: consistency 0.5, uncertainty 0.4."""
    checks, uncertainties = iter([0.5, consistency]), iter([uncertainty, 0.4])
    monkeypatch.setattr(prediction, "self_consistency", lambda *_: next(checks))
    monkeypatch.setattr(prediction, "mean_uncertainty", lambda *_: next(uncertainties))
    plane, prompts = disc_scene.image[..., None], PromptSet([disc_prompt])
    run = SegmentSettings(refine=3, scale_objects=False)  # one size, two checks
    found = predict(plane, prompts, network, "cpu", run)
    assert found.consistency == (consistency if used else 0.5)
    (note,) = found.notes
    assert note.startswith(FITTED) == used
    plain = predict(plane, prompts, network, "cpu", replace(run, refine=0, trust=False))
    same = np.array_equal(found.maps.foreground, plain.maps.foreground)
    assert same != used


def test_without_trust_none_is_told(network, disc_scene, disc_prompt):
    found = predict(
        disc_scene.image[..., None],
        PromptSet([disc_prompt]),
        network,
        "cpu",
        SegmentSettings(refine=1, trust=False),
    )
    assert math.isnan(found.trust)
