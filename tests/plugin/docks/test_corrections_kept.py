"""Corrections in the journal, the autosave and saved sessions."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from npe2 import PluginManager

from napari_svpseg.core.geometry import Box
from napari_svpseg.core.prompt import UNKNOWN, prompt_hash
from napari_svpseg.io.session import crashed_sessions, sessions_folder
from napari_svpseg.plugin.docks import correct_controller as module
from napari_svpseg.plugin.layers.images.visibility import bring_into_sight
from napari_svpseg.plugin.layers.metadata import metadata_of
from napari_svpseg.plugin.layers.results.corrected import fixed_on, from_entries
from napari_svpseg.plugin.layers.results.correction import Correction
from napari_svpseg.plugin.services import autosave

from .test_correct import (
    agreeing,
    disagreeing,
    disc,
    erase,
    learning_segment,
    scene,
    source,
)

NAMES = ("a", "b")
STRENGTH = 0.9


def not_this(correct, image):
    correct.not_this(image, (), [(30.0, 80.0)])


def this_too(correct, image):
    correct.this_too(image, (), disc((80, 30)))


def split(correct, image):
    correct.split(image, (), np.array([(18.0, 30.0), (44.0, 31.0)]))


def join(correct, image):
    correct.join(image, (), [(80.0, 80.0), (120.0, 40.0)])


TOOLS = {
    module.NOT_THIS: not_this,
    module.THIS_TOO: this_too,
    module.SPLIT_HERE: split,
    module.JOIN: join,
}
TEACHING = (module.NOT_THIS, module.THIS_TOO)
"""Tools that make a prompt; the others teach the split strength."""


@pytest.fixture
def idle(qtbot):
    """Return a function that waits until results have followed and all is saved."""

    def wait(dock):
        correct, saver = dock.correct.controller, dock.autosave
        parts = (correct.follow, correct._files, dock.session_panel._files)

        def is_idle():
            saving = saver._timer.isActive() or saver._files.is_busy
            return not (saving or any(part.is_busy for part in parts))

        qtbot.waitUntil(is_idle)

    return wait


@pytest.fixture
def fresh_dock(dock_without_window, monkeypatch):
    """Return a function that opens the dock in a new viewer, as after a start."""
    PluginManager.instance().discover()  # napari's own reader, which a window has
    monkeypatch.setattr(autosave, "WAIT_MS", 1)
    viewers = []

    def open_it():
        viewers.append(ViewerModel())
        return dock_without_window(viewers[-1])

    yield open_it
    for viewer in viewers:
        autosave._close(id(viewer))


@pytest.fixture
def may_learn():
    """Return what lets the split strength be learned; it is set."""
    event = threading.Event()
    event.set()
    yield event
    event.set()


@pytest.fixture
def dock(fresh_dock, runner, finish, tmp_path, monkeypatch, may_learn):
    """Return the dock with the results of two image files, made with one box."""
    runner.pretend["segment"] = learning_segment
    runner.pretend["split_by_agreement"] = agreeing
    monkeypatch.setattr(
        module, "learned_strength", lambda *_: may_learn.wait(60) * STRENGTH
    )
    dock = fresh_dock()
    for name in NAMES:
        tifffile.imwrite(tmp_path / f"{name}.tif", scene())
        dock.viewer.open(str(tmp_path / f"{name}.tif"), plugin="napari")
    bring_into_sight(dock.viewer, dock.viewer.layers["a"])
    dock.image_panel.select(dock.viewer.layers["a"])
    item = dock.book.place(source(dock), (), Box(10, 10, 40))
    dock.book.add_paint_layer(item, disc((20, 20), shape=(40, 40)).astype(int))
    dock.run.click()
    finish(dock)
    return dock


def crash(dock):
    """Let go of the lock without closing, as the system does for a killed process."""
    dock.autosave._timer.stop()
    dock.autosave._session._lock.release()
    dock.autosave._broken = True


def saved_state(dock):
    """Return what would be found after a crash."""
    crash(dock)
    (saved,), _ = crashed_sessions(sessions_folder())
    saved.release()
    return saved.state


def decided(dock, name="a"):
    """Return what was decided in an image."""
    return fixed_on(source(dock, name), ())


def objects(dock, name="a"):
    """Return the labels of the result of an image."""
    return dock.viewer.layers[f"{name} [svpseg]"].data.copy()


def examples(dock):
    """Return what each prompt of the list is, with its pixels."""
    return [
        (i.name, i.negative, i.enabled, i.here_only, prompt_hash(dock.book.prompt(i)))
        for i in dock.book.items
    ]


def ignorant_segment(emit, on_progress, query, prompts, **settings):
    """Segment as if there were no corrections."""
    return learning_segment(emit, on_progress, query, prompts[:1], **settings)


@pytest.mark.parametrize("what", TOOLS)
def test_each_tool_is_one_step_that_is_saved_at_once(
    dock, idle, what, may_learn, qtbot
):
    idle(dock)
    may_learn.clear()
    before = len(dock.correct.controller.layers.journal.edits)
    TOOLS[what](dock.correct.controller, source(dock))
    saver = dock.autosave
    qtbot.waitUntil(lambda: not (saver._timer.isActive() or saver._files.is_busy))
    may_learn.set()  # what is learned later is saved by itself
    idle(dock)
    made = dock.correct.controller.layers.journal.edits[before:]
    assert [type(e) for e in made] == [Correction] and made[0].what == what
    state = saved_state(dock)
    a, b = sorted(state["images"], key=lambda image: image["name"])
    np.testing.assert_array_equal(from_entries(a["corrected"])[()], decided(dock))
    assert (decided(dock) != UNKNOWN).any() and not b["corrected"]
    (boxes,) = state["boxes"]
    assert len(boxes["ids"]) == 1 + (what in TEACHING)
    learned = state["settings"]["segment"]["options"]["split_strength"] == STRENGTH
    assert learned == (what not in TEACHING)


@pytest.mark.parametrize("what", TOOLS)
def test_the_undo_of_each_tool_is_saved_too(dock, idle, what):
    before = objects(dock), objects(dock, "b"), dock.options.values()
    TOOLS[what](dock.correct.controller, source(dock))
    idle(dock)
    assert (objects(dock) != before[0]).any()
    dock.undo.click()
    idle(dock)
    np.testing.assert_array_equal(objects(dock), before[0])
    np.testing.assert_array_equal(objects(dock, "b"), before[1])
    state = saved_state(dock)
    assert not any(image["corrected"] for image in state["images"])
    assert len(state["boxes"][0]["ids"]) == 1
    assert state["settings"]["segment"]["options"] == before[2]


def correct_much(dock, runner, idle):
    """Use each tool, have an example used in its image only, and erase by hand."""
    for act in (not_this, this_too, split):
        act(dock.correct.controller, source(dock))
        idle(dock)
    split(dock.correct.controller, source(dock, "b"))
    idle(dock)
    halves = [(30.0, 25.0), (30.0, 36.0)]
    dock.correct.controller.join(source(dock, "b"), (), halves)
    idle(dock)
    runner.pretend["split_by_agreement"] = disagreeing
    dock.correct.controller.not_this(source(dock, "b"), (), [(120.0, 90.0)])
    idle(dock)
    assert [i.here_only for i in dock.book.items] == [False, False, False, True]


def check_all_is_there(dock, expected, runner, finish):
    """Check prompts and decisions, and that a new run keeps to them."""
    listed, fixed, labels = expected
    assert examples(dock) == listed
    for name in NAMES:
        np.testing.assert_array_equal(decided(dock, name), fixed[name])
    runner.pretend["segment"] = ignorant_segment
    dock.run.click()
    finish(dock)
    assert not dock.message.is_error, dock.message.text()
    for name in NAMES:
        here, before = objects(dock, name), labels[name]
        known = fixed[name] != UNKNOWN
        np.testing.assert_array_equal((here > 0)[known], (before > 0)[known])
        for n in np.unique(fixed[name][fixed[name] > 0]):
            assert len(np.unique(here[fixed[name] == n])) == 1
    assert objects(dock)[30, 80] == 0 < objects(dock)[80, 30]
    assert len({*objects(dock)[30, [25, 36]].tolist(), 0}) == 3
    assert len({*objects(dock, "b")[30, [25, 36]].tolist()}) == 1


def expected_of(dock):
    return (
        examples(dock),
        {name: decided(dock, name) for name in NAMES},
        {name: objects(dock, name) for name in NAMES},
    )


def test_a_saved_session_has_all_corrections(
    dock, fresh_dock, runner, finish, idle, tmp_path
):
    correct_much(dock, runner, idle)
    erase(dock.viewer.layers["b [svpseg]"], disc((80, 80), 4))  # no run has followed
    expected = expected_of(dock)
    path = str(tmp_path / "work.svpsession")
    dock.session_panel.save_session(path)
    idle(dock)
    tomorrow = fresh_dock()
    tomorrow.session_panel.open_session(path)
    while tomorrow.session_panel._files.is_busy:
        idle(tomorrow)
    assert not tomorrow.message.is_error, tomorrow.message.text()
    for name in NAMES:
        np.testing.assert_array_equal(objects(tomorrow, name), expected[2][name])
    assert tomorrow.options.values()["split_strength"] == STRENGTH
    check_all_is_there(tomorrow, expected, runner, finish)
    assert objects(tomorrow, "b")[80, 80] == 0  # the edited layer is as it was


def test_after_a_crash_all_corrections_come_back(
    dock, fresh_dock, runner, finish, idle, qtbot
):
    correct_much(dock, runner, idle)
    expected = expected_of(dock)
    crash(dock)
    tomorrow = fresh_dock()
    bar = tomorrow.last_session
    qtbot.waitUntil(lambda: not bar.isHidden())
    bar.take.click()
    qtbot.waitUntil(lambda: tomorrow.message.text() == autosave.RESTORED)
    assert tomorrow.options.values()["split_strength"] == STRENGTH
    check_all_is_there(tomorrow, expected, runner, finish)


def test_a_mask_of_a_layer_that_was_not_saved_comes_back_after_a_crash(
    dock, fresh_dock, idle, qtbot
):
    item, viewer = dock.book.items[0], dock.viewer
    mine = viewer.add_labels(disc((30, 30), shape=(150, 130)).astype(int))
    dock.book.update(item.id, mask_layer=mine)
    for layer in [la for la in viewer.layers if metadata_of(la, "mask")]:
        viewer.layers.remove(layer)
    assert item.is_ready
    idle(dock)
    crash(dock)
    tomorrow = fresh_dock()
    qtbot.waitUntil(lambda: not tomorrow.last_session.isHidden())
    tomorrow.last_session.take.click()
    qtbot.waitUntil(lambda: tomorrow.message.text() == autosave.RESTORED)
    again = tomorrow.book.items[0]
    assert again.is_ready and again.name == item.name
    np.testing.assert_array_equal(again.mask > 0, item.mask > 0)


def save_and_open(dock, fresh_dock, idle, path):
    """Return a new dock with the session of another, which knows no other place."""
    dock.session_panel.save_session(str(path))
    idle(dock)
    tomorrow = fresh_dock()
    tomorrow.session_panel.ask_where = lambda image: ""
    open_session(tomorrow, path, idle)
    return tomorrow


def open_session(dock, path, idle):
    dock.session_panel.open_session(str(path))
    while dock.session_panel._files.is_busy:
        idle(dock)


def move_images(tmp_path):
    """Move the images where no session looks for them."""
    there = tmp_path / "elsewhere"
    there.mkdir()
    return [(tmp_path / f"{n}.tif").rename(there / f"{n}.tif") for n in NAMES]


def test_corrections_wait_for_images_that_are_opened_later(
    dock, fresh_dock, runner, finish, idle, tmp_path
):
    correct_much(dock, runner, idle)
    expected = expected_of(dock)
    files = move_images(tmp_path)
    tomorrow = save_and_open(dock, fresh_dock, idle, tmp_path / "1.svpsession")
    assert [i.here_only for i in tomorrow.book.items] == [False] * 3 + [True]
    # a session that is saved without the images still has what lies on them
    later = save_and_open(tomorrow, fresh_dock, idle, tmp_path / "2.svpsession")
    for file in files:
        later.viewer.open(str(file), plugin="napari")
    idle(later)
    assert sorted(examples(later)) == sorted(expected[0])
    check_all_is_there(later, (examples(later), *expected[1:]), runner, finish)
    assert [la for la in later.viewer.layers if metadata_of(la, "labels")] == [
        later.viewer.layers[f"{n} [svpseg]"] for n in NAMES
    ]


def test_corrections_come_back_where_all_were_undone(dock, idle, tmp_path):
    not_this(dock.correct.controller, source(dock))
    idle(dock)
    fixed = decided(dock)
    dock.session_panel.save_session(str(tmp_path / "a.svpsession"))
    idle(dock)
    dock.undo.click()
    idle(dock)
    open_session(dock, tmp_path / "a.svpsession", idle)
    np.testing.assert_array_equal(decided(dock), fixed)


def test_corrections_alone_are_worth_restoring(dock, idle):
    loaded = dock.book.all_prompts()
    dock.book.remove(dock.book.items[0].id)
    dock.book.add_loaded(loaded)
    split(dock.correct.controller, source(dock))
    idle(dock)
    crash(dock)
    (saved,), _ = crashed_sessions(sessions_folder())
    saved.state["labels"] = []  # nor is anything painted
    assert not saved.state["boxes"][0]["ids"] and autosave.summary(saved)
    saved.release()
