"""Boxes and tiles of images, in whole pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

PROMPT_SIZE = 64
"""Side in pixels to which each prompt is resampled for the network."""

MIN_BOX_SIZE, MAX_BOX_SIZE = 16, 65_536
"""Smallest and largest side of a box on the image, in pixels."""

MAX_CORNER = 2**31
"""Largest coordinate of a box's corner."""

Window = tuple[slice, slice]
"""Rows and columns of a part of a plane."""

OVERLAP_TOO_LARGE = "tile ({tile}) must be larger than its overlap ({overlap})"
NOT_WHOLE = "Box {name} must be a whole pixel, got {value!r}"
BOX_TOO_SMALL = "Box size must be at least {smallest} pixels, got {size}"
BOX_TOO_LARGE = "Box size must be at most {largest} pixels, got {size}"
BOX_TOO_FAR = "A box's corner must be within {largest} pixels, got y={y}, x={x}"
IMAGE_TOO_SMALL = (
    "the image ({height} x {width} pixels) is smaller than the smallest box "
    "({smallest} x {smallest}): a prompt needs a larger one"
)


@dataclass(frozen=True)
class Box:
    """A square region of an image, snapped to pixels.

    Parameters
    ----------
    y, x : int
        Top-left corner, in pixels of the source image.
    size : int
        Side in pixels, 16 to 65,536.

    Raises
    ------
    ValueError
        If a value is not a whole number, or the box is too small.
    """

    y: int
    x: int
    size: int = PROMPT_SIZE

    def __post_init__(self) -> None:
        for name in ("y", "x", "size"):
            value = getattr(self, name)
            # 5.0 from a JSON file or numpy is a pixel too, 5.5 is a mistake.
            if not _is_whole(value):
                raise ValueError(NOT_WHOLE.format(name=name, value=value))
            object.__setattr__(self, name, int(value))
        if self.size < MIN_BOX_SIZE:
            raise ValueError(
                BOX_TOO_SMALL.format(smallest=MIN_BOX_SIZE, size=self.size)
            )
        if self.size > MAX_BOX_SIZE:
            raise ValueError(BOX_TOO_LARGE.format(largest=MAX_BOX_SIZE, size=self.size))
        if max(abs(self.y), abs(self.x)) > MAX_CORNER:
            raise ValueError(BOX_TOO_FAR.format(largest=MAX_CORNER, y=self.y, x=self.x))

    @classmethod
    def from_corners(cls, corners: np.ndarray, *, shape: tuple[int, int]) -> Box:
        """Return the square box around two or more corners, inside an image.

        Parameters
        ----------
        corners : (N, 2) float array
            Vertices ``(y, x)`` in any order. Pixel centres have whole coordinates, so
            pixel 0 spans -0.5 to 0.5.
        shape : (int, int)
            Height and width of the image.

        Returns
        -------
        Box
            As long as the longer side that was drawn, moved into the image.

        Raises
        ------
        ValueError
            If a corner is not finite, or the image is smaller than any box.
        """
        corners = np.asarray(corners, float).reshape(-1, 2)
        if not len(corners) or not np.isfinite(corners).all():
            raise ValueError(f"corners must be finite (y, x) pairs, got {corners}")
        # From coordinates of pixel centres to those of pixel edges, where lengths are
        # whole numbers of pixels.
        low, high = corners.min(axis=0) + 0.5, corners.max(axis=0) + 0.5
        # Prompts are square: the longer side keeps all that was drawn in the box.
        drawn = round(float((high - low).max()))
        size = min(max(MIN_BOX_SIZE, drawn), MAX_BOX_SIZE)
        return cls.centred((low + high) / 2 - 0.5, size).clamped(shape)

    @classmethod
    def centred(cls, centre: np.ndarray | tuple[float, float], size: int) -> Box:
        """Return the box of ``size`` whose centre is nearest to ``centre`` (y, x)."""
        # + 0.5: from the coordinate of a pixel's centre to that of its edges
        y, x = (round(float(c) + 0.5 - size / 2) for c in centre)
        return cls(y, x, size)

    def clamped(self, shape: tuple[int, int]) -> Box:
        """Return the box moved, and shrunk if necessary, into an image of ``shape``.

        Raises
        ------
        ValueError
            If the image is smaller than the smallest box.
        """
        height, width = (int(s) for s in shape[:2])
        if min(height, width) < MIN_BOX_SIZE:
            raise ValueError(
                IMAGE_TOO_SMALL.format(
                    height=height, width=width, smallest=MIN_BOX_SIZE
                )
            )
        size = min(self.size, height, width)
        return replace(
            self,
            y=min(max(self.y, 0), height - size),
            x=min(max(self.x, 0), width - size),
            size=size,
        )

    def fits(self, shape: tuple[int, int]) -> bool:
        """Return whether the box lies inside an image of ``shape`` (height, width)."""
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
        """Factor by which the box is resampled to 64 x 64 pixels."""
        return PROMPT_SIZE / self.size

    @property
    def corners(self) -> np.ndarray:
        """The (4, 2) corners ``(y, x)`` on pixel edges, clockwise from the top left."""
        y0, x0 = self.y - 0.5, self.x - 0.5
        y1, x1 = y0 + self.size, x0 + self.size
        return np.array([[y0, x0], [y0, x1], [y1, x1], [y1, x0]])


