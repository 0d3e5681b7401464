"""The image bank as a picture: the patches that stand for each class."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from qtpy.QtCore import QRect, QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QImage, QPainter, QPen, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QListView,
    QListWidget,
    QListWidgetItem,
    QVBoxLayout,
    QWidget,
)

from ...core.annotation.image_tags import BankPatch
from ...core.prompt import Prompt, PromptSet, renamed
from ..layers.class_colors import class_color
from ..layers.prompt_item import OFF_COLOR, PromptItem
from .controls import button, note, side_by_side
from .prompt_list import thumbnail

PATCH = 54
"""Side of a patch on screen, in pixels."""

PLACE = Qt.ItemDataRole.UserRole


@dataclass(frozen=True, eq=False)
class BankItem:
    """A patch of the bank, and what it is as a prompt.

    Parameters
    ----------
    patch : BankPatch
    prompt : Prompt, optional
        The patch with the mask that the model found in it.
    crop : (Y, X, C) array, optional
        What it looks like, before there is a model.
    """

    patch: BankPatch
    prompt: Prompt | None = None
    crop: np.ndarray | None = None

    @property
    def can_prompt(self) -> bool:
        """Whether it shows something to find."""
        return self.prompt is not None and not self.prompt.is_negative


class BankPanel(QWidget):
    """Patches by class, to be kept, renamed, removed, or used as prompts."""

    edited = Signal()
    used = Signal(object)
    saving = Signal()
    message = Signal(str, bool)

    def __init__(self) -> None:
        super().__init__()
        self.items: list[BankItem] = []
        self.classes: tuple[str, ...] = ()
        self._build()
        self.show_bank([], ())

    # ------------------------------------------------------------ what it holds

    def show_bank(self, items: Iterable[BankItem], classes: tuple[str, ...]) -> None:
        """Show another bank.

        Parameters
        ----------
        items : iterable of BankItem
        classes : tuple of str
            In the order of their colours.
        """
        order = {name: i for i, name in enumerate(classes)}
        self.classes = classes
        self.items = sorted(
            items,
            key=lambda i: (
                order.get(i.patch.class_name, len(order)),
                i.patch.subclass,
            ),
        )
        self.list.blockSignals(True)
        self.list.clear()
        for place in range(len(self.items)):
            row = QListWidgetItem()
            row.setData(PLACE, place)
            row.setFlags(row.flags() | Qt.ItemFlag.ItemIsEditable)
            row.setSizeHint(QSize(PATCH + 6, PATCH + 22))
            self.list.addItem(row)
            self._show(place)
        self.list.blockSignals(False)
        self._show_state()

    def patches(self) -> tuple[BankPatch, ...]:
        """Return the patches, with what the user said of them."""
        return tuple(item.patch for item in self.items)

    def prompts(self) -> PromptSet:
        """Return the patches that were not removed, as prompts."""
        return PromptSet(
            [
                prompt
                for i, item in enumerate(self.items)
                if not item.patch.removed and (prompt := self._prompt(i)) is not None
            ],
            "image bank",
        )

    def marked(self) -> list[int]:
        """Return the places of the marked patches."""
        return sorted(row.data(PLACE) for row in self.list.selectedItems())

    def mark(self, place: int) -> None:
        """Mark one patch."""
        self.list.setCurrentRow(place)

    def use(self) -> None:
        """Hand the marked patches over as prompts."""
        chosen = [p for i in self.marked() if (p := self._prompt(i)) is not None]
        if not chosen:
            self.message.emit(
                "Nothing was found in this patch, so it is no prompt: mark another.",
                True,
            )
            return
        self.used.emit(PromptSet(chosen, "image bank"))

    # ------------------------------------------------------------ layout

    def _build(self) -> None:
        self.empty = note("Training fills the bank: patches that show each class best.")
        self.empty.setEnabled(False)
        self.list = QListWidget()
        self.list.setViewMode(QListView.ViewMode.IconMode)
        self.list.setResizeMode(QListView.ResizeMode.Adjust)
        self.list.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.list.setMovement(QListView.Movement.Static)
        self.list.setIconSize(QSize(PATCH, PATCH))
        self.list.setSpacing(1)
        self.list.setUniformItemSizes(True)
        self.list.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.list.setEditTriggers(QAbstractItemView.EditTrigger.EditKeyPressed)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setMinimumHeight(3 * (PATCH + 24) + 8)
        self.list.setAccessibleName("Image bank")
        self.use_button = button(
            "Use as prompt", "Find more of this patch, in Segment from prompts"
        )
        self.save = button("Save set…", "Save the bank as one .svprompt file")
        self.pin = button(
            "Pin", "Keep this patch when training chooses anew", checkable=True
        )
        self.rename = button("Rename", "Give this patch a name (F2)")
        self.remove = button(
            "Remove", "This patch shows the wrong thing: train without it"
        )
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        self._rows = (
            self.list,
            side_by_side(self.use_button, self.save, stretch=(1, 1)),
            side_by_side(self.pin, self.rename, self.remove, stretch=(1, 1, 1)),
        )
        for widget in (self.empty, *self._rows):
            column.addWidget(widget)
        self.list.itemSelectionChanged.connect(self._show_state)
        self.list.itemActivated.connect(lambda _: self.use())
        self.list.itemChanged.connect(self._on_renamed)
        self.use_button.clicked.connect(self.use)
        self.save.clicked.connect(self.saving.emit)
        self.pin.clicked.connect(self._on_pin)
        self.rename.clicked.connect(self._on_rename)
        self.remove.clicked.connect(self._on_remove)

    def _show_state(self) -> None:
        chosen = [self.items[i] for i in self.marked()]
        self.empty.setVisible(not self.items)
        for row in self._rows:
            row.setVisible(bool(self.items))
        self.use_button.setEnabled(any(i.can_prompt for i in chosen))
        self.save.setEnabled(any(i.can_prompt for i in self.items))
        for widget in (self.pin, self.remove):
            widget.setEnabled(bool(chosen))
        self.rename.setEnabled(len(chosen) == 1)
        self.pin.setChecked(bool(chosen) and all(i.patch.pinned for i in chosen))
        gone = bool(chosen) and all(i.patch.removed for i in chosen)
        self.remove.setText("Restore" if gone else "Remove")

    def _show(self, place: int) -> None:
        item, row = self.items[place], self.list.item(place)
        self.list.blockSignals(True)
        row.setText(item.patch.title)
        row.setIcon(QIcon(self._picture(item)))
        row.setToolTip(_about(item))
        self.list.blockSignals(False)

    def _picture(self, item: BankItem) -> QPixmap:
        """Return a patch framed in its class's colour, pinned or crossed out."""
        names = self.classes
        known = item.patch.class_name in names
        color = class_color(names.index(item.patch.class_name)) if known else OFF_COLOR
        array = np.ascontiguousarray(thumbnail(_as_item(item, color)))
        height, width = array.shape[:2]
        kind = QImage.Format.Format_RGB888
        image = QImage(array.data, width, height, 3 * width, kind)
        made = QPixmap.fromImage(image.copy()).scaled(
            QSize(2 * PATCH, 2 * PATCH),
            Qt.AspectRatioMode.IgnoreAspectRatio,
            Qt.TransformationMode.SmoothTransformation,
        )
        painter = QPainter(made)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        removed = item.patch.removed
        if removed:
            painter.fillRect(made.rect(), QColor(38, 41, 48, 190))
        pen = QPen(QColor(OFF_COLOR if removed else color), 6)
        painter.setPen(pen)
        painter.drawRect(made.rect().adjusted(3, 3, -4, -4))
        if removed:
            painter.drawLine(8, 8, 2 * PATCH - 8, 2 * PATCH - 8)
        if item.patch.pinned:
            _draw_pin(painter, QRect(2 * PATCH - 40, 6, 34, 34))
        painter.end()
        made.setDevicePixelRatio(2)
        return made

    # ------------------------------------------------------------ changing it

    def _prompt(self, place: int) -> Prompt | None:
        """Return a patch as a prompt under its name; None where it shows nothing."""
        item = self.items[place]
        if item.prompt is None or not item.can_prompt:
            return None
        return renamed(item.prompt, item.patch.title)

    def _change(self, places: Iterable[int], **values: object) -> None:
        for i in places:
            item = self.items[i]
            self.items[i] = replace(item, patch=replace(item.patch, **values))
            self._show(i)
        self._show_state()
        self.edited.emit()

    def _on_pin(self) -> None:
        places = self.marked()
        pinned = not all(self.items[i].patch.pinned for i in places)
        self._change(places, pinned=pinned, **({"removed": False} if pinned else {}))

    def _on_remove(self) -> None:
        places = self.marked()
        removed = not all(self.items[i].patch.removed for i in places)
        self._change(places, removed=removed, **({"pinned": False} if removed else {}))

    def _on_rename(self) -> None:
        row = self.list.currentItem()
        if row is not None:
            self.list.editItem(row)

    def _on_renamed(self, row: QListWidgetItem) -> None:
        place, name = row.data(PLACE), " ".join(row.text().split())
        patch = self.items[place].patch
        if name == patch.title:
            return
        self._change([place], name=name)


