"""Labels as OME-TIFF with axes, pixel size and the recipe of the run."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from ..core.escapes import escaped
from ..core.image import AXES, Axes
from ..core.result import Recipe
from ..core.units import PIXEL, micrometres
from .atomic import atomic_path
from .imagej import extra_tags, imagej_description, resolution, show_to_imagej
from .images import is_length, quiet_tifffile
from .ownership import LABELS_SEAL, PROGRAM, labels_hash

MAX_CLASSIC_BYTES = 3_500_000_000
"""Larger files are BigTIFF; a classic TIFF ends at 4 GiB, metadata included."""

UM_OF_OME = "µm"

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
    # of lazy labels the writers look at what they read
    is_read = isinstance(labels, np.ndarray) and labels.dtype.kind == "i"
    if is_read and labels.min() < 0:
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
    overwrite: bool = False,
    sealed: bool = True,
    origin: dict[str, float] | None = None,
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
        A length such as ``"um"``, which is written in micrometres; anything else is
        written as pixels.
    recipe : Recipe, optional
        Written into the description of the image, as JSON.
    z_step : float, optional
        Distance of two planes along Z in ``unit``.
    overwrite : bool
        Allow to replace a file that no run of this program wrote.
    sealed : bool
        Mark the labels as written by a run, which later runs may replace; False for
        those that a user saves.
    origin : dict of str to float, optional
        Where the centre of the first pixel lies along each axis, in ``unit``; 0 by
        default.

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
    metadata: dict[str, Any] = {
        "axes": axes,
        "Name": _xml(escaped(path.name.split(".")[0])),
    }
    metadata |= _physical_sizes(axes, pixel_size, unit, z_step)
    metadata |= _positions(axes, labels.shape, unit, origin or {})
    if recipe is not None:
        metadata["Description"] = recipe.to_json()
    labels = labels.astype(dtype, copy=False)
    if sealed:
        metadata["MapAnnotation"] = {
            "Namespace": PROGRAM,
            "Value": {LABELS_SEAL: labels_hash(labels)},
        }
    is_big = labels.size * dtype.itemsize > MAX_CLASSIC_BYTES
    is_stack = labels.ndim > 2 and not is_big  # ImageJ reads no BigTIFF
    with atomic_path(path, overwrite) as temporary:
        tifffile.imwrite(
            temporary,
            labels,
            ome=True,
            metadata=metadata,
            photometric="minisblack",
            compression="zlib",
            bigtiff=is_big,
            **_for_imagej(labels, axes, metadata, is_stack=is_stack),
        )
        if is_stack:
            show_to_imagej(temporary)
    return path


def read_recipe(path: str | Path) -> Recipe | None:
    """Return the recipe in a labels file; None without one, or without such a file."""
    try:
        with quiet_tifffile(), tifffile.TiffFile(path) as tiff:
            found = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Description"]
        return Recipe.from_json(found if isinstance(found, str) else json.dumps(found))
    except Exception:  # noqa: BLE001  (a damaged file makes its readers raise anything)
        return None


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
    factor = micrometres(unit)
    lengths = dict(zip("YX", pixel_size, strict=True))
    if z_step and is_length(float(z_step)) and "Z" in axes:
        lengths["Z"] = z_step
    sizes: dict[str, Any] = {}
    for axis, length in lengths.items():
        sizes[f"PhysicalSize{axis}"] = float(length) * (factor or 1.0)
        sizes[f"PhysicalSize{axis}Unit"] = UM_OF_OME if factor else PIXEL
    return sizes


def _for_imagej(
    labels: np.ndarray, axes: str, sizes: dict[str, Any], *, is_stack: bool
) -> dict[str, Any]:
    """Return tifffile's options for programs that know no OME-XML, as ImageJ.

    Parameters
    ----------
    labels : int array
    axes : str
    sizes : dict
        Attributes of OME-XML, see `_physical_sizes`.
    is_stack : bool
        ImageJ's description is written too, so that times are frames.
    """
    options: dict[str, Any] = {}
    if sizes.get("PhysicalSizeXUnit") == UM_OF_OME:
        in_um = {axis: sizes[f"PhysicalSize{axis}"] for axis in "YX"}
        options = resolution(in_um, is_stack=is_stack)
    if is_stack:
        text = imagej_description(
            dict(zip(axes, labels.shape, strict=True)),
            int(labels.max(initial=0)),
            sizes.get("PhysicalSizeZ"),
            has_size=bool(options),
        )
        options["extratags"] = extra_tags(text)
    return options


def _positions(
    axes: str, shape: tuple[int, ...], unit: str, origin: dict[str, float]
) -> dict[str, Any]:
    """Return the attributes of OME-XML for the place of each plane; empty at 0."""
    factor = micrometres(unit)
    if factor is None or not any(origin.get(a) for a in "ZYX"):
        return {}
    n = math.prod(shape[: axes.index("Y")])
    plane: dict[str, Any] = {}
    for axis in "ZYX":
        if axis in origin:
            plane[f"Position{axis}"] = [float(origin[axis]) * factor] * n
            plane[f"Position{axis}Unit"] = ["µm"] * n
    return {"Plane": plane}