def _is_whole(value: object) -> bool:
    return isinstance(value, int | float | np.number) and float(value).is_integer()


@dataclass(frozen=True)
class Tile:
    """A rectangle ``[y0, y1) x [x0, x1)`` of an image that is processed at once."""

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
    """Return a range of ``side`` pixels, moved and shrunk to fit an axis.

    Parameters
    ----------
    start : float
        First pixel of the wanted range; may lie outside the axis.
    side : int
        Number of pixels wanted.
    length : int
        Number of pixels of the axis.

    Examples
    --------
    >>> inside(-3, 4, 10), inside(8.5, 4, 10), inside(2, 20, 10)
    (slice(0, 4, None), slice(6, 10, None), slice(0, 10, None))
    """
    first = int(min(max(start, 0), max(0, length - side)))
    return slice(first, first + min(side, length))


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Return the start of each tile along one axis; the tiles cover all of it.

    All tiles have the same size, as networks and blending expect: the last one is moved
    back to end at the border and may overlap its neighbour by more than ``overlap``.

    Parameters
    ----------
    length : int
        Pixels of the axis. A shorter axis than ``tile`` is one tile.
    tile : int
        Side of a tile in pixels.
    overlap : int
        Pixels that neighbouring tiles share at least.

    Raises
    ------
    ValueError
        If the overlap is not smaller than the tile.
    """
    if tile <= overlap:
        raise ValueError(OVERLAP_TOO_LARGE.format(tile=tile, overlap=overlap))
    if length <= tile:
        return [0]
    return [*range(0, length - tile, tile - overlap), length - tile]


def window_of(mask: np.ndarray, margin: int = 0) -> Window:
    """Return the rows and columns in which a mask is not empty, inside its plane.

    Parameters
    ----------
    mask : (Y, X) bool array
        At least one pixel is True.
    margin : int
        Pixels that are added on each side.

    Examples
    --------
    >>> mask = np.zeros((9, 9), bool); mask[2:4, 5] = True
    >>> window_of(mask), window_of(mask, 4)
    ((slice(2, 4, None), slice(5, 6, None)), (slice(0, 8, None), slice(1, 9, None)))
    """
    rows, columns = (
        slice(max(0, int(at[0]) - margin), min(length, int(at[-1]) + 1 + margin))
        for axis, length in zip((1, 0), mask.shape, strict=True)
        for at in [np.flatnonzero(mask.any(axis))]
    )
    return rows, columns
