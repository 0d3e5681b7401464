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
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.finetune import (
    FineTuneError,
    FineTuneProgress,
    FineTuneSettings,
    HeldBackScore,
)
from ..core.geometry import PROMPT_SIZE, Box
from ..core.image import normalise, to_three_channels
from ..core.instances import instances_from_maps, targets
from ..core.metrics import match_instances
from ..core.partial import (
    UNKNOWN,
    HeldOut,
    complete_ids,
    known_borders,
    prompt_boxes,
)
from ..core.progress import Cancelled, Progress, ignore_progress
from ..core.prompt import Prompt, PromptSet
from ..core.settings import PostprocessSettings, SegmentSettings
from ..models.base import PromptSegmenter, set_deterministic
from ..models.losses import known_mean
from .device import Device, choose
from .episodes import (
    Episodes,
    EpisodeSettings,
    Look,
    Picture,
    TaskList,
    cut,
    disturb,
    make_task,
)
from .predict import network_scale, predict
from .superpixels import superpixel_masks
from .train import Trainer, TrainSettings, episode_loss

Rng = np.random.Generator

QUERY_SIDE = 128
"""Side of a training window, in network pixels."""
CHECKS = 8
"""How often the held-back labels are looked at."""
CHECKPOINT_S = 4.0
MARGIN = 48
"""Network pixels of context around held-back labels when they are scored."""
MAX_WINDOWS = 12
FEW_PIXELS = 1000
SURE, KEPT_SHARE, AGREEMENT = 0.6, 0.8, 0.15
"""Pseudo labels: least confidence, share kept of a class, how far views differ."""
PSEUDO_WEIGHT, PSEUDO_RAMP = 0.5, 0.3

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class PartialImage:
    """One image and what is known of it.

    Parameters
    ----------
    plane : (Y, X, C) array
        Intensities, one to three channels.
    intensities : (C, 2) array
        Percentiles of the whole image.
    ids : (Y, X) int32 array
        -1 = unknown, 0 = background, 1, 2, ... = objects.
    held : (Y, X) bool array
        Labels that are kept out of training.
    name : str
    rgb : bool
    channels : tuple of int, optional
        Of the source, as in `Prompt`.
    """

    plane: np.ndarray
    intensities: np.ndarray
    ids: np.ndarray
    held: np.ndarray
    name: str = ""
    rgb: bool = False
    channels: tuple[int, ...] | None = None

    @cached_property
    def taught(self) -> np.ndarray:
        """(Y, X) int32 ids without those that are held back."""
        return np.where(self.held, UNKNOWN, self.ids).astype(np.int32)

    @cached_property
    def three(self) -> np.ndarray:
        """(Y, X, 3) float32 intensities, about 0 to 1."""
        standard = to_three_channels(normalise(self.plane, self.intensities))
        return np.asarray(standard * 0.25 + 0.5, np.float32)

    def prompt(self, box: Box, ids: np.ndarray | None = None) -> Prompt:
        """Return the prompt in a box, with these ids instead of the known ones."""
        mask = np.maximum(self.taught if ids is None else ids, 0)
        return Prompt.from_image(
            self.plane,
            mask,
            box,
            rgb=self.rgb,
            source=self.name,
            name=f"{self.name or 'image'} y={box.y} x={box.x}",
            intensities=self.intensities,
        )


@dataclass(frozen=True, eq=False)
class _Taught(Picture):
    """A picture of which only some pixels are known."""

    complete: np.ndarray = field(default_factory=lambda: np.zeros(0, int))

    @property
    def intensities(self) -> np.ndarray:
        """(3, 2): the image is scaled already."""
        return np.tile([0.0, 1.0], (3, 1))


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


# ---------------------------------------------------------------- prompts


