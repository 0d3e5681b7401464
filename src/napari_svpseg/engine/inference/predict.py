"""Prediction: the maps of a query plane of any size, made tile by tile."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from ...core.contrast import Contrast, Profile, contrast_for, percentile_table
from ...core.geometry import Tile, inside
from ...core.image import ImageError, Plane, is_flat, sample_pixels
from ...core.labels.ids import count_objects
from ...core.labels.object_size import size_notes
from ...core.labels.reliability import expected_dice
from ...core.labels.uncertainty import LIKELY_FOREGROUND, mean_uncertainty
from ...core.labels.zoom import zoom_for
from ...core.processing import Preparation
from ...core.progress import Progress, ignore_progress
from ...core.prompt import PromptError, PromptSet
from ...core.result import Maps, ObjectProperties
from ...core.settings import SegmentSettings
from ...models.base import PromptCode, PromptSegmenter
from .device import Device, choose, working_threads
from .forward import Forward, evaluating
from .prompt_features import (
    network_scale,
    prompt_code,
    prompt_object_properties,
    prompt_tensors,
    resized,
)
from .refine import refined
from .self_consistency import self_consistency
from .tiles import run_tiles
from .tiling import Place, ScaledQuery, Span, TileGrid, checked_plane
from .unwanted import LEFT_OUT, shown_to_network, unwanted_pixels

Partial = Callable[[tuple[Tile, np.ndarray]], None]
"""Receives a finished tile and its foreground as (H, W) uint8; 255 is 1."""

TOLERANCE = 0.02
"""How much lower the consistency of the fitted network may be for it to be used."""

SAMPLE_SIDE = 768
"""Side in network pixels of the central part in which sizes are compared: one tile."""

RELIABLE, CLEAR_GAIN = 0.7, 0.05
"""Trust from which the better size is taken; below, it must be better by the gain."""

OTHER_CHANNELS = (
    "The query has {query} channel(s), the prompts have {prompts}: choose the same "
    "channels for both."
)
GRAPH_CHANNELS = (
    "The model takes {wanted} channel(s), the image has {n}: choose as many, with "
    "--channels or in the dock."
)
NEEDS_PROMPT = "This model needs a prompt: draw a box, or give a file."
FITTED = "fitted to the prompts"
COMPARING = "comparing sizes"
ZOOMED = (
    "objects are about {ratio:.1f} times as large here as in the prompts: looked for "
    "at that size"
)
NOT_HELPFUL = "fitting to the prompts did not help"


@dataclass(frozen=True, eq=False)
class Prediction:
    """The result of a network for one query plane.

    Parameters
    ----------
    maps : Maps
        At the query's full size.
    trust : float
        Dice that the result is expected to have, in [0, 1]; NaN where it was not asked
        for.
    notes : tuple of str
        What was done differently from what was asked.
    scale : float
        Factor by which the query was resampled for the network.
    intensities : (C, 2) float array
        Percentiles that were used for the query.
    device : str
        The device, and why it was chosen.
    consistency : float
        Dice of the prompts, segmented with the result, in [0, 1]; NaN as the trust.
    """

    maps: Maps
    trust: float
    notes: tuple[str, ...]
    scale: float
    intensities: np.ndarray
    device: str = "cpu"
    consistency: float = math.nan


def predict(
    plane: Plane,
    prompts: PromptSet | None,
    network: PromptSegmenter,
    device: Device | torch.device | str | None = None,
    settings: SegmentSettings | None = None,
    intensities: np.ndarray | None = None,
    *,
    zoom: float | None = None,
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
    zoom : float, optional
        How much larger the query is shown to the network than the prompts are; by
        default what `query_zoom` finds.
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
    request = _request(plane, prompts, network, device, settings, intensities)
    request = replace(request, on_progress=on_progress, on_partial=on_partial)
    if zoom is None:
        zoom, found = _best_zoom(request, network)
        if found is not None and not request.settings.refine:
            return found
    request = request.zoomed(zoom)
    if request.settings.refine and len(request.prompts):
        return _refined_or_plain(request, network)
    return request.answer(network)


def query_zoom(
    plane: Plane,
    prompts: PromptSet | None,
    network: PromptSegmenter,
    device: Device | torch.device | str | None = None,
    settings: SegmentSettings | None = None,
    intensities: np.ndarray | None = None,
) -> float:
    """Return how much larger a query is best shown to a network than the prompts are.

    Objects of other sizes than in the prompts are found better at the prompts' size.
    Where they differ, in the central part of the query, it is segmented at both sizes,
    and the one whose result is trusted more is taken.

    Parameters
    ----------
    plane, prompts, network, device, settings, intensities
        As for `predict`.

    Returns
    -------
    float
        1 without ``settings.scale_objects``, and for networks that know their classes.
    """
    request = _request(plane, prompts, network, device, settings, intensities)
    return _best_zoom(request, network)[0]


def zoom_notes(zoom: float) -> tuple[str, ...]:
    """Return a note if objects are looked for at another size than the prompts'."""
    return () if zoom == 1 else (ZOOMED.format(ratio=1 / zoom),)


