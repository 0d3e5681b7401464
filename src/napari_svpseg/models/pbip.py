"""Prototype image prompting: from image-level tags to maps of classes (M7).

The *published* variant. A bank of patches, described by a fixed encoder, gives several
prototypes for each class; a trainable encoder is asked at several strides how similar
each pixel is to them, and has only the tags of whole images to learn from. What it
finds is described by the fixed encoder again, and compared with the bank.

The medical CLIP of the paper is replaced by the default model's own encoder, and there
are maps at stride 2 and 4, so that cells can be found and not only tissue.

References
----------
Q. Tang, L. Fan, M. Pagnucco, Y. Song. "Prototype-based image prompting for weakly
supervised histopathological image segmentation". CVPR, 2025.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import SemanticSegmenter, pad_to_multiple, register
from .semantic import UNKNOWN, Trunk

STRIDES = (2, 4, 8, 16)
GRID = 8
"""Stride of the vectors that describe places of an image."""

TEMPERATURE = 0.07
CUT = 0.5
"""Share of a map's highest value from which a pixel belongs to what was found."""

BACKGROUND_POWER = 2
"""Background is (1 - highest score) to this power (10 in the paper): cuts at 0.38."""
MARGIN = 0.1
"""Pixels whose two best scores differ by less are not known."""


class BankEncoder(nn.Module):
    """A fixed encoder that describes places and regions by unit vectors.

    Parameters
    ----------
    trunk : Trunk
        Its weights are not trained.
    """

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk.eval().requires_grad_(False)
        self.register_buffer("centre", torch.zeros(self.length))
        self.register_buffer("spread", torch.ones(self.length))

    @property
    def length(self) -> int:
        """Length of a vector."""
        return sum(self.trunk.channels)

    def places(self, image: Tensor) -> Tensor:
        """Return raw vectors (B, h, w, length) of places at stride 8."""
        maps = self.trunk(image)
        size = maps[STRIDES.index(GRID)].shape[-2:]
        joined = [
            F.adaptive_avg_pool2d(m, size)
            if m.shape[-1] >= size[-1]
            else F.interpolate(m, size, mode="bilinear", align_corners=False)
            for m in maps
        ]
        return torch.cat(joined, dim=1).permute(0, 2, 3, 1)

    def regions(self, image: Tensor, *weights: Tensor) -> list[Tensor]:
        """Return unit vectors (B, length) of weighted regions of images.

        The features of the region are averaged, and not the region cut out of the image
        and the rest blackened: its border would be all that the encoder sees.

        Parameters
        ----------
        image : (B, 3, H, W) tensor
        *weights : (B, H, W) tensors
            Not negative; one region each.
        """
        with torch.no_grad():
            maps = self.trunk(image)
        vectors = []
        for weight in weights:
            pooled = []
            for m in maps:
                share = F.adaptive_avg_pool2d(weight[:, None], m.shape[-2:])
                total = share.sum((2, 3)).clamp(min=1e-4)
                pooled.append((m * share).sum((2, 3)) / total)
            vectors.append(self.standardised(torch.cat(pooled, dim=1)))
        return vectors

    def standardise_by(self, raw: Tensor) -> None:
        """Remember mean and spread of raw vectors (N, length)."""
        self.centre.copy_(raw.mean(0))
        self.spread.copy_(raw.std(0).clamp(min=1e-4))

    def standardised(self, raw: Tensor) -> Tensor:
        """Return unit vectors, in which no level outweighs another."""
        z = (raw - self.centre) / self.spread
        parts = [
            F.normalize(part, dim=-1) for part in z.split(self.trunk.channels, dim=-1)
        ]
        return torch.cat(parts, dim=-1) / math.sqrt(len(parts))


def cosine_kmeans(
    vectors: Tensor, k: int, generator: torch.Generator, steps: int = 100
) -> tuple[Tensor, Tensor]:
    """Return unit centres (k, D) of vectors (N, D), and the centre of each (N,).

    The first centres are vectors far from one another. Fewer vectors than ``k`` give
    as many centres as there are vectors.
    """
    vectors = F.normalize(vectors, dim=1)
    k = min(k, len(vectors))
    first = int(torch.randint(len(vectors), (1,), generator=generator))
    centres = vectors[first : first + 1]
    while len(centres) < k:
        distance = (1 - vectors @ centres.T).amin(1).clamp(min=0) ** 2 + 1e-9
        at = torch.multinomial(distance.cpu(), 1, generator=generator)
        centres = torch.cat([centres, vectors[at.to(vectors.device)]])
    index = torch.full((len(vectors),), -1, device=vectors.device)
    for _ in range(steps):
        new = (vectors @ centres.T).argmax(1)
        if torch.equal(new, index):
            break
        index = new
        sums = torch.zeros_like(centres).index_add_(0, index, vectors)
        filled = sums.norm(dim=1, keepdim=True) > 1e-6
        centres = F.normalize(torch.where(filled, sums, centres), dim=1)
    return centres, index


