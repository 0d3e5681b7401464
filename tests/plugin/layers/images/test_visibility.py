"""Images that lie over each other: which is in sight, with what is on it."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from napari.components.layerlist import LayerList
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_svpseg.core.geometry import Box
from napari_svpseg.plugin.layers.images.visibility import (
    OF,
    Stack,
    bring_into_sight,
    is_in_sight,
    shared_area,
)
from napari_svpseg.plugin.layers.metadata import METADATA_KEY, layer_id


@pytest.fixture
def pair(discs, open_dock):
    """Return the dock, with a second image opened over the discs."""
    discs.add_image(discs.layers["discs"].data[::-1].copy(), name="second")
    dock = open_dock()
    dock.book.place(dock.source_of(discs.layers["discs"]), (), Box(14, 14, 32))
    return dock


def click(dock, row, *, on_box=False):
    rect = dock.images.visualItemRect(dock.images.item(row))
    place = rect.center()
    place.setX(rect.left() + 8 if on_box else rect.right() - 30)
    button = Qt.MouseButton.LeftButton
    QTest.mouseClick(dock.images.viewport(), button, pos=place)


def visible(dock):
    return {la.name for la in dock.viewer.layers if la.visible}


def test_results_of_an_image_below_do_not_shine_through(pair, finish):
    pair.run.click()
    finish(pair)
    assert {"second", "second [svpseg]"} <= visible(pair)
    assert "discs [svpseg]" not in visible(pair)
    assert "Click on the name of an image" in pair.message.text()
    click(pair, 0)
    assert {"discs", "discs [svpseg]", "SVPSeg prompts"} <= visible(pair)
    assert not {"second", "second [svpseg]"} & visible(pair)
    click(pair, 1)
    assert not {"discs", "discs [svpseg]", "SVPSeg prompts"} & visible(pair)
    assert {"second", "second [svpseg]"} <= visible(pair)


def test_the_mark_stays_where_it_was_put(pair, finish):
    viewer = pair.viewer
    viewer.layers.selection.active = viewer.layers["second"]
    click(pair, 0)
    for button in (pair.run, pair.preview, pair.draw):
        button.click()
        finish(pair)
        assert pair.image_panel.selected() == viewer.layers["discs"]
    viewer.layers.selection.active = viewer.layers["second"]  # it is not seen
    assert pair.image_panel.selected() == viewer.layers["discs"]


def test_checking_an_image_does_not_show_it(pair):
    click(pair, 0, on_box=True)
    assert pair.images.item(0).checkState() == Qt.CheckState.Unchecked
    assert "second" in visible(pair)


def test_boxes_and_previews_are_for_what_is_seen(pair, finish):
    pair.image_panel.select(pair.viewer.layers["discs"])
    pair.preview.click()
    finish(pair)
    assert "second" not in visible(pair) and "discs" in visible(pair)
    pair.image_panel.select(pair.viewer.layers["second"])
    pair.draw.click()
    assert "second" in visible(pair) and "discs" not in visible(pair)
    row = next(iter(pair.list.rows.values()))
    QTest.mouseClick(row.thumbnail, Qt.MouseButton.LeftButton)
    assert "second" not in visible(pair) and "discs" in visible(pair)


def test_channels_and_neighbours_are_seen_together(viewer):
    first, second, third = (
        viewer.add_image(np.zeros((20, 20)), translate=(0, x), name=name)
        for name, x in (("a", 0), ("b", 0), ("c", 18))
    )
    assert not is_in_sight(viewer, first) and is_in_sight(viewer, second)
    assert shared_area(second, third) == pytest.approx(0.1, abs=0.05)
    second.blending = "additive"
    assert is_in_sight(viewer, first)
    second.blending, second.opacity = "translucent", 0.5
    assert is_in_sight(viewer, first)
    labels = viewer.add_labels(np.zeros((20, 20), int), metadata={OF: layer_id(first)})
    bring_into_sight(viewer, second)
    assert not first.visible and not labels.visible and third.visible
    assert not is_in_sight(viewer, first)
    viewer.grid.enabled = True
    first.visible = True
    assert is_in_sight(viewer, first)


def test_only_what_changes_is_drawn_again(viewer):
    """And no list of napari's is made, each of which listens to all its layers."""
    images = [
        viewer.add_image(np.ones((40, 40), np.float32), name=str(i)) for i in range(4)
    ]
    results = [
        viewer.add_labels(
            np.ones((40, 40), np.uint8),
            metadata={METADATA_KEY: {"kind": "labels", "source_id": layer_id(image)}},
            visible=False,
        )
        for image in images
    ]
    bring_into_sight(viewer, images[3])
    drawn = []
    for layer in (*images, *results):
        layer.events.visible.connect(lambda event: drawn.append(event.source))
    with patch.object(LayerList, "__newlike__", side_effect=AssertionError):
        bring_into_sight(viewer, images[1])
        assert [is_in_sight(viewer, image) for image in images] == [0, 1, 0, 0]
        assert Stack(viewer).seen() == [images[1]]
    expected = [images[1], images[3], results[1], results[3]]
    assert sorted(la.name for la in drawn) == sorted(la.name for la in expected)
