"""Evidence that grows with the prompts: a ridge classifier of many features.

From three prompts on, a classifier of higher capacity than `models.filters` is fitted
to their pixels: ridge regression of random features (a layer of random weights and a
rectifier; Huang et al., Neurocomputing 2006) of the filters and of the network's
features. Its logits are added to those of the network. How much each counts is fitted
as well, by logistic regression to what both say of prompts that neither has seen: each
prompt is predicted from the others. So the weights follow how much the prompts say, and
how much they resemble each other; they are drawn to fixed ones, the less the more
prompts there are, as few boxes can all lack what the rest of an image shows. One or
two prompts cannot tell, and keep the network alone.

All steps are closed forms or a few steps of Newton's method, on fixed random weights:
the same prompts give the same answer. Nothing is added where hidden prompts are
segmented as well by the network alone.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import is_exported

N_RANDOM = 512
"""Random features of a pixel."""
PENALTIES = (1e-3, 1e-2, 1e-1)
"""Ridge penalties, of which hidden prompts choose."""
PRIOR = (1.0, 0.5)
"""Weights of network and classifier to which the logistic regression is drawn."""
PULL = 0.3
"""Strength of that pull, in hidden prompts; the loss is a mean over them all."""
LEAST_PROMPTS = 3
"""Prompts from which on the classifier is fitted."""
LARGEST = 8.0
"""Logits are clipped at it before they are weighed."""
NEWTON_STEPS = 12
MARGIN = 0.01
"""How much better (Dice) hidden prompts must be segmented for anything to be added."""
BLOCK = 4096
"""Query pixels that are classified at once, as each has `N_RANDOM` features."""


def random_layer(n_inputs: int) -> tuple[Tensor, Tensor]:
    """Return the fixed random weights (n_inputs, N_RANDOM) and offsets (N_RANDOM,)."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(n_inputs, N_RANDOM, generator=generator) / n_inputs**0.5
    return weights, torch.randn(N_RANDOM, generator=generator) / 2


