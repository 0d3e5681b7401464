"""Boxes and tiles: where to cut, in whole pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

PROMPT_SIZE = 64
"""Side of a prompt as the network sees it, in pixels."""

MIN_BOX_SIZE = 16
"""Smallest side of a box on the image, in pixels."""


@dataclass(frozen=True)
class Box:
    """A square region of an image, snapped to pixels.

    Parameters
    ----------
    y, x : int
        Top-left corner, in pixels of the source image.
    size : int
        Side in pixels, at least 16.
    """

    y: int
    x: int
    size: int = PROMPT_SIZE

    def __post_init__(self) -> None:
        for name in ("y", "x", "size"):
            value = getattr(self, name)
            if not _is_whole(value):
                raise ValueError(f"Box {name} must be a whole pixel, got {value!r}")
            object.__setattr__(self, name, int(value))
        if self.size < MIN_BOX_SIZE:
            raise ValueError(
                f"Box size must be at least {MIN_BOX_SIZE} pixels, got {self.size}"
            )

    @classmethod
    def from_corners(cls, corners: np.ndarray, *, shape: tuple[int, int]) -> Box:
        """Return the square box drawn by two or more corners, inside ``shape``.

        Parameters
        ----------
        corners : (N, 2) float array
            Vertices ``(y, x)`` in any order and drag direction; a pixel's centre has
            whole coordinates, so pixel 0 spans -0.5 to 0.5.
        shape : (int, int)
            Height and width of the image.

        Returns
        -------
        Box
            The longer side is kept; the box is clamped into the image.
        """
        corners = np.asarray(corners, float).reshape(-1, 2)
        if not len(corners) or not np.isfinite(corners).all():
            raise ValueError(f"corners must be finite (y, x) pairs, got {corners}")
        low, high = corners.min(axis=0) + 0.5, corners.max(axis=0) + 0.5
        size = max(MIN_BOX_SIZE, round(float((high - low).max())))
        return cls.centred((low + high) / 2 - 0.5, size).clamped(shape)

    @classmethod
    def centred(cls, centre: np.ndarray | tuple[float, float], size: int) -> Box:
        """Return the box of ``size`` whose middle is nearest to ``centre`` (y, x)."""
        y, x = (round(float(c) + 0.5 - size / 2) for c in centre)
        return cls(y, x, size)

    def clamped(self, shape: tuple[int, int]) -> Box:
        """Return the box moved, and if need be shrunk, into an image of ``shape``."""
        height, width = (int(s) for s in shape[:2])
        if min(height, width) < MIN_BOX_SIZE:
            raise ValueError(
                f"the image ({height} x {width} pixels) is smaller than the smallest "
                f"box ({MIN_BOX_SIZE} x {MIN_BOX_SIZE}): a prompt needs a larger one"
            )
        size = min(self.size, height, width)
        return replace(
            self,
            y=min(max(self.y, 0), height - size),
            x=min(max(self.x, 0), width - size),
            size=size,
        )

    def fits(self, shape: tuple[int, int]) -> bool:
        """Tell whether the box lies inside an image of ``shape`` (height, width)."""
        return (
            self.y >= 0
            and self.x >= 0
            and self.y + self.size <= shape[0]
            and self.x + self.size <= shape[1]
        )

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the box in a ``(Y, X, ...)`` array."""
        return (slice(self.y, self.y + self.size), slice(self.x, self.x + self.size))

    @property
    def scale(self) -> float:
        """Factor that brings the box to 64 x 64."""
        return PROMPT_SIZE / self.size

    @property
    def corners(self) -> np.ndarray:
        """The (4, 2) outline ``(y, x)`` on pixel edges, clockwise from top left."""
        y0, x0 = self.y - 0.5, self.x - 0.5
        y1, x1 = y0 + self.size, x0 + self.size
        return np.array([[y0, x0], [y0, x1], [y1, x1], [y1, x0]])


def _is_whole(value: object) -> bool:
    return isinstance(value, int | float | np.number) and float(value).is_integer()


@dataclass(frozen=True)
class Tile:
    """A rectangle ``[y0, y1) x [x0, x1)`` of an image that is read at once."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the tile in a ``(Y, X, ...)`` array."""
        return (slice(self.y0, self.y1), slice(self.x0, self.x1))

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return (self.y1 - self.y0, self.x1 - self.x0)


def inside(start: float, side: int, length: int) -> slice:
    """Return ``side`` pixels of an axis, moved and if need be shrunk to lie in it.

    Parameters
    ----------
    start : float
        Where they would begin.
    side, length : int
        Pixels wanted, and those of the axis.

    Examples
    --------
    >>> inside(-3, 4, 10), inside(8.5, 4, 10), inside(2, 20, 10)
    (slice(0, 4, None), slice(6, 10, None), slice(0, 10, None))
    """
    first = int(min(max(start, 0), max(0, length - side)))
    return slice(first, first + min(side, length))


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Return where tiles start along one axis so that all of ``length`` is covered.

    All tiles have the same size (``tile``, or ``length`` if that is smaller); the last
    one is moved back to end at the border, so neighbours share at least ``overlap``.
    """
    if tile <= overlap:
        raise ValueError(f"tile ({tile}) must be larger than its overlap ({overlap})")
    if length <= tile:
        return [0]
    return [*range(0, length - tile, tile - overlap), length - tile]
