"""Reading of image files: TIFF (OME, ImageJ, plain), PNG, JPEG, BMP, GIF and NumPy."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import tifffile

from ..core.image import AXES, Axes, ImageError
from ..core.units import PIXEL, UM, in_micrometres, micrometres

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8", ".lsm", ".stk")
BITMAP_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")

RESOLUTION_UNITS = {2: "inch", 3: "cm", 4: "mm", 5: "um"}
"""Units of the resolution tags of TIFF, by the value of ResolutionUnit."""

SMALLEST_DOT_UM = 20.0
"""Larger pixels in the resolution tags are dots of a print: 1270 in an inch."""

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
    origin : dict of str to float
        Where the centre of the first pixel lies along each axis, in ``unit``; 0 by
        default.
    """

    array: np.ndarray
    axes: Axes
    pixel_size: tuple[float, float] | None
    unit: str
    rgb: bool
    path: Path
    z_step: float | None = None
    origin: dict[str, float] = field(default_factory=dict)


class _Content(NamedTuple):
    """Content of a file; ``letters`` are its axes, empty if they must be declared."""

    array: np.ndarray
    letters: str = ""
    pixel_size: tuple[float, float] | None = None
    unit: str = "pixel"
    rgb: bool = False
    z_step: float | None = None
    origin: Mapping[str, float] = MappingProxyType({})


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
            # without pickles, which can run code
            content = _Content(np.load(path, allow_pickle=False))
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
        dict(content.origin),
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
        size, unit, z_step = _pixel_size(tiff)
        origin = _position(tiff) if unit == UM else {}
        has_axes = _has_axes(tiff)
    # Without metadata only these axes have one meaning.
    known = ("YX",) if samples == 1 else ("YX", "YXC", "CYX")
    if not has_axes and letters not in known:
        letters = ""
    return _Content(array, letters, size, unit, rgb, z_step, origin)


def _has_axes(tiff: tifffile.TiffFile) -> bool:
    """Return whether a TIFF has metadata of its axes.

    In a plain TIFF pages may be planes, times or channels: tifffile guesses one.
    """
    return bool(tiff.is_ome or tiff.is_imagej or tiff.is_lsm or tiff.is_stk)


class TiffFacts(NamedTuple):
    """What a TIFF file says of its pixels.

    Parameters
    ----------
    axes : str
        Of the first series; empty if they must be declared.
    pixel_size, unit, z_step, origin
        As in `ImageFile`.
    """

    axes: str
    pixel_size: tuple[float, float] | None
    unit: str
    z_step: float | None
    origin: dict[str, float]


def read_tiff_facts(path: Path) -> TiffFacts:
    """Return what a TIFF file says of its pixels, without reading them.

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
            size, unit, z_step = _pixel_size(tiff)
            origin = _position(tiff) if unit == UM else {}
    except Exception as error:
        reason = type(error).__name__
        raise ImageError(UNREADABLE.format(path=path, reason=reason)) from error
    if set(letters) - set(AXES) or not (has_axes or letters in ("YX", "YXC", "CYX")):
        letters = ""
    return TiffFacts(letters, size, unit, z_step, origin)


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


def _pixel_size(
    tiff: tifffile.TiffFile,
) -> tuple[tuple[float, float] | None, str, float | None]:
    """Return height and width of a pixel, their unit, and the distance of two planes.

    Each axis has a unit of its own in OME and ImageJ files.
    """
    if tiff.is_ome and tiff.ome_metadata:
        pixels = _first_pixels(tifffile.xml2dict(tiff.ome_metadata))
        sizes: dict[str, Any] = {a: pixels.get(f"PhysicalSize{a}") for a in "ZYX"}
        units: dict[str, Any] = {
            a: pixels.get(f"PhysicalSize{a}Unit", "µm") for a in "ZYX"
        }
    elif tiff.is_imagej:
        metadata = tiff.imagej_metadata or {}
        lengths, unit = _resolution(tiff)
        own = metadata.get("unit")
        units = {a: metadata.get(f"{a.lower()}unit", own) for a in "ZY"} | {"X": own}
        sizes = {**lengths, "Z": metadata.get("spacing")}
        if own is None:  # then ImageJ goes by the tags
            sizes = dict(_without_dots(lengths, unit))
            units = dict.fromkeys("YX", unit)
    else:
        lengths, unit = _resolution(tiff)
        sizes = dict(_without_dots(lengths, unit))
        units = dict.fromkeys("YX", unit)
    known = {a: float(n) for a, n in sizes.items() if is_length(n)}
    found, unit = in_micrometres(known, units)
    if unit != UM:
        return None, PIXEL, None
    return (found["Y"], found["X"]), UM, found.get("Z")


def _position(tiff: tifffile.TiffFile) -> dict[str, float]:
    """Return where an OME-TIFF lies along each axis, in micrometres; 0 is left out."""
    if not (tiff.is_ome and tiff.ome_metadata):
        return {}
    plane = _first_pixels(tifffile.xml2dict(tiff.ome_metadata)).get("Plane", {})
    plane = plane[0] if isinstance(plane, list) else plane
    found = {}
    for axis in "ZYX":
        value = plane.get(f"Position{axis}")
        factor = micrometres(plane.get(f"Position{axis}Unit"))
        if isinstance(value, int | float) and value and factor is not None:
            found[axis] = value * factor
    return found


def _resolution(tiff: tifffile.TiffFile) -> tuple[dict[str, float], str]:
    """Return height and width of a pixel in the resolution tags, and their unit."""
    tags = tiff.pages[0].tags
    sizes = {}
    for axis in "YX":
        tag = tags.get(f"{axis}Resolution")
        number, denominator = (0, 0) if tag is None else tag.value
        if number and denominator:  # 0 is written by programs that do not know it
            sizes[axis] = denominator / number
    unit = tags.get("ResolutionUnit")
    # by the specification it is the inch where there is no tag
    return sizes, RESOLUTION_UNITS.get(2 if unit is None else int(unit.value), PIXEL)


def _without_dots(sizes: dict[str, float], unit: str) -> dict[str, float]:
    """Return sizes unless they are those of the dots of a print.

    Many programs write 72 or 300 dots per inch into any image.
    """
    factor = micrometres(unit) or 0.0
    return {a: n for a, n in sizes.items() if n * factor < SMALLEST_DOT_UM}


def _first_pixels(ome: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of the first image's Pixels element in OME-XML."""
    image = ome.get("OME", {}).get("Image", {})
    image = image[0] if isinstance(image, list) else image
    pixels = image.get("Pixels", {})
    return pixels if isinstance(pixels, dict) else {}


def is_length(value: object) -> TypeGuard[float]:
    """Return whether a value is a length: a finite number above 0."""
    return isinstance(value, int | float) and 0 < value < math.inf
