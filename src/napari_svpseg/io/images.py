"""Reading of image files: TIFF, bitmaps, NumPy, and what readers of others bring."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import psutil
import tifffile

from ..core.errors import joined, one_line
from ..core.image import AXES, Axes, ImageError
from ..core.units import PIXEL, UM, in_micrometres, micrometres
from . import microscope_files
from .bitmaps import is_bitmap, read_bitmap
from .photometric import Stored
from .seg_npy import read_npy
from .tiff_series import (
    ONE_OF_SERIES,
    SERIES_ABSENT,
    TiffSeries,
    choose_tiff_series,
    few,
    list_tiff_series,
    ome_pixels,
    present_planes,
    tiff_channel_names,
    vendor_sizes,
)
from .zarr_stores import ZIP_SUFFIXES

logger = logging.getLogger(__name__)

TIFF_SUFFIXES = (
    ".tif", ".tiff", ".btf", ".tf8", ".tf2", ".lsm", ".stk", ".svs", ".ndpi",
    ".qptiff", ".scn", ".bif",
)  # fmt: skip
BITMAP_SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".jp2", ".ppm", ".pgm"
)  # fmt: skip
IMAGE_SUFFIXES = (*TIFF_SUFFIXES, *BITMAP_SUFFIXES, *microscope_files.SUFFIXES)
"""Suffixes of the files of a folder that are taken as images."""

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
NPY_START = b"\x93NUMPY"

RESOLUTION_UNITS = {2: "inch", 3: "cm", 4: "mm", 5: "um"}
"""Units of the resolution tags of TIFF, by the value of ResolutionUnit."""

SMALLEST_DOT_UM = 20.0
"""Larger pixels in the resolution tags are dots of a print: 1270 in an inch."""

WITH_AXES = ("ome", "imagej", "lsm", "stk", "mmstack", "ndtiff", "fluoview", "qpi")
"""Kinds of TIFF, as tifffile calls them, whose metadata tell what each axis means."""

MAX_REASON = 120
"""Characters of another library's message that are quoted in ours."""

