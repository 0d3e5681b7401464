"""Labels as OME-Zarr (NGFF 0.4 and 0.5), written block by block with a pyramid."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import short_line
from ..core.image import Axes
from ..core.result import Recipe
from ..core.units import in_micrometres, micrometres
from .atomic import WriteError, atomic_folder
from .label_files import NEGATIVE_IDS, NOT_WHOLE_NUMBERS
from .ome_zarr import MICROMETER, is_array, is_image, is_zarr
from .ownership import (
    check_replaceable,
    chunks_hash,
    names_in,
    read_json,
    zarr_attributes,
)
from .zarr_stores import (
    check_writable,
    import_zarr,
    is_zarr_folder,
    ome_attributes,
    open_node,
)

CHUNK = 1024
"""Side of a chunk of labels in pixels."""

SMALLEST_LEVEL = 512
"""Levels are added to a pyramid until one is no larger than this, in pixels."""

AXIS_TYPES = {"T": "time", "C": "channel"}
"""Types of the axes in OME-Zarr; all others are ``space``."""

VERSIONS = {"0.4": 2, "0.5": 3}
"""Zarr format of each version of OME-Zarr."""

BAD_VERSION = "OME-Zarr is written in version {known}, got {version!r}"
TIME_NOT_FIRST = "OME-Zarr has time as its first axis, got {axes}"
PLANE_NOT_LAST = "OME-Zarr has Y and X as its last axes, got {axes}"
IS_ARRAY = "it is an array, not a group: give another place for the labels"
CANNOT_WRITE = "{store}: cannot be written ({reason})."


@dataclass(frozen=True)
class LabelsLayout:
    """Place and form of a pyramid of labels.

    Parameters
    ----------
    folder : str
        Folder of the Zarr group of these labels.
    shape, chunks : tuple of int
        Of the level of full size, in the order of ``axes``.
    axes : str
        Axes of the labels, T first and Y and X last.
    dtype : str
    scale : tuple of float
        Size of a pixel along each axis.
    unit : str
        Unit of the scale along Z, Y and X, ``"um"`` or ``"pixel"``.
    version : str
        Version of OME-Zarr, ``0.4`` or ``0.5``.
    origin : tuple of float
        Where the centre of the first pixel lies along each axis; empty for 0.
    n_levels : int
        Number of levels; 0 for as many as `SMALLEST_LEVEL` asks for.

    Raises
    ------
    ValueError
        For another version, or T that is not the first axis.
    """

    folder: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    axes: str
    dtype: str
    scale: tuple[float, ...]
    unit: str
    version: str = "0.5"
    origin: tuple[float, ...] = ()
    n_levels: int = 0

    def __post_init__(self) -> None:
        if self.version not in VERSIONS:
            known = " or ".join(VERSIONS)
            raise ValueError(BAD_VERSION.format(known=known, version=self.version))
        if "T" in self.axes[1:]:
            raise ValueError(TIME_NOT_FIRST.format(axes=self.axes))

    @property
    def level_shapes(self) -> list[tuple[int, ...]]:
        """Shape of each level: Y and X are halved from level to level."""
        shapes = [self.shape]
        while (
            len(shapes) < self.n_levels
            if self.n_levels
            else max(shapes[-1][-2:]) > SMALLEST_LEVEL
        ):
            *stack, y, x = shapes[-1]
            shapes.append((*stack, -(-y // 2), -(-x // 2)))
        return shapes


def create_labels(layout: LabelsLayout) -> None:
    """Create the empty arrays of all levels; an existing group is replaced."""
    zarr = import_zarr()
    group = zarr.open_group(
        layout.folder, mode="w", zarr_format=VERSIONS[layout.version]
    )
    # Version 0.4 demands nested chunk files (0/0), which Zarr 2 does not have by
    # default; version 0.5 demands the names of the dimensions.
    is_zarr_3 = VERSIONS[layout.version] == 3
    more: dict[str, Any] = (
        {"dimension_names": list(layout.axes.lower())}
        if is_zarr_3
        else {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
    )
    for level, shape in enumerate(layout.level_shapes):
        group.create_array(
            str(level),
            shape=shape,
            dtype=layout.dtype,
            fill_value=0,
            chunks=tuple(min(c, n) for c, n in zip(layout.chunks, shape, strict=True)),
            **more,
        )


def open_level(folder: str | Path, level: int = 0) -> Any:
    """Return the array of one level, to be read and written.

    Two processes may write at the same time if each writes whole chunks.
    """
    return import_zarr().open_array(Path(folder) / str(level), mode="r+")


def chunk_windows(layout: LabelsLayout, level: int) -> Iterator[tuple[slice, ...]]:
    """Yield the window of each chunk of a level."""
    shape = layout.level_shapes[level]
    counts = [-(-n // min(c, n)) for n, c in zip(shape, layout.chunks, strict=True)]
    for at in np.ndindex(*counts):
        yield tuple(
            slice(i * c, min(n, (i + 1) * c))
            for i, n, c in zip(at, shape, layout.chunks, strict=True)
        )


def reduce_chunk(layout: LabelsLayout, level: int, window: tuple[slice, ...]) -> None:
    """Write a window of a level: every second pixel of the next larger level.

    Labels cannot be averaged: the mean of two ids is a third one.
    """
    source, target = (open_level(layout.folder, n) for n in (level - 1, level))
    fine = tuple(
        slice(w.start * f, min(n, w.stop * f), f)
        for w, n, f in zip(
            window, source.shape, [1] * (len(window) - 2) + [2, 2], strict=True
        )
    )
    part = np.asarray(source[fine])
    if part.any():  # chunks of zeros need not be stored
        target[window] = part


def count_levels(folder: str | Path) -> int:
    """Return the number of levels of a pyramid of labels."""
    return sum(
        1 for name in import_zarr().open_group(folder, mode="r") if name.isdecimal()
    )


def write_window(
    folder: str | Path,
    n_levels: int,
    place: tuple[int, ...],
    window: tuple[slice, ...],
    labels: np.ndarray,
) -> None:
    """Write a window of a plane into all levels of a pyramid.

    Parameters
    ----------
    folder : path
        Folder of the Zarr group of the labels.
    n_levels : int
        Number of levels of the pyramid.
    place : tuple of int
        Index of the plane along the axes before Y and X.
    window : (slice, slice)
        Rows and columns of the plane at full size.
    labels : (Y, X) int array
        Labels in the window.
    """
    open_level(folder)[(*place, *window)] = labels
    reduce_window(folder, n_levels, place, window, labels)


def reduce_window(
    folder: str | Path,
    n_levels: int,
    place: tuple[int, ...],
    window: tuple[slice, ...],
    labels: np.ndarray | None = None,
) -> None:
    """Update the smaller levels in a window of a plane to the level of full size.

    Parameters are those of `write_window`; ``labels`` are read if they are not given.
    """
    if labels is None:
        labels = np.asarray(open_level(folder)[(*place, *window)])
    for level in range(1, n_levels):
        # Kept are the pixels at multiples of the step in the whole plane, wherever the
        # window starts.
        step = 2**level
        first = [-(-w.start // step) for w in window]
        part = labels[
            tuple(
                slice(f * step - w.start, None, step)
                for f, w in zip(first, window, strict=True)
            )
        ]
        if part.size:
            where = (slice(f, f + n) for f, n in zip(first, part.shape, strict=True))
            open_level(folder, level)[(*place, *where)] = part


def publish_labels(
    layout: LabelsLayout,
    store: str | Path,
    name: str,
    recipe: Recipe,
    extra: dict[str, Any],
    *,
    overwrite: bool = False,
) -> Path:
    """Write the metadata of finished labels and move them to their `labels_folder`.

    Parameters
    ----------
    layout : LabelsLayout
        Labels in a folder on the same disk as ``store``.
    store : path
        OME-Zarr image that the labels are added to, or a new group.
    name : str
        Name of the labels; existing ones of this name are replaced, see
        `check_replaceable`.
    recipe : Recipe
        Stored in the attribute ``svpseg`` of the labels, together with ``extra``.
    extra : dict
        Plain values.
    overwrite : bool
        Allow to replace labels that no run of this program wrote.

    Returns
    -------
    Path
        Folder of the labels.

    Raises
    ------
    WriteError
        If the store cannot be written.
    """
    store = Path(store)
    describe_labels(layout, name)
    seal_labels(layout.folder, {"recipe": json.loads(recipe.to_json()), **extra})
    target, old = labels_folder(store, name), Path(f"{layout.folder}.old")
    check_replaceable(target, overwrite)
    is_root = _is_same(target, store)
    parent = None if is_root else _labels_of(store, layout.version)
    # Moved and not copied: labels of a slide have gigabytes, and viewers see the old or
    # the new ones, never a part.
    if target.exists():
        os.replace(target, old)
    os.replace(layout.folder, target)
    if (old / "labels").exists():  # of other names, inside a store of labels
        os.replace(old / "labels", target / "labels")
    shutil.rmtree(old, ignore_errors=True)
    if parent is not None:
        _list_labels(parent, name, layout.version, is_inside=is_image(store))
    _consolidate_again(target.parent)
    return target


def create_labels_in_store(
    store: str | Path, name: str, layout: LabelsLayout
) -> LabelsLayout:
    """Create empty labels at their final place, to be shown while they are filled.

    Parameters
    ----------
    store : path
        OME-Zarr image that the labels are added to, or a new group.
    name : str
        Name of the labels; existing ones of this name are replaced, see
        `check_replaceable`.
    layout : LabelsLayout
        Its folder is ignored.

    Returns
    -------
    LabelsLayout
        With the `labels_folder`.

    Raises
    ------
    WriteError
        If the store cannot be written.
    ImageError
        If ome-zarr is not installed.
    """
    check_writable()
    store, target = Path(store), labels_folder(store, name)
    check_replaceable(target)
    layout = replace(layout, folder=str(target), n_levels=levels_for(store, name))
    parent = None if _is_same(target, store) else _labels_of(store, layout.version)
    create_labels(layout)
    describe_labels(layout, name)
    if parent is not None:
        _list_labels(parent, name, layout.version, is_inside=is_image(store))
    _consolidate_again(target.parent)
    return layout


def labels_folder(store: str | Path, name: str) -> Path:
    """Return the folder of labels in a store, which need not be there yet.

    A new store is the pyramid of its labels itself, as most programs open nothing but
    an image at the root of a store. Labels that are added to an image, or to labels of
    another name, are in ``labels/NAME``.

    Parameters
    ----------
    store : path
        OME-Zarr image, or a store of labels.
    name : str
        Name of the labels.
    """
    store = Path(store)
    if store.is_symlink():  # moved aside would be the link, not the labels
        store = store.resolve()
    inside = store / "labels" / name
    if not os.path.lexists(store):
        return store
    if not store.is_dir() or inside.exists():
        return inside
    attributes = zarr_attributes(store)
    is_ours = "svpseg" in attributes and _name_of(attributes) == name
    return store if is_ours or not names_in(store) else inside


def levels_for(store: str | Path, name: str) -> int:
    """Return how many levels labels in a store must have; 0 where any number will do.

    OME-Zarr demands as many as the image has that the labels are in.
    """
    if _is_same(labels_folder(store, name), Path(store)) or not is_image(store):
        return 0
    try:
        return len(ome_attributes(open_node(store))["multiscales"][0]["datasets"])
    except (KeyError, IndexError, TypeError):  # damaged
        return 0


def _is_same(target: Path, store: Path) -> bool:
    """Return whether labels are the store itself."""
    return target == (store.resolve() if store.is_symlink() else store)


def _name_of(attributes: dict[str, Any]) -> str:
    """Return the name in the attributes of a pyramid; empty if there is none."""
    try:
        multiscales = attributes.get("ome", attributes)["multiscales"]
        return str(multiscales[0]["name"])
    except (KeyError, IndexError, TypeError, AttributeError):
        return ""


def describe_labels(layout: LabelsLayout, name: str) -> None:
    """Write the OME-Zarr metadata of a pyramid: its levels, axes and pixel sizes."""
    from ome_zarr.format import format_from_version
    from ome_zarr.writer import write_multiscales_metadata

    write_multiscales_metadata(
        import_zarr().open_group(layout.folder, mode="r+"),
        _datasets(layout),
        fmt=format_from_version(layout.version),
        axes=_axes_records(layout),
        name=name,
    )


def write_labels_metadata(folder: str | Path, values: dict[str, Any]) -> None:
    """Store plain values in the attribute ``svpseg`` of the labels in a folder."""
    import_zarr().open_group(folder, mode="r+").attrs["svpseg"] = values


def seal_labels(folder: str | Path, values: dict[str, Any]) -> None:
    """Store values as `write_labels_metadata`, with the hash of complete labels."""
    write_labels_metadata(folder, {**values, "sha256": chunks_hash(folder)})


def check_takes_labels(store: str | Path) -> None:
    """Raise `WriteError` for a Zarr that is an array, which takes no labels.

    Also raises `ImageError` if what writes OME-Zarr is not installed.
    """
    check_writable()
    if is_array(store):
        raise WriteError(CANNOT_WRITE.format(store=store, reason=IS_ARRAY))


def _labels_of(store: Path, version: str) -> Any:
    """Return the group of all labels of a store, created if necessary."""
    try:
        # Consolidated metadata of the image does not know of labels yet.
        root = import_zarr().open_group(
            store, mode="a", zarr_format=VERSIONS[version], use_consolidated=False
        )
        return root.require_group("labels")
    except Exception as error:
        raise WriteError(
            CANNOT_WRITE.format(store=store, reason=short_line(error, 120))
        ) from error


def _list_labels(
    parent: Any, name: str, version: str, *, is_inside: bool = False
) -> None:
    """Add labels to the list of labels of a store, unless they are listed.

    Parameters
    ----------
    parent : Zarr group
        Group of all labels of the store.
    name, version : str
    is_inside : bool
        The store is the image that the labels belong to.
    """
    from ome_zarr.format import format_from_version
    from ome_zarr.writer import write_label_metadata

    _forget(parent, name)
    source = {"source": {"image": "../../"}} if is_inside else {}
    write_label_metadata(parent, name, fmt=format_from_version(version), **source)
    # ome-zarr leaves the version out, without which an image of 0.5 is not valid.
    if version != "0.4":
        parent.attrs["ome"] = {**parent.attrs["ome"], "version": version}


def _consolidate_again(folder: Path) -> None:
    """Renew consolidated metadata of a group and of those around it, where there is.

    Programs that find it read nothing else: they would not see new labels.
    """
    zarr = import_zarr()
    for place in (folder, *folder.parents):
        if not is_zarr_folder(place):
            return
        if not is_consolidated(place):
            continue
        zarr_format = 3 if (place / "zarr.json").is_file() else 2
        try:
            with warnings.catch_warnings():  # zarr says that 3 does not specify it yet
                warnings.simplefilter("ignore")
                zarr.consolidate_metadata(place, zarr_format=zarr_format)
        except Exception as error:  # any group inside may be damaged
            raise WriteError(
                CANNOT_WRITE.format(store=place, reason=short_line(error, 120))
            ) from error


def is_consolidated(folder: str | Path) -> bool:
    """Return whether a Zarr group has consolidated metadata."""
    metadata = read_json(Path(folder) / "zarr.json")
    is_in_it = metadata.get("consolidated_metadata") is not None
    return is_in_it or (Path(folder) / ".zmetadata").is_file()


def write_zarr_labels(
    path: str | Path,
    labels: Any,
    *,
    axes: str,
    scale: dict[str, float] | None = None,
    unit: str = "pixel",
    recipe: Recipe | None = None,
    name: str = "cells",
    version: str = "0.5",
    origin: dict[str, float] | None = None,
    overwrite: bool = False,
    sealed: bool = True,
) -> Path:
    """Write labels with a pyramid as an OME-Zarr store of their own, atomically.

    Parameters
    ----------
    path : path
        Such as ``NAME_labels.zarr``; an existing store is replaced as a whole, see
        `check_replaceable`.
    labels : int array
        Read chunk by chunk; may be lazy and larger than the memory.
    axes : str
        Axes of ``labels``, with Y and X last.
    scale : dict of str to float, optional
        Size of a pixel along each axis.
    unit : str
        Unit of the scale along Z, Y and X.
    recipe : Recipe, optional
        Stored in the attribute ``svpseg`` of the labels.
    name : str
        Name of the labels; they are the root of the store.
    version : str
        Version of OME-Zarr, ``0.4`` or ``0.5``.
    origin : dict of str to float, optional
        Where the centre of the first pixel lies along each axis, in the unit of its
        scale; 0 by default.
    overwrite, sealed : bool
        As in `label_files.write_labels`.

    Returns
    -------
    Path
        The store.

    Raises
    ------
    WriteError
        If the store cannot be written.
    ValueError
        If labels and axes do not fit, or ids are negative.
    """
    shape = tuple(int(n) for n in labels.shape)
    Axes(axes).check(shape)
    if labels.dtype.kind not in "iub":
        raise ValueError(NOT_WHOLE_NUMBERS.format(dtype=labels.dtype))
    if not axes.upper().endswith("YX"):
        raise ValueError(PLANE_NOT_LAST.format(axes=axes))
    letters = Axes(axes).order
    # The largest id is unknown before all is read, so the dtype follows that of labels.
    dtype = "uint64" if labels.dtype.itemsize == 8 else "uint32"
    chunks = (*(1,) * (len(shape) - 2), CHUNK, CHUNK)
    units = dict.fromkeys("ZYX", unit)
    scale, unit = in_micrometres(dict.fromkeys(letters, 1.0) | (scale or {}), units)
    origin, _ = in_micrometres(dict.fromkeys(letters, 0.0) | (origin or {}), units)
    sizes, place = ([of[a] for a in letters] for of in (scale, origin))
    with atomic_folder(path, overwrite) as temporary:
        layout = LabelsLayout(
            "", shape, chunks, letters, dtype, tuple(sizes), unit, version, tuple(place)
        )
        layout = create_labels_in_store(temporary, name, layout)
        target = open_level(layout.folder)
        for window in chunk_windows(layout, 0):
            part = np.asarray(labels[window])
            if part.min(initial=0) < 0:
                raise ValueError(NEGATIVE_IDS)
            if part.any():
                target[window] = part.astype(dtype)
        for level in range(1, len(layout.level_shapes)):
            for window in chunk_windows(layout, level):
                reduce_chunk(layout, level, window)
        values = {} if recipe is None else {"recipe": json.loads(recipe.to_json())}
        if sealed:
            seal_labels(layout.folder, values)
        elif values:
            write_labels_metadata(layout.folder, values)
    return Path(path)


def _forget(labels: Any, name: str) -> None:
    """Remove a name from the list of labels, as ome-zarr would add it once more."""
    attributes = dict(labels.attrs)
    holder = attributes.get("ome", attributes)
    if name in holder.get("labels", []):
        holder["labels"] = [n for n in holder["labels"] if n != name]
        labels.attrs.update(attributes)


def read_labels_metadata(store: str | Path, name: str) -> dict[str, Any]:
    """Return the values that `write_labels_metadata` stored; empty without labels.

    Parameters
    ----------
    store : path
        Store that holds the labels.
    name : str
        Name of the labels.
    """
    kept = zarr_attributes(labels_folder(store, name)).get("svpseg")
    return dict(kept) if isinstance(kept, dict) else {}


def _datasets(layout: LabelsLayout) -> list[dict[str, Any]]:
    """Return the path and scale of each level, as OME-Zarr describes them.

    All levels have one translation: the first pixel of each is that of the full size.
    """
    found = []
    for level, _ in enumerate(layout.level_shapes):
        factor = [1] * (len(layout.shape) - 2) + [2**level] * 2
        scale = [s * f for s, f in zip(layout.scale, factor, strict=True)]
        changes: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
        if any(layout.origin):
            changes.append({"type": "translation", "translation": list(layout.origin)})
        found.append({"path": str(level), "coordinateTransformations": changes})
    return found


def _axes_records(layout: LabelsLayout) -> list[dict[str, str]]:
    """Return name, type and unit of each axis, as OME-Zarr describes them."""
    records = []
    for letter in layout.axes:
        kind = AXIS_TYPES.get(letter, "space")
        record = {"name": letter.lower(), "type": kind}
        if kind == "space" and micrometres(layout.unit) is not None:
            record["unit"] = MICROMETER
        records.append(record)
    return records


def create_scratch(
    path: Path, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str
) -> None:
    """Create an array for intermediate results of a run, unless it exists.

    The compression is chosen for speed, as the array is written and read only once or
    twice.
    """
    if not is_zarr(path):
        zarr = import_zarr()
        quick = zarr.codecs.BloscCodec(cname="lz4", clevel=1, shuffle="noshuffle")
        zarr.create_array(
            path,
            shape=shape,
            chunks=chunks,
            dtype=dtype,
            fill_value=0,
            compressors=quick,
        )


def open_scratch(path: Path) -> Any:
    """Return an array made by `create_scratch`, to be read and written."""
    return import_zarr().open_array(path, mode="r+")
