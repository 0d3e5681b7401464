"""Runs of the dock in a real viewer, with a pretended engine."""

from __future__ import annotations

import math

import numpy as np
import pytest
from qtpy.QtCore import QTimer
from qtpy.QtGui import QGuiApplication

from napari_svpseg.core.contrast import plain_range
from napari_svpseg.core.geometry import Box
from napari_svpseg.core.prompt import PromptSet
from napari_svpseg.core.result import Recipe
from napari_svpseg.io.images import read_image
from napari_svpseg.plugin.docks import options_controller, segment_controller
from napari_svpseg.plugin.docks.tabs import SEGMENT, open_docks
from napari_svpseg.plugin.layers.images.image_source import NAME_AXES
from napari_svpseg.plugin.layers.metadata import metadata_of
from napari_svpseg.plugin.layers.results.journal import EDITS_KEPT, IS_KEPT
from napari_svpseg.plugin.layers.results.result_layers import edited_remark, recipe_of
from napari_svpseg.plugin.layers.results.run_step import CLOSED
from napari_svpseg.plugin.messages import DRAW_BOX, OPEN_IMAGE, PAINTED, TRY
from napari_svpseg.plugin.panels import prompt_panel, save_panel
from napari_svpseg.plugin.panels.prompt_panel import PAINT_OBJECTS

from ..conftest import disc_image


def named(viewer, name):
    return [la for la in viewer.layers if la.name == name]


@pytest.fixture
def dock(discs, open_dock):
    """Return the dock with one finished prompt on the discs."""
    dock = open_dock()
    dock.book.place(dock.source_of(discs.layers["discs"]), (), Box(14, 14, 32))
    return dock


def test_run_makes_a_labels_layer(dock, finish):
    viewer = dock.viewer
    dock.run.click()
    assert not dock.run.isEnabled() and dock.stop.isVisibleTo(dock)
    finish(dock)
    layer = viewer.layers["discs [svpseg]"]
    assert layer.data.dtype == np.uint32 and layer.data.max() == 4
    metadata = metadata_of(layer, "labels")
    assert metadata["recipe"]["model"] == "svp" and metadata["objects"] == 4
    assert metadata["trust"] == pytest.approx(0.9)
    assert "4 objects" in dock.message.text()
    assert dock.run.isEnabled() and not dock.stop.isVisibleTo(dock)
    assert [la.name for la in viewer.layers][-1] == "SVPSeg prompts"


def test_nothing_to_run_says_what_to_do(discs, open_dock):
    dock = open_dock()
    assert dock.message.text() == DRAW_BOX
    dock.run.click()
    assert dock.message.text() == DRAW_BOX and not dock.is_busy
    dock.images.item(0).setCheckState(dock.images.item(0).checkState().Unchecked)
    assert not dock.run.isEnabled()


def test_an_empty_viewer_says_what_to_do(open_dock):
    dock = open_dock()
    assert dock.message.text() == OPEN_IMAGE
    for control in (
        dock.draw,
        dock.preview,
        dock.run,
        dock.undo,
        dock.save_box.save,
        dock.paint,
    ):
        assert not control.isEnabled()


def test_the_engine_gets_what_the_dock_shows(dock, runner, finish):
    dock.options.set_values({"threshold": 0.7, "min_area": 9, "split": False})
    dock.run_settings.set_values({"tile": 256})
    dock.device.setCurrentText("cpu")
    dock.run.click()
    finish(dock)
    _, (query, prompts), kwargs = runner.segment_calls()[-1]
    assert query is dock.viewer.layers["discs"].data or query.shape == (96, 110)
    assert len(prompts) == 1 and prompts[0].n_objects == 1
    expected = {"axes": "YX", "rgb": False, "model": "svp"}
    assert expected.items() <= kwargs.items()
    run, post = kwargs["settings"], kwargs["postprocess"]
    assert (run.tile, run.device) == (256, "cpu")
    assert (post.threshold, post.min_area, post.split) == (0.7, 9, False)
    assert "intensities" not in kwargs  # the engine sees the whole image


@pytest.mark.parametrize(
    "place",
    [
        {"scale": (0.25, 0.5), "translate": (3, 4), "units": ("um", "um")},
        {"rotate": 20.0},
        {"shear": [0.2]},
        {"affine": [[1, 0.1, 4], [0, 1, 9], [0, 0, 1]]},
    ],
)
def test_results_lie_on_their_image(viewer, open_dock, finish, place, request):
    discs = request.getfixturevalue("discs")
    image = discs.layers["discs"]
    truth = discs.layers["truth"]
    for layer in (image, truth):
        for name, value in place.items():
            setattr(layer, name, value)
    dock = open_dock()
    dock.book.place(dock.source_of(image), (), Box(14, 14, 32))
    dock.add_probability.setChecked(True)
    dock.add_uncertainty.setChecked(True)
    dock.run.click()
    finish(dock)
    names = (
        "discs [svpseg]",
        "discs [svpseg] probability",
        "discs [svpseg] uncertainty",
    )
    for name in names:
        layer = viewer.layers[name]
        for pixel in ((0, 0), (40, 71), (95, 3)):
            np.testing.assert_allclose(
                layer.data_to_world(pixel), image.data_to_world(pixel), atol=1e-9
            )
        assert layer.units == image.units and layer.axis_labels == image.axis_labels
        np.testing.assert_allclose(layer.scale, image.scale)


def test_preview_is_of_the_visible_field(dock, runner, finish, qtbot):
    viewer = dock.viewer
    image = viewer.layers["discs"]
    image.corner_pixels = np.array([[10, 20], [60, 80]])
    dock.preview.click()
    finish(dock)
    _, (query, _), kwargs = runner.segment_calls()[-1]
    np.testing.assert_array_equal(query, image.data[10:61, 20:81])
    np.testing.assert_allclose(
        plain_range(kwargs["intensities"].whole), dock.book.prompts()[0].intensities
    )  # of the whole image, not of what is seen
    layer = viewer.layers["discs [svpseg] preview"]
    assert layer.data.shape == (51, 61)
    np.testing.assert_allclose(layer.data_to_world((0, 0)), (10, 20))
    dock.preview.click()
    finish(dock)
    assert len(named(viewer, "discs [svpseg] preview")) == 1
    dock.run.click()
    finish(dock)
    assert not named(viewer, "discs [svpseg] preview")


