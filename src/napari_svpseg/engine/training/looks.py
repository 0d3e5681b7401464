"""Looks and masks as users meet them: a crop's own stain, light and painted mask.

`IntensityAugmentation` is shared by an episode. Here is what differs between its crops:
the stain and colours of another slide, the light of another day, and how a person
paints a mask.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ...models.base import IGNORE

Rng = np.random.Generator
GREY = np.array([0.3, 0.59, 0.11], np.float32)
"""Weights of red, green and blue in the brightness of a pixel."""


def own_look(crop: np.ndarray, rng: Rng) -> np.ndarray:
    """Return a crop as another slide, stain or microscope would show it.

    Parameters
    ----------
    crop : (3, h, w) float array
        Values about 0 to 1.
    rng : numpy Generator

    Returns
    -------
    (3, h, w) float array
    """
    if np.ptp(crop, axis=0).max() > 0.02:
        crop = _stained(crop, rng) if rng.random() < 0.5 else _coloured(crop, rng)
    if rng.random() < 0.5:
        gamma = float(np.exp(rng.normal(0, 0.3)))
        crop = np.sign(crop) * np.abs(crop) ** gamma
    if rng.random() < 0.3:
        crop = crop + _light(crop.shape[1:], rng)
    if rng.random() < 0.15:
        crop = _coarse(crop, rng)
    return crop


def _coloured(crop: np.ndarray, rng: Rng) -> np.ndarray:
    """Return a crop with its hue turned and its saturation changed."""
    brightness = np.tensordot(GREY, crop, 1)[None]
    colour = (crop - brightness) * float(np.exp(rng.normal(0, 0.35)))
    angle = rng.normal(0, 0.35)
    # a turn about the grey axis (1, 1, 1): Rodrigues' formula
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    turn = np.cos(angle) * np.eye(3) + np.sin(angle) * cross
    turn += (1 - np.cos(angle)) / 3
    return np.asarray(brightness + np.tensordot(turn, colour, 1))


def _stained(crop: np.ndarray, rng: Rng) -> np.ndarray:
    """Return a crop whose stains absorb other shares of red, green and blue."""
    density = -np.log(np.clip(crop, 0.02, 1.2))
    mix = np.diag(np.exp(rng.normal(0, 0.25, 3))) + rng.normal(0, 0.12, (3, 3))
    return np.exp(-np.clip(np.tensordot(mix, density, 1), -0.2, 4))


def _light(shape: tuple[int, ...], rng: Rng) -> np.ndarray:
    """Return a smooth unevenness of light (1, h, w)."""
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    a, b, c, d = rng.normal(0, 0.12, 4)
    y = y[:, None]
    return np.asarray((a * y + b * x + c * (y * y - 0.33) + d * (x * x - 0.33))[None])


def _coarse(crop: np.ndarray, rng: Rng) -> np.ndarray:
    """Return a crop with the blocks or the blur of a smaller or compressed picture."""
    size = crop.shape[1]
    small = max(8, round(size / rng.uniform(1.2, 2.2)))
    rows = np.minimum((np.arange(small) + 0.5) * size / small, size - 1).astype(int)
    back = np.minimum(np.arange(size) * small // size, small - 1)
    found = ndimage.uniform_filter(crop, (0, 2, 2))[:, rows][:, :, rows]
    found = found[:, back][:, :, back]
    return ndimage.gaussian_filter(found, (0, 0.7, 0.7), truncate=2.0)


def painted(ids: np.ndarray, rng: Rng, *, instances: bool) -> np.ndarray:
    """Return a mask as a person paints it: wobbly, wide or narrow, with crumbs.

    Parameters
    ----------
    ids : (h, w) integer array
        True ids; 0 is background.
    rng : numpy Generator
    instances : bool
        Whether ids are single objects: some are then left unpainted, and unknown.

    Returns
    -------
    (h, w) integer array
        Ids, 0 for background and -1 where nothing is known.
    """
    mask = ids
    if rng.random() < 0.4:
        mask = _wobbly(mask, rng)
    if rng.random() < 0.3:
        mask = _wider(mask) if rng.random() < 0.5 else _narrower(mask)
    if rng.random() < 0.1:
        mask = _with_crumbs(mask, rng)
    if instances and rng.random() < 0.2:
        mask = _with_unpainted(mask, rng)
    # a person still marks what was asked for
    return mask if (mask > 0).sum() >= 0.5 * (ids > 0).sum() else ids


def _wobbly(mask: np.ndarray, rng: Rng) -> np.ndarray:
    """Return a mask whose outlines are off by a pixel or two."""
    sigma = rng.uniform(2, 5)
    shift = ndimage.gaussian_filter(
        rng.standard_normal((2, *mask.shape)), (0, sigma, sigma)
    )
    shift *= rng.uniform(0.4, 1.3) / max(float(shift.std()), 1e-6)
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    y = np.clip(np.rint(y + shift[0]).astype(int), 0, mask.shape[0] - 1)
    x = np.clip(np.rint(x + shift[1]).astype(int), 0, mask.shape[1] - 1)
    return mask[y, x]


def _wider(mask: np.ndarray) -> np.ndarray:
    """Return a mask with every object a pixel wider, where there was nothing."""
    return np.where(mask == 0, ndimage.grey_dilation(mask, (3, 3)), mask)


def _narrower(mask: np.ndarray) -> np.ndarray:
    """Return a mask with every object a pixel narrower."""
    return np.where(ndimage.grey_erosion(mask, (3, 3)) == mask, mask, 0)


def _with_crumbs(mask: np.ndarray, rng: Rng) -> np.ndarray:
    """Return a mask with small specks of paint, and small holes."""
    found = mask.copy()
    for _ in range(int(rng.integers(1, 4))):
        y, x = rng.integers(0, mask.shape[0] - 2), rng.integers(0, mask.shape[1] - 2)
        part = found[y : y + 2, x : x + 2]
        part[...] = 0 if part.any() else mask.max() + 1
    return found


def _with_unpainted(mask: np.ndarray, rng: Rng) -> np.ndarray:
    """Return a mask in which some objects and their rims are unknown."""
    objects = np.unique(mask[mask > 0])
    if len(objects) < 3:
        return mask
    left = rng.random(len(objects)) < rng.uniform(0.1, 0.5)
    left[rng.integers(len(left))] = False
    unknown = np.isin(mask, objects[left])
    unknown |= ndimage.binary_dilation(unknown, iterations=2) & (mask == 0)
    return np.where(unknown, IGNORE, mask)
