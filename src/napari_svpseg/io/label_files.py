"""Labels as OME-TIFF with axes, pixel size and the recipe of the run."""

from __future__ import annotations

import re
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
"""Symbols that OME-XML has for the units of napari."""

MAX_CLASSIC_BYTES = 3_500_000_000
"""Larger files are BigTIFF; a classic TIFF ends at 4 GiB, metadata included."""

NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML may hold, not even escaped."""

NO_LABELS = "there are no labels to write: shape {shape}"
NOT_WHOLE_NUMBERS = "labels must be whole numbers, got dtype {dtype}"
NEGATIVE_IDS = "labels hold negative ids: ids start at 1"
IDS_TOO_LARGE = "labels hold ids above 4294967295: renumber them first"


def labels_dtype(largest: int) -> np.dtype[Any]:
    """Return the smallest of uint8, uint16, uint32 and uint64 that holds an id."""
    for kind in (np.uint8, np.uint16, np.uint32):
        if largest <= np.iinfo(kind).max:
            return np.dtype(kind)
    return np.dtype(np.uint64)


def check_labels(labels: np.ndarray, axes: str) -> None:
    """Raise `ValueError` for an array that holds no ids, or has other axes."""
    Axes(axes).check(labels.shape)
    if not labels.size:
        raise ValueError(NO_LABELS.format(shape=labels.shape))
    if labels.dtype.kind not in "iub":
        raise ValueError(NOT_WHOLE_NUMBERS.format(dtype=labels.dtype))
    if labels.dtype.kind == "i" and labels.min() < 0:
        raise ValueError(NEGATIVE_IDS)


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
    """Write labels as an OME-TIFF file, atomically.

    Parameters
    ----------
    path : path
        By convention ``NAME_labels.ome.tif``; its folder must exist.
    labels : int array
        Ids up to 2**32 - 1; the smallest dtype that holds them is written.
    axes : str
        Axes of ``labels``, out of T, Z, Y and X; the file has them in this order.
    pixel_size : (float, float), optional
        Height and width of a pixel in ``unit``.
    unit : str
        A length such as ``"um"``, or ``"pixel"``.
    recipe : Recipe, optional
        Written into the description of the image, as JSON.
    z_step : float, optional
        Distance of two planes along Z in ``unit``.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    WriteError
        If the file cannot be written.
    ValueError
        If labels and axes do not fit, or ids are negative or too large for OME-TIFF.
    """
    path = Path(path)
    labels = np.asarray(labels)
    axes = Axes(axes).order
    check_labels(labels, axes)
    dtype = labels_dtype(int(labels.max(initial=0)))
    if dtype == np.uint64:  # OME-TIFF has no such type
        raise ValueError(IDS_TOO_LARGE)
    # tifffile writes the axes as they are, but other readers rely on the order.
    labels, axes = _in_ome_order(labels, axes)
    metadata: dict[str, Any] = {"axes": axes, "Name": _xml(path.name.split(".")[0])}
    metadata |= _physical_sizes(axes, pixel_size, unit, z_step)
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
            bigtiff=labels.size * dtype.itemsize > MAX_CLASSIC_BYTES,
        )
    return path


def _in_ome_order(labels: np.ndarray, axes: str) -> tuple[np.ndarray, str]:
    """Return labels and axes in the order of OME-TIFF, T Z C Y X."""
    order = sorted(axes, key=AXES.index)
    return labels.transpose([axes.index(a) for a in order]), "".join(order)


def _xml(text: str) -> str:
    """Return a text without characters that XML forbids; file names may have any."""
    return NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def _physical_sizes(
    axes: str,
    pixel_size: tuple[float, float] | None,
    unit: str,
    z_step: float | None,
) -> dict[str, Any]:
    """Return the attributes of OME-XML for the size of a pixel; empty if unknown."""
    if pixel_size is None or not all(is_length(float(n)) for n in pixel_size):
        return {}
    name = OME_UNITS.get(unit, _xml(unit))
    sizes: dict[str, Any] = {
        "PhysicalSizeY": float(pixel_size[0]),
        "PhysicalSizeYUnit": name,
        "PhysicalSizeX": float(pixel_size[1]),
        "PhysicalSizeXUnit": name,
    }
    if z_step and is_length(float(z_step)) and "Z" in axes:
        sizes |= {"PhysicalSizeZ": float(z_step), "PhysicalSizeZUnit": name}
    return sizes
