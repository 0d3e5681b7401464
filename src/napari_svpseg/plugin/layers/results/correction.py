"""A correction as one step of the journal: all that it changed is undone at once."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .journal import EDITS_KEPT, Edit, Together

if TYPE_CHECKING:
    from napari.layers import Layer

    from .result_layers import Kept

CORRECTION = "Correction"
TAKEN_BACK = "{what} was taken back, here and in the images that followed."


@dataclass(eq=False)
class Reversal:
    """A change that is not one of a layer, and what takes it back."""

    take_back: Callable[[], object]
    text: str = CORRECTION
    layers: list[Layer] = field(default_factory=list)

    def undo(self) -> str:
        """Take it back."""
        self.take_back()
        return ""

    def is_possible(self, layers: Container[Layer]) -> bool:
        """Return True: nothing is needed for it."""
        return True


@dataclass(eq=False)
class Correction(Together):
    """The prompts, labels and options that a correction changed, in all images.

    Parameters
    ----------
    what : str
        The correction, as the user calls it.
    first : Kept, optional
        The result in which it was made.
    """

    what: str = CORRECTION
    first: Kept | None = None

    @classmethod
    def begun(cls, what: str, first: Kept | None = None) -> Correction:
        """Return a correction that has changed nothing yet."""
        edits: list[Edit] = []
        return cls(edits, CORRECTION, what, first)

    def undo(self) -> str:
        """Undo all, the newest first."""
        told = [edit.undo() for edit in reversed(self.edits)]
        kept = EDITS_KEPT if any(EDITS_KEPT in text for text in told) else ""
        return TAKEN_BACK.format(what=self.what) + kept
