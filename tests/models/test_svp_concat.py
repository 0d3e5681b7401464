"""What is particular to concatenation."""

from __future__ import annotations

import pytest
import torch

from napari_svpseg.models.svp_concat import ConcatSegmenter

TINY = {"widths": (8, 16, 24), "depths": (1, 1), "vector": 16}


def network(**arguments) -> ConcatSegmenter:
    torch.manual_seed(0)
    return ConcatSegmenter(**TINY, **arguments).eval()


def answer(model: ConcatSegmenter, images, masks) -> torch.Tensor:
    query = torch.randn(1, 3, 40, 33, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return model(query, model.encode_prompts(images, masks))["foreground"]


@pytest.fixture
def prompts() -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(2)
    images = torch.randn(1, 3, 3, 64, 64, generator=g)
    return images, (images[:, :, 0] > 0.8).long()


def test_only_the_image_counts_where_no_mask_is_used(prompts):
    images, masks = prompts
    blind, seeing = network(use_mask=False), network()
    other = (masks == 0).long()
    torch.testing.assert_close(
        answer(blind, images, masks), answer(blind, images, other)
    )
    change = answer(seeing, images, masks) - answer(seeing, images, other)
    assert change.abs().max() > 1e-4


def test_unknown_pixels_are_left_out_without_a_mask_too(prompts):
    images, masks = prompts
    masks[..., 32:] = -1
    blind = network(use_mask=False)
    changed = images.clone()
    changed[..., 56:] = 9  # far from the known part, beyond its receptive field
    difference = (
        blind.encode_prompts(images, masks)["vectors"]
        - blind.encode_prompts(changed, masks)["vectors"]
    )
    assert difference.abs().max() < 0.1


def test_either_fusion_takes_the_same_weights_and_agrees_on_one_prompt(prompts):
    images, masks = prompts
    mean, attention = network(fusion="mean"), network(fusion="attention")
    mean.load_state_dict(attention.state_dict())
    one = images[:, :1], masks[:, :1]
    torch.testing.assert_close(answer(mean, *one), answer(attention, *one))
    several = answer(mean, images, masks) - answer(attention, images, masks)
    assert several.abs().max() > 1e-6


def test_the_deep_variant_has_the_vector_at_each_level(prompts):
    deep, shallow = network(), network(deep=False)
    assert deep.fuse4[0].in_channels == shallow.fuse4[0].in_channels + 16
    assert answer(shallow, *prompts).shape == (1, 1, 40, 33)


def test_an_unknown_fusion_is_refused():
    with pytest.raises(ValueError, match="'sum'"):
        ConcatSegmenter(fusion="sum")
