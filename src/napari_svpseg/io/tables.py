"""Tables as CSV files, written atomically."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .atomic import atomic_path


def write_table(
    path: str | Path, columns: Mapping[str, np.ndarray], *, overwrite: bool = False
) -> Path:
    """Write columns of equal length as a CSV file.

    Parameters
    ----------
    path : path
    columns : dict of arrays
        Name and values of each column. Floats are written with six significant digits,
        NaN as an empty cell.
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
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([_text(value) for value in row] for row in rows)
    return path


def _text(value: Any) -> str:
    """Return the content of a cell."""
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.6g}"
    return str(value)
