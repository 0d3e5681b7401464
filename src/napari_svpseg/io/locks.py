"""The lock of a folder that one run at a time may write into."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..core.errors import WriteError

LOCK = "lock"
"""Lock file in a folder that only this program uses."""

RESULTS_LOCK = ".svpseg.lock"
"""Lock file in a folder of results, which belongs to the user."""

HOLDER_END = ".json"
"""End of the file beside a lock that says who holds it."""

IN_USE = (
    "{folder}: {holder} writes there now: wait until it ends, stop it, or choose "
    "another place."
)
PROCESS = "process {pid} on {host}, since {since},"
UNKNOWN = "another process"
CANNOT_LOCK = "{folder}: cannot be written ({reason}): choose another folder."

_held: set[str] = set()
"""Locks of this process: on some network disks a process does not lock out itself."""

_held_guard = threading.Lock()


class InUseError(WriteError):
    """Another run writes into a folder; the message says which, and what to do."""


@contextlib.contextmanager
def claimed(folder: str | Path, name: str = LOCK) -> Iterator[Path]:
    """Lock a folder against all other runs, and yield it.

    The system holds the lock for this process: however it ends, the lock is gone. A
    lock file that a killed process left behind locks nobody out.

    Parameters
    ----------
    folder : path
        Made if it is not there.
    name : str
        Name of the lock file: `LOCK` or `RESULTS_LOCK`.

    Raises
    ------
    InUseError
        If another run holds the lock, in this process or another.
    WriteError
        If the folder cannot be made or written.
    """
    folder = Path(folder)
    path = folder / name
    key = os.path.realpath(path)
    with _held_guard:
        if key in _held:
            raise InUseError(IN_USE.format(folder=folder, holder=_holder(path)))
        _held.add(key)
    is_new = not folder.exists()
    try:
        lock = _acquire(folder, path)
        try:
            with contextlib.suppress(OSError):
                _holder_file(path).write_text(json.dumps(_myself()), encoding="utf-8")
            yield folder
        finally:
            # While it is locked: a process that waits for the file sees that it is
            # gone and makes a new one. Windows deletes only what nobody has open.
            for file in (_holder_file(path), path):
                with contextlib.suppress(OSError):
                    file.unlink(missing_ok=True)
            lock.release()
            with contextlib.suppress(OSError):
                if os.name == "nt":
                    path.unlink(missing_ok=True)
                if is_new:
                    folder.rmdir()  # if nothing was written into it
    finally:
        with _held_guard:
            _held.discard(key)


@contextlib.contextmanager
def claimed_model(output: str | Path) -> Iterator[Path]:
    """Lock a model folder that is trained, and yield the hidden folder of its run.

    Raises
    ------
    InUseError, WriteError
        As in `claimed`.
    """
    folder = run_folder(output)
    try:
        with claimed(folder):
            yield folder
    finally:
        with contextlib.suppress(OSError):  # it is empty at the end of a training
            folder.rmdir()


def run_folder(output: str | Path) -> Path:
    """Return where checkpoints of the model ``output`` lie while it is trained."""
    output = Path(output)
    return output.with_name(f".{output.name}.run")


def _acquire(folder: Path, path: Path) -> FileLock:
    """Return the lock of a folder, acquired."""
    lock = FileLock(path, thread_local=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout as error:
        message = IN_USE.format(folder=folder, holder=_holder(path))
        raise InUseError(message) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise WriteError(CANNOT_LOCK.format(folder=folder, reason=reason)) from error
    return lock


def is_claimed(folder: str | Path, name: str = LOCK) -> bool:
    """Return whether some run holds the lock of a folder now."""
    path = Path(folder) / name
    if os.path.realpath(path) in _held:
        return True
    if not path.is_file():
        return False
    try:
        with FileLock(path, blocking=False, thread_local=False):
            return False
    except Timeout:
        return True
    except OSError:
        return False


def lock_files(name: str = LOCK) -> tuple[str, str]:
    """Return the names of the files that a lock consists of."""
    return name, f"{name}{HOLDER_END}"


def _holder_file(path: Path) -> Path:
    return path.with_name(f"{path.name}{HOLDER_END}")


def _myself() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _holder(path: Path) -> str:
    """Return which process holds a lock, as far as its file tells."""
    try:
        return PROCESS.format(**json.loads(_holder_file(path).read_text("utf-8")))
    except (OSError, ValueError, LookupError, TypeError):
        return UNKNOWN
