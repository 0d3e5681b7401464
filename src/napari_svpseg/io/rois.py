"""Outlines of objects for other programs: ImageJ ROIs, and GeoJSON for QuPath.

Outlines run along pixel edges, so that reading them gives the same labels, pixel by
pixel. Ids of any size are kept as names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import numpy as np

from ..core.annotation.image_tags import COLOURS
from ..core.errors import short_line
from ..core.image import Axes
from ..core.labels.measure import POSITIONS, Table
from ..core.labels.outlines import (
    Outline,
    Part,
    on_image,
    outlines,
    rasterise,
    whole_objects,
)
from ..core.planes import take_plane
from .atomic import atomic_path
from .label_files import NEGATIVE_IDS, labels_dtype
from .ownership import seal_json, seal_zip

MAX_SHORT = 32_767
"""Largest integer coordinate in an ImageJ ROI, of 16 bits; beyond it paths are used."""

MOVE, LINE, CLOSE = 0, 1, 4
"""Codes of the segments of a path in an ImageJ ROI."""

WHOLE = (1.0, 1.0)
"""Factors of labels that have the size of their image."""

NO_AREA = ("LINE", "FREELINE", "POLYLINE", "ANGLE", "POINT", "NOROI")
"""Types of ImageJ ROIs that enclose nothing."""

DEFAULT_CLASS = "cells"
"""Class in QuPath of objects whose class is not known."""

NUMBERED = re.compile(r"(\d+)(?: |$)")
"""Names that begin with an id."""

NO_ROIS = "{path}: no ImageJ ROIs ({reason})."
NO_GEOJSON = "{path}: no GeoJSON ({reason})."

Planes = Iterator[tuple[dict[str, int], list[Outline]]]
Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Facts:
    """What a GeoJSON feature says of an object beside its outline.

    Parameters
    ----------
    name : str
        Class in QuPath of objects that have none in ``class_of``.
    class_of : dict of int to str
        Class of each id.
    colors : dict of str to str
        Colour ``#rrggbb`` of each class.
    table : dict of arrays, optional
        Measurements, as `core.labels.measure.measure` returns them.
    """

    name: str = DEFAULT_CLASS
    class_of: Mapping[int, str] = field(default_factory=dict)
    colors: Mapping[str, str] = field(default_factory=dict)
    table: Table | None = None

    def classification(self, label: int) -> dict[str, Any]:
        """Return the class of an object and its colour as QuPath has it."""
        name = self.class_of.get(label, self.name)
        color = self.colors.get(name, COLOURS[0])
        return {"name": name, "color": list(bytes.fromhex(color[1:]))}

    def measurements(self) -> dict[tuple[int, ...], dict[str, float]]:
        """Return the measurements of each object, by its place along T, Z and its id.

        Positions, which the outline tells, are left out.
        """
        if self.table is None:
            return {}
        places = {name for names in POSITIONS.values() for name in names}
        shown = {
            name: column.tolist()
            for name, column in self.table.items()
            if name != "label" and name.partition("_um")[0] not in places
        }
        n = len(self.table["label"])
        keys = zip(
            *(self.table[a].tolist() for a in ("t", "z") if a in self.table),
            self.table["label"].tolist(),
            strict=True,
        )
        rows = ({k: v[i] for k, v in shown.items() if v[i] == v[i]} for i in range(n))
        return dict(zip(keys, rows, strict=True))


class OutlineError(ValueError):
    """A file of outlines that cannot be read; the message names it."""


def write_rois(
    path: str | Path,
    labels: np.ndarray,
    *,
    axes: str = "YX",
    factors: tuple[float, float] = WHOLE,
    corner: Mapping[str, int] = MappingProxyType({}),
    n_channels: int = 1,
    overwrite: bool = False,
    sealed: bool = True,
) -> Path:
    """Write each object as an ImageJ ROI into one zip file, atomically.

    An object with holes or several parts becomes one composite ROI. In a stack each ROI
    has the position of its plane, in all channels.

    Parameters
    ----------
    path : path
        Ends in ``.zip``; its folder must exist.
    labels : int array
        Ids of any size; 0 is background. May be lazy and larger than the memory.
    axes : str
        Axes of ``labels``, out of T, Z, Y and X.
    factors : (float, float)
        Height and width of a pixel in pixels of the image that the ROIs are for, where
        the labels are those of a smaller level of its pyramid.
    corner : dict of str to int
        Index of the first pixel and plane of the labels along each axis, where they
        are a part of that image.
    n_channels : int
        Of that image; several make it a hyperstack, whose planes are counted by axis.
    overwrite, sealed : bool
        As in `write_labels`.

    Returns
    -------
    Path
        The file written; a zip without entries if there is no object.

    Raises
    ------
    WriteError
        If the file cannot be written.
    ImageError
        If the axes do not fit the labels.
    """
    import zipfile

    path = Path(path)
    with atomic_path(path, overwrite) as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for plane, found in _planes(labels, axes, factors, corner):
                at = "".join(f" {axis.lower()}{n + 1}" for axis, n in plane.items())
                for outline in found:
                    roi = _roi(outline, f"{outline.label}{at}")
                    _set_position(roi, plane, is_hyperstack=n_channels > 1)
                    archive.writestr(f"{roi.name}.roi", roi.tobytes())
        if sealed:
            seal_zip(temporary)
    return path


def _set_position(roi: Any, plane: dict[str, int], *, is_hyperstack: bool) -> None:
    """Give a ROI the position of its plane, which ImageJ counts from 1; 0 means all.

    Parameters
    ----------
    roi : ImagejRoi
    plane : dict
        Index of the plane along T and Z; empty for a single plane.
    is_hyperstack : bool
        The image has several channels.
    """
    if len(plane) == 1 and not is_hyperstack:
        # ImageJ may take the only axis of a stack for Z or for T.
        roi.position = next(iter(plane.values())) + 1
    elif plane:
        roi.z_position = plane["Z"] + 1 if "Z" in plane else 0
        roi.t_position = plane["T"] + 1 if "T" in plane else 0


def _roi(outline: Outline, name: str) -> Any:
    """Return an object as `roifile.ImagejRoi`."""
    from roifile import ROI_TYPE, ImagejRoi

    corners = np.concatenate(outline.rings)
    is_whole = corners.dtype.kind in "iu"
    (top, left), (bottom, right) = np.floor(corners.min(0)), np.ceil(corners.max(0))
    roi = ImagejRoi(
        top=int(top), left=int(left), bottom=int(bottom), right=int(right), name=name
    )
    if is_whole and len(outline.rings) == 1 and max(bottom, right) <= MAX_SHORT:
        roi.roitype = ROI_TYPE.TRACED
        roi.n_coordinates = len(corners)
        # relative to the bounding box, x before y
        relative = corners - np.array([roi.top, roi.left])
        roi.integer_coordinates = relative[:, ::-1].astype(np.int32)
    else:
        # A composite ROI is a path of float coordinates in a rectangle.
        roi.roitype = ROI_TYPE.RECT
        segments: list[float] = []
        for ring in outline.rings:
            for n, (y, x) in enumerate(ring.tolist()):
                segments += (LINE if n else MOVE, x, y)
            segments.append(CLOSE)
        roi.multi_coordinates = np.array(segments, np.float32)
        roi.shape_roi_size = len(segments)
    return roi


def read_rois(path: str | Path, shape: Shape, *, axes: str = "YX") -> np.ndarray:
    """Return the labels of a zip of ImageJ ROIs, or of one ``.roi`` file.

    Parameters
    ----------
    path : path
    shape : tuple of int
        Shape of the labels, in the order of ``axes``.
    axes : str
        Axes of the labels, out of T, Z, Y and X.

    Returns
    -------
    int array
        Ids are the numbers that the names begin with, else 1, 2, 3, ...

    Raises
    ------
    OutlineError
        If the file holds no ROI.
    """
    from roifile import ImagejRoi, roiread

    try:
        read = roiread(path) if _has_entries(Path(path)) else []
        rois = [read] if isinstance(read, ImagejRoi) else list(read)
        stack = [axis for axis in axes.upper() if axis in "TZ"]
        placed = [(_position(roi, stack), _rings_of(roi)) for roi in rois]
    except Exception as error:
        raise OutlineError(
            NO_ROIS.format(path=path, reason=short_line(error, 120))
        ) from error
    ids = _ids([roi.name for roi in rois])
    return _assembled(
        [
            (at, _outline(n, rings))
            for n, (at, rings) in zip(ids, placed, strict=True)
            if rings
        ],
        shape,
        axes,
    )


def _has_entries(path: Path) -> bool:
    """Return whether a file has ROIs; roifile fails on a zip without entries."""
    import zipfile

    if path.suffix.lower() != ".zip":
        return True
    with zipfile.ZipFile(path) as archive:
        return bool(archive.namelist())


def _position(roi: Any, stack: list[str]) -> dict[str, int]:
    """Return the index of the plane of a ROI, 0 where it has none.

    Parameters
    ----------
    roi : ImagejRoi
    stack : list of str
        Axes of the planes; the only one is what a position without axis counts.
    """
    at = {"Z": max(0, roi.z_position - 1), "T": max(0, roi.t_position - 1)}
    if len(stack) == 1 and not roi.z_position and not roi.t_position:
        at[stack[0]] = max(0, roi.position - 1)
    return at


def _rings_of(roi: Any) -> list[np.ndarray]:
    """Return the rings of corners (y, x) of a ROI; none if it encloses no area."""
    if roi.roitype.name in NO_AREA:
        return []
    paths = roi.coordinates(multi=True)
    return [np.asarray(p, float)[:, ::-1] for p in paths if len(p) > 2]


def write_geojson(
    path: str | Path,
    labels: np.ndarray,
    *,
    axes: str = "YX",
    facts: Facts | None = None,
    factors: tuple[float, float] = WHOLE,
    corner: Mapping[str, int] = MappingProxyType({}),
    overwrite: bool = False,
    sealed: bool = True,
) -> Path:
    """Write each object as a GeoJSON feature for QuPath, atomically.

    Coordinates are pixels, x before y. In QuPath the objects are detections, named by
    their ids. Rings run as RFC 7946 demands, exteriors counterclockwise by their
    numbers and holes clockwise.

    Parameters
    ----------
    path : path
        Ends in ``.geojson``; its folder must exist.
    labels : int array
        Ids of any size; 0 is background. May be lazy and larger than the memory.
    axes : str
        Axes of ``labels``, out of T, Z, Y and X. Features of stacks have their plane.
    facts : Facts, optional
        Classes and measurements of the objects.
    factors, corner
        As for `write_rois`.
    overwrite, sealed : bool
        As in `write_labels`.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    WriteError
        If the file cannot be written.
    ImageError
        If the axes do not fit the labels.
    """
    path = Path(path)
    facts = facts or Facts()
    rows = facts.measurements()
    with atomic_path(path, overwrite) as temporary:
        with open(temporary, "w", encoding="utf-8") as file:
            # Feature by feature: the text of all of them may not fit into memory.
            file.write('{"type": "FeatureCollection", "features": [')
            between = "\n"
            for plane, found in _planes(labels, axes, factors, corner):
                for outline in found:
                    feature = _feature(outline, plane, facts)
                    at = *(plane[a] for a in "TZ" if a in plane), outline.label
                    if at in rows:
                        feature["properties"]["measurements"] = rows[at]
                    # the same in each run, as QuPath knows objects by it
                    feature["id"] = str(uuid5(NAMESPACE_URL, f"{path.name} {at}"))
                    file.write(between + json.dumps(feature))
                    between = ",\n"
            file.write("\n]}\n")
        if sealed:
            seal_json(temporary)
    return path


def _feature(outline: Outline, plane: dict[str, int], facts: Facts) -> dict[str, Any]:
    """Return an object as a GeoJSON feature with the fields that QuPath knows."""
    polygons = [
        [_closed(part.exterior), *(_closed(hole[::-1]) for hole in part.holes)]
        for part in outline.parts
    ]
    several = len(polygons) > 1
    geometry: dict[str, Any] = {
        "type": "MultiPolygon" if several else "Polygon",
        "coordinates": polygons if several else polygons[0],
    }
    if plane:  # c = -1 means all channels
        geometry["plane"] = {"c": -1, "z": plane.get("Z", 0), "t": plane.get("T", 0)}
    properties: dict[str, Any] = {
        "objectType": "detection",
        "name": str(outline.label),
        "label": outline.label,
        "classification": facts.classification(outline.label),
    }
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def _closed(ring: np.ndarray) -> list[list[int]]:
    """Return a ring in the form of GeoJSON: (x, y), ending with the first corner."""
    corners: list[list[int]] = ring[:, ::-1].tolist()
    return [*corners, corners[0]]


def read_geojson(path: str | Path, shape: Shape, *, axes: str = "YX") -> np.ndarray:
    """Return the labels of the polygons in a GeoJSON file.

    Parameters and result are those of `read_rois`; the name of a feature is its
    property ``label``, or else ``name``.

    Raises
    ------
    OutlineError
        If the file is no GeoJSON.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        if isinstance(values, dict):
            values = values.get("features", [values])
        names, placed = [], []
        for feature in values:
            rings = _polygon_rings(feature["geometry"])
            if rings:
                properties = feature.get("properties") or {}
                plane = feature["geometry"].get("plane") or {}
                at = {"Z": int(plane.get("z", 0)), "T": int(plane.get("t", 0))}
                names.append(str(properties.get("label", properties.get("name", ""))))
                placed.append((at, rings))
    except OSError:
        raise
    except Exception as error:
        raise OutlineError(
            NO_GEOJSON.format(path=path, reason=short_line(error, 120))
        ) from error
    ids = _ids(names)
    found = [
        (at, _outline(n, rings)) for n, (at, rings) in zip(ids, placed, strict=True)
    ]
    return _assembled(found, shape, axes)