NO_SUCH_FILE = "{path}: no such file."
BROKEN_LINK = "{path}: is a link to a file that is not there."
A_FOLDER = (
    "{path}: is a folder, and no Zarr image: its metadata (.zattrs or zarr.json) are "
    "missing."
)
NO_FILE = "{path}: is no regular file but a pipe or a device, which is not read."
NO_MEMORY = (
    "{path}: needs {needed:.1f} GB of memory, {free:.1f} GB are free: convert it to "
    "OME-Zarr, which is read in parts."
)
NOT_ALLOWED = "{path}: no permission to read it."
UNREADABLE = "{path}: cannot be read, it may be damaged ({reason})."
NO_PIXELS = "{path}: the image is empty, its shape is {shape}."
NO_NUMBERS = (
    "{path}: its pixels are {dtype}, no plain numbers: save what is to be seen of "
    "them, such as the amplitude"
)
ONE_IMAGE = "it holds one image, asked for series {index}"
READ_WHOLE = "this image in it is read in one piece only: save it by itself"
AXES_IN_FILE = (
    "its axes are {known}, as it says itself: {asked} is for files that do not"
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
    channel_names : tuple of str
        In the order of the channels; empty if the file does not say.
    notes : tuple of str
        What of the file was not read, each in one line without the file's name.
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
    channel_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    origin: dict[str, float] = field(default_factory=dict)

    @property
    def lengths(self) -> dict[str, int]:
        """The length of each axis."""
        return dict(zip(self.axes.order, map(int, self.array.shape), strict=True))

    @property
    def n_channels(self) -> int:
        """Channels; colours are one."""
        return 1 if self.rgb else self.lengths.get("C", 1)


class _Content(NamedTuple):
    """Content of a file; ``letters`` are its axes, empty if they must be declared."""

    array: np.ndarray
    letters: str = ""
    pixel_size: tuple[float, float] | None = None
    unit: str = "pixel"
    rgb: bool = False
    z_step: float | None = None
    channel_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    origin: Mapping[str, float] = MappingProxyType({})


def read_image(
    path: str | Path,
    axes: str | None = None,
    *,
    series: int | None = None,
    as_ids: bool = False,
    on_note: Callable[[str], None] | None = None,
) -> ImageFile:
    """Return the image in a file with its axes and pixel size.

    Axes of length 1 other than Y and X are dropped. Colours are the last axis, wherever
    the file has them. Pixels are those that a viewer shows: white is the largest value,
    and palettes and printing inks become red, green and blue.

    Parameters
    ----------
    path : path
        TIFF, PNG, JPEG, GIF, NumPy ``.npy`` and others, see the page "File formats" of
        the docs. ``FILE/2`` is the series 2 of a file with several images.
    axes : str, optional
        Meaning of the dimensions, such as ``"ZYX"``, where the file does not say.
        Needed for ``.npy`` files and plain TIFFs with more than two dimensions that are
        not RGB: what an axis means is not guessed from its length.
    series : int, optional
        Which image of a file with several; by default the first that is no thumbnail.
    as_ids : bool
        The pixels are ids of labels: indices of a palette stay as they are.
    on_note : callable, optional
        Called with each of the notes; by default they are logged as warnings.

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
    path, series = split_series(path, series)
    check_readable(path)
    try:
        content = _read(path, series, as_ids)
    except ImageError as error:
        text = str(error)
        named = text if text.startswith(f"{path}:") else f"{path}: {text}"
        raise ImageError(named) from error
    except Exception as error:
        # A damaged file makes the libraries raise anything.
        reason = str(error).splitlines()[0][:MAX_REASON] if str(error) else ""
        reason = reason or type(error).__name__
        raise ImageError(UNREADABLE.format(path=path, reason=reason)) from error
    array, letters, notes = content.array, content.letters, list(content.notes)
    if content.rgb and letters == "CYX":  # colours stored plane by plane
        array, letters = np.moveaxis(array, 0, -1), "YXC"
    if 0 in array.shape or array.ndim < 2:
        raise ImageError(NO_PIXELS.format(path=path, shape=array.shape))
    if array.dtype.kind not in "biuf":
        raise ImageError(NO_NUMBERS.format(path=path, dtype=array.dtype))
    # a plane needs no axes, so that those of the stacks beside it are no mistake
    if axes and letters not in ("", "YX", axes.upper()):
        notes.append(AXES_IN_FILE.format(known=letters, asked=axes.upper()))
    n = array.shape[letters.index("C")] if "C" in letters else 0
    tell_notes(path, notes, on_note)
    return ImageFile(
        array,
        _axes(path, array, letters, axes, content.rgb),
        content.pixel_size,
        content.unit,
        content.rgb,
        path if series is None else path / str(series),
        content.z_step,
        content.channel_names if len(content.channel_names) == n else (),
        tuple(notes),
        dict(content.origin),
    )


def tell_notes(
    path: Path, notes: Iterable[str], on_note: Callable[[str], None] | None
) -> None:
    """Pass on notes about a file; without a listener they are logged as warnings."""
    for note in notes:
        if on_note is None:
            logger.warning("%s: %s", path, note)
        else:
            on_note(note)


def split_series(
    path: str | Path, series: int | None = None
) -> tuple[Path, int | None]:
    """Return the file and the series of a path such as ``cells.lif/2``.

    Examples
    --------
    >>> split_series("no-such.lif/2")[1] is None
    True
    """
    path = Path(path)
    file = path.parent
    inside = path.name.isdecimal() and file.suffix.lower() not in ZIP_SUFFIXES
    if series is None and inside and file.is_file():
        return file, int(path.name)
    return path, series


def list_series(path: str | Path) -> list[str]:
    """Return index and name of each image in a file; one for most files.

    Raises
    ------
    ImageError
        If the file cannot be read.
    """
    path = Path(path)
    try:
        kind = _kind_of(path)
        if kind == "tiff":
            with quiet_tifffile(), tifffile.TiffFile(path) as tiff:
                return [s.label for s in list_tiff_series(tiff)]
        if kind == "other":
            scenes = microscope_files.open_contents(path).scenes
            return microscope_files.scene_labels(scenes)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    except Exception as error:
        reason = type(error).__name__
        raise ImageError(UNREADABLE.format(path=path, reason=reason)) from error
    return ["0"]


def names_of_channels(path: Path, series: int | None = None) -> tuple[str, ...]:
    """Return the names of the channels in a file, without reading its pixels.

    Parameters are those of `read_image`, without ``FILE/2``. Empty without names, and
    where the file cannot be read in parts.

    Raises
    ------
    ImageError
        If the file cannot be read.
    """
    try:
        kind = _kind_of(path)
        if kind == "tiff":
            return read_tiff_facts(path, series).channel_names
        scenes = microscope_files.open_contents(path).scenes if kind == "other" else ()
    except ImageError as error:
        text = str(error)
        raise ImageError(
            text if text.startswith(f"{path}:") else f"{path}: {text}"
        ) from error
    except Exception as error:
        reason = type(error).__name__
        raise ImageError(UNREADABLE.format(path=path, reason=reason)) from error
    if not 0 <= (series or 0) < len(scenes):
        return ()
    scene = scenes[series or 0]
    n = scene.shape[scene.axes.index("C")] if "C" in scene.axes else 0
    return scene.channel_names if len(scene.channel_names) == n else ()


def _kind_of(path: Path) -> str:
    """Return which reader takes a file: ``tiff``, ``bitmap``, ``npy`` or ``other``.

    A file of an unknown suffix is known by how it starts.
    """
    suffix = path.suffix.lower()
    if suffix in TIFF_SUFFIXES:  # also what is a PNG or JPEG in truth
        is_other = not starts_as_tiff(path) and is_bitmap(path)
        return "bitmap" if is_other else "tiff"
    if suffix in BITMAP_SUFFIXES:
        return "bitmap"
    if suffix == ".npy":
        return "npy"
    if suffix in microscope_files.SUFFIXES:
        return "other"
    if starts_as_tiff(path):
        return "tiff"
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(NPY_START):
        return "npy"
    return "bitmap" if is_bitmap(path) else "other"


def starts_as_tiff(path: Path) -> bool:
    """Return whether a file is a TIFF, whatever its suffix."""
    with path.open("rb") as file:
        return file.read(4).startswith(TIFF_STARTS)


def _read(path: Path, series: int | None, as_ids: bool) -> _Content:
    """Return the content of a file of any kind."""
    kind = _kind_of(path)
    if kind == "tiff":
        return _read_tiff(path, series, as_ids)
    if kind == "other":
        return _read_other(path, series)
    if series:
        raise ImageError(ONE_IMAGE.format(index=series))
    if kind == "npy":
        return _Content(read_npy(path, as_ids=as_ids))
    array, letters = read_bitmap(path, as_ids=as_ids)
    return _Content(array, letters, rgb=letters.endswith("C"))


def _read_other(path: Path, series: int | None) -> _Content:
    """Return the content of a file that needs a reader of another package."""
    contents = microscope_files.open_contents(path)
    scenes, notes = contents.scenes, []
    known = microscope_files.scene_labels(scenes)
    if series is None and len(scenes) > 1:
        notes = [
            ONE_OF_SERIES.format(index=known[0], n=len(known), others=few(known[1:]))
        ]
    index = series or 0
    if not 0 <= index < len(scenes):
        raise ImageError(SERIES_ABSENT.format(known=few(known), index=index))
    image = contents.read(index)
    array, letters = image.array, image.axes
    if len(letters) == array.ndim:
        letters, array = _known_axes(letters, array)
    size = None
    if {"Y", "X"} <= image.sizes.keys():
        size = (image.sizes["Y"], image.sizes["X"])
    return _Content(
        array,
        letters,
        size,
        "pixel" if size is None else "um",
        image.rgb and letters.endswith("C"),
        None if size is None else image.sizes.get("Z"),
        image.channel_names if "C" in letters else (),
        (*notes, *image.notes),
    )


def check_memory(path: Path, n_bytes: int) -> None:
    """Raise `ImageError` where an image is larger than the memory that is free."""
    memory = psutil.virtual_memory().available + psutil.swap_memory().free
    if n_bytes > memory:
        raise ImageError(
            NO_MEMORY.format(path=path, needed=n_bytes / 1e9, free=memory / 1e9)
        )


def check_readable(path: Path) -> None:
    """Raise `ImageError` where a path is no file, or one that blocks its reader."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        message = BROKEN_LINK if path.is_symlink() else NO_SUCH_FILE
        raise ImageError(message.format(path=path)) from error
    except (OSError, ValueError) as error:  # a loop of links, a name that is too long
        raise ImageError(one_line(error)) from error
    if stat.S_ISDIR(mode):
        raise ImageError(A_FOLDER.format(path=path))
    if not stat.S_ISREG(mode):
        raise ImageError(NO_FILE.format(path=path))
    if not os.access(path, os.R_OK):
        raise ImageError(NOT_ALLOWED.format(path=path))


def _axes(
    path: Path, array: np.ndarray, letters: str, declared: str | None, rgb: bool
) -> Axes:
    """Return the axes of the file, else the only possible ones, else the declared."""
    try:
        if letters and len(letters) == array.ndim:
            return Axes(letters)
        if not declared or array.ndim == 2:
            return Axes.for_image(array.shape, rgb=rgb)
        given = Axes(declared)
        given.check(array.shape)
        return given
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def _read_tiff(path: Path, series: int | None, as_ids: bool) -> _Content:
    """Return the content of one series of a TIFF file, at full size."""
    with heard_tifffile() as heard, tifffile.TiffFile(path) as tiff:
        chosen, notes = choose_tiff_series(tiff, series)
        stored = _stored(tiff, chosen)
        samples = _samples(chosen)
        present = present_planes(tiff, chosen)
        check_memory(path, math.prod(chosen.shape) * chosen.series.dtype.itemsize)
        array = chosen.read()
        if present.index:
            array = array[present.index]
        letters = chosen.axes
        rgb = not as_ids and stored.becomes_colour(samples)
        if as_ids:
            array = stored.ids(array)
        elif stored.changes(samples):
            letters, array = _shown(stored, letters, array)
        letters, array = _known_axes(letters, array)
        if stored.is_alpha and samples == 2 and "C" in letters:
            letters, array = _without_alpha(letters, array)
        size, unit, z_step = _sizes(tiff, chosen)
        origin = _position(tiff, chosen.number or 0) if unit == UM else {}
        names = tiff_channel_names(tiff, chosen.number or 0)
        has_axes = _has_axes(tiff)
    # Without metadata only these axes have one meaning.
    known = ("YX", "YXC", "CYX") if samples > 1 or rgb else ("YX",)
    if not has_axes and letters not in known:
        letters = ""
    names = names if "C" in letters and not rgb else ()
    told = (*notes, *(present.notes or heard))
    return _Content(array, letters, size, unit, rgb, z_step, names, told, origin)


def _stored(tiff: tifffile.TiffFile, chosen: TiffSeries) -> Stored:
    """Return how pixels are stored.

    Raises
    ------
    ImageError
        If they cannot be shown.
    """
    stored = Stored.of(chosen.series.keyframe, bool(tiff.is_imagej))
    stored.check(_samples(chosen))
    return stored


def _samples(chosen: TiffSeries) -> int:
    """Return the number of samples of a pixel: colours, or channels side by side."""
    return chosen.shape[chosen.axes.index("S")] if "S" in chosen.axes else 1


def _shown(stored: Stored, letters: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """Return axes and pixels as a viewer shows them, with colours last."""
    if "S" in letters:
        array = np.moveaxis(array, letters.index("S"), -1)
        letters = letters.replace("S", "") + "S"
    array = stored.shown(array)
    return (letters if array.ndim == len(letters) else f"{letters}S"), array


def _sizes(
    tiff: tifffile.TiffFile, chosen: TiffSeries
) -> tuple[tuple[float, float] | None, str, float | None]:
    """Return height and width of a pixel, their unit, and the distance of planes."""
    # without sizes of its own: what is said there is true of the image
    if chosen.is_aside and not tiff.is_ome:
        return None, PIXEL, None
    own = vendor_sizes(tiff, chosen)
    if {"Y", "X"} <= own.keys():
        return (own["Y"], own["X"]), UM, own.get("Z")
    return _pixel_size(tiff, chosen.number or 0)


def _has_axes(tiff: tifffile.TiffFile) -> bool:
    """Return whether a TIFF has metadata of its axes.

    In a plain TIFF pages may be planes, times or channels: tifffile guesses one, unless
    it wrote the file itself with their names.
    """
    shaped = tiff.shaped_metadata or ()
    says = bool(shaped) and all("axes" in about for about in shaped)
    return bool(says or any(getattr(tiff, f"is_{kind}") for kind in WITH_AXES))


class TiffFacts(NamedTuple):
    """What is known of a TIFF image without reading its pixels.

    Parameters
    ----------
    axes : str
        As stored, also those of length 1; empty if they must be declared.
    pixel_size : (float, float) or None
        Height and width of a pixel in ``unit``.
    unit : str
        ``"um"`` or ``"pixel"``.
    z_step : float or None
        Distance of two planes in ``unit``.
    series : int
        Index of tifffile.
    position : int or None
        Index along the axis ``position_axis`` of the stored array, which is taken.
    position_axis : int
    stored : Stored
    samples : int
    channel_names : tuple of str
    notes : tuple of str
    origin : dict of str to float
        As in `ImageFile`.
    shape : tuple of int
        As stored, along the axes as stored.
    """

    axes: str
    pixel_size: tuple[float, float] | None
    unit: str
    z_step: float | None
    series: int
    position: int | None
    position_axis: int
    stored: Stored
    samples: int
    channel_names: tuple[str, ...]
    notes: tuple[str, ...]
    origin: dict[str, float]
    shape: tuple[int, ...] = ()


def read_tiff_facts(path: Path, series: int | None = None) -> TiffFacts:
    """Return axes, pixel size and more of a TIFF file without reading pixels.

    Parameters
    ----------
    path : path
    series : int, optional
        As in `read_image`.

    Raises
    ------
    ImageError
        If the file cannot be read, or planes of it are missing.
    """
    try:
        with heard_tifffile() as heard, tifffile.TiffFile(path) as tiff:
            chosen, notes = choose_tiff_series(tiff, series)
            stored, samples = _stored(tiff, chosen), _samples(chosen)
            present = present_planes(tiff, chosen)
            if present.index:
                raise ImageError("; ".join(present.notes))
            letters = chosen.axes
            letters = letters.replace("S", "C") if "C" not in letters else letters
            has_axes = _has_axes(tiff)
            size, unit, z_step = _sizes(tiff, chosen)
            if chosen.number is None:
                raise ImageError(READ_WHOLE)
            origin = _position(tiff, chosen.number) if unit == UM else {}
            names = tiff_channel_names(tiff, chosen.number)
            stored_axes = chosen.series.axes
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    except Exception as error:
        reason = type(error).__name__
        raise ImageError(UNREADABLE.format(path=path, reason=reason)) from error
    if set(letters) - set(AXES) or not (has_axes or letters in ("YX", "YXC", "CYX")):
        letters = ""
    at = next((i for i, a in enumerate(stored_axes) if a not in chosen.axes), 0)
    return TiffFacts(
        letters, size, unit, z_step, chosen.number, chosen.position, at,
        stored, samples, names if "C" in letters else (),
        (*notes, *(present.notes or heard)), origin, chosen.shape,
    )  # fmt: skip


@contextlib.contextmanager
def heard_tifffile() -> Iterator[list[str]]:
    """Collect what tifffile logs about series that it reads in part or not at all.

    Other warnings, about odd tags, are dropped: they change no pixels.
    """
    heard: list[str] = []
    listener = _Listener(heard)
    log = logging.getLogger("tifffile")
    level, passed_on = log.level, log.propagate
    log.setLevel(logging.WARNING)
    log.propagate = False
    log.addHandler(listener)
    try:
        yield heard
    finally:
        log.removeHandler(listener)
        log.setLevel(level)
        log.propagate = passed_on


class _Listener(logging.Handler):
    """Collects warnings of this thread that the readers of series give.

    Parameters
    ----------
    heard : list of str
        Filled with the messages, each once.
    """

    def __init__(self, heard: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._heard, self._thread = heard, threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Take up a warning."""
        reader = record.funcName
        # where its own description is wrong, tifffile lists all pages instead
        if not reader.startswith("_series") or reader == "_series_shaped":
            return
        if record.thread != self._thread:
            return
        text = joined(record.getMessage())
        text = text.partition("> ")[2] if text.startswith("<") else text
        if text not in self._heard:
            self._heard.append(text[:MAX_REASON])


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
    tiff: tifffile.TiffFile, index: int = 0
) -> tuple[tuple[float, float] | None, str, float | None]:
    """Return height and width of a pixel, their unit, and the distance of two planes.

    Each axis has a unit of its own in OME and ImageJ files.
    """
    if tiff.is_ome and tiff.ome_metadata:
        pixels = ome_pixels(tifffile.xml2dict(tiff.ome_metadata), index)
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


def _position(tiff: tifffile.TiffFile, index: int = 0) -> dict[str, float]:
    """Return where an image of an OME-TIFF lies along each axis, in micrometres.

    Axes along which it lies at 0 are left out.
    """
    if not (tiff.is_ome and tiff.ome_metadata):
        return {}
    plane = ome_pixels(tifffile.xml2dict(tiff.ome_metadata), index).get("Plane", {})
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


def is_length(value: object) -> TypeGuard[float]:
    """Return whether a value is a length: a finite number above 0."""
    return isinstance(value, int | float) and 0 < value < math.inf
