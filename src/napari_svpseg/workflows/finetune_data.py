"""Images and labels that a fine-tuning trains on and is checked on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.annotation.partial_images import FineTuneData, PartialImage
from ..core.annotation.partial_labels import (
    BACKGROUND,
    FEWEST_PIXELS,
    UNKNOWN,
    check_partial_labels,
    look_ordinary,
    to_ids,
)
from ..core.annotation.validation_split import split_validation
from ..core.contrast import percentile_table, plain_range, range_of_prompt
from ..core.geometry import MIN_BOX_SIZE
from ..core.image import as_float32, channels_last, every_nth
from ..core.jobs.finetune_job import FineTuneError, FineTuneSettings
from ..core.labels.ids import compact_ids
from ..core.progress import Progress
from ..io.training_set import TrainingSet
from .self_supervised import unlabelled_planes

MAX_UNLABELLED = 24
"""Images taken of a folder of unlabelled ones."""

OTHER_NUMBERS = "Each image needs its labels: got {images} images and {labels} labels."
OTHER_NAMES = "got {names} names for {images} images."
TOO_SMALL = (
    "{name}: {height} x {width} pixels are too few to train on: the smallest image is "
    "{side} x {side}."
)
NOT_FINITE = "{name}: no pixel of the image is a finite number."
SOME_NOT_FINITE = "{name}: {n} pixels are NaN or infinite, labels there are left out."
LOOK_ORDINARY = (
    "{name}: 1 was taken for background and 0 for unknown, but the labels look like "
    "ordinary ones, in which 0 is background: convert them with from_labels."
)
NO_IMAGES = "No image to train on: add at least one with labels."
OTHER_CHANNELS = (
    "The images differ in their number of channels ({counts}): choose the same "
    "channels for all."
)
MAX_NAMED = 3
"""Images that a message about all of them names."""

NO_LABELS = (
    f"No pixel is labelled: paint some objects (2, 3, ...) and some background "
    f"({BACKGROUND})."
)
FEW_LABELS = (
    "Only {n} pixels are labelled: paint at least an object and some background "
    "beside it."
)
ONLY_BACKGROUND = "Only background is labelled: paint some {what} ({values})."
ONLY_OBJECTS = (
    f"Only {{what}} are labelled: paint some background ({BACKGROUND}) too, or say "
    "that unlabelled pixels are background."
)


@dataclass(frozen=True, eq=False)
class GivenImages:
    """Images and partial labels as they are given to `svpseg.finetune`.

    Parameters
    ----------
    images : sequence of (Y, X) or (Y, X, C) arrays
    labels : sequence of (Y, X) int arrays
        Partial labels, one for each image.
    names : sequence of str, optional
    rgb : bool, optional
    channels : tuple of int, optional
    validation : frozenset of int
        Images that are only used to check.
    """

    images: Sequence[Any]
    labels: Sequence[Any]
    names: Sequence[str] | None = None
    rgb: bool | None = None
    channels: tuple[int, ...] | None = None
    validation: frozenset[int] = frozenset()


def gather(
    given: GivenImages,
    settings: FineTuneSettings,
    *,
    training_set: Path | None,
    unlabelled: Path | None,
    on_progress: Progress,
    notes: list[str],
) -> FineTuneData:
    """Return the checked images to train on; notes on them are added to ``notes``.

    Parameters
    ----------
    given : GivenImages
    settings : FineTuneSettings
    training_set : Path or None
        What is given is added to it, and all of it that is in use is trained on.
    unlabelled : Path or None
        Folder of further images.
    on_progress : Progress
    notes : list of str

    Raises
    ------
    FineTuneError
        If the labels do not suffice or do not fit.
    """
    images, validation = _read(given, settings, notes), set(given.validation)
    if training_set is not None:
        stored = TrainingSet(training_set)
        _add(stored, given, images)
        images, validation = _read_set(stored, settings, notes)
    _check_labels(images, settings)
    part = split_validation(
        [i.ids for i in images], settings.validation, settings.seed, validation
    )
    images = [replace(i, validation=m) for i, m in zip(images, part.masks, strict=True)]
    others: list[tuple[str, np.ndarray]] = []
    if unlabelled is not None:
        others = _read_unlabelled(unlabelled, settings, on_progress)
    return FineTuneData(images, part, others)


def _read(
    given: GivenImages, settings: FineTuneSettings, notes: list[str]
) -> list[PartialImage]:
    """Return the images that were given; none has the name of another."""
    n = len(given.images)
    if n != len(given.labels):
        raise FineTuneError(OTHER_NUMBERS.format(images=n, labels=len(given.labels)))
    names = list(given.names or (f"image {i}" for i in range(1, n + 1)))
    if len(names) != n:
        raise FineTuneError(OTHER_NAMES.format(names=len(names), images=n))
    seen: dict[str, int] = {}
    images = []
    for image, labels, name in zip(given.images, given.labels, names, strict=True):
        read = _partial_image(image, labels, name, given, settings, notes)
        if not settings.semantic and look_ordinary(np.asarray(labels)):
            notes.append(LOOK_ORDINARY.format(name=name))
        k = seen[name] = seen.get(name, 0) + 1
        images.append(read if k == 1 else replace(read, name=f"{name} ({k})"))
    return images


def check_image(
    image: np.ndarray,
    labels: np.ndarray,
    name: str,
    settings: FineTuneSettings,
    *,
    rgb: bool = False,
    channels: tuple[int, ...] | None = None,
) -> None:
    """Raise the error with which a training would refuse an image by itself.

    Parameters
    ----------
    image : (Y, X) or (Y, X, C) array
    labels : (Y, X) int array
        Partial labels.
    name : str
    settings : FineTuneSettings
    rgb, channels
        As in `finetune`.

    Raises
    ------
    FineTuneError
        One line that names the image.
    """
    given = GivenImages((), (), rgb=rgb, channels=channels)
    _partial_image(image, labels, name, given, settings, [])


def training_problem(folder: str | Path, settings: FineTuneSettings) -> str:
    """Return why a training would refuse a training set; empty if it would begin.

    Parameters
    ----------
    folder : path
    settings : FineTuneSettings
    """
    try:
        images, validation = _read_set(TrainingSet(folder), settings, [])
        _check_labels(images, settings)
        ids = [image.ids for image in images]
        split_validation(ids, settings.validation, settings.seed, validation)
    except ValueError as error:
        return str(error)
    return ""


def _partial_image(
    image: Any,
    labels: Any,
    name: str,
    given: GivenImages,
    settings: FineTuneSettings,
    notes: list[str],
) -> PartialImage:
    """Return an image with its labels; ``given`` says which channels are meant."""
    plane, is_rgb = channels_last(np.asarray(image), None, given.channels, given.rgb)
    height, width = plane.shape[:2]
    if min(height, width) < MIN_BOX_SIZE:
        raise FineTuneError(
            TOO_SMALL.format(name=name, height=height, width=width, side=MIN_BOX_SIZE)
        )
    ids = to_ids(
        check_partial_labels(labels, plane.shape, name),
        unlabelled_is_background=settings.unlabelled_is_background,
        wanted=settings.wanted if settings.semantic else None,
    )
    ids = compact_ids(ids).astype(np.int32)
    table = percentile_table(every_nth(plane))
    intensities = (
        plain_range(table) if is_rgb else range_of_prompt(table, plane[ids > 0])
    )
    if plane.dtype.kind == "f":
        bad = ~np.isfinite(plane).all(axis=2)
        if bad.all():
            raise FineTuneError(NOT_FINITE.format(name=name))
        if bad.any():
            notes.append(SOME_NOT_FINITE.format(name=name, n=int(bad.sum())))
            ids = np.where(bad, UNKNOWN, ids).astype(np.int32)
            plane = np.where(np.isfinite(plane), plane, intensities[:, 0])
            plane = as_float32(plane)
    nothing = np.zeros(ids.shape, bool)
    return PartialImage(plane, intensities, ids, nothing, name, is_rgb, given.channels)


def _add(stored: TrainingSet, given: GivenImages, read: list[PartialImage]) -> None:
    """Add images to a training set, as they were given."""
    for n, (image, labels, partial) in enumerate(
        zip(given.images, given.labels, read, strict=True)
    ):
        stored.add(
            partial.name,
            np.asarray(image),
            np.asarray(labels),
            rgb=partial.rgb,
            channels=given.channels,
            validation=True if n in given.validation else None,
        )


def _read_set(
    stored: TrainingSet, settings: FineTuneSettings, notes: list[str]
) -> tuple[list[PartialImage], set[int]]:
    """Return the images of a training set in use, and which of them only check."""
    used = [entry for entry in stored.entries() if entry.used]
    notes += stored.problems
    images = [
        _partial_image(
            entry.image(),
            entry.labels(),
            entry.name,
            GivenImages((), (), rgb=entry.rgb, channels=entry.channels),
            settings,
            notes,
        )
        for entry in used
    ]
    return images, {i for i, entry in enumerate(used) if entry.validation}


def _check_labels(images: Sequence[PartialImage], settings: FineTuneSettings) -> None:
    """Raise FineTuneError where nothing can be learned from the labels."""
    if not images:
        raise FineTuneError(NO_IMAGES)
    if len({i.plane.shape[2] for i in images}) > 1:
        counts = ", ".join(f"{i.name}: {i.plane.shape[2]}" for i in images)
        raise FineTuneError(OTHER_CHANNELS.format(counts=counts))
    objects = sum(int((i.ids > 0).sum()) for i in images)
    background = sum(int((i.ids == 0).sum()) for i in images)
    what, values = "objects", "2, 3, ..."
    if settings.semantic:
        what, values = f"class {settings.wanted}", str(settings.wanted)
    problem = ""
    if not objects + background:
        problem = NO_LABELS
    elif objects + background < FEWEST_PIXELS:
        problem = FEW_LABELS.format(n=objects + background)
    elif not objects:
        problem = ONLY_BACKGROUND.format(what=what, values=values)
    elif not background:
        problem = ONLY_OBJECTS.format(what=what)
    if problem:
        names = ", ".join(i.name for i in images[:MAX_NAMED])
        raise FineTuneError(f"{names}: {problem}" if names else problem)


def _read_unlabelled(
    folder: Path, settings: FineTuneSettings, on_progress: Progress
) -> list[tuple[str, np.ndarray]]:
    """Return names and planes of a folder's images, the same for the same seed."""
    from ..engine.finetuning.loop import SUPERPIXEL_SIDE

    try:
        return unlabelled_planes(
            folder,
            np.random.default_rng([settings.seed, 37]),
            lambda text: on_progress(0, settings.steps, text),
            limit=MAX_UNLABELLED,
            side=SUPERPIXEL_SIDE,
        )
    except ValueError as error:  # no such folder, nothing in it, nothing readable
        raise FineTuneError(str(error)) from error
