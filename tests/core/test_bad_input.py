"""What a user may hand in by accident: one clear line, or a sound answer."""

from __future__ import annotations

import re

import numpy as np
import pytest

from napari_svpseg.core.geometry import Box
from napari_svpseg.core.image import (
    AXES_MISMATCH,
    Axes,
    ImageError,
    channels_last,
    intensity_range,
    normalise,
    resize_image,
    resize_labels,
    sample_pixels,
    to_three_channels,
)
from napari_svpseg.core.labels.instances import (
    fill_object_holes,
    filter_objects,
    instances_from_maps,
    targets,
)
from napari_svpseg.core.labels.metrics import (
    IGNORE_DIFFERS,
    SHAPES_DIFFER,
    average_precision,
    dice,
    f1,
    iou,
)
from napari_svpseg.core.labels.object_size import is_net, median_diameter
from napari_svpseg.core.model_card import ModelCard
from napari_svpseg.core.progress import Cancelled, ignore_progress
from napari_svpseg.core.prompt import (
    BAD_IMAGE_DTYPE,
    BAD_IMAGE_SHAPE,
    BAD_MASK_SHAPE,
    BEYOND_FLOAT32,
    BOX_OUTSIDE,
    INTENSITIES_NOT_FINITE,
    INTENSITY_COUNT,
    NEGATIVE_IDS,
    NO_PROMPT,
    NOT_FINITE,
    Prompt,
    PromptError,
    PromptSet,
)
from napari_svpseg.core.result import Maps, Recipe, Result, versions
from napari_svpseg.core.settings import PostprocessSettings, SegmentSettings

RNG = np.random.default_rng(0)
NOISE = RNG.random((70, 80))
ODD_IMAGES = {
    "NaN": np.full((70, 80), np.nan),
    "infinite": np.full((70, 80), np.inf),
    "minus infinite": np.full((70, 80), -np.inf),
    "some NaN": np.where(NOISE < 0.3, np.nan, NOISE),
    "some infinite": np.where(NOISE < 0.3, -np.inf, NOISE),
    "zero": np.zeros((70, 80)),
    "constant": np.full((70, 80), 1234.5),
    "one pixel": np.ones((1, 1)),
    "one row": NOISE[:1],
    "one column": NOISE[:, :1],
    "bool": NOISE > 0.5,
    "uint8": (NOISE * 255).astype(np.uint8),
    "uint16": (NOISE * 65535).astype(np.uint16),
    "uint64": (NOISE * 2**63).astype(np.uint64) * 2,
    "int8": (NOISE * 255 - 128).astype(np.int8),
    "int32": (NOISE * 2**32 - 2**31).astype(np.int32),
    "float16": (NOISE * 60_000).astype(np.float16),
    "float64": NOISE,
    "too large for float32": NOISE * 1e300,
    "a fill value": np.where(NOISE < 0.001, -1.7e308, NOISE),
    "tiny": NOISE * 1e-30,
    "RGB": np.dstack([NOISE] * 3),
    "RGBA": (np.dstack([NOISE] * 4) * 255).astype(np.uint8),
    "big-endian": NOISE.astype(">f4"),
    "not contiguous": NOISE[::-2, ::3],
    "read-only": np.broadcast_to(np.float32(3), (70, 80)),
}


@pytest.mark.parametrize("name", ODD_IMAGES)
def test_any_image_becomes_finite_network_input(name):
    plane, _ = channels_last(ODD_IMAGES[name])
    intensities = intensity_range(sample_pixels(plane))
    out = to_three_channels(normalise(plane, intensities))
    assert out.dtype == np.float32
    assert out.shape == (*plane.shape[:2], 3)
    assert np.isfinite(out).all()
    assert np.abs(out).max() <= 2.81


@pytest.mark.parametrize("name", ODD_IMAGES)
def test_any_image_is_left_as_it_was(name):
    image = ODD_IMAGES[name]
    before = image.copy()
    plane, _ = channels_last(image)
    normalise(plane, intensity_range(plane))
    resize_image(normalise(plane, intensity_range(plane)), (9, 11))
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64", "float64"])
def test_small_differences_on_a_large_offset_survive(dtype):
    image = (1_000_000_000 + np.arange(100).reshape(10, 10, 1)).astype(dtype)
    out = normalise(image, intensity_range(image))
    assert len(np.unique(out)) > 95


def test_a_lazy_plane_is_sampled_without_reading_all_of_it():
    class Lazy:
        shape = (9000, 9000, 2)
        read = 0

        def __getitem__(self, index):
            y, x = index
            self.read += (y.stop - y.start) * (x.stop - x.start)
            return np.broadcast_to(
                np.array([1.0, 5.0]), (y.stop - y.start, x.stop - x.start, 2)
            )

    plane = Lazy()
    pixels = sample_pixels(plane, 1000)
    assert plane.read < 0.06 * 9000**2
    assert len(pixels) <= 2000
    np.testing.assert_array_equal(intensity_range(pixels), [[1, 1], [5, 5]])


