"""Where a prompt would help most."""

from __future__ import annotations

import numpy as np
import pytest

from napari_svpseg.core.geometry import Box, tile_starts
from napari_svpseg.core.labels.uncertainty import (
    SHAPES_DIFFER,
    box_sums,
    image_uncertainty,
    uncertain_pixels,
    uncertain_places,
)
from napari_svpseg.core.result import Maps


def maps_of(shape, spots):
    """Return maps, and labels, of squares of 20 pixels with a confidence each."""
    foreground = np.zeros(shape, np.float32)
    labels = np.zeros(shape, np.int32)
    for i, (y, x, probability) in enumerate(spots, start=1):
        foreground[y : y + 20, x : x + 20] = probability
        labels[y : y + 20, x : x + 20] = i * (probability > 0.5)
    return Maps(foreground), labels


def overlap(a: Box, b: Box) -> bool:
    return abs(a.y - b.y) < max(a.size, b.size) and abs(a.x - b.x) < max(a.size, b.size)


@pytest.mark.parametrize("shape", [(64, 64), (65, 200), (150, 203)])
@pytest.mark.parametrize("size", [16, 33, 64])
def test_sums_are_those_of_the_boxes(shape, size):
    values = np.random.default_rng(0).random(shape)
    ys, xs = (tile_starts(n, size, size - size // 4) for n in shape)
    expected = [[values[y : y + size, x : x + size].sum() for x in xs] for y in ys]
    np.testing.assert_allclose(box_sums(values, ys, xs, size), expected)


def test_the_most_uncertain_object_comes_first():
    maps, labels = maps_of((256, 256), [(20, 20, 0.95), (20, 200, 0.6), (200, 20, 0.8)])
    places = uncertain_places(maps, labels)  # the first is certain enough
    assert [labels[p.box.slices].max() for p in places] == [2, 3]
    assert [p.uncertainty for p in places] == pytest.approx([0.8, 0.4], abs=1e-6)
    assert all(p.n_objects == 1 for p in places)


def test_the_rim_of_a_clear_object_is_not_uncertain():
    maps, labels = maps_of((128, 256), [(20, 20, 1.0), (20, 200, 0.6)])
    maps.foreground[19, 20:40] = maps.foreground[40, 20:40] = 0.5  # unsure rims
    assert not uncertain_pixels(maps)[:, :128].any()
    assert [labels[p.box.slices].max() for p in uncertain_places(maps, labels)] == [2]


def test_places_are_inside_and_apart():
    rng = np.random.default_rng(1)
    maps = Maps(rng.random((150, 330)).astype(np.float32))
    labels = (maps.foreground > 0.5).astype(np.int32)
    taken = [Box(10, 100, 64)]
    places = uncertain_places(maps, labels, taken=taken)
    boxes = [p.box for p in places] + taken
    assert len(places) >= 4
    assert all(b.fits(labels.shape) for b in boxes)
    assert not any(overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert uncertain_places(maps, labels, limit=2) == uncertain_places(maps, labels)[:2]


def test_places_with_objects_come_before_uncertain_background():
    maps, labels = maps_of((128, 256), [(20, 20, 0.7)])
    maps.foreground[:, 150:] = 0.45  # nothing is labelled there, all is unsure
    first, *others = uncertain_places(maps, labels)
    assert first.n_objects == 1 and others
    assert all(p.n_objects == 0 and p.uncertainty > first.uncertainty for p in others)


@pytest.mark.parametrize("probability", [0.0, 0.1, 1.0])
def test_no_places_where_all_is_certain(probability):
    maps, labels = maps_of((128, 128), [(20, 20, probability)])
    assert uncertain_places(maps, labels) == []


def test_no_box_fits_into_a_small_image():
    maps, labels = maps_of((40, 200), [(10, 20, 0.6)])
    assert uncertain_places(maps, labels) == []
    assert len(uncertain_places(maps, labels, 32)) == 1


def test_shapes_must_agree(pattern):
    message = pattern(SHAPES_DIFFER, maps=(64, 64), labels=(64, 65))
    with pytest.raises(ValueError, match=message):
        uncertain_places(Maps(np.zeros((64, 64), np.float32)), np.zeros((64, 65), int))


def test_the_uncertainty_of_an_image():
    uncertainty = [
        image_uncertainty(maps_of((64, 64), [(20, 20, p)])[0]) for p in (1, 0.8, 0.6)
    ]
    assert uncertainty == pytest.approx([0, 0.4, 0.8], abs=1e-6)
    certain = maps_of((64, 64), [(20, 20, 1)])[0]
    assert image_uncertainty(certain, 0.9) == pytest.approx(0.075)
    assert image_uncertainty(maps_of((64, 64), [(20, 20, 0.8)])[0], 0.9) > 0.1
    assert (
        image_uncertainty(maps_of((64, 64), [(20, 20, 0.1)])[0]) == 1
    )  # nothing found


def test_a_large_image_is_sampled():
    rng = np.random.default_rng(0)
    maps = Maps(rng.random((1500, 1700)).astype(np.float32))
    part = Maps(maps.foreground[:500, :500])
    assert image_uncertainty(maps) == pytest.approx(image_uncertainty(part), abs=0.01)
