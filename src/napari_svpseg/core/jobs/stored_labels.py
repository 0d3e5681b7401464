"""Labels that lie on the disk: what a run tells of them while it fills them."""

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
    """Labels in a store, as they were begun or ended.

    Parameters
    ----------
    folder : str
        Of the OME-Zarr group of labels: its levels are 0, 1, ...
    levels : int
    objects : int
        -1 while they are made.
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
    """A part of the labels that can be seen now: index of the plane, and where."""

    plane: tuple[int, ...]
    window: Window


def work_folder(store: str | Path) -> Path:
    """Return where a run keeps what it needs to go on, until it is done."""
    return Path(store).with_name(f"{Path(store).name}.work")
