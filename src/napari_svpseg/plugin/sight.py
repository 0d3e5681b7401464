"""Which of the images that lie over each other is in sight, with what is on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .layers import is_picture, mark_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

SEE_THROUGH = ("additive", "minimum", "multiplicative")
"""Blendings with which images are seen together, such as channels."""

OF = "svpseg_of"
"""Key, in the metadata of a layer that is not ours, of the image that it lies on."""

LEAST_OPAQUE = 0.8
MOST_SHARED = 0.5
"""Images that share no more of the smaller one's area lie beside each other."""


def is_in_sight(viewer: ViewerModel, layer: Image) -> bool:
    """Tell whether an image is visible and no other hides it."""
    if not layer.visible:
        return False
    layers = viewer.layers
    over = layers[layers.index(layer) + 1 :]
    return not any(
        la.visible and la.opacity > LEAST_OPAQUE for la in rivals(viewer, layer, over)
    )


def bring_into_sight(viewer: ViewerModel, layer: Image) -> None:
    """Make an image visible, and hide those in its place with all that is on them."""
    layer.visible = True
    hidden = rivals(viewer, layer, viewer.layers)
    for other in viewer.layers:
        if belongs_to(other, layer):
            other.visible = True
        elif any(other == image or belongs_to(other, image) for image in hidden):
            other.visible = False


def belongs_to(layer: Layer, image: Image) -> bool:
    """Tell whether a layer lies on an image: a result, boxes, painted labels.

    Two images of one name share what tells them by name.
    """
    mark = mark_of(layer) or {}
    names = {mark.get("source_id"), mark.get("image"), layer.metadata.get(OF)} - {None}
    return bool(names & {image.unique_id, image.name})


def rivals(viewer: ViewerModel, layer: Image, others: list[Layer]) -> list[Image]:
    """Return the images that cannot be seen together with one.

    Parameters
    ----------
    layer : Image
    others : list of Layer
        To choose from.
    """
    if getattr(viewer, "canvas", viewer).grid.enabled:  # moved in napari 0.9
        return []
    if layer.blending in SEE_THROUGH:
        return []
    return [
        other
        for other in others
        if is_picture(other)
        and other != layer
        and other.blending not in SEE_THROUGH
        and shared_area(other, layer) > MOST_SHARED
    ]


def shared_area(a: Layer, b: Layer) -> float:
    """Return how much of the smaller one's area two layers share in the plane shown.

    Returns
    -------
    float
        From 0 to 1.
    """
    first, second = (np.asarray(la.extent.world)[:, -2:] for la in (a, b))
    low, high = np.maximum(first[0], second[0]), np.minimum(first[1], second[1])
    smaller = min(float(np.prod(np.ptp(e, axis=0))) for e in (first, second))
    return float(np.prod(np.maximum(high - low, 0))) / max(smaller, 1e-12)
