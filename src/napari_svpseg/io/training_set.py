"""Training sets: folders of images and partial labels that only grow.

    FOLDER/NAME/image.tif       the image, as it was added
    FOLDER/NAME/labels-0001.tif partial labels, each version that was added
    FOLDER/NAME/entry.json      axes, source, used or not, validation or not

Entries are written atomically. Labels are never overwritten: a new version gets the
next number, and the newest one that can be read is used.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from ..core.annotation.partial_labels import (
    PartialLabelError,
    check_partial_labels,
    label_counts,
)
from ..core.errors import short_line
from ..core.image import Axes
from .atomic import WriteError, atomic_folder, atomic_path
from .model_store import make_folder

VERSION = 1
ENTRY, IMAGE = "entry.json", "image.tif"
LABELS = re.compile(r"labels-(\d+)\.tif")

NOTHING_LABELLED = "{name}: no pixel is labelled: paint some objects and background."
CANNOT_CREATE = "{folder}: cannot be created ({reason}): choose another folder."
OTHER_IMAGE = (
    "{folder}: holds another image under the name '{name}': add this one under another "
    "name."
)
NEWER_VERSION = "{folder}: written by a newer version: update napari-svpseg."
DAMAGED = "{folder}: damaged, it is skipped ({reason})."
BAD_CHANNELS = "its channels are {channels!r}"
NO_READABLE_LABELS = "{folder}: no labels in it can be read, it is skipped."
BAD_NAME = (
    "'{name}' is no name for an entry of a training set: use letters, digits, spaces "
    "and dashes."
)
NOT_ONE_PLANE = (
    "A training image is one plane, this one has the axes {axes}: add the plane by "
    "itself."
)
UNREADABLE = "{path}: cannot be read ({reason})."

logger = logging.getLogger(__name__)


class TrainingSetError(PartialLabelError):
    """A training set, or an entry of one, that cannot be used; the message names it."""


@dataclass(frozen=True)
class Entry:
    """One image of a training set; pixels are read on request.

    Parameters
    ----------
    name : str
    folder : Path
    axes : str
        Axes of the image, ``YX`` or ``YXC``.
    rgb : bool
        The channels are red, green and blue.
    channels : tuple of int or None
        Channels of the source that were taken; None means all.
    source : str
        File or layer that the image comes from.
    used : bool
        Whether the image takes part in training and validation.
    validation : bool or None
        True: the whole image is kept for validation. None: a part of its labels may be.
    version : int
        Number of the newest labels that can be read.
    n_versions : int
        Number of versions of the labels.
    counts : dict
        Labelled pixels of each class, from `label_counts`.
    """

    name: str
    folder: Path
    axes: str = "YX"
    rgb: bool = False
    channels: tuple[int, ...] | None = None
    source: str = ""
    used: bool = True
    validation: bool | None = None
    version: int = 1
    n_versions: int = 1
    counts: dict[str, int] | None = None

    def image(self) -> np.ndarray:
        """Return the image, ``(Y, X)`` or ``(Y, X, C)``."""
        return _read(self.folder / IMAGE)

    def labels(self, version: int | None = None) -> np.ndarray:
        """Return the partial labels ``(Y, X)``, by default of the newest version."""
        return _read(self.folder / f"labels-{version or self.version:04d}.tif")


class TrainingSet:
    """Images and partial labels in a folder.

    Parameters
    ----------
    folder : path
        Created when the first image is added.

    Attributes
    ----------
    problems : list of str
        One line for each entry that the last call of `entries` skipped.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.problems: list[str] = []

    def __len__(self) -> int:
        return len(self.entries())

    def add(
        self,
        name: str,
        image: np.ndarray,
        partial_labels: np.ndarray,
        axes: str | None = None,
        *,
        rgb: bool = False,
        channels: tuple[int, ...] | None = None,
        source: str = "",
        validation: bool | None = None,
    ) -> Entry:
        """Add an image, or a new version of the labels of an image in the set.

        The entry is used for training from then on, see `set_used`.

        Parameters
        ----------
        name : str
            Name of the entry. If it exists, it must hold the same image.
        image : (Y, X) or (Y, X, C) array
        partial_labels : (Y, X) int array
            0 = unknown, 1 = background, 2, 3, ... = objects or classes.
        axes : str, optional
            ``YX``, ``YXC`` or ``CYX``; by default YX in 2-D and YXC in 3-D.
        rgb, channels, source, validation
            As in `Entry`.

        Returns
        -------
        Entry
            The entry as written.

        Raises
        ------
        TrainingSetError
            If image, labels and entry do not fit, or nothing is labelled.
        WriteError
            If it cannot be written; the set stays as it was.
        """
        _check_name(name)
        plane, order = as_plane(np.asarray(image), axes)
        labels = check_partial_labels(partial_labels, plane.shape, name)
        if not labels.any():
            raise TrainingSetError(NOTHING_LABELLED.format(name=name))
        folder = self.folder / name
        if folder.exists():
            return self._add_version(folder, plane, labels, validation)
        entry = Entry(
            name,
            folder,
            order,
            rgb,
            channels,
            source,
            validation=validation,
            counts=label_counts(labels),
        )
        try:
            make_folder(self.folder)
        except OSError as error:
            raise WriteError(
                CANNOT_CREATE.format(folder=self.folder, reason=error.strerror)
            ) from error
        with atomic_folder(folder) as temporary:
            _write(temporary / IMAGE, plane)
            _write(temporary / "labels-0001.tif", labels)
            (temporary / ENTRY).write_text(_to_json(entry), encoding="utf8")
        return entry

    def _add_version(
        self,
        folder: Path,
        plane: np.ndarray,
        labels: np.ndarray,
        validation: bool | None,
    ) -> Entry:
        """Add labels to an existing entry; equal ones make no new version."""
        entry = self._entry(folder)
        if not _equal(entry.image(), plane):
            raise TrainingSetError(OTHER_IMAGE.format(folder=folder, name=entry.name))
        entry = replace(
            entry, used=True, validation=validation, counts=label_counts(labels)
        )
        # Equal labels are no new version, such as after pressing the button twice.
        if not np.array_equal(entry.labels(), labels):
            # After all that exist, damaged ones as well: none is overwritten.
            last = max(_versions(folder))
            with atomic_path(folder / f"labels-{last + 1:04d}.tif") as temporary:
                _write(temporary, labels)
            entry = replace(entry, version=last + 1, n_versions=entry.n_versions + 1)
        self._save(entry)
        return entry

    def entries(self) -> list[Entry]:
        """Return all entries by name; `problems` names those that cannot be read."""
        self.problems = []
        found = []
        for folder in sorted(self.folder.iterdir()) if self.folder.is_dir() else []:
            if folder.name.startswith(".") or not folder.is_dir():
                continue
            try:
                found.append(self._entry(folder))
            except TrainingSetError as error:
                logger.warning("%s", error)
                self.problems.append(str(error))
        return found

    def entry(self, name: str) -> Entry:
        """Return one entry.

        Raises
        ------
        TrainingSetError
            If there is no entry of this name, or it cannot be read.
        """
        _check_name(name)
        return self._entry(self.folder / name)

    def set_used(self, name: str, used: bool) -> Entry:
        """Set whether an image is used; an unused one stays in the set."""
        return self._changed(name, lambda e: replace(e, used=used))

    def set_validation(self, name: str, validation: bool | None) -> Entry:
        """Set whether a whole image (True) or a part of its labels (None) validates."""
        return self._changed(name, lambda e: replace(e, validation=validation))

    def _changed(self, name: str, change: Callable[[Entry], Entry]) -> Entry:
        """Change the record of an entry on the disk and return it."""
        entry = change(self.entry(name))
        self._save(entry)
        return entry

    def _save(self, entry: Entry) -> None:
        # It was read as an entry of ours; all that it held is in this one.
        with atomic_path(entry.folder / ENTRY, overwrite=True) as temporary:
            temporary.write_text(_to_json(entry), encoding="utf8")

    def _entry(self, folder: Path) -> Entry:
        """Read an entry with the newest labels that are valid."""
        try:
            values = json.loads((folder / ENTRY).read_text(encoding="utf8"))
            if values.pop("format", None) != VERSION:
                raise TrainingSetError(NEWER_VERSION.format(folder=folder))
            channels = values.pop("channels")
            if channels is not None and not (
                isinstance(channels, list)
                and channels
                and all(isinstance(c, int) for c in channels)
            ):
                raise TypeError(BAD_CHANNELS.format(channels=channels))
            entry = Entry(
                name=folder.name,
                folder=folder,
                channels=None if channels is None else tuple(channels),
                **values,
            )
            versions = _versions(folder)
            image = entry.image()
        except TrainingSetError:
            raise
        except (
            OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError
        ) as error:  # fmt: skip
            raise TrainingSetError(
                DAMAGED.format(folder=folder, reason=short_line(error, 120))
            ) from error
        # A write that was killed, or a damaged disk, costs the newest version at most.
        for version in sorted(versions, reverse=True):
            try:
                labels = check_partial_labels(
                    entry.labels(version), image.shape, str(folder)
                )
            except PartialLabelError as error:
                logger.warning("%s", error)
                continue
            return replace(
                entry,
                version=version,
                n_versions=len(versions),
                counts=label_counts(labels),
            )
        raise TrainingSetError(NO_READABLE_LABELS.format(folder=folder))


