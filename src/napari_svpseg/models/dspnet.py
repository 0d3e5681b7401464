"""Detail self-refined prototypes: prompt features are refined with the query's.

Three parts refine the local prototypes of `models.alpnet`:

- resemblance attention (RAN) adds to each prompt pixel the features of query pixels
  that resemble it;
- semantic prototype attention (FSPA) clusters the prompt's foreground and lets each
  pixel attend to the clusters before the global foreground prototype is computed;
- channel attention (BCMA) mixes each channel of the background vectors with its two
  neighbours.

``form="intended"`` follows the paper, ``form="released"`` the authors' code where the
two differ; see ``docs/decisions/0021-dspnet-forms.md``.

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
from .base import MASKED, PromptCode, register
from .panet import masked_average

MAX_CLUSTERS = 5
ITERATIONS = 10
"""Iterations of soft k-means."""
CHANGE_SCALE = 1e-4
"""Factor on the learned change of the channel matrix.

It slows down the learning of the matrix. A smaller gradient would not: the size of
Adam's steps does not depend on it.
"""


@register("dspnet")
class DetailPrototypeSegmenter(LocalPrototypeSegmenter):
    """M6: local prototypes refined by RAN, FSPA and BCMA.

    Parameters
    ----------
    width, features, scale, window
        See `LocalPrototypeSegmenter`.
    form : str
        ``"intended"`` or ``"released"``.
    ran, fspa, bcma : bool
        Whether a part is used; False for ablations.
    seed_area : float
        Foreground area per cluster, in feature pixels.
    mixing : float
        Weight of the attention in BCMA.
    band : three floats
        Initial weights in BCMA's matrix: of the channel before, itself, and after.
    """

    start: Tensor  # a buffer

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
        # not part of the weights: it follows from the arguments
        self.register_buffer("start", banded(features, band), persistent=False)
        self.change = nn.Parameter(torch.zeros(features, features))

    def prototypes(self, features: Tensor, masks: Tensor) -> PromptCode:
        """Return the features and clusters of the prompts.

        The prototypes depend on the query and are computed by `compare`.

        Returns
        -------
        dict
            ``maps`` (B, K, D, h, w), ``shares`` (B, K, 2, h, w) of the classes,
            ``clusters`` (B, K, 5, D) and ``cluster_bias`` (B, K, 5).
        """
        shares = self._shares(features, masks)
        clusters, bias = foreground_clusters(
            features.flatten(0, 1), shares[:, :, 1].flatten(0, 1), self.seed_area
        )
        batch_shape = masks.shape[:2]
        return {
            "maps": features,
            "shares": shares,
            "clusters": clusters.unflatten(0, batch_shape),
            "cluster_bias": bias.unflatten(0, batch_shape),
        }

    def query_prototypes(self, features: Tensor, masks: Tensor) -> PromptCode:
        """Return the code of a query and its prediction, for `regularise`.

        A predicted foreground has one cluster, its mean.
        """
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
        """Return the shares of both classes (B, K, 2, h, w), see `class_shares`."""
        shares = class_shares(masks.flatten(0, 1), features.shape[-2:])
        return shares.unflatten(0, masks.shape[:2])

    def compare(self, features: Tensor, code: PromptCode) -> Tensor:
        """Return logits (B, 1, h, w) of a query's features (B, D, h, w).

        The refinement depends on the query, so it is computed for each tile.
        """
        batch, n_prompts = features.shape[0], code["maps"].shape[1]
        maps, shares, clusters, bias = (
            code[name].expand(batch, *code[name].shape[1:]).flatten(0, 1)
            for name in ("maps", "shares", "clusters", "cluster_bias")
        )  # each (B K, ...)
        refined = maps
        if self.use["ran"]:
            query = features.repeat_interleave(n_prompts, dim=0)
            refined = resemblance(maps, query, self.temperature(), self.form)
        intended = self.form == "intended"
        # the released code refines the map of the background, but does not use it
        local = windows(refined if intended else maps, self.window)
        mixed = self.mix_channels(local) if self.use["bcma"] else local
        whole = masked_average(self._fused(maps, refined, clusters, bias), shares[:, 1])
        both = {
            "background": (masked_average(refined, shares[:, 0]), mixed),
            # the released code mixes the channels of the foreground too
            "foreground": (whole, local if intended else mixed),
        }
        prototypes: PromptCode = {}
        for index, name in enumerate(CLASSES):
            one, windowed = both[name]
            prototypes |= self.class_prototypes(
                name, one[:, None], windowed, shares[:, index], (batch, n_prompts)
            )
        return super().compare(features, prototypes)

    def temperature(self) -> Tensor:
        """Return the temperature of RAN: 1 in the released form, else learned.

        Cosines are -1 to 1, so that a plain softmax over the pixels of a query would be
        close to their mean.
        """
        if self.form == "released":
            return torch.ones_like(self.log_temperature)
        return self.log_temperature.exp().clamp(0.02, 1.0)

    def _fused(
        self, maps: Tensor, refined: Tensor, clusters: Tensor, bias: Tensor
    ) -> Tensor:
        """Return the maps whose mean over the foreground is the global prototype.

        Parameters
        ----------
        maps, refined : (B K, D, h, w) tensors
            Features of the prompts before and after RAN.
        clusters : (B K, 5, D) tensor
        bias : (B K, 5) tensor
        """
        if not self.use["fspa"]:
            return refined
        attended = attend_clusters(refined, clusters, bias, self.form)
        return (refined if self.form == "intended" else maps) + attended

    def mix_channels(self, vectors: Tensor) -> Tensor:
        """Return vectors (N, M, D) with each channel mixed with its two neighbours.

        The matrix is ``(1 + mixing * band * softmax(X^T X)) * theta``, where ``X`` are
        the vectors, ``band`` is 1 on three diagonals and ``theta`` is learned.
        """
        attention = (vectors.transpose(1, 2) @ vectors).softmax(dim=2)  # (N, D, D)
        near = banded(attention.shape[1], (1.0, 1.0, 1.0)).to(attention)
        theta = self.start + CHANGE_SCALE * self.change
        matrix = (1 + self.mixing * near * attention) * theta
        return vectors @ matrix.transpose(1, 2)


def banded(side: int, band: tuple[float, ...]) -> Tensor:
    """Return a tridiagonal matrix (side, side); its first and last row are identity.

    Parameters
    ----------
    side : int
    band : three floats
        Below, on and above the diagonal.
    """
    before, itself, after = band
    ones = torch.ones(side - 1)
    matrix = itself * torch.eye(side)
    matrix += torch.diag(before * ones, -1) + torch.diag(after * ones, 1)
    matrix[0], matrix[-1] = torch.eye(side)[0], torch.eye(side)[-1]
    return matrix


def resemblance(
    prompt: Tensor, query: Tensor, temperature: Tensor | float, form: str
) -> Tensor:
    """Return prompt features plus the query features that resemble them (RAN).

    Parameters
    ----------
    prompt : (N, D, h, w) tensor
    query : (N, D, h', w') tensor
    temperature : tensor or float
        Divides the cosine similarities before the softmax over query pixels.
    form : str
        In the ``"released"`` form the attention weights of query pixels are applied to
        the *prompt's* features at the same places, so the query is resized to the
        prompt.

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
    # (N, h w, h' w'): each prompt pixel attends to all query pixels
    weights = (rows.transpose(1, 2) @ columns / temperature).softmax(dim=2)
    added = values.flatten(2).float() @ weights.transpose(1, 2)
    return prompt + added.unflatten(2, prompt.shape[2:])