def test_a_painted_preview_stays(dock, finish):
    dock.preview.click()
    finish(dock)
    preview = dock.viewer.layers["discs [svpseg] preview"]
    preview.paint((3, 3), 9)
    dock.run.click()
    finish(dock)
    assert preview in dock.viewer.layers and preview.data[3, 3] == 9


def test_two_images_run_one_after_the_other(viewer, open_dock, runner, finish, discs):
    other = discs.layers["discs"].data[::-1].copy()
    viewer.add_image(other, name="second", translate=(0, 120))
    dock = open_dock()
    dock.book.place(dock.source_of(viewer.layers["discs"]), (), Box(14, 14, 32))
    dock.run.click()
    finish(dock)
    first, second = viewer.layers["discs [svpseg]"], viewer.layers["second [svpseg]"]
    np.testing.assert_array_equal(first.data[::-1] > 0, second.data > 0)
    assert tuple(second.translate) == (0, 120)
    assert "8 objects in 2 images" in dock.message.text()
    box = dock.images.item(1)
    box.setCheckState(box.checkState().Unchecked)
    n = len(runner.segment_calls())
    dock.run.click()
    finish(dock)
    assert len(runner.segment_calls()) == n + 1


def test_one_image_that_fails_does_not_stop_the_others(
    viewer, open_dock, runner, finish, discs, monkeypatch
):
    viewer.add_image(np.zeros((40, 40), np.float32), name="odd", translate=(0, 120))
    last = discs.layers["discs"].data[::-1].copy()
    viewer.add_image(last, name="last", translate=(0, 240))
    dock = open_dock()
    dock.book.place(dock.source_of(viewer.layers["discs"]), (), Box(14, 14, 32))
    segment = runner._segment

    def fussy(job, args, kwargs, emit, on_progress):
        if args[0].shape == (40, 40):
            raise ValueError("The query is too small.")
        return segment(job, args, kwargs, emit, on_progress)

    monkeypatch.setattr(runner, "_segment", fussy)
    dock.run.click()
    finish(dock)
    assert named(viewer, "last [svpseg]") and not named(viewer, "odd [svpseg]")
    assert dock.message.text() == (
        "'odd': The query is too small. 2 other images done: 8 objects."
    )
    dock.undo.click()
    assert not named(viewer, "last [svpseg]") and not named(viewer, "discs [svpseg]")


# ---------------------------------------------------------------- never overwritten


def test_a_second_run_updates_our_layer_and_undo_restores(dock, finish):
    viewer = dock.viewer
    dock.run.click()
    finish(dock)
    layer = viewer.layers["discs [svpseg]"]
    first = layer.data.copy()
    array = layer.data
    viewer.layers["discs"].data = viewer.layers["discs"].data[:, ::-1].copy()
    dock.book.refresh()
    dock.run.click()
    finish(dock)
    assert len(named(viewer, "discs [svpseg]")) == 1
    assert (layer.data != first).any()
    assert layer.data is array or np.shares_memory(layer.data, array)  # no swap
    dock.undo.click()
    np.testing.assert_array_equal(layer.data, first)
    dock.undo.click()
    assert not named(viewer, "discs [svpseg]")
    assert not dock.undo.isEnabled()


def test_undo_passes_over_layers_that_were_closed(viewer, dock, finish):
    dock.run.click()
    finish(dock)
    viewer.add_image(disc_image()[0], name="later")
    dock.run.click()  # changes the first result and adds one
    finish(dock)
    viewer.layers.remove("later [svpseg]")
    viewer.layers.remove("discs [svpseg]")
    assert dock.journal.edits == [] and not dock.undo.isEnabled()


def test_closing_all_images_begins_anew(viewer, dock, finish):
    dock.run.click()
    finish(dock)
    assert "objects" in dock.message.text()
    viewer.layers.clear()
    assert dock.message.text() == OPEN_IMAGE


def test_a_complaint_ends_with_its_cause(discs, open_dock, finish):
    dock = open_dock()
    source = dock.source_of(discs.layers["discs"])
    good = dock.book.place(source, (), Box(14, 14, 32))
    bad = dock.book.place(source, (), Box(60, 0, 16))  # nothing is masked there
    dock.run.click()
    assert dock.message.text().startswith(f"'{bad.name}'")
    dock.book.update(good.id, name="round")
    assert dock.message.text().startswith(f"'{bad.name}'")  # still the case
    dock.book.remove(bad.id)
    assert dock.message.text() == TRY


def test_what_is_said_of_a_result_is_not_replaced(dock, finish):
    dock.run.click()
    finish(dock)
    dock.book.update(dock.book.items[0].id, name="round")
    assert "objects" in dock.message.text()


def test_painting_ends_with_what_to_do_next(viewer, open_dock, qtbot):
    viewer.add_image(disc_image()[0], name="discs")
    dock = open_dock()
    source = dock.source_of(viewer.layers["discs"])
    item = dock.book.place(source, (), Box(14, 14, 32))
    dock.paint.click()
    assert dock.message.text() == PAINT_OBJECTS
    item.mask_layer.data_setitem((np.arange(20, 30), np.arange(20, 30)), 1)
    qtbot.waitUntil(lambda: item.is_ready)
    assert dock.message.text() == PAINTED


def test_napari_own_undo_and_redo_stay_right(dock, finish):
    dock.run.click()
    finish(dock)
    layer = dock.viewer.layers["discs [svpseg]"]
    first = layer.data.copy()
    image = dock.viewer.layers["discs"]
    image.data = image.data[::-1].copy()
    dock.book.refresh()
    dock.run.click()
    finish(dock)
    second = layer.data.copy()
    layer.undo()
    np.testing.assert_array_equal(layer.data, first)
    layer.redo()
    np.testing.assert_array_equal(layer.data, second)


def test_swapping_data_would_have_broken_undo(viewer):
    """Show the trap that writing through ``data_setitem`` avoids."""
    layer = viewer.add_labels(np.zeros((20, 20), np.uint32))
    layer.brush_size = 5
    layer.paint((5, 5), 3)
    layer.data = np.full((20, 20), 7, np.uint32)
    layer.undo()
    assert (layer.data == 0).any()  # stale pixels of the old array