def _polygon_rings(geometry: dict[str, Any]) -> list[np.ndarray]:
    """Return all rings (y, x) of a polygon or multipolygon; none of other types."""
    polygons: list[Any] = []
    if geometry["type"] == "Polygon":
        polygons = [geometry["coordinates"]]
    elif geometry["type"] == "MultiPolygon":
        polygons = geometry["coordinates"]
    return [np.asarray(ring, float)[:, 1::-1] for rings in polygons for ring in rings]


def _outline(label: int, rings: list[np.ndarray]) -> Outline:
    """Return an outline of rings that are filled by the even-odd rule.

    Other programs do not say which ring is a hole of which part: a ring inside another
    one is a hole, whatever part it is listed with.
    """
    return Outline(label, tuple(Part(ring) for ring in rings))


def _ids(names: list[str]) -> list[int]:
    """Return the numbers that the names begin with, or 1, 2, 3, ... if one has none."""
    found = [NUMBERED.match(name) for name in names]
    numbers = [int(m[1]) for m in found if m]
    if len(numbers) == len(names) and 0 not in numbers:
        return numbers
    return list(range(1, len(names) + 1))


def _assembled(
    placed: list[tuple[dict[str, int], Outline]], shape: Shape, axes: str
) -> np.ndarray:
    """Return labels of this shape, with each outline filled in its plane."""
    layout = Axes(axes)
    layout.check(shape)
    largest = max((outline.label for _, outline in placed), default=0)
    labels = np.zeros(shape, labels_dtype(largest))
    stack = [axis for axis in layout.order if axis in "TZ"]
    for index in layout.plane_indices(shape):
        here = dict(zip(stack, index, strict=True))
        inside = [
            outline
            for at, outline in placed
            if all(at[axis] == n for axis, n in here.items())
        ]
        plane = take_plane(labels, layout, index)
        plane[...] = rasterise(inside, plane.shape, labels.dtype)
    return labels


