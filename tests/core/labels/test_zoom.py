"""Sizes of objects in an image beside those in the prompts."""

from dataclasses import replace

import numpy as np
import pytest

from napari_svpseg.core.labels.object_size import mean_depth
from napari_svpseg.core.labels.zoom import LARGEST, SMALLEST, zoom_for
from napari_svpseg.core.result import Maps, ObjectProperties


def discs(diameter, shape=(200, 200), step=1.6):
    """Return the foreground of discs."""
    y, x = np.mgrid[: shape[0], : shape[1]] % int(step * diameter)
    middle = int(step * diameter) / 2
    return ((y - middle) ** 2 + (x - middle) ** 2 <= (diameter / 2) ** 2).astype(
        np.float32
    )


def of_prompts(diameter):
    """Return the properties of discs."""
    return ObjectProperties(diameter, depth=mean_depth(discs(diameter), None))


@pytest.mark.parametrize(("found", "zoom"), [(40, 0.5), (10, 2), (20, 1), (23, 1)])
def test_image_is_shown_with_objects_as_large_as_the_prompts(found, zoom):
    assert zoom_for(Maps(discs(found), objects=of_prompts(20))) == pytest.approx(
        zoom, rel=0.12
    )


def test_zoom_stays_in_its_range():
    prompts = of_prompts(20)
    assert zoom_for(Maps(discs(6), objects=prompts)) == LARGEST
    assert zoom_for(Maps(discs(120, (800, 800)), objects=prompts)) == SMALLEST


def test_sizes_that_are_not_known_change_nothing():
    foreground, prompts = discs(40), of_prompts(20)
    nothing = np.zeros_like(foreground)
    full = np.pad(np.ones((190, 190), np.float32), ((0, 10), (0, 10)))
    for maps in (
        Maps(foreground),
        Maps(nothing, objects=prompts),
        Maps(full, objects=prompts),
        Maps(foreground, objects=replace(prompts, net=True)),
        Maps(foreground, objects=replace(prompts, depth=float("nan"))),
    ):
        assert zoom_for(maps) == 1


def test_clump_of_small_objects_is_not_a_large_one():
    """Depth says that objects are larger, the area of each that they are not."""
    foreground, prompts = discs(20), of_prompts(20)
    maps = Maps(foreground, objects=replace(prompts, depth=prompts.depth / 2))
    assert zoom_for(maps) == 1
