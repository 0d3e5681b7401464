"""Training on images without labels: `svpseg train --self-supervised FOLDER`."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.fingerprint import Content
from ..core.image import ImageError, channels_last
from ..core.model_card import ModelCard
from ..core.progress import Progress, ignore_progress
from ..io.atomic import atomic_path
from ..io.folder_records import find_images
from ..io.ome_zarr import read_any
from .identity import training_identity
from .training_config import ConfigError
from .training_state import begin_training, empty_folder
from .training_tasks import to_8_bit

if TYPE_CHECKING:
    from ..engine.training.episodes import Episodes, PackedTasks, TaskSource
    from ..engine.training.trainer import Trainer, TrainSettings

MAX_PLANES = 200
"""Unlabelled planes looked at, evenly spaced."""

WINDOW = 512
"""Side of what is cut out of a larger plane; superpixels take time."""

SMALLEST_SIDE = 64
"""Planes with a shorter side are left out."""

TASKS_PER_PLANE = 6

PREPARING = 0.2
"""Share of the time that making superpixels may take."""

PROBING = 0.1
"""Share of the time that shows how many steps fit into the rest."""

SPARE = 0.95
"""Share of the rest that the steps fill: they, not the clock, are to end a training."""

MAX_STEPS = 1_000_000
"""Steps of a training whose pace is not known yet."""

CHECKPOINT_S = 5.0
"""Seconds between checkpoints."""

TRAIN, VALIDATION, PACE = "train.npz", "validation.npz", "pace.json"
"""Files in the folder of a training, beside its checkpoint."""

SHARES = {"superpixel": 0.8, "synthetic": 0.2}
"""Relative frequency of the kinds of tasks."""

VALIDATION_FROM, VALIDATION_EVERY = 8, 8
"""Number of planes from which every eighth is not trained on."""

NO_TIME = "minutes must be more than 0, got {minutes:g}."
NO_FOLDER = "{folder}: no such folder of images."
NO_IMAGES = "{folder}: holds no images."
BLANK = "{folder}: its {n} image(s) show nothing to learn from: are they blank?"
NOT_TRAINABLE = "{method} cannot be trained: {error}"


log = logging.getLogger(__name__)


def train_self_supervised(
    folder: str | Path,
    output: str | Path,
    *,
    method: str = "alpnet",
    minutes: float = 5.0,
    start_from: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    on_progress: Progress = ignore_progress,
    on_partial: Callable[[dict[str, float]], None] | None = None,
) -> ModelCard:
    """Train a method on unlabelled images and write its model folder.

    Superpixels with a similar appearance become the objects of pseudo tasks
    (SSL-ALPNet, Ouyang et al.); a fifth of the episodes are drawn scenes, so that the
    network keeps what it knows of the shape of objects.

    Parameters
    ----------
    folder : path
        Of the images; any format that `io.ome_zarr.read_any` takes, stacks too.
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
    resume : bool
        Go on from the checkpoint of a training that was cut off, if it is one of the
        same images, first weights, settings and versions. Ends with the same weights.
    overwrite : bool
        Allow to replace a model that was changed, or comes from elsewhere.
    on_progress : Progress
        Called with the seconds used and the seconds there are.
    on_partial : callable, optional
        Called with each row of the history: step, seconds, parts of the loss and, from
        eight images on, ``validation_dice`` on superpixels of other images.

    Returns
    -------
    ModelCard
        Of the model written.

    Raises
    ------
    ConfigError
        If there is nothing to learn from, or the model to start from does not fit.
    WriteError, CheckpointWriteError
        If the output folder holds something other than a model, or the disk is full.
    """
    if minutes <= 0:
        raise ConfigError(NO_TIME.format(minutes=minutes))
    clock = _Clock(60 * minutes, on_progress, time.monotonic())
    if not Path(folder).is_dir():  # before torch is loaded
        raise ConfigError(NO_FOLDER.format(folder=folder))
    import torch

    from ..engine.inference.device import choose
    from ..engine.training.trainer import Trainer, TrainSettings
    from ..io.locks import claimed_model
    from ..io.model_store import check_model_folder, save_model

    check_model_folder(output, overwrite, start_from)
    torch.manual_seed(seed)
    network, start = _start(method, start_from)
    settings = TrainSettings(
        steps=MAX_STEPS,
        batch=8,
        warm_up=20,
        validate_every=25,
        seed=seed,
        learning_rate=1e-3 if start else 2e-3,
        averaging=0.99,
    )
    rng = np.random.default_rng([seed, 37])
    with claimed_model(output) as scratch:
        planes = unlabelled_planes(Path(folder), rng, clock.tell)
        identity = training_identity(
            *(v.numpy() for v in network.state_dict().values()),
            *_content(planes),
            method=method,
            settings=settings.to_dict(),
            minutes=minutes,
        )
        resumed, told = begin_training(scratch, identity, resume=resume)
        for note in told:
            log.warning("%s", note)
        trainer = Trainer(network, settings, scratch, choose(device).torch_device)
        if resumed:
            trainer.resume()
            clock = replace(clock, started=time.monotonic() - trainer.seconds)
        else:
            _write_tasks(
                scratch,
                *_superpixel_tasks(
                    Path(folder), planes, rng, PREPARING * clock.seconds, clock.tell
                ),
            )
            _Pace(clock.used).write(scratch)
            trainer.seconds = clock.used
        _fit(trainer, _Tasks.read(scratch), clock, on_partial)
        untrained = ModelCard("none", method, licence="not stated")
        about = {"images": len(planes), "minutes": minutes, "seed": seed}
        card = _card(Path(output).name, start or untrained, trainer, about)
        saved = save_model(
            output,
            trainer.average,
            card,
            history=trainer.history,
            overwrite=overwrite,
        )
        empty_folder(scratch)
    return saved


def _content(planes: list[tuple[str, np.ndarray]]) -> Iterator[Content]:
    """Yield what `fingerprint` needs of planes."""
    for name, plane in planes:
        yield {"name": name, "shape": plane.shape}
        yield plane


@dataclass(frozen=True)
class _Clock:
    """Time of a training: how much there is, and how much is left."""

    seconds: float
    on_progress: Progress
    started: float

    @property
    def used(self) -> float:
        return time.monotonic() - self.started

    @property
    def left(self) -> float:
        return self.seconds - self.used

    def tell(self, message: str) -> None:
        """Report the time that was used; raises `Cancelled` if it is to end."""
        used = min(self.used, self.seconds)
        self.on_progress(int(used), max(1, int(self.seconds)), message)


@dataclass(frozen=True, eq=False)
class _Tasks:
    """Superpixel tasks to train on, those of other images to validate on."""

    train: PackedTasks
    validation: PackedTasks

    @classmethod
    def read(cls, folder: Path) -> _Tasks:
        """Return the tasks in a training's folder: a resumed one has the same."""
        from ..io.packed_tasks import load_tasks

        return cls(load_tasks(folder / TRAIN), load_tasks(folder / VALIDATION))


