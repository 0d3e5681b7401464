"""Adaptive local prototypes: one mean vector for each window of the prompt.

In the shapes below M is the number of prototypes of one class: one global prototype and
one for each window.

References
----------
C. Ouyang, C. Biffi, C. Chen, T. Kart, H. Qiu, D. Rueckert. "Self-supervision with
superpixels: training few-shot medical image segmentation without annotation"
(SSL-ALPNet). ECCV, 2020; IEEE Transactions on Medical Imaging, 2022.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import MASKED, PromptCode, register
from .panet import STRIDE, PrototypeSegmenter, cosine_map, masked_average
from .svp_attention import label_values

CLASSES = ("background", "foreground")


@register("alpnet")
class LocalPrototypeSegmenter(PrototypeSegmenter):
    """M5: local prototypes of both classes, and a global one of the foreground.

    Parameters
    ----------
    width, features, scale
        See `PrototypeSegmenter`; weights of one method fit the other.
    window : int
        Side of a window in feature pixels (4 image pixels each).
    coverage : float
        A window is a prototype of a class that covers more than this share of it.
    least_coverage : float
        The same for prompts in which no window reaches ``coverage`` (thin objects).
    local_prototypes : bool
        False for ablation: each prompt has one prototype of each class.
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
        """Return ``background`` and ``foreground``, the prototypes (B, K M, D).

        ``background_bias`` and ``foreground_bias`` (B, K M) are 0 for a vector that is
        a prototype of the class and `MASKED` for the others, so that all episodes of a
        batch have the same number of vectors.
        """
        batch_shape = masks.shape[0], masks.shape[1]
        features = features.flatten(0, 1)  # (B K, D, h, w)
        shares = class_shares(masks.flatten(0, 1), features.shape[-2:])
        local = windows(features, self.window)
        code: PromptCode = {}
        for index, name in enumerate(CLASSES):
            whole = masked_average(features, shares[:, index])[:, None]
            code |= self.class_prototypes(
                name, whole, local, shares[:, index], batch_shape
            )
        return code

    def class_prototypes(
        self,
        name: str,
        whole: Tensor,
        local: Tensor,
        share: Tensor,
        batch_shape: tuple[int, int],
    ) -> PromptCode:
        """Return the prototypes of one class and their biases, see `prototypes`.

        Parameters
        ----------
        name : str
            One of `CLASSES`.
        whole : (B K, 1, D) tensor
            Global prototypes.
        local : (B K, M - 1, D) tensor
            Mean vectors of windows.
        share : (B K, h, w) tensor
            Share of each feature pixel that the class covers.
        batch_shape : (B, K)
        """
        counts = self.counting(windows(share[:, None], self.window)[..., 0])
        always = (share.sum((1, 2)) > 0)[:, None]
        # The background is many different things, whose mean is like none of them: its
        # global prototype is used only where no window is background.
        if name == "background":
            always = always & ~counts.any(dim=1, keepdim=True)
        vectors = torch.cat([whole, local], dim=1)  # (B K, M, D)
        bias = torch.where(torch.cat([always, counts], dim=1), 0.0, MASKED)
        batch, n_prompts = batch_shape
        return {
            name: vectors.reshape(batch, n_prompts * vectors.shape[1], -1),
            f"{name}_bias": bias.reshape(batch, n_prompts * bias.shape[1]),
        }

    def counting(self, covered: Tensor) -> Tensor:
        """Return which windows are prototypes of a class.

        Parameters
        ----------
        covered : (N, M) tensor
            Share of each window that the class covers.

        Returns
        -------
        (N, M) bool tensor
        """
        if not self.local_prototypes:
            return torch.zeros_like(covered, dtype=torch.bool)
        # a membrane or a small cell fills no window, but half of some
        strict = covered > self.coverage
        loose = covered > self.least_coverage
        return torch.where(strict.any(dim=1, keepdim=True), strict, loose)

    def compare(self, features: Tensor, code: PromptCode) -> Tensor:
        """Return logits (B, 1, h, w) of a query's features (B, D, h, w).

        The score of a class is the soft maximum over its prototypes: a pixel has to
        resemble one of them, not all.
        """
        batch = features.shape[0]
        background, foreground = (
            soft_maximum(
                self.scale * cosine_map(features, code[name].expand(batch, -1, -1)),
                code[f"{name}_bias"].expand(batch, -1),
            )
            for name in CLASSES
        )
        return (foreground - background)[:, None]


def class_shares(masks: Tensor, size: Sequence[int]) -> Tensor:
    """Return the shares of background and foreground in each feature pixel.

    They are area means, because nearest neighbours would lose thin structures.

    Parameters
    ----------
    masks : (N, h, w) int tensor
        Object ids, 0 = background, -1 = unknown.
    size : two ints
        Height and width of the feature maps. No class covers their padding.

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
    """Return the mean vectors of windows that do not overlap.

    Parameters
    ----------
    maps : (B, C, h, w) tensor
    side : int
        Of a window, in pixels of the map.

    Returns
    -------
    (B, number of windows, C) tensor
    """
    side = min(side, *maps.shape[2:])
    return F.avg_pool2d(maps, side).flatten(2).transpose(1, 2)


def soft_maximum(scores: Tensor, bias: Tensor) -> Tensor:
    """Return the mean of scores weighted by their own softmax.

    Parameters
    ----------
    scores : (B, M, h, w) tensor
    bias : (B, M) tensor
        `MASKED` where a score does not count; a row in which none counts gives 0.

    Returns
    -------
    (B, h, w) tensor
    """
    weights = (scores + bias[..., None, None]).softmax(dim=1)
    some = (bias > MASKED / 2).any(dim=1)[:, None, None]
    return (weights * scores).sum(1) * some
