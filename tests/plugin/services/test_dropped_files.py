"""Drops on dock and canvas: what is ours opens at once, the rest is napari's."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from napari.layers import Labels
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication, QWidget

from napari_svpseg.io.exports import ExportData, export
from napari_svpseg.plugin.services.dropped_files import QT_VIEWER

from ..conftest import disc_image


def drop(widget, *paths):
    """Drop files on a widget, as Qt does; return whether it took them."""
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    how = (
        Qt.DropAction.CopyAction,
        data,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    enter = QDragEnterEvent(QPoint(5, 5), *how)
    enter.ignore()
    QApplication.sendEvent(widget, enter)
    if not enter.isAccepted():
        return False
    QApplication.sendEvent(widget, QDropEvent(QPointF(5, 5), *how))
    return True


def canvas_of(dock):
    """Return napari's widget with the canvas; nobody may hold it for long."""
    return next(
        w
        for w in dock.window().centralWidget().findChildren(QWidget)
        if w.metaObject().className() == QT_VIEWER
    )


@pytest.fixture
def dock(viewer, open_dock, settle):
    dock = open_dock()
    settle()
    return dock


@pytest.mark.parametrize("where", ("dock", "canvas"))
def test_labels_of_any_name_and_folders_of_them_open_as_labels(
    where, dock, viewer, tmp_path
):
    viewer.add_image(disc_image()[0], name="discs")
    data = ExportData(disc_image()[1])
    paths = [
        export(tmp_path / "day 1.ome.tif", "ome-tiff", data),
        export(tmp_path / "discs.zarr", "ome-zarr", data),
    ]
    assert drop(dock if where == "dock" else canvas_of(dock), *paths)
    for layer in viewer.layers[1:]:
        assert isinstance(layer, Labels)
        np.testing.assert_array_equal(layer.data, disc_image()[1])
    assert len(viewer.layers) == 3


def test_a_broken_file_is_told_in_the_dock(dock, tmp_path):
    path = export(tmp_path / "a_seg.npy", "cellpose-seg", ExportData(disc_image()[1]))
    path.write_bytes(path.read_bytes()[:200])
    assert drop(canvas_of(dock), path)
    assert dock.message.is_error and str(path) in dock.message.text()


def test_images_go_on_to_napari(dock, viewer, tmp_path):
    path = tmp_path / "plain.tif"
    tifffile.imwrite(path, np.zeros((9, 9), np.uint16))
    assert not drop(dock, path)
    drop(canvas_of(dock), path)
    assert not isinstance(viewer.layers["plain"], Labels)
