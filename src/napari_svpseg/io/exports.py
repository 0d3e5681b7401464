"""An image's objects in each format that we write: one table for dock, menu and CLI."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.labels.measure import measure
from ..core.result import Recipe
from .label_files import write_labels
from .rois import write_geojson, write_rois
from .tables import write_table
from .zarr_labels import write_zarr_labels


@dataclass(frozen=True, eq=False)
class ExportData:
    """Labels and what is known of them.

    Parameters
    ----------
    labels : int array
        Ids; 0 is background.
    axes : str
        Of ``labels``.
    pixel_size : (float, float) or None
        Height and width of a pixel in ``unit``.
    unit : str
    z_step : float or None
        Distance of two planes, in ``unit``.
    recipe : Recipe or None
    image : array or None
        Whose intensities are measured.
    image_axes : str
    """

    labels: np.ndarray
    axes: str = "YX"
    pixel_size: tuple[float, float] | None = None
    unit: str = "pixel"
    z_step: float | None = None
    recipe: Recipe | None = None
    image: np.ndarray | None = None
    image_axes: str = ""


def export(path: str | Path, kind: str, found: ExportData) -> Path:
    """Write objects in one of the formats of `core.jobs.folder_job.FORMATS`.

    Returns
    -------
    Path
        What was written, whole or not at all.

    Raises
    ------
    WriteError
        If the disk is full or the folder cannot be written.
    ValueError
        If labels and axes do not fit.
    """
    return WRITERS[kind](Path(path), found)


def _ome_tiff(path: Path, found: ExportData) -> Path:
    return write_labels(
        path,
        found.labels,
        axes=found.axes,
        pixel_size=found.pixel_size,
        unit=found.unit,
        recipe=found.recipe,
        z_step=found.z_step,
    )


def _rois(path: Path, found: ExportData) -> Path:
    return write_rois(path, found.labels, axes=found.axes)


def _geojson(path: Path, found: ExportData) -> Path:
    return write_geojson(path, found.labels, axes=found.axes)


def _csv(path: Path, found: ExportData) -> Path:
    known = None if found.unit == "pixel" else found.pixel_size
    unit = {"micrometer": "um", "µm": "um"}.get(found.unit, found.unit)
    table = measure(
        found.labels,
        axes=found.axes,
        image=found.image,
        image_axes=found.image_axes,
        pixel_size=known,
        unit=unit,
    )
    return write_table(path, table)


def _ome_zarr(path: Path, found: ExportData) -> Path:
    scale = {"Z": found.z_step or 1.0}
    if found.pixel_size is not None:
        scale |= dict(zip("YX", found.pixel_size, strict=True))
    return write_zarr_labels(
        path,
        found.labels,
        axes=found.axes,
        scale=scale,
        unit=found.unit,
        recipe=found.recipe,
    )


WRITERS: dict[str, Callable[[Path, ExportData], Path]] = {
    "ome-tiff": _ome_tiff,
    "rois": _rois,
    "geojson": _geojson,
    "csv": _csv,
    "ome-zarr": _ome_zarr,
}
