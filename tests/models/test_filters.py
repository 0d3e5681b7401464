import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from napari_svpseg.core.labels.metrics import dice
from napari_svpseg.models.filters import N_FILTERS, _gaussian, pixel_filters
from napari_svpseg.models.registry import ModelConfig, build

SMALL = {"widths": (8, 8, 8, 8), "depths": (1, 1, 1), "decoder": (8, 8, 8)}


def network(filters: float, **arguments):
    torch.manual_seed(0)
    return build(ModelConfig("svp", {**SMALL, "filters": filters, **arguments})).eval()


def discs(side: int, centres: list[tuple[int, int]], seed: int):
    y, x = np.mgrid[:side, :side]
    near = [(y - a) ** 2 + (x - b) ** 2 < 100 for a, b in centres]
    mask = torch.from_numpy(np.sum([(i + 1) * m for i, m in enumerate(near)], axis=0))
    noise = torch.randn(3, side, side, generator=torch.Generator().manual_seed(seed))
    return (mask > 0).float() * 2 + 0.5 * noise, mask.long()


@torch.inference_mode()
def test_the_filters_find_bright_discs_that_an_untrained_network_does_not():
    prompt, mask = discs(64, [(20, 20), (45, 45)], seed=1)
    query, truth = discs(128, [(30, 90), (70, 40), (100, 100)], seed=2)
    found = {}
    for weight in (0.0, 50.0):
        model = network(weight, ridge=False, attention=False)
        code = model.encode_prompts(prompt[None, None], mask[None, None])
        logits = model(query[None], code)["foreground"][0, 0]
        found[weight] = dice(logits.numpy() > 0, truth.numpy())
    assert found[50.0] > 0.9
    assert found[0.0] < 0.5


@torch.inference_mode()
def test_only_the_foreground_is_changed_and_by_the_weight_asked():
    prompt, mask = discs(64, [(20, 20)], seed=1)
    query = discs(96, [(30, 60)], seed=2)[0][None]
    maps = []
    for weight in (0.0, 1.0, 2.0):
        model = network(weight)
        maps.append(
            model(query, model.encode_prompts(prompt[None, None], mask[None, None]))
        )
    for name in ("distance", "boundary"):
        assert torch.equal(maps[0][name], maps[2][name])
    once = maps[1]["foreground"] - maps[0]["foreground"]
    assert once.abs().max() > 0.1
    assert torch.allclose(
        maps[2]["foreground"] - maps[0]["foreground"], 2 * once, atol=1e-4
    )


def test_training_does_not_see_the_filters():
    prompt, mask = discs(64, [(20, 20)], seed=1)
    model = network(2.0).train()
    assert "filter_weights" not in model.encode_prompts(
        prompt[None, None], mask[None, None]
    )


def test_grey_images_take_a_shorter_way_to_the_same_filters():
    grey = torch.randn(1, 1, 32, 48).expand(-1, 3, -1, -1)
    colour = torch.cat([grey, torch.randn(1, 3, 32, 48)])  # one that is not grey
    short, long = pixel_filters(grey), pixel_filters(colour)[:1]
    assert short.shape == (1, N_FILTERS, 16, 24)
    assert torch.allclose(short, long, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_constant_prompt_gives_finite_maps(value):
    model = network(2.0)
    image = torch.full((1, 1, 3, 64, 64), value)
    mask = torch.zeros(1, 1, 64, 64, dtype=torch.long)
    mask[..., 10:30, 10:30] = 1
    code = model.encode_prompts(image, mask)
    maps = model(torch.randn(1, 3, 40, 56), code)
    assert all(torch.isfinite(m).all() for m in maps.values())


@torch.inference_mode()
def test_unknown_pixels_do_not_count():
    prompt, mask = discs(64, [(20, 20)], seed=1)
    mask[:, 40:] = -1
    other = prompt.clone()
    other[:, :, 46:] = 9.0  # farther from the known pixels than the filters reach
    model = network(2.0)
    codes = [
        model.encode_prompts(p[None, None], mask[None, None]) for p in (prompt, other)
    ]
    near = [c["filter_mean"][0, 0] for c in codes]
    assert near[0] == pytest.approx(float(near[1]), abs=0.05)


def test_the_gaussian_is_that_of_scipy():
    image = torch.randn(2, 3, 20, 32, generator=torch.Generator().manual_seed(0))
    for sigma in (1.0, 2.0):
        expected = gaussian_filter(
            image.double().numpy(), (0, 0, sigma, sigma), mode="nearest", truncate=3.0
        )
        found = _gaussian(image, sigma).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-6)
