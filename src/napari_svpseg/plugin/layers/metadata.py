"""Our entry in the metadata of layers, and what it tells of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari.layers import Layer

METADATA_KEY = "svpseg"
"""Key of our entry in a layer's metadata; layers without it are the user's own."""


def metadata_of(layer: Layer, kind: str | None = None) -> dict[str, Any] | None:
    """Return our entry in a layer's metadata, or None for a layer of the user's."""
    metadata = layer.metadata.get(METADATA_KEY)
    if not isinstance(metadata, dict) or (kind and metadata.get("kind") != kind):
        return None
    return metadata


def is_image(layer: Layer) -> bool:
    """Return whether a layer is an image of the user's, not one of our maps."""
    from napari.layers import Image

    return isinstance(layer, Image) and metadata_of(layer) is None


def is_mask(layer: Layer) -> bool:
    """Return whether a layer is Labels of the user's, or painted for a prompt."""
    from napari.layers import Labels

    if not isinstance(layer, Labels):
        return False
    return metadata_of(layer) is None or metadata_of(layer, "mask") is not None
