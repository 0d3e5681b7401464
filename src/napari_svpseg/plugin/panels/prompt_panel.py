"""The part of a dock where prompts are drawn, masked, saved and loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QSpinBox, QVBoxLayout, QWidget

from ...core.geometry import MIN_BOX_SIZE, PROMPT_SIZE, Box
from ...core.prompt import PromptError, PromptSet, prompt_hash
from ..layers.image_source import is_mask
from ..layers.prompt_boxes import PromptBook
from ..layers.prompt_item import TRY
from .controls import button, combo, count, labelled, sentence, side_by_side
from .image_panel import ImagePanel
from .prompt_list import PromptList

if TYPE_CHECKING:
    from napari.components import ViewerModel

OPEN_IMAGE = "Open an image to begin (or File > Open Sample > SVPSeg)."
PAINTED = "Press Preview to try it. M is the next number where objects touch."


class PromptPanel(QWidget):
    """The list of prompts, and what draws, masks, saves and loads them.

    Parameters
    ----------
    viewer : ViewerModel
    images : ImagePanel
        Whose marked image gets the boxes.
    """

    message = Signal(str, bool)
    missing = Signal(str, bool, str)
    """What a prompt lacks, whether that is an error, and what to say afterwards."""

    def __init__(self, viewer: ViewerModel, images: ImagePanel) -> None:
        super().__init__()
        self.viewer, self.images = viewer, images
        self.book = PromptBook(viewer, images.source_of)
        self.file = ""
        self.saved: list[str] = []
        self._build()
        self._connect()

    def _build(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        self.list = PromptList(self.book)
        self.list.tab_after = self.images.channels
        column.addWidget(self.list)
        self.draw = button(
            "Draw box",
            "Click on a cell to place a box, or drag a square (Shift+D on the boxes)",
            checkable=True,
        )
        self.size = QSpinBox()
        self.size.setRange(MIN_BOX_SIZE, 4096)
        self.size.setValue(PROMPT_SIZE)
        self.size.setSingleStep(16)
        self.size.setSuffix(" px")
        self.size.setToolTip(
            "Side of the box that a click places. Choose it so that a few whole "
            "objects fit in; the box is resampled to 64 x 64."
        )
        column.addWidget(side_by_side(self.draw, self.size, stretch=(1, 0)))
        self.mask = combo(
            "Labels layer that the mask of the marked prompt is taken from"
        )
        self.paint = button("Paint", "Paint the mask of the marked prompt by hand")
        column.addWidget(
            labelled("Mask", side_by_side(self.mask, self.paint, stretch=(1, 0)))
        )
        self.save_set = button("Save set…", "Save all prompts as one .svprompt file")
        self.load_set = button("Load set…", "Add the prompts of a .svprompt file")
        column.addWidget(side_by_side(self.save_set, self.load_set, stretch=(1, 1)))

    def _connect(self) -> None:
        self.draw.clicked.connect(self._on_draw)
        self.size.valueChanged.connect(self._on_size)
        self.mask.activated.connect(self._on_mask)
        self.paint.clicked.connect(self._on_paint)
        self.save_set.clicked.connect(lambda: self.save_prompt_set())
        self.load_set.clicked.connect(lambda: self.load_prompt_set())
        self.book.message.connect(self._on_book_message)
        self.book.changed.connect(self.show_masks)
        self.book.tool.switched.connect(self.draw.setChecked)
        self.list.selection_changed.connect(lambda _: self.show_masks())

    def refresh(self) -> None:
        """Enable what makes sense now."""
        item = self.book.item(self.list.selected)
        has_box = item is not None and item.source is not None
        self.draw.setEnabled(self.images.marked() is not None)
        self.mask.setEnabled(has_box)
        self.paint.setEnabled(has_box)
        self.save_set.setEnabled(bool(self.book.items))

    def prints(self) -> list[str]:
        """Return the hashes of the prompts that are on; none where one lacks a mask."""
        try:
            return [prompt_hash(p) for p in self.book.prompts()]
        except PromptError:
            return []

    def _say(self, text: str, error: bool = False) -> None:
        self.message.emit(text, error)

    def _on_book_message(self, text: str, error: bool) -> None:
        if any(text == item.problem for item in self.book.items):
            self.missing.emit(text, error, TRY)
        else:
            self._say(text, error)

    def show_masks(self) -> None:
        """Offer the Labels layers that a mask can be taken from."""
        item = self.book.item(self.list.selected)
        wanted = item.mask_layer if item is not None else self.book.default_mask
        self.mask.blockSignals(True)
        self.mask.clear()
        self.mask.addItem("no mask", None)
        for layer in self.viewer.layers:
            if is_mask(layer) or layer == wanted:
                self.mask.addItem(layer.name, layer)
                if layer == wanted:
                    self.mask.setCurrentIndex(self.mask.count() - 1)
        self.mask.blockSignals(False)
        self.refresh()

    def _on_draw(self) -> None:
        layer = self.images.marked()
        if self.book.tool.is_on or layer is None:
            self.book.tool.stop()
            self.draw.setChecked(False)
        else:
            self.book.tool.start(layer)

    def _on_size(self, size: int) -> None:
        self.book.size = size

    def _on_mask(self) -> None:
        layer = self.mask.currentData()
        self.book.default_mask = layer
        self.book.update(self.list.selected, mask_layer=layer)
        item = self.book.item(self.list.selected)
        if item is not None:
            self.missing.emit(item.problem or TRY, False, TRY)

    def _on_paint(self) -> None:
        item = self.book.item(self.list.selected)
        if item is None or item.source is None:
            return
        self.book.add_paint_layer(item)
        self.show_masks()
        self.missing.emit(
            "Paint the objects inside the box; press M for the next number where "
            "objects touch. What you leave unpainted is background.",
            False,
            PAINTED,
        )

    def add_prompt_at_centre(self) -> None:
        """Place a box in the middle of what is seen of the marked image."""
        layer = self.images.marked()
        if layer is None:
            self._say(OPEN_IMAGE, True)
            return
        try:
            source = self.images.source_of(layer)
            tile = source.visible_tile()
            centre = ((tile.y0 + tile.y1 - 1) / 2, (tile.x0 + tile.x1 - 1) / 2)
            box = Box.centred(centre, self.size.value())
            self.book.place(source, source.plane_at(self.viewer.dims.point), box)
        except ValueError as error:
            self._say(sentence(error), True)

    def save_prompt_set(self, path: str = "") -> None:
        """Save the prompts as one file; asks for the file if none is given."""
        if not path:
            path, _ = QFileDialog.getSaveFileName(
                self, "Save prompts", "cells.svprompt", "Prompt sets (*.svprompt)"
            )
            path, problem = with_suffix(path, (".svprompt",))
            if problem:
                self._say(problem, True)
        if not path:
            return
        from ...io.prompt_files import save_prompts

        try:
            prompts = self.book.all_prompts()
            save_prompts(prompts, path)
        except (ValueError, OSError) as error:
            self._say(sentence(error), True)
            return
        self._remember_file(path, prompts)
        self._say(f"Saved {count(len(prompts), 'prompt')} in {Path(path).name}.")

    def load_prompt_set(self, path: str = "") -> None:
        """Add the prompts of a file; asks for the file if none is given."""
        if not path:
            path, _ = QFileDialog.getOpenFileName(
                self, "Load prompts", "", "Prompt sets (*.svprompt)"
            )
        if not path:
            return
        from ...io.prompt_files import load_prompts

        try:
            prompts = load_prompts(path)
        except (ValueError, OSError) as error:
            self._say(sentence(error), True)
            return
        self.book.add_loaded(prompts)
        self._remember_file(path, prompts)
        self._say(f"Added {count(len(prompts), 'prompt')} of {Path(path).name}.")

    def _remember_file(self, path: str, prompts: PromptSet) -> None:
        """Remember which prompts a file holds, for the recipes that are copied."""
        self.file = path
        self.saved = [prompt_hash(p) for p in prompts if p.enabled]


def with_suffix(path: str, known: tuple[str, ...]) -> tuple[str, str]:
    """Return a chosen file with a suffix, and what is wrong with it, if anything.

    A file that is there already is not replaced: the path is empty then.
    """
    if not path or path.lower().endswith(known):
        return path, ""
    path += known[0]
    if not Path(path).exists():
        return path, ""
    return "", f"{path} is there already: choose another name."
