"""Which objects a model is sure of, measured by the others of the same image.

A threshold with hysteresis, whose upper level follows the image: an object must
somewhere reach a share of the probability that typical objects reach.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

Array = np.ndarray


def sure(areas: Array, peaks: Array, share: float) -> Array:
    """Return which objects of an image are nearly as sure as its typical one.

    Parameters
    ----------
    areas : (n,) int array
        Pixels of each object; those of 0 pixels do not count.
    peaks : (n,) float array
        Greatest foreground probability in each, in [0, 1].
    share : float
        Of the typical object's peak, in [0, 1]; 0 takes all. The typical peak is that
        on which half of all pixels lie in objects of a lower one.

    Returns
    -------
    (n,) bool array

    Examples
    --------
    >>> sure(np.array([50, 40, 3]), np.array([0.99, 0.97, 0.6]), 0.9).tolist()
    [True, True, False]
    """
    total = int(areas.sum())
    if share <= 0 or total == 0:
        return np.ones(len(areas), bool)
    order = np.argsort(peaks, kind="stable")
    middle = np.searchsorted(np.cumsum(areas[order]), total / 2)
    return np.asarray(peaks >= share * peaks[order[middle]])


def peaks_of(foreground: Array, labels: Array, ids: Array) -> Array:
    """Return the greatest probability in each of some objects; NaN counts as 0."""
    return np.asarray(ndimage.maximum(np.nan_to_num(foreground), labels, ids))
