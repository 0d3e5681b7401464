"""The training step of fine-tuning: labelled pixels, a teacher for the rest, an anchor.

Prompts are cut from labelled places, queries from other ones. The loss counts labelled
pixels only. For the others, an averaged copy of the network (the teacher) gives pseudo
labels where it is confident in two views of a window. An anchor holds the weights near
those at the start. People label objects and what is next to them, so objects are more
frequent among labels than in images: the logits that the loss sees are shifted by as
much.

References
----------
X. Li, Y. Grandvalet, F. Davoine. "Explicit inductive bias for transfer learning with
convolutional networks" (L2-SP). ICML 2018.
A. Tarvainen, H. Valpola. "Mean teachers are better role models". NeurIPS 2017.
A. K. Menon et al. "Long-tail learning via logit adjustment". ICLR 2021.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...core.jobs.finetune_job import FineTuneSettings
from ...models.base import PromptSegmenter
from ...models.losses import known_mean
from ..training.trainer import (
    Trainer,
    TrainSettings,
    add_gradient,
    episode_maps,
    episode_terms,
)

MIN_CONFIDENCE, KEPT_SHARE, AGREEMENT = 0.6, 0.8, 0.15
"""Pseudo labels: least confidence, share kept of a class, how far views may differ."""
PSEUDO_WEIGHT, PSEUDO_RAMP = 0.5, 0.3
"""Their weight, and the share of steps in which it grows."""
BEFORE = "before "
"""Begins the names of maps of the network at the start."""
PRIOR_SHIFT = math.log(2)
"""How much higher the log odds of foreground are among few labels than in images."""


class FineTuner(Trainer):
    """A trainer of a network on partial labels.

    Parameters
    ----------
    network : PromptSegmenter
        What it starts from; is changed.
    settings : FineTuneSettings
    folder : Path
        Holds the checkpoint.
    device : torch.device
    labelled : float
        Share of the images that is labelled. If all is, objects are as frequent among
        the labels as in other images, and nothing is shifted.
    """

    def __init__(
        self,
        network: PromptSegmenter,
        settings: FineTuneSettings,
        folder: Path,
        device: torch.device,
        labelled: float = 1.0,
    ) -> None:
        self.tuning = settings
        self.shift = PRIOR_SHIFT * (1 - labelled)
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
        self.start = copy.deepcopy(self.network).eval().requires_grad_(False)
        """The network before training."""
        self.confidence_limits = torch.zeros(2)
        """Confidence from which a pixel of background and of foreground counts."""
        self.loss_mean = math.nan
        self.best_step = 0
        self.best_value = -math.inf
        self.best_weights: dict[str, Tensor] = {}

    def state(self) -> dict[str, Any]:
        """Return the contents of a checkpoint."""
        return super().state() | {
            "fine_tuning": self.tuning.to_dict(),
            "confidence_limits": self.confidence_limits,
            "loss_mean": self.loss_mean,
            "best_step": self.best_step,
            "best_value": self.best_value,
            "best_weights": self.best_weights,
        }

    def take_state(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint's contents, see `state`."""
        super().take_state(state)
        for name in (
            "confidence_limits",
            "loss_mean",
            "best_step",
            "best_value",
            "best_weights",
        ):
            setattr(self, name, state[name])

    def train_step(self, batch: dict[str, Tensor]) -> float:
        """Take one step; return its loss."""
        if "cut" in batch and not batch["cut"].any():  # superpixels, whole objects
            batch = {k: v for k, v in batch.items() if k != "cut"}
        loss = self._train_step(batch)["total"]
        if math.isfinite(loss):
            mean = loss if math.isnan(self.loss_mean) else self.loss_mean
            self.loss_mean = 0.9 * mean + 0.1 * loss
        return loss

    def _maps(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the maps, and those of the network at the start where it decides."""
        maps = super()._maps(batch)
        if self.tuning.anchor and "distance" in maps and "cut" in batch:
            with torch.no_grad():
                before = episode_maps(self.start, batch)
            maps |= {BEFORE + k: before[k] for k in ("foreground", "distance")}
        return maps

    def _terms(
        self, batch: dict[str, Tensor], maps: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        parts = episode_terms(self.network, batch, maps, self.shift)
        parts |= self._depth_loss(batch, maps)
        if not (self.tuning.pseudo_labels and "clean" in batch):
            return parts
        target, kept = self._pseudo_labels(batch)
        ramp = min(1.0, self.step / max(1.0, PSEUDO_RAMP * self.settings.steps))
        loss = F.binary_cross_entropy_with_logits(
            maps["foreground"], target, reduction="none"
        )
        parts["pseudo"] = PSEUDO_WEIGHT * ramp * known_mean(loss, kept)
        return parts

    def _depth_loss(
        self, batch: dict[str, Tensor], maps: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Hold the distance to what it was where an object goes on into the unknown.

        How deep such an object is, its labels do not tell. Background has a distance of
        0, and learned from background alone the distance would be 0 everywhere: then
        nothing parts objects that touch.
        """
        if BEFORE + "distance" not in maps:
            return {}
        known = batch["known"] == 0
        where = batch["cut"] + known * maps[BEFORE + "foreground"].sigmoid()
        change = maps["distance"].sigmoid() - maps[BEFORE + "distance"].sigmoid()
        return {"depth": known_mean(change.abs(), where)}

    def _backward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute the gradients, those of the anchor among them; return all terms."""
        parts = super()._backward(batch)
        strength = self.tuning.anchor
        if not strength:
            return parts
        weights = list(self.network.parameters())
        # by hand, as autograd takes longer
        moved = torch._foreach_sub(
            [p.detach() for p in weights], [p.detach() for p in self.start.parameters()]
        )
        squares = torch.stack([d.square().sum() for d in moved]).sum()
        for weight, far in zip(weights, moved, strict=True):
            add_gradient(weight, far.mul_(2 * strength))
        return parts | {"anchor": strength * squares}

    @torch.no_grad()
    def _pseudo_labels(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the teacher's labels (0 or 1), and 1 where they are learned from."""
        teacher, clean = self.average, batch["clean"]
        code = teacher.encode_prompts(batch["prompts"], batch["masks"])
        both = teacher(
            torch.cat([clean, clean.flip(-1)]),
            {k: torch.cat([v, v]) for k, v in code.items()},
        )["foreground"].sigmoid()
        one, other = both.chunk(2)
        other = other.flip(-1)  # mirrored back
        mean = (one + other) / 2
        found = (mean > 0.5).float()
        confidence = torch.where(mean > 0.5, mean, 1 - mean)
        unknown = batch["known"] == 0
        limit = torch.empty_like(mean)
        for c in (0, 1):
            of_class = unknown & (found == c)
            if of_class.sum() > 50:
                values = confidence[of_class]
                values = values[:: max(1, len(values) // 20_000)]  # a sample is enough
                q = torch.quantile(values, 1 - KEPT_SHARE)
                old = float(self.confidence_limits[c])
                self.confidence_limits[c] = (
                    float(q) if not old else 0.9 * old + 0.1 * float(q)
                )
            limit[found == c] = max(MIN_CONFIDENCE, float(self.confidence_limits[c]))
        # where 5 x 5 pixels hold both labels: the greatest is 1 and the smallest 0
        band = F.max_pool2d(found, 5, 1, 2) + F.max_pool2d(-found, 5, 1, 2) > 0
        kept = unknown & (confidence >= limit) & ~band
        kept &= (one - other).abs() <= AGREEMENT
        return found, kept.float()
