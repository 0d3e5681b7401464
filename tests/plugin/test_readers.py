"""What was written is opened again as the docks know it; files of others are not."""

from __future__ import annotations

import json
import shutil
import zipfile

import napari
import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from napari.layers import Labels
from qtpy.QtGui import QGuiApplication

from napari_svpseg.core.model_card import ModelCard
from napari_svpseg.core.result import Recipe
from napari_svpseg.io import model_store
from napari_svpseg.io.exports import ExportData, export
from napari_svpseg.io.label_files import write_labels
from napari_svpseg.io.model_store import builtin_folder
from napari_svpseg.io.result_files import kind_of_result
from napari_svpseg.plugin import readers
from napari_svpseg.plugin.layers.labels.object_colors import colormap_of, palette_of
from napari_svpseg.plugin.layers.metadata import is_of, metadata_of
from napari_svpseg.plugin.layers.results.reopened import labels_layer, link
from napari_svpseg.plugin.layers.results.result_layers import recipe_of
from napari_svpseg.plugin.layers.results.written_labels import is_untouched
from napari_svpseg.plugin.services.model_install import INSTALLED

from .conftest import disc_image

KINDS = {
    "ome-tiff": "discs_labels.ome.tif",
    "rois": "discs_labels.zip",
    "geojson": "discs_labels.geojson",
    "ome-zarr": "discs_labels.zarr",
    "cellpose-png": "discs_cp_masks.png",
    "cellpose-tif": "discs_cp_masks.tif",
    "cellpose-seg": "discs_seg.npy",
}
OF_RUNS = ("ome-tiff", "rois", "geojson", "ome-zarr")
RECIPE = Recipe("svp", postprocess={"threshold": 0.4}, prompts=({"name": "one"},))


@pytest.fixture
def written(tmp_path):
    """Return a function that writes the discs in a format, as a user saves them."""

    def write(kind, **values):
        known = {"labels": disc_image()[1], "pixel_size": (0.5, 0.5), "unit": "um"}
        data = ExportData(**known | values, recipe=RECIPE, sealed=False)
        return export(tmp_path / KINDS[kind], kind, data)

    return write


@pytest.fixture
def model(monkeypatch):
    """Return a viewer without a window that shows the discs."""
    viewer = ViewerModel()
    viewer.add_image(disc_image()[0], name="discs")
    monkeypatch.setattr(napari, "current_viewer", lambda: viewer)
    return viewer


@pytest.mark.parametrize("kind", KINDS)
def test_each_format_comes_back_as_labels_on_its_image(kind, written, model):
    image = model.layers["discs"]
    image.scale, image.units = (0.5, 0.5), ("um", "um")
    path = written(kind)
    assert readers.get_result_reader(str(path)) is not None
    (data, attributes, layer_type), *more = readers.read_results(str(path))
    assert layer_type == "labels" and not more
    np.testing.assert_array_equal(data, disc_image()[1])
    layer = model.add_layer(Labels(data, **attributes))
    np.testing.assert_allclose(layer.scale, image.scale)
    assert [str(u) for u in layer.units] == ["micrometer"] * 2
    assert (metadata_of(layer) is not None) == (kind in OF_RUNS)
    if kind in OF_RUNS:
        assert is_of(layer, image, "labels") and is_untouched(layer)
        assert shows(layer, palette_of(image))


def shows(layer, palette):
    """Return whether the objects have the colours of a palette."""
    return np.allclose(layer.get_color(1), colormap_of(palette).map(1))


@pytest.mark.parametrize("kind", ("ome-tiff", "ome-zarr"))
def test_the_recipe_comes_back(kind, written, model):
    layer = labels_layer(written(kind), model)
    assert recipe_of(layer).postprocess == RECIPE.postprocess
    assert recipe_of(layer).prompts == RECIPE.prompts


def test_measurements_and_classes_come_back(written, model):
    path = written(
        "geojson",
        classes={"round": "#ff0000", "flat": "#0000ff"},
        class_of={1: "round", 2: "flat", 3: "round", 4: "round"},
    )
    layer = labels_layer(path, model)
    table = layer.features.set_index("index")
    areas = np.bincount(disc_image()[1].ravel())[1:]
    columns = [c for c in table if c.startswith("area")]
    assert list(table["class"][1:]) == ["round", "flat", "round", "round"]
    np.testing.assert_array_equal(table[columns[0]][1:], areas)
    np.testing.assert_allclose(layer.get_color(2), (0, 0, 1, 1))


