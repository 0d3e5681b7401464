"""Which objects a model is sure of, measured by the others of the same image.

A threshold with hysteresis, whose upper level follows the image: an object must
somewhere reach a share of the probability that typical objects reach.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def confident_objects(areas: Array, peaks: Array, share: float) -> Array:
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
    >>> confident_objects(np.array([50, 40, 3]), np.array([0.99, 0.97, 0.6]), 0.9).tolist()
    [True, True, False]
    """
    total = int(areas.sum())
    if share <= 0 or total == 0:
        return np.ones(len(areas), bool)
    order = np.argsort(peaks, kind="stable")
    middle = np.searchsorted(np.cumsum(areas[order]), total / 2)
    return np.asarray(peaks >= share * peaks[order[middle]])


def new_ids(areas: Array, peaks: Array, min_area: int, confidence: float) -> Array:
    """Return the ids 1, 2, 3, ... of objects that are large and sure enough.

    Parameters
    ----------
    areas : (n + 1,) int array
        Pixels of each id; the first is the background.
    peaks : (n + 1,) float array
        Of each id, see `add_peaks`; looked at where ``confidence`` is not 0.
    min_area : int
        Objects under this many pixels get 0, as does the background.
    confidence : float
        As ``share`` of `confident_objects`.

    Returns
    -------
    (n + 1,) uint32 array
    """
    keep = areas >= max(min_area, 1)
    keep[1:] &= confident_objects(areas[1:], peaks[1:], confidence)
    keep[0] = False
    new = np.zeros(len(areas), np.uint32)
    new[keep] = np.arange(1, np.count_nonzero(keep) + 1, dtype=np.uint32)
    return new


def add_peaks(peaks: Array, labels: Array, foreground: Array) -> None:
    """Raise the peaks of objects to what is found in a part of an image.

    Parameters
    ----------
    peaks : (n + 1,) float32 array
        By id; changed in place.
    labels : int array
        Ids up to n.
    foreground : float array of the same shape
        Probabilities; NaN counts as 0.
    """
    np.fmax.at(peaks, labels.ravel(), foreground.ravel())
