"""Colours of objects that stand out from the image below them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

N_COLORS = 48
"""Colours before they repeat."""

LEVELS = 4
"""Steps of each channel into which the colours of an image are counted."""

LEAST_SHARE = 0.02
"""Colours of an image with a smaller share of its pixels are passed over."""

LEAST_CHROMA = 65.0
"""Of a colour in Lab; paler ones are lost on grey images."""

NEAR = 0.6
"""Colours nearer to the image than this share of the farthest one's distance are left
out."""

Color = tuple[float, float, float]


def main_colors(pixels: np.ndarray) -> np.ndarray:
    """Return the colours that make up an image.

    Parameters
    ----------
    pixels : (n, 3) float array
        Red, green and blue in [0, 1].

    Returns
    -------
    (m, 3) float array, the most frequent first
    """
    bins = np.minimum((pixels * LEVELS).astype(int), LEVELS - 1)
    _, which, counts = np.unique(bins, axis=0, return_inverse=True, return_counts=True)
    which = which.ravel()
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] >= LEAST_SHARE * len(pixels)]
    return np.array([pixels[which == i].mean(axis=0) for i in order])


def contrasting_colors(image: np.ndarray, n: int = N_COLORS) -> np.ndarray:
    """Return colours that are far from those of an image, and from each other.

    The first colours differ the most. The same image gives the same colours.

    Parameters
    ----------
    image : (m, 3) float array
        Its main colours: red, green and blue in [0, 1]; may be empty.
    n : int

    Returns
    -------
    (n, 3) float array

    Examples
    --------
    >>> contrasting_colors(np.zeros((1, 3)), 2).shape
    (2, 3)
    """
    known = np.round(np.asarray(image, float).reshape(-1, 3), 2)
    return np.array(_chosen(tuple(map(tuple, known.tolist())), n))


@lru_cache(maxsize=32)
def _chosen(image: tuple[Color, ...], n: int) -> tuple[Color, ...]:
    from skimage.color import deltaE_ciede2000, rgb2lab

    steps = np.linspace(0, 1, 9)
    rgb = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    lab = rgb2lab(rgb)
    vivid = np.hypot(lab[:, 1], lab[:, 2]) >= LEAST_CHROMA
    rgb, lab = rgb[vivid], lab[vivid]
    below = rgb2lab(np.array(image or [(0.5, 0.5, 0.5)]))
    apart = np.min([deltaE_ciede2000(lab, one[None]) for one in below], axis=0)
    is_far = apart >= NEAR * apart.max()
    rgb, lab, apart = rgb[is_far], lab[is_far], apart[is_far]
    chosen = [int(np.argmax(apart))]
    distance = deltaE_ciede2000(lab, lab[chosen[:1]])
    while len(chosen) < min(n, len(rgb)):
        # far from all colours chosen before; of those the one farthest from the image
        chosen.append(int(np.argmax(np.round(distance) + 0.01 * apart)))
        distance = np.minimum(distance, deltaE_ciede2000(lab, lab[chosen[-1:]]))
    every = [chosen[i % len(chosen)] for i in range(n)]
    return tuple((float(r), float(g), float(b)) for r, g, b in rgb[every])
