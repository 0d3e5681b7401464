"""Axes are declared; intensities are global; sizes come back."""

from __future__ import annotations

import numpy as np
import pytest

from napari_svpseg.core.image import (
    AXES,
    AXES_INVALID,
    AXES_MISMATCH,
    AXES_UNKNOWN,
    CHANNELS_ABSENT,
    EMPTY_IMAGE,
    NOT_A_PLANE,
    NOT_REAL,
    TOO_MANY_CHANNELS,
    Axes,
    ImageError,
    channels_last,
    intensity_range,
    is_flat,
    normalise,
    resize_image,
    resize_labels,
    to_three_channels,
)


@pytest.mark.parametrize("order", ["YX", "yxc", "ZYX", "TZCYX", "CYX", "XY"])
def test_good_axes(order):
    assert Axes(order).order == order.upper()


@pytest.mark.parametrize("order", ["", "Y", "ZC", "YXQ", "YYX", "YX C"])
def test_invalid_axes_are_refused_in_one_line(order, pattern):
    message = pattern(AXES_INVALID, known=AXES, order=order)
    with pytest.raises(ImageError, match=message) as caught:
        Axes(order)
    assert "\n" not in str(caught.value)


def test_axes_are_not_guessed_from_a_shape(pattern):
    assert Axes.for_image((5, 6)).order == "YX"
    assert Axes.for_image((5, 6, 3), rgb=True).order == "YXC"
    for shape in [(5, 6, 3), (3, 5, 6), (2, 3, 4, 5), (7,)]:
        with pytest.raises(ImageError, match=pattern(AXES_UNKNOWN, shape=shape)):
            Axes.for_image(shape)


def test_axes_must_fit_the_shape(pattern):
    message = pattern(AXES_MISMATCH, order="ZYX", n=3, ndim=2, shape=(4, 5))
    with pytest.raises(ImageError, match=message):
        Axes("ZYX").check((4, 5))


@pytest.mark.parametrize("order", ["TZCYX", "CZTXY", "ZYXC", "YXC", "CYX", "YX"])
def test_the_planes_of_a_stack_hold_all_of_its_pixels(order):
    sizes = {"T": 2, "Z": 3, "C": 2, "Y": 4, "X": 5}
    shape = tuple(sizes[a] for a in order)
    array = np.arange(np.prod(shape)).reshape(shape)
    axes = Axes(order)
    planes = [
        axes.to_plane(array[axes.plane_slices(i)]) for i in axes.plane_indices(shape)
    ]
    n_channels = sizes["C"] if "C" in order else 1
    assert all(p.shape == (4, 5, n_channels) for p in planes)
    assert sorted(np.concatenate([p.ravel() for p in planes])) == list(
        range(array.size)
    )
    assert axes.labels_shape(shape) == tuple(sizes[a] for a in order if a != "C")


def test_channels_are_taken_in_the_order_asked_for():
    image = np.arange(24).reshape(2, 4, 3)
    taken, rgb = channels_last(image, channels=(2, 0))
    np.testing.assert_array_equal(taken, image[..., [2, 0]])
    assert not rgb
    moved, _ = channels_last(np.moveaxis(image, -1, 0), channel_axis=0)
    np.testing.assert_array_equal(moved, image)


def test_alpha_is_dropped():
    image = np.random.default_rng(0).integers(0, 255, (8, 9, 4), dtype=np.uint8)
    taken, rgb = channels_last(image)
    assert rgb
    np.testing.assert_array_equal(taken, image[..., :3])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((2, 2), complex), NOT_REAL),
        (np.zeros((2, 2), "U3"), NOT_REAL),
        (np.zeros((2, 3, 4, 5)), NOT_A_PLANE),
        (np.zeros(7), NOT_A_PLANE),
        (np.zeros((0, 4)), EMPTY_IMAGE),
    ],
)
def test_arrays_that_are_no_plane_are_refused(image, message, pattern):
    with pytest.raises(ImageError, match=pattern(message)):
        channels_last(image)