def _as_item(item: BankItem, color: str) -> PromptItem:
    """Return a patch as the list of prompts shows it."""
    prompt = item.prompt
    return PromptItem(
        name=item.patch.title,
        color=color,
        loaded=prompt,
        crop=item.crop if prompt is None else prompt.image,
        mask=None if prompt is None else prompt.mask,
    )


def _about(item: BankItem) -> str:
    patch = item.patch
    lines = [
        f"{patch.title} ({patch.class_name})",
        f"{patch.image}: y {patch.box.y}, x {patch.box.x}, {patch.box.size} px",
    ]
    if patch.removed:
        lines.append("Removed: the next training does without it")
    elif patch.pinned:
        lines.append("Pinned: the next training keeps it")
    if item.can_prompt:
        lines.append("Double-click: use it as a prompt")
    return "\n".join(lines)


def _draw_pin(painter: QPainter, place: QRect) -> None:
    """Draw a pin: a head on a needle, on a dark disc."""
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QColor(20, 22, 26, 210))
    painter.drawEllipse(place)
    center = place.center()
    painter.setPen(QPen(QColor("white"), 3))
    painter.drawLine(center.x(), center.y(), center.x(), place.bottom() - 6)
    painter.setBrush(QColor("white"))
    painter.drawEllipse(center.x() - 5, place.top() + 6, 10, 10)
