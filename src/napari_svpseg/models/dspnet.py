"""Detail self-refined prototypes: the prompt's features meet the query's first.

Three parts refine the local prototypes of `models.alpnet`:

- resemblance attention (RAN) adds to each prompt pixel what of the query looks like it;
- semantic prototype attention (FSPA) clusters the prompt's foreground and lets each
  pixel pick among the clusters before the global foreground prototype is formed;
- channel attention (BCMA) re-mixes each channel of the background vectors with its two
  neighbours.

``form="intended"`` follows the paper, ``form="released"`` what the authors' code does
where the two differ; see ``docs/decisions/0021-dspnet-forms.md``.

References
----------
S. Tang, S. Yan, X. Qi, J. Gao, M. Ye, J. Zhang, X. Zhu. "Few-shot medical image
segmentation with high-fidelity prototypes" (DSPNet). Medical Image Analysis, 2025.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .alpnet import CLASSES, LocalPrototypeSegmenter, class_shares, windows
from .base import PromptCode, register
from .panet import masked_average

MAX_CLUSTERS = 5
ITERATIONS = 10
"""Of soft k-means."""
SLOWER = 1e-4
"""The channel matrix learns this much more slowly than all else."""


@register("dspnet")
class DetailPrototypeSegmenter(LocalPrototypeSegmenter):
    """M6: local prototypes refined by RAN, FSPA and BCMA.

    Parameters
    ----------
    width, features, scale, window
        As for `LocalPrototypeSegmenter`.
    form : str
        ``"intended"`` or ``"released"``.
    ran, fspa, bcma : bool
        Switch off a part, for ablation.
    seed_area : float
        Foreground, in feature pixels, for each cluster.
    mixing : float
        Weight of the attention in BCMA.
    band : three floats
        Start of BCMA's matrix: weight of the channel before, itself, and after.
    """

    def __init__(
        self,
        width: int = 24,
        features: int = 48,
        scale: float = 20.0,
        window: int = 2,
        form: str = "intended",
        ran: bool = True,
        fspa: bool = True,
        bcma: bool = True,
        seed_area: float = 20.0,
        mixing: float = 0.3,
        band: tuple[float, ...] = (0.1, 0.9, 0.1),
    ) -> None:
        super().__init__(width, features, scale, window)
        if form not in ("intended", "released"):
            raise ValueError(f"form must be intended or released, got {form!r}")
        self.form = form
        self.use = {"ran": ran, "fspa": fspa, "bcma": bcma}
        self.seed_area, self.mixing = seed_area, mixing
        self.log_temperature = nn.Parameter(torch.tensor(0.1).log())
        self.register_buffer("start", banded(features, band), persistent=False)
        self.change = nn.Parameter(torch.zeros(features, features))

    def prototypes(self, features: Tensor, masks: Tensor) -> PromptCode:
        """Return what of the prompts is needed once the query is known.

        ``maps`` (B, K, D, h, w), ``shares`` (B, K, 2, h, w) of the classes and
        ``clusters`` (B, K, 5, D) with ``cluster_bias`` (B, K, 5).
        """
        shares = self._shares(features, masks)
        clusters, bias = foreground_clusters(
            features.flatten(0, 1), shares[:, :, 1].flatten(0, 1), self.seed_area
        )
        together = masks.shape[:2]
        return {
            "maps": features,
            "shares": shares,
            "clusters": clusters.unflatten(0, together),
            "cluster_bias": bias.unflatten(0, together),
        }

    def answer_prototypes(self, features: Tensor, masks: Tensor) -> PromptCode:
        """Return the code of an answer: one cluster, as the alignment loss wants it."""
        shares = self._shares(features, masks)
        whole = masked_average(features[:, 0], shares[:, 0, 1])[:, None, None]
        bias = torch.zeros(whole.shape[:3], device=whole.device)
        return {
            "maps": features,
            "shares": shares,
            "clusters": whole,
            "cluster_bias": bias,
        }

    def _shares(self, features: Tensor, masks: Tensor) -> Tensor:
        shares = class_shares(masks.flatten(0, 1), features.shape[-2:])
        return shares.unflatten(0, masks.shape[:2])

    def compare(self, features: Tensor, code: PromptCode) -> Tensor:
        """Return logits (B, 1, h, w) of a query's features (B, D, h, w)."""
        batch, n_prompts = features.shape[0], code["maps"].shape[1]
        maps, shares, clusters, bias = (
            code[name].expand(batch, *code[name].shape[1:]).flatten(0, 1)
            for name in ("maps", "shares", "clusters", "cluster_bias")
        )
        refined = maps
        if self.use["ran"]:
            query = features.repeat_interleave(n_prompts, dim=0)
            refined = resemblance(maps, query, self.temperature(), self.form)
        together = (batch, n_prompts)
        intended = self.form == "intended"
        # the released code computes the refined map of the background and drops it
        local = windows(refined if intended else maps, self.window)
        mixed = self.mix_channels(local) if self.use["bcma"] else local
        whole = masked_average(self._fused(maps, refined, clusters, bias), shares[:, 1])
        both = {
            "background": (masked_average(refined, shares[:, 0]), mixed),
            # the released code mixes the channels of the foreground too
            "foreground": (whole, local if intended else mixed),
        }
        bags: PromptCode = {}
        for index, name in enumerate(CLASSES):
            one, windowed = both[name]
            share = shares[:, index]
            bags |= self.bag(name, one[:, None], windowed, share, together)
        return super().compare(features, bags)

    def temperature(self) -> Tensor:
        """Return the temperature of RAN: 1 in the released form, else learned."""
        if self.form == "released":
            return torch.ones_like(self.log_temperature)
        return self.log_temperature.exp().clamp(0.02, 1.0)

    def _fused(
        self, maps: Tensor, refined: Tensor, clusters: Tensor, bias: Tensor
    ) -> Tensor:
        """Return the maps whose mean over the foreground is the global prototype."""
        if not self.use["fspa"]:
            return refined
        picked = pick_clusters(refined, clusters, bias, self.form)
        return (refined if self.form == "intended" else maps) + picked

    def mix_channels(self, vectors: Tensor) -> Tensor:
        """Return vectors (N, M, D) whose channels are re-mixed with their neighbours.

        The matrix is ``(1 + mixing * band * softmax(X X^T)) * theta``.
        """
        attention = (vectors.transpose(1, 2) @ vectors).softmax(dim=2)
        near = banded(attention.shape[1], (1.0, 1.0, 1.0)).to(attention)
        theta = self.start + SLOWER * self.change
        matrix = (1 + self.mixing * near * attention) * theta
        return vectors @ matrix.transpose(1, 2)


