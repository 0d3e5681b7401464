"""Tables as CSV files, written atomically."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import printable
from .atomic import atomic_path


def write_table(path: str | Path, columns: Mapping[str, np.ndarray]) -> Path:
    """Write columns of equal length as a CSV file.

    Parameters
    ----------
    path : path
    columns : dict of arrays
        Name and values of each column. Floats are written with six significant digits,
        NaN as an empty cell.

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
    return write_rows(path, list(columns), rows)


def write_rows(
    path: str | Path, names: Sequence[str], rows: Iterable[Sequence[Any]]
) -> Path:
    """Write rows of plain values as a CSV file; see `write_table`.

    Parameters
    ----------
    path : path
    names : sequence of str
        Names of the columns.
    rows : iterable of sequences
        Values in the order of ``names``.
    """
    path = Path(path)
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([_text(value) for value in row] for row in rows)
    return path


def _text(value: Any) -> str:
    """Return the content of a cell."""
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.6g}"
    return printable(str(value))
