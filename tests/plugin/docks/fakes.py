"""A view, an engine and a thread that are none: controllers are tested without Qt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class FakeSignal:
    """Calls what is connected."""

    def __init__(self) -> None:
        self._slots: list[Callable[..., None]] = []

    def connect(self, slot: Callable[..., None]) -> None:
        self._slots.append(slot)

    def emit(self, *args: Any) -> None:
        for slot in self._slots:
            slot(*args)


class FakeJob:
    """A job that ends when the test says so."""

    def __init__(self, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs
        self.is_cancelled = False
        for name in (
            "progressed",
            "partial",
            "returned",
            "failed",
            "cancelled",
            "finished",
        ):
            setattr(self, name, FakeSignal())

    def cancel(self) -> None:
        self.is_cancelled = True
        self.cancelled.emit()
        self.finished.emit()

    def returns(self, value: Any) -> None:
        self.returned.emit(value)
        self.finished.emit()

    def fails(self, text: str) -> None:
        self.failed.emit(text)
        self.finished.emit()


class FakeEngine:
    """Takes jobs and runs none."""

    def __init__(self) -> None:
        self.jobs: list[FakeJob] = []

    @property
    def job(self) -> FakeJob:
        """The latest job."""
        return self.jobs[-1]

    def submit(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.jobs.append(FakeJob(function, args, kwargs))
        return self.job

    def submit_prepared(self, function: Callable[..., Any], prepare: Any) -> Any:
        args, kwargs = prepare()
        return self.submit(function, *args, **kwargs)


class FakeFiles:
    """Calls wait, as for a thread, until the test runs them."""

    def __init__(self) -> None:
        self._calls: list[tuple[Any, Any, Any]] = []

    def call(self, work: Any, then: Any, failed: Any = None) -> None:
        self._calls.append((work, then, failed))

    def run(self) -> None:
        """Do what waits, and what that leads to."""
        while self._calls:
            work, then, failed = self._calls.pop(0)
            try:
                value = work()
            except Exception as error:  # noqa: BLE001
                if failed is not None:
                    failed(error)
            else:
                then(value)


class FakeView:
    """Remembers what it was told to show."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, bool]] = []
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    @property
    def message(self) -> str:
        """The latest message."""
        return self.messages[-1][0]

    @property
    def is_error(self) -> bool:
        """Whether the latest message is an error."""
        return self.messages[-1][1]

    def say(self, text: str, error: bool = False) -> None:
        self.messages.append((text, error))

    def called(self, name: str) -> list[tuple[Any, ...]]:
        """Return the arguments of all calls of a setter."""
        return [args for called, args in self.calls if called == name]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.calls.append((name, args))
