"""From an opened image to a saved mask in the real window, with mouse and keys."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QFileDialog
from skimage.io import imsave

from napari_svpseg.core.labels.metrics import dice
from napari_svpseg.io.images import read_image
from napari_svpseg.plugin.layers.metadata import metadata_of
from napari_svpseg.plugin.layers.prompts.prompt_item import CHECK_MASK
from napari_svpseg.plugin.messages import OPEN_IMAGE
from napari_svpseg.plugin.panels import prompt_panel

from ..conftest import disc_image

LEFT = Qt.MouseButton.LeftButton
MOST_CLICKS, MOST_CLICKS_WITH_BRUSH = 4, 5


@pytest.fixture
def viewer(make_napari_viewer_proxy):
    """Return a viewer whose window is shown."""
    return make_napari_viewer_proxy(show=True)


@pytest.fixture
def photo(tmp_path):
    """Return a PNG of discs, and their labels."""
    image, labels = disc_image((160, 180), ((50, 50), (50, 100), (100, 60), (95, 130)))
    path = tmp_path / "cells.png"
    imsave(path, np.clip(image, 0, 255).astype(np.uint8), check_contrast=False)
    return path, labels


class Hand:
    """A user's hand on the mouse, which counts its clicks and strokes."""

    def __init__(self, viewer, qtbot):
        self.viewer, self.qtbot, self.clicks = viewer, qtbot, 0
        self.canvas = viewer.window._qt_viewer.canvas.native

    def press(self, widget):
        """Click on a widget that is seen."""
        assert widget.isVisible() and widget.isEnabled()
        QTest.mouseClick(widget, LEFT)
        self.clicks += 1

    def place(self, y, x):
        """Return where a pixel of the image lies on the canvas."""
        camera, size = self.viewer.camera, self.canvas.size()
        dy, dx = np.subtract((y, x), camera.center[-2:]) * camera.zoom
        return QPoint(round(size.width() / 2 + dx), round(size.height() / 2 + dy))

    def click(self, y, x):
        """Click on a pixel of the image."""
        QTest.mouseMove(self.canvas, self.place(y, x))
        QTest.mouseClick(self.canvas, LEFT, pos=self.place(y, x))
        self.clicks += 1

    def stroke(self, *pixels):
        """Draw with the button held."""
        first, *_, last = points = [self.place(*p) for p in pixels]
        QTest.mousePress(self.canvas, LEFT, pos=first)
        for point in points:
            QTest.mouseMove(self.canvas, point)
        QTest.mouseRelease(self.canvas, LEFT, pos=last)
        self.clicks += 1


@pytest.fixture
def hand(viewer, qtbot):
    return Hand(viewer, qtbot)


@pytest.fixture
def dock(viewer, open_dock, photo, qtbot):
    """Return the dock, opened with an image in the viewer."""
    viewer.open(str(photo[0]), plugin="napari")
    dock = open_dock()
    qtbot.waitUntil(lambda: dock.draw.isChecked())
    return dock


def test_from_an_image_to_a_saved_mask_in_four_clicks(
    dock, hand, photo, finish, tmp_path, monkeypatch
):
    viewer, truth = dock.viewer, photo[1]
    hand.click(50, 50)
    item = dock.book.items[0]
    assert dice(item.mask > 0, truth[item.box.slices] > 0) > 0.9
    assert item.problem == CHECK_MASK and dock.prompt_panel.suggested.isVisible()
    hand.press(dock.prompt_panel.suggested.take)
    assert item.is_ready and not dock.prompt_panel.suggested.isVisible()
    hand.press(dock.run)
    finish(dock)
    assert hand.clicks <= MOST_CLICKS
    layer = next(la for la in viewer.layers if metadata_of(la, "labels"))
    assert layer.data.max() == 4

    def answer(parent, title, proposed, *filters):
        assert proposed == str(tmp_path / "cells_labels.ome.tif")  # beside the image
        return proposed, ""

    monkeypatch.setattr(QFileDialog, "getSaveFileName", answer)
    hand.press(dock.sections["save"].toggleButton())
    save = dock.save_box.save
    hand.qtbot.waitUntil(lambda: save.height() >= save.minimumSizeHint().height())
    hand.press(save)
    hand.qtbot.waitUntil((tmp_path / "cells_labels.ome.tif").exists)
    saved = read_image(tmp_path / "cells_labels.ome.tif", as_ids=True)
    np.testing.assert_array_equal(saved.array, layer.data)
    assert hand.clicks <= MOST_CLICKS + 2


