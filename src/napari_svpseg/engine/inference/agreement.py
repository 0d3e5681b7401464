"""Agreement of a new example with those before it: whether it may hurt elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...core.labels.metrics import dice
from ...core.prompt import PromptSet
from ...models.base import PromptSegmenter
from .device import Device
from .forward import Forward, evaluating
from .prompt_features import network_scale, prompt_code, prompt_tensors

TOLERANCE = 0.02
"""How much lower the mean score of the earlier examples may be."""

WORST = 0.10
"""How much lower the score of a single one may be."""


@dataclass(frozen=True)
class Verdict:
    """Scores of the earlier examples without and with a new one.

    Parameters
    ----------
    before, after : float
        Mean score in [0, 1] of the examples before this one.
    worst : float
        Largest loss of a single one.
    """

    before: float
    after: float
    worst: float

    @property
    def agrees(self) -> bool:
        """Whether the new example makes none of the others worse."""
        return self.after >= self.before - TOLERANCE and self.worst <= WORST


def verdicts(
    prompts: PromptSet,
    examples: PromptSet,
    network: PromptSegmenter,
    device: Device,
    *,
    resize: bool = True,
) -> list[Verdict]:
    """Return for each example whether it agrees with the ones before it.

    The earlier examples, which are all true, are segmented with themselves as prompts,
    with and without the new one. One that does not agree is left out when those after
    it are judged. A wrong object takes only objects with it that a gap parts from the
    right ones (see `core.annotation.kinds`), and always agrees.

    Parameters
    ----------
    prompts : PromptSet
        Usable; those before all examples.
    examples : PromptSet
        In the order in which they were made.
    network : PromptSegmenter
    device : Device
    resize : bool
        As for `network_scale`.
    """
    everything = prompts.added(*examples)
    scale = network_scale(prompts, network, resize=resize)
    images, masks = prompt_tensors(everything, scale)
    forward = Forward(network, device)
    trusted = [i for i, p in enumerate(prompts) if not p.marks_object]
    found = []
    with evaluating(network, device):
        before = scores(forward, images, masks, trusted, trusted)
        for i in range(len(prompts), len(everything)):
            if everything[i].marks_object:  # not shown to the network
                mean = float(before.mean())
                found.append(Verdict(mean, mean, 0.0))
                continue
            after = scores(forward, images, masks, [*trusted, i], [*trusted, i])
            loss = before - after[:-1]
            verdict = Verdict(
                float(before.mean()), float(after[:-1].mean()), float(loss.max())
            )
            found.append(verdict)
            if verdict.agrees:
                trusted, before = [*trusted, i], after
    return found


def scores(
    forward: Forward,
    images: Tensor,
    masks: Tensor,
    shown: list[int],
    judged: list[int],
) -> np.ndarray:
    """Return how well some prompts are segmented with others.

    Parameters
    ----------
    forward : Forward
    images : (1, K, 3, h, w) tensor, masks : (1, K, h, w) tensor
    shown : list of int
        Those that the network is given.
    judged : list of int
        Those that are segmented.

    Returns
    -------
    (n,) float array
        Of a positive one the Dice of its known pixels, of a negative one the share of
        the known pixels that are not foreground.
    """
    # Cached: these prompts were encoded for the click before, or will be for this run.
    code = prompt_code(images[:, shown], masks[:, shown], forward)
    found = forward(images[0, judged], code)[:, 0]
    return np.array(
        [_score(*pair) for pair in zip(found, masks[0, judged], strict=True)]
    )


def _score(foreground: Tensor, mask: Tensor) -> float:
    found, truth = foreground > 0.5, mask
    if bool((truth > 0).any()):
        return dice(found.numpy(), (truth > 0).numpy(), ignore=(truth < 0).numpy())
    known = truth == 0
    return 1 - float((found & known).sum() / torch.clamp(known.sum(), min=1))
