"""Axes of the layers that lie on an image, and where its planes are in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ....core.geometry import Box, Tile
from ....core.image import Axes


@dataclass(frozen=True)
class Companion:
    """Axes and shape of the layers (labels, boxes, masks) that lie on an image.

    They have the image's axes without C, so that napari shows both in the same planes.
    Where C stands between other axes it is kept with length 1: dropping it would shift
    the axes before it, as napari aligns layers at their last axis.

    Parameters
    ----------
    axes : str
    shape : tuple of int
        Of a layer over the whole image.
    """

    axes: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, axes: Axes, shape: tuple[int, ...]) -> Companion:
        """Return the companion of an image with these axes and this shape."""
        lengths = dict(zip(axes.order, shape, strict=True))
        kept = axes.order.strip("C")
        return cls(kept, tuple(1 if a == "C" else lengths[a] for a in kept))

    @property
    def yx(self) -> list[int]:
        """Positions of Y and X among the axes."""
        return [self.axes.index(a) for a in "YX"]

    def plane_of(self, vertex: np.ndarray) -> tuple[int, ...]:
        """Return the index into Z and T of a point in data coordinates."""
        return tuple(
            int(np.clip(round(float(vertex[i])), 0, self.shape[i] - 1))
            for i, a in enumerate(self.axes)
            if a not in "CYX"
        )

    def index(
        self, plane: tuple[int, ...] | None, tile: Tile | None = None
    ) -> tuple[slice, ...]:
        """Return the slices that hold a plane (None: all planes), or a tile of it."""
        positions = iter(plane or ())
        slices = []
        for a, length in zip(self.axes, self.shape, strict=True):
            if a in "YX" and tile is not None:
                slices.append(tile.slices["YX".index(a)])
            elif a in "CYX" or plane is None:
                slices.append(slice(0, length))
            else:
                i = next(positions)
                slices.append(slice(i, i + 1))
        return tuple(slices)

    def corner(
        self, plane: tuple[int, ...] | None, tile: Tile | None = None
    ) -> tuple[int, ...]:
        """Return the index of the first pixel of a plane, or of a tile of it."""
        return tuple(part.start for part in self.index(plane, tile))

    def corners(self, plane: tuple[int, ...], box: Box) -> np.ndarray:
        """Return the four corners of a box, one in each row."""
        vertices = np.zeros((4, len(self.axes)))
        positions = iter(plane)
        for i, a in enumerate(self.axes):
            if a in "YX":
                vertices[:, i] = box.corners[:, "YX".index(a)]
            elif a != "C":
                vertices[:, i] = next(positions)
        return vertices

    def flat(self, part: np.ndarray) -> np.ndarray:
        """Return the (Y, X) array of one plane, or a part of it, with all axes."""
        turned = np.moveaxis(part, self.yx, (-2, -1))
        return turned.reshape(turned.shape[-2:])

    def expand(self, labels: np.ndarray, plane: tuple[int, ...] | None) -> np.ndarray:
        """Return labels of a plane (None: of all planes) with all axes."""
        for i, a in enumerate(self.axes):
            if a == "C" or (a not in "YX" and plane is not None):
                labels = np.expand_dims(labels, i)
        return labels
