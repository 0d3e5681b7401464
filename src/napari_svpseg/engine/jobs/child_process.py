"""Jobs in a child process: the side of the window or script that submits them.

The process is started by the first job and again after it died or was killed. It ends
when its pipe closes, thus also when this process is killed.
"""

from __future__ import annotations

import atexit
import logging
import os
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from .job import Event, Job, OnEvent, name_of
from .processors import THREADS
from .transport import Pipe, Transport

logger = logging.getLogger(__name__)

MAGIC = b"\0svpseg engine 1\n"
"""First bytes of the engine; libraries may have printed something before them."""

KILL_AFTER_S = 0.7
"""After so long, the process of a job that does not stop is killed."""

MAX_LOG_BYTES = 1_000_000

CLOSED = "The engine was closed: connect again."
CANNOT_START = "The engine could not be started with {python}: {error}"
NOT_STARTED = "The engine did not start with {python}{last} (log: {log})"
ENDED = (
    "The engine ended unexpectedly ({why}). The next run starts it again (log: {log})."
)
BY_SIGNAL, BY_STATUS = "signal {n}", "status {n}"
OUT_OF_MEMORY = ", often for lack of memory"

KINDS = {
    b"P": "progress",
    b"V": "partial",
    b"D": "done",
    b"F": "failed",
    b"X": "cancelled",
}
"""Messages of the engine. To the engine go S (submit) and C (cancel)."""

BEGUN = b"B"
"""Message of the engine before it reads the arguments of a job."""


@dataclass(eq=False)
class _Submitted:
    """A job, and its target and arguments as packed."""

    job: Job
    body: bytes
    is_begun: bool = False
    is_repeated: bool = False


class ChildProcess:
    """Runs jobs one after the other in a process of its own.

    Parameters
    ----------
    python : str, optional
        Its interpreter, by default this one; napari-svpseg must be installed there.
    log : path, optional
        File that takes what the process prints; a new temporary one if that cannot be.
    threads : int
        Threads of torch; 0 is one for each core, or what the environment says.
    """

    def __init__(
        self, python: str | None = None, log: Path | None = None, threads: int = 0
    ) -> None:
        self.python = python or sys.executable
        self.threads = threads
        self.log = log or log_folder() / "engine.log"
        self._lock = threading.RLock()
        self._transport = Transport.create("p")
        self._waiting: deque[_Submitted] = deque()
        self._running: _Submitted | None = None
        self._process: _Process | None = None
        self._closed = False
        atexit.register(self.close)

    def submit(
        self,
        function: Callable[..., Any],
        *args: Any,
        on_event: OnEvent | None = None,
        **kwargs: Any,
    ) -> Job:
        """Start a call when all earlier jobs have ended.

        Arguments are copied before this returns; their later change does no harm.
        """
        if self._closed:
            raise RuntimeError(CLOSED)
        target = name_of(function)
        job = Job(target, on_event, self._stop)
        waiting = _Submitted(job, self._transport.pack((target, args, kwargs)))
        with self._lock:
            self._waiting.append(waiting)
        self._next()
        return job

    @property
    def pid(self) -> int | None:
        """Id of the process, None where none is running."""
        process = self._process
        return process.popen.pid if process is not None else None

    def close(self) -> None:
        """End the process and all jobs, and remove what they left."""
        atexit.unregister(self.close)
        with self._lock:
            self._closed = True
            left = [w.job for w in self._waiting]
            self._waiting.clear()
            if self._running is not None:
                left.insert(0, self._running.job)
            process, self._process, self._running = self._process, None, None
        if process is not None:
            process.end()
        self._transport.remove()
        for job in left:
            job.post(Event("cancelled"))

    # -- one job at a time -------------------------------------------------------------

    def _next(self) -> None:
        """Hand the next job to the process if it has none."""
        with self._lock:
            if self._running is not None or not self._waiting or self._closed:
                return
            waiting = self._running = self._waiting.popleft()
            job = waiting.job
            try:
                if self._process is None:
                    self._process = _Process(self)
                self._process.pipe.send(b"S", job.id, waiting.body)
                return
            except OSError as error:
                if self._process is not None:
                    return  # it just died: its reader ends the job
                self._running = None
                self._transport.discard(waiting.body)
                message = CANNOT_START.format(python=self.python, error=error)
        job.post(Event("failed", message=message))
        self._next()

    def _stop(self, job: Job) -> None:
        with self._lock:
            for waiting in self._waiting:
                if waiting.job is job:
                    self._waiting.remove(waiting)
                    self._transport.discard(waiting.body)
                    break
            else:
                running = self._running is not None and job is self._running.job
                if running and self._process is not None:
                    self._process.stop(job)
                return
        job.post(Event("cancelled"))

    def _received(
        self, process: _Process, kind: bytes, number: int, body: bytes
    ) -> None:
        running = self._running
        if running is None or running.job.id != number or process is not self._process:
            self._transport.discard(body)
            return
        if kind == BEGUN:
            running.is_begun = True
            return
        job = running.job
        try:
            event = self._transport.unpack(body)
        except Exception as error:
            logger.exception("an event of %s cannot be read", job.target)
            if kind in b"PV":
                return
            event = Event("failed", message=f"The result cannot be read: {error}")
        if not event.is_end:
            job.post(event)
            return
        with self._lock:
            self._running = None
        job.post(event)
        self._next()

    def _died(self, process: _Process, status: int, started: bool) -> None:
        """End the running job and go on with the next, in a new process."""
        with self._lock:
            if process is not self._process:
                return
            running, self._running, self._process = self._running, None, None
            if started and running is not None and _can_be_repeated(running):
                # killed while it had nothing to do, before anybody noticed
                running.is_repeated = True
                self._waiting.appendleft(running)
                running = None
        self._transport.remove(owner=f"c{process.popen.pid}")
        if running is not None:
            self._transport.discard(running.body)  # where it was not read
            job = running.job
            job.post(
                Event("cancelled")
                if job.is_cancelled
                else Event("failed", message=self._epitaph(status, started))
            )
        self._next()

    def _epitaph(self, status: int, started: bool) -> str:
        if not started:
            last = _last_line(self.log)
            return NOT_STARTED.format(
                python=self.python, last=f": {last}" if last else "", log=self.log
            )
        kind = BY_SIGNAL if status < 0 else BY_STATUS
        why = kind.format(n=abs(status))
        if status == -9:
            why += OUT_OF_MEMORY
        return ENDED.format(why=why, log=self.log)


