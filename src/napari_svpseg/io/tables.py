"""Tables as CSV files, written atomically."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ..core.escapes import escaped
from .atomic import atomic_path

FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
"""Start of a text that a spreadsheet would calculate, or that was quoted for that."""


def write_table(
    path: str | Path, columns: Mapping[str, np.ndarray], *, overwrite: bool = False
) -> Path:
    """Write columns of equal length as a CSV file.

    Parameters
    ----------
    path : path
    columns : dict of arrays
        Name and values of each column. Floats are written with 15 significant digits,
        NaN as an empty cell, text as `quoted` makes it.
    overwrite : bool
        Allow to replace a file that no run of this program wrote.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    WriteError
        If the file cannot be written.
    """
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return write_rows(path, list(columns), rows, overwrite=overwrite)


def write_rows(
    path: str | Path,
    names: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    overwrite: bool = False,
) -> Path:
    """Write rows of plain values as a CSV file; see `write_table`.

    Parameters
    ----------
    path : path
    names : sequence of str
        Names of the columns.
    rows : iterable of sequences
        Values in the order of ``names``.
    overwrite : bool
        Allow to replace a file that no run of this program wrote.
    """
    path = Path(path)
    with (
        atomic_path(path, overwrite) as temporary,
        open(temporary, "w", encoding="utf-8", newline="") as file,
    ):
        writer = csv_writer(file)
        writer.writerow([_text(name) for name in names])
        writer.writerows([_text(value) for value in row] for row in rows)
    return path


def tab_separated(columns: Mapping[str, np.ndarray]) -> str:
    r"""Return columns of equal length as text that spreadsheets paste into cells.

    Parameters
    ----------
    columns : dict of arrays
        As for `write_table`.

    Examples
    --------
    >>> tab_separated({"label": np.array([1, 2]), "area": np.array([3.5, 4.0])})
    'label\tarea\n1\t3.5\n2\t4\n'
    """
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow([_text(name) for name in columns])
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    writer.writerows([_text(value) for value in row] for row in rows)
    return text.getvalue()


def csv_writer(file: TextIO) -> Any:
    """Return a writer of CSV rows that end with a line feed.

    Python before 3.13 quotes a carriage return only where lines end with one.
    """
    return csv.writer(_LineFeeds(file), lineterminator="\r\n")


class _LineFeeds:
    """Writes rows that end with a carriage return without it."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, row: str) -> int:
        """Write a row."""
        return self._file.write(row.removesuffix("\r\n") + "\n")


def _text(value: Any) -> str:
    """Return the content of a cell."""
    if isinstance(value, float):
        # all digits that a decimal number keeps, and no 0.30000000000000004
        return "" if np.isnan(value) else f"{value:.15g}"
    return quoted(escaped(value)) if isinstance(value, str) else str(value)


def quoted(text: str) -> str:
    """Return a text as a cell that no spreadsheet takes for a formula.

    A spreadsheet calculates what begins with ``=``, ``+``, ``-`` or ``@``, and so can
    run a command that is the name of a file. An apostrophe in front makes it text.

    Examples
    --------
    >>> quoted("=1+1.tif"), quoted("cells.tif"), quoted("'-1.tif")
    ("'=1+1.tif", 'cells.tif', "''-1.tif")
    """
    return f"'{text}" if FORMULA.match(text) else text


def unquoted(cell: str) -> str:
    """Return the text that `quoted` made a cell of."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell
