"""Runs in a window in which the user goes on working."""

from __future__ import annotations

import math

import numpy as np
import pytest

from napari_svpseg.core.geometry import Box
from napari_svpseg.plugin.layers.metadata import metadata_of
from napari_svpseg.plugin.layers.results.journal import EDITS_KEPT
from napari_svpseg.plugin.layers.results.result_layers import edited_remark, recipe_of
from napari_svpseg.plugin.layers.results.written_labels import is_untouched

from ..conftest import disc_image


@pytest.fixture
def dock(discs, open_dock):
    dock = open_dock()
    dock.book.place(dock.source_of(discs.layers["discs"]), (), Box(14, 14, 32))
    return dock


@pytest.fixture
def start(dock, runner, qtbot):
    """Return a function that starts a run, which ends once it is released."""

    def begin():
        runner.release.clear()
        runner.slow = math.inf
        n = len(runner.segment_calls())
        dock.run.click()
        qtbot.waitUntil(lambda: len(runner.segment_calls()) > n)
        qtbot.waitUntil(lambda: dock.progress.maximum() == 2)

    return begin


def results(viewer):
    return [la for la in viewer.layers if metadata_of(la, "labels")]


def hide_image(viewer, image):
    image.visible = False


def hide_result(viewer, image):
    for layer in results(viewer):
        layer.visible = False


def remove_result(viewer, image):
    for layer in results(viewer):
        viewer.layers.remove(layer)


def rename(viewer, image):
    for layer in viewer.layers:
        layer.name = f"{layer.name} of today"


def reorder(viewer, image):
    viewer.layers.reverse()


def add_a_stack(viewer, image):
    viewer.add_labels(np.zeros((3, 96, 110), np.uint8), name="stack")
    viewer.dims.set_point(0, 2)


def select_another(viewer, image):
    viewer.layers.selection.active = viewer.layers["truth"]


@pytest.mark.parametrize(
    "disturb",
    [
        hide_image,
        hide_result,
        remove_result,
        rename,
        reorder,
        add_a_stack,
        select_another,
    ],
)
def test_two_runs_are_shown_recorded_and_undone(
    dock, viewer, runner, start, finish, disturb
):
    image = viewer.layers["discs"]
    found = []
    for shift, threshold in ((0, 0.4), (9, 0.6)):
        image.data = np.roll(image.data, shift, axis=1)
        dock.options.set_values({"threshold": threshold})
        start()
        disturb(viewer, image)
        runner.release.set()
        finish(dock)
        assert not dock.message.is_error, dock.message.text()
        (layer,) = results(viewer)
        assert is_untouched(layer)
        assert recipe_of(layer).postprocess["threshold"] == threshold
        found.append(np.array(layer.data))
    assert edited_remark([layer.name], layer) not in dock.message.text()
    assert not np.array_equal(*found)
    dock.undo.click()
    if disturb is remove_result:
        assert results(viewer) == []
        return
    assert np.array_equal(layer.data, found[0])
    assert EDITS_KEPT not in dock.message.text()
    assert recipe_of(layer).postprocess["threshold"] == 0.4


def test_a_result_that_cannot_be_drawn_is_told_and_kept(
    dock, viewer, finish, callback_errors
):
    dock.run.click()
    finish(dock)
    (layer,) = results(viewer)

    def fail(event):
        raise OSError("no memory for a texture")

    viewer.layers["discs"].data = np.roll(viewer.layers["discs"].data, 9, axis=1)
    layer.events.set_data.connect(fail)
    dock.run.click()
    finish(dock)
    layer.events.set_data.disconnect(fail)
    assert dock.message.is_error and "memory for a texture" in dock.message.text()
    assert "'discs'" in dock.message.text()
    assert is_untouched(layer)
    callback_errors.claim(OSError)
    dock.run.click()
    finish(dock)
    assert not dock.message.is_error and results(viewer) == [layer]


@pytest.mark.parametrize("order", ["ZYX"])
def test_planes_of_a_stack_come_while_another_is_looked_at(
    viewer, open_dock, runner, finish, order, qtbot
):
    image, labels = disc_image()
    stack = viewer.add_image(np.stack([image, image * 0.9, image]), name="stack")
    viewer.add_labels(labels, name="truth")
    dock = open_dock()
    dock.axes.setCurrentText(order)
    dock.axes.lineEdit().editingFinished.emit()
    dock.book.place(dock.source_of(stack), (0,), Box(14, 14, 32))
    dock.planes.setCurrentIndex(1)
    stack.visible = False
    runner.slow_plane = 0.05
    dock.run.click()
    qtbot.waitUntil(lambda: bool(results(viewer)))
    viewer.dims.set_point(0, 2)
    viewer.layers.reverse()
    finish(dock)
    (layer,) = results(viewer)
    assert is_untouched(layer) and layer.data.max() == 12
    assert not dock.message.is_error


def test_a_viewer_that_is_closed_ends_the_run(dock, viewer, runner, start, qtbot):
    start()
    viewer.close()
    qtbot.waitUntil(lambda: runner.jobs[-1].stopped.is_set())
    qtbot.waitUntil(lambda: runner.closed == 1)
