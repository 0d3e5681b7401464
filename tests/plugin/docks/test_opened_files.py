"""What files that were opened state, and prompt sets opened before the dock."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication

from napari_svpseg.core.geometry import Box
from napari_svpseg.core.prompt import Prompt, PromptSet
from napari_svpseg.io.prompt_files import save_prompts
from napari_svpseg.plugin.panels.axes_combo import SHOWN_AS
from napari_svpseg.plugin.panels.folders import folder_for, note_used
from napari_svpseg.plugin.services.preferences import DEFAULTS

from ..conftest import disc_image


@pytest.fixture
def prompt_file(tmp_path):
    """Return a file with two prompts."""
    image, labels = disc_image()
    prompts = [
        Prompt.from_image(image, labels, Box(y, 14, 32), name=f"cells {y}")
        for y in (14, 20)
    ]
    path = tmp_path / "cells.svprompt"
    save_prompts(PromptSet(prompts), path)
    return path


def test_prompts_that_were_opened_before_the_dock_are_listed(
    viewer, open_dock, prompt_file
):
    viewer.open(str(prompt_file), plugin="napari-svpseg")
    assert len(viewer.layers) == 4
    dock = open_dock()
    assert [i.name for i in dock.book.items] == ["cells 14", "cells 20"]
    assert len(viewer.layers) == 0 and dock.images.count() == 0
    assert dock.book.is_ready and dock.prompt_panel.file == str(prompt_file)


def test_prompts_that_are_dropped_on_the_dock_are_listed(open_dock, prompt_file):
    dock = open_dock()
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(prompt_file))])
    about = (
        Qt.DropAction.CopyAction,
        data,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    enter, drop = (
        QDragEnterEvent(QPoint(5, 5), *about),
        QDropEvent(QPointF(5, 5), *about),
    )
    QApplication.sendEvent(dock, enter)  # Qt sends drops where the drag has entered
    QApplication.sendEvent(dock, drop)
    assert [i.name for i in dock.book.items] == ["cells 14", "cells 20"]


def test_axes_that_a_file_states_are_not_asked_for(viewer, open_dock, tmp_path):
    path = tmp_path / "movie.ome.tif"
    tifffile.imwrite(
        path, np.zeros((3, 2, 40, 50), np.uint8), metadata={"axes": "TCYX"}
    )
    viewer.open(str(path), plugin="napari")
    layer = viewer.layers[0]
    assert layer.ndim == 4
    dock = open_dock()
    assert dock.axes.currentText() == "TCYX"
    assert not dock.message.is_error
    assert layer.axis_labels == ("t", "c", "y", "x")
    shown = [dock.axes.itemData(i, SHOWN_AS) for i in range(dock.axes.count())]
    assert "T 3 x C 2 x Y 40 x X 50" in shown


def test_axis_labels_of_others_are_left_alone(viewer, open_dock):
    data = np.zeros((3, 40, 50), np.uint8)
    viewer.add_image(data, name="named", axis_labels=("time", "row", "column"))
    dock = open_dock()
    assert dock.axes.currentText() == "TYX"
    assert viewer.layers[0].axis_labels == ("time", "row", "column")


def test_axes_are_not_taken_from_a_file_of_another_shape(viewer, open_dock, tmp_path):
    path = tmp_path / "stack.tif"
    tifffile.imwrite(
        path, np.zeros((5, 40, 50), np.uint8), imagej=True, metadata={"axes": "ZYX"}
    )
    viewer.open(str(path), plugin="napari")
    viewer.layers[0].data = viewer.layers[0].data[:3]
    assert open_dock().axes.currentText() == ""


def test_dialogs_open_beside_the_image_or_where_the_last_one_was(tmp_path):
    assert folder_for(str(tmp_path / "a.png")) == str(tmp_path)
    note_used(str(tmp_path / "labels.tif"))
    assert folder_for("") == folder_for("/no/such/folder/a.png") == str(tmp_path)


def test_the_model_is_loaded_before_the_first_run(open_dock, runner, qtbot):
    dock = open_dock()
    qtbot.waitUntil(lambda: "ready" in dock.device_line.text())
    assert [c[1][0] for c in runner.calls if c[0].__name__ == "warm_up"] == ["svp"]


def test_nothing_is_loaded_where_the_user_does_not_want_it(
    open_dock, runner, monkeypatch, settle
):
    from napari_svpseg.plugin.docks import segment_dock

    wanted = DEFAULTS | {"warm_up": False}
    monkeypatch.setattr(segment_dock, "preference", wanted.get)
    open_dock()
    settle()
    assert not [c for c in runner.calls if c[0].__name__ == "warm_up"]
