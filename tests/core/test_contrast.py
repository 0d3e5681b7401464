"""Nothing untypical decides the contrast, and ordinary images keep their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_svpseg.core.contrast import (
    DRIFTING,
    LEVELS,
    TRIMMED,
    Profile,
    alike_notes,
    contrast_for,
    percentile_table,
    plain_range,
)
from napari_svpseg.core.image import intensity_range
from napari_svpseg.core.planes import PlaneContrasts, Planes
from napari_svpseg.core.prompt import UNKNOWN, Prompt, PromptSet

LOW, HIGH = 200.0, 2000.0


def cells(n=12, *, size=256, seed=0, low=LOW, high=HIGH, noise=20.0):
    """Return an image of discs and their labels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    labels = np.zeros((size, size), np.int32)
    for i, at in enumerate(range(0, n * 5, 5), 1):
        cy, cx = 32 + 64 * (at // 20 % 4), 32 + 64 * (at // 5 % 4)
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= 64] = i
    image = np.where(labels > 0, high, low) + rng.normal(0, noise, labels.shape)
    return image.astype(np.float32), labels


def profile(image):
    return Profile(percentile_table(image.reshape(-1, 1)), image.size)


@pytest.fixture(scope="module")
def prompt():
    return Prompt.from_image(*cells(), (0, 0))


def same(found, expected, tolerance=0.1):
    width = np.diff(expected)[0, 0]
    return bool(np.abs(found - expected).max() < tolerance * width)


@pytest.mark.parametrize("n", [1, 4, 16])
@pytest.mark.parametrize(("scale", "offset"), [(1, 0), (0.4, 50), (2.5, -100)])
def test_ordinary_images_keep_their_percentiles(prompt, n, scale, offset):
    image = cells(n, seed=n)[0] * scale + offset
    found = contrast_for(profile(image), [prompt])
    assert np.array_equal(found.intensities, intensity_range(image[..., None]))
    assert not found.notes


def test_dimmer_and_brighter_images_keep_theirs_too(prompt):
    """A tenth, or ten times the light: all pixels are typical of such an image."""
    for factor in (0.1, 10.0):
        image = cells(16, seed=3)[0] * factor
        found = contrast_for(profile(image), [prompt])
        assert np.array_equal(found.intensities, intensity_range(image[..., None]))
        assert alike_notes([found.intensities], [prompt])


@pytest.mark.parametrize("side", [12, 18, 28, 50])
@pytest.mark.parametrize("value", [65535, -30000])
def test_dirt_of_any_size_decides_nothing(prompt, side, value):
    image, _ = cells(seed=1)
    clean = intensity_range(image[..., None])
    image[2 : 2 + side, 2 : 2 + side] = value
    found = contrast_for(profile(image), [prompt])
    assert same(found.intensities, clean)
    if not same(plain_range(profile(image).whole), clean):
        assert len(found.notes) == 1
    # and where a prompt is cut from it
    dirty = Prompt.from_image(image, cells(seed=1)[1], (64, 64))
    if side <= 28 and value > 0:
        assert same(dirty.intensities, clean)


def test_an_almost_empty_field_is_not_stretched(prompt):
    for n_cells, size in ((0, 256), (1, 512)):
        image, _ = cells(n_cells, size=size, seed=2)
        assert np.diff(plain_range(profile(image).whole))[0, 0] < 200
        found = contrast_for(profile(image), [prompt])
        assert same(found.intensities, prompt.intensities) and found.notes


def test_unknown_pixels_of_a_prompt_are_no_background(prompt):
    dirt = prompt.image.copy()
    mask = prompt.mask.copy()
    mask[:, 50:] = UNKNOWN
    dirt[:, 50:] = 60_000
    dirty = Prompt(dirt, mask, prompt.intensities, prompt.box)
    odd = profile(cells(low=LOW / 50, high=HIGH / 50)[0])
    same_as = replace(prompt, mask=np.where(mask == UNKNOWN, 0, mask))
    found = contrast_for(odd, [dirty]).intensities
    assert same(found, contrast_for(odd, [same_as]).intensities)


def test_no_prompt_and_colours_change_nothing(prompt):
    image, _ = cells(seed=1)
    image[:20, :20] = 65535
    plain = plain_range(profile(image).whole)
    for prompts in ([], [Prompt.from_image(image, None, (64, 64), negative=True)]):
        assert np.array_equal(contrast_for(profile(image), prompts).intensities, plain)


@pytest.mark.parametrize("axes", ["TYX", "TZYX"])
def test_frames_of_a_bleaching_movie_have_ranges_of_their_own(prompt, axes):
    frames = [
        LOW + (cells(seed=t)[0] - LOW) * share
        for t, share in enumerate((1, 0.5, 0.25, 0.1))
    ]
    frames.insert(2, np.random.default_rng(9).normal(LOW, 3, (256, 256)))  # no cells
    movie = np.stack(frames).astype(np.float32)
    movie = movie if axes == "TYX" else np.stack([movie, movie], axis=1)
    planes = Planes.of(movie, PromptSet([prompt]), axes=axes)
    found = planes.contrasts(planes.profile(), PromptSet([prompt]))
    assert DRIFTING in found.notes and len(found.recorded) == len(planes.indices)
    for index, ranges in zip(planes.indices, found.ranges, strict=True):
        if index[0] != 2:
            own = intensity_range(movie[index][..., None])
            assert same(ranges, own, 0.01)
        else:
            assert np.diff(ranges)[0, 0] > 100, "noise is not stretched"


def test_a_steady_movie_and_a_stack_share_one_range(prompt):
    stack = np.stack([cells(seed=t)[0] for t in range(5)])
    stack[3] = LOW  # an empty frame is no drift
    for axes in ("TYX", "ZYX"):
        planes = Planes.of(stack, PromptSet([prompt]), axes=axes)
        found = planes.contrasts(planes.profile(), PromptSet([prompt]))
        assert found.recorded == () and not found.notes
        shared = intensity_range(stack.reshape(-1, 1))
        assert np.array_equal(found.ranges, np.stack([shared] * 5))


def test_given_ranges_are_those_of_the_planes():
    assert PlaneContrasts.given([[0, 1]], 3).ranges.shape == (3, 1, 2)
    each = np.arange(6.0).reshape(3, 1, 2)
    assert np.array_equal(PlaneContrasts.given(each, 3).ranges, each)
    with pytest.raises(ValueError, match="3"):
        PlaneContrasts.given(each, 2)


def test_percentiles_are_those_of_the_plain_range():
    image = np.random.default_rng(0).normal(0, 1, (50, 40, 2))
    image[0, 0] = np.nan
    table = percentile_table(image.reshape(-1, 2))
    assert table.shape == (2, len(LEVELS))
    assert np.array_equal(plain_range(table), intensity_range(image))
    assert TRIMMED
