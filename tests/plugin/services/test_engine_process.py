"""The dock with the real engine: a child process and a small untrained network."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from napari_svpseg.core.geometry import Box
from napari_svpseg.plugin.layers.image_source import mark_of

SAVE_MODEL = """
import sys
from napari_svpseg.core.model_card import ModelCard
from napari_svpseg.io.model_store import save_model
from napari_svpseg.models.registry import ModelConfig, build
config = ModelConfig("panet", {"width": 8})
save_model(sys.argv[1], build(config), ModelCard("tiny", "panet", config.arguments))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Return a user folder with a small model, made without torch in this process."""
    folder = tmp_path_factory.mktemp("home")
    subprocess.run(
        [sys.executable, "-c", SAVE_MODEL, str(folder / "models" / "tiny")], check=True
    )
    return folder


@pytest.fixture
def dock(discs, home, monkeypatch, qtbot):
    from napari_svpseg.plugin.docks.segment_dock import SegmentWidget
    from napari_svpseg.plugin.services.engine_process import Engine

    monkeypatch.setenv("NAPARI_SVPSEG_HOME", str(home))
    dock = SegmentWidget(discs, Engine())
    discs.window.add_dock_widget(dock, name="Segment from prompts")
    dock.model.setCurrentIndex(dock.model.findText("tiny"))
    dock.book.place(dock.source_of(discs.layers["discs"]), (), Box(14, 14, 32))
    qtbot.waitUntil(lambda: "Starting" not in dock.device_line.text(), timeout=60_000)
    yield dock
    dock.engine.close()


def test_the_whole_way(dock, finish, qtbot, tmp_path, read_recipe):
    from napari_svpseg.core.result import Recipe
    from napari_svpseg.io.images import read_image

    viewer = dock.viewer
    assert "core" in dock.device_line.text() or "(" in dock.device_line.text()
    dock.add_probability.setChecked(True)
    dock.preview.click()
    finish(dock, 60_000)
    assert dock.message.styleSheet() == "", dock.message.text()
    dock.run.click()
    finish(dock, 60_000)
    assert dock.message.styleSheet() == "", dock.message.text()
    layer = next(la for la in viewer.layers if mark_of(la, "labels"))
    assert layer.data.shape == (96, 110) and layer.data.flags.writeable
    assert viewer.layers["discs [svpseg] probability"].data.max() <= 1
    layer.paint((3, 3), 5)
    layer.undo()
    dock.options.set_values({"threshold": 0.95, "min_area": 100_000})
    qtbot.waitUntil(lambda: layer.data.max() == 0, timeout=20_000)
    dock.save_box.save_labels(str(tmp_path / "out.ome.tif"))
    np.testing.assert_array_equal(
        read_image(tmp_path / "out.ome.tif").array, layer.data
    )
    recipe = read_recipe(tmp_path / "out.ome.tif")
    assert isinstance(recipe, Recipe) and recipe.postprocess["min_area"] == 100_000
    assert recipe.weights_sha256


def test_a_killed_engine_loses_nothing(dock, finish, qtbot):
    viewer = dock.viewer
    big = np.random.default_rng(0).normal(size=(3000, 3000)).astype(np.float32)
    viewer.add_image(big, name="big")
    before = {
        la.name: np.array(la.data)
        for la in viewer.layers
        if la.name != "big" and not mark_of(la)
    }
    dock.images.item(0).setCheckState(dock.images.item(0).checkState().Unchecked)
    dock.run.click()
    qtbot.waitUntil(lambda: dock.progress.maximum() > 1, timeout=60_000)
    os.kill(dock.engine.runner().pid, signal.SIGKILL)
    finish(dock, 60_000)
    assert "engine ended" in dock.message.text() and "\n" not in dock.message.text()
    for name, data in before.items():
        np.testing.assert_array_equal(viewer.layers[name].data, data)
    assert len(dock.book.items) == 1 and dock.book.items[0].is_ready
    viewer.layers.remove("big")
    dock.images.item(0).setCheckState(dock.images.item(0).checkState().Checked)
    dock.run.click()
    finish(dock, 60_000)
    assert dock.message.styleSheet() == "", dock.message.text()


def test_stop_keeps_what_is_finished(dock, finish, qtbot):
    big = np.random.default_rng(0).normal(size=(3000, 3000)).astype(np.float32)
    dock.viewer.add_image(big, name="big")
    dock.run.click()
    qtbot.waitUntil(
        lambda: (
            "Segmenting 'big'" in dock.message.text() and dock.progress.maximum() > 1
        ),
        timeout=60_000,
    )
    dock.stop.click()
    finish(dock)
    assert "Stopped" in dock.message.text()
    assert any(mark_of(la, "labels") for la in dock.viewer.layers)  # the first image


def test_the_copied_python_repeats_the_result_bit_for_bit(
    viewer, dock, finish, qtbot, tmp_path, home
):
    import tifffile
    from qtpy.QtGui import QGuiApplication

    image = viewer.layers["discs"].data
    viewer.layers.remove("discs")
    if "SVPSeg prompts" in viewer.layers:
        viewer.layers.remove("SVPSeg prompts")
    tifffile.imwrite(tmp_path / "query.tif", image)
    (layer,) = viewer.open(str(tmp_path / "query.tif"), plugin="napari")
    dock.book.items.clear()
    dock.book.place(dock.source_of(layer), (), Box(14, 14, 32))
    dock.prompt_panel.save_prompt_set(str(tmp_path / "cells.svprompt"))
    dock.options.set_values({"threshold": 0.4, "min_area": 3})
    dock.run.click()
    finish(dock, 60_000)
    dock.options.set_values({"threshold": 0.55})
    result = viewer.layers["query [svpseg]"]
    qtbot.waitUntil(
        lambda: mark_of(result)["recipe"]["postprocess"]["threshold"] == 0.55,
        timeout=20_000,
    )
    dock.save_box.copy_python.click()
    code = QGuiApplication.clipboard().text()
    save = f"\nimport numpy\nnumpy.save({str(tmp_path / 'again.npy')!r}, result.labels)"
    done = subprocess.run(
        [sys.executable, "-c", code + save],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NAPARI_SVPSEG_HOME": str(home)},
    )
    assert done.returncode == 0, code + done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "again.npy"), result.data)
