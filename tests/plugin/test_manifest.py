"""What the manifest offers: widget, reader, writer, samples, menus, preferences."""

from __future__ import annotations

import ast
import subprocess
import sys
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import zarr
from npe2 import PluginManifest

import napari_svpseg
from napari_svpseg.core.geometry import Box
from napari_svpseg.core.prompt import Prompt, PromptSet
from napari_svpseg.io.images import read_image
from napari_svpseg.io.label_files import write_labels
from napari_svpseg.io.mask_files import read_mask
from napari_svpseg.io.ome_zarr import open_image
from napari_svpseg.io.ownership import ForeignTargetError, Origin, origin
from napari_svpseg.io.prompt_files import save_prompts
from napari_svpseg.io.rois import read_geojson, read_rois
from napari_svpseg.io.sample_images import nuclei_files
from napari_svpseg.plugin import file_dialogs, samples, writers
from napari_svpseg.plugin import manifest as hooks
from napari_svpseg.plugin.docks.actions import KEYS
from napari_svpseg.plugin.services.preferences import DEFAULTS, preference

MANIFEST = Path(napari_svpseg.__file__).parent / "napari.yaml"

ASK = """
import sys
import napari
viewer = napari.Viewer(show=False)
_, dock = viewer.window.add_plugin_dock_widget("napari-svpseg", "Segment from prompts")
_, weak = viewer.window.add_plugin_dock_widget("napari-svpseg", "Train from tags")
viewer.window.add_plugin_dock_widget("napari-svpseg", "Fine-tune")
import napari_svpseg.plugin.manifest, napari_svpseg.plugin.writers
import napari_svpseg.plugin.samples, napari_svpseg.api
viewer.open_sample("napari-svpseg", "tissue")
dock.prompt_panel.add_prompt_at_centre()
loaded = [m for m in ("torch", "napari_svpseg.models.base") if m in sys.modules]
dock.engine.close()
viewer.close()
print("LOADED", loaded)
"""


@pytest.fixture
def manifest():
    return PluginManifest.from_file(MANIFEST)


@pytest.fixture
def prompts():
    image = np.random.default_rng(0).integers(0, 255, (80, 80, 3)).astype(np.uint8)
    labels = np.zeros((80, 80), int)
    labels[20:40, 20:40] = 1
    return PromptSet([Prompt.from_image(image, labels, Box(5, 5), name="cells")])


def test_every_command_of_the_manifest_exists(manifest):
    assert manifest.name == "napari-svpseg" and manifest.schema_version == "0.2.1"
    for command in manifest.contributions.commands:
        assert callable(_load(command.python_name)), command.id


def test_each_command_needs_nothing_that_napari_does_not_have(manifest):
    contributions = manifest.contributions
    samples = {sample.command for sample in contributions.sample_data}
    widgets = {widget.command for widget in contributions.widgets}
    in_palette = [c for c in contributions.commands if c.id not in samples | widgets]
    assert len(in_palette) > 25
    for command in in_palette:
        for name, known in signature(_load(command.python_name)).parameters.items():
            assert name == "viewer" or known.default is not known.empty, command.id


def test_each_action_of_a_dock_has_a_command(manifest):
    named = {c.id.split(".", 1)[1] for c in manifest.contributions.commands}
    assert set(KEYS) <= named


def test_the_palette_saves_the_selected_labels(viewer, tmp_path, monkeypatch):
    import napari

    told = []
    monkeypatch.setattr(napari, "current_viewer", lambda: viewer)
    monkeypatch.setattr(file_dialogs, "show_info", told.append)
    assert writers.write_ome_tiff() == [] and told == [file_dialogs.SELECT_LABELS]
    labels = np.zeros((20, 30), np.uint16)
    labels[3:9, 4:9] = 7
    viewer.add_labels(labels, name="mine")
    viewer.add_image(labels)
    target = str(tmp_path / "mine")
    monkeypatch.setattr(
        file_dialogs.QFileDialog, "getSaveFileName", lambda *_: (target, "")
    )
    assert writers.write_ome_tiff() == [f"{target}.ome.tif"]
    np.testing.assert_array_equal(read_image(f"{target}.ome.tif").array, labels)
    failed = []
    monkeypatch.setattr(file_dialogs, "show_error", failed.append)
    assert writers.write_ome_tiff() == [] and len(failed) == 1  # it is not replaced
    monkeypatch.setattr(
        file_dialogs.QFileDialog, "getSaveFileName", lambda *_: ("", "")
    )
    assert writers.write_csv() == [] and len(failed) == 1


