"""Errors as the user reads them: one line."""

from __future__ import annotations

import re

from .escapes import escaped

DEBUG = "SVPSEG_DEBUG"
"""Environment variable that asks for the whole trace."""

SEE_WHERE = f" (set {DEBUG}=1 to see where)"

EXPECTED = (ValueError, TypeError, OSError, RuntimeError)
"""Kinds of errors whose message is enough; of others the type is told as well."""


CLASS = re.compile(r"<class '([\w.]+)'>")
"""How Python shows a type, of which the name says enough."""


class WriteError(OSError):
    """A file that could not be written; the message says why and what to do."""


def one_line(error: BaseException, hint: str = SEE_WHERE) -> str:
    """Return an error's message as one line, with its type where that says more.

    Control characters in it, such as those of a file name, are written as escapes.

    Parameters
    ----------
    error : exception
    hint : str
        Added to errors that nobody expected.

    Examples
    --------
    >>> one_line(ValueError("no   such model"))
    'no such model'
    >>> one_line(KeyError("a"), hint="")
    "KeyError: 'a'"
    """
    if isinstance(error, OSError) and error.strerror:
        names = [str(n) for n in (error.filename, error.filename2) if n is not None]
        return escaped(": ".join([*names, error.strerror]))
    text = escaped(joined(str(error)))
    if isinstance(error, EXPECTED) and text:
        return text
    return f"{type(error).__name__}{': ' if text else ''}{text}{hint}"


def short_line(error: BaseException, limit: int = 200) -> str:
    """Return an error's message as one line that is at most ``limit`` letters long.

    For messages that repeat what a damaged file holds, and for torch's. Files are
    left out, as the message that this becomes a part of names them.
    """
    strerror = error.strerror if isinstance(error, OSError) else None
    text = CLASS.sub(r"\1", joined(strerror or str(error)))
    text = escaped(text) or type(error).__name__
    return text if len(text) <= limit else f"{text[:limit]}..."


def joined(text: str) -> str:
    """Return a text with its lines and spaces joined by single spaces."""
    return " ".join(text.split())
