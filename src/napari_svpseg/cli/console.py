"""Output of commands: results on stdout, all else on stderr."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any, TextIO

from ..core.escapes import escaped
from ..core.progress import Progress

WIDTH = 79
"""Columns of the line of progress."""


def progress_line(name: str) -> Progress:
    """Return a callable that rewrites one line of a terminal; silent without one."""

    def show(done: int, total: int, message: str = "") -> None:
        if sys.stderr.isatty():
            text = escaped(f"{name}: {done}/{total} {message}")[:WIDTH]
            sys.stderr.write(f"\r{text:<{WIDTH}}")
            sys.stderr.flush()

    return show


def end_line() -> None:
    """Clear the line of progress."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{'':<{WIDTH}}\r")


def plural(n: int, word: str) -> str:
    """Return a count and its noun.

    Examples
    --------
    >>> plural(1, "image"), plural(2, "box")
    ('1 image', '2 boxes')
    """
    if n == 1:
        return f"1 {word}"
    return f"{n} {word}es" if word.endswith("x") else f"{n} {word}s"


def failures(failed: int, total: int) -> str:
    """Return how many images failed, and whether there are others.

    Examples
    --------
    >>> failures(1, 1), failures(3, 3)
    ('1 image failed', 'all 3 images failed')
    >>> failures(1, 5)
    '1 of 5 images failed, the others are done'
    """
    if failed < total:
        return f"{failed} of {plural(total, 'image')} failed, the others are done"
    return f"{'all ' if total > 1 else ''}{plural(total, 'image')} failed"


def show(text: object, file: TextIO | None = None) -> None:
    """Print a line, by default on stdout; control characters of names are escaped."""
    print(escaped(text), file=file, flush=True)


def show_lines(text: str, file: TextIO | None = None) -> None:
    """Print a text of several lines; see `show`."""
    for line in text.splitlines():
        show(line, file)


def show_json(value: Any) -> None:
    """Print plain values for machines."""
    print(json.dumps(value, indent=1), flush=True)  # all but ASCII is escaped


def say(text: str) -> None:
    """Print a line on stderr, after the name of the program."""
    show(f"svpseg: {text}", sys.stderr)


class LogLine(logging.Formatter):
    """Formats a message of the log like those of `say`."""

    def __init__(self) -> None:
        super().__init__("svpseg: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the message, in which only ends of lines are control characters."""
        return "\n".join(map(escaped, super().format(record).splitlines()))