class _Process:
    """A running child process, and the thread that reads its messages."""

    def __init__(self, owner: ChildProcess) -> None:
        self._owner = owner
        owner.log = _writable(owner.log)
        with _open_private(owner.log, "wb" if _is_full(owner.log) else "ab") as log:
            self.popen = subprocess.Popen(
                # -P: a file torch.py in the working folder is not imported
                [owner.python, "-P", "-m", "napari_svpseg.engine"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=_environment(owner.threads),
                **_detached(),
            )
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        self.pipe = Pipe(self.popen.stdout, self.popen.stdin)
        self._reader = threading.Thread(
            target=self._read, name="svpseg-engine-reader", daemon=True
        )
        self._reader.start()
        folders = "\n".join(map(str, owner._transport.folders))
        with suppress(OSError):  # it died already: the reader will notice
            self.pipe.send(b"H", 0, folders.encode())

    def stop(self, job: Job) -> None:
        """Ask for the end of a job; kill the process where that does not help."""
        with suppress(OSError):
            self.pipe.send(b"C", job.id)
        timer = threading.Timer(KILL_AFTER_S, self._kill_unless_done, [job])
        timer.daemon = True
        timer.start()

    def end(self) -> None:
        """End the process, politely first."""
        with suppress(OSError):
            assert self.popen.stdin is not None
            self.popen.stdin.close()
        try:
            self.popen.wait(1.0)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()

    def _kill_unless_done(self, job: Job) -> None:
        if not job.done and self.popen.poll() is None:
            logger.warning("%s does not stop: its process is killed", job.target)
            self.popen.kill()

    def _read(self) -> None:
        started = False
        try:
            assert self.popen.stdout is not None
            started = _skip_to_magic(self.popen.stdout)
            while started and (message := self.pipe.receive()) is not None:
                self._owner._received(self, *message)
        except (OSError, ValueError):  # the pipe was closed
            pass
        if not started:
            self.popen.kill()
        status = self.popen.wait()
        for stream in (self.popen.stdin, self.popen.stdout):
            with suppress(OSError):
                if stream is not None:
                    stream.close()
        self._owner._died(self, status, started)


def _can_be_repeated(submitted: _Submitted) -> bool:
    """Return whether a job of a process that died can be given to the next one."""
    return not (
        submitted.is_begun or submitted.is_repeated or submitted.job.is_cancelled
    )


def log_folder() -> Path:
    """Return the folder of log files, ``NAPARI_SVPSEG_HOME/logs`` where that is set."""
    home = os.environ.get("NAPARI_SVPSEG_HOME")
    if home:
        return Path(home) / "logs"
    from platformdirs import user_log_path

    return user_log_path("napari-svpseg", appauthor=False)


def _writable(log: Path) -> Path:
    """Return the path of a log, or of a new file of this user where it cannot be."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _open_private(log, "ab"):
            return log
    except OSError:  # in a new folder: in that of all users a link may wait
        return Path(tempfile.mkdtemp()) / "svpseg-engine.log"


def _is_full(log: Path) -> bool:
    return log.exists() and log.stat().st_size > MAX_LOG_BYTES


def _open_private(path: Path, mode: str) -> BinaryIO:
    """Open a file that only this user may read: traces name files and folders."""
    file = open(  # noqa: SIM115  (the process that is started gets it)
        path, mode, opener=lambda name, flags: os.open(name, flags, 0o600)
    )
    return cast(BinaryIO, file)


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip() if lines else ""


def _environment(threads: int) -> dict[str, str]:
    asked = {THREADS: str(threads)} if threads else {}
    usual = {"PYTHONFAULTHANDLER": "1", "PYTHONIOENCODING": "utf-8"}
    return {**usual, **os.environ, **asked}


def _detached() -> dict[str, Any]:
    """Return options of `Popen` that keep Ctrl-C and a console window away."""
    if sys.platform == "win32":
        return {
            "creationflags": subprocess.CREATE_NO_WINDOW
            | subprocess.CREATE_NEW_PROCESS_GROUP
        }
    return {"start_new_session": True}


def _skip_to_magic(stream: Any) -> bool:
    """Read up to and including `MAGIC`; False where the stream ends before."""
    seen = b""
    while not seen.endswith(MAGIC):
        byte = stream.read(1)
        if not byte:
            return False
        seen = (seen + byte)[-len(MAGIC) :]
    return True
