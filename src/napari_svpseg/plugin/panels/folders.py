"""The folder that a file dialog opens in: beside the image, else the last one used."""

from __future__ import annotations

import os
from pathlib import Path

_last: list[str] = []


def folder_for(source: str = "") -> str:
    """Return the folder of a file that something belongs to, else the last used one.

    Parameters
    ----------
    source : str
        Path of an image; may be empty, or no longer there. Of an OME-Zarr, which is a
        folder, it is the folder around it.

    Returns
    -------
    str
        Empty where nothing is known: Qt then takes the working folder.
    """
    folder = Path(source).parent
    if source and folder.is_dir() and os.access(folder, os.W_OK):
        return str(folder)
    return _last[0] if _last and Path(_last[0]).is_dir() else ""


def proposed(name: str, source: str = "") -> str:
    """Return the path that a dialog proposes for a file of this name."""
    return str(Path(folder_for(source), name))


def note_used(path: str) -> None:
    """Note the folder that the user has chosen a file in."""
    if path:
        _last[:] = [str(Path(path).parent)]
