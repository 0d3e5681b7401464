"""Tiling: a query cut into tiles for a network, and joined again without seams.

There are two grids of pixels: the query's own and the network's, which is ``scale``
times as fine. All coordinates are those of the whole query, so that the value of a
pixel does not depend on the tile in which it is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ...core.image import ImageError, Plane, normalise, to_three_channels
from ...core.labels.blocks import Window

NOT_A_PLANE = "a query plane must be (Y, X, C), got shape {shape}"

Place = tuple[int, int]
"""Row and column of a tile in its grid."""


@dataclass(frozen=True)
class Span:
    """One tile along one axis.

    Parameters
    ----------
    start, stop : int
        In network pixels; multiples of the network's stride.
    first, last : int
        The query pixels whose centres lie in it, ``[first, last)``.
    weights : (last - first,) float32 array
        Its share in each of them; over all tiles they sum up to 1.
    """

    start: int
    stop: int
    first: int
    last: int
    weights: np.ndarray


def spans(
    length: int, scale: float, tile: int, overlap: int, radius: int, stride: int
) -> list[Span]:
    """Return the tiles along one axis.

    Parameters
    ----------
    length : int
        Query pixels.
    scale : float
        Network pixels per query pixel.
    tile, overlap : int
        In network pixels; brought to multiples of ``stride``, and the overlap to half
        a tile at most.
    radius : int
        How far from a pixel the network looks. If the overlap is twice that or more,
        nothing is used so near to the edge of a tile, and a tiled prediction equals
        that of the whole.
    stride : int
        Starts of tiles are multiples of it, as the network's coarsest grid demands.
    """
    padded = _up(network_length(length, scale), stride)
    tile = max(_up(tile, stride), stride)
    overlap = min(_up(overlap, stride), tile // 2 // stride * stride)
    if padded > tile:  # as many tiles as needed, and then as small as that allows
        n = -(-(padded - overlap) // (tile - overlap))
        tile = _up(-(-(padded + (n - 1) * overlap) // n), stride)
        starts = [*range(0, padded - tile, tile - overlap), padded - tile]
    else:
        tile, starts = padded, [0]
    # network pixels at the inner edges of a tile whose answer is not used
    unused = radius if 2 * radius <= overlap else overlap // 4
    # centres of the query's pixels, in network pixels
    centres = (np.arange(length) + 0.5) * scale
    cut = []
    for start in starts:
        first, last = np.searchsorted(centres, [start, start + tile])
        at = centres[first:last] - start
        weights = np.ones(len(at))
        if start > 0:
            weights *= _rise(at, unused, overlap - unused)
        if start + tile < padded:
            weights *= _rise(tile - at, unused, overlap - unused)
        cut.append((start, start + tile, int(first), int(last), weights))
    # where more than two tiles overlap, the weights do not sum up to 1 by themselves
    total = np.zeros(length)
    for _, _, first, last, weights in cut:
        total[first:last] += weights
    return [
        Span(start, stop, first, last, (weights / total[first:last]).astype(np.float32))
        for start, stop, first, last, weights in cut
    ]


def network_length(length: int, scale: float) -> int:
    """Return how many network pixels cover ``length`` query pixels."""
    return max(1, math.ceil(length * scale - 1e-6))


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def _rise(at: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return 0 below ``low``, 1 above ``high``, a half cosine between."""
    if high <= low:
        return (at > low).astype(float)
    return 0.5 - 0.5 * np.cos(np.pi * np.clip((at - low) / (high - low), 0, 1))


@dataclass(frozen=True, eq=False)
class TileGrid:
    """The tiles on which a plane is predicted.

    Parameters
    ----------
    rows, columns : list of Span
        From `spans` of the whole plane.
    """

    rows: list[Span]
    columns: list[Span]

    @classmethod
    def of(
        cls,
        shape: tuple[int, ...],
        scale: float,
        *,
        tile: int,
        overlap: int,
        radius: int,
        stride: int,
    ) -> TileGrid:
        """Return the grid of a plane ``shape`` (Y, X); the rest as for `spans`."""
        return cls(*(spans(n, scale, tile, overlap, radius, stride) for n in shape))

    @property
    def shape(self) -> tuple[int, int]:
        """Number of tiles down and across."""
        return len(self.rows), len(self.columns)

    @property
    def tile_shape(self) -> tuple[int, int]:
        """Query pixels that are enough for each tile."""
        high, wide = (
            max(len(span.weights) for span in spans)
            for spans in (self.rows, self.columns)
        )
        return high, wide

    @property
    def places(self) -> list[Place]:
        """All tiles, row by row."""
        return list(product(range(len(self.rows)), range(len(self.columns))))

    def spans_at(self, at: Place) -> tuple[Span, Span]:
        """Return the spans of a tile along y and x."""
        return self.rows[at[0]], self.columns[at[1]]

    def touching(self, window: Window) -> list[Place]:
        """Return the tiles that have pixels in a window, row by row."""
        rows, columns = (
            [i for i, s in enumerate(spans) if s.first < w.stop and s.last > w.start]
            for spans, w in zip((self.rows, self.columns), window, strict=True)
        )
        return list(product(rows, columns))


class PlaneWindow:
    """A window of a plane; nothing is read before it is sliced.

    Parameters
    ----------
    plane : (Y, X, C) array or anything sliced like one
    window : (slice, slice)
        Rows and columns, with numbers at both ends.
    """

    def __init__(self, plane: Plane, window: tuple[slice, ...]) -> None:
        self._plane, self._window = plane, window
        height, width = (s.stop - s.start for s in window)
        self.shape = (height, width, *plane.shape[2:])

    def __getitem__(self, region: tuple[slice, ...]) -> Any:
        moved = tuple(
            slice(*(end + w.start for end in s.indices(n)[:2]))
            for s, w, n in zip(region[:2], self._window, self.shape, strict=False)
        )
        return self._plane[moved]


