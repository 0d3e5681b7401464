"""Zarr containers: bioformats2raw, plates, zip files, and names of channels."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr

from napari_svpseg.core.image import ImageError
from napari_svpseg.core.jobs.folder_job import BatchJob, file_label, image_name
from napari_svpseg.io.folder_records import find_images
from napari_svpseg.io.image_series import names_of_images
from napari_svpseg.io.ome_zarr import (
    image_folder,
    is_zarr,
    open_image,
    read_any,
    read_zarr,
)
from napari_svpseg.workflows.segment_large import segment_zarr

VERSIONS = ["0.4", "0.5"]


def write_attributes(group: zarr.Group, values: dict, version: str) -> None:
    group.attrs.update(values if version == "0.4" else {"ome": values})


def write_image(group: zarr.Group, value: int, version: str, n_channels: int = 1):
    """Write an image whose pixels have one value."""
    axes = [{"name": "c", "type": "channel"}] + [
        {"name": a, "type": "space", "unit": "micrometer"} for a in "yx"
    ]
    change = [{"type": "scale", "scale": [1, 0.5, 0.5]}]
    multiscale = {
        "version": version,
        "axes": axes,
        "datasets": [{"path": "0", "coordinateTransformations": change}],
    }
    names = [{"label": f"dye {n}"} for n in range(n_channels)]
    about = {"multiscales": [multiscale], "omero": {"channels": names}}
    write_attributes(group, about, version)
    group.create_array("0", data=np.full((n_channels, 20, 30), value, np.uint8))


def new_group(path: Path, version: str) -> zarr.Group:
    three = version == "0.5"
    return zarr.open_group(path, mode="w", zarr_format=3 if three else 2)


@pytest.fixture(params=VERSIONS)
def container(request, tmp_path) -> Path:
    """Return what bioformats2raw writes of a file with two images."""
    root = new_group(tmp_path / "slide.ome.zarr", request.param)
    write_attributes(root, {"bioformats2raw.layout": 3}, request.param)
    ome = root.create_group("OME")
    write_attributes(ome, {"series": ["0", "1"]}, request.param)
    for n in range(2):
        write_image(root.create_group(str(n)), n + 1, request.param)
    return tmp_path / "slide.ome.zarr"


@pytest.fixture(params=VERSIONS)
def plate(request, tmp_path) -> Path:
    """Return a plate of two wells with two and one field, and a well not taken."""
    path = tmp_path / "plate.zarr"
    root = new_group(path, request.param)
    wells = {"A/1": ("0", "1"), "B/2": ("0",)}
    about = {"plate": {"wells": [{"path": name} for name in (*wells, "C/3")]}}
    write_attributes(root, about, request.param)
    value = 0
    for well, fields in wells.items():
        group = root.create_group(well)
        images = {"well": {"images": [{"path": name} for name in fields]}}
        write_attributes(group, images, request.param)
        for name in fields:
            value += 1
            write_image(group.create_group(name), value, request.param)
    return path


def zipped(folder: Path, inside: str = "") -> Path:
    """Return a zip of a folder's content, or of the folder itself."""
    target = folder.with_name(f"{folder.name}.zip")
    with zipfile.ZipFile(target, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, Path(inside) / path.relative_to(folder))
    return target


def test_the_first_image_of_a_container_is_read_and_the_others_named(container):
    image = read_zarr(container, on_note=lambda note: None)
    assert np.unique(image.array[:]).tolist() == [1]
    assert len(image.notes) == 1
    assert image_folder(container) == container / "0"
    second = read_any(container / "1")
    assert np.unique(second.array[:]).tolist() == [2]
    assert not second.notes
    assert open_image(container, series=1).path == container / "1"
    with pytest.raises(ImageError):
        open_image(container, series=2)
    assert len(names_of_images(container)) == 2


def test_a_container_in_a_folder_run(container):
    root = container.parent
    job = BatchJob((str(root),), "", "out", series="all")
    assert find_images([root], job=job) == [container / "0", container / "1"]
    assert find_images([root]) == [container]


def test_all_fields_of_a_plate_are_images_of_a_run(plate):
    fields = find_images([plate])
    names = ["A/1/0", "A/1/1", "B/2/0"]
    assert fields == [plate / name for name in names]
    assert find_images([plate.parent]) == fields
    assert find_images([plate / "A" / "1"]) == fields[:2]
    values = [int(read_any(path).array[0, 0, 0]) for path in fields]
    assert values == [1, 2, 3]
    targets = [BatchJob(("a",), "", "out").targets(str(p))["ome-tiff"] for p in fields]
    assert len(set(targets)) == 3
    assert image_name(str(fields[1])) == "plate_A_1_1"
    assert file_label(str(fields[1])) == "plate.zarr/A/1/1"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("inside", ["", "a.zarr"])
def test_zip_files(tmp_path, version, inside):
    write_image(new_group(tmp_path / "a.zarr", version), 7, version, 2)
    path = zipped(tmp_path / "a.zarr", inside)
    shutil.rmtree(tmp_path / "a.zarr")
    assert is_zarr(path)
    image = read_any(path)
    assert (image.axes.order, image.pixel_size) == ("CYX", (0.5, 0.5))
    assert image.channel_names == ("dye 0", "dye 1")
    assert np.unique(image.array[:]).tolist() == [7]
    assert image_name(str(path)) == "a"
    assert find_images([tmp_path]) == [path]
    with pytest.raises(ValueError, match=r"-o labels\.zarr"):
        segment_zarr(path, None)


def test_a_zipped_container(container):
    path = zipped(container)
    assert np.unique(read_any(path / "1").array[:]).tolist() == [2]


def test_zips_of_other_things_are_no_images(tmp_path):
    with zipfile.ZipFile(tmp_path / "rois.zip", "w") as file:
        file.writestr("1.roi", b"x")
    (tmp_path / "broken.zip").write_bytes(b"PK")
    assert not any(is_zarr(path) for path in tmp_path.iterdir())


def test_what_a_zarr_says_counts(tmp_path):
    write_image(new_group(tmp_path / "a.zarr", "0.4"), 7, "0.4", 2)
    assert open_image(tmp_path / "a.zarr", axes="ZYX").axes.order == "CYX"


def test_axes_of_other_names_are_declared(tmp_path):
    group = new_group(tmp_path / "a.zarr", "0.4")
    write_image(group, 7, "0.4")
    about = dict(group.attrs)
    about["multiscales"][0]["axes"][0]["name"] = "angle"
    group.attrs.update(about)
    with pytest.raises(ImageError):
        open_image(tmp_path / "a.zarr")
    assert open_image(tmp_path / "a.zarr", axes="TYX").axes.order == "TYX"


@pytest.mark.parametrize("name", [".", "", "..", "../other.zarr", "/", "a"])
def test_a_container_that_leads_elsewhere_is_refused(tmp_path, name):
    root = new_group(tmp_path / "a.zarr", "0.4")
    root.attrs["bioformats2raw.layout"] = 3
    root.create_group("OME").attrs["series"] = [name]
    write_image(new_group(tmp_path / "other.zarr", "0.4"), 1, "0.4")
    with pytest.raises(ImageError, match=r"a\.zarr"):
        open_image(tmp_path / "a.zarr")
    assert image_folder(tmp_path / "a.zarr").parts[-1] != "other.zarr"
