"""Training tasks packed into one compressed ``.npz`` file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .atomic import atomic_path
from .ownership import seal_zip

if TYPE_CHECKING:
    from ..engine.training.episodes import PackedTasks


def save_tasks(
    path: str | Path, packed: PackedTasks, made_of: str = "", *, overwrite: bool = False
) -> None:
    """Write tasks to an ``.npz`` file; missing folders are created.

    Parameters
    ----------
    path : path
    packed : PackedTasks
    made_of : str
        Fingerprint of what the tasks were made from, see `tasks_made_of`.
    overwrite : bool
        Allow to replace a file that this program did not write.

    Raises
    ------
    WriteError
        If the file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # As bytes: a text array would need allow_pickle, which runs code of the file.
    index = np.frombuffer(json.dumps(packed.index).encode(), np.uint8)
    arrays: dict[str, Any] = {k: _small(v) for k, v in packed.arrays.items()}
    with atomic_path(path, overwrite) as temporary:
        source = np.frombuffer(made_of.encode(), np.uint8)
        with open(temporary, "wb") as file:
            np.savez_compressed(file, index=index, made_of=source, **arrays)
        seal_zip(temporary)


def tasks_made_of(path: str | Path) -> str:
    """Return the fingerprint that `save_tasks` wrote; empty without one."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return bytes(file["made_of"]).decode()
    except Exception:  # noqa: BLE001  (a damaged file makes its reader raise anything)
        return ""


def load_tasks(path: str | Path) -> PackedTasks:
    """Return the tasks in a file written by `save_tasks`.

    Raises
    ------
    ValueError
        If the file holds no tasks; the message names it.
    """
    from ..engine.training.episodes import PackedTasks

    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {k: file[k] for k in file.files}
        index = json.loads(arrays.pop("index").tobytes())
        arrays.pop("made_of", None)
    except Exception as error:
        raise ValueError(
            f"{path}: not a file of packed training tasks ({type(error).__name__})."
        ) from error
    # Undo `_small`: networks take three channels.
    arrays = {
        k: np.ascontiguousarray(np.broadcast_to(v, (*v.shape[:2], 3)))
        if v.ndim == 3
        else v
        for k, v in arrays.items()
    }
    return PackedTasks(arrays, index)


def _small(array: np.ndarray) -> np.ndarray:
    """Return grey images with one of their equal channels, and small ids as bytes."""
    if array.ndim == 3 and (array == array[..., :1]).all():
        return array[..., :1]
    if array.ndim == 2 and array.max(initial=0) < 256:
        return array.astype(np.uint8)
    return array
