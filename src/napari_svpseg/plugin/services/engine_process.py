"""One engine for this napari, and its jobs as Qt objects. No torch here."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from qtpy.compat import isalive
from qtpy.QtCore import QCoreApplication, QObject, Signal

from ...core.errors import one_line
from .preferences import preference
from .turns import shared_turns

logger = logging.getLogger(__name__)

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a job."""


class EngineJob(QObject):
    """A running job; its signals arrive in the thread of the GUI, one in a turn.

    Exactly one of `returned`, `failed` and `cancelled` is emitted, then `finished`.
    """

    progressed = Signal(int, int, str)
    partial = Signal(object)
    returned = Signal(object)
    failed = Signal(str)
    cancelled = Signal()
    finished = Signal()
    _arrived = Signal(str, object)

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.is_done = False
        self._job: Any = None
        self._stop = threading.Event()
        self._progress: Any = None  # the latest one that has not been handed on
        self._arrived.connect(self._deliver)

    @property
    def name(self) -> str:
        """Module and name of the function, for the log."""
        return f"{self.function.__module__}.{self.function.__qualname__}"

    def cancel(self) -> None:
        """Stop the job; `cancelled` follows within a second."""
        self._stop.set()
        if self._job is not None and not self.is_done:
            self._job.cancel()

    def run(self, runner: Any, prepare: Callable[[], Call]) -> None:
        """Prepare the arguments and submit; called in the engine's own thread."""
        if self._stop.is_set():
            self.post("cancelled", None)
            return
        try:
            args, kwargs = prepare()
            self._job = runner().submit(
                self.function, *args, on_event=self._on_event, **kwargs
            )
        except Exception as error:
            logger.exception("could not start %s", self.name)
            self.post("failed", one_line(error, hint=""))
            return
        if self._stop.is_set():
            self._job.cancel()

    def post(self, kind: str, value: Any) -> None:
        """Hand an event over to the GUI's thread."""
        try:
            self._arrived.emit(kind, value)
        except RuntimeError:  # the window is gone, and this object with it
            logger.debug("event %s of %s came too late", kind, self.name)

    def _on_event(self, event: Any) -> None:
        self.post(event.kind, event)

    def _deliver(self, kind: str, event: Any) -> None:
        if kind == "progress":
            waits, self._progress = self._progress is not None, event
            if waits:  # an older one has its turn: the latest is shown then
                return
        shared_turns().add(partial(self._hand_on, kind, event))

    def _hand_on(self, kind: str, event: Any) -> None:
        if self.is_done or not isalive(self):
            return
        if kind == "progress":
            event, self._progress = self._progress, None
            self.progressed.emit(int(event.done), int(event.total), event.message)
            return
        if kind == "partial":
            self.partial.emit(event.value)
            return
        self.is_done = True
        if kind == "done":
            self.returned.emit(event.value)
        elif kind == "cancelled":
            self.cancelled.emit()
        else:
            message = event if isinstance(event, str) else event.message
            trace = getattr(event, "traceback", "")
            if trace:
                level = logging.DEBUG if is_expected_error(trace) else logging.ERROR
                logger.log(level, "%s failed\n%s", self.name, trace)
            self.failed.emit(message)
        self._job = None
        self.finished.emit()


def is_expected_error(trace: str) -> bool:
    """Return whether an error is one of ours, whose message says what to do."""
    return any(
        line.startswith(("napari_svpseg.", "ValueError: "))
        for line in trace.splitlines()
    )


class Engine(QObject):
    """The process where models run: started on first use, ended with the last dock.

    Parameters
    ----------
    connect : callable, optional
        Returns a runner (see `engine.jobs.job`); by default a child process.
    """

    def __init__(self, connect: Callable[[], Any] | None = None) -> None:
        super().__init__()
        self._connect = connect or _child_process
        self._runner: Any = None
        self._users = 0
        self._jobs: set[EngineJob] = set()
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="svpseg-submit")

    def submit(
        self, function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> EngineJob:
        """Run a function of a module in the engine, with these arguments."""
        return self.submit_prepared(function, lambda: (args, kwargs))

    def submit_prepared(
        self, function: Callable[..., Any], prepare: Callable[[], Call]
    ) -> EngineJob:
        """Run a job whose arguments take time to make: that happens in a thread."""
        job = EngineJob(function)
        self._jobs.add(job)  # Qt drops what nobody holds
        job.finished.connect(lambda: self._jobs.discard(job))
        self._starter.submit(job.run, self.runner, prepare)
        return job

    def runner(self) -> Any:
        """Return the runner, started if need be."""
        if self._runner is None:
            self._runner = self._connect()
        return self._runner

    def acquire(self) -> None:
        """Count one more user."""
        self._users += 1

    def release(self) -> None:
        """Count one user less; with the last one the process ends."""
        self._users -= 1
        if self._users <= 0:
            self.close()

    def close(self) -> None:
        """End the process and give its memory back. The next job starts it again."""
        for job in list(self._jobs):
            job.cancel()
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()


_shared: list[Engine] = []


def shared_engine() -> Engine:
    """Return the one engine of this napari."""
    if not _shared:
        engine = Engine()
        _shared.append(engine)
        app = QCoreApplication.instance()
        if app is not None:
            app.aboutToQuit.connect(engine.close)
    return _shared[0]


def _child_process() -> Any:
    from ...engine.jobs.runners import connect

    return connect(threads=int(preference("threads")))
