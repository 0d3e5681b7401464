"""Coordinates of the world, in which napari draws layers of different units together.

Since version 0.7 napari converts the units of layers when it draws them and when it
reports where the pointer is, but not in ``world_to_data`` and ``data_to_world`` of a
layer, which know the layer's own units only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.units import ratio

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

Units = tuple[Any, ...] | None
"""Unit of each axis of the world; None where napari draws without units."""

Values = Sequence[float] | np.ndarray

NOT_YX = (
    "The view does not show the Y and X of '{}': press Ctrl+E until it does, then draw "
    "or click."
)


class WorldPoint(tuple[float, ...]):
    """A point of the world that knows its units.

    Parameters
    ----------
    values : iterable of float
    units : tuple of units or None
    """

    units: Units

    def __new__(cls, values: Iterable[float], units: Units) -> WorldPoint:
        """Return the point; a tuple is made before `__init__`."""
        point = super().__new__(cls, (float(v) for v in values))
        point.units = units
        return point


def world_point(
    viewer: ViewerModel, position: Iterable[float] | None = None
) -> WorldPoint:
    """Return a position of the viewer, by default that of the planes it shows."""
    values = viewer.dims.point if position is None else position
    return WorldPoint(values, world_units(viewer))


def world_units(viewer: ViewerModel, layers: Iterable[Layer] | None = None) -> Units:
    """Return the units of the world's coordinates, such as those of the pointer.

    They are None where layers disagree whether an axis is a length: napari then draws
    the numbers as they are.

    Parameters
    ----------
    viewer : ViewerModel
    layers : iterable of Layer, optional
        To look at these alone, if there are any.
    """
    some = list(layers or ())
    extent = viewer.layers.get_extent(some) if some else viewer.layers.extent
    units = getattr(extent, "units", None)
    return None if units is None else tuple(units)


def to_data(layer: Layer, point: Values) -> np.ndarray:
    """Return a point of the world as index into a layer.

    Parameters
    ----------
    layer : Layer
    point : WorldPoint, or sequence of float
        In the units of the layer unless it knows others. With fewer axes than the
        layer, it is at 0 along the others.
    """
    values = np.asarray(point, float)[-layer.ndim :]
    values = np.concatenate([np.zeros(layer.ndim - len(values)), values])
    factors = factors_of(layer, getattr(point, "units", None))
    return np.asarray(layer.world_to_data(values * factors))


def to_world(layer: Layer, vertex: Values, units: Units) -> WorldPoint:
    """Return the point of the world that an index into a layer is at."""
    values = np.asarray(layer.data_to_world(vertex)) / factors_of(layer, units)
    return WorldPoint(values, units)


def pixel_lengths(layer: Layer, units: Units) -> np.ndarray:
    """Return how long a pixel of a layer is in the world, along each of its axes."""
    start, *ends = (
        np.array(to_world(layer, vertex, units))
        for vertex in (np.zeros(layer.ndim), *np.eye(layer.ndim))
    )
    return np.linalg.norm(np.array(ends) - start, axis=1)


def factors_of(layer: Layer, units: Units) -> np.ndarray:
    """Return the numbers that turn coordinates of the world into those of a layer."""
    own = getattr(layer, "units", None)
    if units is None or own is None or len(units) < layer.ndim:
        return np.ones(layer.ndim)
    pairs = zip(units[-layer.ndim :], own, strict=True)
    return np.array([ratio(world, one) for world, one in pairs])


def shows_yx(viewer: ViewerModel, axes: str) -> bool:
    """Return whether the view shows Y and X of layers with these axes.

    Not so in a view of XZ, where a click names no pixel of a plane, and no plane is
    the one that is shown.

    Parameters
    ----------
    viewer : ViewerModel
    axes : str
        Of a layer that lies on an image, see `Companion`.
    """
    dims = viewer.dims
    first = dims.ndim - len(axes)
    return {first + axes.index(a) for a in "YX"} <= set(dims.displayed)


def visible_corners(viewer: ViewerModel, layer: Layer) -> np.ndarray:
    """Return the first and the last visible pixel of a layer, (2, D), at full size.

    napari's own ``corner_pixels`` take the coordinates of the world for the layer's.
    """
    units = world_units(viewer)
    if not (factors_of(layer, units) != 1).any():
        corners = np.array(layer.corner_pixels, float)
        if layer.multiscale:
            corners *= np.asarray(layer.downsample_factors)[layer.data_level]
        return corners
    camera = getattr(viewer, "scene", viewer).camera
    canvas = getattr(viewer, "canvas", None)
    size = np.array(viewer._canvas_size if canvas is None else canvas.size, float)
    half = size / camera.zoom / 2
    shown, found = list(viewer.dims.displayed)[-2:], []
    for signs in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        point = np.array(viewer.dims.point, float)
        point[shown] = np.array(camera.center[-2:]) + half * signs
        found.append(to_data(layer, WorldPoint(point, units)))
    return np.stack([np.min(found, axis=0), np.max(found, axis=0)])
