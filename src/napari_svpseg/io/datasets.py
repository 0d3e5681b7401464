"""Data sets with ground truth: images, labels, ignored pixels and a description."""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .images import read_image


class DatasetError(ValueError):
    """A folder that is not of the data form; the message names it."""


@dataclass(frozen=True)
class Dataset:
    """One folder of images and labels, read when asked for.

    Parameters
    ----------
    folder : Path
    name : str
    kind : str
        ``"instance"`` (labels are object ids) or ``"semantic"`` (labels are class ids).
    classes : dict of int to str
        Class ids above 0 of a semantic set.
    scale : float or None
        Factor that brings objects into a 64 x 64 prompt (0.25 = reduce by 4).
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
        """Return the image, ``(Y, X)`` or ``(Y, X, C)``."""
        return np.asarray(read_image(self._images[name]).array)

    def labels(self, name: str) -> np.ndarray:
        """Return the labels, ``(Y, X)`` int."""
        return np.asarray(read_image(self.folder / "labels" / f"{name}.tif").array)

    def ignore(self, name: str) -> np.ndarray | None:
        """Return the mask of pixels that are not scored, or None."""
        path = self.folder / "ignore" / f"{name}.tif"
        return np.asarray(read_image(path).array) if path.exists() else None


def read_dataset(folder: str | Path) -> Dataset:
    """Return the data set in a folder.

    Raises
    ------
    DatasetError
        If there is no ``dataset.toml``, or no image with labels.
    """
    folder = Path(folder)
    try:
        text = (folder / "dataset.toml").read_text(encoding="utf8")
        values = tomllib.loads(text)
    except OSError as error:
        raise DatasetError(
            f"{folder}: no readable dataset.toml: give a folder with images/, labels/ "
            "and dataset.toml."
        ) from error
    except ValueError as error:
        raise DatasetError(f"{folder / 'dataset.toml'}: not TOML ({error}).") from error
    kind = values.get("kind", "instance")
    if kind not in ("instance", "semantic"):
        raise DatasetError(
            f"{folder}: kind must be instance or semantic, got {kind!r}."
        )
    images = {p.stem: p for p in sorted((folder / "images").glob("*.*"))}
    labelled = {p.stem for p in (folder / "labels").glob("*.tif")}
    ids = tuple(sorted(labelled & set(images)))
    if not ids:
        raise DatasetError(
            f"{folder}: no image in images/ has labels/ of the same name."
        )
    named = _classes(values.get("classes"), folder)
    if kind == "semantic" and not named:
        raise DatasetError(f"{folder}: a semantic set needs [classes] in dataset.toml.")
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
    """Return the names of class ids above 0, of a table such as ``1 = "nuclei"``."""
    if not isinstance(table, dict):
        return {}
    try:
        return {int(k): str(v) for k, v in table.items() if int(k) > 0}
    except ValueError as error:
        raise DatasetError(
            f"{folder}: [classes] in dataset.toml must name class ids ({error})."
        ) from error


def _checked_scale(text: object, folder: Path) -> float | None:
    try:
        factor = _scale(text)
    except ZeroDivisionError:
        factor = 0.0
    if factor is not None and not 0 < factor < math.inf:
        raise DatasetError(
            f"{folder}: scale in dataset.toml must be above 0, got {text!r}."
        )
    return factor


def _scale(text: object) -> float | None:
    """Return the factor of ``0.5``, ``"reduce by 4"``, ``"enlarge by 2"``, ``"as is"``.

    Where a range or a choice is given, the first number counts.
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