def test_the_dock_goes_on_with_a_result_of_yesterday(
    written, discs, open_dock, finish, qtbot
):
    before = np.where(disc_image()[1] < 4, disc_image()[1], 0)  # one disc is missing
    path = written("ome-tiff", labels=before)
    discs.layers.remove("truth")
    layer = discs.open(str(path), plugin="napari-svpseg")[0]
    dock = open_dock()
    assert isinstance(layer, Labels)
    assert dock.save_box.result_layer() == layer and dock.save_box.save.isEnabled()
    dock.save_box.copy_python.click()
    assert "0.4" in QGuiApplication.clipboard().text()
    # a run writes into it, and undo brings it back
    dock.prompt_panel.add_prompt_at_centre()
    item = dock.book.items[0]
    dock.book.add_paint_layer(item).data_setitem(
        tuple(np.array([[30, 31], [70, 70]])), 1
    )
    qtbot.waitUntil(lambda: item.is_ready)
    n = len(discs.layers)
    dock.run.click()
    finish(dock)
    assert len(discs.layers) == n
    assert layer.data.max() == 4
    dock.undo.click()
    np.testing.assert_array_equal(layer.data, before)


def test_labels_that_were_opened_first_find_their_image(written, viewer, open_dock):
    viewer.open(str(written("ome-tiff")), plugin="napari-svpseg")
    layer = viewer.layers[0]
    np.testing.assert_allclose(layer.scale, (0.5, 0.5))
    open_dock()
    other = viewer.add_image(
        disc_image()[0], name="other", scale=(0.1, 0.1), units=("um", "um")
    )
    assert not is_of(layer, other)
    image = viewer.add_image(disc_image()[0], name="discs")
    assert is_of(layer, image, "labels") and shows(layer, palette_of(image))
    assert link(viewer) == []  # nothing is left to be put anywhere


def test_a_plain_image_stays_with_napari(tmp_path, viewer):
    image = tmp_path / "cells.ome.tif"
    tifffile.imwrite(image, np.zeros((9, 9), np.uint16), metadata={"axes": "YX"})
    colours = tmp_path / "a_labels.tif"
    tifffile.imwrite(colours, np.zeros((9, 9, 3), np.uint8), photometric="rgb")
    (tmp_path / "folder").mkdir()
    (tmp_path / "table.zip").write_bytes(b"no zip at all")
    (tmp_path / "map.geojson").write_text(json.dumps({"type": "Topology"}))
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "")
    for path in (image, colours, *tmp_path.iterdir()):
        assert kind_of_result(path) == ""
        assert readers.get_result_reader(str(path)) is None
    opened = viewer.open(str(image))  # nobody is asked which reader to take
    assert not isinstance(opened[0], Labels)


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_file_is_one_line(kind, written, model, monkeypatch):
    told = []
    monkeypatch.setattr(readers, "_tell", told.append)
    path = written(kind)
    for file in [path] if path.is_file() else list(path.rglob("c/**/0")):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 8])
    reader = readers.get_result_reader(str(path))
    if reader is not None:  # else it is declined, and napari says so
        assert reader(str(path)) == readers.NO_LAYERS
        assert len(told) == 1 and "\n" not in told[0]


def test_outlines_without_an_image_say_what_to_do(written, model, monkeypatch):
    told = []
    model.layers.clear()
    monkeypatch.setattr(readers, "_tell", told.append)
    assert readers.read_results(str(written("geojson"))) == readers.NO_LAYERS
    assert str(KINDS["geojson"]) in told[0]


def test_of_several_images_the_one_of_that_name_counts(written):
    viewer = ViewerModel()
    images = [viewer.add_image(disc_image()[0], name=n) for n in ("discs", "z")]
    layer = labels_layer(written("ome-tiff"), viewer)
    assert is_of(layer, images[0])
    images[0].name = "a"  # two that fit, and one of them is in sight
    layer = labels_layer(written("rois"), viewer)
    assert is_of(layer, images[1])


def test_labels_of_another_size_lie_on_no_image(tmp_path):
    viewer = ViewerModel()
    viewer.add_image(np.zeros((50, 60)), name="discs")
    path = write_labels(tmp_path / "discs_labels.ome.tif", disc_image()[1])
    assert not is_of(labels_layer(path, viewer), viewer.layers[0])


def test_a_model_is_installed_and_chosen(
    tmp_path, viewer, open_dock, runner, qtbot, monkeypatch
):
    dock = open_dock()
    folder = tmp_path / "mine"
    shutil.copytree(builtin_folder() / "svp", folder)
    cards = [ModelCard("svp", "svp"), ModelCard("mine", "svp", path=str(folder))]
    monkeypatch.setattr(model_store, "list_models", lambda folders=None: cards[:1])
    asked = []

    def install(emit, on_progress, path):
        asked.append(path)
        monkeypatch.setattr(model_store, "list_models", lambda folders=None: cards)
        return cards[1]

    runner.pretend["import_model"] = install
    readers.open_result(viewer, folder)
    qtbot.waitUntil(lambda: dock.model.currentText() == "mine")
    assert dock.message.text() == INSTALLED.format("mine")
    dock.models.choose("svp")
    readers.open_result(viewer, folder)  # it is there: nothing is installed twice
    assert dock.model.currentText() == "mine" and asked == [str(folder)]
