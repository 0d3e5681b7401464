"""Lazy reading of OME-Zarr images (NGFF 0.4 and 0.5), and of large TIFF files.

Only the regions that are sliced are read; tifffile shows a TIFF as a Zarr array.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import short_line
from ..core.image import AXES, Axes, ImageError
from ..core.units import PIXEL, in_micrometres
from .images import (
    TIFF_SUFFIXES,
    ImageFile,
    TiffFacts,
    check_readable,
    names_of_channels,
    quiet_tifffile,
    read_image,
    read_tiff_facts,
    split_series,
    tell_notes,
)
from .ownership import read_json
from .photometric import ShownArray
from .tiff_series import few
from .zarr_stores import (
    image_groups,
    import_zarr,
    is_plate,
    is_zarr_folder,
    is_zipped_zarr,
    ome_attributes,
    open_node,
)

MICROMETER = "micrometer"
"""Name that OME-Zarr has for our unit."""

VERSIONS = ("0.1", "0.2", "0.3", "0.4", "0.5")
"""Versions of OME-Zarr that are read."""

NO_IMAGE = "{path}: there is no Zarr image and no TIFF file here."
UNREADABLE = "{path}: cannot be read, it may be damaged ({reason})."
ONE_ARRAY = "{path}: is one array, there is no level {level}."
LEVEL_ABSENT = "{path}: has the levels 0 to {last}, asked for {level}."
NOT_OME_ZARR = (
    "{path}: is no OME-Zarr image of version 0.4 or 0.5 (missing or wrong: {reason})."
)
NO_PIXELS = "{path}: the image is empty, its shape is {shape}."
ONE_OF_IMAGES = (
    "image {name} of the {n} in this group is read (it holds {others} too): choose "
    "with --series"
)
IMAGE_ABSENT = "{path}: it holds the images {known}, asked for {index}."
NO_COLOUR_PLANES = "{path}: colours that are stored plane by plane are not read so."
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
        Size of a pixel along each of T, Z, Y, X, at the chosen level; negative where
        the axis runs the other way.
    unit : str
        Unit of the scale along Z, Y and X, ``"um"``; ``"pixel"`` if it is unknown.
    path : Path
    level : int
        Level of the pyramid; 0 is the full size.
    version : str
        Version of OME-Zarr; empty for other files.
    n_levels : int
        Number of levels in the pyramid.
    channel_names : tuple of str
        In the order of the channels; empty if the file does not say.
    notes : tuple of str
        What of the file was not read, each in one line without the file's name.
    origin : dict of str to float
        Where the centre of the first pixel lies along each axis that has a scale, in
        its unit; 0 by default.
    """

    array: Any
    axes: Axes
    scale: dict[str, float]
    unit: str
    path: Path
    level: int = 0
    version: str = ""
    n_levels: int = 1
    channel_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    origin: dict[str, float] = field(default_factory=dict)

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
            reason = short_line(error, 120)
            raise ImageError(
                UNREADABLE.format(path=self._path, reason=reason)
            ) from error

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[...], dtype)

    def __len__(self) -> int:
        return len(self._array)


def is_zarr(path: str | Path) -> bool:
    """Return whether a path is a Zarr group or array, in a folder or a zip file."""
    return is_zarr_folder(path) or is_zipped_zarr(path)


def is_array(path: str | Path) -> bool:
    """Return whether a path is the folder of a Zarr array."""
    kind = read_json(Path(path) / "zarr.json").get("node_type")
    return kind == "array" or (Path(path) / ".zarray").is_file()


def open_image(
    path: str | Path,
    level: int = 0,
    axes: str | None = None,
    series: int | None = None,
) -> LazyImage:
    """Return an OME-Zarr image, a plain Zarr array or a TIFF file, without its pixels.

    Parameters
    ----------
    path : path
    level : int
        Level of the pyramid; 0 is the full size.
    axes : str, optional
        Meaning of the dimensions, where the file does not say.
    series : int, optional
        Which image of a file or group with several; by default the first.

    Returns
    -------
    LazyImage

    Raises
    ------
    ImageError
        If the image is missing, damaged, has no such level, or its axes must be
        declared; one line that names the file.
    """
    path, series = split_series(path, series)
    if path.suffix.lower() in TIFF_SUFFIXES and path.is_file():
        return _open_tiff(path, level, axes, series)
    if not is_zarr(path):
        if path.is_dir():
            check_readable(path)  # names what is missing
        raise ImageError(NO_IMAGE.format(path=path))
    zarr = import_zarr()
    try:
        node = open_node(path)
        groups = image_groups(node)
    except Exception as error:
        raise ImageError(
            UNREADABLE.format(path=path, reason=short_line(error, 120))
        ) from error
    if isinstance(node, zarr.Array):
        if level:
            raise ImageError(ONE_ARRAY.format(path=path, level=level))
        meaning = _axes_of(path, node, axes)
        return LazyImage(_Pixels(node, path), meaning, {}, PIXEL, path)
    if groups:
        return _open_one_of(path, groups, level, axes, series)
    return _open_group(path, node, level, axes)