def cut_prompts(
    images: Sequence[PartialImage],
    settings: FineTuneSettings,
    network: PromptSegmenter,
    device: Device,
) -> PromptSet:
    """Return the prompts that labelled places offer.

    Where no box is labelled completely, as with scribbles, the network fills in what
    is missing: prompts have no unknown pixels.

    Raises
    ------
    FineTuneError
        If no place shows an object.
    """
    boxes = prompt_boxes([i.taught for i in images], settings.prompts, settings.seed)
    if boxes:
        return PromptSet((images[i].prompt(box) for i, box in boxes), "labelled boxes")
    found = _filled_prompts(images, settings, network, device)
    if not found:
        raise FineTuneError(
            "No place shows an object and something else: label an object and some "
            "background near it."
        )
    return PromptSet(found, "scribbles, completed by the model")


def _filled_prompts(
    images: Sequence[PartialImage],
    settings: FineTuneSettings,
    network: PromptSegmenter,
    device: Device,
) -> list[Prompt]:
    sites = _scribbled_boxes(images, settings)
    if not sites:
        return []
    crops, masks = [], []
    for i, box in sites:
        standard = (images[i].three[box.slices] - 0.5) / 0.25
        crops.append(standard.transpose(2, 0, 1))
        masks.append(images[i].taught[box.slices])
    to = device.torch_device
    with torch.inference_mode():
        network = network.to(to).eval()
        queries = torch.from_numpy(np.stack(crops)).to(to)
        code = network.encode_prompts(
            queries[None], torch.from_numpy(np.stack(masks)).long()[None].to(to)
        )
        maps = network(queries, code)
    prompts = []
    for n, (i, box) in enumerate(sites):
        seen = (maps["foreground"][n, 0] > 0).cpu().numpy().astype(np.int32)
        mask = np.where(masks[n] == UNKNOWN, seen, masks[n])
        if 0 < (mask > 0).mean() < 1:
            whole = np.zeros(images[i].ids.shape, np.int32)
            whole[box.slices] = _as_objects(mask)
            prompts.append(images[i].prompt(box, whole))
    return prompts


