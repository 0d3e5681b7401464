"""Images in, labels out: TIFF with axes and pixel size, PNG and JPEG."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import tifffile

from ..core.image import AXES, Axes, ImageError

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8", ".lsm", ".stk")
BITMAP_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
UNITS_UM = {
    "µm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "\\u00B5m": 1.0,
    "micrometer": 1.0,
    "nm": 1e-3,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
}

COLOURS = (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)
ALPHA = {tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA}


@dataclass(frozen=True, eq=False)
class ImageFile:
    """An image as it lies in a file.

    Parameters
    ----------
    array : numpy array
    axes : Axes
        From the file's metadata, or as declared by the caller.
    pixel_size : (float, float) or None
        Height and width of a pixel in ``unit``.
    unit : str
        ``"um"``, or ``"pixel"`` where the size is not known.
    rgb : bool
        The channels are red, green, blue (and alpha).
    path : Path
    z_step : float or None
        Distance of two planes along Z, in ``unit``.
    """

    array: np.ndarray
    axes: Axes
    pixel_size: tuple[float, float] | None
    unit: str
    rgb: bool
    path: Path
    z_step: float | None = None


def read_image(path: str | Path, axes: str | None = None) -> ImageFile:
    """Read an image file.

    Parameters
    ----------
    path : path
        TIFF (OME, ImageJ or plain), PNG, JPEG, BMP or NumPy ``.npy``.
    axes : str, optional
        What the dimensions are, such as ``"ZYX"``. Needed for a plain TIFF of more than
        two dimensions that are not RGB, as shapes are not guessed from.

    Returns
    -------
    ImageFile

    Raises
    ------
    ImageError
        One line naming the file: missing, damaged, of an unknown kind, or with axes
        that must be declared.
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"{path}: no such file.")
    suffix, z_step = path.suffix.lower(), None
    try:
        if suffix in TIFF_SUFFIXES:
            array, found, size, unit, rgb, z_step = _read_tiff(path)
            if rgb and found == "CYX" and not axes:  # colours plane by plane
                array, found = np.moveaxis(array, 0, -1), "YXC"
        elif suffix in BITMAP_SUFFIXES:
            array, found, size, unit, rgb = _read_picture(path)
        elif suffix == ".npy":
            array = np.load(path, allow_pickle=False)
            found, size, unit, rgb = "", None, "pixel", False
        else:
            raise ImageError(
                f"{path}: files that end in {suffix or 'nothing'} are not read: "
                "convert it to TIFF."
            )
    except ImageError:
        raise
    except Exception as error:
        reason = (
            str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        )
        raise ImageError(
            f"{path}: cannot be read, it may be damaged ({reason})."
        ) from error
    if 0 in array.shape or array.ndim < 2:
        raise ImageError(f"{path}: the image is empty, its shape is {array.shape}.")
    meaning = _axes(path, array, found, axes, rgb)
    return ImageFile(array, meaning, size, unit, rgb, path, z_step)


def _axes(
    path: Path, array: np.ndarray, found: str, declared: str | None, rgb: bool
) -> Axes:
    try:
        if declared:
            given = Axes(declared)
            given.check(array.shape)
            return given
        if found and len(found) == array.ndim:
            return Axes(found)
        return Axes.for_image(array.shape, rgb=rgb)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def _read_picture(
    path: Path,
) -> tuple[np.ndarray, str, tuple[float, float] | None, str, bool]:
    from skimage.io import imread

    array = np.asarray(imread(path))
    if array.ndim == 3 and array.shape[2] == 2:  # grey and alpha
        array = array[..., 0]
    rgb = array.ndim == 3 and array.shape[2] in (3, 4)
    return array, "YXC" if rgb else "", None, "pixel", rgb


def _read_tiff(
    path: Path,
) -> tuple[np.ndarray, str, tuple[float, float] | None, str, bool, float | None]:
    with quiet_tifffile(), tifffile.TiffFile(path) as tiff:
        series = tiff.series[0]
        array = series.asarray()
        samples = array.shape[series.axes.index("S")] if "S" in series.axes else 1
        rgb = tiff.pages[0].photometric in COLOURS and samples in (3, 4)
        letters, array = _known_axes(series.axes, array)
        if samples == 2 and set(tiff.pages[0].extrasamples) & ALPHA:
            letters, array = _without_alpha(letters, array)
        declared = tiff.is_ome or tiff.is_imagej or tiff.is_lsm or tiff.is_stk
        size, unit = _pixel_size(tiff)
        z_step = _z_step(tiff) if size is not None else None
    known = ("YX",) if samples == 1 else ("YX", "YXC", "CYX")
    if not declared and letters not in known:
        letters = ""  # a plain TIFF's page axis means nothing: the user must say
    return array, letters, size, unit, rgb, z_step


