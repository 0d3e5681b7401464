"""The verdict of a case: in which column of the table it counts, and why."""

from __future__ import annotations

import re
from dataclasses import dataclass

from napari_svpseg.core.errors import DEBUG

from .case import Expected, Seen

RIGHT, UNCLEAR, WRONG, LOST, HUNG = COLUMNS = (
    "clear error or right result", "unclear", "silently wrong", "lost", "hung"
)  # fmt: skip

LONGEST = 700
"""Characters of a line that a person still reads."""

INSIDE = re.compile(
    r"Traceback|\b(?:Key|Index|Attribute|Assertion|Type|Unicode\w+|Recursion|Memory|"
    rf"NotImplemented|ZeroDivision|Unbound\w+)Error\b|{DEBUG}|0x[0-9a-f]{{8,}}|"
    r'File "|\.py\b|allow_pickle|\blambda\b|<class|object at 0x'
)
"""What only a programmer understands."""


@dataclass(frozen=True)
class Verdict:
    """Column of the table, and the reason where it is not the first."""

    column: str
    why: str = ""


def judge(expected: Expected, seen: Seen) -> Verdict:
    """Return the verdict of a case that came to an end."""
    changed = [
        p for p in seen.changed if not p.startswith(expected.replaced or ("\0",))
    ]
    if changed:
        return Verdict(LOST, f"changed or gone: {', '.join(changed[:3])}")
    if seen.fault:
        return Verdict(WRONG, seen.fault)
    if seen.status == 0:
        if expected.check is None:
            return Verdict(WRONG, f"no error: {_end(seen.out or repr(seen.value))}")
    elif expected.names is None:
        return Verdict(UNCLEAR, f"refused, though it is valid: {_end(seen.error)}")
    unclear = unclear_in(seen.error, expected.names if seen.status else ())
    if unclear:
        return Verdict(UNCLEAR, f"{unclear}: {_end(seen.error)}")
    if seen.left:
        return Verdict(UNCLEAR, f"left behind: {', '.join(seen.left[:3])}")
    return Verdict(RIGHT)


def unclear_in(text: str, names: tuple[str, ...] | None) -> str:
    """Return what is unclear in messages, empty if nothing is.

    Parameters
    ----------
    text : str
        Standard error of a command, or the message of an exception after ``svpseg: ``.
    names : tuple of str
        What one of the lines must name, in lower case or not.
    """
    lines = text.splitlines()
    if names is not None and names and not lines:
        return "no message"
    for line in lines:
        if not line.startswith("svpseg: "):
            return "a line that is not ours"
        if found := INSIDE.search(line):
            return f"'{found.group()}' is for programmers"
        if len(line) > LONGEST:
            return "too long"
        if not line.isprintable():
            return "control characters"
        if len(line) < len("svpseg: ") + 8:
            return "says nothing"
    whole = text.lower()
    missing = [name for name in names or () if name.lower() not in whole]
    return f"does not name {missing[0]}" if missing else ""


def _end(text: str) -> str:
    """Return the end of a text, as one line."""
    return " ".join(text.split())[-260:] or "no word"
