"""Outcome of a training: curves, scores, and the models before and after."""

from __future__ import annotations

from qtpy.QtWidgets import QVBoxLayout, QWidget

from ..controls import heading, wrap
from ..plain_text import HtmlLabel
from .comparison import Comparison
from .curves import Curves


class TrainingOutcome(QWidget):
    """Hidden until the first training begins.

    Parameters
    ----------
    curves : Curves
    compare : Comparison
    """

    def __init__(self, curves: Curves, compare: Comparison) -> None:
        super().__init__()
        self.curves, self.compare = curves, compare
        self.scores = HtmlLabel()
        wrap(self.scores)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        for widget in (heading("Progress"), curves, self.scores, compare):
            column.addWidget(widget)
        self.hide()

    def begin(self) -> None:
        """Show that a training begins: nothing is known of it yet."""
        self.compare.clear()
        self.curves.clear()
        self.scores.setText("")
        self.show()
