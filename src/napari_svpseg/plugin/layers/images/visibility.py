"""Which images are in view, the order of layers, and the camera."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..metadata import is_image, layer_id, metadata_of
from ..world import Units, to_world, world_units

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

SEE_THROUGH = ("additive", "minimum", "multiplicative")
"""Blendings with which several images are seen at once, such as channels."""

BOX_PIXELS = 320
"""Least length on screen of a box that the camera moves to."""

IMAGE_PIXELS = 600
"""Length on screen of an image that the camera moves to."""

OF = "svpseg_of"
"""Key in the metadata of a layer that is not ours: id of the image it lies on."""

LEAST_OPAQUE = 0.8
"""Opacity above which an image hides those below it."""
MOST_SHARED = 0.5
"""Images that share no more than this of the smaller one's area lie side by side."""


def is_in_sight(viewer: ViewerModel, layer: Image) -> bool:
    """Return whether an image is visible and no other hides it."""
    if not layer.visible:
        return False
    over = viewer.layers[viewer.layers.index(layer) + 1 :]
    opaque = (la for la in over if la.visible and la.opacity > LEAST_OPAQUE)
    # the topmost first: it is the one that hides most
    return not any(hiding_images(viewer, layer, [la]) for la in reversed(list(opaque)))


def bring_into_sight(viewer: ViewerModel, layer: Image) -> None:
    """Show an image, and hide those in its place with all layers that lie on them."""
    layer.visible = True
    hidden = hiding_images(viewer, layer, viewer.layers)
    for other in viewer.layers:
        if belongs_to(other, layer):
            other.visible = True
        elif any(other == image or belongs_to(other, image) for image in hidden):
            other.visible = False


def belongs_to(layer: Layer, image: Image) -> bool:
    """Return whether a layer lies on an image: a result, boxes, painted labels."""
    known = (metadata_of(layer) or {}).get("source_id"), layer.metadata.get(OF)
    return layer_id(image) in known


def hiding_images(
    viewer: ViewerModel, layer: Image, others: list[Layer]
) -> list[Image]:
    """Return the images that hide an image, or that it hides.

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
    units = world_units(viewer)
    return [
        other
        for other in others
        if is_image(other)
        and other != layer
        and other.blending not in SEE_THROUGH
        and shared_area(other, layer, units) > MOST_SHARED
    ]


def shared_area(a: Layer, b: Layer, units: Units = None) -> float:
    """Return how much of the smaller one's area two layers share in the plane shown.

    Parameters
    ----------
    a, b : Layer
    units : tuple of units, optional
        Of the world, see `world_units`.

    Returns
    -------
    float
        From 0 to 1.
    """
    first, second = (world_extent(la, units)[:, -2:] for la in (a, b))
    low, high = np.maximum(first[0], second[0]), np.minimum(first[1], second[1])
    smaller = min(float(np.prod(np.ptp(e, axis=0))) for e in (first, second))
    return float(np.prod(np.maximum(high - low, 0))) / max(smaller, 1e-12)


def world_extent(layer: Layer, units: Units) -> np.ndarray:
    """Return the least and the largest coordinates of a layer in the world, (2, D)."""
    corners = np.asarray(layer.extent.data, float)
    n = layer.ndim
    every = np.stack(np.meshgrid(*corners.T[-n:]), axis=-1).reshape(-1, n)
    world = np.array([to_world(layer, corner, units) for corner in every])
    return np.stack([world.min(axis=0), world.max(axis=0)])


def activate(viewer: ViewerModel, layer: Layer | None) -> None:
    """Select one layer.

    Through ``active``, which accepts the proxies that napari gives to plugins. A
    selection of proxies would break napari's own checks of which layer is active.
    """
    if layer is None or layer in viewer.layers:
        viewer.layers.selection.active = layer


def add_behind_boxes(viewer: ViewerModel, add: Callable[[], Any]) -> Any:
    """Add a layer below the boxes but above all images; the selection stays."""
    active = viewer.layers.selection.active
    layer = add()
    others = list(viewer.layers)[:-1]
    boxes = [i for i, la in enumerate(others) if metadata_of(la, "boxes")]
    images = [i for i, la in enumerate(others) if is_image(la)]
    place = max(min(boxes, default=len(others)), max(images, default=-1) + 1)
    if place < len(others):
        viewer.layers.move(len(others), place)
    if active is not None:
        viewer.layers.selection.active = active
    return layer


def camera_of(viewer: ViewerModel) -> Any:
    """Return the camera, which moved to ``viewer.scene`` in napari 0.9."""
    return getattr(viewer, "scene", viewer).camera


def look_at(
    viewer: ViewerModel,
    layer: Layer,
    corners: np.ndarray,
    pixels: int = BOX_PIXELS,
    *,
    closer: bool = True,
) -> None:
    """Move the camera to a rectangle, at least so many pixels long on screen.

    Parameters
    ----------
    layer : Layer
        In whose coordinates the corners are.
    corners : (N, D) array
    pixels : int
    closer : bool
        Keep the zoom where it is larger already.
    """
    units = world_units(viewer)
    world = np.array([to_world(layer, c, units) for c in corners])
    centre = world.mean(axis=0)
    step = list(viewer.dims.point)
    step[-len(centre) : -2] = centre[:-2]
    viewer.dims.point = step
    shown = list(viewer.dims.displayed)[-2:]
    offset = viewer.dims.ndim - len(centre)
    camera = camera_of(viewer)
    camera.center = tuple(centre[[d - offset for d in shown]])
    zoom = pixels / max(float(np.ptp(world[:, -2:], axis=0).max()), 1e-9)
    camera.zoom = max(camera.zoom, zoom) if closer else zoom
