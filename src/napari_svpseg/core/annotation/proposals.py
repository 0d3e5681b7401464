"""Outlines of a missed object, proposed from a click on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.measure import label as connected_components

from ..labels.splitting import split_touching
from ..result import DEFAULT_SPLIT, Maps
from .corrections import CorrectionError, Point, pixel_at

Array = np.ndarray

LEVELS = (0.8, 0.65, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02)
"""Foreground probabilities at which an outline is looked for."""

AREAS = (0.3, 0.5, 0.7, 1.0, 1.4, 2.0)
"""Areas of regions of like intensities that are tried, in typical objects."""

SIZES = (0.15, 4.0)
"""Smallest and largest area of a proposed object, in typical objects."""

REACH = 2.0
"""Distance from the click that is looked at, in typical diameters."""

DEFAULT_DIAMETER = 16.0
"""Diameter where that of the prompts' objects is not known."""

OBJECT_THERE = (
    "There is an object at y={y:.10g}, x={x:.10g} already: click where one is missing."
)


@dataclass(frozen=True, eq=False)
class Proposals:
    """Outlines of a missed object that a click proposes.

    Parameters
    ----------
    masks : tuple of (Y, X) bool arrays
        From the smallest to the largest; at least one.
    best : int
        Index of the one that is most likely right.
    """

    masks: tuple[Array, ...]
    best: int

    @property
    def mask(self) -> Array:
        """The (Y, X) bool array of the most likely outline."""
        return self.masks[self.best]


def propose_object(
    maps: Maps, labels: Array, point: Point, image: Array | None = None
) -> Proposals:
    """Return outlines for a missed object at a point.

    Candidates are the regions around the point in which the foreground reaches lower
    and lower levels, split as objects are, and regions of like intensities. The best
    has about the size of the prompts' objects and its outline on edges.

    Parameters
    ----------
    maps : Maps
        Of the result.
    labels : (Y, X) int array
        Objects of the result; they are never part of the new one.
    point : (float, float)
        y and x in pixels.
    image : (Y, X) or (Y, X, C) array, optional
        Without it only the maps are looked at.

    Returns
    -------
    Proposals

    Raises
    ------
    CorrectionError
        If the point lies outside the image or on an object.
    """
    y, x = pixel_at(point, labels.shape)
    if labels[y, x] > 0:
        raise CorrectionError(OBJECT_THERE.format(y=point[0], x=point[1]))
    diameter, reach = _diameter(maps), reach_of(maps)
    height, width = labels.shape
    top, left = max(0, y - reach), max(0, x - reach)
    window = (
        slice(top, min(height, y + reach + 1)),
        slice(left, min(width, x + reach + 1)),
    )
    around = _Surroundings(
        maps.window(window),
        labels[window] <= 0,
        (y - top, x - left),
        diameter,
        None if image is None else _plain(image[window]),
    )
    found = around.candidates()
    scores = [around.score(mask) for mask in found]
    order = np.argsort([np.count_nonzero(mask) for mask in found], kind="stable")
    whole = []
    for i in order:
        mask = np.zeros(labels.shape, bool)
        mask[window] = found[i]
        whole.append(mask)
    return Proposals(tuple(whole), list(order).index(int(np.argmax(scores))))


def reach_of(maps: Maps) -> int:
    """Return how far around a click `propose_object` looks, in pixels."""
    return max(8, round(REACH * _diameter(maps)))


def _diameter(maps: Maps) -> float:
    return maps.objects.diameter if maps.objects else DEFAULT_DIAMETER


def _plain(image: Array) -> Array:
    """Return an image as (Y, X, C) floats of unit spread in each channel."""
    values = np.nan_to_num(np.asarray(image, np.float32))
    values = values[..., None] if values.ndim == 2 else values
    spread = values.std((0, 1), keepdims=True)
    return np.asarray(values / np.where(spread > 0, spread, 1), np.float32)


