"""Segment an image, stack or time series: `svpseg.segment` and `svpseg.postprocess`.

Importing this module loads neither torch nor Qt: the functions import torch when they
are called. Arguments and results can be pickled, so the functions also run as jobs in
an engine process or on a cluster.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ..core.contrast import Profile, alike_notes
from ..core.image import Axes, ImageError, is_flat
from ..core.labels.instances import instances_from_maps
from ..core.labels.linking import link_planes
from ..core.model_card import ModelCard
from ..core.planes import (
    PlaneContrasts,
    Planes,
    PlaneView,
    plane_to_stack,
    put_plane,
    take_plane,
)
from ..core.progress import Progress, ignore_progress
from ..core.prompt import Prompt, Prompts, PromptSet, as_prompt_set, prompt_hash
from ..core.result import Maps, Recipe, Result, versions
from ..core.settings import (
    LabelKind,
    PostprocessSettings,
    SegmentSettings,
    changed,
)
from ..core.side_by_side import in_order, stoppable_pool
from ..io.model_store import LoadedModel

if TYPE_CHECKING:
    from ..engine.inference.device import Device
    from ..engine.inference.predict import Prediction

Model = str | Path | LoadedModel
"""A model's name, its folder, or what `load_model` returned."""

NO_SIGNAL = "{what} no signal: nearly all pixels have the same value, or are NaN"

NO_MEMORY = (
    "The result would take {needed:.1f} GB of memory, {free:.1f} GB are free: use "
    "svpseg.segment_zarr, which works in parts."
)

RESULT_BYTES = 16
"""Bytes of labels and maps for each pixel."""


SMALL_PLANE = 1_500_000
"""Pixels up to which planes of a stack are segmented side by side. Larger ones are cut
into tiles, which keep all cores busy."""

MAX_LOADED = 4
"""Networks kept in memory; the one used longest ago is dropped first."""

_loaded: dict[tuple[str, str, str], LoadedModel] = {}
_loaded_lock = threading.Lock()