@pytest.mark.parametrize("axes", ["YX", "ZYX", "TYX", "CYX", "YXC", "TZCYX"])
@pytest.mark.parametrize("ndim", [1, 2, 3, 4, 5, 6])
def test_axes_that_do_not_fit_are_named(axes, ndim, pattern):
    shape = (2,) * ndim
    if ndim == len(axes):
        Axes(axes).check(shape)
        return
    message = pattern(AXES_MISMATCH, order=axes, n=len(axes), ndim=ndim)
    with pytest.raises(ImageError, match=message):
        Axes(axes).check(shape)


# ----------------------------------------------------------------------------- prompts


def make(**changes) -> Prompt:
    mask = np.zeros((64, 64), np.int32)
    mask[9:30, 9:30] = 1
    values = {
        "image": np.ones((64, 64, 2), np.float32),
        "mask": mask,
        "intensities": [[0, 1], [0, 1]],
        "box": Box(0, 0),
    }
    return Prompt(**values | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": np.ones((64, 64))}, BAD_IMAGE_SHAPE),
        ({"image": np.ones((64, 63, 2))}, BAD_IMAGE_SHAPE),
        ({"image": np.ones((64, 64, 0))}, BAD_IMAGE_SHAPE),
        ({"image": np.ones((64, 64, 2), complex)}, BAD_IMAGE_DTYPE),
        ({"image": np.full((64, 64, 2), np.nan)}, NOT_FINITE),
        ({"image": np.full((64, 64, 2), np.inf)}, NOT_FINITE),
        ({"image": np.full((64, 64, 2), 1e39)}, BEYOND_FLOAT32),
        ({"image": np.full((64, 64, 2), 1e-40)}, BEYOND_FLOAT32),
        ({"mask": np.ones((63, 64), int)}, BAD_MASK_SHAPE),
        ({"mask": np.ones((64, 64, 1), int)}, BAD_MASK_SHAPE),
        ({"mask": np.full((64, 64), -3)}, NEGATIVE_IDS),
        ({"intensities": [[0, 1]]}, INTENSITY_COUNT),
        ({"intensities": [[0, 1], [0, np.nan]]}, INTENSITIES_NOT_FINITE),
        ({"intensities": [[0, np.inf], [0, 1]]}, INTENSITIES_NOT_FINITE),
    ],
)
def test_prompts_of_odd_content_are_refused_in_one_line(changes, message, pattern):
    assert make().n_objects == 1, "without the change it is a prompt"
    known = {"name": "prompt", "n_channels": 2, "n": 1}
    with pytest.raises(PromptError, match=pattern(message, **known)) as caught:
        make(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ODD_IMAGES)
def test_a_prompt_is_cut_from_any_image_or_refused_in_one_line(name, pattern):
    image = ODD_IMAGES[name]
    labels = np.zeros(image.shape[:2], np.uint16)
    labels[:30, :20] = 1
    try:
        prompt = Prompt.from_image(image, labels, (3, 4))
    except (PromptError, ImageError) as error:
        assert "\n" not in str(error)
        assert any(
            re.fullmatch(pattern(message), str(error))
            for message in (BOX_OUTSIDE, NOT_FINITE, BEYOND_FLOAT32)
        )
        return
    assert np.isfinite(prompt.image).all()
    assert np.isfinite(prompt.intensities).all()
    assert prompt.n_objects == 1


@pytest.mark.parametrize(
    "box", [(-1, 0), (0, -1), (7, 0), (0, 17), (10**9, 0), Box(0, 0, 71)]
)
def test_a_box_over_any_edge_is_refused(box, pattern):
    with pytest.raises(PromptError, match=pattern(BOX_OUTSIDE, height=70, width=80)):
        Prompt.from_image(NOISE, np.ones(NOISE.shape, int), box)
    assert Prompt.from_image(NOISE, np.ones(NOISE.shape, int), (6, 16)).n_objects == 1


def test_a_full_mask_is_one_object_without_background():
    prompt = Prompt.from_image(NOISE, np.ones(NOISE.shape, bool), (0, 0))
    assert prompt.mask.all()
    assert not prompt.is_negative


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "uint32", "uint64"])
def test_labels_of_any_whole_dtype_are_taken(dtype):
    labels = np.zeros(NOISE.shape, dtype)
    labels[10:30, 10:30] = 1
    assert Prompt.from_image(NOISE, labels, (0, 0)).n_objects == 1


def test_an_empty_set_has_no_usable_prompt():
    with pytest.raises(PromptError, match=NO_PROMPT):
        PromptSet().usable()


def test_an_object_of_one_pixel_keeps_its_place():
    labels = np.zeros((200, 200), int)
    labels[100, 100] = 5
    with_one_pixel = Prompt.from_image(np.ones((200, 200)), labels, (70, 70))
    assert with_one_pixel.mask[30, 30] == 1


