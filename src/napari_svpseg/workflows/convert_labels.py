"""Convert a file of labels to another format: `svpseg convert`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.image import Axes, ImageError
from ..core.jobs.folder_job import FORMATS, format_of
from ..core.labels.ids import MaskError, whole_numbers
from ..io.exports import ExportData, export
from ..io.images import TIFF_SUFFIXES, ImageFile, check_memory, read_image
from ..io.label_files import read_recipe
from ..io.mask_files import read_mask
from ..io.ome_zarr import is_array, is_image, is_zarr, read_any, read_zarr
from ..io.ownership import check_no_inputs, check_replaceable, names_in
from ..io.rois import WHOLE, OutlineError, read_geojson, read_rois

OUTLINES = {
    ".zip": read_rois, ".roi": read_rois, ".geojson": read_geojson,
    ".json": read_geojson,
}  # fmt: skip
"""Readers of outlines, which do not know the size of their image."""

LAZY = ("ome-zarr", "geojson", "rois", "csv")
"""Formats that are written part by part."""

ON_IMAGE = ("geojson", "rois")
"""Formats whose coordinates are pixels of the image, also of a smaller level of it."""

UNKNOWN_END = "{path}: the end of its name stands for no format: choose one of {ends}"
NEEDS_IMAGE = (
    "{path}: outlines do not say how large their image is: name the image, --like IMAGE"
)
NOTHING_INSIDE = (
    "{path}: none of its outlines lies in the image {like} of {shape} pixels"
)
SHAPES_DIFFER = (
    "{path}: its labels have the shape {shape} ({axes}), the image {like} has {theirs} "
    "({their_axes})"
)
SEVERAL_LABELS = "{path}: it holds the labels {names}: name one, such as {example}"
NO_IDS = "{path}: labels have no channels, this file has the axes {axes}"


def convert_labels(
    source: str | Path,
    target: str | Path,
    like: str | Path | None = None,
    *,
    axes: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the labels in a file to another file, in the format that its end says.

    Parameters
    ----------
    source : path
        OME-TIFF, TIFF, PNG, ``.npy``, ``_seg.npy``, a zip of ImageJ ROIs, GeoJSON, or
        labels in a Zarr.
    target : path
        Ends in one of `core.jobs.folder_job.FORMATS`, or in ``.tif``, ``.tiff`` or
        ``.png``.
    like : path, optional
        Image that the labels belong to. It has the shape that outlines are drawn in,
        and the pixel size and position of labels that have none; tables have its
        intensities.
    axes : str, optional
        Axes of the labels where the file does not say, and of that image.
    overwrite : bool
        Allow to replace a file that this program did not write.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    ValueError, ImageError
        If the labels cannot be read, or not be written in that format.
    WriteError
        If the file cannot be written, or would replace another one.
    """
    source, target = Path(source), Path(target)
    kind = _format(target)
    check_no_inputs([target], [source] if like is None else [source, like])
    check_replaceable(target, overwrite)
    image = None if like is None else read_any(like, axes)
    read = OUTLINES.get(source.suffix.lower())
    if read is not None and not (is_zarr(source) or source.is_dir()):
        if image is None:
            raise ValueError(NEEDS_IMAGE.format(path=source))
        data = _outlined(source, image)
    else:
        data = read_stored(source, axes)
        if image is not None:
            data = _placed_on(data, image, source, kind)
    is_lazy = kind in LAZY and (data.image is None or kind == "ome-zarr")
    if not is_lazy and not isinstance(data.labels, np.ndarray):
        check_memory(source, _n_bytes(data.labels))
        data = replace(data, labels=np.asarray(data.labels))
    return export(target, kind, replace(data, overwrite=overwrite))


def _format(path: Path) -> str:
    """Return the format of a file by its end."""
    kind = format_of(path.name)
    if kind is None and path.suffix.lower() in (".tif", ".tiff"):
        kind = "ome-tiff"
    elif kind is None and path.suffix.lower() == ".png":
        kind = "cellpose-png"  # which is a plain PNG of ids
    if kind is None:
        ends = ", ".join((*FORMATS.values(), ".tif", ".png"))
        raise ValueError(UNKNOWN_END.format(path=path, ends=ends))
    return kind


