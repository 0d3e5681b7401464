"""Reports layers that were painted in, moved, or got new data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal

from ...callbacks import reports_errors
from ..alignment import MOVES

if TYPE_CHECKING:
    from napari.layers import Layer

WAIT_MS = 150
"""From an edit to the signal: one stroke is many events."""


@reports_errors()
class EditWatcher(QObject):
    """Watches layers for edits, and reports a spell of edits once."""

    edited = Signal()
    replaced = Signal(object)
    """A layer whose data was replaced, reported at once."""

    def __init__(self) -> None:
        super().__init__()
        self._watched: set[Any] = set()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(WAIT_MS)
        self._timer.timeout.connect(self.edited)

    def watch(self, layer: Layer | None) -> None:
        """Report edits of a layer from now on; None is ignored."""
        if layer is None or layer.unique_id in self._watched:
            return
        self._watched.add(layer.unique_id)
        for name in ("paint", "data", "labels_update", *MOVES, "units"):
            emitter = getattr(layer.events, name, None)
            if emitter is not None:
                emitter.connect(self._on_edited)

    def forget(self, layer: Layer) -> None:
        """Let a layer that was removed be watched again if it comes back."""
        self._watched.discard(layer.unique_id)

    def _on_edited(self, event: Any) -> None:
        if event.type == "data":
            self.replaced.emit(event.source)
        self._timer.start()
