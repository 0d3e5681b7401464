"""The plain network: any size in, three maps out, and prompts have no say."""

from __future__ import annotations

import pytest
import torch

from napari_svpseg.models.registry import ModelConfig, build


@pytest.fixture
def network():
    torch.manual_seed(0)
    config = ModelConfig("unet", {"widths": (8, 8, 16, 16), "depths": (1, 1, 1)})
    return build(config).eval()


def run(network, query, mask_value=1):
    images = torch.randn(1, 2, 3, 64, 64)
    masks = torch.full((1, 2, 64, 64), mask_value)
    with torch.inference_mode():
        return network(query, network.encode_prompts(images, masks))


@pytest.mark.parametrize("shape", [(64, 64), (1, 1), (17, 130), (3, 200)])
def test_maps_have_the_shape_of_the_query(network, shape):
    maps = run(network, torch.randn(2, 3, *shape))
    assert set(maps) == {"foreground", "distance", "boundary"}
    for value in maps.values():
        assert value.shape == (2, 1, *shape)
        assert torch.isfinite(value).all()


def test_prompts_have_no_say_but_the_query_has(network):
    query = torch.randn(1, 3, 48, 48)
    first, second = run(network, query, 1), run(network, query, 0)
    assert torch.equal(first["foreground"], second["foreground"])
    assert not torch.equal(first["foreground"], run(network, -query)["foreground"])
