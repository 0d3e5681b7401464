"""What every method must do, trained or not."""

from __future__ import annotations

import pytest
import torch

from napari_svpseg.models.base import IGNORE, PromptSegmenter, count_parameters
from napari_svpseg.models.registry import ModelConfig, build, methods

SMALL = {
    "svp": {
        "widths": (8, 16, 24, 32),
        "depths": (1, 1, 1),
        "features": 16,
        "pixel_features": 16,
        "decoder": (8, 16, 16),
    },
    "svp-attention": {"width": 8, "features": 16},
    "panet": {"width": 8, "features": 16},
    "svp-concat": {"widths": (8, 16, 24), "depths": (1, 1), "vector": 16},
    "alpnet": {"width": 8, "features": 16},
    "dspnet": {"width": 8, "features": 16},
}


def small(method: str) -> PromptSegmenter:
    torch.manual_seed(0)
    return build(ModelConfig(method, SMALL[method])).eval()


def prompt(n: int = 1, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Bright discs on dark noise, and their ids."""
    g = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    masks = torch.zeros(1, n, 64, 64, dtype=torch.int64)
    for k in range(n):
        for i, (cy, cx) in enumerate([(16, 18), (44, 40 - 5 * k)]):
            masks[0, k][(y - cy) ** 2 + (x - cx) ** 2 < 100] = i + 1
    images = 2.0 * (masks > 0)[:, :, None].expand(-1, -1, 3, -1, -1) - 1
    return images + 0.2 * torch.randn(images.shape, generator=g), masks


def run(network: PromptSegmenter, query, images, masks) -> torch.Tensor:
    with torch.inference_mode():
        return network(query, network.encode_prompts(images, masks))["foreground"]


def dice(logits: torch.Tensor, mask: torch.Tensor) -> float:
    found, truth = logits[:, 0] > 0, mask > 0
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


def test_the_first_methods_are_registered():
    assert set(SMALL) <= set(methods())


def test_an_unknown_method_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'nope'.*svp"):
        build(ModelConfig("nope"))


@pytest.mark.parametrize("method", SMALL)
@pytest.mark.parametrize("shape", [(64, 64), (1, 1), (17, 130), (65, 33), (3, 200)])
@pytest.mark.parametrize("n_prompts", [1, 5])
def test_maps_have_the_shape_of_the_query(method, shape, n_prompts):
    network = small(method)
    images, masks = prompt(n_prompts)
    with torch.inference_mode():
        code = network.encode_prompts(images, masks)
        maps = network(torch.randn(2, 3, *shape), code)
    for name, value in maps.items():
        assert value.shape == (2, 1, *shape), name
        assert value.dtype == torch.float32
        assert torch.isfinite(value).all(), name


@pytest.mark.parametrize("method", SMALL)
def test_the_order_of_prompts_does_not_matter(method):
    network = small(method)
    images, masks = prompt(3)
    query = torch.randn(1, 3, 48, 48)
    there = run(network, query, images, masks)
    back = run(network, query, images.flip(1), masks.flip(1))
    other = run(network, query, images, masks.flip(1))
    torch.testing.assert_close(there, back, atol=2e-4, rtol=1e-3)
    assert (there - other).abs().max() > 1e-3, "the test could not fail"


@pytest.mark.parametrize("method", [m for m in SMALL if m != "svp"])
def test_a_repeated_prompt_changes_nothing(method):
    network = small(method)
    images, masks = prompt(1)
    query = torch.randn(1, 3, 48, 48)
    once = run(network, query, images, masks)
    twice = run(network, query, images.repeat(1, 2, 1, 1, 1), masks.repeat(1, 2, 1, 1))
    torch.testing.assert_close(once, twice, atol=1e-4, rtol=1e-3)


def test_attention_passes_the_copy_test_untrained():
    network = small("svp-attention")
    with torch.no_grad():
        network.log_temperature.fill_(-10)  # clamped to 0.01
    images, masks = prompt(1)
    assert dice(run(network, images[:, 0], images, masks), masks[:, 0]) >= 0.95


@pytest.mark.parametrize("method", ["svp-attention", "panet"])
def test_swapping_roles_in_the_prompt_swaps_the_answer(method):
    """Exactly: these two treat both classes alike."""
    network = small(method)
    images, masks = prompt(1)
    query = torch.randn(1, 3, 40, 40)
    there = run(network, query, images, masks)
    swapped = run(network, query, images, (masks == 0).long())
    torch.testing.assert_close(there, -swapped, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("method", SMALL)
def test_unknown_pixels_of_a_prompt_have_no_say(method):
    network = small(method)
    images, masks = prompt(1)
    masks[..., 32:] = -1
    query = torch.randn(1, 3, 48, 48)
    there = run(network, query, images, masks)
    assert torch.isfinite(there).all()
    known = prompt(1)[1]
    assert (there - run(network, query, images, known)).abs().max() > 1e-4


@pytest.mark.parametrize("method", SMALL)
def test_a_negative_prompt_beside_a_positive_one(method):
    network = small(method)
    images, masks = prompt(2)
    masks[0, 1] = 0
    query = torch.randn(1, 3, 48, 48)
    out = run(network, query, images, masks)
    assert torch.isfinite(out).all()
    # an object, beside which all is unknown
    masks[0, 1] = torch.where(prompt(2)[1][0, 1] == 1, 0, -1)
    part = run(network, query, images, masks)
    assert torch.isfinite(part).all()
    assert (out - part).abs().max() > 1e-5


@pytest.mark.parametrize("method", SMALL)
def test_one_code_serves_many_tiles(method):
    network = small(method)
    images, masks = prompt(2)
    tiles = torch.randn(3, 3, 64, 64)
    together = run(network, tiles, images, masks)
    apart = torch.cat([run(network, tile[None], images, masks) for tile in tiles])
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("method", SMALL)
def test_one_episode_can_be_learned(method):
    """Two hundred steps on one episode, or fewer, reach a Dice over 0.98."""
    network = small(method).train()
    images, masks = prompt(1)
    query, truth = prompt(1, seed=5)
    target = (truth > 0).float()
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    reached = 0.0
    for step in range(1, 201):
        code = network.encode_prompts(images, masks)
        logits = network(query[:, 0], code)["foreground"]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            reached = dice(run(network.eval(), query[:, 0], images, masks), truth[:, 0])
            network.train()
            if reached > 0.98:
                break
    assert reached > 0.98


def test_full_size_networks_stay_small():
    for method in SMALL:
        assert count_parameters(build(ModelConfig(method))) * 4 < 6.4e6, method


@pytest.mark.parametrize("hidden", [0, 30, 64])
def test_attention_by_class_is_that_of_all_keys_at_once(hidden):
    network = small("svp")
    images, masks = prompt(n=3)
    masks[0, :2, :hidden] = IGNORE  # keys that take no part
    masks[0, 1] = 0
    query = prompt(n=2, seed=1)[0][0]
    code = network.encode_prompts(images, masks)
    pyramid = network.encode_query(query)["pyramid"]
    with torch.inference_mode():
        found = network._attention_maps(pyramid, code)
    expected = network._attention_maps(pyramid, code)  # all at once, with gradients
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two.detach(), atol=2e-5, rtol=0)


def test_attention_where_nothing_is_known_is_that_of_all_keys_at_once():
    network = small("svp")
    images, masks = prompt()
    masks[:] = IGNORE
    code = network.encode_prompts(images, masks)
    pyramid = network.encode_query(images[0])["pyramid"]
    with torch.inference_mode():
        found = network._attention_maps(pyramid, code)
    expected = network._attention_maps(pyramid, code)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two.detach(), atol=2e-5, rtol=0)


def test_blocks_of_the_query_change_nothing(monkeypatch):
    network = small("svp")
    images, masks = prompt(n=2)
    query = torch.randn(1, 3, 96, 80, generator=torch.Generator().manual_seed(2))
    expected = run(network, query, images, masks)
    monkeypatch.setattr("napari_svpseg.models.svp.QUERY_BLOCK", 64)
    torch.testing.assert_close(run(network, query, images, masks), expected)
