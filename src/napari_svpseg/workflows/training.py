"""Training of a method: from a config file, or without labels on a folder of images.

`svpseg train CONFIG.toml` and `svpseg train --self-supervised FOLDER`.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.model_card import ModelCard
from ..core.progress import Progress, ignore_progress

if TYPE_CHECKING:
    from ..engine.training.episodes import (
        Episodes,
        EpisodeSettings,
        PackedTasks,
        TaskSource,
    )
    from ..engine.training.one_image import Example
    from ..engine.training.trainer import TrainSettings


VALIDATION_IMAGES = 6
"""Images taken of each validation set, evenly spaced: the cache has to travel."""


class ConfigError(ValueError):
    """A training config that cannot be used."""


@dataclass(frozen=True)
class DataConfig:
    """What is trained on.

    Parameters
    ----------
    datasets : tuple of str
        Names of folders of the data form; ``NAME:1,2`` takes some classes only.
    validation : tuple of str
        The same, never trained on.
    unlabelled : tuple of str
        Folders of which only the images are used, for superpixel tasks.
    skip : tuple of str
        Beginnings of names of unlabelled images to leave out.
    superpixel_masks : int
        Superpixel tasks for each image.
    scenes : int
        Drawn scenes.
    share : dict
        How often ``real``, ``synthetic`` and ``superpixel`` tasks are asked.
    """

    datasets: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    superpixel_masks: int = 6
    scenes: int = 4000
    share: dict[str, float] = field(
        default_factory=lambda: {"real": 0.5, "synthetic": 0.4, "superpixel": 0.1}
    )


@dataclass(frozen=True)
class OneImageConfig:
    """One-shot training on one image, in place of episodes (Kato and Hotta, 2023).

    Parameters
    ----------
    image, prompt : str
        ``DATASET/ID`` of the image learned from, and of that the prompt is cut from.
    label : int
        Class that is foreground.
    corner : two ints
        Top-left corner of the prompt, (y, x).
    """

    image: str
    prompt: str
    label: int = 1
    corner: tuple[int, ...] = (0, 0)


@dataclass(frozen=True)
class TrainingConfig:
    """A whole config file."""

    name: str
    method: str
    title: str = ""
    paper: str = ""
    licence: str = "BSD-3-Clause"
    arguments: dict[str, Any] = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)
    episodes: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    one_image: OneImageConfig | None = None

    @classmethod
    def read(cls, path: str | Path) -> TrainingConfig:
        """Read a TOML file.

        Raises
        ------
        ConfigError
            One line: the file and what is wrong.
        """
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf8"))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror}).") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not a TOML file ({error}).") from error
        try:
            data = DataConfig(
                **{
                    k: tuple(v) if isinstance(v, list) else v
                    for k, v in values.pop("data", {}).items()
                }
            )
            if "one_image" in values:
                values["one_image"] = OneImageConfig(**values["one_image"])
            return cls(data=data, **values)
        except TypeError as error:
            raise ConfigError(f"{path}: {error}") from error

    def settings(self) -> tuple[EpisodeSettings, TrainSettings]:
        """Return the checked settings of episodes and training."""
        from ..engine.training.episodes import EpisodeSettings
        from ..engine.training.trainer import TrainSettings

        if self.one_image is not None:  # has its own
            return EpisodeSettings(), TrainSettings(seed=self.train.get("seed", 0))
        return (
            EpisodeSettings.from_dict(self.episodes),
            TrainSettings.from_dict(self.train),
        )


def pack(config: DataConfig, data: Path, *, seed: int = 0) -> PackedTasks:
    """Return all tasks of a config, read and brought to 8 bit once.

    Parameters
    ----------
    config : DataConfig
    data : Path
        Folder that holds the data sets.
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
    from ..core.image import intensity_range
    from ..io.datasets import read_dataset

    name, _, wanted = entry.partition(":")
    dataset = read_dataset(data / name)
    images, labels = [], []
    step = 1 if at_most is None else max(1, len(dataset.ids) // at_most)
    items = dataset.ids[::step][:at_most]
    for item in items:
        images.append(_to_8_bit(dataset.image(item), intensity_range))
        labels.append(dataset.labels(item))
    if dataset.kind == "instance":
        pictures = [
            (f"{name}/{item}", image, _compact(ids))
            for item, image, ids in zip(items, images, labels, strict=True)
        ]
        packed.add(entry, name, pictures, instances=True)
        return
    classes = (
        [int(c) for c in wanted.split(",")]
        if wanted
        else sorted({int(c) for ids in labels for c in np.unique(ids)} - {0})
    )
    for value in classes:
        pictures = [
            (f"{name}/{item}", image, (ids == value).astype(np.uint16))
            for item, image, ids in zip(items, images, labels, strict=True)
        ]
        packed.add(entry, f"{name}-{value}", pictures, instances=False)


def _pack_superpixels(
    packed: PackedTasks,
    name: str,
    data: Path,
    config: DataConfig,
    rng: np.random.Generator,
) -> None:
    from ..core.image import intensity_range
    from ..engine.training.superpixels import superpixel_masks
    from ..io.images import read_image

    for path in sorted((data / name / "images").iterdir()):
        if path.name.startswith(config.skip):
            continue
        image = _to_8_bit(read_image(path).array, intensity_range)
        for i, mask in enumerate(superpixel_masks(image, config.superpixel_masks, rng)):
            key = f"{name}/{path.stem}"
            packed.add(
                f"superpixels-{name}",
                f"{key}-{i}",
                [(key, image, mask)],
                instances=False,
            )


def _to_8_bit(image: np.ndarray, intensity_range: Any) -> np.ndarray:
    """Return ``(H, W, 3)`` uint8; other dtypes are mapped by their percentiles."""
    image = image if image.ndim == 3 else image[..., None]
    image = image[..., :3] if image.shape[2] >= 3 else image[..., :1]
    if image.dtype != np.uint8:
        low, high = intensity_range(image).T
        scaled = (image - low) / np.maximum(high - low, 1e-9)
        image = np.clip(scaled * 230 + 12, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))


