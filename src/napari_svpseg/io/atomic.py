"""Atomic writes: a temporary file or folder beside the target, then a rename.

The process that writes holds a lock on a file beside the temporary one. The system
releases it when the process ends, also on another machine, so that what a killed
process left is known from what is being written.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import time
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ..core.errors import WriteError as WriteError
from .ownership import check_replaceable

TEMPORARY = re.compile(r"(\.svpseg-[0-9a-f]{12}-)(.+)", re.DOTALL)
"""Names of temporary files: a prefix, then the name of the target."""

LOCK, OLD = ".lock", ".old"
"""Ends of the names of a temporary file's lock, and of a folder that is replaced."""

MAX_NAME, KEPT_NAME = 200, 40
"""Longest name in bytes that is part of a temporary one; of others the end is."""

LEFTOVER_AFTER_S = 24 * 3600.0
"""Age from which a temporary file without a lock is taken for one that was left."""

PRIVATE_FOLDER, PRIVATE_FILE = 0o700, 0o600
"""Permissions of what only its user may read."""

IS_FILE = "there is a file of this name: choose another name"
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


DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Error numbers of a write for which there is no room."""


@contextlib.contextmanager
def atomic_path(
    target: str | Path,
    overwrite: bool = False,
    *,
    known: Collection[str] = (),
    private: bool = False,
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
    private : bool
        Only this user may read it.

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
    try:
        with _claimed(target) as temporary:
            if private:
                os.close(os.open(temporary, os.O_CREAT | os.O_EXCL, PRIVATE_FILE))
            try:
                yield temporary
                # Before the rename: some file systems write the new name before the
                # content.
                _to_disk(temporary)
                if _stamp(target) != before:  # somebody wrote there in the meantime
                    _checked(target, overwrite, known)
                os.replace(temporary, target)
            finally:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)
    except OSError as error:
        raise as_write_error(error, target) from error


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
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _claimed(target) as temporary:
            old = Path(f"{temporary}{OLD}")
            try:
                temporary.mkdir()
                yield temporary
                for path in temporary.iterdir():
                    if path.is_file():
                        _to_disk(path)
                _checked(target, overwrite)  # it may have been changed in the meantime
                # A folder cannot be renamed over another one: the old one is moved
                # aside first, and moved back if the rename fails.
                if target.exists():
                    os.replace(target, old)
                os.replace(temporary, target)
            finally:
                if old.exists() and not target.exists():
                    os.replace(old, target)
                shutil.rmtree(temporary, ignore_errors=True)
                shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise as_write_error(error, target) from error


@contextlib.contextmanager
def _claimed(target: Path) -> Iterator[Path]:
    """Yield a new temporary path beside a target, locked by this process."""
    folder = target.parent
    if not folder.is_dir():  # a lock would make it
        number = errno.ENOTDIR if _is_below_file(folder) else errno.ENOENT
        raise OSError(number, os.strerror(number), str(folder))
    _clean_once(folder)
    # Beside the target: a rename is atomic only within one file system.
    name = target.name
    if len(os.fsencode(name)) > MAX_NAME:
        name = name[-KEPT_NAME:]
    temporary = folder / f".svpseg-{uuid.uuid4().hex[:12]}-{name}"
    lock = FileLock(f"{temporary}{LOCK}")
    with contextlib.suppress(Timeout, NotImplementedError):  # no locks on this system
        lock.acquire(blocking=False)
    try:
        yield temporary
    finally:
        lock.release()
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink(missing_ok=True)


def _is_below_file(path: Path) -> bool:
    """Return whether a part of a path is a file."""
    return any(p.exists() and not p.is_dir() for p in (path, *path.parents))


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


# ------------------------------------------------------------------ of killed processes

_cleaned: set[Path] = set()


def _clean_once(folder: Path) -> None:
    """Remove leftovers in a folder, the first time that this process writes there."""
    where = Path(os.path.abspath(folder))
    if where not in _cleaned:
        _cleaned.add(where)
        remove_leftovers(where)


def is_temporary(name: str) -> bool:
    """Return whether a file or folder of this name is one that is being written."""
    return TEMPORARY.fullmatch(name) is not None


def remove_leftovers(folder: str | Path) -> None:
    """Delete temporary files and folders of processes that were killed.

    What a living process writes, here or on another machine, is locked and stays. Where
    there are no locks, what was not changed for a day is deleted. A folder that was
    just being replaced is put back.
    """
    folder = Path(folder)
    found: dict[str, list[Path]] = {}
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if match := TEMPORARY.fullmatch(path.name):
                found.setdefault(match[1], []).append(path)
    for paths in found.values():
        with contextlib.suppress(OSError, NotImplementedError):  # others' files too
            _remove_leftover(paths)


def _remove_leftover(paths: list[Path]) -> None:
    """Delete the files of one write, unless they may be in use."""
    locks = [path for path in paths if path.name.endswith(LOCK)]
    if not locks:
        if all(time.time() - p.stat().st_mtime > LEFTOVER_AFTER_S for p in paths):
            _discard(paths)
        return
    try:
        with FileLock(locks[0], blocking=False):
            _discard([path for path in paths if path not in locks])
            locks[0].unlink(missing_ok=True)
    except Timeout:
        return


def _discard(paths: list[Path]) -> None:
    """Delete temporary files and folders, or put an old folder back if it is needed."""
    for path in paths:
        match = TEMPORARY.fullmatch(path.name)
        assert match is not None
        target = path.with_name(match[2].removesuffix(OLD))
        if path.name.endswith(OLD) and path.is_dir() and not target.exists():
            os.replace(path, target)
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


# ------------------------------------------------------------------------- permissions


def private_folder(folder: str | Path) -> Path:
    """Make a folder that only this user may look into, and return it.

    One that is there loses the permissions of others. Windows keeps a user's folders
    from others itself.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)
    if os.name == "posix" and folder.stat().st_mode & 0o077:
        with contextlib.suppress(PermissionError):  # somebody else's
            folder.chmod(PRIVATE_FOLDER)
    return folder


def private_opener(path: str, flags: int) -> int:
    """Open a file for `open` so that a new one can be read by this user only."""
    return os.open(path, flags, PRIVATE_FILE)


def as_write_error(error: OSError, target: Path) -> OSError:
    """Return an error of the file system as a `WriteError` that names the target."""
    if isinstance(error, WriteError):
        return error
    reason = REASONS.get(error.errno or 0, (error.strerror or str(error)))
    explained = WriteError(CANNOT_WRITE.format(target=target, reason=reason))
    explained.errno = error.errno
    return explained