def is_same_image(entry: Entry, image: np.ndarray, axes: str | None = None) -> bool:
    """Return whether an entry holds this image; axes are as for `TrainingSet.add`."""
    return _equal(entry.image(), as_plane(np.asarray(image), axes)[0])


def _equal(first: np.ndarray, second: np.ndarray) -> bool:
    """Return whether two images are equal; NaN equals NaN."""
    return np.array_equal(first, second, equal_nan=second.dtype.kind == "f")


def _check_name(name: str) -> None:
    """Raise `TrainingSetError` for a name that is no plain folder name."""
    if not name or name != Path(name).name or name.startswith(".") or "\\" in name:
        raise TrainingSetError(BAD_NAME.format(name=name))


def as_plane(image: np.ndarray, axes: str | None) -> tuple[np.ndarray, str]:
    """Return an image as (Y, X) or (Y, X, C), and its axes."""
    if axes is None:
        axes = "YX" if image.ndim == 2 else "YXC"
    layout = Axes(axes)
    layout.check(image.shape)
    if layout.stack:
        raise TrainingSetError(NOT_ONE_PLANE.format(axes=layout.order))
    plane = layout.to_plane(image)
    return (plane[..., 0], "YX") if plane.shape[2] == 1 else (plane, "YXC")


def _versions(folder: Path) -> list[int]:
    """Return the numbers of all labels in the folder of an entry, sorted."""
    found = [LABELS.fullmatch(p.name) for p in folder.iterdir()]
    return sorted(int(m.group(1)) for m in found if m)


def _to_json(entry: Entry) -> str:
    """Return the content of ``entry.json``."""
    values: dict[str, Any] = {
        "format": VERSION,
        "axes": entry.axes,
        "rgb": entry.rgb,
        "channels": entry.channels,
        "source": entry.source,
        "used": entry.used,
        "validation": entry.validation,
    }
    return json.dumps(values, indent=1) + "\n"


def _read(path: Path) -> np.ndarray:
    try:
        return np.asarray(tifffile.imread(path))
    except Exception as error:
        raise TrainingSetError(
            UNREADABLE.format(path=path, reason=short_line(error, 120))
        ) from error


def _write(path: Path, array: np.ndarray) -> None:
    tifffile.imwrite(path, array, compression="zlib")
