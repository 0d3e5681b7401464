"""Where layers lie: on their image, in the units of the world, and after a move."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image, Labels

from napari_svpseg.core.geometry import Box
from napari_svpseg.plugin.layers.images.image_source import ImageSource
from napari_svpseg.plugin.layers.images.visibility import shared_area
from napari_svpseg.plugin.layers.labels.partial_label_layers import accept
from napari_svpseg.plugin.layers.metadata import metadata_of
from napari_svpseg.plugin.layers.placement import Grid, Place, align
from napari_svpseg.plugin.layers.world import (
    NOT_YX,
    WorldPoint,
    to_data,
    to_world,
    world_point,
    world_units,
)

PLACES = [
    {"scale": (-0.5, 0.5)},
    {"scale": (0.5, -0.25), "translate": (3, -4)},
    {"scale": (0.5, 0.25), "rotate": 30},
    {"scale": (-0.5, 0.25), "rotate": 30},
    {"scale": (0.5, 0.25), "shear": [0.3]},
    {"scale": (-0.5, 0.25), "shear": [0.3], "rotate": 20},
    {"affine": [[0, 0.5, 3], [-0.5, 0, 4], [0, 0, 1]]},
    {"scale": (2, -3), "rotate": 10, "affine": [[0.1, 0.5, 3], [-1, 1, 4], [0, 0, 1]]},
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("grid", [Grid((1, 1), (0, 0)), Grid((2, 3), (4, 1))])
def test_a_layer_lies_where_the_pixels_lie_that_it_is_of(place, grid):
    image = Image(np.zeros((40, 50)), units=("um", "nm"), **place)
    of = Place.of(image).on(grid)
    layer = Labels(np.zeros((5, 5), int), **of.arguments())
    moved = Labels(np.zeros((5, 5), int), scale=(2, -1), rotate=33)
    assert align(moved, of) and not align(moved, of)
    nanometres = Labels(np.zeros((5, 5), int), **of.in_units(("nm", "nm")).arguments())
    for pixel in ((0.0, 0.0), (2.0, 3.0)):
        whole = np.array(grid.factors) * (np.add(pixel, grid.corner) + 0.5) - 0.5
        there = image.data_to_world(whole)
        np.testing.assert_allclose(layer.data_to_world(pixel), there, atol=1e-9)
        np.testing.assert_allclose(moved.data_to_world(pixel), there, atol=1e-9)
        np.testing.assert_allclose(
            nanometres.data_to_world(pixel), np.multiply(there, (1000, 1)), atol=1e-6
        )


def test_points_of_the_world_know_their_units():
    layer = Labels(np.zeros((3, 40, 50), int), scale=(2, 0.5, 0.25), units="um")
    units = Labels(np.zeros((3, 4, 5), int), units="nm").units
    point = to_world(layer, (1, 10, 20), units)
    assert point == pytest.approx((2000, 5000, 5000)) and point.units == units
    np.testing.assert_allclose(to_data(layer, point), (1, 10, 20))
    np.testing.assert_allclose(to_data(layer, point[1:]), (0, 10_000, 20_000))
    assert to_world(layer, (1, 10, 20), None) == pytest.approx((2, 5, 5))
    plane = Labels(np.zeros((40, 50), int), scale=(500, 250), units="nm")
    np.testing.assert_allclose(to_data(plane, point), (10, 20))
    same = Labels(np.zeros((40, 50), int), scale=(0.5, 0.25), units="um")
    assert shared_area(plane, same, units[1:]) == pytest.approx(1)


@pytest.fixture
def mixed(discs):
    """Return a viewer with the discs in micrometres, and their truth in nanometres."""
    image, truth = discs.layers["discs"], discs.layers["truth"]
    image.scale, image.units = (0.5, 0.25), ("um", "um")
    truth.scale, truth.units = (500, 250), ("nm", "nm")
    return discs


def test_a_mask_in_other_units_is_found_where_it_is_seen(mixed, open_dock):
    image, truth = mixed.layers["discs"], mixed.layers["truth"]
    dock = open_dock()
    item = dock.book.place(dock.source_of(image), (), Box(14, 14, 32))
    assert item.mask_layer == truth and item.n_objects == 1
    np.testing.assert_array_equal(item.mask > 0, truth.data[14:46, 14:46] > 0)
    other = mixed.add_points(np.zeros((1, 2)), units=("pixel", "pixel"))
    assert world_units(mixed) is None  # napari draws the numbers then
    dock.book.refresh()
    assert not item.is_ready
    mixed.layers.remove(other)
    dock.book.refresh()
    assert item.is_ready


def test_our_layers_have_the_units_of_the_world(mixed, open_dock, finish):
    """Brush and rectangles of napari go by these."""
    image = mixed.layers["discs"]
    dock = open_dock()
    item = dock.book.place(dock.source_of(image), (), Box(14, 14, 32))
    dock.run.click()
    finish(dock)
    mask = dock.book.add_paint_layer(item)
    ours = [layer for layer in mixed.layers if metadata_of(layer) is not None]
    assert len(ours) == 3 and mask in ours
    for layer in ours:
        assert layer.units == world_units(mixed)
        for pixel in ((0, 0), (40, 71)):
            np.testing.assert_allclose(
                layer.data_to_world(pixel),
                np.multiply(image.data_to_world(pixel), 1000),
            )
    mixed.layers.remove(mixed.layers["truth"])
    for layer in ours:
        assert layer.units == image.units
        np.testing.assert_allclose(layer.scale, image.scale)


def test_a_click_finds_the_pixel_that_is_seen(mixed, open_dock):
    image = mixed.layers["discs"]
    dock = open_dock()
    source = dock.source_of(image)
    click = world_point(mixed, np.multiply((30, 70), (500, 250)))
    assert source.contains(click) and not source.contains(tuple(click))
    np.testing.assert_allclose(source.point_to_data(click), (30, 70))
    item = dock.prompt_panel.tool._stamp(source, click)
    assert item.box == Box.centred((30, 70), dock.book.size).clamped(source.plane_shape)
    assert accept(mixed, source, click) is not None
    mixed.dims.order = (1, 0)  # Y to the right: still the same plane
    assert source.shown_plane(mixed) == ()


def test_a_flipped_image_keeps_its_layers_on_it(discs, open_dock, finish):
    image, truth = discs.layers["discs"], discs.layers["truth"]
    for layer in (image, truth):
        layer.scale, layer.units = (-0.5, 0.5), ("um", "um")
    dock = open_dock()
    item = dock.book.place(dock.source_of(image), (), Box(14, 14, 32))
    np.testing.assert_array_equal(item.mask > 0, truth.data[14:46, 14:46] > 0)
    dock.run.click()
    finish(dock)
    mask = dock.book.add_paint_layer(item)
    result = discs.layers["discs [svpseg]"]
    boxes = dock.book.boxes.layer_of(item.id)
    for layer in (boxes, mask, result):
        np.testing.assert_allclose(
            layer.data_to_world((30, 77)), image.data_to_world((30, 77))
        )
    assert boxes.current_edge_width < 100  # not that of a pixel of no length


def test_our_layers_follow_their_image(discs, open_dock, finish, tmp_path):
    image, truth = discs.layers["discs"], discs.layers["truth"]
    dock = open_dock()
    item = dock.book.place(dock.source_of(image), (), Box(14, 14, 32))
    dock.add_probability.setChecked(True)
    dock.run.click()
    finish(dock)
    mask = dock.book.add_paint_layer(item)
    boxes = dock.book.boxes.layer_of(item.id)
    result = discs.layers["discs [svpseg]"]
    shown = discs.layers["discs [svpseg] probability"]
    for layer in (image, truth):
        layer.scale, layer.units = (0.5, 0.25), ("um", "um")
        layer.translate, layer.rotate = (100, 7), 15
    for layer in (boxes, mask, result, shown):
        np.testing.assert_allclose(
            layer.data_to_world((30, 77)), image.data_to_world((30, 77))
        )
        assert layer.units == image.units
    assert item.box == Box(14, 14, 32)
    dock.save_box.save_labels(str(tmp_path / "a.csv"))
    assert "area_um2" in (tmp_path / "a.csv").read_text().splitlines()[0]


def test_a_level_of_a_pyramid_follows_too(viewer, open_dock):
    full = np.zeros((192, 220), np.float32)
    image = viewer.add_image([full, full[::2, ::2]], multiscale=True, name="slide")
    dock = open_dock()
    dock.image_panel.declared.set_level(image, 1)
    item = dock.book.place(dock.source_of(image), (), Box(10, 20, 32))
    boxes = dock.book.boxes.layer_of(item.id)
    image.scale, image.units = (0.5, 0.5), ("um", "um")
    np.testing.assert_allclose(boxes.scale, (1, 1))
    np.testing.assert_allclose(boxes.translate, (0.25, 0.25))
    assert item.box == Box(10, 20, 32)
    dock.close()
    (again,) = open_dock().book.items  # at full size
    assert again.box == Box(20, 40, 64)


def test_no_box_is_drawn_where_y_and_x_are_not_seen(viewer, open_dock, finish):
    image = viewer.add_image(
        np.zeros((70, 90, 80)), name="stack", axis_labels=("z", "y", "x")
    )
    dock = open_dock()
    source = dock.source_of(image)
    viewer.dims.order = (1, 0, 2)
    told = NOT_YX.format("stack")
    dock.prompt_panel.draw.click()
    assert not dock.prompt_panel.tool.is_on and dock.message.text() == told
    dock.say("")
    dock.prompt_panel.add_prompt_at_centre()
    assert not dock.book.items and dock.message.text() == told
    dock.say("")
    dock.preview.click()
    assert dock.message.text() == told
    boxes = dock.book.boxes.layer_on(source)
    across = np.array([[0, 5, 0], [0, 5, 40], [40, 5, 40], [40, 5, 0]], float)
    dock.say("")
    boxes.add_rectangles([across])  # with napari's own tool
    assert not boxes.nshapes and not dock.book.items and dock.message.text() == told
    viewer.dims.order = (0, 1, 2)
    viewer.dims.set_point(0, 3)
    dock.prompt_panel.add_prompt_at_centre()
    assert [item.plane for item in dock.book.items] == [(3,)]


def test_axes_before_a_point_are_at_0():
    source = ImageSource.of(Image(np.zeros((3, 20, 30)), scale=(2, 1, 1)), "ZYX")
    np.testing.assert_allclose(source.point_to_data((4, 5)), (0, 4, 5))
    assert source.plane_at(WorldPoint((4, 4, 5), None)) == (2,)


def test_our_layers_stay_when_all_others_are_removed(mixed, open_dock, finish):
    dock = open_dock()
    dock.book.place(dock.source_of(mixed.layers["discs"]), (), Box(14, 14, 32))
    dock.run.click()
    finish(dock)
    for name in ("truth", "discs"):
        mixed.layers.remove(mixed.layers[name])
    (result,) = mixed.layers
    assert world_units(mixed) == world_units(mixed, []) == result.units
