"""Reading of image files: TIFF (OME, ImageJ, plain), PNG, JPEG, BMP, GIF and NumPy."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

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
"""Micrometres of each unit that OME and ImageJ write (one escapes its µ)."""

COLOUR_PHOTOMETRICS = (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)
ALPHA_SAMPLES = {tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA}

MAX_REASON = 120
"""Characters of another library's message that are quoted in ours."""

NO_SUCH_FILE = "{path}: no such file."
UNKNOWN_KIND = "{path}: files that end in {suffix} are not read: convert it to TIFF."
UNREADABLE = "{path}: cannot be read, it may be damaged ({reason})."
NO_PIXELS = "{path}: the image is empty, its shape is {shape}."
NOT_A_MASK = (
    "{path}: labels are one plane of whole numbers, this file has the axes {axes}."
)


@dataclass(frozen=True, eq=False)
class ImageFile:
    """An image and the metadata of its file.

    Parameters
    ----------
    array : array
        Pixels in the order of ``axes``, of the dtype in the file.
    axes : Axes
        From the metadata of the file, or as declared by the caller.
    pixel_size : (float, float) or None
        Height and width of a pixel in ``unit``; None if the file does not say.
    unit : str
        ``"um"``, or ``"pixel"`` if the size is unknown.
    rgb : bool
        The channels are red, green, blue (and alpha).
    path : Path
    z_step : float or None
        Distance of two planes along Z in ``unit``.
    """

    array: np.ndarray
    axes: Axes
    pixel_size: tuple[float, float] | None
    unit: str
    rgb: bool
    path: Path
    z_step: float | None = None


class _Content(NamedTuple):
    """Content of a file; ``letters`` are its axes, empty if they must be declared."""

    array: np.ndarray
    letters: str = ""
    pixel_size: tuple[float, float] | None = None
    unit: str = "pixel"
    rgb: bool = False
    z_step: float | None = None