def _compact(ids: np.ndarray) -> np.ndarray:
    """Return ids renumbered 0, 1, 2, ... so that they fit 16 bit."""
    values, inverse = np.unique(ids, return_inverse=True)
    offset = 0 if values[0] == 0 else 1
    return np.asarray(inverse.reshape(ids.shape) + offset)


def sources(
    config: DataConfig, packed: PackedTasks, seed: int
) -> list[tuple[TaskSource, float]]:
    """Return where tasks come from and how often each is asked."""
    from ..engine.training.episodes import SyntheticTasks, TaskList

    kinds: dict[str, TaskSource | None] = {
        "real": _task_list(TaskList, packed, set(config.datasets)),
        "synthetic": SyntheticTasks(config.scenes, seed) if config.scenes else None,
        "superpixel": _task_list(
            TaskList, packed, {f"superpixels-{n}" for n in config.unlabelled}
        ),
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


def _task_list(factory: Any, packed: PackedTasks, groups: set[str]) -> Any:
    tasks = packed.tasks(groups)
    return factory(tasks) if tasks else None


def validation_batches(
    config: TrainingConfig, packed: PackedTasks, n_batches: int = 8
) -> list[dict[str, Any]]:
    """Return fixed batches of the validation sets, or of new drawn scenes without."""
    from ..engine.training.episodes import Episodes, SyntheticTasks, TaskList

    episodes, _ = config.settings()
    tasks = packed.tasks(set(config.data.validation))
    source: TaskSource = TaskList(tasks) if tasks else SyntheticTasks(60, seed=987_654)
    held_out = Episodes(
        [(source, 1.0)], episodes, batch=16, n_batches=n_batches, seed=5
    )
    return [held_out[i] for i in range(n_batches)]


def train_from_config(
    config_path: str | Path,
    *,
    data: str | Path | None = None,
    output: str | Path | None = None,
    resume: bool = False,
    minutes: float | None = None,
    device: str = "auto",
    start_from: str | None = None,
    on_progress: Progress = ignore_progress,
) -> ModelCard:
    """Train a method and write its model folder.

    Parameters
    ----------
    config_path : path
        A TOML file, see ``configs/``.
    data : path, optional
        Folder that holds the data sets the config names; a config that only draws
        scenes needs none.
    output : path, optional
        Model folder to write; ``runs/NAME/model`` by default. Checkpoints lie beside.
    resume : bool
        Go on from the checkpoint, if there is one.
    minutes : float, optional
        Stop after this time; resume later.
    start_from : str, optional
        Model whose weights are the start.

    Returns
    -------
    ModelCard
        Of the model written.

    Raises
    ------
    ConfigError
        If the config, the data or the model to start from do not fit.
    WriteError
        If the output folder holds something other than a model.
    """
    import torch

    from ..engine.inference.device import choose
    from ..engine.training.episodes import Episodes
    from ..engine.training.trainer import Trainer
    from ..io.model_store import check_model_folder, load_model, save_model
    from ..models.base import count_parameters
    from ..models.registry import ModelConfig, build

    config = TrainingConfig.read(config_path)
    episode_settings, settings = config.settings()
    folder = Path(output) if output else Path("runs") / config.name / "model"
    check_model_folder(folder)  # now, and not after hours
    torch.manual_seed(settings.seed)
    network = build(ModelConfig(config.method, config.arguments))
    if start_from:
        _take_weights(network, load_model(start_from).network, start_from)
    if config.one_image is not None:
        return _train_on_one_image(
            config, network, data, folder, device, start_from, on_progress
        )
    packed = _packed(config, data, folder.parent, settings.seed)
    device = choose(device)
    trainer = Trainer(network, settings, folder.parent, device.torch_device)
    if resume and trainer.checkpoint.exists():
        trainer.resume()
    wanted = sources(config.data, packed, settings.seed)

    def episodes(start: int) -> Episodes:
        return Episodes(
            wanted,
            episode_settings,
            batch=settings.batch,
            n_batches=settings.steps,
            seed=settings.seed,
            start=start,
        )

    trainer.run(
        episodes,
        validation_batches(config, packed),
        seconds=math.inf if minutes is None else 60 * minutes,
        on_progress=on_progress,
    )
    last = trainer.history[-1] if trainer.history else {}
    card = ModelCard(
        name=config.name,
        method=config.method,
        arguments=config.arguments,
        licence=config.licence,
        title=config.title,
        paper=config.paper,
        n_parameters=count_parameters(network),
        training={
            "config": dataclasses.asdict(config),
            "steps_done": trainer.step,
            "episodes": trainer.step * settings.batch,
            **({"start_from": Path(start_from).name} if start_from else {}),
            **{k: v for k, v in last.items() if k.startswith("validation")},
        },
    )
    return save_model(folder, trainer.average, card, history=trainer.history)


def _train_on_one_image(
    config: TrainingConfig,
    network: Any,
    data: str | Path | None,
    folder: Path,
    device: str,
    start_from: str | None,
    on_progress: Progress,
) -> ModelCard:
    from ..engine.inference.device import choose
    from ..engine.training.one_image import OneImageSettings, fit_one_image
    from ..io.model_store import save_model
    from ..models.base import count_parameters

    wanted = config.one_image
    assert wanted is not None
    if data is None:
        raise ConfigError(
            f"the config {config.name} trains on {wanted.image}: say where that is "
            "with --data FOLDER."
        )
    settings = OneImageSettings.from_dict(config.train)
    image = example(Path(data), wanted.image, wanted.label)
    prompt = example(Path(data), wanted.prompt, wanted.label, wanted.corner)
    losses = fit_one_image(
        network, image, prompt, settings, choose(device).torch_device, on_progress
    )
    card = ModelCard(
        name=config.name,
        method=config.method,
        arguments=config.arguments,
        licence=config.licence,
        title=config.title,
        paper=config.paper,
        n_parameters=count_parameters(network),
        training={
            "config": dataclasses.asdict(config),
            "steps_done": settings.steps,
            **({"start_from": Path(start_from).name} if start_from else {}),
        },
    )
    history = [{"step": i + 1.0, "total": loss} for i, loss in enumerate(losses)]
    return save_model(folder, network, card, history=history)


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

    from ..core.image import (
        channels_last,
        intensity_range,
        normalise,
        to_three_channels,
    )
    from ..engine.training.one_image import Example
    from ..io.datasets import read_dataset

    folder, _, item = name.partition("/")
    dataset = read_dataset(data / folder)
    if item not in dataset.ids:
        raise ConfigError(f"{data / folder}: holds no image {item!r}.")
    plane, _ = channels_last(dataset.image(item))
    plane = to_three_channels(normalise(plane, intensity_range(plane)))
    mask = dataset.labels(item) == label
    if corner is not None:
        y, x = corner
        plane, mask = plane[y : y + 64, x : x + 64], mask[y : y + 64, x : x + 64]
        if not mask.any() or mask.all():
            raise ConfigError(f"{name}: the prompt at {y}, {x} shows one class only.")
    tensor = torch.from_numpy(np.ascontiguousarray(np.moveaxis(plane, -1, 0)))
    return Example(tensor.float(), torch.from_numpy(mask.astype(np.int64)))


def _take_weights(network: Any, other: Any, name: str) -> None:
    """Take over what fits of a model's weights, the encoder in any case.

    All methods are built on one encoder; what is a method's own stays as it is.
    """
    own, there = network.state_dict(), other.state_dict()
    fitting = {k: v for k, v in there.items() if k in own and v.shape == own[k].shape}
    if not all(k in fitting for k in own if k.startswith("encoder.")):
        raise ConfigError(
            f"the weights of {name} do not fit the config: their encoders differ."
        )
    network.load_state_dict(fitting, strict=False)


def _packed(
    config: TrainingConfig, data: str | Path | None, folder: Path, seed: int
) -> PackedTasks:
    from ..engine.training.episodes import PackedTasks
    from ..io.packed_tasks import load_tasks, save_tasks

    names = (*config.data.datasets, *config.data.validation, *config.data.unlabelled)
    if not names:
        return PackedTasks()
    if data is None:
        raise ConfigError(
            f"the config {config.name} trains on {', '.join(names)}: "
            "say where they are with --data FOLDER."
        )
    data = Path(data)
    if data.is_file():  # packed before, to travel to another machine
        packed = load_tasks(data)
        if lacking := _lacking(packed, config.data):
            raise ConfigError(
                f"{data}: holds no tasks of {', '.join(lacking)}, which the config "
                f"{config.name} trains on: pack it again from the data folder."
            )
        return packed
    cache = folder / "tasks.npz"
    if cache.exists():
        packed = load_tasks(cache)
        if not _lacking(packed, config.data):
            return packed
    packed = pack(config.data, data, seed=seed)
    save_tasks(cache, packed)
    return packed


def _lacking(packed: PackedTasks, data: DataConfig) -> list[str]:
    """Return the data sets of a config that were not packed."""
    there = {entry["group"] for entry in packed.index}
    names = [*data.datasets, *data.validation]
    lacking = [n for n in names if n not in there]
    return lacking + [n for n in data.unlabelled if f"superpixels-{n}" not in there]


# ---------------------------------------------------------------- without labels

MAX_PLANES = 200
"""Unlabelled planes looked at, evenly spaced."""
WINDOW = 512
"""Side of what is cut out of a larger plane; superpixels take time."""
TASKS_PER_PLANE = 6
PREPARING = 0.2
"""Share of the time that making superpixels may take."""
SELF_SUPERVISED = {"superpixel": 0.8, "synthetic": 0.2}


def train_self_supervised(
    folder: str | Path,
    output: str | Path,
    *,
    method: str = "alpnet",
    minutes: float = 5.0,
    start_from: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    on_progress: Progress = ignore_progress,
    on_partial: Callable[[dict[str, float]], None] | None = None,
) -> ModelCard:
    """Train a method on unlabelled images and write its model folder.

    Superpixels that look alike are made the objects of pseudo tasks (SSL-ALPNet, Ouyang
    et al.); a fifth of the episodes are drawn scenes, so that the shape of objects is
    not forgotten.

    Parameters
    ----------
    folder : path
        Of the images; any format that `io.images.read_image` takes, stacks too.
    output : path
        Model folder to write.
    method : str
        Of an untrained start; see `models.base.methods`.
    minutes : float
        Wall time, a fifth of it at most for making superpixels.
    start_from : str or path, optional
        Model whose weights are the start, ``"none"`` for untrained weights. By default
        the model that has the method's name.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
    seed : int
    on_progress : Progress
        Told the seconds used and the seconds there are.
    on_partial : callable, optional
        Given each row of the history: step, seconds, parts of the loss and, from eight
        images on, ``validation_dice`` on superpixels of images left out.

    Returns
    -------
    ModelCard
        Of the model written.

    Raises
    ------
    ConfigError
        If there is nothing to learn from, or the model to start from does not fit.
    WriteError
        If the output folder holds something other than a model.
    """
    import tempfile
    import time

    import torch

    from ..engine.inference.device import choose
    from ..engine.training.trainer import Trainer, TrainSettings
    from ..io.model_store import check_model_folder, save_model
    from ..models.base import count_parameters

    if minutes <= 0:
        raise ConfigError(f"minutes must be more than 0, got {minutes:g}.")
    check_model_folder(output)
    started = time.monotonic()
    seconds = 60 * minutes

    def tell(message: str) -> None:
        used = min(time.monotonic() - started, seconds)
        on_progress(int(used), max(1, int(seconds)), message)

    torch.manual_seed(seed)
    network, start = _self_supervised_start(method, start_from)
    packed, held_out, n_images = _superpixel_tasks(
        Path(folder), seed, PREPARING * seconds, tell
    )
    settings = TrainSettings(
        steps=1_000_000,
        batch=8,
        warm_up=20,
        validate_every=25,
        seed=seed,
        learning_rate=1e-3 if start else 2e-3,
        averaging=0.99,
    )
    batches, validation = _self_supervised_batches(packed, held_out, settings)
    with tempfile.TemporaryDirectory() as scratch:
        where = choose(device).torch_device
        trainer = Trainer(network, settings, Path(scratch), where)
        told = 0

        def follow(done: int, total: int, message: str = "") -> None:
            nonlocal told
            tell(f"step {trainer.step}, {message}")
            if on_partial is not None and len(trainer.history) > told:
                told = len(trainer.history)
                on_partial(trainer.history[-1])

        # a tenth of the time shows how many steps fit, so that the learning rate can
        # fall to the end
        left = seconds - (time.monotonic() - started)
        trainer.run(batches, validation, seconds=0.1 * left, on_progress=follow)
        steps = max(trainer.step + 1, int(trainer.step / 0.1))
        trainer.settings = dataclasses.replace(settings, steps=steps)
        left = seconds - (time.monotonic() - started)
        trainer.run(batches, validation, seconds=left, on_progress=follow)
    last = trainer.history[-1] if trainer.history else {}
    card = ModelCard(
        name=Path(output).name,
        method=start.method if start else method,
        arguments=start.arguments if start else {},
        licence=start.licence if start else "not stated",
        title=f"{start.method if start else method} trained on unlabelled images",
        paper="Ouyang et al., ECCV 2020; IEEE TMI 2022",
        n_parameters=count_parameters(network),
        training={
            "self_supervised": {"images": n_images, "minutes": minutes, "seed": seed},
            "start_from": start.name if start else "none",
            "steps_done": trainer.step,
            "episodes": trainer.step * settings.batch,
            **{k: v for k, v in last.items() if k.startswith("validation")},
        },
    )
    return save_model(output, trainer.average, card, history=trainer.history)


def _self_supervised_start(
    method: str, start_from: str | Path | None
) -> tuple[Any, ModelCard | None]:
    """Return a network to train, and the card of its weights if they are trained."""
    from ..io.model_store import list_models, load_model
    from ..models.registry import ModelConfig, build

    if start_from is None:
        there = [c.name for c in list_models() if c.name == method == c.method]
        start_from = there[0] if there else "none"
    if str(start_from) != "none":
        model = load_model(start_from)
        learns = any(p.requires_grad for p in model.network.parameters())
        if not learns or not model.network.needs_prompt:
            raise ConfigError(f"the model {start_from} has nothing to train.")
        return model.network, model.card
    try:
        return build(ModelConfig(method)), None
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{method} cannot be trained: {error}") from error


def _superpixel_tasks(
    folder: Path, seed: int, seconds: float, tell: Callable[[str], None]
) -> tuple[PackedTasks, PackedTasks, int]:
    """Return superpixel tasks of most images, of those left out, and how many images.

    Each round adds a task to every image until there are six or the time is up.
    """
    import time

    from ..engine.training.episodes import PackedTasks
    from ..engine.training.superpixels import superpixel_masks

    rng = np.random.default_rng([seed, 37])
    planes = unlabelled_planes(folder, rng, tell)
    packed, held_out = PackedTasks(), PackedTasks()
    started = time.monotonic()
    for turn in range(TASKS_PER_PLANE):
        for i in rng.permutation(len(planes)):
            if packed.index and time.monotonic() - started > seconds:
                break
            name, image = planes[i]
            tell(f"superpixels of {name}")
            left_out = len(planes) >= 8 and i % 8 == 7
            for mask in superpixel_masks(image, 1, rng):
                (held_out if left_out else packed).add(
                    name, f"{name}-{turn}", [(name, image, mask)], instances=False
                )
    if not packed.index:
        raise ConfigError(
            f"{folder}: its {len(planes)} image(s) show nothing to learn from: "
            "are they blank?"
        )
    return packed, held_out, len(planes)


def unlabelled_planes(
    folder: Path,
    rng: np.random.Generator,
    tell: Callable[[str], None] = lambda _: None,
    *,
    limit: int = MAX_PLANES,
    side: int = WINDOW,
) -> list[tuple[str, np.ndarray]]:
    """Return names and pictures of a folder's images.

    Parameters
    ----------
    folder : Path
        Any format that `io.images.read_image` takes, stacks too.
    rng : numpy Generator
        For the place of a window in large images.
    tell : callable
        Told the file that is read.
    limit : int
        Planes wanted at most, evenly spaced over the files.
    side : int
        Height and width of a picture at most, in pixels.

    Returns
    -------
    list of (str, (H, W, 3) uint8 array)

    Raises
    ------
    ConfigError
        If there is no image in it that can be read.
    """
    from ..core.image import ImageError, channels_last, intensity_range
    from ..engine.training.superpixels import window
    from ..io.folder_records import find_images
    from ..io.images import read_image

    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder of images.")
    files = find_images([folder])
    planes: list[tuple[str, np.ndarray]] = []
    bad = ""
    for path in files[:: max(1, -(-len(files) // limit))]:
        tell(f"reading {path.name}")
        try:
            file = read_image(path)
        except ImageError as error:
            bad = str(error)
            continue
        indices = list(file.axes.plane_indices(file.array.shape))
        most = max(1, limit // len(files))
        for index in indices[:: max(1, len(indices) // most)][:most]:
            plane = file.axes.to_plane(
                np.asarray(file.array[file.axes.plane_slices(index)])
            )
            plane, _ = channels_last(plane, rgb=file.rgb)
            plane = window(plane, side, rng)
            if min(plane.shape[:2]) < 64:
                bad = f"{path}: smaller than 64 pixels."
                continue
            number = "".join(f"-{n}" for n in index)
            planes.append((path.name + number, _to_8_bit(plane, intensity_range)))
    if not planes:
        raise ConfigError(bad or f"{folder}: holds no images.")
    return planes


def _self_supervised_batches(
    packed: PackedTasks, held_out: PackedTasks, settings: TrainSettings
) -> tuple[Callable[[int], Episodes], list[dict[str, Any]]]:
    from ..engine.training.episodes import (
        Episodes,
        EpisodeSettings,
        SyntheticTasks,
        TaskList,
    )

    kinds: dict[str, TaskSource] = {
        "superpixel": TaskList(packed.tasks()),
        "synthetic": SyntheticTasks(40),
    }
    wanted = [(source, SELF_SUPERVISED[kind]) for kind, source in kinds.items()]
    shape = EpisodeSettings()

    def batches(start: int) -> Episodes:
        return Episodes(
            wanted,
            shape,
            batch=settings.batch,
            n_batches=settings.steps,
            seed=settings.seed,
            start=start,
        )

    if not held_out.index:
        return batches, []
    left_out = Episodes(
        [(TaskList(held_out.tasks()), 1.0)], shape, batch=8, n_batches=2, seed=5
    )
    return batches, [left_out[i] for i in range(len(left_out))]
