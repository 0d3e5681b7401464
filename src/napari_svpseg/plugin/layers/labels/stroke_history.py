"""Strokes that napari could still undo after a layer's array was replaced."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...callbacks import reports_errors
from ..metadata import METADATA_KEY

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer


@reports_errors()
class StrokeHistory:
    """Clears napari's undo and redo of our Labels layers whose array is replaced.

    We change arrays in place. Where another plugin or a script sets ``layer.data``,
    napari (up to 0.9 at least) keeps the strokes of the old array: its undo would write
    them into the new one, without an event that tells of it.

    Parameters
    ----------
    viewer : ViewerModel
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        viewer.layers.events.inserted.connect(self._on_inserted)
        for layer in viewer.layers:
            self._follow(layer)

    def close(self) -> None:
        """Let go of the viewer and its layers."""
        self.viewer.layers.events.inserted.disconnect(self._on_inserted)
        for layer in self.viewer.layers:
            layer.events.data.disconnect(self._on_data)

    def _follow(self, layer: Layer) -> None:
        if hasattr(layer, "undo") and METADATA_KEY in layer.metadata:
            layer.events.data.connect(self._on_data)

    def _on_inserted(self, event: Any) -> None:
        self._follow(event.value)

    def _on_data(self, event: Any) -> None:
        clear: Callable[[], None] | None
        clear = getattr(event.source, "_reset_history", None)
        if clear is not None:
            clear()