def _request(
    plane: Plane,
    prompts: PromptSet | None,
    network: PromptSegmenter,
    device: Device | torch.device | str | None,
    settings: SegmentSettings | None,
    intensities: np.ndarray | None,
) -> _Request:
    """Return what a network is asked about a plane, at the prompts' own scale."""
    settings = SegmentSettings.of(settings)
    prompts = _prompts_for(network, prompts)
    _check_plane(plane, prompts)
    contrast = _contrast(plane, prompts) if intensities is None else None
    if contrast is not None:
        intensities = contrast.intensities
    return _Request(
        ScaledQuery(
            plane,
            np.asarray(intensities, np.float64).reshape(-1, 2),
            network_scale(prompts, network, resize=settings.scale_objects),
            _preparation(plane, network),
        ),
        prompts,
        settings,
        choose(settings.device if device is None else device),
        notes=() if contrast is None else contrast.notes,
    )


def _prompts_for(network: PromptSegmenter, prompts: PromptSet | None) -> PromptSet:
    """Return the prompts that a network takes: none where it knows its classes."""
    if not network.needs_prompt:
        return PromptSet()
    if prompts is None:
        raise PromptError(NEEDS_PROMPT)
    return prompts.usable()


def _check_plane(plane: Plane, prompts: PromptSet) -> None:
    """Raise an error where a plane has other channels than the prompts."""
    checked_plane(plane)
    if len(prompts) and plane.shape[2] != prompts[0].n_channels:
        raise PromptError(
            OTHER_CHANNELS.format(query=plane.shape[2], prompts=prompts[0].n_channels)
        )


