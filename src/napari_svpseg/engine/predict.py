"""From a query of any size and a set of prompts to maps, tile by tile."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from torch import Tensor

from ..core.geometry import PROMPT_SIZE, Tile
from ..core.image import (
    Plane,
    intensity_range,
    is_net,
    median_diameter,
    normalise,
    resize_image,
    resize_labels,
    sampled_pixels,
    to_three_channels,
)
from ..core.instances import fitted_split, look_of
from ..core.progress import Progress, ignore_progress
from ..core.prompt import Prompt, PromptError, PromptSet
from ..core.result import Maps, ObjectLook
from ..core.settings import SegmentSettings
from ..core.size import core_depth, doubt, size_notes
from ..models.base import IGNORE, PromptCode, PromptSegmenter
from .device import Device, choose
from .forward import MAPS, Forward, evaluating
from .refine import refined
from .tiling import (
    ScaledQuery,
    Span,
    checked_plane,
    sample,
    spans,
)
from .trust import MAX_PROMPTS, cycle_trust

Partial = Callable[[tuple[Tile, np.ndarray]], None]
"""Receives a finished tile and its foreground as (H, W) uint8, 255 = certain."""

OBJECT_RANGE = (10.0, 40.0)
"""Object diameters, in network pixels, that a network is assumed to know."""

TRUST_TOLERANCE = 0.02
"""A fit whose answer leads back to the prompts this much worse may still be used."""

MAX_FACTOR = 2.0
"""Most that objects are enlarged or reduced beyond the box's own scale."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a network says of one query plane.

    Parameters
    ----------
    maps : Maps
        At the query's full size.
    trust : float
        In [0, 1], NaN where it was not asked for.
    notes : tuple of str
        What was done differently from what was asked.
    scale : float
        Factor by which the query was resampled for the network.
    intensities : (C, 2) float array
        Percentiles that were used for the query.
    device : str
        Where it ran, and why.
    """

    maps: Maps
    trust: float
    notes: tuple[str, ...]
    scale: float
    intensities: np.ndarray
    device: str = "cpu"


def predict(
    plane: Plane,
    prompts: PromptSet | None,
    network: PromptSegmenter,
    device: Device | torch.device | str | None = None,
    settings: SegmentSettings | None = None,
    intensities: np.ndarray | None = None,
    *,
    judge: PromptSegmenter | None = None,
    on_progress: Progress = ignore_progress,
    on_partial: Partial | None = None,
) -> Prediction:
    """Return the maps of one query plane.

    Memory is bounded by the tile and the maps: a plane that is only sliced (dask, zarr)
    is read tile by tile.

    Parameters
    ----------
    plane : (Y, X, C) array, or anything sliced like one
        Raw intensities, any real dtype, from 1 x 1 pixel; as many channels as the
        prompts.
    prompts : PromptSet or None
        Those that are enabled are used. A network that knows its classes takes none.
    network : PromptSegmenter
        Is moved to the device.
    device : Device or str, optional
        By default what ``settings.device`` says.
    settings : SegmentSettings, optional
    intensities : (C, 2) array, optional
        Percentiles of the whole query image when ``plane`` is a part of it.
    judge : PromptSegmenter, optional
        Network that checks the result on the prompts; by default ``network``.
    on_progress : callable
        ``(done, total, message)``, called after each tile; may raise `Cancelled`.
    on_partial : callable, optional
        Receives ``(tile, foreground)`` for each tile, to be shown while the rest runs.

    Returns
    -------
    Prediction

    Raises
    ------
    ImageError, PromptError
        If the query or the prompts cannot be used.
    """
    settings = settings or SegmentSettings()
    device = choose(settings.device if device is None else device)
    prompts = _prompts_for(network, prompts)
    if settings.refine and len(prompts):
        return _refined_or_plain(
            plane, prompts, network, device, settings, intensities, on_progress,
            on_partial,
        )
    checked_plane(plane)
    if len(prompts) and plane.shape[2] != prompts[0].n_channels:
        raise PromptError(
            f"The query has {plane.shape[2]} channel(s), the prompts have "
            f"{prompts[0].n_channels}: choose the same channels for both."
        )
    if intensities is None:
        intensities = intensity_range(sampled_pixels(plane))
    intensities = np.asarray(intensities, np.float64).reshape(-1, 2)
    scale = network_scale(prompts, network, resize=settings.scale_objects)
    query = ScaledQuery(plane, intensities, scale)
    radius, stride = network.overlap, getattr(network, "stride", 16)
    forward = Forward(
        network, device, batch=settings.batch, overlap=settings.overlap,
        radius=radius, stride=stride,
    )
    with evaluating(network, device):
        code: PromptCode = {}
        look = None
        if len(prompts):
            images, masks = prompt_tensors(prompts, scale)
            code = forward.encode(images, masks)
            look = look_at(prompts, images, forward, code, scale)
        side = _tile_side(query.network_shape, settings.tile, device)
        y_spans, x_spans = (
            spans(n, scale, side, settings.overlap, radius, stride)
            for n in query.shape
        )
        maps = _all_tiles(
            query, y_spans, x_spans, lambda pieces: forward(pieces, code),
            forward.batch, on_progress, on_partial,
        )
        named, told = dict(zip(forward.names, maps, strict=True)), forward.notes
        trust = math.nan
        if settings.trust and len(prompts):
            positive = [i for i, p in enumerate(prompts) if not p.is_negative]
            if judge is not None:
                forward = Forward(judge, device, radius=radius, stride=stride)
            with evaluating(judge or network, device):
                trust = cycle_trust(
                    query, named, forward, images[:, positive], masks[:, positive]
                )
    notes = [device.reason] if device.is_fallback else []
    answer = Maps(
        named["foreground"], named.get("distance"), named.get("boundary"), look,
        None if look else (maps[1:].argmax(0) + 1).astype(np.uint8),
    )
    return Prediction(
        maps=answer,
        trust=trust,
        notes=(*notes, *told, *size_notes(answer)),
        scale=scale,
        intensities=intensities,
        device=str(device),
    )


def _prompts_for(network: PromptSegmenter, prompts: PromptSet | None) -> PromptSet:
    """Return the prompts that a network takes: none where it knows its classes."""
    if not network.needs_prompt:
        return PromptSet()
    if prompts is None:
        raise PromptError("This model needs a prompt: draw a box, or give a file.")
    return prompts.usable()


def _refined_or_plain(
    plane: Plane,
    prompts: PromptSet,
    network: PromptSegmenter,
    device: Device,
    settings: SegmentSettings,
    intensities: np.ndarray | None,
    on_progress: Progress,
    on_partial: Partial | None,
) -> Prediction:
    """Return what the network says, fitted to the prompts where that helps.

    The fit is used where its answer is more certain and leads back to the prompts no
    worse. Both answers are checked by the network as it was: the fitted one knows the
    prompts by heart and finds them whatever it is shown. The check is made whether or
    not its number is asked for.
    """
    once = replace(settings, refine=0, trust=True)
    plain = predict(
        plane, prompts, network, device, once, intensities,
        on_progress=on_progress, on_partial=on_partial,
    )
    scale = network_scale(prompts, network, resize=settings.scale_objects)
    fitted = refined(
        network, *prompt_tensors(prompts, scale), settings.refine,
        on_progress=on_progress,
    )
    better = predict(
        plane, prompts, fitted, device, once, plain.intensities, judge=network,
        on_progress=on_progress, on_partial=on_partial,
    )
    helps = (
        better.trust >= plain.trust - TRUST_TOLERANCE
        and doubt(better.maps.foreground) < doubt(plain.maps.foreground)
    )
    kept = better if helps else plain
    trusts = f"trust {better.trust:.2f}, before {plain.trust:.2f}"
    told = "fitted to the prompts" if helps else "fitting to the prompts did not help"
    return replace(
        kept,
        trust=kept.trust if settings.trust else math.nan,
        notes=(*kept.notes, f"{told} ({trusts})"),
    )


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


def look_at(
    prompts: PromptSet, images: Tensor, forward: Forward, code: PromptCode, scale: float
) -> ObjectLook:
    """Return what the prompts' objects look like, also to the network.

    How readily touching objects are split is what finds those of the prompts best in
    the maps that the network makes of them; how deep objects are is told by these maps
    as well.

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
    shown = [(p, i) for p, i in zip(prompts, images[0], strict=True) if p.mask.any()]
    masks = [p.mask for p, _ in shown]
    found = []
    for prompt, image in shown[:MAX_PROMPTS]:
        side, answer = _side(prompt, scale), forward(image[None], code)[0]
        named = dict(zip(forward.names, answer, strict=True))
        found.append(Maps(*(
            resize_image(m[:side, :side, None].numpy(), prompt.mask.shape)[..., 0]
            if (m := named.get(name)) is not None else None
            for name in MAPS
        ), look_of([prompt.mask], [1.0])))
    scales = [p.box.scale for p, _ in shown]
    depths = [
        core_depth(m.foreground, m.boundary) / s
        for m, s in zip(found, scales, strict=False)
    ]
    known = [d for d in depths if math.isfinite(d)]
    return replace(
        look_of(masks, scales),
        split=fitted_split(found, masks[:MAX_PROMPTS]),
        depth=float(np.median(known)) if known else math.nan,
    )


