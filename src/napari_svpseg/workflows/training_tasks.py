"""Tasks of a training config: data sets read and packed, and the batches of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.fingerprint import Content
from ..core.image import (
    channels_last,
    intensity_range,
    is_flat,
    normalise,
    to_three_channels,
)
from ..io.content import content_fingerprint
from ..io.datasets import read_dataset
from ..io.images import read_image
from .identity import training_identity
from .training_config import ConfigError, DataConfig, TrainingConfig

if TYPE_CHECKING:
    from ..engine.training.episodes import PackedTasks, TaskSource
    from ..engine.training.one_image import Example

VALIDATION_IMAGES = 6
"""Images taken of each validation set, evenly spaced: the cache has to travel."""

NEEDS_DATA = (
    "the config {name} trains on {what}: say where to find them with --data FOLDER."
)
OTHER_TASKS = (
    "{path}: holds no tasks of {what}, which the config {name} trains on: pack it "
    "again from the data folder."
)
TASKS = "tasks.npz"
"""File of packed tasks in the folder of a training."""

PACKED_AGAIN = (
    "%s: made anew, as it is not of these data sets as they are now with these settings"
)
NO_IMAGE = "{folder}: holds no image {name!r}."
ONE_CLASS = "{name}: the prompt at {y}, {x} shows one class only."


log = logging.getLogger(__name__)


def pack(config: DataConfig, data: Path, *, seed: int = 0) -> PackedTasks:
    """Return all tasks of a config, read and converted to 8 bit.

    Parameters
    ----------
    config : DataConfig
    data : Path
        Folder that holds the data sets.
    seed : int
        Of the superpixels.
    """
    from ..engine.training.episodes import PackedTasks

    packed = PackedTasks()
    for entry in config.datasets:
        _pack_dataset(packed, entry, data)
    for entry in config.validation:
        _pack_dataset(packed, entry, data, at_most=VALIDATION_IMAGES)
    rng = np.random.default_rng(seed)
    for name in config.unlabelled:
        _pack_superpixels(packed, name, data, config, rng)
    return packed


def _pack_dataset(
    packed: PackedTasks, entry: str, data: Path, at_most: int | None = None
) -> None:
    """Add the tasks of ``NAME`` or ``NAME:1,2`` (some classes): one for each class."""
    name, _, wanted = entry.partition(":")
    dataset = read_dataset(data / name)
    step = 1 if at_most is None else max(1, len(dataset.ids) // at_most)
    items = dataset.ids[::step][:at_most]
    images = [to_8_bit(dataset.image(item)) for item in items]
    labels = [dataset.labels(item) for item in items]
    names = [f"{name}/{item}" for item in items]
    if dataset.kind == "instance":
        ids = [_compact(found) for found in labels]
        packed.add(
            entry, name, list(zip(names, images, ids, strict=True)), instances=True
        )
        return
    classes = (
        [int(c) for c in wanted.split(",")]
        if wanted
        else sorted({int(c) for found in labels for c in np.unique(found)} - {0})
    )
    for value in classes:
        ids = [(found == value).astype(np.uint16) for found in labels]
        labelled = list(zip(names, images, ids, strict=True))
        packed.add(entry, f"{name}-{value}", labelled, instances=False)


def _pack_superpixels(
    packed: PackedTasks,
    name: str,
    data: Path,
    config: DataConfig,
    rng: np.random.Generator,
) -> None:
    from ..engine.training.superpixels import superpixel_masks

    for path in sorted((data / name / "images").iterdir()):
        if path.name.startswith(config.skip):
            continue
        image = to_8_bit(read_image(path).array)
        key = f"{name}/{path.stem}"
        for i, mask in enumerate(superpixel_masks(image, config.superpixel_masks, rng)):
            packed.add(
                f"superpixels-{name}",
                f"{key}-{i}",
                [(key, image, mask)],
                instances=False,
            )


def to_8_bit(image: np.ndarray) -> np.ndarray:
    """Return ``(H, W, 3)`` uint8; other dtypes are scaled by their percentiles.

    These become 12 and 242, which leaves room for darker and brighter pixels.
    """
    image = image if image.ndim == 3 else image[..., None]
    image = image[..., :3] if image.shape[2] >= 3 else image[..., :1]
    if image.dtype != np.uint8:
        low, high = intensity_range(image).T
        flat = is_flat(np.stack([low, high], axis=1))
        scaled = (image - low) / np.where(flat, 1, high - low)
        image = np.clip(np.nan_to_num(scaled) * 230 + 12, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))


def _compact(ids: np.ndarray) -> np.ndarray:
    """Return ids renumbered 0, 1, 2, ... so that they fit 16 bit."""
    values, inverse = np.unique(ids, return_inverse=True)
    offset = 0 if values[0] == 0 else 1
    return np.asarray(inverse.reshape(ids.shape) + offset)


def read_tasks(
    config: TrainingConfig, data: str | Path | None, folder: Path, seed: int
) -> PackedTasks:
    """Return the tasks of a config, packed unless that was done from the same data.

    Parameters
    ----------
    config : TrainingConfig
    data : path or None
        Folder of the data sets, or a file of packed tasks.
    folder : Path
        Where packed tasks are kept for the next time.
    seed : int

    Raises
    ------
    ConfigError
        If data is missing that the config names.
    """
    from ..engine.training.episodes import PackedTasks
    from ..io.packed_tasks import load_tasks, save_tasks, tasks_made_of

    names = (*config.data.datasets, *config.data.validation, *config.data.unlabelled)
    if not names:
        return PackedTasks()
    if data is None:
        raise ConfigError(NEEDS_DATA.format(name=config.name, what=", ".join(names)))
    data = Path(data)
    if data.is_file():  # packed before, to travel to another machine
        packed = load_tasks(data)
        if missing := _missing(packed, config.data):
            raise ConfigError(
                OTHER_TASKS.format(path=data, what=", ".join(missing), name=config.name)
            )
        return packed
    sets = {name.partition(":")[0]: data / name.partition(":")[0] for name in names}
    made_of = training_identity(
        config=asdict(config.data),
        seed=seed,
        sets={n: content_fingerprint(p) for n, p in sets.items() if p.is_dir()},
    )
    cache = folder / TASKS
    if cache.exists():
        if tasks_made_of(cache) == made_of:
            return load_tasks(cache)
        log.warning(PACKED_AGAIN, cache)
    save_tasks(cache, pack(config.data, data, seed=seed), made_of)
    return load_tasks(cache)


def tasks_content(packed: PackedTasks) -> Iterator[Content]:
    """Yield what `fingerprint` needs of tasks."""
    yield {"index": packed.index}
    for name, array in sorted(packed.arrays.items()):
        yield {"name": name, "shape": array.shape}
        yield array


def _missing(packed: PackedTasks, data: DataConfig) -> list[str]:
    """Return the data sets of a config that were not packed."""
    there = {entry["group"] for entry in packed.index}
    names = [*data.datasets, *data.validation]
    missing = [n for n in names if n not in there]
    return missing + [n for n in data.unlabelled if f"superpixels-{n}" not in there]


def sources(
    config: DataConfig, packed: PackedTasks, seed: int
) -> list[tuple[TaskSource, float]]:
    """Return the sources of tasks with their relative frequencies."""
    from ..engine.training.episodes import SyntheticTasks, TaskList

    superpixels = {f"superpixels-{n}" for n in config.unlabelled}
    real, pseudo = packed.tasks(set(config.datasets)), packed.tasks(superpixels)
    # an image has several tasks of superpixels
    unlabelled = {id(t.images[0].image): t.images[0].image for g in pseudo for t in g}
    drawn = SyntheticTasks(
        config.scenes,
        seed,
        touching=config.touching,
        textured=config.textured,
        images=list(unlabelled.values()),
    )
    kinds: dict[str, TaskSource | None] = {
        "real": TaskList(real) if real else None,
        "synthetic": drawn if config.scenes else None,
        "superpixel": TaskList(pseudo) if pseudo else None,
    }
    unknown = set(config.share) - set(kinds)
    if unknown:
        raise ConfigError(f"unknown kinds of tasks in data.share: {sorted(unknown)}")
    found = [
        (source, config.share.get(kind, 0.0))
        for kind, source in kinds.items()
        if source is not None and config.share.get(kind, 0.0) > 0
    ]
    if not found:
        raise ConfigError("the config names no data to train on")
    return found


def validation_batches(
    config: TrainingConfig, packed: PackedTasks, n_batches: int = 8
) -> list[dict[str, Any]]:
    """Return fixed batches of the validation sets, or of new drawn scenes without."""
    from ..engine.training.episodes import Episodes, SyntheticTasks, TaskList

    settings, _ = config.settings()
    tasks = packed.tasks(set(config.data.validation))
    source: TaskSource = TaskList(tasks) if tasks else SyntheticTasks(60, seed=987_654)
    batches = Episodes([(source, 1.0)], settings, batch=16, n_batches=n_batches, seed=5)
    return [batches[i] for i in range(n_batches)]


def example(
    data: Path, name: str, label: int, corner: tuple[int, ...] | None = None
) -> Example:
    """Return a labelled image of a data set, or the 64 x 64 prompt at a corner of it.

    Parameters
    ----------
    data : Path
        Folder that holds the data sets.
    name : str
        ``DATASET/ID``.
    label : int
        Class that is foreground.
    corner : (y, x), optional

    Raises
    ------
    ConfigError
        If there is no such image, or no such label in the prompt.
    """
    import torch

    from ..engine.training.one_image import Example

    folder, _, item = name.partition("/")
    dataset = read_dataset(data / folder)
    if item not in dataset.ids:
        raise ConfigError(NO_IMAGE.format(folder=data / folder, name=item))
    plane, _ = channels_last(dataset.image(item))
    plane = to_three_channels(normalise(plane, intensity_range(plane)))
    mask = dataset.labels(item) == label
    if corner is not None:
        y, x = corner
        plane, mask = plane[y : y + 64, x : x + 64], mask[y : y + 64, x : x + 64]
        if not mask.any() or mask.all():
            raise ConfigError(ONE_CLASS.format(name=name, y=y, x=x))
    tensor = torch.from_numpy(np.ascontiguousarray(np.moveaxis(plane, -1, 0)))
    return Example(tensor.float(), torch.from_numpy(mask.astype(np.int64)))
