"""What must hold for any box, tile, mask, score and setting."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_svpseg.core.geometry import Box
from napari_svpseg.core.image import (
    intensity_range,
    normalise,
    resize_image,
    resize_labels,
)
from napari_svpseg.core.labels.instances import (
    fill_object_holes,
    filter_objects,
    instances_from_maps,
    targets,
)
from napari_svpseg.core.labels.metrics import average_precision, dice, f1, iou
from napari_svpseg.core.prompt import Prompt, PromptSet, prompt_hash
from napari_svpseg.core.result import NOT_A_RECIPE, Maps, Recipe
from napari_svpseg.core.settings import PostprocessSettings, SegmentSettings

seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=40, deadline=None)


def blobs(seed: int, shape=(40, 44), n: int = 6, low: int = 2, high: int = 9):
    """Return labels of random discs; later ones cover earlier ones."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    labels = np.zeros(shape, np.int32)
    for i in range(1, n + 1):
        cy, cx = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= rng.uniform(low, high) ** 2] = i
    return labels


def same_objects(one: np.ndarray, two: np.ndarray) -> bool:
    """Tell whether two label images differ in nothing but their ids."""
    pairs = np.unique(np.stack([one.ravel(), two.ravel()]), axis=1)
    return bool(
        ((pairs[0] == 0) == (pairs[1] == 0)).all()
        and len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
    )


# --------------------------------------------------------------------------- boxes


@quick
@given(
    st.tuples(st.floats(-50, 350), st.floats(-50, 350)),
    st.tuples(st.floats(-50, 350), st.floats(-50, 350)),
    st.integers(16, 300),
    st.integers(16, 300),
)
def test_all_four_drag_directions_give_one_box(one, two, height, width):
    (y0, x0), (y1, x1) = one, two
    drags = (
        [(y0, x0), (y1, x1)],
        [(y1, x1), (y0, x0)],
        [(y0, x1), (y1, x0)],
        [(y1, x0), (y0, x1)],
    )
    boxes = {Box.from_corners(np.array(d), shape=(height, width)) for d in drags}
    assert len(boxes) == 1


@quick
@given(st.integers(0, 900), st.integers(0, 900), st.integers(16, 600))
def test_a_box_is_drawn_again_from_its_own_corners(y, x, size):
    box = Box(y, x, size)
    assert Box.from_corners(box.corners, shape=(1500, 1500)) == box
    assert box.clamped((1500, 1500)) == box


@quick
@given(
    st.integers(-2000, 2000), st.integers(-2000, 2000), st.integers(16, 900),
    st.integers(16, 500), st.integers(16, 500),
)  # fmt: skip
def test_clamping_twice_is_clamping_once(y, x, size, height, width):
    box = Box(y, x, size).clamped((height, width))
    assert box.fits((height, width))
    assert box.clamped((height, width)) == box
    assert box.size == min(size, height, width)


# ------------------------------------------------------------------------ intensities


