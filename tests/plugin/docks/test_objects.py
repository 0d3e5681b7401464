"""The table of objects, the gallery, and how results are shown, in a real viewer."""

from __future__ import annotations

import csv
from itertools import pairwise

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtGui import QGuiApplication

from napari_svpseg.core.geometry import Box
from napari_svpseg.io.images import read_image
from napari_svpseg.plugin.docks import segment_dock
from napari_svpseg.plugin.docks.actions import KEYS, press
from napari_svpseg.plugin.docks.segment_dock import SegmentWidget
from napari_svpseg.plugin.layers.metadata import metadata_of
from napari_svpseg.plugin.layers.results.kept_objects import KEPT, NOTE
from napari_svpseg.plugin.layers.results.result_style import (
    OPACITY,
    STYLES,
    ResultStyle,
    outlined,
)
from napari_svpseg.plugin.panels.results_panel import CORNER
from napari_svpseg.plugin.services.engine_process import Engine
from napari_svpseg.plugin.services.preferences import DEFAULTS
from napari_svpseg.plugin.writers import write_layer

from ..conftest import disc_image

SPOTS = ((30, 30), (30, 70), (66, 40), (70, 90))


def image_of(sizes=(5, 6, 8, 9)):
    """Return an image of discs of several sizes."""
    discs = zip(SPOTS, sizes, strict=True)
    return np.max([disc_image(spots=(at,), r=r)[0] for at, r in discs], axis=0)


@pytest.fixture
def dock(viewer, open_dock, finish):
    """Return the dock with a result of four discs of different size."""
    viewer.add_image(image_of(), name="discs", scale=(0.5, 0.5), units=("um", "um"))
    viewer.add_labels(disc_image()[1], name="truth", scale=(0.5, 0.5))
    dock = open_dock()
    dock.book.place(dock.source_of(viewer.layers["discs"]), (), Box(14, 14, 32))
    dock.run.click()
    finish(dock)
    return dock


def measured(dock, qtbot):
    """Open the table, and wait until the objects are measured and all is quiet."""
    panel = dock.results_panel.objects
    dock.results_panel.open_objects.click()
    quiet(dock, qtbot)
    assert "solidity" in panel.rows.names
    return panel


def quiet(dock, qtbot):
    panel = dock.results_panel.objects
    qtbot.waitUntil(
        lambda: (
            not (
                panel._timer.isActive()
                or panel.filter._timer.isActive()
                or panel.controller.is_busy
            )
        )
    )


@pytest.fixture
def panel(dock, qtbot):
    return measured(dock, qtbot)


def rows_of(path):
    return list(csv.DictReader(path.read_text("utf-8").splitlines()))


def result_of(dock, name="discs"):
    return dock.viewer.layers[f"{name} [svpseg]"]


def test_the_table_has_the_objects_in_pixels_and_units(dock, panel):
    layer = result_of(dock)
    rows = panel.rows
    assert rows.rowCount() == 4
    areas = rows.columns["area"]
    np.testing.assert_array_equal(areas, np.bincount(layer.data.ravel())[1:])
    np.testing.assert_allclose(rows.columns["area_um2"], areas / 4)
    assert {"intensity_mean", "confidence", "eccentricity"} <= set(rows.names)
    assert set(layer.features["index"]) == {1, 2, 3, 4} and layer.features[KEPT].all()
    assert "area_um2" in layer.features
    text = panel.summary.text()
    assert "4 objects" in text and f"{areas.mean():.0f} px" in text and "µm²" in text


def test_a_row_leads_to_its_object_and_the_object_to_its_row(dock, panel):
    layer, table = result_of(dock), panel.table
    table.sortByColumn(panel.rows.names.index("area"), Qt.SortOrder.DescendingOrder)
    assert (
        list(np.diff(panel.rows.columns["area"][panel.rows.order]) <= 0) == [True] * 3
    )
    table.selectRow(0)
    biggest = int(np.argmax(np.bincount(layer.data.ravel())[1:])) + 1
    assert layer.selected_label == biggest
    assert dock.viewer.layers.selection.active == layer
    centre = np.argwhere(layer.data == biggest).mean(axis=0) / 2  # µm
    camera = getattr(dock.viewer, "scene", dock.viewer).camera
    np.testing.assert_allclose(camera.center[-2:], centre, atol=1)
    layer.selected_label = 1
    assert panel.rows.text(table.currentIndex().row(), 0) == "1"


