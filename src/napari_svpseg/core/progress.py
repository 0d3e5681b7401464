"""Progress of long work, and its cancelling: one plain callable."""

from __future__ import annotations

from typing import Protocol


class Cancelled(Exception):
    """Raised by a progress callable to stop the work that called it."""


class Progress(Protocol):
    """Called with ``(done, total, message)``; may raise `Cancelled`."""

    def __call__(self, done: int, total: int, message: str = "") -> None:
        """Report that ``done`` of ``total`` steps are done."""


def ignore_progress(done: int, total: int, message: str = "") -> None:
    """Report nothing and never stop."""
