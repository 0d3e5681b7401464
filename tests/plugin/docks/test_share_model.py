"""A model is shared from the dock, dropped on it, and finds the same."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication, QFileDialog

import napari_svpseg as svpseg
from napari_svpseg.core.geometry import Box
from napari_svpseg.core.prompt import Prompt, PromptSet
from napari_svpseg.engine.exchange import bake
from napari_svpseg.io import model_store
from napari_svpseg.io.model_archive import import_model
from napari_svpseg.plugin.panels.prompt_panel import EXISTS
from napari_svpseg.plugin.services.model_install import INSTALLED, NO_PROMPT
from napari_svpseg.plugin.services.model_share import SHARED

from ..conftest import disc_image

PATH = Path(__file__).parents[2] / "foreign" / "packages.py"
SPEC = importlib.util.spec_from_file_location("other_program", PATH)
other_program = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(other_program)


def drop(dock, path):
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path))])
    about = (
        Qt.DropAction.CopyAction, data, Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )  # fmt: skip
    QApplication.sendEvent(dock, QDragEnterEvent(QPoint(5, 5), *about))
    QApplication.sendEvent(dock, QDropEvent(QPointF(5, 5), *about))


def test_shared_from_the_dock_and_dropped_on_it(
    viewer, open_dock, runner, qtbot, monkeypatch, tmp_path
):
    cards = [model_store.read_card(model_store.builtin_folder() / "svp")]
    monkeypatch.setattr(model_store, "list_models", lambda folders=None: cards)
    image, labels = disc_image()
    prompts = PromptSet([Prompt.from_image(image, labels, Box(14, 14, 32))])
    usual = svpseg.segment(image, prompts, device="cpu")
    dock = open_dock()
    dock.book.add_loaded(prompts)

    # the graph itself is tested with the engine, and takes a while
    monkeypatch.setattr(bake, "onnx_graph", lambda model, channels: b"graph")
    path = tmp_path / "rounds.zip"
    dock.share.share_model(str(tmp_path / "rounds"))
    qtbot.waitUntil(
        lambda: dock.message.text() == SHARED.format("rounds.zip"), timeout=60_000
    )

    for item in list(dock.book.items):
        dock.book.remove(item.id)
    assert not dock.book.items
    folder = tmp_path / "models"

    def install(emit, progress, path):
        cards.append(import_model(path, folder))
        return cards[-1]

    runner.pretend["import_model"] = install
    drop(dock, path)
    qtbot.waitUntil(lambda: dock.message.text() == INSTALLED.format("rounds"))
    assert dock.model.currentText() == "rounds"
    again = svpseg.segment(
        image, dock.book.prompts(), model=dock.models.card.path, device="cpu"
    )
    np.testing.assert_array_equal(again.labels, usual.labels)
    assert again.labels.any()


def test_a_package_of_another_program_is_dropped_and_runs(
    viewer, open_dock, runner, qtbot, monkeypatch, tmp_path, finish
):
    cards = [model_store.read_card(model_store.builtin_folder() / "svp")]
    monkeypatch.setattr(model_store, "list_models", lambda folders=None: cards)

    def install(emit, progress, path):
        cards.append(import_model(path, tmp_path / "models"))
        return cards[-1]

    runner.pretend["import_model"] = install
    viewer.add_image(disc_image()[0])
    dock = open_dock()
    files = other_program.star_package()
    drop(dock, other_program.write(tmp_path / "bad.zip", {**files, "model.pt": b""}))
    qtbot.waitUntil(lambda: dock.message.is_error)
    drop(dock, other_program.write(tmp_path / "u.zip", files))
    said = f"{INSTALLED.format('a-test-model')} {NO_PROMPT}"
    qtbot.waitUntil(lambda: dock.message.text() == said, timeout=60_000)
    assert dock.model.currentText() == "a-test-model"
    assert not dock.models.takes_prompts and not dock.book.items
    job = {}

    def segmenting(emit, progress, query, prompts, *rest, **options):
        job["prompts"] = prompts
        return svpseg.segment(query, prompts, model=cards[-1].path, device="cpu")

    runner.pretend["segment"] = segmenting
    dock.controller.start_run()
    qtbot.waitUntil(lambda: "prompts" in job, timeout=60_000)
    assert job["prompts"] is None
    finish(dock)
    assert not dock.message.is_error


def test_a_package_that_the_dialog_did_not_ask_about_is_kept(
    open_dock, tmp_path, monkeypatch
):
    path = tmp_path / "rounds.zip"
    path.write_bytes(b"mine")
    dock = open_dock()
    answer = (str(tmp_path / "rounds"), "")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: answer)
    dock.share.share.click()
    assert dock.message.is_error and path.read_bytes() == b"mine"
    assert dock.message.text() == EXISTS.format(path=path)
