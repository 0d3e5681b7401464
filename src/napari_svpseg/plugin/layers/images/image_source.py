"""Image layers as arrays: axes, planes, channels, and where a result lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ....core.geometry import Box, Tile
from ....core.image import Axes, ImageError, StackedChannels
from ..metadata import layer_id
from ..placement import Calibration, Grid, Place
from ..prompts.companion import Companion
from ..world import NOT_YX, shows_yx, to_data, visible_corners, world_point
from .pyramid import full_shape, level_factors

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels

MAX_PREVIEW = 2048
"""Longest side of a preview, in pixels."""

MAX_CHANNELS = 3
"""Channels that a model takes."""

NAME_AXES = (
    "Name the {n} axes of '{image}' in the Axes row: T time, Z depth, C channel, Y, X."
)


def plain_name(name: str) -> str:
    """Return a name with ``_`` in place of characters that file systems refuse."""
    return "".join(c if c.isalnum() or c in "-_ ." else "_" for c in name)


@dataclass(frozen=True, eq=False)
class ImageSource:
    """An image layer whose axes have been declared.

    Layers that lie on the image (labels, boxes, masks) are called its companions; see
    `Companion`.

    Parameters
    ----------
    layer : Image
    axes : Axes
    channels : tuple of int, optional
        Channels to take, in order; None takes all.
    level : int
        Of a multiscale layer: all pixels are those of this level.
    others : tuple of Image
        Layers of the same shape that are taken as further channels. C is then the
        first of the axes, and the layer itself the first channel.
    """

    layer: Image
    axes: Axes
    channels: tuple[int, ...] | None = None
    level: int = 0
    others: tuple[Image, ...] = ()

    @classmethod
    def of(
        cls,
        layer: Image,
        order: str,
        channels: tuple[int, ...] | None = None,
        *,
        level: int = 0,
        others: tuple[Image, ...] = (),
    ) -> ImageSource:
        """Return the source of a layer.

        Raises
        ------
        ImageError
            If the axes do not fit; the message says what to do.
        """
        if not order:
            raise ImageError(NAME_AXES.format(n=layer.ndim, image=layer.name))
        axes = Axes(order)
        axes.check(full_shape(layer))
        if axes.channel == len(axes.order) - 1 and not layer.rgb:
            raise ImageError(
                f"'{layer.name}' has its channels last but is not shown as RGB: "
                "open it as RGB, or with the channels first (CYX)."
            )
        if layer.rgb and axes.channel != len(axes.order) - 1:
            raise ImageError(
                f"'{layer.name}' is shown as RGB: its last axis must be C, got {order}."
            )
        if others:
            check_channels(layer, axes, others)
            axes = Axes(f"C{axes.order}")
        return cls(layer, axes, channels, level, others)

    @property
    def data(self) -> Any:
        """The pixels, in the order of `axes`, lazily where they are lazy."""
        layers = (self.layer, *self.others)
        arrays = [la.data[self.level] if la.multiscale else la.data for la in layers]
        return StackedChannels(arrays) if self.others else arrays[0]

    @property
    def layer_axes(self) -> str:
        """Axes of the layer's own dimensions; an RGB layer does not count its C."""
        order = self.axes.order[1:] if self.others else self.axes.order
        return order[: self.layer.ndim]

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the layers that are the channels, where there are several."""
        layers = (self.layer, *self.others) if self.others else ()
        return tuple(str(layer.name) for layer in layers)

    @property
    def name(self) -> str:
        """The layer's name."""
        return str(self.layer.name)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the full data, in the order of `axes`."""
        return tuple(int(n) for n in self.data.shape)

    @property
    def plane_shape(self) -> tuple[int, int]:
        """Height and width."""
        return (self._length("Y"), self._length("X"))

    @property
    def n_channels(self) -> int:
        """Number of channels that a prompt takes."""
        if self.channels is not None:
            return len(self.channels)
        return 3 if self.layer.rgb else self._length("C")

    @property
    def n_planes(self) -> int:
        """Number of planes along Z and T."""
        return int(np.prod([self._length(a) for a in self.axes.stack], dtype=int))

    @property
    def companion(self) -> Companion:
        """Axes and shape of the layers that lie on the image."""
        return Companion.of(self.axes, self.shape)

    def grid(self, corner: tuple[int, ...] | None = None) -> Grid:
        """Return the pixels of a companion, in pixels of the layer.

        Parameters
        ----------
        corner : tuple of int, optional
            Index of the companion's first pixel in the image, for a part of it.
        """
        axes = self.companion.axes
        factors = level_factors(self.layer, self.level)[-len(axes) :]
        if "C" in axes:  # one pixel long there, and as long as all channels
            factors[axes.index("C")] = self._length("C")
        return Grid(tuple(factors.tolist()), corner or (0,) * len(axes))

    def placement(self, corner: tuple[int, ...] | None = None) -> dict[str, Any]:
        """Return the arguments that place a companion on the image.

        They are ``scale``, ``translate``, ``affine``, ``units`` and ``axis_labels`` of
        the image, without the channel axis.

        Parameters
        ----------
        corner : tuple of int, optional
            As for `grid`.
        """
        return Place.of(self.layer).on(self.grid(corner)).arguments()

    def entry(
        self, kind: str, corner: tuple[int, ...] | None = None, **more: Any
    ) -> dict[str, Any]:
        """Return our entry in the metadata of a companion: what it lies on, and where.

        Parameters
        ----------
        kind : str
        corner : tuple of int, optional
            As for `grid`.
        **more
            Further values.
        """
        return {
            "kind": kind,
            "image": self.name,
            "source_id": layer_id(self.layer),
            "grid": self.grid(corner).to_dict(),
            "n_channels": 1 if self.layer.rgb else self._length("C"),
            **more,
        }

    def calibration(self, corner: tuple[int, ...] | None = None) -> Calibration:
        """Return pixel sizes and position of a companion, for files."""
        place = Place.of(self.layer).on(self.grid(corner))
        return place.calibration(self.companion.axes)

    def point_to_data(self, point: tuple[float, ...]) -> np.ndarray:
        """Return a point of the world as index into the companion's axes.

        Parameters
        ----------
        point : tuple of float
            A `WorldPoint`, or in the units of the layer.
        """
        axes, grid = self.companion.axes, self.grid()
        data = to_data(self.layer, point)[-len(axes) :]
        index = (data - grid.origin) / np.array(grid.factors)
        if "C" in axes:
            index[axes.index("C")] = 0
        return np.asarray(index)

    def plane_at(self, point: tuple[float, ...]) -> tuple[int, ...]:
        """Return the index into Z and T of the plane that ``point`` (world) is in."""
        return self.companion.plane_of(self.point_to_data(point))

    def shown_plane(self, viewer: ViewerModel) -> tuple[int, ...]:
        """Return the index into Z and T of the plane that a viewer shows.

        Raises
        ------
        ImageError
            If the view does not show Y and X, but XZ for instance.
        """
        if not shows_yx(viewer, self.companion.axes):
            raise ImageError(NOT_YX.format(self.name))
        return self.plane_at(world_point(viewer))

    def query(self, plane: tuple[int, ...] | None, tile: Tile | None = None) -> Any:
        """Return the part of the data to be segmented, lazily, with `query_axes`."""
        slices: list[Any] = list(
            self.axes.plane_slices(plane)
            if plane is not None
            else [slice(None)] * len(self.axes.order)
        )
        if tile is not None:
            for a, part in zip("YX", tile.slices, strict=True):
                slices[self.axes.order.index(a)] = part
        return self._part(slices)

    def _part(self, slices: list[Any]) -> Any:
        data = self.data
        if isinstance(data, StackedChannels):
            return data.part(tuple(slices[1:]))
        return data[tuple(slices)]

    def planes(self, plane: tuple[int, ...] | None) -> Any:
        """Return the data of one plane (None: of all), lazily, with all its axes."""
        positions = iter(plane or ())
        slices = []
        for a in self.axes.order:
            if a in "CYX" or plane is None:
                slices.append(slice(None))
            else:
                i = next(positions)
                slices.append(slice(i, i + 1))
        return self._part(slices)

    def query_axes(self, plane: tuple[int, ...] | None) -> str:
        """Return the axes of `query`."""
        if plane is None:
            return self.axes.order
        return "".join(a for a in self.axes.order if a in "CYX")

    def crop(self, plane: tuple[int, ...], box: Box) -> np.ndarray:
        """Return the pixels of a box as ``(Y, X, C)``, with all channels."""
        tile = Tile(box.y, box.y + box.size, box.x, box.x + box.size)
        return self.axes.to_plane(np.asarray(self.query(plane, tile)))

    def contains(self, point: tuple[float, ...]) -> bool:
        """Return whether a point of the world is on the image."""
        y, x = self.point_to_data(point)[self.companion.yx]
        height, width = self.plane_shape
        return bool(-0.5 <= y < height - 0.5 and -0.5 <= x < width - 0.5)

    def pixel_size(self) -> tuple[tuple[float, float], str]:
        """Return height and width of a pixel, and their unit: ``um`` or ``pixel``."""
        found = self.calibration()
        return found.pixel_size, found.unit

    def visible_tile(self, viewer: ViewerModel) -> Tile:
        """Return the visible part of the image, at most `MAX_PREVIEW` long."""
        corners = visible_corners(viewer, self.layer)
        corners /= level_factors(self.layer, self.level)
        order = self.layer_axes
        bounds = []
        for a in "YX":
            low, high = corners[:, order.index(a)]
            length = self._length(a)
            start, stop = int(max(low, 0)), int(min(np.ceil(high) + 1, length))
            if stop - start < 2:
                start, stop = 0, length
            if stop - start > MAX_PREVIEW:
                start = (start + stop - MAX_PREVIEW) // 2
                stop = start + MAX_PREVIEW
            bounds += [start, stop]
        return Tile(*bounds)

    def _length(self, axis: str) -> int:
        i = self.axes.order.find(axis)
        return self.shape[i] if i >= 0 else 1


def check_channels(layer: Image, axes: Axes, others: tuple[Image, ...]) -> None:
    """Raise `ImageError` where layers cannot be the channels of one image."""
    for one in (layer, *others):
        if one.rgb or (one is layer and axes.channel is not None):
            raise ImageError(
                f"'{one.name}' has channels of its own: only layers without them can "
                "be taken together."
            )
    if len(others) >= MAX_CHANNELS:
        raise ImageError(f"Take up to {MAX_CHANNELS} layers as channels.")
    for other in others:
        if full_shape(other) != full_shape(layer) or (
            other.multiscale != layer.multiscale
        ):
            raise ImageError(
                f"'{layer.name}' is {size_text(layer)}, '{other.name}' "
                f"{size_text(other)}: layers taken as channels must be of one shape."
            )


def size_text(layer: Image) -> str:
    """Return the shape of a layer, for the user."""
    levels = f" with {len(layer.data)} levels" if layer.multiscale else ""
    return " x ".join(map(str, full_shape(layer))) + levels


def fits_on(labels: Labels, source: ImageSource) -> bool:
    """Return whether a Labels layer has the shape of an image without its channels."""
    shape = tuple(labels.data.shape) if not labels.multiscale else None
    return shape in (source.companion.shape, source.plane_shape)