def test_a_replaced_array_gets_no_strokes_of_the_old_one(dock, finish):
    dock.run.click()
    finish(dock)
    dock.paint.click()
    for name in ("discs [svpseg]", "SVPSeg mask [discs]"):
        layer = dock.viewer.layers[name]
        layer.paint((5, 5), 3)
        layer.data = np.full(layer.data.shape, 7, layer.data.dtype)
        layer.undo()
        assert (layer.data == 7).all()
        layer.paint((5, 5), 3)
        layer.undo()  # of a new stroke
        layer.redo()
        assert layer.data[5, 5] == 3


def test_an_edited_result_is_never_overwritten(dock, finish):
    viewer = dock.viewer
    dock.run.click()
    finish(dock)
    edited = viewer.layers["discs [svpseg]"]
    edited.paint((5, 5), 77)
    before = edited.data.copy()
    dock.run.click()
    finish(dock)
    np.testing.assert_array_equal(edited.data, before)
    assert len([la for la in viewer.layers if metadata_of(la, "labels")]) == 2
    (other,) = [
        la for la in viewer.layers if metadata_of(la, "labels") and la != edited
    ]
    assert edited_remark([edited.name], other) in dock.message.text()


def test_an_edit_without_an_event_counts_too(dock, finish):
    dock.run.click()
    finish(dock)
    edited = dock.viewer.layers["discs [svpseg]"]
    edited.data[3, 3] = 500
    dock.run.click()
    finish(dock)
    assert edited.data[3, 3] == 500


def test_the_users_labels_are_never_touched(dock, finish):
    viewer = dock.viewer
    mine = viewer.add_labels(np.full((96, 110), 5), name="discs [svpseg]")
    truth = viewer.layers["truth"].data.copy()
    dock.run.click()
    finish(dock)
    assert (mine.data == 5).all()
    np.testing.assert_array_equal(viewer.layers["truth"].data, truth)
    assert any(metadata_of(la, "labels") for la in viewer.layers)


def test_undo_keeps_what_was_painted_since(dock, finish):
    viewer = dock.viewer
    dock.run.click()
    finish(dock)
    layer = viewer.layers["discs [svpseg]"]
    first = layer.data.copy()
    image = viewer.layers["discs"]
    image.data = image.data[::-1].copy()
    dock.book.refresh()
    dock.run.click()
    finish(dock)
    layer.brush_size = 1
    layer.paint((2, 2), 99)
    dock.undo.click()
    expected = first.copy()
    expected[2, 2] = 99
    np.testing.assert_array_equal(layer.data, expected)
    assert dock.message.text().endswith(EDITS_KEPT)
    dock.undo.click()
    assert layer in viewer.layers
    assert dock.message.text() == IS_KEPT.format(name=f"'{layer.name}'")


# ---------------------------------------------------------------- options


def test_options_change_the_result_without_the_model(dock, runner, finish, qtbot):
    dock.run.click()
    finish(dock)
    layer = dock.viewer.layers["discs [svpseg]"]
    n = len(runner.segment_calls())
    before = layer.data.copy()
    dock.options.set_values({"min_area": 5000})
    qtbot.waitUntil(lambda: layer.data.max() == 0)
    assert len(runner.segment_calls()) == n
    assert "0 objects" in dock.message.text()
    assert metadata_of(layer)["recipe"]["postprocess"]["min_area"] == 5000
    dock.options.set_values({"min_area": 4000})
    made_with = metadata_of(layer)["recipe"]["postprocess"]
    qtbot.waitUntil(
        lambda: (
            metadata_of(layer)["recipe"]["postprocess"] != made_with
            and dock.options_controller.job is None
        )
    )
    dock.undo.click()
    np.testing.assert_array_equal(layer.data > 0, before > 0)


def test_options_leave_an_edited_result_alone(dock, finish, qtbot):
    dock.run.click()
    finish(dock)
    layer = dock.viewer.layers["discs [svpseg]"]
    layer.paint((4, 4), 50)
    before = layer.data.copy()
    dock.options.set_values({"min_area": 5000})
    said = options_controller.EDITED_IS_KEPT.format(name=layer.name)
    qtbot.waitUntil(lambda: dock.message.text() == said)
    np.testing.assert_array_equal(layer.data, before)


@pytest.fixture
def two_results(viewer, dock, finish):
    """Return the dock with results of two images, the first of which is selected."""
    image, _ = disc_image(spots=((30, 30), (66, 40)))
    viewer.add_image(image, name="others", translate=(0, 200))
    dock.image_panel.select(viewer.layers["discs"])
    dock.run.click()
    finish(dock)
    assert dock.image_panel.selected().name == "discs"
    return dock


def rest(dock, qtbot):
    """Wait until no option waits to be applied."""
    qtbot.waitUntil(
        lambda: not dock._options_timer.isActive() and not dock.options_controller.job
    )


def threshold_of(dock, name):
    layer = dock.viewer.layers[f"{name} [svpseg]"]
    return metadata_of(layer)["recipe"]["postprocess"]["threshold"]


def test_options_act_on_the_selected_image_and_show_its_values(two_results, qtbot):
    dock = two_results  # the last image of the run is the other one
    dock.options.set_values({"threshold": 0.8, "min_area": 5000})
    qtbot.waitUntil(lambda: dock.viewer.layers["discs [svpseg]"].data.max() == 0)
    rest(dock, qtbot)
    assert dock.viewer.layers["others [svpseg]"].data.max() == 2
    dock.image_panel.select(dock.viewer.layers["others"])
    assert dock.options.values()["threshold"] == pytest.approx(0.5)
    assert "2 objects" in dock.message.text()
    dock.image_panel.select(dock.viewer.layers["discs"])
    assert dock.options.values()["threshold"] == pytest.approx(0.8)
    assert "0 objects" in dock.message.text()
    rest(dock, qtbot)
    assert threshold_of(dock, "others") == 0.5


def test_options_apply_to_all_images_and_one_undo_takes_them_back(two_results, qtbot):
    dock = two_results
    dock.options.set_values({"threshold": 0.8})
    dock.apply_to_all.click()
    qtbot.waitUntil(lambda: threshold_of(dock, "others") == 0.8)
    rest(dock, qtbot)
    dock.options.set_values({"min_area": 5000})
    dock.apply_to_all.click()
    results = [dock.viewer.layers[f"{n} [svpseg]"] for n in ("discs", "others")]
    qtbot.waitUntil(lambda: not any(la.data.any() for la in results))
    rest(dock, qtbot)
    dock.undo.click()
    assert [la.data.max() for la in results] == [4, 2]
    assert threshold_of(dock, "discs") == threshold_of(dock, "others") == 0.8
    assert dock.options.values()["threshold"] == pytest.approx(0.8)


