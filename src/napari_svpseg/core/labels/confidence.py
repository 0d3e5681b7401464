"""Confidence of objects: their peak probability beside that of a typical object.

This is a threshold with hysteresis whose upper level follows the image. Pixels are
foreground from a fixed probability on; an object is kept if its peak reaches a fraction
of the peak of the typical object in the image. A fixed upper level would lose all cells
of a faint image, or of a model with lower probabilities.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def confident_objects(areas: Array, peaks: Array, share: float) -> Array:
    """Return which objects have a peak probability near that of the typical object.

    The typical peak is the median of the peaks, weighted by area: many small false
    objects do not lower it.

    Parameters
    ----------
    areas : (n,) int array
        Area of each object in pixels; objects of 0 pixels are ignored.
    peaks : (n,) float array
        Largest foreground probability in each object, in [0, 1].
    share : float
        Fraction of the typical peak that an object must reach, in [0, 1]; 0 keeps all.

    Returns
    -------
    (n,) bool array

    Examples
    --------
    >>> areas, peaks = np.array([50, 40, 3]), np.array([0.99, 0.97, 0.6])
    >>> confident_objects(areas, peaks, 0.9).tolist()
    [True, True, False]
    """
    if share <= 0 or not areas.any():
        return np.ones(len(areas), bool)
    return np.asarray(peaks >= share * typical_peak(areas, peaks))


def typical_peak(areas: Array, peaks: Array) -> float:
    """Return the median of peak probabilities, weighted by area; NaN without objects.

    Parameters
    ----------
    areas, peaks : (n,) arrays
        As for `confident_objects`.
    """
    total = int(areas.sum())
    if total == 0:
        return float("nan")
    order = np.argsort(peaks, kind="stable")
    return float(peaks[order[np.searchsorted(np.cumsum(areas[order]), total / 2)]])


def new_ids(areas: Array, peaks: Array, min_area: int, confidence: float) -> Array:
    """Return new ids 1, 2, 3, ... of the objects that are large and confident enough.

    Parameters
    ----------
    areas : (n + 1,) int array
        Area of each old id in pixels; the first is the background.
    peaks : (n + 1,) float array
        Largest probability of each old id, see `add_peaks`; not used if ``confidence``
        is 0.
    min_area : int
        Objects with fewer pixels are removed.
    confidence : float
        ``share`` of `confident_objects`.

    Returns
    -------
    (n + 1,) uint32 array
        New id of each old one; 0 for removed objects and the background.
    """
    keep = areas >= max(min_area, 1)
    keep[1:] &= confident_objects(areas[1:], peaks[1:], confidence)
    keep[0] = False
    new = np.zeros(len(areas), np.uint32)
    new[keep] = np.arange(1, np.count_nonzero(keep) + 1, dtype=np.uint32)
    return new


def add_peaks(peaks: Array, labels: Array, foreground: Array) -> None:
    """Raise the peaks of objects to the largest probability in a region.

    Parameters
    ----------
    peaks : (n + 1,) float32 array
        Peak of each id; changed in place.
    labels : int array
        Ids up to n.
    foreground : float array of the same shape
        Probabilities in [0, 1]; NaN is ignored.
    """
    # fmax takes the number where the other is NaN; .at applies every repeated id
    np.fmax.at(peaks, labels.ravel(), foreground.ravel())
