"""Methods of other packages in the dock."""

from __future__ import annotations

import sys

from napari_svpseg.core.plugins import plugin_cards
from napari_svpseg.io import store


def test_a_method_of_another_package_can_be_chosen(
    example_method, open_dock, discs, monkeypatch
):
    monkeypatch.setattr(store, "list_models", lambda folders=None: plugin_cards())
    dock = open_dock()
    dock.model.setCurrentIndex(dock.model.findText("brightness"))
    assert "Bright like the prompt, or dark like it" in dock.models.about.text()
    assert "licence MIT" in dock.models.about.text()
    assert "brightness" not in sys.modules
