"""Corrections of a result become prompts, and hold in its labels."""

from __future__ import annotations

import numpy as np
import pytest

from napari_svpseg.core.annotation.corrections import (
    EMPTY_OUTLINE,
    NO_OBJECT,
    NO_POSITIVE,
    NO_SUCH_ID,
    OUTSIDE,
    CorrectionError,
    fixed_by,
    negative_example,
    object_at,
    overturns,
    positive_example,
    with_fixed,
)
from napari_svpseg.core.geometry import Box
from napari_svpseg.core.prompt import UNKNOWN, Prompt, PromptSet
from napari_svpseg.core.result import Maps


@pytest.fixture
def prompts(disc_prompt) -> PromptSet:
    return PromptSet([disc_prompt])


def test_not_this_knows_only_the_pixels_of_the_object(disc_scene, prompts):
    made = negative_example(*disc_scene, 4, prompts, source="discs.tif")
    assert made.is_negative
    assert set(np.unique(made.mask)) == {UNKNOWN, 0}
    shown = disc_scene.labels[made.box.slices] == 4
    np.testing.assert_array_equal(made.mask == 0, shown)
    assert shown.sum() == (disc_scene.labels == 4).sum(), "the object is whole"
    np.testing.assert_array_equal(made.image[..., 0], disc_scene.image[made.box.slices])
    np.testing.assert_allclose(made.intensities, prompts[0].intensities)
    assert made.source == "discs.tif"


def test_this_too_has_a_ring_of_background_without_other_objects(disc_scene, prompts):
    image, labels = disc_scene
    beside = np.zeros_like(labels)
    beside[40:60, 50:56] = 7
    beside[labels == 5] = 0
    made = positive_example(image, beside, labels == 5, prompts)
    assert (made.n_objects, made.is_negative) == (1, False)
    window = made.box.slices
    np.testing.assert_array_equal(made.mask == 1, labels[window] == 5)
    assert (made.mask == 0).any()
    assert (made.mask[beside[window] > 0] == UNKNOWN).all()
    y, x = np.nonzero(made.mask == 0)
    from_centre = np.hypot(y + made.box.y - 48, x + made.box.x - 46)
    assert from_centre.max() <= 6 + 0.35 * 13 + 1.5


@pytest.mark.parametrize("corner", [(0, 0), (0, 80), (80, 0), (80, 80)])
@pytest.mark.parametrize("side", [16, 40, 64])
def test_boxes_are_like_the_prompts_and_inside_the_image(disc_scene, corner, side):
    image, labels = disc_scene
    like = PromptSet([Prompt.from_image(image, labels, Box(12, 16, side))])
    y, x = corner
    odd = np.zeros_like(labels)
    odd[y + 2 : y + 10, x + 2 : x + 10] = 3
    for made in (
        negative_example(image, odd, 3, like),
        positive_example(image, np.zeros_like(odd), odd == 3, like),
    ):
        assert made.box.size == side
        assert made.box.fits(labels.shape)


def test_channels_and_colours_are_those_of_the_prompts(disc_scene):
    _, labels = disc_scene
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 255, (96, 96, 3), np.uint8)
    for image in (colour, rng.normal(size=(96, 96, 2))):
        like = PromptSet([Prompt.from_image(image, labels, (8, 8))])
        made = negative_example(image, labels, 1, like)
        assert (made.rgb, made.n_channels) == (like[0].rgb, like[0].n_channels)
        like.added(made)


def test_what_cannot_be_corrected_is_refused(disc_scene, prompts, pattern):
    image, labels = disc_scene
    with pytest.raises(CorrectionError, match=pattern(NO_SUCH_ID, id=99)):
        negative_example(image, labels, 99, prompts)
    with pytest.raises(CorrectionError, match=pattern(NO_SUCH_ID, id=0)):
        negative_example(image, labels, 0, prompts)
    with pytest.raises(CorrectionError, match=pattern(EMPTY_OUTLINE)):
        positive_example(image, labels, labels > 99, prompts)
    negative = negative_example(image, labels, 1, prompts)
    with pytest.raises(CorrectionError, match=pattern(NO_POSITIVE)):
        negative_example(image, labels, 1, PromptSet([negative]))
    with pytest.raises(CorrectionError, match=pattern(NO_OBJECT)):
        object_at(labels, (0, 0))
    with pytest.raises(CorrectionError, match=pattern(OUTSIDE)):
        object_at(labels, (96, 0))
    small = np.ones((9, 9), int)
    with pytest.raises(CorrectionError):
        negative_example(small * 1.0, small, 1, prompts)


