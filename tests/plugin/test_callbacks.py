"""Errors of callbacks: each is one line in the dock, and stops nobody else."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QWidget

import napari_svpseg.plugin
from napari_svpseg.core.geometry import Box
from napari_svpseg.plugin.callbacks import MARK, guarded, reports_errors, tell
from napari_svpseg.plugin.services.background import Background

ROOT = Path(napari_svpseg.plugin.__file__).parent


class Fault(Exception):
    """What a test raises in a callback."""


def fail(*_args, **_options):
    raise Fault("at a.tif")


@reports_errors("stop")
class Part(QObject):
    message = Signal(str, bool)

    def __init__(self):
        super().__init__()
        self.told, self.values = [], []
        self.message.connect(lambda text, error: self.told.append((text, error)))

    def _on_click(self, *, twice=False):
        self.values.append(twice)

    def _on_pair(self, a, b):
        self.values.append((a, b))
        return a

    def _on_bad(self):
        raise Fault("at a.tif")

    def stop(self, event=None):
        raise TypeError("is None")

    def _on_drag(self, layer):
        yield 1
        raise Fault("at a.tif")


def test_errors_become_messages(qapp, callback_errors):
    part = Part()
    part._on_bad(1, 2, 3)
    assert list(part._on_drag("layer")) == [1]
    assert part.told == [("Fault: at a.tif", True)] * 2
    callback_errors.claim(Fault)
    part.stop()
    assert part.told[2:] == [("Is None", True)]
    callback_errors.claim(TypeError)


def test_a_method_gets_the_values_that_it_takes(qapp):
    part = Part()
    part._on_click(True)  # of a button
    part._on_click(twice=True)
    assert part._on_pair(1, 2, 3) == 1
    assert part.values == [False, True, (1, 2)]


def test_messages_go_to_the_dock_around(qtbot, callback_errors):
    dock = QWidget()
    qtbot.addWidget(dock)
    dock.told = []
    dock.say = lambda text, error: dock.told.append(text)
    tell(QWidget(QWidget(dock)), Fault("at a.tif"))
    guarded(SimpleNamespace(view=dock), fail)(1)
    assert dock.told == ["Fault: at a.tif"] * 2
    callback_errors.claim(Fault)


def test_without_a_dock_napari_shows_the_line(qapp, callback_errors):
    told = []
    with notification_manager:
        notification_manager.notification_ready.connect(told.append)
        tell(object(), Fault("at a.tif"))
        notification_manager.notification_ready.disconnect(told.append)
    assert [one.message for one in told] == ["Fault: at a.tif"]
    callback_errors.claim(Fault)


def test_no_error_of_a_thread_is_lost(qtbot):
    told = []
    files = Background(told.append)
    files.call(fail, print)
    files.call(lambda: 1, fail)
    files.call(fail, print, fail)
    files.call(fail, print, lambda error: told.append("taken"))
    qtbot.waitUntil(lambda: not files.is_busy)
    files.close()
    assert [str(one) for one in told] == ["at a.tif"] * 3 + ["taken"]


# ---------------------------------------------------------------- none is forgotten

FROM_OUTSIDE = re.compile(r"\.events\.|\.timeout$|emitter$|\bjob\.|callbacks$")
PLAIN = {"say", "_deliver", "close"}
"""Methods that only hand a message on, or are called when there is no dock left."""
HARMLESS = {"lambda: self._jobs.discard(job)"}


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        name = ".".join(("napari_svpseg", *parts)).removesuffix(".__init__")
        yield importlib.import_module(name), ast.parse(path.read_text("utf-8"))


def connections(tree):
    """Yield class, emitter and receiver of all that is connected."""
    for kind in (n for n in tree.body if isinstance(n, ast.ClassDef)):
        for node in ast.walk(kind):
            if not isinstance(node, ast.Call) or not isinstance(
                node.func, ast.Attribute
            ):
                continue
            emitter, args = ast.unparse(node.func.value), node.args
            if node.func.attr == "connect" or emitter.endswith("callbacks"):
                yield kind.name, emitter, args[0]
            elif node.func.attr in ("bind_key", "_hook") and _takes_effect(args):
                yield kind.name, f"{emitter}.events.", args[1]


def _takes_effect(args):
    """Return whether a key is bound, and not freed or used as decorator."""
    return len(args) > 1 and ast.unparse(args[1]) != "None"


def is_safe(kind, receiver, from_outside):
    """Return whether a receiver reports its errors, or is none of ours."""
    if isinstance(receiver, ast.Call):
        name = ast.unparse(receiver.func)
        is_guarded = name.rpartition(".")[2] in ("guarded", "receive")
        return is_guarded or (name == "partial" and not from_outside)
    if ast.unparse(receiver) in HARMLESS:
        return True
    is_own = isinstance(receiver, ast.Attribute) and (
        isinstance(receiver.value, ast.Name) and receiver.value.id == "self"
    )
    if not is_own:  # what is not ours, or a lambda that calls a method of ours
        return not from_outside or isinstance(receiver, ast.Name)
    found = inspect.getattr_static(kind, receiver.attr, None)
    is_method = inspect.isfunction(found)
    return not is_method or receiver.attr in PLAIN or hasattr(found, MARK)


def test_every_callback_reports_its_errors():
    unsafe, n = [], 0
    for module, tree in modules():
        for kind, emitter, receiver in connections(tree):
            n += 1
            outside = bool(FROM_OUTSIDE.search(emitter))
            if not is_safe(getattr(module, kind), receiver, outside):
                unsafe.append(f"{module.__name__}: {emitter} {ast.unparse(receiver)}")
    assert n > 150
    assert unsafe == []


def test_the_search_finds_what_is_not_guarded():
    code = "class Part:\n def a(self):\n  {}"
    for line, safe in (
        ("job.failed.connect(self.told)", True),
        ("layer.events.data.connect(lambda e: fail())", False),
        ("timer.timeout.connect(self.plain)", False),
        ("timer.timeout.connect(guarded(self, fail))", True),
        ("layer.bind_key('M', self._on_bad)", True),
    ):
        ((_, emitter, receiver),) = connections(ast.parse(code.format(line)))
        kind = type("Kind", (Part,), {"plain": lambda self: None})
        outside = bool(FROM_OUTSIDE.search(emitter))
        assert is_safe(kind, receiver, outside) is safe, line


# ---------------------------------------------------------------- in the window


def of_a_timer(dock, patch):
    patch.setattr(dock.options_controller, "_next", fail)
    dock.apply_options_soon()


def of_an_engine_message(dock, patch):
    patch.setattr(dock.results, "show", fail)
    dock.run.click()


def of_a_napari_event(dock, patch):
    patch.setattr(dock.image_panel.declared, "layers", fail)
    dock.viewer.add_image(np.zeros((20, 20)), name="later")
    assert "later" in dock.viewer.layers


def of_a_removed_layer(dock, patch):
    patch.setattr(dock.book.boxes, "release", fail)
    dock.viewer.layers.remove("truth")
    assert "truth" not in dock.viewer.layers


def of_a_thread(dock, patch):
    dock.correct.guide._background.call(fail, print)


def of_what_follows_a_thread(dock, patch):
    dock.stored._files.call(lambda: 1, fail)


def of_a_key(dock, patch):
    patch.setattr(dock.controller, "images", None)
    boxes = dock.book.boxes.layer_of(dock.book.items[0].id)
    boxes.keymap[next(k for k in boxes.keymap if str(k) == "Shift+R")](boxes)


def of_the_mouse(dock, patch):
    dock.draw.click()
    boxes = dock.book.boxes.layer_of(dock.book.items[0].id)
    patch.setattr(dock.book.boxes, "image_of", fail)
    event = SimpleNamespace(button=1, position=(9, 9), handled=False)
    list(boxes.mouse_drag_callbacks[-1](boxes, event))


def of_a_button(dock, patch):
    patch.setattr(dock.journal, "undo", fail)
    dock.controller.undo_last()


@pytest.mark.parametrize(
    "raised",
    [
        of_a_timer,
        of_an_engine_message,
        of_a_napari_event,
        of_a_removed_layer,
        of_a_thread,
        of_what_follows_a_thread,
        of_a_key,
        of_the_mouse,
        of_a_button,
    ],
)
def test_an_error_reaches_the_line_of_messages(
    discs, open_dock, monkeypatch, qtbot, raised, callback_errors
):
    dock = open_dock()
    dock.book.place(dock.source_of(discs.layers["discs"]), (), Box(14, 14, 32))
    with monkeypatch.context() as patch:
        raised(dock, patch)
        qtbot.waitUntil(lambda: dock.message.is_error and not dock.is_busy)
    assert dock.message.text()
    callback_errors.found = []
