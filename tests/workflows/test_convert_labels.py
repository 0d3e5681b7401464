"""Conversion of labels: the same ids in every format, from every format."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import tifffile
from skimage.io import imread

from napari_svpseg.cli.main import main
from napari_svpseg.core.image import ImageError
from napari_svpseg.io.exports import ExportData, export
from napari_svpseg.io.images import read_image
from napari_svpseg.io.ownership import ReplaceError
from napari_svpseg.io.rois import OutlineError, read_geojson
from napari_svpseg.workflows.convert_labels import convert_labels

PLANE = np.zeros((20, 30), np.int32)
PLANE[2:9, 3:12] = 4
PLANE[4:6, 5:8] = 0
PLANE[9:15, 10:20] = 60_000
STACK = np.stack([PLANE, np.roll(PLANE, 3, 1), PLANE * 0])

ENDS = {
    ".ome.tif": "ome-tiff", ".zip": "rois", ".geojson": "geojson",
    ".npy": "npy", "_seg.npy": "cellpose-seg", "_cp_masks.tif": "cellpose-tif",
    "_cp_masks.png": "cellpose-png", ".zarr": "ome-zarr",
}  # fmt: skip
SIZE = {"pixel_size": (0.5, 0.25), "unit": "um"}


def read(path, tmp_path, like):
    """Return the ids in a file of any of our formats."""
    convert_labels(path, tmp_path / "read.npy", like, overwrite=True)
    return np.load(tmp_path / "read.npy")


@pytest.fixture
def image(tmp_path):
    """Return the file of an image that the labels belong to."""
    path = tmp_path / "image.ome.tif"
    pixels = np.arange(PLANE.size, dtype=np.uint16).reshape(PLANE.shape)
    metadata = {
        "axes": "YX", "PhysicalSizeY": 0.5, "PhysicalSizeX": 0.25,
        "PhysicalSizeYUnit": "µm", "PhysicalSizeXUnit": "µm",
    }  # fmt: skip
    tifffile.imwrite(path, pixels, ome=True, metadata=metadata)
    return path


@pytest.mark.parametrize("first", ENDS)
def test_there_and_back(tmp_path, image, first):
    if first == ".zarr":
        pytest.importorskip("zarr")
    source = export(tmp_path / f"a{first}", ENDS[first], ExportData(PLANE, **SIZE))
    for end in (".ome.tif", ".geojson", ".zip", "_seg.npy", ".png"):
        target = convert_labels(source, tmp_path / f"b{end}", image)
        np.testing.assert_array_equal(read(target, tmp_path, image), PLANE)
    found = read_image(tmp_path / "b.ome.tif")
    assert (found.pixel_size, found.unit) == ((0.5, 0.25), "um")
    np.testing.assert_array_equal(imread(tmp_path / "b.png"), PLANE)


def test_stacks_keep_their_axes(tmp_path):
    pytest.importorskip("zarr")
    data = ExportData(STACK, "TYX", **SIZE)
    path = export(tmp_path / "a.ome.tif", "ome-tiff", data)
    for name in ("b.zip", "c.zarr", "d.geojson", "e.ome.tif"):
        path = convert_labels(path, tmp_path / name, tmp_path / "a.ome.tif")
        np.testing.assert_array_equal(
            read(path, tmp_path, tmp_path / "a.ome.tif"), STACK
        )
    assert read_image(path).axes.order == "TYX"


def test_tables_have_the_intensities_of_the_image(tmp_path, image):
    source = export(tmp_path / "a.npy", "npy", ExportData(PLANE))
    target = convert_labels(source, tmp_path / "a.csv", image)
    with open(target, newline="") as file:
        rows = list(csv.DictReader(file))
    pixels = tifffile.imread(image)
    for row in rows:
        inside = int(row["label"]) == PLANE
        assert float(row["area_um2"]) == inside.sum() / 8
        assert float(row["intensity_mean"]) == pytest.approx(pixels[inside].mean())


def test_a_zarr_becomes_one_collection_in_pixels_of_the_full_image(
    tmp_path, monkeypatch
):
    pytest.importorskip("zarr")
    from napari_svpseg.core.labels import outlines

    monkeypatch.setattr(outlines.whole_objects, "__defaults__", (8,))  # many parts
    source = export(tmp_path / "a.zarr", "ome-zarr", ExportData(PLANE, **SIZE))
    target = convert_labels(source, tmp_path / "a.geojson")
    np.testing.assert_array_equal(read_geojson(target, PLANE.shape), PLANE)
    features = json.loads(target.read_text())["features"]
    areas = {f["properties"]["label"]: f["properties"] for f in features}
    assert {n: p["measurements"]["area_um2"] for n, p in areas.items()} == {
        n: (n == PLANE).sum() / 8 for n in (4, 60_000)
    }
    whole = tmp_path / "whole.tif"
    tifffile.imwrite(whole, np.zeros((41, 60), np.uint8))
    target = convert_labels(source, tmp_path / "b.geojson", whole)
    large = np.pad(PLANE.repeat(2, 0).repeat(2, 1), [(0, 1), (0, 0)])
    np.testing.assert_array_equal(read_geojson(target, large.shape), large)
    with pytest.raises(ValueError):  # ids are not resampled
        convert_labels(source, tmp_path / "b.npy", whole)


def test_what_cannot_be_converted_is_refused(tmp_path, image):
    source = export(tmp_path / "a.geojson", "geojson", ExportData(PLANE))
    for target, like, kind in (
        ("b.npy", None, ValueError),  # how large is the image?
        ("b.txt", image, ValueError),
        ("a.geojson", image, ReplaceError),  # itself
        ("image.ome.tif", image, ReplaceError),
    ):
        with pytest.raises(kind):
            convert_labels(source, tmp_path / target, like)
    small = tmp_path / "small.tif"
    tifffile.imwrite(small, np.zeros((2, 2), np.uint8))
    with pytest.raises(OutlineError):
        convert_labels(source, tmp_path / "b.npy", small)
    np.save(tmp_path / "half.npy", PLANE * 0.5 + 0.25)
    with pytest.raises(ImageError):
        convert_labels(tmp_path / "half.npy", tmp_path / "b.npy")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"a.geojson", "image.ome.tif", "small.tif", "half.npy"}


def test_files_of_others_are_kept(tmp_path):
    source = export(tmp_path / "a.npy", "npy", ExportData(PLANE))
    target = tmp_path / "b.ome.tif"
    target.write_bytes(b"the only copy")
    assert main(["convert", str(source), str(target)]) == 1
    assert target.read_bytes() == b"the only copy"
    assert main(["convert", str(source), str(target), "--overwrite"]) == 0
    np.testing.assert_array_equal(tifffile.imread(target), PLANE)
    assert main(["convert", str(source), str(target)]) == 0  # our own, unchanged


def test_the_labels_of_an_image_in_zarr_are_taken_and_not_its_pixels(tmp_path):
    zarr = pytest.importorskip("zarr")
    from ome_zarr.writer import write_image, write_labels

    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    write_image(np.full((20, 30), 7, np.uint16), group, axes="yx")
    write_labels(PLANE.astype(np.uint32), group, "mine", axes="yx")
    target = convert_labels(tmp_path / "a.zarr", tmp_path / "a.npy")
    np.testing.assert_array_equal(np.load(target), PLANE)
    write_labels(PLANE.astype(np.uint32) * 2, group, "more", axes="yx")
    with pytest.raises(ImageError):
        convert_labels(tmp_path / "a.zarr", tmp_path / "b.npy")
    named = tmp_path / "a.zarr" / "labels" / "more"
    np.testing.assert_array_equal(
        np.load(convert_labels(named, tmp_path / "b.npy")), PLANE * 2
    )