def _as_objects(mask: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    return np.asarray(ndimage.label(mask > 0)[0], np.int32)


def _scribbled_boxes(
    images: Sequence[PartialImage], settings: FineTuneSettings
) -> list[tuple[int, Box]]:
    """Return boxes with the most labels of both kinds, at most one per 64 pixels."""
    from scipy import ndimage

    sites: list[tuple[float, int, Box]] = []
    for i, image in enumerate(images):
        ids = image.taught
        side = min(PROMPT_SIZE, *ids.shape)
        if side < 16 or not (ids > 0).any():
            continue
        near = [
            ndimage.uniform_filter(mask.astype(float), side)
            for mask in (ids == 0, ids > 0)
        ]
        value = np.sqrt(np.maximum(near[0], 0)) + np.sqrt(np.maximum(near[1], 0))
        value[~(ids > 0)] = -1
        for _ in range(settings.prompts):
            y, x = np.unravel_index(np.argmax(value), value.shape)
            if value[y, x] < 0:
                break
            box = Box.centred((y, x), side).clamped(ids.shape)
            sites.append((float(value[y, x]), i, box))
            value[box.slices] = -1
    sites.sort(key=lambda s: -s[0])
    return [(i, box) for _, i, box in sites[: settings.prompts]]


# ---------------------------------------------------------------- windows


class Windows:
    """Batches of training windows, by number: the same for the same seed.

    Parameters
    ----------
    images : sequence of PartialImage
    prompts : PromptSet
        Where prompts are cut, and how large they are.
    zoom : float
        Network pixels per image pixel.
    settings : FineTuneSettings
    """

    def __init__(
        self,
        images: Sequence[PartialImage],
        prompts: PromptSet,
        zoom: float,
        settings: FineTuneSettings,
    ) -> None:
        self.settings, self.zoom = settings, zoom
        self.pictures = [
            _Taught(i.three, i.taught, complete_ids(i.taught)) for i in images
        ]
        self.is_object = not settings.semantic
        sides = [p.box.size * zoom for p in prompts]
        self.prompt_side = int(np.clip(round(np.median(sides) / 16) * 16, 32, 96))
        self.sites = self._sites(images)
        by_name = {image.name: n for n, image in enumerate(images)}
        self.prompt_sites = [
            (by_name[p.source], p.box.y + p.box.size / 2, p.box.x + p.box.size / 2)
            for p in prompts
            if not p.is_negative
        ]

    @staticmethod
    def _sites(
        images: Sequence[PartialImage],
    ) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """Return, for each labelled region, image, object pixels and other pixels."""
        from ..core.partial import label_regions

        sites = []
        for n, image in enumerate(images):
            regions, count = label_regions(image.taught != UNKNOWN)
            for r in range(1, count + 1):
                pixels = np.stack(np.nonzero(regions == r), axis=1)
                objects = image.taught[tuple(pixels.T)] > 0
                sites.append((n, pixels[objects], pixels[~objects]))
        return sites

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """Return batch ``number``; keys as in `episodes.cut_episode`, and ``clean``."""
        seed = self.settings.seed
        rng = np.random.default_rng([seed, 23, number])
        n_prompts = int(rng.choice([1, 2, 3], p=[0.4, 0.3, 0.3]))
        windows = [
            self._window(np.random.default_rng([seed, 29, number, i]), n_prompts)
            for i in range(self.settings.batch)
        ]
        return {k: torch.stack([w[k] for w in windows]) for k in windows[0]}

    def _window(self, rng: Rng, n_prompts: int) -> dict[str, Tensor]:
        look = Look.draw(rng) if rng.random() < 0.4 else _PLAIN
        shift = float(np.exp(rng.normal(0, 0.12)))
        n, centre = self._place(rng)
        prompts, masks = [], []
        for _ in range(n_prompts):
            crop, ids = self._prompt(rng, (n, *centre))
            prompts.append(disturb(look(crop), rng, 0.4))
            masks.append(ids.astype(np.int64))
        zoom = self.zoom * shift
        crop, ids = cut(self.pictures[n], centre, QUERY_SIDE, zoom, rng, turn=True)
        seen = look(crop)
        maps = self._targets(ids, self.pictures[n].complete)
        window = {
            k: torch.from_numpy(np.asarray(v, np.float32)[None])
            for k, v in maps.items()
        }
        window["clean"] = torch.from_numpy(
            np.asarray((np.clip(seen, -0.2, 1.2) - 0.5) / 0.25, np.float32)
        )
        window["query"] = torch.from_numpy(disturb(seen, rng, 0.7))
        window["prompts"] = torch.from_numpy(np.stack(prompts))
        window["masks"] = torch.from_numpy(np.stack(masks))
        return window

    def _place(self, rng: Rng) -> tuple[int, np.ndarray]:
        """Return an image and a place in it, mostly where something is known."""
        if self.settings.pseudo_labels and rng.random() < 0.15:
            n = int(rng.integers(len(self.pictures)))
            return n, rng.uniform([0, 0], self.pictures[n].ids.shape)
        n, objects, others = self.sites[rng.integers(len(self.sites))]
        wanted = len(objects) and (rng.random() < 0.6 or not len(others))
        pixels = objects if wanted else others
        jitter = 0.25 * QUERY_SIDE / self.zoom
        return n, pixels[rng.integers(len(pixels))] + rng.uniform(-jitter, jitter, 2)

    def _prompt(
        self, rng: Rng, query: tuple[float, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return a prompt, from another place than the query's where there is one."""
        far = [
            s
            for s in self.prompt_sites
            if s[0] != query[0] or math.dist(s[1:], query[1:]) > QUERY_SIDE / self.zoom
        ]
        sites = far if far and rng.random() < 0.8 else self.prompt_sites
        for attempt in range(4):
            n, y, x = sites[rng.integers(len(sites))]
            jitter = (0.1, 0.1, 0.05, 0.0)[attempt] * self.prompt_side / self.zoom
            centre = np.array([y, x]) + rng.uniform(-jitter, jitter, 2)
            turn = attempt < 2 and rng.random() < 0.4
            crop, ids = cut(
                self.pictures[n], centre, self.prompt_side, self.zoom, rng, turn=turn
            )
            if (ids > 0).any():
                break
        return crop, ids

    def _targets(self, ids: np.ndarray, complete: np.ndarray) -> dict[str, np.ndarray]:
        foreground, distance, boundary = targets(np.maximum(ids, 0))
        depth, outline = known_borders(ids, complete)
        instances = float(self.is_object)
        return {
            "foreground": foreground,
            "distance": distance,
            "boundary": boundary,
            "known": (ids != UNKNOWN).astype(np.float32),
            "instances": depth * instances,
            "outlines": outline * instances,
        }


_PLAIN = Look((0, 1, 2), None, False, 1.0)


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
    check = _Check(images, prompts, device, settings, zoom)
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
        tuner, windows, warm_up, check, should_stop, on_progress, on_partial, notes
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
    check: _Check,
    should_stop: Callable[[], bool],
    on_progress: Progress,
    on_partial: Callable[[FineTuneProgress], None] | None,
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


def _look(tuner: FineTuner, check: _Check) -> float:
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


# ---------------------------------------------------------------- the check


class _Check:
    """Scores a network on held-back labels, or on all where none are held back."""

    def __init__(
        self,
        images: Sequence[PartialImage],
        prompts: PromptSet,
        device: Device,
        settings: FineTuneSettings,
        zoom: float,
    ) -> None:
        self.prompts, self.device, self.settings = prompts, device, settings
        self.is_held_back = any(i.held.any() for i in images)
        self.windows = [
            window
            for image in images
            for window in _check_windows(
                image,
                image.held if self.is_held_back else image.ids != UNKNOWN,
                round(MARGIN / zoom),
            )
        ]
        self.windows.sort(key=lambda w: -int(w[2].sum()))
        self.windows = self.windows[:MAX_WINDOWS]
        self.n_pixels = int(sum(w[2].sum() for w in self.windows))

    def __call__(self, network: PromptSegmenter) -> HeldBackScore:
        """Return the score of a network."""
        both = found = true = tp = fp = fn = n_objects = 0
        post = PostprocessSettings()
        for image, where, held in self.windows:
            prediction = predict(
                image.plane[where],
                self.prompts,
                network,
                self.device,
                SegmentSettings(trust=False),
                image.intensities,
            )
            ids = np.maximum(image.ids[where], 0)
            p, t = (prediction.maps.foreground > 0.5) & held, (ids > 0) & held
            both, found = both + int((p & t).sum()), found + int(p.sum())
            true += int(t.sum())
            if self.settings.semantic:
                continue
            inside = np.where(held, ids, 0)
            n_objects += len(np.unique(inside[inside > 0]))
            if complete_ids(np.where(held, ids, UNKNOWN)).size:
                labels = instances_from_maps(prediction.maps, post)
                match = match_instances(labels, ids, 0.5, ~held)
                tp, fp, fn = tp + match.tp, fp + match.fp, fn + match.fn
        dice = 2 * both / (found + true) if found + true else math.nan
        f1 = 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else None
        return HeldBackScore(dice, f1, self.n_pixels, n_objects)


def _check_windows(
    image: PartialImage, held: np.ndarray, margin: int
) -> list[tuple[PartialImage, tuple[slice, slice], np.ndarray]]:
    from scipy import ndimage

    from ..core.partial import label_regions

    regions, _ = label_regions(held)
    windows = []
    for n, found in enumerate(ndimage.find_objects(regions), start=1):
        where = tuple(
            slice(max(0, s.start - margin), min(size, s.stop + margin))
            for s, size in zip(found, held.shape, strict=True)
        )
        windows.append((image, where, regions[where] == n))
    return windows
