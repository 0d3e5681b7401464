"""Tables as CSV, whole or not at all."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .atomic import atomic_path


def write_table(path: str | Path, columns: Mapping[str, np.ndarray]) -> Path:
    """Write columns of equal length as CSV.

    Numbers have as many digits as they need; what is not known is empty.

    Returns
    -------
    Path
        The file written.
    """
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return write_rows(path, list(columns), rows)


def write_rows(
    path: str | Path, names: Sequence[str], rows: Iterable[Sequence[Any]]
) -> Path:
    """Write rows of plain values as CSV; see `write_table`."""
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
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.6g}"
    return str(value)
