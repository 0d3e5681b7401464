"""Labels in files, opened by other programs: ``make test-clients``."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from skimage.draw import disk
from tests.clients.calls import (
    needs_clients,
    open_with,
    open_with_bioformats,
    show_in_imagej,
)

from napari_svpseg.core.jobs.folder_job import file_stem, with_end
from napari_svpseg.io.exports import ExportData, export

pytestmark = needs_clients

LENGTHS = {"T": 3, "Z": 2, "Y": 61, "X": 83}
PIXEL_SIZE, Z_STEP = (0.325, 0.25), 2.0


def some_labels(axes, largest=70_001):
    """Return objects, one with a hole and one of two parts, in all planes but one."""
    plane = np.zeros((LENGTHS["Y"], LENGTHS["X"]), np.uint32)
    plane[disk((15, 15), 11)] = 2
    plane[12:18, 12:18] = 0
    plane[40:50, 5:30] = plane[52:60, 8:20] = 7
    plane[3:9, 60:83] = largest
    plane[30:60, 50:53] = 9
    labels = np.zeros([LENGTHS[a] for a in axes], np.uint32)
    for n, at in enumerate(np.ndindex(*labels.shape[:-2])):
        # each plane has another place and no plane is like its neighbour
        labels[at] = 0 if n == 1 else np.roll(plane, 3 * n, axis=1)
    return labels


def data_of(axes, **options):
    labels = some_labels(axes, options.pop("largest", 70_001))
    return ExportData(labels, axes, PIXEL_SIZE, "um", Z_STEP, **options)


def in_four(labels, axes):
    """Return labels as (T, Z, Y, X)."""
    return labels.reshape([LENGTHS[a] if a in axes else 1 for a in "TZYX"])


def opened(program, path, folder):
    """Return the pixels that another program reads, and what it says of them."""
    open_with("open_labels.py", program, path, folder)
    about = json.loads((folder / "about.json").read_text())
    return np.load(folder / "pixels.npy"), about


@pytest.mark.parametrize("axes", ["YX", "TYX", "ZYX", "TZYX"])
def test_ome_tiff_in_imagej(tmp_path, axes):
    data = data_of(axes)
    path = export(tmp_path / "a_labels.ome.tif", "ome-tiff", data)
    pixels, about = show_in_imagej(tmp_path / "out", path)
    assert np.array_equal(pixels, in_four(data.labels, axes))
    depth = Z_STEP if "Z" in axes else 1.0
    assert about["size"] == pytest.approx([depth, *PIXEL_SIZE])
    assert set(about["units"]) <= {"µm", "micron"}
    if axes != "YX":  # of a plane, ImageJ chooses the range by itself
        assert about["range"] == [0, 70_001]


@pytest.mark.parametrize("axes", ["YX", "TYX", "ZYX", "TZYX"])
def test_ome_tiff_with_bioformats(tmp_path, axes):
    data = data_of(axes, origin={"Y": 10.0, "X": -4.0})
    path = export(tmp_path / "a_labels.ome.tif", "ome-tiff", data)
    pixels, about = open_with_bioformats(tmp_path / "out", path)
    assert np.array_equal(pixels, in_four(data.labels, axes))
    assert about["size"] == [Z_STEP if "Z" in axes else None, *PIXEL_SIZE]
    assert about["position"] == [10, -4] and about["name"] == "a_labels"


@pytest.mark.parametrize("axes", ["YX", "TYX", "ZYX", "TZYX"])
@pytest.mark.parametrize("program", ["bioio_ome_tiff", "napari", "cv2", "PIL"])
def test_ome_tiff_in_python(tmp_path, axes, program):
    largest = 70_001 if program in ("bioio_ome_tiff", "napari") else 60_001
    data = data_of(axes, largest=largest)
    path = export(tmp_path / "a_labels.ome.tif", "ome-tiff", data)
    pixels, about = opened(program, path, tmp_path / "out")
    wanted = in_four(data.labels, axes) if len(axes) == 4 else data.labels
    assert np.array_equal(pixels.reshape(wanted.shape), wanted)
    if program == "bioio_ome_tiff":
        assert about["axes"] == axes and about["name"] == "a_labels"
        assert about["size"][1:] == list(PIXEL_SIZE)
    if program == "napari":
        assert pixels.shape == data.labels.shape


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("axes", ["YX", "TYX", "ZYX", "TZYX"])
def test_rois_in_imagej(tmp_path, axes, channels):
    """Each ROI lies on its frame and slice of an image that ImageJ has open."""
    data = data_of(axes, n_channels=channels)
    rois = export(tmp_path / "a.zip", "rois", data)
    image = np.zeros((*data.labels.shape[:-2], channels, 61, 83), np.uint8)
    tifffile.imwrite(
        tmp_path / "image.tif", image, imagej=True,
        metadata={"axes": f"{axes[:-2]}CYX"},
    )  # fmt: skip
    pixels, _ = show_in_imagej(tmp_path / "out", tmp_path / "image.tif", rois)
    assert np.array_equal(pixels, in_four(data.labels, axes))


@pytest.mark.parametrize("axes", ["YX", "TYX", "ZYX", "TZYX"])
def test_geojson_with_geopandas(tmp_path, axes):
    classes = {"nuclei": "#ff8000", "debris": "#0000ff"}
    data = data_of(axes, classes=classes, class_of={2: "nuclei", 7: "debris"})
    path = export(tmp_path / "a.geojson", "geojson", data)
    shape = in_four(data.labels, axes).shape
    (tmp_path / "shape.json").write_text(json.dumps(shape))
    pixels, about = opened("geopandas", path, tmp_path / "out")
    assert np.array_equal(pixels, in_four(data.labels, axes))
    assert about["is_ccw"] and about["types"] == ["detection"]
    known = dict(zip(about["labels"], about["classes"], strict=True))
    assert known[2] == {"name": "nuclei", "color": [255, 128, 0]}
    assert known[7] == {"name": "debris", "color": [0, 0, 255]}
    for row, area in zip(about["measured"], about["areas"], strict=True):
        assert row["area"] == area
        assert row["area_um2"] == pytest.approx(area * 0.325 * 0.25)


def test_table_with_pandas(tmp_path):
    labels = np.ones((1200, 1031), np.uint8)
    labels[0, 0] = 2
    path = export(tmp_path / "a.csv", "csv", ExportData(labels))
    rows, about = opened("pandas", path, tmp_path / "out")
    assert rows.tolist() == [[1, 1_237_199], [2, 1]]
    assert about["kinds"]["label"] == about["kinds"]["area"] == "int64"
    assert "object" not in about["kinds"].values()


@pytest.mark.parametrize("image", ["a.tif", "a.ome.tif", "b.c.png"])
@pytest.mark.parametrize("kind", ["cellpose-png", "cellpose-tif", "cellpose-seg"])
def test_cellpose_finds_masks_of_an_image(tmp_path, kind, image):
    largest = 60_001 if kind == "cellpose-png" else 70_001
    data = data_of("YX", largest=largest)
    pixels = np.full(data.labels.shape, 9, np.uint8)
    if image.endswith("png"):
        from PIL import Image

        Image.fromarray(pixels).save(tmp_path / image)
    else:
        tifffile.imwrite(tmp_path / image, pixels)
    name = with_end(file_stem(str(tmp_path / image)), kind, image)
    path = export(tmp_path / name, kind, data)
    found, about = opened("cellpose", path, tmp_path / "out")
    assert np.array_equal(found, data.labels)
    assert about == {"image": image, "mean": 9}


@pytest.mark.parametrize("axes", ["ZYX", "TZYX"])
def test_cellpose_reads_masks_of_a_stack(tmp_path, axes):
    data = data_of(axes)
    tifffile.imwrite(tmp_path / "a.tif", np.zeros(data.labels.shape, np.uint8))
    path = export(tmp_path / "a_cp_masks.tif", "cellpose-tif", data)
    found, _ = opened("cellpose", path, tmp_path / "out")
    assert np.array_equal(found, data.labels)


@pytest.mark.parametrize("program", ["napari", "skimage", "PIL", "cv2"])
def test_masks_png(tmp_path, program):
    data = data_of("YX", largest=60_001)
    path = export(tmp_path / "a_cp_masks.png", "cellpose-png", data)
    pixels, _ = opened(program, path, tmp_path / "out")
    assert np.array_equal(pixels, data.labels)


def test_masks_png_in_imagej(tmp_path):
    data = data_of("YX", largest=60_001)
    path = export(tmp_path / "a_cp_masks.png", "cellpose-png", data)
    pixels, _ = show_in_imagej(tmp_path / "out", path)
    assert np.array_equal(pixels[0, 0], data.labels)


@pytest.mark.parametrize("program", ["napari", "skimage"])
def test_masks_tif(tmp_path, program):
    data = data_of("TZYX")
    path = export(tmp_path / "a_cp_masks.tif", "cellpose-tif", data)
    pixels, _ = opened(program, path, tmp_path / "out")
    assert np.array_equal(pixels, data.labels)


@pytest.mark.parametrize("program", ["napari", "numpy"])
def test_npy(tmp_path, program):
    data = data_of("TZYX")
    path = export(tmp_path / "a.npy", "npy", data)
    pixels, _ = opened(program, path, tmp_path / "out")
    assert np.array_equal(pixels, data.labels)
