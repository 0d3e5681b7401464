"""Stages of training from image-level tags.

The first stage learns class maps from tags. They become pseudo masks, on which the
second stage trains a segmentation network.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from skimage.segmentation import slic
from torch import Tensor

from ...core.annotation.image_tags import (
    FIRST_STAGE,
    SECOND_STAGE,
    TagTrainingProgress,
    TagTrainingSettings,
    class_ious,
    confusion_matrix,
)
from ...core.progress import Cancelled
from ...models.base import SemanticSegmenter
from ...models.pbip import PrototypePrompting, cosine_kmeans, pseudo_mask
from ...models.prototype_memory import MemoryPrompting
from ...models.semantic import SemanticUNet, Trunk, semantic_loss
from ..training.trainer import Trainer, TrainSettings
from .patch_bank import Bank
from .tag_losses import PublishedLoss, SeedLoss
from .tagged_crops import MAX_WINDOWS, Batches, Windows

FINE, COARSE = (0.3, 0.3, 0.3, 0.1), (0.0, 0.0, 0.0, 1.0)
"""Weights of the maps at stride 2, 4, 8 and 16."""

WARM_UP = 5
"""Passes of the seed variant in which only tags are learned; at most a third of all."""

VALIDATION_EVERY = 6
"""One in this many images is used for validation."""
MIN_IMAGES_TO_SPLIT = 24
"""With fewer images there is no validation: all are needed for training."""

CHECKPOINT_S = 5.0
"""Seconds between checkpoints."""
FIRST_SHARE = 0.6
"""Share of a limited time that the first stage gets."""

Report = Callable[[TagTrainingProgress], None]
TagNetwork = PrototypePrompting | MemoryPrompting
"""Network of the first stage."""


class Stopped(Cancelled):
    """Training was asked to end early and keep the present weights."""


@dataclass
class Course:
    """Progress reports, stop signal and time limit of a training.

    Parameters
    ----------
    folder : Path
        For checkpoints; a file named ``stop`` in it ends the training.
    report : callable
        Receives `TagTrainingProgress`; may raise `Cancelled`.
    minutes : float or None
        Time limit of all stages together.
    """

    folder: Path
    report: Report
    minutes: float | None = None
    started: float = field(default_factory=time.monotonic)
    stopped: bool = False
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    @property
    def stop_file(self) -> Path:
        """File whose presence ends the training; any process may create it."""
        return self.folder / "stop"

    def left(self, share: float = 1.0) -> float:
        """Return the seconds left of a share of the time limit."""
        if self.minutes is None:
            return math.inf
        return 60 * self.minutes * share - self.seconds

    def check(self) -> None:
        """Raise `Stopped` if the stop file exists."""
        if self.stop_file.exists():
            self.stopped = True
            raise Stopped


@dataclass
class StageTrainer(Trainer):
    """A trainer whose loss is a given function.

    Parameters
    ----------
    loss : callable
        Returns the terms of the loss, given the network and a batch.
    """

    loss: Callable[[Any, dict[str, Tensor]], dict[str, Tensor]]
    in_halves = False

    def state(self) -> dict[str, Any]:
        """Return the contents of a checkpoint; some losses have a state, too."""
        if isinstance(self.loss, PublishedLoss | SeedLoss):
            return super().state() | {"loss": self.loss.state()}
        return super().state()

    def take_state(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint's contents, see `state`."""
        super().take_state(state)
        if isinstance(self.loss, PublishedLoss | SeedLoss):
            self.loss.take_state(state["loss"])

    def _loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return self.loss(self.network, batch)


@dataclass(frozen=True, eq=False)
class StageRun:
    """How a stage is trained.

    Parameters
    ----------
    train, validation : (n,) int64 tensors
        Numbers of the training and the validation windows; the latter may be none.
    course : Course
    device : torch.device
    seconds : float
        Time limit of the stage; infinite for none.
    resume : bool
        Continue from the checkpoint, if there is one.
    on_pass : callable, optional
        Receives the averaged network after each pass over the windows.
    """

    train: Tensor
    validation: Tensor
    course: Course
    device: torch.device
    seconds: float = math.inf
    resume: bool = False
    on_pass: Callable[[Any], None] | None = None


