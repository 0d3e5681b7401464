"""Kinds of objects: which objects are like one that is not wanted, and no other.

A wrong object is often of a kind of its own, such as dead cells among living ones; then
all of that kind go with it. Or it is a mistake that looks like the right ones; then
nothing but itself may go. The scores of all objects decide between the two: a kind of
its own lies apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Array = np.ndarray

PENALTY = 3.0
"""Ridge penalty, relative to the mean square of the features."""

FARTHEST = 6.0
"""Features are clipped at this many standard deviations."""

GAP = 0.4
"""Smallest gap beside a kind of its own, in distances from the wrong to the right."""

HALFWAY = 0.5
"""How far from the wrong object to the right ones the gap may begin."""

FEWEST_KEPT = 0.4
"""Share of an image's objects that stay at least: no kind takes nearly all of them."""


def kind_scores(right: Array, wrong: Array) -> Callable[[Array], Array]:
    """Return a function that scores pixels: about 1 like the right, -1 like the wrong.

    Parameters
    ----------
    right, wrong : (N, D) float arrays
        Features of the pixels of right objects, and of a wrong one.

    Returns
    -------
    callable
        From features (N, D) to scores (N,). They are the nearer to 0, the less the two
        can be told apart.
    """
    x = np.concatenate([right, wrong]).astype(np.float64)
    y = np.concatenate([np.ones(len(right)), -np.ones(len(wrong))])
    weight = np.concatenate(
        [np.full(len(part), 0.5 / len(part)) for part in (right, wrong)]
    )
    mean = weight @ x
    spread = np.sqrt(weight @ np.square(x - mean)) + 1e-3

    def rows(features: Array) -> Array:
        scaled = np.clip((features - mean) / spread, -FARTHEST, FARTHEST)
        return np.concatenate([scaled, np.ones((len(scaled), 1))], axis=1)

    z = rows(x)
    gram = (z * weight[:, None]).T @ z
    ridge = np.full(len(gram), PENALTY * gram.diagonal()[:-1].mean())
    ridge[-1] = 1e-4  # the offset is hardly penalised
    weights = np.linalg.solve(gram + np.diag(ridge), (z * weight[:, None]).T @ y)
    return lambda features: rows(features) @ weights


class Scored(NamedTuple):
    """Objects by a score that tells a wrong object from right ones.

    Parameters
    ----------
    scores : (N,) float array
        Of the objects of an image.
    right : (M,) float array
        Of the objects that are right.
    wrong : float
        Of the one that is not.
    """

    scores: Array
    right: Array
    wrong: float


def alike(all_right: Scored, each: Sequence[Scored] = ()) -> Array:
    """Return which objects of an image are of the kind of the wrong one.

    Parameters
    ----------
    all_right : Scored
        Against all right objects.
    each : sequence of Scored
        Against those of each prompt by itself, if there are several. Right objects of
        two kinds may lie on both sides of the wrong one, so that no score tells it
        from all of them; then it is told from each kind.

    Returns
    -------
    (N,) bool array
        None is True unless a gap parts them from the right ones.

    Examples
    --------
    >>> right, wrong = np.array([0.6]), -0.6
    >>> alike(Scored(np.array([-0.7, -0.5, 0.5, 0.7]), right, wrong)).tolist()
    [True, True, False, False]
    >>> alike(Scored(np.array([-0.7, -0.4, -0.1, 0.2]), right, wrong)).tolist()
    [False, False, False, False]
    """
    found = _below_gap(*all_right)
    if not found.any() and each:
        found = np.logical_and.reduce([_below_gap(*one) for one in each])
    is_most = bool(len(found)) and found.mean() > 1 - FEWEST_KEPT
    return np.zeros_like(found) if is_most else found


def _below_gap(scores: Array, right: Array, wrong: float) -> Array:
    """Return which objects a gap parts, with the wrong one, from the right ones."""
    nothing = np.zeros(len(scores), bool)
    if not len(right) or not len(scores):
        return nothing
    distance = float(np.median(right)) - wrong
    limit = min(wrong + HALFWAY * distance, float(right.min()))
    values = np.sort(np.concatenate([scores, right, [wrong]]))
    low, high = values[:-1], values[1:]
    middle, gap = (low + high) / 2, high - low
    parts = (low >= wrong) & (low < limit) & (gap >= GAP * distance)
    if distance <= 0 or not parts.any():
        return nothing
    return np.asarray(scores < middle[np.argmax(np.where(parts, gap, -1))])
