"""Transport of values between processes: in a pipe, or as files in memory.

A value is pickled with its arrays beside it (protocol 5). If it is larger than what a
pipe takes at once, it is written to a file in the system's memory file system (its
payload), and only the name of the file goes through the pipe. So sending never waits
for the receiver. Whichever process dies first, only two folders have to be removed.
"""

from __future__ import annotations

import os
import pickle
import shutil
import struct
import tempfile
import threading
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

INLINE_BYTES = 3_000
"""Values up to this size travel in the pipe itself: less than any pipe holds."""

ALIGN = 64
PREFIX = "svpseg-"
LOCK = "lock"
"""File in each folder that its process holds a lock on."""

NO_ROOM = "No room to hand a large value to the engine: {reason}"

_ENVELOPE = struct.Struct("<cIQ")  # kind, job, length of the body


class NoRoomError(OSError):
    """No folder has room for a large value."""


class ForeignPayloadError(ValueError):
    """A file outside the folders of a transport was to be read or removed."""


class Transport:
    """Folders in which two processes leave large values for each other.

    Parameters
    ----------
    folders : sequence of path
        Payloads are written to the first folder with room for them.
    owner : str
        Begins the names of the payloads that this process writes.
    """

    def __init__(self, folders: Sequence[str | Path], owner: str) -> None:
        self.folders = tuple(Path(f) for f in folders)
        self.owner = owner
        self._locks: list[FileLock] = []

    @classmethod
    def create(cls, owner: str) -> Transport:
        """Return a transport in new folders, readable by this user alone."""
        remove_stale()
        made = cls(
            [tempfile.mkdtemp(prefix=PREFIX, dir=place) for place in _places()], owner
        )
        for folder in made.folders:
            lock = FileLock(folder / LOCK, thread_local=False)
            with suppress(OSError, NotImplementedError):
                lock.acquire(blocking=False)
            made._locks.append(lock)
        return made

    def pack(self, value: Any) -> bytes:
        """Return the bytes that go through the pipe for ``value``."""
        pieces = _pieces(value)
        if sum(len(p) for p in pieces) <= INLINE_BYTES:
            return b"I" + b"".join(pieces)
        name = f"{self.owner}-{uuid.uuid4().hex}"
        for folder in self.folders:
            path = folder / name
            try:
                with path.open("xb", buffering=0) as file:
                    for piece in pieces:
                        _write_all(file, piece)
                return b"F" + str(path).encode()
            except OSError as error:
                path.unlink(missing_ok=True)
                reason = error
        raise NoRoomError(NO_ROOM.format(reason=reason))

    def unpack(self, body: bytes) -> Any:
        """Return the value of such bytes, with writable arrays; remove its payload."""
        if body[:1] == b"I":
            return _value(bytearray(body[1:]))
        path = self._path(body)
        try:
            with path.open("rb", buffering=0) as file:
                content = bytearray(os.fstat(file.fileno()).st_size)
                _read_all(file, content)
        finally:
            path.unlink(missing_ok=True)
        return _value(content)

    def discard(self, body: bytes) -> None:
        """Remove the payload of bytes that nobody will read."""
        if body[:1] == b"F":
            self._path(body).unlink(missing_ok=True)

    def remove(self, owner: str | None = None) -> None:
        """Remove all folders, or only the payloads of ``owner``."""
        for folder in self.folders:
            if owner is None:
                for lock in self._locks:
                    lock.release()
                shutil.rmtree(folder, ignore_errors=True)
                continue
            for path in folder.glob(f"{owner}-*"):
                path.unlink(missing_ok=True)

    def _path(self, body: bytes) -> Path:
        path = Path(body[1:].decode())
        if path.parent not in self.folders:
            raise ForeignPayloadError(f"no payload of this engine: {path}")
        return path


class Pipe:
    """Two byte streams that carry messages ``(kind, job, body)``.

    Parameters
    ----------
    incoming, outgoing : binary file
    """

    def __init__(self, incoming: IO[bytes], outgoing: IO[bytes]) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self._lock = threading.Lock()

    def send(self, kind: bytes, job: int, body: bytes = b"") -> None:
        """Send a message; raise OSError if the other process has ended."""
        with self._lock:
            try:
                self._outgoing.write(_ENVELOPE.pack(kind, job, len(body)) + body)
                self._outgoing.flush()
            except ValueError as error:  # closed by who noticed first
                raise BrokenPipeError("the pipe was closed") from error

    def receive(self) -> tuple[bytes, int, bytes] | None:
        """Wait for a message; return None if the other process has ended."""
        head = self._incoming.read(_ENVELOPE.size)
        if len(head) < _ENVELOPE.size:
            return None
        kind, job, length = _ENVELOPE.unpack(head)
        body = self._incoming.read(length)
        return (kind, job, body) if len(body) == length else None


def remove_stale() -> None:
    """Remove the folders of processes that died without doing so themselves.

    A living one holds a lock: the id of a process may be that of another by now, or of
    one in another container.
    """
    if os.name != "posix":
        return
    for place in _places():
        for folder in Path(place).glob(f"{PREFIX}*"):
            lock = folder / LOCK
            with suppress(OSError, NotImplementedError):  # locked, or somebody else's
                if lock.is_file():
                    with FileLock(lock, blocking=False):
                        shutil.rmtree(folder, ignore_errors=True)


def _places() -> list[str]:
    places = [tempfile.gettempdir()]
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK):
        places.insert(0, str(memory))
    return places


def _pieces(value: Any) -> list[bytes | memoryview]:
    """Return a table of lengths, the pickle and the arrays, each padded.

    Padding lets every array begin at a multiple of `ALIGN` bytes, as vector
    instructions want it.
    """
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    parts: list[bytes | memoryview] = [head, *(b.raw() for b in buffers)]
    table = struct.pack(f"<{len(parts) + 1}Q", len(parts), *map(len, parts))
    pieces: list[bytes | memoryview] = []
    for part in (table, *parts):
        pieces += [part, bytes(-len(part) % ALIGN)]
    return pieces


def _value(content: bytearray) -> Any:
    (n,) = struct.unpack_from("<Q", content)
    lengths = struct.unpack_from(f"<{n}Q", content, 8)
    at = _padded(8 * (n + 1))
    view, parts = memoryview(content), []
    for length in lengths:
        parts.append(view[at : at + length])
        at += _padded(length)
    return pickle.loads(parts[0], buffers=parts[1:])


def _padded(length: int) -> int:
    return length + -length % ALIGN


def _write_all(file: Any, piece: bytes | memoryview) -> None:
    view = memoryview(piece)
    while view:
        view = view[file.write(view) :]


def _read_all(file: Any, content: bytearray) -> None:
    view = memoryview(content)
    while view:
        n = file.readinto(view)
        if not n:
            raise OSError("a payload is shorter than it was")
        view = view[n:]
