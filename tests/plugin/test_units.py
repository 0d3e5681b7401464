"""One pixel size, in every unit, gives the same areas from every file and layer."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import tifffile
from napari.layers import Image, Labels

from napari_svpseg.core.labels.measure import object_sizes
from napari_svpseg.io.exports import ExportData, export
from napari_svpseg.io.images import read_image
from napari_svpseg.io.ome_zarr import read_zarr
from napari_svpseg.plugin.layers.images.image_source import ImageSource
from napari_svpseg.plugin.writers import write_layer

LABELS = np.zeros((24, 31), np.uint16)
LABELS[3:13, 5:13] = 7
LABELS[15:20, 20:29] = 2
HEIGHT_UM, WIDTH_UM = 0.5, 0.25

UNITS = {
    "um": ("um", "um", 1.0, 1.0),
    "microns": ("microns", "microns", 1.0, 1.0),
    "nm": ("nm", "nm", 1e3, 1e3),
    "mm": ("mm", "mm", 1e-3, 1e-3),
    "inch": ("inch", "inch", 1 / 25_400, 1 / 25_400),
    "angstrom": ("angstrom", "angstrom", 1e4, 1e4),
    "mixed": ("um", "nm", 1.0, 1e3),
    "mixed lengths": ("angstrom", "mm", 1e4, 1e-3),
    "pixel": ("pixel", "pixel", 1.0, 1.0),
    "one pixel": ("um", "pixel", 1.0, 1.0),
    "none": (None, None, 1.0, 1.0),
}
"""Units of Y and X, and how many of each a micrometre is."""

NOT_LENGTHS = ("pixel", "one pixel", "none")
SYMBOLS = {"um": "µm", "microns": "µm", "angstrom": "Å", "inch": "in"}
ZARR_NAMES = {
    "um": "micrometer",
    "microns": "micrometer",
    "nm": "nanometer",
    "mm": "millimeter",
}
RESOLUTION_UNITS = {"um": 5, "mm": 4, "inch": 2}


def sizes(case):
    unit_y, unit_x, per_y, per_x = UNITS[case]
    return (HEIGHT_UM * per_y, WIDTH_UM * per_x), (unit_y, unit_x)


def plain_tiff(folder, case):
    (height, width), (unit, _) = sizes(case)
    tifffile.imwrite(
        folder / "a.tif", LABELS, photometric="minisblack",
        resolution=(1 / width, 1 / height),
        resolutionunit=RESOLUTION_UNITS.get(unit, 1),
    )  # fmt: skip
    return read_image(folder / "a.tif")


def imagej_tiff(folder, case):
    (height, width), (unit_y, unit_x) = sizes(case)
    units = {"unit": unit_x, "yunit": unit_y} if unit_x else {}
    units = {k: r"\u00C5" if v == "angstrom" else v for k, v in units.items()}
    tifffile.imwrite(
        folder / "a.tif", LABELS, imagej=True, resolution=(1 / width, 1 / height),
        metadata={**units, "axes": "YX"},
    )  # fmt: skip
    return read_image(folder / "a.tif")


def ome_tiff(folder, case):
    metadata = {"axes": "YX"}
    for axis, size, unit in zip("YX", *sizes(case), strict=True):
        if unit:
            metadata[f"PhysicalSize{axis}"] = size
            metadata[f"PhysicalSize{axis}Unit"] = SYMBOLS.get(unit, unit)
    tifffile.imwrite(folder / "a.ome.tif", LABELS, ome=True, metadata=metadata)
    return read_image(folder / "a.ome.tif")


def zarr_image(folder, case):
    zarr = pytest.importorskip("zarr")
    from ome_zarr.format import format_from_version
    from ome_zarr.writer import write_multiscales_metadata

    scale, units = sizes(case)
    group = zarr.open_group(folder / "a.zarr", mode="w", zarr_format=3)
    group.create_array("0", data=LABELS, dimension_names=["y", "x"])
    axes = [
        {"name": a, "type": "space"}
        | ({"unit": ZARR_NAMES.get(unit, unit)} if unit else {})
        for a, unit in zip("yx", units, strict=True)
    ]
    write_multiscales_metadata(
        group,
        [
            {
                "path": "0",
                "coordinateTransformations": [{"type": "scale", "scale": list(scale)}],
            }
        ],
        fmt=format_from_version("0.5"),
        axes=axes,
    )
    return read_zarr(folder / "a.zarr")


FILES = {
    "ImageJ": (imagej_tiff, UNITS),
    "OME-TIFF": (ome_tiff, UNITS),
    "OME-Zarr": (zarr_image, UNITS),
    "TIFF": (plain_tiff, ("um", "mm", "inch", "pixel", "none")),
}
CASES = [(name, case) for name, (_, cases) in FILES.items() for case in cases]


def exported(image, folder):
    """Write all that a folder run writes of these pixels."""
    data = ExportData(
        LABELS, "YX", image.pixel_size, image.unit, image.z_step, origin=image.origin
    )
    return [
        export(folder / f"out{end}", kind, data)
        for kind, end in (("csv", ".csv"), ("ome-tiff", ".ome.tif"))
    ]


def check_table(path, case):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["2", "7"]
    if case in NOT_LENGTHS:
        assert not [name for name in rows[0] if "_um" in name]
        return
    for row, n in zip(rows, (45, 80), strict=True):
        area = n * HEIGHT_UM * WIDTH_UM
        assert float(row["area_um2"]) == pytest.approx(area, rel=1e-4)


def check_sizes(pixel_size, unit, case):
    if case in NOT_LENGTHS:
        assert pixel_size is None or unit == "pixel"
    else:
        assert pixel_size == pytest.approx((HEIGHT_UM, WIDTH_UM), rel=1e-4)
        assert unit == "um"


@pytest.mark.parametrize(("kind", "case"), CASES)
def test_areas_of_files_are_right_in_every_unit(tmp_path, kind, case):
    image = FILES[kind][0](tmp_path, case)
    check_sizes(image.pixel_size, image.unit, case)
    table, labels = exported(image, tmp_path)
    check_table(table, case)
    again = read_image(labels)
    check_sizes(again.pixel_size, again.unit, case)
    found = object_sizes(LABELS, image.pixel_size, image.unit)["pixel_area"]
    area = np.nan if case in NOT_LENGTHS else HEIGHT_UM * WIDTH_UM
    assert found == pytest.approx(area, rel=1e-4, nan_ok=True)


@pytest.mark.parametrize("case", UNITS)
def test_areas_of_layers_are_right_in_every_unit(tmp_path, case):
    scale, units = sizes(case)
    more = {} if units[0] is None else {"units": units}
    layer = Labels(LABELS, scale=scale, **more)
    check_table(write_layer(str(tmp_path / "a.csv"), layer), case)
    written = read_image(write_layer(str(tmp_path / "a.ome.tif"), layer))
    check_sizes(written.pixel_size, written.unit, case)
    source = ImageSource.of(Image(LABELS, scale=scale, **more), "YX")
    check_sizes(*source.pixel_size(), case)


def test_planes_have_a_unit_of_their_own(tmp_path):
    stack = np.stack([LABELS, LABELS])
    tifffile.imwrite(
        tmp_path / "a.tif", stack, imagej=True, resolution=(2, 2),
        metadata={"axes": "ZYX", "unit": "um", "zunit": "nm", "spacing": 500.0},
    )  # fmt: skip
    assert read_image(tmp_path / "a.tif").z_step == pytest.approx(0.5)
    layer = Labels(stack, scale=(500, 0.5, 0.5), units=("nm", "um", "um"))
    written = read_image(write_layer(str(tmp_path / "b.ome.tif"), layer))
    assert written.z_step == pytest.approx(0.5)
    layer = Labels(stack, scale=(500, 0.5, 0.5), units=("pixel", "um", "um"))
    written = read_image(write_layer(str(tmp_path / "c.ome.tif"), layer))
    assert written.z_step is None
    assert written.pixel_size == pytest.approx((0.5, 0.5))


def test_dots_of_a_print_are_no_pixel_size(tmp_path):
    for dots in (72, 300, 1200):
        tifffile.imwrite(
            tmp_path / "a.tif", LABELS, resolution=(dots, dots), resolutionunit="INCH"
        )
        assert read_image(tmp_path / "a.tif").pixel_size is None


@pytest.mark.parametrize(
    "place",
    [
        {"affine": np.diag([0.5, 0.25, 1])},
        {"scale": (-0.5, 0.25)},
        {"scale": (2, 2), "affine": np.diag([0.25, 0.125, 1])},
        {"scale": (0.25, 0.5), "rotate": 90},
        {"affine": [[0, 0.25, 7], [-0.5, 0, 9], [0, 0, 1]]},
    ],
)
def test_the_pixel_size_is_that_of_the_whole_map_to_the_world(tmp_path, place):
    layer = Labels(LABELS, units="um", **place)
    written = read_image(write_layer(str(tmp_path / "a.ome.tif"), layer))
    is_turned = "rotate" in place
    expected = (0.25, 0.5) if is_turned else (0.5, 0.25)
    assert written.pixel_size == pytest.approx(expected)
    source = ImageSource.of(Image(LABELS, units="um", **place), "YX")
    assert source.pixel_size() == (pytest.approx(expected), "um")


def test_a_position_is_kept_from_file_to_file(tmp_path):
    zarr = pytest.importorskip("zarr")
    layer = Labels(LABELS, scale=(500, 250), translate=(1200, 3400), units="nm")
    store = write_layer(str(tmp_path / "a.zarr"), layer)
    labels = read_zarr(store)
    assert labels.origin == pytest.approx({"Y": 1.2, "X": 3.4})
    data = ExportData(LABELS, "YX", labels.pixel_size, "um", origin=labels.origin)
    export(tmp_path / "b.zarr", "ome-zarr", data)
    group = zarr.open_group(tmp_path / "b.zarr", mode="r")
    levels = group.attrs["ome"]["multiscales"][0]["datasets"]
    for level in levels:
        moved = level["coordinateTransformations"][1]
        assert moved == {"type": "translation", "translation": [1.2, 3.4]}
    export(tmp_path / "c.ome.tif", "ome-tiff", data)
    again = read_image(tmp_path / "c.ome.tif")
    assert again.origin == pytest.approx({"Y": 1.2, "X": 3.4})
    assert (
        read_image(write_layer(str(tmp_path / "d.ome.tif"), Labels(LABELS))).origin
        == {}
    )
