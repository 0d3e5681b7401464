"""Training from image-level tags, stage by stage: bank, maps, masks, network."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from ..core.image import Plane
from ..core.progress import Cancelled
from ..core.weak import WeakProgress, WeakSettings, class_ious, confusion
from ..models.base import SemanticSegmenter
from ..models.pbip import (
    PrototypePrompting,
    match_losses,
    pseudo_mask,
    with_background,
)
from ..models.semantic import SemanticUNet, Trunk, semantic_loss
from .bank import Bank
from .tiling import ScaledQuery, network_length
from .train import Trainer, TrainSettings

MAX_WINDOWS = 2000
"""Windows that are held in memory, 8 bit each."""

HELD_BACK, ENOUGH = 6, 24
"""One in six images is held back to tell how it goes, where there are 24 or more."""

STRIDE = 16
CHECKPOINT_S = 5.0
FIRST_SHARE = 0.6
"""Of the time that is given, for the first stage."""

Report = Callable[[WeakProgress], None]


class Stopped(Cancelled):
    """The training is to end now and keep what it has."""


@dataclass(frozen=True, eq=False)
class Windows:
    """Images as windows that a network can take, and the tags of the images.

    Parameters
    ----------
    pixels : (n, 3, S, S) uint8 tensor
        Normalised intensities, 8 bit.
    owner : (n,) int64 tensor
        Image of each window.
    corner : (n, 2) int array
        Its top-left corner, in network pixels of its image.
    tags : (images, classes) float tensor
        1 where the image holds the class.
    names : tuple of str
        Of the images.
    """

    pixels: Tensor
    owner: Tensor
    corner: np.ndarray
    tags: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, index: Tensor | slice) -> Tensor:
        """Return windows as the network takes them, (B, 3, S, S) float."""
        return self.pixels[index].float() / 255 * 5.6 - 2.8

    def of_images(self, images: Iterable[int]) -> Tensor:
        """Return the numbers of the windows of some images."""
        wanted = torch.as_tensor(sorted(images))
        return torch.isin(self.owner, wanted).nonzero()[:, 0]


def cut_windows(
    planes: Iterable[tuple[str, Plane, np.ndarray]],
    tags: Mapping[str, Sequence[float]], settings: WeakSettings,
) -> Windows:
    """Cut images into windows of one size.

    Parameters
    ----------
    planes : iterable of (name, (Y, X, C) array, (C, 2) array)
        Name, raw intensities and percentiles of each image, read one by one.
    tags : mapping of str to (classes,) floats
        1 for each class that the image of that name holds.
    settings : WeakSettings
    """
    n_images = len(tags)
    at_most = max(1, MAX_WINDOWS // max(n_images, 1))
    side = -(-settings.window // STRIDE) * STRIDE
    pixels, owner, corners, names, largest = [], [], [], [], STRIDE
    for i, (name, plane, intensities) in enumerate(planes):
        query = ScaledQuery(plane, intensities, settings.scale)
        shape = [network_length(n, settings.scale) for n in plane.shape[:2]]
        largest = max(largest, *shape)
        grid = list(product(*(_starts(n, side) for n in shape)))
        chosen = np.linspace(0, len(grid) - 1, min(at_most, len(grid))).round()
        for y, x in (grid[int(at)] for at in chosen):
            piece = query.read((y, y + side), (x, x + side))
            pixels.append(_to_8_bit(piece))
            owner.append(i)
            corners.append((y, x))
        names.append(name)
    smaller = min(side, -(-largest // STRIDE) * STRIDE)  # all images are small
    stacked = torch.stack([p[:, :smaller, :smaller] for p in pixels])
    return Windows(
        stacked, torch.tensor(owner), np.array(corners),
        torch.tensor([list(tags[name]) for name in names], dtype=torch.float32),
        tuple(names),
    )


def _starts(length: int, side: int) -> list[int]:
    if length <= side:
        return [0]
    n = -(-length // side)
    return [round(at) for at in np.linspace(0, length - side, n)]


def _to_8_bit(piece: Tensor) -> Tensor:
    return ((piece + 2.8) / 5.6 * 255).round().clamp(0, 255).to(torch.uint8)


@dataclass
class _Batches(Dataset[dict[str, Tensor]]):
    """Batches of turned and shaded windows, for a step always the same."""

    windows: Windows
    chosen: Tensor
    batch: int
    n_batches: int
    seed: int
    masks: Tensor | None = None
    start: int = 0

    def __len__(self) -> int:
        return max(0, self.n_batches - self.start)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        if i >= len(self):
            raise IndexError(i)
        step = self.start + i
        index = torch.stack(
            [self._at(step * self.batch + j) for j in range(self.batch)]
        )
        rng = np.random.default_rng([self.seed, step])
        images = self.windows.images(index)
        masks = None if self.masks is None else self.masks[index].long()
        for j in range(self.batch):
            turn, flip = int(rng.integers(4)), bool(rng.integers(2))
            images[j] = _turned(images[j], turn, flip)
            if masks is not None:
                masks[j] = _turned(masks[j], turn, flip)
        shape = (self.batch, 1, 1, 1)
        gain = torch.from_numpy(rng.uniform(0.85, 1.2, shape).astype(np.float32))
        shift = torch.from_numpy(rng.uniform(-0.25, 0.25, shape).astype(np.float32))
        batch = {"query": images * gain + shift, "window": index}
        if masks is not None:
            batch["masks"] = masks
        return batch

    def _at(self, n: int) -> Tensor:
        """Return the n-th window: every one comes once in a pass."""
        of_pass, at = divmod(n, len(self.chosen))
        generator = torch.Generator().manual_seed(self.seed * 9973 + of_pass)
        order = torch.randperm(len(self.chosen), generator=generator)
        return self.chosen[order[at]]


def _turned(x: Tensor, turn: int, flip: bool) -> Tensor:
    x = torch.rot90(x, turn, (-2, -1))
    return x.flip(-1) if flip else x


@dataclass
class Course:
    """How a training is watched, stopped and limited in time.

    Parameters
    ----------
    folder : Path
        For checkpoints; a file ``stop`` in it ends the training.
    report : callable
        Receives `WeakProgress`; may raise `Cancelled`.
    minutes : float or None
    """

    folder: Path
    report: Report
    minutes: float | None = None
    started: float = field(default_factory=time.monotonic)
    stopped: bool = False
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    @property
    def stop_file(self) -> Path:
        """Its presence ends the training."""
        return self.folder / "stop"

    def left(self, share: float = 1.0) -> float:
        """Return the seconds that are left of a share of the time."""
        if self.minutes is None:
            return math.inf
        return 60 * self.minutes * share - self.seconds

    def check(self) -> None:
        """Raise `Stopped` where the user or the clock says so."""
        if self.stop_file.exists():
            self.stopped = True
            raise Stopped


@dataclass
class StageTrainer(Trainer):
    """A trainer with a loss of its own.

    Parameters
    ----------
    loss : callable
        Gives the parts of the loss of the network and a batch.
    """

    loss: Callable[[Any, dict[str, Tensor]], dict[str, Tensor]]

    def _loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return self.loss(self.network, batch)


def run_stage(
    name: str, trainer: Trainer, batches: _Batches, course: Course, *,
    seconds: float, validate: Callable[[Any], float] | None = None,
    resume: bool = False, on_pass: Callable[[Any], None] | None = None,
) -> None:
    """Train a stage to its end, to the end of its time, or until it is stopped.

    What there is then is kept, with averaged weights. The learning rate falls in time
    for the end, however early that is.
    """
    if resume and trainer.checkpoint.exists():
        trainer.resume()
    steps_a_pass = max(1, len(batches.chosen) // trainer.settings.batch)
    stage_started, first_step = time.monotonic(), trainer.step
    seen: dict[str, Any] = {"validation": None}

    def watch(done: int, total: int, message: str = "") -> None:
        since, at = time.monotonic() - stage_started, trainer.step - first_step
        if math.isfinite(seconds) and at >= 5 and at % 5 == 0:
            # so many steps fit in: the learning rate has fallen when they are done
            fit = first_step + int(at / max(since, 1e-3) * seconds)
            trainer.settings = replace(
                trainer.settings, steps=max(trainer.step, min(fit, batches.n_batches))
            )
        last = trainer.step >= trainer.settings.steps
        if trainer.step % steps_a_pass == 0 or last:
            trainer.average.eval()
            if validate is not None:
                seen["validation"] = validate(trainer.average)
            row = {"step": float(trainer.step), "seconds": course.seconds}
            row |= trainer.running
            if seen["validation"] is not None:
                row["validation"] = seen["validation"]
            row["stage"] = 1.0 if name == "first stage" else 2.0
            course.history.append(row)
            if on_pass is not None:
                on_pass(trainer.average)
        course.report(WeakProgress(
            name, trainer.step, trainer.settings.steps, course.seconds,
            dict(trainer.running), seen["validation"],
        ))
        course.check()

    def from_step(start: int) -> _Batches:
        return replace(batches, start=start)

    try:
        trainer.run(
            from_step, [], seconds=seconds, on_progress=watch,
            checkpoint_seconds=CHECKPOINT_S,
        )
    except Stopped:
        return


def _if_any(
    check: Tensor, validate: Callable[[Any], float]
) -> Callable[[Any], float] | None:
    return validate if len(check) else None


def _train_settings(settings: WeakSettings, steps: int) -> TrainSettings:
    return TrainSettings(
        steps=max(1, steps), batch=settings.batch,
        learning_rate=settings.learning_rate, warm_up=min(50, max(1, steps // 10)),
        averaging=0.98, seed=settings.seed, validate_every=2**30,
    )


def held_back(n_images: int, seed: int) -> tuple[list[int], list[int]]:
    """Return the images to learn from, and those that tell how it goes."""
    n = n_images // HELD_BACK if n_images >= ENOUGH else 0
    order = np.random.default_rng(seed).permutation(n_images).tolist()
    return order[n:], order[:n]


# ---------------------------------------------------------------------- first stage


class TagLoss:
    """Loss of the first stage, published variant.

    A tag of an image that was cut into several windows need not hold for each: it is
    asked of the window that so far answers strongest. What an image does not hold, none
    of its windows holds.

    Parameters
    ----------
    windows : Windows
    bank : Bank
    contrast : bool
    seed : int
    """

    weights = (1.0, 0.1)
    """Of the tags, and of what was found and left."""

    def __init__(
        self, windows: Windows, bank: Bank, *, contrast: bool, seed: int = 0
    ) -> None:
        self.windows, self.bank, self.contrast = windows, bank, contrast
        n = torch.bincount(windows.owner)
        self._alone = n[windows.owner] == 1
        self._strength = torch.full(
            (len(windows), windows.tags.shape[1]), math.inf
        )  # infinite: not asked yet, so it is asked
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(
        self, network: PrototypePrompting, batch: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the parts of the loss."""
        levels = network.similarities(batch["query"])
        logits, looks = network.tag_logits(levels)
        index = batch["window"].cpu()
        tags = self.windows.tags[self.windows.owner[index]].to(logits[0].device)
        weight = self._weight(index).to(logits[0].device)
        share = [network.fusion[i] for i in network.levels]
        loss = sum(
            s * (F.binary_cross_entropy_with_logits(x, tags, reduction="none") * weight)
            .sum() / weight.sum().clamp(min=1)
            for s, x in zip(share, logits, strict=True)
        ) / sum(share)
        strongest = torch.stack([x.detach() for x in logits]).mean(0)
        self._strength[index] = strongest.float().cpu()
        parts = {"tags": loss}
        if self.contrast:
            held = tags * weight
            parts |= self._contrast(network, batch["query"], levels, looks, held)
        return parts

    def _weight(self, index: Tensor) -> Tensor:
        weight = torch.ones(len(index), self.windows.tags.shape[1])
        for row, at in enumerate(index.tolist()):
            if self._alone[at]:
                continue
            owner = self.windows.owner[at]
            siblings = self._strength[self.windows.owner == owner].amax(0)
            strongest = (self._strength[at] >= siblings).float()
            weight[row] = torch.where(self.windows.tags[owner] > 0, strongest, 1)
        return weight

    def _contrast(
        self, network: PrototypePrompting, query: Tensor, levels: list[Tensor],
        looks: Tensor, held: Tensor,
    ) -> dict[str, Tensor]:
        rows = held.any(1).nonzero()[:, 0]
        if not len(rows):
            return {}
        kinds = torch.multinomial(
            held[rows].float().cpu(), 1, generator=self._generator
        )[:, 0].to(rows.device)
        active = looks[rows, kinds].masked_fill(~network.filled[kinds], -math.inf)
        maps = network.fused(
            [m[rows] / m[rows].detach().amax((2, 3), keepdim=True).clamp(min=1e-4)
             for m in network.class_maps(levels)],
            query.shape[-2:],
        )[torch.arange(len(rows)), kinds]
        parts = match_losses(
            self.bank.encoder, query[rows], maps, network.bank,
            (kinds, active.argmax(1)), self.bank.background,
        )
        return {name: self.weights[1] * value for name, value in parts.items()}


