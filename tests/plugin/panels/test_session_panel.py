"""The whole work as one file, and back in another napari."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from npe2 import PluginManager

from napari_svpseg.core.result import Recipe
from napari_svpseg.io.session_file import open_session
from napari_svpseg.plugin.layers.images.image_source import ImageSource
from napari_svpseg.plugin.layers.labels.partial_label_layers import (
    paint_layer,
    start_painting,
)
from napari_svpseg.plugin.layers.metadata import is_of, metadata_of
from napari_svpseg.plugin.layers.results.result_layers import recipe_of
from napari_svpseg.plugin.layers.results.written_labels import is_untouched
from napari_svpseg.plugin.panels import session_panel as module
from napari_svpseg.plugin.services.restoring import find_moved

from ..conftest import disc_image


@pytest.fixture
def image_file(tmp_path):
    path = tmp_path / "data" / "discs.tif"
    path.parent.mkdir()
    tifffile.imwrite(path, disc_image()[0])
    return path


@pytest.fixture
def idle(qtbot):
    """Return a function that waits until a panel has nothing to do."""

    def wait(panel):
        qtbot.waitUntil(lambda: not panel._files.is_busy)

    return wait


def work(dock, image, finish, qtbot):
    """Draw, paint, run and edit; return the layers that are to be kept."""
    dock.prompt_panel.add_prompt_at_centre()
    item = dock.book.items[0]
    dock.book.update(item.id, name="my cells")
    mask = dock.book.add_paint_layer(item)
    mask.data_setitem(tuple(np.array([[48, 48], [50, 51]])), 1)
    qtbot.waitUntil(lambda: item.is_ready)
    dock.run.click()
    finish(dock)
    result = dock.save_box.result_layer()
    result.data_setitem(tuple(np.array([[1, 2], [1, 1]])), 9)  # the user's edit
    partial = start_painting(dock.viewer, dock.source_of(image), 2)
    partial.data_setitem(tuple(np.array([[5, 6], [7, 8]])), 2)
    dock.box_size.setValue(96)
    return mask, result, partial


def save(dock, path, idle):
    dock.session_panel.save_session(str(path))
    idle(dock.session_panel)
    assert not dock.message.is_error, dock.message.text()


def open_it(dock, path, idle):
    dock.session_panel.open_session(str(path))
    while dock.session_panel._files.is_busy:
        idle(dock.session_panel)


@pytest.fixture
def worked(dock_without_window, finish, qtbot, image_file, tmp_path, idle):
    """Return a saved session, the layers in it, and the metadata of the result."""
    PluginManager.instance().discover()  # napari's own reader, which a window has
    viewer = ViewerModel()
    image = viewer.open(str(image_file), plugin="napari")[0]
    dock = dock_without_window(viewer)
    layers = work(dock, image, finish, qtbot)
    path = tmp_path / "work.svpsession"
    save(dock, path, idle)
    kept = {la.name: la.data.copy() for la in layers}
    return path, kept, dict(metadata_of(layers[1]))


def test_everything_is_there_the_next_day(worked, dock_without_window, idle):
    path, kept, written = worked
    tomorrow = ViewerModel()
    dock = dock_without_window(tomorrow)
    open_it(dock, path, idle)
    assert dock.message.text() == module.OPENED.format(name=path.name)
    image = tomorrow.layers["discs"]
    np.testing.assert_array_equal(image.data, disc_image()[0])
    for name, data in kept.items():
        layer = tomorrow.layers[name]
        np.testing.assert_array_equal(layer.data, data)
        assert is_of(layer, image)
    result = dock.save_box.result_layer()
    assert not is_untouched(result)  # the edit is known as one
    assert metadata_of(result)["written"] == written["written"]
    assert recipe_of(result).to_dict() == Recipe(**written["recipe"]).to_dict()
    item = dock.book.items[0]
    assert item.name == "my cells" and item.is_ready and item.n_objects == 1
    assert dock.box_size.value() == 96
    assert paint_layer(tomorrow, ImageSource.of(image, "YX")).data[5, 7] == 2
    n = len(tomorrow.layers)
    open_it(dock, path, idle)  # twice is once
    assert len(tomorrow.layers) == n and len(dock.book.items) == 1


def test_a_session_goes_through_the_window(
    viewer, open_dock, finish, qtbot, image_file, tmp_path, idle
):
    image = viewer.open(str(image_file), plugin="napari")[0]
    dock = open_dock()
    layers = work(dock, image, finish, qtbot)
    path = tmp_path / "work.svpsession"
    save(dock, path, idle)
    kept = {la.name: la.data.copy() for la in layers}
    viewer.layers.clear()
    viewer.open(str(path), plugin="napari-svpseg")
    while dock.session_panel._files.is_busy:
        idle(dock.session_panel)
    for name, data in kept.items():
        np.testing.assert_array_equal(viewer.layers[name].data, data)
    assert dock.book.items[0].is_ready


def test_an_image_that_was_moved_is_asked_for_or_named(
    worked, dock_without_window, idle, image_file, tmp_path
):
    path, kept, _ = worked
    there = tmp_path / "elsewhere" / "discs.tif"
    there.parent.mkdir()
    image_file.rename(there)
    tomorrow = ViewerModel()
    dock = dock_without_window(tomorrow)
    panel, asked = dock.session_panel, []

    def answer(where):
        def ask(image):
            asked.append(image["name"])
            return where

        panel.ask_where = ask
        open_it(dock, path, idle)

    answer("")
    assert asked == ["discs"]
    assert dock.message.is_error and "discs" in dock.message.text()
    assert not any(la.name == "discs" for la in tomorrow.layers)
    tomorrow.layers.clear()
    answer(str(there))
    assert is_of(tomorrow.layers[next(iter(kept))], tomorrow.layers["discs"])


def test_an_image_beside_the_session_is_found(worked, image_file, tmp_path):
    path, _, _ = worked
    image_file.rename(tmp_path / "discs.tif")
    saved = open_session(path)
    assert find_moved(saved.state, [tmp_path]) == []
    assert saved.state["images"][0]["path"] == str(tmp_path / "discs.tif")
    (tmp_path / "discs.tif").write_bytes(b"another file of that name")
    saved = open_session(path)
    assert len(find_moved(saved.state, [tmp_path])) == 1


def test_a_damaged_session_is_one_line(dock_without_window, tmp_path, idle):
    path = tmp_path / "a.svpsession"
    path.write_bytes(b"no session")
    dock = dock_without_window(ViewerModel())
    open_it(dock, path, idle)
    assert dock.message.is_error and str(path) in dock.message.text()


def test_an_image_without_a_file_is_named_when_saving(
    dock_without_window, tmp_path, idle
):
    viewer = ViewerModel()
    viewer.add_image(disc_image()[0], name="discs")
    dock = dock_without_window(viewer)
    dock.session_panel.save_session(str(tmp_path / "a.svpsession"))
    idle(dock.session_panel)
    assert dock.message.is_error and "'discs'" in dock.message.text()
    assert (tmp_path / "a.svpsession").is_file()
