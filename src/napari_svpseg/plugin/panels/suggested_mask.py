"""A bar that offers the suggested mask of a new box, to be used or corrected."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import Signal

from ...core.annotation.suggestion import suggest_mask
from ..callbacks import reports_errors
from ..layers.metadata import metadata_of
from ..layers.prompts.prompt_book import PromptBook
from ..layers.prompts.prompt_item import PromptItem
from ..messages import PAINTED, count
from .controls import Offer

SUGGESTED = (
    "Suggested mask: {objects}. Is every object in the box painted, and no more?"
)
CORRECT_IT = (
    "Press Use mask if the suggested mask is right. Else correct it with the brush or "
    "the eraser."
)
NOTHING_FOUND = (
    "Nothing stands out here: paint the objects in the box. What you leave unpainted "
    "is background."
)
PAINT_IT = "Paint every object in the box. What you leave unpainted is background."


@reports_errors("accept", "clear", "suggest", "_follow")
class SuggestedMask(Offer):
    """Suggests the mask of a box; the user accepts it, corrects it, or starts anew.

    Until then the prompt is not ready. Any change of the mask by brush or eraser
    accepts it, too.

    Parameters
    ----------
    book : PromptBook
    """

    missing = Signal(str, bool, str)
    """As that of `PromptPanel`."""

    def __init__(self, book: PromptBook) -> None:
        super().__init__(
            ("Use mask", "Take the suggested mask as it is"),
            ("Start empty", "Remove the suggested mask and paint it by hand"),
        )
        self.book = book
        self.item_id = ""
        self.taken.connect(self.accept)
        self.left.connect(self.clear)
        book.changed.connect(self._follow)

    def follow_placed(self, item: PromptItem, click: tuple[float, float]) -> None:
        """Suggest a mask for a box that was just placed, if it has none.

        Parameters
        ----------
        item : PromptItem
        click : (float, float)
            Row and column in the image.
        """
        is_free = item.mask_layer is None or metadata_of(item.mask_layer, "mask")
        if not item.is_ready and is_free and item.crop is not None:
            self.suggest(item, click)

    def suggest(
        self, item: PromptItem, click: tuple[float, float] | None = None
    ) -> None:
        """Paint a suggested mask, and turn the brush on.

        Parameters
        ----------
        item : PromptItem
            Whose box is on an image.
        click : (float, float), optional
            Row and column in the image; by default the middle of the box.
        """
        box, crop, source = item.box, item.crop, item.source
        if box is None or crop is None or source is None:
            return
        middle = (box.y + (box.size - 1) / 2, box.x + (box.size - 1) / 2)
        y, x = middle if click is None else click
        shown = crop if source.channels is None else crop[..., list(source.channels)]
        found = suggest_mask(shown, (y - box.y, x - box.x))
        self.book.add_paint_layer(item, found)
        if item.mask is None or not np.array_equal(item.mask > 0, found > 0):
            return  # something was painted there before
        if not found.any():
            self.missing.emit(NOTHING_FOUND, False, PAINTED)
            return
        self.book.update(item.id, suggestion=item.mask.copy())
        self.missing.emit(CORRECT_IT, False, PAINTED)

    def accept(self) -> None:
        """Take the suggested mask as it is."""
        item = self.book.item(self.item_id)
        if item is not None:
            self.book.update(item.id, suggestion=None)
            self.book.message.emit(PAINTED, False)

    def clear(self) -> None:
        """Remove the suggested mask, for painting by hand."""
        item = self.book.item(self.item_id)
        if item is not None:
            self.book.clear_mask(item)
            self.missing.emit(PAINT_IT, False, PAINTED)

    def _follow(self) -> None:
        """Show the bar while a suggested mask waits for an answer."""
        waiting = [i for i in self.book.items if i.suggestion is not None]
        if not waiting:
            self.item_id = ""
            self.hide()
            return
        item = waiting[-1]
        self.item_id = item.id
        self.offer(SUGGESTED.format(objects=count(item.n_objects, "object")))
