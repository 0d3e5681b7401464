"""Atomic writes: a temporary file or folder beside the target, then a rename."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from ..core.errors import WriteError as WriteError
from .ownership import check_replaceable

TEMPORARY = re.compile(r"\.\d+-.")
"""Names of temporary files: a dot, the process id, a dash, the name of the target."""

LEFTOVER_AFTER_S = 600.0
"""Age in seconds from which a temporary file belongs to a process that was killed."""

IS_FILE = "there is a file of this name: choose another name"
CANNOT_WRITE = "{target}: cannot be written, {reason}."
REASONS = {
    errno.ENOSPC: "the disk is full: free some space and save again",
    errno.EDQUOT: "the disk quota is used up: free some space and save again",
    errno.EACCES: "no permission to write there: choose another folder",
    errno.EPERM: "no permission to write there: choose another folder",
    errno.EFBIG: "it is larger than the disk allows: choose another folder",
    errno.EROFS: "the disk is read-only: choose another folder",
    errno.ENOENT: "the folder does not exist: create it or choose another",
    errno.ENOTDIR: "a part of the path is a file, not a folder: choose another folder",
}
"""Explanation of each error number, with what the user can do."""


@contextlib.contextmanager
def atomic_path(
    target: str | Path, overwrite: bool = False, *, known: Collection[str] = ()
) -> Iterator[Path]:
    """Yield a temporary path that replaces ``target`` if the block succeeds.

    If the block fails, the temporary file is deleted and an older target is untouched.
    The temporary name keeps the suffixes of the target, by which writers choose a
    format.

    Parameters
    ----------
    target : path
        File to be written; its folder must exist.
    overwrite, known : optional
        As in `check_replaceable`: without them, nothing is replaced but what a run of
        this program wrote, and what is the same since.

    Yields
    ------
    Path
        Where to write.

    Raises
    ------
    WriteError
        If it cannot be written, or would replace anything else; one line that names
        the target and the reason.
    """
    target = Path(target)
    before = _checked(target, overwrite, known)
    # Beside the target: a rename is atomic only within one file system.
    temporary = target.with_name(f".{os.getpid()}-{target.name}")
    try:
        yield temporary
        # Before the rename: some file systems write the new name before the content.
        _to_disk(temporary)
        if _stamp(target) != before:  # somebody wrote there in the meantime
            _checked(target, overwrite, known)
        os.replace(temporary, target)
    except OSError as error:
        raise as_write_error(error, target) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(target: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that replaces ``target`` if the block succeeds.

    If the block fails, the temporary folder is deleted and an older one is untouched.

    Parameters
    ----------
    target : path
        Folder to be written; missing parents are created.
    overwrite : bool
        As in `check_replaceable`.

    Yields
    ------
    Path
        The folder to write into.

    Raises
    ------
    WriteError
        If it cannot be written, or would replace anything else; one line that names
        the target and the reason.
    """
    target = Path(target)
    _checked(target, overwrite)
    if target.is_file():
        raise WriteError(CANNOT_WRITE.format(target=target, reason=IS_FILE))
    temporary = target.with_name(f".{os.getpid()}-{target.name}")
    old = target.with_name(f".{os.getpid()}-{target.name}.old")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for path in temporary.iterdir():
            if path.is_file():
                _to_disk(path)
        _checked(target, overwrite)  # it may have been changed in the meantime
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


def _checked(
    target: Path, overwrite: bool, known: Collection[str] = ()
) -> tuple[int, ...]:
    """Return the stamp of a target that may be replaced; raise for any other."""
    stamp = _stamp(target)
    check_replaceable(target, overwrite, known=known)
    return stamp


def _stamp(path: Path) -> tuple[int, ...]:
    """Return numbers that change when a file is written; empty without a file."""
    try:
        found = os.lstat(path)
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_size


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
        if TEMPORARY.match(path.name) and path.is_file():
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < oldest:
                    path.unlink()


def as_write_error(error: OSError, target: Path) -> OSError:
    """Return an error of the file system as a `WriteError` that names the target."""
    if isinstance(error, WriteError):
        return error
    reason = REASONS.get(error.errno or 0, (error.strerror or str(error)))
    return WriteError(CANNOT_WRITE.format(target=target, reason=reason))
