"""The choice of an image's axes, whose list shows how long each axis is."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QModelIndex, Qt
from qtpy.QtWidgets import QStyledItemDelegate

from .controls import ElidedCombo, narrow
from .plain_text import tip_text

SHOWN_AS = Qt.ItemDataRole.UserRole + 1


class AxesCombo(ElidedCombo):
    """Letters of axes; in the open list each has its length beside it.

    Parameters
    ----------
    tip : str
    """

    def __init__(self, tip: str) -> None:
        super().__init__()
        self.setToolTip(tip_text(tip))
        narrow(self)
        self.setItemDelegate(_Sizes(self))

    def show_as(self, row: int, text: str) -> None:
        """Show an entry of the list by another text."""
        self.setItemData(row, text, SHOWN_AS)
        wanted = self.fontMetrics().horizontalAdvance(text) + 24
        view = self.view()
        if view is not None:
            view.setMinimumWidth(max(view.minimumWidth(), wanted))


class _Sizes(QStyledItemDelegate):
    """Draws the text that an entry is shown as."""

    def initStyleOption(self, option: Any, index: QModelIndex) -> None:
        """Give the entry the text that it is shown as."""
        super().initStyleOption(option, index)
        option.text = str(index.data(SHOWN_AS) or index.data() or "")
