"""OME-Zarr: what is read, what is written, and that others open it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import zarr

from napari_svpseg.core.image import AXES_UNKNOWN, ImageError
from napari_svpseg.core.result import Recipe
from napari_svpseg.io.ome_zarr import (
    LEVEL_ABSENT,
    NO_IMAGE,
    NOT_OME_ZARR,
    UNREADABLE,
    is_image,
    is_zarr,
    open_image,
)
from napari_svpseg.io.zarr_labels import (
    BAD_VERSION,
    LabelsLayout,
    chunk_windows,
    create_labels,
    open_level,
    publish_labels,
    read_labels_metadata,
    reduce_chunk,
)


def write_image(path, data, version="0.5", axes="yx", scale=None):
    """Write an OME-Zarr image of two levels with ome-zarr's own writer."""
    from ome_zarr.format import format_from_version
    from ome_zarr.writer import write_multiscales_metadata

    three = version == "0.5"
    group = zarr.open_group(path, mode="w", zarr_format=3 if three else 2)
    scale = scale or [0.5] * data.ndim
    datasets = []
    for level in range(2):
        step = tuple(slice(None, None, 2**level if a in "yx" else 1) for a in axes)
        factors = [2**level if a in "yx" else 1 for a in axes]
        group.create_array(str(level), data=data[step])
        datasets.append(
            {
                "path": str(level),
                "coordinateTransformations": [
                    {
                        "type": "scale",
                        "scale": [s * f for s, f in zip(scale, factors, strict=True)],
                    }
                ],
            }
        )
    kinds = {"t": "time", "c": "channel"}
    records = [
        {"name": a, "type": kinds.get(a, "space")}
        | ({} if a in kinds else {"unit": "micrometer"})
        for a in axes
    ]
    write_multiscales_metadata(
        group, datasets, fmt=format_from_version(version), axes=records
    )


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_axes_scale_and_level_are_read(tmp_path, version):
    data = np.arange(2 * 3 * 20 * 30, dtype=np.uint16).reshape(2, 3, 20, 30)
    write_image(tmp_path / "a.zarr", data, version, "czyx", [1, 2.0, 0.5, 0.25])
    image = open_image(tmp_path / "a.zarr")
    assert (image.axes.order, image.unit, image.version) == ("CZYX", "um", version)
    assert image.scale == {"Z": 2.0, "Y": 0.5, "X": 0.25}
    assert np.array_equal(image.array[1, 2, 3:5, 6:9], data[1, 2, 3:5, 6:9])
    low = open_image(tmp_path / "a.zarr", level=1)
    assert low.array.shape == (2, 3, 10, 15)
    assert low.scale == {"Z": 2.0, "Y": 1.0, "X": 0.5}


def test_a_damaged_chunk_is_told_with_the_name_of_its_store(tmp_path, pattern):
    zarr.create_array(tmp_path / "a.zarr", data=np.ones((8, 8), np.uint8))
    image = open_image(tmp_path / "a.zarr")
    assert np.asarray(image.array).sum() == 64 and image.array.chunks == (8, 8)
    (tmp_path / "a.zarr" / "c" / "0" / "0").write_bytes(b"no chunk")
    with pytest.raises(ImageError, match=pattern(UNREADABLE, path=tmp_path / "a.zarr")):
        image.array[:2, :2]


def test_unreadable_images_are_refused_in_one_line(tmp_path, pattern):
    with pytest.raises(
        ImageError, match=pattern(NO_IMAGE, path=tmp_path / "none.zarr")
    ):
        open_image(tmp_path / "none.zarr")
    write_image(tmp_path / "a.zarr", np.ones((8, 8), np.uint8))
    with pytest.raises(ImageError, match=pattern(LEVEL_ABSENT, last=1, level=5)):
        open_image(tmp_path / "a.zarr", level=5)
    zarr.open_group(tmp_path / "empty.zarr", mode="w")
    with pytest.raises(ImageError, match=pattern(NOT_OME_ZARR)):
        open_image(tmp_path / "empty.zarr")
    zarr.create_array(tmp_path / "plain.zarr", data=np.ones((2, 8, 8), np.uint8))
    with pytest.raises(ImageError, match=pattern(AXES_UNKNOWN, ndim=3)):
        open_image(tmp_path / "plain.zarr")
    assert open_image(tmp_path / "plain.zarr", axes="ZYX").axes.order == "ZYX"
    old = tmp_path / "a.zarr" / "zarr.json"
    text = old.read_text()
    old.write_text(text.replace('"0.5"', '"7"'))
    with pytest.raises(ImageError, match=pattern(NOT_OME_ZARR)):
        open_image(tmp_path / "a.zarr")
    old.write_text(text)
    array = tmp_path / "a.zarr" / "0" / "zarr.json"
    array.write_text(array.read_text().replace('"uint8"', '"uint9"'))
    with pytest.raises(ImageError, match=pattern(NOT_OME_ZARR)):
        open_image(tmp_path / "a.zarr")
    (tmp_path / "a.zarr" / "zarr.json").write_text("{")
    with pytest.raises(ImageError, match=pattern(UNREADABLE, path=tmp_path / "a.zarr")):
        open_image(tmp_path / "a.zarr")


