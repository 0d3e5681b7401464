"""The folder of a training's checkpoints, and whether a training goes on from there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..io.atomic import WriteError, atomic_path, remove_leftovers
from ..io.locks import lock_files
from ..io.model_store import make_folder

RUN, CHECKPOINT = "run.json", "checkpoint.pt"
EARLIER = "earlier-"
"""Begins the names of the checkpoints of a training that was not resumed."""

NOTHING_TO_RESUME = (
    "{folder}: holds no checkpoint, so the training starts from the beginning."
)
OTHER_TRAINING = (
    "{folder}: is of a training with other images, labels, settings or another "
    "version, so this one starts from the beginning; the other checkpoint stays there."
)
LEFTOVERS = (
    "{folder}: the files of an older training cannot be deleted ({error}): delete "
    "them, or choose another name."
)


def begin_training(
    folder: Path,
    identity: str,
    *,
    resume: bool,
    values: dict[str, Any] | None = None,
    keep: Sequence[str] = lock_files(),
) -> tuple[bool, tuple[str, ...]]:
    """Make the folder of a training ready.

    Parameters
    ----------
    folder : Path
        Made if it is not there; locked by the caller.
    identity : str
        Fingerprint of all that decides on the result.
    resume : bool
        Go on from the checkpoint, if it is of the same training.
    values : dict, optional
        Plain values that are stored beside the checkpoint.
    keep : sequence of str
        Files that stay where the training starts from the beginning.

    Returns
    -------
    resumed : bool
        Whether there is a checkpoint of the same training to go on from.
    notes : tuple of str
        Why not, where that was asked for.

    Raises
    ------
    WriteError
        If the folder cannot be made ready.
    """
    notes: tuple[str, ...] = ()
    old = sorted(folder.rglob(CHECKPOINT)) if folder.is_dir() else []
    try:
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        remove_leftovers(folder)
        if resume and old and _identity_of(folder) == identity:
            return True, ()
        if resume:
            text = OTHER_TRAINING if old else NOTHING_TO_RESUME
            notes = (text.format(folder=folder),)
            for path in old:
                name = "-".join(path.relative_to(folder).parts)
                os.replace(path, folder / f"{EARLIER}{name}")
        kept = {p.name for p in folder.glob(f"{EARLIER}*")} if resume else set()
        empty_folder(folder, but=(*keep, *kept))
    except OSError as error:
        reason = error.strerror or error
        raise WriteError(LEFTOVERS.format(folder=folder, error=reason)) from error
    with atomic_path(folder / RUN, overwrite=True) as temporary:
        text = json.dumps({**(values or {}), "fingerprint": identity}, indent=1)
        temporary.write_text(text + "\n", encoding="utf8")
    return False, notes


def _identity_of(folder: Path) -> str:
    """Return the fingerprint of the training in a folder; empty where it is damaged."""
    try:
        values = json.loads((folder / RUN).read_text(encoding="utf8"))
        return str(values["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def empty_folder(folder: Path, but: Sequence[str] = lock_files()) -> None:
    """Delete the content of a folder but for some files, or the folder as a whole."""
    for path in folder.iterdir():
        if path.name in but:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    if not but:
        folder.rmdir()
