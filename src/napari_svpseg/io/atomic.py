"""Atomic writes: a temporary file or folder beside the target, then a rename."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

TEMPORARY = re.compile(r"\.\d+-.")
"""Names of temporary files: a dot, the process id, a dash, the name of the target."""

LEFTOVER_AFTER_S = 600.0
"""Age in seconds from which a temporary file belongs to a process that was killed."""

MAX_NAME_BYTES = 250
"""Length of a temporary name; file systems allow 255 bytes."""

CANNOT_WRITE = "{target}: cannot be written, {reason}."
REASONS = {
    errno.ENOSPC: "the disk is full: free some space and save again",
    errno.EDQUOT: "the disk quota is used up: free some space and save again",
    errno.EACCES: "no permission to write there: choose another folder",
    errno.EPERM: "no permission to write there: choose another folder",
    errno.ENAMETOOLONG: "its name is too long: shorten it, or the name pattern",
    errno.EFBIG: "it is larger than the disk allows: choose another folder",
    errno.EROFS: "the disk is read-only: choose another folder",
    errno.ENOENT: "the folder does not exist: create it or choose another",
    errno.ENOTDIR: "a part of the path is a file, not a folder: choose another folder",
}
"""Explanation of each error number, with what the user can do."""


class WriteError(OSError):
    """A file that could not be written; the message says why and what to do."""


@contextlib.contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Yield a temporary path that replaces ``target`` if the block succeeds.

    If the block fails, the temporary file is deleted and an older target is untouched.
    The temporary name keeps the suffixes of the target, by which writers choose a
    format.

    Parameters
    ----------
    target : path
        File to be written; its folder must exist.

    Yields
    ------
    Path
        Where to write.

    Raises
    ------
    WriteError
        If it cannot be written; one line that names the target and the reason.
    """
    target = Path(target)
    temporary = _beside(target)
    try:
        yield temporary
        # Before the rename: some file systems write the new name before the content.
        _to_disk(temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise as_write_error(error, target) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(target: str | Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces ``target`` if the block succeeds.

    If the block fails, the temporary folder is deleted and an older one is untouched.

    Parameters
    ----------
    target : path
        Folder to be written; missing parents are created.

    Yields
    ------
    Path
        The folder to write into.

    Raises
    ------
    WriteError
        If it cannot be written; one line that names the target and the reason.
    """
    target = Path(target)
    temporary = _beside(target)
    old = temporary.with_name(f"{temporary.name}.old")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for path in temporary.iterdir():
            if path.is_file():
                _to_disk(path)
        # A folder cannot be renamed over another one: the old one is moved aside first,
        # and moved back if the rename fails.
        if target.exists():
            os.replace(target, old)
        os.replace(temporary, target)
    except OSError as error:
        if old.exists() and not target.exists():
            os.replace(old, target)
        raise as_write_error(error, target) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _beside(target: Path) -> Path:
    """Return a temporary path beside the target.

    A rename is atomic only within one file system. Of a long name the end is kept, as
    the suffixes count.
    """
    start = f".{os.getpid()}-"
    over = len(os.fsencode(f"{start}{target.name}")) - MAX_NAME_BYTES
    return target.with_name(start + target.name[max(0, over) :])


def _to_disk(path: Path) -> None:
    """Wait until a file is on the disk, so that a power cut leaves no empty file."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def remove_leftovers(folder: str | Path) -> None:
    """Delete temporary files of processes that were killed.

    Files that were changed within the last ten minutes may be in use and stay.
    """
    oldest = time.time() - LEFTOVER_AFTER_S
    for path in Path(folder).glob(".*-*"):
        if TEMPORARY.match(path.name) and os.path.isfile(path):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < oldest:
                    path.unlink()


def as_write_error(error: OSError, target: Path) -> OSError:
    """Return an error of the file system as a `WriteError` that names the target."""
    if isinstance(error, WriteError):
        return error
    reason = REASONS.get(error.errno or 0, (error.strerror or str(error)))
    return WriteError(CANNOT_WRITE.format(target=target, reason=reason))
