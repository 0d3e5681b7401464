from __future__ import annotations

import re
import sys

import numpy as np
import pytest
from scipy import ndimage

from napari_svpseg.benchmark.pixel_forest import (
    NEEDS_SKLEARN,
    NO_PROMPT,
    NO_SPLITTING,
    PixelForest,
    Splitting,
    best_splitting,
    pixel_features,
    split_objects,
    split_ways,
    splitting_grid,
)
from napari_svpseg.core.image import intensity_range, normalise
from napari_svpseg.core.prompt import Prompt, PromptError

pytest.importorskip("sklearn")


def discs(centres: list[tuple[int, int]], radius: float, side: int = 96) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    labels = np.zeros((side, side), np.int32)
    for i, (cy, cx) in enumerate(centres, start=1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = i
    return labels


def scene(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 4, labels.shape)
    return 20 + 60 * ndimage.gaussian_filter((labels > 0).astype(float), 1) + noise


PAIRS = [(20, 20), (20, 33), (50, 25), (50, 60), (70, 45)]


@pytest.fixture
def prompt() -> Prompt:
    labels = discs(PAIRS, 8)
    return Prompt.from_image(scene(labels), labels, (8, 8))


@pytest.mark.parametrize("channels", [1, 3])
def test_features_per_channel(channels: int) -> None:
    image = np.random.default_rng(0).normal(size=(40, 30, channels))
    features = pixel_features(image.astype(np.float32))
    assert features.shape == (40, 30, 24 * channels)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


def test_forest_finds_the_discs_of_another_image(prompt: Prompt) -> None:
    truth = discs([(15, 60), (40, 40), (75, 20)], 8)
    image = scene(truth, seed=1)[..., None]
    forest = PixelForest.fit([prompt])
    found = forest.foreground(pixel_features(normalise(image, intensity_range(image))))
    assert found.dtype == np.float32
    assert found.min() >= 0 and found.max() <= 1
    mask = found > 0.5
    overlap = 2 * (mask & (truth > 0)).sum() / (mask.sum() + (truth > 0).sum())
    assert overlap > 0.9
    # what it found depends on the prompt: the mask turned inside out finds the rest
    outside = (prompt.mask == 0).astype(np.int32)
    inverse = Prompt(prompt.image, outside, prompt.intensities, prompt.box)
    rest = PixelForest.fit([inverse]).foreground(
        pixel_features(normalise(image, intensity_range(image)))
    )
    assert ((rest > 0.5) != mask).mean() > 0.95


def test_forest_repeats_with_its_seed(prompt: Prompt) -> None:
    features = pixel_features(normalise(prompt.image, prompt.intensities))
    first, again, other = (
        PixelForest.fit([prompt], seed=s).foreground(features) for s in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_forest_takes_several_prompts_and_one_class(prompt: Prompt) -> None:
    empty = Prompt(
        prompt.image, np.zeros_like(prompt.mask), prompt.intensities, prompt.box
    )
    features = pixel_features(normalise(prompt.image, prompt.intensities))
    assert PixelForest.fit([empty]).foreground(features).max() == 0
    both = PixelForest.fit([prompt, empty]).foreground(features)
    alone = PixelForest.fit([prompt]).foreground(features)
    assert both.mean() < alone.mean()


def test_forest_learns_nothing_from_unknown_pixels(prompt: Prompt) -> None:
    features = pixel_features(normalise(prompt.image, prompt.intensities))
    known = np.zeros((64, 64), bool)
    known[:, :40] = True
    part = np.where(known, prompt.mask, -1).astype(np.int32)
    wrong = np.where(known, prompt.mask, (prompt.mask == 0) * 9).astype(np.int32)
    one, other = (
        PixelForest.fit(
            [Prompt(prompt.image, mask, prompt.intensities, prompt.box)]
        ).foreground(features)
        for mask in (part, wrong)
    )
    truth = prompt.mask > 0
    assert ((one > 0.5) == truth)[~known].mean() > 0.9
    assert ((other > 0.5) == truth)[~known].mean() < 0.5


def test_forest_without_prompt_or_sklearn(
    prompt: Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PromptError, match=NO_PROMPT):
        PixelForest.fit([])
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(ImportError, match=re.escape(NEEDS_SKLEARN)):
        PixelForest.fit([prompt])


def test_watershed_separates_touching_discs() -> None:
    truth = discs([(30, 30), (30, 43)], 8)
    mask = truth > 0
    assert split_objects(mask, Splitting()).max() == 1
    labels = split_objects(mask, Splitting("watershed", 1.0, 5.0))
    assert labels.dtype == np.uint32
    assert labels.max() == 2
    assert np.array_equal(labels > 0, mask)


def test_zoom_scales_the_lengths() -> None:
    mask = discs([(15, 15), (15, 28)], 8, side=48) > 0
    large = np.kron(mask, np.ones((3, 3))) > 0
    way = Splitting("watershed", 1.0, 5.0, min_area=50)
    assert split_objects(large, way, zoom=3.0).max() == 2
    tiny = Splitting("components", min_area=mask.sum() + 1)
    assert split_objects(mask, tiny).max() == 0
    assert split_objects(large, tiny, zoom=1.0).max() == 1
    assert split_objects(large, tiny, zoom=3.0).max() == 0


@pytest.mark.parametrize("mask", [np.zeros((9, 7), bool), np.ones((9, 7), bool)])
def test_split_of_empty_and_full_masks(mask: np.ndarray) -> None:
    for way, labels in split_ways(mask, splitting_grid(mask.astype(int))):
        assert labels.shape == mask.shape
        assert (labels > 0).sum() in (0, mask.size), way
        assert labels.any() == mask.any(), way


def test_best_splitting_is_that_of_the_truth() -> None:
    truth = discs([(30, 30), (30, 43)], 8)
    ways = splitting_grid(truth)
    way, labels = best_splitting(truth > 0, truth, ways)
    assert way.method == "watershed" and labels.max() == 2
    one = (truth > 0).astype(np.int32)
    way, labels = best_splitting(one > 0, one, splitting_grid(one))
    assert way.method == "components" and labels.max() == 1
    with pytest.raises(ValueError, match=NO_SPLITTING):
        best_splitting(one > 0, one, [])


def test_splitting_names_are_checked() -> None:
    with pytest.raises(ValueError, match="magic"):
        Splitting("magic")
