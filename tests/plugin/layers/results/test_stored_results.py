"""Results on the disk in the viewer: they fill, are edited, kept and saved."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from napari_svpseg.core.geometry import Box
from napari_svpseg.core.image import Axes
from napari_svpseg.core.jobs.stored_labels import Filled, StoredLabels
from napari_svpseg.core.result import Recipe
from napari_svpseg.io.ome_zarr import open_image
from napari_svpseg.io.zarr_labels import (
    LabelsLayout,
    create_labels_in_store,
    read_labels_metadata,
    write_labels_metadata,
    write_window,
)
from napari_svpseg.plugin.docks.options_controller import RUN_LARGE_FOR_OPTIONS
from napari_svpseg.plugin.docks.segment_controller import RUN_CONTINUES, STOPPED
from napari_svpseg.plugin.layers.metadata import metadata_of
from napari_svpseg.plugin.layers.results import stored_results
from napari_svpseg.plugin.layers.results.result_layers import edited_remark
from napari_svpseg.plugin.layers.results.stored_arrays import KeptChannel

from ...conftest import disc_image


class Filler:
    """Fills a store plane by plane, in two parts each, with thresholded labels."""

    def __init__(self):
        self.parts, self.fail = math.inf, ""
        self.written = 0
        self.kwargs = {}

    def __call__(self, emit, on_progress, query, prompts, store, **kwargs):
        from skimage.measure import label

        self.kwargs = kwargs
        image = np.asarray(query, float)
        order = Axes(kwargs["axes"])
        if order.channel is not None:
            image = image.mean(axis=order.channel)
        letters = order.labels
        layout = LabelsLayout(
            "",
            image.shape,
            (1,) * (image.ndim - 2) + (64, 64),
            letters,
            "uint32",
            tuple(kwargs["scale"].get(a, 1.0) for a in letters),
            kwargs["unit"],
        )
        layout = create_labels_in_store(store, "cells", layout)
        n, folder = len(layout.level_shapes), layout.folder
        recipe = Recipe("svp", axes=kwargs["axes"]).to_dict()
        stamp = {"run": "x", "state": "filling", "about": kwargs["about"]}
        write_labels_metadata(folder, {**stamp, "recipe": recipe})
        emit("partial", value=StoredLabels(folder, n, recipe=recipe))
        last, found = 0, label(image > image.mean() + image.std())
        half = image.shape[-1] // 2
        for plane in np.ndindex(image.shape[:-2]):
            for columns in (slice(0, half), slice(half, image.shape[-1])):
                on_progress(last, 10, "part")
                while self.written >= self.parts:  # until it is stopped
                    on_progress(last, 10, "part")
                    time.sleep(0.01)
                window = slice(0, image.shape[-2]), columns
                part = found[plane][window].astype(np.uint32)
                write_window(folder, n, plane, window, part)
                self.written += 1
                emit("partial", value=Filled(plane, window))
                last = max(last, int(part.max(initial=0)))
                if self.fail:
                    raise OSError(self.fail)
        write_labels_metadata(
            folder, {**stamp, "state": "done", "objects": last, "recipe": recipe}
        )
        return StoredLabels(folder, n, last, 0.1, recipe, ("a note",))


@pytest.fixture
def filler(runner):
    runner.pretend["segment_stored"] = made = Filler()
    return made


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Let tiny images be large."""
    monkeypatch.setattr("napari_svpseg.plugin.panels.large_results.MEGAPIXEL", 1000)
    monkeypatch.setattr("napari_svpseg.io.zarr_labels.SMALLEST_LEVEL", 60)


@pytest.fixture
def dock(discs, open_dock, filler, tmp_path):
    dock = open_dock()
    dock.large.limit.setValue(5)
    dock.large.folder.setText(str(tmp_path / "results"))
    dock.book.place(dock.source_of(discs.layers["discs"]), (), Box(14, 14, 32))
    return dock


def result(dock):
    return next(la for la in dock.viewer.layers if metadata_of(la, "stored"))


def on_disk(layer):
    return np.asarray(open_image(metadata_of(layer)["folder"]).array[:])


