"""Progress of long work, reported to one callable that may also cancel it."""

from __future__ import annotations

from typing import Protocol


class Cancelled(Exception):
    """Raised by a progress callable to stop the work that called it."""


class Progress(Protocol):
    """Called with ``(done, total, message)``; may raise `Cancelled`."""

    def __call__(self, done: int, total: int, message: str = "") -> None:
        """Report that ``done`` of ``total`` steps are finished."""


def ignore_progress(done: int, total: int, message: str = "") -> None:
    """Ignore progress and never cancel; for callers that do not show any."""
