"""Outlines: what is read back is what was written, pixel for pixel."""

from __future__ import annotations

import json
import uuid
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_svpseg.core.image import AXES_MISMATCH
from napari_svpseg.core.labels.measure import measure
from napari_svpseg.core.labels.outlines import Part, fill, outlines, rasterise
from napari_svpseg.io.rois import (
    NO_GEOJSON,
    NO_ROIS,
    Facts,
    OutlineError,
    read_geojson,
    read_rois,
    write_geojson,
    write_rois,
)

FORMATS = {
    "rois": (write_rois, read_rois, "cells.zip"),
    "geojson": (write_geojson, read_geojson, "cells.geojson"),
}
planes = arrays(
    np.int64,
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    elements=st.sampled_from([0, 0, 1, 2, 70_000, 2**40]),
)
drawings = {
    "one pixel": [[0, 0, 0], [0, 5, 0], [0, 0, 0]],
    "touching": [[1, 1, 2, 2], [1, 3, 3, 2], [3, 3, 3, 3]],
    "ring": [[1, 1, 1], [1, 0, 1], [1, 1, 1]],
    "ring with an island": [
        [4, 4, 4, 4, 4],
        [4, 0, 0, 0, 4],
        [4, 0, 4, 0, 4],
        [4, 0, 0, 0, 4],
        [4, 4, 4, 4, 4],
    ],
    "another inside": [[1, 1, 1], [1, 2, 1], [1, 1, 1]],
    "by a corner": [[1, 0], [0, 1]],
    "by the other corner": [[0, 1], [1, 0]],
    "hole that opens by a corner": [[0, 1, 1], [1, 0, 1], [1, 1, 1]],
    "two holes by a corner": [
        [1, 1, 1, 1],
        [1, 0, 1, 1],
        [1, 1, 0, 1],
        [1, 1, 1, 1],
    ],
    "several parts": [[3, 0, 3], [0, 0, 0], [3, 3, 0]],
    "whole image": [[9, 9], [9, 9]],
    "empty": [[0, 0], [0, 0]],
}


@pytest.fixture(params=FORMATS)
def form(request):
    return FORMATS[request.param]


@pytest.mark.parametrize("name", drawings)
def test_each_drawing_comes_back(name, form, tmp_path: Path) -> None:
    write, read, file = form
    labels = np.array(drawings[name])
    write(tmp_path / file, labels)
    assert np.array_equal(read(tmp_path / file, labels.shape), labels)


@settings(max_examples=60, deadline=None)
@given(labels=planes)
def test_any_labels_come_back_from_rois(labels, tmp_path_factory) -> None:
    path = write_rois(tmp_path_factory.getbasetemp() / "any.zip", labels)
    assert np.array_equal(read_rois(path, labels.shape), labels)


@settings(max_examples=60, deadline=None)
@given(labels=planes)
def test_any_labels_come_back_from_geojson(labels, tmp_path_factory) -> None:
    path = write_geojson(tmp_path_factory.getbasetemp() / "any.geojson", labels)
    assert np.array_equal(read_geojson(path, labels.shape), labels)


@settings(max_examples=150, deadline=None)
@given(labels=planes)
def test_polygons_are_valid_and_have_the_area_of_their_pixels(labels) -> None:
    from shapely.geometry import Polygon

    found = outlines(labels)
    assert [o.label for o in found] == [i for i in np.unique(labels) if i]
    for outline in found:
        shapes = [
            Polygon(p.exterior[:, ::-1], [hole[:, ::-1] for hole in p.holes])
            for p in outline.parts
        ]
        assert all(shape.is_valid for shape in shapes)
        area = sum(shape.area for shape in shapes)
        assert area == (labels == outline.label).sum()


def test_an_outline_that_lost_its_hole_would_be_noticed() -> None:
    ring = np.array(drawings["ring"])
    [outline] = outlines(ring)
    assert np.array_equal(fill(outline.rings, ring.shape), ring > 0)
    filled = fill(Part(outline.parts[0].exterior).rings, ring.shape)
    assert not np.array_equal(filled, ring > 0)


def test_planes_of_a_stack_keep_their_place(form, tmp_path: Path) -> None:
    write, read, file = form
    labels = np.zeros((2, 3, 6, 5), np.uint32)
    labels[0, 1, 1:3, 1:3] = 8
    labels[1, 2, 1:3, 1:3] = 8  # the same object, later and deeper
    labels[1, 0, 4, 4] = 100_000
    write(tmp_path / file, labels, axes="TZYX")
    assert np.array_equal(read(tmp_path / file, labels.shape, axes="TZYX"), labels)


def test_x_before_y_is_kept(form, tmp_path: Path) -> None:
    write, read, file = form
    labels = np.zeros((6, 4), int)
    labels[1:5, 2] = 3
    write(tmp_path / file, labels, axes="XY")
    assert np.array_equal(read(tmp_path / file, (4, 6)), labels.T)
    assert np.array_equal(read(tmp_path / file, (6, 4), axes="XY"), labels)


