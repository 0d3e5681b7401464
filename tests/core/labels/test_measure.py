"""Measurements of objects whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from napari_svpseg.core.labels.measure import INTENSITIES, SHAPE, measure


@pytest.fixture
def labels() -> np.ndarray:
    found = np.zeros((20, 30), np.int64)
    found[2:6, 3:9] = 5
    found[10:18, 10:18] = 2**40
    return found


def test_place_and_size_in_pixels(labels) -> None:
    table = measure(labels)
    assert table["label"].tolist() == [5, 2**40]
    assert table["area"].tolist() == [24, 64]
    assert (table["centroid-0"][0], table["centroid-1"][0]) == (3.5, 5.5)
    box = [table[side][1] for side in ("bbox-0", "bbox-1", "bbox-2", "bbox-3")]
    assert box == [10, 10, 18, 18]
    assert table["equivalent_diameter_area"][1] == pytest.approx(
        2 * np.sqrt(64 / np.pi)
    )


def test_physical_units_follow_from_the_pixel_size(labels) -> None:
    table = measure(labels, pixel_size=(0.5, 0.5))
    assert table["area_um2"].tolist() == [6, 16]
    assert np.allclose(table["perimeter_um"], table["perimeter"] * 0.5)
    assert table["centroid-1_um"][0] == 2.75


def test_oblong_pixels_have_no_oblique_lengths_in_units(labels) -> None:
    table = measure(labels, pixel_size=(2.0, 0.5), unit="nm")
    assert table["area_nm2"].tolist() == [24, 64]
    assert (table["centroid-0_nm"][0], table["centroid-1_nm"][0]) == (7, 2.75)
    assert "perimeter_nm" not in table and "axis_major_length_nm" not in table


def test_intensities_of_each_channel(labels) -> None:
    image = np.stack([np.full(labels.shape, 7), np.indices(labels.shape)[1]], 0)
    table = measure(labels, image=image.astype(np.uint16), image_axes="CYX")
    assert table["intensity_mean-0"].tolist() == [7, 7] and table[
        "intensity_std-0"
    ].tolist() == [0, 0]
    assert table["intensity_mean-1"][0] == 5.5
    assert (table["intensity_min-1"][0], table["intensity_max-1"][0]) == (3, 8)
    one = measure(labels, image=image[1])
    assert one["intensity_mean"].tolist() == table["intensity_mean-1"].tolist()


def test_stacks_have_a_row_for_each_plane_of_an_object() -> None:
    stack = np.zeros((2, 8, 9), np.uint16)
    stack[0, 2:4, 2:4] = 3
    stack[1, 2:5, 2:5] = 3
    image = np.arange(2)[:, None, None] * np.ones(stack.shape)
    table = measure(stack, axes="ZYX", image=image)
    assert table["z"].tolist() == [0, 1] and table["label"].tolist() == [3, 3]
    assert table["area"].tolist() == [4, 9] and table["intensity_mean"].tolist() == [
        0,
        1,
    ]


def test_no_object_is_a_table_without_rows(labels) -> None:
    empty, full = (measure(found, pixel_size=(1, 1)) for found in (labels * 0, labels))
    assert list(empty) == list(full)
    assert not len(empty["label"])


def test_an_image_full_of_one_object() -> None:
    table = measure(np.ones((4, 4), int))
    assert table["area"].tolist() == [16]


def test_positions_of_a_part_are_those_in_the_image(labels) -> None:
    whole = measure(labels[None], axes="ZYX", pixel_size=(0.5, 0.25))
    part = measure(
        labels[None],
        axes="ZYX",
        pixel_size=(0.5, 0.25),
        corner={"Z": 4, "Y": 10, "X": 3},
    )
    shifts = {
        "centroid-0": 10,
        "bbox-0": 10,
        "bbox-2": 10,
        "centroid-1": 3,
        "bbox-3": 3,
    }
    assert part["z"].tolist() == [4] * len(part["z"])
    for name, shift in shifts.items():
        np.testing.assert_allclose(part[name], whole[name] + shift)
    np.testing.assert_allclose(part["centroid-0_um"], whole["centroid-0_um"] + 5)
    np.testing.assert_allclose(part["area_um2"], whole["area_um2"])
    pixels = measure(labels, pixel_size=(0.5, 0.25), unit="pixel")
    assert not [name for name in pixels if name.endswith(("pixel", "pixel2"))]


@pytest.mark.parametrize("n_channels", [1, 3])
def test_columns_are_those_of_scikit_image(labels, n_channels) -> None:
    from skimage.measure import regionprops_table

    small = np.where(labels > 5, 6, labels)
    rng = np.random.default_rng(0)
    image = rng.random((*labels.shape, n_channels))
    properties = ("label", *SHAPE, *INTENSITIES)
    theirs = regionprops_table(
        small, image if n_channels > 1 else image[..., 0], properties=properties
    )
    ours = measure(small, image=image, image_axes="YXC")
    assert list(ours) == list(theirs)
    for name, column in theirs.items():
        np.testing.assert_allclose(ours[name], column)
    assert ours["area"].dtype.kind == "i"
