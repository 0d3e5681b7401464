"""Text from files, made safe to show in a terminal or a window."""

from __future__ import annotations

import unicodedata

UNSHOWN = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories: control characters, halves of characters, ends of lines."""

HIDDEN = frozenset(
    "\u061c\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2061\u2062\u2063\u2064"
    "\u2066\u2067\u2068\u2069\ufeff"
) | frozenset(map(chr, (0xE0001, *range(0xE0020, 0xE0080))))
"""Characters that are not seen and change the order or the look of others.

Those that scripts need to join letters are not among them.
"""


def escaped(text: object) -> str:
    r"""Return a text in which control and hidden characters are seen as escapes.

    A name from a file may hold what a terminal takes as a command, an end of a line, or
    marks that show it in another order.

    Parameters
    ----------
    text : object
        A text, or a path or number whose text is taken.

    Examples
    --------
    >>> print(escaped("red \x1b[31m \u202egpj.exe"))
    red \x1b[31m \u202egpj.exe
    """
    text = str(text)
    if text.isprintable():  # most are
        return text
    return "".join(_escape(c) if _is_unsafe(c) else c for c in text)


def _is_unsafe(character: str) -> bool:
    return character in HIDDEN or unicodedata.category(character) in UNSHOWN


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
