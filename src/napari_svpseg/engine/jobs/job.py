"""Jobs: a call of a module's function, its progress, its end, and how to stop it.

The same job runs in this process, in a child process, or on a Dask cluster. The
function gets two keyword arguments if it takes them: ``on_progress(done, total,
message)``, which raises `Cancelled` when the job is to stop, and ``on_partial(value)``.
Nothing here imports torch.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import logging
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...core.errors import one_line
from ...core.progress import Cancelled

logger = logging.getLogger(__name__)

PROGRESS_INTERVAL_S = 0.05
"""Progress is passed on at most this often; the last step always is."""

_numbers = itertools.count(1)


class JobError(RuntimeError):
    """A job that failed: one line for the user, and the traceback for the log."""

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.message, self.traceback = message, traceback


class TargetError(ValueError):
    """A function that another process cannot import by its name."""


@dataclass(frozen=True, eq=False)
class Event:
    """A report of a job.

    Parameters
    ----------
    kind : str
        ``progress``, ``partial``, or one of the three ends ``done``, ``failed`` and
        ``cancelled``.
    done, total : int
        Of a progress.
    message : str
        Of a progress or a failure, for the user.
    value : object
        Of a partial result, or the result.
    traceback : str
        Of a failure, for the log.
    """

    kind: str
    done: int = 0
    total: int = 0
    message: str = ""
    value: Any = None
    traceback: str = ""

    @property
    def is_end(self) -> bool:
        """Whether nothing follows."""
        return self.kind in ("done", "failed", "cancelled")


OnEvent = Callable[[Event], None]


class Job:
    """A submitted call.

    Parameters
    ----------
    target : str
        ``module:function``.
    on_event : callable, optional
        Receives each `Event` in order, in a thread of the runner.
    stop : callable
        Called once with the job when it is cancelled.
    """

    def __init__(
        self, target: str, on_event: OnEvent | None, stop: Callable[[Job], None]
    ) -> None:
        self.id = next(_numbers)
        self.target = target
        self._on_event = on_event
        self._stop = stop
        self._asked_to_stop = threading.Event()
        self._ended = threading.Event()
        self._end: Event | None = None
        self._lock = threading.Lock()

    @property
    def done(self) -> bool:
        """Whether it ended: with a result, failed or cancelled."""
        return self._ended.is_set()

    @property
    def is_cancelled(self) -> bool:
        """Whether it was asked to stop."""
        return self._asked_to_stop.is_set()

    def cancel(self) -> None:
        """Ask the job to stop; returns at once, the end follows within a second."""
        if not self.done and not self._asked_to_stop.is_set():
            self._asked_to_stop.set()
            self._stop(self)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end; False where it has not come after ``timeout`` seconds."""
        return self._ended.wait(timeout)

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the result.

        Raises
        ------
        JobError, Cancelled
            As the job ended.
        TimeoutError
            If it has not ended after ``timeout`` seconds.
        """
        if not self.wait(timeout):
            raise TimeoutError(f"{self.target} has not ended after {timeout} s")
        assert self._end is not None
        if self._end.kind == "failed":
            raise JobError(self._end.message, self._end.traceback)
        if self._end.kind == "cancelled":
            raise Cancelled(self.target)
        return self._end.value

    def post(self, event: Event) -> None:
        """Take an event from the runner; what comes after the end is dropped."""
        with self._lock:
            if self._end is not None:
                return
            if event.is_end:
                self._end = event
        if self._on_event is not None:
            try:
                self._on_event(event)
            except Exception:
                logger.exception("the receiver of %s events failed", self.target)
        if event.is_end:
            self._ended.set()


def run_target(
    target: str | Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    send: Callable[[Event], None],
    is_cancelled: Callable[[], bool],
) -> None:
    """Call a function, given by itself or by name, and send its events and its end."""
    try:
        if is_cancelled():
            raise Cancelled
        function = find_target(target) if isinstance(target, str) else target
        reports = Reports(send, is_cancelled)
        kwargs = _accepted(function, reports) | kwargs
        end = Event("done", value=function(*args, **kwargs))
    except Cancelled:
        end = Event("cancelled")
    except Exception as error:  # noqa: BLE001  (sent to whoever submitted the job)
        end = failure(error)
    send(end)


def name_of(function: Callable[..., Any]) -> str:
    """Return the name ``module:function`` by which another process imports a function.

    Raises
    ------
    TargetError
        If the function cannot be imported by that name: a method, a lambda, or a
        function defined inside another one.
    """
    name = f"{function.__module__}:{function.__qualname__}"
    if find_target(name) is not function:
        raise TargetError(
            f"{name} is not the function that its module has by this name"
        )
    return name


def find_target(target: str) -> Callable[..., Any]:
    """Return the function named ``module:function``."""
    module, _, name = target.partition(":")
    if not module or not name.isidentifier():
        raise TargetError(f"a job is named 'module:function', got {target!r}")
    function = getattr(importlib.import_module(module), name, None)
    if not callable(function):
        raise TargetError(f"there is no function {name!r} in {module}")
    return function


def failure(error: BaseException) -> Event:
    """Return the event of an error: its message in one line, and its trace."""
    trace = "".join(traceback.format_exception(error))
    return Event("failed", message=one_line(error, hint=""), traceback=trace)


class Reports:
    """The callables that a job reports with; both raise `Cancelled` if it is to stop.

    Parameters
    ----------
    send : callable
        Takes events.
    is_cancelled : callable
    """

    def __init__(
        self, send: Callable[[Event], None], is_cancelled: Callable[[], bool]
    ) -> None:
        self._send, self._is_cancelled = send, is_cancelled
        self._sent_at = -1.0
        self._message: str | None = None

    def on_progress(self, done: int, total: int, message: str = "") -> None:
        """Report how far the job is."""
        if self._is_cancelled():
            raise Cancelled
        now = time.monotonic()
        soon = now - self._sent_at < PROGRESS_INTERVAL_S
        if soon and done < total and message == self._message:
            return
        self._sent_at, self._message = now, message
        self._send(Event("progress", int(done), int(total), str(message)))

    def on_partial(self, value: Any) -> None:
        """Hand over a part of the result."""
        if self._is_cancelled():
            raise Cancelled
        self._send(Event("partial", value=value))


def _accepted(function: Callable[..., Any], reports: Reports) -> dict[str, Any]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some built-in functions have no signature
        return {}
    names = {p.name for p in parameters}
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return {
        name: getattr(reports, name)
        for name in ("on_progress", "on_partial")
        if takes_all or name in names
    }
