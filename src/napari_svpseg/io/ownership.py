"""What this program wrote: only that is ever replaced.

What a run writes carries a seal, the hash of its own content: in the annotations of an
OME-TIFF, the attributes of labels in a Zarr, the comment of a zip, the last entry of a
JSON file, and ``model.json`` for a model folder. Formats without room for one (PNG,
CSV, Markdown) are known by their hash in the ``run.json`` or ``summary.json`` beside
them. A seal that does not fit any more tells that somebody changed the file since.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import WriteError
from ..core.fingerprint import fingerprint

PROGRAM = "napari-svpseg"
SEAL = "svpseg_sha256"
"""Name of the entry of a JSON file that holds the hash of all before it."""

LABELS_SEAL = "labels_sha256"
"""Key of the hash of the pixels, in the annotations of an OME-TIFF."""

LEDGERS = ("run.json", "summary.json")
"""Files with the hashes of files beside them, under `WRITTEN`."""

WRITTEN = "written"

MODEL_CARD = "model.json"
MODEL_FILES = (
    MODEL_CARD, "weights.safetensors", "README.md", "history.csv", "prompts.svprompt"
)  # fmt: skip
"""Files of a model folder."""

IN_WORK = re.compile(r"\.(\d+-|svpseg)")
"""Starts of the names of temporary files, see `io.atomic`, and of locks."""

OF_THE_SYSTEM = {".DS_Store", "Thumbs.db", "desktop.ini"}
"""Files that file managers leave in folders."""

ZARR_METADATA = ("zarr.json", ".zgroup", ".zarray", ".zattrs", ".zmetadata")

FOREIGN = (
    "{path}: is there already, and is no result of a run that may be replaced: choose "
    "another place, or allow to replace it (--overwrite, in Python overwrite=True)."
)
CHANGED = (
    "{path}: was changed after this program wrote it, and is kept: choose another "
    "place, or allow to replace it (--overwrite, in Python overwrite=True)."
)
OTHER_CONTENT = (
    "{folder}: holds '{name}', which this program did not write and which would be "
    "lost: choose a new folder."
)
IS_INPUT = (
    "{target}: is read by this run, as {path}, and would be replaced: choose another "
    "folder or other names."
)

JSON_SEAL = re.compile(rb',\s*"' + SEAL.encode() + rb'": "([0-9a-f]{64})"\s*\}\s*\Z')
ZIP_SEAL = re.compile(PROGRAM.encode() + rb" ([0-9a-f]{64})")
TIFF_SEAL = re.compile(rf'K="{LABELS_SEAL}">([0-9a-f]{{64}})<')
TAIL = 512
"""Bytes at the end of a JSON file in which its seal is."""

CHUNK_BYTES = 1 << 20


class Origin(Enum):
    """Where a file or folder comes from."""

    OURS = "written by this program, and unchanged"
    CHANGED = "written by this program, and changed since"
    FOREIGN = "not written by this program"


class ReplaceError(WriteError):
    """A target that would be lost if it were replaced; the message names it."""


class ForeignTargetError(ReplaceError):
    """A target that this program did not write."""


class ChangedTargetError(ReplaceError):
    """A target that somebody changed after this program wrote it."""


# ---------------------------------------------------------------------- the guard
def check_replaceable(
    path: str | Path, overwrite: bool = False, *, known: Collection[str] = ()
) -> None:
    """Raise `ReplaceError` if writing to a place would lose what is there.

    `io.atomic` asks this for all that is written; long runs ask before they start, too.

    Parameters
    ----------
    path : path
        File or folder to be written.
    overwrite : bool
        The user allows to replace what is there. A folder that is neither a model nor
        a Zarr is never replaced.
    known : collection of str
        Hashes by which a file is known as written by this program.
    """
    path = Path(path)
    if not os.path.lexists(path):
        return
    if path.is_dir() and not path.is_symlink():
        inside = names_in(path)
        if not inside:
            return
        _check_kind_of_folder(path, inside)
    if overwrite:
        return
    found = origin(path, known)
    if found is Origin.FOREIGN:
        raise ForeignTargetError(FOREIGN.format(path=path))
    if found is Origin.CHANGED:
        raise ChangedTargetError(CHANGED.format(path=path))


def _check_kind_of_folder(path: Path, inside: list[str]) -> None:
    """Raise for a folder of anything but a model or a Zarr."""
    if any(name in ZARR_METADATA for name in inside):
        return
    other = [n for n in inside if n not in MODEL_FILES or (path / n).is_dir()]
    if MODEL_CARD not in inside:  # a lone README.md is no model
        other = other or inside
    if other:
        raise ForeignTargetError(OTHER_CONTENT.format(folder=path, name=other[0]))


def check_no_inputs(
    targets: Iterable[str | Path], inputs: Iterable[str | Path]
) -> None:
    """Raise `ReplaceError` if a target is a file that the run reads, or holds one.

    Files are compared as the system does: through links, and in any letter case where
    the disk makes no difference.
    """
    read: dict[tuple[int, int], Path] = {}
    seen: set[Path] = set()
    for path in map(Path, inputs):
        for place in (path.absolute(), Path(os.path.realpath(path))):
            while place not in seen:
                seen.add(place)
                found = _identity(place)
                if found is not None:
                    read.setdefault(found, path)
                place = place.parent
    for target in map(Path, targets):
        found = _identity(target)
        if found in read:
            message = IS_INPUT.format(target=target, path=read[found])
            raise ForeignTargetError(message)


def check_work_folder(folder: str | Path, parts: Collection[str]) -> None:
    """Raise `ForeignTargetError` if a folder is not one of a run's own work.

    Runs ask this before they empty it.

    Parameters
    ----------
    folder : path
    parts : collection of str
        Names of what runs make in it.
    """
    folder = Path(folder)
    strange = [n for n in names_in(folder) if n not in parts] if folder.exists() else []
    if strange:
        raise ForeignTargetError(OTHER_CONTENT.format(folder=folder, name=strange[0]))


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what the system knows a file by; None if there is no such file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


# ---------------------------------------------------------------------- where from
def origin(path: str | Path, known: Collection[str] = ()) -> Origin:
    """Return where an existing file or folder comes from; see `check_replaceable`."""
    path = Path(path)
    if path.is_symlink():  # never made by this program
        return Origin.FOREIGN
    if path.is_dir():
        is_model = (path / MODEL_CARD).is_file()
        return _model_origin(path) if is_model else _zarr_origin(path)
    if not path.is_file():
        return Origin.FOREIGN
    try:
        found = _sealed_origin(path)
        recorded = set() if found is Origin.OURS else {*known, *_recorded(path)}
        if recorded and file_hash(path) in recorded:
            return Origin.OURS
        is_changed = bool(recorded) and found is Origin.FOREIGN
        return Origin.CHANGED if is_changed else found
    except OSError:  # unreadable for us: nothing is known of it
        return Origin.FOREIGN


def _sealed_origin(path: Path) -> Origin:
    """Return where a file comes from, by the seal in it."""
    with path.open("rb") as file:
        start = file.read(4)
    if start[:2] in (b"II", b"MM"):
        return _tiff_origin(path)
    if start[:2] == b"PK":
        return _zip_origin(path)
    if start[:1] == b"{":
        return _json_origin(path)
    return Origin.FOREIGN


def _tiff_origin(path: Path) -> Origin:
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            seal = TIFF_SEAL.search(file.ome_metadata or "")
            if seal is None:
                return Origin.FOREIGN
            fits = labels_hash(file.asarray()) == seal[1]
    except Exception:  # noqa: BLE001 - a damaged file can fail in any way
        return Origin.FOREIGN
    return Origin.OURS if fits else Origin.CHANGED


def _zip_origin(path: Path) -> Origin:
    try:
        with zipfile.ZipFile(path) as archive:
            seal = ZIP_SEAL.fullmatch(archive.comment)
            fits = seal is not None and seal[1].decode() == members_hash(archive)
    except zipfile.BadZipFile:
        return Origin.FOREIGN
    if seal is None:
        return Origin.FOREIGN
    return Origin.OURS if fits else Origin.CHANGED


def _json_origin(path: Path) -> Origin:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = max(0, size - TAIL)
        file.seek(start)
        seal = JSON_SEAL.search(file.read())
    if seal is None:
        return Origin.FOREIGN
    fits = file_hash(path, start + seal.start()) == seal[1].decode()
    return Origin.OURS if fits else Origin.CHANGED


def _model_origin(folder: Path) -> Origin:
    """Return where a model folder comes from: its card has the hashes of the others."""
    card = folder / MODEL_CARD
    found = _json_origin(card)
    if found is not Origin.OURS:
        return found
    hashes = read_json(card).get("files")
    names = [name for name in names_in(folder) if name != MODEL_CARD]
    if not isinstance(hashes, dict) or not set(names) <= set(hashes):
        return Origin.CHANGED
    fits = all(file_hash(folder / name) == hashes[name] for name in names)
    return Origin.OURS if fits else Origin.CHANGED


def _zarr_origin(folder: Path) -> Origin:
    """Return where labels in a Zarr come from, or a store of nothing but labels."""
    attributes = zarr_attributes(folder)
    names = set(names_in(folder))
    inside = {"labels"} & names
    found = set()
    if "svpseg" in attributes:
        found.add(_labels_origin(folder, attributes["svpseg"], inside))
    elif not names <= {*ZARR_METADATA, "labels"} or not inside:
        return Origin.FOREIGN
    groups = set(names_in(folder / "labels") if inside else ()) - {*ZARR_METADATA}
    found |= {
        _labels_origin(folder / "labels" / name, values)
        for name in groups
        for values in [zarr_attributes(folder / "labels" / name).get("svpseg")]
    }
    for worst in (Origin.FOREIGN, Origin.CHANGED):
        if worst in found:
            return worst
    return Origin.OURS if found else Origin.FOREIGN


def _labels_origin(folder: Path, ours: Any, beside: Collection[str] = ()) -> Origin:
    """Return where a pyramid comes from; ``beside`` are other names in its folder."""
    if not isinstance(ours, Mapping):
        return Origin.FOREIGN
    names = set(names_in(folder)) - {*ZARR_METADATA, *beside}
    if not all(name.isdecimal() for name in names):
        return Origin.CHANGED
    if ours.get("edited"):
        return Origin.CHANGED
    if ours.get("state") == "filling":
        return Origin.OURS  # of a run that did not end
    fits = ours.get("sha256") == chunks_hash(folder)
    return Origin.OURS if fits else Origin.CHANGED


# ---------------------------------------------------------------------- the seals
def labels_hash(labels: np.ndarray) -> str:
    """Return the hash of labels in an OME-TIFF."""
    return fingerprint(labels)


def chunks_hash(folder: str | Path) -> str:
    """Return the hash of the full-size labels in a Zarr, as they are on the disk."""
    level = Path(folder) / "0"
    digest = hashlib.sha256()
    for path in sorted(p for p in level.rglob("*") if p.is_file()):
        if path.name not in OF_THE_SYSTEM:
            digest.update(path.relative_to(level).as_posix().encode())
            digest.update(bytes.fromhex(file_hash(path)))
    return digest.hexdigest()


def members_hash(archive: zipfile.ZipFile) -> str:
    """Return the hash of the content of a zip; times and packing do not count."""
    lines = sorted(f"{m.filename} {m.file_size} {m.CRC}" for m in archive.infolist())
    return fingerprint("\n".join(lines))


def seal_zip(path: str | Path) -> None:
    """Seal a zip that is complete; npz files are zips, too."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = f"{PROGRAM} {members_hash(archive)}".encode()


