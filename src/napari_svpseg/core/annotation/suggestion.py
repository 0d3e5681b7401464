"""A first mask for a box: what stands out in it, found from one click."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.measure import label as connected_components

from ..geometry import PROMPT_SIZE
from ..image import resize_image, resize_labels
from ..labels.splitting import FOUR_NEIGHBOURS

Array = np.ndarray

# All lengths and areas are pixels of a crop resampled to a longer side of 64. The
# values were chosen on half of the data sets: `benchmarks/suggested_mask.py`.
BLUR = 1.0
N_THRESHOLDS = 8
"""Thresholds at equal steps of intensity, and as many at equal shares of pixels."""
CLICK_RADIUS = 2.5
MIN_AREA = 25
MAX_SHARE = 0.8
"""An object that covers more of the box than this is the background."""
ROUNDNESS_WEIGHT = 0.4
SIZE_POWER = 0.2
"""Of two regions with equally sharp edges the larger one is the more likely object."""
NECK = 0.75
"""Drop of the distance to the edge, in pixels, at which touching objects are split."""
SMALLEST = 0.15
"""Smallest area of a further object, as a share of the clicked one's."""


@dataclass(frozen=True, eq=False)
class _Object:
    """A candidate for the clicked object.

    Parameters
    ----------
    score : float
        Sharpness of its edge, weighted by its shape.
    mask : (Y, X) bool array
    brighter : (Y, X) bool array
        All pixels beyond the threshold that it was found with.
    """

    score: float
    mask: Array
    brighter: Array


def suggest_mask(image: Array, seed: tuple[float, float]) -> Array:
    """Return a suggested mask: the object at a click, and others like it.

    The object is the connected region around the click, among the regions at many
    thresholds of a few channels, that has the sharpest edge, is round and does not run
    along the border. Other objects lie beyond the same threshold.

    Parameters
    ----------
    image : (Y, X) or (Y, X, C) array
        Pixels of a box; any dtype and range.
    seed : (float, float)
        Row and column of the click, in pixels of ``image``.

    Returns
    -------
    (Y, X) int32 array
        0 = background, 1 = the object at the click, 2, 3, ... = others like it. All 0
        where nothing stands out around the click.
    """
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[..., None]
    shape = image.shape[:2]
    factor = PROMPT_SIZE / max(shape)
    small = resize_image(
        np.nan_to_num(image, posinf=0.0, neginf=0.0),
        (max(round(shape[0] * factor), 1), max(round(shape[1] * factor), 1)),
    )
    y, x = ((np.array(seed) + 0.5) * small.shape[:2] / shape).tolist()
    rows, columns = np.indices(small.shape[:2])
    click = np.hypot(rows + 0.5 - y, columns + 0.5 - x) <= CLICK_RADIUS
    found = [o for plane in _planes(small) for o in _objects(plane, click)]
    if not found:
        return np.zeros(shape, np.int32)
    best = max(found, key=lambda one: one.score)
    return resize_labels(_like(best, click), shape)


def _planes(image: Array) -> Iterator[Array]:
    """Yield the mean of the channels and their two main components, smoothed."""
    low, high = np.percentile(image, [2, 98], axis=(0, 1))
    known = high > low
    if not known.any():
        return
    scaled = (image[..., known] - low[known]) / (high - low)[known]
    scaled = ndimage.gaussian_filter(scaled, (BLUR, BLUR, 0))
    yield scaled.mean(axis=2)
    if scaled.shape[2] > 1:
        pixels = scaled.reshape(-1, scaled.shape[2])
        centred = pixels - pixels.mean(axis=0)
        _, _, components = np.linalg.svd(centred, full_matrices=False)
        for component in components[:2]:
            yield (centred @ component).reshape(scaled.shape[:2])


def _objects(plane: Array, click: Array) -> Iterator[_Object]:
    """Yield the regions at the click, brighter and darker than each threshold."""
    slope = np.hypot(ndimage.sobel(plane, 0), ndimage.sobel(plane, 1))
    typical = float(slope.mean())
    if typical <= 0:
        return
    for height in (plane, -plane):
        for threshold in _thresholds(height):
            brighter = height > threshold
            if brighter[click].mean() < 0.5:
                break  # and so at all higher thresholds
            mask = _region_at(brighter, click)
            if mask is not None:
                score = _score(mask, slope / typical)
                yield _Object(score, mask, brighter)


def _thresholds(height: Array) -> Array:
    """Return thresholds, lowest first: many where many pixels are, some anywhere."""
    low, high = np.quantile(height, [0.01, 0.99])
    steps = np.linspace(0, 1, N_THRESHOLDS + 2)[1:-1]
    return np.sort([*np.quantile(height, steps), *(low + steps * (high - low))])


def _region_at(brighter: Array, click: Array) -> Array | None:
    """Return the connected region at the click without holes, or None."""
    regions, _ = ndimage.label(ndimage.binary_opening(brighter))
    at_click = np.bincount(regions[click])
    at_click[0] = 0
    if not at_click.any():
        return None
    mask = np.asarray(ndimage.binary_fill_holes(regions == at_click.argmax()))
    is_object = MIN_AREA <= mask.sum() <= MAX_SHARE * mask.size
    return mask if is_object else None


def _score(mask: Array, slope: Array) -> float:
    """Return how likely a region is an object: a sharp edge, round, not at the border.

    Parameters
    ----------
    mask : (Y, X) bool array
    slope : (Y, X) float array
        Relative to its mean.
    """
    inner = mask & ~ndimage.binary_erosion(mask, border_value=1)
    outer = ndimage.binary_dilation(mask) & ~mask
    sharpness = float(slope[inner | outer].mean())
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    roundness = min(1.0, 4 * np.pi * mask.sum() / max(inner.sum(), 1) ** 2)
    shape = 1 - ROUNDNESS_WEIGHT * (1 - roundness)
    size = mask.mean() ** SIZE_POWER
    return float(sharpness * (1 - border.mean()) * shape * size)


def _like(best: _Object, click: Array) -> Array:
    """Return the clicked object as 1 and others beyond its threshold as 2, 3, ..."""
    mask = ndimage.binary_opening(best.brighter, FOUR_NEIGHBOURS) | best.mask
    labels = _split(np.asarray(ndimage.binary_fill_holes(mask)))
    at_click = np.bincount(labels[click])
    at_click[0] = 0
    clicked = int(at_click.argmax())
    areas = np.bincount(labels.ravel())
    kept = np.flatnonzero(areas >= SMALLEST * areas[clicked])
    ids = [clicked, *(int(i) for i in kept if i not in (0, clicked))]
    new = np.zeros(len(areas), np.int32)
    new[ids] = np.arange(1, len(ids) + 1)
    return np.asarray(new[labels])


def _split(mask: Array) -> Array:
    """Return a mask as labels, cut at the necks between touching objects."""
    # slow to import, and a dock opens without them
    from skimage.morphology import h_maxima
    from skimage.segmentation import watershed

    # Objects that the border of the box cuts are as deep there as inside.
    depth = ndimage.distance_transform_edt(np.pad(mask, 1, mode="edge"))[1:-1, 1:-1]
    depth = ndimage.gaussian_filter(depth, BLUR) * mask
    summits = connected_components(h_maxima(depth, NECK) > 0, connectivity=2) * mask
    return np.asarray(watershed(-depth, summits, mask=mask))
