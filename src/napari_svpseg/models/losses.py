"""Training losses that count known pixels only.

Every loss takes a mask of the pixels whose label is known, because prompts and
queries may be labelled in part.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def known_mean(values: Tensor, known: Tensor) -> Tensor:
    """Return the mean of ``values`` weighted by ``known``.

    Parameters
    ----------
    values, known : tensors of one shape
        ``known`` is 1 where a value counts and 0 where it does not; other weights
        are allowed.
    """
    # clamped: a batch without any known pixel gives 0 and not NaN
    return (values * known).sum() / known.sum().clamp(min=1)


def soft_dice_loss(logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Return 1 - soft Dice of each image, averaged over the batch.

    Parameters
    ----------
    logits, target, known : (B, 1, H, W) tensors
        ``target`` in [0, 1]; ``known`` 1 where the target is known, else 0.
    """
    p = logits.sigmoid() * known
    t = target * known
    axes = (1, 2, 3)
    # + 1: an image without foreground and without a find scores 1, not 0 / 0
    dice = (2 * (p * t).sum(axes) + 1) / (p.sum(axes) + t.sum(axes) + 1)  # (B,)
    return (1 - dice).mean()


def binary_loss(
    logits: Tensor, target: Tensor, known: Tensor, *, positive_weight: float = 1.0
) -> Tensor:
    """Return the mean binary cross-entropy over known pixels.

    Parameters
    ----------
    logits, target, known : tensors of one shape
        ``target`` in [0, 1]; ``known`` 1 where the target is known, else 0.
    positive_weight : float
        Weight of a pixel whose target is 1; a pixel whose target is 0 weighs 1.
    """
    weight = known * (1 + (positive_weight - 1) * target)
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return known_mean(loss, weight)


def maps_loss(maps: dict[str, Tensor], target: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weighted terms of the loss by name; their sum is the loss.

    Parameters
    ----------
    maps : dict
        As returned by `PromptSegmenter.forward`; keys that start with ``evidence``
        are auxiliary foreground logits.
    target : dict
        ``foreground``, ``distance``, ``boundary`` in [0, 1], ``known`` (1 where the
        foreground is known), ``instances`` (1 where single objects are known as well)
        and, optionally, ``outlines`` (1 where outlines are known, if that is elsewhere
        than where the distance is); all (B, 1, H, W).
    """
    known, instances = target["known"], target["instances"]
    foreground = target["foreground"]
    parts = {
        "foreground": binary_loss(maps["foreground"], foreground, known),
        "dice": soft_dice_loss(maps["foreground"], foreground, known),
    }
    if "distance" in maps:
        # The distance matters inside objects, where the watershed looks for its
        # seeds. A quarter of the weight outside keeps it low there.
        weight = instances * (0.25 + foreground)
        # The absolute error fits the values; cross-entropy has a gradient where the
        # sigmoid is saturated, and the absolute error has almost none.
        parts["distance"] = known_mean(
            (maps["distance"].sigmoid() - target["distance"]).abs(), weight
        ) + 0.3 * known_mean(
            F.binary_cross_entropy_with_logits(
                maps["distance"], target["distance"], reduction="none"
            ),
            weight,
        )
    if "boundary" in maps:
        # outlines are a few per cent of the pixels, hence their higher weight
        parts["boundary"] = 0.5 * binary_loss(
            maps["boundary"],
            target["boundary"],
            target.get("outlines", instances),
            positive_weight=3.0,
        )
    for name, logits in maps.items():
        if name.startswith("evidence"):
            parts[name] = 0.25 * binary_loss(logits, foreground, known)
    return parts
