"""A network with its prompts baked in gives what the usual way gives."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from napari_svpseg.core.exchange import scaled_range
from napari_svpseg.core.image import intensity_range
from napari_svpseg.core.prompt import UNKNOWN, Prompt, PromptSet
from napari_svpseg.core.settings import SegmentSettings
from napari_svpseg.engine.exchange.bake import bake
from napari_svpseg.engine.exchange.baked import BakedModel, PlainNorm
from napari_svpseg.engine.exchange.graphs import ExchangeError, torchscript_graph
from napari_svpseg.engine.inference.predict import predict
from napari_svpseg.engine.inference.prompt_features import (
    network_scale,
    prompt_tensors,
)
from napari_svpseg.io.model_store import load_model
from napari_svpseg.models.registry import ModelConfig, build
from napari_svpseg.models.unet import ChannelNorm


@pytest.fixture(scope="module")
def network():
    return load_model("svp").network


def discs(shape, diameter, channels=1):
    """Return raw intensities (Y, X, C) and labels of a grid of discs."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    pitch = 1.6 * diameter
    near = ((y % pitch - pitch / 2) ** 2 + (x % pitch - pitch / 2) ** 2) ** 0.5
    inside = near < diameter / 2
    ids = (y // pitch).astype(int) * 1000 + (x // pitch).astype(int) + 1
    noise = np.random.default_rng(0).normal(0, 30, (*shape, channels))
    image = 200 + 900 * inside[..., None] * np.linspace(1, 0.4, channels) + noise
    return image.astype(np.float32), np.where(inside, ids, 0)


def baked(network, prompts, side=None):
    scale = network_scale(prompts, network)
    with torch.no_grad():
        code = network.encode_prompts(*prompt_tensors(prompts, scale))
    return BakedModel(network, code, scale, side).eval()


def maps_of(model, image):
    shown = scaled_range(np.moveaxis(image, -1, 0)[None])
    with torch.no_grad():
        return model(torch.from_numpy(shown))[0].numpy()


@pytest.mark.parametrize(
    ("diameter", "size", "channels"), [(18, 64, 1), (40, 128, 3), (9, 64, 2)]
)
def test_same_as_predict(network, diameter, size, channels):
    image, labels = discs((165, 142), diameter, channels)
    prompts = PromptSet([Prompt.from_image(image, labels, (8, 8), size, rgb=False)])
    model = baked(network, prompts)
    assert (model.scale == 1) == (diameter == 18)
    usual = predict(image, prompts, network, "cpu", SegmentSettings(trust=False)).maps
    found = maps_of(model, image)
    for own, other in zip(
        found, (usual.foreground, usual.distance, usual.boundary), strict=True
    ):
        np.testing.assert_allclose(own, other, atol=1e-5)
    assert np.ptp(found[0]) > 0.5


def odd_image(kind, image):
    """Return an image (Y, X, C) of a kind that has little contrast, or none."""
    image = image.copy()
    if kind == "flat":
        image[:] = 700
    elif kind == "hot pixels":
        image[:] = 700
        image[5, 5], image[50, 60], image[90, 7] = 0, 65535, 701
    elif kind == "empty channel":
        image[..., -1] = 0
    elif kind == "uint8":
        image = np.clip(image / 5, 0, 255).astype(np.uint8)
    elif kind == "uint16":
        image = np.clip(image, 0, 65535).astype(np.uint16)
    elif kind == "small floats":
        image = (image - 200) * 1e-6
    elif kind == "NaN":
        image[20:50, 30:40] = np.nan
    elif kind == "odd size":
        image = image[:101, :97]
    elif kind == "small":
        image = image[:70, :66]
    return image


@pytest.fixture(scope="module")
def of_channels(network):
    """Return an image, its prompts and the graph for a number of channels."""
    made = {}

    def one(channels):
        if channels not in made:
            image, labels = discs((112, 112), 27, channels)
            prompt = Prompt.from_image(image, labels, (0, 0), 90, rgb=False)
            made[channels] = (
                image,
                PromptSet([prompt]),
                baked(network, PromptSet([prompt])),
            )
        return made[channels]

    return one


@pytest.mark.parametrize(
    ("kind", "channels"),
    [
        ("flat", 1), ("flat", 3), ("hot pixels", 1), ("hot pixels", 3),
        ("empty channel", 3), ("uint8", 3), ("uint16", 1), ("small floats", 1),
        ("NaN", 1), ("NaN", 3), ("odd size", 1), ("small", 3),
    ],
)  # fmt: skip
def test_odd_images_give_the_same(network, of_channels, kind, channels):
    image, prompts, model = of_channels(channels)
    query = odd_image(kind, image)
    ranges = intensity_range(query)  # no prompt judges the contrast in a graph
    usual = predict(
        query, prompts, network, "cpu", SegmentSettings(trust=False), ranges
    ).maps
    found = maps_of(model, query)
    for own, other in zip(
        found, (usual.foreground, usual.distance, usual.boundary), strict=True
    ):
        np.testing.assert_allclose(own, other, atol=1e-4)
    assert (found[0].max() > 0.5) == (kind not in ("flat", "hot pixels"))


def test_several_prompts_and_corrections_are_in_it(network):
    image, labels = discs((160, 160), 18)
    first = Prompt.from_image(image, labels, (0, 0))
    painted = labels.copy()
    painted[64:80, 64:128] = UNKNOWN
    prompts = PromptSet(
        [
            first,
            Prompt.from_image(image, painted, (64, 64)),
            Prompt.from_image(np.roll(image, 7, 0) * 0.5, None, (90, 0), negative=True),
        ]
    )
    model = baked(network, prompts)
    usual = predict(image, prompts, network, "cpu", SegmentSettings(trust=False)).maps
    np.testing.assert_allclose(maps_of(model, image)[0], usual.foreground, atol=1e-5)
    alone = maps_of(baked(network, PromptSet([first])), image)[0]
    assert np.abs(alone - usual.foreground).max() > 1e-3


def test_torchscript_takes_other_sizes(network):
    image, labels = discs((96, 128), 40)
    prompts = PromptSet([Prompt.from_image(image, labels, (0, 0), 90)])
    model = baked(network, prompts)
    loaded = torch.jit.load(io.BytesIO(torchscript_graph(model, 1)))
    np.testing.assert_allclose(maps_of(loaded, image), maps_of(model, image), atol=1e-5)


def test_fixed_side_is_the_same(network):
    image, labels = discs((128, 128), 40)
    prompts = PromptSet([Prompt.from_image(image, labels, (0, 0), 90)])
    free, fixed = (maps_of(baked(network, prompts, s), image) for s in (None, 128))
    np.testing.assert_allclose(fixed, free, atol=1e-6)


def test_normalisation_in_single_steps():
    norm = ChannelNorm(6)
    torch.manual_seed(0)
    torch.nn.init.normal_(norm.weight)
    x = 3 * torch.randn(1, 6, 5, 4) + 7
    torch.testing.assert_close(PlainNorm(norm)(x), norm(x), atol=1e-5, rtol=1e-5)


def test_marks_of_wrong_objects_are_told(network, disc_scene, disc_prompt):
    mask = np.full(disc_scene.labels.shape, UNKNOWN)
    mask[10:30, 10:30] = 0
    wrong = Prompt.from_image(disc_scene.image, mask, (0, 0), negative=True)
    assert wrong.marks_object
    one, two = (
        bake(network, PromptSet(p), "torchscript")
        for p in ([disc_prompt], [disc_prompt, wrong])
    )
    assert not one.notes and len(two.notes) == 1
    np.testing.assert_array_equal(one.test_output, two.test_output)


def test_refused(network, disc_prompt):
    prompts = PromptSet([disc_prompt])
    panet = build(ModelConfig("panet", {"width": 4, "features": 8}))
    with pytest.raises(ExchangeError):
        bake(panet, prompts, "onnx")
    with pytest.raises(ExchangeError):
        bake(network, prompts, "onnx", 32)
