"""Going to uncertain places and images, in a real viewer with a fake engine."""

from __future__ import annotations

import numpy as np
import pytest

from napari_svpseg.core.geometry import Box
from napari_svpseg.core.result import Maps, Recipe, Result
from napari_svpseg.plugin.layers.images.visibility import camera_of
from napari_svpseg.plugin.layers.metadata import metadata_of
from napari_svpseg.plugin.tools.uncertainty_guide import (
    LAST,
    MASK_FROM,
    NAME,
    NO_IMAGE_LEFT,
    NO_PLACE_LEFT,
    NO_RESULT,
    PRESS_AGAIN,
    START_AGAIN,
)

from ..conftest import disc_image

SPOTS = ((24, 24), (24, 120), (120, 24), (120, 120))


def unsure_segment(emit, on_progress, query, prompts, *, axes, **settings):
    """Find each disc with a confidence that goes by its brightness."""
    query = np.asarray(query, float)
    foreground = np.clip((query - 40) / 200, 0, 1).astype(np.float32)
    foreground[foreground < 0.15] = 0
    from skimage.measure import label

    labels = label(foreground > 0.5).astype(np.uint32)
    recipe = Recipe("svp", axes=axes, postprocess={}, segment={})
    return Result(labels, Maps(foreground), 0.9, recipe, 0.1)


def discs_image(confidences):
    """Return an image of four discs, each as bright as it will be certain."""
    _, labels = disc_image((160, 160), SPOTS)
    bright = np.r_[0, confidences]
    return (40 + 200 * bright[labels]).astype(np.float32)


@pytest.fixture
def dock(viewer, open_dock, runner):
    runner.pretend["segment"] = unsure_segment
    viewer.add_image(discs_image([1, 0.8, 0.55, 0.75]), name="cells")
    dock = open_dock()
    dock.book.place(dock.source_of(viewer.layers["cells"]), (), Box(4, 4, 40))
    item = dock.book.items[0]
    dock.book.add_paint_layer(item, np.ones((40, 40), int))
    return dock


@pytest.fixture
def wait(qtbot):
    """Return a function that waits until the guide has found what it looks for."""

    def found(dock):
        qtbot.waitUntil(lambda: not dock.guide._background.is_busy, timeout=20_000)

    return found


def shown_box(dock):
    """Return the corner of the place that is shown, or None."""
    layers = [la for la in dock.viewer.layers if metadata_of(la, "uncertainty")]
    return tuple(np.asarray(layers[0].data[0]).min(0) + 0.5) if layers else None


def holds(corner, spot, size=40):
    return all(
        c <= s - 8 and s + 8 < c + size for c, s in zip(corner, spot, strict=True)
    )


def test_the_guide_comes_with_the_first_result(dock, finish, wait):
    assert not dock.guide.place_button.isEnabled()
    for go in (dock.guide.next_place, dock.guide.next_image):
        dock.say("")
        go()
        assert dock.message.text() == NO_RESULT
    dock.run.click()
    finish(dock)
    assert dock.guide.place_button.isEnabled()
    assert not dock.guide.image_button.isEnabled()  # there is one image only


def test_places_come_by_uncertainty_and_only_once(dock, finish, wait):
    dock.run.click()
    finish(dock)
    visited = []
    for spot in (SPOTS[2], SPOTS[3], SPOTS[1]):
        dock.guide.place_button.click()
        wait(dock)
        visited.append(shown_box(dock))
        assert holds(visited[-1], spot), (visited, spot)
        assert "1 object so far" in dock.message.text()
        assert dock.guide.offer.isVisibleTo(dock)
    assert LAST in dock.message.text()
    assert len(dock.book.items) == 1  # a candidate is no prompt
    dock.guide.place_button.click()
    wait(dock)
    assert dock.message.text() == NO_PLACE_LEFT.format("'cells'") + PRESS_AGAIN
    assert shown_box(dock) is None and not dock.guide.offer.isVisibleTo(dock)
    dock.guide.place_button.click()
    wait(dock)
    assert shown_box(dock) == visited[0]


def test_the_camera_goes_there(dock, finish, wait):
    dock.run.click()
    finish(dock)
    camera_of(dock.viewer).zoom = 0.5
    dock.guide.next_place()
    wait(dock)
    centre = np.add(shown_box(dock), 19.5)
    np.testing.assert_allclose(camera_of(dock.viewer).center[-2:], centre)
    assert camera_of(dock.viewer).zoom * 40 >= 320


