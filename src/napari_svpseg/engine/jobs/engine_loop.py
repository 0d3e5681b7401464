"""The loop of the engine process, which `child_process` starts.

It reads jobs from its standard input and writes their events to its standard output;
what jobs print goes to standard error, which is a log file. The main thread works, a
second one listens, and ends the process when the other side is gone.
"""

from __future__ import annotations

import _thread
import logging
import math
import os
import queue
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

from ...core.progress import Cancelled
from ..inference.cache import keep_query_features
from .allocator import keep_freed_memory
from .child_process import BEGUN, KINDS, MAGIC
from .job import Event, failure, run_target
from .processors import prepare_threads
from .transport import Pipe, Transport

logger = logging.getLogger(__name__)

INTERRUPT_AFTER_S = 0.3
"""A cancelled job that has not reported by then is interrupted between two steps."""

INTERRUPT_AGAIN_S = 0.1

END_S = 5.0
"""How long a job may take to end once the other process is gone."""

_KIND_OF = {name: kind for kind, name in KINDS.items()}


class Engine:
    """Runs one job at a time.

    Parameters
    ----------
    pipe : Pipe
        To the process that submits jobs.
    transport : Transport
    """

    def __init__(self, pipe: Pipe, transport: Transport) -> None:
        self._pipe, self._transport = pipe, transport
        self._submitted: queue.SimpleQueue[tuple[int, bytes]] = queue.SimpleQueue()
        self._running: int | None = None
        self._is_sending = False
        self._is_closed = False
        self._cancelled: set[int] = set()

    def run(self) -> None:
        """Work until the process ends."""
        signal.signal(signal.SIGINT, self._interrupt)
        threading.Thread(target=self._listen, name="listener", daemon=True).start()
        while True:
            number, body = self._submitted.get()
            try:
                self._run_job(number, body)
            except Cancelled:  # interrupted just before its end was sent
                self._send(number, Event("cancelled"))
            self._cancelled.discard(number)

    def _run_job(self, number: int, body: bytes) -> None:
        self._running = number
        self._say_begun(number)
        try:
            target, args, kwargs = self._transport.unpack(body)
        except Cancelled:  # no failure: `run` sends it
            raise
        except Exception as error:
            logger.exception("job %d cannot be read", number)
            self._send(number, failure(error))
            return
        run_target(
            target,
            args,
            kwargs,
            lambda event: self._send(number, event),
            lambda: number in self._cancelled,
        )

    def _say_begun(self, number: int) -> None:
        """Tell that a job has begun: one that had not is repeated if this dies."""
        self._is_sending = True  # an interrupt would leave half a message
        try:
            if not self._is_closed:
                self._pipe.send(BEGUN, number)
        finally:
            self._is_sending = False

    def _send(self, number: int, event: Event) -> None:
        self._is_sending = True  # an interrupt would leave half a message
        try:
            if event.is_end:
                self._running = None
            if self._is_closed:
                return
            if event.kind == "failed":
                logger.error("job %d failed\n%s", number, event.traceback)
            try:
                body = self._transport.pack(event)
            except Exception as error:
                if not event.is_end:
                    raise
                logger.exception("the result of job %d cannot be sent", number)
                event = failure(error)
                body = self._transport.pack(event)
            self._pipe.send(_KIND_OF[event.kind], number, body)
        finally:
            self._is_sending = False

    def _listen(self) -> None:
        while (message := self._pipe.receive()) is not None:
            kind, number, body = message
            if kind == b"S":
                self._submitted.put((number, body))
            elif kind == b"C":
                self._cancelled.add(number)
                threading.Thread(
                    target=self._interrupt_later, args=[number], daemon=True
                ).start()
        self._is_closed = True
        if self._running is not None:
            # what it was writing, its records and checkpoint come to an end
            self._cancelled.add(self._running)
            self._interrupt_later(self._running, END_S)
        self._transport.remove()
        os._exit(0)

    def _interrupt_later(self, number: int, at_most: float = math.inf) -> None:
        end = time.monotonic() + at_most
        time.sleep(INTERRUPT_AFTER_S)
        while self._running == number and time.monotonic() < end:
            if hasattr(signal, "pthread_kill"):
                ident = threading.main_thread().ident
                assert ident is not None
                signal.pthread_kill(ident, signal.SIGINT)
            else:
                _thread.interrupt_main()
            time.sleep(INTERRUPT_AGAIN_S)

    def _interrupt(self, _signal: int, frame: FrameType | None) -> None:
        """Stop the cancelled job, but not while it sends or imports a module.

        A module that was imported by half would harm all later jobs.
        """
        if (
            self._running in self._cancelled
            and not self._is_sending
            and not _is_importing(frame)
        ):
            raise Cancelled


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def main() -> None:
    """Take over the standard streams and work."""
    incoming = os.fdopen(os.dup(0), "rb")
    outgoing = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)  # print() ends up in the log
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format=f"%(asctime)s [{os.getpid()}] %(levelname)s %(name)s: %(message)s",
    )
    keep_freed_memory()
    keep_query_features()
    prepare_threads()
    outgoing.write(MAGIC)
    pipe = Pipe(incoming, outgoing)
    outgoing.flush()
    hello: Any = pipe.receive()
    if hello is None:
        return
    folders = hello[2].decode().split("\n")
    Engine(pipe, Transport(folders, f"c{os.getpid()}")).run()