def test_with_the_brush_in_five_clicks(dock, hand, photo, finish):
    hand.click(50, 50)
    item = dock.book.items[0]
    hand.press(dock.prompt_panel.suggested.leave)
    layer = dock.viewer.layers.selection.active
    assert str(layer.mode) == "paint" and not layer.data.any()
    assert layer.brush_size == pytest.approx(item.box.size / 10, abs=1)
    hand.stroke((45, 45), (50, 50), (55, 55))
    hand.qtbot.waitUntil(lambda: item.is_ready)
    assert layer.data.any()
    hand.press(dock.run)
    finish(dock)
    assert hand.clicks <= MOST_CLICKS_WITH_BRUSH
    assert any(metadata_of(la, "labels") for la in dock.viewer.layers)


def test_a_stroke_accepts_the_suggested_mask(dock, hand):
    hand.click(50, 50)
    item = dock.book.items[0]
    dock.run.click()
    assert not dock.is_busy and dock.message.text().endswith(CHECK_MASK)
    hand.stroke((70, 70), (72, 72))
    hand.qtbot.waitUntil(lambda: item.is_ready)
    assert item.mask.any()


def test_a_key_accepts_the_suggested_mask(dock, hand):
    hand.click(50, 50)
    QTest.keyClick(hand.canvas, Qt.Key.Key_U, Qt.KeyboardModifier.ShiftModifier)
    assert dock.book.items[0].is_ready


def test_the_question_is_asked_again_by_a_dock_opened_later(dock, hand, open_dock):
    hand.click(50, 50)
    dock.viewer.window.remove_dock_widget(dock)
    again = open_dock()
    assert again.book.items[0].problem == CHECK_MASK
    hand.press(again.prompt_panel.suggested.take)
    assert again.book.items[0].is_ready


def test_a_mask_of_the_users_is_taken_as_it_is(dock, hand, photo):
    dock.viewer.add_labels(photo[1], name="truth")
    hand.press(dock.draw)
    hand.click(50, 50)
    item = dock.book.items[0]
    assert item.is_ready and item.mask_layer.name == "truth"
    assert not dock.prompt_panel.suggested.isVisible()


def test_the_empty_list_says_the_next_thing(viewer, open_dock, photo, qtbot):
    dock = open_dock()
    empty = dock.list.empty
    assert empty.text.text() == OPEN_IMAGE and not empty.picture.has_box
    viewer.add_image(np.zeros((3, 160, 160), np.float32), name="stack")
    assert empty.text.text() == prompt_panel.NAME_FIRST and not dock.draw.isChecked()
    dock.axes.setCurrentText("ZYX")
    dock.axes.lineEdit().editingFinished.emit()
    qtbot.waitUntil(lambda: dock.draw.isChecked())
    assert empty.text.text() == prompt_panel.CLICK and empty.picture.has_box
    dock.draw.click()
    assert empty.text.text() == prompt_panel.PRESS_DRAW


def test_drawing_does_not_begin_by_itself_where_it_is_not_wanted(
    dock, hand, settle, viewer
):
    hand.press(dock.draw)  # off
    settle()
    assert not dock.draw.isChecked()
    hand.press(dock.draw)
    hand.click(50, 50)
    viewer.add_image(np.zeros((160, 160), np.float32), name="next")
    settle()
    assert not dock.draw.isChecked()  # there is a prompt
