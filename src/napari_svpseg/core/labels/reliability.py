"""Trust: the Dice that a result is expected to have, from the signs of its maps.

The weights were fitted by ``benchmarks/trust.py`` to results on data sets that the
network was not trained on; ``docs/experiments/trust-that-warns.md`` has the numbers.
"""

from __future__ import annotations

import numpy as np
from skimage.measure import label as connected_components

from ..result import Maps
from ..settings import PostprocessSettings
from .confidence import ObjectEvidence, new_ids, on_outline
from .uncertainty import MAX_PIXELS

Array = np.ndarray

SIGNS = ("consistency", "stability", "confident", "outline")
"""Names of `signs`, in order."""

WEIGHTS, OFFSET = (0.06, 0.48, 0.40, 0.22), -0.12
"""Linear model of the Dice by `signs`."""

MARGIN = 0.25
"""How far the expected Dice may lie above the consistency: a result from which the
prompts are not found again shows something else, however sure its maps are."""

LOW, HIGH = 0.1, 0.9
"""Probabilities whose masks are compared: a sure result changes little in between."""


def stability(foreground: Array) -> float:
    """Return the Dice of the masks at the probabilities `LOW` and `HIGH`.

    Parameters
    ----------
    foreground : (Y, X) float array
    """
    low = int(np.count_nonzero(foreground > LOW))
    high = int(np.count_nonzero(foreground > HIGH))
    return 2 * high / max(1, low + high)


def signs(maps: Maps, consistency: float) -> Array:
    """Return what tells of the quality of a result, each from 0 to 1.

    Parameters
    ----------
    maps : Maps
        Of one plane; a large one is sampled. Some foreground reaches 0.5.
    consistency : float
        Dice of the prompts, segmented with the result, see
        `engine.inference.self_consistency`.

    Returns
    -------
    (4,) float array
        The consistency; the Dice of the masks at the probabilities `LOW` and `HIGH`;
        the share of the foreground in objects that are confident enough to be kept;
        the mean probability of a boundary along the outlines (0.5 without such a map).
    """
    # Every n-th row and column, as for `uncertainty.image_uncertainty`.
    step = max(1, round((maps.foreground.size / MAX_PIXELS) ** 0.5))
    foreground = maps.foreground[::step, ::step]
    mask = foreground > 0.5
    objects = connected_components(mask, connectivity=1)
    areas = np.bincount(objects.ravel())
    areas[0] = 0
    # of the peaks alone, for which the weights are
    evidence = ObjectEvidence.nothing(len(areas) - 1)
    evidence.add(objects, foreground)
    kept = new_ids(areas, evidence, 0, PostprocessSettings().min_confidence) > 0
    outline = 0.5
    if maps.boundary is not None:
        edge = on_outline(mask)
        if edge.any():
            outline = float(maps.boundary[::step, ::step][edge].mean())
    return np.array(
        [
            consistency,
            stability(foreground),
            areas[kept].sum() / max(1, int(areas.sum())),
            outline,
        ]
    )


def expected_dice(maps: Maps, consistency: float) -> float:
    """Return the Dice that a result is expected to have, 0 if nothing was found.

    Parameters
    ----------
    maps : Maps
        Of one plane.
    consistency : float
        As for `signs`.

    Returns
    -------
    float
        In [0, 1].
    """
    if not (maps.foreground > 0.5).any():
        return 0.0
    value = OFFSET + signs(maps, consistency) @ np.array(WEIGHTS)
    return float(np.clip(min(value, consistency + MARGIN), 0, 1))
