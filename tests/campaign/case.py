"""A case of the campaign: what makes the input, what is done, what is expected."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Action = Sequence[object] | Callable[[], Any]
"""Words of the command line, or a call without arguments."""


@dataclass
class Seen:
    """What a case did, as far as a user can see it."""

    status: int = 0
    out: str = ""
    error: str = ""
    value: Any = None
    changed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    fault: str = ""


Check = Callable[[Path, Seen], None]
"""Raises AssertionError where a result, in this folder, is not right."""


@dataclass(frozen=True)
class Expected:
    """The outcome that is right: an error that names things, a result, or either.

    Parameters
    ----------
    names : tuple of str, optional
        What the one line of an error has to name; None: no error is right.
    check : callable, optional
        What a result has to be; None: no result is right.
    replaced : tuple of str
        Input files, by the start of their path, that the action may change.
    always : callable, optional
        What has to be true after an error as well, such as the other files being done.
    """

    names: tuple[str, ...] | None = None
    check: Check | None = None
    replaced: tuple[str, ...] = ()
    always: Check | None = None


def refused(*names: str) -> Expected:
    """Expect a clear error of one line that names these."""
    return Expected(names=names)


def right(check: Check, *replaced: str) -> Expected:
    """Expect a result that passes a check."""
    return Expected(check=check, replaced=replaced)


def either(check: Check, *names: str) -> Expected:
    """Expect a clear error, or a result that passes a check."""
    return Expected(names=names, check=check)


def partly(check: Check, *names: str) -> Expected:
    """Expect a clear error about some files, and the others done."""
    return Expected(names=names, always=check)


@dataclass(frozen=True)
class Place:
    """Where a case works: an empty folder, and the shared data that it reads."""

    here: Path
    base: Path


@dataclass(frozen=True)
class Case:
    """One input, what is done with it, and what has to come of it."""

    group: str
    name: str
    make: Callable[[Place], Action]
    expected: Expected

    @property
    def title(self) -> str:
        """Return the name by which the case is run alone."""
        return f"{self.group}/{self.name}"


def content(folder: Path) -> dict[str, str]:
    """Return the hash of each file below a folder, by its path."""
    found = {}
    for root, folders, names in os.walk(folder):
        for name in [*names, *(f for f in folders if Path(root, f).is_symlink())]:
            path = Path(root, name)
            if path.is_symlink():
                digest = f"-> {os.readlink(path)}"
            elif path.is_file():
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                digest = "special"
            found[str(path.relative_to(folder))] = digest
    return found
