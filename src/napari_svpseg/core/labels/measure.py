"""What is measured of each object: place, size, shape and intensities."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..image import Axes

Table = dict[str, np.ndarray]
"""Columns of equal length, by name."""

SHAPE = {
    "centroid-0": "y",
    "centroid-1": "x",
    "bbox-0": "top",
    "bbox-1": "left",
    "bbox-2": "bottom",
    "bbox-3": "right",
    "area": "area",
    "perimeter": "perimeter",
    "equivalent_diameter_area": "diameter",
    "axis_major_length": "major_axis",
    "axis_minor_length": "minor_axis",
    "eccentricity": "eccentricity",
    "solidity": "solidity",
    "orientation": "orientation",
}
"""What scikit-image calls our columns; lengths in pixels, angles in radians."""

INTENSITIES = {
    "intensity_mean": "mean",
    "intensity_std": "std",
    "intensity_min": "min",
    "intensity_max": "max",
}


def measure(
    labels: np.ndarray,
    *,
    axes: str = "YX",
    image: np.ndarray | None = None,
    image_axes: str = "",
    pixel_size: tuple[float, float] | None = None,
    unit: str = "um",
) -> Table:
    """Return one row for each object of each plane.

    Parameters
    ----------
    labels : int array
        Ids of any size; 0 is background.
    axes : str
        Of ``labels``, out of T, Z, Y and X.
    image : array, optional
        Whose intensities are measured.
    image_axes : str
        Of ``image``; by default those of the labels.
    pixel_size : (float, float), optional
        Height and width of a pixel in ``unit``: lengths and areas are told in it too.
    unit : str

    Returns
    -------
    dict of arrays
        ``label``, ``t`` and ``z`` (from 0, for stacks), place and shape in pixels
        (``area``, ``perimeter``, ...), the same in physical units (``area_um2``,
        ``perimeter_um``, ...), and ``mean``, ``std``, ``min``, ``max`` of the
        intensities, of each channel where there are several (``mean_c0``, ...).
    """
    labels = np.asarray(labels)
    layout = Axes(axes)
    layout.check(labels.shape)
    pictures = None if image is None else Axes(image_axes or layout.order)
    tables = []
    for index in layout.plane_indices(labels.shape):
        plane = Axes(layout.order).to_plane(labels[layout.plane_slices(index)])[..., 0]
        picture = None
        if image is not None and pictures is not None:
            where = dict(zip(layout.stack, index, strict=True))
            at = tuple(where[axis] for axis in pictures.stack)
            picture = pictures.to_plane(np.asarray(image[pictures.plane_slices(at)]))
        tables.append(
            _plane_table(plane, picture, dict(zip(layout.stack, index, strict=True)))
        )
    table = {
        name: np.concatenate([part[name] for part in tables]) for name in tables[0]
    }
    return table if pixel_size is None else _with_units(table, pixel_size, unit)


def _plane_table(
    plane: np.ndarray, picture: np.ndarray | None, where: dict[str, int]
) -> Table:
    """Return the rows of one plane, in the order of the ids."""
    from skimage.measure import regionprops_table

    ids, compact = np.unique(plane, return_inverse=True)
    compact = compact.reshape(plane.shape)  # ids may be huge: scikit-image counts to it
    if ids.size and ids[0] != 0:
        ids, compact = np.concatenate([[0], ids]), compact + 1
    wanted = ["label", *dict.fromkeys(name.partition("-")[0] for name in SHAPE)]
    if picture is not None:
        wanted += INTENSITIES
        picture = picture.astype(float)
    found = regionprops_table(compact, picture, properties=wanted)
    table = {"label": ids[found["label"]]}
    table |= {
        axis.lower(): np.full(len(table["label"]), n) for axis, n in where.items()
    }
    table |= {name: found[theirs] for theirs, name in SHAPE.items()}
    n_channels = 0 if picture is None else picture.shape[2]
    for theirs, name in INTENSITIES.items():
        for channel in range(n_channels):
            column = name if n_channels == 1 else f"{name}_c{channel}"
            table[column] = found[f"{theirs}-{channel}"]
    return table


def _with_units(table: Table, pixel_size: tuple[float, float], unit: str) -> Table:
    """Return the table with sizes in physical units behind those in pixels.

    Of pixels that are not square, lengths along any direction but the axes are left
    out, as they do not follow from those in pixels.
    """
    height, width = (float(size) for size in pixel_size)
    factors = {"y": height, "x": width}
    if np.isclose(height, width):
        lengths = ("perimeter", "diameter", "major_axis", "minor_axis")
        factors |= dict.fromkeys(lengths, height)
    else:
        factors["diameter"] = float(np.sqrt(height * width))
    found: dict[str, Any] = {}
    for name, column in table.items():
        found[name] = column
        if name in factors:
            found[f"{name}_{unit}"] = column * factors[name]
        if name == "area":
            found[f"area_{unit}2"] = column * height * width
    return found


def object_sizes(
    labels: np.ndarray, pixel_size: tuple[float, float] | None = None
) -> dict[str, Any]:
    """Return the number and areas of the objects, as a `FileOutcome` tells them.

    Parameters
    ----------
    labels : int array
        Ids of any size; 0 is background.
    pixel_size : (float, float), optional
        Height and width of a pixel in micrometres.
    """
    ids, areas = np.unique(labels, return_counts=True)
    areas = areas[ids != 0]
    total = int(areas.sum())
    return {
        "objects": len(areas),
        "area_mean": total / len(areas) if len(areas) else float("nan"),
        "area_median": float(np.median(areas)) if len(areas) else float("nan"),
        "area_total": float(total),
        "covered": total / max(1, np.size(labels)),
        "pixel_area": pixel_size[0] * pixel_size[1] if pixel_size else float("nan"),
    }