def segment(
    query: Any,
    prompts: Prompts | None = None,
    model: Model = "svp",
    device: str | None = None,
    labels: LabelKind | None = None,
    *,
    axes: str | None = None,
    channels: tuple[int, ...] | None = None,
    rgb: bool | None = None,
    intensities: ArrayLike | Profile | None = None,
    threshold: float | None = None,
    min_area: int | None = None,
    split: bool | None = None,
    link_planes: bool | None = None,
    settings: SegmentSettings | None = None,
    postprocess: PostprocessSettings | None = None,
    on_progress: Progress | None = None,
    on_partial: Callable[[Any], None] | None = None,
) -> Result:
    """Find the prompts' kind of object in an image, stack or time series.

    Stacks are segmented plane by plane; no id occurs in two planes, unless
    ``link_planes``.

    Parameters
    ----------
    query : array
        ``(Y, X)``, RGB ``(Y, X, 3 or 4)``, or any shape that ``axes`` explains. Planes
        are read one at a time, so a lazy array (dask, zarr) is never loaded whole.
    prompts : Prompt, PromptSet or iterable of Prompt, optional
        At least one must show an object. A model that knows its classes takes none;
        other models use the prompts in their folder where none are given.
    model : str, path or LoadedModel
        Name of a built-in or own model, a model folder, or what `load_model` returned.
    device : str, optional
        ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
    labels : {"objects", "classes"}, optional
        An id for each object, or one value for each class (1 where the model knows no
        classes). By default classes for a model that knows them, else objects.
    axes : str, optional
        Letters of T, Z, C, Y, X for each axis of ``query``; needed for all but
        ``(Y, X)`` and RGB.
    channels : tuple of int, optional
        Channels to take, in order; by default those that the prompts were cut from.
    rgb : bool, optional
        Whether the channels are red, green, blue (and alpha); by default as in the
        prompts.
    intensities : (C, 2) array or Profile, optional
        Percentiles of the whole image where ``query`` is only a part of it, (P, C, 2)
        for one range of each plane. By default the 1st and 99.8th percentile, unless
        untypical pixels decide these, see `core.contrast`.
    threshold : float, optional
        Foreground probability from which a pixel belongs to an object.
    min_area : int, optional
        Area of the smallest object in pixels; -1 takes a twelfth of the prompts'
        objects.
    split : bool, optional
        Split touching objects.
    link_planes : bool, optional
        Give an object of a stack the same id in all planes.
    settings : SegmentSettings, optional
        How the model is run: tile size, fitting to the prompts, ...
    postprocess : PostprocessSettings, optional
        How labels are made: confidence, holes, ... ``device``, ``labels``,
        ``threshold`` and the other keywords replace single fields of the two.
    on_progress : callable, optional
        Called with ``(done, total, message)``; may raise `Cancelled`.
    on_partial : callable, optional
        For one plane: called with intermediate results of the engine. For stacks:
        called with ``(index, labels)`` of each finished plane.

    Returns
    -------
    Result

    Raises
    ------
    ImageError
        If the axes are unclear or the channels are not those of the prompts.
    PromptError
        If no prompt is usable.
    ValueError
        For an unknown model or device, or a setting out of its range.
    """
    start = time.perf_counter()
    run = changed(SegmentSettings.of(settings), device=device)
    post = changed(
        postprocess or PostprocessSettings(),
        labels=labels,
        threshold=threshold,
        min_area=min_area,
        split=split,
        link_planes=link_planes,
    )
    loaded, where = prepare(model, run.device)
    prompts = prompts_for(loaded, prompts)
    if post.labels is None:
        knows_classes = loaded.network.knows_classes
        post = replace(post, labels="classes" if knows_classes else "objects")
    planes = Planes.of(query, prompts, axes=axes, channels=channels, rgb=rgb)
    _check_memory(planes)
    if intensities is None:
        intensities = trained_intensities(loaded, planes)
    if intensities is None and len(planes.indices) > 1:
        intensities = planes.profile()
    contrasts = None
    if isinstance(intensities, Profile):
        contrasts = planes.contrasts(intensities, prompts)
    elif intensities is not None:
        contrasts = PlaneContrasts.given(intensities, len(planes.indices))
    job = Job(loaded, where, prompts, run, contrasts)
    maps, found, predictions = segment_planes(
        planes, job, post, on_progress or ignore_progress, on_partial
    )
    trusts = [p.trust for p in predictions if np.isfinite(p.trust)]
    return Result(
        labels=found,
        maps=maps,
        trust=float(np.mean(trusts)) if trusts else float("nan"),
        recipe=recipe_of(planes, job, post, predictions),
        seconds=time.perf_counter() - start,
        classes=loaded.card.classes,
    )


def postprocess(
    maps: Maps,
    settings: PostprocessSettings | None = None,
    *,
    labels: LabelKind | None = None,
    threshold: float | None = None,
    min_area: int | None = None,
    split: bool | None = None,
    link_planes: bool | None = None,
    axes: str | None = None,
    on_progress: Progress | None = None,
    on_partial: Callable[[Any], None] | None = None,
) -> np.ndarray:
    """Make labels from maps again, without the model.

    Parameters
    ----------
    maps : Maps
        Of a `Result`; stacks have the stack's shape.
    settings : PostprocessSettings, optional
    labels, threshold, min_area, split, link_planes : optional
        As in `segment`; they replace single fields of ``settings``. By default the
        labels are classes where the maps know classes, else objects.
    axes : str, optional
        Axes of the query; by default the last two axes of ``maps`` are Y and X.
    on_progress, on_partial : callable, optional
        As in `segment`; called after each plane, with ``(index, labels)``.

    Returns
    -------
    uint32 array of the maps' shape
    """
    post = changed(
        PostprocessSettings.of(settings),
        labels=labels,
        threshold=threshold,
        min_area=min_area,
        split=split,
        link_planes=link_planes,
    )
    if post.labels is None:
        kind: LabelKind = "objects" if maps.classes is None else "classes"
        post = replace(post, labels=kind)
    shape = maps.foreground.shape
    order = Axes(axes).labels if axes else ("TZC"[: len(shape) - 2] + "YX")
    layout = Axes(order)
    found = np.zeros(shape, np.uint32)
    last = 0
    indices = list(layout.plane_indices(shape))
    for i, index in enumerate(indices, start=1):
        plane = each_map(partial(take_plane, layout=layout, index=index), maps)
        last = put_labels(
            found, layout, index, instances_from_maps(plane, post), last, post
        )
        if on_progress is not None:
            on_progress(i, len(indices), "")
        if on_partial is not None and len(indices) > 1:
            on_partial((index, take_plane(found, layout, index)))
    return linked(found, layout, post)


