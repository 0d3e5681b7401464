"""The list of prompts: a thumbnail, a name and switches for each."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtGui import QColor, QPainter, QPen, QPixmap
from qtpy.QtWidgets import (
    QCheckBox,
    QFrame,
    QHBoxLayout,
    QLineEdit,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from ...core.geometry import PROMPT_SIZE
from ...core.image import resize_image, resize_labels
from ..callbacks import reports_errors
from ..layers.prompts.prompt_book import PromptBook
from ..layers.prompts.prompt_item import NEGATIVE_COLOR, PromptItem, outline_color
from .controls import WARN_COLOR, button, set_style, wrap
from .empty_state import EmptyState
from .plain_text import PlainLabel, tip_text
from .tags.pixmaps import to_pixmap

THUMBNAIL = 56
"""Side of a thumbnail on screen, in pixels."""


def thumbnail(item: PromptItem) -> np.ndarray:
    """Return the crop with its mask drawn over it.

    Returns
    -------
    (64, 64, 3) uint8 array
    """
    side = (PROMPT_SIZE, PROMPT_SIZE)
    if item.crop is None:
        return np.full((*side, 3), 60, np.uint8)
    crop = item.crop[..., :3]
    image = resize_image(crop, side)
    image = image.astype(np.uint8) if is_colour(crop) else visible(image)
    shown = item.shown_object
    if shown is None:
        return image
    mask = np.maximum(resize_labels(shown.astype(np.int32), side), 0)
    color = np.array(QColor(outline_color(item)).getRgb()[:3], float)
    inside, edge = mask > 0, _edges(mask)
    shaded = image.astype(float)
    shaded[inside] = 0.72 * shaded[inside] + 0.28 * color
    shaded[edge] = color
    return np.asarray(shaded, np.uint8)


def is_colour(image: np.ndarray) -> bool:
    """Return whether an image has 8 bit colours, which are shown as they are."""
    return image.dtype == np.uint8 and image.shape[-1] == 3


def visible(crop: np.ndarray) -> np.ndarray:
    """Return a crop stretched to 0-255, with three channels."""
    finite = np.nan_to_num(crop, posinf=0.0, neginf=0.0)
    low, high = np.percentile(finite, [1, 99.5])
    scaled = np.clip((finite - low) / max(high - low, 1e-9), 0, 1) * 255
    if scaled.shape[2] == 2:
        scaled = np.concatenate([scaled, scaled[..., :1]], axis=2)
    return np.asarray(np.broadcast_to(scaled, (*crop.shape[:2], 3)), np.uint8).copy()


def _edges(mask: np.ndarray) -> np.ndarray:
    """Return the pixels of objects that touch another id."""
    edge = np.zeros(mask.shape, bool)
    edge[1:] |= mask[1:] != mask[:-1]
    edge[:-1] |= mask[1:] != mask[:-1]
    edge[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    edge[:, :-1] |= mask[:, 1:] != mask[:, :-1]
    return edge & (mask > 0)


def pixmap(item: PromptItem, ratio: float = 1.0) -> QPixmap:
    """Return an item's thumbnail, framed in its colour."""
    scaled = to_pixmap(thumbnail(item), round(THUMBNAIL * ratio))
    painter = QPainter(scaled)
    if not item.enabled:
        painter.fillRect(scaled.rect(), QColor(38, 41, 48, 170))
    pen = QPen(QColor(outline_color(item)))
    pen.setWidth(round(3 * ratio))
    painter.setPen(pen)
    painter.drawRect(scaled.rect().adjusted(1, 1, -2, -2))
    painter.end()
    scaled.setDevicePixelRatio(ratio)
    return scaled


