"""What is marked is what is seen, and nothing of other images is drawn over it."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_svpseg.plugin.docks.finetune_dock import FineTuneWidget
from napari_svpseg.plugin.layers.images.visibility import belongs_to
from napari_svpseg.plugin.layers.metadata import METADATA_KEY, layer_id
from napari_svpseg.plugin.messages import SHOWING
from napari_svpseg.plugin.panels.image_panel import NO_IMAGE, ImagePanel
from napari_svpseg.plugin.services.engine_process import Engine


@pytest.fixture
def two(viewer):
    """Return two images, the second of which hides the first."""
    return [viewer.add_image(np.ones((60, 70), np.float32), name=n) for n in "ab"]


@pytest.fixture
def panel(viewer, two, qtbot, settle):
    panel = ImagePanel(viewer)
    qtbot.addWidget(panel)
    panel.refresh()
    settle()
    yield panel
    panel.close_hooks()


def on(viewer, image, **attributes):
    """Add labels that lie on an image."""
    metadata = {METADATA_KEY: {"kind": "mask", "source_id": layer_id(image)}}
    return viewer.add_labels(
        np.ones((60, 70), np.uint8), metadata=metadata, **attributes
    )


def test_the_image_on_top_is_marked(viewer, two, panel, qtbot):
    below, above = two
    assert panel.selected() == above
    viewer.layers.selection.active = below  # which shows nothing new
    assert panel.selected() == above
    above.visible = False
    qtbot.waitUntil(lambda: panel.selected() == below)
    above.visible = True
    qtbot.waitUntil(lambda: panel.selected() == above)
    viewer.layers.move(1, 0)
    qtbot.waitUntil(lambda: panel.selected() == below)


def test_of_images_side_by_side_the_topmost_is_marked(viewer, two, qtbot, settle):
    _, above = two
    above.translate = (0, 100)  # so that both are seen
    viewer.layers.selection.clear()
    panel = ImagePanel(viewer)
    qtbot.addWidget(panel)
    panel.refresh()
    settle()
    assert panel.selected() == above
    panel.close_hooks()


def test_a_layer_of_an_image_in_sight_marks_it(viewer, two, panel, settle):
    below, above = two
    above.blending = below.blending = "additive"  # both are seen
    mask = on(viewer, below)
    viewer.layers.selection.active = mask
    assert panel.selected() == below
    viewer.layers.selection.active = viewer.add_labels(np.ones((60, 70), np.uint8))
    settle()
    assert panel.selected() == below


def test_checking_an_image_does_not_mark_it(two, panel):
    row = panel.list.item(0)
    panel.list.setCurrentRow(0)
    panel.list.itemPressed.emit(row)
    row.setCheckState(Qt.CheckState.Unchecked)
    panel.list.itemClicked.emit(row)
    assert panel.selected() == two[1] and panel.checked() == [two[1]]


def test_a_click_on_its_name_shows_an_image_and_says_so(two, panel):
    told = []
    panel.message.connect(lambda text, _: told.append(text))
    row = panel.list.item(0)
    panel.list.setCurrentRow(0)
    panel.list.itemPressed.emit(row)
    panel.list.itemClicked.emit(row)
    assert panel.selected() == two[0] and not two[1].visible
    assert told == [SHOWING.format("a")]


def test_next_and_previous_image(two, panel, settle):
    for by, image in ((1, two[0]), (1, two[1]), (-1, two[0])):
        panel.step(by)
        settle()
        assert panel.selected() == image and image.visible
        assert sum(la.visible for la in two) == 1


def test_layers_that_are_channels_are_passed_over(viewer, two, panel):
    last = viewer.add_image(np.zeros_like(two[0].data), name="c")
    panel.declared.join(two[0], two[1], True)
    panel.refresh()
    for by, image in ((1, two[0]), (1, last), (-1, two[0])):
        panel.step(by)
        assert panel.selected() == image
    panel.select(two[1])  # a channel of the first
    panel.step(1)
    assert panel.selected() == last


def test_there_may_be_no_other_image(viewer, two, panel):
    told = []
    panel.message.connect(lambda text, _: told.append(text))
    viewer.layers.remove(two[1])
    panel.step(1)
    assert told == [NO_IMAGE] and panel.selected() == two[0]


def test_what_lies_on_an_image_that_is_hidden_is_not_drawn(viewer, two, panel, qtbot):
    below, above = two
    mask, hidden = on(viewer, below), on(viewer, below, visible=False)
    own = on(viewer, above)
    above.visible = False
    qtbot.waitUntil(lambda: panel.selected() == below)
    assert mask.visible and not hidden.visible
    above.visible = True
    qtbot.waitUntil(lambda: not mask.visible)
    assert own.visible
    above.visible = False
    qtbot.waitUntil(lambda: mask.visible)
    assert not hidden.visible  # the user hid it


def test_labels_stay_when_the_user_hides_all_images(viewer, two, panel, settle):
    mask = on(viewer, two[1])
    for image in two:
        image.visible = False
    settle()
    assert mask.visible


def test_painting_goes_into_the_labels_of_the_image_that_is_seen(viewer, two, runner):
    engine = Engine(lambda: runner)
    engine.runner()
    dock = FineTuneWidget(viewer, engine)
    viewer.window.add_dock_widget(dock, name=dock.title)
    dock.label_panel.paint_cell.click()
    painted = viewer.layers.selection.active
    assert belongs_to(painted, two[1]) and "'b'" in dock.message.text()
    assert two[1].visible and painted.visible