@quick
@given(seeds, st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_gain_and_offset_change_nothing(seed, gain, offset):
    image = np.random.default_rng(seed).gamma(2, 50, (20, 20, 1))
    other = gain * image + offset
    np.testing.assert_allclose(
        normalise(other, intensity_range(other)),
        normalise(image, intensity_range(image)),
        atol=1e-3,
    )


@quick
@given(seeds)
def test_brighter_never_becomes_darker(seed):
    image = np.random.default_rng(seed).normal(0, 1000, (16, 16, 1))
    out = normalise(image, intensity_range(image))
    order = np.argsort(image.ravel())
    assert (np.diff(out.ravel()[order]) >= 0).all()
    assert out.min() >= -2.81
    assert out.max() <= 2.81


@quick
@given(seeds, st.integers(1, 40), st.integers(1, 40))
def test_resampled_labels_hold_no_new_ids(seed, height, width):
    labels = blobs(seed) * 1000
    out = resize_labels(labels, (height, width))
    assert out.shape == (height, width)
    assert set(np.unique(out)) <= set(np.unique(labels))


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_labels_enlarged_and_reduced_are_the_same(factor):
    labels = blobs(3)
    larger = tuple(n * factor for n in labels.shape)
    back = resize_labels(resize_labels(labels, larger), labels.shape)
    np.testing.assert_array_equal(back, labels)


@quick
@given(st.floats(-1e4, 1e4), st.integers(1, 50), st.integers(1, 50))
def test_resampling_keeps_a_constant(value, height, width):
    out = resize_image(np.full((17, 23, 2), value), (height, width))
    assert out.shape == (height, width, 2)
    np.testing.assert_allclose(out, np.float32(value), rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------------------- objects

PLAIN = PostprocessSettings(min_area=0, min_confidence=0.0, fill_holes=False)


@quick
@given(seeds)
def test_targets_are_in_range_and_fit_each_other(seed):
    labels = blobs(seed)
    foreground, distance, boundary = targets(labels)
    np.testing.assert_array_equal(foreground, labels > 0)
    assert distance.min() >= 0
    assert distance.max() <= 1
    np.testing.assert_array_equal(distance > 0, labels > 0)
    for number in np.unique(labels[labels > 0]):
        assert distance[labels == number].max() == pytest.approx(1)
    assert set(np.unique(boundary)) <= {0, 1}


@quick
@given(seeds, st.integers(0, 3), st.booleans())
def test_targets_turn_with_the_labels(seed, turns, mirrored):
    def turn(array):
        return np.rot90(array[:, ::-1] if mirrored else array, turns)

    labels = blobs(seed)
    for turned, plain in zip(
        targets(turn(labels)), map(turn, targets(labels)), strict=True
    ):
        np.testing.assert_allclose(turned, plain, atol=1e-6)


@quick
@given(seeds)
def test_targets_do_not_depend_on_ids(seed):
    labels = blobs(seed)
    names = np.random.default_rng(seed).permutation(20)[:7] + 1
    renamed = np.where(labels > 0, names[labels], 0)
    for one, two in zip(targets(labels), targets(renamed), strict=True):
        np.testing.assert_array_equal(one, two)


@quick
@given(seeds)
def test_without_splitting_objects_are_the_pieces_of_the_mask(seed):
    from scipy import ndimage

    mask = blobs(seed) > 0
    found = instances_from_maps(
        Maps(mask.astype(np.float32)), replace(PLAIN, split=False)
    )
    assert same_objects(found, ndimage.label(mask)[0])


@quick
@given(seeds, st.floats(0.05, 0.95), st.floats(0, 1))
def test_objects_cover_the_foreground_and_nothing_else(seed, threshold, strength):
    rng = np.random.default_rng(seed)
    foreground = np.clip(
        (blobs(seed) > 0) * 0.7 + rng.normal(0.1, 0.1, (40, 44)), 0, 1
    ).astype(np.float32)
    found = instances_from_maps(
        Maps(foreground, *targets(blobs(seed))[1:]),
        replace(PLAIN, threshold=threshold, split_strength=strength),
    )
    np.testing.assert_array_equal(found > 0, foreground >= threshold)
    assert set(np.unique(found)) - {0} == set(range(1, int(found.max()) + 1))


@quick
@given(seeds, st.integers(0, 60), st.integers(0, 60))
def test_removing_small_objects_twice_is_removing_once(seed, one, two):
    labels = blobs(seed)
    once = filter_objects(labels, one)
    np.testing.assert_array_equal(filter_objects(once, one), once)
    both = filter_objects(filter_objects(labels, one), two)
    np.testing.assert_array_equal(both, filter_objects(labels, max(one, two)))


@quick
@given(seeds)
def test_filling_holes_twice_is_filling_once_and_takes_nothing_away(seed):
    rng = np.random.default_rng(seed)
    labels = blobs(seed)
    labels[rng.random(labels.shape) < 0.15] = 0
    filled = fill_object_holes(labels)
    np.testing.assert_array_equal(filled[labels > 0], labels[labels > 0])
    np.testing.assert_array_equal(fill_object_holes(filled), filled)


# ----------------------------------------------------------------------------- scores


@quick
@given(seeds)
def test_scores_do_not_depend_on_which_is_the_truth(seed):
    one, two = blobs(seed), blobs(seed, n=5, high=8)
    for score in (dice, iou, f1, average_precision):
        assert score(one, two) == pytest.approx(score(two, one))
        assert 0 <= score(one, two) <= 1
        assert score(one, one) == 1


@quick
@given(seeds)
def test_scores_are_consistent_with_each_other(seed):
    one, two = blobs(seed), blobs(seed + 1)
    d, ap = dice(one, two), average_precision(one, two, 0.3)
    assert iou(one, two) == pytest.approx(d / (2 - d))
    assert f1(one, two, 0.3) == pytest.approx(2 * ap / (1 + ap))


@quick
@given(seeds, st.integers(1, 39))
def test_ignored_rows_count_as_if_they_were_not_there(seed, row):
    one, two = blobs(seed), blobs(seed + 1)
    ignore = np.zeros(one.shape, np.uint8)
    ignore[row:] = 7
    assert dice(one, two, ignore) == pytest.approx(dice(one[:row], two[:row]))
    assert iou(one, two, ignore) == pytest.approx(iou(one[:row], two[:row]))
    everything = np.ones(one.shape, bool)
    assert f1(one, two, ignore=everything) == dice(one, two, everything) == 1


@quick
@given(seeds)
def test_a_stricter_match_never_finds_more(seed):
    one, two = blobs(seed), blobs(seed, high=8)
    scores = [f1(one, two, t) for t in (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)]
    assert scores == sorted(scores, reverse=True)


# ---------------------------------------------------------------- prompts and settings


def test_a_prompt_does_not_depend_on_the_numbers_of_its_ids(disc_scene):
    image, labels = disc_scene
    names = np.array([0, 70_000, 70_001, 90_000, 90_001, 2_000_000_000])
    one, two = (
        Prompt.from_image(image, ids, (8, 8)) for ids in (labels, names[labels])
    )
    assert prompt_hash(one) == prompt_hash(two)


def test_a_set_keeps_the_order_it_was_given(disc_prompt):
    names = list("dacbe")
    made = [replace(disc_prompt, name=n, enabled=n != "c") for n in names]
    prompts = PromptSet(made)
    assert [p.name for p in prompts] == names
    assert [p.name for p in PromptSet(reversed(prompts.prompts))] == names[::-1]
    assert [p.name for p in PromptSet(made[:2]).added(*made[2:])] == names
    assert [p.name for p in prompts.usable()] == list("dabe")
    assert prompts[-1].name == "e"


@quick
@given(
    st.floats(0.05, 0.95), st.integers(-1, 1_000_000), st.booleans(), st.floats(0, 1),
    st.booleans(), st.sampled_from([None, "objects", "classes"]),
)  # fmt: skip
def test_settings_survive_json(threshold, area, split, strength, fill, labels):
    made = PostprocessSettings(
        threshold, area, 1 - threshold, split, strength, fill, labels
    )
    text = json.dumps(made.to_dict())
    assert PostprocessSettings.from_dict(json.loads(text)) == made


names = st.text(max_size=20)


@quick
@given(
    names, names, names, st.lists(names, max_size=3),
    st.floats(0.01, 100), st.none() | st.lists(st.integers(0, 9), max_size=3),
)  # fmt: skip
def test_a_recipe_survives_json(model, prompts, query, notes, scale, channels):
    made = Recipe(
        model,
        prompts=({"name": prompts, "box": [1, 2, 64]},),
        segment=SegmentSettings(tile=256).to_dict(),
        channels=None if channels is None else tuple(channels),
        intensities=((0.0, scale), (-scale, 1e9)),
        scale=scale,
        notes=tuple(notes),
        prompts_file=prompts,
        query_file=query,
        plane=(3, 1),
        stack_axes="TZYX",
    )
    assert Recipe.from_json(made.to_json()) == made


@quick
@given(names, names, names)
def test_any_file_name_is_quoted_in_code_and_in_commands(model, prompts, query):
    made = Recipe(model, prompts_file=prompts, query_file=query)
    compile(made.to_python(), "recipe", "exec")
    words = shlex.split(made.to_command())
    assert words[2] == (query or "query.tif")
    assert words[4] == (prompts or "cells.svprompt")
    assert words[8] == model


def test_numbers_of_numpy_stay_numbers_in_a_recipe():
    made = Recipe(
        "svp",
        scale=np.float32(0.5),
        intensities=np.array([[0.0, 2.0]]),
        plane=(np.int64(3),),
    )
    assert Recipe.from_json(made.to_json()) == Recipe(
        "svp", scale=0.5, intensities=((0.0, 2.0),), plane=(3,)
    )


@pytest.mark.parametrize("text", ["[]", '"svp"', "{}", '{"model": "a", "speed": 9}'])
def test_what_is_no_recipe_is_refused(text):
    with pytest.raises(ValueError, match=NOT_A_RECIPE):
        Recipe.from_json(text)
