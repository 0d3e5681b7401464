"""A table of six images, a folder of images, and the panel that tags them."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtCore import Qt
from skimage.io import imsave

from napari_svpseg.plugin.layers.images.tagged_image import TaggedImage
from napari_svpseg.plugin.panels.tags.tag_panel import TagPanel
from napari_svpseg.plugin.panels.tags.tag_set import TagSet
from napari_svpseg.plugin.panels.tags.tag_table import TagTable
from napari_svpseg.plugin.panels.tags.tag_view import TagView


@pytest.fixture
def table(qtbot, tmp_path):
    tags = TagSet()
    table = TagTable(tags)
    names = [f"{i}.png" for i in range(6)]
    tags.show([TaggedImage(name, name, tmp_path) for name in names], {}, "ab")
    yield table
    table.close()


@pytest.fixture
def view(table, qtbot):
    view = TagView(table)
    qtbot.addWidget(view)
    view.select(0)
    return view


@pytest.fixture
def folder(tmp_path):
    """Return a folder of six small images, one of them in a folder of its own."""
    place = tmp_path / "images"
    (place / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png", "c.png", "d.png", "e.tif", "more/f.png"):
        image = rng.integers(0, 255, (40, 50, 3)).astype(np.uint8)
        imsave(place / name, image, check_contrast=False)
    (place / "notes.txt").write_text("no image")
    (place / ".hidden.png").write_bytes(b"")
    return place


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Keep the user's folder out of it."""
    monkeypatch.setenv("NAPARI_SVPSEG_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def model():
    """Return a viewer without a window: tagging needs none."""
    return ViewerModel()


@pytest.fixture
def listed(panel, qtbot):
    """Return a function that opens a folder in the panel."""

    def wait(folder):
        panel.choose_folder(str(folder))
        qtbot.waitUntil(lambda: panel.folder == folder)

    return wait


@pytest.fixture
def press(qtbot):
    """Return a function that presses keys on a widget; a line feed is Enter."""

    def keys(widget, text):
        for key in text:
            qtbot.keyClick(widget, Qt.Key.Key_Return if key == "\n" else key)

    return keys


@pytest.fixture
def panel(model, home, qtbot):
    panel = TagPanel(model)
    qtbot.addWidget(panel)
    panel.told = []
    panel.message.connect(lambda text, error: panel.told.append((text, error)))
    yield panel
    panel.close_hooks()
