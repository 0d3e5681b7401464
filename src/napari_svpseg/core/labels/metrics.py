"""Scores of a segmentation: overlap of the foreground and matching of objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix

Array = np.ndarray

SHAPES_DIFFER = "prediction and truth differ in shape: {prediction}, {truth}"
IGNORE_DIFFERS = "ignore and labels differ in shape: {ignore}, {labels}"


def dice(prediction: Array, truth: Array, ignore: Array | None = None) -> float:
    """Return the Dice score of the foreground: 2 TP / (2 TP + FP + FN).

    Parameters
    ----------
    prediction, truth : int or bool arrays of one shape
        Foreground is larger than 0.
    ignore : array, optional
        Pixels where it is non-zero do not count.

    Returns
    -------
    float
        In [0, 1]; 1 if neither has foreground.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    both, either = _overlap(prediction, truth, ignore)
    return 1.0 if either == 0 else 2 * both / (both + either)


def iou(prediction: Array, truth: Array, ignore: Array | None = None) -> float:
    """Return the intersection over union of the foreground: TP / (TP + FP + FN).

    Parameters, errors and the score of two empty arrays are those of `dice`.
    """
    both, either = _overlap(prediction, truth, ignore)
    return 1.0 if either == 0 else both / either


def _overlap(prediction: Array, truth: Array, ignore: Array | None) -> tuple[int, int]:
    """Return the pixels of intersection and union of the foreground."""
    p, t = _same_shape(prediction, truth)
    p, t = p > 0, t > 0
    if ignore is not None:
        counts = ~_ignored(ignore, p)
        p, t = p & counts, t & counts
    return int((p & t).sum()), int((p | t).sum())


def _same_shape(prediction: Array, truth: Array) -> tuple[Array, Array]:
    p, t = np.asarray(prediction), np.asarray(truth)
    if p.shape != t.shape:
        raise ValueError(SHAPES_DIFFER.format(prediction=p.shape, truth=t.shape))
    return p, t


def _ignored(ignore: Array, like: Array) -> Array:
    ignored = np.asarray(ignore) != 0
    if ignored.shape != like.shape:
        raise ValueError(IGNORE_DIFFERS.format(ignore=ignored.shape, labels=like.shape))
    return ignored


@dataclass(frozen=True)
class Matching:
    """Objects of a prediction matched one to one with those of the truth.

    Parameters
    ----------
    tp : int
        Number of matched pairs.
    fp : int
        Predicted objects without a true one.
    fn : int
        True objects without a predicted one.
    pairs : tuple of (int, int, float)
        Predicted id, true id and IoU of each pair.
    """

    tp: int
    fp: int
    fn: int
    pairs: tuple[tuple[int, int, float], ...] = ()

    @property
    def f1(self) -> float:
        """F1 score, 2 TP / (2 TP + FP + FN); 1 if there is no object at all."""
        total = 2 * self.tp + self.fp + self.fn
        return 1.0 if total == 0 else 2 * self.tp / total

    @property
    def average_precision(self) -> float:
        """Average precision as used for cells, TP / (TP + FP + FN); 1 if no object."""
        total = self.tp + self.fp + self.fn
        return 1.0 if total == 0 else self.tp / total


