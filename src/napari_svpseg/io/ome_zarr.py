"""Lazy reading of OME-Zarr images (NGFF 0.4 and 0.5), and of large TIFF files.

Only the regions that are sliced are read; tifffile shows a TIFF as a Zarr array.
"""

from __future__ import annotations

import math
import re
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
"""Names that OME-Zarr has for our units."""

VERSIONS = ("0.1", "0.2", "0.3", "0.4", "0.5")
"""Versions of OME-Zarr that are read."""

ZARR_MISSING = "Zarr is not installed: pip install 'napari-svpseg[zarr]'"
NO_IMAGE = "{path}: there is no Zarr image and no TIFF file here."
UNREADABLE = "{path}: cannot be read, it may be damaged ({reason})."
ONE_ARRAY = "{path}: is one array, there is no level {level}."
LEVEL_ABSENT = "{path}: has the levels 0 to {last}, asked for {level}."
NOT_OME_ZARR = (
    "{path}: is no OME-Zarr image of version 0.4 or 0.5 (missing or wrong: {reason})."
)
NO_PIXELS = "{path}: the image is empty, its shape is {shape}."
LEVEL_UNREADABLE = "{path}: level {level} cannot be read ({reason})."


@dataclass(frozen=True, eq=False)
class LazyImage:
    """An image in a file, which is read where it is sliced.

    Parameters
    ----------
    array : array
        Slicing it reads the region and returns a numpy array.
    axes : Axes
    scale : dict of str to float
        Size of a pixel along each of T, Z, Y, X, at the chosen level.
    unit : str
        Unit of the scale along Z, Y and X; ``"pixel"`` if it is unknown.
    path : Path
    level : int
        Level of the pyramid; 0 is the full size.
    version : str
        Version of OME-Zarr; empty for other files.
    n_levels : int
        Number of levels in the pyramid.
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
        """Number of pixels in all planes, not counted by channel."""
        sizes = zip(self.axes.order, self.array.shape, strict=True)
        return math.prod(int(n) for a, n in sizes if a != "C")


class _Pixels:
    """An array of a file; where its pixels cannot be read, the error names the file.

    Parameters
    ----------
    array : zarr.Array
    path : Path
    """

    def __init__(self, array: Any, path: Path) -> None:
        self._array, self._path = array, path

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # for copies, which ask before there is an array
            raise AttributeError(name)
        return getattr(self._array, name)

    def __getitem__(self, region: Any) -> Any:
        try:
            return self._array[region]
        except IndexError:
            raise
        except Exception as error:  # each codec has errors of its own
            reason = first_line(error)
            raise ImageError(
                UNREADABLE.format(path=self._path, reason=reason)
            ) from error

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[...], dtype)

    def __len__(self) -> int:
        return len(self._array)


def is_zarr(path: str | Path) -> bool:
    """Return whether a path is the folder of a Zarr group or array."""
    path = Path(path)
    names = (".zattrs", ".zgroup", ".zarray", "zarr.json")
    return path.is_dir() and any((path / name).is_file() for name in names)


def open_image(path: str | Path, level: int = 0, axes: str | None = None) -> LazyImage:
    """Return an OME-Zarr image, a plain Zarr array or a TIFF file, without its pixels.

    Parameters
    ----------
    path : path
    level : int
        Level of the pyramid; 0 is the full size.
    axes : str, optional
        Meaning of the dimensions, in place of what the file says.

    Returns
    -------
    LazyImage

    Raises
    ------
    ImageError
        If the image is missing, damaged, has no such level, or its axes must be
        declared; one line that names the file.
    """
    path = Path(path)
    if path.suffix.lower() in TIFF_SUFFIXES and path.is_file():
        return _open_tiff(path, level, axes)
    if not is_zarr(path):
        raise ImageError(NO_IMAGE.format(path=path))
    zarr = import_zarr()
    try:
        node = zarr.open(path, mode="r")
    except Exception as error:
        raise ImageError(
            UNREADABLE.format(path=path, reason=first_line(error))
        ) from error
    if isinstance(node, zarr.Array):
        if level:
            raise ImageError(ONE_ARRAY.format(path=path, level=level))
        meaning = _axes_of(path, node, axes)
        return LazyImage(_Pixels(node, path), meaning, {}, "pixel", path)
    return _open_group(path, node, level, axes)


def _open_group(path: Path, group: Any, level: int, axes: str | None) -> LazyImage:
    """Return the image that the attributes of a Zarr group describe."""
    attributes = dict(group.attrs)
    ome = attributes.get("ome", attributes)  # a key of its own since version 0.5
    try:
        multiscale = ome["multiscales"][0]
        version = str(ome.get("version") or multiscale.get("version") or "0.4")
        datasets = multiscale["datasets"]
        if not 0 <= level < len(datasets):
            raise ImageError(
                LEVEL_ABSENT.format(path=path, last=len(datasets) - 1, level=level)
            )
        array = group[datasets[level]["path"]]
        # Axes were plain letters up to version 0.3.
        declared = [
            a if isinstance(a, dict) else {"name": a}
            for a in multiscale.get("axes", [])
        ]
        letters = "".join(str(a["name"]) for a in declared).upper()
        scale = _scale(datasets[level], multiscale, len(array.shape))
        if version not in VERSIONS:
            raise ValueError(f"version {version}")
    except ImageError:
        raise
    except Exception as error:  # damaged metadata makes zarr raise anything
        raise ImageError(
            NOT_OME_ZARR.format(path=path, reason=first_line(error))
        ) from error
    # One unit for all axes of space, or none: there is no field for several.
    units = {a.get("unit") for a in declared if str(a["name"]).upper() in "ZYX"}
    names = {name: short for short, name in UNITS.items()}
    unit = names.get(str(units.pop()), "pixel") if len(units) == 1 else "pixel"
    meaning = _axes_of(path, array, axes or letters)
    by_axis = {a: s for a, s in zip(meaning.order, scale, strict=True) if a != "C"}
    n_levels = len(datasets)
    pixels = _Pixels(array, path)
    return LazyImage(pixels, meaning, by_axis, unit, path, level, version, n_levels)


def _scale(dataset: dict[str, Any], multiscale: dict[str, Any], n: int) -> list[float]:
    """Return the size of a pixel along each of ``n`` axes.

    It is the product of the scale of the level and that of the whole image.
    """
    scale = [1.0] * n
    for holder in (dataset, multiscale):
        for change in holder.get("coordinateTransformations", ()):
            values = change.get("scale") if change.get("type") == "scale" else None
            if values is not None and len(values) == n:
                scale = [a * float(b) for a, b in zip(scale, values, strict=True)]
    return scale


def _axes_of(path: Path, array: Any, axes: str | None) -> Axes:
    """Return the axes of an array, checked against its shape."""
    shape = tuple(int(n) for n in array.shape)
    try:
        meaning = Axes(axes) if axes else Axes.for_image(shape)
        meaning.check(shape)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    if 0 in shape:
        raise ImageError(NO_PIXELS.format(path=path, shape=shape))
    return meaning


def _open_tiff(path: Path, level: int, axes: str | None) -> LazyImage:
    """Return a TIFF file as a lazy image."""
    import tifffile

    zarr = import_zarr()
    letters, size, unit, z_step = read_tiff_facts(path)
    try:
        store = tifffile.imread(path, aszarr=True, level=level)
        array = zarr.open(store, mode="r")
    except Exception as error:
        raise ImageError(
            LEVEL_UNREADABLE.format(path=path, level=level, reason=first_line(error))
        ) from error
    if not isinstance(array, zarr.Array):
        array = array["0"]
    meaning = _axes_of(path, array, axes or letters)
    scale = {} if size is None else {"Y": size[0], "X": size[1]}
    if z_step is not None:
        scale["Z"] = z_step
    if level:
        scale = {}  # a TIFF does not say by how much a level is reduced
    return LazyImage(_Pixels(array, path), meaning, scale, unit, path, level)


def read_zarr(path: str | Path, axes: str | None = None) -> ImageFile:
    """Return a Zarr image in the form of `images.read_image`, with a lazy array.

    Parameters, errors and axes are those of `open_image`.
    """
    image = open_image(path, axes=axes)
    order, sizes = image.axes.order, image.scale
    size = (sizes["Y"], sizes["X"]) if {"Y", "X"} <= sizes.keys() else None
    # By the specification C is before Y and X: where it is last, it holds colours.
    last = image.array.shape[-1]
    rgb = order.endswith("C") and last in (3, 4) and image.array.dtype == np.uint8
    return ImageFile(
        image.array, image.axes, size, image.unit, rgb, image.path, sizes.get("Z")
    )


def is_image(path: str | Path) -> bool:
    """Return whether a path is an OME-Zarr image."""
    if not is_zarr(path):
        return False
    attributes = dict(import_zarr().open(Path(path), mode="r").attrs)
    return "multiscales" in attributes.get("ome", attributes)


def import_zarr() -> Any:
    """Return the optional package zarr.

    Raises
    ------
    ImageError
        If it is not installed, with the command that installs it.
    """
    try:
        import zarr
    except ImportError as error:
        raise ImageError(ZARR_MISSING) from error
    return zarr


def first_line(error: BaseException) -> str:
    """Return the start of an error's message, or its type."""
    text = re.sub(r"<class '([\w.]+)'>", r"\1", str(error))
    return text.splitlines()[0][:120] if text else type(error).__name__
