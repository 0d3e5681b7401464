"""Sessions: the state of a viewer, saved while it changes and restored after a crash.

A session is a folder with ``session.json`` (layers, settings), ``prompts.svprompt``
(and ``prompts-3.svprompt`` for prompts of another number of channels) and a log for
each Labels layer, to which blocks of 256 x 256 pixels are appended when they change.
The process that writes a session holds a lock on it, which the system releases when the
process ends, even in a crash: an unlocked session is one to restore.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock

from ..core.prompt import Prompt, PromptSet
from .atomic import (
    PRIVATE_FILE,
    WriteError,
    atomic_path,
    private_folder,
    private_opener,
)
from .prompt_files import PromptFileError, load_prompts, save_prompts

logger = logging.getLogger(__name__)

VERSION = 1
STATE, PROMPTS, LOCK = "session.json", "prompts.svprompt", "lock"
FURTHER_PROMPTS, ALL_PROMPTS = "prompts-{n}.svprompt", "prompts*.svprompt"
DAMAGED = "damaged-"
"""Prefix of the folders of sessions that cannot be read."""

BLOCK = 256
"""Side of the blocks in which labels are saved, in pixels."""

COMPACT_AT = 8_000_000
"""Bytes from which a log that mostly holds outdated blocks is written anew."""

MAX_PIXELS = 2_000_000_000
MAX_HEADER = 10_000
MAX_RECORD = 16 * BLOCK**2
"""Limits for damaged logs: pixels of a layer, bytes of a line, bytes of a block."""

CANNOT_SAVE = "{path}: the session cannot be saved ({reason})."
LABELS_LOST = "{path}: damaged, its labels are lost ({reason})."
LATER_LABELS_LOST = "{path}: damaged, labels that were saved later are lost ({reason})."
SESSION_DAMAGED = "{path}: the last session is damaged."
BLOCK_DAMAGED = "a block in it is damaged"
OTHER_VERSION = "{path}: the last session is of another version."
KEPT_IN = "{problem} It is kept in {folder}."

Start = tuple[int, ...]

_ODD_CONTENT = (LookupError, TypeError, ArithmeticError, RecursionError)
"""Errors, besides ValueError, that values of an unexpected kind can raise."""


class SessionError(ValueError):
    """A session that cannot be restored; the message names it and says why."""


def sessions_folder() -> Path:
    """Return the folder of the sessions, beside that of the user's models."""
    from .model_store import user_folder

    return user_folder().parent / "sessions"


# ---------------------------------------------------------------- writing