def _write_tasks(folder: Path, train: PackedTasks, validation: PackedTasks) -> None:
    """Write the tasks of a training to its folder."""
    from ..io.packed_tasks import save_tasks

    save_tasks(folder / TRAIN, train)
    save_tasks(folder / VALIDATION, validation)


@dataclass(frozen=True)
class _Pace:
    """How long the tasks took to make, and how many steps fit into the rest.

    A resumed training has the same number of steps.
    """

    preparing: float
    steps: int = MAX_STEPS

    @classmethod
    def read(cls, folder: Path) -> _Pace:
        """Return what `write` wrote."""
        return cls(**json.loads((folder / PACE).read_text("utf-8")))

    def write(self, folder: Path) -> None:
        """Write the pace to the folder of the training."""
        with atomic_path(folder / PACE, overwrite=True) as temporary:
            temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")


def _fit(
    trainer: Trainer,
    tasks: _Tasks,
    clock: _Clock,
    on_partial: Callable[[dict[str, float]], None] | None,
) -> None:
    """Train until the time is up, with a learning rate that falls to the end."""
    settings, told = trainer.settings, 0
    batches, validation = _batches(tasks, settings)

    def follow(done: int, total: int, message: str = "") -> None:
        nonlocal told
        clock.tell(f"step {trainer.step}, {message}")
        if on_partial is not None and len(trainer.history) > told:
            told = len(trainer.history)
            on_partial(trainer.history[-1])

    def run(seconds: float) -> None:
        trainer.run(
            batches,
            validation,
            seconds=seconds,
            on_progress=follow,
            checkpoint_seconds=CHECKPOINT_S,
        )

    # the schedule needs the number of steps: the first tenth of the time shows it
    pace = _Pace.read(trainer.folder)
    if pace.steps == MAX_STEPS:
        probed = pace.preparing + PROBING * (clock.seconds - pace.preparing)
        if trainer.seconds < probed:
            run(probed - trainer.seconds)
        seconds = max(clock.used - pace.preparing, 1e-3)
        fit = SPARE * trainer.step / seconds * (clock.seconds - pace.preparing)
        steps = max(trainer.step + 1, int(fit))
        pace = replace(pace, steps=steps)
        pace.write(trainer.folder)
    trainer.settings = replace(settings, steps=pace.steps)
    run(clock.left)


def _card(
    name: str, start: ModelCard, trainer: Trainer, about: dict[str, Any]
) -> ModelCard:
    """Return the card of the trained model; ``start`` is that of its first weights."""
    from ..models.base import count_parameters

    last = trainer.history[-1] if trainer.history else {}
    return ModelCard(
        name=name,
        method=start.method,
        arguments=start.arguments,
        licence=start.licence,
        title=f"{start.method} trained on unlabelled images",
        paper="Ouyang et al., ECCV 2020; IEEE TMI 2022",
        n_parameters=count_parameters(trainer.network),
        training={
            "self_supervised": about,
            "start_from": start.name,
            "steps_done": trainer.step,
            "episodes": trainer.step * trainer.settings.batch,
            **{k: v for k, v in last.items() if k.startswith("validation")},
        },
    )


