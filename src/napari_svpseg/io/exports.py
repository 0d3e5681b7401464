"""Export of labels in every supported format, for dock, menu and command line.

A new format is a function here, its entry in `WRITERS`, and its name and suffix in
`core.jobs.folder_job.FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..core.image import Axes
from ..core.labels.measure import QUICK, SHAPE, Table, measure
from ..core.result import Recipe
from ..core.units import PIXEL, in_micrometres
from .cellpose_files import (
    write_masks_png,
    write_masks_tif,
    write_npy,
    write_seg_npy,
)
from .images import is_length
from .label_files import check_labels, write_labels
from .rois import WHOLE, Facts, parts_of, write_geojson, write_rois
from .tables import write_table
from .zarr_labels import write_zarr_labels


@dataclass(frozen=True, eq=False)
class ExportData:
    """Labels and what the formats need to know of them.

    Parameters
    ----------
    labels : int array
        Ids; 0 is background. Those of a Zarr may be lazy for outlines, tables without
        intensities, and OME-Zarr.
    axes : str
        Axes of ``labels``.
    pixel_size : (float, float) or None
        Height and width of a pixel in ``unit``.
    unit : str
        Unit of all lengths here; ``"pixel"`` if the size is unknown.
    z_step : float or None
        Distance of two planes in ``unit``.
    recipe : Recipe or None
        Recipe of the run, for formats that can store it.
    image : array or None
        Image whose intensities are measured for the CSV table.
    image_axes : str
        Axes of ``image``; by default those of the labels.
    overwrite : bool
        Allow to replace a file that no run of this program wrote.
    sealed : bool
        Mark the file as written by a run, which later runs may replace; False for
        labels that a user saves.
    origin : dict of str to float
        Where the centre of the first pixel lies along each axis; 0 by default.
    factors : (float, float)
        Height and width of a pixel in pixels of the whole image, where the labels are
        those of a smaller level of a pyramid.
    corner : dict of str to int
        Index of the first pixel and plane of the labels along each axis, where they
        are a part of their image; 0 by default.
    flipped : str
        Axes that run the other way in the viewer.
    n_channels : int
        Of the image.
    classes : dict of str to str
        Name and colour ``#rrggbb`` of each class of a model that knows classes.
    class_of : dict of int to str
        Class of each id.
    source : str
        File of the image, if it has one.
    """

    labels: Any
    axes: str = "YX"
    pixel_size: tuple[float, float] | None = None
    unit: str = "pixel"
    z_step: float | None = None
    recipe: Recipe | None = None
    image: np.ndarray | None = None
    image_axes: str = ""
    overwrite: bool = False
    sealed: bool = True
    origin: dict[str, float] = field(default_factory=dict)
    factors: tuple[float, float] = (1.0, 1.0)
    corner: dict[str, int] = field(default_factory=dict)
    flipped: str = ""
    n_channels: int = 1
    classes: Mapping[str, str] = field(default_factory=dict)
    class_of: Mapping[int, str] = field(default_factory=dict)
    source: str = ""


def export(path: str | Path, kind: str, data: ExportData) -> Path:
    """Write labels in one of the formats of `core.jobs.folder_job.FORMATS`, atomically.

    Parameters
    ----------
    path : path
        File or folder to be written.
    kind : str
        Key of `WRITERS`.
    data : ExportData

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    WriteError
        If it cannot be written.
    ValueError
        If labels and axes do not fit.
    """
    check_labels(data.labels, data.axes)
    return WRITERS[kind](Path(path), data)


def _ome_tiff(path: Path, data: ExportData) -> Path:
    return write_labels(
        path,
        data.labels,
        axes=data.axes,
        pixel_size=data.pixel_size,
        unit=data.unit,
        recipe=data.recipe,
        z_step=data.z_step,
        overwrite=data.overwrite,
        sealed=data.sealed,
        origin=data.origin,
    )


def _rois(path: Path, data: ExportData) -> Path:
    return write_rois(
        path,
        data.labels,
        axes=data.axes,
        overwrite=data.overwrite,
        sealed=data.sealed,
        factors=data.factors,
        corner=data.corner,
        n_channels=data.n_channels,
    )


def _geojson(path: Path, data: ExportData) -> Path:
    table = _table(data, QUICK)
    if data.factors != WHOLE:  # these are in pixels of another size
        table = {name: column for name, column in table.items() if name not in QUICK}
    return write_geojson(
        path,
        data.labels,
        axes=data.axes,
        facts=Facts(class_of=data.class_of, colors=data.classes, table=table),
        overwrite=data.overwrite,
        sealed=data.sealed,
        factors=data.factors,
        corner=data.corner,
    )


def _csv(path: Path, data: ExportData) -> Path:
    return write_table(path, _table(data, SHAPE), overwrite=data.overwrite)


def _table(data: ExportData, shape: Sequence[str]) -> Table:
    """Return the measurements of the objects; lengths in micrometres or pixels."""
    is_known = data.pixel_size and all(is_length(float(n)) for n in data.pixel_size)
    size = data.pixel_size if data.pixel_size and is_known else (1.0, 1.0)
    sizes = dict(zip("YX", size, strict=True))
    # of a size that is no length nothing can be measured, as for OME-TIFF
    units = dict.fromkeys("YX", data.unit if is_known else PIXEL)
    sizes, unit = in_micrometres(sizes, units)
    how: dict[str, Any] = {
        "pixel_size": (sizes["Y"], sizes["X"]) if data.pixel_size else None,
        "unit": unit,
        "shape": shape,
    }
    if isinstance(data.labels, np.ndarray):
        how |= {"image": data.image, "image_axes": data.image_axes}
        return measure(data.labels, axes=data.axes, corner=data.corner, **how)
    layout = Axes(data.axes)
    tables = [measure(np.zeros((1,) * len(layout.order), int), axes=data.axes, **how)]
    for at, part, (y, x) in parts_of(data.labels, layout):
        first = {**at, "Y": y, "X": x}
        corner = {axis: n + data.corner.get(axis, 0) for axis, n in first.items()}
        shaped = part.reshape(*(1,) * len(layout.stack), *part.shape)
        tables.append(measure(shaped, axes=data.axes, corner=corner, **how))
    return {name: np.concatenate([t[name] for t in tables]) for name in tables[0]}


def _ome_zarr(path: Path, data: ExportData) -> Path:
    # OME-Zarr demands a scale for every axis.
    scale = {"Z": data.z_step or 1.0}
    if data.pixel_size is not None:
        scale |= dict(zip("YX", data.pixel_size, strict=True))
    scale = {a: -n if a in data.flipped else n for a, n in scale.items()}
    return write_zarr_labels(
        path,
        data.labels,
        axes=data.axes,
        scale=scale,
        unit=data.unit,
        recipe=data.recipe,
        overwrite=data.overwrite,
        sealed=data.sealed,
        origin=data.origin,
    )


def _masks_png(path: Path, data: ExportData) -> Path:
    return write_masks_png(path, data.labels, axes=data.axes, overwrite=data.overwrite)


def _masks_tif(path: Path, data: ExportData) -> Path:
    return write_masks_tif(path, data.labels, axes=data.axes, overwrite=data.overwrite)


def _seg_npy(path: Path, data: ExportData) -> Path:
    return write_seg_npy(
        path,
        data.labels,
        axes=data.axes,
        source=data.source,
        overwrite=data.overwrite,
    )


def _npy(path: Path, data: ExportData) -> Path:
    return write_npy(path, data.labels, overwrite=data.overwrite)


WRITERS: dict[str, Callable[[Path, ExportData], Path]] = {
    "ome-tiff": _ome_tiff,
    "rois": _rois,
    "geojson": _geojson,
    "csv": _csv,
    "ome-zarr": _ome_zarr,
    "cellpose-png": _masks_png,
    "cellpose-tif": _masks_tif,
    "cellpose-seg": _seg_npy,
    "npy": _npy,
}
"""Function that writes each format."""
