"""Fine-tuning on partial labels: train, score, keep the best, stop in time.

A step takes windows of the user's images (`label_crops`), the `FineTuner` learns from
them, and labels that were kept out of training (`validation`) decide which of all
models on the way is the best, the one at the start among them.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core.annotation.partial_images import FineTuneData, PartialImage
from ...core.annotation.partial_labels import UNKNOWN, complete_ids
from ...core.jobs.finetune_job import (
    NOT_BETTER,
    FineTuneProgress,
    FineTuneSettings,
    ValidationScore,
)
from ...core.progress import Cancelled, Progress, ignore_progress
from ...core.prompt import PromptSet
from ...core.side_by_side import in_order
from ...models.base import PromptSegmenter
from ...models.registry import ModelConfig
from ..inference.device import Device, choose
from ..inference.prompt_features import network_scale
from ..jobs.allocator import keep_freed_memory
from ..training.episodes import Episodes, EpisodeSettings, TaskList, make_task
from ..training.superpixels import superpixel_masks, window
from .finetuner import FineTuner
from .forgetting import MAX_FORGETTING, Forgetting
from .label_crops import QUERY_SIDE, Windows, cut_prompts
from .student import STUDENT, train_student
from .validation import ValidationSet

N_CHECKS = 8
"""Number of times that the network is scored while it is trained."""
MIN_GAIN = 0.1
"""Share of the validation error that has to go: a smaller gain is taken as noise."""
MAX_JOINED = 0.25
"""How much larger the share of objects may be that are found as one with another."""
MIN_STEP = 0.005
"""Least rise of the score, for where there was next to no error."""
CHECKPOINT_S = 4.0
FEW_PIXELS = 1000
"""Validation pixels below which scores are rough."""
SUPERPIXEL_TASKS, SUPERPIXEL_SIDE = 48, 256
"""Most superpixel tasks that are made, and the side of their images in pixels."""

FEW_VALIDATION_PIXELS = (
    "The validation set has only {n} labelled pixels, so the scores are rough. Label "
    "more places for a better check."
)
SUPERPIXELS = "superpixels of the images"
NO_SUPERPIXELS = "The images show no superpixels to learn from first."
FORGOT_BACKGROUND = (
    "The last model finds objects in {share:.0%} of the unlabelled background, so "
    "{kept} was kept. Label some of the empty background, too."
)
JOINED_OBJECTS = (
    "The last model finds {share:.0%} of the objects as one with a neighbour (before: "
    "{before:.0%}), so {kept} was kept. Label some whole objects that touch."
)
STUDENT_KEPT = "The second network ({score}) does better and is kept."
STUDENT_NOT_KEPT = "The second network ({score}) does not do better and is not kept."
NO_WHOLE_OBJECT = (
    "No whole object is labelled, so splitting touching objects was not learned, and "
    "checked on cut ones only. Compare the two models, and label some whole objects."
)
OUT_OF_TIME = (
    "The time of {seconds:g} s was up at step {step} of {steps}: a faster or less busy "
    "machine gets further."
)

OnLook = Callable[[PromptSegmenter, PromptSet, float], None]
"""Gets the network, its prompts and the seconds so far, at each check."""


@dataclass(frozen=True, eq=False)
class Callbacks:
    """Functions that a fine-tuning calls on its way.

    Parameters
    ----------
    should_stop : callable
        Called after each step; if it returns True, training ends with the best so far.
    on_progress : callable
        ``(step, steps, message)``, called after each step; may raise `Cancelled`.
    on_partial : callable, optional
        Gets a `FineTuneProgress` after each step; may raise `Cancelled`.
    on_look : callable, optional
        See `OnLook`.
    """

    should_stop: Callable[[], bool] = lambda: False
    on_progress: Progress = ignore_progress
    on_partial: Callable[[FineTuneProgress], None] | None = None
    on_look: OnLook | None = None


NO_CALLBACKS = Callbacks()


@dataclass(frozen=True, eq=False)
class Tuned:
    """The result of a fine-tuning.

    Parameters
    ----------
    network : PromptSegmenter
        The better of the two, in evaluation mode on the CPU.
    config : ModelConfig or None
        Of the network, if its method is not that of the network at the start.
    prompts : PromptSet
        To be used with it. They also show the labels of the validation set, unlike
        those that the network was scored with.
    before, after : ValidationScore
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
    config: ModelConfig | None
    prompts: PromptSet
    before: ValidationScore
    after: ValidationScore
    kept: str
    history: list[dict[str, Any]]
    notes: tuple[str, ...]
    stopped: bool
    steps: int
    seconds: float


