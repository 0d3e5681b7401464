"""Labels as OME-TIFF with axes, pixel size and the recipe of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from ..core.image import AXES, Axes
from ..core.result import Recipe
from .atomic import atomic_path
from .images import is_length

OME_UNITS = {
    "um": "µm",
    "micrometer": "µm",
    "micron": "µm",
    "nanometer": "nm",
    "millimeter": "mm",
    "centimeter": "cm",
    "meter": "m",
    "angstrom": "Å",
    "picometer": "pm",
    "inch": "in",
}


def labels_dtype(largest: int) -> np.dtype[Any]:
    """Return the smallest of uint8, uint16, uint32 and uint64 that holds an id."""
    for kind in (np.uint8, np.uint16, np.uint32):
        if largest <= np.iinfo(kind).max:
            return np.dtype(kind)
    return np.dtype(np.uint64)


def write_labels(
    path: str | Path,
    labels: np.ndarray,
    *,
    axes: str = "YX",
    pixel_size: tuple[float, float] | None = None,
    unit: str = "pixel",
    recipe: Recipe | None = None,
    z_step: float | None = None,
) -> Path:
    """Write labels as OME-TIFF, whole or not at all.

    Parameters
    ----------
    path : path
        ``NAME_labels.ome.tif`` by habit; its folder must exist.
    labels : int array
        Ids; the file's dtype follows from the largest one. uint64 is refused, as
        OME-TIFF has no such type.
    axes : str
        Of ``labels``, out of T, Z, Y and X; in the file they have that order.
    pixel_size : (float, float), optional
        Height and width of a pixel in ``unit``.
    unit : str
        A length such as ``"um"``; OME-TIFF also knows ``"pixel"``.
    recipe : Recipe, optional
        Written into the description.
    z_step : float, optional
        Distance of two planes along Z, in ``unit``.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    WriteError
        If the disk is full or the folder cannot be written.
    ValueError
        If labels and axes do not fit, or ids are negative or too large.
    """
    path = Path(path)
    labels = np.asarray(labels)
    axes = Axes(axes).order
    Axes(axes).check(labels.shape)
    if not labels.size:
        raise ValueError(f"there are no labels to write: shape {labels.shape}")
    if labels.dtype.kind not in "iub":
        raise ValueError(f"labels must be whole numbers, got dtype {labels.dtype}")
    if labels.min(initial=0) < 0:
        raise ValueError("labels hold negative ids: ids start at 1")
    dtype = labels_dtype(int(labels.max(initial=0)))
    if dtype == np.uint64:
        raise ValueError("labels hold ids above 4294967295: renumber them first")
    labels, axes = _ordered(labels, axes)
    metadata: dict[str, Any] = {"axes": axes, "Name": path.name.split(".")[0]}
    if pixel_size is not None and all(is_length(float(size)) for size in pixel_size):
        name = OME_UNITS.get(unit, unit)
        metadata |= {
            "PhysicalSizeY": float(pixel_size[0]),
            "PhysicalSizeYUnit": name,
            "PhysicalSizeX": float(pixel_size[1]),
            "PhysicalSizeXUnit": name,
        }
        if z_step and is_length(float(z_step)) and "Z" in axes:
            metadata |= {"PhysicalSizeZ": float(z_step), "PhysicalSizeZUnit": name}
    if recipe is not None:
        metadata["Description"] = recipe.to_json()
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary,
            labels.astype(dtype, copy=False),
            ome=True,
            metadata=metadata,
            photometric="minisblack",
            compression="zlib",
            bigtiff=labels.size * dtype.itemsize > 3_500_000_000,
        )
    return path


def _ordered(labels: np.ndarray, axes: str) -> tuple[np.ndarray, str]:
    """Return labels with their axes in the order of OME-TIFF, T Z C Y X."""
    order = sorted(axes, key=AXES.index)
    return labels.transpose([axes.index(a) for a in order]), "".join(order)