def match_instances(
    prediction: Array, truth: Array, threshold: float = 0.5, ignore: Array | None = None
) -> Matching:
    """Return the one-to-one matching of objects with the most pairs.

    Among matchings with equally many pairs, that of the highest total IoU.

    Parameters
    ----------
    prediction, truth : (Y, X) int arrays
        Ids, 0 = background.
    threshold : float
        Smallest IoU of a pair, in (0, 1].
    ignore : array, optional
        Pixels where it is non-zero do not count: all objects lose them, and predicted
        objects that lie mostly in them are dropped.

    Returns
    -------
    Matching

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    p, t = _same_shape(prediction, truth)
    if ignore is not None:
        p, t = without_ignored(p, t, _ignored(ignore, p))
    p_ids, p_index = np.unique(p, return_inverse=True)
    t_ids, t_index = np.unique(t, return_inverse=True)
    # Sparse table of the pixels shared by each predicted and each true object; a dense
    # one would take gigabytes for thousands of objects.
    table = coo_matrix(
        (np.ones(p.size), (p_index.ravel(), t_index.ravel())),
        shape=(len(p_ids), len(t_ids)),
    ).tocsr()
    # Areas include the pixels on background of the other side (id 0 is in the table).
    p_area = np.asarray(table.sum(1)).ravel()
    t_area = np.asarray(table.sum(0)).ravel()
    overlaps = table.tocoo()
    keep = (p_ids[overlaps.row] > 0) & (t_ids[overlaps.col] > 0)
    rows, columns, both = overlaps.row[keep], overlaps.col[keep], overlaps.data[keep]
    scores = both / (p_area[rows] + t_area[columns] - both)
    # Pairs under the threshold are dropped before the assignment, which would otherwise
    # trade a good pair for two bad ones.
    good = scores >= threshold
    chosen = _assign(rows[good], columns[good], scores[good])
    pairs = tuple((int(p_ids[r]), int(t_ids[c]), float(s)) for r, c, s in chosen)
    n_p, n_t = int((p_ids > 0).sum()), int((t_ids > 0).sum())
    return Matching(len(pairs), n_p - len(pairs), n_t - len(pairs), pairs)


def _assign(rows: Array, columns: Array, scores: Array) -> list[tuple[int, int, float]]:
    """Return the pairs of the best one-to-one assignment.

    Parameters
    ----------
    rows, columns : (N,) int arrays
        Predicted and true object of each candidate pair.
    scores : (N,) float array
        Their IoU, in (0, 1].
    """
    if not len(rows):
        return []
    r_ids, r = np.unique(rows, return_inverse=True)
    c_ids, c = np.unique(columns, return_inverse=True)
    if len(r_ids) == len(rows) and len(c_ids) == len(columns):
        # No object occurs twice, as is always so for an IoU above 0.5: nothing to
        # solve. This is the usual case, and far faster than the assignment below.
        return list(zip(rows.tolist(), columns.tolist(), scores.tolist(), strict=True))
    iou = np.zeros((len(r_ids), len(c_ids)))
    iou[r, c] = scores
    # One more pair outweighs all that other pairs can gain in IoU, 1 each.
    gain = np.where(iou > 0, min(iou.shape) + iou, 0)
    from scipy.optimize import linear_sum_assignment  # slow to load

    chosen = zip(*linear_sum_assignment(gain, maximize=True), strict=True)
    return [
        (int(r_ids[i]), int(c_ids[j]), float(iou[i, j]))
        for i, j in chosen
        if iou[i, j] > 0
    ]


def without_ignored(p: Array, t: Array, ignored: Array) -> tuple[Array, Array]:
    """Return both label arrays with the ignored pixels as background.

    A predicted object with more than half of its pixels ignored is removed: the rest
    would be a false positive although most of the object cannot be judged.
    """
    ids, index = np.unique(p, return_inverse=True)
    index = index.reshape(p.shape)
    share = np.bincount(index[ignored].ravel(), minlength=len(ids)) / np.bincount(
        index.ravel()
    )
    p = np.where((share > 0.5)[index] | ignored, 0, p)
    return p, np.where(ignored, 0, t)


def f1(
    prediction: Array, truth: Array, threshold: float = 0.5, ignore: Array | None = None
) -> float:
    """Return the F1 score of objects; see `match_instances`, `Matching.f1`."""
    return match_instances(prediction, truth, threshold, ignore).f1


def average_precision(
    prediction: Array, truth: Array, threshold: float = 0.5, ignore: Array | None = None
) -> float:
    """Return the average precision of objects; see `Matching.average_precision`."""
    return match_instances(prediction, truth, threshold, ignore).average_precision


def expected_calibration_error(
    probability: Array, truth: Array, ignore: Array | None = None, n_bins: int = 15
) -> float:
    """Return the expected calibration error (ECE) of foreground probabilities.

    Pixels are sorted into bins of equal width by their probability; the error is the
    mean over pixels of the difference between a bin's mean probability and its fraction
    of true foreground.

    Parameters
    ----------
    probability : float array
        In [0, 1].
    truth : int or bool array of the same shape
        Non-zero is foreground.
    ignore : array, optional
        Pixels where it is non-zero do not count.
    n_bins : int

    Returns
    -------
    float
        From 0 (calibrated) to 1; NaN if no pixel counts.

    References
    ----------
    M. P. Naeini et al. "Obtaining well calibrated probabilities using Bayesian
    binning". AAAI 2015.
    """
    p, t = _same_shape(probability, truth)
    t = t > 0
    if ignore is not None:
        counts = ~_ignored(ignore, t)
        p, t = p[counts], t[counts]
    if not p.size:
        return float("nan")
    bins = np.clip((p * n_bins).astype(int), 0, n_bins - 1).ravel()
    expected = np.bincount(bins, p.ravel(), n_bins)
    observed = np.bincount(bins, t.ravel(), n_bins)
    # Sums instead of means: the weight of each bin, its number of pixels, cancels.
    return float(np.abs(expected - observed).sum() / p.size)
