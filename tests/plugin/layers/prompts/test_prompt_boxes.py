"""Boxes drawn in a real viewer, and the list that follows them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import qtpy

from napari_svpseg.core.geometry import Box
from napari_svpseg.core.prompt import PromptError
from napari_svpseg.plugin.layers.images.image_source import NAME_AXES
from napari_svpseg.plugin.layers.images.visibility import camera_of
from napari_svpseg.plugin.layers.metadata import metadata_of
from napari_svpseg.plugin.layers.prompts.prompt_book import OUTSIDE
from napari_svpseg.plugin.layers.prompts.prompt_boxes import OUTLINE_PIXELS
from napari_svpseg.plugin.layers.prompts.prompt_item import (
    BAD_PIXELS,
    EMPTY_MASK,
    FAR_MASK,
    NEGATIVE_IDS,
    NO_MASK,
    WHOLE_BOX,
)
from napari_svpseg.plugin.messages import sentence
from napari_svpseg.plugin.tools.canvas_tool import NEEDS_2D
from napari_svpseg.plugin.tools.draw_box import OUTSIDE as OUTSIDE_IMAGE

from ...conftest import disc_image


def box_layer(viewer):
    return next(la for la in viewer.layers if metadata_of(la, "boxes"))


def drag(layer, start, end=None, modifiers=()):
    """Press at a point of the world, move to another, release there."""
    event = SimpleNamespace(
        type="mouse_press", button=1, position=start, modifiers=modifiers, handled=False
    )
    for callback in list(layer.mouse_drag_callbacks):
        if getattr(callback, "__name__", "") != "_on_drag":
            continue
        steps = callback(layer, event)
        next(steps)
        if end is not None:
            event.type = "mouse_move"
            for t in (0.3, 0.7, 1.0):
                event.position = tuple(np.add(start, t * np.subtract(end, start)))
                next(steps)
        event.type = "mouse_release"
        with pytest.raises(StopIteration):
            next(steps)


def start(dock, size=32):
    dock.box_size.setValue(size)
    dock.draw.click()
    assert dock.prompt_panel.tool.is_on
    return box_layer(dock.viewer)


def test_one_click_places_a_snapped_box_with_its_mask(discs, open_dock):
    dock = open_dock()
    layer = start(dock)
    drag(layer, (31.3, 29.6))
    (item,) = dock.book.items
    assert item.box == Box(16, 14, 32)
    assert item.mask_layer.name == "truth"
    assert item.n_objects == 1 and item.is_ready
    np.testing.assert_array_equal(
        item.mask > 0, discs.layers["truth"].data[item.box.slices] > 0
    )
    np.testing.assert_array_equal(
        item.crop[..., 0], discs.layers["discs"].data[item.box.slices]
    )
    assert not dock.prompt_panel.tool.is_on and not dock.draw.isChecked()
    assert str(layer.mode) == "select" and set(layer.selected_data) == {0}


def test_the_view_stands_still_while_boxes_are_drawn_and_moved(discs, open_dock):
    dock = open_dock()
    layer = start(dock)
    assert not discs.scene.camera.mouse_pan
    drag(layer, (30, 30))
    assert str(layer.mode) == "select" and not discs.scene.camera.mouse_pan
    discs.layers.selection.active = discs.layers["discs"]
    assert discs.scene.camera.mouse_pan


def test_a_drag_shows_the_box_before_it_is_let_go(discs, open_dock):
    dock = open_dock()
    layer = start(dock)
    event = SimpleNamespace(
        type="mouse_press", button=1, position=(20, 20), modifiers=(), handled=False
    )
    callback = next(c for c in layer.mouse_drag_callbacks if c.__name__ == "_on_drag")
    steps = callback(layer, event)
    next(steps)
    event.type = "mouse_move"
    for end in ((40, 40), (50, 60)):
        event.position = end
        next(steps)
        assert layer.nshapes == 1 and dock.book.items == []
    event.type = "mouse_release"
    with pytest.raises(StopIteration):
        next(steps)
    assert layer.nshapes == 1 and [i.box.size for i in dock.book.items] == [40]


def test_shift_places_several(discs, open_dock):
    dock = open_dock()
    layer = start(dock)
    drag(layer, (30, 30), modifiers=("Shift",))
    drag(layer, (66, 40), modifiers=("Shift",))
    assert len(dock.book.items) == 2 and dock.prompt_panel.tool.is_on
    dock.draw.click()
    assert not dock.prompt_panel.tool.is_on


@pytest.mark.parametrize("far", [(60, 70), (60, 10), (4, 70), (4, 10)])
def test_every_drag_direction_gives_the_square_it_spans(discs, open_dock, far):
    dock = open_dock()
    near = (30, 40)
    drag(start(dock), near, far)
    (item,) = dock.book.items
    low, high = np.minimum(near, far), np.maximum(near, far)
    assert item.box.size == int(max(high - low))
    assert item.box.y <= low[0] + 1 and item.box.y + item.box.size >= high[0] - 1


@pytest.mark.parametrize(
    "corners",
    [
        [[10, 20], [42, 52]],
        [[42, 52], [10, 20]],
        [[42, 20], [10, 52]],
        [[10, 52], [42, 20]],
    ],
)
def test_rectangles_in_any_corner_order_become_the_same_box(discs, open_dock, corners):
    dock = open_dock()
    dock.book.boxes.layer_on(dock.source_of(discs.layers["discs"]))
    (y0, x0), (y1, x1) = corners
    box_layer(discs).add_rectangles([[[y0, x0], [y0, x1], [y1, x1], [y1, x0]]])
    (item,) = dock.book.items
    assert item.box == Box(10, 20, 32) or item.box == Box(11, 21, 32)
    np.testing.assert_allclose(
        box_layer(discs).data[0].min(axis=0), item.box.corners.min(axis=0)
    )


@pytest.mark.parametrize(
    "point, corner",
    [
        ((0, 0), (0, 0)),
        ((95, 109), (64, 78)),
        ((0, 109), (0, 78)),
        ((50, 1), (34, 0)),
    ],
)
def test_a_box_at_the_edge_is_moved_inside(discs, open_dock, point, corner):
    dock = open_dock()
    drag(start(dock), point)
    (item,) = dock.book.items
    assert (item.box.y, item.box.x, item.box.size) == (*corner, 32)
    assert item.box.fits(discs.layers["discs"].data.shape)


def test_a_click_outside_says_so_and_adds_nothing(discs, open_dock):
    dock = open_dock()
    drag(start(dock), (-40, 20))
    assert dock.book.items == []
    assert dock.message.text() == OUTSIDE_IMAGE.format("discs")
    assert dock.prompt_panel.tool.is_on  # she may try again at once


def test_a_rectangle_outside_is_taken_away_again(discs, open_dock):
    dock = open_dock()
    dock.book.boxes.layer_on(dock.source_of(discs.layers["discs"]))
    layer = box_layer(discs)
    layer.add_rectangles([[[200, 200], [200, 240], [240, 240], [240, 200]]])
    assert layer.nshapes == 0 and dock.book.items == []
    assert dock.message.text() == OUTSIDE.format("discs")


def test_an_image_smaller_than_the_smallest_box(viewer, open_dock):
    viewer.add_image(np.zeros((8, 40)), name="tiny")
    dock = open_dock()
    dock.draw.click()
    assert not dock.draw.isChecked() and dock.book.items == []
    with pytest.raises(ValueError) as told:
        Box(0, 0, dock.book.size).clamped((8, 40))
    assert dock.message.text() == sentence(told.value) and dock.message.is_error


def test_outlines_are_as_wide_at_any_zoom(discs, open_dock, qtbot):
    discs.layers["discs"].scale = (0.5, 0.5)
    dock = open_dock()
    dock.book.place(dock.source_of(discs.layers["discs"]), (), Box(14, 14, 32))
    layer, camera = box_layer(discs), camera_of(discs)
    for zoom in (0.25, 16.0):
        camera.zoom = zoom
        on_screen = OUTLINE_PIXELS / (zoom * 0.5)
        qtbot.waitUntil(lambda width=on_screen: np.allclose(layer.edge_width, width))
    dock.book.place(dock.source_of(discs.layers["discs"]), (), Box(50, 50, 32))
    assert np.allclose(layer.edge_width, on_screen)
    assert [item.box for item in dock.book.items] == [Box(14, 14, 32), Box(50, 50, 32)]


def test_numbers_begin_anew_with_an_empty_list(discs, open_dock):
    dock = open_dock()
    source = dock.source_of(discs.layers["discs"])
    for _ in range(2):
        item = dock.book.place(source, (), Box(14, 14, 32))
        assert item.name == "prompt 1"
        dock.book.remove(item.id)


def test_a_negative_prompt_needs_no_mask_but_finite_pixels(viewer, open_dock):
    image = disc_image()[0]
    image[50:54, 50:54] = np.nan
    viewer.add_image(image, name="discs")
    dock = open_dock()
    source = dock.source_of(viewer.layers["discs"])
    clean = dock.book.place(source, (), Box(0, 0, 32))
    broken = dock.book.place(source, (), Box(40, 40, 32))
    assert not clean.is_ready and not broken.is_ready
    for item in (clean, broken):
        dock.book.update(item.id, negative=True)
    assert clean.is_ready and clean.status == WHOLE_BOX
    assert not broken.is_ready and broken.status == BAD_PIXELS


def test_moved_and_deleted_boxes_change_the_list(discs, open_dock):
    dock = open_dock()
    source = dock.source_of(discs.layers["discs"])
    first = dock.book.place(source, (), Box(14, 14, 32))
    second = dock.book.place(source, (), Box(50, 24, 32))
    layer = box_layer(discs)
    moved = [np.array(d) for d in layer.data]
    moved[1] = moved[1] + (0.3, 50.2)
    layer.data = [(d, "rectangle") for d in moved]
    assert dock.book.items == [first, second]
    assert second.box == Box(50, 74, 32)
    np.testing.assert_allclose(layer.data[1], second.box.corners)
    layer.selected_data = {0}
    layer.remove_selected()
    assert dock.book.items == [second]
    assert list(dock.list.rows) == [second.id]
    dock.book.remove(second.id)
    assert layer.nshapes == 0 and dock.book.items == []


def test_a_pasted_box_is_a_prompt_of_its_own(discs, open_dock):
    dock = open_dock()
    source = dock.source_of(discs.layers["discs"])
    dock.book.place(source, (), Box(14, 14, 32))
    layer = box_layer(discs)
    layer.add_rectangles([layer.data[0] + 20])
    names = [item.name for item in dock.book.items]
    assert len(set(names)) == 2
    assert dock.book.items[0].box != dock.book.items[1].box


@pytest.mark.parametrize(
    "place",
    [
        {"scale": (0.25, 0.25), "translate": (100, -30)},
        {"scale": (2.0, 3.0)},
        {"rotate": 30.0, "translate": (5, 5)},
        {"shear": [0.3], "scale": (0.5, 0.5)},
        {"affine": [[0, 1, 4], [1, 0, 9], [0, 0, 1]]},
    ],
)
def test_boxes_and_masks_follow_the_layers_transform(viewer, open_dock, place):
    rng = np.random.default_rng(1)
    image = rng.normal(size=(80, 90))
    labels = np.zeros((80, 90), int)
    labels[35:47, 41:55] = 3
    layer = viewer.add_image(image, name="placed", **place)
    viewer.add_labels(labels, name="truth", **place)
    dock = open_dock()
    boxes = start(dock)
    drag(boxes, tuple(layer.data_to_world((40.0, 45.0))))
    (item,) = dock.book.items
    assert abs(item.box.y - 24) <= 1 and abs(item.box.x - 29) <= 1
    np.testing.assert_array_equal(item.crop[..., 0], image[item.box.slices])
    np.testing.assert_array_equal(item.mask > 0, labels[item.box.slices] > 0)
    corner = boxes.data_to_world(boxes.data[0][0])
    np.testing.assert_allclose(
        layer.world_to_data(corner), (item.box.y - 0.5, item.box.x - 0.5), atol=1e-6
    )


def test_a_mask_of_another_shape_is_read_where_it_lies(viewer, open_dock):
    viewer.add_image(np.zeros((80, 90)), name="fine", scale=(0.5, 0.5))
    viewer.add_labels(
        np.pad(np.ones((10, 10), int), ((10, 20), (10, 25))), name="coarse"
    )  # 40 x 45 pixels of the double size
    dock = open_dock()
    item = dock.book.place(dock.source_of(viewer.layers["fine"]), (), Box(10, 10, 40))
    assert item.mask_layer is None
    dock.list.select(item.id)
    dock.mask_choice.setCurrentIndex(dock.mask_choice.findText("coarse"))
    dock.mask_choice.activated.emit(dock.mask_choice.currentIndex())
    assert item.n_objects == 1
    assert abs(int((item.mask > 0).sum()) - 400) <= 80


def test_painting_updates_the_prompt(discs, open_dock, qtbot):
    dock = open_dock()
    discs.layers.remove("truth")
    item = dock.book.place(dock.source_of(discs.layers["discs"]), (), Box(14, 14, 32))
    assert item.problem == item.status == NO_MASK
    dock.list.select(item.id)
    dock.paint.click()
    painted = item.mask_layer
    assert str(painted.mode) == "paint" and painted.selected_label == 1
    assert discs.layers.selection.active == painted
    assert item.problem == EMPTY_MASK
    painted.paint((22, 22), 1)
    painted.paint((38, 38), 1)
    qtbot.waitUntil(lambda: item.is_ready)
    assert item.n_objects == 2  # pieces painted with one number are two objects
    assert painted.data.shape == (96, 110)


def test_bad_masks_are_told(discs, open_dock):
    dock = open_dock()
    item = dock.book.place(dock.source_of(discs.layers["discs"]), (), Box(0, 78, 32))
    discs.layers["truth"].data = np.full((96, 110), -2)
    dock.book.refresh()
    assert item.problem == NEGATIVE_IDS
    discs.layers["truth"].data = np.zeros((96, 110), int)
    dock.book.refresh()
    assert item.problem == EMPTY_MASK
    dock.run.click()
    assert EMPTY_MASK in dock.message.text() and not dock.is_busy


def test_nan_in_the_box_is_told(viewer, open_dock):
    image = np.ones((64, 64))
    image[20, 20] = np.nan
    viewer.add_image(image, name="holes")
    viewer.add_labels(np.ones((64, 64), int), name="all")
    dock = open_dock()
    item = dock.book.place(dock.source_of(viewer.layers["holes"]), (), Box(8, 8, 32))
    assert item.status == BAD_PIXELS and not item.is_ready


def test_rows_rename_switch_and_negate(discs, open_dock):
    dock = open_dock()
    source = dock.source_of(discs.layers["discs"])
    first = dock.book.place(source, (), Box(14, 14, 32))
    second = dock.book.place(source, (), Box(60, 60, 32))
    row = dock.list.rows[first.id]
    row.name.setText("round ones")
    row.name.editingFinished.emit()
    assert first.name == "round ones"
    assert "round ones" in list(box_layer(discs).features["name"])
    dock.list.rows[second.id].negative.click()
    prompts = dock.book.prompts()
    assert [p.is_negative for p in prompts] == [False, True]
    assert prompts[0].name == "round ones" and prompts[0].n_objects == 1
    row.enabled.click()
    dock.run.click()
    with pytest.raises(PromptError) as told:  # only a negative one is left
        dock.book.prompts()
    assert dock.message.text() == sentence(told.value)
    dock.list.rows[second.id].delete.click()
    assert dock.book.items == [first]


def test_prompts_outlive_their_image(discs, open_dock):
    dock = open_dock()
    item = dock.book.place(dock.source_of(discs.layers["discs"]), (), Box(14, 14, 32))
    before = dock.book.prompt(item)
    discs.layers.remove("discs")
    assert dock.book.items == [item] and item.source is None
    np.testing.assert_array_equal(dock.book.prompt(item).mask, before.mask)
    assert not any(metadata_of(la, "boxes") for la in discs.layers)


def test_a_deleted_box_layer_empties_the_list(discs, open_dock):
    dock = open_dock()
    dock.book.place(dock.source_of(discs.layers["discs"]), (), Box(14, 14, 32))
    discs.layers.remove(box_layer(discs))
    assert dock.book.items == []
    drag(start(dock), (30, 30))
    assert len(dock.book.items) == 1


def test_drawing_needs_the_2d_view(discs, open_dock):
    dock = open_dock()
    discs.dims.ndisplay = 3
    dock.draw.click()
    assert dock.message.text() == NEEDS_2D and not dock.draw.isChecked()


def test_choosing_another_layer_ends_drawing(discs, open_dock):
    dock = open_dock()
    start(dock)
    discs.layers.selection.active = discs.layers["truth"]
    assert not dock.prompt_panel.tool.is_on and not dock.draw.isChecked()


def test_a_click_on_another_image_goes_there(viewer, open_dock):
    viewer.add_image(np.zeros((64, 64)), name="left")
    viewer.add_image(np.zeros((64, 64)), name="right", translate=(0, 100))
    dock = open_dock()
    dock.images.setCurrentRow(0)
    drag(start(dock), (30, 130))
    (item,) = dock.book.items
    assert item.source.name == "right" and item.box == Box(14, 14, 32)
    names = [la.name for la in viewer.layers if metadata_of(la, "boxes")]
    assert names == ["SVPSeg prompts", "SVPSeg prompts [right]"]


def test_a_reopened_dock_finds_its_boxes(discs, open_dock):
    dock = open_dock()
    item = dock.book.place(dock.source_of(discs.layers["discs"]), (), Box(14, 14, 32))
    dock.book.close()
    again = open_dock()
    assert [i.box for i in again.book.items] == [item.box]
    assert again.book.items[0].n_objects == 1


def test_a_box_on_a_plane_of_a_stack(viewer, open_dock):
    stack = np.zeros((5, 64, 64))
    stack[3, 20:30, 20:30] = 1
    viewer.add_image(stack, name="stack", scale=(2, 1, 1))
    viewer.add_labels((stack > 0).astype(int), name="truth", scale=(2, 1, 1))
    dock = open_dock()
    dock.draw.click()
    assert dock.message.text() == NAME_AXES.format(n=3, image="stack")
    dock.axes.setCurrentText("ZYX")
    dock.axes.lineEdit().editingFinished.emit()
    layer = start(dock)
    viewer.dims.set_point(0, 6)
    drag(layer, (6, 25, 25))
    (item,) = dock.book.items
    assert (item.plane == (3,) and item.box == Box(9, 9, 32)) or item.box == Box(
        10, 10, 32
    )
    assert item.n_objects == 1
    assert set(layer.data[0][:, 0]) == {3.0}


def test_napari_own_rectangle_tool_works_too(discs, open_dock):
    dock = open_dock()
    dock.book.boxes.layer_on(dock.source_of(discs.layers["discs"]))
    layer = box_layer(discs)
    layer.add(
        [[20, 20], [20, 50], [45, 50], [45, 20]], shape_type="rectangle", gui=True
    )
    layer.add([[20, 20], [20, 50], [45, 50], [45, 20]], shape_type="rectangle")
    assert len(dock.book.items) == 2
    assert all(i.box.size == 30 for i in dock.book.items)


@pytest.mark.parametrize(
    "order, shape, rgb",
    [
        ("CYX", (2, 64, 70), False),
        ("TCYX", (3, 2, 64, 70), False),
        ("YXC", (64, 70, 3), True),
        ("ZYXC", (3, 64, 70, 4), True),
        ("CZYX", (2, 3, 64, 70), False),
    ],
)
def test_channels_are_cut_whole(viewer, open_dock, order, shape, rgb):
    rng = np.random.default_rng(0)
    data = rng.integers(0, 255, shape).astype(np.uint8)
    layer = viewer.add_image(data, name="many", rgb=rgb)
    dock = open_dock()
    dock.axes.setCurrentText(order)
    dock.axes.lineEdit().editingFinished.emit()
    source = dock.source_of(layer)
    plane = (1,) * len(source.axes.stack)
    labels = viewer.add_labels(
        np.ones(source.companion.shape, int), name="all", **source.placement()
    )
    item = dock.book.place(source, plane, Box(3, 5, 32))
    assert item.mask_layer == labels and item.n_objects == 1
    prompt = dock.book.prompt(item)
    assert prompt.n_channels == (3 if rgb else 2) and prompt.rgb == rgb
    expected = {
        "CYX": lambda: data[:, 3:35, 5:37].transpose(1, 2, 0),
        "TCYX": lambda: data[1, :, 3:35, 5:37].transpose(1, 2, 0),
        "CZYX": lambda: data[:, 1, 3:35, 5:37].transpose(1, 2, 0),
        "YXC": lambda: data[3:35, 5:37],
        "ZYXC": lambda: data[1, 3:35, 5:37],
    }
    np.testing.assert_array_equal(item.crop, expected[order]())


def test_a_mask_that_does_not_reach_the_box_is_told(viewer, open_dock, discs):
    dock = open_dock()
    item = dock.book.place(dock.source_of(viewer.layers["discs"]), (), Box(14, 14, 32))
    far = viewer.add_labels(np.ones((20, 20), int), name="far", translate=(500, 500))
    dock.book.update(item.id, mask_layer=far)
    assert item.problem == FAR_MASK


def test_a_new_box_takes_the_mask_that_shows_something(viewer, open_dock, discs):
    image = viewer.layers["discs"].data
    dock = open_dock()
    first = dock.book.place(dock.source_of(viewer.layers["discs"]), (), Box(14, 14, 32))
    dock.book.default_mask = first.mask_layer
    other = viewer.add_image(image, name="other", translate=(0, 200))
    own = viewer.add_labels(viewer.layers["truth"].data, name="own", translate=(0, 200))
    item = dock.book.place(dock.source_of(other), (), Box(14, 14, 32))
    assert item.mask_layer == own and item.is_ready


def test_the_boxes_of_a_closed_image_go_with_it(viewer, open_dock, discs):
    dock = open_dock()
    item = dock.book.place(dock.source_of(viewer.layers["discs"]), (), Box(14, 14, 32))
    dock.book.remove(item.id)
    viewer.layers.remove("discs")
    assert "SVPSeg prompts" not in viewer.layers


def test_a_dock_opened_again_finds_all_as_it_was(viewer, open_dock, discs):
    image = viewer.layers["discs"].data
    viewer.layers.remove("discs")
    cyx = viewer.add_image(np.stack([image, image]), name="cyx")
    dock = open_dock()
    dock.axes.setCurrentText("CYX")
    dock.axes.lineEdit().editingFinished.emit()
    dock.channels.setText("1")
    dock.channels.editingFinished.emit()
    for corner in (4, 50):
        dock.book.place(dock.source_of(cyx), (), Box(corner, corner, 32))
    first, second = dock.book.items
    dock.book.update(first.id, name="discs")
    dock.book.update(second.id, negative=True, enabled=False)
    dock.book.close()
    dock.image_panel.close_hooks()

    again = open_dock()
    assert again.source_of(cyx).axes.order == "CYX"
    assert again.source_of(cyx).channels == (1,)
    first, second = again.book.items
    assert first.name == "discs" and first.is_ready and not first.negative
    assert first.mask_layer == viewer.layers["truth"]
    assert second.negative and not second.enabled


@pytest.mark.skipif(
    qtpy.PYSIDE6, reason="nextInFocusChain of PySide6 keeps all widgets alive"
)
def test_the_tab_key_goes_from_top_to_bottom(viewer, open_dock, discs):
    dock = open_dock()
    for corner in (4, 50):
        dock.book.place(dock.source_of(viewer.layers["discs"]), (), Box(corner, 8, 32))
    dock.keeper.keep()  # as once the event loop rests
    chain, widget = [], dock.axes
    while widget not in chain:
        chain.append(widget)
        widget = widget.nextInFocusChain()
    rows = [dock.list.rows[i.id] for i in dock.book.items]
    seen = [rows[0].enabled, rows[0].delete, rows[1].enabled, rows[1].delete]
    places = [chain.index(w) for w in (dock.axes, *seen, dock.draw, dock.run)]
    assert places == sorted(places)