def test_rois_far_out_in_large_images_do_not_wrap(tmp_path: Path) -> None:
    labels = np.zeros((3, 70_000), np.uint8)
    labels[1, 40_000:40_004] = 1
    labels[1, 69_990:69_993] = 2
    labels[0, 5] = 3
    path = write_rois(tmp_path / "wide.zip", labels)
    assert np.array_equal(read_rois(path, labels.shape), labels)


def test_roifile_sees_what_imagej_would(tmp_path: Path) -> None:
    import roifile

    labels = np.zeros((8, 8), int)
    labels[2:5, 3:7] = 12
    labels[3, 4] = 0
    labels[7, 7] = 70_001
    rois = roifile.roiread(write_rois(tmp_path / "cells.zip", labels))
    ring, pixel = sorted(rois, key=lambda roi: int(roi.name))
    assert (ring.name, pixel.name) == ("12", "70001")
    assert ring.composite and len(ring.coordinates(multi=True)) == 2
    assert (pixel.left, pixel.top, pixel.right, pixel.bottom) == (7, 7, 8, 8)
    assert pixel.roitype == roifile.ROI_TYPE.TRACED
    corners = {tuple(c) for c in pixel.coordinates()}
    assert corners == {(7, 7), (8, 7), (8, 8), (7, 8)}


def test_rois_of_fiji_are_numbered(tmp_path: Path) -> None:
    import roifile

    square = np.array([[1, 1], [4, 1], [4, 3], [1, 3]])  # x, y
    path = tmp_path / "fiji.zip"
    names = ["0001-0002", "0003-0002"]
    with zipfile.ZipFile(path, "w") as archive:
        for n, name in enumerate(names):
            roi = roifile.ImagejRoi.frompoints(square + 5 * n, name=name)
            archive.writestr(f"{name}.roi", roi.tobytes())
    labels = read_rois(path, (10, 10))
    assert np.unique(labels).tolist() == [0, 1, 2]
    assert (labels == 1).sum() == 6 and (labels[1:3, 1:4] == 1).all()


def test_geojson_is_what_qupath_expects(tmp_path: Path) -> None:
    labels = np.zeros((4, 5), int)
    labels[1, 3] = 6
    colors = {"round cells": "#ff8000"}
    table = measure(labels, pixel_size=(0.5, 0.5))
    facts = Facts(class_of={6: "round cells"}, colors=colors, table=table)
    path = write_geojson(tmp_path / "a.geojson", labels, facts=facts)
    [feature] = json.loads(path.read_text())["features"]
    assert feature["geometry"] == {
        "type": "Polygon",
        "coordinates": [[[3, 1], [4, 1], [4, 2], [3, 2], [3, 1]]],
    }
    assert uuid.UUID(feature["id"])
    found = feature["properties"]
    color = [255, 128, 0]
    assert found["classification"] == {"name": "round cells", "color": color}
    assert found["objectType"] == "detection"
    assert found["measurements"]["area"] == 1
    assert found["measurements"]["area_um2"] == 0.25
    assert not [name for name in found["measurements"] if "centroid" in name]
    assert None not in found["measurements"].values()


def test_rings_run_as_rfc_7946_demands_and_ids_are_unique(tmp_path: Path) -> None:
    stack = np.zeros((2, 9, 9), int)
    stack[0] = np.pad(np.pad(np.zeros((3, 3), int), 2, constant_values=4), 1)
    stack[1] = np.where(np.indices((9, 9)).sum(0) % 4 > 1, 4, 7)
    table = measure(stack, axes="TYX")
    path = write_geojson(
        tmp_path / "a.geojson", stack, axes="TYX", facts=Facts(table=table)
    )
    features = json.loads(path.read_text())["features"]
    n_holes = 0
    for feature in features:
        geometry = feature["geometry"]
        parts = geometry["coordinates"]
        for part in [parts] if geometry["type"] == "Polygon" else parts:
            assert all(ring[0] == ring[-1] for ring in part)
            areas = [signed_area(np.array(ring)) for ring in part]
            assert areas[0] > 0 and all(area < 0 for area in areas[1:])
            n_holes += len(part) - 1
        at = geometry["plane"]["t"]
        pixels = (stack[at] == feature["properties"]["label"]).sum()
        assert feature["properties"]["measurements"]["area"] == pixels
    assert n_holes
    assert len({feature["id"] for feature in features}) == len(features) == 3


def signed_area(ring: np.ndarray) -> float:
    """Return the area of a closed ring (x, y), above 0 if it is counterclockwise."""
    x, y = ring.T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