def seal_json(path: str | Path) -> None:
    """Seal a file that holds one JSON object, which is complete."""
    path = Path(path)
    with path.open("rb+") as file:
        start = max(0, path.stat().st_size - TAIL)
        file.seek(start)
        body = file.read().rstrip()
        if not body.endswith(b"}"):
            raise ValueError(f"{path}: holds no JSON object")
        file.truncate(start + len(body[:-1].rstrip()))
    seal = f',\n "{SEAL}": "{file_hash(path)}"\n}}\n'
    with path.open("ab") as file:
        file.write(seal.encode())


def sealed_json(path: str | Path, values: Mapping[str, Any]) -> None:
    """Write values as a sealed JSON file, not atomically; there must be some."""
    Path(path).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    seal_json(path)


def file_hash(path: str | Path, length: int | None = None) -> str:
    """Return the SHA-256 of a file, or of its first bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for part in _parts(file, length):
            digest.update(part)
    return digest.hexdigest()


def _parts(file: Any, length: int | None) -> Iterator[bytes]:
    left = length
    while part := file.read(CHUNK_BYTES if left is None else min(left, CHUNK_BYTES)):
        yield part
        left = None if left is None else left - len(part)


# ---------------------------------------------------------------------- reading
def read_json(path: str | Path) -> dict[str, Any]:
    """Return the values of a JSON file; empty if it holds no object."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def written_files(folder: str | Path) -> dict[str, str]:
    """Return the hashes that a folder's own record has of files in it, by name."""
    found: dict[str, str] = {}
    for name in LEDGERS:
        path = Path(folder) / name
        with suppress(OSError):
            found |= _hashes_in(path)
    return found


_last_read: dict[str, tuple[Any, dict[str, str]]] = {}
"""The record that was read last: each file of a large folder asks for it."""


def _hashes_in(path: Path) -> dict[str, str]:
    found = path.stat()
    stamp = found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
    kept = _last_read.get(path.name)
    if kept is None or kept[0] != stamp:
        values = read_json(path).get(WRITTEN)
        kept = stamp, values if isinstance(values, dict) else {}
        _last_read[path.name] = kept
    return kept[1]


def _recorded(path: Path) -> list[str]:
    found = written_files(path.parent).get(path.name)
    return [] if found is None else [str(found)]


def zarr_attributes(folder: Path) -> dict[str, Any]:
    """Return the attributes of a Zarr group or array; empty if there are none."""
    if (folder / "zarr.json").is_file():
        values = read_json(folder / "zarr.json").get("attributes")
        return values if isinstance(values, dict) else {}
    return read_json(folder / ".zattrs")


def names_in(folder: Path) -> list[str]:
    """Return the names in a folder, but for temporary files and the system's."""
    try:
        names = sorted(os.listdir(folder))
    except NotADirectoryError:
        return []
    return [n for n in names if n not in OF_THE_SYSTEM and not IN_WORK.match(n)]
