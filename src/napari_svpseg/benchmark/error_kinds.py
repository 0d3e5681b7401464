"""Why objects are lost: missed, false, merged, split, or of too small an overlap.

`oracle_ids` and `oracle_foreground` say how much each half of a segmentation is to
blame: what is found with our foreground and the true ids, and the other way round.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_matrix
from skimage.segmentation import relabel_sequential

from ..core.labels.instances import instances_from_maps
from ..core.labels.metrics import match_instances, without_ignored
from ..core.result import Maps
from ..core.settings import PostprocessSettings

KINDS = ("missed", "false", "merged", "split", "overlap")
MOST = 0.5
"""Share of an object that counts as most of it."""


def error_kinds(
    prediction: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None = None
) -> dict[str, int]:
    """Return how many unmatched objects, true or predicted, are lost to each error.

    The numbers sum up to those of false positives and false negatives at an IoU of 0.5,
    so that their shares are shares of the lost F1.

    Parameters
    ----------
    prediction, truth : (Y, X) int arrays
        Ids, 0 = background.
    ignore : (Y, X) array, optional
        Pixels where it is non-zero do not count.

    Returns
    -------
    dict of str to int
        ``missed``: true objects of which most was not found. ``false``: found ones
        mostly on background. ``merged``: several true objects are mostly in one found
        object. ``split``: one true object holds most of several found ones.
        ``overlap``: all others, of an IoU below 0.5.
    """
    p, t = prediction, truth
    if ignore is not None:
        p, t = without_ignored(p, t, ignore > 0)
    p, t = relabel_sequential(p)[0], relabel_sequential(t)[0]
    found = match_instances(p, t, MOST)
    table = coo_matrix(
        (np.ones(p.size), (p.ravel(), t.ravel())), shape=(p.max() + 1, t.max() + 1)
    ).toarray()
    p_area, t_area = table.sum(1), table.sum(0)
    inner = table[1:, 1:]
    holds = inner >= MOST * np.maximum(t_area[1:], 1)  # found object holds a true one
    lies = inner >= MOST * np.maximum(p_area[1:, None], 1)  # it lies in a true one
    merging = holds.sum(1) > 1
    parted = lies.sum(0) > 1
    counts = dict.fromkeys(KINDS, 0)
    p_matched = {i - 1 for i, _, _ in found.pairs}
    t_matched = {j - 1 for _, j, _ in found.pairs}
    covered = 1 - table[0, 1:] / np.maximum(t_area[1:], 1)
    for j in np.flatnonzero(t_area[1:]):
        if j in t_matched:
            continue
        if (holds[:, j] & merging).any():
            counts["merged"] += 1
        elif parted[j]:
            counts["split"] += 1
        else:
            counts["missed" if covered[j] < MOST else "overlap"] += 1
    on_truth = 1 - table[1:, 0] / np.maximum(p_area[1:], 1)
    for i in np.flatnonzero(p_area[1:]):
        if i in p_matched:
            continue
        if merging[i]:
            counts["merged"] += 1
        elif (lies[i] & parted).any():
            counts["split"] += 1
        else:
            counts["false" if on_truth[i] < MOST else "overlap"] += 1
    return counts


def oracle_foreground(
    maps: Maps, truth: np.ndarray, settings: PostprocessSettings
) -> np.ndarray:
    """Return the objects found in the true foreground with our way of splitting."""
    return instances_from_maps(
        replace(maps, foreground=(truth > 0).astype(np.float32)), settings
    )


def oracle_ids(labels: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the found foreground with the ids of the nearest true objects.

    Parts that touch no true object stay objects of their own.

    Parameters
    ----------
    labels, truth : (Y, X) int arrays
        Found and true objects.
    """
    if not (truth > 0).any():
        return labels
    nearest = ndimage.distance_transform_edt(
        truth == 0, return_distances=False, return_indices=True
    )
    ids = np.where(labels > 0, truth[tuple(nearest)], 0)
    parts, n = ndimage.label(labels > 0)
    touching = np.zeros(n + 1, bool)
    touching[np.unique(parts[truth > 0])] = True
    alone = (labels > 0) & ~touching[parts]
    return np.asarray(np.where(alone, int(truth.max()) + parts, ids))
