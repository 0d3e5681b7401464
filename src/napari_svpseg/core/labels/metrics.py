"""Scores: overlap of foreground, and one-to-one matching of objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix

Array = np.ndarray


def dice(prediction: Array, truth: Array, ignore: Array | None = None) -> float:
    """Return 2 TP / (2 TP + FP + FN) of the non-zero pixels; 1 when both are empty.

    Parameters
    ----------
    prediction, truth : int or bool arrays of one shape
    ignore : array, optional
        Pixels where it is non-zero do not count.
    """
    both, either = _overlap(prediction, truth, ignore)
    return 1.0 if either == 0 else 2 * both / (both + either)


def iou(prediction: Array, truth: Array, ignore: Array | None = None) -> float:
    """Return TP / (TP + FP + FN) of the non-zero pixels; 1 when both are empty."""
    both, either = _overlap(prediction, truth, ignore)
    return 1.0 if either == 0 else both / either


def _overlap(prediction: Array, truth: Array, ignore: Array | None) -> tuple[int, int]:
    p, t = _same_shape(prediction, truth)
    p, t = p > 0, t > 0
    if ignore is not None:
        counts = ~_ignored(ignore, p)
        p, t = p & counts, t & counts
    return int((p & t).sum()), int((p | t).sum())


def _same_shape(prediction: Array, truth: Array) -> tuple[Array, Array]:
    p, t = np.asarray(prediction), np.asarray(truth)
    if p.shape != t.shape:
        raise ValueError(f"prediction and truth differ in shape: {p.shape}, {t.shape}")
    return p, t


def _ignored(ignore: Array, like: Array) -> Array:
    ignored = np.asarray(ignore) != 0
    if ignored.shape != like.shape:
        raise ValueError(
            f"ignore and labels differ in shape: {ignored.shape}, {like.shape}"
        )
    return ignored


@dataclass(frozen=True)
class Matching:
    """Objects of a prediction matched one to one with those of the truth.

    Parameters
    ----------
    tp, fp, fn : int
        Matched pairs, predicted objects without, true objects without a partner.
    pairs : tuple of (int, int, float)
        Predicted id, true id, and their IoU.
    """

    tp: int
    fp: int
    fn: int
    pairs: tuple[tuple[int, int, float], ...] = ()

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); 1 when there is no object at all."""
        total = 2 * self.tp + self.fp + self.fn
        return 1.0 if total == 0 else 2 * self.tp / total

    @property
    def average_precision(self) -> float:
        """TP / (TP + FP + FN), as is usual for cells; 1 when there is no object."""
        total = self.tp + self.fp + self.fn
        return 1.0 if total == 0 else self.tp / total


def match_instances(
    prediction: Array, truth: Array, threshold: float = 0.5, ignore: Array | None = None
) -> Matching:
    """Match objects whose IoU is at least ``threshold``, most pairs first.

    Parameters
    ----------
    prediction, truth : (Y, X) int arrays
        Ids, 0 = background.
    threshold : float
        In (0, 1].
    ignore : array, optional
        Where it is non-zero nothing counts: predicted objects mostly inside are
        dropped, and all objects lose those pixels.

    Returns
    -------
    Matching
    """
    p, t = _same_shape(prediction, truth)
    if ignore is not None:
        p, t = _without_ignored(p, t, _ignored(ignore, p))
    p_ids, p_index = np.unique(p, return_inverse=True)
    t_ids, t_index = np.unique(t, return_inverse=True)
    table = coo_matrix(
        (np.ones(p.size), (p_index.ravel(), t_index.ravel())),
        shape=(len(p_ids), len(t_ids)),
    ).tocsr()
    p_area = np.asarray(table.sum(1)).ravel()
    t_area = np.asarray(table.sum(0)).ravel()
    overlaps = table.tocoo()
    keep = (p_ids[overlaps.row] > 0) & (t_ids[overlaps.col] > 0)
    rows, columns, both = overlaps.row[keep], overlaps.col[keep], overlaps.data[keep]
    scores = both / (p_area[rows] + t_area[columns] - both)
    good = scores >= threshold
    chosen = _assign(rows[good], columns[good], scores[good])
    pairs = tuple((int(p_ids[r]), int(t_ids[c]), float(s)) for r, c, s in chosen)
    n_p, n_t = int((p_ids > 0).sum()), int((t_ids > 0).sum())
    return Matching(len(pairs), n_p - len(pairs), n_t - len(pairs), pairs)


def _assign(rows: Array, columns: Array, scores: Array) -> list[tuple[int, int, float]]:
    """Return the pairs of the best one-to-one assignment."""
    if not len(rows):
        return []
    r_ids, r = np.unique(rows, return_inverse=True)
    c_ids, c = np.unique(columns, return_inverse=True)
    if len(r_ids) == len(rows) and len(c_ids) == len(columns):  # always so over 0.5
        return list(zip(rows.tolist(), columns.tolist(), scores.tolist(), strict=True))
    gain = np.zeros((len(r_ids), len(c_ids)))
    gain[r, c] = 1 + scores  # a pair more beats any better overlap
    chosen = zip(*linear_sum_assignment(gain, maximize=True), strict=True)
    return [
        (int(r_ids[i]), int(c_ids[j]), float(gain[i, j] - 1))
        for i, j in chosen
        if gain[i, j] > 0
    ]


def _without_ignored(p: Array, t: Array, ignored: Array) -> tuple[Array, Array]:
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
    """Return the F1 of objects matched at an IoU of ``threshold``."""
    return match_instances(prediction, truth, threshold, ignore).f1


def average_precision(
    prediction: Array, truth: Array, threshold: float = 0.5, ignore: Array | None = None
) -> float:
    """Return TP / (TP + FP + FN) of objects matched at an IoU of ``threshold``."""
    return match_instances(prediction, truth, threshold, ignore).average_precision


def expected_calibration_error(
    probability: Array, truth: Array, ignore: Array | None = None, n_bins: int = 15
) -> float:
    """Return how far probabilities are from the shares that they promise.

    Pixels are sorted into bins of equal width by their probability of foreground; the
    error is the mean, over pixels, of the difference between a bin's mean probability
    and its share of true foreground.

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
        0 (calibrated) to 1; NaN where no pixel counts.

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
    promised = np.bincount(bins, p.ravel(), n_bins)
    true = np.bincount(bins, t.ravel(), n_bins)
    return float(np.abs(promised - true).sum() / p.size)