def read_image(path: str | Path, axes: str | None = None) -> ImageFile:
    """Return the image in a file with its axes and pixel size.

    Axes of length 1 other than Y and X are dropped. Colours are the last axis, wherever
    the file has them, unless ``axes`` are given.

    Parameters
    ----------
    path : path
        TIFF (OME, ImageJ or plain), PNG, JPEG, BMP, GIF or NumPy ``.npy``.
    axes : str, optional
        Meaning of the dimensions, such as ``"ZYX"``, in place of what the file says.
        Needed for ``.npy`` files and plain TIFFs with more than two dimensions that are
        not RGB: what an axis means is not guessed from its length.

    Returns
    -------
    ImageFile
        The pixels as ``array``, their ``axes``, ``pixel_size`` and ``unit``.

    Raises
    ------
    ImageError
        If the file is missing, damaged, of an unknown kind, empty, or its axes must be
        declared; one line that names the file.

    Examples
    --------
    >>> image = read_image("cells.tif")  # doctest: +SKIP
    >>> image.array.shape, image.axes.order, image.pixel_size  # doctest: +SKIP
    ((1024, 1024), 'YX', (0.325, 0.325))
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError(NO_SUCH_FILE.format(path=path))
    suffix = path.suffix.lower()
    try:
        if suffix in TIFF_SUFFIXES:
            content = _read_tiff(path)
        elif suffix in BITMAP_SUFFIXES:
            content = _read_bitmap(path)
        elif suffix == ".npy":
            # mapped, as that cannot read pickles, which can run code
            mapped = np.lib.format.open_memmap(path, mode="r")
            content = _Content(np.array(mapped))
        else:
            raise ImageError(UNKNOWN_KIND.format(path=path, suffix=suffix or "nothing"))
    except ImageError:
        raise
    except Exception as error:
        # A damaged file makes the libraries raise anything.
        reason = str(error).splitlines()[0][:MAX_REASON] if str(error) else ""
        reason = reason or type(error).__name__
        raise ImageError(UNREADABLE.format(path=path, reason=reason)) from error
    array, letters = content.array, content.letters
    if content.rgb and letters == "CYX" and not axes:  # colours stored plane by plane
        array, letters = np.moveaxis(array, 0, -1), "YXC"
    if 0 in array.shape or array.ndim < 2:
        raise ImageError(NO_PIXELS.format(path=path, shape=array.shape))
    return ImageFile(
        array,
        _axes(path, array, letters, axes, content.rgb),
        content.pixel_size,
        content.unit,
        content.rgb,
        path,
        content.z_step,
    )


def read_mask(path: str | Path) -> np.ndarray:
    """Return the labels in an image file, which must be one plane.

    Raises
    ------
    ImageError
        If the file cannot be read, or is no plane; one line that names it.
    """
    labels = read_image(path)
    if labels.axes.order != "YX":
        raise ImageError(NOT_A_MASK.format(path=path, axes=labels.axes.order))
    return np.asarray(labels.array)


def _axes(
    path: Path, array: np.ndarray, letters: str, declared: str | None, rgb: bool
) -> Axes:
    """Return the declared axes, else those of the file, else the only possible ones."""
    try:
        if declared:
            given = Axes(declared)
            given.check(array.shape)
            return given
        if letters and len(letters) == array.ndim:
            return Axes(letters)
        return Axes.for_image(array.shape, rgb=rgb)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def _read_bitmap(path: Path) -> _Content:
    """Return the content of a PNG, JPEG, BMP or GIF file."""
    from skimage.io import imread

    array = np.asarray(imread(path))
    if array.ndim == 4 and len(array) == 1:  # a GIF of one picture
        array = array[0]
    if array.ndim == 3 and array.shape[2] == 2:  # grey and alpha
        array = array[..., 0]
    rgb = array.ndim == 3 and array.shape[2] in (3, 4)
    return _Content(array, "YXC" if rgb else "", rgb=rgb)


def _read_tiff(path: Path) -> _Content:
    """Return the content of the first series of a TIFF file, at full size."""
    with quiet_tifffile(), tifffile.TiffFile(path) as tiff:
        series = tiff.series[0]
        array = series.asarray()
        # S is the axis of the samples of a pixel: colours, or channels side by side.
        samples = array.shape[series.axes.index("S")] if "S" in series.axes else 1
        page = tiff.pages[0]
        rgb = page.photometric in COLOUR_PHOTOMETRICS and samples in (3, 4)
        letters, array = _known_axes(series.axes, array)
        if samples == 2 and set(page.extrasamples) & ALPHA_SAMPLES:
            letters, array = _without_alpha(letters, array)
        size, unit = _pixel_size(tiff)
        z_step = _z_step(tiff) if size is not None else None
        has_axes = _has_axes(tiff)
    # Without metadata only these axes have one meaning.
    known = ("YX",) if samples == 1 else ("YX", "YXC", "CYX")
    if not has_axes and letters not in known:
        letters = ""
    return _Content(array, letters, size, unit, rgb, z_step)


def _has_axes(tiff: tifffile.TiffFile) -> bool:
    """Return whether a TIFF has metadata of its axes.

    In a plain TIFF pages may be planes, times or channels: tifffile guesses one.
    """
    return bool(tiff.is_ome or tiff.is_imagej or tiff.is_lsm or tiff.is_stk)


def read_tiff_facts(
    path: Path,
) -> tuple[str, tuple[float, float] | None, str, float | None]:
    """Return axes, pixel size, unit and z step of a TIFF file without reading pixels.

    Returns
    -------
    axes : str
        Of the first series; empty if they must be declared.
    pixel_size : (float, float) or None
        Height and width of a pixel in ``unit``.
    unit : str
        ``"um"`` or ``"pixel"``.
    z_step : float or None
        Distance of two planes in ``unit``.

    Raises
    ------
    ImageError
        If the file cannot be read.
    """
    try:
        with quiet_tifffile(), tifffile.TiffFile(path) as tiff:
            letters = tiff.series[0].axes
            letters = letters.replace("S", "C") if "C" not in letters else letters
            has_axes = _has_axes(tiff)
            size, unit = _pixel_size(tiff)
            z_step = _z_step(tiff) if size is not None else None
    except Exception as error:
        reason = type(error).__name__
        raise ImageError(UNREADABLE.format(path=path, reason=reason)) from error
    if set(letters) - set(AXES) or not (has_axes or letters in ("YX", "YXC", "CYX")):
        letters = ""
    return letters, size, unit, z_step


@contextlib.contextmanager
def quiet_tifffile() -> Iterator[None]:
    """Silence the log of tifffile, which repeats what our errors say."""
    log = logging.getLogger("tifffile")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(level)


def _without_alpha(letters: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """Return a grey image without its alpha channel."""
    return letters.replace("C", ""), array.take(0, axis=letters.index("C"))


def _known_axes(letters: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """Return the axes of tifffile in our letters, without axes of length 1.

    The letters are empty if one is not known to us, or occurs twice.
    """
    keep = [
        not (n == 1 and a not in "YX")
        for a, n in zip(letters, array.shape, strict=True)
    ]
    array = array[tuple(slice(None) if k else 0 for k in keep)]
    kept = "".join(a for a, k in zip(letters, keep, strict=True) if k)
    # S are the samples of a pixel, which are channels unless there is another C axis.
    kept = kept.replace("S", "C") if "C" not in kept else kept
    if set(kept) - set(AXES) or len(set(kept)) != len(kept):
        return "", array
    return kept, array


def _pixel_size(tiff: tifffile.TiffFile) -> tuple[tuple[float, float] | None, str]:
    """Return height and width of a pixel in micrometres, or None if unknown.

    The resolution tags of TIFF are used for ImageJ files only, as others have no length
    unit in them: printing programs write 72 dots per inch.
    """
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
        if not number or not denominator:  # written by programs that do not know it
            return None, "pixel"
        sizes.append(denominator / number * UNITS_UM[unit])
    return (sizes[0], sizes[1]), "um"


def _z_step(tiff: tifffile.TiffFile) -> float | None:
    """Return the distance of two planes in micrometres, or None if unknown."""
    if tiff.is_ome and tiff.ome_metadata:
        pixels = _first_pixels(tifffile.xml2dict(tiff.ome_metadata))
        step, unit = pixels.get("PhysicalSizeZ"), pixels.get("PhysicalSizeZUnit", "µm")
    else:
        metadata = tiff.imagej_metadata or {}
        step, unit = metadata.get("spacing"), metadata.get("unit", "")
    if not is_length(step) or str(unit) not in UNITS_UM:
        return None
    return float(step) * UNITS_UM[str(unit)]


def _first_pixels(ome: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of the first image's Pixels element in OME-XML."""
    image = ome.get("OME", {}).get("Image", {})
    image = image[0] if isinstance(image, list) else image
    pixels = image.get("Pixels", {})
    return pixels if isinstance(pixels, dict) else {}


def is_length(value: object) -> TypeGuard[float]:
    """Return whether a value is a length: a finite number above 0."""
    return isinstance(value, int | float) and 0 < value < math.inf
