"""What notebooks, the command line and the plugin all call.

Importing this module loads neither torch nor Qt: both wait inside the functions that
need them. `segment` and `segment_file` take and return plain values and arrays, so they
also run as jobs in an engine process or on a cluster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .core.annotation.image_tags import (
    BankPatch,
    TagTrainingResult,
    TagTrainingSettings,
)
from .core.geometry import PROMPT_SIZE, Box
from .core.image import Axes, ImageError
from .core.jobs.finetune_job import FineTuneProgress, FineTuneResult, FineTuneSettings
from .core.jobs.folder_job import PATTERN, FileOutcome, file_stem
from .core.labels.instances import instances_from_maps
from .core.labels.measure import object_sizes
from .core.model_card import ModelCard
from .core.planes import Planes, take
from .core.progress import Progress, ignore_progress
from .core.prompt import Prompt, PromptError, PromptSet
from .core.result import Maps, Result
from .core.settings import PostprocessSettings, split_settings
from .workflows.segment_image import (
    Job,
    each_map,
    linked,
    prepare,
    prompts_for,
    put_labels,
    recipe_of,
    segment_planes,
    trained_intensities,
)

if TYPE_CHECKING:
    from .io.model_store import LoadedModel

    Model = str | Path | LoadedModel


def segment(
    query: Any,
    prompts: Prompt | PromptSet | Iterable[Prompt] | None = None,
    model: Model = "svp",
    device: str = "auto",
    output: str | None = None,
    *,
    axes: str | None = None,
    channels: tuple[int, ...] | None = None,
    rgb: bool | None = None,
    intensities: np.ndarray | None = None,
    on_progress: Progress | None = None,
    on_partial: Callable[[Any], None] | None = None,
    **settings: Any,
) -> Result:
    """Find the prompts' kind of object in an image, stack or time series.

    Stacks are segmented plane by plane; no id occurs in two planes.

    Parameters
    ----------
    query : array
        ``(Y, X)``, RGB ``(Y, X, 3 or 4)``, or any shape that ``axes`` explains. Planes
        are read one at a time, so a lazy array (dask, zarr) is never loaded whole.
    prompts : Prompt, PromptSet or iterable of Prompt, optional
        At least one must show an object. A model that knows its classes takes none;
        others are asked with the prompts in their folder where none are given.
    model : str, path or LoadedModel
        Name of a built-in or own model, a model folder, or what `load_model` returned.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
    output : str, optional
        ``instances`` (an id for each object) or ``semantic`` (1 = found, or the class
        id). By default the classes of a model that knows them, and objects else.
    axes : str, optional
        Letters of T, Z, C, Y, X for each axis of ``query``; must be said for anything
        but ``(Y, X)`` and RGB.
    channels : tuple of int, optional
        Channels to take, in order; by default those that the prompts were cut from.
    rgb : bool, optional
        Whether the channels are red, green, blue (and alpha); by default as in the
        prompts.
    intensities : (C, 2) array, optional
        Percentiles of the whole image where ``query`` is only a part of it.
    on_progress : callable, optional
        Called with ``(done, total, message)``; may raise `Cancelled`.
    on_partial : callable, optional
        For one plane: called with what the engine has so far. For stacks: called with
        ``(index, labels)`` of each finished plane.
    **settings
        Fields of `SegmentSettings` and `PostprocessSettings`.

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
        For an unknown model, device or setting.
    """
    start = time.perf_counter()
    run, post = split_settings(
        {**settings, "device": device, "output": output or "instances"}
    )
    loaded, where = prepare(model, run.device)
    prompts = prompts_for(loaded, prompts)
    if output is None and not loaded.network.needs_prompt:
        post = replace(post, output="semantic")
    planes = Planes.of(query, prompts, axes=axes, channels=channels, rgb=rgb)
    if intensities is None:
        intensities = trained_intensities(loaded, planes)
    if intensities is None and len(planes.indices) > 1:
        intensities = planes.intensities()  # one range for all planes
    job = Job(loaded, where, prompts, run, intensities)
    maps, labels, predictions = segment_planes(
        planes, job, post, on_progress or ignore_progress, on_partial
    )
    trusts = [p.trust for p in predictions if np.isfinite(p.trust)]
    return Result(
        labels=labels,
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
    axes: str | None = None,
    on_progress: Progress | None = None,
    on_partial: Callable[[Any], None] | None = None,
    **changed: Any,
) -> np.ndarray:
    """Make labels of maps again, without the model.

    Parameters
    ----------
    maps : Maps
        Of a `Result`; stacks have the stack's shape.
    settings : PostprocessSettings, optional
    axes : str, optional
        Axes of the query; by default the last two axes of ``maps`` are Y and X.
    on_progress, on_partial : callable, optional
        As in `segment`; called after each plane, with ``(index, labels)``.
    **changed
        Fields of `PostprocessSettings` that differ from ``settings``.

    Returns
    -------
    uint32 array of the maps' shape
    """
    settings = replace(settings or PostprocessSettings(), **changed)
    shape = maps.foreground.shape
    order = Axes(axes).labels if axes else ("TZC"[: len(shape) - 2] + "YX")
    layout = Axes(order)
    labels = np.zeros(shape, np.uint32)
    last = 0
    indices = list(layout.plane_indices(shape))
    for i, index in enumerate(indices, start=1):
        plane = each_map(lambda m, where=index: take(m, layout, where), maps)
        last = put_labels(
            labels, layout, index, instances_from_maps(plane, settings), last, settings
        )
        if on_progress is not None:
            on_progress(i, len(indices), "")
        if on_partial is not None and len(indices) > 1:
            on_partial((index, take(labels, layout, index)))
    return linked(labels, layout, settings)


def labels_path(
    source: str | Path, out_folder: str | Path, pattern: str = PATTERN
) -> Path:
    """Return where `segment_file` writes the labels of ``source``.

    Examples
    --------
    >>> labels_path("day1/cells.ome.tif", "out").as_posix()
    'out/cells_labels.ome.tif'
    """
    return Path(out_folder) / f"{file_stem(str(source), pattern)}.ome.tif"


def segment_file(
    path: str | Path,
    prompts: Prompt | PromptSet | Iterable[Prompt] | str | Path | None,
    out_folder: str | Path,
    model: Model = "svp",
    device: str = "auto",
    output: str | None = None,
    *,
    axes: str | None = None,
    channels: tuple[int, ...] | None = None,
    skip_done: bool = False,
    prompts_file: str = "",
    targets: dict[str, str] | None = None,
    on_progress: Progress | None = None,
    on_partial: Callable[[Any], None] | None = None,
    **settings: Any,
) -> FileOutcome:
    """Segment an image file and write ``NAME_labels.ome.tif``, or other formats.

    Of an OME-Zarr image only what is needed at a time is read.

    Each file appears under its name only when it is complete.

    Parameters
    ----------
    path : path
        Image to be read.
    prompts : PromptSet, prompts, path of a prompt file, or None as in `segment`
    out_folder : path
        Made if it is not there.
    skip_done : bool
        Leave images alone whose files are there already.
    prompts_file : str
        Recorded in the recipe.
    targets : dict, optional
        File to write for each of the formats of `core.jobs.folder_job.FORMATS` that are wanted.
    model, device, output, axes, channels, on_progress, on_partial, **settings
        As in `segment`.

    Returns
    -------
    FileOutcome
    """
    from .io.exports import Found, export
    from .io.images import read_image
    from .io.ome_zarr import is_zarr, read_zarr

    targets = targets or {"ome-tiff": str(labels_path(path, out_folder))}
    first = next(iter(targets.values()))
    if skip_done and all(Path(target).exists() for target in targets.values()):
        return FileOutcome(str(path), first, status="skipped")
    if isinstance(prompts, str | Path):
        from .io.prompt_files import load_prompts

        prompts_file = prompts_file or str(prompts)
        prompts = load_prompts(prompts)
    image = (read_zarr if is_zarr(path) else read_image)(path, axes=axes)
    result = segment(
        image.array,
        prompts,
        model,
        device,
        output,
        axes=image.axes.order,
        channels=channels,
        rgb=image.rgb or None,
        on_progress=on_progress,
        on_partial=on_partial,
        **settings,
    )
    recipe = replace(result.recipe, query_file=str(path), prompts_file=prompts_file)
    found = Found(
        result.labels,
        image.axes.labels,
        image.pixel_size,
        image.unit,
        image.z_step,
        recipe,
        image.array,
        image.axes.order,
    )
    Path(out_folder).mkdir(parents=True, exist_ok=True)
    if on_progress is not None:
        on_progress(1, 1, "Writing")  # the last chance to stop
    for kind, target in targets.items():
        export(target, kind, found)
    return FileOutcome(
        source=str(path),
        labels=first,
        seconds=result.seconds,
        device=recipe.device,
        trust=result.trust,
        notes=recipe.notes,
        **object_sizes(result.labels, image.pixel_size),
    )


def finetune(
    images: Sequence[Any],
    partial_labels: Sequence[Any],
    *,
    start_from: Model = "svp",
    device: str = "auto",
    settings: FineTuneSettings | None = None,
    output: str | Path | None = None,
    training_set: str | Path | None = None,
    unlabelled: str | Path | None = None,
    names: Sequence[str] | None = None,
    validation_images: Iterable[int] = (),
    rgb: bool | None = None,
    channels: tuple[int, ...] | None = None,
    resume: bool = False,
    on_progress: Progress | None = None,
    on_partial: Callable[[FineTuneProgress], None] | None = None,
) -> FineTuneResult:
    """Train a model further on a few partly labelled images, and check it.

    A part of the labels is kept out of training. The model that does better on them,
    the one at the start or the best on the way, becomes a model folder with prompts in
    it, which `segment` takes as ``model``.

    Parameters
    ----------
    images : sequence of (Y, X) or (Y, X, C) arrays
        Planes with up to three channels (or ``channels`` chosen).
    partial_labels : sequence of (Y, X) int arrays
        One for each image: 0 = unknown, 1 = background, 2, 3, ... = objects, or
        classes where ``settings.semantic``. See `core.annotation.partial_labels` for other forms.
    start_from : str, path or LoadedModel
        What is trained further.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
    settings : FineTuneSettings, optional
        By default the quick preset: under a minute on two processor cores.
    output : path, optional
        Model folder to write; by default a new one among the user's own models.
    training_set : path, optional
        A folder of images and labels (`io.training_set`): what is given is added to
        it, and all of it that is in use is trained on.
    unlabelled : path, optional
        A folder of further images, without labels: the model first learns from
        superpixels of some of them (``settings.self_supervised_first`` does so with
        the labelled images alone).
    names : sequence of str, optional
        Of the images, for messages and the training set.
    validation_images : iterable of int
        Images that are only used to check.
    rgb, channels
        As in `segment`.
    resume : bool
        Go on from the checkpoint of a run that was cut off or cancelled.
    on_progress : callable, optional
        Called with ``(step, steps, message)``; may raise `Cancelled`.
    on_partial : callable, optional
        Called with a `FineTuneProgress` after each step.

    Returns
    -------
    FineTuneResult

    Raises
    ------
    FineTuneError
        If the labels do not suffice or do not fit, or there is nothing to resume.
    WriteError
        If the model cannot be written; the last checkpoint stays beside it.
    """
    from .workflows.finetuning import run

    return run(
        images,
        partial_labels,
        start_from=start_from,
        device=device,
        settings=settings,
        output=output,
        training_set=training_set,
        unlabelled=unlabelled,
        names=names,
        validation_images=validation_images,
        rgb=rgb,
        channels=channels,
        resume=resume,
        on_progress=on_progress,
        on_partial=on_partial,
    )


def stop_finetune(output: str | Path) -> bool:
    """Ask the training of a model folder to end and keep its best so far.

    Returns
    -------
    bool
        Whether such a training was there.
    """
    from .workflows.finetuning import stop

    return stop(output)


def discard_finetune(output: str | Path) -> None:
    """Delete what a training that was cut off left behind."""
    from .workflows.finetuning import forget

    forget(output)


def unfinished_finetunes(folder: str | Path | None = None) -> list[dict[str, Any]]:
    """Return trainings that were cut off and can be resumed.

    Parameters
    ----------
    folder : path, optional
        Where models are written; by default the folder of the user's own models.

    Returns
    -------
    list of dict
        ``output``, ``start_from``, ``settings`` and ``training_set`` of each.
    """
    from .io.model_store import user_folder
    from .workflows.finetuning import unfinished

    return unfinished(user_folder() if folder is None else folder)


def train_from_tags(
    images: Any,
    tags: Any,
    *,
    settings: TagTrainingSettings | None = None,
    output: str | Path | None = None,
    device: str = "auto",
    start_from: str | Path = "svp",
    bank: Sequence[BankPatch] | None = None,
    resume: bool = False,
    on_progress: Progress | None = None,
    on_partial: Callable[[Any], None] | None = None,
) -> TagTrainingResult:
    """Train a model of classes from tags that say which image holds what.

    Parameters
    ----------
    images : folder, mapping of str to path or array, or sequence of paths or arrays
        Single planes, grey or colour. Names in the tags are relative to the folder.
    tags : Tags, path of a ``tags.csv``, mapping, or sequence
        Classes of each image; an empty list says that it holds none of them.
    settings : TagTrainingSettings, optional
    output : path, optional
        Model folder to write; by default a new one among the user's models.
        Checkpoints lie beside it in ``NAME-training``.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
    start_from : str or path
        Model whose encoder is the start: ``svp``, or one made of it.
    bank : sequence of BankPatch, optional
        An image bank that the user has looked through; by default it is found.
    resume : bool
        Go on from the checkpoints, if there are some.
    on_progress : callable, optional
        Called with ``(done, total, message)``; may raise `Cancelled`.
    on_partial : callable, optional
        Receives `TagTrainingProgress` at each step, the bank (a list of `BankPatch`) once it
        is found, and a `TagTrainingPreview` of some images after each pass.

    Returns
    -------
    TagTrainingResult

    Raises
    ------
    TagTrainingError, TagsError
        If nothing can be learned from the tags, in one line.
    """
    from .workflows.tag_training import train_from_tags as fit

    return fit(
        images,
        tags,
        settings=settings,
        output=output,
        device=device,
        start_from=start_from,
        bank=bank,
        resume=resume,
        on_progress=on_progress,
        on_partial=on_partial,
    )


def find_patch_bank(
    images: Any,
    tags: Any,
    *,
    settings: TagTrainingSettings | None = None,
    device: str = "auto",
    start_from: str | Path = "svp",
    on_progress: Progress | None = None,
) -> tuple[BankPatch, ...]:
    """Return the image bank that `train_from_tags` would start from; takes seconds.

    Parameters
    ----------
    images, tags, settings, device, start_from, on_progress
        As for `train_from_tags`.
    """
    from .workflows.tag_training import find_patch_bank as find

    return find(
        images,
        tags,
        settings=settings,
        device=device,
        start_from=start_from,
        on_progress=on_progress,
    )


def stop_tag_training(output: str | Path) -> None:
    """Ask the training that will write the model folder ``output`` to end now.

    It keeps what it has learned so far, and writes the model. Works from any process.
    """
    from .workflows.tag_training import stop_tag_training as stop

    stop(output)


def discard_tag_training(output: str | Path) -> None:
    """Remove what a cancelled training left beside the model folder ``output``."""
    from .workflows.tag_training import discard_tag_training as forget

    forget(output)


def models() -> list[ModelCard]:
    """Return the cards of the built-in and the user's own models."""
    from .io.model_store import list_models

    return list_models()