def first_network(
    settings: WeakSettings, n_classes: int, trunk: Trunk, features: int,
    arguments: dict[str, Any], fusion: tuple[float, ...] | None = None,
) -> tuple[PrototypePrompting, dict[str, Any]]:
    """Return the network of the first stage, and its arguments."""
    fusion = fusion or ((0.3, 0.3, 0.3, 0.1) if settings.prototypes else (0, 0, 0, 1.0))
    chosen = {
        "classes": n_classes, "scale": settings.scale,
        "n_prototypes": settings.n_prototypes, "features": features,
        "fusion": list(fusion), "prototypes": settings.prototypes, **arguments,
    }
    network = PrototypePrompting(**chosen)
    network.trunk.load_state_dict(trunk.state_dict())
    return network, chosen


@dataclass
class FirstStage:
    """The network of the first stage, how it is built again, and what it learns by.

    Parameters
    ----------
    settings : WeakSettings
    windows : Windows
    network : SemanticSegmenter
    method : str
    arguments : dict
    loss : callable
    """

    settings: WeakSettings
    windows: Windows
    network: Any
    method: str
    arguments: dict[str, Any]
    loss: Callable[[Any, dict[str, Tensor]], dict[str, Tensor]]

    @classmethod
    def of(
        cls, settings: WeakSettings, windows: Windows, bank: Bank, trunk: Trunk,
        arguments: dict[str, Any],
    ) -> FirstStage:
        """Return the first stage of the variant that the settings name."""
        network, chosen = first_network(
            settings, windows.tags.shape[1], trunk, bank.encoder.length, arguments
        )
        network.set_bank(bank.prototypes, bank.filled)
        loss = TagLoss(
            windows, bank, contrast=settings.contrast and settings.prototypes,
            seed=settings.seed,
        )
        return cls(settings, windows, network, "pbip", chosen, loss)

    def run(
        self, learn: Tensor, check: Tensor, course: Course, device: torch.device, *,
        seconds: float = math.inf, resume: bool = False,
        on_pass: Callable[[Any], None] | None = None,
    ) -> Any:
        """Train, and return the network with averaged weights.

        Parameters
        ----------
        learn, check : (n,) int64 tensors
            Windows to learn from, and those that tell how it goes (none is allowed).
        course : Course
        device : torch.device
        seconds : float
        resume : bool
        on_pass : callable, optional
            Receives the network after each pass.
        """
        settings, windows = self.settings, self.windows
        steps = max(1, settings.epochs * len(learn) // settings.batch)
        trainer = StageTrainer(
            self.network, _train_settings(settings, steps), course.folder / "first",
            device, self.loss,
        )

        def show(network: Any) -> None:
            set_peaks(network, windows, 64)
            on_pass(network)

        run_stage(
            "first stage", trainer,
            _Batches(windows, learn, settings.batch, steps, settings.seed), course,
            seconds=seconds, resume=resume, on_pass=show if on_pass else None,
            validate=_if_any(check, lambda n: tag_accuracy(n, windows, check)),
        )
        network = trainer.average.eval()
        set_peaks(network, windows)
        return network


def tag_accuracy(network: PrototypePrompting, windows: Windows, index: Tensor) -> float:
    """Return the mean over classes of the balanced accuracy of tags told of windows."""
    told = _strongest(network, windows, index) > 0
    owner = windows.owner[index]
    scores = []
    for c in range(windows.tags.shape[1]):
        right: dict[bool, list[bool]] = {True: [], False: []}
        for image in owner.unique():
            truth = bool(windows.tags[image, c])
            right[truth].append(bool(told[owner == image, c].any()) == truth)
        scores += [float(np.mean(r)) for r in right.values() if r]
    return float(np.mean(scores)) if scores else math.nan


@torch.inference_mode()
def _strongest(
    network: PrototypePrompting, windows: Windows, index: Tensor
) -> Tensor:
    device = network.peak.device
    answers = []
    for part in index.split(8):
        logits, _ = network.tag_logits(
            network.similarities(windows.images(part).to(device))
        )
        answers.append(torch.stack(logits).mean(0).cpu())
    return torch.cat(answers)


@torch.inference_mode()
def set_peaks(
    network: PrototypePrompting, windows: Windows, at_most: int = MAX_WINDOWS
) -> None:
    """Measure what maps of each class reach in the images that hold it."""
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
        held = windows.tags[:, c] > 0
        reached = tops[held & tops.any(-1).any(-1), :, c]
        if len(reached):
            network.peak[:, c] = reached.median(0).values.to(network.peak)


@torch.inference_mode()
def pseudo_masks(
    network: PrototypePrompting, windows: Windows, course: Course | None = None
) -> Tensor:
    """Return the classes (n, S, S) uint8 that the first stage finds in all windows.

    The maps of an image are normalised by their own range, and what the image does not
    hold by its tags is left out. `UNKNOWN` where two classes are about equal.
    """
    size = tuple(windows.pixels.shape[-2:])
    masks = torch.empty(len(windows), *size, dtype=torch.uint8)
    device = network.peak.device
    for image in range(len(windows.names)):
        index = (windows.owner == image).nonzero()[:, 0]
        levels = [
            _both_ways(network, windows.images(part).to(device))
            for part in index.split(8)
        ]
        maps = [torch.cat(level) for level in zip(*levels, strict=True)]
        scaled = [
            m / m.amax((0, 2, 3), keepdim=True).clamp(min=1e-4) for m in maps
        ]
        held = windows.tags[image][:, None, None].to(device)
        fused = network.fused(scaled, size) * held
        masks[index] = pseudo_mask(with_background(fused)).cpu()
        if course is not None:
            course.report(WeakProgress(
                "pseudo masks", image + 1, len(windows.names), course.seconds
            ))
    return masks


def _both_ways(network: PrototypePrompting, images: Tensor) -> list[Tensor]:
    """Return the class maps of images, mean of both ways round."""
    plain = network.class_maps(network.similarities(images))
    flipped = network.class_maps(network.similarities(images.flip(-1)))
    return [(a + b.flip(-1)) / 2 for a, b in zip(plain, flipped, strict=True)]


# --------------------------------------------------------------------- second stage


def second_network(
    settings: WeakSettings, n_classes: int, trunk: Trunk, arguments: dict[str, Any]
) -> tuple[SemanticUNet, dict[str, Any]]:
    """Return the network of the second stage, and its arguments."""
    chosen = {"classes": n_classes, "scale": settings.scale, **arguments}
    network = SemanticUNet(**chosen)
    network.trunk.load_state_dict(trunk.state_dict())
    return network, chosen


def mask_loss(network: SemanticUNet, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the parts of the loss of the second stage."""
    return semantic_loss(network.class_logits(batch["query"]), batch["masks"])


def run_second(
    network: SemanticUNet, settings: WeakSettings, windows: Windows, masks: Tensor,
    learn: Tensor, check: Tensor, course: Course, device: torch.device, *,
    seconds: float = math.inf, resume: bool = False,
    on_pass: Callable[[Any], None] | None = None,
) -> SemanticUNet:
    """Train the second stage on masks (n, S, S); arguments as of `FirstStage.run`."""
    steps = max(1, settings.second_epochs * len(learn) // settings.batch)
    trainer = StageTrainer(
        network, _train_settings(settings, steps), course.folder / "second", device,
        mask_loss,
    )
    run_stage(
        "second stage", trainer,
        _Batches(windows, learn, settings.batch, steps, settings.seed, masks), course,
        seconds=seconds, resume=resume, on_pass=on_pass,
        validate=_if_any(check, lambda n: agreement(n, windows, masks, check)),
    )
    return trainer.average.eval()


@torch.inference_mode()
def agreement(
    network: SemanticSegmenter, windows: Windows, masks: Tensor, index: Tensor
) -> float:
    """Return the mean IoU of a network with masks of windows, background included."""
    n = network.n_classes + 1
    device = next(network.parameters()).device
    table = np.zeros((n, n), np.int64)
    for part in index.split(8):
        found = network.class_logits(windows.images(part).to(device)).argmax(1).cpu()
        truth = masks[part].numpy().astype(np.int64)
        table += confusion(found.numpy(), truth, n)
    ious = class_ious(table)
    return float(np.nanmean(ious)) if np.isfinite(ious).any() else math.nan