def _preparation(plane: Plane, network: PromptSegmenter) -> Preparation | None:
    """Return how a plane is prepared for a network with steps of its own."""
    if network.steps is None:
        return None
    n, wanted = plane.shape[2], network.image_channels
    if n not in (1, wanted):
        raise ImageError(GRAPH_CHANNELS.format(n=n, wanted=wanted))
    pixels = sample_pixels(plane)
    return Preparation(network.steps, np.repeat(pixels, wanted // n, axis=1))


def _contrast(plane: Plane, prompts: PromptSet) -> Contrast:
    """Return the intensity range of a plane, judged against the prompts."""
    table = percentile_table(sample_pixels(plane))
    return contrast_for(Profile(table, plane.shape[0] * plane.shape[1]), prompts)


@dataclass(frozen=True, eq=False)
class _Request:
    """A query plane, and what a network is asked about it.

    Parameters
    ----------
    query : ScaledQuery
    prompts : PromptSet
        Empty for a network that knows its classes.
    settings : SegmentSettings
    device : Device
    on_progress, on_partial
        As for `predict`.
    notes : tuple of str
        On the query.
    zoom : float
        How much larger the query is than the prompts.
    """

    query: ScaledQuery
    prompts: PromptSet
    settings: SegmentSettings
    device: Device
    on_progress: Progress = ignore_progress
    on_partial: Partial | None = None
    notes: tuple[str, ...] = ()
    zoom: float = 1.0

    @property
    def prompt_scale(self) -> float:
        """Network pixels of the prompts per pixel of the query."""
        return self.query.scale / self.zoom

    def zoomed(self, zoom: float) -> _Request:
        """Return the same request with the query shown larger or smaller."""
        if zoom == self.zoom:
            return self
        query = self.query.at_scale(self.prompt_scale * zoom)
        return replace(self, query=query, zoom=zoom)

    def sample(self) -> _Request:
        """Return the same request for the central part of the query."""
        side = max(1, round(SAMPLE_SIDE / self.query.scale))
        if max(self.query.network_shape) <= SAMPLE_SIDE:
            return self
        centre = tuple(inside((n - side) // 2, side, n) for n in self.query.shape)
        total = self.query.shape[0] * self.query.shape[1]
        return replace(
            self,
            query=self.query.part(centre),
            # the bar stands still, and a run can be cancelled
            on_progress=lambda *_: self.on_progress(0, total, COMPARING),
            on_partial=None,
        )

    def answer(
        self, network: PromptSegmenter, judge: PromptSegmenter | None = None
    ) -> Prediction:
        """Return the prediction of a network.

        Parameters
        ----------
        network : PromptSegmenter
        judge : PromptSegmenter, optional
            Network that checks the result on the prompts; by default ``network``.
        """
        forward = self._forward(network)
        code: PromptCode = {}
        objects, trust, consistency = None, math.nan, math.nan
        with evaluating(network, self.device):
            if len(self.prompts):
                shown = shown_to_network(self.prompts)
                images, masks = prompt_tensors(shown, self.prompt_scale)
                code = prompt_code(images, masks, forward)
                objects = resized(
                    prompt_object_properties(
                        shown, images, forward, code, self.prompt_scale
                    ),
                    self.zoom,
                )
            maps = self._all_tiles(forward, code)
            named = dict(zip(forward.names, maps, strict=True))
        left_out = self._leave_out(named, objects)
        classes = None
        if "1" in forward.names:
            classes = (maps[1:].argmax(0) + 1).astype(np.uint8)
        found = Maps.of(named, objects, classes)
        if self.settings.trust and len(self.prompts):
            positive = [i for i, p in enumerate(shown) if not p.is_negative]
            judged_by = forward if judge is None else self._forward(judge)
            with evaluating(judge or network, self.device):
                consistency = self_consistency(
                    self.query,
                    named,
                    judged_by,
                    images[:, positive],
                    masks[:, positive],
                )
            trust = expected_dice(found, consistency)
        fallback = [self.device.reason] if self.device.is_fallback else []
        return Prediction(
            maps=found,
            trust=trust,
            notes=(
                *fallback,
                *forward.notes,
                *self.notes,
                *left_out,
                *zoom_notes(self.zoom),
                *size_notes(found),
            ),
            scale=self.query.scale,
            intensities=self.query.intensities,
            device=str(self.device),
            consistency=consistency,
        )

    def _leave_out(
        self, named: dict[str, np.ndarray], objects: ObjectProperties | None
    ) -> tuple[str, ...]:
        """Take objects like those marked as wrong out of the maps; return a note."""
        pixels = unwanted_pixels(
            self.query, Maps.of(named, objects), self.prompts, self.prompt_scale
        )
        if pixels is None:
            return ()
        for values in named.values():
            values[pixels > 0] = 0
        return (LEFT_OUT.format(n=count_objects(pixels)),)

    def _forward(self, network: PromptSegmenter) -> Forward:
        return Forward(
            network,
            self.device,
            batch=self.settings.batch,
            overlap=self._overlap(network),
            radius=network.overlap,
            stride=network.stride,
        )

    def _overlap(self, network: PromptSegmenter) -> int:
        return max(self.settings.overlap, network.least_overlap)

    def _all_tiles(self, forward: Forward, code: PromptCode) -> np.ndarray:
        """Return the blended maps (M, Y, X) of all tiles."""
        query, network = self.query, forward.network
        grid = TileGrid.of(
            query.shape,
            query.scale,
            tile=_tile_for(
                network,
                _tile_side(query.network_shape, self.settings.tile, self.device),
            ),
            overlap=self._overlap(network),
            radius=network.overlap,
            stride=network.stride,
        )
        maps = np.zeros((0, *query.shape), np.float32)

        def add(at: Place, part: np.ndarray) -> None:
            nonlocal maps
            y, x = grid.spans_at(at)
            if not len(maps):  # the first answer says how many maps there are
                maps = np.zeros((len(part), *query.shape), np.float32)
            weights = np.outer(y.weights, x.weights)
            maps[:, y.first : y.last, x.first : x.last] += part * weights
            if self.on_partial is not None:
                self.on_partial(_preview(part[0], y, x))

        # Tiles side by side use the cores better than all cores on one tile.
        with working_threads(len(grid.places), self.device) as n:
            run_tiles(
                query,
                grid,
                grid.places,
                lambda pieces: forward(pieces, code),
                add,
                batch=forward.batch,
                at_once=n if self.device.type == "cpu" else 1,
                on_progress=self.on_progress,
            )
        return maps


def _best_zoom(
    request: _Request, network: PromptSegmenter
) -> tuple[float, Prediction | None]:
    """Return what `query_zoom` does, and the prediction if it is of the whole query."""
    settings, scale = request.settings, request.query.scale
    if not (network.needs_prompt and settings.scale_objects):
        return 1.0, None
    if is_flat(request.query.intensities).all():  # an image without signal
        return 1.0, None
    sample = request.sample()
    best = sample.answer(network)
    # never more than four times the pixels, as for the scale of the prompts
    zoom = min(zoom_for(best.maps), max(1.0, 2 / scale))
    if zoom != 1:
        judged = replace(
            sample, settings=replace(settings, trust=True), on_partial=None
        )
        plain = best if settings.trust else judged.answer(network)
        other = judged.zoomed(zoom).answer(network)
        gain = other.trust - plain.trust
        if gain > (0 if other.trust >= RELIABLE else CLEAR_GAIN):
            best = other
        else:
            zoom = 1.0
    if sample is not request:
        return zoom, None
    if not settings.trust:
        best = replace(best, trust=math.nan, consistency=math.nan)
    return zoom, best


def _refined_or_plain(request: _Request, network: PromptSegmenter) -> Prediction:
    """Return the prediction of the fitted network if it is better, else of the network.

    It is better where its maps are less uncertain and its result segments the prompts
    no worse. Both results are checked with the network as it was: the fitted one has
    learned the prompts by heart and finds them in any image. The check is made even if
    nobody asked for its number.
    """
    settings = request.settings
    checked = replace(request, settings=replace(settings, trust=True))
    plain = checked.answer(network)
    fitted = refined(
        network,
        *prompt_tensors(shown_to_network(request.prompts), request.prompt_scale),
        settings.refine,
        on_progress=request.on_progress,
    )
    better = checked.answer(fitted, judge=network)
    helps = better.consistency >= plain.consistency - TOLERANCE and mean_uncertainty(
        better.maps.foreground, LIKELY_FOREGROUND
    ) < mean_uncertainty(plain.maps.foreground, LIKELY_FOREGROUND)
    kept = better if helps else plain
    trusts = f"trust {better.trust:.2f}, before {plain.trust:.2f}"
    note = FITTED if helps else NOT_HELPFUL
    return replace(
        kept,
        trust=kept.trust if settings.trust else math.nan,
        notes=(*kept.notes, f"{note} ({trusts})"),
    )


def _tile_side(shape: tuple[int, ...], tile: int, device: Device) -> int:
    """Return the tile to use: on a CPU one that is a half larger if that suffices."""
    largest = tile * 3 // 2
    return largest if device.type == "cpu" and max(shape) <= largest else tile


def _tile_for(network: PromptSegmenter, tile: int) -> int:
    """Return the tile that a network takes which is nearest to the wanted one."""
    least, most = network.tile
    return most or max(tile, least)


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