def _side(prompt: Prompt, scale: float) -> int:
    """Return network pixels along a prompt."""
    return max(16, round(PROMPT_SIZE * scale / prompt.box.scale))


def _at_scale(prompt: Prompt, scale: float) -> tuple[np.ndarray, np.ndarray]:
    side = _side(prompt, scale)
    image = to_three_channels(normalise(prompt.image, prompt.intensities))
    return resize_image(image, (side, side)), resize_labels(prompt.mask, (side, side))


def _tile_side(shape: tuple[int, ...], tile: int, device: Device) -> int:
    """Return the tile to use: on a CPU one that is a half larger if that suffices."""
    largest = tile * 3 // 2
    return largest if device.type == "cpu" and max(shape) <= largest else tile


def _all_tiles(
    query: ScaledQuery,
    y_spans: list[Span],
    x_spans: list[Span],
    forward: Callable[[Tensor], Tensor],
    batch: int,
    on_progress: Progress,
    on_partial: Partial | None,
) -> np.ndarray:
    """Return the blended maps (M, Y, X) of all tiles."""
    maps: np.ndarray | None = None
    cuts = list(product(y_spans, x_spans))
    on_progress(0, len(cuts), "Segmenting")
    for start in range(0, len(cuts), batch):
        some = cuts[start : start + batch]
        pieces = torch.stack(
            [query.read((y.start, y.stop), (x.start, x.stop)) for y, x in some]
        )
        for (y, x), piece in zip(some, forward(pieces), strict=True):
            part = to_query(piece, y, x, query.scale)
            if maps is None:
                maps = np.zeros((len(part), *query.shape), np.float32)
            maps[:, y.first : y.last, x.first : x.last] += part * np.outer(
                y.weights, x.weights
            )
            if on_partial is not None:
                on_partial(_preview(part[0], y, x))
        on_progress(start + len(some), len(cuts), "Segmenting")
    assert maps is not None
    return maps


def to_query(piece: Tensor, y: Span, x: Span, scale: float) -> np.ndarray:
    """Return the maps of a tile at the pixels of the query, (M, rows, columns)."""
    rows, columns = (
        (np.arange(s.first, s.last) + 0.5) * scale - 0.5 - s.start for s in (y, x)
    )
    return sample(piece, rows, columns).numpy()


def _preview(foreground: np.ndarray, y: Span, x: Span) -> tuple[Tile, np.ndarray]:
    """Return the part of a tile that counts most there, as uint8."""
    rows, columns = (np.flatnonzero(s.weights >= 0.5) for s in (y, x))
    if not rows.size or not columns.size:
        rows, columns = np.arange(len(y.weights)), np.arange(len(x.weights))
    tile = Tile(
        int(y.first + rows[0]), int(y.first + rows[-1] + 1),
        int(x.first + columns[0]), int(x.first + columns[-1] + 1),
    )
    inside = foreground[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return tile, np.round(inside * 255).astype(np.uint8)