def banded(side: int, band: tuple[float, ...]) -> Tensor:
    """Return a tridiagonal matrix whose first and last row are the identity's."""
    before, itself, after = band
    ones = torch.ones(side - 1)
    matrix = itself * torch.eye(side)
    matrix += torch.diag(before * ones, -1) + torch.diag(after * ones, 1)
    matrix[0], matrix[-1] = torch.eye(side)[0], torch.eye(side)[-1]
    return matrix


def resemblance(
    prompt: Tensor, query: Tensor, temperature: Tensor | float, form: str
) -> Tensor:
    """Return prompt features to which what resembles them in the query is added.

    Parameters
    ----------
    prompt : (N, D, h, w) tensor
    query : (N, D, h', w') tensor
    temperature : tensor or float
        Divides the cosine similarities before the softmax over query pixels.
    form : str
        In the ``"released"`` form what is added are the *prompt's* features at the
        places of the query's pixels, so the query is brought to the prompt's size.

    Returns
    -------
    (N, D, h, w) tensor
    """
    if form == "released":
        query = F.interpolate(query, prompt.shape[2:], mode="area")
    values = prompt if form == "released" else query
    rows, columns = (
        F.normalize(x.flatten(2).float(), dim=1, eps=1e-4) for x in (prompt, query)
    )
    weights = (rows.transpose(1, 2) @ columns / temperature).softmax(dim=2)
    added = values.flatten(2).float() @ weights.transpose(1, 2)
    return prompt + added.unflatten(2, prompt.shape[2:])


