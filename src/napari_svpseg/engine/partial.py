"""Fine-tuning on partial labels: only what is known teaches, the rest is guessed.

A step takes windows of the user's images. Prompts are cut from labelled places,
queries from other ones, both turned, zoomed and shaded. The loss counts known pixels
only; where nothing is known, an averaged copy of the network (the teacher) says what it
is sure of. Weights are held to where they started, and some labels are kept out of
training: they tell which of all models on the way is the best, the start among them.

References
----------
X. Li, Y. Grandvalet, F. Davoine. "Explicit inductive bias for transfer learning with
convolutional networks" (L2-SP). ICML 2018.
A. Tarvainen, H. Valpola. "Mean teachers are better role models". NeurIPS 2017.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.finetune import FineTuneProgress, FineTuneSettings, HeldBackScore
from ..core.partial import HeldOut
from ..core.progress import Cancelled, Progress, ignore_progress
from ..core.prompt import PromptSet
from ..models.base import PromptSegmenter, set_deterministic
from ..models.losses import known_mean
from .device import Device, choose
from .episodes import Episodes, EpisodeSettings, TaskList, make_task
from .held_back import Check
from .predict import network_scale
from .superpixels import superpixel_masks
from .train import Trainer, TrainSettings, episode_loss
from .windows import QUERY_SIDE, PartialImage, Windows, cut_prompts

CHECKS = 8
"""How often the held-back labels are looked at."""
CHECKPOINT_S = 4.0
FEW_PIXELS = 1000
SURE, KEPT_SHARE, AGREEMENT = 0.6, 0.8, 0.15
"""Pseudo labels: least confidence, share kept of a class, how far views differ."""
PSEUDO_WEIGHT, PSEUDO_RAMP = 0.5, 0.3

log = logging.getLogger(__name__)

OnLook = Callable[[PromptSegmenter, PromptSet, float], None]


@dataclass(frozen=True, eq=False)
class Tuned:
    """What training came to.

    Parameters
    ----------
    network : PromptSegmenter
        The better of the two, in evaluation mode on the CPU.
    prompts : PromptSet
        To be used with it.
    before, after : HeldBackScore
    kept : str
        ``before`` or ``after``.
    history : list of dict
    notes : tuple of str
    stopped : bool
    steps : int
        Done in all.
    seconds : float
        Of training, all sittings together.
    """

    network: PromptSegmenter
    prompts: PromptSet
    before: HeldBackScore
    after: HeldBackScore
    kept: str
    history: list[dict[str, Any]]
    notes: tuple[str, ...]
    stopped: bool
    steps: int
    seconds: float


# ---------------------------------------------------------------- training


class FineTuner(Trainer):
    """A network in fine-tuning: known pixels, a teacher for the rest, an anchor.

    Parameters
    ----------
    network : PromptSegmenter
        What it starts from; is changed.
    settings : FineTuneSettings
    folder : Path
        Holds the checkpoint.
    device : torch.device
    """

    def __init__(
        self,
        network: PromptSegmenter,
        settings: FineTuneSettings,
        folder: Path,
        device: torch.device,
    ) -> None:
        self.tuning = settings
        super().__init__(
            network,
            TrainSettings(
                steps=settings.steps,
                batch=settings.batch,
                seed=settings.seed,
                learning_rate=settings.learning_rate,
                weight_decay=0.0,
                warm_up=min(10, max(1, settings.steps // 10)),
                averaging=0.98,
                precision="float32",
            ),
            folder,
            device,
        )
        self.start = [p.detach().clone() for p in self.network.parameters()]
        self.sure = torch.zeros(2)
        """Confidence from which a pixel of background and of foreground counts."""
        self.seconds = 0.0
        self.loss_mean = math.nan
        self.best_step = 0
        self.best_value = -math.inf
        self.best_weights: dict[str, Tensor] = {}
        self.before: HeldBackScore | None = None

    def state(self) -> dict[str, Any]:
        """Return all that a checkpoint holds."""
        return super().state() | {
            "fine_tuning": self.tuning.to_dict(),
            "sure": self.sure,
            "seconds": self.seconds,
            "loss_mean": self.loss_mean,
            "best_step": self.best_step,
            "best_value": self.best_value,
            "best_weights": self.best_weights,
            "start": self.start,
        }

    def take_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        super().take_state(state)
        for name in (
            "sure",
            "seconds",
            "loss_mean",
            "best_step",
            "best_value",
            "best_weights",
            "start",
        ):
            setattr(self, name, state[name])

    def train_step(self, batch: dict[str, Tensor]) -> float:
        """Take one step; return its loss."""
        loss = self._train_step(batch)["total"]
        if math.isfinite(loss):
            mean = loss if math.isnan(self.loss_mean) else self.loss_mean
            self.loss_mean = 0.9 * mean + 0.1 * loss
        return loss

    def _loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        teaching = self.tuning.pseudo_labels and "clean" in batch
        if not teaching:
            return episode_loss(self.network, batch) | self._anchor_loss()
        from ..models.losses import maps_loss

        code = self.network.encode_prompts(batch["prompts"], batch["masks"])
        maps = self.network(batch["query"], code)
        parts = maps_loss(maps, batch) | self.network.regularise(
            batch["query"], maps, batch["prompts"], batch["masks"]
        )
        target, kept = self._pseudo_labels(batch)
        ramp = min(1.0, self.step / max(1.0, PSEUDO_RAMP * self.settings.steps))
        loss = F.binary_cross_entropy_with_logits(
            maps["foreground"], target, reduction="none"
        )
        parts["pseudo"] = PSEUDO_WEIGHT * ramp * known_mean(loss, kept)
        return parts | self._anchor_loss()

    def _anchor_loss(self) -> dict[str, Tensor]:
        if not self.tuning.anchor:
            return {}
        moved = torch._foreach_sub(list(self.network.parameters()), self.start)
        squares = torch.stack([d.square().sum() for d in moved])
        return {"anchor": self.tuning.anchor * squares.sum()}

    @torch.no_grad()
    def _pseudo_labels(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return what the teacher says (0 or 1), and 1 where it is to be believed."""
        teacher, clean = self.average, batch["clean"]
        code = teacher.encode_prompts(batch["prompts"], batch["masks"])
        both = teacher(
            torch.cat([clean, clean.flip(-1)]),
            {k: torch.cat([v, v]) for k, v in code.items()},
        )["foreground"].sigmoid()
        one, other = both.chunk(2)
        other = other.flip(-1)
        mean = (one + other) / 2
        found = (mean > 0.5).float()
        confidence = torch.where(mean > 0.5, mean, 1 - mean)
        unknown = batch["known"] == 0
        limit = torch.empty_like(mean)
        for c in (0, 1):
            of_class = unknown & (found == c)
            if of_class.sum() > 50:
                values = confidence[of_class]
                values = values[:: max(1, len(values) // 20_000)]
                q = torch.quantile(values, 1 - KEPT_SHARE)
                old = float(self.sure[c])
                self.sure[c] = float(q) if not old else 0.9 * old + 0.1 * float(q)
            limit[found == c] = max(SURE, float(self.sure[c]))
        band = F.max_pool2d(found, 5, 1, 2) + F.max_pool2d(-found, 5, 1, 2) > 0
        kept = unknown & (confidence >= limit) & ~band
        kept &= (one - other).abs() <= AGREEMENT
        return found, kept.float()


def finetune(
    network: PromptSegmenter,
    images: Sequence[PartialImage],
    settings: FineTuneSettings,
    *,
    device: Device | str = "auto",
    folder: Path,
    held: HeldOut | None = None,
    resume: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Progress = ignore_progress,
    on_partial: Callable[[FineTuneProgress], None] | None = None,
    on_look: OnLook | None = None,
) -> Tuned:
    """Fine-tune a network on partially labelled images, and check it.

    Parameters
    ----------
    network : PromptSegmenter
        Is not changed.
    images : sequence of PartialImage
        With names that differ.
    settings : FineTuneSettings
    device : Device or str
    folder : Path
        Checkpoints go there every few seconds.
    held : HeldOut, optional
        How labels were held back; its notes are passed on.
    resume : bool
        Go on from the checkpoint.
    should_stop : callable
        Asked after each step; True ends training, and the best so far is kept.
    on_progress, on_partial : callable
        Told of each step; either may raise `Cancelled`, after which `resume` goes on.
    on_look : callable, optional
        Given the network, its prompts and the seconds so far at each check.

    Returns
    -------
    Tuned
    """
    device = choose(device)
    notes = list(held.notes if held else ())
    set_deterministic(settings.seed)
    start = copy.deepcopy(network).to(device.torch_device).eval()
    prompts = cut_prompts(images, settings, start, device)
    zoom = network_scale(prompts, start)
    check = Check(images, prompts, device, settings, zoom)
    if 0 < check.n_pixels < FEW_PIXELS and check.is_held_back:
        notes.append(
            f"Only {check.n_pixels} labelled pixels were held back: the scores are "
            "rough. Label more places for a better check."
        )
    tuner = FineTuner(copy.deepcopy(start), settings, folder, device.torch_device)
    if resume:
        tuner.resume()
    before = check(start)
    if not resume or tuner.best_step == 0:
        tuner.best_value = before.value
    windows = Windows(images, prompts, zoom, settings)
    warm_up = _warm_up(images, settings) if settings.self_supervised_first else None
    stopped = _train(
        tuner,
        windows,
        warm_up,
        check,
        should_stop,
        on_progress,
        on_partial,
        on_look,
        notes,
    )
    after = before
    best = start
    if tuner.best_weights:
        best = copy.deepcopy(start)
        best.load_state_dict(tuner.best_weights)
        after = check(best)
    elif tuner.history:
        candidate = copy.deepcopy(tuner.average)
        after = check(candidate)
    kept = "after" if tuner.best_weights and after.value > before.value else "before"
    if kept == "before":
        best = start
        notes.append(
            "Fine-tuning did not do better on the held-back labels: the model it "
            "started from is kept, with your boxes as its prompts."
        )
    return Tuned(
        best.to("cpu").eval(),
        prompts,
        before,
        after,
        kept,
        tuner.history,
        tuple(notes),
        stopped,
        tuner.step,
        tuner.seconds,
    )


def _train(
    tuner: FineTuner,
    windows: Windows,
    warm_up: Episodes | None,
    check: Check,
    should_stop: Callable[[], bool],
    on_progress: Progress,
    on_partial: Callable[[FineTuneProgress], None] | None,
    on_look: OnLook | None,
    notes: list[str],
) -> bool:
    """Train to the last step, the end of time or a stop; return whether stopped."""
    settings = tuner.tuning
    every = max(1, settings.steps // CHECKS)
    earlier = tuner.seconds
    began = saved = time.monotonic()
    stopped = False
    try:
        while tuner.step < settings.steps:
            n = tuner.step
            early = warm_up is not None and n < len(warm_up)
            tuner.train_step(warm_up[n] if early else windows[n])  # type: ignore[index]
            tuner.seconds = earlier + time.monotonic() - began
            stopped = should_stop()
            over = tuner.seconds >= settings.seconds
            last = tuner.step >= settings.steps or stopped or over
            dice = None
            if tuner.step % every == 0 or last:
                dice = _look(tuner, check)
                if on_look is not None:
                    on_look(tuner.average, check.prompts, tuner.seconds)
                tuner.seconds = earlier + time.monotonic() - began
            if on_partial is not None:
                on_partial(
                    FineTuneProgress(
                        tuner.step,
                        settings.steps,
                        tuner.seconds,
                        tuner.loss_mean,
                        dice,
                        tuner.best_step,
                    )
                )
            on_progress(tuner.step, settings.steps, f"loss {tuner.loss_mean:.3f}")
            if time.monotonic() - saved > CHECKPOINT_S:
                _save(tuner, notes)
                saved = time.monotonic()
            if last:
                break
    except (KeyboardInterrupt, Cancelled):
        _save(tuner, notes)
        raise
    if tuner.step < settings.steps and not stopped:
        notes.append(
            f"The time of {settings.seconds:g} s was up at step {tuner.step} of "
            f"{settings.steps}: a faster or less busy machine gets further."
        )
    _save(tuner, notes)
    return stopped


def _look(tuner: FineTuner, check: Check) -> float:
    """Score the averaged weights, keep them if they are the best; return the Dice."""
    score = check(tuner.average)
    if score.value > tuner.best_value:
        tuner.best_value, tuner.best_step = score.value, tuner.step
        tuner.best_weights = {
            k: v.detach().clone() for k, v in tuner.average.state_dict().items()
        }
    tuner.history.append(
        {
            "step": float(tuner.step),
            "seconds": tuner.seconds,
            "train_loss": tuner.loss_mean,
            "held_back_dice": score.dice,
            "held_back_f1": math.nan if score.f1 is None else score.f1,
        }
    )
    return score.dice


def _save(tuner: FineTuner, notes: list[str]) -> None:
    """Write the checkpoint; a disk that is full does not end the training."""
    try:
        tuner.save()
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        text = f"{tuner.checkpoint}: no checkpoint could be written ({reason})."
        log.warning("%s", text)
        if text not in notes:
            notes.append(text)


def _warm_up(
    images: Sequence[PartialImage], settings: FineTuneSettings
) -> Episodes | None:
    """Return batches of superpixel tasks for the first fifth of the steps."""
    rng = np.random.default_rng([settings.seed, 31])
    tasks = []
    for image in images:
        picture = np.clip(image.three * 230 + 12, 0, 255).astype(np.uint8)
        for mask in superpixel_masks(picture, 4, rng):
            task = make_task(image.name, [picture], [mask], instances=False)
            tasks += [] if task is None else [task]
    if not tasks:
        return None
    return Episodes(
        [(TaskList([tasks]), 1.0)],
        EpisodeSettings(query=QUERY_SIDE),
        batch=settings.batch,
        n_batches=max(1, settings.steps // 5),
        seed=settings.seed,
    )
