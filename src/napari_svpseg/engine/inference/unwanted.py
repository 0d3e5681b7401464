"""Objects that are like those marked as wrong, found by the filters of their pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from ...core.annotation.kinds import Scored, alike, kind_scores
from ...core.image import resize_labels
from ...core.labels.instances import instances_from_maps
from ...core.prompt import PromptSet
from ...core.result import Maps
from ...core.settings import PostprocessSettings
from ...models.base import IGNORE, pad_to_multiple
from ...models.filters import pixel_filters
from .prompt_features import prompt_tensors
from .tiling import ScaledQuery

Array = np.ndarray

SIDE = 1024
"""Side of the pieces whose filters are computed at once, in network pixels."""

MARGIN = 16
"""Pixels around a piece that its filters look at."""

FEWEST_PIXELS = 4
"""Pixels at stride 2 below which nothing is known of an object."""

LEFT_OUT = "{n} object(s) like those marked as wrong were left out"


def shown_to_network(prompts: PromptSet) -> PromptSet:
    """Return the prompts without those that mark single objects as wrong.

    As background of the network's classifiers a wrong object would take the right
    ones, which it resembles, with it.
    """
    return PromptSet((p for p in prompts if not p.marks_object), prompts.name)


def unwanted_pixels(
    query: ScaledQuery, maps: Maps, prompts: PromptSet, scale: float
) -> Array | None:
    """Return the pixels of objects of the kinds of those marked as wrong.

    Parameters
    ----------
    query : ScaledQuery
    maps : Maps
        Of the query.
    prompts : PromptSet
        All of them.
    scale : float
        Network pixels of the prompts per pixel of the query.

    Returns
    -------
    (Y, X) int array or None
        Ids of the unwanted objects with a rim, 0 elsewhere; None without any.
    """
    wrong = [p for p in prompts if p.marks_object]
    if not wrong:
        return None
    labels = instances_from_maps(maps, PostprocessSettings(labels="objects"))
    if not labels.any():
        return None
    right = PromptSet(p for p in prompts if not p.is_negative)
    kinds = _kinds(right, PromptSet(wrong), scale)
    if not kinds:
        return None
    means = _object_scores(query, labels, [k.score for ks in kinds for k in ks])[:, 1:]
    known = np.isfinite(means[0])
    means = means[:, known].reshape(len(kinds), len(kinds[0]), -1)
    unwanted = np.zeros(int(labels.max()) + 1, bool)
    for against, scores in zip(kinds, means, strict=True):
        first, *each = (
            Scored(one, kind.right, kind.wrong)
            for one, kind in zip(scores, against, strict=True)
        )
        unwanted[1:][known] |= alike(first, each)
    if not unwanted.any():
        return None
    diameter = maps.objects.diameter if maps.objects else 0.0
    # the maps fall off slowly beside an object
    width = max(1, round(0.15 * diameter))
    inside = np.where(unwanted[labels], labels, 0)
    rim = ndimage.grey_dilation(inside, size=2 * width + 1)
    return np.where((labels == 0) | (inside > 0), rim, 0)


Score = Callable[[Array], Array]


class Kind(NamedTuple):
    """What tells a wrong object from right ones, and what both have of it."""

    score: Score
    right: Array
    wrong: float


def _kinds(right: PromptSet, wrong: PromptSet, scale: float) -> list[list[Kind]]:
    """Return for each wrong object what tells it from right ones.

    From those of all prompts first, then from those of each of several by itself.
    """
    images, masks = prompt_tensors(right.added(*wrong), scale)
    images = pad_to_multiple(images[0], 2)
    down, across = (images.shape[i] - masks.shape[i] for i in (-2, -1))
    ids = F.pad(masks[0], (0, across, 0, down), value=IGNORE)[:, ::2, ::2].numpy()
    with torch.inference_mode():
        features = np.moveaxis(pixel_filters(images).numpy(), 1, -1)  # (K, h, w, D)
    shown = [k for k in range(len(right)) if (ids[k] > 0).any()]
    if not shown:
        return []
    groups = [shown] if len(shown) == 1 else [shown, *([k] for k in shown)]
    return [
        [_kind(features, ids, group, k) for group in groups]
        for k in range(len(right), len(ids))
        if np.count_nonzero(ids[k] == 0) >= FEWEST_PIXELS
    ]


def _kind(features: Array, ids: Array, right: list[int], wrong: int) -> Kind:
    """Return what tells the object of one prompt from those of others."""
    inside = ids[right] > 0
    of_wrong = features[wrong][ids[wrong] == 0]
    score = kind_scores(features[right][inside], of_wrong)
    of_right = [
        score(features[k][ids[k] == i]).mean()
        for k in right
        for i in np.unique(ids[k][ids[k] > 0])
        if np.count_nonzero(ids[k] == i) >= FEWEST_PIXELS
    ]
    return Kind(score, np.array(of_right), float(score(of_wrong).mean()))


def _object_scores(query: ScaledQuery, labels: Array, scores: list[Score]) -> Array:
    """Return the mean of each score over each object, (n, ids); NaN if too small."""
    height, width = query.network_shape
    half = resize_labels(labels, ((height + 1) // 2, (width + 1) // 2))
    n = int(labels.max()) + 1
    sums, counts = np.zeros((len(scores), n)), np.zeros(n)
    for y in range(0, height, SIDE):
        for x in range(0, width, SIDE):
            part = half[y // 2 : (y + SIDE) // 2, x // 2 : (x + SIDE) // 2]
            if not part.any():
                continue
            features = _filters(query, (y, x), part.shape)
            inside = part > 0
            ids, rows = part[inside], features[inside]
            counts += np.bincount(ids, minlength=n)
            for total, score in zip(sums, scores, strict=True):
                total += np.bincount(ids, score(rows), minlength=n)
    few = counts < FEWEST_PIXELS
    return np.where(few, np.nan, sums / np.maximum(counts, 1))


def _filters(
    query: ScaledQuery, corner: tuple[int, int], shape: tuple[int, int]
) -> Array:
    """Return the filters (h, w, D) at stride 2 of a piece of a query."""
    before = [min(MARGIN, c) for c in corner]
    spans = [
        (c - b, min(c + 2 * n + MARGIN, end))
        for c, b, n, end in zip(corner, before, shape, query.network_shape, strict=True)
    ]
    piece: Tensor = pad_to_multiple(query.read(*spans)[None], 2)
    with torch.inference_mode():
        found = np.moveaxis(pixel_filters(piece)[0].numpy(), 0, -1)
    y, x = (b // 2 for b in before)
    return found[y : y + shape[0], x : x + shape[1]]