def run_stage(
    name: str,
    trainer: Trainer,
    batches: Batches,
    run: StageRun,
    validate: Callable[[Any], float],
) -> None:
    """Train a stage until all steps are done, its time is up, or it is stopped.

    The averaged weights of that moment are kept.

    Parameters
    ----------
    name : str
        `FIRST_STAGE` or `SECOND_STAGE`.
    trainer : Trainer
    batches : Batches
    run : StageRun
    validate : callable
        Returns the validation score of a network.
    """
    if run.resume and trainer.checkpoint.exists():
        trainer.resume()
        run.course.history += trainer.history
    try:
        trainer.run(
            lambda start: replace(batches, start=start),
            [],
            seconds=run.seconds,
            on_progress=_StageProgress(name, trainer, batches, run, validate),
            checkpoint_seconds=CHECKPOINT_S,
        )
    except Stopped:
        return


class _StageProgress:
    """Reports the steps of a stage, and validates after each pass over the windows."""

    def __init__(
        self,
        name: str,
        trainer: Trainer,
        batches: Batches,
        run: StageRun,
        validate: Callable[[Any], float],
    ) -> None:
        self.name, self.trainer, self.batches = name, trainer, batches
        self.run, self.validate = run, validate
        self.steps_a_pass = max(1, len(batches.chosen) // trainer.settings.batch)
        self.started, self.first_step = time.monotonic(), trainer.step
        self.score: float | None = None

    def __call__(self, done: int, total: int, message: str = "") -> None:
        """Do what is due after a step; raise `Stopped` or `Cancelled` to end."""
        trainer, course = self.trainer, self.run.course
        self._fit_steps_to_time()
        last = trainer.step >= trainer.settings.steps
        if trainer.step % self.steps_a_pass == 0 or last:
            self._end_pass()
        course.report(
            TagTrainingProgress(
                self.name,
                trainer.step,
                trainer.settings.steps,
                course.seconds,
                dict(trainer.running),
                self.score,
            )
        )
        course.check()

    def _fit_steps_to_time(self) -> None:
        """Set the number of steps that fit into the time at the present pace.

        So the learning rate, which follows the steps, has fallen when the time is up.
        """
        trainer, at = self.trainer, self.trainer.step - self.first_step
        # not before the fifth step: the first ones are slow and no measure of the pace
        if not math.isfinite(self.run.seconds) or at < 5 or at % 5:
            return
        seconds = time.monotonic() - self.started
        fit = self.first_step + int(at / max(seconds, 1e-3) * self.run.seconds)
        steps = max(trainer.step, min(fit, self.batches.n_batches))
        trainer.settings = replace(trainer.settings, steps=steps)

    def _end_pass(self) -> None:
        """Validate, and add a row to the history."""
        trainer, course = self.trainer, self.run.course
        trainer.average.eval()
        if len(self.run.validation):
            self.score = self.validate(trainer.average)
        row = {"step": float(trainer.step), "seconds": course.seconds}
        row |= trainer.running
        if self.score is not None:
            row["validation"] = self.score
        row["stage"] = 1.0 if self.name == FIRST_STAGE else 2.0
        course.history.append(row)
        trainer.history.append(row)  # it is in the checkpoint
        if self.run.on_pass is not None:
            self.run.on_pass(trainer.average)


def _train_settings(settings: TagTrainingSettings, steps: int) -> TrainSettings:
    return TrainSettings(
        steps=max(1, steps),
        batch=settings.batch,
        learning_rate=settings.learning_rate,
        warm_up=min(50, max(1, steps // 10)),
        averaging=0.98,  # runs are short: the average covers about 50 steps
        seed=settings.seed,
        validate_every=10_000_000,  # never: it has validation of its own
    )


def split_images(n_images: int, seed: int) -> tuple[list[int], list[int]]:
    """Return the numbers of the training and the validation images."""
    n = n_images // VALIDATION_EVERY if n_images >= MIN_IMAGES_TO_SPLIT else 0
    order = np.random.default_rng(seed).permutation(n_images).tolist()
    return order[n:], order[:n]


# ---------------------------------------------------------------------- first stage


@dataclass
class FirstStage:
    """Network and loss of the first stage.

    Parameters
    ----------
    settings : TagTrainingSettings
    windows : Windows
    network : PrototypePrompting or MemoryPrompting
    method, arguments : str, dict
        Method and arguments that build the network again, for its model folder.
    loss : PublishedLoss or SeedLoss
    maps : (windows, S, S) tensor, optional
        Superpixels, if the loss needs them.
    """

    settings: TagTrainingSettings
    windows: Windows
    network: TagNetwork
    method: str
    arguments: dict[str, Any]
    loss: PublishedLoss | SeedLoss
    maps: Tensor | None = None

    @classmethod
    def of(
        cls,
        settings: TagTrainingSettings,
        windows: Windows,
        bank: Bank,
        trunk: Trunk,
        arguments: dict[str, Any],
        fusion: Sequence[float] | None = None,
    ) -> FirstStage:
        """Return the first stage of the variant named in the settings.

        Parameters
        ----------
        settings : TagTrainingSettings
        windows : Windows
        bank : Bank
        trunk : Trunk
            Initial weights of the encoder.
        arguments : dict
            Arguments of the trunk.
        fusion : sequence of four floats, optional
            Weights of the strides in the published variant; `FINE` by default. Without
            prototypes it is `COARSE`, as in plain class activation maps.
        """
        n_classes = windows.tags.shape[1]
        common = {"classes": n_classes, "scale": settings.scale, **arguments}
        if settings.variant == "seed":
            return cls._seed(settings, windows, trunk, common)
        prototypes = settings.prototypes
        chosen = common | {
            "n_prototypes": settings.n_prototypes,
            "features": bank.encoder.length,
            "fusion": list(fusion or (FINE if prototypes else COARSE)),
            "prototypes": prototypes,
        }
        network = PrototypePrompting(**chosen)
        network.trunk.load_state_dict(trunk.state_dict())
        network.set_bank(bank.prototypes, bank.filled)
        loss = PublishedLoss(
            windows,
            bank,
            contrast=settings.contrast and prototypes,
            seed=settings.seed,
        )
        return cls(settings, windows, network, "pbip", chosen, loss)

    @classmethod
    def _seed(
        cls,
        settings: TagTrainingSettings,
        windows: Windows,
        trunk: Trunk,
        common: dict[str, Any],
    ) -> FirstStage:
        """Return the first stage of the seed variant."""
        chosen = common | {"n_prototypes": settings.n_prototypes}
        network = MemoryPrompting(**chosen)
        network.trunk.load_state_dict(trunk.state_dict())
        network.memory.copy_(first_memory(network, windows, settings))
        warm_up = int(min(WARM_UP, settings.epochs / 3) * len(windows) / settings.batch)
        loss = SeedLoss(windows, warm_up=warm_up, contrast=settings.contrast)
        regions = superpixels(windows)
        return cls(settings, windows, network, "pbip-seed", chosen, loss, regions)

    def run(self, run: StageRun) -> TagNetwork:
        """Train, and return the network with averaged weights."""
        settings, windows = self.settings, self.windows
        steps = max(1, settings.epochs * len(run.train) // settings.batch)
        trainer = StageTrainer(
            self.network,
            _train_settings(settings, steps),
            run.course.folder / "first",
            run.device,
            self.loss,
        )

        def show(network: TagNetwork) -> None:
            if run.on_pass is not None:
                set_peaks(network, windows, 64)  # of some windows: a preview
                run.on_pass(network)

        run_stage(
            FIRST_STAGE,
            trainer,
            Batches(
                windows, run.train, settings.batch, steps, settings.seed, self.maps
            ),
            replace(run, on_pass=show),
            lambda network: tag_accuracy(network, windows, run.validation),
        )
        network = cast(TagNetwork, trainer.average.eval())
        set_peaks(network, windows)
        return network


@torch.inference_mode()
def first_memory(
    network: MemoryPrompting, windows: Windows, settings: TagTrainingSettings
) -> Tensor:
    """Return initial prototypes (classes, K, D): cluster centres of features.

    The features are those of images that show one class only, if there are any.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    memory = network.memory.clone()
    alone = windows.tags.sum(1) == 1
    for c in range(network.n_classes):
        held = windows.tags[:, c] > 0
        own = held & alone if (held & alone).any() else held
        # 64 windows and every 7th pixel are enough for a few centres
        index = windows.of_images(own.nonzero()[:, 0].tolist())[:64]
        vectors = torch.cat(
            [
                network.embeddings(windows.images(part))[1]
                .flatten(2)
                .transpose(1, 2)
                .flatten(0, 1)[::7]
                for part in index.split(8)
            ]
        )
        centres, _ = cosine_kmeans(vectors, settings.n_prototypes, generator)
        memory[c, : len(centres)] = centres
    return memory


def superpixels(windows: Windows) -> Tensor:
    """Return superpixel ids (n, S, S) int16 of all windows, from 0 in each."""
    side = windows.pixels.shape[-1]
    regions = [
        slic(
            image.permute(1, 2, 0).numpy(),
            n_segments=max(4, (side // 8) ** 2),  # of about 8 x 8 pixels
            compactness=10.0,
            start_label=0,
            channel_axis=-1,
        )
        for image in windows.pixels
    ]
    return torch.from_numpy(np.stack(regions).astype(np.int16))


@torch.inference_mode()
def tag_accuracy(network: TagNetwork, windows: Windows, index: Tensor) -> float:
    """Return the balanced accuracy of predicted tags, the mean over classes.

    An image shows a class if any of its windows does.

    Parameters
    ----------
    network : PrototypePrompting or MemoryPrompting
    windows : Windows
    index : (n,) int64 tensor
        Numbers of the windows.
    """
    device = next(network.parameters()).device
    predicted = torch.cat(
        [
            network.tag_scores(windows.images(part).to(device)).cpu() > 0
            for part in index.split(8)
        ]
    )
    owner = windows.owner[index]
    scores = []
    for c in range(windows.tags.shape[1]):
        right: dict[bool, list[bool]] = {True: [], False: []}
        for image in owner.unique():
            truth = bool(windows.tags[image, c])
            right[truth].append(bool(predicted[owner == image, c].any()) == truth)
        scores += [float(np.mean(r)) for r in right.values() if r]
    return float(np.mean(scores)) if scores else math.nan


@torch.inference_mode()
def set_peaks(
    network: TagNetwork, windows: Windows, at_most: int = MAX_WINDOWS
) -> None:
    """Set the network's peaks: what its maps reach in images of each class.

    Only the published variant has peaks, see `PrototypePrompting.peak`. They are the
    99th percentile of an image's maps and the median over the images, because a single
    bright pixel or image must not set the scale.

    Parameters
    ----------
    network : PrototypePrompting or MemoryPrompting
    windows : Windows
    at_most : int
        About as many windows are measured.
    """
    if not isinstance(network, PrototypePrompting):
        return
    n_levels, n_classes = network.peak.shape
    tops = torch.zeros(len(windows.names), n_levels, n_classes)
    step = max(1, len(windows) // at_most)
    for part in torch.arange(0, len(windows), step).split(8):
        maps = network.class_maps(
            network.similarities(windows.images(part).to(network.peak.device))
        )
        top = torch.stack([m.flatten(2).quantile(0.99, dim=2).cpu() for m in maps], 1)
        for at, owner in enumerate(windows.owner[part].tolist()):
            tops[owner] = torch.maximum(tops[owner], top[at])
    for c in range(n_classes):
        # images that show the class, and of which a window was measured
        held = windows.tags[:, c] > 0
        reached = tops[held & tops.any(-1).any(-1), :, c]
        if len(reached):
            network.peak[:, c] = reached.median(0).values.to(network.peak)


@torch.inference_mode()
def pseudo_masks(
    network: TagNetwork, windows: Windows, course: Course | None = None
) -> Tensor:
    """Return the class ids (n, S, S) uint8 predicted for all training windows.

    Classes that are not among the tags of an image are excluded. Pixels are `UNKNOWN`
    where the two best scores are about equal.
    """
    size = tuple(windows.pixels.shape[-2:])
    masks = torch.empty(len(windows), *size, dtype=torch.uint8)
    device = next(network.parameters()).device
    for image in range(len(windows.names)):
        index = (windows.owner == image).nonzero()[:, 0]
        scores = network.image_scores(
            windows.images(index).to(device), windows.tags[image].to(device)
        )
        masks[index] = pseudo_mask(scores).cpu()
        if course is not None:
            course.report(
                TagTrainingProgress(
                    "pseudo masks", image + 1, len(windows.names), course.seconds
                )
            )
    return masks


# --------------------------------------------------------------------- second stage


@dataclass
class SecondStage:
    """Network of the second stage, and the masks that it learns.

    Parameters
    ----------
    settings : TagTrainingSettings
    windows : Windows
    masks : (windows, S, S) tensor
        Classes of each pixel.
    network : SemanticUNet
    arguments : dict
        Arguments that build the network again, for its model folder.
    """

    settings: TagTrainingSettings
    windows: Windows
    masks: Tensor
    network: SemanticUNet
    arguments: dict[str, Any]
    method: ClassVar[str] = "semantic"

    @classmethod
    def of(
        cls,
        settings: TagTrainingSettings,
        windows: Windows,
        masks: Tensor,
        trunk: Trunk,
        arguments: dict[str, Any],
    ) -> SecondStage:
        """Return the second stage with an untrained decoder; see `FirstStage.of`."""
        n_classes = windows.tags.shape[1]
        chosen = {"classes": n_classes, "scale": settings.scale, **arguments}
        network = SemanticUNet(**chosen)
        network.trunk.load_state_dict(trunk.state_dict())
        return cls(settings, windows, masks, network, chosen)

    def run(self, run: StageRun) -> SemanticUNet:
        """Train, and return the network with averaged weights."""
        settings, windows, masks = self.settings, self.windows, self.masks
        steps = max(1, settings.second_epochs * len(run.train) // settings.batch)
        trainer = StageTrainer(
            self.network,
            _train_settings(settings, steps),
            run.course.folder / "second",
            run.device,
            mask_loss,
        )
        run_stage(
            SECOND_STAGE,
            trainer,
            Batches(windows, run.train, settings.batch, steps, settings.seed, masks),
            run,
            lambda network: agreement(network, windows, masks, run.validation),
        )
        return cast(SemanticUNet, trainer.average.eval())


def mask_loss(network: SemanticUNet, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the terms of the loss of the second stage by name."""
    return semantic_loss(network.class_logits(batch["query"]), batch["maps"])


@torch.inference_mode()
def agreement(
    network: SemanticSegmenter, windows: Windows, masks: Tensor, index: Tensor
) -> float:
    """Return the mean IoU of predictions with the masks of windows.

    The mean is over the classes and the background.
    """
    n = network.n_classes + 1
    device = next(network.parameters()).device
    table = np.zeros((n, n), np.int64)
    for part in index.split(8):
        found = network.class_logits(windows.images(part).to(device)).argmax(1).cpu()
        truth = masks[part].numpy().astype(np.int64)
        table += confusion_matrix(found.numpy(), truth, n)
    ious = class_ious(table)
    return float(np.nanmean(ious)) if np.isfinite(ious).any() else math.nan
