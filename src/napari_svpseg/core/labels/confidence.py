"""Confidence of objects: how sure the network is of them, beside a typical object.

Two things are compared with the typical object of the image: the peak of the foreground
probability, and the mean probability of a boundary along the outline (which false
objects, such as the flank of a shadow, seldom have). This is a threshold with
hysteresis whose upper level follows the image: a fixed one would lose all cells of a
faint image, or of a model with lower probabilities.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray

OUTLINE_SLOPE = 6.0
"""How much faster the share of the typical outline falls than that of the peak.

An object needs 0.95 of the typical peak and 0.7 of the typical outline.
"""

SMALL = 0.5
"""Share of the typical area up to which the outline counts.

Merged objects and parts of a mosaic have few boundaries, too, and are not false.
"""

BOUNDARY_UNIT = 1 << 16
"""Boundary probabilities are added up in whole numbers of this part: in any order."""


@dataclass(frozen=True, eq=False)
class ObjectEvidence:
    """How sure a network is of the objects 0 to n of a region; 0 is the background.

    Parameters
    ----------
    peaks : (n + 1,) float32 array
        Greatest foreground probability in each object.
    outline : (n + 1,) int64 array
        Sum of the boundary probability along its outline, in `BOUNDARY_UNIT`.
    length : (n + 1,) int64 array
        Pixels of its outline; 0 where there is no boundary map.
    """

    peaks: Array
    outline: Array
    length: Array

    @classmethod
    def nothing(cls, n: int) -> ObjectEvidence:
        """Return the evidence of a region without any of ``n`` objects."""
        return cls(
            np.zeros(n + 1, np.float32),
            np.zeros(n + 1, np.int64),
            np.zeros(n + 1, np.int64),
        )

    def add(
        self,
        labels: Array,
        foreground: Array,
        boundary: Array | None = None,
        outline: Array | None = None,
    ) -> None:
        """Add what the maps show in a region; `self` is changed.

        Parameters
        ----------
        labels : int array
            Ids up to n.
        foreground : float array of the same shape
            Probabilities in [0, 1]; NaN is ignored.
        boundary : float array of the same shape, optional
            Probabilities in [0, 1].
        outline : bool array of the same shape, optional
            True on the outlines of objects, see `on_outline`, which may know more
            pixels than the region has; by default that of ``labels``.
        """
        # fmax takes the number where the other is NaN; .at applies every repeated id
        np.fmax.at(self.peaks, labels.ravel(), foreground.ravel())
        if boundary is None:
            return
        at = on_outline(labels) if outline is None else outline
        ids, n = labels[at], len(self.length)
        part = np.rint(np.nan_to_num(boundary[at]) * BOUNDARY_UNIT)
        # whole numbers below 2**53, which sums of doubles do not round
        self.outline[:] += np.bincount(ids, part, n).astype(np.int64)
        self.length[:] += np.bincount(ids, minlength=n)

    def joined(self, owner: Array) -> ObjectEvidence:
        """Return the evidence of objects that consist of several ids.

        Parameters
        ----------
        owner : (n + 1,) int array
            The object of each id.
        """
        whole = ObjectEvidence.nothing(len(owner) - 1)
        np.fmax.at(whole.peaks, owner, self.peaks)
        np.add.at(whole.outline, owner, self.outline)
        np.add.at(whole.length, owner, self.length)
        return whole

    def of(self, ids: Array | slice) -> ObjectEvidence:
        """Return the evidence of some ids."""
        return ObjectEvidence(self.peaks[ids], self.outline[ids], self.length[ids])

    @classmethod
    def concatenated(cls, parts: Iterable[ObjectEvidence]) -> ObjectEvidence:
        """Return the ids of all parts, one after the other."""
        columns = zip(*((p.peaks, p.outline, p.length) for p in parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns))


def on_outline(labels: Array) -> Array:
    """Return True at pixels of objects beside another id; 0 is the background.

    Parameters
    ----------
    labels : int array
        Of any number of axes. The edge of the array is no outline.

    Returns
    -------
    bool array of the same shape
    """
    differs = np.zeros(labels.shape, bool)
    for axis in range(labels.ndim):
        along, found = np.moveaxis(labels, axis, 0), np.moveaxis(differs, axis, 0)
        step = along[1:] != along[:-1]
        found[1:] |= step
        found[:-1] |= step
    return differs & (labels > 0)


def confident_objects(areas: Array, evidence: ObjectEvidence, share: float) -> Array:
    """Return which objects the network is nearly as sure of as of the typical one.

    What is typical is the median weighted by area: many small false objects do not
    lower it.

    Parameters
    ----------
    areas : (n,) int array
        Area of each object in pixels; objects of 0 pixels are ignored.
    evidence : ObjectEvidence
        Of the same objects. Outlines without length count as typical.
    share : float
        Fraction of the typical peak that an object must reach, in [0, 1]; 0 keeps all.
        Small ones must also reach ``1 - OUTLINE_SLOPE * (1 - share)`` of the typical
        outline.

    Returns
    -------
    (n,) bool array

    Examples
    --------
    >>> areas = np.array([50, 40, 3])
    >>> found = ObjectEvidence.nothing(2)
    >>> found.peaks[:] = 0.99, 0.97, 0.6
    >>> confident_objects(areas, found, 0.9).tolist()
    [True, True, False]
    """
    if share <= 0 or not areas.any():
        return np.ones(len(areas), bool)
    kept = evidence.peaks >= share * typical(areas, evidence.peaks)
    known = (evidence.length > 0) & (areas > 0)
    least = 1 - OUTLINE_SLOPE * (1 - share)
    if least > 0 and known.any():
        mean = evidence.outline / np.maximum(evidence.length, 1)
        small = areas < SMALL * typical(areas, areas)
        kept &= ~known | ~small | (mean >= least * typical(areas[known], mean[known]))
    return np.asarray(kept)


def typical(areas: Array, values: Array) -> float:
    """Return the median of the objects' values, weighted by area; NaN without objects.

    Parameters
    ----------
    areas, values : (n,) arrays
        Area in pixels and value of each object.
    """
    total = int(areas.sum())
    if total == 0:
        return float("nan")
    order = np.argsort(values, kind="stable")
    return float(values[order[np.searchsorted(np.cumsum(areas[order]), total / 2)]])


def new_ids(
    areas: Array, evidence: ObjectEvidence, min_area: int, confidence: float
) -> Array:
    """Return new ids 1, 2, 3, ... of the objects that are large and confident enough.

    Parameters
    ----------
    areas : (n + 1,) int array
        Area of each old id in pixels; the first is the background.
    evidence : ObjectEvidence
        Of the same ids; not used if ``confidence`` is 0.
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
    keep[1:] &= confident_objects(areas[1:], evidence.of(slice(1, None)), confidence)
    keep[0] = False
    new = np.zeros(len(areas), np.uint32)
    new[keep] = np.arange(1, np.count_nonzero(keep) + 1, dtype=np.uint32)
    return new