def test_the_palette_opens_a_prompt_set(
    viewer, open_dock, tmp_path, prompts, monkeypatch
):
    import napari

    path = str(save_prompts(prompts, tmp_path / "cells.svprompt"))
    dock = open_dock()
    monkeypatch.setattr(napari, "current_viewer", lambda: viewer)
    monkeypatch.setattr(
        file_dialogs.QFileDialog, "getOpenFileName", lambda *_: (path, "")
    )
    assert hooks.get_prompt_reader() is None
    assert [i.name for i in dock.book.items] == ["cells"]


def _load(name):
    module, _, attribute = str(name).partition(":")
    return getattr(__import__(module, fromlist=[attribute]), attribute)


def test_the_gui_never_loads_torch():
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert "LOADED []" in done.stdout, done.stdout + done.stderr


def test_a_prompt_file_opens_as_crops_and_masks(tmp_path, prompts):
    path = save_prompts(prompts, tmp_path / "cells.svprompt")
    reader = hooks.get_prompt_reader(str(path))
    (crop, crop_meta, _), (mask, _, kind) = reader(str(path))
    assert crop.shape == (64, 64, 3) and crop.dtype == np.uint8 and crop_meta["rgb"]
    np.testing.assert_array_equal(mask, prompts[0].mask)
    assert kind == "labels"
    assert hooks.get_prompt_reader("cells.tif") is None


@pytest.mark.parametrize(("dtype", "top"), [("f4", 1), ("u1", 255), ("u2", 4000)])
def test_colours_of_a_prompt_are_seen_whatever_their_type(tmp_path, dtype, top):
    ramp = np.linspace(0, top, 80)[None, :, None] * np.ones((80, 1, 3))
    labels = np.zeros((80, 80), int)
    labels[20:40, 20:40] = 1
    prompt = Prompt.from_image(ramp.astype(dtype), labels, (8, 8), rgb=True)
    path = save_prompts(PromptSet([prompt]), tmp_path / "a.svprompt")
    (crop, attributes, _), *_ = hooks.read_prompts(str(path))
    assert attributes["rgb"]
    expected = np.linspace(0, 255, 80)[8:72]
    np.testing.assert_allclose(crop[0, :, 0], expected, atol=3)


def test_a_prompt_file_dropped_on_the_viewer_joins_the_list(
    viewer, open_dock, tmp_path, prompts, monkeypatch
):
    import napari

    path = save_prompts(prompts, tmp_path / "cells.svprompt")
    dock = open_dock()
    monkeypatch.setattr(napari, "current_viewer", lambda: viewer)
    assert hooks.read_prompts(str(path)) == [(None,)]
    assert [i.name for i in dock.book.items] == ["cells"]
    assert len(viewer.layers) == 0


def test_napari_saves_labels_through_our_writer(viewer, tmp_path):
    labels = np.zeros((40, 50), np.uint32)
    labels[3:9, 4:9] = 70_000
    layer = viewer.add_labels(labels, scale=(0.5, 0.25), units=("um", "um"))
    target = tmp_path / "mine.ome.tif"
    assert layer.save(str(target), plugin="napari-svpseg") == [str(target)]
    found = read_image(target)
    np.testing.assert_array_equal(found.array, labels)
    assert found.array.dtype == np.uint32
    assert found.pixel_size == pytest.approx((0.5, 0.25))


def test_a_kept_channel_axis_is_not_written(tmp_path):
    data = np.ones((3, 1, 20, 30), np.uint16)
    meta = {
        "metadata": {"svpseg": {"kind": "labels", "axes": "TCYX"}},
        "scale": (1, 2, 1, 1),
    }
    (written,) = writers.write_ome_tiff(str(tmp_path / "t.ome.tif"), data, meta)
    found = read_image(written)
    assert found.array.shape == (3, 20, 30) and found.axes.order == "TYX"


def test_stacks_of_the_user_keep_their_own_axes(tmp_path):
    meta = {"scale": (1, 1, 1), "axis_labels": ("t", "y", "x")}
    (written,) = writers.write_ome_tiff(
        str(tmp_path / "t.ome.tif"), np.ones((3, 20, 30), np.uint8), meta
    )
    assert read_image(written).axes.order == "TYX"


def test_samples_are_ready_to_run(viewer, open_dock):
    for make, image in (
        (samples.stained_tissue, "tissue"),
        (samples.drawn_cells, "drawn 1"),
    ):
        viewer.layers.clear()
        dock = open_dock()
        for data, meta, kind in make():
            getattr(viewer, f"add_{kind}")(data, **meta)
        (item,) = dock.book.items
        assert item.source.name == image and item.is_ready
        assert item.n_objects >= 3
        dock.book.close()