class PromptRow(QFrame):
    """One prompt of the list."""

    clicked = Signal(str)
    renamed = Signal(str, str)
    toggled = Signal(str, bool)
    negated = Signal(str, bool)
    deleted = Signal(str)
    asked = Signal(str)
    """The user wants to say which object in the box is wrong."""

    def __init__(self, item_id: str) -> None:
        super().__init__()
        self.item_id = item_id
        self.setObjectName("svpsegPromptRow")
        self.setMinimumHeight(THUMBNAIL + 10)  # with its frame, in a low dock too
        self.thumbnail = PlainLabel()
        self.thumbnail.setFixedSize(THUMBNAIL, THUMBNAIL)
        self.name = QLineEdit()
        self.name.setFrame(False)
        self.name.setAccessibleName("Name of this prompt")
        self.name.setToolTip("Name of this prompt: click to change it")
        self.name.editingFinished.connect(
            lambda: self.renamed.emit(self.item_id, self.name.text().strip())
        )
        self.status = PlainLabel()
        wrap(self.status)
        self.enabled = QCheckBox()
        self.enabled.setToolTip("Use this prompt")
        self.enabled.setAccessibleName("Use this prompt")
        self.enabled.toggled.connect(lambda on: self.toggled.emit(self.item_id, on))
        self.negative = _tool("–", "Negative: this is what you do not want")
        self.negative.setCheckable(True)
        self.negative.setStyleSheet(
            f"QToolButton:checked {{background: {NEGATIVE_COLOR}; color: black;}}"
        )
        self.negative.toggled.connect(lambda on: self.negated.emit(self.item_id, on))
        self.delete = _tool("✕", "Delete this prompt")
        self.delete.clicked.connect(lambda: self.deleted.emit(self.item_id))
        self.which = button(
            "Click what is wrong",
            "Click on the wrong object in the box: the rest of it is then not unwanted",
        )
        self.which.clicked.connect(lambda: self.asked.emit(self.item_id))
        self._lay_out()

    def _lay_out(self) -> None:
        top = QHBoxLayout()
        top.setSpacing(2)
        top.addWidget(self.name, 1)
        top.addWidget(self.negative)
        top.addWidget(self.delete)
        text = QVBoxLayout()
        text.setSpacing(2)
        text.addLayout(top)
        text.addWidget(self.status)
        text.addWidget(self.which)
        row = QHBoxLayout(self)
        row.setContentsMargins(4, 4, 4, 4)
        row.setSpacing(6)
        row.addWidget(self.enabled)
        row.addWidget(self.thumbnail)
        row.addLayout(text, 1)

    def show_item(self, item: PromptItem, *, selected: bool) -> None:
        """Show an item's present state."""
        for widget in (self.enabled, self.negative):
            widget.blockSignals(True)
        self.enabled.setChecked(item.enabled)
        self.negative.setChecked(item.negative)
        for widget in (self.enabled, self.negative):
            widget.blockSignals(False)
        if not self.name.hasFocus():
            self.name.setText(item.name)
            self.name.setCursorPosition(0)
        self.status.setText(item.status)
        self.status.setToolTip(tip_text(item.status))
        self.which.setVisible(item.is_whole_box and item.source is not None)
        warn = not item.is_ready and item.enabled
        set_style(self.status, f"color: {WARN_COLOR};" if warn else "")
        self.thumbnail.setPixmap(pixmap(item, self.devicePixelRatioF()))
        self.thumbnail.setToolTip(tip_text(_where(item)))
        # a colour and nothing else may get into the style sheet
        border = QColor(outline_color(item)).name() if selected else "palette(mid)"
        row = f"#svpsegPromptRow {{border: 1px solid {border}; border-radius: 4px;}}"
        set_style(self, row)

    def mousePressEvent(self, event: object) -> None:
        """Select the row."""
        self.clicked.emit(self.item_id)


@reports_errors("refresh", "select")
class PromptList(QWidget):
    """Rows for the items of a `PromptBook`."""

    selection_changed = Signal(str)
    asked = Signal(str)
    """Id of a box of which the user wants to say what in it is wrong."""

    def __init__(self, book: PromptBook) -> None:
        super().__init__()
        self.book = book
        self.selected = ""
        self.rows: dict[str, PromptRow] = {}
        self.empty = EmptyState()
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(4)
        self._layout.addWidget(self.empty)
        book.changed.connect(self.refresh)
        book.selected.connect(self.select)

    def refresh(self) -> None:
        """Follow the items of the book."""
        ids = [item.id for item in self.book.items]
        for item_id in [i for i in self.rows if i not in ids]:
            row = self.rows.pop(item_id)
            self._layout.removeWidget(row)
            row.hide()
            row.deleteLater()
        for item in self.book.items:
            if item.id not in self.rows:
                self.rows[item.id] = self._new_row(item.id)
            self.rows[item.id].show_item(item, selected=item.id == self.selected)
        self.empty.setVisible(not ids)
        if self.selected not in ids:
            self.select(ids[-1] if ids else "")

    def select(self, item_id: str) -> None:
        """Select a row, and emit `selection_changed`."""
        self.selected = item_id
        for item in self.book.items:
            if item.id in self.rows:
                self.rows[item.id].show_item(item, selected=item.id == item_id)
        self.book.select(item_id)
        self.selection_changed.emit(item_id)

    def _new_row(self, item_id: str) -> PromptRow:
        row = PromptRow(item_id)
        row.clicked.connect(self.select)
        row.clicked.connect(self.book.show_image)
        row.renamed.connect(self._on_renamed)
        row.toggled.connect(lambda i, on: self.book.update(i, enabled=on))
        row.negated.connect(lambda i, on: self.book.update(i, negative=on))
        row.deleted.connect(self.book.remove)
        row.asked.connect(self.asked)
        self._layout.addWidget(row)
        return row

    def _on_renamed(self, item_id: str, name: str) -> None:
        item = self.book.item(item_id)
        if item is not None and name and name != item.name:
            self.book.update(item_id, name=name)


def _tool(text: str, tip: str) -> QToolButton:
    button = QToolButton()
    button.setText(text)
    button.setToolTip(tip_text(tip))
    button.setAccessibleName(tip)
    button.setFixedSize(24, 24)
    return button


def _where(item: PromptItem) -> str:
    if item.box is None:
        return item.name
    place = item.source.name if item.source else "from a prompt file"
    return (
        f"{place}: y {item.box.y}, x {item.box.x}, "
        f"{item.box.size} x {item.box.size} pixels"
    )
