"""The whole work as one file, and back in another napari."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_svpseg.core.result import Recipe
from napari_svpseg.io.session_file import open_session
from napari_svpseg.plugin.docks.segment_dock import SegmentWidget
from napari_svpseg.plugin.layers.images.image_source import ImageSource
from napari_svpseg.plugin.layers.labels.partial_label_layers import (
    paint_layer,
    start_painting,
)
from napari_svpseg.plugin.layers.metadata import is_of, metadata_of
from napari_svpseg.plugin.layers.results.result_layers import recipe_of
from napari_svpseg.plugin.layers.results.written_labels import is_untouched
from napari_svpseg.plugin.panels import session_panel as module
from napari_svpseg.plugin.services import autosave
from napari_svpseg.plugin.services.engine_process import Engine
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


@pytest.fixture
def worked(viewer, open_dock, finish, qtbot, image_file, tmp_path, idle):
    """Work in a dock, save the session, and return its file and what was there."""
    image = viewer.open(str(image_file), plugin="napari")[0]
    dock = open_dock()
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
    partial = start_painting(viewer, dock.source_of(image), 2)
    partial.data_setitem(tuple(np.array([[5, 6], [7, 8]])), 2)
    dock.box_size.setValue(96)
    path = tmp_path / "work.svpsession"
    dock.session_panel.save_session(str(path))
    idle(dock.session_panel)
    assert not dock.message.is_error, dock.message.text()
    kept = {la.name: la.data.copy() for la in (mask, result, partial)}
    return path, kept, dict(metadata_of(result))


@pytest.fixture
def tomorrow(worked, viewer, qtbot, runner, monkeypatch):
    """Return an empty viewer, as napari is the next day."""
    docks = viewer.window
    viewer.layers.clear()
    for dock in list(docks.dock_widgets.values()):
        docks.remove_dock_widget(dock)
    autosave._close(id(getattr(viewer, "__wrapped__", viewer)))
    return viewer


def test_everything_is_there_the_next_day(worked, tomorrow, runner, idle):
    path, kept, written = worked
    dock = SegmentWidget(tomorrow, Engine(lambda: runner))
    tomorrow.window.add_dock_widget(dock)
    dock.session_panel.open_session(str(path))
    while dock.session_panel._files.is_busy:
        idle(dock.session_panel)
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
    assert recipe_of(result).to_dict() == recipe_of_metadata(written)
    item = dock.book.items[0]
    assert item.name == "my cells" and item.is_ready and item.n_objects == 1
    assert dock.box_size.value() == 96
    assert paint_layer(tomorrow, ImageSource.of(image, "YX")).data[5, 7] == 2
    n = len(tomorrow.layers)
    dock.session_panel.open_session(str(path))  # twice is once
    while dock.session_panel._files.is_busy:
        idle(dock.session_panel)
    assert len(tomorrow.layers) == n and len(dock.book.items) == 1


def recipe_of_metadata(metadata):
    return Recipe(**metadata["recipe"]).to_dict()


def test_an_image_that_was_moved_is_asked_for_or_named(
    worked, tomorrow, runner, idle, image_file, tmp_path
):
    path, kept, _ = worked
    there = tmp_path / "elsewhere" / "discs.tif"
    there.parent.mkdir()
    image_file.rename(there)
    dock = SegmentWidget(tomorrow, Engine(lambda: runner))
    tomorrow.window.add_dock_widget(dock)
    panel, asked = dock.session_panel, []

    def answer(where):
        def ask(image):
            asked.append(image["name"])
            return where

        panel.ask_where = ask
        panel.open_session(str(path))
        while panel._files.is_busy:
            idle(panel)

    answer("")
    assert asked == ["discs"]
    assert dock.message.is_error and "discs" in dock.message.text()
    assert not any(la.name == "discs" for la in tomorrow.layers)
    tomorrow.layers.clear()
    answer(str(there))
    assert is_of(tomorrow.layers[next(iter(kept))], tomorrow.layers["discs"])


def test_an_image_beside_the_session_is_found(worked, tomorrow, image_file, tmp_path):
    path, _, _ = worked
    image_file.rename(tmp_path / "discs.tif")
    saved = open_session(path)
    assert find_moved(saved.state, [tmp_path]) == []
    assert saved.state["images"][0]["path"] == str(tmp_path / "discs.tif")
    (tmp_path / "discs.tif").write_bytes(b"another file of that name")
    saved = open_session(path)
    assert len(find_moved(saved.state, [tmp_path])) == 1


def test_a_damaged_session_is_one_line(viewer, open_dock, tmp_path, idle):
    path = tmp_path / "a.svpsession"
    path.write_bytes(b"no session")
    dock = open_dock()
    dock.session_panel.open_session(str(path))
    idle(dock.session_panel)
    assert dock.message.is_error and str(path) in dock.message.text()


def test_an_image_without_a_file_is_named_when_saving(discs, open_dock, tmp_path, idle):
    dock = open_dock()
    dock.session_panel.save_session(str(tmp_path / "a.svpsession"))
    idle(dock.session_panel)
    assert dock.message.is_error and "'discs'" in dock.message.text()
    assert (tmp_path / "a.svpsession").is_file()
