"""Labels stored on the disk, and the reports of a run that fills them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..labels.blocks import Window

NAME = "cells"
"""Of the labels in a store."""

DONE, FILLING = "done", "filling"
"""States of labels in a store."""


@dataclass(frozen=True)
class StoredLabels:
    """Labels in a store, complete or still being filled.

    Parameters
    ----------
    folder : str
        Of the OME-Zarr group of labels: its levels are 0, 1, ...
    levels : int
    objects : int
        -1 while they are being filled.
    seconds : float
    recipe : dict
    notes : tuple of str
    """

    folder: str
    levels: int
    objects: int = -1
    seconds: float = 0.0
    recipe: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Filled:
    """A part of the labels that is written: index of the plane, and window."""

    plane: tuple[int, ...]
    window: Window


def work_folder(store: str | Path) -> Path:
    """Return the folder of a run's intermediate files, which resuming needs."""
    return Path(store).with_name(f"{Path(store).name}.work")
