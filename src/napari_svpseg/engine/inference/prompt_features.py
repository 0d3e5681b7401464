"""What is made of the prompts once, for all the images that they are used on."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ...core.fingerprint import Content
from ...core.geometry import PROMPT_SIZE
from ...core.image import normalise, resize_image, resize_labels, to_three_channels
from ...core.labels.instances import best_split_strength, object_properties
from ...core.labels.object_size import is_net, mean_depth, median_diameter
from ...core.prompt import Prompt, PromptSet
from ...core.result import Maps, ObjectProperties
from ...models.base import IGNORE, PromptCode, PromptSegmenter
from .cache import NetworkCache
from .forward import MAPS, Forward

OBJECT_RANGE = (10.0, 40.0)
"""Object diameters, in network pixels, that a network is assumed to know."""

MAX_FACTOR = 2.0
"""Most that objects are enlarged or reduced beyond the box's own scale."""

MAX_PROMPTS = 8
"""Prompts that are segmented themselves; more would cost more than they tell."""

CACHED_LOOKS = 8
"""Sets of prompts whose objects' look is cached for each network."""

_looks: NetworkCache[ObjectProperties] = NetworkCache(CACHED_LOOKS)


def network_scale(
    prompts: PromptSet, network: PromptSegmenter, *, resize: bool = True
) -> float:
    """Return network pixels per query pixel; what a network of classes is made for.

    The boxes' own scale (64 / side, geometric mean of the positive prompts), times a
    factor that brings the median object into the range of diameters the network knows
    (its ``object_range``). The factor is 1 for net-like masks, stays within 1/2 to 2
    and never makes the query more than four times as large.
    """
    if not network.needs_prompt:
        return float(network.scale)
    positive = [p for p in prompts if not p.is_negative]
    scale = math.exp(float(np.mean([math.log(p.box.scale) for p in positive])))
    if not resize or any(is_net(p.mask) for p in positive):
        return scale
    diameters = [median_diameter(p.mask) * scale / p.box.scale for p in positive]
    diameter = float(np.median(diameters))
    low, high = getattr(network, "object_range", OBJECT_RANGE)
    factor = float(np.clip(diameter, low, high)) / diameter
    factor = float(np.clip(factor, 1 / MAX_FACTOR, MAX_FACTOR))
    return scale * min(factor, max(1.0, 2 / scale))


def prompt_tensors(prompts: PromptSet, scale: float) -> tuple[Tensor, Tensor]:
    """Return prompts at one scale, each with its own intensities, as tensors.

    Returns
    -------
    images : (1, K, 3, h, w) float32 tensor
    masks : (1, K, h, w) int64 tensor
        Ids; -1 where a prompt is smaller than the largest.
    """
    at_scale = [_at_scale(p, scale) for p in prompts]
    side = max(len(mask) for _, mask in at_scale)
    images, masks = [], []
    for image, mask in at_scale:
        pad = (0, side - len(mask))
        images.append(np.pad(image, (pad, pad, (0, 0)), mode="edge"))
        masks.append(np.pad(mask, (pad, pad), constant_values=IGNORE))
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    return stacked[None], torch.from_numpy(np.stack(masks).astype(np.int64))[None]


def object_look(
    prompts: PromptSet, images: Tensor, forward: Forward, code: PromptCode, scale: float
) -> ObjectProperties:
    """Return what the prompts' objects look like, also to the network.

    How readily touching objects are split is what finds those of the prompts best in
    the maps that the network makes of them; how deep objects are is told by these maps
    as well. The same prompts are looked at only once.

    Parameters
    ----------
    prompts : PromptSet
    images : (1, K, 3, h, w) tensor
        The prompts at ``scale``, see `prompt_tensors`.
    forward : Forward
    code : dict
        Of the prompts.
    scale : float
        Network pixels per query pixel.
    """
    content: list[Content] = [images.numpy()]
    for prompt in prompts:
        content += [prompt.mask, repr(prompt.box.scale)]
    content += [value.float().cpu().numpy() for value in code.values()]
    return _looks.get(
        forward.network, content, lambda: _look(prompts, images, forward, code, scale)
    )


def _look(
    prompts: PromptSet, images: Tensor, forward: Forward, code: PromptCode, scale: float
) -> ObjectProperties:
    shown = [(p, i) for p, i in zip(prompts, images[0], strict=True) if p.mask.any()]
    masks = [p.mask for p, _ in shown]
    found = []
    for prompt, image in shown[:MAX_PROMPTS]:
        side, answer = _side(prompt, scale), forward(image[None], code)[0]
        named = dict(zip(forward.names, answer, strict=True))
        found.append(
            Maps(
                *(
                    resize_image(m[:side, :side, None].numpy(), prompt.mask.shape)[
                        ..., 0
                    ]
                    if (m := named.get(name)) is not None
                    else None
                    for name in MAPS
                ),
                object_properties([prompt.mask], [1.0]),
            )
        )
    scales = [p.box.scale for p, _ in shown]
    depths = [
        mean_depth(m.foreground, m.boundary) / s
        for m, s in zip(found, scales, strict=False)
    ]
    known = [d for d in depths if math.isfinite(d)]
    return replace(
        object_properties(masks, scales),
        split=best_split_strength(found, masks[:MAX_PROMPTS]),
        depth=float(np.median(known)) if known else math.nan,
    )


def _side(prompt: Prompt, scale: float) -> int:
    """Return network pixels along a prompt."""
    return max(16, round(PROMPT_SIZE * scale / prompt.box.scale))


def _at_scale(prompt: Prompt, scale: float) -> tuple[np.ndarray, np.ndarray]:
    side = _side(prompt, scale)
    image = to_three_channels(normalise(prompt.image, prompt.intensities))
    return resize_image(image, (side, side)), resize_labels(prompt.mask, (side, side))