def test_options_act_on_the_plane_that_is_shown(stack, finish, qtbot):
    dock, viewer = stack, stack.viewer
    for plane, threshold in ((0, 0.4), (1, 0.6)):
        viewer.dims.set_point(0, 2 * plane)  # planes are 2 apart
        dock.options.set_values({"threshold": threshold})
        rest(dock, qtbot)
        dock.run.click()
        finish(dock)
    viewer.dims.set_point(0, 0)
    assert dock.options.values()["threshold"] == pytest.approx(0.4)
    layer = viewer.layers["stack [svpseg]"]
    before = layer.data[1].copy()
    dock.options.set_values({"min_area": 5000})
    qtbot.waitUntil(lambda: not layer.data[0].any())
    np.testing.assert_array_equal(layer.data[1], before)
    viewer.dims.set_point(0, 2)
    assert dock.options.values()["threshold"] == pytest.approx(0.6)


def test_options_work_on_a_preview(dock, finish, qtbot):
    dock.preview.click()
    finish(dock)
    layer = dock.viewer.layers["discs [svpseg] preview"]
    assert layer.data.max() > 0
    dock.options.set_values({"min_area": 5000})
    qtbot.waitUntil(lambda: layer.data.max() == 0)


# ---------------------------------------------------------------- stop, fail


def test_stop_ends_a_run_and_the_next_one_works(dock, runner, finish, qtbot):
    runner.slow = math.inf
    dock.run.click()
    qtbot.waitUntil(lambda: dock.progress.maximum() == 2)
    dock.stop.click()
    finish(dock)
    assert dock.message.text() == segment_controller.STOPPED
    assert not named(dock.viewer, "discs [svpseg]")
    runner.slow = 0
    dock.run.click()
    finish(dock)
    assert named(dock.viewer, "discs [svpseg]")


def test_a_failure_is_one_line_in_the_error_colour(dock, runner, finish):
    from napari_svpseg.plugin.panels.controls import theme_color

    runner.fail = "The engine was ended while it ran: run again."
    before = len(dock.viewer.layers)
    dock.run.click()
    finish(dock)
    assert dock.message.text() == (
        "'discs': The engine was ended while it ran: run again."
    )
    assert theme_color(dock.viewer.theme, "error") in dock.message.styleSheet()
    assert len(dock.viewer.layers) == before and len(dock.book.items) == 1
    runner.fail = ""
    dock.run.click()
    finish(dock)
    assert not dock.message.is_error


def test_an_engine_that_cannot_start_is_expected_error(dock, runner, finish):
    def submit(*args, **kwargs):
        raise OSError("no Python for the engine at /nowhere")

    runner.submit = submit
    dock.run.click()
    finish(dock)
    assert "no Python for the engine" in dock.message.text()


def test_the_window_stays_alive_during_a_slow_run(dock, runner, finish, qtbot):
    runner.slow = math.inf
    ticks = []
    timer = QTimer()
    timer.timeout.connect(lambda: ticks.append(dock.is_busy))
    timer.start(5)
    dock.run.click()
    qtbot.waitUntil(lambda: len(ticks) > 40)
    timer.stop()
    assert all(ticks)
    runner.release.set()
    finish(dock)
    assert named(dock.viewer, "discs [svpseg]")


def test_an_image_closed_during_its_run(dock, runner, finish, qtbot):
    runner.slow = math.inf
    dock.run.click()
    qtbot.waitUntil(lambda: dock.progress.maximum() == 2)
    dock.viewer.layers.remove("discs")
    finish(dock)
    assert not any(metadata_of(la, "labels") for la in dock.viewer.layers)


def test_an_image_changed_during_its_run(dock, runner, finish, qtbot):
    runner.slow = math.inf
    dock.run.click()
    qtbot.waitUntil(lambda: dock.progress.maximum() == 2)
    dock.viewer.layers["discs"].data = np.zeros((80, 80))
    runner.release.set()
    finish(dock)
    assert dock.message.text() == segment_controller.CHANGED_MEANWHILE.format(
        name="discs"
    )
    assert not any(metadata_of(la, "labels") for la in dock.viewer.layers)


def test_closing_the_dock_during_a_run(dock, runner, qtbot):
    runner.slow = math.inf
    dock.run.click()
    progress, viewer = dock.progress, dock.viewer
    qtbot.waitUntil(lambda: progress.maximum() == 2)
    viewer.window.remove_dock_widget(dock)
    dock.close()
    with qtbot.waitSignal(dock.destroyed):
        dock.deleteLater()
    qtbot.waitUntil(lambda: runner.closed == 1)
    viewer.add_image(np.zeros((40, 40)))  # nobody listens any more
    assert "truth" in viewer.layers


def test_multiscale_images(viewer, open_dock, runner, finish):
    image = np.zeros((128, 140), np.float32)
    image[40:52, 50:64] = 9
    viewer.add_image([image, image[::2, ::2]], name="pyramid", multiscale=True)
    viewer.add_labels((image > 0).astype(int), name="truth")
    dock = open_dock()
    dock.book.place(dock.source_of(viewer.layers["pyramid"]), (), Box(30, 40, 32))
    assert dock.book.items[0].n_objects == 1
    dock.run.click()
    finish(dock)
    assert runner.segment_calls()[-1][1][0].shape == (128, 140)
    assert viewer.layers["pyramid [svpseg]"].data.shape == (128, 140)
    dock.preview.click()
    finish(dock)
    assert not dock.message.is_error, dock.message.text()


# ---------------------------------------------------------------- stacks


@pytest.fixture
def stack(viewer, open_dock, discs):
    """Return the dock with a stack of three planes and a prompt on the second."""
    image, labels = discs.layers["discs"].data, discs.layers["truth"].data
    discs.layers.clear()
    viewer.add_image(
        np.stack([image, image[::-1], image[:, ::-1]]),
        name="stack",
        scale=(2, 0.5, 0.5),
        axis_labels=("z", "y", "x"),
    )
    viewer.add_labels(np.stack([labels] * 3), name="truth", scale=(2, 0.5, 0.5))
    dock = open_dock()
    dock.book.place(dock.source_of(viewer.layers["stack"]), (0,), Box(14, 14, 32))
    viewer.dims.set_point(0, 2)
    return dock


