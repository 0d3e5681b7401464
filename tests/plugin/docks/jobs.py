"""An engine whose jobs end when a test says so, and a view that remembers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Signal:
    """Calls what is connected to it, at once."""

    def __init__(self) -> None:
        self._receivers: list[Callable[..., None]] = []

    def connect(self, receiver: Callable[..., None]) -> None:
        self._receivers.append(receiver)

    def emit(self, *values: Any) -> None:
        for receiver in list(self._receivers):
            receiver(*values)


class Job:
    """What `EngineJob` is for a controller."""

    def __init__(self, function: Callable[..., Any], prepare: Callable[[], Any]):
        self.function, self.prepare = function, prepare
        self.is_cancelled = False
        for name in (
            "progressed", "partial", "returned", "failed", "cancelled", "finished",
        ):  # fmt: skip
            setattr(self, name, Signal())

    def cancel(self) -> None:
        self.is_cancelled = True

    def end(self, signal: str, *values: Any) -> None:
        """Emit ``returned``, ``failed`` or ``cancelled``, and then ``finished``."""
        getattr(self, signal).emit(*values)
        self.finished.emit()


class Engine:
    """What `services.engine_process.Engine` is for a controller."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.is_closed = False

    def submit(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Job:
        return self.submit_prepared(function, lambda: (args, kwargs))

    def submit_prepared(
        self, function: Callable[..., Any], prepare: Callable[[], Any]
    ) -> Job:
        self.jobs.append(Job(function, prepare))
        return self.jobs[-1]

    def close(self) -> None:
        self.is_closed = True


class View:
    """The setters of `DockView`; what was shown last is kept."""

    def __init__(self) -> None:
        self.message, self.is_error, self.is_busy = "", False, False
        self.is_stopping = False
        self.progress: tuple[int, int, str] = (0, 0, "")
        self.n_states = 0

    def say(self, text: str, error: bool = False) -> None:
        self.message, self.is_error = text, error

    def show_busy(self, busy: bool) -> None:
        self.is_busy, self.is_stopping = busy, False

    def show_progress(self, done: int, total: int, text: str = "") -> None:
        self.progress = (done, total, text)

    def show_stopping(self) -> None:
        self.is_stopping = True

    def show_state(self) -> None:
        self.n_states += 1
