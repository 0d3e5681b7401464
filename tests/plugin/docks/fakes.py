"""A view and a thread of files that remember, for controllers without a window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import jobs


class FakeEngine(jobs.Engine):
    """Jobs are prepared at once, so that their arguments can be looked at."""

    def submit_prepared(
        self, function: Callable[..., Any], prepare: Callable[[], Any]
    ) -> jobs.Job:
        job = super().submit_prepared(function, prepare)
        job.args, job.kwargs = prepare()
        return job

    @property
    def job(self) -> jobs.Job:
        """The latest job."""
        return self.jobs[-1]


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


class FakeView(jobs.View):
    """Keeps all messages, and the calls of setters that it does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[tuple[str, bool]] = []
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def say(self, text: str, error: bool = False) -> None:
        super().say(text, error)
        self.messages.append((text, error))

    def called(self, name: str) -> list[tuple[Any, ...]]:
        """Return the arguments of all calls of a setter."""
        return [args for called, args in self.calls if called == name]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.calls.append((name, args))
