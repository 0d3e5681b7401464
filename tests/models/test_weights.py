"""The weights that ship: a prompt finds itself, and its mask decides what is found."""

from __future__ import annotations

import pytest
import torch

from napari_svpseg import api
from napari_svpseg.core.settings import SegmentSettings
from napari_svpseg.io.model_store import builtin_folder, load_model

NAMES = ("svp", "svp-concat", "svp-attention", "panet", "alpnet", "dspnet")


@pytest.fixture(params=NAMES)
def network(request):
    return load_model(builtin_folder() / request.param).network


def episode() -> tuple[torch.Tensor, torch.Tensor]:
    """Bright cells of 20 pixels on a dark ground, standardised."""
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    mask = torch.zeros(64, 64, dtype=torch.int64)
    for i, (cy, cx) in enumerate([(16, 16), (20, 46), (46, 20), (48, 48)], 1):
        mask[(y - cy) ** 2 + (x - cx) ** 2 <= 100] = i
    noise = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    return 1.6 * (mask > 0) - 1 + 0.15 * noise, mask


def found(network, image, mask) -> torch.Tensor:
    with torch.inference_mode():
        code = network.encode_prompts(image[None, None], mask[None, None])
        return network(image[None], code)["foreground"][0, 0] > 0


def dice(found: torch.Tensor, truth: torch.Tensor) -> float:
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


def test_a_prompt_finds_its_own_objects(network):
    image, mask = episode()
    assert dice(found(network, image, mask), mask > 0) >= 0.8


def test_the_mask_of_the_prompt_decides(network):
    image, mask = episode()
    background = mask == 0
    assert dice(found(network, image, background.long()), background) >= 0.8


def test_every_shipped_method_names_its_paper():
    cards = {name: load_model(builtin_folder() / name).card for name in NAMES[1:]}
    assert not [name for name, card in cards.items() if not card.paper]


@pytest.mark.parametrize("name", NAMES)
def test_each_model_segments_an_image(name, disc_scene, disc_prompt):
    result = api.segment(
        disc_scene.image,
        disc_prompt,
        model=str(builtin_folder() / name),
        device="cpu",
        settings=SegmentSettings(trust=False),
    )
    covered = torch.from_numpy(result.labels > 0)
    assert dice(covered, torch.from_numpy(disc_scene.labels > 0)) >= 0.8
