"""OME-Zarr (NGFF 0.4 and 0.5): images read by region, labels written block by block.

Large TIFF files are opened here too: tifffile shows them as Zarr arrays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.image import Axes, ImageError
from .images import TIFF_SUFFIXES, ImageFile, read_tiff_facts

UNITS = {
    "um": "micrometer",
    "nm": "nanometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "m": "meter",
    "Å": "angstrom",
    "pm": "picometer",
    "in": "inch",
}

NEEDED = "Zarr is not installed: pip install 'napari-svpseg[zarr]'"


@dataclass(frozen=True, eq=False)
class LazyImage:
    """An image in a file, of which only what is sliced is read.

    Parameters
    ----------
    array : array
        Sliced like a numpy array, and returns one.
    axes : Axes
    scale : dict of str to float
        Size of a pixel along each of T, Z, Y, X, at the chosen level.
    unit : str
        Of Z, Y and X; ``pixel`` where it is not known.
    path : Path
    level : int
    version : str
        Of OME-Zarr; empty for other files.
    n_levels : int
        Of its pyramid.
    """

    array: Any
    axes: Axes
    scale: dict[str, float]
    unit: str
    path: Path
    level: int = 0
    version: str = ""
    n_levels: int = 1

    @property
    def n_pixels(self) -> int:
        """Pixels of all planes, each counted once whatever its channels."""
        sizes = zip(self.axes.order, self.array.shape, strict=True)
        return math.prod(int(n) for a, n in sizes if a != "C")


def is_zarr(path: str | Path) -> bool:
    """Tell whether a path is the folder of a Zarr group or array."""
    path = Path(path)
    names = (".zattrs", ".zgroup", ".zarray", "zarr.json")
    return path.is_dir() and any((path / name).is_file() for name in names)


def open_image(path: str | Path, level: int = 0, axes: str | None = None) -> LazyImage:
    """Open an OME-Zarr image, a plain Zarr array or a TIFF file without reading it.

    Parameters
    ----------
    path : path
    level : int
        Of a pyramid; 0 is the full size.
    axes : str, optional
        What the dimensions are, where the file does not say.

    Raises
    ------
    ImageError
        One line naming the file: missing, damaged, without such a level, or with axes
        that must be declared.
    """
    path = Path(path)
    if path.suffix.lower() in TIFF_SUFFIXES and path.is_file():
        return _open_tiff(path, level, axes)
    if not is_zarr(path):
        raise ImageError(f"{path}: there is no Zarr image and no TIFF file here.")
    zarr = import_zarr()
    try:
        node = zarr.open(path, mode="r")
    except Exception as error:
        raise ImageError(
            f"{path}: cannot be read, it may be damaged ({first_line(error)})."
        ) from error
    if isinstance(node, zarr.Array):
        if level:
            raise ImageError(f"{path}: is one array, there is no level {level}.")
        return LazyImage(node, _axes_of(path, node, axes), {}, "pixel", path)
    return _open_group(path, node, level, axes)


def _open_group(path: Path, group: Any, level: int, axes: str | None) -> LazyImage:
    attributes = dict(group.attrs)
    ome = attributes.get("ome", attributes)
    try:
        multiscale = ome["multiscales"][0]
        version = str(ome.get("version") or multiscale.get("version") or "0.4")
        datasets = multiscale["datasets"]
        if not 0 <= level < len(datasets):
            raise ImageError(
                f"{path}: has the levels 0 to {len(datasets) - 1}, asked for {level}."
            )
        array = group[datasets[level]["path"]]
        declared = [
            a if isinstance(a, dict) else {"name": a}
            for a in multiscale.get("axes", [])
        ]
        letters = "".join(str(a["name"]) for a in declared).upper()
        scale = _scale(datasets[level], multiscale, len(array.shape))
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ImageError(
            f"{path}: is no OME-Zarr image of version 0.4 or 0.5 "
            f"(missing or wrong: {first_line(error)})."
        ) from error
    units = {a.get("unit") for a in declared if str(a["name"]).upper() in "ZYX"}
    names = {name: short for short, name in UNITS.items()}
    unit = names.get(str(units.pop()), "pixel") if len(units) == 1 else "pixel"
    meaning = _axes_of(path, array, axes or letters)
    by_axis = {a: s for a, s in zip(meaning.order, scale, strict=True) if a != "C"}
    n_levels = len(datasets)
    return LazyImage(array, meaning, by_axis, unit, path, level, version, n_levels)


def _scale(dataset: dict[str, Any], multiscale: dict[str, Any], n: int) -> list[float]:
    """Return the size of a pixel along each axis: the level's times the image's."""
    scale = [1.0] * n
    for holder in (dataset, multiscale):
        for change in holder.get("coordinateTransformations", ()):
            values = change.get("scale") if change.get("type") == "scale" else None
            if values is not None and len(values) == n:
                scale = [a * float(b) for a, b in zip(scale, values, strict=True)]
    return scale


def _axes_of(path: Path, array: Any, axes: str | None) -> Axes:
    shape = tuple(int(n) for n in array.shape)
    try:
        meaning = Axes(axes) if axes else Axes.for_image(shape)
        meaning.check(shape)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    if 0 in shape:
        raise ImageError(f"{path}: the image is empty, its shape is {shape}.")
    return meaning


def _open_tiff(path: Path, level: int, axes: str | None) -> LazyImage:
    import tifffile

    zarr = import_zarr()
    letters, size, unit, z_step = read_tiff_facts(path)
    try:
        store = tifffile.imread(path, aszarr=True, level=level)
        array = zarr.open(store, mode="r")
    except Exception as error:
        raise ImageError(
            f"{path}: level {level} cannot be read ({first_line(error)})."
        ) from error
    if not isinstance(array, zarr.Array):
        array = array["0"]
    meaning = _axes_of(path, array, axes or letters)
    scale = {} if size is None else {"Y": size[0], "X": size[1]}
    if z_step is not None:
        scale["Z"] = z_step
    if level:
        scale = {}  # what a level of a TIFF is reduced by is not said
    return LazyImage(array, meaning, scale, unit, path, level)


def read_zarr(path: str | Path, axes: str | None = None) -> ImageFile:
    """Return a Zarr image as `images.read_image` returns files; its array is lazy."""
    image = open_image(path, axes=axes)
    order, sizes = image.axes.order, image.scale
    size = (sizes["Y"], sizes["X"]) if {"Y", "X"} <= sizes.keys() else None
    last = image.array.shape[-1]
    rgb = order.endswith("C") and last in (3, 4) and image.array.dtype == np.uint8
    return ImageFile(
        image.array, image.axes, size, image.unit, rgb, image.path, sizes.get("Z")
    )


def is_image(path: str | Path) -> bool:
    """Tell whether a path is an OME-Zarr image."""
    if not is_zarr(path):
        return False
    attributes = dict(import_zarr().open(Path(path), mode="r").attrs)
    return "multiscales" in attributes.get("ome", attributes)


def import_zarr() -> Any:
    """Return the package zarr, or raise `ImageError` that says how to install it."""
    try:
        import zarr
    except ImportError as error:
        raise ImageError(NEEDED) from error
    return zarr


def first_line(error: BaseException) -> str:
    """Return the start of an error's message, or its type."""
    text = str(error)
    return text.splitlines()[0][:120] if text else type(error).__name__
