"""Several layers as channels, a level of a pyramid, and linked planes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tifffile
from napari.layers._source import Source

from napari_svpseg.core.geometry import Box
from napari_svpseg.core.image import StackedChannels
from napari_svpseg.core.result import Recipe
from napari_svpseg.io.prompt_files import load_prompts
from napari_svpseg.plugin.layers.images.channel_names import CHANNEL_NAMES
from napari_svpseg.plugin.layers.images.image_source import ImageSource
from napari_svpseg.plugin.layers.metadata import metadata_of
from napari_svpseg.plugin.layers.results.result_layers import recipe_of
from napari_svpseg.plugin.panels.image_panel import ALONE

from ..conftest import disc_image


def tick(dock, name, is_on=True):
    """Press an entry of the menu of layers."""
    panel = dock.image_panel
    panel.others.menu()
    next(a for a in panel._menu.actions() if a.text() == name).setChecked(is_on)


@pytest.fixture
def two(viewer, open_dock):
    """Return the dock with the layers DAPI, GFP and one of another shape."""
    image, labels = disc_image()
    viewer.add_image(image, name="DAPI", scale=(0.5, 0.5))
    viewer.add_image(300 - image, name="GFP", scale=(0.5, 0.5))
    viewer.add_image(image[:80], name="small")
    viewer.add_labels(labels, name="truth", scale=(0.5, 0.5))
    dock = open_dock()
    dock.images.setCurrentRow(0)
    dock.image_panel.show_selected_image()  # as a click on its name does
    return dock


def test_two_layers_are_the_channels_of_one_image(two, runner, finish, tmp_path):
    dock, viewer = two, two.viewer
    assert dock.image_panel.others.isVisibleTo(dock)
    tick(dock, "GFP")
    assert dock.image_panel.others.text() == "DAPI + GFP"
    rows = [dock.images.item(i).text() for i in range(dock.images.count())]
    assert rows == ["DAPI", "GFP (channel of DAPI)", "small"]
    dapi, small = viewer.layers["DAPI"], viewer.layers["small"]
    assert dock.image_panel.checked() == [dapi, small]
    source = dock.source_of(dapi)
    dock.book.place(source, (), Box(14, 14, 32))
    (prompt,) = dock.book.prompts()
    assert prompt.n_channels == 2 and prompt.channel_names == ("DAPI", "GFP")
    dock.images.item(2).setCheckState(dock.images.item(2).checkState().Unchecked)
    dock.run.click()
    finish(dock)
    _, (query, _), kwargs = runner.segment_calls()[-1]
    assert isinstance(query, StackedChannels) and kwargs["axes"] == "CYX"
    assert kwargs["channels"] is None and kwargs["rgb"] is False
    np.testing.assert_array_equal(np.asarray(query)[1], viewer.layers["GFP"].data)
    layer = viewer.layers["DAPI [svpseg]"]
    assert layer.data.shape == (96, 110)
    np.testing.assert_allclose(layer.scale, (0.5, 0.5))
    code = recipe_of(layer).to_python()
    assert "np.stack" in code and "'GFP.tif'" in code
    compile(code, "code", "exec")
    dock.prompt_panel.save_prompt_set(str(tmp_path / "two.svprompt"))
    saved = load_prompts(tmp_path / "two.svprompt")
    assert saved[0].channel_names == ("DAPI", "GFP")

    # another day the layers are opened in another order: names tell
    tick(dock, "GFP", False)
    dock.images.setCurrentRow(1)
    tick(dock, "DAPI")
    for item in list(dock.book.items):
        dock.book.remove(item.id)
    dock.book.add_loaded(saved)
    dock.run.click()
    finish(dock)
    assert runner.segment_calls()[-1][2]["channels"] == (1, 0)
    viewer.layers.remove(dapi)
    assert dock.image_panel.others.text() == ALONE


def test_layers_of_other_shapes_are_refused_in_one_line(two):
    tick(two, "small")
    assert two.message.is_error
    assert "'DAPI' is 96 x 110, 'small' 80 x 110" in two.message.text()
    assert two.image_panel.others.text() == ALONE
    rgb = two.viewer.add_image(np.zeros((96, 110, 3), np.uint8), name="rgb")
    two.images.setCurrentRow(0)
    offered = [a.text() for a in two.image_panel._menu.actions()]
    assert offered == ["GFP", "small"]
    with pytest.raises(ValueError, match="has channels of its own"):
        ImageSource.of(two.viewer.layers["DAPI"], "YX", others=(rgb,))


@pytest.fixture
def pyramid(viewer, open_dock, discs):
    """Return the dock with a pyramid of two levels, four times enlarged discs."""
    image, labels = (np.kron(a, np.ones((4, 4), a.dtype)) for a in disc_image())
    viewer.layers.clear()
    levels = [image, image.reshape(96, 4, 110, 4).mean((1, 3))]
    viewer.add_image(levels, name="slide", multiscale=True, scale=(0.5, 0.5))
    viewer.add_labels(labels, name="truth", scale=(0.5, 0.5))
    dock = open_dock()
    dock.book.place(dock.source_of(viewer.layers["slide"]), (), Box(56, 56, 128))
    return dock


def test_a_level_of_a_pyramid(pyramid, runner, finish):
    dock, viewer = pyramid, pyramid.viewer
    combo = dock.image_panel.level
    assert [combo.itemText(i) for i in (0, 1)] == ["0: 384 x 440", "1: 96 x 110"]
    (item,) = dock.book.items
    boxes = viewer.layers["SVPSeg prompts"]
    before = [boxes.data_to_world(v) for v in boxes.data[0]]
    combo.setCurrentIndex(1)
    combo.activated.emit(1)
    assert item.box == Box(14, 14, 32) and item.n_objects == 1
    np.testing.assert_allclose(
        [boxes.data_to_world(v) for v in boxes.data[0]], before, atol=1e-6
    )
    dock.run.click()
    finish(dock)
    _, (query, prompts), _ = runner.segment_calls()[-1]
    assert query.shape == (96, 110) and prompts[0].box.size == 32
    assert prompts[0].pixel_size == (2.0, 2.0)
    layer = viewer.layers["slide [svpseg]"]
    assert layer.data.shape == (96, 110) and metadata_of(layer, "labels")
    np.testing.assert_allclose(layer.scale, (2, 2))
    truth = viewer.layers["truth"]
    for y, x in ((30, 30), (66, 40)):  # in pixels of level 1
        world = truth.data_to_world((4 * y, 4 * x))
        assert layer.get_value(world, world=True) > 0
    np.testing.assert_allclose(  # the corners of both lie in one place
        layer.data_to_world((-0.5, -0.5)), truth.data_to_world((-0.5, -0.5))
    )
    recipe = recipe_of(layer)
    assert recipe.level == 1 and "--level 1" in recipe.to_command()
    assert "level=1" in recipe.to_python()
    tile = dock.source_of(viewer.layers["slide"]).visible_tile(viewer)
    assert tile.y1 <= 96 and tile.x1 <= 110
    combo.setCurrentIndex(0)
    combo.activated.emit(0)
    assert item.box == Box(56, 56, 128)


def test_linking_is_offered_for_stacks_and_reaches_the_run(
    viewer, open_dock, discs, runner, finish
):
    image, labels = disc_image()
    dock = open_dock()
    link = dock.options.control("link_planes")
    assert not link.isVisibleTo(dock.options)
    viewer.layers.clear()
    stack = viewer.add_image(np.stack([image] * 3), name="s", axis_labels="zyx")
    viewer.add_labels(labels, name="truth")
    assert link.isVisibleTo(dock.options)
    dock.book.place(dock.source_of(stack), (0,), Box(14, 14, 32))
    dock.options.set_values({"link_planes": True, "link_overlap": 0.4})
    dock.planes.setCurrentIndex(1)
    dock.run.click()
    finish(dock)
    post = runner.segment_calls()[-1][2]["postprocess"]
    assert post.link_planes is True and post.link_overlap == 0.4


def test_stacked_channels_are_sliced_like_an_array():
    arrays = np.random.default_rng(0).integers(0, 9, (3, 4, 5, 6))
    stacked = StackedChannels(list(arrays))
    assert (stacked.shape, stacked.ndim) == ((3, 4, 5, 6), 4)
    for index in [
        0,
        (1,),
        slice(1, 3),
        (slice(None), 2),
        (2, 1, slice(2, 4)),
        (slice(None), slice(1, 3), 0),
    ]:
        np.testing.assert_array_equal(stacked[index], arrays[index])
    part = stacked.part((slice(1, 3), 2))
    np.testing.assert_array_equal(np.asarray(part), arrays[:, 1:3, 2])


def test_a_zarr_is_read_by_the_code_that_repeats_a_run():
    recipe = Recipe("svp", query_file="slide.zarr", level=2)
    assert "open_image('slide.zarr', level=2).array" in recipe.to_python()
    assert "--level 2" in recipe.to_command()
    parts = replace(recipe, by_parts=True, segment={"trust": False, "tile": 256})
    assert parts.to_python().endswith(
        "svpseg.segment_zarr('slide.zarr', 'cells.svprompt', 'labels.zarr', 'svp', "
        "level=2, settings=svpseg.SegmentSettings(tile=256))\n"
    )
    assert "slide.zarr --prompts cells.svprompt -o labels.zarr" in parts.to_command()


@pytest.mark.parametrize("opened_by", ["svpseg", "napari"])
def test_names_of_channels_are_shown_and_may_be_typed(
    viewer, open_dock, tmp_path, opened_by
):
    path = tmp_path / "a.ome.tif"
    data = np.stack([disc_image()[0]] * 2).astype(np.uint8)
    names = {"Channel": {"Name": ["DAPI", "GFP"]}}
    tifffile.imwrite(
        path, data, metadata={"axes": "CYX", **names}, photometric="minisblack"
    )
    layer = viewer.add_image(data, axis_labels=("c", "y", "x"))
    if opened_by == "svpseg":
        layer.metadata[CHANNEL_NAMES] = ("DAPI", "GFP")
    else:
        layer._source = Source(path=str(path))
    dock = open_dock()
    panel = dock.image_panel
    panel.select(layer)
    assert "1 GFP" in panel.channels.placeholderText()
    panel.channels.setText("gfp")
    panel.channels.editingFinished.emit()
    assert panel.declared.channels(layer) == (1,)
