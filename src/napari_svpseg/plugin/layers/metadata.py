"""Our entry in the metadata of layers, and what it tells of them."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari.layers import Layer

METADATA_KEY = "svpseg"
"""Key of our entry in a layer's metadata; layers without it are the user's own."""

PROMPT = "prompt"
"""Kind of the layers that stand for a prompt of a file while no dock lists it."""

ID = "svpseg_id"
"""Key of a layer's id in its metadata, see `layer_id`."""

NOT_IN_NAMES = re.compile(r"[./\\:*?\"<>|]+")
"""Characters of names that keep napari from saving layers into a folder.

It takes names for file names, what follows a dot for a format, and a slash for a
folder; it then saves none of the layers.
"""


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


def layer_id(layer: Layer) -> str:
    """Return the id of a layer, which other layers and files know it by.

    A name can change, and two layers can have the same one. The id is in the layer's
    metadata: a sample or a session gives it, else it is made here. A copy of a layer,
    which has the same metadata, gets an id of its own.
    """
    known, own = layer.metadata.get(ID), str(layer.unique_id)
    if isinstance(known, str):
        known = layer.metadata[ID] = (known, own)
    elif known is None or known[1] != own:
        known = layer.metadata[ID] = (new_id(), own)
    return str(known[0])


def new_id() -> str:
    """Return an id that no layer has."""
    return uuid.uuid4().hex


def find_layer(layers: Iterable[Layer], wanted: object) -> Any:
    """Return the layer with an id, or None."""
    if not wanted:
        return None
    return next((la for la in layers if layer_id(la) == wanted), None)


def is_of(layer: Layer, image: Layer, kind: str | None = None) -> bool:
    """Return whether a layer of ours lies on an image."""
    metadata = metadata_of(layer, kind)
    return metadata is not None and metadata.get("source_id") == layer_id(image)


def layer_name(text: str) -> str:
    """Return a name for a layer of ours, without dots and slashes.

    Examples
    --------
    >>> layer_name("day1/cells.ome [svpseg]")
    'day1_cells_ome [svpseg]'
    """
    return NOT_IN_NAMES.sub("_", text)
