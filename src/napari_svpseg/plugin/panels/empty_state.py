"""What an empty list shows: the next thing to do, with a small picture."""

from __future__ import annotations

from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QHBoxLayout, QWidget

from .controls import wrap
from .plain_text import PlainLabel

SIDE = 64
"""Of the picture, in pixels of the screen."""

BOX_COLOR = "#ffb000"
CELLS = ((18, 20, 9), (46, 15, 7), (34, 38, 10), (13, 49, 7), (54, 52, 8))
"""Centre (x, y) and radius of the cells in the picture."""


class EmptyState(QWidget):
    """The next thing to do in words, beside a picture of it.

    The picture shows an image of cells, with a box at the pointer where a click is the
    next thing to do.
    """

    def __init__(self) -> None:
        super().__init__()
        self.picture = Picture()
        self.text = PlainLabel()
        wrap(self.text)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 2, 0, 2)
        row.setSpacing(10)
        row.addWidget(self.picture)
        row.addWidget(self.text, 1)

    def show_step(self, text: str, *, is_click: bool) -> None:
        """Show what to do next.

        Parameters
        ----------
        text : str
        is_click : bool
            Whether it is a click on the image.
        """
        self.text.setText(text)
        self.picture.has_box = is_click
        self.picture.update()


class Picture(QWidget):
    """An image of cells, with or without a box at the pointer."""

    def __init__(self) -> None:
        super().__init__()
        self.has_box = False
        self.setFixedSize(SIDE, SIDE)

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw the picture in the colours of the theme."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        text = self.palette().windowText().color()
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(_faint(text, 30))
        painter.drawRoundedRect(QRectF(0, 0, SIDE, SIDE), 5, 5)
        painter.setBrush(_faint(text, 120 if self.has_box else 70))
        for x, y, radius in CELLS:
            painter.drawEllipse(QPointF(x, y), radius, radius * 0.85)
        if self.has_box:
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(QPen(QColor(BOX_COLOR), 2))
            painter.drawRect(QRectF(18, 22, 32, 32))
            painter.setPen(QPen(QColor("black"), 1))
            painter.setBrush(QColor("white"))
            painter.drawPolygon(_pointer(36.0, 39.0))
        painter.end()


def _pointer(x: float, y: float) -> QPolygonF:
    """Return the outline of a mouse pointer with its tip at a point."""
    outline = ((0, 0), (0, 15), (4, 11), (6.5, 16.5), (9, 15.5), (6.5, 10), (11, 10))
    return QPolygonF([QPointF(x + dx, y + dy) for dx, dy in outline])


def _faint(color: QColor, alpha: int) -> QColor:
    made = QColor(color)
    made.setAlpha(alpha)
    return made