class ScaledQuery:
    """A query at the network's scale and intensities, read piece by piece.

    Parameters
    ----------
    plane : (Y, X, C) array or anything sliced like one
    intensities : (C, 2) array
        Percentiles of the whole query.
    scale : float
        Network pixels per query pixel.
    prepare : callable, optional
        Brings a piece (Y, X, C) of raw intensities to what the network takes, in place
        of `core.image.normalise`; its channels stay as they are.
    """

    def __init__(
        self,
        plane: Plane,
        intensities: np.ndarray,
        scale: float,
        prepare: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.plane, self.intensities, self.scale = plane, intensities, scale
        self._own = prepare
        self._prepare = prepare or (lambda piece: normalise(piece, intensities))
        self._channels = (lambda piece: piece) if prepare else _three_maps
        self.shape = (int(plane.shape[0]), int(plane.shape[1]))
        self.network_shape = tuple(network_length(n, scale) for n in self.shape)
        # the same smoothing before reduction as core.image.resize_image
        self._sigma = max(0.0, (1 / scale - 1) / 2)

    def at_scale(self, scale: float) -> ScaledQuery:
        """Return the same query with other network pixels per query pixel."""
        return ScaledQuery(self.plane, self.intensities, scale, self._own)

    def part(self, window: tuple[slice, ...]) -> ScaledQuery:
        """Return a part (Y, X) of the query, with the intensities of the whole."""
        plane = PlaneWindow(self.plane, window)
        return ScaledQuery(plane, self.intensities, self.scale, self._own)

    def read(self, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
        """Return a piece ``(3, H, W)``; beyond its border the query is mirrored."""
        y, x = (
            self._coordinates(*ends, axis) for axis, ends in enumerate((rows, columns))
        )
        # enough for the interpolation, and for the Gaussian, which ends at 4 sigma
        margin = 1 + math.ceil(4 * self._sigma)
        (y0, y1), (x0, x1) = (
            (
                max(0, math.floor(c.min()) - margin),
                min(n, math.ceil(c.max()) + margin + 1),
            )
            for c, n in zip((y, x), self.shape, strict=True)
        )
        piece = np.asarray(self.plane[y0:y1, x0:x1])
        if (piece == piece[:1, :1]).all():  # such as the glass beside a tissue
            one = torch.from_numpy(self._prepare(piece[:1, :1]))
            return self._channels(one.permute(2, 0, 1)).expand(-1, len(y), len(x))
        piece = self._prepare(piece)
        if self._sigma:
            piece = ndimage.gaussian_filter(
                piece, (self._sigma, self._sigma, 0), mode="mirror"
            )
        tensor = torch.from_numpy(piece).permute(2, 0, 1)
        return self._channels(sample(tensor, y - y0, x - x0))

    def _coordinates(self, start: int, stop: int, axis: int) -> np.ndarray:
        """Return where network pixels lie in the query, in pixels of the query."""
        n = self.network_shape[axis]
        index = np.arange(start, stop)
        # mirrored at the last pixel; a query that is smaller still repeats its first
        index = np.clip(np.where(index < n, index, 2 * (n - 1) - index), 0, None)
        return np.clip((index + 0.5) / self.scale - 0.5, 0, self.shape[axis] - 1)


def _three_maps(piece: Tensor) -> Tensor:
    """Return a piece (C, H, W) of one to three channels with three."""
    if len(piece) == 1:
        return piece.expand(3, -1, -1)
    if len(piece) == 2:
        return torch.cat([piece, piece.mean(0, keepdim=True)])
    return piece


def sample(image: Tensor, y: np.ndarray, x: np.ndarray) -> Tensor:
    """Return ``image`` (C, H, W) at the grid of coordinates, linear between pixels.

    Coordinates outside are moved to the border.
    """
    # one axis after the other, which is the same as both at once, and faster
    for axis, at in ((1, y), (2, x)):
        n = image.shape[axis]
        at = np.clip(at, 0, n - 1)
        low = np.floor(at).astype(np.int64)
        share = torch.from_numpy((at - low).astype(np.float32))
        if not share.any():  # whole pixels: copied at most, and not at all if it is all
            if len(low) != n or low[0] != 0 or (np.diff(low) != 1).any():
                image = _taken(image, low, axis)
            continue
        high = np.minimum(low + 1, n - 1)
        share = share[:, None] if axis == 1 else share
        image = torch.lerp(_taken(image, low, axis), _taken(image, high, axis), share)
    return image


def _taken(image: Tensor, index: np.ndarray, axis: int) -> Tensor:
    """Return rows (axis 1) or columns (axis 2) of ``image`` (C, H, W) by index."""
    at = torch.from_numpy(index)
    if axis == 1:
        return image.index_select(1, at)
    # columns of several maps take ten times as long by index_select on a CPU
    return image.gather(2, at.expand(*image.shape[:2], len(at)))


def to_query(piece: Tensor, y: Span, x: Span, scale: float) -> np.ndarray:
    """Return the maps of a tile at the pixels of the query, (M, rows, columns)."""
    rows, columns = (
        (np.arange(s.first, s.last) + 0.5) * scale - 0.5 - s.start for s in (y, x)
    )
    return sample(piece, rows, columns).numpy()


def checked_plane(plane: Plane) -> None:
    """Raise `ImageError` unless ``plane`` is (Y, X, C) with one to three channels."""
    shape = tuple(plane.shape)
    if len(shape) != 3 or 0 in shape:
        raise ImageError(NOT_A_PLANE.format(shape=shape))
    to_three_channels(np.empty((0, 0, shape[2])))
