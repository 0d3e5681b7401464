"""The methods in the dock: those that ship, and one of another package."""

from __future__ import annotations

import sys

import numpy as np

from napari_svpseg.core.labels.metrics import dice
from napari_svpseg.core.method_plugins import plugin_cards
from napari_svpseg.io import model_store
from napari_svpseg.io.sample_images import TISSUE_BOX
from napari_svpseg.plugin.docks.segment_dock import SegmentWidget
from napari_svpseg.plugin.layers.image_source import mark_of
from napari_svpseg.plugin.services.engine_process import Engine

SHIPPED = {"svp", "svp-concat", "svp-attention", "panet", "alpnet", "dspnet"}


def test_a_method_of_another_package_can_be_chosen(
    example_method, open_dock, discs, monkeypatch
):
    monkeypatch.setattr(model_store, "list_models", lambda folders=None: plugin_cards())
    dock = open_dock()
    dock.model.setCurrentIndex(dock.model.findText("brightness"))
    assert "Bright like the prompt, or dark like it" in dock.models.about.text()
    assert "licence MIT" in dock.models.about.text()
    assert "brightness" not in sys.modules


def test_every_listed_model_segments_the_demo_picture(viewer, finish, qtbot):
    """In the real engine, one after the other, as `svpseg demo` does it."""
    dock = SegmentWidget(viewer, Engine())
    try:
        viewer.window.add_dock_widget(dock, name="Segment from prompts")
        viewer.open_sample("napari-svpseg", "tissue")
        qtbot.waitUntil(lambda: dock.device_line.text() != "", timeout=60_000)
        mask = viewer.layers["tissue mask"]
        dock.book.update(dock.book.items[-1].id, mask_layer=mask, name="tissue")
        inside = TISSUE_BOX.slices
        listed = [dock.model.itemText(i) for i in range(dock.model.count())]
        assert set(listed) >= SHIPPED
        for name in listed:
            dock.model.setCurrentIndex(dock.model.findText(name))
            dock.run.click()
            finish(dock, 60_000)
            assert dock.message.styleSheet() == "", dock.message.text()
            (found,) = [la for la in viewer.layers if mark_of(la, "labels")]
            assert mark_of(found)["recipe"]["model"].endswith(name)
            assert dice(found.data[inside] > 0, mask.data[inside] > 0) > 0.6, name
            assert len(np.unique(found.data)) > 20, name
    finally:
        dock.engine.close()