def _open_one_of(
    path: Path, groups: list[str], level: int, axes: str | None, series: int | None
) -> LazyImage:
    """Return one of the images inside a group, with a note on the others."""
    index = series or 0
    if not 0 <= index < len(groups):
        raise ImageError(IMAGE_ABSENT.format(path=path, known=few(groups), index=index))
    inner = path / groups[index]
    try:
        node = open_node(inner)
    except Exception as error:
        raise ImageError(
            UNREADABLE.format(path=inner, reason=short_line(error, 120))
        ) from error
    image = _open_group(inner, node, level, axes)
    if series is not None or len(groups) == 1:
        return image
    note = ONE_OF_IMAGES.format(name=groups[0], n=len(groups), others=few(groups[1:]))
    return replace(image, notes=(note, *image.notes))


def image_folder(path: str | Path) -> Path:
    """Return the group of the image that `open_image` opens.

    It is the path itself but for a container of bioformats2raw, a plate or a well.
    """
    path = Path(path)
    if not is_zarr(path):
        return path
    groups, _ = list_images(path)
    return path / groups[0] if groups else path


def list_images(path: str | Path) -> tuple[list[str], bool]:
    """Return the paths of the images inside a Zarr group, and whether it is a plate.

    Both are empty for an image, and for a group that cannot be read.
    """
    try:
        node = open_node(path)
        return image_groups(node), is_plate(node)
    except Exception:  # noqa: BLE001  (reading it will name the reason)
        return [], False


def _open_group(path: Path, group: Any, level: int, axes: str | None) -> LazyImage:
    """Return the image that the attributes of a Zarr group describe."""
    ome = ome_attributes(group)
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
        called = [str(a["name"]).upper() for a in declared]
        letters = "".join(called) if set(called) <= set(AXES) else ""
        scale, origin = _place(datasets[level], multiscale, len(array.shape))
        if version not in VERSIONS:
            raise ValueError(f"version {version}")
    except ImageError:
        raise
    except Exception as error:  # damaged metadata makes zarr raise anything
        raise ImageError(
            NOT_OME_ZARR.format(path=path, reason=short_line(error, 120))
        ) from error
    meaning = _axes_of(path, array, letters or axes)
    units = {str(a["name"]).upper(): a.get("unit") for a in declared}
    by_axis, unit = in_micrometres(_without_c(meaning, scale), units)
    moved, _ = in_micrometres(_without_c(meaning, origin), units)
    return LazyImage(
        _Pixels(array, path),
        meaning,
        by_axis,
        unit,
        path,
        level,
        version,
        len(datasets),
        channel_names=_channel_names(ome),
        origin={a: n for a, n in moved.items() if n},
    )


