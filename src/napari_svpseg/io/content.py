"""The content of image files and folders, by which a run knows its images again."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ..core.fingerprint import SAMPLES, WHOLE_BYTES, Content, fingerprint
from .atomic import is_temporary
from .zarr_stores import is_zarr_folder

SAMPLE_BYTES = WHOLE_BYTES // SAMPLES
"""Bytes of each sample of large files."""

METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup")
"""Files of a Zarr image that are always hashed: they say what the others mean."""

CONSOLIDATED = ".zmetadata", "consolidated_metadata"
"""Copy of the metadata of all groups: in Zarr 2 a file, in 3 a key of ``zarr.json``.

It changes with the labels in an image.
"""

BESIDE = (".DS_Store", "Thumbs.db", "desktop.ini")
"""Files that file managers leave in the folders that they show."""

LABELS = "labels"
"""Folder of a Zarr image that holds results, and is no part of the image."""

WORK = ".work"
"""End of the name of the folder of a run over a large image, which may be beside it."""


def content_fingerprint(path: str | Path) -> str:
    """Return the fingerprint of a file, or of all files in a folder.

    Up to `WHOLE_BYTES` it is that of the content alone, so copies have the same. Of
    more, it is that of names, sizes and times of last change, of Zarr metadata, and of
    `SAMPLES` evenly spaced samples. Not noticed is a change there that keeps size and
    time and lies between the samples.

    Parameters
    ----------
    path : path
        An image file, a series of one, such as ``cells.lif/2``, a Zarr image (without
        its labels), or any folder. Links to folders are not followed.

    Raises
    ------
    OSError
        If something cannot be read.
    """
    path = Path(path)
    if not path.exists():  # a series is a path below its file
        for file in path.parents:
            if file.is_file():
                series = path.relative_to(file).as_posix()
                return fingerprint({"series": series, "file": _of_file(file)})
    if not path.is_dir():
        return _of_file(path)
    files = {p.relative_to(path).as_posix(): p for p in _files(path)}
    stats = {name: p.stat() for name, p in files.items()}
    if sum(s.st_size for s in stats.values()) <= WHOLE_BYTES:
        return fingerprint(*_contents(files))
    others = [name for name, p in files.items() if p.name not in METADATA]
    about = {name: (stats[name].st_size, stats[name].st_mtime_ns) for name in others}
    step = max(1, len(others) // SAMPLES)
    wanted = {*others[::step][:SAMPLES], *(set(files) - set(others))}
    read = {name: files[name] for name in sorted(wanted)}
    return fingerprint({"files": about}, *_contents(read, SAMPLE_BYTES))


def _of_file(path: Path) -> str:
    """Return the fingerprint of one file."""
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe may wait for ever
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))
    with path.open("rb") as file:
        facts = os.fstat(file.fileno())
        if facts.st_size <= WHOLE_BYTES:
            return fingerprint(file.read())
        samples: list[Content] = []
        for n in range(SAMPLES):  # the first and the last byte among them
            file.seek(n * (facts.st_size - SAMPLE_BYTES) // (SAMPLES - 1))
            samples.append(file.read(SAMPLE_BYTES))
    return fingerprint({"size": facts.st_size, "changed": facts.st_mtime_ns}, *samples)


def _files(folder: Path) -> Iterator[Path]:
    """Yield all files in a folder in a fixed order, but for results and leftovers."""
    beside = {*BESIDE, CONSOLIDATED[0]}
    for root, folders, names in os.walk(folder, onerror=_raise):
        here = Path(root)
        folders[:] = sorted(n for n in folders if not _is_result(here, n))
        kept = (n for n in sorted(names) if n not in beside and not is_temporary(n))
        yield from (here / n for n in kept)


def _is_result(folder: Path, name: str) -> bool:
    """Return whether a folder is one of results, or of a run that makes some."""
    if name == LABELS:
        return is_zarr_folder(folder)
    return name.endswith(WORK) or is_temporary(name)


def _raise(error: OSError) -> None:
    raise error


def _contents(files: dict[str, Path], at_most: int = -1) -> Iterator[Content]:
    """Yield name and size of each file, then what it holds, as far as wanted."""
    for name, path in files.items():
        with path.open("rb") as file:
            is_metadata = path.name in METADATA
            data = file.read() if is_metadata else file.read(at_most)
        if path.name == METADATA[0]:
            data = _without_consolidated(data)
        yield {"name": name, "bytes": len(data)}
        yield data


def _without_consolidated(data: bytes) -> bytes:
    """Return the content of a ``zarr.json`` without the metadata of other groups."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):  # damaged: it is as it is
        return data
    if isinstance(values, dict):
        values.pop(CONSOLIDATED[1], None)
    return json.dumps(values, sort_keys=True).encode()