def test_absent_channels_are_named(pattern):
    message = pattern(CHANNELS_ABSENT, last=1, channels=(0, 2))
    with pytest.raises(ImageError, match=message):
        channels_last(np.zeros((4, 4, 2)), channels=(0, 2))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "int32", "float64"])
def test_normalised_intensities_do_not_depend_on_the_dtype(dtype):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2 if dtype == "bool" else 200, (40, 40, 1))
    plain = normalise(values.astype(float), intensity_range(values.astype(float)))
    typed = values.astype(dtype)
    out = normalise(typed, intensity_range(typed))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, plain, atol=1e-5)


def test_a_change_of_gain_and_offset_changes_nothing():
    image = np.random.default_rng(1).gamma(2, 50, (60, 60, 2))
    other = image * 37.5 - 900
    np.testing.assert_allclose(
        normalise(image, intensity_range(image)),
        normalise(other, intensity_range(other)),
        atol=1e-4,
    )


def test_percentiles_map_to_zero_and_one():
    image = np.linspace(0, 1000, 100_000).reshape(250, 400, 1)
    low, high = intensity_range(image)[0]
    assert (low, high) == (pytest.approx(10, abs=0.1), pytest.approx(998, abs=0.1))
    out = normalise(np.array([[[low], [high]]]), np.array([[low, high]]))
    np.testing.assert_allclose(out.ravel(), [-2, 2], atol=1e-5)


@pytest.mark.parametrize("value", [0, 7, -3.5, 1e9])
def test_a_constant_image_becomes_zero(value):
    image = np.full((20, 20, 1), value, float)
    np.testing.assert_array_equal(normalise(image, intensity_range(image)), 0)


def test_nan_and_infinity_do_not_spread():
    image = np.random.default_rng(2).random((30, 30, 1))
    clean = intensity_range(image)
    image[3, 4], image[5, 6], image[7, 8] = np.nan, np.inf, -np.inf
    out = normalise(image, intensity_range(image))
    assert np.isfinite(out).all()
    np.testing.assert_allclose(intensity_range(image), clean, atol=0.02)
    nothing = np.full((4, 4, 1), np.nan)
    np.testing.assert_array_equal(intensity_range(nothing), [[0, 0]])


@pytest.mark.parametrize("n", [1, 2, 3])
def test_up_to_three_channels_become_three(n):
    image = np.random.default_rng(0).random((4, 5, n))
    out = to_three_channels(image)
    assert out.shape == (4, 5, 3)
    np.testing.assert_array_equal(out[..., :n], image)


def test_four_channels_are_refused(pattern):
    with pytest.raises(ImageError, match=pattern(TOO_MANY_CHANNELS, n=4)):
        to_three_channels(np.zeros((4, 4, 4)))


def test_resampled_labels_keep_their_ids():
    labels = np.zeros((40, 40), np.int32)
    labels[:20, :20], labels[20:, 20:] = 70_000, 3
    for side in (13, 64, 80):
        assert set(np.unique(resize_labels(labels, (side, side)))) == {0, 3, 70_000}
    np.testing.assert_array_equal(resize_labels(labels, (40, 40)), labels)
    up = resize_labels(labels, (80, 80))
    np.testing.assert_array_equal(resize_labels(up, (40, 40)), labels)


def test_a_reduced_image_keeps_its_mean():
    image = np.random.default_rng(0).random((120, 120, 1))
    assert resize_image(image, (30, 30)).mean() == pytest.approx(image.mean(), abs=0.01)


@pytest.mark.parametrize("unit", [1e-300, 1e-38, 1e-15, 1.0, 1e15, 1e30, 1e300])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_contrast_does_not_depend_on_the_unit(unit, dtype):
    """Only the offset makes a difference below rounding error one that is none."""
    if not 1e-38 <= unit <= 1e38 and dtype is np.float32:
        return
    image = np.random.default_rng(0).random((20, 20, 1)) + 0.5
    expected = normalise(image, intensity_range(image))
    scaled = (image * unit).astype(dtype)
    found = normalise(scaled, intensity_range(scaled))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert not is_flat(intensity_range(scaled)).any()
    assert is_flat(np.array([[1e9, 1e9 + 1e-5], [unit, unit], [0, 0]])).all()