@dataclass(frozen=True, eq=False)
class _Surroundings:
    """What lies around a click.

    Parameters
    ----------
    maps : Maps
        Of the window.
    free : (Y, X) bool array
        Pixels that belong to no object.
    at : (int, int)
        Pixel of the click.
    diameter : float
        Of a typical object.
    image : (Y, X, C) float array or None
    """

    maps: Maps
    free: Array
    at: tuple[int, int]
    diameter: float
    image: Array | None

    @property
    def typical_area(self) -> float:
        """Area of a typical object in pixels."""
        return max(4.0, np.pi / 4 * self.diameter**2)

    def candidates(self) -> list[Array]:
        """Return different (Y, X) bool arrays that hold the click; at least one."""
        found = [self._level(level) for level in LEVELS]
        if self.image is not None:
            found += self._alike(self.image)
        low, high = (share * self.typical_area for share in SIZES)
        kept: dict[bytes, Array] = {}
        for mask in found:
            if mask is not None and low <= np.count_nonzero(mask) <= high:
                kept.setdefault(np.packbits(mask).tobytes(), mask)
        if not kept:
            return [self._disc()]
        return list(kept.values())

    def score(self, mask: Array) -> float:
        """Return how likely a mask is the outline of one object; larger is better."""
        edge = mask & ~ndimage.binary_erosion(mask, border_value=1)
        on_edge = self._edges()
        contrast = float(on_edge[edge].mean()) if edge.any() else 0.0
        odd_size = abs(np.log(np.count_nonzero(mask) / self.typical_area))
        return contrast - odd_size

    def _edges(self) -> Array:
        """Return the strength of edges, 1 on average."""
        blur = max(0.7, self.diameter / 20)
        layers = [self.maps.foreground]
        if self.image is not None:
            layers = [self.image[..., c] for c in range(self.image.shape[2])]
        edges = np.max(
            [ndimage.gaussian_gradient_magnitude(m, blur) for m in layers], axis=0
        )
        return np.asarray(edges / max(float(edges.mean()), 1e-9))

    def _level(self, level: float) -> Array | None:
        """Return the object at the click if the foreground began at ``level``."""
        mask = (self.maps.foreground >= level) & self.free
        if not mask[self.at]:
            return None
        split = self.maps.objects.split if self.maps.objects else DEFAULT_SPLIT
        parts = split_touching(mask, self.maps, split)
        return _filled(parts == parts[self.at]) & self.free

    def _alike(self, image: Array) -> list[Array | None]:
        """Return regions around the click of intensities like those at the click."""
        blur = max(0.7, self.diameter / 20)
        smooth = ndimage.gaussian_filter(image, (blur, blur, 0))
        seed = smooth[self._disc(0.3)].mean(0)
        far = np.sqrt(np.square(smooth - seed).sum(-1))
        near = self._disc(2.5)
        values = np.sort(far[near & self.free])
        found = []
        for share in AREAS:
            n = min(len(values) - 1, round(share * self.typical_area))
            mask = (far <= values[n]) & self.free & near
            found.append(self._part(mask))
        return found

    def _part(self, mask: Array) -> Array | None:
        """Return the part of a mask at the click, without thin bridges."""
        radius = max(1, round(self.diameter / 10))
        opened = ndimage.binary_opening(mask, iterations=radius)
        mask = opened if opened[self.at] else mask
        if not mask[self.at]:
            return None
        parts = connected_components(mask, connectivity=1)
        return _filled(parts == parts[self.at]) & self.free

    def _disc(self, share: float = 1.0) -> Array:
        """Return a disc around the click of a share of the typical diameter."""
        rows, columns = np.ogrid[: self.free.shape[0], : self.free.shape[1]]
        far = np.hypot(rows - self.at[0], columns - self.at[1])
        return np.asarray((far <= max(1.0, share * self.diameter / 2)) & self.free)


def _filled(mask: Array) -> Array:
    return np.asarray(ndimage.binary_fill_holes(mask))
