"""What a gallery shows of an image: a small picture, its count, trust and tick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..labels.object_colors import seen_image
from ..metadata import metadata_of

if TYPE_CHECKING:
    from napari.layers import Image, Labels

    from .run_layers import ShownResult

LOOKED_AT = "svpseg_looked_at"
"""Key in the metadata of an image: the result that the user has looked at."""

SIDE = 192
"""Longest side of a picture, in pixels."""


@dataclass(frozen=True, eq=False)
class ImageCard:
    """A picture of an image with the outlines of its objects.

    Parameters
    ----------
    pixels : (Y, X, 3) uint8 array
    n_objects : int
        -1 without a result.
    trust : float
        NaN where it is not known.
    """

    pixels: np.ndarray
    n_objects: int = -1
    trust: float = float("nan")


def card_of(image: Image, shown: ShownResult | None) -> ImageCard:
    """Return the card of an image; takes time, so call it in a thread."""
    pixels = np.ascontiguousarray(255 * seen_image(image, SIDE)).astype(np.uint8)
    if shown is None:
        return ImageCard(pixels)
    if not shown.is_stored:
        pixels = with_outlines(pixels, shown.layer)
    return ImageCard(pixels, shown.n_objects, shown.trust)


def with_outlines(pixels: np.ndarray, layer: Labels) -> np.ndarray:
    """Return a small picture with the outlines of the objects of a whole image."""
    ids: Any = layer.data
    if (metadata_of(layer) or {}).get("kind") == "preview":
        return pixels  # lies on a part of the image
    while ids.ndim > 2:
        ids = ids[len(ids) // 2]
    height, width = pixels.shape[:2]
    rows = np.arange(height) * ids.shape[0] // height
    columns = np.arange(width) * ids.shape[1] // width
    small = np.asarray(ids[rows[:, None], columns])
    edge = np.zeros(small.shape, bool)
    edge[:-1] |= small[:-1] != small[1:]
    edge[:, :-1] |= small[:, :-1] != small[:, 1:]
    owner = np.maximum(small, np.maximum(np.roll(small, -1, 0), np.roll(small, -1, 1)))
    drawn = pixels.copy()
    colors = np.asarray(layer.colormap.map(owner[edge]))[:, :3]
    drawn[edge] = np.round(255 * colors).astype(np.uint8)
    return drawn


def token_of(shown: ShownResult | None) -> str:
    """Return a text that is another one after each run."""
    if shown is None:
        return ""
    metadata = metadata_of(shown.layer) or {}
    return f"{shown.layer.unique_id} {metadata.get('when', '')}"


def version_of(shown: ShownResult | None) -> tuple[Any, ...]:
    """Return what the picture of a result depends on."""
    if shown is None:
        return ()
    metadata = metadata_of(shown.layer) or {}
    return (token_of(shown), *sorted(metadata.get("written", {}).values()))


def is_looked_at(image: Image, shown: ShownResult | None) -> bool:
    """Return whether the user has looked at the present result of an image."""
    return shown is not None and image.metadata.get(LOOKED_AT) == token_of(shown)


def look_at_result(image: Image, shown: ShownResult | None, looked: bool) -> None:
    """Note whether the user has looked at the present result of an image."""
    if looked and shown is not None:
        image.metadata[LOOKED_AT] = token_of(shown)
    else:
        image.metadata.pop(LOOKED_AT, None)