@torch.no_grad()
def cluster_seeds(inside: Tensor, seed_area: float) -> tuple[Tensor, Tensor]:
    """Return up to five pixels deep inside a mask, each the deepest of what is left.

    Parameters
    ----------
    inside : (N, h, w) bool tensor
    seed_area : float
        Pixels inside for each seed.

    Returns
    -------
    (N, 5) int64 tensor
        Flat positions.
    (N, 5) bool tensor
        Which of them count; none where the mask is too small for two.
    """
    left = inside.float()[:, None]
    seeds = []
    for _ in range(MAX_CLUSTERS):
        seeds.append(_depth(left).flatten(1).argmax(1))
        left = left.flatten(1).scatter(1, seeds[-1][:, None], 0.0).view_as(left)
    wanted = (inside.sum((1, 2)) / seed_area).round().clamp(max=MAX_CLUSTERS)
    counts = torch.arange(MAX_CLUSTERS, device=inside.device) < wanted[:, None]
    return torch.stack(seeds, dim=1), counts & (wanted[:, None] > 1)


def _depth(inside: Tensor) -> Tensor:
    """Return how many erosions a pixel of masks (N, 1, h, w) survives, at most 8."""
    depth, level = inside, inside
    for _ in range(7):
        level = -F.max_pool2d(-level, 3, stride=1, padding=1)
        depth = depth + level
    return depth


def foreground_clusters(
    maps: Tensor, share: Tensor, seed_area: float
) -> tuple[Tensor, Tensor]:
    """Return cluster means of the foreground by soft k-means on features and place.

    Parameters
    ----------
    maps : (N, D, h, w) tensor
    share : (N, h, w) tensor
        Foreground in each pixel, 0 to 1; half and more is inside.
    seed_area : float

    Returns
    -------
    (N, 5, D) tensor
        With gradient through the last iteration. Where the foreground is small, the
        first is its mean.
    (N, 5) tensor
        0 for a cluster, very low where there is none.
    """
    inside = share >= 0.5
    seeds, counts = cluster_seeds(inside, seed_area)
    rows = maps.flatten(2).transpose(1, 2)
    height, width = share.shape[1:]
    y = torch.arange(height, device=maps.device).repeat_interleave(width)
    x = torch.arange(width, device=maps.device).repeat(height)
    places = torch.stack([y, x], dim=1).to(rows).expand(rows.shape[0], -1, -1)
    points = torch.cat([rows, places], dim=2) / 10  # distances over a hundred
    centres = points.gather(1, seeds[..., None].expand(-1, -1, points.shape[2]))
    outside = ~inside.flatten(1)[:, None]
    with torch.no_grad():
        for _ in range(ITERATIONS):
            near = _near(centres, points).masked_fill(outside, 0.0)
            near = near / near.sum(2, keepdim=True).clamp(min=1e-6)
            centres = near @ points
    clusters = near @ rows
    whole = masked_average(maps, share)[:, None]
    first = torch.arange(MAX_CLUSTERS, device=maps.device) == 0
    single = ~counts.any(dim=1, keepdim=True)
    clusters = torch.where((single & first)[..., None], whole, clusters)
    return clusters, torch.where(counts | (single & first), 0.0, -1e4)


def _near(centres: Tensor, points: Tensor) -> Tensor:
    """Return exp(-distance) of centres (N, K, D + 2) and points (N, P, D + 2)."""
    features = (centres[:, :, None, :-2] - points[:, None, :, :-2]).square().sum(-1)
    places = (centres[:, :, None, -2:] - points[:, None, :, -2:]).square().sum(-1)
    return (-(features + places).sqrt()).exp()


def pick_clusters(maps: Tensor, clusters: Tensor, bias: Tensor, form: str) -> Tensor:
    """Return what of the clusters each pixel gets.

    Parameters
    ----------
    maps : (N, D, h, w) tensor
    clusters : (N, K, D) tensor
    bias : (N, K) tensor
        Very low where there is no cluster.
    form : str
        ``"intended"``: a softmax over clusters, each pixel picks its own.
        ``"released"``: a softmax over pixels, each cluster picks its pixels.

    Returns
    -------
    (N, D, h, w) tensor
    """
    scores = clusters @ maps.flatten(2)  # (N, K, P)
    if form == "released":
        weights = scores.softmax(dim=2) * (bias > -1)[..., None]
    else:
        scale = clusters.shape[2] ** -0.5
        weights = (scores * scale + bias[..., None]).softmax(dim=1)
    return (clusters.transpose(1, 2) @ weights).unflatten(2, maps.shape[2:])