@torch.no_grad()
def cluster_seeds(inside: Tensor, seed_area: float) -> tuple[Tensor, Tensor]:
    """Return up to five pixels deep inside each mask, as starts of clusters.

    Each is the deepest pixel of the mask without the seeds before it, which become
    holes: so the seeds keep their distance.

    Parameters
    ----------
    inside : (N, h, w) bool tensor
    seed_area : float
        Pixels of the mask per seed.

    Returns
    -------
    seeds : (N, 5) int64 tensor
        Positions in the flattened mask.
    counts : (N, 5) bool tensor
        Which of them are used; none in a mask that is too small for two.
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
    """Return how many erosions each pixel of masks (N, 1, h, w) survives, at most 8.

    Erosions stand in for a distance transform, which runs on the CPU only.
    """
    depth, level = inside, inside
    for _ in range(7):
        level = -F.max_pool2d(-level, 3, stride=1, padding=1)
        depth = depth + level
    return depth


def foreground_clusters(
    maps: Tensor, share: Tensor, seed_area: float
) -> tuple[Tensor, Tensor]:
    """Return means of foreground clusters: soft k-means on features and positions.

    Parameters
    ----------
    maps : (N, D, h, w) tensor
    share : (N, h, w) tensor
        Share of foreground in each pixel; a pixel is inside from a half.
    seed_area : float
        See `cluster_seeds`.

    Returns
    -------
    clusters : (N, 5, D) tensor
        Differentiable with respect to ``maps`` in the last weighted mean only. A small
        foreground has one cluster, its mean.
    bias : (N, 5) tensor
        0 for a cluster, `MASKED` where there is none.
    """
    inside = share >= 0.5
    seeds, counts = cluster_seeds(inside, seed_area)
    rows = maps.flatten(2).transpose(1, 2)  # (N, h w, D)
    height, width = share.shape[1:]
    y = torch.arange(height, device=maps.device).repeat_interleave(width)
    x = torch.arange(width, device=maps.device).repeat(height)
    places = torch.stack([y, x], dim=1).to(rows).expand(rows.shape[0], -1, -1)
    # divided by 10, i.e. squared distances by 100, before `_near` takes exp(-distance)
    points = torch.cat([rows, places], dim=2) / 10
    centres = points.gather(1, seeds[..., None].expand(-1, -1, points.shape[2]))
    outside = ~inside.flatten(1)[:, None]
    with torch.no_grad():  # the iterations themselves are not differentiated
        for _ in range(ITERATIONS):
            near = _near(centres, points).masked_fill(outside, 0.0)
            near = near / near.sum(2, keepdim=True).clamp(min=1e-6)
            centres = near @ points
    clusters = near @ rows
    whole = masked_average(maps, share)[:, None]
    first = torch.arange(MAX_CLUSTERS, device=maps.device) == 0
    single = ~counts.any(dim=1, keepdim=True)
    clusters = torch.where((single & first)[..., None], whole, clusters)
    return clusters, torch.where(counts | (single & first), 0.0, MASKED)


def _near(centres: Tensor, points: Tensor) -> Tensor:
    """Return exp(-distance) (N, K, P) of centres to points.

    Parameters
    ----------
    centres : (N, K, D + 2) tensor
        Features and position.
    points : (N, P, D + 2) tensor
    """
    features = (centres[:, :, None, :-2] - points[:, None, :, :-2]).square().sum(-1)
    places = (centres[:, :, None, -2:] - points[:, None, :, -2:]).square().sum(-1)
    return (-(features + places).sqrt()).exp()


def attend_clusters(maps: Tensor, clusters: Tensor, bias: Tensor, form: str) -> Tensor:
    """Return the attention-weighted sum of the clusters at each pixel (FSPA).

    Parameters
    ----------
    maps : (N, D, h, w) tensor
    clusters : (N, K, D) tensor
    bias : (N, K) tensor
        `MASKED` where there is no cluster.
    form : str
        ``"intended"``: a softmax over clusters, so that each pixel chooses its cluster.
        ``"released"``: a softmax over pixels, so that each cluster chooses its pixels.

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
