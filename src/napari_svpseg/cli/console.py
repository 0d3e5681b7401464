"""What commands say: results on stdout, all else on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable


def progress_line(name: str) -> Callable[..., None]:
    """Return a callable that rewrites one line of a terminal, and is silent else."""

    def show(done: int, total: int, message: str = "") -> None:
        if sys.stderr.isatty():
            text = f"{name}: {done}/{total} {message}"[:79]
            sys.stderr.write(f"\r{text:<79}")
            sys.stderr.flush()

    return show


def end_line() -> None:
    """Clear the line of progress."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{'':<79}\r")


def plural(n: int, word: str) -> str:
    """Return a count and its word."""
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def say(text: str) -> None:
    """Print on stderr."""
    print(text, file=sys.stderr, flush=True)
