"""Prompts that were deleted, and how they come back."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...messages import count
from .prompt_item import PromptItem

if TYPE_CHECKING:
    from napari.layers import Layer

    from .prompt_book import PromptBook

DELETED = "Delete"
"""Kind of edit, beside those of runs."""
BROUGHT_BACK = "Brought {prompts} back."

Removed = Sequence[tuple[int, PromptItem]]
"""Items with the row that each had."""


@dataclass(eq=False)
class PromptsDeleted:
    """The deletion of one or several prompts at once, which can be undone.

    Parameters
    ----------
    book : PromptBook
    removed : sequence of (int, PromptItem)
    """

    book: PromptBook
    removed: Removed
    text: str = DELETED

    def undo(self) -> str:
        """Put the prompts back into list and viewer; their masks were kept there."""
        n = self.book.put_back([r for r in self.removed if self._is_there(r[1])])
        return BROUGHT_BACK.format(prompts=count(n, "prompt"))

    def is_possible(self, layers: Container[Layer]) -> bool:
        """Return whether the image of one of them is open, or it needs none."""
        return any(
            item.source is None or item.source.layer in layers
            for _, item in self.removed
        )

    @property
    def layers(self) -> list[Layer]:
        """No layer of results has changed."""
        return []

    def _is_there(self, item: PromptItem) -> bool:
        return item.source is None or item.source.layer in self.book.viewer.layers
