"""Which images are in view, the order of layers, and the camera."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..metadata import is_image, layer_id, metadata_of
from ..world import Units, factors_of, to_world, world_units

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


class Stack:
    """The layers of a viewer as they lie on each other now; changes are not followed.

    Each layer is looked at once: lists of napari's take longer to slice than all else,
    and there may be many images with many layers on each.

    Parameters
    ----------
    viewer : ViewerModel
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self.layers: list[Layer] = list(viewer.layers)
        self.images: list[Image] = [la for la in self.layers if is_image(la)]
        self._places = {la.unique_id: i for i, la in enumerate(self.layers)}
        self._images = {layer_id(image): image for image in self.images}
        # moved in napari 0.9
        self._grid = bool(getattr(viewer, "canvas", viewer).grid.enabled)
        self._viewer = viewer
        self._units: Units = None
        self._extents: dict[Any, np.ndarray] = {}

    def seen(self) -> list[Image]:
        """Return the images that are visible and that no other hides."""
        return [image for image in self.images if self.is_seen(image)]

    def is_seen(self, image: Image) -> bool:
        """Return whether an image is visible and no other hides it."""
        if not image.visible:
            return False
        place = self._places.get(image.unique_id)
        if place is None:  # it was removed
            return False
        over = [la for la in self.images if self._places[la.unique_id] > place]
        opaque = (la for la in over if la.visible and la.opacity > LEAST_OPAQUE)
        # the topmost first: it is the one that hides most
        return not any(self.hiding(image, [la]) for la in reversed(list(opaque)))

    def owner(self, layer: Layer) -> Image | None:
        """Return the image that a layer lies on."""
        known = (metadata_of(layer) or {}).get("source_id"), layer.metadata.get(OF)
        return next((self._images[one] for one in known if one in self._images), None)

    def image_of(self, layer: Layer) -> Image | None:
        """Return the image that a layer is or lies on."""
        return layer if is_image(layer) else self.owner(layer)

    def hiding(self, image: Image, others: list[Image]) -> list[Image]:
        """Return the images of ``others`` that hide an image, or that it hides."""
        if self._grid or image.blending in SEE_THROUGH:
            return []
        return [
            other
            for other in others
            if other.unique_id != image.unique_id
            and other.blending not in SEE_THROUGH
            and _shared(self._extent(other), self._extent(image)) > MOST_SHARED
        ]

    def _extent(self, image: Image) -> np.ndarray:
        known = self._extents.get(image.unique_id)
        if known is None:
            if not self._extents:
                self._units = world_units(self._viewer)
            known = world_extent(image, self._units)
            self._extents[image.unique_id] = known
        return known


def is_in_sight(viewer: ViewerModel, layer: Image) -> bool:
    """Return whether an image is visible and no other hides it."""
    return Stack(viewer).is_seen(layer)


def bring_into_sight(viewer: ViewerModel, layer: Image) -> None:
    """Show an image, and hide those in its place with all layers that lie on them."""
    show(layer)
    stack = Stack(viewer)
    hidden = {image.unique_id for image in stack.hiding(layer, stack.images)}
    for other in stack.layers:
        image = stack.image_of(other)
        if image is not None and image.unique_id == layer.unique_id:
            show(other)
        elif image is not None and image.unique_id in hidden:
            show(other, visible=False)


def show(layer: Layer, *, visible: bool = True) -> None:
    """Show a layer or hide it; where nothing changes napari would draw it again."""
    if layer.visible != visible:
        layer.visible = visible


def belongs_to(layer: Layer, image: Image) -> bool:
    """Return whether a layer lies on an image: a result, boxes, painted labels."""
    known = (metadata_of(layer) or {}).get("source_id"), layer.metadata.get(OF)
    return layer_id(image) in known


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
    return _shared(world_extent(a, units), world_extent(b, units))


def _shared(one: np.ndarray, two: np.ndarray) -> float:
    """Return how much of the smaller one's area two extents share, 0 to 1."""
    first, second = one[:, -2:], two[:, -2:]
    low, high = np.maximum(first[0], second[0]), np.minimum(first[1], second[1])
    smaller = min(float(np.prod(np.ptp(e, axis=0))) for e in (first, second))
    return float(np.prod(np.maximum(high - low, 0))) / max(smaller, 1e-12)


def world_extent(layer: Layer, units: Units) -> np.ndarray:
    """Return the least and the largest coordinates of a layer in the world, (2, D)."""
    return np.asarray(layer.extent.world, float) / factors_of(layer, units)


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