def test_a_tiff_is_read_by_region(tmp_path):
    import tifffile

    data = np.random.default_rng(0).integers(0, 255, (3, 64, 80), np.uint8)
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        data,
        tile=(16, 16),
        metadata={
            "axes": "ZYX",
            "PhysicalSizeX": 0.2,
            "PhysicalSizeY": 0.4,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeYUnit": "µm",
            "PhysicalSizeZ": 1.5,
            "PhysicalSizeZUnit": "µm",
        },
    )
    image = open_image(tmp_path / "a.ome.tif")
    assert image.axes.order == "ZYX"
    assert image.scale == {"Y": 0.4, "X": 0.2, "Z": 1.5}
    assert np.array_equal(image.array[1, 5:20, 30:50], data[1, 5:20, 30:50])


def made(folder, labels, **more):
    layout = LabelsLayout(
        str(folder),
        labels.shape,
        (1,) * (labels.ndim - 2) + (256, 256),
        "ZYX"[-labels.ndim :],
        str(labels.dtype),
        (2.0, 0.5, 0.25)[-labels.ndim :],
        "um",
        **more,
    )
    create_labels(layout)
    open_level(folder)[:] = labels
    for level in range(1, len(layout.level_shapes)):
        for window in chunk_windows(layout, level):
            reduce_chunk(layout, level, window)
    return layout


def random_labels(shape=(700, 901), dtype=np.uint32):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 2**20, tuple(-(-n // 7) for n in shape)) + 70_000
    labels = np.repeat(np.repeat(coarse, 7, -1), 7, -2)
    return labels[..., : shape[-2], : shape[-1]].astype(dtype)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("inside", [False, True])
def test_labels_are_opened_by_ome_zarr(tmp_path, version, inside):
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    labels, store = random_labels(), tmp_path / "a.zarr"
    if inside:
        write_image(store, np.ones(labels.shape, np.uint8), version)
    layout = made(tmp_path / "work", labels, version=version)
    for _ in range(2):  # the second run replaces the first
        target = publish_labels(layout, store, "cells", Recipe("svp"), {"run": "abc"})
        layout = made(tmp_path / "work", labels, version=version)
    nodes = Reader(parse_url(target))()  # of the image too that they belong to
    node = next(n for n in nodes if n.data and n.data[0].dtype == "u4")
    shapes = [(700, 901), (350, 451)]
    assert [d.shape for d in node.data] == layout.level_shapes == shapes
    assert np.array_equal(np.asarray(node.data[0]), labels)
    assert np.array_equal(np.asarray(node.data[1]), labels[::2, ::2])
    attributes = dict(zarr.open_group(target, mode="r").attrs)
    ome = attributes if version == "0.4" else attributes["ome"]
    if inside:
        about = {"version": version, "source": {"image": "../../"}}
        assert ome["image-label"] == about
    axis = ome["multiscales"][0]["axes"][0]
    assert axis == {"name": "y", "type": "space", "unit": "micrometer"}
    assert (target == store) is not inside and is_image(store) and is_zarr(target)
    if inside:
        parent = dict(zarr.open_group(store / "labels", mode="r").attrs)
        assert parent.get("ome", parent)["labels"] == ["cells"]
    else:
        assert "image-label" not in ome and not (store / "labels").exists()
    stamp = read_labels_metadata(store, "cells")
    assert stamp["run"] == "abc"
    assert Recipe.from_json(json.dumps(stamp["recipe"])).model == "svp"


def test_ids_of_64_bits_and_stacks_are_kept(tmp_path):
    plane = random_labels((600, 300), np.uint64) + np.uint64(2**40)
    labels = np.stack([plane, plane[::-1]])
    layout = made(tmp_path / "work", labels)
    target = publish_labels(layout, tmp_path / "a.zarr", "cells", Recipe("svp"), {})
    image = open_image(target)
    assert image.scale == {"Z": 2.0, "Y": 0.5, "X": 0.25}
    assert np.array_equal(np.asarray(image.array[:]), labels)
    assert open_image(target, 1).array.shape == (2, 300, 150)


def test_another_version_is_refused(tmp_path, pattern):
    layout = made(tmp_path / "work", random_labels((20, 20)))
    message = pattern(BAD_VERSION, known="0.4 or 0.5", version="0.1")
    with pytest.raises(ValueError, match=message):
        replace(layout, version="0.1")
    assert read_labels_metadata(tmp_path, "cells") == {}