def read_tiff_facts(
    path: Path,
) -> tuple[str, tuple[float, float] | None, str, float | None]:
    """Return a TIFF file's axes, pixel size, unit and z step without reading pixels.

    The axes are those of its first series, and empty where they must be declared.
    """
    try:
        with quiet_tifffile(), tifffile.TiffFile(path) as tiff:
            letters = tiff.series[0].axes
            letters = letters.replace("S", "C") if "C" not in letters else letters
            declared = tiff.is_ome or tiff.is_imagej or tiff.is_lsm or tiff.is_stk
            size, unit = _pixel_size(tiff)
            z_step = _z_step(tiff) if size is not None else None
    except Exception as error:
        raise ImageError(f"{path}: cannot be read, it may be damaged.") from error
    if set(letters) - set(AXES) or not (declared or letters in ("YX", "YXC", "CYX")):
        letters = ""
    return letters, size, unit, z_step


@contextlib.contextmanager
def quiet_tifffile() -> Iterator[None]:
    """Keep tifffile from logging what our own errors say."""
    log = logging.getLogger("tifffile")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(level)


def _without_alpha(letters: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """Return a grey image without its transparency."""
    return letters.replace("C", ""), array.take(0, axis=letters.index("C"))


def _known_axes(letters: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """Return tifffile's axes in our letters; axes of length 1 go."""
    keep = [
        not (n == 1 and a not in "YX")
        for a, n in zip(letters, array.shape, strict=True)
    ]
    array = array[tuple(slice(None) if k else 0 for k in keep)]
    kept = "".join(a for a, k in zip(letters, keep, strict=True) if k)
    kept = kept.replace("S", "C") if "C" not in kept else kept
    if set(kept) - set(AXES) or len(set(kept)) != len(kept):
        return "", array
    return kept, array


def _pixel_size(tiff: tifffile.TiffFile) -> tuple[tuple[float, float] | None, str]:
    """Return height and width of a pixel in micrometres, where the file tells."""
    if tiff.is_ome and tiff.ome_metadata:
        pixels = _first_pixels(tifffile.xml2dict(tiff.ome_metadata))
        y, x = pixels.get("PhysicalSizeY"), pixels.get("PhysicalSizeX")
        unit = str(pixels.get("PhysicalSizeXUnit", "µm"))
        if is_length(y) and is_length(x) and unit in UNITS_UM:
            return (float(y) * UNITS_UM[unit], float(x) * UNITS_UM[unit]), "um"
        return None, "pixel"
    page = tiff.pages[0]
    resolution = {t: page.tags.get(t) for t in ("YResolution", "XResolution")}
    if not tiff.is_imagej or None in resolution.values():
        return None, "pixel"
    unit = str((tiff.imagej_metadata or {}).get("unit", ""))
    if unit not in UNITS_UM:
        return None, "pixel"
    sizes = []
    for tag in resolution.values():
        assert tag is not None  # checked above
        number, denominator = tag.value
        if not number or not denominator:
            return None, "pixel"
        sizes.append(denominator / number * UNITS_UM[unit])
    return (sizes[0], sizes[1]), "um"


def _z_step(tiff: tifffile.TiffFile) -> float | None:
    """Return the distance of two planes in micrometres, where the file tells."""
    if tiff.is_ome and tiff.ome_metadata:
        pixels = _first_pixels(tifffile.xml2dict(tiff.ome_metadata))
        step, unit = pixels.get("PhysicalSizeZ"), pixels.get("PhysicalSizeZUnit", "µm")
    else:
        told = tiff.imagej_metadata or {}
        step, unit = told.get("spacing"), told.get("unit", "")
    if not is_length(step) or str(unit) not in UNITS_UM:
        return None
    return float(step) * UNITS_UM[str(unit)]


def _first_pixels(ome: dict[str, Any]) -> dict[str, Any]:
    image = ome.get("OME", {}).get("Image", {})
    image = image[0] if isinstance(image, list) else image
    pixels = image.get("Pixels", {})
    return pixels if isinstance(pixels, dict) else {}


def is_length(value: object) -> TypeGuard[float]:
    """Tell whether a size can be one: a finite number above 0."""
    return isinstance(value, int | float) and 0 < value < math.inf


def read_mask(path: str | Path) -> np.ndarray:
    """Return the labels in a file, which must be one plane."""
    labels = read_image(path)
    if labels.axes.order != "YX":
        raise ImageError(
            f"{path}: labels are one plane of whole numbers, this file has the axes "
            f"{labels.axes.order}."
        )
    return np.asarray(labels.array)
