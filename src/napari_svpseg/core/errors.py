"""Errors as the user reads them: one line."""

from __future__ import annotations

import unicodedata

DEBUG = "SVPSEG_DEBUG"
"""Environment variable that asks for the whole trace."""

SEE_WHERE = f" (set {DEBUG}=1 to see where)"

EXPECTED = (ValueError, TypeError, OSError, RuntimeError)
"""Kinds of errors whose message is enough; of others the type is told as well."""


ODD_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")
"""Unicode's categories of control characters, surrogates and line separators."""

TURNS_TEXT = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that turn the text around them, which disguises a name."""


def one_line(error: BaseException, hint: str = SEE_WHERE) -> str:
    """Return an error's message as one line, with its type where that says more.

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
        return ": ".join([*names, error.strerror])
    text = joined(str(error))
    if isinstance(error, EXPECTED) and text:
        return text
    return f"{type(error).__name__}{': ' if text else ''}{text}{hint}"


def short_line(error: BaseException, limit: int = 200) -> str:
    """Return an error's message as one line that is at most ``limit`` letters long.

    For messages that repeat what a damaged file holds, and for torch's.
    """
    text = joined(str(error)) or type(error).__name__
    return text if len(text) <= limit else f"{text[:limit]}..."


def printable(text: str) -> str:
    r"""Return a text with control characters and undecodable bytes as escapes.

    Names of files may hold both: a line break would break a table's row, an escape
    character speaks to the terminal, and half a surrogate pair (a byte that is no
    UTF-8) can be written nowhere.

    Examples
    --------
    >>> print(printable("a\nb"), printable("caf\udce9.tif"), printable("日.tif"))
    a\nb caf\udce9.tif 日.tif
    """
    return "".join(
        c.encode("unicode_escape").decode()
        if unicodedata.category(c) in ODD_CATEGORIES or c in TURNS_TEXT
        else c
        for c in text
    )


def joined(text: str) -> str:
    """Return a text with its lines and spaces joined by single spaces."""
    return " ".join(text.split())
