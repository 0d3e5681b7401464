"""Keeps our layers where their images lie, and in the units of the world."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..callbacks import reports_errors
from .metadata import find_layer, is_image, metadata_of
from .placement import Grid, Place, align
from .world import world_units

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

MOVES = ("scale", "translate", "rotate", "shear", "affine")
"""Events of a layer that was moved, or got another pixel size."""


@reports_errors("refresh")
class Alignment:
    """Moves our layers with their images.

    They have the units of the world: napari's own tools, the brush among them, take
    coordinates of the world for those of the layer.

    Parameters
    ----------
    viewer : ViewerModel
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removed.connect(self._on_removed)
        for layer in viewer.layers:
            self._follow(layer)
        self.refresh()

    def close(self) -> None:
        """Let go of the viewer and its layers."""
        self.viewer.layers.events.inserted.disconnect(self._on_inserted)
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        for layer in self.viewer.layers:
            self._let_go(layer)

    def refresh(self, event: Any = None) -> None:
        """Move all our layers to where their images lie."""
        layers = list(self.viewer.layers)
        users = [layer for layer in layers if metadata_of(layer) is None]
        units = world_units(self.viewer, users)
        for layer in layers:
            metadata = metadata_of(layer) or {}
            image = find_layer(layers, metadata.get("source_id"))
            if image is not None and "grid" in metadata:
                grid = Grid.from_dict(metadata["grid"])
                if len(grid.factors) == layer.ndim <= image.ndim:
                    align(layer, Place.of(image).on(grid).in_units(units))

    def _follow(self, layer: Layer) -> None:
        if metadata_of(layer) is None:
            layer.events.units.connect(self.refresh)
        if is_image(layer):
            for name in MOVES:
                getattr(layer.events, name).connect(self.refresh)

    def _let_go(self, layer: Layer) -> None:
        for name in ("units", *MOVES):
            getattr(layer.events, name).disconnect(self.refresh)

    def _on_inserted(self, event: Any) -> None:
        self._follow(event.value)
        self.refresh()

    def _on_removed(self, event: Any) -> None:
        self._let_go(event.value)
        self.refresh()
