"""One training loop: step, validate, average, checkpoint, stop, resume."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from ...core.progress import Cancelled, Progress, ignore_progress
from ...core.settings import MAX_SEED, Settings, option
from ...models.base import PromptSegmenter
from ...models.losses import maps_loss
from ..inference.device import working_threads

NO_CHECKPOINT = (
    "{folder}: no checkpoint can be written ({reason}), so the training has stopped. "
    "Free some space, then resume it: what was learned up to the last checkpoint is "
    "kept."
)


MIXING = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
"""Layers whose result for a row depends on the others, or on chance."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be resumed; the message names the file."""


class CheckpointWriteError(OSError):
    """A checkpoint that cannot be written; the message says where and what to do."""


@dataclass(frozen=True)
class TrainSettings(Settings):
    """How a network is trained on episodes."""

    steps: int = option(20_000, "Training steps", low=1, high=100_000_000)
    batch: int = option(16, "Episodes of a step", low=1, high=4096)
    learning_rate: float = option(2e-3, "Highest learning rate", low=0, high=1)
    weight_decay: float = option(1e-4, "Weight decay", low=0, high=10)
    warm_up: int = option(
        300, "Steps in which the learning rate rises", low=0, high=10_000_000
    )
    averaging: float = option(0.998, "Decay of the averaged weights", low=0, high=1)
    clip: float = option(1.0, "Largest norm of the gradient", low=0, high=1e6)
    validate_every: int = option(
        500, "Steps between validations", low=1, high=10_000_000
    )
    seed: int = option(0, "Seed of weights and episodes", low=0, high=MAX_SEED)
    workers: int = option(0, "Loader processes", low=0, high=256)
    precision: str = option(
        "auto",
        "bf16 halves memory and time on new hardware",
        choices=("auto", "float32", "bf16"),
    )


