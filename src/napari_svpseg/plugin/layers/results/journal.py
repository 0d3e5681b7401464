"""The changes that a dock has made in the viewer, and how each is undone."""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..images.visibility import add_behind_boxes
from ..labels.class_colors import dress
from ..metadata import METADATA_KEY
from .written_labels import is_untouched, keep_written, write_ids

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels, Layer

RUN = "Run"
OPTIONS = "Options"
NOTHING = "Nothing to undo."
FILTER = "Filter"

IS_KEPT = "{name} was edited since and is kept."
EDITS_KEPT = " Your own edits are kept."


class Edit(Protocol):
    """A change in the viewer that can be undone."""

    text: str

    def undo(self) -> str:
        """Undo the change; return what was done, for the user."""

    def is_possible(self, layers: Container[Layer]) -> bool:
        """Return whether it can still be undone with the layers that are there."""

    @property
    def layers(self) -> list[Layer]:
        """The layers that it changed."""


@dataclass(eq=False)
class LayerEdit:
    """A change of one Labels layer."""

    layer: Labels

    def is_possible(self, layers: Container[Layer]) -> bool:
        """Return whether the layer is there."""
        return self.layer in layers

    @property
    def layers(self) -> list[Layer]:
        """The layer."""
        return [self.layer]


@dataclass(eq=False)
class LayerAdded(LayerEdit):
    """A result in a layer of its own."""

    viewer: ViewerModel
    text: str = RUN

    def undo(self) -> str:
        """Remove the layer, unless the user has painted in it since."""
        name = f"'{self.layer.name}'"
        if self.layer not in self.viewer.layers:
            return f"{name} is gone already."
        if self.is_edited:
            return IS_KEPT.format(name=name)
        where = self.remains
        self.viewer.layers.remove(self.layer)
        return f"Removed {name}{where}."

    @property
    def is_edited(self) -> bool:
        """Whether the user has painted in the layer."""
        return not is_untouched(self.layer)

    @property
    def remains(self) -> str:
        """End of the message: what is left of the result; empty for nothing."""
        return ""


@dataclass(eq=False)
class LabelsWritten(LayerEdit):
    """New ids in a part of one of our layers."""

    region: tuple[slice, ...]
    before: np.ndarray
    after: np.ndarray
    metadata: dict[str, Any]
    text: str = RUN

    def is_possible(self, layers: Container[Layer]) -> bool:
        """Return whether the layer is there, and its array was not replaced."""
        is_there = super().is_possible(layers)
        return is_there and self.layer.data[self.region].shape == self.after.shape

    def undo(self) -> str:
        """Put the old ids back, but not where the user has painted since."""
        now = np.asarray(self.layer.data[self.region])
        unchanged = now == self.after
        values = np.where(unchanged, self.before, now)
        write_ids(self.layer, self.region, values, self._note_undone)
        dress(self.layer)
        kept = "" if unchanged.all() else EDITS_KEPT
        return f"'{self.layer.name}' is as it was before.{kept}"

    def _note_undone(self, n: int) -> None:
        self.layer.metadata[METADATA_KEY] = dict(self.metadata)
        keep_written(self.layer, self.region, self.before)


@dataclass(eq=False)
class Together:
    """Edits that belong to one run and are undone at once."""

    edits: list[Edit]
    text: str = RUN

    def undo(self) -> str:
        """Undo all, the newest first."""
        told = [edit.undo() for edit in reversed(self.edits)]
        return " ".join(told) if len(told) < 3 else f"Took back {len(told)} changes."

    def is_possible(self, layers: Container[Layer]) -> bool:
        """Return whether any is left, and drop the others."""
        self.edits = [edit for edit in self.edits if edit.is_possible(layers)]
        return bool(self.edits)

    @property
    def layers(self) -> list[Layer]:
        """The layers of all of them."""
        return [layer for edit in self.edits for layer in edit.layers]


class Journal:
    """Edits that can be undone, newest last."""

    def __init__(self, limit: int = 20) -> None:
        self.edits: list[Edit] = []
        self._limit = limit
        self._run: Together | None = None

    def begin(self, text: str = RUN) -> None:
        """Start a run: edits belong together from now on."""
        self._run = Together([], text)

    def end(self) -> None:
        """End the run: later edits are on their own."""
        self._run = None

    @contextmanager
    def within(self, edits: Together) -> Iterator[None]:
        """Add what is changed meanwhile to edits that belong together."""
        before, self._run = self._run, edits
        try:
            yield
        finally:
            self._run = before

    def add(self, edit: Edit) -> None:
        """Add an edit; beyond the limit the oldest are dropped."""
        if self._run is not None:
            self._run.edits.append(edit)
            if self._run in self.edits:
                return
            edit = self._run
        self.edits = [*self.edits, edit][-self._limit :]

    def add_alone(self, edit: Edit) -> None:
        """Add an edit of the user's, which is no part of a run that goes on."""
        run, self._run = self._run, None
        self.add(edit)
        self._run = run

    def undo_last_of(self, text: str) -> str:
        """Undo the newest edit of one kind; return what was done."""
        for edit in reversed(self.edits):
            if edit.text == text:
                self.edits = [e for e in self.edits if e is not edit]
                return edit.undo()
        return NOTHING

    def add_or_extend(self, edit: LabelsWritten) -> None:
        """Add an edit; the steps of a slider are one."""
        last = self.edits[-1] if self.edits else None
        if (
            edit.text in (OPTIONS, FILTER)
            and isinstance(last, LabelsWritten)
            and last.text == edit.text
            and last.layer == edit.layer
            and last.region == edit.region
        ):
            last.after = edit.after
        else:
            self.add(edit)

    def show(self, edit: LayerAdded) -> None:
        """Add a layer to its viewer, noted before, as drawing it may fail."""
        self.add(edit)
        try:
            add_behind_boxes(edit.viewer, lambda: edit.viewer.add_layer(edit.layer))
        except Exception:
            self.follow(edit.viewer.layers)  # forgets it if it is not there
            raise

    def follow(self, layers: Container[Layer]) -> None:
        """Drop the edits of layers that were removed."""
        self.edits = [edit for edit in self.edits if edit.is_possible(layers)]

    def undo(self) -> str:
        """Undo the newest edit; return what was done, for the user.

        An edit that cannot be undone stays.
        """
        if not self.edits:
            return NOTHING
        edit = self.edits[-1]
        text = edit.undo()
        # it may be gone already, with the layer that was removed
        self.edits = [e for e in self.edits if e is not edit]
        return text
