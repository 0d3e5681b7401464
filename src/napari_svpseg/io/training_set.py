"""A training set: a folder of images and partial labels that only grows.

    FOLDER/NAME/image.tif       the image, as it was given
    FOLDER/NAME/labels-0001.tif partial labels, every version that was ever added
    FOLDER/NAME/entry.json      axes, which version counts, used or not, held out or not

Entries are written whole or not at all. Labels are never overwritten: a new version
gets the next number, and the newest one that can be read counts.
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
from ..core.image import Axes
from .atomic import WriteError, atomic_folder, atomic_path

VERSION = 1
ENTRY, IMAGE = "entry.json", "image.tif"
LABELS = re.compile(r"labels-(\d+)\.tif")

logger = logging.getLogger(__name__)


class TrainingSetError(PartialLabelError):
    """A training set, or an entry of it, that cannot be used; the message names it."""


@dataclass(frozen=True)
class Entry:
    """One image of a training set and what is known of it.

    Parameters
    ----------
    name : str
    folder : Path
    axes : str
        ``YX`` or ``YXC``.
    rgb : bool
    channels : tuple of int or None
        Taken of the source.
    source : str
        File or layer it came from.
    used : bool
        Whether it is trained on.
    validation : bool or None
        True: only used to check. None: a part of its labels is chosen to check with.
    version : int
        Of its labels.
    n_versions : int
    counts : dict
        Labelled pixels of each class, as of `label_counts`.
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
        """Return the partial labels, by default of the version that counts."""
        return _read(self.folder / f"labels-{version or self.version:04d}.tif")


class TrainingSet:
    """Images and partial labels in a folder.

    Parameters
    ----------
    folder : path
        Made when the first image is added.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.problems: list[str] = []
        """One line for each entry that the last `entries` had to leave out."""

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
        used: bool = True,
        validation: bool | None = None,
    ) -> Entry:
        """Add an image, or a new version of the labels of one that is there.

        Parameters
        ----------
        name : str
            Of the entry. An entry of this name must hold the same image.
        image : (Y, X) or (Y, X, C) array
        partial_labels : (Y, X) int array
            0 = unknown, 1 = background, 2, 3, ... = objects or classes.
        axes : str, optional
            ``YX``, ``YXC`` or ``CYX``; by default the first two by the dimensions.
        rgb, channels, source, used, validation
            As in `Entry`.

        Returns
        -------
        Entry
            As written.

        Raises
        ------
        TrainingSetError
            If image and labels do not fit each other or the entry.
        WriteError
            If the disk is full, read-only or gone; nothing that was there is lost.
        """
        _check_name(name)
        plane, order = _plane(np.asarray(image), axes)
        labels = check_partial_labels(partial_labels, plane.shape, name)
        if not labels.any():
            raise TrainingSetError(
                f"{name}: no pixel is labelled: paint some objects and background."
            )
        folder = self.folder / name
        if folder.exists():
            return self._add_version(folder, plane, labels, used, validation)
        entry = Entry(
            name,
            folder,
            order,
            rgb,
            channels,
            source,
            used,
            validation,
            counts=label_counts(labels),
        )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WriteError(
                f"{self.folder}: cannot be made ({error.strerror}): choose another "
                "folder."
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
        used: bool,
        validation: bool | None,
    ) -> Entry:
        entry = self._entry(folder)
        if not _equal(entry.image(), plane):
            raise TrainingSetError(
                f"{folder}: holds another image under the name '{entry.name}': add "
                "this one under another name."
            )
        entry = replace(
            entry, used=used, validation=validation, counts=label_counts(labels)
        )
        if not np.array_equal(entry.labels(), labels):
            last = max(_versions(folder))
            with atomic_path(folder / f"labels-{last + 1:04d}.tif") as temporary:
                _write(temporary, labels)
            entry = replace(entry, version=last + 1, n_versions=entry.n_versions + 1)
        self._save(entry)
        return entry

    def entries(self) -> list[Entry]:
        """Return all entries by name; those that cannot be read are in `problems`."""
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
            If there is none of this name, or it cannot be read.
        """
        _check_name(name)
        return self._entry(self.folder / name)

    def set_used(self, name: str, used: bool) -> Entry:
        """Say whether an image is trained on; it stays in the set in any case."""
        return self._changed(name, lambda e: replace(e, used=used))

    def set_validation(self, name: str, validation: bool | None) -> Entry:
        """Say whether an image only checks (True), or partly, as chosen (None)."""
        return self._changed(name, lambda e: replace(e, validation=validation))

    def _changed(self, name: str, change: Callable[[Entry], Entry]) -> Entry:
        entry = change(self.entry(name))
        self._save(entry)
        return entry

    def _save(self, entry: Entry) -> None:
        with atomic_path(entry.folder / ENTRY) as temporary:
            temporary.write_text(_to_json(entry), encoding="utf8")

    def _entry(self, folder: Path) -> Entry:
        try:
            values = json.loads((folder / ENTRY).read_text(encoding="utf8"))
            if values.pop("format", None) != VERSION:
                raise TrainingSetError(
                    f"{folder}: written by a newer version: update napari-svpseg."
                )
            channels = values.pop("channels")
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
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise TrainingSetError(
                f"{folder}: damaged, it is passed over ({_reason(error)})."
            ) from error
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
        raise TrainingSetError(
            f"{folder}: no labels in it can be read, it is passed over."
        )


def is_same_image(entry: Entry, image: np.ndarray, axes: str | None = None) -> bool:
    """Tell whether an entry holds this image (``axes`` as for `TrainingSet.add`)."""
    return _equal(entry.image(), _plane(np.asarray(image), axes)[0])


def _equal(first: np.ndarray, second: np.ndarray) -> bool:
    return np.array_equal(first, second, equal_nan=second.dtype.kind == "f")


def _check_name(name: str) -> None:
    if not name or name != Path(name).name or name.startswith(".") or "\\" in name:
        raise TrainingSetError(
            f"'{name}' is no name for an entry of a training set: use letters, "
            "digits, spaces and dashes."
        )


def _plane(image: np.ndarray, axes: str | None) -> tuple[np.ndarray, str]:
    if axes is None:
        axes = "YX" if image.ndim == 2 else "YXC"
    layout = Axes(axes)
    layout.check(image.shape)
    if layout.stack:
        raise TrainingSetError(
            f"A training image is one plane, this one has the axes {layout.order}: "
            "add the plane by itself."
        )
    plane = layout.to_plane(image)
    return (plane[..., 0], "YX") if plane.shape[2] == 1 else (plane, "YXC")


def _versions(folder: Path) -> list[int]:
    found = [LABELS.fullmatch(p.name) for p in folder.iterdir()]
    return sorted(int(m.group(1)) for m in found if m)


def _to_json(entry: Entry) -> str:
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
        raise TrainingSetError(f"{path}: cannot be read ({_reason(error)}).") from error


def _write(path: Path, array: np.ndarray) -> None:
    tifffile.imwrite(path, array, compression="zlib")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).splitlines()
    return lines[0][:120] if lines else type(error).__name__
