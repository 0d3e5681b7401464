"""Losses of the first stage of training from tags, one for each variant.

In the shapes below B is the number of windows in a batch, N of classes, K of prototypes
of a class.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...models.losses import known_mean
from ...models.pbip import PrototypePrompting, match_losses
from ...models.prototype_memory import (
    MemoryPrompting,
    cam_labels,
    memory_contrast,
    normalised_cam,
    region_loss,
)
from ...models.semantic import UNKNOWN
from .patch_bank import Bank
from .tagged_crops import Windows, turned


class TagTargets:
    """Training targets of windows from the tags of their images.

    An image is a bag of windows (multiple-instance learning). A class that the image
    does not show is absent from all its windows. A class that it shows is in some of
    them only: it is the target of the window with the highest logit so far.

    Parameters
    ----------
    windows : Windows
    """

    def __init__(self, windows: Windows) -> None:
        self.windows = windows
        n_windows = torch.bincount(windows.owner)
        self._alone = n_windows[windows.owner] == 1
        # infinite: a window without a prediction yet is as strong as any
        self._strength = torch.full((len(windows), windows.tags.shape[1]), math.inf)

    def of(self, index: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the target tags (B, N) of windows, and the weight (B, N) of each.

        Parameters
        ----------
        index : (B,) int64 tensor
            Numbers of the windows, on the CPU.
        device : torch.device
            Of the result.
        """
        tags = self.windows.tags[self.windows.owner[index]]
        weight = torch.ones_like(tags)
        for row, at in enumerate(index.tolist()):
            if self._alone[at]:
                continue
            # of a class that the image shows, only the strongest window counts; of
            # classes that it does not show, every window counts as a negative
            siblings = self._strength[self.windows.owner == self.windows.owner[at]]
            strongest = (self._strength[at] >= siblings.amax(0)).float()
            weight[row] = torch.where(tags[row] > 0, strongest, 1)
        return tags.to(device), weight.to(device)

    def state(self) -> dict[str, Tensor]:
        """Return what has to be in a checkpoint."""
        return {"strength": self._strength}

    def take_state(self, state: dict[str, Tensor]) -> None:
        """Continue from what `state` returned."""
        self._strength = state["strength"].cpu()

    def update(self, index: Tensor, logits: Tensor) -> None:
        """Store the logits (B, N) of windows, to compare windows of one image."""
        self._strength[index] = logits.detach().float().cpu()