def load_model(model: str | Path) -> LoadedModel:
    """Return a model by name or folder, to be given to `segment` again and again.

    Raises
    ------
    ValueError
        If there is no such model, or its weights are not those of its card.
    """
    from .io.model_store import load_model as load

    return load(model)


def prompt_from_files(
    image: str | Path,
    labels: str | Path | None,
    box: Box | tuple[int, int],
    size: int = PROMPT_SIZE,
    *,
    axes: str | None = None,
    channels: tuple[int, ...] | None = None,
    negative: bool = False,
    name: str = "prompt",
) -> Prompt:
    """Cut a prompt out of an image file and the file of its labels.

    Parameters
    ----------
    image, labels : path
        One plane each; no labels are needed for a negative prompt.
    box, size, channels, negative, name
        As for `Prompt.from_image`.
    axes : str, optional
        Axes of the image where the file does not say.

    Returns
    -------
    Prompt
    """
    from .io.images import read_image

    source = read_image(image, axes=axes)
    if source.axes.stack:
        raise ImageError(
            f"{image}: a prompt is cut from one plane, this file has the axes "
            f"{source.axes.order}: save the plane by itself."
        )
    plane = source.axes.to_plane(np.asarray(source.array))
    mask = None if labels is None else read_mask(labels)
    try:
        return Prompt.from_image(
            plane,
            mask,
            box,
            size,
            channels=channels,
            rgb=source.rgb and channels is None,
            negative=negative,
            name=name,
            source=str(image),
            pixel_size=source.pixel_size,
            unit=source.unit,
        )
    except PromptError as error:
        where = image if labels is None else f"{image} with {labels}"
        raise PromptError(f"{where}: {error}") from error


def read_mask(path: str | Path) -> np.ndarray:
    """Return the labels in a file, which must be one plane."""
    from .io.images import read_image

    labels = read_image(path)
    if labels.axes.order != "YX":
        raise ImageError(
            f"{path}: labels are one plane of whole numbers, this file has the axes "
            f"{labels.axes.order}."
        )
    return np.asarray(labels.array)