def describe_device(device: str = "auto") -> dict[str, Any]:
    """Return where models run for a chosen ``device``; loads torch.

    Returns
    -------
    dict
        ``device``, ``name``, ``reason``, ``threads``; see `engine.inference.device`.
    """
    from ..engine.inference.device import describe

    return describe(device)


@dataclass(frozen=True, eq=False)
class Job:
    """Model, prompts and settings, the same for all planes of a run."""

    model: LoadedModel
    device: Device
    prompts: PromptSet
    settings: SegmentSettings
    contrasts: PlaneContrasts | None


def prepare(model: Model, device: str) -> tuple[LoadedModel, Device]:
    """Return the loaded model (cached) and the device that is really used."""
    from ..engine.inference.device import choose

    where = choose(device)
    if not isinstance(model, str | Path):
        return model, where
    from ..io.model_store import find_model
    from ..io.model_store import load_model as load

    card = find_model(model)
    key = (card.path or card.name, card.sha256, str(where.torch_device))
    with _loaded_lock:
        loaded = _loaded.pop(key, None)
        if loaded is None:
            loaded = load(card.path or model)
            loaded.network.to(where.torch_device).eval()
        _loaded[key] = loaded
        while len(_loaded) > MAX_LOADED:
            _loaded.pop(next(iter(_loaded)))
    return loaded, where


def own_prompts(model: Model) -> PromptSet:
    """Return the prompts in a model's folder.

    Raises
    ------
    ValueError
        If it has none.
    """
    from ..io.model_store import model_prompts

    if isinstance(model, str | Path):
        return model_prompts(model)
    return model_prompts(model.card.path or model.card.name)


def prompts_for(model: LoadedModel, prompts: Prompts | None) -> PromptSet:
    """Return the usable prompts for a model: none where it knows its classes."""
    if not model.network.needs_prompt:
        return PromptSet()
    return as_prompt_set(own_prompts(model) if prompts is None else prompts).usable()


def trained_intensities(model: LoadedModel, planes: Planes) -> np.ndarray | None:
    """Return the percentiles of a training, for a query like its images.

    None for all other queries: they have percentiles of their own. See `TaggedImages`.
    """
    known = model.card.training.get("intensities")
    if not isinstance(known, dict):
        return None
    plane = PlaneView(planes, planes.indices[0])
    largest = known["largest"] or math.inf
    same = plane.shape[2] == len(known["range"]) and str(plane.dtype) == known["dtype"]
    fits = same and max(plane.shape[:2]) <= largest
    return np.array(known["range"]) if fits else None