def _channel_names(ome: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the labels of the channels; empty unless all have one."""
    try:
        names = [channel.get("label") for channel in ome["omero"]["channels"]]
    except (KeyError, TypeError, AttributeError):
        return ()
    return tuple(map(str, names)) if all(names) else ()


def _without_c(axes: Axes, values: list[float]) -> dict[str, float]:
    """Return one value for each axis but C."""
    return {a: n for a, n in zip(axes.order, values, strict=True) if a != "C"}


def _place(
    dataset: dict[str, Any], multiscale: dict[str, Any], n: int
) -> tuple[list[float], list[float]]:
    """Return scale and translation along each of ``n`` axes.

    Those of the level come first, then those of the whole image.
    """
    scale, origin = [1.0] * n, [0.0] * n
    for holder in (dataset, multiscale):
        for change in holder.get("coordinateTransformations", ()):
            values = change.get(change.get("type"))
            if values is None or len(values) != n:
                continue
            if change["type"] == "scale":
                scale = [a * float(b) for a, b in zip(scale, values, strict=True)]
                origin = [a * float(b) for a, b in zip(origin, values, strict=True)]
            elif change["type"] == "translation":
                origin = [a + float(b) for a, b in zip(origin, values, strict=True)]
    return scale, origin


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


def _open_tiff(
    path: Path, level: int, axes: str | None, series: int | None
) -> LazyImage:
    """Return one series of a TIFF file as a lazy image."""
    import tifffile

    zarr = import_zarr()
    facts = read_tiff_facts(path, series)
    try:
        with quiet_tifffile():
            store = tifffile.imread(path, aszarr=True, series=facts.series, level=level)
        array = zarr.open(store, mode="r")
    except Exception as error:
        raise ImageError(
            LEVEL_UNREADABLE.format(
                path=path, level=level, reason=short_line(error, 120)
            )
        ) from error
    if not isinstance(array, zarr.Array):
        array = array["0"]
    letters = facts.axes
    array = _shown(path, array, facts)
    if array.ndim > len(letters) > 0:  # colours of a palette
        letters += "C"
    meaning = _axes_of(path, array, letters or axes)
    size, unit = facts.pixel_size, facts.unit
    scale = {} if size is None else {"Y": size[0], "X": size[1]}
    if facts.z_step is not None:
        scale["Z"] = facts.z_step
    if level:
        scale = {}  # a TIFF does not say by how much a level is reduced
    where = path if series is None else path / str(series)
    return LazyImage(
        _Pixels(array, path),
        meaning,
        scale,
        unit,
        where,
        level,
        channel_names=facts.channel_names,
        notes=facts.notes,
        origin={} if level else facts.origin,
    )


def _shown(path: Path, array: Any, facts: TiffFacts) -> Any:
    """Return a lazy array of one position, as a viewer shows it."""
    if facts.position is not None:
        array = OnePosition(array, facts.position_axis, facts.position)
    if not facts.stored.changes(facts.samples):
        return array
    if facts.samples > 1 and int(array.shape[-1]) != facts.samples:
        raise ImageError(NO_COLOUR_PLANES.format(path=path))
    return ShownArray(array, facts.stored, facts.samples)


class OnePosition:
    """A lazy array without one of its axes, along which one index is taken.

    Parameters
    ----------
    array : array
    axis, index : int
    """

    def __init__(self, array: Any, axis: int, index: int) -> None:
        self._array, self._axis, self._index = array, axis, index
        shape = tuple(int(n) for n in array.shape)
        self.shape = shape[:axis] + shape[axis + 1 :]
        self.ndim, self.dtype = len(self.shape), array.dtype

    def __getitem__(self, index: Any) -> np.ndarray:
        index = index if isinstance(index, tuple) else (index,)
        index += (slice(None),) * (self.ndim - len(index))
        whole = (*index[: self._axis], self._index, *index[self._axis :])
        return np.asarray(self._array[whole])


def read_zarr(
    path: str | Path,
    axes: str | None = None,
    *,
    series: int | None = None,
    on_note: Callable[[str], None] | None = None,
) -> ImageFile:
    """Return a Zarr image in the form of `images.read_image`, with a lazy array.

    Parameters and errors are those of `open_image`, ``on_note`` that of `read_image`.
    """
    image = open_image(path, axes=axes, series=series)
    tell_notes(Path(path), image.notes, on_note)
    order, sizes = image.axes.order, image.scale
    size = None
    if {"Y", "X"} <= sizes.keys():
        size = (abs(sizes["Y"]), abs(sizes["X"]))
    # By the specification C is before Y and X: where it is last, it holds colours.
    last = image.array.shape[-1]
    rgb = order.endswith("C") and last in (3, 4) and image.array.dtype == np.uint8
    step = abs(sizes["Z"]) if "Z" in sizes else None
    return ImageFile(
        image.array,
        image.axes,
        size,
        image.unit,
        rgb,
        image.path,
        step,
        channel_names=image.channel_names,
        notes=image.notes,
        origin=image.origin,
    )


def read_any(
    path: str | Path,
    axes: str | None = None,
    *,
    on_note: Callable[[str], None] | None = None,
) -> ImageFile:
    """Return the image in a file or a Zarr, see `images.read_image` and `read_zarr`."""
    read = read_zarr if is_zarr(path) else read_image
    return read(path, axes, on_note=on_note)


def read_channel_names(path: str | Path) -> tuple[str, ...]:
    """Return the names of the channels in a file or a Zarr; empty without names.

    Raises
    ------
    ImageError
        If the file cannot be read.
    """
    file, series = split_series(path)
    if is_zarr(path):
        return open_image(path).channel_names
    check_readable(file)
    return names_of_channels(file, series)


def is_image(path: str | Path) -> bool:
    """Return whether a path is an OME-Zarr image."""
    if not is_zarr(path):
        return False
    try:
        return "multiscales" in ome_attributes(open_node(path))
    except Exception:  # noqa: BLE001  (reading it will name the reason)
        return False
