"""Data sets with ground truth: images, labels, ignored pixels and a description.

A data set is a folder with ``images/``, ``labels/`` (TIFF), optionally ``ignore/``, and
a ``dataset.toml`` that describes the labels.
"""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .images import read_image

NO_DESCRIPTION = (
    "{folder}: no readable dataset.toml: give a folder with images/, labels/ and "
    "dataset.toml."
)
NOT_TOML = "{path}: not TOML ({reason})."
BAD_KIND = "{folder}: kind must be instance or semantic, got {kind!r}."
NO_LABELLED_IMAGE = "{folder}: no image in images/ has labels/ of the same name."
NO_CLASSES = "{folder}: a semantic set needs [classes] in dataset.toml."
BAD_CLASSES = "{folder}: [classes] in dataset.toml must name class ids ({reason})."
BAD_SCALE = "{folder}: scale in dataset.toml must be above 0, got {scale!r}."


class DatasetError(ValueError):
    """A folder that is no data set; the message names it and says why."""


@dataclass(frozen=True)
class Dataset:
    """A folder of images and labels, which are read on request.

    Parameters
    ----------
    folder : Path
    name : str
    kind : str
        ``"instance"`` (labels are object ids) or ``"semantic"`` (labels are class ids).
    classes : dict of int to str
        Names of the class ids above 0, in a semantic set.
    scale : float or None
        Factor by which images are resampled so that objects fit into a 64 x 64 prompt
        (0.25 = reduce by 4).
    ids : tuple of str
        Names of the images that have labels, sorted.
    """

    folder: Path
    name: str
    kind: str
    classes: dict[int, str]
    scale: float | None
    ids: tuple[str, ...]
    _images: dict[str, Path] = field(repr=False)

    def image(self, name: str) -> np.ndarray:
        """Return an image, ``(Y, X)`` or ``(Y, X, C)``."""
        return np.asarray(read_image(self._images[name]).array)

    def labels(self, name: str) -> np.ndarray:
        """Return the labels of an image, ``(Y, X)`` int."""
        return _read_ids(self.folder / "labels" / f"{name}.tif")

    def ignore(self, name: str) -> np.ndarray | None:
        """Return the mask of pixels of an image that are not scored, or None."""
        path = self.folder / "ignore" / f"{name}.tif"
        return _read_ids(path) if path.exists() else None


def _read_ids(path: Path) -> np.ndarray:
    """Return the ids in a file of labels."""
    return np.asarray(read_image(path, as_ids=True).array)


def read_dataset(folder: str | Path) -> Dataset:
    """Return the data set in a folder.

    Parameters
    ----------
    folder : path
        Holds ``images/``, ``labels/`` and ``dataset.toml``; images without labels of
        the same name are skipped.

    Raises
    ------
    DatasetError
        If ``dataset.toml`` is missing or wrong, or no image has labels.
    """
    folder = Path(folder)
    try:
        text = (folder / "dataset.toml").read_text(encoding="utf8")
        values = tomllib.loads(text)
    except OSError as error:
        raise DatasetError(NO_DESCRIPTION.format(folder=folder)) from error
    except ValueError as error:
        path = folder / "dataset.toml"
        raise DatasetError(NOT_TOML.format(path=path, reason=error)) from error
    kind = values.get("kind", "instance")
    if kind not in ("instance", "semantic"):
        raise DatasetError(BAD_KIND.format(folder=folder, kind=kind))
    images = {p.stem: p for p in sorted((folder / "images").glob("*.*"))}
    # Images may be of any format, labels are TIFF: they are matched by their stems.
    labelled = {p.stem for p in (folder / "labels").glob("*.tif")}
    ids = tuple(sorted(labelled & set(images)))
    if not ids:
        raise DatasetError(NO_LABELLED_IMAGE.format(folder=folder))
    named = _classes(values.get("classes"), folder)
    if kind == "semantic" and not named:
        raise DatasetError(NO_CLASSES.format(folder=folder))
    return Dataset(
        folder,
        str(values.get("name", folder.name)),
        kind,
        named,
        _checked_scale(values.get("scale", values.get("suggested_scale")), folder),
        ids,
        images,
    )


def _classes(table: object, folder: Path) -> dict[int, str]:
    """Return the names of the class ids above 0 in a table like ``1 = "nuclei"``."""
    if not isinstance(table, dict):
        return {}
    try:
        return {int(k): str(v) for k, v in table.items() if int(k) > 0}
    except ValueError as error:
        raise DatasetError(BAD_CLASSES.format(folder=folder, reason=error)) from error


def _checked_scale(text: object, folder: Path) -> float | None:
    """Return the factor of a scale, which must be a positive number."""
    try:
        factor = _scale(text)
    except ZeroDivisionError:
        factor = 0.0
    if factor is not None and not 0 < factor < math.inf:
        raise DatasetError(BAD_SCALE.format(folder=folder, scale=text))
    return factor


def _scale(text: object) -> float | None:
    """Return the factor of ``0.5``, ``"reduce by 4"``, ``"enlarge by 2"``, ``"as is"``.

    The first number of a range or a choice counts.
    """
    if text is None:
        return None
    if isinstance(text, int | float):
        return float(text)
    words = str(text).lower()
    number = re.search(r"(reduce|enlarge) by (\d+(?:\.\d+)?)", words)
    if words.startswith("as is") or number is None:
        return 1.0
    factor = float(number.group(2))
    return factor if number.group(1) == "enlarge" else 1 / factor