def test_the_nuclei_come_from_files_alone(tmp_path, monkeypatch):
    import tifffile

    folder = tmp_path / "stardist" / "data" / "images"
    folder.mkdir(parents=True)
    (tmp_path / "stardist" / "__init__.py").write_text("raise SystemExit('imported')")
    image = np.random.default_rng(0).integers(0, 900, (100, 120)).astype(np.uint16)
    labels = np.zeros((100, 120), np.uint16)
    labels[40:50, 60:70] = 1
    monkeypatch.syspath_prepend(str(tmp_path))
    if nuclei_files() is None:
        tifffile.imwrite(folder / "img2d.tif", image)
        tifffile.imwrite(folder / "mask2d.tif", labels)
    layers = samples.nuclei()
    assert [kind for _, _, kind in layers] == ["image", "labels", "shapes"]
    assert "stardist" not in sys.modules
    (corners,) = layers[2][0]
    assert corners.min() >= -0.5


def test_add_prompt_command_finds_the_dock(viewer, discs, open_dock):
    dock = open_dock()
    hooks.add_prompt(viewer)
    (item,) = dock.book.items
    assert item.box.fits((96, 110))


def test_preferences_have_defaults(manifest):
    for name, value in DEFAULTS.items():
        assert type(preference(name)) is type(value)
    engine = manifest.contributions.configurations["engine"]
    offered = {name: one.default for name, one in engine.properties.items()}
    assert offered == DEFAULTS


def test_each_preference_is_read_and_no_other():
    read = set()
    for file in (MANIFEST.parent / "plugin").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            name = getattr(getattr(node, "func", None), "id", "")
            if name == "preference":
                read.add(node.args[0].value)
    assert read == set(DEFAULTS)


def test_boxes_of_a_sample_have_the_layer_mark():
    data = samples.stained_tissue()
    marks = [meta.get("metadata", {}) for _, meta, _ in data]
    assert any(m.get("svpseg", {}).get("kind") == "boxes" for m in marks)


@pytest.mark.parametrize("end", [".ome.tif", ".zip", ".geojson", ".csv", ".zarr"])
def test_napari_saves_labels_in_each_format(viewer, tmp_path, end):
    labels = np.zeros((2, 20, 30), np.uint32)
    labels[0, 2:5, 3:7] = 70_001
    labels[0, 3, 4] = 0
    labels[1, 12:15, 3:7] = 2
    layer = viewer.add_labels(
        labels, name="mine", scale=(2, 0.5, 0.5), units=("um",) * 3,
        axis_labels=("z", "y", "x"),
    )  # fmt: skip
    path = tmp_path / f"mine{end}"
    viewer.layers.selection = {layer}
    saved = viewer.layers.save(str(path), selected=True, plugin="napari-svpseg")
    assert saved == [str(path)]
    if end == ".csv":
        names, first, second = path.read_text().splitlines()
        row = dict(zip(names.split(","), first.split(","), strict=True))
        assert (row["label"], row["z"]) == ("70001", "0") and second.startswith("2,1,")
        assert (row["area"], row["area_um2"]) == ("11", "2.75")
        return
    read = {
        ".ome.tif": lambda: read_image(path).array,
        ".zip": lambda: read_rois(path, labels.shape, axes="ZYX"),
        ".geojson": lambda: read_geojson(path, labels.shape, axes="ZYX"),
        ".zarr": lambda: open_image(path).array[:],
    }[end]
    np.testing.assert_array_equal(read(), labels)


def test_a_file_that_the_dialog_asked_about_is_replaced_but_no_folder(tmp_path):
    ids = np.ones((20, 30), np.uint8)
    path, store = tmp_path / "a.ome.tif", tmp_path / "a.zarr"
    write_labels(path, 2 * ids)
    writers.write_ome_tiff(str(path), ids, {})
    assert (read_image(path).array == 1).all()
    assert origin(path) is not Origin.OURS  # no run replaces it
    zarr.create_array(store, data=ids)
    with pytest.raises(ForeignTargetError):
        writers.write_ome_zarr(str(store), ids, {})
    assert zarr.open_array(store, mode="r")[:].all()


@pytest.mark.parametrize("name", ["a.png", "a_cp_masks.tif", "a_seg.npy", "a.npy"])
def test_other_formats_are_in_the_save_dialog(tmp_path, name):
    labels = np.zeros((9, 8), np.int32)
    labels[2:5, 3:6] = 300
    offered = PluginManifest.from_file(MANIFEST).contributions
    (one,) = [
        writer.command
        for writer in offered.writers
        if name.endswith(tuple(writer.filename_extensions))
    ]
    (hook,) = [c.python_name for c in offered.commands if c.id == one]
    write = getattr(writers, hook.rpartition(":")[2])
    (written,) = write(str(tmp_path / name), labels, {})
    np.testing.assert_array_equal(read_mask(written), labels)