def _planes(
    labels: Any,
    axes: str,
    factors: tuple[float, float],
    corner: Mapping[str, int],
) -> Planes:
    """Yield the index of each plane along T and Z, and its outlines, in the image."""
    layout = Axes(axes)
    layout.check(np.shape(labels))
    for at, part, first in parts_of(labels, layout):
        found = outlines(part)
        y, x = first[0] + corner.get("Y", 0), first[1] + corner.get("X", 0)
        if factors != WHOLE or y or x:
            found = [on_image(outline, factors, (y, x)) for outline in found]
        yield {axis: n + corner.get(axis, 0) for axis, n in at.items()}, found


def parts_of(
    labels: Any, layout: Axes
) -> Iterator[tuple[dict[str, int], np.ndarray, tuple[int, int]]]:
    """Yield labels plane by plane, and those that are lazy in parts of whole objects.

    Parameters
    ----------
    labels : int array
        May be lazy and larger than the memory.
    layout : Axes
        Their axes.

    Yields
    ------
    at : dict of str to int
        Index of the plane along T and Z.
    part : (Y, X) int array
    first : (int, int)
        Row and column of the first pixel of the part.
    """
    is_lazy = hasattr(labels, "shape") and not isinstance(labels, np.ndarray)
    is_lazy = is_lazy and layout.order.endswith("YX")
    labels = labels if is_lazy else np.asarray(labels)
    stack = [axis for axis in layout.order if axis in "TZ"]
    for index in layout.plane_indices(labels.shape):
        at = dict(zip(stack, index, strict=True))
        if is_lazy:
            for part, first in whole_objects(_LazyPlane(labels, index)):
                yield at, part, first
        else:
            yield at, take_plane(labels, layout, index), (0, 0)


class _LazyPlane:
    """A plane of labels that reads what it is sliced for."""

    def __init__(self, labels: Any, index: tuple[int, ...]) -> None:
        self._labels, self._index = labels, index
        self.shape = labels.shape[-2:]

    def __getitem__(self, window: tuple[slice, slice]) -> np.ndarray:
        part = np.asarray(self._labels[(*self._index, *window)])
        if part.min(initial=0) < 0:
            raise ValueError(NEGATIVE_IDS)
        return part
