"""Layers are known by ids, and ours have names that napari can save."""

from __future__ import annotations

import numpy as np
import pytest

from napari_svpseg.core.geometry import Box
from napari_svpseg.plugin.docks.segment_dock import SegmentWidget
from napari_svpseg.plugin.layers.labels.partial_label_layers import (
    FIRST_OBJECT,
    labelled_layers,
    start_painting,
)
from napari_svpseg.plugin.layers.metadata import (
    ID,
    find_layer,
    layer_id,
    layer_name,
    metadata_of,
)
from napari_svpseg.plugin.samples import drawn_cells


def test_an_id_stays_and_a_copy_gets_another(viewer):
    first = viewer.add_image(np.zeros((8, 8)), name="a")
    known = layer_id(first)
    first.name = "b"
    assert layer_id(first) == known and find_layer(viewer.layers, known) == first
    copy = viewer.add_image(np.zeros((8, 8)), metadata=dict(first.metadata))
    assert layer_id(copy) != known and layer_id(first) == known
    given = viewer.add_image(np.zeros((8, 8)), metadata={ID: "given"})
    assert layer_id(given) == "given"
    assert find_layer(viewer.layers, "") is None


@pytest.mark.parametrize("text", ["day1/cells.ome", "a\\b", "C:x", "s 1.2 [svpseg]"])
def test_names_of_our_layers_have_neither_dot_nor_slash(text):
    assert not set(layer_name(text)) & set("./\\:")


def test_prompts_are_found_after_image_and_mask_are_renamed(discs, open_dock, qtbot):
    image, truth = discs.layers["discs"], discs.layers["truth"]
    other = discs.add_labels(np.ones_like(truth.data), name="other")
    dock = open_dock()
    item = dock.book.place(dock.source_of(image), (), Box(14, 14, 32))
    dock.book.update(item.id, mask_layer=truth, name="mine")
    before = item.mask.copy()
    dock.close()
    image.name, truth.name, other.name = "DAPI", "masks", "truth"
    again = open_dock()
    assert isinstance(again, SegmentWidget)
    (found,) = again.book.items
    assert (found.name, found.mask_layer) == ("mine", truth)
    np.testing.assert_array_equal(found.mask, before)
    assert again.book.boxes.image_of(again.book.boxes.layer_of(found.id)) == image


def test_results_of_a_renamed_image_are_its_own(discs, open_dock, finish, tmp_path):
    image = discs.layers["discs"]
    discs.add_image(image.data[::-1].copy(), name="second")
    dock = open_dock()
    dock.book.place(dock.source_of(image), (), Box(14, 14, 32))
    start_painting(discs, dock.source_of(image), FIRST_OBJECT)
    image.name, discs.layers["second"].name = "second", "discs"
    dock.run.click()
    finish(dock)
    boxes = [w.title for w in labelled_layers(discs, dock.source_of(image))]
    others = [
        w.title for w in labelled_layers(discs, dock.source_of(discs.layers["discs"]))
    ]
    assert any("inside the boxes" in title for title in boxes)
    assert not any("inside the boxes" in title for title in others)
    image.name = "DAPI"
    dock.image_panel.select(image)
    dock.save_box.save_every(str(tmp_path))
    assert (tmp_path / "DAPI_labels.ome.tif").exists()


def test_two_samples_have_boxes_of_their_own(viewer, open_dock):
    for data in (drawn_cells(), drawn_cells()):
        for array, values, kind in data:
            getattr(viewer, f"add_{kind}")(array, **values)
    dock = open_dock()
    images = {item.source.layer.unique_id for item in dock.book.items}
    assert len(dock.book.items) == len(images) == 2


@pytest.mark.filterwarnings("ignore:.*svg.*")
def test_napari_saves_all_layers_of_an_image_with_a_dot(
    discs, open_dock, finish, tmp_path
):
    image = discs.layers["discs"]
    dock = open_dock()
    image.name = "day1/cells.ome"
    item = dock.book.place(dock.source_of(image), (), Box(14, 14, 32))
    dock.add_probability.setChecked(True)
    dock.run.click()
    finish(dock)
    dock.book.add_paint_layer(item)
    start_painting(discs, dock.source_of(image), FIRST_OBJECT)
    ours = [layer for layer in discs.layers if metadata_of(layer) is not None]
    assert len(ours) == 5
    for layer in ours:
        assert not set(layer.name) & set("./")
    image.name = "cells"
    written = discs.layers.save(str(tmp_path / "all"))
    assert len(written) == len(discs.layers)
