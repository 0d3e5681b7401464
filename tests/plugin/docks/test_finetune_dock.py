"""The dock "Fine-tune": with a pretended engine, and the whole way with ours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QApplication, QFileDialog

from napari_svpseg.core.annotation.partial_labels import PartialLabelError
from napari_svpseg.core.geometry import Box
from napari_svpseg.core.jobs.finetune_job import (
    FineTuneProgress,
    FineTuneResult,
    ValidationScore,
)
from napari_svpseg.io.training_set import TrainingSet
from napari_svpseg.plugin.docks import finetune_controller as module
from napari_svpseg.plugin.docks.finetune_controller import (
    BETTER,
    CUT_OFF,
    EXPORTED,
    KEEP,
    LATER,
    LOSS,
    NO_BETTER,
    STAY,
    VALIDATION,
)
from napari_svpseg.plugin.docks.finetune_dock import BEGIN, FineTuneWidget
from napari_svpseg.plugin.docks.model_names import NEEDS_NAME
from napari_svpseg.plugin.layers.labels.partial_label_layers import (
    ALREADY_LABELLED,
    BOTH,
    CORRECTIONS,
    INSIDE_BOXES,
    OBJECTS,
    PAINTED,
    accept,
    labelled_layers,
    paint_layer,
    start_painting,
)
from napari_svpseg.plugin.layers.metadata import metadata_of
from napari_svpseg.plugin.layers.results.journal import Journal
from napari_svpseg.plugin.layers.results.result_layers import Results
from napari_svpseg.plugin.messages import OPEN_IMAGE
from napari_svpseg.plugin.panels.training.finetune_form import ONLY_SET
from napari_svpseg.plugin.panels.training.label_panel import (
    ADDED,
    CAN_START,
    NEEDS_BACKGROUND,
    PAINT,
)
from napari_svpseg.plugin.tools.accept_object import NO_CELL, NO_RESULT

from ..services.test_engine_process import SAVE_MODEL

OLD, NEW = ValidationScore(0.6, 0.5, 900, 3), ValidationScore(0.8, 0.7, 900, 3)


@pytest.fixture
def open_finetune(discs, runner, monkeypatch, qtbot):
    """Return a function that opens the dock on the pretended engine."""
    from napari_svpseg.core.model_card import ModelCard
    from napari_svpseg.io import model_store
    from napari_svpseg.plugin.services.engine_process import Engine

    card = ModelCard("svp", "svp", title="SVPSeg", n_parameters=800_000)
    monkeypatch.setattr(model_store, "list_models", lambda folders=None: [card])

    def open_it():
        dock = FineTuneWidget(discs, Engine(lambda: runner))
        discs.window.add_dock_widget(dock, name="Fine-tune")
        qtbot.waitUntil(lambda: not dock._files.is_busy)
        return dock

    return open_it


@pytest.fixture
def dock(open_finetune):
    return open_finetune()


@pytest.fixture
def idle(qtbot):
    """Return a function that waits until files and training are done."""

    def wait(dock, timeout=20_000):
        qtbot.waitUntil(
            lambda: not dock._files.is_busy and not dock.is_busy, timeout=timeout
        )

    return wait


def paint(dock):
    """Paint two of the discs and some background."""
    truth = dock.viewer.layers["truth"].data
    dock.label_panel.paint_cell.click()
    layer = paint_layer(dock.viewer, dock.label_panel.source())
    layer.data_setitem(np.nonzero(truth == 1), 2)
    layer.data_setitem(np.nonzero(truth == 2), 3)
    dock.label_panel.paint_background.click()
    layer.data_setitem(tuple(np.indices((10, 110)).reshape(2, -1)), 1)
    return layer


@pytest.fixture
def added(dock, idle):
    paint(dock)
    dock.label_panel.add.click()
    idle(dock)
    return dock


class Training:
    """Stands in for `api.finetune`; goes on until it is told to end."""

    def __init__(self, result=None):
        self.go, self.calls, self.fail = threading.Event(), [], ""
        self.kept = "after"
        self.__name__ = self.__qualname__ = "finetune"

    def __call__(self, images, labels, **kwargs):
        self.calls.append(kwargs)
        end = time.monotonic() + 20
        while not self.go.is_set() and time.monotonic() < end:
            time.sleep(0.01)
        if self.fail:
            raise RuntimeError(self.fail)
        return FineTuneResult(OLD, NEW, self.kept, kwargs["output"], notes=("a note",))


@pytest.fixture
def training(monkeypatch):
    made = Training()
    monkeypatch.setattr(module, "finetune", made)
    yield made
    made.go.set()


# ---------------------------------------------------------------- labels and set


def test_an_empty_dock_says_what_to_do(dock):
    assert dock.message.text() == BEGIN
    assert not dock.start_button.isEnabled() and not dock.use.isEnabled()
    assert not dock.outcome.isVisibleTo(dock)
    assert dock.label_panel.labels.itemText(0) == OBJECTS.format(
        "truth"
    )  # there already
    dock.viewer.layers.clear()
    assert dock.message.text() == OPEN_IMAGE


def test_paint_and_add(dock, idle):
    layer = paint(dock)
    assert metadata_of(layer, "partial") and layer.mode == "paint"
    assert layer.selected_label == 1  # background
    assert dock.label_panel.labels.currentText() == PAINTED
    dock.label_panel.paint_cell.click()
    assert layer.selected_label == 4  # the next cell
    dock.label_panel.add.click()
    idle(dock)
    truth = dock.viewer.layers["truth"].data
    cells = np.count_nonzero((truth == 1) | (truth == 2))
    added = ADDED.format(name="discs", cells="2 cells", pixels=cells, background=1100)
    assert dock.message.text() == f"{added} {CAN_START}"
    row = [dock.training_set.table.item(0, i).text() for i in range(3)]
    assert row == ["discs", f"2 ({cells} px)", "1,100"]
    entry = TrainingSet(dock.training_set.folder).entry("discs")
    np.testing.assert_array_equal(entry.labels(), layer.data)
    np.testing.assert_array_equal(entry.image(), dock.viewer.layers["discs"].data)
    assert dock.start_button.isEnabled()


def test_adding_again_is_a_new_version_and_another_image_a_new_entry(added, idle):
    viewer = added.viewer
    added.training_set.table.item(0, 4).setCheckState(Qt.CheckState.Checked)
    idle(added)
    paint_layer(viewer, added.label_panel.source()).data_setitem(
        tuple(np.array([[90], [5]])), 1
    )
    added.label_panel.add.click()
    idle(added)
    (entry,) = added.training_set.entries
    assert entry.n_versions == 2 and entry.validation is True  # the switch is kept
    image = viewer.layers["discs"]
    image.data = image.data + 1
    added.label_panel.add.click()
    idle(added)
    assert [e.name for e in added.training_set.entries] == ["discs", "discs 2"]


def test_switches_are_kept_in_the_set(added, idle):
    added.training_set.table.item(0, 3).setCheckState(Qt.CheckState.Unchecked)
    idle(added)
    assert not TrainingSet(added.training_set.folder).entry("discs").used
    assert not added.start_button.isEnabled()
    added.training_set.table.item(0, 4).setCheckState(Qt.CheckState.Checked)
    idle(added)
    assert TrainingSet(added.training_set.folder).entry("discs").validation is True


def test_cells_without_background_ask_for_some(dock, idle):
    dock.label_panel.paint_cell.click()
    assert dock.message.text() == PAINT.format("cell 1", "discs")
    layer = paint_layer(dock.viewer, dock.label_panel.source())
    layer.data_setitem(np.nonzero(dock.viewer.layers["truth"].data == 1), 2)
    dock.label_panel.add.click()
    idle(dock)
    assert dock.message.text().endswith(NEEDS_BACKGROUND)
    assert dock.training_set.entries[0].counts["background"] == 0


def test_nothing_painted_is_told(dock, idle):
    dock.label_panel.paint_cell.click()
    dock.label_panel.add.click()
    idle(dock)
    assert "no pixel is labelled" in dock.message.text()
    assert not dock.training_set.entries


def test_a_damaged_entry_is_told_and_the_rest_is_there(added, idle):
    broken = added.training_set.folder / "broken"
    broken.mkdir()
    (broken / "entry.json").write_text("{")
    added.training_set.read()
    idle(added)
    assert "broken" in added.message.text() and len(added.training_set.entries) == 1


def test_labels_of_every_kind(dock):
    viewer, source = dock.viewer, dock.label_panel.source()
    truth = viewer.layers["truth"].data
    results = Results(viewer, Journal())
    layer, _ = results.show(source, None, truth.astype(np.uint32))
    layer.data_setitem(np.nonzero(truth == 1), 0)  # erased
    layer.data_setitem(tuple(np.array([[50], [10]])), 9)  # painted
    start_painting(viewer, source, 2).data_setitem(tuple(np.array([[4], [4]])), 2)
    from napari_svpseg.plugin.layers.prompts.prompt_book import PromptBook

    book = PromptBook(viewer, dock.image_panel.source_of)
    book.place(source, (), Box(14, 14, 32))
    ways = {w.title: w.read(())() for w in labelled_layers(viewer, source)}
    book.close()
    corrected = ways[CORRECTIONS.format(layer.name)]
    assert (corrected[truth == 1] == 1).all() and corrected[50, 10] > 1
    assert (corrected[truth == 2] == 0).all()  # not looked at, so not known
    both = ways[BOTH]
    assert both[4, 4] > 1 and both[50, 10] > 1
    inside = ways[INSIDE_BOXES.format("truth")]
    assert (inside[14:46, 14:46] > 0).all() and not inside[60:].any()
    objects = ways[OBJECTS.format("truth")]
    assert ((objects > 1) == (truth > 0)).all()


def clicked(dock, y, x):
    """Click on a place, as napari tells its callbacks of it."""
    callback = dock.viewer.mouse_drag_callbacks[-1]  # after napari's own
    event = SimpleNamespace(button=1, position=(y, x), type="mouse_press")
    drag = callback(dock.viewer, event)
    next(drag)
    event.type = "mouse_release"
    list(drag)


def test_accepted_cells_become_labels(dock, idle):
    viewer, source = dock.viewer, dock.label_panel.source()
    truth = viewer.layers["truth"].data
    viewer.layers["truth"].visible = False
    dock.label_panel.accept_cells.click()
    assert dock.message.text() == NO_RESULT.format("discs")
    assert not dock.label_panel.accept_cells.isChecked()
    Results(viewer, Journal()).show(source, None, truth.astype(np.uint32))
    dock.label_panel.accept_cells.click()
    assert dock.label_panel.accept_cells.isChecked()
    for y, x in ((30, 30), (66, 40), (2, 2)):
        clicked(dock, y, x)
    assert dock.message.text() == NO_CELL
    layer = paint_layer(viewer, source)
    np.testing.assert_array_equal(layer.data == 2, truth == 1)
    np.testing.assert_array_equal(layer.data == 3, truth == 3)
    ring = layer.data == 1
    assert ring[30, 39] and ring[30, 40] and not ring[30, 41]
    assert not ring[truth > 0].any()
    clicked(dock, 30, 30)
    assert dock.message.text() == ALREADY_LABELLED
    layer.undo()
    assert not (layer.data == 3).any() and (layer.data == 2).any()  # one undo, one cell
    assert dock.label_panel.labels.currentText() == BOTH
    dock.label_panel.paint_cell.click()  # another tool ends this one
    assert not dock.label_panel.accept_cells.isChecked()
    assert dock.label_panel.accepting._on_drag not in viewer.mouse_drag_callbacks
    dock.label_panel.add.click()
    idle(dock)
    assert dock.training_set.entries[0].counts["n_objects"] == 1


def test_accepting_paints_over_no_label_and_finds_large_cells(dock):
    viewer, source = dock.viewer, dock.label_panel.source()
    start_painting(viewer, source, 2).data_setitem(tuple(np.array([[5], [50]])), 2)
    found = np.zeros(source.plane_shape, np.uint32)
    found[2:94, 3:107] = 7  # larger than the first look
    Results(viewer, Journal()).show(source, None, found)
    assert accept(viewer, source, (90, 100))
    layer = paint_layer(viewer, source)
    assert layer.data[5, 50] == 2 and (layer.data == 3).sum() == 92 * 104 - 1
    assert accept(viewer, source, (0, 0)) is None
    assert accept(viewer, source, (500, 0)) is None


def test_painting_that_contradicts_a_correction_is_told(dock):
    viewer, source = dock.viewer, dock.label_panel.source()
    truth = viewer.layers["truth"].data.astype(np.uint32)
    layer, _ = Results(viewer, Journal()).show(source, None, truth.copy())
    layer.data_setitem(np.nonzero(truth == 1), 0)
    start_painting(viewer, source, 2).data_setitem(np.nonzero(truth == 1), 2)
    both = labelled_layers(viewer, source)[0]
    with pytest.raises(PartialLabelError, match="contradict"):
        both.read(())()


def test_planes_of_stacks_are_entries_of_their_own(viewer, open_finetune, idle):
    stack = np.random.default_rng(0).normal(size=(3, 40, 50)).astype(np.float32)
    dock = open_finetune()
    viewer.layers.clear()
    viewer.add_image(stack, name="stack", metadata={"svpseg_axes": ("ZYX", None)})
    viewer.dims.set_point(0, 2)
    start_painting(viewer, dock.label_panel.source(), 2).data_setitem(
        tuple(np.array([[2], [3], [4]])), 2
    )
    dock.label_panel.refresh()
    dock.label_panel.add.click()
    idle(dock)
    (entry,) = dock.training_set.entries
    assert entry.name == "stack Z2" and entry.labels()[3, 4] == 2
    np.testing.assert_array_equal(entry.image(), stack[2])


# ---------------------------------------------------------------- training


def test_the_engine_gets_what_the_dock_shows(added, training, idle):
    added.form.preset.setCurrentIndex(2)
    added.form.options.set_values({"steps": 7, "learning_rate": 0.002, "seed": 5})
    added.form.meaning.set_values({"unlabelled_is_background": True})
    added.form.name.setText("round ones")
    training.go.set()
    added.start_button.click()
    idle(added)
    (call,) = training.calls
    assert call["unlabelled"] is None and not call["settings"].self_supervised_first
    settings = call["settings"]
    assert (settings.preset, settings.steps, settings.seed) == ("custom", 7, 5)
    assert settings.learning_rate == pytest.approx(0.002)
    assert settings.unlabelled_is_background
    assert Path(call["output"]).name == "round ones"
    assert call["training_set"] == str(added.training_set.folder)
    assert call["start_from"] == "svp" and not call["resume"]


def test_unlabelled_images_are_chosen_once_they_are_wanted(
    added, training, idle, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path / "more")
    )
    assert not added.form.choose_unlabelled.isVisibleTo(added)
    added.form.pretrain.click()
    assert added.form.unlabelled_line.text() == ONLY_SET
    added.form.choose_unlabelled.click()
    assert added.form.unlabelled_line.text() == "Set, and more"
    chosen = added.choices()
    training.go.set()
    added.start_button.click()
    idle(added)
    assert training.calls[0]["unlabelled"] == str(tmp_path / "more")
    assert training.calls[0]["settings"].self_supervised_first
    added.form.pretrain.click()
    added.start_button.click()
    idle(added)
    assert training.calls[1]["unlabelled"] is None
    assert not training.calls[1]["settings"].self_supervised_first
    added.restore_choices(chosen)
    assert added.form.pretrain.isChecked() and added.choices() == chosen


def test_presets(dock):
    settings = dock.run_choices().settings()
    assert settings.seconds == 45 and settings.preset == "quick"
    dock.form.preset.setCurrentIndex(1)
    assert dock.run_choices().settings().seconds == 900


@pytest.mark.parametrize(("kept", "said"), [("after", BETTER), ("before", NO_BETTER)])
def test_the_outcome_is_told(added, training, idle, kept, said):
    training.kept = kept
    training.go.set()
    added.start_button.click()
    idle(added)
    assert added.message.text() == f"{said.format('my cells')} (a note)"
    assert (
        "0.600" in added.outcome.scores.text()
        and "0.800" in added.outcome.scores.text()
    )
    assert "900 validation pixels and 3 cells" in added.outcome.scores.text()
    assert added.use.isEnabled() and added.compare.isVisibleTo(added)


def test_points_become_curves(added, training, idle):
    added.start_button.click()
    for step in (1, 2):
        held = 0.5 if step == 2 else None
        added.controller.on_partial(FineTuneProgress(step, 9, step, 1 / step, held))
    assert added.curves.points[LOSS] == ([1.0, 2.0], [1.0, 0.5])
    assert added.curves.points[VALIDATION] == ([2.0], [0.5])
    training.go.set()
    idle(added)


def test_a_failure_leaves_the_labels(added, training, idle):
    training.fail = "out of memory: choose a smaller batch."
    training.go.set()
    added.start_button.click()
    idle(added)
    assert added.message.text() == "out of memory: choose a smaller batch."
    assert len(TrainingSet(added.training_set.folder).entries()) == 1
    assert added.start_button.isEnabled() and not added.use.isEnabled()


@pytest.mark.parametrize("name", ["", "  ", "a/b", ".hidden", "x:y"])
def test_a_name_that_is_none_is_refused(added, runner, name):
    added.form.name.setText(name)
    added.start_button.click()
    assert added.message.text() == NEEDS_NAME
    assert not [c for c in runner.calls if c[0] is module.finetune]


def test_a_name_that_is_taken_gets_a_number(added, training, own_home, idle):
    (own_home / "models" / "mine").mkdir(parents=True)
    training.go.set()
    for name, expected in (("mine", "mine 2"), ("svp", "svp 2")):
        added.form.name.setText(name)
        added.start_button.click()
        idle(added)
        assert Path(training.calls[-1]["output"]).name == expected


@pytest.mark.parametrize("choice", [KEEP, LATER, STAY])
def test_closing_the_window_asks(added, training, monkeypatch, idle, choice):
    class Window(QObject):
        closed = 0

        def close(self):
            self.closed += 1

    asked, stopped = [], []
    monkeypatch.setattr(added, "ask_to_close", lambda: asked.append(1) or choice)
    monkeypatch.setattr(module, "stop_finetune", lambda o: stopped.append(o) or True)
    window, event = Window(), QEvent(QEvent.Type.Close)
    monkeypatch.setattr(added, "window", lambda: window)
    assert not added.eventFilter(window, event) and not asked  # nothing is trained
    added.start_button.click()
    held = added.eventFilter(window, event)
    assert asked == [1] and held == (choice != LATER)
    if choice == KEEP:
        training.go.set()
        idle(added)
        assert window.closed == 1 and len(stopped) == 1
    elif choice == STAY:
        assert added.is_busy and not window.closed
        training.go.set()
        idle(added)
        assert not window.closed and added.controller.result is not None


def test_nothing_heavy_runs_in_the_guis_thread(added, idle, monkeypatch):
    threads = {}
    for name in ("add", "entries", "set_used"):
        real = getattr(TrainingSet, name)

        def watched(self, *args, _real=real, _name=name, **kwargs):
            threads.setdefault(_name, set()).add(threading.current_thread())
            return _real(self, *args, **kwargs)

        monkeypatch.setattr(TrainingSet, name, watched)
    added.label_panel.add.click()
    idle(added)
    added.training_set.table.item(0, 3).setCheckState(Qt.CheckState.Unchecked)
    idle(added)
    assert set(threads) == {"add", "entries", "set_used"}
    assert all(threading.main_thread() not in t for t in threads.values())


def test_opening_the_dock_loads_neither_torch_nor_pyqtgraph():
    code = (
        "import sys, napari_svpseg.plugin.docks.finetune_dock\n"
        "assert not {'torch', 'pyqtgraph'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------- the whole way


@pytest.fixture
def real(discs, own_home, qtbot, idle):
    """Return the dock on a real engine, with a tiny model and a painted image."""
    from napari_svpseg.plugin.services.engine_process import Engine

    model = own_home / "models" / "tiny"
    subprocess.run([sys.executable, "-c", SAVE_MODEL, str(model)], check=True)
    dock = FineTuneWidget(discs, Engine())
    discs.window.add_dock_widget(dock, name="Fine-tune")
    dock.form.models.refresh("tiny")
    paint(dock)
    dock.label_panel.add.click()
    idle(dock)
    dock.form.preset.setCurrentIndex(2)
    dock.form.options.set_values({"steps": 100_000, "batch": 1, "seconds": 10_000})
    yield dock
    dock.engine.close()


def wait_for_points(dock, qtbot, n=2):
    qtbot.waitUntil(
        lambda: len(dock.curves.points.get(LOSS, ([], []))[0]) >= n, timeout=120_000
    )


def test_the_whole_way(real, qtbot, idle, tmp_path):
    from napari_svpseg.plugin.docks.segment_dock import SegmentWidget

    dock, viewer = real, real.viewer
    segment = SegmentWidget(viewer, dock.engine)
    viewer.window.add_dock_widget(segment, name="Segment from prompts")
    dock.start_button.click()
    wait_for_points(dock, qtbot)
    dock.stop.click()
    idle(dock, 120_000)
    result = dock.controller.result
    assert result is not None and result.stopped, dock.message.text()
    assert segment.model.findText("my cells") >= 0  # at once, in the other dock
    dock.compare.look.click()
    qtbot.waitUntil(lambda: not dock.compare.is_busy, timeout=120_000)
    before, after = viewer.layers["discs before"], viewer.layers["discs after"]
    assert after.visible and not before.visible
    dock.compare.before.click()
    assert before.visible and not after.visible
    dock.use.click()
    qtbot.waitUntil(lambda: segment.model.currentText() == "my cells", timeout=20_000)
    assert segment.book.items
    segment.run.click()
    qtbot.waitUntil(lambda: not segment.is_busy, timeout=120_000)
    assert metadata_of(viewer.layers["discs [svpseg]"], "labels")
    target = tmp_path / "mine.zip"
    dock.share.export_model(str(target))
    idle(dock)
    assert target.is_file()
    assert dock.message.text() == EXPORTED.format("my cells", target)
    dock.share.import_model(str(target))  # there is one of that name
    qtbot.waitUntil(lambda: "already a model" in dock.message.text(), timeout=120_000)


def test_a_killed_engine_loses_no_more_than_seconds(real, qtbot, idle):
    dock = real
    dock.start_button.click()
    wait_for_points(dock, qtbot)
    run = Path(dock.controller._run.output).with_name(".my cells.run")
    qtbot.waitUntil((run / "checkpoint.pt").is_file, timeout=120_000)
    os.kill(dock.engine.runner().pid, signal.SIGKILL)
    idle(dock, 120_000)
    assert "ended unexpectedly" in dock.message.text()
    qtbot.waitUntil(lambda: dock.unfinished.isVisibleTo(dock), timeout=20_000)
    assert dock.unfinished.text.text() == CUT_OFF.format("my cells")
    dock.unfinished.take.click()
    wait_for_points(dock, qtbot)
    assert dock.curves.points[LOSS][0][0] > 1  # it went on, it did not begin anew
    dock.stop.click()
    idle(dock, 120_000)
    assert dock.controller.result is not None and not dock.unfinished.isVisibleTo(dock)
    assert (Path(dock.controller.result.model) / "model.json").is_file()
    assert not run.exists()
    QApplication.processEvents()


def test_what_was_cut_off_can_be_discarded(open_finetune, own_home, idle):
    import json

    run = own_home / "models" / ".old.run"
    run.mkdir(parents=True)
    (run / "checkpoint.pt").write_bytes(b"")
    values = {"output": str(own_home / "models" / "old"), "training_set": "x"}
    (run / "run.json").write_text(json.dumps(values))
    dock = open_finetune()
    idle(dock)
    assert dock.unfinished.text.text() == CUT_OFF.format("old")
    dock.unfinished.leave.click()
    idle(dock)
    assert not run.exists() and not dock.unfinished.isVisibleTo(dock)
