"""The part of a dock where prompts are drawn, masked, saved and loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QSpinBox, QVBoxLayout, QWidget

from ...core.geometry import MIN_BOX_SIZE, PROMPT_SIZE, Box
from ...core.prompt import Prompt, PromptError, PromptSet, prompt_hash
from ..callbacks import reports_errors
from ..layers.metadata import PROMPT, is_mask, metadata_of
from ..layers.prompts.prompt_book import PromptBook
from ..messages import OPEN_IMAGE, PAINTED, TRY, count, sentence
from ..tools.draw_box import BoxTool
from ..tools.first_box import FirstBox
from .controls import button, combo, labelled, side_by_side
from .folders import folder_for, note_used, proposed
from .image_panel import ImagePanel
from .prompt_list import PromptList
from .suggested_mask import SuggestedMask

if TYPE_CHECKING:
    from napari.components import ViewerModel


PAINT_OBJECTS = (
    "Paint the objects inside the box; press M for the next number where objects "
    "touch. What you leave unpainted is background."
)
CLICK = "Click on a typical cell in the image: the box shows what to find."
PRESS_DRAW = "Press Draw box, then click on a typical cell."
NAME_FIRST = "Name the axes of the image above, then click on a typical cell."
SAVED = "Saved {prompts} in {name}."
ADDED = "Added {prompts} of {name}."
EXISTS = "{path} exists already: choose another name."


@reports_errors("show_masks", "save_prompt_set", "load_prompt_set")
class PromptPanel(QWidget):
    """The list of prompts, and what draws, masks, saves and loads them.

    Parameters
    ----------
    viewer : ViewerModel
    images : ImagePanel
        Whose selected image gets the boxes.
    """

    message = Signal(str, bool)
    missing = Signal(str, bool, str)
    """Text on what a prompt lacks, whether it is an error, and the text after it."""

    def __init__(self, viewer: ViewerModel, images: ImagePanel) -> None:
        super().__init__()
        self.viewer, self.images = viewer, images
        self.book = PromptBook(viewer, images.source_of)
        self.tool = BoxTool(self.book)
        FirstBox(self, self.tool, images)  # owned by this panel
        self.file = ""
        self.saved: list[str] = []
        self._build()
        self._connect()

    def _build(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        self.list = PromptList(self.book)
        column.addWidget(self.list)
        self.suggested = SuggestedMask(self.book)
        column.addWidget(self.suggested)
        self.draw = button(
            "Draw box",
            "Click on a cell to place a box, or drag a square",
            checkable=True,
        )
        self.box_size = QSpinBox()
        self.box_size.setAccessibleName("Size of the box")
        self.box_size.setRange(MIN_BOX_SIZE, 4096)
        self.box_size.setValue(PROMPT_SIZE)
        self.box_size.setSingleStep(16)
        self.box_size.setSuffix(" px")
        self.box_size.setToolTip(
            "Side of the box that a click places. Choose it so that a few whole "
            "objects fit in; the box is resampled to 64 x 64."
        )
        column.addWidget(side_by_side(self.draw, self.box_size, stretch=(1, 0)))
        self.mask_choice = combo(
            "Labels layer that the mask of the selected prompt is taken from"
        )
        self.suggest = button(
            "Suggest", "Paint what stands out in the middle of the box, to be corrected"
        )
        self.paint = button("Paint", "Paint the mask of the selected prompt by hand")
        ways = side_by_side(
            self.mask_choice, self.suggest, self.paint, stretch=(1, 0, 0)
        )
        column.addWidget(labelled("Mask", ways))
        self.save_set = button("Save set…", "Save all prompts as one .svprompt file")
        self.load_set = button("Load set…", "Add the prompts of a .svprompt file")
        column.addWidget(side_by_side(self.save_set, self.load_set, stretch=(1, 1)))

    def _connect(self) -> None:
        self.draw.clicked.connect(self._on_draw)
        self.box_size.valueChanged.connect(self._on_size)
        self.mask_choice.activated.connect(self._on_mask)
        self.suggest.clicked.connect(self._on_suggest)
        self.paint.clicked.connect(self._on_paint)
        self.suggested.missing.connect(self.missing)
        self.save_set.clicked.connect(lambda: self.save_prompt_set())
        self.load_set.clicked.connect(lambda: self.load_prompt_set())
        self.book.message.connect(self._on_book_message)
        self.book.changed.connect(self.show_masks)
        self.tool.switched.connect(self._on_switched)
        self.tool.placed.connect(self.suggested.follow_placed)
        self.list.selection_changed.connect(lambda _: self.show_masks())

    def refresh(self) -> None:
        """Enable what can be done now."""
        item = self.book.item(self.list.selected)
        has_box = item is not None and item.source is not None
        self.draw.setEnabled(self.images.selected() is not None)
        self.mask_choice.setEnabled(has_box)
        self.suggest.setEnabled(has_box)
        self.paint.setEnabled(has_box)
        self.save_set.setEnabled(bool(self.book.items))
        self._show_next_step()

    def _show_next_step(self) -> None:
        """Show what to do next while there is no prompt."""
        image = self.images.selected()
        if image is None:
            text = OPEN_IMAGE
        elif not self.images.declared.axes(image):
            text = NAME_FIRST
        else:
            text = CLICK if self.tool.is_on else PRESS_DRAW
        is_click = image is not None and text != NAME_FIRST
        self.list.empty.show_step(text, is_click=is_click)

    def _on_switched(self, is_on: bool) -> None:
        self.draw.setChecked(is_on)
        self._show_next_step()

    def hashes(self) -> list[str]:
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
        self.mask_choice.blockSignals(True)
        self.mask_choice.clear()
        self.mask_choice.addItem("no mask", None)
        for layer in self.viewer.layers:
            if is_mask(layer) or layer == wanted:
                self.mask_choice.addItem(layer.name, layer)
                if layer == wanted:
                    self.mask_choice.setCurrentIndex(self.mask_choice.count() - 1)
        self.mask_choice.blockSignals(False)
        self.refresh()

    def _on_draw(self) -> None:
        layer = self.images.selected()
        if self.tool.is_on or layer is None:
            self.tool.stop()
            self.draw.setChecked(False)
        else:
            self.tool.start(layer)

    def _on_size(self, size: int) -> None:
        self.book.size = size

    def _on_mask(self) -> None:
        layer = self.mask_choice.currentData()
        self.book.default_mask = layer
        self.book.update(self.list.selected, mask_layer=layer)
        item = self.book.item(self.list.selected)
        if item is not None:
            self.missing.emit(item.problem or TRY, False, TRY)

    def _on_suggest(self) -> None:
        item = self.book.item(self.list.selected)
        if item is not None:
            self.suggested.suggest(item)
            self.show_masks()

    def _on_paint(self) -> None:
        item = self.book.item(self.list.selected)
        if item is None or item.source is None:
            return
        self.book.add_paint_layer(item)
        self.show_masks()
        self.missing.emit(PAINT_OBJECTS, False, PAINTED)

    def add_prompt_at_centre(self) -> None:
        """Place a box in the middle of what is seen of the selected image."""
        layer = self.images.selected()
        if layer is None:
            self._say(OPEN_IMAGE, True)
            return
        try:
            source = self.images.source_of(layer)
            tile = source.visible_tile(self.viewer)
            centre = ((tile.y0 + tile.y1 - 1) / 2, (tile.x0 + tile.x1 - 1) / 2)
            box = Box.centred(centre, self.box_size.value())
            self.book.place(source, source.shown_plane(self.viewer), box)
        except ValueError as error:
            self._say(sentence(error), True)

    def save_prompt_set(self, path: str = "") -> None:
        """Save the prompts as one file; asks for the file if none is given."""
        if not path:
            path, _ = QFileDialog.getSaveFileName(
                self,
                "Save prompts",
                proposed("cells.svprompt", self._image_file()),
                "Prompt sets (*.svprompt)",
            )
            path, problem = with_suffix(path, (".svprompt",))
            if problem:
                self._say(problem, True)
        if not path:
            return
        from ...io.prompt_files import save_prompts

        try:
            prompts = self.book.all_prompts()
            save_prompts(prompts, path, overwrite=True)  # the dialog has asked
        except (ValueError, OSError) as error:
            self._say(sentence(error), True)
            return
        self._note_file(path, prompts)
        self._say(SAVED.format(prompts=_prompts(prompts), name=Path(path).name))

    def load_prompt_set(self, path: str = "") -> None:
        """Add the prompts of a file; asks for the file if none is given."""
        if not path:
            path, _ = QFileDialog.getOpenFileName(
                self,
                "Load prompts",
                folder_for(self._image_file()),
                "Prompt sets (*.svprompt)",
            )
        if not path:
            return
        from ...io.prompt_files import load_prompts

        try:
            prompts = load_prompts(path)
        except (ValueError, OSError) as error:
            self._say(sentence(error), True)
            return
        self._add(path, prompts)

    def adopt_opened(self) -> None:
        """List the prompts of files that were opened before the dock.

        The layers that stood for them are removed.
        """
        layers = [la for la in self.viewer.layers if metadata_of(la, PROMPT)]
        files: dict[str, list[Prompt]] = {}
        for layer in layers:
            about = metadata_of(layer) or {}
            if "prompt" in about:
                files.setdefault(about["file"], []).append(about["prompt"])
        for layer in layers:
            self.viewer.layers.remove(layer)
        for path, prompts in files.items():
            self._add(path, PromptSet(prompts))

    def _image_file(self) -> str:
        """Return the file of the selected image; empty where it has none."""
        layer = self.images.selected()
        return "" if layer is None else str(layer.source.path or "")

    def _add(self, path: str, prompts: PromptSet) -> None:
        self.book.add_loaded(prompts)
        self._note_file(path, prompts)
        self._say(ADDED.format(prompts=_prompts(prompts), name=Path(path).name))

    def _note_file(self, path: str, prompts: PromptSet) -> None:
        """Note which prompts a file holds, for recipes that are copied."""
        note_used(path)
        self.file = path
        self.saved = [prompt_hash(p) for p in prompts if p.enabled]


def with_suffix(path: str, known: tuple[str, ...]) -> tuple[str, str]:
    """Return a chosen file with a suffix, and the problem with it, if any.

    An existing file is not replaced: the path is empty then.
    """
    if not path or path.lower().endswith(known):
        return path, ""
    path += known[0]
    if not Path(path).exists():
        return path, ""
    return "", EXISTS.format(path=path)


def _prompts(prompts: PromptSet) -> str:
    return count(len(prompts), "prompt")
