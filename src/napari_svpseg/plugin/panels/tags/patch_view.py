"""The image bank as thumbnails: the patches that stand for each class."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from qtpy.QtCore import QRect, QSize, Qt, Signal
from qtpy.QtGui import QColor, QPainter, QPen, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QListView,
    QListWidget,
    QListWidgetItem,
    QVBoxLayout,
    QWidget,
)

from ....core.annotation.image_tags import BankPatch
from ....core.annotation.suggestion import suggest_mask
from ....core.geometry import Box
from ....core.prompt import Prompt, PromptSet, renamed
from ...callbacks import reports_errors
from ...layers.labels.class_colors import class_color
from ...layers.prompts.prompt_item import OFF_COLOR, PromptItem
from ..controls import button, note, side_by_side
from ..plain_text import tip_text
from ..prompt_list import thumbnail
from .pixmaps import RATIO, to_icon, to_pixmap

PATCH = 54
"""Side of a patch on screen, in pixels."""

EMPTY = "Training fills the bank with the patches that show each class best."
NO_OBJECT = (
    "The model found no object in this patch, so it cannot be a prompt: select another."
)
BANK_NAME = "image bank"

PLACE = Qt.ItemDataRole.UserRole


CHECK_MASKS = (
    "Added with suggested masks, as no model is trained yet: look at them in the list "
    "of prompts, and delete those that are wrong."
)


@dataclass(frozen=True, eq=False)
class PatchItem:
    """A patch of the bank, with its prompt or its pixels.

    Parameters
    ----------
    patch : BankPatch
    prompt : Prompt, optional
        The patch with the mask that the model found in it.
    crop : (Y, X, C) array, optional
        Its pixels, before there is a model.
    intensities : (C, 2) array, optional
        Of the whole image, see `Prompt`.
    """

    patch: BankPatch
    prompt: Prompt | None = None
    crop: np.ndarray | None = None
    intensities: np.ndarray | None = None

    @property
    def can_prompt(self) -> bool:
        """Whether the model found an object in it."""
        return self.prompt is not None and not self.prompt.is_negative


@reports_errors("_show_state", "use")
class PatchView(QWidget):
    """Patches by class, to be pinned, renamed, removed, or used as prompts."""

    edited = Signal()
    used = Signal(object)
    saving = Signal()
    message = Signal(str, bool)

    def __init__(self) -> None:
        super().__init__()
        self.items: list[PatchItem] = []
        self.classes: tuple[str, ...] = ()
        self._build()
        self.show_bank([], ())

    # ------------------------------------------------------------ what it holds

    def show_bank(self, items: Iterable[PatchItem], classes: tuple[str, ...]) -> None:
        """Show another bank.

        Parameters
        ----------
        items : iterable of PatchItem
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
        """Return the patches with the user's changes."""
        return tuple(item.patch for item in self.items)

    def prompts(self) -> PromptSet:
        """Return the patches that were not removed, as prompts."""
        return PromptSet(
            [
                prompt
                for i, item in enumerate(self.items)
                if not item.patch.removed and (prompt := self._prompt(i)) is not None
            ],
            BANK_NAME,
        )

    def selected(self) -> list[int]:
        """Return the places of the selected patches."""
        return sorted(row.data(PLACE) for row in self.list.selectedItems())

    def select(self, place: int) -> None:
        """Select one patch."""
        self.list.setCurrentRow(place)

    def use(self) -> None:
        """Hand the selected patches over as prompts.

        Before there is a model, their masks are suggested ones.
        """
        found = {i: self._prompt(i) or self._suggested(i) for i in self.selected()}
        chosen = [p for p in found.values() if p is not None]
        if not chosen:
            self.message.emit(NO_OBJECT, True)
            return
        self.used.emit(PromptSet(chosen, BANK_NAME))
        if any(self.items[i].prompt is None for i in found):
            self.message.emit(CHECK_MASKS, False)

    # ------------------------------------------------------------ layout

    def _build(self) -> None:
        self.empty = note(EMPTY)
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
            "Use as prompt", "Find more objects like these, in Segment from prompts"
        )
        self.save = button("Save set…", "Save the bank as one .svprompt file")
        self.pin = button(
            "Pin",
            "Keep this patch when the next training chooses patches",
            checkable=True,
        )
        self.rename = button("Rename", "Give this patch a name (F2)")
        self.remove = button(
            "Remove", "Train without this patch, because it shows the wrong thing"
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
        chosen = [self.items[i] for i in self.selected()]
        self.empty.setVisible(not self.items)
        for row in self._rows:
            row.setVisible(bool(self.items))
        self.use_button.setEnabled(
            any(
                i.can_prompt or (i.prompt is None and i.crop is not None)
                for i in chosen
            )
        )
        self.save.setEnabled(any(i.can_prompt for i in self.items))
        for widget in (self.pin, self.remove):
            widget.setEnabled(bool(chosen))
        self.rename.setEnabled(len(chosen) == 1)
        self.pin.setChecked(bool(chosen) and all(i.patch.pinned for i in chosen))
        gone = bool(chosen) and all(i.patch.removed for i in chosen)
        self.remove.setText("Restore" if gone else "Remove")

    def _show(self, place: int) -> None:
        item, row = self.items[place], self.list.item(place)
        assert row is not None
        self.list.blockSignals(True)
        row.setText(item.patch.title)
        row.setIcon(to_icon(self._pixmap(item)))
        row.setToolTip(tip_text(_about(item)))
        self.list.blockSignals(False)

    def _pixmap(self, item: PatchItem) -> QPixmap:
        """Return a patch framed in its class's colour, pinned or crossed out."""
        names = self.classes
        known = item.patch.class_name in names
        color = class_color(names.index(item.patch.class_name)) if known else OFF_COLOR
        made = to_pixmap(thumbnail(_as_item(item, color)), RATIO * PATCH)
        painter = QPainter(made)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        removed = item.patch.removed
        if removed:
            painter.fillRect(made.rect(), QColor(38, 41, 48, 190))
        pen = QPen(QColor(OFF_COLOR if removed else color), 6)
        painter.setPen(pen)
        painter.drawRect(made.rect().adjusted(3, 3, -4, -4))
        if removed:
            painter.drawLine(8, 8, RATIO * PATCH - 8, RATIO * PATCH - 8)
        if item.patch.pinned:
            _draw_pin(painter, QRect(RATIO * PATCH - 40, 6, 34, 34))
        painter.end()
        return made

    # ------------------------------------------------------------ changing it

    def _prompt(self, place: int) -> Prompt | None:
        """Return a patch as a named prompt; None where it has no object."""
        item = self.items[place]
        if item.prompt is None or not item.can_prompt:
            return None
        return renamed(item.prompt, item.patch.title)

    def _suggested(self, place: int) -> Prompt | None:
        """Return a patch without a model as a prompt with a suggested mask, or None."""
        item = self.items[place]
        if item.crop is None or item.prompt is not None:
            return None
        middle = (item.patch.box.size - 1) / 2
        mask = suggest_mask(item.crop, (middle, middle))
        if not mask.any():
            return None
        return Prompt.from_image(
            item.crop,
            mask,
            Box(0, 0, item.patch.box.size),
            channel_axis=2,
            name=f"{item.patch.title} (suggested mask)",
            source=item.patch.image,
            intensities=item.intensities,
        )

    def _change(
        self, places: Iterable[int], change: Callable[[BankPatch], BankPatch]
    ) -> None:
        for i in places:
            item = self.items[i]
            self.items[i] = replace(item, patch=change(item.patch))
            self._show(i)
        self._show_state()
        self.edited.emit()

    def _on_pin(self) -> None:
        places = self.selected()
        pinned = not all(self.items[i].patch.pinned for i in places)
        self._change(
            places,
            lambda p: replace(p, pinned=pinned, removed=p.removed and not pinned),
        )

    def _on_remove(self) -> None:
        places = self.selected()
        removed = not all(self.items[i].patch.removed for i in places)
        self._change(
            places,
            lambda p: replace(p, removed=removed, pinned=p.pinned and not removed),
        )

    def _on_rename(self) -> None:
        row = self.list.currentItem()
        if row is not None:
            self.list.editItem(row)

    def _on_renamed(self, row: QListWidgetItem) -> None:
        place, name = row.data(PLACE), " ".join(row.text().split())
        patch = self.items[place].patch
        if name == patch.title:
            return
        self._change([place], lambda p: replace(p, name=name))


def _as_item(item: PatchItem, color: str) -> PromptItem:
    """Return a patch as an item of the list of prompts."""
    prompt = item.prompt
    return PromptItem(
        name=item.patch.title,
        color=color,
        loaded=prompt,
        crop=item.crop if prompt is None else prompt.image,
        mask=None if prompt is None else prompt.mask,
    )


def _about(item: PatchItem) -> str:
    patch = item.patch
    lines = [
        f"{patch.title} ({patch.class_name})",
        f"{patch.image}: y {patch.box.y}, x {patch.box.x}, {patch.box.size} px",
    ]
    if patch.removed:
        lines.append("Removed: the next training ignores it")
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