@register("pbip")
class PrototypePrompting(SemanticSegmenter):
    """Similarity to the prototypes of an image bank, at four strides.

    Parameters
    ----------
    classes : int
        Number of classes, background not counted.
    scale : float
        Network pixels per image pixel.
    n_prototypes : int
        For each class.
    features : int
        Length of the bank's vectors.
    fusion : four floats
        Weight of the maps at stride 2, 4, 8 and 16; a level of weight 0 is not used.
    prototypes : bool
        Without them, a linear classifier of each level: plain class activation maps.
    widths, depths, pixel_features
        As for `Trunk`.
    """

    overlap = 64

    def __init__(
        self,
        classes: int,
        scale: float = 1.0,
        n_prototypes: int = 3,
        features: int = 320,
        fusion: tuple[float, ...] = (0.3, 0.3, 0.3, 0.1),
        prototypes: bool = True,
        widths: tuple[int, ...] = (24, 48, 96, 128),
        depths: tuple[int, ...] = (1, 2, 2),
        pixel_features: int = 48,
    ) -> None:
        super().__init__(classes, scale)
        self.trunk = Trunk(widths, depths, pixel_features)
        self.fusion = tuple(float(w) for w in fusion)
        self.levels = [i for i, w in enumerate(self.fusion) if w > 0]
        self.uses_prototypes = bool(prototypes)
        k = n_prototypes if prototypes else 1
        channels = [self.trunk.channels[i] for i in self.levels]
        if prototypes:
            self.project = nn.ModuleList(
                nn.Sequential(
                    nn.Linear(features, features // 2),
                    nn.ReLU(),
                    nn.Linear(features // 2, c),
                )
                for c in channels
            )
            self.log_gain = nn.Parameter(
                torch.full((len(channels),), -math.log(TEMPERATURE))
            )
        else:
            self.heads = nn.ModuleList(nn.Conv2d(c, classes, 1) for c in channels)
        self.register_buffer("bank", torch.zeros(classes, k, features))
        self.register_buffer("filled", torch.ones(classes, k, dtype=torch.bool))
        self.register_buffer("peak", torch.ones(len(channels), classes))

    def set_bank(self, bank: Tensor, filled: Tensor) -> None:
        """Take the prototypes (classes, K, features) and which of them are there."""
        if self.uses_prototypes:
            self.bank.copy_(bank)
            self.filled.copy_(filled)

    def similarities(self, query: Tensor) -> list[Tensor]:
        """Return maps (B, classes, K, h, w) of each level that is used.

        H and W of the query (B, 3, H, W) are multiples of 16.
        """
        maps = self.trunk(query)
        answer = []
        for j, i in enumerate(self.levels):
            if self.uses_prototypes:
                vectors = F.normalize(self.project[j](self.bank), dim=-1)
                level = torch.einsum(
                    "bchw,nkc->bnkhw", F.normalize(maps[i], dim=1), vectors
                )
                answer.append(level * self.log_gain[j].exp())
            else:
                answer.append(self.heads[j](maps[i])[:, :, None])
        return answer

    def tag_logits(self, similarities: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Return logits (B, classes) of each level, and of the looks (B, classes, K).

        The looks' are the mean of all levels.
        """
        looks = [level.mean((-2, -1)) for level in similarities]
        there = self.filled.float()
        logits = [(x * there).sum(-1) / there.sum(-1).clamp(min=1) for x in looks]
        return logits, torch.stack(looks).mean(0)

    def class_maps(self, similarities: list[Tensor]) -> list[Tensor]:
        """Return maps (B, classes, h, w), not negative, of each level.

        Looks are merged by their softmax at each pixel.
        """
        merged = []
        for level in similarities:
            weights = level.masked_fill(~self.filled[..., None, None], -1e4).softmax(2)
            merged.append(F.relu((weights * level).sum(2)))
        return merged

    def fused(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Return one map (B, classes, *size) in [0, 1] of maps that are normalised."""
        total = sum(self.fusion[i] for i in self.levels)
        return sum(
            self.fusion[i]
            / total
            * F.interpolate(m, size, mode="bilinear", align_corners=False)
            for i, m in zip(self.levels, maps, strict=True)
        ).clamp(0, 1)

    def local_maps(self, query: Tensor) -> Tensor:
        """Return class maps (B, classes, H, W) in [0, 1], from the pixel's place only.

        They are normalised by what images of the class reach, and not by the image at
        hand, which need not hold the class at all.
        """
        maps = self.class_maps(self.similarities(query))
        scaled = [
            (m / p[:, None, None].clamp(min=1e-4)).clamp(max=1)
            for m, p in zip(maps, self.peak, strict=True)
        ]
        return self.fused(scaled, query.shape[-2:])

    def tag_scores(self, query: Tensor) -> Tensor:
        """Return the logit (B, classes) that a query holds each class."""
        return torch.stack(self.tag_logits(self.similarities(query))[0]).mean(0)

    def image_scores(self, windows: Tensor, held: Tensor) -> Tensor:
        """Return scores (n, classes + 1, S, S) of all windows of one image.

        The maps are normalised by what the image reaches, and what it does not hold is
        left out.

        Parameters
        ----------
        windows : (n, 3, S, S) tensor
        held : (classes,) tensor
            1 for each class that the image holds.
        """
        levels = [self._both_ways(part) for part in windows.split(8)]
        maps = [torch.cat(level) for level in zip(*levels, strict=True)]
        scaled = [m / m.amax((0, 2, 3), keepdim=True).clamp(min=1e-4) for m in maps]
        fused = self.fused(scaled, windows.shape[-2:])
        return with_background(fused * held[:, None, None])

    def _both_ways(self, images: Tensor) -> list[Tensor]:
        """Return the class maps of images, mean of both ways round."""
        plain = self.class_maps(self.similarities(images))
        flipped = self.class_maps(self.similarities(images.flip(-1)))
        return [(a + b.flip(-1)) / 2 for a, b in zip(plain, flipped, strict=True)]

    def class_logits(self, query: Tensor) -> Tensor:
        """Return (B, classes + 1, H, W) logits, background first."""
        height, width = query.shape[-2:]
        maps = self.local_maps(pad_to_multiple(query, 16))[..., :height, :width]
        return with_background(maps.float()).clamp(min=1e-4).log() / 0.25


def with_background(maps: Tensor) -> Tensor:
    """Return maps (B, N + 1, H, W) of (B, N, H, W): background is (1 - max) ** 2."""
    background = (1 - maps.amax(1, keepdim=True)) ** BACKGROUND_POWER
    return torch.cat([background, maps], dim=1)


def pseudo_mask(scores: Tensor, margin: float = MARGIN) -> Tensor:
    """Return the best class (B, H, W) uint8 of scores (B, N + 1, H, W).

    `UNKNOWN` where the two best differ by less than ``margin``.
    """
    best = scores.topk(2, dim=1)
    mask = best.indices[:, 0].to(torch.uint8)
    mask[best.values[:, 0] - best.values[:, 1] < margin] = UNKNOWN
    return mask


def contrast_loss(found: Tensor, positive: Tensor, negatives: Tensor) -> Tensor:
    """Return how much less what was found is like its prototype than like others.

    All regions of a batch stand in one logarithm, as in the authors' code.

    Parameters
    ----------
    found : (R, D) tensor
        Unit vectors of regions.
    positive : (R, D) tensor
        Prototype that each should be like.
    negatives : (R, M, D) tensor
        Prototypes that it should not be like; a row of zeros does not count.
    """
    near = (found * positive).sum(-1) / TEMPERATURE
    far = torch.einsum("rd,rmd->rm", found, negatives) / TEMPERATURE
    far = far.masked_fill(~negatives.any(-1), -1e4)
    together = torch.cat([near, far.flatten()])
    return torch.logsumexp(together, 0) - torch.logsumexp(near, 0)


def match_losses(
    encoder: BankEncoder,
    image: Tensor,
    maps: Tensor,
    bank: Tensor,
    chosen: tuple[Tensor, Tensor],
    others: Tensor,
) -> dict[str, Tensor]:
    """Return the contrast of what was found, and of what was left.

    Parameters
    ----------
    encoder : BankEncoder
    image : (R, 3, H, W) tensor
    maps : (R, H, W) tensor
        Map of one class that each image holds, not negative. The gradient goes through
        it into the network.
    bank : (classes, K, D) tensor
        Prototypes; zeros where there is none.
    chosen : two (R,) tensors
        Class and look of each.
    others : (M, D) tensor
        Prototypes of the background.
    """
    top = maps.detach().amax((1, 2), keepdim=True).clamp(min=1e-4)
    share = (maps / top).clamp(0, 1)
    inside = (share > CUT).float()
    found, left = inside * share, (1 - inside) * (1 - share)
    g_found, g_left = encoder.regions(image, found, left)
    own = bank[chosen]
    foreign = bank[None].repeat(len(image), 1, 1, 1)
    foreign[torch.arange(len(image)), chosen[0]] = 0
    foreign = foreign.flatten(1, 2)
    foreign = torch.cat([foreign, others[None].expand(len(image), -1, -1)], dim=1)
    # what is left may be several things: it is to be like the one it is most like
    likeness = torch.einsum("rd,rmd->rm", g_left.detach(), foreign)
    nearest = likeness.masked_fill(~foreign.any(-1), -2).argmax(1)
    like = foreign[torch.arange(len(image)), nearest]
    return {
        "found": contrast_loss(g_found, own, foreign),
        "left": contrast_loss(g_left, like, own[:, None]),
    }