# ----------------------------------------------------------------------------- objects


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (2, 2), (17, 23)])
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0, np.nan])
@pytest.mark.parametrize("kind", ["objects", "classes"])
def test_flat_maps_of_any_shape_are_one_object_or_none(shape, value, kind):
    flat = np.full(shape, value, np.float32)
    labels = instances_from_maps(
        Maps(flat, flat, flat), PostprocessSettings(min_area=0, labels=kind)
    )
    assert labels.shape == shape
    assert labels.dtype == np.uint32
    assert labels.max() == (1 if value >= 0.5 else 0)


def test_maps_with_some_nan_give_objects_elsewhere():
    foreground = np.zeros((60, 60), np.float32)
    foreground[5:25, 5:25] = foreground[35:55, 35:55] = 1
    foreground[10, 10] = np.nan
    labels = instances_from_maps(Maps(foreground), PostprocessSettings())
    assert labels.max() == 2


@pytest.mark.parametrize("dtype", ["uint8", "int32", "uint32", "int64"])
def test_labels_of_any_dtype_are_cleaned(dtype):
    labels = np.zeros((20, 20), dtype)
    labels[2:9, 2:9], labels[4, 4], labels[15, 15] = 100, 0, 3
    cleaned = filter_objects(fill_object_holes(labels), 5)
    assert (cleaned[4, 4], cleaned[15, 15], cleaned.max()) == (1, 0, 1)
    assert cleaned.dtype == np.uint32
    assert targets(labels)[0].sum() == 49


def test_empty_full_and_single_labels_have_targets_and_a_size():
    full = np.ones((9, 9), int)
    assert targets(full)[1].max() == 1
    assert not is_net(full)
    one = np.zeros((9, 9), int)
    one[4, 4] = 1
    assert median_diameter(one) == pytest.approx(1.128, abs=0.01)
    assert targets(one)[1].max() == pytest.approx(1)
    np.testing.assert_array_equal(fill_object_holes(full), full)


def test_huge_ids_take_no_more_memory_than_small_ones():
    labels = np.zeros((20, 20), np.int64)
    labels[5:9, 5:9] = 2**31 - 1
    small = np.where(labels > 0, 1, 0)
    assert median_diameter(labels) == median_diameter(small)
    assert is_net(labels) == is_net(small)
    assert resize_labels(labels, (40, 40)).max() == 2**31 - 1
    assert dice(labels, small) == f1(labels, small) == 1


@pytest.mark.parametrize("score", [dice, iou, f1, average_precision])
def test_scores_of_other_shapes_are_refused(score, pattern):
    labels = np.ones((6, 6), int)
    with pytest.raises(ValueError, match=pattern(SHAPES_DIFFER)):
        score(labels, labels[:5])
    with pytest.raises(ValueError, match=pattern(IGNORE_DIFFERS)):
        score(labels, labels, ignore=labels[:1])


@pytest.mark.parametrize("score", [dice, iou, f1, average_precision])
def test_scores_of_nothing_and_of_one_pixel(score):
    nothing, pixel = np.zeros((0, 5), int), np.ones((1, 1), int)
    assert score(nothing, nothing) == score(pixel, pixel) == 1
    assert score(pixel, 0 * pixel) == score(0 * pixel, pixel) == 0


# ------------------------------------------------------------ settings and the rest


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (PostprocessSettings, {"threshold": float("nan")}),
        (PostprocessSettings, {"threshold": "high"}),
        (PostprocessSettings, {"min_area": 2.5}),
        (PostprocessSettings, {"split": "no"}),
        (PostprocessSettings, {"split_strength": -0.1}),
        (PostprocessSettings, {"labels": 1}),
        (SegmentSettings, {"tile": True}),
        (SegmentSettings, {"overlap": -1}),
        (SegmentSettings, {"batch": 0}),
        (SegmentSettings, {"device": 7}),
    ],
)
def test_settings_of_another_kind_are_refused(kind, values):
    (name,) = values
    with pytest.raises(ValueError, match=f"^{name} must be"):
        kind(**values)


def test_numpy_numbers_are_settings():
    made = PostprocessSettings(threshold=np.float32(0.5), min_area=np.int64(3))
    assert made == PostprocessSettings(threshold=0.5, min_area=3)


def test_ignored_progress_does_nothing():
    assert ignore_progress(1, 2, "half") is None
    assert not issubclass(Cancelled, (OSError, ValueError))


def test_a_result_counts_its_objects_and_knows_its_uncertainty():
    foreground = np.array([[0, 0.25, 0.5], [0.75, 1, 1]], np.float32)
    labels = np.array([[0, 0, 7], [7, 9, 9]], np.uint32)
    result = Result(labels, Maps(foreground), 0.9, Recipe("svp"))
    assert result.n_objects == 2
    np.testing.assert_array_equal(result.foreground, foreground)
    np.testing.assert_allclose(result.uncertainty, [[0, 0.5, 1], [0.5, 0, 0]])


def test_versions_name_the_packages_that_influence_a_result():
    assert {"python", "napari-svpseg", "torch", "numpy"} <= set(versions())


def test_a_card_is_saved_without_its_path():
    card = ModelCard("mine", "svp", {"width": 3}, path="/home/me/mine")
    assert "path" not in card.to_dict()
    assert ModelCard(**card.to_dict(), path=card.path) == card