def segment_planes(
    planes: Planes,
    job: Job,
    post: PostprocessSettings,
    on_progress: Progress,
    on_partial: Callable[[Any], None] | None,
) -> tuple[Maps, np.ndarray, list[Prediction]]:
    """Return the maps and labels of a query, and the prediction of each plane."""
    from ..engine.inference.predict import predict, query_zoom

    layout = Axes(planes.axes.labels)
    shape = planes.axes.labels_shape(planes.shape)
    indices = planes.indices
    labels = np.zeros(shape, np.uint32)
    maps: Maps | None = None
    ranges = None if job.contrasts is None else job.contrasts.ranges

    def asked(i: int) -> tuple[Any, ...]:
        plane = planes.view(indices[i])
        given = None if ranges is None else ranges[i]
        model = job.model.network
        return plane, job.prompts, model, job.device, job.settings, given

    # one size for all planes: that of the middle one
    several = len(indices) > 1
    zoom = query_zoom(*asked(len(indices) // 2)) if several else None
    predictions: list[Prediction] = []
    last = 0
    n_pixels = math.prod(shape) // len(indices)
    if several and n_pixels <= SMALL_PLANE:
        # read in this thread: not all readers of files work in several
        read = (_with_pixels(*asked(i)) for i in range(len(indices)))
        found = _side_by_side(read, len(indices), job, zoom, on_progress)
    else:
        found = (
            predict(
                *asked(i),
                zoom=zoom,
                on_progress=_share(on_progress, i, len(indices)),
                on_partial=None if several else on_partial,
            )
            for i in range(len(indices))
        )
    with closing(found):  # also after an error, which would keep it alive
        for index, prediction in zip(indices, found, strict=True):
            predictions.append(replace(prediction, maps=Maps(np.zeros((0, 0)))))
            plane = instances_from_maps(prediction.maps, post)
            if len(indices) == 1:  # nothing is copied
                maps = each_map(
                    lambda m: plane_to_stack(m, layout, shape), prediction.maps
                )
                return maps, plane_to_stack(plane, layout, shape), predictions
            last = put_labels(labels, layout, index, plane, last, post)
            if maps is None:
                maps = each_map(lambda m: np.zeros(shape, m.dtype), prediction.maps)
            for whole, part in zip(
                _arrays(maps), _arrays(prediction.maps), strict=True
            ):
                put_plane(whole, layout, index, part)
            if on_partial is not None:
                on_partial((index, take_plane(labels, layout, index)))
    assert maps is not None  # there is at least one plane
    return maps, linked(labels, layout, post), predictions


def _with_pixels(plane: Any, *others: Any) -> tuple[Any, ...]:
    """Return the arguments of `predict` with a plane that is read."""
    return plane[:, :], *others


def _side_by_side(
    arguments: Iterable[tuple[Any, ...]],
    n: int,
    job: Job,
    zoom: float | None,
    on_progress: Progress,
) -> Generator[Prediction, None, None]:
    """Yield the prediction of each of ``n`` planes, given the arguments of `predict`.

    On a CPU each core works on one: that is faster than all cores on one plane.
    """
    from ..engine.inference.device import working_threads
    from ..engine.inference.predict import predict

    with (
        working_threads(n, job.device) as at_once,
        stoppable_pool(at_once, "svpseg-planes", wait=False) as (pool, check),
    ):

        def work(given: tuple[Any, ...]) -> Prediction:
            return predict(*given, zoom=zoom, on_progress=check)

        on_progress(0, n, f"plane 1 of {n}")
        for i, found in enumerate(in_order(pool, work, arguments, at_once), 1):
            yield found
            on_progress(i, n, f"plane {min(i + 1, n)} of {n}")


def linked(
    labels: np.ndarray, layout: Axes, settings: PostprocessSettings
) -> np.ndarray:
    """Return a stack's labels, linked along Z and then T if that is asked for."""
    if not settings.link_planes or settings.labels == "classes":
        return labels
    axes = tuple(layout.order.index(a) for a in "ZT" if a in layout.order)
    return link_planes(labels, axes, settings.link_overlap)


def _check_memory(planes: Planes) -> None:
    """Raise `ImageError` where the result is larger than the memory that is free."""
    import psutil

    n = math.prod(planes.axes.labels_shape(planes.shape))
    needed = n * RESULT_BYTES
    free = psutil.virtual_memory().available + psutil.swap_memory().free
    if needed > free:
        raise ImageError(NO_MEMORY.format(needed=needed / 1e9, free=free / 1e9))


def _share(on_progress: Progress, i: int, n: int) -> Progress:
    """Return a callable that reports the i-th of n equal parts of the whole."""
    if n == 1:
        return on_progress

    def report(done: int, total: int, message: str = "") -> None:
        text = f"plane {i + 1} of {n}"
        on_progress(
            i * total + done, n * total, f"{text}: {message}" if message else text
        )

    return report


def put_labels(
    labels: np.ndarray,
    layout: Axes,
    index: tuple[int, ...],
    plane: np.ndarray,
    last: int,
    settings: PostprocessSettings,
) -> int:
    """Write one plane's labels; return the highest id so far, for the next plane."""
    if settings.labels != "classes" and last:
        plane = np.where(plane > 0, plane + np.uint32(last), 0)
    put_plane(labels, layout, index, plane)
    return max(last, int(plane.max(initial=0)))


def _arrays(maps: Maps) -> Iterator[np.ndarray]:
    for f in fields(maps):
        if isinstance(getattr(maps, f.name), np.ndarray):
            yield getattr(maps, f.name)


def each_map(change: Callable[[np.ndarray], np.ndarray], maps: Maps) -> Maps:
    """Return the maps with ``change`` applied to each that is there."""
    arrays: dict[str, Any] = {
        f.name: change(getattr(maps, f.name))
        for f in fields(maps)
        if isinstance(getattr(maps, f.name), np.ndarray)
    }
    return replace(maps, **arrays)


def recipe_of(
    planes: Planes,
    job: Job,
    post: PostprocessSettings,
    predictions: list[Prediction],
) -> Recipe:
    """Return the recipe that repeats a run."""
    card = job.model.card
    ranges = [p.intensities for p in predictions]
    contrasts = job.contrasts or PlaneContrasts(np.stack(ranges))
    notes = dict.fromkeys(note for p in predictions for note in p.notes)
    notes |= dict.fromkeys((*contrasts.notes, *signal_notes(ranges)))
    notes |= dict.fromkeys(alike_notes(ranges, job.prompts))
    return Recipe(
        model=model_reference(card),
        weights_sha256=card.sha256,
        prompts=tuple(prompt_record(p) for p in job.prompts),
        segment=job.settings.to_dict(),
        postprocess=post.to_dict(),
        device=predictions[0].device,
        axes=planes.axes.order,
        channels=planes.channels,
        intensities=tuple((float(a), float(b)) for a, b in predictions[0].intensities),
        plane_intensities=contrasts.recorded,
        scale=float(predictions[0].scale),
        needs_prompt=job.model.network.needs_prompt,
        notes=tuple(notes),
        versions=versions(),
    )


def signal_notes(intensities: list[np.ndarray]) -> list[str]:
    """Return notes on images without signal.

    Parameters
    ----------
    intensities : list of (C, 2) array
        Percentiles of each plane, of all channels.
    """
    blank = [bool(is_flat(pair).all()) for pair in intensities]
    n, total = sum(blank), len(blank)
    if not n:
        return []
    what = "the image has" if total == 1 else f"{n} of {total} planes have"
    return [NO_SIGNAL.format(what=what)]


def model_reference(card: ModelCard) -> str:
    """Return the model's name where that is enough to find it, else its folder."""
    if not card.path:
        return card.name
    from ..io.model_store import find_model

    try:
        return card.name if find_model(card.name).path == card.path else card.path
    except ValueError:
        return card.path


def prompt_record(prompt: Prompt) -> dict[str, Any]:
    """Return the entry of a prompt in a recipe."""
    return {
        "name": prompt.name,
        "source": prompt.source,
        "box": asdict(prompt.box),
        "negative": prompt.is_negative,
        "sha256": prompt_hash(prompt),
    }
