"""From a query of any size and a set of prompts to maps, tile by tile."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...core.geometry import Tile
from ...core.image import Plane, intensity_range, sample_pixels
from ...core.labels.object_size import size_notes
from ...core.labels.uncertainty import LIKELY_FOREGROUND, mean_uncertainty
from ...core.progress import Progress, ignore_progress
from ...core.prompt import PromptError, PromptSet
from ...core.result import Maps
from ...core.settings import SegmentSettings
from ...models.base import PromptCode, PromptSegmenter
from .device import Device, choose
from .forward import Forward, evaluating
from .prompt_features import network_scale, object_look, prompt_tensors
from .refine import refined
from .self_consistency import self_consistency
from .tiles import run_tiles
from .tiling import Place, ScaledQuery, Span, TileGrid, checked_plane

Partial = Callable[[tuple[Tile, np.ndarray]], None]
"""Receives a finished tile and its foreground as (H, W) uint8, 255 = certain."""

TRUST_TOLERANCE = 0.02
"""A fit whose answer leads back to the prompts this much worse may still be used."""


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
            plane,
            prompts,
            network,
            device,
            settings,
            intensities,
            on_progress,
            on_partial,
        )
    checked_plane(plane)
    if len(prompts) and plane.shape[2] != prompts[0].n_channels:
        raise PromptError(
            f"The query has {plane.shape[2]} channel(s), the prompts have "
            f"{prompts[0].n_channels}: choose the same channels for both."
        )
    if intensities is None:
        intensities = intensity_range(sample_pixels(plane))
    intensities = np.asarray(intensities, np.float64).reshape(-1, 2)
    scale = network_scale(prompts, network, resize=settings.scale_objects)
    query = ScaledQuery(plane, intensities, scale)
    radius, stride = network.overlap, getattr(network, "stride", 16)
    forward = Forward(
        network,
        device,
        batch=settings.batch,
        overlap=settings.overlap,
        radius=radius,
        stride=stride,
    )
    with evaluating(network, device):
        code: PromptCode = {}
        look = None
        if len(prompts):
            images, masks = prompt_tensors(prompts, scale)
            code = forward.encode(images, masks)
            look = object_look(prompts, images, forward, code, scale)
        side = _tile_side(query.network_shape, settings.tile, device)
        grid = TileGrid.of(
            query.shape,
            scale,
            tile=side,
            overlap=settings.overlap,
            radius=radius,
            stride=stride,
        )
        maps = _all_tiles(
            query,
            grid,
            lambda pieces: forward(pieces, code),
            forward.batch,
            on_progress,
            on_partial,
        )
        named, told = dict(zip(forward.names, maps, strict=True)), forward.notes
        trust = math.nan
        if settings.trust and len(prompts):
            positive = [i for i, p in enumerate(prompts) if not p.is_negative]
            if judge is not None:
                forward = Forward(judge, device, radius=radius, stride=stride)
            with evaluating(judge or network, device):
                trust = self_consistency(
                    query, named, forward, images[:, positive], masks[:, positive]
                )
    notes = [device.reason] if device.is_fallback else []
    answer = Maps(
        named["foreground"],
        named.get("distance"),
        named.get("boundary"),
        look,
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
        plane,
        prompts,
        network,
        device,
        once,
        intensities,
        on_progress=on_progress,
        on_partial=on_partial,
    )
    scale = network_scale(prompts, network, resize=settings.scale_objects)
    fitted = refined(
        network,
        *prompt_tensors(prompts, scale),
        settings.refine,
        on_progress=on_progress,
    )
    better = predict(
        plane,
        prompts,
        fitted,
        device,
        once,
        plain.intensities,
        judge=network,
        on_progress=on_progress,
        on_partial=on_partial,
    )
    helps = better.trust >= plain.trust - TRUST_TOLERANCE and mean_uncertainty(
        better.maps.foreground, LIKELY_FOREGROUND
    ) < mean_uncertainty(plain.maps.foreground, LIKELY_FOREGROUND)
    kept = better if helps else plain
    trusts = f"trust {better.trust:.2f}, before {plain.trust:.2f}"
    told = "fitted to the prompts" if helps else "fitting to the prompts did not help"
    return replace(
        kept,
        trust=kept.trust if settings.trust else math.nan,
        notes=(*kept.notes, f"{told} ({trusts})"),
    )


def _tile_side(shape: tuple[int, ...], tile: int, device: Device) -> int:
    """Return the tile to use: on a CPU one that is a half larger if that suffices."""
    largest = tile * 3 // 2
    return largest if device.type == "cpu" and max(shape) <= largest else tile


def _all_tiles(
    query: ScaledQuery,
    grid: TileGrid,
    forward: Callable[[Tensor], Tensor],
    batch: int,
    on_progress: Progress,
    on_partial: Partial | None,
) -> np.ndarray:
    """Return the blended maps (M, Y, X) of all tiles."""
    maps = np.zeros((0, *query.shape), np.float32)

    def add(at: Place, part: np.ndarray) -> None:
        nonlocal maps
        y, x = grid.spans_at(at)
        if not len(maps):  # the first answer says how many maps there are
            maps = np.zeros((len(part), *query.shape), np.float32)
        weights = np.outer(y.weights, x.weights)
        maps[:, y.first : y.last, x.first : x.last] += part * weights
        if on_partial is not None:
            on_partial(_preview(part[0], y, x))

    run_tiles(
        query, grid, grid.places, forward, add, batch=batch, on_progress=on_progress
    )
    return maps


def _preview(foreground: np.ndarray, y: Span, x: Span) -> tuple[Tile, np.ndarray]:
    """Return the part of a tile that counts most there, as uint8."""
    rows, columns = (np.flatnonzero(s.weights >= 0.5) for s in (y, x))
    if not rows.size or not columns.size:
        rows, columns = np.arange(len(y.weights)), np.arange(len(x.weights))
    tile = Tile(
        int(y.first + rows[0]),
        int(y.first + rows[-1] + 1),
        int(x.first + columns[0]),
        int(x.first + columns[-1] + 1),
    )
    inside = foreground[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return tile, np.round(inside * 255).astype(np.uint8)
