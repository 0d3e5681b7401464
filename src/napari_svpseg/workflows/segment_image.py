"""What a run consists of: a model that is ready, prompts, planes, and its recipe."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.image import Axes
from ..core.labels.instances import instances_from_maps
from ..core.labels.linking import link_planes
from ..core.model_card import ModelCard
from ..core.planes import Planes, PlaneView, as_stack, put, take
from ..core.progress import Progress
from ..core.prompt import Prompt, PromptSet, prompt_print
from ..core.result import Maps, Recipe, versions
from ..core.settings import PostprocessSettings, SegmentSettings

if TYPE_CHECKING:
    from ..engine.inference.device import Device
    from ..engine.inference.predict import Prediction
    from ..io.model_store import LoadedModel

    Model = str | Path | LoadedModel

MAX_LOADED = 4
"""Networks kept in memory; the one used longest ago is dropped first."""

_loaded: dict[tuple[str, str, str], LoadedModel] = {}
_loaded_lock = threading.Lock()


@dataclass(frozen=True, eq=False)
class Job:
    """What is the same for all planes of a run."""

    model: LoadedModel
    device: Device
    prompts: PromptSet
    settings: SegmentSettings
    intensities: np.ndarray | None


def prepare(model: Model, device: str) -> tuple[LoadedModel, Device]:
    """Return the model on the device that is really used, loading it only once."""
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
    from ..io.model_store import prompts_of

    if isinstance(model, str | Path):
        return prompts_of(model)
    return prompts_of(model.card.path or model.card.name)


def prompts_for(
    model: LoadedModel, prompts: Prompt | PromptSet | Iterable[Prompt] | None
) -> PromptSet:
    """Return the prompts that a model is asked with: none where it knows classes."""
    if not model.network.needs_prompt:
        return PromptSet()
    return as_prompt_set(own_prompts(model) if prompts is None else prompts).usable()


def trained_intensities(model: LoadedModel, planes: Planes) -> np.ndarray | None:
    """Return what a query is measured by that is a window like those of a training.

    None for all others: they are measured by themselves. See `TaggedImages`.
    """
    known = model.card.training.get("intensities")
    if not isinstance(known, dict):
        return None
    plane = PlaneView(planes, planes.indices[0])
    largest = known["largest"] or math.inf
    same = plane.shape[2] == len(known["range"]) and str(plane.dtype) == known["dtype"]
    fits = same and max(plane.shape[:2]) <= largest
    return np.array(known["range"]) if fits else None


def as_prompt_set(prompts: Prompt | PromptSet | Iterable[Prompt]) -> PromptSet:
    """Return one prompt, or several, as a set."""
    if isinstance(prompts, PromptSet):
        return prompts
    return PromptSet([prompts] if isinstance(prompts, Prompt) else prompts)


def segment_planes(
    planes: Planes,
    job: Job,
    post: PostprocessSettings,
    on_progress: Progress,
    on_partial: Callable[[Any], None] | None,
) -> tuple[Maps, np.ndarray, list[Prediction]]:
    """Return the maps, labels and what is known of each plane of a query."""
    from ..engine.inference.predict import predict

    layout = Axes(planes.axes.labels)
    shape = planes.axes.labels_shape(planes.shape)
    indices = planes.indices
    labels = np.zeros(shape, np.uint32)
    maps: Maps | None = None
    predictions: list[Prediction] = []
    last = 0
    for i, index in enumerate(indices):
        prediction = predict(
            planes.view(index),
            job.prompts,
            job.model.network,
            job.device,
            job.settings,
            job.intensities,
            on_progress=_share(on_progress, i, len(indices)),
            on_partial=on_partial if len(indices) == 1 else None,
        )
        predictions.append(replace(prediction, maps=Maps(np.zeros((0, 0)))))
        plane = instances_from_maps(prediction.maps, post)
        if len(indices) == 1:  # nothing is copied
            maps = each_map(lambda m: as_stack(m, layout, shape), prediction.maps)
            return maps, as_stack(plane, layout, shape), predictions
        last = put_labels(labels, layout, index, plane, last, post)
        if maps is None:
            maps = each_map(lambda m: np.zeros(shape, m.dtype), prediction.maps)
        for whole, part in zip(_arrays(maps), _arrays(prediction.maps), strict=True):
            put(whole, layout, index, part)
        if on_partial is not None:
            on_partial((index, take(labels, layout, index)))
    assert maps is not None  # there is at least one plane
    return maps, linked(labels, layout, post), predictions


def linked(
    labels: np.ndarray, layout: Axes, settings: PostprocessSettings
) -> np.ndarray:
    """Return a stack's labels, linked along Z and then T if that is asked for."""
    if not settings.link_planes or settings.output != "instances":
        return labels
    axes = tuple(layout.order.index(a) for a in "ZT" if a in layout.order)
    return link_planes(labels, axes, settings.link_overlap)


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
    if settings.output == "instances" and last:
        plane = np.where(plane > 0, plane + np.uint32(last), 0)
    put(labels, layout, index, plane)
    return max(last, int(plane.max(initial=0)))


def _arrays(maps: Maps) -> Iterator[np.ndarray]:
    for f in fields(maps):
        if isinstance(getattr(maps, f.name), np.ndarray):
            yield getattr(maps, f.name)


def each_map(change: Callable[[np.ndarray], np.ndarray], maps: Maps) -> Maps:
    """Return the maps with ``change`` applied to each that is there."""
    arrays = {
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
    """Return all that is needed to repeat a run."""
    card = job.model.card
    notes = dict.fromkeys(note for p in predictions for note in p.notes)
    notes |= dict.fromkeys(signal_notes([p.intensities for p in predictions]))
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
        scale=float(predictions[0].scale),
        needs_prompt=job.model.network.needs_prompt,
        notes=tuple(notes),
        versions=versions(),
    )


def signal_notes(intensities: list[np.ndarray]) -> list[str]:
    """Return what is to be told of images in which there is nothing to see.

    Parameters
    ----------
    intensities : list of (C, 2) array
        Percentiles of each plane, of all channels.
    """
    blank = [not (pair[:, 1] > pair[:, 0]).any() for pair in intensities]
    n, total = sum(blank), len(blank)
    if not n:
        return []
    what = "the image has" if total == 1 else f"{n} of {total} planes have"
    return [f"{what} no signal: nearly all pixels are alike, or no numbers"]


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
    """Return what a recipe tells of a prompt."""
    return {
        "name": prompt.name,
        "source": prompt.source,
        "box": asdict(prompt.box),
        "negative": prompt.is_negative,
        "sha256": prompt_print(prompt),
    }
