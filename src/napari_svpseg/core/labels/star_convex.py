"""Objects from star-convex polygons: distances to the border along rays, at each pixel.

Networks that predict these (StarDist) have one answer a pixel; the best of each object
is kept.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def star_convex_labels(
    probability: Array,
    distances: Array,
    shape: tuple[int, int],
    threshold: float = 0.5,
    overlap: float = 0.4,
) -> Array:
    """Return the objects that the best polygons show.

    Polygons are taken in the order of their probability. One whose centre lies in an
    object, or that shares too much with others, is left out.

    Parameters
    ----------
    probability : (h, w) array
        In [0, 1].
    distances : (R, h, w) array
        To the border in pixels of the result, along R rays that start to the right and
        turn downwards.
    shape : (int, int)
        Of the result: ``(h, w)``, or a multiple of it.
    threshold : float
        Least probability.
    overlap : float
        Largest share of a polygon's pixels that may lie in other objects.

    Returns
    -------
    (Y, X) int32 array
        Ids from 1.
    """
    from skimage.draw import polygon  # slow to load

    labels = np.zeros(shape, np.int32)
    grid = -(-shape[0] // probability.shape[0])
    angles = np.linspace(0, 2 * np.pi, len(distances), endpoint=False)
    downwards, rightwards = np.sin(angles), np.cos(angles)
    rows, columns = np.nonzero(probability >= threshold)
    order = np.argsort(-probability[rows, columns], kind="stable")
    last = 0
    for y, x in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        at = min(y * grid, shape[0] - 1), min(x * grid, shape[1] - 1)
        if labels[at]:
            continue
        reach = distances[:, y, x]
        inside = polygon(
            at[0] + reach * downwards, at[1] + reach * rightwards, shape=shape
        )
        free = labels[inside] == 0
        if not free.any() or free.mean() < 1 - overlap:
            continue
        last += 1
        labels[inside[0][free], inside[1][free]] = last
    return labels
