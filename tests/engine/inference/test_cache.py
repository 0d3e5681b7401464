"""Encoded queries are kept, and change nothing but the time."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

import napari_svpseg as svpseg
from napari_svpseg.core.geometry import Box
from napari_svpseg.core.prompt import Prompt, PromptSet
from napari_svpseg.engine.inference.cache import (
    MOST_BYTES,
    FeatureCache,
    query_features,
)
from napari_svpseg.engine.inference.predict import predict
from napari_svpseg.io.model_store import load_model
from napari_svpseg.models.registry import ModelConfig, build

METHODS = {
    "svp": {
        "widths": (8, 12, 12, 12),
        "depths": (1, 1, 1),
        "features": 12,
        "pixel_features": 12,
        "decoder": (8, 8, 8),
        "filters": 1.0,
    },
    "svp-attention": {"width": 4, "features": 8},
    "panet": {"width": 4, "features": 8},
    "svp-concat": {"widths": (4, 8, 8), "depths": (1, 1), "vector": 8},
    "alpnet": {"width": 4, "features": 8},
    "dspnet": {"width": 4, "features": 8},
}
SETTINGS = svpseg.SegmentSettings(device="cpu")


@pytest.fixture
def cache():
    query_features.allow(2**28)
    yield query_features
    query_features.allow(0)


def small(method: str):
    torch.manual_seed(0)
    return build(ModelConfig(method, METHODS[method])).eval()


def counted(network, monkeypatch) -> list[tuple[int, ...]]:
    """Return a list that grows by the shape of each query that is encoded."""
    seen, encode = [], type(network).encode_query

    def encode_query(self, query):
        seen.append(tuple(query.shape))
        return encode(self, query)

    monkeypatch.setattr(type(network), "encode_query", encode_query)
    return seen


@pytest.mark.parametrize("method", METHODS)
def test_other_prompts_encode_no_query_again(method, disc_scene, cache, monkeypatch):
    network = small(method)
    image, labels = disc_scene
    one = Prompt.from_image(image, labels, (8, 8))
    two = Prompt.from_image(image, labels, Box(30, 30, 64))
    plane = image[..., None]
    quiet = svpseg.SegmentSettings(device="cpu", trust=False)
    cache.allow(0)
    plain = [
        predict(plane, PromptSet(p), network, settings=quiet).maps
        for p in ([one], [one, two])
    ]
    cache.allow(2**28)
    seen = counted(network, monkeypatch)
    kept = [
        predict(plane, PromptSet(p), network, settings=quiet).maps
        for p in ([one], [one, two])
    ]
    whole = [shape for shape in seen if shape[-1] > 64]
    assert len(whole) == 1
    for there, here in zip(plain, kept, strict=True):
        np.testing.assert_array_equal(there.foreground, here.foreground)


def test_labels_are_those_of_an_uncached_run(disc_scene, disc_prompt, tiny_svp, cache):
    cache.allow(0)
    plain = svpseg.segment(disc_scene.image, disc_prompt, tiny_svp, settings=SETTINGS)
    cache.allow(2**28)
    for _ in range(2):
        again = svpseg.segment(
            disc_scene.image, disc_prompt, tiny_svp, settings=SETTINGS
        )
        np.testing.assert_array_equal(again.labels, plain.labels)
        np.testing.assert_array_equal(again.maps.foreground, plain.maps.foreground)
        assert again.trust == plain.trust
    assert cache.n_bytes > 0


def test_another_image_and_other_weights_are_encoded(disc_scene, cache, monkeypatch):
    network = small("panet")
    image, labels = disc_scene
    prompts = PromptSet([Prompt.from_image(image, labels, (8, 8))])
    quiet = svpseg.SegmentSettings(device="cpu", trust=False)
    seen = counted(network, monkeypatch)

    def n_encoded(plane) -> int:
        seen.clear()
        predict(plane[..., None], prompts, network, settings=quiet)
        return len([shape for shape in seen if shape[-1] > 64])

    assert n_encoded(image) == 1
    assert n_encoded(image) == 0
    assert n_encoded(image[::-1].copy()) == 1
    with torch.no_grad():
        next(network.parameters()).add_(0.1)
    assert n_encoded(image) == 1


def test_memory_is_bounded_and_given_back(tiny_svp):
    kept = FeatureCache()
    networks = [load_model(tiny_svp).network for _ in range(2)]
    features = {"a": torch.zeros(1000)}  # 4000 bytes
    assert kept.get(networks[0], ["x"], lambda: features) is features
    assert kept.n_bytes == 0, "nothing is kept unless it is allowed"
    kept.allow(10_000)
    for content in "abca":
        kept.get(networks[0], [content], lambda: {"a": torch.zeros(1000)})
    assert kept.n_bytes == 8000
    first = kept.get(networks[0], ["a"], dict)
    assert first is kept.get(networks[0], ["a"], dict), "used last, so it is there"
    other = kept.get(networks[1], ["a"], lambda: {"a": torch.ones(10)})
    assert other is not first
    kept.allow(40)
    assert kept.n_bytes == 40
    networks.pop()
    gc.collect()
    assert kept.n_bytes == 0


def test_thirty_images_of_512_pixels_fit():
    network = load_model("svp").network
    with torch.no_grad():
        features = network.encode_query(torch.zeros(1, 3, 64, 64))
    of_64 = sum(value.nbytes for value in features.values())
    assert 30 * (512 // 64) ** 2 * of_64 <= MOST_BYTES


def test_rounds_over_more_images_than_fit_find_most_of_them(tiny_svp):
    network, made = load_model(tiny_svp).network, []

    def make():
        made.append(1)
        return {"a": torch.zeros(10)}

    kept = FeatureCache()
    kept.allow(9 * 40)
    for _ in range(11):
        for image in "abcdefghij":
            kept.get(network, [image], make)
    assert len(made) < 10 + 10 * 5