def test_a_filter_is_one_edit_that_undo_takes_back(dock, panel, qtbot):
    layer, areas = result_of(dock), panel.rows.columns["area"]
    before = layer.data.copy()
    for limit in np.sort(areas)[1:3]:
        panel.filter.low.setValue(float(limit))
        quiet(dock, qtbot)
    kept = set(np.flatnonzero(areas >= np.sort(areas)[2]) + 1)
    assert set(np.unique(layer.data)) - {0} == kept
    features = layer.features
    assert set(features["index"][features[KEPT]]) == kept and len(features) == 4
    metadata = metadata_of(layer)
    assert metadata["objects"] == 2 and any(
        note.startswith(NOTE) for note in metadata["recipe"]["notes"]
    )
    assert "2 objects of 4" in panel.summary.text()
    dock.undo.click()
    quiet(dock, qtbot)
    np.testing.assert_array_equal(layer.data, before)
    assert layer.features[KEPT].all() and metadata_of(layer)["objects"] == 4


def test_a_wider_range_brings_objects_back_but_not_over_paint(dock, panel, qtbot):
    layer, areas = result_of(dock), panel.rows.columns["area"]
    before = layer.data.copy()
    panel.filter.low.setValue(float(areas.max()))
    quiet(dock, qtbot)
    assert np.count_nonzero(np.unique(layer.data)) == 1
    spot = SPOTS[0]
    layer.data_setitem((np.array([spot[0]]), np.array([spot[1]])), 99)
    quiet(dock, qtbot)
    panel.filter.keep_all.click()
    quiet(dock, qtbot)
    assert layer.data[spot] == 99
    layer.data[spot] = before[spot]
    np.testing.assert_array_equal(layer.data, before)


def test_a_filter_holds_for_the_next_run_too(dock, panel, qtbot, finish):
    layer = result_of(dock)
    panel.filter.low.setValue(float(np.sort(panel.rows.columns["area"])[2]))
    quiet(dock, qtbot)
    dock.run.click()
    finish(dock)
    qtbot.waitUntil(lambda: len(np.unique(layer.data)) == 3)
    quiet(dock, qtbot)
    assert len(dock.viewer.layers) == 4  # ours, not one the user has edited


def test_unchecking_a_row_removes_its_object(dock, panel):
    layer = result_of(dock)
    index = panel.rows.index(1, 0)
    off = Qt.CheckState.Unchecked
    assert panel.rows.setData(index, off.value, Qt.ItemDataRole.CheckStateRole)
    assert not (layer.data == 2).any() and (layer.data == 1).any()
    assert panel.rows.data(index, Qt.ItemDataRole.CheckStateRole) == off


def test_saved_files_hold_what_is_kept(dock, panel, qtbot, tmp_path):
    layer = result_of(dock)
    panel.filter.low.setValue(float(np.sort(panel.rows.columns["area"])[2]))
    quiet(dock, qtbot)
    panel.save_table(str(tmp_path / "table.csv"))
    rows = rows_of(tmp_path / "table.csv")
    assert len(rows) == 2 and "area_um2" in rows[0]
    panel.copy.click()
    pasted = QGuiApplication.clipboard().text().splitlines()
    assert len(pasted) == 3 and pasted[0].split("\t")[0] == "label"
    # also where the column was written by hand, in napari's table of features
    kept = layer.features.loc[layer.features[KEPT], "index"]
    layer.features.loc[layer.features["index"] == kept.iloc[0], KEPT] = False
    for name in ("ids.tif", "ids.csv"):
        write_layer(str(tmp_path / name), layer)
    ids = set(np.unique(read_image(tmp_path / "ids.tif").array)) - {0}
    assert ids == set(kept.iloc[1:])
    rows = rows_of(tmp_path / "ids.csv")
    assert [int(row["label"]) for row in rows] == list(kept.iloc[1:])