def test_geopandas_reads_the_same_objects(tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    labels = np.where(np.indices((9, 9)).sum(0) % 4 > 1, 4, 7)
    path = write_geojson(tmp_path / "a.geojson", labels)
    frame = geopandas.read_file(path).set_crs(None, allow_override=True)
    assert frame.is_valid.all()
    areas = dict(zip(frame["label"], frame.area, strict=True))
    assert areas == {n: (labels == n).sum() for n in (4, 7)}


@pytest.mark.parametrize("kind", ["POINT", "POLYLINE", "ANGLE", "FREELINE"])
def test_lines_and_points_are_no_objects(tmp_path: Path, kind: str) -> None:
    import roifile

    roi = roifile.ImagejRoi.frompoints([[5, 5], [30, 5], [30, 30]], name="1")
    roi.roitype = roifile.ROI_TYPE[kind]
    roi.tofile(tmp_path / "a.roi")
    assert not read_rois(tmp_path / "a.roi", (40, 60)).any()


def test_geojson_of_others(tmp_path: Path) -> None:
    point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 1]}}
    triangle = {
        "type": "Feature",
        "properties": None,
        "geometry": {
            "type": "Polygon",
            "coordinates": [[[0, 0, 0], [8.4, 0, 0], [0, 8.4, 0], [0, 0, 0]]],
        },
    }
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps([point, triangle]))
    labels = read_geojson(path, (6, 20))
    y, x = np.indices(labels.shape) + 0.5
    assert np.array_equal(labels == 1, y + x < 8.4)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"features": 3}'])
def test_other_files_are_refused_by_name(
    content, form, tmp_path: Path, pattern
) -> None:
    _, read, file = form
    (tmp_path / file).write_text(content)
    message = NO_ROIS if read is read_rois else NO_GEOJSON
    with pytest.raises(OutlineError, match=pattern(message, path=tmp_path / file)):
        read(tmp_path / file, (4, 4))


def test_later_outlines_lie_on_top_and_what_is_outside_is_cut() -> None:
    first, second = outlines(np.array([[1, 1, 0, 2, 2]]))
    moved = type(second)(2, (Part(second.parts[0].exterior - [0, 2]),))
    assert rasterise([first, moved], (1, 3)).tolist() == [[1, 2, 2]]
    assert not rasterise([second], (1, 3)).any()


def test_a_failed_write_leaves_nothing(form, tmp_path: Path, pattern) -> None:
    write, _, file = form
    with pytest.raises(ValueError, match=pattern(AXES_MISMATCH, order="YX", ndim=3)):
        write(tmp_path / file, np.ones((2, 3, 4), int), axes="YX")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("axes", "n_channels", "positions"),
    [
        ("TYX", 1, (2, 0, 0, 0)),
        ("ZYX", 1, (2, 0, 0, 0)),
        ("TYX", 3, (0, 0, 0, 2)),
        ("ZYX", 2, (0, 0, 2, 0)),
        ("TZYX", 1, (0, 0, 1, 2)),
        ("YX", 3, (0, 0, 0, 0)),
    ],
)
def test_rois_have_the_place_of_their_plane_in_all_channels(
    tmp_path: Path, axes: str, n_channels: int, positions: tuple[int, ...]
) -> None:
    import roifile

    labels = np.zeros({2: (6, 7), 3: (2, 6, 7), 4: (2, 1, 6, 7)}[len(axes)], int)
    labels[(1, 0)[: len(axes) - 2]][2:4, 1:5] = 5
    path = write_rois(tmp_path / "a.zip", labels, axes=axes, n_channels=n_channels)
    read = roifile.roiread(path)
    (roi,) = read if isinstance(read, list) else [read]
    found = (roi.position, roi.c_position, roi.z_position, roi.t_position)
    assert found == positions
    assert np.array_equal(read_rois(path, labels.shape, axes=axes), labels)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("factors", [(2.0, 2.0), (3.0, 2.0), (2.5, 2.0)])
def test_outlines_of_a_level_have_the_coordinates_of_the_image(
    tmp_path: Path, form: str, factors: tuple[float, float]
) -> None:
    write, read, file = FORMATS[form]
    labels = np.array([[7, 7, 0], [7, 0, 0], [0, 9, 9]])
    corner = {"Z": 3, "Y": 4, "X": 1}
    write(tmp_path / file, labels[None], axes="ZYX", factors=factors, corner=corner)
    whole = read(tmp_path / file, (5, 24, 14), axes="ZYX")
    expected = np.zeros((5, 24, 14), int)
    rows, columns = np.indices((24, 14)) + 0.5
    y, x = (rows / factors[0] - 4) // 1, (columns / factors[1] - 1) // 1
    inside = (y >= 0) & (y < 3) & (x >= 0) & (x < 3)
    expected[3][inside] = labels[y[inside].astype(int), x[inside].astype(int)]
    centres = (rows / factors[0]) % 1 != 0  # a pixel may be cut through its middle
    assert np.array_equal(whole[:3], expected[:3])
    assert np.array_equal(whole[3][centres], expected[3][centres])
    assert set(np.unique(whole[3])) == {0, 7, 9}