def test_axes_come_from_the_layer_or_from_the_user(stack):
    assert stack.axes.currentText() == "ZYX"
    assert stack.planes_row.isVisibleTo(stack)


def test_this_plane_only(stack, runner, finish):
    stack.planes.setCurrentIndex(stack.planes.findText("This plane"))
    stack.run.click()
    finish(stack)
    _, (query, _), kwargs = runner.segment_calls()[-1]
    np.testing.assert_array_equal(query, stack.viewer.layers["stack"].data[1])
    assert kwargs["axes"] == "YX" and len(kwargs["intensities"].whole) == 1
    layer = stack.viewer.layers["stack [svpseg]"]
    assert layer.data.shape == (3, 96, 110)
    assert layer.data[1].max() == 4 and layer.data[[0, 2]].max() == 0
    np.testing.assert_allclose(layer.scale, (2, 0.5, 0.5))
    stack.viewer.dims.set_point(0, 4)
    stack.run.click()
    finish(stack)
    assert layer.data[2].max() > 0 and layer.data[1].max() == 4
    stack.undo.click()
    assert layer.data[2].max() == 0 and layer.data[1].max() == 4


def test_all_planes(stack, runner, finish):
    stack.planes.setCurrentIndex(stack.planes.findText("All planes"))
    stack.run.click()
    finish(stack)
    layer = stack.viewer.layers["stack [svpseg]"]
    assert all(plane.max() > 0 for plane in layer.data)
    assert runner.segment_calls()[-1][2]["axes"] == "ZYX"
    assert "12 objects" in stack.message.text()


def test_stop_keeps_finished_planes(stack, runner, finish, qtbot):
    runner.slow_plane = 60  # until it is stopped
    stack.planes.setCurrentIndex(stack.planes.findText("All planes"))
    stack.run.click()
    qtbot.waitUntil(lambda: bool(named(stack.viewer, "stack [svpseg]")))
    stack.stop.click()
    finish(stack)
    layer = stack.viewer.layers["stack [svpseg]"]
    assert layer.data[0].max() > 0 and layer.data[2].max() == 0
    assert stack.message.text() == segment_controller.STOPPED
    stack.undo.click()
    assert not named(stack.viewer, "stack [svpseg]")


def test_one_undo_takes_a_whole_stack_back(stack, finish):
    stack.planes.setCurrentIndex(stack.planes.findText("All planes"))
    stack.run.click()
    finish(stack)
    assert stack.viewer.layers["stack [svpseg]"].data[2].max() > 0
    stack.undo.click()
    assert not named(stack.viewer, "stack [svpseg]")
    assert not stack.undo.isEnabled()


def test_an_edited_plane_does_not_stop_the_others(stack, finish):
    stack.run.click()
    finish(stack)
    layer = stack.viewer.layers["stack [svpseg]"]
    layer.data[1, 5, 5] = 99
    stack.viewer.dims.set_point(0, 4)
    stack.run.click()
    finish(stack)
    assert layer.data[2].max() > 0 and layer.data[1, 5, 5] == 99
    stack.viewer.dims.set_point(0, 2)
    stack.run.click()
    finish(stack)
    assert layer.data[1, 5, 5] == 99
    assert len([la for la in stack.viewer.layers if metadata_of(la, "labels")]) == 2


def test_unknown_axes_are_asked_for(viewer, open_dock):
    viewer.add_image(np.zeros((4, 64, 70)), name="what")
    dock = open_dock()
    assert dock.message.text() == NAME_AXES.format(n=3, image="what")
    assert dock.axes.styleSheet() != "" and dock.axes.currentText() == ""
    dock.axes.setCurrentText("TYX")
    dock.axes.lineEdit().editingFinished.emit()
    assert dock.axes.styleSheet() == ""


def test_wrong_axes_are_refused(stack):
    for order in ("YX", "ZZYX", "QYX", "ZYXC"):
        stack.axes.setCurrentText(order)
        stack.axes.lineEdit().editingFinished.emit()
        assert stack.message.is_error, order
        assert stack.source_of(stack.viewer.layers["stack"]).axes.order == "ZYX"


@pytest.mark.parametrize(
    "order, shape",
    [
        ("CYX", (2, 96, 110)),
        ("TCYX", (3, 2, 96, 110)),
        ("CTYX", (2, 3, 96, 110)),
        ("TZYX", (2, 3, 96, 110)),
    ],
)
def test_results_line_up_whatever_the_axes(viewer, open_dock, finish, order, shape):
    yy, xx = np.indices(shape[-2:])
    plane = np.where((yy - 40) ** 2 + (xx - 50) ** 2 < 100, 9.0, 1.0)
    layer = viewer.add_image(
        np.broadcast_to(plane, shape).copy(), name="many", scale=(0.5,) * len(shape)
    )
    viewer.add_labels((plane > 5).astype(int), name="truth", scale=(0.5, 0.5))
    dock = open_dock()
    dock.axes.setCurrentText(order)
    dock.axes.lineEdit().editingFinished.emit()
    source = dock.source_of(layer)
    dock.book.place(source, (0,) * len(source.axes.stack), Box(24, 34, 32))
    dock.planes.setCurrentIndex(dock.planes.findText("All planes"))
    dock.run.click()
    finish(dock)
    assert "object" in dock.message.text(), dock.message.text()
    result = viewer.layers["many [svpseg]"]
    for corner in ((0,) * (len(shape) - 2), tuple(n - 1 for n in shape[:-2])):
        viewer.dims.set_point(range(len(shape) - 2), np.multiply(corner, 0.5))
        world = layer.data_to_world((*corner, 40, 50))
        assert result.get_value(world, world=True) > 0, corner


def test_channels_in_the_last_place_need_rgb(viewer, open_dock):
    viewer.add_image(np.zeros((64, 70, 5)), name="odd", rgb=False)
    dock = open_dock()
    dock.axes.setCurrentText("YXC")
    dock.axes.lineEdit().editingFinished.emit()
    assert "channels last" in dock.message.text()


def test_rgb_runs(viewer, open_dock, runner, finish):
    rng = np.random.default_rng(0)
    viewer.add_image(rng.integers(0, 255, (64, 70, 4)).astype(np.uint8), name="rgba")
    viewer.add_labels(np.ones((64, 70), int), name="all")
    dock = open_dock()
    assert dock.axes.currentText() == "YXC"
    dock.book.place(dock.source_of(viewer.layers["rgba"]), (), Box(3, 3, 32))
    dock.run.click()
    finish(dock)
    _, (query, prompts), kwargs = runner.segment_calls()[-1]
    assert kwargs["rgb"] is True and kwargs["axes"] == "YXC" and query.shape[2] == 4
    assert prompts[0].n_channels == 3
    assert viewer.layers["rgba [svpseg]"].data.shape == (64, 70)