def test_hidden_objects_are_not_measured(dock, qtbot, runner):
    n = sum(call[0].__name__ == "object_table" for call in runner.calls)
    assert n == 0
    measured(dock, qtbot)
    assert sum(call[0].__name__ == "object_table" for call in runner.calls) == 1


@pytest.mark.parametrize("font_size", [0, 14])
def test_the_window_fits_a_small_screen_with_the_table_and_the_gallery(
    make_napari_viewer_proxy, runner, settle, monkeypatch, font_size
):
    from napari.settings import get_settings

    if font_size:
        monkeypatch.setattr(get_settings().appearance, "font_size", font_size)
    viewer = make_napari_viewer_proxy(show=True)
    viewer.add_image(image_of(), name="discs")
    viewer.add_labels(disc_image()[1], name="truth")  # whose controls are the highest
    engine = Engine(lambda: runner)
    engine.runner()
    dock = SegmentWidget(viewer, engine)
    viewer.window.add_dock_widget(dock, name=dock.title)
    settle()
    window, panel = dock.window(), dock.results_panel
    corner = window.corner(CORNER)
    panel.objects.filter.histogram.show_values(np.arange(9.0), (0, 8))
    for opens in (panel.open_objects, panel.open_gallery):
        opens.click()
        settle()
        needed = window.minimumSizeHint()
        assert needed.width() <= 1280 and needed.height() <= 720
    numbers = panel.objects.filter
    places = [w.geometry() for w in (numbers.low, numbers.high, numbers.keep_all)]
    assert not any(a.intersects(b) for a, b in pairwise(places))
    # the side scrolls: what is above keeps its room
    assert panel.objects.minimumSizeHint().height() < 100
    viewer.window.remove_dock_widget(dock)
    assert window.corner(CORNER) == corner  # napari's own docks lie as before


# ---------------------------------------------------------------- how they are shown


def test_outline_fill_or_both(dock):
    panel, layer = dock.results_panel, result_of(dock)
    assert layer.contour == 0
    panel.styles["outline"].click()
    assert layer.contour == 1 and layer.opacity == 1
    panel.next_style()
    assert panel.styles["fill"].isChecked() and layer.contour == 0
    panel.styles["both"].click()
    lines = [la for la in dock.viewer.layers if outlined(la)]
    assert len(lines) == 1 and lines[0].contour == 1 and layer.contour == 0
    layer.paint((4, 4), 7)
    assert np.shares_memory(lines[0].data, layer.data)
    np.testing.assert_array_equal(lines[0].colormap.colors, layer.colormap.colors)
    layer.visible = False
    assert not any(outlined(la) for la in dock.viewer.layers)
    layer.visible = True
    dock.viewer.layers.remove(layer)
    assert not any(outlined(la) for la in dock.viewer.layers)


@pytest.mark.parametrize("style", STYLES)
def test_new_results_have_the_look_of_the_preferences(
    viewer, open_dock, finish, monkeypatch, style
):
    wanted = DEFAULTS | {"labels_look": style}
    monkeypatch.setattr(segment_dock, "preference", wanted.get)
    viewer.add_image(image_of(), name="discs")
    viewer.add_labels(disc_image()[1], name="truth")
    dock = open_dock()
    dock.book.place(dock.source_of(viewer.layers["discs"]), (), Box(14, 14, 32))
    dock.run.click()
    finish(dock)
    assert dock.results_panel.styles[style].isChecked()
    layer = result_of(dock)
    assert layer.contour == (style == "outline") and layer.opacity == OPACITY[style]
    assert sum(bool(outlined(la)) for la in viewer.layers) == (style == "both")


