"""How values pass between two processes: small ones in a pipe, large ones in memory.

A value is pickled with its arrays beside it (protocol 5). What is larger than a pipe
takes at once is written to a file in the system's memory file system, and only its name
travels, so that sending never waits for the receiver. Nothing but two folders has to be
cleaned up, whoever dies first.
"""

from __future__ import annotations

import os
import pickle
import shutil
import struct
import tempfile
import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

INLINE_BYTES = 3_000
"""Values up to this size travel in the pipe itself: less than any pipe holds."""

ALIGN = 64
PREFIX = "svpseg-"
STALE_S = 3600.0

_ENVELOPE = struct.Struct("<cIQ")  # kind, job, length of the body


class Transport:
    """A place where two processes leave large values for each other.

    Parameters
    ----------
    folders : sequence of path
        Where transport are written: the first with room is taken.
    mark : str
        Begins the names of the transport that this process writes.
    """

    def __init__(self, folders: Sequence[str | Path], mark: str) -> None:
        self.folders = tuple(Path(f) for f in folders)
        self.mark = mark

    @classmethod
    def create(cls, mark: str) -> Transport:
        """Return new folders, readable by this user alone."""
        remove_stale()
        prefix = f"{PREFIX}{os.getpid()}-"
        return cls(
            [tempfile.mkdtemp(prefix=prefix, dir=place) for place in _places()], mark
        )

    def pack(self, value: Any) -> bytes:
        """Return what travels in the pipe for ``value``."""
        pieces = _pieces(value)
        if sum(len(p) for p in pieces) <= INLINE_BYTES:
            return b"I" + b"".join(pieces)
        name = f"{self.mark}-{uuid.uuid4().hex}"
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
        raise OSError(f"No room to hand a large value to the engine: {reason}")

    def unpack(self, body: bytes) -> Any:
        """Return the value; its payload is removed. Arrays can be written to."""
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
        """Remove the payload of a body that nobody will read."""
        if body[:1] == b"F":
            self._path(body).unlink(missing_ok=True)

    def remove(self, mark: str | None = None) -> None:
        """Remove all folders, or only the transport that begin with ``mark``."""
        for folder in self.folders:
            if mark is None:
                shutil.rmtree(folder, ignore_errors=True)
                continue
            for path in folder.glob(f"{mark}-*"):
                path.unlink(missing_ok=True)

    def _path(self, body: bytes) -> Path:
        path = Path(body[1:].decode())
        if path.parent not in self.folders:
            raise ValueError(f"no payload of this engine: {path}")
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
        """Send a message; OSError where the other side is gone."""
        with self._lock:
            try:
                self._outgoing.write(_ENVELOPE.pack(kind, job, len(body)) + body)
                self._outgoing.flush()
            except ValueError as error:  # closed by who noticed first
                raise BrokenPipeError("the pipe was closed") from error

    def receive(self) -> tuple[bytes, int, bytes] | None:
        """Wait for a message; None where the other side is gone."""
        head = self._incoming.read(_ENVELOPE.size)
        if len(head) < _ENVELOPE.size:
            return None
        kind, job, length = _ENVELOPE.unpack(head)
        body = self._incoming.read(length)
        return (kind, job, body) if len(body) == length else None


def remove_stale() -> None:
    """Remove folders whose owner died without doing so, and its engine with it."""
    if os.name != "posix":
        return
    for place in _places():
        for folder in Path(place).glob(f"{PREFIX}*"):
            owner = folder.name.split("-")[1]
            with suppress(OSError):
                old = time.time() - folder.stat().st_mtime > STALE_S
                if old and owner.isdecimal() and not _is_alive(int(owner)):
                    shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _places() -> list[str]:
    places = [tempfile.gettempdir()]
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK):
        places.insert(0, str(memory))
    return places


def _pieces(value: Any) -> list[bytes | memoryview]:
    """Return a table of lengths, the pickle and the arrays, each padded."""
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