def test_a_point_is_rounded_to_its_pixel(disc_scene):
    assert object_at(disc_scene.labels, (20.4, 23.6)) == 1
    assert object_at(np.array([[0, 5]]), (-0.4, 1.4)) == 5


def test_what_was_corrected_stays_whatever_the_model_says(disc_scene):
    labels = disc_scene.labels.astype(np.uint32)
    wrong, right = labels == 2, np.zeros(labels.shape, bool)
    right[60:90, 80:92] = True
    fixed = fixed_by(None, labels.shape, [wrong], [right])
    found = with_fixed(labels, fixed)
    assert found.dtype == np.uint32
    assert not found[wrong].any()
    assert len(np.unique(found[right])) == 1
    assert found[right].min() > 0
    assert (found == found[right][0]).sum() == right.sum()
    assert set(np.unique(found)) == set(range(6)), "ids are consecutive"
    # the model never saw the new object, and what it says elsewhere is kept
    far = (labels > 0) & ~wrong & ~right
    np.testing.assert_array_equal(found[far] > 0, True)
    again = fixed_by(fixed, labels.shape, [labels == 1], [])
    assert not with_fixed(labels, again)[labels <= 2].any() or right.any()
    assert (with_fixed(labels, again)[right] > 0).all()


def test_a_rest_of_a_wrong_object_goes_with_it(disc_scene):
    labels = disc_scene.labels.astype(np.uint32)
    small = labels == 2
    small[:, 74:] = False
    fixed = fixed_by(None, labels.shape, [small], [])
    assert not with_fixed(labels, fixed)[labels == 2].any()


@pytest.mark.parametrize("at", [(100, 100), (101, 102), (3, 297)])
def test_a_small_object_is_not_lost_in_a_large_box(at):
    labels = np.zeros((300, 300), np.int32)
    labels[20:80, 20:80] = 1
    labels[at] = 2
    image = labels.astype(np.float32)
    like = PromptSet([Prompt.from_image(image, labels == 1, Box(0, 0, 256))])
    wrong = negative_example(image, labels, 2, like)
    missed = positive_example(
        image, np.where(labels == 2, 0, labels), labels == 2, like
    )
    assert (wrong.mask == 0).any()
    assert missed.n_objects == 1
    assert wrong.box.size == missed.box.size


def test_the_box_of_a_large_ring_shows_a_part_of_it(prompts):
    y, x = np.mgrid[:200, :220]
    ring = np.abs(np.hypot(y - 100, x - 110) - 90) < 6
    labels = np.where(ring, 3, 0)
    image = ring.astype(np.float32)
    wrong = negative_example(image, labels, 3, prompts)
    missed = positive_example(image, 0 * labels, ring, prompts)
    for made, shown in ((wrong, wrong.mask == 0), (missed, missed.mask == 1)):
        np.testing.assert_array_equal(shown, ring[made.box.slices])
        assert shown.any()


def test_an_example_that_floods_the_result_overturns_it():
    def found(*spots: slice, sure: float = 0.97) -> Maps:
        foreground = np.zeros((60, 60), np.float32)
        for spot in spots:
            foreground[spot, 10:20] = sure
        return Maps(foreground)

    before = found(slice(5, 15))
    more = found(slice(5, 15), slice(20, 30), slice(35, 45), slice(50, 58))
    flooded = Maps(np.full((60, 60), 0.6, np.float32))
    assert not overturns(before, before)
    assert not overturns(before, more), "sure of many more"
    assert overturns(before, flooded)
    assert overturns(before, Maps(0 * before.foreground)), "nothing is left"
    decided = np.ones((60, 60), bool)
    decided[:15] = False
    assert not overturns(before, found(slice(5, 15), slice(20, 60), sure=0.6), decided)
