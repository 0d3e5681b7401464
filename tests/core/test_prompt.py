"""Prompts are checked when they are made."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_svpseg.core.geometry import Box
from napari_svpseg.core.labels.ids import FRACTIONS
from napari_svpseg.core.prompt import (
    ALL_NEGATIVE,
    ALL_UNKNOWN,
    BOX_OUTSIDE,
    CHANNELS_DIFFER,
    EMPTY_MASK,
    NO_LABELS,
    NO_PROMPT,
    NOT_FINITE,
    SHAPES_DIFFER,
    UNKNOWN,
    Prompt,
    PromptError,
    PromptSet,
    prompt_hash,
)


@pytest.fixture
def scene() -> tuple[np.ndarray, np.ndarray]:
    labels = np.zeros((100, 120), np.int32)
    labels[20:40, 20:40], labels[50:60, 30:44] = 9, 70_000
    return 100.0 * (labels > 0) + 10, labels


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "int32", "float64"])
def test_any_real_dtype_gives_a_float_crop(scene, dtype):
    image, labels = scene
    prompt = Prompt.from_image((image > 50).astype(dtype), labels, (5, 8))
    assert prompt.image.shape == (64, 64, 1)
    assert prompt.image.dtype == np.float32
    assert prompt.mask.dtype == np.int32
    assert set(np.unique(prompt.mask)) == {0, 1, 2}, "ids are renumbered"
    assert prompt.n_objects == 2


@pytest.mark.parametrize("size", [16, 33, 64, 100])
def test_a_box_of_any_side_becomes_64(scene, size):
    image, labels = scene
    prompt = (
        Prompt.from_image(image, labels, Box(0, 15, size))
        if size > 20
        else (Prompt.from_image(image, labels, Box(25, 25, size)))
    )
    assert prompt.mask.shape == (64, 64)
    assert prompt.box.scale == 64 / size


def test_a_mask_without_background_keeps_all_objects(scene):
    image, labels = scene
    prompt = Prompt.from_image(image, labels + 5, (0, 0))
    assert prompt.n_objects == 3
    assert (prompt.mask > 0).all()


def test_intensities_are_those_of_the_whole_image(scene):
    image, labels = scene
    image[90:] = 5000
    prompt = Prompt.from_image(image, labels, (5, 8))
    assert prompt.intensities[0, 1] == 5000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"box": (60, 0)}, BOX_OUTSIDE),
        ({"box": (-1, 0)}, BOX_OUTSIDE),
        ({"box": (0, 0), "size": 128}, BOX_OUTSIDE),
        ({"labels": np.zeros((100, 120), int)}, EMPTY_MASK),
        ({"labels": np.ones((10, 12), int)}, SHAPES_DIFFER),
        ({"labels": np.full((100, 120), 0.5)}, FRACTIONS),
        ({"labels": np.full((100, 120), -1)}, EMPTY_MASK),
        ({"labels": None}, NO_LABELS),
    ],
)
def test_what_cannot_be_a_prompt_is_refused_in_one_line(
    scene, change, message, pattern
):
    image, labels = scene
    given = {"image": image, "labels": labels, "box": (5, 8)} | change
    with pytest.raises(PromptError, match=pattern(message, name="prompt")) as caught:
        Prompt.from_image(**given)
    assert "\n" not in str(caught.value)


def test_nan_in_the_box_is_refused_and_elsewhere_is_not(scene, pattern):
    image, labels = scene
    image[95, 5] = np.nan
    assert Prompt.from_image(image, labels, (5, 8)).n_objects == 2
    image[30, 30] = np.nan
    with pytest.raises(PromptError, match=pattern(NOT_FINITE)):
        Prompt.from_image(image, labels, (5, 8))


def test_an_image_smaller_than_the_box_is_refused(pattern):
    with pytest.raises(PromptError, match=pattern(BOX_OUTSIDE, height=30, width=30)):
        Prompt.from_image(np.zeros((30, 30)), np.ones((30, 30), int), (0, 0))


def test_a_negative_prompt_needs_no_mask(scene):
    prompt = Prompt.from_image(scene[0], None, (5, 8), negative=True)
    assert prompt.is_negative
    assert prompt.n_objects == 0


@pytest.mark.parametrize("size", [32, 64, 100])
def test_unknown_pixels_stay_unknown_at_any_scale(scene, size):
    image, labels = scene
    labels[:30] = UNKNOWN
    prompt = Prompt.from_image(image, labels, Box(0, 15, size))
    assert set(np.unique(prompt.mask)) >= {UNKNOWN, 0, 1}
    first = round(30 * 64 / size)
    assert (prompt.mask[:first] == UNKNOWN).all()
    assert (prompt.mask[first + 1 :] >= 0).all()
    assert prompt.n_objects == (1 if size == 32 else 2)


def test_a_binary_mask_with_unknown_pixels_becomes_objects(scene):
    image, labels = scene
    labels = (labels > 0).astype(np.int16)
    labels[:, 36:38] = UNKNOWN
    prompt = Prompt.from_image(image, labels, (5, 8))
    assert prompt.n_objects == 4, "what is unknown belongs to no object"
    assert (prompt.mask == UNKNOWN).sum() == 2 * 64


def test_a_negative_prompt_may_know_only_a_part_of_its_box(scene, pattern):
    image, labels = scene
    thing = np.where(labels == 9, 0, UNKNOWN)
    prompt = Prompt.from_image(image, thing, (5, 8), negative=True)
    assert prompt.is_negative
    assert prompt.n_objects == 0
    assert np.count_nonzero(prompt.mask == 0) == 20 * 20
    with pytest.raises(PromptError, match=pattern(ALL_UNKNOWN, name="prompt")):
        Prompt.from_image(image, thing * 0 + UNKNOWN, (5, 8), negative=True)


def test_unknown_pixels_change_the_hash(scene):
    image, labels = scene
    known = Prompt.from_image(image, labels, (5, 8))
    mask = np.where(known.mask == 0, UNKNOWN, known.mask)
    assert prompt_hash(replace(known, mask=mask)) != prompt_hash(known)


def test_rgb_and_chosen_channels(scene):
    _, labels = scene
    colour = np.random.default_rng(0).integers(
        0, 255, (*labels.shape, 4), dtype=np.uint8
    )
    prompt = Prompt.from_image(colour, labels, (5, 8))
    assert (prompt.n_channels, prompt.rgb) == (3, True)
    two = Prompt.from_image(colour, labels, (5, 8), channels=(2, 0))
    assert (two.n_channels, two.rgb, two.channels) == (2, False, (2, 0))
    first = Prompt.from_image(
        np.moveaxis(colour, -1, 0), labels, (5, 8), channel_axis=0
    )
    np.testing.assert_array_equal(first.image, prompt.image)


def test_a_set_keeps_order_and_refuses_mixed_channels(scene, pattern):
    image, labels = scene
    one = Prompt.from_image(image, labels, (5, 8), name="one")
    two = Prompt.from_image(image, labels, (0, 0), name="two")
    prompts = PromptSet([one]).added(two)
    assert [p.name for p in prompts] == ["one", "two"]
    assert (len(prompts), prompts[1].name) == (2, "two")
    colour = Prompt.from_image(np.dstack([image] * 3), labels, (5, 8), name="colour")
    message = pattern(CHANNELS_DIFFER, name="colour", n=3, first="one", n_first=1)
    with pytest.raises(PromptError, match=message):
        PromptSet([one, colour])


def test_usable_drops_what_is_switched_off(scene):
    from dataclasses import replace

    image, labels = scene
    one = Prompt.from_image(image, labels, (5, 8))
    off = replace(one, enabled=False)
    negative = Prompt.from_image(image, None, (5, 8), negative=True)
    assert len(PromptSet([one, off]).usable()) == 1
    with pytest.raises(PromptError, match=NO_PROMPT):
        PromptSet([off]).usable()
    with pytest.raises(PromptError, match=ALL_NEGATIVE):
        PromptSet([negative, off]).usable()