def test_a_large_result_lies_on_the_disk_and_a_small_one_does_not(
    dock, runner, filler, finish, qtbot
):
    dock.run.click()
    finish(dock)
    layer = result(dock)
    assert isinstance(layer.data, zarr.Array) and layer.editable
    assert on_disk(layer).max() == 4 and "4 objects" in dock.message.text()
    assert "(a note)" in dock.message.text()
    assert str(metadata_of(layer)["store"]) in dock.message.text()
    assert dock.save_box.save.isEnabled() and dock.save_box.copy_python.isEnabled()
    assert len(filler.kwargs["intensities"].whole) == 1
    dock.options.set_values({"threshold": 0.7})
    qtbot.waitUntil(lambda: dock.message.text() == RUN_LARGE_FOR_OPTIONS)
    dock.large.limit.setValue(50)
    dock.run.click()
    finish(dock)
    assert len(runner.segment_calls()) == 1
    assert metadata_of(dock.viewer.layers["discs [svpseg] [1]"], "labels")


def test_it_fills_while_it_runs_and_stop_keeps_it(dock, filler, finish, qtbot):
    filler.parts = 0
    dock.run.click()
    qtbot.waitUntil(lambda: any(metadata_of(la, "stored") for la in dock.viewer.layers))
    layer = result(dock)
    assert not layer.editable
    assert not on_disk(layer).any()
    filler.parts = 1
    qtbot.waitUntil(lambda: on_disk(layer)[:, :50].any())
    assert not on_disk(layer)[:, 60:].any()  # yet
    dock.stop.click()
    finish(dock)
    assert dock.message.text() == STOPPED + RUN_CONTINUES
    assert metadata_of(layer)["state"] == "stopped" and layer.editable
    store = metadata_of(layer)["store"]
    filler.parts = math.inf  # the next run is not held up
    dock.viewer.layers.remove(layer)  # as after a crash
    dock.large.open_result(store)
    dock.run.click()
    finish(dock)
    assert metadata_of(result(dock))["store"] == store  # the same one went on
    assert sum(metadata_of(la, "stored") is not None for la in dock.viewer.layers) == 1


def test_paint_fill_and_undo_are_written_through(dock, finish, qtbot):
    dock.run.click()
    finish(dock)
    layer = result(dock)
    for fresh in (5, 6):  # M gives an id that no object has
        dock.stored.edits.choose_next_id(layer)
        assert layer.selected_label == fresh
    layer.selected_label, layer.brush_size = 70_001, 6
    before = on_disk(layer)
    layer.paint((10, 50), 70_001)
    assert on_disk(layer)[10, 50] == 70_001
    layer.undo()
    assert np.array_equal(on_disk(layer), before)
    layer.redo()
    layer.fill((30, 30), 9)
    assert on_disk(layer)[30, 30] == 9
    metadata = metadata_of(layer)
    assert metadata["edited"]
    dock.stored.edits.flush()
    dock.stored._files.call(lambda: None, lambda _: None)
    qtbot.waitUntil(lambda: not dock.stored._files.is_busy)
    assert read_labels_metadata(metadata["store"], "cells")["edited"]
    half = np.asarray(open_image(metadata["folder"], 1).array[:])
    assert np.array_equal(half, on_disk(layer)[::2, ::2])


def test_an_edited_result_is_never_overwritten(dock, finish, filler):
    dock.run.click()
    finish(dock)
    first = result(dock)
    first.paint((10, 50), 99)
    dock.run.click()
    finish(dock)
    layers = [la for la in dock.viewer.layers if metadata_of(la, "stored")]
    assert dock.message.text().endswith(edited_remark([first.name], layers[-1]))
    assert len(layers) == 2 and not first.visible and on_disk(first)[10, 50] == 99
    dock.undo.click()
    assert len(layers) == 2 and metadata_of(layers[-1])["store"] in dock.message.text()
    stores = [metadata_of(la)["store"] for la in layers]
    assert all(Path(store).exists() for store in stores)