def block_starts(
    shape: Sequence[int], region: Sequence[slice] | None = None
) -> Iterator[Start]:
    """Yield the start of each block that a region touches.

    Parameters
    ----------
    shape : sequence of int
        Shape of the labels. Blocks are `BLOCK` long along the last two axes and 1 along
        the others.
    region : sequence of slices, optional
        One for each axis; by default everything.

    Yields
    ------
    tuple of int
        First pixel of the block along each axis.

    Examples
    --------
    >>> list(block_starts((2, 300, 200), (slice(1, 2), slice(0, 300), slice(0, 9))))
    [(1, 0, 0), (1, 256, 0)]
    """
    spans = []
    for axis, n in enumerate(shape):
        side = BLOCK if axis >= len(shape) - 2 else 1
        part = slice(None) if region is None else region[axis]
        low, high, _ = part.indices(n)
        spans.append(range(low // side * side, high, side))
    grid = np.meshgrid(*spans, indexing="ij") if spans else []
    yield from zip(*(g.ravel().tolist() for g in grid), strict=True)


def block_slices(start: Start, shape: Sequence[int]) -> tuple[slice, ...]:
    """Return the index of the block with this start."""
    sides = [1] * (len(shape) - 2) + [BLOCK, BLOCK]
    return tuple(
        slice(s, min(s + side, n))
        for s, side, n in zip(start, sides[-len(shape) :], shape, strict=True)
    )


@dataclass
class _Log:
    """Blocks written to the log of one layer, by the start of the block."""

    shape: tuple[int, ...]
    dtype: str
    checksums: dict[Start, int] = field(default_factory=dict)
    sizes: dict[Start, int] = field(default_factory=dict)
    n_bytes: int = 0


class Session:
    """A session that is being written, by one thread at a time.

    Parameters
    ----------
    folder : path
        Folder of all sessions, in which this one gets a folder of its own.
    """

    def __init__(self, folder: str | Path) -> None:
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.folder = Path(folder) / name
        # the lock is taken in one thread and given back in another
        self._lock = FileLock(self.folder / LOCK, mode=PRIVATE_FILE, thread_local=False)
        self._logs: dict[str, _Log] = {}
        self._state = ""
        self._prompts = 0

    def open(self) -> None:
        """Create the folder and lock it; the first write does this.

        Raises
        ------
        WriteError
            If the folder cannot be created.
        """
        if self._lock.is_locked:
            return
        try:
            private_folder(self.folder.parent)
            private_folder(self.folder)
            self._lock.acquire(blocking=False)
        except OSError as error:
            raise WriteError(
                CANNOT_SAVE.format(path=self.folder, reason=error.strerror)
            ) from error

    def write_state(self, state: dict[str, Any]) -> None:
        """Write the plain values of a session, if they have changed."""
        self.open()
        text = json.dumps(state, default=_plain)
        if text == self._state:
            return
        values = {"format": VERSION, "when": time.strftime("%H:%M"), **state}
        with atomic_path(self.folder / STATE, True, private=True) as temporary:
            temporary.write_text(json.dumps(values, default=_plain), encoding="utf8")
        self._state = text

    def write_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Write the prompts, if they have changed.

        A prompt file is of one kind of image, so there is one for each number of
        channels; files of kinds that are no longer there are removed.
        """
        self.open()
        digest = 0
        for prompt in prompts:
            text = f"{prompt.name}{prompt.box}{prompt.enabled}{prompt.color}"
            for data in (text.encode(), prompt.image.tobytes(), prompt.mask.tobytes()):
                digest = zlib.crc32(data, digest)
        if digest == self._prompts:
            return
        kinds: dict[int, list[Prompt]] = {}
        for prompt in prompts:
            kinds.setdefault(prompt.n_channels, []).append(prompt)
        files = {
            self.folder / (FURTHER_PROMPTS.format(n=n) if i else PROMPTS): kind
            for i, (n, kind) in enumerate(kinds.items())
        }
        for path, kind in files.items():
            save_prompts(PromptSet(kind), path, private=True, overwrite=True)
        for path in set(self.folder.glob(ALL_PROMPTS)) - set(files):
            path.unlink()
        self._prompts = digest

    def write_blocks(
        self,
        key: str,
        shape: Sequence[int],
        dtype: str,
        blocks: Iterable[tuple[Start, np.ndarray]],
    ) -> int:
        """Append the blocks of a layer that differ from what was written last.

        Parameters
        ----------
        key : str
            Name of the layer in this session, of letters and digits.
        shape : sequence of int
            Shape of the whole layer; another one than before starts the log anew.
        dtype : str
        blocks : iterable of (start, array)
            Blocks that may have changed, from `block_starts`.

        Returns
        -------
        int
            Number of bytes written.

        Raises
        ------
        WriteError
            If the log cannot be written.
        """
        self.open()
        log = self._logs.get(key)
        path = self._path(key)
        if log is None or (log.shape, log.dtype) != (tuple(shape), dtype):
            log = self._logs[key] = _Log(tuple(shape), dtype)
            head = {"format": VERSION, "shape": list(shape), "dtype": dtype}
            with _explained(path), open(path, "wb", opener=private_opener) as file:
                file.write(json.dumps(head).encode() + b"\n")
        # Appended and not replaced: a crash while writing damages the last record only.
        before = log.n_bytes
        with _explained(path), open(path, "ab", opener=private_opener) as file:
            for start, array in blocks:
                self._append(file, log, start, np.ascontiguousarray(array))
        if log.n_bytes > COMPACT_AT and log.n_bytes > 4 * sum(log.sizes.values()):
            self._compact(path, log)
        return log.n_bytes - before

    def _append(
        self, file: IO[bytes], log: _Log, start: Start, array: np.ndarray
    ) -> None:
        """Append one block, unless it is equal to what the log has of it."""
        raw = array.tobytes()
        checksum = zlib.crc32(raw)
        known = log.checksums.get(start)
        # A block that was never written is read as zeros.
        if known == checksum or (known is None and not array.any()):
            return
        packed = zlib.compress(raw, 1)  # the fastest level: labels compress well anyway
        head = {"start": start, "shape": array.shape, "n": len(packed), "crc": checksum}
        record = json.dumps(head).encode() + b"\n" + packed
        file.write(record)
        log.checksums[start], log.sizes[start] = checksum, len(record)
        log.n_bytes += len(record)

    def _compact(self, path: Path, log: _Log) -> None:
        """Write the log anew with the newest version of each block."""
        with path.open("rb") as file:
            head = file.readline()
            latest = {tuple(r["start"]): (r, packed) for r, packed in _records(file)}
        with (
            atomic_path(path, True, private=True) as temporary,
            temporary.open("wb") as file,
        ):
            file.write(head)
            for record, packed in latest.values():
                file.write(json.dumps(record).encode() + b"\n" + packed)
        log.n_bytes = sum(log.sizes.values())

    def drop_labels(self, keep: Iterable[str]) -> None:
        """Delete the logs of all layers but those in ``keep``."""
        for key in set(self._logs) - set(keep):
            del self._logs[key]
            self._path(key).unlink(missing_ok=True)

    def close(self) -> None:
        """Delete the session, which ended without a crash."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock.is_locked:
            self._lock.release()
            # Windows cannot delete an open file, such as the lock before.
            shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, key: str) -> Path:
        return self.folder / f"labels-{key}.log"


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Raise errors of the file system as `WriteError` that names the file."""
    try:
        yield
    except OSError as error:
        raise WriteError(
            CANNOT_SAVE.format(path=path, reason=error.strerror or error)
        ) from error


def _plain(value: Any) -> Any:
    """Return a value of numpy as Python's own, and others as text."""
    return value.item() if isinstance(value, np.generic) else str(value)


def _records(file: IO[bytes]) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Yield the complete records of a log; an incomplete one ends it."""
    while line := file.readline(MAX_HEADER):
        try:
            record = json.loads(line)
            n = int(record["n"])
            if not 0 <= n <= MAX_RECORD:
                raise ValueError(n)
        except (*_ODD_CONTENT, ValueError) as error:
            raise SessionError(BLOCK_DAMAGED) from error
        packed = file.read(n)
        if len(packed) != n:
            return  # the process ended while it wrote this record
        yield record, packed


# ---------------------------------------------------------------- reading


@dataclass
class SavedSession:
    """A session whose process ended without closing it.

    Parameters
    ----------
    folder : Path
    state : dict
        Values given to `Session.write_state`, and ``when`` they were written.
    problems : list of str
        One line for each file that could not be read, wholly or in part.
    """

    folder: Path
    state: dict[str, Any]
    problems: list[str] = field(default_factory=list)
    _lock: FileLock | None = None

    @property
    def when(self) -> str:
        """Time of day of the last change, ``HH:MM``."""
        return str(self.state.get("when", ""))

    def prompts(self) -> list[Prompt]:
        """Return the prompts; a damaged file has none, and an entry in `problems`."""
        found: list[Prompt] = []
        for path in sorted(
            self.folder.glob(ALL_PROMPTS), key=lambda p: (p.name != PROMPTS, p.name)
        ):
            try:
                found += load_prompts(path)
            except PromptFileError as error:
                self.problems.append(str(error))
        return found

    def labels(self, key: str) -> np.ndarray | None:
        """Return the labels of a layer, or None if they cannot be read.

        What is damaged stays zero and gets an entry in `problems`.

        Parameters
        ----------
        key : str
            Name of the layer, as given to `Session.write_blocks`.
        """
        path = self.folder / f"labels-{Path(key).name}.log"
        try:
            with path.open("rb") as file:
                return self._labels(path, file)
        except (OSError, ValueError, *_ODD_CONTENT) as error:
            self.problems.append(LABELS_LOST.format(path=path, reason=error))
            return None

    def _labels(self, path: Path, file: IO[bytes]) -> np.ndarray:
        """Return the labels in a log, whose head is checked before memory is taken."""
        head = json.loads(file.readline(MAX_HEADER))
        shape, dtype = tuple(int(n) for n in head["shape"]), np.dtype(head["dtype"])
        if dtype.kind not in "biu" or not 2 <= len(shape) <= 8:
            raise SessionError(f"shape {shape}, dtype {dtype}")
        if min(shape) < 1 or int(np.prod(shape, dtype=object)) > MAX_PIXELS:
            raise SessionError(f"shape {shape}")
        labels = np.zeros(shape, dtype)
        try:
            for record, packed in _records(file):
                _put(labels, record, packed)
        except (ValueError, zlib.error, *_ODD_CONTENT) as error:
            self.problems.append(LATER_LABELS_LOST.format(path=path, reason=error))
        return labels

    def discard(self) -> None:
        """Delete the session."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Unlock the session, so that the next process offers it again."""
        if self._lock is not None:
            self._lock.release()

    def set_aside(self) -> Path:
        """Rename the session, so that it is kept but not offered again.

        Returns
        -------
        Path
            The new folder.
        """
        target = self.folder.with_name(f"{DAMAGED}{self.folder.name}")
        with contextlib.suppress(OSError):
            os.replace(self.folder, target)
        self.release()
        return target


def _put(labels: np.ndarray, record: dict[str, Any], packed: bytes) -> None:
    """Write one block to its place in the labels, after checking it.

    Raises
    ------
    SessionError
        If it lies outside, has another size, or another checksum.
    """
    start = tuple(int(s) for s in record["start"])
    if len(start) != labels.ndim or any(
        not 0 <= s < n for s, n in zip(start, labels.shape, strict=True)
    ):
        raise SessionError(f"a block starts at {start}")
    place = labels[block_slices(start, labels.shape)]
    unpacker = zlib.decompressobj()
    # One byte more than expected at most: damaged data may unpack without an end.
    raw = unpacker.decompress(packed, place.nbytes + 1)
    if len(raw) != place.nbytes or zlib.crc32(raw) != record["crc"]:
        raise SessionError(f"the block at {start} is not what was written")
    place[...] = np.frombuffer(raw, labels.dtype).reshape(place.shape)


def crashed_sessions(folder: str | Path) -> tuple[list[SavedSession], list[str]]:
    """Return the sessions whose process ended without closing them, newest first.

    Each is locked for this process, so that no other one offers it. Damaged sessions
    are renamed and kept.

    Parameters
    ----------
    folder : path
        Folder of all sessions.

    Returns
    -------
    sessions : list of SavedSession
    problems : list of str
        One line for each session that cannot be read.
    """
    sessions, problems = [], []
    for path in sorted(Path(folder).glob("[0-9]*"), reverse=True):
        lock = FileLock(path / LOCK, thread_local=False)
        try:
            if not path.is_dir():
                continue
            lock.acquire(blocking=False)
        except OSError:  # a Timeout among them: its process is alive
            continue
        saved = SavedSession(path, {}, _lock=lock)
        if not (path / STATE).is_file():
            saved.discard()  # the process ended before anything was saved
            continue
        try:
            saved.state = read_state(path / STATE)
        except SessionError as error:
            there = saved.set_aside()
            problems.append(KEPT_IN.format(problem=error, folder=there))
            continue
        sessions.append(saved)
    return sessions, problems


def read_state(path: Path) -> dict[str, Any]:
    """Return the plain values of a session."""
    try:
        values = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError, *_ODD_CONTENT) as error:
        raise SessionError(SESSION_DAMAGED.format(path=path)) from error
    if not isinstance(values, dict) or values.get("format") != VERSION:
        raise SessionError(OTHER_VERSION.format(path=path))
    return values
