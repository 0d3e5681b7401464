"""Errors as the user reads them: one line."""

from __future__ import annotations

DEBUG = "SVPSEG_DEBUG"
"""Environment variable that asks for the whole trace."""


def one_line(error: BaseException) -> str:
    """Return an error's message as one line; its type where the text says little.

    Examples
    --------
    >>> one_line(ValueError("no   such model"))
    'no such model'
    """
    if isinstance(error, OSError) and error.strerror:
        names = [str(n) for n in (error.filename, error.filename2) if n is not None]
        return ": ".join([*names, error.strerror])
    text = joined(str(error))
    if isinstance(error, ValueError | TypeError | OSError | RuntimeError) and text:
        return text
    return f"{type(error).__name__}: {text} (set {DEBUG}=1 to see where)"


def joined(text: str) -> str:
    """Return a text with its lines and spaces joined by single spaces."""
    return " ".join(text.split())