def random_features(x: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
    """Return the random features (N, N_RANDOM + 1) of pixels (N, D); the last is 1."""
    z = torch.addmm(offsets, x, weights).relu_().mul_((2 / N_RANDOM) ** 0.5)
    return torch.cat([z, torch.ones_like(z[:, :1])], dim=1)


class PromptFit:
    """The classifier of some prompts' pixels, and of all but one of them.

    Parameters
    ----------
    x : (K, M, D) tensor
        Features of the pixels of each prompt, standardised.
    foreground, background : (K, M) tensors
        Share of each in a pixel; the rest is unknown.
    layer : pair of tensors
        From `random_layer`, on the device of ``x``.
    """

    def __init__(
        self,
        x: Tensor,
        foreground: Tensor,
        background: Tensor,
        layer: tuple[Tensor, Tensor],
    ) -> None:
        self.z = [random_features(each, *layer) for each in x]
        # The same for all penalties, and summing them takes longer than solving.
        self._systems: dict[int | None, tuple[Tensor, Tensor]] = {}
        # Sums over each prompt's pixels, so that leaving one out is a subtraction.
        self._sums = [
            [self._sum(z, w[k]) for k, z in enumerate(self.z)]
            for w in (foreground, background)
        ]

    @staticmethod
    def _sum(z: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the weighted Gram matrix, the weighted sum, and the weights' sum."""
        return (z * weight[:, None]).T @ z, weight @ z, weight.sum()

    def shows_both(self, without: int | None = None) -> bool:
        """Return whether the prompts left show a pixel of each class at least."""
        return all(
            float(sum(s[2] for k, s in enumerate(sums) if k != without)) >= 1
            for sums in self._sums
        )

    def weights(self, penalty: float, without: int | None = None) -> Tensor:
        """Return the ridge weights (N_RANDOM + 1,), each class counting the same.

        The prompts left have to show both, see `shows_both`.
        """
        if without not in self._systems:
            self._systems[without] = self._system(without)
        gram, right = self._systems[without]
        ridge = torch.full_like(right, penalty)
        ridge[-1] = 1e-6  # the offset is free
        return torch.linalg.solve(gram + torch.diag(ridge), right)

    def _system(self, without: int | None) -> tuple[Tensor, Tensor]:
        """Return the Gram matrix and the right side of the prompts but one."""
        gram, right = None, None
        for sums, sign in zip(self._sums, (1.0, -1.0), strict=True):
            kept = [s for k, s in enumerate(sums) if k != without]
            total = torch.stack([s[2] for s in kept]).sum()
            part = torch.stack([s[0] for s in kept]).sum(0) / total
            side = torch.stack([s[1] for s in kept]).sum(0) / total
            gram = part if gram is None else gram + part
            right = sign * side if right is None else right + sign * side
        assert gram is not None and right is not None
        return gram, right

    def hidden(self, penalty: float, known: list[int]) -> Tensor:
        """Return the logits (N,) of each prompt in ``known`` from the others."""
        return torch.cat([2 * self.z[k] @ self.weights(penalty, k) for k in known])


def weigh(
    scores: Tensor, foreground: Tensor, background: Tensor, n_hidden: int
) -> Tensor:
    """Return two non-negative weights (2,), by logistic regression without an offset.

    With an offset the share of foreground would be that of the prompts, or one half,
    and not what the network knows of whole images: measured, it lost up to 13 points.

    Parameters
    ----------
    scores : (N, 2) tensor
        Logits of the network and of the classifier for pixels that they do not know.
    foreground, background : (N,) tensors
        Share of each in a pixel. Both classes count the same.
    n_hidden : int
        Prompts that these pixels are of.
    """
    x = scores.clamp(-LARGEST, LARGEST).double()
    positive = (foreground / foreground.sum().clamp(min=1)).double() / 2
    negative = (background / background.sum().clamp(min=1)).double() / 2
    prior = torch.tensor(PRIOR, dtype=x.dtype, device=x.device)
    free = torch.ones_like(prior)
    found = _newton(x, positive, negative, prior, free, PULL / n_hidden)
    if (found < 0).any():  # once more, without the weight that came out negative
        free = (found >= 0).to(x.dtype)
        found = _newton(x, positive, negative, prior, free, PULL / n_hidden)
    return found.clamp(min=0).float()


def _newton(
    x: Tensor,
    positive: Tensor,
    negative: Tensor,
    prior: Tensor,
    free: Tensor,
    pull: float,
) -> Tensor:
    """Return the weights (2,) of the least log loss; 0 where ``free`` is 0."""
    weight = positive + negative

    def loss(w: Tensor) -> Tensor:
        logits = x @ w
        terms = positive * F.softplus(-logits) + negative * F.softplus(logits)
        return terms.sum() + pull * (free * (w - prior).square()).sum()

    w = prior * free
    for _ in range(NEWTON_STEPS):
        p = (x @ w).sigmoid()
        gradient = x.T @ (weight * p - positive) + 2 * pull * (w - prior)
        curvature = (
            (x * (weight * p * (1 - p))[:, None]).T @ x * torch.outer(free, free)
        )
        curvature = curvature + 2 * pull * torch.eye(2, dtype=x.dtype, device=x.device)
        step = torch.linalg.solve(curvature, gradient * free)
        now = loss(w)
        for _ in range(8):  # halved where the loss is far from a parabola
            if loss(w - step) <= now:
                w = w - step
                break
            step = step / 2
    return w


def fit_classifier(
    x: Tensor,
    foreground: Tensor,
    background: Tensor,
    blind: dict[int, Tensor],
    layer: tuple[Tensor, Tensor],
) -> dict[str, Tensor] | None:
    """Return the classifier of several prompts and its weight beside the network.

    Parameters
    ----------
    x : (K, M, D) tensor
        Standardised features of the prompts' pixels.
    foreground, background : (K, M) tensors
        Share of each in a pixel.
    blind : dict of int to (M,) tensor
        What the network says (logits) of a prompt from the others, by its number.
        Those whose others show less than a pixel of a class are not used.
    layer : pair of tensors
        See `random_layer`.

    Returns
    -------
    dict or None
        ``weighed_ridge`` (1, N_RANDOM + 1) and ``weighed_factors`` (1, 2), the weights
        of the network's logits and of the classifier's. None if no prompt can be left
        out, or if the network alone segments hidden prompts as well.
    """
    if not blind:
        return None
    fit = PromptFit(x, foreground, background, layer)
    known = [k for k in sorted(blind) if fit.shows_both(k)]
    if not known:
        return None
    y, other = foreground[known].flatten(), background[known].flatten()
    share = y / y.sum().clamp(min=1) + other / other.sum().clamp(min=1)
    target = (y - other) / (y + other).clamp(min=1e-3)
    best: tuple[float, float, Tensor] | None = None
    for penalty in PENALTIES:
        logits = fit.hidden(penalty, known)
        error = float((share * (logits / 2 - target).square()).sum())
        if best is None or error < best[0]:
            best = (error, penalty, logits)
    assert best is not None
    _, penalty, logits = best
    ridge = fit.weights(penalty)
    network = torch.cat([blind[k] for k in known])
    scores = torch.stack([network, logits], 1)
    factors = weigh(scores, y, other, len(known))
    gain = _dice(scores @ factors, y, other) - _dice(network, y, other)
    if gain < MARGIN:
        return None
    return {"weighed_ridge": ridge[None], "weighed_factors": factors[None]}


def _dice(logits: Tensor, foreground: Tensor, background: Tensor) -> float:
    """Return the Dice of pixels (N,) whose labels are shares."""
    found = (logits > 0).float()
    area = (found * (foreground + background)).sum() + foreground.sum()
    return float(2 * (found * foreground).sum() / area.clamp(min=1))


def classified(x: Tensor, ridge: Tensor, layer: tuple[Tensor, Tensor]) -> Tensor:
    """Return the classifier's logits (N,) of pixels (N, D)."""
    weights, offsets = layer
    by_feature = 2 * (2 / N_RANDOM) ** 0.5 * ridge[:-1]
    found = [
        torch.addmm(offsets, part, weights).relu_() @ by_feature
        for part in ([x] if is_exported() else x.split(BLOCK))
    ]
    return torch.cat(found) + 2 * ridge[-1]
