"""Export of labels in every supported format, for dock, menu and command line.

A new format is a function here, its entry in `WRITERS`, and its name and suffix in
`core.jobs.folder_job.FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.labels.measure import measure
from ..core.result import Recipe
from .images import is_length
from .label_files import check_labels, write_labels
from .rois import write_geojson, write_rois
from .tables import write_table
from .zarr_labels import write_zarr_labels


@dataclass(frozen=True, eq=False)
class ExportData:
    """Labels and what the formats need to know of them.

    Parameters
    ----------
    labels : int array
        Ids; 0 is background.
    axes : str
        Axes of ``labels``.
    pixel_size : (float, float) or None
        Height and width of a pixel in ``unit``.
    unit : str
        ``"pixel"`` if the size is unknown.
    z_step : float or None
        Distance of two planes in ``unit``.
    recipe : Recipe or None
        Recipe of the run, for formats that can store it.
    image : array or None
        Image whose intensities are measured for the CSV table.
    image_axes : str
        Axes of ``image``; by default those of the labels.
    """

    labels: np.ndarray
    axes: str = "YX"
    pixel_size: tuple[float, float] | None = None
    unit: str = "pixel"
    z_step: float | None = None
    recipe: Recipe | None = None
    image: np.ndarray | None = None
    image_axes: str = ""


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
    )


def _rois(path: Path, data: ExportData) -> Path:
    return write_rois(path, data.labels, axes=data.axes)


def _geojson(path: Path, data: ExportData) -> Path:
    return write_geojson(path, data.labels, axes=data.axes)


def _csv(path: Path, data: ExportData) -> Path:
    # A size in pixels adds no columns; names of columns have ASCII units.
    known = None if data.unit == "pixel" else data.pixel_size
    if known is not None and not all(is_length(float(n)) for n in known):
        known = None  # as for OME-TIFF: of another size nothing can be measured
    unit = {"micrometer": "um", "µm": "um"}.get(data.unit, data.unit)
    table = measure(
        data.labels,
        axes=data.axes,
        image=data.image,
        image_axes=data.image_axes,
        pixel_size=known,
        unit=unit,
    )
    return write_table(path, table)


def _ome_zarr(path: Path, data: ExportData) -> Path:
    # OME-Zarr demands a scale for every axis.
    scale = {"Z": data.z_step or 1.0}
    if data.pixel_size is not None:
        scale |= dict(zip("YX", data.pixel_size, strict=True))
    return write_zarr_labels(
        path,
        data.labels,
        axes=data.axes,
        scale=scale,
        unit=data.unit,
        recipe=data.recipe,
    )


WRITERS: dict[str, Callable[[Path, ExportData], Path]] = {
    "ome-tiff": _ome_tiff,
    "rois": _rois,
    "geojson": _geojson,
    "csv": _csv,
    "ome-zarr": _ome_zarr,
}
"""Function that writes each format."""
