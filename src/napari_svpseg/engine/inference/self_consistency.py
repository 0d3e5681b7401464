"""Self-consistency: how well a result segments the prompts that it came from.

A part of the result becomes a prompt, and the network segments the user's prompts with
it. If the result is good, it finds there the objects that the user labelled.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...core.geometry import PROMPT_SIZE
from ...core.labels.instances import instances_from_maps
from ...core.labels.metrics import dice
from ...core.result import Maps
from ...core.settings import PostprocessSettings
from .forward import Forward
from .prompt_features import MAX_PROMPTS, resize_maps
from .tiling import ScaledQuery

MIN_SHARE, MAX_SHARE = 0.05, 0.90
"""Share of foreground in a window that can serve as a prompt."""

ENOUGH_SHARE = 0.25
"""Share of foreground from which a window is preferred no further."""


def self_consistency(
    query: ScaledQuery,
    maps: dict[str, np.ndarray],
    forward: Forward,
    images: Tensor,
    masks: Tensor,
) -> float:
    """Return the Dice of the prompts, segmented with the query's own result.

    The window of the query whose foreground is most certain becomes a prompt, with the
    labels that were found there.

    Parameters
    ----------
    query : ScaledQuery
    maps : dict
        Full-size maps by name.
    forward : Forward
    images : (1, K, 3, h, w) tensor, masks : (1, K, h, w) tensor
        The positive prompts.

    Returns
    -------
    float
        In [0, 1]; 0 where nothing was found.
    """
    side = max(1, round(PROMPT_SIZE / query.scale))
    corner = most_confident_window(maps["foreground"], side)
    if corner is None:
        return 0.0
    image, mask = _as_prompt(query, maps, corner, side)
    if not mask.any():
        return 0.0
    code = forward.encode(image[None, None], torch.from_numpy(mask)[None, None])
    images, masks = images[0, :MAX_PROMPTS], masks[0, :MAX_PROMPTS]
    found = forward(images, code)[:, 0].numpy() > 0.5
    truth = masks.numpy()
    return float(
        np.mean(
            [dice(f, t > 0, ignore=t < 0) for f, t in zip(found, truth, strict=True)]
        )
    )


def most_confident_window(foreground: np.ndarray, side: int) -> tuple[int, int] | None:
    """Return the corner of the window whose foreground is most certain, or None.

    Windows begin at every fourth of their side. Those with 5 to 90 % foreground come
    first, and of equally certain ones the fuller, as it shows whole objects; where
    there is none, the one nearest to these shares is taken.

    Parameters
    ----------
    foreground : (Y, X) float32 array
        Probabilities.
    side : int
        Of the window, in pixels.
    """
    step = max(1, side // 4)
    height, width = foreground.shape
    ys, xs = range(0, height, step), range(0, width, step)
    # foreground pixels, and their summed probability, of squares of a quarter window;
    # strip by strip, as a map may be so large that it should not be copied
    area = np.empty((len(ys), len(xs)))
    mass = np.empty_like(area)
    for i, y in enumerate(ys):
        strip = foreground[y : y + step]
        mask = strip > 0.5
        area[i] = np.add.reduceat(mask.sum(0), np.asarray(xs))
        mass[i] = np.add.reduceat((strip * mask).sum(0), np.asarray(xs))
    if not area.any():
        return None
    # a window is 4 x 4 squares, or fewer where the image is smaller than a window
    n = min(4, area.shape[0]), min(4, area.shape[1])
    area, mass = (
        np.lib.stride_tricks.sliding_window_view(a, n).sum((2, 3)) for a in (area, mass)
    )
    share = area / min(side * side, height * width)
    confidence = mass / np.maximum(area, 1)
    legal = (share >= MIN_SHARE) & (share <= MAX_SHARE)
    fuller = 0.2 * np.minimum(share / ENOUGH_SHARE, 1)
    score = np.where(legal, 1 + confidence + fuller, np.minimum(share, 1 - share))
    score[area == 0] = -1
    i, j = (int(k) for k in np.unravel_index(int(score.argmax()), score.shape))
    return min(i * step, max(0, height - side)), min(j * step, max(0, width - side))


def _as_prompt(
    query: ScaledQuery, maps: dict[str, np.ndarray], corner: tuple[int, int], side: int
) -> tuple[Tensor, np.ndarray]:
    """Return a window of the query as prompt image (3, h, w) and mask (h, w)."""
    y, x = corner
    height, width = (min(side, n) for n in query.shape)
    at = (slice(y, y + height), slice(x, x + width))
    # in network pixels, as `query.read` gives the image
    shape = tuple(max(1, round(n * query.scale)) for n in (height, width))
    cut = {name: values[at] for name, values in maps.items()}
    window = Maps.of(resize_maps(cut, shape))
    mask = instances_from_maps(
        window, PostprocessSettings(min_area=0, min_confidence=0.0)
    )
    rows, columns = (
        (round(c * query.scale), round(c * query.scale) + n)
        for c, n in zip(corner, shape, strict=True)
    )
    return query.read(rows, columns), mask.astype(np.int64)
