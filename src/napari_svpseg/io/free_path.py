"""Names for new files and folders that are not taken yet."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path


def free_path(
    path: Path,
    *,
    suffix: str = "",
    separator: str = " ",
    first: int = 1,
    taken: Container[str] = (),
) -> Path:
    """Return a path that is not taken: this one, else the first with a free number.

    Parameters
    ----------
    path : Path
    suffix : str
        End of the name that the number goes before; a dot alone does not make one, as
        folders may be called ``cells 1.5``.
    separator : str
        Between name and number.
    first : int
        Number to begin with; 1 is the path without a number.
    taken : container of str
        Names that are not free although there is no such file.

    Examples
    --------
    >>> free_path(Path("no/such/tags.csv"), suffix=".csv", separator="-", first=2).name
    'tags-2.csv'
    """
    stem, n = path.name.removesuffix(suffix), first
    while True:
        free = path if n == 1 else path.with_name(f"{stem}{separator}{n}{suffix}")
        if not free.exists() and free.name not in taken:
            return free
        n += 1
