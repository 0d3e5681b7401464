"""Measurements of each object: position, size, shape and intensities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..image import Axes
from ..units import UM, micrometres
from .confidence import typical

Table = dict[str, np.ndarray]
"""Columns of equal length, by name."""

SHAPE = (
    "centroid",
    "bbox",
    "area",
    "perimeter",
    "equivalent_diameter_area",
    "axis_major_length",
    "axis_minor_length",
    "eccentricity",
    "solidity",
    "orientation",
)
"""Properties of scikit-image that are measured; in pixels and radians."""

QUICK = ("area", "perimeter", "equivalent_diameter_area")
"""Those of them that take little time."""

INTENSITIES = ("intensity_mean", "intensity_std", "intensity_min", "intensity_max")
"""The same for intensities."""

LENGTHS = (
    "perimeter",
    "equivalent_diameter_area",
    "axis_major_length",
    "axis_minor_length",
)
"""Columns that hold lengths in any direction."""

POSITIONS = {
    "T": ("t",),
    "Z": ("z",),
    "Y": ("centroid-0", "bbox-0", "bbox-2"),
    "X": ("centroid-1", "bbox-1", "bbox-3"),
}
"""Columns that hold positions along each axis."""


def measure(
    labels: np.ndarray,
    *,
    axes: str = "YX",
    image: np.ndarray | None = None,
    image_axes: str = "",
    pixel_size: tuple[float, float] | None = None,
    unit: str = UM,
    corner: Mapping[str, int] | None = None,
    shape: Sequence[str] = SHAPE,
) -> Table:
    """Return a table with one row for each object of each plane.

    Parameters
    ----------
    labels : int array
        Ids of any size; 0 is background.
    axes : str
        Axes of ``labels``, out of T, Z, Y and X.
    image : array, optional
        Image whose intensities are measured.
    image_axes : str
        Axes of ``image``; by default those of the labels.
    pixel_size : (float, float), optional
        Height and width of a pixel in ``unit``. If this is a length, lengths and areas
        are added in it.
    unit : str
    corner : dict of str to int, optional
        Index of the first pixel and plane of the labels along each axis, where they
        are a part of an image; positions are those in the image.
    shape : sequence of str
        Which of `SHAPE` are measured.

    Returns
    -------
    dict of arrays
        Columns have the names of `skimage.measure.regionprops_table`: ``label``;
        position and shape in pixels (``centroid-0``, ``area``, ...); intensities
        (``intensity_mean``, ..., with several channels ``intensity_mean-0``, ...).
        Those in physical units end in the unit (``centroid-0_um``, ``area_um2``, ...).
        Stacks also have ``t`` and ``z``, from 0.

    Raises
    ------
    ImageError
        If the axes do not fit the labels.
    """
    labels = np.asarray(labels)
    layout = Axes(axes)
    layout.check(labels.shape)
    image_layout = None if image is None else Axes(image_axes or layout.order)
    tables = []
    for index in layout.plane_indices(labels.shape):
        plane = Axes(layout.order).to_plane(labels[layout.plane_slices(index)])[..., 0]
        where = dict(zip(layout.stack, index, strict=True))
        pixels = None
        if image is not None and image_layout is not None:
            # The image may have T and Z in another order than the labels.
            at = tuple(where[axis] for axis in image_layout.stack)
            pixels = image_layout.to_plane(
                np.asarray(image[image_layout.plane_slices(at)])
            )
        tables.append(_plane_table(plane, pixels, where, shape))
    table = {
        name: np.concatenate([part[name] for part in tables]) for name in tables[0]
    }
    for axis, columns in POSITIONS.items():
        for name in columns:
            if name in table and (corner or {}).get(axis):
                table[name] = table[name] + (corner or {})[axis]
    if pixel_size is None or micrometres(unit) is None:
        return table
    return _with_units(table, pixel_size, unit)


def _plane_table(
    plane: np.ndarray,
    image: np.ndarray | None,
    where: dict[str, int],
    shape: Sequence[str],
) -> Table:
    """Return the rows of one plane, in the order of the ids.

    Parameters
    ----------
    plane : (Y, X) int array
    image : (Y, X, C) array or None
    where : dict
        Index of the plane along T and Z.
    shape : sequence of str
        Which of `SHAPE` are measured.
    """
    from skimage.measure import regionprops_table

    # regionprops takes memory for every id up to the largest: measure ranks instead
    ids, compact = np.unique(plane, return_inverse=True)
    compact = compact.reshape(plane.shape)
    # Rank 0 must be the background, also in a plane that has none.
    if ids.size and ids[0] != 0:
        ids, compact = np.concatenate([[0], ids]), compact + 1
    wanted = ["label", *shape]
    if image is not None:
        wanted += INTENSITIES
        image = image.astype(float)
        image = image[..., 0] if image.shape[2] == 1 else image
    found = regionprops_table(compact, image, properties=wanted)
    table = {"label": ids[found.pop("label")]}
    table |= {
        axis.lower(): np.full(len(table["label"]), n) for axis, n in where.items()
    }
    if "area" in found:
        found["area"] = found["area"].astype(np.int64)  # a number of pixels
    return table | found


def _with_units(table: Table, pixel_size: tuple[float, float], unit: str) -> Table:
    """Return the table with columns in physical units behind those in pixels.

    If pixels are not square, lengths that do not run along an axis are left out: they
    do not follow from those in pixels.
    """
    height, width = (float(size) for size in pixel_size)
    factors = {"centroid-0": height, "centroid-1": width}
    if np.isclose(height, width):
        factors |= dict.fromkeys(LENGTHS, height)
    else:
        # The equivalent diameter follows from the area, whatever the pixels' shape.
        factors["equivalent_diameter_area"] = float(np.sqrt(height * width))
    found: dict[str, Any] = {}
    for name, column in table.items():
        found[name] = column
        if name in factors:
            found[f"{name}_{unit}"] = column * factors[name]
        if name == "area":
            found[f"area_{unit}2"] = column * height * width
    return found


def add_confidence(
    table: Table, labels: np.ndarray, maps: np.ndarray, axes: str
) -> None:
    """Add what the model found in each object to a table of `measure`.

    Parameters
    ----------
    table : dict of arrays
        With the columns ``label`` and ``area``; gets ``probability_mean`` and
        ``confidence``: the peak probability as a fraction of the typical object's, see
        `confidence`.
    labels : int array
        Those that the table was made of.
    maps : float array of the same shape
        Foreground probability in [0, 1].
    axes : str
        Of both.
    """
    found = measure(labels, axes=axes, image=np.nan_to_num(maps), shape=())
    peaks = found["intensity_max"]
    table["probability_mean"] = found["intensity_mean"]
    table["confidence"] = peaks / max(typical(table["area"], peaks), 1e-9)


def summary(table: Table, n_pixels: int) -> dict[str, float]:
    """Return number, mean area and share of the pixels that objects cover.

    Parameters
    ----------
    table : dict of arrays
        Of `measure`.
    n_pixels : int
        Of the labels, all planes together.

    Returns
    -------
    dict
        ``objects``, ``area_mean`` in pixels, ``covered`` in [0, 1], and the mean of
        each column of areas in a unit, such as ``area_um2``; NaN without objects.
    """
    n = len(table["area"])
    found = {"objects": float(len(np.unique(table["label"])))}
    for name in [c for c in table if c == "area" or c.startswith("area_")]:
        found["area_mean" if name == "area" else name] = (
            float(np.mean(table[name])) if n else float("nan")
        )
    return found | {"covered": float(table["area"].sum()) / max(1, n_pixels)}


def object_sizes(
    labels: np.ndarray,
    pixel_size: tuple[float, float] | None = None,
    unit: str = UM,
) -> dict[str, Any]:
    """Return the number of objects and their areas, for the fields of a `FileOutcome`.

    Parameters
    ----------
    labels : int array
        Ids of any size; 0 is background.
    pixel_size : (float, float), optional
        Height and width of a pixel in ``unit``.
    unit : str
        Where it is no length, the size is not known.

    Returns
    -------
    dict
        ``objects``; ``area_mean``, ``area_median`` and ``area_total`` in pixels;
        ``covered``, the foreground's fraction of the image; ``pixel_area`` in square
        micrometres. NaN where it is not known.
    """
    ids, areas = np.unique(labels, return_counts=True)
    areas = areas[ids != 0]
    total, factor = int(areas.sum()), micrometres(unit)
    return {
        "objects": len(areas),
        "area_mean": total / len(areas) if len(areas) else float("nan"),
        "area_median": float(np.median(areas)) if len(areas) else float("nan"),
        "area_total": float(total),
        "covered": total / max(1, np.size(labels)),
        "pixel_area": (
            pixel_size[0] * pixel_size[1] * factor**2
            if pixel_size is not None and factor is not None
            else float("nan")
        ),
    }
