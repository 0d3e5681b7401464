"""One-shot training: a network learns from one labelled image and one prompt.

References
----------
S. Kato, K. Hotta. "One-shot and partially-supervised cell image segmentation using
small visual prompt". CVPR Workshops (CVMI), 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...core.progress import Progress, ignore_progress
from ...core.settings import MAX_SEED, Settings, option
from ...models.base import PromptSegmenter


@dataclass(frozen=True)
class OneImageSettings(Settings):
    """How a network is trained on one image."""

    steps: int = option(200, "Training steps, one crop each", low=1, high=1_000_000)
    learning_rate: float = option(1e-3, "Highest learning rate", low=0, high=1)
    warm_up: int = option(
        5, "Steps in which the learning rate rises", low=0, high=1_000_000
    )
    side: int = option(256, "Side of the crop", low=32, high=4096, unit="pixel")
    augment: bool = option(
        True, "Train on random crops, turned and mirrored; else on the top-left one"
    )
    loss: str = option(
        "likelihood",
        "Negative log-likelihood, or cross-entropy on probabilities as if they were "
        "logits",
        choices=("likelihood", "released"),
    )
    seed: int = option(0, "Seed of the crops", low=0, high=MAX_SEED)


@dataclass(frozen=True, eq=False)
class Example:
    """A labelled image.

    Parameters
    ----------
    image : (3, H, W) float32 tensor
        Standardised.
    mask : (H, W) int tensor
        1 = foreground, 0 = background.
    """

    image: Tensor
    mask: Tensor


def fit_one_image(
    network: PromptSegmenter,
    image: Example,
    prompt: Example,
    settings: OneImageSettings,
    device: torch.device,
    on_progress: Progress = ignore_progress,
) -> list[float]:
    """Train a network in place and return the loss of each step.

    The optimiser is Adam without weight decay. The learning rate rises over the
    warm-up and falls to a tenth at 90 % and to a hundredth at 95 % of the steps, as in
    the authors' code.

    Parameters
    ----------
    network : PromptSegmenter
        Is moved to the device.
    image : Example
        Training image.
    prompt : Example
        Prompt of another image, usually 64 x 64.
    settings : OneImageSettings
    device : torch.device
    on_progress : Progress
    """
    rng = np.random.default_rng(settings.seed)
    network.to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    images, masks = prompt.image[None, None].to(device), prompt.mask[None, None]
    losses = []
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _factor(step, settings)
        query, target = _crop(image, settings, rng)
        code = network.encode_prompts(images, masks.long().to(device))
        logits = network(query[None].to(device), code)["foreground"]
        loss = _loss(logits[0, 0], target.to(device), settings.loss)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        on_progress(step + 1, settings.steps, f"loss {losses[-1]:.3f}")
    network.eval()
    return losses


def _factor(step: int, settings: OneImageSettings) -> float:
    """Return the factor on the learning rate at a step."""
    if step < settings.warm_up:
        return (step + 1) / settings.warm_up
    done = step / settings.steps
    return 1.0 if done < 0.9 else 0.1 if done < 0.95 else 0.01


def _crop(
    image: Example, settings: OneImageSettings, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return a crop (3, h, w) of the image and its target (h, w)."""
    y = x = 0
    sides = [min(settings.side, n) for n in image.mask.shape]
    if settings.augment:
        y, x = (
            int(rng.integers(n - side + 1))
            for n, side in zip(image.mask.shape, sides, strict=True)
        )
    window = (slice(y, y + sides[0]), slice(x, x + sides[1]))
    query, target = image.image[:, *window], image.mask[window]
    if settings.augment:
        turns = int(rng.integers(4))
        # microscopy has no up: all rotations and reflections are as likely
        query, target = query.rot90(turns, (1, 2)), target.rot90(turns, (0, 1))
        if rng.random() < 0.5:
            query, target = query.flip(2), target.flip(1)
    return query, target.float()


def _loss(logits: Tensor, target: Tensor, kind: str) -> Tensor:
    """Return the loss of logits and target, both (h, w)."""
    if kind == "likelihood":
        return F.binary_cross_entropy_with_logits(logits, target)
    # The authors' code passes probabilities to a loss that expects logits, i.e. through
    # a second softmax. Even a perfect prediction has a loss of log(1 + 1/e) = 0.313.
    p = logits.sigmoid()
    return F.cross_entropy(torch.stack([1 - p, p])[None], target.long()[None])
