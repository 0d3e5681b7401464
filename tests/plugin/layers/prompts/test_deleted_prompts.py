"""Deleted prompts come back: from the row's button, from the Delete key, several."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_svpseg.core.geometry import Box
from napari_svpseg.core.prompt import Prompt, PromptSet
from napari_svpseg.plugin.layers.metadata import metadata_of
from napari_svpseg.plugin.layers.prompts.prompt_boxes import box_ids

from ...conftest import disc_image

CORNERS = (Box(4, 4, 32), Box(40, 40, 32), Box(60, 60, 32))


def with_prompts(dock):
    """Return a dock with three prompts, the second one changed by the user."""
    source = dock.source_of(dock.viewer.layers["discs"])
    for box in CORNERS:
        dock.book.place(source, (), box)
    dock.book.update(dock.book.items[1].id, name="mine", color="#123456", negative=True)
    return dock


@pytest.fixture
def model():
    viewer = ViewerModel()
    image, labels = disc_image()
    viewer.add_image(image, name="discs")
    viewer.add_labels(labels, name="truth")
    return viewer


@pytest.fixture
def dock(model, dock_without_window):
    return with_prompts(dock_without_window(model))


def state(dock):
    return [
        (i.id, i.name, i.color, i.negative, i.enabled, i.box, i.is_ready, i.n_objects)
        for i in dock.book.items
    ]


def boxes_of(viewer):
    return next(la for la in viewer.layers if metadata_of(la, "boxes"))


def test_the_undo_button_brings_a_deleted_prompt_back(open_dock, discs):
    dock = with_prompts(open_dock())
    before = state(dock)
    row = dock.list.rows[before[1][0]]
    row.delete.click()
    assert len(dock.book.items) == 2 and dock.undo.isEnabled()
    dock.undo.click()
    assert state(dock) == before
    layer = boxes_of(discs)
    assert set(box_ids(layer)) == {i.id for i in dock.book.items} and layer.nshapes == 3
    assert set(metadata_of(layer)["items"]) == {i.id for i in dock.book.items}
    assert not dock.undo.isEnabled()


def test_the_delete_key_on_several_is_one_step_for_ctrl_z(dock, model):
    before = state(dock)
    layer = boxes_of(model)
    layer.selected_data = {0, 2}
    layer.remove_selected()
    assert [i.name for i in dock.book.items] == ["mine"]
    undo = layer.keymap[next(k for k in layer.keymap if str(k).upper() == "CTRL+Z")]
    undo(layer)
    assert state(dock) == before
    undo(layer)  # nothing is left to be undone
    assert state(dock) == before


def test_runs_and_deletions_are_undone_in_their_order(dock, model, finish):
    dock.book.update(dock.book.items[1].id, negative=False)
    model.layers["truth"].data_setitem(tuple(np.array([[62], [62]])), 9)
    dock.run.click()
    finish(dock)
    n = len(model.layers)
    dock.list.rows[dock.book.items[0].id].delete.click()
    dock.undo.click()
    assert len(dock.book.items) == 3 and len(model.layers) == n
    dock.undo.click()
    assert len(model.layers) == n - 1


def test_a_loaded_prompt_and_a_mask_that_is_gone(dock, model):
    image = np.random.default_rng(0).integers(0, 255, (80, 80, 3)).astype(np.uint8)
    labels = np.zeros((80, 80), int)
    labels[20:40, 20:40] = 1
    dock.book.add_loaded(PromptSet([Prompt.from_image(image, labels, Box(5, 5))]))
    loaded, drawn = dock.book.items[-1], dock.book.items[0]
    dock.list.rows[loaded.id].delete.click()
    dock.list.rows[drawn.id].delete.click()
    model.layers.remove("truth")
    dock.undo.click()
    assert dock.book.items[0] is drawn and drawn.mask_layer is None
    dock.undo.click()
    assert dock.book.items[-1] is loaded and loaded.is_ready


def test_what_lay_on_a_closed_image_is_gone(dock, model):
    dock.list.rows[dock.book.items[0].id].delete.click()
    model.layers.remove("discs")
    assert dock.journal.edits == [] and not dock.undo.isEnabled()