def test_a_pyramid_is_edited_through_a_window(dock, finish, monkeypatch, qtbot):
    monkeypatch.setattr(stored_results, "DIRECT", 1000)
    dock.viewer.layers["discs"].scale = (0.5, 0.5)
    dock.run.click()
    finish(dock)
    layer = result(dock)
    assert layer.multiscale and not layer.editable
    assert dock.large.edit.isEnabled()
    dock.viewer.reset_view()
    dock.large.edit.click()
    part = next(la for la in dock.viewer.layers if metadata_of(la, "stored edit"))
    np.testing.assert_allclose(part.scale, (0.5, 0.5))
    assert part.selected_label == 5 and dock.large.edit.text() == "End editing"
    at = part.world_to_data(layer.data_to_world((10, 50)))
    part.paint(tuple(np.round(at).astype(int)), 5)
    qtbot.waitUntil(lambda: on_disk(layer)[10, 50] == 5)
    part.undo()
    qtbot.waitUntil(lambda: on_disk(layer)[10, 50] == 0)
    part.paint(tuple(np.round(at).astype(int)), 6)
    part.selected_label = 3  # is in view
    assert part.selected_label == 3
    layer.metadata["svpseg"]["highest"] = 50
    part.selected_label = 20  # an object elsewhere may have it
    assert part.selected_label == 51
    dock.large.edit.click()
    assert part not in dock.viewer.layers
    qtbot.waitUntil(lambda: on_disk(layer)[10, 50] == 6)

    def half():
        return np.asarray(open_image(metadata_of(layer)["folder"], 1).array[:])

    qtbot.waitUntil(lambda: half()[5, 25] == 6)  # written after the full size
    assert metadata_of(layer)["edited"]