@contextmanager
def deterministic() -> Iterator[None]:
    """Let torch give the same numbers for the same seed, and restore how it was."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=True)


@deterministic()
def finetune(
    network: PromptSegmenter,
    data: FineTuneData,
    settings: FineTuneSettings,
    *,
    device: Device | str = "auto",
    folder: Path,
    resume: bool = False,
    callbacks: Callbacks = NO_CALLBACKS,
) -> Tuned:
    """Fine-tune a network on partially labelled images, and check it.

    Parameters
    ----------
    network : PromptSegmenter
        Is not changed.
    data : FineTuneData
    settings : FineTuneSettings
    device : Device or str
    folder : Path
        Checkpoints go there every few seconds.
    resume : bool
        Continue from the checkpoint.
    callbacks : Callbacks
        After one of them raised `Cancelled`, ``resume`` continues.

    Returns
    -------
    Tuned
    """
    began = time.monotonic()
    keep_freed_memory()
    run = _FineTuning(network, data, settings, choose(device), folder, callbacks)
    run.score_start(began, resume=resume)
    stopped = run.train()
    best = run.best()
    if settings.student and not stopped:
        best = run.student_or(best)
    return run.result(best, stopped)


@dataclass(frozen=True, eq=False)
class _Best:
    """The network that is kept.

    Parameters
    ----------
    network : PromptSegmenter
    score : ValidationScore
        Of the best that training gave, even if that is not kept.
    improved : bool
        Whether ``network`` is another than that at the start.
    config : ModelConfig or None
        See `Tuned`.
    """

    network: PromptSegmenter
    score: ValidationScore
    improved: bool
    config: ModelConfig | None = None


class _FineTuning:
    """A fine-tuning from its start to its result; arguments as for `finetune`."""

    before: ValidationScore
    forgetting: Forgetting
    began: float
    """The clock at the start, less the seconds of earlier sittings."""
    reserve: float
    """Seconds that the last check takes."""

    def __init__(
        self,
        network: PromptSegmenter,
        data: FineTuneData,
        settings: FineTuneSettings,
        device: Device,
        folder: Path,
        callbacks: Callbacks,
    ) -> None:
        self.data, self.settings, self.device = data, settings, device
        self.folder, self.callbacks = folder, callbacks
        self.notes = list(data.validation.notes if data.validation else ())
        self._scores: dict[int, ValidationScore] = {}
        self.start = copy.deepcopy(network).to(device.torch_device).eval()
        self.prompts = cut_prompts(data.images, settings, self.start, device)
        self.zoom = network_scale(self.prompts, self.start)
        self.check = ValidationSet(
            data.images, self.prompts, device, settings, self.zoom
        )
        n_pixels = self.check.n_pixels
        if 0 < n_pixels < FEW_PIXELS and self.check.is_validation:
            self.notes.append(FEW_VALIDATION_PIXELS.format(n=n_pixels))
        self.tuner = FineTuner(
            copy.deepcopy(self.start),
            settings,
            folder,
            device.torch_device,
            labelled=_labelled_share(data.images),
        )

    def score_start(self, began: float, *, resume: bool) -> None:
        """Score the network at the start, and go back to the checkpoint if asked."""
        tuner = self.tuner
        if resume:
            tuner.resume()
        before = time.monotonic()
        self.before = self.check.score_start(self.start)
        self.forgetting = Forgetting(
            self.data.images, self.prompts, self.start, self.device, self.settings
        )
        self.reserve = time.monotonic() - before
        self.began = began - tuner.seconds
        if not resume or tuner.best_step == 0:
            tuner.best_value = self.before.value

    def train(self) -> bool:
        """Train to the last step, the end of time or a stop; return whether stopped."""
        tuner, settings = self.tuner, self.settings
        saved, stopped = time.monotonic(), False
        try:
            with closing(self._batches()) as batches:
                for batch in batches:
                    tuner.is_whole = False
                    tuner.train_step(batch)
                    tuner.seconds = time.monotonic() - self.began
                    stopped = self.callbacks.should_stop()
                    over = tuner.seconds + self.reserve >= settings.seconds
                    last = tuner.step >= settings.steps or stopped or over
                    is_due = last or self._is_due()
                    dice = self._score(is_last=last) if is_due else None
                    tuner.is_whole = True
                    self._report(dice)
                    if time.monotonic() - saved > CHECKPOINT_S:
                        tuner.save()
                        saved = time.monotonic()
                    if last:
                        break
        except (KeyboardInterrupt, SystemExit, Cancelled):
            tuner.save_if_whole()
            raise
        if tuner.step < settings.steps and not stopped:
            self.notes.append(
                OUT_OF_TIME.format(
                    seconds=settings.seconds, step=tuner.step, steps=settings.steps
                )
            )
        tuner.save()
        return stopped

    def _batches(self) -> Generator[dict[str, Tensor], None, None]:
        """Yield the batches of the steps that are left; each is made a step ahead."""
        windows = Windows(self.data.images, self.prompts, self.zoom, self.settings)
        warm_up = self._warm_up()

        def make(n: int) -> dict[str, Tensor]:
            if warm_up is not None and n < len(warm_up):
                return warm_up[n]
            return windows[n]

        left = range(self.tuner.step, self.settings.steps)
        with ThreadPoolExecutor(1, thread_name_prefix="svpseg-windows") as pool:
            yield from in_order(pool, make, left, 1)

    def _warm_up(self) -> Episodes | None:
        """Return the batches of superpixels to begin with, if they are asked for."""
        tuner, settings = self.tuner, self.settings
        if not settings.self_supervised_first or tuner.step >= settings.steps:
            return None
        self.callbacks.on_progress(tuner.step, settings.steps, SUPERPIXELS)
        found = superpixel_batches(self.data, settings)
        if found is None:
            self.notes.append(NO_SUPERPIXELS)
        return found

    def _is_due(self) -> bool:
        return self.tuner.step % max(1, self.settings.steps // N_CHECKS) == 0

    def _score(self, *, is_last: bool) -> float:
        """Score the averaged weights and keep them if they are the best."""
        tuner = self.tuner
        score = self._scores[tuner.step] = keep_best(
            tuner, self.check, self.forgetting, self.before, is_last=is_last
        )
        if self.callbacks.on_look is not None:
            self.callbacks.on_look(tuner.average, self.prompts, tuner.seconds)
        tuner.seconds = time.monotonic() - self.began
        return score.dice

    def _report(self, dice: float | None) -> None:
        tuner, steps = self.tuner, self.settings.steps
        if self.callbacks.on_partial is not None:
            self.callbacks.on_partial(
                FineTuneProgress(
                    tuner.step,
                    steps,
                    tuner.seconds,
                    tuner.loss_mean,
                    dice,
                    tuner.best_step,
                )
            )
        self.callbacks.on_progress(tuner.step, steps, f"loss {tuner.loss_mean:.3f}")

    def best(self) -> _Best:
        """Return the best network of the training, or the one at the start."""
        tuner, found = self.tuner, _Best(self.start, self.before, improved=False)
        if tuner.best_weights:
            network = copy.deepcopy(self.start)
            network.load_state_dict(tuner.best_weights)
            score = self._scores.get(tuner.best_step) or self.check(network)
            found = (
                _Best(network, score, improved=True)
                if is_better(score.value, self.before.value)
                else replace(found, score=score)
            )
        elif tuner.history:
            score = self._scores.get(tuner.step) or self.check(tuner.average)
            found = replace(found, score=score)
        last = tuner.history[-1] if tuner.history else {}
        kept = "an earlier one" if found.improved else "the old model"
        share = last.get("forgetting", 0.0)
        if share > MAX_FORGETTING:
            self.notes.append(FORGOT_BACKGROUND.format(share=share, kept=kept))
        share, before = last.get("joined", 0.0), self.before.joined
        if share > before + MAX_JOINED:
            note = JOINED_OBJECTS.format(share=share, before=before, kept=kept)
            self.notes.append(note)
        return found

    def student_or(self, best: _Best) -> _Best:
        """Return a student of the best network if it is better, else that network."""
        student = train_student(
            best.network,
            self.prompts,
            self.data.images,
            self.settings,
            self.device,
            self.folder / "second",
            self.callbacks.should_stop,
            self.callbacks.on_progress,
        )
        score = self.check(student)
        better = is_better(score.value, self.before.value)
        better &= score.value > best.score.value
        if better and not joins_more(score, self.before):
            self.notes.append(STUDENT_KEPT.format(score=score))
            return _Best(student, score, improved=True, config=STUDENT)
        self.notes.append(STUDENT_NOT_KEPT.format(score=score))
        return best

    def result(self, best: _Best, stopped: bool) -> Tuned:
        """Return the result, with prompts for the network that is kept."""
        images, validation, tuner = self.data.images, self.data.validation, self.tuner
        whole = any(complete_ids(i.ids).size for i in images)
        if best.improved and not (self.settings.semantic or whole):
            self.notes.append(NO_WHOLE_OBJECT)
        if not best.improved:
            self.notes.append(NOT_BETTER)
        prompts = self.prompts
        if validation is not None and not validation.whole_images:
            # labels that must not be trained on may well serve as prompts
            all_labels = [
                replace(i, validation=np.zeros_like(i.validation)) for i in images
            ]
            prompts = cut_prompts(all_labels, self.settings, best.network, self.device)
        return Tuned(
            best.network.to("cpu").eval(),
            best.config,
            prompts,
            self.before,
            best.score,
            "after" if best.improved else "before",
            tuner.history,
            tuple(self.notes),
            stopped,
            tuner.step,
            tuner.seconds,
        )


def _labelled_share(images: Sequence[PartialImage]) -> float:
    """Return the labelled share of the images that are trained on.

    Labels of the validation set count as well.
    """
    shares = [
        (i.ids != UNKNOWN).mean() for i in images if (i.training_ids != UNKNOWN).any()
    ]
    return float(np.mean(shares)) if shares else 1.0


def is_better(after: float, before: float) -> bool:
    """Return whether a score is so much higher that it is hardly by chance.

    Examples
    --------
    >>> is_better(0.92, 0.90), is_better(0.905, 0.9), is_better(0.998, 0.995)
    (True, False, False)
    """
    enough = after - before >= MIN_STEP
    return enough and 1 - after < (1 - MIN_GAIN) * (1 - before)


def joins_more(after: ValidationScore, before: ValidationScore) -> bool:
    """Return whether clearly more objects are found as one with a neighbour.

    Examples
    --------
    >>> joins_more(ValidationScore(0.9, None, 900, 0, joined=0.5),
    ...            ValidationScore(0.8, None, 900, 0))
    True
    """
    return after.joined > before.joined + MAX_JOINED


def keep_best(
    tuner: FineTuner,
    check: Callable[[PromptSegmenter], ValidationScore],
    forgetting: Callable[[PromptSegmenter], float],
    before: ValidationScore,
    *,
    is_last: bool = False,
) -> ValidationScore:
    """Score the averaged weights, keep them if they are the best; return the score.

    Of weights that are as good but for chance and better than those ``before``, the
    last are kept: with few validation labels, scores soon differ by chance only, while
    images still improve (one standard error, as in choosing the size of a decision
    tree). Weights that join touching objects or forgot the unlabelled background are
    never kept. How much was forgotten takes longer to measure than the score, so it is
    measured only where it decides, and of the last weights; else it is NaN.
    """
    score = check(tuner.average)
    as_good = score.value >= tuner.best_value - score.chance
    good = score.value > tuner.best_value or (
        as_good and is_better(score.value, before.value)
    )
    good &= not joins_more(score, before)
    forgot = forgetting(tuner.average) if good or is_last else math.nan
    if good and forgot <= MAX_FORGETTING:
        tuner.best_value = max(score.value, tuner.best_value)
        tuner.best_step = tuner.step
        tuner.best_weights = {
            k: v.detach().clone() for k, v in tuner.average.state_dict().items()
        }
    tuner.history.append(
        {
            "step": float(tuner.step),
            "seconds": tuner.seconds,
            "train_loss": tuner.loss_mean,
            "validation_dice": score.dice,
            "validation_f1": math.nan if score.f1 is None else score.f1,
            "forgetting": forgot,
            "joined": score.joined,
        }
    )
    return score


def superpixel_batches(
    data: FineTuneData, settings: FineTuneSettings
) -> Episodes | None:
    """Return batches of superpixel tasks for the first fifth of the steps.

    Each superpixel and those that look alike are the objects of a task, as in
    `workflows.self_supervised`; labels are not used. None if there are no superpixels.
    """
    rng = np.random.default_rng([settings.seed, 31])
    images = list(data.unlabelled)
    for image in data.images:
        # intensities are about 0 to 1; some room for darker and brighter pixels
        eight_bit = np.clip(image.three_channels * 230 + 12, 0, 255).astype(np.uint8)
        images.append((image.name, window(eight_bit, SUPERPIXEL_SIDE, rng)))
    n_masks = max(1, round(SUPERPIXEL_TASKS / len(images)))
    tasks = []
    for name, pixels in images:
        for mask in superpixel_masks(pixels, min(4, n_masks), rng):
            task = make_task(name, [pixels], [mask], instances=False)
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
