"""Table of the files of a folder run, fast with thousands of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from qtpy.QtCore import QAbstractTableModel, QEvent, QModelIndex, Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView

from ...core.jobs.folder_job import FileOutcome, image_name
from .controls import WARN_COLOR
from .plain_text import tip_text

COLUMNS = ("File", "Status", "Objects", "Trust")
WIDEST = ("running", "Objects", "Trust")
"""Of all columns but the first, which takes what is left."""
PADDING = 14
"""Of a cell, in pixels."""
WAITING = "waiting"
LOW_TRUST = 0.4
"""Below this a result needs another look."""

COLORS = {"running": "#35c9ff", "failed": "#ff5a4d"}


class FileTable(QAbstractTableModel):
    """Model of the files and their outcomes; only rows in sight are drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.paths: list[str] = []
        self._rows: dict[str, int] = {}
        self._found: dict[str, FileOutcome] = {}

    def set_paths(self, paths: Iterable[str | Path]) -> None:
        """Replace the files; all are waiting."""
        self.beginResetModel()
        self.paths = [str(path) for path in paths]
        self._rows = {path: row for row, path in enumerate(self.paths)}
        self._found = {}
        self.endResetModel()

    def show(self, outcomes: Iterable[FileOutcome]) -> None:
        """Show outcomes of files; files that are not in the table are passed over."""
        for outcome in outcomes:
            row = self._rows.get(outcome.source)
            if row is not None:
                self._found[outcome.source] = outcome
                last = self.index(row, len(COLUMNS) - 1)
                self.dataChanged.emit(self.index(row, 0), last)

    def forget_running(self) -> None:
        """Show files that were in work as waiting again."""
        running = [p for p, o in self._found.items() if o.status == "running"]
        for path in running:
            del self._found[path]
            row = self._rows[path]
            last = self.index(row, len(COLUMNS) - 1)
            self.dataChanged.emit(self.index(row, 0), last)

    def outcome(self, row: int) -> FileOutcome | None:
        """Return the outcome of the file in a row, or None while it waits."""
        return self._found.get(self.paths[row])

    def status(self, row: int) -> str:
        """Return the status that is shown in a row."""
        outcome = self.outcome(row)
        if outcome is None:
            return WAITING
        return "kept" if outcome.skipped else outcome.status

    def count(self, *statuses: str) -> int:
        """Return how many files have one of these statuses."""
        return sum(outcome.status in statuses for outcome in self._found.values())

    # ------------------------------------------------------------ Qt asks for

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Return the number of files."""
        return 0 if parent is not None and parent.isValid() else len(self.paths)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        """Return the number of columns."""
        return len(COLUMNS)

    def headerData(
        self, section: int, orientation: Any, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """Return the name of a column."""
        across = orientation == Qt.Orientation.Horizontal
        if across and role == Qt.ItemDataRole.DisplayRole:
            return COLUMNS[section]
        return None

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return the content of a cell."""
        row, column = index.row(), index.column()
        if role == Qt.ItemDataRole.DisplayRole:
            return self._text(row, column)
        if role == Qt.ItemDataRole.ToolTipRole:
            return tip_text(self.details(row))
        if role == Qt.ItemDataRole.ForegroundRole:
            color = self._color(row)
            return QColor(color) if color else None
        if role == Qt.ItemDataRole.TextAlignmentRole and column > 1:
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        return None

    def details(self, row: int) -> str:
        """Return path, outcome, notes and measurements of a file, one a line."""
        outcome = self.outcome(row)
        lines = [self.paths[row]]
        if outcome is not None:
            lines += [outcome.error] if outcome.error else []
            lines += ["was done before"] if outcome.skipped else []
            lines += outcome.notes
            if outcome.area_mean > 0:
                lines.append(f"mean area {outcome.area_mean:.0f} pixels")
            if outcome.seconds > 0:
                lines.append(f"{outcome.seconds:.1f} s")
        return "\n".join(lines)

    def _text(self, row: int, column: int) -> str:
        if column == 0:
            return image_name(self.paths[row])
        if column == 1:
            return self.status(row)
        outcome = self.outcome(row)
        if outcome is None or outcome.objects < 0:
            return ""
        if column == 2:
            return str(outcome.objects)
        return "" if math.isnan(outcome.trust) else f"{outcome.trust:.2f}"

    def _color(self, row: int) -> str | None:
        outcome = self.outcome(row)
        if outcome is None:
            return None
        if outcome.notes or outcome.trust < LOW_TRUST:
            return WARN_COLOR
        return COLORS.get(outcome.status)


class FileTableView(QTableView):
    """Shows a `FileTable`; a double-click on a row opens its file."""

    def __init__(self, files: FileTable) -> None:
        super().__init__()
        self.setModel(files)
        self.setAccessibleName("Images and their results")
        self.setToolTip("Double-click a file to open it with its labels")
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setShowGrid(False)
        self.setMinimumHeight(140)
        rows, header = self.verticalHeader(), self.horizontalHeader()
        assert rows is not None and header is not None  # Qt's stubs allow None
        rows.hide()
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)  # thousands of files
        header.setMinimumSectionSize(40)
        header.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self._fit()

    def changeEvent(self, event: QEvent | None) -> None:
        """Follow the font."""
        super().changeEvent(event)
        kinds = (QEvent.Type.FontChange, QEvent.Type.StyleChange)
        if event is not None and event.type() in kinds:
            self._fit()

    def _fit(self) -> None:
        """Give columns and rows the room that their texts need."""
        rows, header = self.verticalHeader(), self.horizontalHeader()
        assert rows is not None and header is not None  # Qt's stubs allow None
        metrics = self.fontMetrics()
        rows.setDefaultSectionSize(metrics.height() + 6)
        for section, text in enumerate(WIDEST, start=1):
            header.resizeSection(section, metrics.horizontalAdvance(text) + PADDING)
