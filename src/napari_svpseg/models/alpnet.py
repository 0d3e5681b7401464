"""Adaptive local prototypes: one mean vector for each window of the prompt.

References
----------
C. Ouyang, C. Biffi, C. Chen, T. Kart, H. Qiu, D. Rueckert. "Self-supervision with
superpixels: training few-shot medical image segmentation without annotation"
(SSL-ALPNet). ECCV, 2020; IEEE Transactions on Medical Imaging, 2022.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import PromptCode, register
from .panet import STRIDE, PrototypeSegmenter, cosine_map, masked_average
from .svp_attention import label_values

CLASSES = ("background", "foreground")
OFF = -1e4
"""Added to the score of a window that does not count."""


@register("alpnet")
class LocalPrototypeSegmenter(PrototypeSegmenter):
    """M5: local prototypes of both classes, and a global one of the foreground.

    Parameters
    ----------
    width, features, scale
        As for `PrototypeSegmenter`; the weights of the two methods fit each other.
    window : int
        Side of a window in feature pixels (4 image pixels each).
    coverage : float
        A window counts for a class that covers more than this share of it.
    least_coverage : float
        The same, for prompts in which no window reaches ``coverage``: thin objects.
    local_prototypes : bool
        Switch off, for ablation: then each prompt has one prototype for each class.
    """

    def __init__(
        self,
        width: int = 24,
        features: int = 48,
        scale: float = 20.0,
        window: int = 2,
        coverage: float = 0.95,
        least_coverage: float = 0.5,
        local_prototypes: bool = True,
    ) -> None:
        super().__init__(width, features, scale)
        self.window = window
        self.coverage, self.least_coverage = coverage, least_coverage
        self.local_prototypes = local_prototypes

    def prototypes(self, features: Tensor, masks: Tensor) -> PromptCode:
        """Return the vectors (B, M, D) of all prompts and their biases (B, M).

        ``background`` and ``foreground`` are each class's vectors; the bias is 0 where
        a vector counts and very low where it does not.
        """
        together = masks.shape[:2]
        features = features.flatten(0, 1)
        shares = class_shares(masks.flatten(0, 1), features.shape[-2:])
        local = windows(features, self.window)
        code: PromptCode = {}
        for index, name in enumerate(CLASSES):
            whole = masked_average(features, shares[:, index])[:, None]
            code |= self.bag(name, whole, local, shares[:, index], together)
        return code

    def bag(
        self,
        name: str,
        whole: Tensor,
        local: Tensor,
        share: Tensor,
        together: tuple[int, int],
    ) -> PromptCode:
        """Return a class's vectors and biases, of all prompts as one list an episode.

        Parameters
        ----------
        name : str
            One of `CLASSES`.
        whole : (B K, 1, D) tensor
            Global prototypes.
        local : (B K, M, D) tensor
            Window vectors.
        share : (B K, h, w) tensor
            What the class covers of each feature pixel.
        together : (B, K)
        """
        counts = self.counting(windows(share[:, None], self.window)[..., 0])
        always = (share.sum((1, 2)) > 0)[:, None]
        if name == "background":  # has a global prototype in need only
            always = always & ~counts.any(dim=1, keepdim=True)
        vectors = torch.cat([whole, local], dim=1)
        bias = torch.where(torch.cat([always, counts], dim=1), 0.0, OFF)
        batch, n_prompts = together
        return {
            name: vectors.reshape(batch, n_prompts * vectors.shape[1], -1),
            f"{name}_bias": bias.reshape(batch, n_prompts * bias.shape[1]),
        }

    def counting(self, covered: Tensor) -> Tensor:
        """Return which windows (N, M) count, given how much a class covers of each."""
        if not self.local_prototypes:
            return torch.zeros_like(covered, dtype=torch.bool)
        strict = covered > self.coverage
        loose = covered > self.least_coverage
        return torch.where(strict.any(dim=1, keepdim=True), strict, loose)

    def compare(self, features: Tensor, code: PromptCode) -> Tensor:
        """Return logits (B, 1, h, w) of a query's features (B, D, h, w)."""
        batch = features.shape[0]
        background, foreground = (
            soft_maximum(
                self.scale * cosine_map(features, code[name].expand(batch, -1, -1)),
                code[f"{name}_bias"].expand(batch, -1),
            )
            for name in CLASSES
        )
        return (foreground - background)[:, None]


def class_shares(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Return shares of background and foreground in each feature pixel.

    Area means, as nearest neighbours would lose thin structures.

    Parameters
    ----------
    masks : (N, h, w) int tensor
    size : (int, int)
        Of the feature maps, whose padding is covered by no class.

    Returns
    -------
    (N, 2, *size) float tensor
    """
    values, _ = label_values(masks[:, None])
    down, right = (
        STRIDE * n - side for n, side in zip(size, masks.shape[1:], strict=True)
    )
    return F.avg_pool2d(F.pad(values[:, 0], (0, right, 0, down)), STRIDE)


def windows(maps: Tensor, side: int) -> Tensor:
    """Return the means of non-overlapping windows, (B, N, C), of maps (B, C, h, w)."""
    side = min(side, *maps.shape[2:])
    return F.avg_pool2d(maps, side).flatten(2).transpose(1, 2)


def soft_maximum(scores: Tensor, bias: Tensor) -> Tensor:
    """Return the mean of scores weighted by their own softmax.

    Parameters
    ----------
    scores : (B, M, h, w) tensor
    bias : (B, M) tensor
        Low where a score does not count; a row in which none counts gives 0.

    Returns
    -------
    (B, h, w) tensor
    """
    weights = (scores + bias[..., None, None]).softmax(dim=1)
    some = (bias > OFF / 2).any(dim=1)[:, None, None]
    return (weights * scores).sum(1) * some
