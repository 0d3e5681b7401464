"""Fine-tuning on partial labels: only what is known teaches, the rest is guessed.

A step takes windows of the user's images (`windows`), the tuner learns from them
(`tuner`), and labels that were kept out of training (`validation`) tell which of all
models on the way is the best, the one at the start among them.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...core.annotation.partial_labels import UNKNOWN, complete_ids
from ...core.annotation.validation_split import ValidationPart
from ...core.jobs.finetune_job import (
    FineTuneProgress,
    FineTuneSettings,
    ValidationScore,
)
from ...core.progress import Cancelled, Progress, ignore_progress
from ...core.prompt import PromptSet
from ...models.base import PromptSegmenter
from ...models.registry import ModelConfig
from ..inference.device import Device, choose
from ..inference.prompt_features import network_scale
from ..jobs.allocator import keep_freed_memory
from ..training.episodes import Episodes, EpisodeSettings, TaskList, make_task
from ..training.superpixels import superpixel_masks, window
from .finetuner import FineTuner
from .forgetting import MOST, Forgetting
from .label_crops import QUERY_SIDE, PartialImage, Windows, cut_prompts
from .student import CONFIG, train_student
from .validation import Check

CHECKS = 8
"""How often the held-back labels are looked at."""
LEAST_GAIN = 0.1
"""Share of the error on held-back labels that has to go: less is taken as noise."""
LEAST_STEP = 0.005
"""The score has to rise by that much, too, where there was next to no error."""
CHECKPOINT_S = 4.0
FEW_PIXELS = 1000
SUPERPIXEL_TASKS, SUPERPIXEL_SIDE = 48, 256
"""Superpixel tasks that are made at most, and the side of their pictures in pixels."""

log = logging.getLogger(__name__)

OnLook = Callable[[PromptSegmenter, PromptSet, float], None]


@dataclass(frozen=True, eq=False)
class Tuned:
    """What training came to.

    Parameters
    ----------
    network : PromptSegmenter
        The better of the two, in evaluation mode on the CPU.
    config : ModelConfig or None
        Of the network where it is another method's than at the start.
    prompts : PromptSet
        To be used with it; unlike those it was scored with, also of the labels that
        were held back.
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
    images: Sequence[PartialImage],
    settings: FineTuneSettings,
    *,
    device: Device | str = "auto",
    folder: Path,
    held: ValidationPart | None = None,
    unlabelled: Sequence[tuple[str, np.ndarray]] = (),
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
    held : ValidationPart, optional
        How labels were held back; its notes are passed on.
    unlabelled : sequence of (str, (H, W, 3) uint8 array)
        Names and pictures of further images, for ``settings.self_supervised_first``.
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
    began = time.monotonic()
    keep_freed_memory()
    device = choose(device)
    notes = list(held.notes if held else ())
    start = copy.deepcopy(network).to(device.torch_device).eval()
    prompts = cut_prompts(images, settings, start, device)
    zoom = network_scale(prompts, start)
    check = Check(images, prompts, device, settings, zoom)
    if 0 < check.n_pixels < FEW_PIXELS and check.is_validation:
        notes.append(
            f"Only {check.n_pixels} labelled pixels were held back: the scores are "
            "rough. Label more places for a better check."
        )
    tuner = FineTuner(
        copy.deepcopy(start),
        settings,
        folder,
        device.torch_device,
        labelled=_labelled_share(images),
    )
    if resume:
        tuner.resume()
    looking = time.monotonic()
    before = check(start)
    forgetting = Forgetting(images, prompts, start, device, settings)
    reserve = time.monotonic() - looking  # the last look takes as long
    began -= tuner.seconds  # earlier sittings count as well
    if not resume or tuner.best_step == 0:
        tuner.best_value = before.value
    windows = Windows(images, prompts, zoom, settings)
    warm_up = None
    if settings.self_supervised_first and tuner.step < settings.steps:
        on_progress(tuner.step, settings.steps, "superpixels of the images")
        warm_up = _warm_up(images, unlabelled, settings)
        if warm_up is None:
            notes.append("The images show no superpixels to learn from first.")
    stopped = _train(
        tuner,
        windows,
        warm_up,
        check,
        forgetting,
        should_stop,
        on_progress,
        on_partial,
        on_look,
        notes,
        began,
        reserve,
        before.value,
    )
    after = before
    best = start
    if tuner.best_weights:
        best = copy.deepcopy(start)
        best.load_state_dict(tuner.best_weights)
        after = check(best)
    elif tuner.history:
        after = check(tuner.average)
    config = None
    better = bool(tuner.best_weights) and is_better(after.value, before.value)
    kept = "after" if better else "before"
    forgot_background = (
        tuner.history[-1].get("forgetting", 0.0) if tuner.history else 0.0
    )
    if forgot_background > MOST:
        instead = "an earlier state" if better else "the model it started from"
        notes.append(
            f"In the end objects were found on {forgot_background:.0%} of what was background, "
            f"where nothing is labelled: {instead} is kept. Label some of the empty "
            "background, too."
        )
    best = best if kept == "after" else start
    if settings.student and not stopped:
        second = train_student(
            best,
            prompts,
            images,
            settings,
            device,
            folder / "second",
            should_stop,
            on_progress,
        )
        score = check(second)
        better = is_better(score.value, before.value) and score.value > after.value
        said = "does better and is kept" if better else "is not kept"
        notes.append(f"The second network ({score}) {said}.")
        if better:
            best, after, kept, config = second, score, "after", CONFIG
    if kept == "after" and not (
        settings.semantic or any(complete_ids(i.ids).size for i in images)
    ):
        notes.append(
            "No whole object is labelled: how touching ones part was neither learned "
            "nor checked. Compare the two models, and label some whole ones."
        )
    if kept == "before":
        notes.append(
            "Fine-tuning did not do better on the held-back labels: the model it "
            "started from is kept, with your boxes as its prompts."
        )
    if held is not None and not held.whole_images:
        # they were not trained on, but show the model what to find all the same
        all_labels = [replace(i, held=np.zeros_like(i.held)) for i in images]
        prompts = cut_prompts(all_labels, settings, best, device)
    return Tuned(
        best.to("cpu").eval(),
        config,
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


def _labelled_share(images: Sequence[PartialImage]) -> float:
    """Return how much of the images that teach is labelled, held back or not."""
    shares = [(i.ids != UNKNOWN).mean() for i in images if (i.taught != UNKNOWN).any()]
    return float(np.mean(shares)) if shares else 1.0


def is_better(after: float, before: float) -> bool:
    """Return whether a score is so much higher that it is hardly by chance.

    Examples
    --------
    >>> is_better(0.92, 0.90), is_better(0.905, 0.9), is_better(0.998, 0.995)
    (True, False, False)
    """
    enough = after - before >= LEAST_STEP
    return enough and 1 - after < (1 - LEAST_GAIN) * (1 - before)


def _train(
    tuner: FineTuner,
    windows: Windows,
    warm_up: Episodes | None,
    check: Check,
    forgetting: Forgetting,
    should_stop: Callable[[], bool],
    on_progress: Progress,
    on_partial: Callable[[FineTuneProgress], None] | None,
    on_look: OnLook | None,
    notes: list[str],
    began: float,
    reserve: float,
    before: float,
) -> bool:
    """Train to the last step, the end of time or a stop; return whether stopped.

    Time counts from ``began``, and ``reserve`` of it is left over. ``before`` is the
    score to beat.
    """
    settings = tuner.tuning
    every = max(1, settings.steps // CHECKS)
    saved = time.monotonic()
    stopped = False
    try:
        while tuner.step < settings.steps:
            n = tuner.step
            early = warm_up is not None and n < len(warm_up)
            tuner.train_step(warm_up[n] if early else windows[n])  # type: ignore[index]
            tuner.seconds = time.monotonic() - began
            stopped = should_stop()
            over = tuner.seconds + reserve >= settings.seconds
            last = tuner.step >= settings.steps or stopped or over
            dice = None
            if tuner.step % every == 0 or last:
                dice = _look(tuner, check, forgetting, before)
                if on_look is not None:
                    on_look(tuner.average, check.prompts, tuner.seconds)
                tuner.seconds = time.monotonic() - began
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


def _look(
    tuner: FineTuner, check: Check, forgetting: Forgetting, before: float
) -> float:
    """Score the averaged weights, keep them if they are the best; return the Dice.

    Of those that are as good but for chance and better than ``before``, the last are
    kept: few labels that were held back soon tell no difference any more, while images
    still do (one standard error, as in choosing the size of a tree). Weights that
    forgot what background is, where nothing is labelled, are not kept.
    """
    score = check(tuner.average)
    forgot_background = forgetting(tuner.average)
    as_good = score.value >= tuner.best_value - score.chance
    good = score.value > tuner.best_value or (
        as_good and is_better(score.value, before)
    )
    if good and forgot_background <= MOST:
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
            "held_back_f1": math.nan if score.f1 is None else score.f1,
            "forgetting": forgot_background,
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
    images: Sequence[PartialImage],
    unlabelled: Sequence[tuple[str, np.ndarray]],
    settings: FineTuneSettings,
) -> Episodes | None:
    """Return batches of superpixel tasks for the first fifth of the steps.

    Each superpixel and those that look alike are the objects of a pseudo task, as in
    `training.train_self_supervised`; labels are not looked at.
    """
    rng = np.random.default_rng([settings.seed, 31])
    pictures = list(unlabelled)
    for image in images:
        eight_bit = np.clip(image.three * 230 + 12, 0, 255).astype(np.uint8)
        pictures.append((image.name, window(eight_bit, SUPERPIXEL_SIDE, rng)))
    n_masks = max(1, round(SUPERPIXEL_TASKS / len(pictures)))
    tasks = []
    for name, picture in pictures:
        for mask in superpixel_masks(picture, min(4, n_masks), rng):
            task = make_task(name, [picture], [mask], instances=False)
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
