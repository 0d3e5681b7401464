"""When and where large results are written."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from qtpy.QtCore import QObject, Signal

from napari_svpseg.plugin.panels.large_results import MEGAPIXEL, LargeResultsPanel


class Results(QObject):
    """What `StoredResults` is for the panel."""

    changed = Signal()
    message = Signal(str, bool)
    edits = SimpleNamespace(is_open=False)

    def can_edit(self):
        return None

    def store_for(self, source, plane, folder):
        return str(folder / "a.zarr")


@pytest.fixture
def panel(qtbot):
    made = LargeResultsPanel(Results())
    qtbot.addWidget(made)
    made.limit.setValue(1)
    return made


def source(n_planes=1, side=800):
    return SimpleNamespace(plane_shape=(side, side), n_planes=n_planes)


def test_only_large_results_are_stored(panel):
    assert 800 * 800 < MEGAPIXEL < 2 * 800 * 800
    assert panel.store_for(source(), None) == ""
    assert panel.store_for(source(n_planes=2), None) != ""
    assert panel.store_for(source(n_planes=2), (1,)) == ""


def test_a_relative_folder_is_that_of_the_viewer(panel, tmp_path, monkeypatch):
    """The engine runs elsewhere: it must be given the whole path."""
    monkeypatch.chdir(tmp_path)
    panel.folder.setText("my results")
    store = panel.store_for(source(n_planes=2), None)
    assert store == str(tmp_path / "my results" / "a.zarr")


def test_values_are_restored(panel):
    panel.set_values({"limit": 7, "folder": "/somewhere"})
    assert panel.values() == {"limit": 7, "folder": "/somewhere"}
    panel.set_values({})
    assert panel.values() == {"limit": 7, "folder": "/somewhere"}