def test_a_stroke_that_did_not_reach_the_disk_is_written_again(
    dock, finish, monkeypatch, qtbot
):
    def full(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(stored_results, "DIRECT", 1000)
    dock.run.click()
    finish(dock)
    layer = result(dock)
    dock.viewer.reset_view()
    dock.large.edit.click()
    part = next(la for la in dock.viewer.layers if metadata_of(la, "stored edit"))
    at = part.world_to_data(layer.data_to_world((10, 50)))
    with monkeypatch.context() as patch:
        patch.setattr("napari_svpseg.io.zarr_labels.write_window", full)
        part.paint(tuple(np.round(at).astype(int)), 5)
        qtbot.waitUntil(lambda: dock.message.is_error)
    assert not (on_disk(layer) == 5).any()
    dock.large.edit.click()
    qtbot.waitUntil(lambda: on_disk(layer)[10, 50] == 5)


def test_closing_loses_nothing_and_it_opens_again(dock, finish):
    dock.viewer.layers["discs"].scale = (2.0, 0.5)
    dock.run.click()
    finish(dock)
    layer = result(dock)
    layer.paint((10, 50), 77)
    store, scale = metadata_of(layer)["store"], layer.scale
    dock.viewer.layers.remove(layer)
    assert store in dock.message.text()
    dock.large.open_result(store)
    again = result(dock)
    assert again.data[10, 50] == 77 and metadata_of(again)["edited"]
    np.testing.assert_allclose(again.scale, scale)
    dock.large.open_result(str(Path(store).parent))
    assert dock.message.is_error
    assert dock.message.text().endswith(stored_results.NO_RESULT)


def test_saving_elsewhere(dock, finish, tmp_path, qtbot, monkeypatch):
    from napari_svpseg.io.images import read_image
    from napari_svpseg.plugin import writers

    dock.run.click()
    finish(dock)
    layer = result(dock)
    layer.paint((10, 50), 70_001)
    for end in (".zarr", ".ome.tif"):
        dock.save_box.save_labels(str(tmp_path / f"mine{end}"))
        qtbot.waitUntil(lambda end=end: f"Saved mine{end}" in dock.message.text())
    folder = tmp_path / "mine.zarr"
    assert open_image(folder, 1).array.shape == (48, 55)
    assert (
        read_labels_metadata(tmp_path / "mine.zarr", "cells")["recipe"]["model"]
        == "svp"
    )
    for found in (open_image(folder), read_image(tmp_path / "mine.ome.tif")):
        assert np.array_equal(found.array[:], on_disk(layer))
    assert found.array.max() == 70_001
    monkeypatch.setattr(writers, "MAX_WHOLE", 1000)
    with pytest.raises(ValueError, match="save as OME-Zarr"):
        writers.write_layer(str(tmp_path / "a.zip"), layer)


def test_a_full_disk_is_one_line(dock, finish, filler):
    filler.fail = "results: has 0.1 GB left, choose another folder."
    dock.run.click()
    finish(dock)
    assert "choose another folder" in dock.message.text()
    assert dock.message.is_error
    assert metadata_of(result(dock))["state"] == "stopped"


@pytest.mark.parametrize(
    "order, shape",
    [
        ("ZYX", (3, 96, 110)),
        ("TCYX", (3, 2, 96, 110)),
    ],
)
def test_stacks_lie_on_their_image(
    viewer, open_dock, filler, finish, tmp_path, order, shape, monkeypatch, qtbot
):
    image, labels = disc_image()
    stack = np.broadcast_to(image, shape).copy()
    scale = (2.0, *(1.0,) * (len(shape) - 3), 0.5, 0.5)
    layer = viewer.add_image(stack, name="stack", scale=scale, units="um")
    viewer.add_labels(labels, name="truth", scale=(0.5, 0.5), units="um")
    dock = open_dock()
    dock.large.limit.setValue(5)
    dock.large.folder.setText(str(tmp_path))
    dock.axes.setCurrentText(order)
    dock.axes.lineEdit().editingFinished.emit()
    dock.book.place(dock.source_of(layer), (1,), Box(14, 14, 32))
    viewer.dims.set_point(0, 2.0)
    inner = (0,) * (len(shape) - 3)
    for everything in (False, True):
        dock.planes.setCurrentIndex(int(everything))
        dock.run.click()
        finish(dock)
        found = [la for la in viewer.layers if metadata_of(la, "stored")][-1]
        n = 3 if everything else 1
        assert tuple(found.data.shape) == (n, *(1,) * len(inner), 96, 110)
        assert isinstance(found.data, KeptChannel) is (order == "TCYX")
        world = layer.data_to_world((1, *inner, 30, 70))
        assert found.get_value(world, world=True) > 0
        assert str(found.units[-1]) == "micrometer"
        at = (1 if everything else 0, *inner, 5, 50)
        found.paint(at, 50)
        assert on_disk(found)[at[0], 5, 50] == 50
        kept = open_image(metadata_of(found)["folder"])
        assert kept.scale[order[0]] == 2.0 and kept.unit == "um"
    # the same as a pyramid, which is edited plane by plane
    monkeypatch.setattr(stored_results, "DIRECT", 1000)
    store = metadata_of(found)["store"]
    viewer.layers.remove(found)
    dock.large.open_result(store)
    again = dock.stored.layer
    assert again.multiscale and len(again.data) == 2
    viewer.reset_view()
    dock.large.edit.click()
    part = next(la for la in viewer.layers if metadata_of(la, "stored edit"))
    corner = part.world_to_data(again.data_to_world((1, *inner, 20, 50)))
    part.paint(tuple(np.round(corner).astype(int)), 60)
    dock.large.edit.click()
    qtbot.waitUntil(lambda: on_disk(again)[1, 20, 50] == 60)
    assert on_disk(again)[0, 20, 50] == on_disk(again)[2, 20, 50] == 0


def test_a_kept_channel_is_an_array_of_one_more_axis():
    inner = np.arange(24).reshape(2, 3, 4)
    array = KeptChannel(inner, 1)
    assert (array.shape, array.ndim, array.size) == ((2, 1, 3, 4), 4, 24)
    full = inner[:, None]
    assert np.array_equal(np.asarray(array), full)
    for index in [
        0,
        (1, 0),
        (slice(None), 0, 2),
        (..., 3),
        (0, slice(0, 1), ...),
        (np.array([0, 1]), np.array([0, 0]), np.array([2, 1]), np.array([3, 0])),
    ]:
        assert np.array_equal(array[index], full[index]), index
    array[0, 0, 1:3, 2] = 99
    array[1, :, 0, :] = np.full((1, 4), 7)
    assert inner[0, 1, 2] == inner[0, 2, 2] == 99 and (inner[1, 0] == 7).all()