def test_some_channels(viewer, open_dock, runner, finish):
    viewer.add_image(np.random.default_rng(0).normal(size=(5, 64, 70)), name="five")
    viewer.add_labels(np.ones((64, 70), int), name="all")
    dock = open_dock()
    dock.axes.setCurrentText("CYX")
    dock.axes.lineEdit().editingFinished.emit()
    assert dock.channels.isVisibleTo(dock)
    for bad in ("7", "1, 1", "a", "0 1 2 3"):
        dock.channels.setText(bad)
        dock.channels.editingFinished.emit()
        assert dock.message.is_error, bad
    dock.channels.setText("0, 3")
    dock.channels.editingFinished.emit()
    dock.book.place(dock.source_of(viewer.layers["five"]), (), Box(3, 3, 32))
    dock.run.click()
    finish(dock)
    _, (_, prompts), kwargs = runner.segment_calls()[-1]
    assert kwargs["channels"] == (0, 3) and prompts[0].channels == (0, 3)
    assert prompts[0].n_channels == 2


def test_lazy_images_are_not_loaded(viewer, open_dock, runner, finish):
    da = pytest.importorskip("dask.array")
    image = np.zeros((64, 70))
    image[20:30, 20:30] = 5
    lazy = da.from_array(np.stack([image] * 4), chunks=(1, 64, 70))
    viewer.add_image(lazy, name="lazy", axis_labels=("t", "y", "x"))
    viewer.add_labels((image > 0).astype(int), name="truth")
    dock = open_dock()
    dock.book.place(dock.source_of(viewer.layers["lazy"]), (0,), Box(10, 10, 32))
    assert dock.book.items[0].n_objects == 1
    dock.run.click()
    finish(dock)
    query = runner.segment_calls()[-1][1][0]
    assert isinstance(query, da.Array) and query.shape == (64, 70)
    assert viewer.layers["lazy [svpseg]"].data.shape == (4, 64, 70)


