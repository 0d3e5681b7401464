"""Commands of the palette and keys: they press the buttons of the dock in front."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from qtpy.QtCore import Qt
from qtpy.QtGui import QShortcut
from qtpy.QtWidgets import QAbstractButton, QApplication, QWidget

from napari_svpseg.core.model_card import ModelCard
from napari_svpseg.io.images import read_image
from napari_svpseg.plugin import commands
from napari_svpseg.plugin.docks import actions, base, segment_dock
from napari_svpseg.plugin.docks.actions import KEYS, OPENED_BY, key_text, press
from napari_svpseg.plugin.docks.batch_dock import BatchWidget
from napari_svpseg.plugin.docks.finetune_dock import FineTuneWidget
from napari_svpseg.plugin.docks.segment_dock import SegmentWidget
from napari_svpseg.plugin.docks.tabs import (
    SEGMENT,
    bring_to_front,
    is_in_front,
    open_docks,
)
from napari_svpseg.plugin.docks.tags_dock import TagsWidget
from napari_svpseg.plugin.panels import save_panel
from napari_svpseg.plugin.services.engine_process import Engine
from napari_svpseg.plugin.services.preferences import DEFAULTS

from ..conftest import disc_image

DOCKS = [SegmentWidget, BatchWidget, FineTuneWidget, TagsWidget]
OF_LAYERS = {
    ("docks/actions.py", "key"),  # of `KEYS` and `OPENED_BY`
    ("docks/base.py", "key"),  # of `KEYS`
    ("layers/labels/edit_window.py", "'M'"),  # in place of napari's own M
    ("layers/results/stored_edits.py", "'M'"),
    ("layers/prompts/prompt_book.py", "key"),  # of `KEYS`, and Ctrl+Z
    ("tools/correct_tools.py", "'Escape'"),
    ("tools/this_too.py", "'Enter'"),
    ("tools/doubt_guide.py", "key"),  # of `ANSWERS`
    ("panels/tags/tag_view.py", "keyPressEvent"),  # the table tags by digits
}
"""All places that bind a key; those of a layer hold while a tool or question is on."""
ANSWERS = {"Y", "N", "E", "Escape"}


@pytest.fixture
def viewer(make_napari_viewer_proxy):
    """Return a viewer whose window is laid out."""
    return make_napari_viewer_proxy(show=True)


@pytest.fixture
def open_any(viewer, runner, settle, qtbot):
    """Return a function that opens a dock in the viewer, on the fake runner."""

    def open_it(kind):
        engine = Engine(lambda: runner)
        engine.runner()
        dock = kind(viewer, engine)
        viewer.window.add_dock_widget(dock, name=kind.title)
        settle()  # napari's tabs are made
        bring_to_front(dock)
        qtbot.waitUntil(lambda: is_in_front(dock))
        return dock

    return open_it


def keys_of(viewer):
    return {str(key) for key in viewer.keymap}


def push(viewer, key):
    """Press a key on the canvas: its keymap calls what is bound to it."""
    bound = next(f for k, f in viewer.keymap.items() if str(k) == key_text(key))
    bound(viewer)


def test_a_key_does_what_the_dock_in_front_has(viewer, open_any, qtbot):
    pressed = []
    docks = [open_any(kind) for kind in (SegmentWidget, FineTuneWidget)]
    for dock, name in zip(docks, ("run", "start_finetuning"), strict=True):
        dock.commands[name] = lambda name=name: pressed.append(name)
    push(viewer, "Shift-R")
    bring_to_front(docks[0])
    qtbot.waitUntil(lambda: is_in_front(docks[0]))
    push(viewer, "Shift-R")
    assert pressed == ["start_finetuning", "run"]
    docks[1].commands["paint_cell"] = lambda: pressed.append("cell")
    push(viewer, "Shift-C")  # only the other dock has it
    assert pressed[-1] == "cell"
    qtbot.waitUntil(lambda: is_in_front(docks[1]))
    push(viewer, OPENED_BY[SEGMENT])
    qtbot.waitUntil(lambda: is_in_front(docks[0]))


def test_keys_are_there_with_the_dock_and_go_with_the_last(viewer, open_any):
    mine = lambda _viewer: None  # noqa: E731
    viewer.bind_key("Shift-Z", mine)
    first, second = open_any(SegmentWidget), open_any(BatchWidget)
    assert {key_text(key) for key in KEYS.values()} <= keys_of(viewer)
    for dock in (first, second):
        assert "Shift+R" in keys_of(viewer)
        viewer.window.remove_dock_widget(dock)
    assert keys_of(viewer) == {"Shift+Z", *OPENED_BY.values()}
    assert viewer.keymap[actions.coerce_keybinding("Shift-Z")] is mine


def test_no_keys_where_the_user_wants_none(viewer, open_any, monkeypatch):
    for module in (base, actions):
        monkeypatch.setattr(module, "preference", {"device": "auto"}.get)
    dock = open_any(BatchWidget)
    assert not keys_of(viewer) and "Shift" not in dock.start.toolTip()
    assert set(dock.commands) == {"start_batch", "stop"}
    wanted = DEFAULTS | {"shortcuts": False}
    for module in (base, actions, segment_dock):
        monkeypatch.setattr(module, "preference", wanted.get)
    segment = open_any(SegmentWidget)
    tips = {one.toolTip() for one in segment.findChildren(QWidget)}
    assert not [tip for tip in tips if "Shift+" in tip] and not keys_of(viewer)


def bound_in(source):
    """Return the keys that code binds, as they are written there."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("keyPress"):
            found.add(node.name)
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in ("bind_key", "QKeySequence", "setShortcut", "setShortcuts"):
            found.add(ast.unparse(node.args[0]))
        if name == "QShortcut" and not isinstance(node.args[0], ast.Call):
            found.add(ast.unparse(node.args[0]))
    return found


