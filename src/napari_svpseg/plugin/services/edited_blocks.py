"""Blocks of Labels layers that have changed since they were saved."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from ...io.session import Start, block_slices, block_starts
from ..callbacks import reports_errors
from ..layers.labels.partial_label_layers import KIND as PARTIAL
from ..layers.metadata import metadata_of
from ..layers.results.written_labels import region_of

if TYPE_CHECKING:
    from napari.layers import Labels, Layer

MAX_SAVED = 64_000_000
"""Pixels up to which a layer that was there before is saved whole once edited."""

PAINTED = ("mask", PARTIAL)
"""Kinds of our layers that the user paints in, and no run writes in."""
ON_DISK = ("stored", "stored edit")
"""Kinds of our layers whose strokes are written to a store at once."""
EDITING = ("paint", "fill", "erase", "polygon")
"""Modes of a Labels layer in which a change is the user's, not that of a run."""


@reports_errors()
class EditedBlocks(QObject):
    """Notes which blocks of which layers are to be saved.

    Attributes
    ----------
    keys : dict
        Id of a layer that is saved -> its key in the session.
    """

    edited = Signal()
    message = Signal(str, bool)

    def __init__(self) -> None:
        super().__init__()
        self.keys: dict[Any, str] = {}
        self._waiting: dict[Any, deque[Start]] = {}
        self._touched: dict[Any, set[Start]] = {}

    @property
    def is_waiting(self) -> bool:
        """Whether a block has not been copied yet."""
        return any(self._waiting.values())

    def watch(self, layer: Layer) -> None:
        """Note what is painted in a layer from now on."""
        from napari.layers import Labels, Shapes

        if isinstance(layer, Labels):
            layer.events.paint.connect(self._on_paint)
            layer.events.set_data.connect(self._on_shown)
        elif isinstance(layer, Shapes):
            layer.events.data.connect(self._on_boxes)

    def forget(self, layer: Layer) -> None:
        """Save a layer no more."""
        for known in (self.keys, self._waiting, self._touched):
            known.pop(layer.unique_id, None)

    def begin(self, layer: Labels) -> None:
        """Save a layer from now on; what was in it before is saved too."""
        key = layer.unique_id
        self.keys[key] = f"{len(self.keys)}-{str(key)[:8]}".replace("-", "")
        self._waiting[key], self._touched[key] = deque(), set()
        shape = tuple(layer.data.shape)
        if int(np.prod(shape, dtype=object)) <= MAX_SAVED and not layer.multiscale:
            self._note(key, block_starts(shape))

    def take(self, layer: Labels, limit: int) -> list[tuple[Start, np.ndarray]]:
        """Return copies of some blocks that changed; they count as saved now."""
        waiting = self._waiting[layer.unique_id]
        shape = tuple(layer.data.shape)
        taken = [
            (start, np.array(layer.data[block_slices(start, shape)]))
            for start in islice(waiting, max(limit, 0))
        ]
        for _ in taken:  # all of them were copied
            waiting.popleft()
        return taken

    def _on_boxes(self, event: Any) -> None:
        self.edited.emit()

    def _on_paint(self, event: Any) -> None:
        layer = event.source
        kind = (metadata_of(layer) or {}).get("kind")
        if kind in ON_DISK:
            return
        if kind not in PAINTED and (
            kind in ("preview", "comparison") or str(layer.mode) not in EDITING
        ):
            return  # a run wrote it, and can write it again
        shape = tuple(layer.data.shape)
        if layer.unique_id not in self.keys:
            self.begin(layer)
        for atom in event.value:
            self._note(layer.unique_id, block_starts(shape, region_of(atom)))

    def _on_shown(self, event: Any) -> None:
        """Look again at what was painted: napari reports an undo by this event only."""
        key = event.source.unique_id
        if key in self.keys:
            self._note(key, self._touched[key])

    def _note(self, key: Any, starts: Iterable[Start]) -> None:
        waiting = set(self._waiting[key])
        fresh = [s for s in starts if s not in waiting]
        self._waiting[key].extend(fresh)
        self._touched[key].update(fresh)
        self.edited.emit()
