"""Exports: what every format refuses, and what others can read."""

from __future__ import annotations

import csv
import re

import numpy as np
import pytest
import tifffile

from napari_svpseg.io.exports import WRITERS, ExportData, export
from napari_svpseg.io.images import read_image
from napari_svpseg.io.label_files import NEGATIVE_IDS, NO_LABELS, NOT_WHOLE_NUMBERS

LABELS = np.pad(np.full((5, 6), 2, np.int32), 3)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS - 1, NEGATIVE_IDS),
        (LABELS * 0.5, NOT_WHOLE_NUMBERS),
        (LABELS * np.nan, NOT_WHOLE_NUMBERS),
        (LABELS.astype(complex), NOT_WHOLE_NUMBERS),
        (LABELS.astype(str), NOT_WHOLE_NUMBERS),
        (LABELS[:0], NO_LABELS),
    ],
)
def test_no_format_takes_what_are_no_ids(tmp_path, pattern, kind, labels, message):
    with pytest.raises(ValueError, match=pattern(message)):
        export(tmp_path / "a", kind, ExportData(labels))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["\x1b[31mred", "a\x07", "\udce9"], ids=ascii)
def test_names_that_xml_forbids_leave_ome_xml_that_can_be_read(tmp_path, name):
    path = tmp_path / f"{name}.ome.tif"
    try:
        path.touch()
    except (OSError, ValueError):
        pytest.skip("this system has no such names")
    path.unlink()
    data = ExportData(LABELS, pixel_size=(0.5, 0.5), unit="\x00")
    export(path, "ome-tiff", data)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.series[0].kind == "ome"
        assert not re.search("[\x00-\x08\x0b-\x1f]", tiff.ome_metadata or "")
        np.testing.assert_array_equal(tiff.asarray(), LABELS)


@pytest.mark.parametrize("size", [(-1.0, 1.0), (np.nan, 1.0), (0.0, 0.0)])
def test_a_pixel_size_that_is_no_length_gives_no_areas_in_it(tmp_path, size):
    data = ExportData(LABELS, pixel_size=size, unit="um")
    with open(export(tmp_path / "a.csv", "csv", data), newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["area"] == "30"
    assert not [column for column in row if column.endswith("um2")]


@pytest.mark.parametrize("unit", ["um", "nm", "pixel"])
def test_resolution_tags_say_the_pixel_size_to_programs_without_ome_xml(tmp_path, unit):
    factor = {"um": 1.0, "nm": 1000.0, "pixel": 1.0}[unit]
    size = (0.325 * factor, 0.25 * factor)
    data = ExportData(LABELS, pixel_size=size, unit=unit)
    with tifffile.TiffFile(export(tmp_path / "a.ome.tif", "ome-tiff", data)) as tiff:
        page = tiff.pages[0]
        found = [np.divide(*page.tags[f"{a}Resolution"].value) for a in "YX"]
        if unit == "pixel":
            assert page.resolutionunit == tifffile.RESUNIT.NONE
        else:
            assert page.resolutionunit == tifffile.RESUNIT.CENTIMETER
            assert found == pytest.approx([1e4 / 0.325, 1e4 / 0.25])


@pytest.mark.parametrize("axes", ["TYX", "ZYX", "TZYX"])
def test_imagej_has_a_description_of_a_stack_beside_ome_xml(tmp_path, axes):
    lengths = {"T": 3, "Z": 2, "Y": 11, "X": 12}
    labels = np.broadcast_to(LABELS, [lengths[a] for a in axes])
    data = ExportData(labels, axes, (0.5, 0.25), "um", 2.0)
    with tifffile.TiffFile(export(tmp_path / "a.ome.tif", "ome-tiff", data)) as tiff:
        codes = [tag.code for tag in tiff.pages[0].tags]
        assert codes == sorted(codes) and codes.count(270) == 2
        assert tiff.series[0].kind == "ome" and tiff.series[0].axes == axes
        # what ImageJ reads: the last description, and pixels for each of its unit
        about = tiff.imagej_metadata
        assert tiff.pages[0].resolution == (4, 2)
    assert about["frames"] == (3 if "T" in axes else 1)
    assert about["slices"] == (2 if "Z" in axes else 1)
    assert about["unit"] == "micron"
    assert about.get("spacing") == (2.0 if "Z" in axes else None)
    found = read_image(tmp_path / "a.ome.tif")
    assert found.axes.order == axes and found.pixel_size == (0.5, 0.25)