def test_a_key_is_bound_nowhere_else():
    plugin = Path(commands.__file__).parent
    found = {
        (file.relative_to(plugin).as_posix(), key)
        for file in plugin.rglob("*.py")
        for key in bound_in(file.read_text("utf-8"))
    }
    assert found == OF_LAYERS


@pytest.mark.parametrize(
    "planted",
    [
        "viewer.bind_key('Shift-Q', act)",
        "QShortcut(QKeySequence('Shift+Q'), self)",
        "QShortcut('Shift+Q', self)",
        "button.setShortcut('Shift+Q')",
        "def keyPressEvent(self, event): pass",
    ],
)
def test_a_planted_key_is_found(planted):
    assert len(bound_in(planted)) == 1


def test_all_keys_that_the_docks_bind_are_commands(viewer, open_any):
    before = keys_of(viewer)
    viewer.add_image(disc_image()[0], name="discs")
    docks = [open_any(kind) for kind in DOCKS]
    keys = {key_text(key) for key in KEYS.values()}
    assert keys_of(viewer) - before == keys | {*OPENED_BY.values()}
    for dock in docks:
        made = {one.key().toString() for one in dock.findChildren(QShortcut)}
        assert made == {key_text(KEYS[name]) for name in dock.commands}
    book = docks[0].book
    assert {key_text(key) for key in book.shortcuts} <= keys | {"Control+Z"}
    assert set(docks[0].correct.guide._actions()) == ANSWERS


def test_keys_work_in_the_parts_of_a_dock_that_lie_apart(viewer, open_any, qtbot):
    dock = open_any(SegmentWidget)
    pressed = []
    dock.commands["next_image"] = lambda: pressed.append("next")
    panel = dock.results_panel
    parts = {panel.open_objects: panel.objects.table, panel.open_gallery: panel.gallery}
    for opens, part in parts.items():
        opens.click()
        inside = getattr(part, "list", part)
        inside.activateWindow()
        inside.setFocus()
        qtbot.waitUntil(inside.hasFocus)
        qtbot.keyClick(inside, Qt.Key.Key_J, Qt.KeyboardModifier.ShiftModifier)
    assert pressed == ["next", "next"]


def test_keys_without_a_button_are_told_where_they_act(open_any):
    dock = open_any(SegmentWidget)
    told = {
        dock.draw: ("draw_box", "add_prompt"),
        dock.images: ("next_image", "previous_image"),
        dock.results_panel.styles["fill"]: ("next_style",),
        open_any(FineTuneWidget).image_panel.list: ("next_image", "previous_image"),
    }
    for control, names in told.items():
        for name in names:
            assert key_text(KEYS[name]) in control.toolTip(), name


