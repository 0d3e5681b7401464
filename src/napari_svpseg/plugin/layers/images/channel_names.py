"""Names of the channels of an image layer, as its file has them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari.layers import Image

CHANNEL_NAMES = "svpseg_channel_names"
"""Key, in a layer's metadata, of the names of its channels."""


def channel_names(layer: Image) -> tuple[str, ...]:
    """Return the names of a layer's channels; empty where they are not known.

    A layer that another reader opened is looked up in its file.
    """
    known = layer.metadata.get(CHANNEL_NAMES)
    if known is not None:
        return tuple(known)
    path = getattr(layer.source, "path", None)
    if not path:
        return ()
    try:
        age = Path(path).stat().st_mtime_ns
    except OSError:
        return ()
    return _names_in(str(path), age)


@lru_cache(maxsize=64)
def _names_in(path: str, age: int) -> tuple[str, ...]:
    """Return the names in a TIFF or Zarr file of a certain age."""
    from ....core.image import ImageError
    from ....io.ome_zarr import read_channel_names

    try:
        return read_channel_names(path)
    except ImageError:  # of another kind, or without them
        return ()
