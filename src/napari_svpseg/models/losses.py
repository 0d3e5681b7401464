"""Losses on known pixels: every one takes a mask of what is known."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def known_mean(values: Tensor, known: Tensor) -> Tensor:
    """Return the mean of ``values`` over the pixels where ``known`` is 1."""
    return (values * known).sum() / known.sum().clamp(min=1)


def soft_dice_loss(logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Return 1 - soft Dice, computed per image and averaged.

    Parameters
    ----------
    logits, target, known : (B, 1, H, W) tensors
        ``target`` in [0, 1]; ``known`` 1 where the target is known, else 0.
    """
    p = logits.sigmoid() * known
    t = target * known
    axes = (1, 2, 3)
    dice = (2 * (p * t).sum(axes) + 1) / (p.sum(axes) + t.sum(axes) + 1)
    return (1 - dice).mean()


def binary_loss(
    logits: Tensor, target: Tensor, known: Tensor, *, positive_weight: float = 1.0
) -> Tensor:
    """Return the mean binary cross-entropy over known pixels."""
    weight = known * (1 + (positive_weight - 1) * target)
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return known_mean(loss, weight)


def maps_loss(maps: dict[str, Tensor], target: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weighted parts of the loss of a model's maps.

    Parameters
    ----------
    maps : dict
        As returned by `PromptSegmenter.forward`; keys that start with ``evidence``
        are auxiliary foreground logits.
    target : dict
        ``foreground``, ``distance``, ``boundary`` in [0, 1], ``known`` (1 where the
        foreground is known), ``instances`` (1 where objects are known as well) and,
        where outlines are known elsewhere than depth, ``outlines``; all (B, 1, H, W).
    """
    known, instances = target["known"], target["instances"]
    foreground = target["foreground"]
    parts = {
        "foreground": binary_loss(maps["foreground"], foreground, known),
        "dice": soft_dice_loss(maps["foreground"], foreground, known),
    }
    if "distance" in maps:
        weight = instances * (0.25 + foreground)
        parts["distance"] = known_mean(
            (maps["distance"].sigmoid() - target["distance"]).abs(), weight
        ) + 0.3 * known_mean(
            F.binary_cross_entropy_with_logits(
                maps["distance"], target["distance"], reduction="none"
            ),
            weight,
        )
    if "boundary" in maps:
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