@dataclass
class Trainer:
    """A network in training, with all the state that resuming needs.

    Parameters
    ----------
    network : PromptSegmenter
    settings : TrainSettings
    folder : Path
        Holds ``checkpoint.pt`` and ``history.jsonl``.
    device : torch.device
    """

    network: PromptSegmenter
    settings: TrainSettings
    folder: Path
    device: torch.device

    in_halves: ClassVar[bool] = True
    """Whether batches run in two halves; not where a subclass has another `_loss`."""

    def __post_init__(self) -> None:
        # torch's stubs lack the argument memory_format
        self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._averaged = AveragedModel(self.network, multi_avg_fn=self._follow)
        self._averaged.n_averaged += 1  # at 0, the first update copies the weights
        average = self._averaged.module.eval().requires_grad_(False)
        self.average = cast(PromptSegmenter, average)
        self.optimizer = torch.optim.AdamW(
            _decayed(self.network, self.settings.weight_decay),
            lr=self.settings.learning_rate,
            fused=self.device.type in ("cpu", "cuda"),
        )
        self.step = 0
        self.is_whole = True
        """False in the middle of a step, when the state must not be saved."""
        self.seconds = 0.0
        """Of training, all sittings together."""
        self.best = math.inf
        self.running: dict[str, float] = {}
        self.history: list[dict[str, float]] = []
        self._pool: ThreadPoolExecutor | None = None

    # -- checkpoints -----------------------------------------------------------------

    @property
    def checkpoint(self) -> Path:
        """Path of the file that `save` writes and `resume` reads."""
        return self.folder / "checkpoint.pt"

    def state(self) -> dict[str, Any]:
        """Return the contents of a checkpoint."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "best": self.best,
            "seconds": self.seconds,
            "running": self.running,
            "history": self.history,
            "settings": self.settings.to_dict(),
        }

    def take_state(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint's contents, see `state`."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.best = state["step"], state["best"]
        self.seconds, self.running = state["seconds"], state["running"]
        self.history = state["history"]

    def save(self) -> None:
        """Write the checkpoint; if the write fails, the previous one stays intact.

        Raises
        ------
        CheckpointWriteError
            If it cannot be written, for example as the disk is full.
        """
        content = io.BytesIO()  # torch hides the reason where it cannot write a file
        torch.save(self.state(), content)
        rows = "".join(json.dumps(row) + "\n" for row in self.history)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _replace(self.checkpoint, content.getbuffer())
            _replace(self.folder / "history.jsonl", rows.encode())
        except OSError as error:
            reason = error.strerror or str(error)
            raise CheckpointWriteError(
                NO_CHECKPOINT.format(folder=self.folder, reason=reason)
            ) from error

    def save_if_whole(self) -> None:
        """Write the checkpoint, unless a step was interrupted: the last one is good."""
        if self.is_whole:
            self.save()

    def resume(self) -> None:
        """Continue from the checkpoint.

        Raises
        ------
        CheckpointError
            If the file is damaged or does not fit the network.
        """
        try:
            state = torch.load(
                self.checkpoint, map_location=self.device, weights_only=True
            )
            self.take_state(state)
        except Exception as error:
            raise CheckpointError(
                f"{self.checkpoint} cannot be resumed ({type(error).__name__}): "
                "delete it to start again."
            ) from error

    # -- training --------------------------------------------------------------------

    def run(
        self,
        episodes: Callable[[int], Dataset[dict[str, Tensor]]],
        validation: list[dict[str, Tensor]],
        *,
        seconds: float = math.inf,
        on_progress: Progress = ignore_progress,
        checkpoint_seconds: float = 60.0,
    ) -> None:
        """Train until all steps are done, the time is up, or progress raises.

        Parameters
        ----------
        episodes : callable
            Returns the data set of batches from a given batch number on.
        validation : list of dict
            Batches whose loss is measured with the averaged weights.
        seconds : float
            Wall time after which training stops; `resume` continues it.
        on_progress : Progress
            May raise `Cancelled`; the checkpoint is written before it is passed on.
        checkpoint_seconds : float
            Time between checkpoints.
        """
        if self.step >= self.settings.steps:  # stopped after its last step
            return
        started = saved = time.monotonic()
        earlier, running = self.seconds, self.running
        try:
            for batch in self._batches(episodes(self.step)):
                self.is_whole = False
                for name, value in self._train_step(batch).items():
                    if not math.isfinite(value):
                        continue
                    running[name] = 0.95 * running.get(name, value) + 0.05 * value
                now = time.monotonic()
                self.seconds = earlier + now - started
                if self.step % self.settings.validate_every == 0:
                    self._record(running, validation)
                self.is_whole = True
                on_progress(
                    self.step,
                    self.settings.steps,
                    f"loss {running.get('total', math.nan):.3f}",
                )
                if now - saved > checkpoint_seconds:
                    self.save()
                    saved = time.monotonic()
                if self.step >= self.settings.steps or now - started > seconds:
                    break
        except (KeyboardInterrupt, SystemExit, Cancelled):
            self.save_if_whole()
            raise
        self.save()

    def _batches(self, data: Dataset[dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
        if not len(data):  # type: ignore[arg-type]
            return
        workers = self.settings.workers
        yield from DataLoader(
            data,
            batch_size=None,
            num_workers=workers,
            pin_memory=self.device.type == "cuda",
            prefetch_factor=4 if workers else None,
        )

    def _train_step(self, batch: dict[str, Tensor]) -> dict[str, float]:
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * self._schedule()
        batch = {k: v.to(self.device, non_blocking=True) for k, v in batch.items()}
        self.optimizer.zero_grad(set_to_none=True)
        parts = self._backward(batch)
        norm = nn.utils.clip_grad_norm_(
            self.network.parameters(), self.settings.clip or math.inf
        )
        if torch.isfinite(norm):  # one bad batch must not destroy the weights
            self.optimizer.step()
        self.step += 1
        self._averaged.update_parameters(self.network)
        values = {k: float(v.detach()) for k, v in parts.items()}
        return {"total": sum(values.values())} | values

    def _backward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute the gradients of a batch's loss; return its terms by name.

        On a CPU the two halves of a batch run side by side, if there are two cores: the
        layers of a small network are too short for all cores to share each of them. The
        loss is that of the whole batch, and the same on any number of cores.
        """
        n = len(batch["query"])
        on_cpu = self.device.type == "cpu"
        if not (self.in_halves and on_cpu and n > 1 and parts_by_rows(self.network)):
            with self._autocast():
                parts = self._loss(batch)
            torch.stack(list(parts.values())).sum().backward()
            return parts
        rows = slice(0, (n + 1) // 2), slice((n + 1) // 2, n)
        halves = [{k: v[r] for k, v in batch.items()} for r in rows]
        with working_threads(2, str(self.device)) as at_once:
            each: Callable[..., Iterator[Any]] = map
            if at_once > 1:
                self._pool = self._pool or ThreadPoolExecutor(2, "svpseg-train")
                each = self._pool.map
            made = list(each(self._maps_of_half, halves))
            # the loss takes copies that end the graph; their gradients go on into it
            maps = {k: torch.cat([m[k].detach() for m in made]) for k in made[0]}
            learned = [k for k in maps if made[0][k].requires_grad]
            for name in learned:
                maps[name].requires_grad_()
            with self._autocast():
                parts = self._terms(batch, maps)
            torch.stack(list(parts.values())).sum().backward()
            weights = [p for p in self.network.parameters() if p.requires_grad]

            slopes = {k: g for k in learned if (g := maps[k].grad) is not None}

            def gradients(i: int) -> tuple[Tensor | None, ...]:
                return torch.autograd.grad(
                    [made[i][k] for k in slopes],
                    weights,
                    [g[rows[i]] for g in slopes.values()],
                    allow_unused=True,
                )

            for found in list(each(gradients, (0, 1))):
                for weight, gradient in zip(weights, found, strict=True):
                    if gradient is not None:
                        add_gradient(weight, gradient)
        return parts

    def _loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return self._terms(batch, self._maps(batch))

    def _maps_of_half(self, half: dict[str, Tensor]) -> dict[str, Tensor]:
        with self._autocast():  # each thread has its own
            return self._maps(half)

    def _maps(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return all that the loss needs of the network, for each row of a batch."""
        return episode_maps(self.network, batch)

    def _terms(
        self, batch: dict[str, Tensor], maps: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the terms of the loss by name, given the result of `_maps`."""
        return episode_terms(self.network, batch, maps)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        precision = self.settings.precision
        if precision == "auto":
            precision = "bf16" if self.device.type == "cuda" else "float32"
        if precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _schedule(self) -> float:
        """Return the learning rate's factor: warm-up, then half a cosine to 1 %.

        It depends on the step alone, so that a checkpoint needs no state of a scheduler
        and ``settings.steps`` may change on the way: training from tags does so to end
        in time. `torch.optim.lr_scheduler` fixes the number of steps at the start.
        """
        s = self.settings
        if self.step < s.warm_up:
            return (self.step + 1) / s.warm_up
        done = (self.step - s.warm_up) / max(1, s.steps - s.warm_up)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    def _follow(self, averages: Any, weights: Any, n: Tensor | int) -> None:
        """Move the averaged weights towards the weights."""
        # a young average follows faster, or it would keep the untrained start for long
        decay = min(self.settings.averaging, (1 + self.step) / (10 + self.step))
        get_ema_multi_avg_fn(decay)(averages, weights, n)

    def _record(
        self,
        running: dict[str, float],
        validation: list[dict[str, Tensor]],
    ) -> None:
        row = {"step": float(self.step), "seconds": self.seconds, **running}
        if validation:
            row |= validate(self.average, validation, self.device)
            self.best = min(self.best, row["validation_loss"])
        self.history.append(row)


def _replace(path: Path, content: bytes | memoryview) -> None:
    """Write a file beside its place, flush it to the disk, and move it there."""
    temporary = path.with_name(f"{path.name}.tmp")  # one process trains in a folder
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def episode_loss(
    network: PromptSegmenter, batch: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Return the terms of a batch's loss by name.

    Parameters
    ----------
    network : PromptSegmenter
    batch : dict of tensors
        As from `engine.training.episodes.cut_episode`, with a batch axis in front.
    """
    return episode_terms(network, batch, episode_maps(network, batch))


def episode_maps(
    network: PromptSegmenter, batch: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Return the maps of a batch's queries."""
    code = network.encode_prompts(batch["prompts"], batch["masks"])
    query = batch["query"].contiguous(memory_format=torch.channels_last)
    return network(query, code)


def episode_terms(
    network: PromptSegmenter,
    batch: dict[str, Tensor],
    maps: dict[str, Tensor],
    shift: float = 0.0,
) -> dict[str, Tensor]:
    """Return the terms of a batch's loss by name, given the maps of its queries.

    ``shift`` is added to the foreground logits in the loss only. It corrects for a
    share of foreground that differs between the labels and whole images.
    """
    shifted = maps | {"foreground": maps["foreground"] + shift} if shift else maps
    return maps_loss(shifted, batch) | network.regularise(
        batch["query"], maps, batch["prompts"], batch["masks"]
    )


def parts_by_rows(network: PromptSegmenter) -> bool:
    """Return whether each row of a batch gets the maps that it gets by itself.

    Not so with statistics of the batch or random numbers in the network. Terms of its
    own in the loss need features of the whole batch, too.
    """
    has_own_terms = type(network).regularise is not PromptSegmenter.regularise
    return not has_own_terms and not any(
        isinstance(m, MIXING) for m in network.modules()
    )


def add_gradient(weight: nn.Parameter, gradient: Tensor) -> None:
    """Add to the gradient of a weight."""
    weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)


@torch.inference_mode()
def validate(
    network: PromptSegmenter, batches: list[dict[str, Tensor]], device: torch.device
) -> dict[str, float]:
    """Return the mean loss and the mean foreground Dice of validation batches.

    Returns
    -------
    dict
        ``validation_loss`` and ``validation_dice``.
    """
    network.eval()
    losses, dices = [], []
    for batch in batches:
        batch = {k: v.to(device) for k, v in batch.items()}
        code = network.encode_prompts(batch["prompts"], batch["masks"])
        maps = network(batch["query"], code)
        losses.append(float(torch.stack(list(maps_loss(maps, batch).values())).sum()))
        dices += foreground_dices(maps, batch)
    return {
        "validation_loss": sum(losses) / len(losses),
        "validation_dice": sum(dices) / len(dices),
    }


def foreground_dices(maps: dict[str, Tensor], batch: dict[str, Tensor]) -> list[float]:
    """Return the Dice of the foreground of each episode of a batch.

    Parameters
    ----------
    maps : dict of tensors
        Of the network; ``foreground`` (B, 1, H, W) are logits.
    batch : dict of tensors
        As from `engine.training.episodes.cut_episode`, with a batch axis in front.
    """
    found, truth = maps["foreground"] > 0, batch["foreground"] > 0.5
    both = (found & truth).sum((1, 2, 3))
    size = found.sum((1, 2, 3)) + truth.sum((1, 2, 3))
    dices: list[float] = ((2 * both + 1) / (size + 1)).tolist()
    return dices


def _decayed(network: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Return parameter groups with weight decay for matrices and kernels only.

    Decaying biases and the scales of normalisation would only limit their range.
    """
    weights = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    return [
        {"params": weights, "weight_decay": decay},
        {"params": others, "weight_decay": 0.0},
    ]
