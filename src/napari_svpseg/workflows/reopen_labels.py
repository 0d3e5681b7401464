"""Read labels that were written before, with all that their file knows of them."""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.image import ImageError
from ..core.result import Recipe
from ..io.exports import ExportData
from ..io.images import check_memory
from ..io.ome_zarr import is_zarr
from ..io.ownership import Origin, origin, zarr_attributes
from ..io.result_files import geojson_features, kind_of_result
from ..io.rois import DEFAULT_CLASS, OutlineError
from .convert_labels import OUTLINES, labels_in, read_stored

CLASS = "class"
OUR_NAMES = re.compile(r"\d+( [tz]\d+)*\.roi")
"""Names of the ROIs in a zip that this program wrote."""

NOTHING_HERE = "{path}: none of its outlines lies in '{image}': show their image."

NEEDS_IMAGE = (
    "{path}: outlines do not say how large their image is: open the image first."
)
NO_LABELS = "{path}: it holds no labels."


@dataclass(frozen=True, eq=False)
class ReopenedLabels:
    """Labels of a file and what it knows of them.

    Parameters
    ----------
    data : ExportData
        Labels as numpy array, axes, pixel size, position, recipe, classes.
    is_result : bool
        Whether a run of this program has made them.
    table : dict of str to list
        Measurements by name; ``label`` has the id of each row. Empty without any.
    """

    data: ExportData
    is_result: bool = False
    table: dict[str, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Canvas:
    """The image that outlines are drawn on.

    Parameters
    ----------
    shape : tuple of int
    axes : str
        Of ``shape``, out of T, Z, Y and X.
    name : str
        For messages.
    """

    shape: tuple[int, ...]
    axes: str
    name: str = ""


def reopen_labels(path: str | Path, canvas: Canvas | None = None) -> ReopenedLabels:
    """Return the labels in a file of `io.result_files.kind_of_result`.

    Parameters
    ----------
    path : path
        OME-TIFF, TIFF, PNG, ``_seg.npy``, OME-Zarr, a zip of ImageJ ROIs, or GeoJSON.
    canvas : Canvas, optional
        Needed by outlines, which do not know the size of their image.

    Returns
    -------
    ReopenedLabels

    Raises
    ------
    ValueError
        If it cannot be read; one line that names the file and says what to do. It may
        be an `ImageError`, a `MaskError` or an `OutlineError`.
    """
    path = Path(path)
    kind = kind_of_result(path)
    if kind == "outlines":
        return _outlined(path, canvas)
    if kind != "labels":
        raise ImageError(NO_LABELS.format(path=path))
    data = read_stored(path)
    if is_zarr(path):
        check_memory(path, int(np.prod(data.labels.shape)) * data.labels.dtype.itemsize)
        recipe = _recipe_in_zarr(labels_in(path))
        data = replace(data, labels=np.asarray(data.labels), recipe=recipe)
    is_result = data.recipe is not None or _is_sealed(path)
    return ReopenedLabels(replace(data, source=str(path)), is_result)


def _outlined(path: Path, canvas: Canvas | None) -> ReopenedLabels:
    if canvas is None:
        raise OutlineError(NEEDS_IMAGE.format(path=path))
    read = OUTLINES[path.suffix.lower()]
    labels = read(path, canvas.shape, axes=canvas.axes)
    rows = geojson_features(path) if path.suffix.lower() != ".zip" else []
    is_ours = bool(rows) or _is_sealed(path) or _has_our_names(path)
    if not labels.any() and (rows or not is_ours):
        raise OutlineError(NOTHING_HERE.format(path=path, image=canvas.name))
    named = {row["label"]: row.get(CLASS, DEFAULT_CLASS) for row in rows}
    # all in QuPath's own class: the objects have none
    has_classes = set(named.values()) not in (set(), {DEFAULT_CLASS})
    data = ExportData(
        labels,
        canvas.axes,
        class_of=named if has_classes else {},
        classes={row[CLASS]: row["color"] for row in rows if CLASS in row}
        if has_classes
        else {},
        source=str(path),
    )
    return ReopenedLabels(data, is_ours, _table(rows))


def _has_our_names(path: Path) -> bool:
    """Return whether a zip has ROIs that are named by ids and planes, as ours are."""
    if path.suffix.lower() != ".zip":
        return False
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return bool(names) and all(OUR_NAMES.fullmatch(name) for name in names)


def _table(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return rows as columns; NaN where one has no value."""
    names = dict.fromkeys(n for row in rows for n in row if n not in (CLASS, "color"))
    if set(names) <= {"label"}:
        return {}
    return {n: [row.get(n, float("nan")) for row in rows] for n in names}


def _recipe_in_zarr(folder: Path) -> Recipe | None:
    kept = zarr_attributes(folder).get("svpseg")
    values = kept.get("recipe") if isinstance(kept, dict) else None
    try:
        return Recipe.from_json(json.dumps(values)) if values else None
    except (ValueError, TypeError):  # of a later version
        return None


def _is_sealed(path: Path) -> bool:
    """Return whether a run wrote the file."""
    return origin(path) is not Origin.FOREIGN