def _outlined(path: Path, image: ImageFile) -> ExportData:
    """Return the labels of outlines in an image."""
    axes = image.axes.labels
    shape = _shape_of(image, axes)
    labels = OUTLINES[path.suffix.lower()](path, shape, axes=axes)
    if not labels.any():
        message = NOTHING_INSIDE.format(path=path, like=image.path, shape=shape)
        raise OutlineError(message)
    return _placed_on(ExportData(labels, axes), image, path)


def read_stored(path: Path, axes: str | None = None) -> ExportData:
    """Return the labels in a file of pixels; those of a Zarr are lazy."""
    if is_zarr(path):
        found = read_zarr(labels_in(path), axes)
        values: Any = found.array
    else:
        found = read_image(path, axes, as_ids=True)
        planes = found.axes.order in ("YX", "YXC")
        values = read_mask(path) if planes else _ids(found.array, path)
    order = found.axes.order.replace("C", "") if found.rgb else found.axes.order
    if "C" in order:
        raise ImageError(NO_IDS.format(path=path, axes=order))
    is_tiff = path.suffix.lower() in TIFF_SUFFIXES
    return ExportData(
        values,
        order,
        found.pixel_size,
        found.unit,
        found.z_step,
        read_recipe(path) if is_tiff else None,
        origin=found.origin,
    )


def _ids(stack: np.ndarray, path: Path) -> np.ndarray:
    """Return a stack as whole numbers; see `whole_numbers`, which takes planes."""
    try:
        flat = whole_numbers(stack.reshape(-1, stack.shape[-1]), f"{path}:")
    except MaskError as error:
        raise ImageError(f"{error}.") from error
    return flat.reshape(stack.shape)


def labels_in(path: Path) -> Path:
    """Return the labels in a Zarr: those of its group ``labels``, or the Zarr itself.

    A Zarr that holds labels may be an image, whose pixels are no ids.
    """
    group = path / "labels"
    inside: Iterable[str] = names_in(group) if group.is_dir() else ()
    names = [name for name in inside if is_image(group / name)]
    if is_array(path) or not names:
        return path
    if len(names) > 1:
        listed, example = ", ".join(names), group / names[0]
        raise ImageError(
            SEVERAL_LABELS.format(path=path, names=listed, example=example)
        )
    return group / names[0]


def _placed_on(
    data: ExportData, image: ImageFile, path: Path, kind: str = ""
) -> ExportData:
    """Return labels with what their image knows of its pixels."""
    axes = image.axes.labels
    shape = _shape_of(image, axes)
    found = dict(zip(Axes(data.axes).order, data.labels.shape, strict=True))
    factors = _factors(found, dict(zip(axes, shape, strict=True)))
    if kind in ON_IMAGE and factors is not None and factors != WHOLE:
        return replace(data, factors=factors)
    if found != dict(zip(axes, shape, strict=True)):
        raise ValueError(
            SHAPES_DIFFER.format(
                path=path,
                shape=data.labels.shape,
                axes=data.axes,
                like=image.path,
                theirs=shape,
                their_axes=axes,
            )
        )
    placed = replace(
        data,
        image=image.array,
        image_axes=image.axes.order,
        n_channels=image.n_channels,
        source=str(image.path.absolute()),
    )
    if data.pixel_size is not None:
        return placed
    return replace(
        placed,
        pixel_size=image.pixel_size,
        unit=image.unit,
        z_step=image.z_step,
        origin=image.origin,
    )


def _factors(
    found: dict[str, int], whole: dict[str, int]
) -> tuple[float, float] | None:
    """Return the size of a pixel of labels in pixels of their image, of whole numbers.

    None where the labels have no size that a level of a pyramid could have.
    """
    if {a: n for a, n in found.items() if a not in "YX"} != {
        a: n for a, n in whole.items() if a not in "YX"
    }:
        return None
    factors = {axis: round(whole[axis] / found[axis]) for axis in "YX"}
    # levels are cut off or filled up
    if any(abs(whole[a] - found[a] * n) >= max(n, 1) for a, n in factors.items()):
        return None
    return float(factors["Y"]), float(factors["X"])


def _shape_of(image: ImageFile, axes: str) -> tuple[int, ...]:
    """Return the lengths of an image along some of its axes."""
    return tuple(image.lengths[axis] for axis in axes)


def _n_bytes(array: Any) -> int:
    return int(np.prod(array.shape, dtype=np.int64)) * int(array.dtype.itemsize)