def test_a_dock_opened_later_shows_results_as_its_button_says(dock):
    panel, layer = dock.results_panel, result_of(dock)
    panel.styles["outline"].click()
    panel.close_hooks()
    changed = []
    layer.events.data.connect(lambda event: changed.append(event))
    later = ResultStyle(dock.viewer, "both")
    assert layer.contour == 0 and any(outlined(la) for la in dock.viewer.layers)
    layer.visible = False  # it follows what was there before it
    assert not any(outlined(la) for la in dock.viewer.layers)
    later.close()
    layer.data = layer.data.copy()
    assert changed  # other listeners stay connected


def test_colours_stand_out_and_stay(viewer, dock, finish):
    layer = result_of(dock)
    first = layer.get_color(1)
    assert first[:3].max() > 0.6  # bright on dark
    dock.run.click()
    finish(dock)
    np.testing.assert_array_equal(layer.get_color(1), first)
    tissue = np.full((96, 110, 3), (230, 150, 190), np.uint8)  # eosin
    tissue[20:60, 20:60] = (110, 70, 150)
    viewer.add_image(tissue, rgb=True, name="tissue", translate=(0, 90))
    dock.image_panel.select(viewer.layers["tissue"])
    dock.book.items[0].enabled = True
    dock.run.click()
    finish(dock)
    assert not np.allclose(result_of(dock, "tissue").get_color(1), first)


# ---------------------------------------------------------------- several images


@pytest.fixture
def three(dock, finish):
    """Return the dock with results of three images."""
    for name, n in (("second", 3), ("third", 2)):
        image, _ = disc_image(spots=SPOTS[:n])
        dock.viewer.add_image(image, name=name, scale=(0.5, 0.5))
    dock.run.click()
    finish(dock)
    dock.image_panel.select(dock.viewer.layers["discs"])
    return dock


def gallery_of(dock, qtbot):
    gallery = dock.results_panel.gallery
    dock.results_panel.open_gallery.click()
    names = ("discs", "second", "third")

    def is_there():
        rows = [gallery.list.item(i) for i in range(gallery.list.count())]
        return len(rows) == len(names) and not any(row.icon().isNull() for row in rows)

    qtbot.waitUntil(is_there)
    return gallery


def test_next_and_previous_image(three):
    viewer, panel = three.viewer, three.results_panel
    seen = []
    for name in ("next_image", "next_image", "next_image", "previous_image"):
        press(viewer, KEYS[name])
        seen.append(three.image_panel.selected().name)
        assert viewer.layers[f"{seen[-1]} [svpseg]"].visible
    assert seen == ["second", "third", "discs", "third"]
    assert panel.next.isEnabled()


def test_the_gallery_shows_counts_and_what_was_looked_at(three, qtbot, finish):
    gallery = gallery_of(three, qtbot)
    texts = [gallery.list.item(i).text() for i in range(3)]
    found = zip(("4 objects", "3 objects", "2 objects"), texts, strict=True)
    assert all(part in text for part, text in found)
    assert all("0.90" in text for text in texts)
    on = Qt.CheckState.Checked
    assert not any(gallery.list.item(i).checkState() == on for i in range(3))
    gallery.list.itemClicked.emit(gallery.list.item(1))
    assert three.image_panel.selected().name == "second"
    qtbot.waitUntil(lambda: gallery.list.item(1).checkState() == on)
    assert gallery.list.item(2).checkState() != on
    three.run.click()  # a new result was not looked at
    finish(three)
    qtbot.waitUntil(lambda: gallery.list.item(1).checkState() != on)


def test_the_gallery_makes_a_picture_again_only_where_a_result_changed(
    three, qtbot, monkeypatch
):
    from napari_svpseg.plugin.panels import gallery as module

    gallery = gallery_of(three, qtbot)
    made = []

    def card_of(image, shown, real=module.card_of):
        made.append(image.name)
        return real(image, shown)

    monkeypatch.setattr(module, "card_of", card_of)
    three.image_panel.select(three.viewer.layers["third"])
    three.options.set_values({"min_area": 5000})
    layer = three.viewer.layers["third [svpseg]"]
    qtbot.waitUntil(lambda: not layer.data.any())
    qtbot.waitUntil(lambda: "0 objects" in gallery.list.item(2).text())
    assert made == ["third"]
