"""Refinement: a network fitted to the prompts for a few steps.

The weights are trained on turned, zoomed and shaded views of the prompts alone, and
then averaged with those they started from, so that the network learns the prompts
without forgetting the rest. Whether the fitted network is used is decided for each
query by its self-consistency (`engine.inference.self_consistency`).

References
----------
M. Wortsman et al. "Robust fine-tuning of zero-shot models". CVPR 2022 (averaging the
weights before and after).
"""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.labels.instances import targets
from ...core.progress import Progress, ignore_progress
from ...models.base import IGNORE, PromptSegmenter
from ...models.losses import maps_loss
from ..training.episodes import disturb
from .cache import NetworkCache

Rng = np.random.Generator

BATCH = 4
LEARNING_RATE = 2e-4
WARM_UP = 5
SHARE = 0.5
"""Share of the fitted weights in the average with the old ones."""
ZOOM = (0.8, 1.25)
SHIFT = 0.15
"""Largest shift of a view, in sides of the prompt."""
CACHED = 2
"""Fitted networks cached for each network."""

_fitted: NetworkCache[PromptSegmenter] = NetworkCache(CACHED)


def refined(
    network: PromptSegmenter,
    images: Tensor,
    masks: Tensor,
    steps: int,
    *,
    on_progress: Progress = ignore_progress,
) -> PromptSegmenter:
    """Return the network fitted to prompts, from the cache where it is there.

    Parameters
    ----------
    network, images, masks, steps
        As for `refine`.
    """
    return _fitted.get(
        network,
        [images.numpy(), masks.numpy(), str(steps)],
        lambda: refine(network, images, masks, steps, on_progress=on_progress),
    )


def refine(
    network: PromptSegmenter,
    images: Tensor,
    masks: Tensor,
    steps: int,
    *,
    seed: int = 0,
    on_progress: Progress = ignore_progress,
) -> PromptSegmenter:
    """Return a copy of a network, fitted to prompts.

    Parameters
    ----------
    network : PromptSegmenter
        Stays as it is; the copy is on the same device.
    images : (1, K, 3, h, w) float32 tensor, masks : (1, K, h, w) int64 tensor
        The prompts, on the CPU.
    steps : int
        Training steps of four views.
    seed : int
        The same seed gives the same weights on the same machine.
    """
    device = next(network.parameters()).device
    fitted = copy.deepcopy(network).train()
    weights = list(fitted.parameters())
    optimizer = torch.optim.Adam(weights, lr=LEARNING_RATE)
    rng = np.random.default_rng(seed)
    half = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * _schedule(step, steps)
        batch = {k: v.to(device) for k, v in _views(images[0], masks[0], rng).items()}
        with half:
            code = fitted.encode_prompts(batch["prompts"], batch["masks"])
            maps = fitted(batch["query"], code)
            loss = torch.stack(list(maps_loss(maps, batch).values())).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        # a step with infinite gradients would destroy the weights
        if torch.isfinite(nn.utils.clip_grad_norm_(weights, 1.0)):
            optimizer.step()
        on_progress(step + 1, steps, "Fitting to the prompts")
    with torch.no_grad():
        for fitted_weight, weight in zip(weights, network.parameters(), strict=True):
            fitted_weight.lerp_(weight, 1 - SHARE)
    return fitted.eval().requires_grad_(False)


def _schedule(step: int, steps: int) -> float:
    """Return the learning rate's factor: warm-up, then half a cosine to a tenth."""
    cosine = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / WARM_UP) * cosine


def _views(images: Tensor, masks: Tensor, rng: Rng) -> dict[str, Tensor]:
    """Return a batch of episodes: a prompt, and a view of one as the query."""
    shown = [k for k in range(len(images)) if (masks[k] > 0).any()]
    episodes = []
    for _ in range(BATCH):
        k = shown[rng.integers(len(shown))]
        query, ids = _view(images[k], masks[k], rng)
        known = (ids != IGNORE).astype(np.float32)
        foreground, distance, boundary = targets(np.maximum(ids, 0))
        # `disturb` takes intensities of about 0 to 1, and gives standardised ones
        shade = disturb(query * 0.25 + 0.5, rng, 1.0)
        maps = (foreground, distance, boundary, known, known)
        turned = int(rng.integers(4)), bool(rng.random() < 0.5)
        episodes.append((_turn(images, *turned), _turn(masks, *turned), shade, maps))
    prompts, prompt_masks, queries, maps = zip(*episodes, strict=True)
    names = ("foreground", "distance", "boundary", "known", "instances")
    stacked = torch.from_numpy(np.asarray(maps, np.float32))
    return {
        "prompts": torch.stack(prompts),
        "masks": torch.stack(prompt_masks),
        "query": torch.from_numpy(np.stack(queries)),
        **{name: stacked[:, i : i + 1] for i, name in enumerate(names)},
    }


def _turn(x: Tensor, quarters: int, mirror: bool) -> Tensor:
    x = torch.rot90(x, quarters, (-2, -1))
    return x.flip(-1) if mirror else x


def _view(image: Tensor, mask: Tensor, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Return a turned, mirrored, zoomed and shifted view (3, h, w) and its ids."""
    side = image.shape[-1]
    angle = rng.uniform(0, 2 * np.pi) if rng.random() < 0.5 else np.pi / 2
    angle = angle * rng.integers(4)
    zoom = np.exp(rng.uniform(*np.log(ZOOM)))
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    rotation = np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    matrix = rotation @ np.diag([mirror, 1.0]) / zoom
    shift = rng.uniform(-SHIFT, SHIFT, 2) * 2  # grid coordinates run from -1 to 1
    theta = torch.from_numpy(np.column_stack([matrix, shift])[None].astype(np.float32))
    grid = F.affine_grid(theta, [1, 1, side, side], align_corners=False)
    view, ids = (
        F.grid_sample(x[None], grid, mode, "reflection", align_corners=False)[0]
        for x, mode in ((image, "bilinear"), (mask[None].float(), "nearest"))
    )
    return view.numpy(), np.rint(ids[0].numpy()).astype(np.int64)