def tag_loss(logits: Tensor, tags: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean binary cross-entropy of tags; all tensors (B, N)."""
    loss = F.binary_cross_entropy_with_logits(logits, tags, reduction="none")
    return known_mean(loss, weight)


class PublishedLoss:
    """Loss of the published variant: tags at all strides, and contrast with the bank.

    Parameters
    ----------
    windows : Windows
    bank : Bank
    contrast : bool
        Whether regions are compared with the bank, see `models.pbip.match_losses`.
    seed : int
        For the classes that are compared.
    """

    contrast_weight = 0.05

    def __init__(
        self, windows: Windows, bank: Bank, *, contrast: bool, seed: int = 0
    ) -> None:
        self.targets, self.bank, self.contrast = TagTargets(windows), bank, contrast
        self._generator = torch.Generator().manual_seed(seed)

    def state(self) -> dict[str, Any]:
        """Return what has to be in a checkpoint."""
        return self.targets.state() | {"generator": self._generator.get_state()}

    def take_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.targets.take_state(state)
        self._generator.set_state(state["generator"].cpu())

    def __call__(
        self, network: PrototypePrompting, batch: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the terms of the loss of a batch by name."""
        levels = network.similarities(batch["query"])
        logits, subclasses = network.tag_logits(levels)
        index = batch["window"].cpu()
        tags, weight = self.targets.of(index, batch["query"].device)
        self.targets.update(index, torch.stack(logits).mean(0))
        # levels weigh as they do in the fused map
        share = [network.fusion[i] for i in network.levels]
        each = [
            s * tag_loss(x, tags, weight) for s, x in zip(share, logits, strict=True)
        ]
        parts = {"tags": torch.stack(each).sum() / sum(share)}
        if self.contrast:
            shown = tags * weight
            parts |= self._contrast(network, batch["query"], levels, subclasses, shown)
        return parts

    def _contrast(
        self,
        network: PrototypePrompting,
        query: Tensor,
        levels: list[Tensor],
        subclasses: Tensor,
        shown: Tensor,
    ) -> dict[str, Tensor]:
        """Return the contrast terms of one class, drawn at random, of each window.

        Parameters
        ----------
        network : PrototypePrompting
        query : (B, 3, S, S) tensor
        levels : list of (B, N, K, h, w) tensors
            Similarity maps.
        subclasses : (B, N, K) tensor
            Tag logits of subclasses.
        shown : (B, N) tensor
            Above 0 for each class that a window shows.
        """
        rows = shown.any(1).nonzero()[:, 0]  # windows that show any class
        if not len(rows):
            return {}
        kinds = torch.multinomial(
            shown[rows].float().cpu(), 1, generator=self._generator
        )[:, 0].to(rows.device)
        # the region should resemble the prototype that the window activates most
        active = subclasses[rows, kinds].masked_fill(~network.filled[kinds], -math.inf)
        # each map is normalised by its own maximum: the window shows the class
        maps = network.fused(
            [
                m[rows] / m[rows].detach().amax((2, 3), keepdim=True).clamp(min=1e-4)
                for m in network.class_maps(levels)
            ],
            query.shape[-2:],
        )[torch.arange(len(rows)), kinds]
        parts = match_losses(
            self.bank.encoder,
            query[rows],
            maps,
            network.bank,
            (kinds, active.argmax(1)),
            self.bank.background,
        )
        return {name: self.contrast_weight * value for name, value in parts.items()}


class SeedLoss:
    """Loss of the seed variant: tags, pseudo labels, memory contrast and regions.

    Parameters
    ----------
    windows : Windows
    warm_up : int
        Steps in which only tags are learned: activation maps of an untrained network
        make no labels.
    contrast : bool
        Whether regions are compared with the memory.
    """

    contrast_weight = 0.1
    region_weight = 0.1

    def __init__(self, windows: Windows, *, warm_up: int, contrast: bool) -> None:
        self.targets = TagTargets(windows)
        self.warm_up, self.contrast = warm_up, contrast
        self.step = 0

    def state(self) -> dict[str, Any]:
        """Return what has to be in a checkpoint."""
        return self.targets.state() | {"step": self.step}

    def take_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.targets.take_state(state)
        self.step = state["step"]

    def __call__(
        self, network: MemoryPrompting, batch: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the terms of the loss of a batch; its ``maps`` are superpixels."""
        query, index = batch["query"], batch["window"].cpu()
        seen = network.activations(query)
        tags, weight = self.targets.of(index, query.device)
        logits = seen["cam"].mean((2, 3))
        self.targets.update(index, logits)
        parts = {"tags": tag_loss(logits, tags, weight)}
        self.step += 1
        if self.step <= self.warm_up:
            return parts
        # detached: labels made from the maps must not train the maps
        scores = normalised_cam(seen["cam"].detach(), tags)
        network.update_memory(seen["features"].detach(), scores)
        size = query.shape[-2:]
        fine = F.interpolate(scores, size, mode="bilinear", align_corners=False)
        labels = cam_labels(fine)
        known = (labels != UNKNOWN).float()
        entropy = F.cross_entropy(
            seen["logits"], torch.where(known > 0, labels, 0), reduction="none"
        )
        parts["labels"] = known_mean(entropy, known)
        if self.contrast:
            parts["memory"] = self.contrast_weight * memory_contrast(
                seen["features"], scores, network.memory
            )
        parts["regions"] = self.region_weight * (
            region_loss(seen["logits"], batch["maps"])
            + self._consistency(network, query, seen["logits"])
        )
        return parts

    def _consistency(
        self, network: MemoryPrompting, query: Tensor, logits: Tensor
    ) -> Tensor:
        """Return the mean difference of predictions for a turned and shaded view."""
        rng = np.random.default_rng(self.step)  # repeatable, without a state of its own
        turn = int(rng.integers(1, 4))
        gain, shift = rng.uniform(0.85, 1.2), rng.uniform(-0.25, 0.25)
        other = network.class_logits(turned(query, turn, False) * gain + shift)
        # turned back, so that pixels correspond
        back = turned(other, 4 - turn, False)
        return (back.softmax(1) - logits.softmax(1)).abs().sum(1).mean()
