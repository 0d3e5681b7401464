"""The prompts as a network sees them, and the properties of their objects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

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
from ...models.base import (
    IGNORE,
    PromptCode,
    PromptSegmenter,
    SemanticSegmenter,
)
from .cache import NetworkCache
from .forward import MAPS, Forward

MAX_FACTOR = 2.0
"""Most that objects are enlarged or reduced beyond the box's own scale."""

MAX_PROMPTS = 8
"""Prompts that are segmented themselves; more would take time and change little."""

CACHED = 8
"""Sets of prompts whose objects' properties are cached for each network."""

_properties: NetworkCache[ObjectProperties] = NetworkCache(CACHED)
_codes: NetworkCache[PromptCode] = NetworkCache(CACHED)


def network_scale(
    prompts: PromptSet, network: PromptSegmenter, *, resize: bool = True
) -> float:
    """Return network pixels per query pixel.

    A network of classes has a scale of its own. For the others it is that of the boxes
    (64 / side, geometric mean of the typical prompts), times a factor that brings the
    median object into the range of diameters the network knows (its ``object_range``).
    The factor is 1 for net-like masks, stays within 1/2 to 2 and never makes the query
    more than four times as large.
    """
    if not network.needs_prompt:
        return cast(SemanticSegmenter, network).scale
    typical = prompts.typical()
    scale = math.exp(float(np.mean([math.log(p.box.scale) for p in typical])))
    if not resize or any(is_net(p.mask) for p in typical):
        return scale
    diameters = [median_diameter(p.mask) * scale / p.box.scale for p in typical]
    diameter = float(np.median(diameters))
    low, high = network.object_range
    factor = float(np.clip(diameter, low, high)) / diameter
    factor = float(np.clip(factor, 1 / MAX_FACTOR, MAX_FACTOR))
    return scale * min(factor, max(1.0, 2 / scale))


def prompt_tensors(prompts: PromptSet, scale: float) -> tuple[Tensor, Tensor]:
    """Return prompts at one scale, each with its own intensities, as tensors.

    Returns
    -------
    images : (1, K, 3, h, w) float32 tensor
    masks : (1, K, h, w) int64 tensor
        Ids; -1 is unknown, as are pixels where a prompt is smaller than the largest.
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


def prompt_code(images: Tensor, masks: Tensor, forward: Forward) -> PromptCode:
    """Return the code of prompts, from the cache if the same ones were encoded before.

    With several prompts the code takes longer than a query, and it serves many images.

    Parameters
    ----------
    images : (1, K, 3, h, w) tensor
    masks : (1, K, h, w) tensor
        See `prompt_tensors`.
    forward : Forward
    """
    content: list[Content] = [images.numpy(), masks.numpy(), str(forward.device)]
    return _codes.get(forward.network, content, lambda: forward.encode(images, masks))


def prompt_object_properties(
    prompts: PromptSet, images: Tensor, forward: Forward, code: PromptCode, scale: float
) -> ObjectProperties:
    """Return the properties of the prompts' objects, in the masks and to the network.

    How readily touching objects are split is chosen so that the network's own maps of
    the prompts give back the objects in the masks; how deep objects are is measured in
    these maps as well. The result is cached, as the same prompts serve many images.

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
        content += [prompt.mask, repr((prompt.box.scale, prompt.clicked))]
    content += [value.float().cpu().numpy() for value in code.values()]
    return _properties.get(
        forward.network,
        content,
        lambda: _measured(prompts, images, forward, code, scale),
    )


def _measured(
    prompts: PromptSet, images: Tensor, forward: Forward, code: PromptCode, scale: float
) -> ObjectProperties:
    shown = prompts.typical()
    masks = [p.mask for p in shown]
    found = prompt_maps(prompts, images, forward, code, scale)
    scales = [p.box.scale for p in shown]
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


def prompt_maps(
    prompts: PromptSet, images: Tensor, forward: Forward, code: PromptCode, scale: float
) -> list[Maps]:
    """Return the network's maps of the typical prompts, of `MAX_PROMPTS` at most.

    Parameters
    ----------
    prompts, images, forward, code, scale
        As for `prompt_object_properties`.

    Returns
    -------
    list of Maps
        At the pixels of the masks of ``prompts.typical()``.
    """
    typical, pairs = prompts.typical(), zip(prompts, images[0], strict=True)
    shown = [(p, i) for p, i in pairs if p in typical][:MAX_PROMPTS]
    looked = forward(torch.stack([i for _, i in shown]), code).numpy()
    found = []
    for (prompt, _), maps in zip(shown, looked, strict=True):
        side = _side(prompt, scale)
        named = dict(zip(forward.names, maps[:, :side, :side], strict=True))
        own = object_properties([prompt.mask], [1.0])
        found.append(Maps.of(resize_maps(named, prompt.mask.shape), own))
    return found


def resized(objects: ObjectProperties, zoom: float) -> ObjectProperties:
    """Return the properties in pixels of a query that is shown ``zoom`` times larger.

    Objects that are as large as the prompts' to the network are so much smaller in it.
    """
    return replace(
        objects, diameter=objects.diameter / zoom, depth=objects.depth / zoom
    )


def resize_maps(
    named: Mapping[str, np.ndarray], shape: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """Return maps (Y, X) of a network, by name, resampled to ``shape``."""
    height, width = shape
    return {
        name: resize_image(named[name][..., None], (height, width))[..., 0]
        for name in MAPS
        if name in named
    }


def _side(prompt: Prompt, scale: float) -> int:
    """Return network pixels along a prompt."""
    return max(16, round(PROMPT_SIZE * scale / prompt.box.scale))


def _at_scale(prompt: Prompt, scale: float) -> tuple[np.ndarray, np.ndarray]:
    side = _side(prompt, scale)
    image = to_three_channels(normalise(prompt.image, prompt.intensities))
    return resize_image(image, (side, side)), resize_labels(prompt.mask, (side, side))