def test_a_place_becomes_a_prompt_with_its_labels(dock, finish, wait):
    dock.run.click()
    finish(dock)
    result = dock.viewer.layers["cells [svpseg]"]
    before = result.data.copy()
    dock.guide.next_place()
    wait(dock)
    corner = shown_box(dock)
    dock.guide.offer.take.click()
    item = dock.book.items[-1]
    assert (item.box.y, item.box.x, item.box.size) == (*corner, 40)
    assert item.is_ready and item.n_objects == 1
    np.testing.assert_array_equal(item.mask > 0, before[item.box.slices] > 0)
    assert str(item.mask_layer.mode) == "paint" and shown_box(dock) is None
    assert item.mask_layer.selected_label == 2
    item.mask_layer.paint((item.box.y + 2, item.box.x + 2), 2)
    dock.book.refresh()
    assert item.n_objects == 2
    np.testing.assert_array_equal(result.data, before)  # only the prompt is corrected
    dock.run.click()
    finish(dock)
    dock.guide.next_place()
    wait(dock)
    assert holds(shown_box(dock), SPOTS[3])  # the prompt's own place is not shown


def test_labels_of_the_user_are_the_mask(dock, finish, wait):
    truth = disc_image((160, 160), SPOTS)[1]
    dock.run.click()
    finish(dock)
    dock.viewer.add_labels(truth, name="truth")
    dock.book.default_mask = dock.viewer.layers["truth"]
    dock.guide.next_place()
    wait(dock)
    dock.guide.accept()
    assert dock.book.items[-1].mask_layer.name == "truth"
    assert dock.message.text().endswith(MASK_FROM.format("truth"))


def test_places_of_a_preview_are_on_what_was_seen(dock, finish, wait):
    dock.viewer.layers["cells"].corner_pixels = np.array([[90, 70], [159, 159]])
    dock.preview.click()
    finish(dock)
    dock.guide.next_place()
    wait(dock)
    assert holds(shown_box(dock), SPOTS[3])
    dock.guide.accept()
    assert dock.book.items[-1].n_objects == 1
    assert dock.mask_choice.currentText() == dock.book.items[-1].mask_layer.name
    dock.guide.next_place()
    wait(dock)
    assert dock.message.text().startswith(NO_PLACE_LEFT.format("'cells'"))


def test_the_least_certain_image_comes_first(dock, finish, wait):
    viewer = dock.viewer
    viewer.add_image(discs_image([0.6, 0.6, 0.55, 0.6]), name="dim")
    viewer.add_image(discs_image([0.95, 0.95, 0.95, 1]), name="bright")
    dock.run.click()
    finish(dock, timeout=20_000)
    names = []
    for _ in range(2):
        dock.guide.image_button.click()
        wait(dock)
        names.append(dock.image_panel.selected().name)
        shown = [n for n in ("cells", "dim", "bright") if viewer.layers[n].visible]
        assert shown == names[-1:]  # they lie over each other
        assert viewer.layers[f"{names[-1]} [svpseg]"].visible
        assert f"'{names[-1]}'" in dock.message.text()
    assert names == ["dim", "cells"]
    dock.guide.image_button.click()
    wait(dock)
    assert dock.message.text() == NO_IMAGE_LEFT.format("3 results") + START_AGAIN
    assert dock.image_panel.selected().name == "cells"
    dock.guide.image_button.click()
    wait(dock)
    assert dock.image_panel.selected().name == "dim"


def test_planes_of_a_stack_are_images(viewer, open_dock, runner, finish, wait):
    runner.pretend["segment"] = unsure_segment
    planes = [discs_image([1, 1, *two]) for two in ((1, 0.9), (0.7, 0.6), (0.95, 1))]
    viewer.add_image(np.stack(planes), name="stack", axis_labels=("z", "y", "x"))
    dock = open_dock()
    source = dock.source_of(viewer.layers["stack"])
    item = dock.book.place(source, (0,), Box(4, 4, 40))
    dock.book.add_paint_layer(item, np.ones((40, 40), int))
    dock.planes.setCurrentIndex(1)
    dock.run.click()
    finish(dock)
    dock.guide.next_image()
    wait(dock)
    assert viewer.dims.point[0] == 1 and "'stack' (Z 1)" in dock.message.text()
    dock.guide.next_place()
    wait(dock)
    layer = viewer.layers[NAME]
    assert set(np.asarray(layer.data[0])[:, 0]) == {1}
    assert holds(np.asarray(layer.data[0])[:, 1:].min(0) + 0.5, SPOTS[3])
    dock.guide.accept()
    assert dock.book.items[-1].plane == (1,) and dock.book.items[-1].n_objects == 1


def test_nothing_is_left_behind(dock, finish, wait):
    dock.run.click()
    finish(dock)
    dock.guide.next_place()
    wait(dock)
    dock.run.click()  # a run takes the candidate away
    assert shown_box(dock) is None
    finish(dock)
    dock.guide.next_place()
    wait(dock)
    dock.viewer.layers.remove("cells [svpseg]")
    dock.guide.accept()
    assert len(dock.book.items) == 1 and shown_box(dock) is None