@pytest.mark.parametrize("kind", DOCKS)
def test_tooltips_show_the_key(open_any, kind):
    dock = open_any(kind)
    buttons = {n: t for n, t in dock.commands.items() if isinstance(t, QAbstractButton)}
    assert "stop" in buttons
    for name, one in buttons.items():
        assert f"({key_text(KEYS[name])})" in one.toolTip(), name
    keys = [KEYS[name] for name in dock.commands]
    assert len(set(keys)) == len(keys)


def test_a_control_with_the_focus_does_not_keep_a_key(viewer, open_any, qtbot):
    viewer.add_image(disc_image()[0], name="discs")
    dock = open_any(SegmentWidget)
    pressed = []
    dock.commands["preview"] = lambda: pressed.append("preview")
    dock.activateWindow()
    dock.mask_choice.setEnabled(True)
    dock.mask_choice.setFocus()
    qtbot.waitUntil(dock.mask_choice.hasFocus)
    shift = Qt.KeyboardModifier.ShiftModifier
    qtbot.keyClick(dock.mask_choice, Qt.Key.Key_P, shift)
    assert pressed == ["preview"]


def test_a_command_opens_its_dock_and_says_what_is_not_possible(
    viewer, open_any, monkeypatch
):
    monkeypatch.setattr(actions, "show_dock", lambda *_: open_any(SegmentWidget))
    commands.run(viewer)
    (dock,) = open_docks(viewer, SEGMENT)
    assert dock.message.text() == base.NOT_NOW.format("Run")
    viewer.add_image(disc_image()[0], name="discs")
    commands.draw_box(viewer)
    assert dock.prompt_panel.tool.is_on
    commands.stop(viewer)
    assert dock.message.text() == base.NOT_NOW.format("Stop")
    viewer.add_image(disc_image()[0], name="second")
    before = dock.image_panel.selected()
    commands.next_image(viewer)
    assert dock.image_panel.selected() != before
    QApplication.processEvents()


def test_the_layer_list_has_our_menu(viewer, open_any):
    from napari._app_model import get_app_model

    for _ in range(2):
        actions.add_to_layer_list()
    menu = get_app_model().menus.get_menu(actions.LAYER_LIST)
    ours = [i for i in menu if getattr(i, "submenu", "") == actions.SUBMENU]
    assert len(ours) == 1
    press(viewer, "Shift-R")  # no dock is open: nothing happens


def test_the_first_story_needs_no_mouse(
    viewer, open_any, runner, monkeypatch, qtbot, tmp_path, finish
):
    from napari_svpseg.io import model_store

    card = ModelCard("svp", "svp", title="SVPSeg")
    monkeypatch.setattr(model_store, "list_models", lambda folders=None: [card])
    monkeypatch.setattr(base, "shared_engine", lambda: Engine(lambda: runner))
    open_any(BatchWidget)
    image, truth = disc_image()
    viewer.add_image(image, name="discs")
    viewer.add_labels(truth, name="truth", visible=False)

    def key(name, on, shift=Qt.KeyboardModifier.ShiftModifier):
        qtbot.keyClick(on, getattr(Qt.Key, f"Key_{name}"), shift)

    window = open_docks(viewer, BatchWidget.title)[0].window()
    key("F6", window, Qt.KeyboardModifier.NoModifier)
    (dock,) = open_docks(viewer, SEGMENT)
    qtbot.waitUntil(lambda: is_in_front(dock))
    key("B", window)
    (item,) = dock.book.items
    if item.mask_layer is None:  # chosen already where it fits
        key("Down", dock.mask_choice, Qt.KeyboardModifier.NoModifier)
    assert item.is_ready
    key("R", window)
    finish(dock)
    path = tmp_path / "found.ome.tif"
    monkeypatch.setattr(
        save_panel.QFileDialog, "getSaveFileName", lambda *_: (str(path), "")
    )
    key("S", window)
    assert read_image(path).array.max() == 4