def test_a_huge_image_is_previewed_without_reading_the_rest(
    viewer, open_dock, runner, finish, disc_prompt
):
    da = pytest.importorskip("dask.array")
    side, chunk, read = 20_000, 625, set()

    def block(block_info):
        y, x = (low for low, _ in block_info[None]["array-location"])
        read.add((y, x))
        yy, xx = np.indices((chunk, chunk))
        discs = (yy % 50 - 25) ** 2 + (xx % 50 - 25) ** 2 < 100
        return (200 * discs + (y + x) // 4000).astype(np.uint8)

    lazy = da.map_blocks(
        block, chunks=((chunk,) * (side // chunk),) * 2, dtype=np.uint8,
        meta=np.zeros((0, 0), np.uint8),
    )  # fmt: skip
    read.clear()
    small = [np.zeros((side // n, side // n), np.uint8) for n in (8, 64)]
    layer = viewer.add_image([lazy, *small], name="slide", contrast_limits=(0, 255))
    dock = open_dock()
    viewer.camera.center, viewer.camera.zoom = (10_100, 12_100), 2
    source = dock.source_of(layer)
    dock.book.add_loaded(PromptSet([disc_prompt]))
    tile = source.visible_tile(viewer)
    assert max(tile.shape) <= 2048
    dock.preview.click()
    finish(dock, 60_000)
    query = runner.segment_calls()[-1][1][0]
    assert query.shape == tile.shape
    assert viewer.layers["slide [svpseg] preview"].data.max() > 1
    seen = {
        (y, x)
        for y in range(tile.y0 // chunk * chunk, tile.y1, chunk)
        for x in range(tile.x0 // chunk * chunk, tile.x1, chunk)
    }
    # 16 blocks of 512 x 512 tell the intensities of the whole; each lies in 4 chunks
    assert seen <= read and len(read - seen) <= 16 * 4
    assert len(read) < 0.1 * (side // chunk) ** 2


def test_planes_keep_their_own_recipes(viewer, open_dock, finish, disc_scene):
    image, labels = disc_scene
    stack = viewer.add_image(np.stack([image] * 3), name="s", axis_labels="tyx")
    viewer.add_labels(labels, name="truth")
    dock = open_dock()
    dock.book.place(dock.source_of(stack), (0,), Box(8, 8, 64))
    for plane, threshold in ((0, 0.3), (2, 0.6), (0, 0.7)):
        viewer.dims.set_point(0, 2 * plane)  # planes are 2 apart
        dock.options.set_values({"threshold": threshold})
        dock.run.click()
        finish(dock)
    recipe = recipe_of(viewer.layers["s [svpseg]"])
    assert (recipe.plane, recipe.postprocess["threshold"]) == ((0,), 0.7)
    (other,) = recipe.other_planes
    assert (tuple(other["plane"]), other["postprocess"]["threshold"]) == ((2,), 0.6)
    assert Recipe.from_json(recipe.to_json()) == recipe


# ---------------------------------------------------------------- files, clipboard


def test_save_and_reload(dock, finish, tmp_path, read_recipe):
    viewer = dock.viewer
    for layer in (viewer.layers["discs"], viewer.layers["truth"]):
        layer.scale, layer.units = (0.25, 0.5), ("um", "um")
    dock.run.click()
    finish(dock)
    target = tmp_path / "discs_labels.ome.tif"
    dock.save_box.save_labels(str(target))
    assert dock.message.text() == save_panel.SAVED.format(
        name=target.name, folder=tmp_path
    )
    found = read_image(target)
    np.testing.assert_array_equal(found.array, viewer.layers["discs [svpseg]"].data)
    assert found.pixel_size == pytest.approx((0.25, 0.5))
    assert read_recipe(target).model == "svp"


def test_the_result_of_the_marked_image_is_saved(
    viewer, discs, open_dock, finish, tmp_path, monkeypatch
):
    from qtpy.QtWidgets import QFileDialog

    viewer.add_image(discs.layers["discs"].data[::-1].copy(), name="second")
    dock = open_dock()
    dock.book.place(dock.source_of(viewer.layers["discs"]), (), Box(14, 14, 32))
    dock.run.click()
    finish(dock)
    saved = dock.save_box.result_layer
    for name in ("discs", "second", "discs"):
        dock.image_panel.select(viewer.layers[name])
        assert saved().name == f"{name} [svpseg]"
    viewer.layers.selection.active = viewer.layers["second [svpseg]"]
    assert saved().name == "second [svpseg]"
    typed = tmp_path / "mine.geojson"  # the filter of the dialog says OME-TIFF
    monkeypatch.setattr(
        QFileDialog, "getSaveFileName", lambda *args: (str(typed), "OME-TIFF labels")
    )
    dock.save_box.save.click()
    saved_files = [p for p in tmp_path.iterdir() if p.is_file()]
    assert saved_files == [typed]  # beside the folder of the autosave
    monkeypatch.setattr(
        QFileDialog, "getExistingDirectory", lambda *args: str(tmp_path)
    )
    dock.save_box.save_all.click()
    assert dock.message.text() == save_panel.SAVED_ALL.format(
        results="2 results", folder=tmp_path
    )
    for name in ("discs", "second"):
        found = read_image(tmp_path / f"{name}_labels.ome.tif").array
        np.testing.assert_array_equal(found, viewer.layers[f"{name} [svpseg]"].data)
    dock.save_box.save_all.click()
    assert (
        save_panel.NOT_REPLACED.format(
            names="discs_labels.ome.tif, second_labels.ome.tif"
        )
        in dock.message.text()
    )


def test_saving_into_nowhere_is_one_line(dock, finish, tmp_path):
    dock.run.click()
    finish(dock)
    dock.save_box.save_labels(str(tmp_path / "no" / "where.ome.tif"))
    assert dock.message.is_error and "\n" not in dock.message.text()


def test_prompt_sets_are_saved_and_loaded(dock, tmp_path, finish):
    target = tmp_path / "cells.svprompt"
    dock.prompt_panel.save_prompt_set(str(target))
    assert dock.message.text() == prompt_panel.SAVED.format(
        prompts="1 prompt", name=target.name
    )
    before = dock.book.prompts()[0]
    dock.book.remove(dock.book.items[0].id)
    dock.prompt_panel.load_prompt_set(str(target))
    (item,) = dock.book.items
    assert item.source is None and item.is_ready
    np.testing.assert_array_equal(dock.book.prompts()[0].mask, before.mask)
    dock.run.click()
    finish(dock)
    assert "4 objects" in dock.message.text()
    (tmp_path / "bad.svprompt").write_bytes(b"PK no zip")
    dock.prompt_panel.load_prompt_set(str(tmp_path / "bad.svprompt"))
    assert dock.message.is_error and len(dock.book.items) == 1


def test_copy_as_python_and_command(dock, finish):
    assert not dock.save_box.copy_python.isEnabled()
    dock.run.click()
    finish(dock)
    dock.save_box.copy_python.click()
    assert "svpseg.segment(" in QGuiApplication.clipboard().text()
    dock.save_box.copy_command.click()
    assert QGuiApplication.clipboard().text().startswith("svpseg segment ")


# ---------------------------------------------------------------- form


def test_the_dock_fits_a_narrow_column(dock):
    for section in dock.sections.values():
        section.expand(animate=False)
    dock.book.update(dock.book.items[0].id, name="a very long name of a prompt " * 3)
    assert dock.scroll_area.widget().minimumSizeHint().width() <= 340
    assert dock.minimumSizeHint().width() <= 340


def test_every_control_says_what_it_does(dock):
    from qtpy.QtWidgets import QAbstractButton, QComboBox

    ours = [
        w
        for kind in (QAbstractButton, QComboBox)
        for w in dock.findChildren(kind)
        if w.isVisibleTo(dock) and not w.objectName().startswith("qt_")
    ]
    assert len(ours) > 10
    silent = [
        w.text() if hasattr(w, "text") else w
        for w in ours
        if not w.toolTip() and not w.parent().toolTip()
    ]
    assert [s for s in silent if not str(s).startswith(("▸", "▾"))] == []


def test_shortcuts_win_on_our_own_layer_over_those_of_napari(dock):
    keys = {str(k) for k in dock.viewer.layers["SVPSeg prompts"].keymap}
    assert {"Shift+D", "Shift+P", "Shift+R"} <= keys
    assert not {str(k) for k in dock.viewer.layers["discs"].keymap} & keys


def test_closing_the_dock_ends_the_engine(dock, runner, qtbot, finish):
    dock.run.click()
    finish(dock)
    engine = dock.engine
    engine.release()
    assert runner.closed == 1
    engine.acquire()


# --------------------------------------------------------------- as a new user meets it


def test_a_result_is_never_hidden_under_its_image(viewer, dock, finish):
    later = viewer.add_image(np.flipud(viewer.layers["discs"].data), name="later")
    dock.run.click()
    finish(dock)
    names = [la.name for la in viewer.layers]
    assert names.index("later [svpseg]") > names.index(later.name)
    assert names.index("discs [svpseg]") > names.index("discs")


def test_time_and_trust_are_those_of_the_whole_run(viewer, dock, finish):
    viewer.add_image(np.flipud(viewer.layers["discs"].data), name="second")
    dock.run.click()
    finish(dock)
    assert "8 objects in 2 images, 0.2 s, trust 0.90." in dock.message.text()
    dock.preview.click()
    finish(dock)
    assert "4 objects in this view, 0.1 s, trust 0.90." in dock.message.text()


def test_low_trust_says_what_helps(dock, finish, monkeypatch):
    monkeypatch.setattr(segment_controller, "LOW_TRUST", 0.95)
    dock.run.click()
    finish(dock)
    assert dock.message.text().endswith(segment_controller.IS_LOW)


def test_closing_an_image_ends_its_part_of_a_run(viewer, dock, runner, finish, qtbot):
    runner.slow = math.inf
    viewer.add_image(np.flipud(viewer.layers["discs"].data), name="second")
    viewer.add_image(np.fliplr(viewer.layers["discs"].data), name="third")
    dock.run.click()
    qtbot.waitUntil(lambda: dock.progress.maximum() == 3)
    viewer.layers.remove("third")
    viewer.layers.remove("discs")
    runner.release.set()
    finish(dock)
    assert len(runner.segment_calls()) == 3
    assert named(viewer, "second [svpseg]") and not named(viewer, "discs [svpseg]")


def test_a_closed_image_is_expected_error(dock, runner, finish, qtbot):
    runner.slow = math.inf
    dock.run.click()
    qtbot.waitUntil(lambda: dock.progress.maximum() == 2)
    dock.viewer.layers.remove("discs")
    finish(dock)
    assert dock.message.text() == CLOSED.format(name="discs")


def test_undo_of_options_brings_their_controls_back(dock, finish, qtbot):
    dock.run.click()
    finish(dock)
    layer = dock.viewer.layers["discs [svpseg]"]
    dock.options.set_values({"threshold": 0.9, "min_area": 5000})
    qtbot.waitUntil(lambda: layer.data.max() == 0)
    assert dock.message.text().endswith(options_controller.LOWER_OPTIONS)
    dock.undo.click()
    assert layer.data.max() == 4
    assert dock.options.values()["threshold"] == pytest.approx(0.5)


def test_copy_names_a_prompt_file_only_while_it_fits(dock, finish, tmp_path):
    path = tmp_path / "cells.svprompt"
    dock.prompt_panel.save_prompt_set(str(path))
    dock.run.click()
    finish(dock)
    metadata = metadata_of(dock.viewer.layers["discs [svpseg]"])
    metadata["recipe"]["prompts"] = tuple(
        {"sha256": p} for p in dock.prompt_panel.hashes()
    )
    dock.save_box.copy_command.click()
    assert str(path) in QGuiApplication.clipboard().text()
    assert save_panel.NAME_QUERY in dock.message.text()  # the image is no file
    metadata["recipe"]["prompts"] += ({"sha256": "of a box drawn after saving"},)
    dock.save_box.copy_command.click()
    assert str(path) not in QGuiApplication.clipboard().text()
    assert save_panel.PROMPTS_CHANGED in dock.message.text()


def test_the_recipe_of_one_plane_says_which(viewer, open_dock, finish, discs):
    from napari_svpseg.plugin.layers.results.result_layers import recipe_of

    image = viewer.layers["discs"].data
    viewer.layers.remove("discs")
    stack = viewer.add_image(np.stack([image, image, image]), name="stack")
    dock = open_dock()
    dock.axes.setCurrentText("ZYX")
    dock.axes.lineEdit().editingFinished.emit()
    viewer.dims.set_current_step(0, 2)
    dock.book.place(dock.source_of(stack), (2,), Box(14, 14, 32))
    dock.run.click()
    finish(dock)
    recipe = recipe_of(viewer.layers["stack [svpseg]"])
    assert recipe.plane == (2,) and recipe.stack_axes == "ZYX"
    assert ".array[2]" in recipe.to_python()
    assert "--axes ZYX" in recipe.to_command()


def test_expected_errors_leave_no_traceback_on_the_screen():
    from napari_svpseg.plugin.services.engine_process import is_expected_error

    assert is_expected_error(
        "Traceback\n  ...\nnapari_svpseg.core.image.ImageError: say so"
    )
    assert not is_expected_error("Traceback\n  ...\nKeyError: 'a bug'")


def test_a_file_name_without_suffix_gets_one(dock, finish, tmp_path, monkeypatch):
    def choose(name):
        monkeypatch.setattr(
            save_panel.QFileDialog,
            "getSaveFileName",
            lambda *args: (str(tmp_path / name), ""),
        )

    dock.run.click()
    finish(dock)
    choose("cells")
    dock.save_box.save.click()
    dock.prompt_panel.save_set.click()
    assert read_image(tmp_path / "cells.ome.tif").array.max() == 4
    assert (tmp_path / "cells.svprompt").is_file()
    before = (tmp_path / "cells.ome.tif").read_bytes()
    dock.save_box.save.click()  # the dialog asked about "cells", not about this file
    assert dock.message.text() == prompt_panel.EXISTS.format(
        path=tmp_path / "cells.ome.tif"
    )
    assert (tmp_path / "cells.ome.tif").read_bytes() == before
    choose("picture.png")
    dock.save_box.save.click()
    assert (tmp_path / "picture.png.ome.tif").is_file()


def test_maps_lie_under_the_labels(dock, finish):
    dock.add_probability.setChecked(True)
    dock.add_uncertainty.setChecked(True)
    dock.run.click()
    finish(dock)
    names = [la.name for la in dock.viewer.layers]
    labels = names.index("discs [svpseg]")
    assert names.index("discs") < names.index("discs [svpseg] probability") < labels
    assert names.index("discs") < names.index("discs [svpseg] uncertainty") < labels


def test_long_names_are_shortened_not_cut(dock):
    dock.viewer.add_labels(np.zeros((9, 9), int), name="a very long name " * 5)
    dock.mask_choice.setFixedWidth(120)
    dock.mask_choice.setCurrentIndex(dock.mask_choice.count() - 1)
    assert dock.mask_choice.shown_text().endswith("…")


def test_closing_the_dock_ends_its_run_and_frees_the_engine(
    dock, viewer, runner, qtbot, open_dock
):
    runner.slow = math.inf
    dock.run.click()
    qtbot.waitUntil(lambda: dock.progress.maximum() == 2)
    viewer.window.remove_dock_widget(dock)
    qtbot.waitUntil(lambda: not dock.is_busy)
    assert runner.closed == 1
    assert open_docks(viewer, SEGMENT) == []
    assert "SVPSeg prompts" in viewer.layers
    again = open_dock()
    assert len(again.book.items) == 1 and open_docks(viewer, SEGMENT) == [again]
    viewer.layers["SVPSeg prompts"].selected_data = {0}
    viewer.layers["SVPSeg prompts"].remove_selected()
    assert not again.book.items and len(dock.book.items) == 1  # the old one sleeps


def test_options_act_on_no_result_that_was_taken_back(dock, finish, qtbot, runner):
    dock.run.click()
    finish(dock)
    layer = dock.viewer.layers["discs [svpseg]"]
    image = dock.viewer.layers["discs"]
    image.data = np.roll(image.data, 5, axis=0)
    dock.book.refresh()
    dock.run.click()
    finish(dock)
    dock.undo.click()
    before, n = layer.data.copy(), len(runner.calls)
    dock.options.set_values({"threshold": 0.8})
    said = options_controller.RUN_FOR_OPTIONS
    qtbot.waitUntil(lambda: dock.message.text() == said)
    np.testing.assert_array_equal(layer.data, before)
    assert len(runner.calls) == n