def _start(method: str, start_from: str | Path | None) -> tuple[Any, ModelCard | None]:
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
        raise ConfigError(NOT_TRAINABLE.format(method=method, error=error)) from error


def _superpixel_tasks(
    folder: Path,
    planes: list[tuple[str, np.ndarray]],
    rng: np.random.Generator,
    seconds: float,
    tell: Callable[[str], None],
) -> tuple[PackedTasks, PackedTasks]:
    """Return superpixel tasks of a folder's planes, to train and to validate on.

    Each round adds a task to every image until there are six or the time is up.
    """
    from ..engine.training.episodes import PackedTasks
    from ..engine.training.superpixels import superpixel_masks

    train, validation = PackedTasks(), PackedTasks()
    started = time.monotonic()
    for turn in range(TASKS_PER_PLANE):
        for i in rng.permutation(len(planes)):
            if train.index and time.monotonic() - started > seconds:
                break
            name, image = planes[i]
            tell(f"superpixels of {name}")
            is_validation = (
                len(planes) >= VALIDATION_FROM
                and i % VALIDATION_EVERY == VALIDATION_EVERY - 1
            )
            packed = validation if is_validation else train
            for mask in superpixel_masks(image, 1, rng):
                packed.add(
                    name, f"{name}-{turn}", [(name, image, mask)], instances=False
                )
    if not train.index:
        raise ConfigError(BLANK.format(folder=folder, n=len(planes)))
    return train, validation


def _batches(
    tasks: _Tasks, settings: TrainSettings
) -> tuple[Callable[[int], Episodes], list[dict[str, Any]]]:
    """Return the batches to train on, from a step on, and those to validate on."""
    from ..engine.training.episodes import (
        Episodes,
        EpisodeSettings,
        SyntheticTasks,
        TaskList,
    )

    kinds: dict[str, TaskSource] = {
        "superpixel": TaskList(tasks.train.tasks()),
        "synthetic": SyntheticTasks(40),
    }
    wanted = [(source, SHARES[kind]) for kind, source in kinds.items()]
    shape = EpisodeSettings()

    def batches(start: int) -> Episodes:
        return Episodes(
            wanted,
            shape,
            batch=settings.batch,
            n_batches=MAX_STEPS,
            seed=settings.seed,
            start=start,
        )

    if not tasks.validation.index:
        return batches, []
    source = TaskList(tasks.validation.tasks())
    validation = Episodes([(source, 1.0)], shape, batch=8, n_batches=2, seed=5)
    return batches, [validation[i] for i in range(len(validation))]


def unlabelled_planes(
    folder: Path,
    rng: np.random.Generator,
    tell: Callable[[str], None] = lambda _: None,
    *,
    limit: int = MAX_PLANES,
    side: int = WINDOW,
) -> list[tuple[str, np.ndarray]]:
    """Return names and planes of a folder's images.

    Parameters
    ----------
    folder : Path
        Any format that `io.ome_zarr.read_any` takes, stacks too.
    rng : numpy Generator
        For the place of a window in large images.
    tell : callable
        Called with the name of the file that is read.
    limit : int
        Planes wanted at most, evenly spaced over the files.
    side : int
        Height and width of a plane at most, in pixels.

    Returns
    -------
    list of (str, (H, W, 3) uint8 array)

    Raises
    ------
    ConfigError
        If there is no image in it that can be read.
    """
    if not folder.is_dir():
        raise ConfigError(NO_FOLDER.format(folder=folder))
    files = find_images([folder])
    planes: list[tuple[str, np.ndarray]] = []
    problem = ""
    for path in files[:: max(1, -(-len(files) // limit))]:
        tell(f"reading {path.name}")
        try:
            planes += _planes_of(path, rng, max(1, limit // len(files)), side)
        except ImageError as error:
            problem = str(error)
    if not planes:
        raise ConfigError(problem or NO_IMAGES.format(folder=folder))
    return planes


def _planes_of(
    path: Path, rng: np.random.Generator, limit: int, side: int
) -> list[tuple[str, np.ndarray]]:
    """Return names and planes of an image file, evenly spaced.

    Raises
    ------
    ImageError
        If it cannot be read, or all its planes are too small.
    """
    from ..engine.training.superpixels import window

    file = read_any(path)
    indices = list(file.axes.plane_indices(file.array.shape))
    found = []
    for index in indices[:: max(1, len(indices) // limit)][:limit]:
        plane = file.axes.to_plane(
            np.asarray(file.array[file.axes.plane_slices(index)])
        )
        plane, _ = channels_last(plane, rgb=file.rgb)
        plane = window(plane, side, rng)
        if min(plane.shape[:2]) < SMALLEST_SIDE:
            raise ImageError(f"{path}: smaller than {SMALLEST_SIDE} pixels.")
        number = "".join(f"-{n}" for n in index)
        found.append((path.name + number, to_8_bit(plane)))
    return found
