"""Files that are whole or not there: a temporary beside the target, then a rename."""

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
"""Names of our temporary files: a dot, the process, a dash, the target's name."""

LEFTOVER_AFTER_S = 600.0

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


class WriteError(OSError):
    """A file could not be written; the message says why and what to do."""


@contextlib.contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Give a temporary path that becomes ``target`` when the block ends well.

    It keeps the target's suffixes, so that writers which look at them are served. When
    the block fails, nothing is left behind and an older target is untouched.

    Raises
    ------
    WriteError
        One line naming the target, for a full disk, a missing folder and the like.
    """
    target = Path(target)
    temporary = target.with_name(f".{os.getpid()}-{target.name}")
    try:
        yield temporary
        _to_disk(temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise as_write_error(error, target) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(target: str | Path) -> Iterator[Path]:
    """Give a temporary folder that replaces ``target`` when the block ends well."""
    target = Path(target)
    temporary = target.with_name(f".{os.getpid()}-{target.name}")
    old = target.with_name(f".{os.getpid()}-{target.name}.old")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for path in temporary.iterdir():
            if path.is_file():
                _to_disk(path)
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


def _to_disk(path: Path) -> None:
    """Wait until a file is on the disk, so that a power cut cannot empty it."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def remove_leftovers(folder: str | Path) -> None:
    """Delete temporary files of writers that were killed.

    Those that were changed within the last ten minutes may still be in use and stay.
    """
    oldest = time.time() - LEFTOVER_AFTER_S
    for path in Path(folder).glob(".*-*"):
        if TEMPORARY.match(path.name) and path.is_file():
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < oldest:
                    path.unlink()


def as_write_error(error: OSError, target: Path) -> OSError:
    """Return an error of the disk in one line that names the target."""
    if isinstance(error, WriteError):
        return error
    reason = REASONS.get(error.errno or 0, (error.strerror or str(error)))
    return WriteError(f"{target}: cannot be written, {reason}.")
