"""Prototype-based image prompting: from image-level tags to class maps.

This is the *published* variant. A bank of patches, encoded by a fixed encoder, gives
several prototypes for each class, one for each of its subclasses. A trainable encoder
predicts at several strides how similar each pixel is to them; it learns from the tags
of whole images only. The regions that it finds are encoded by the fixed encoder again
and compared with the bank (a contrastive loss).

The medical CLIP of the paper is replaced by the default model's own encoder, and there
are maps at stride 2 and 4, so that cells can be found and not only tissue
(``docs/decisions/0031-patch-bank-of-small-patches.md``).

References
----------
Q. Tang, L. Fan, M. Pagnucco, Y. Song. "Prototype-based image prompting for weakly
supervised histopathological image segmentation". CVPR, 2025.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import MASKED, SemanticSegmenter, pad_to_multiple, register
from .semantic import UNKNOWN, Trunk

STRIDES = (2, 4, 8, 16)
GRID = 8
"""Stride of the vectors that describe places of an image."""

TEMPERATURE = 0.07
"""Divides cosine similarities before a softmax."""
CUT = 0.5
"""A pixel is inside the found region from this share of the map's maximum on."""

BACKGROUND_POWER = 2
"""The background score is (1 - highest class score) to this power.

It is 10 in the paper. With 2, a class wins from a score of 0.38
(``docs/decisions/0039-background-threshold.md``).
"""
MARGIN = 0.1
"""Pixels whose two best scores differ by less are unknown in a pseudo mask."""
SHARPNESS = 4.0
"""Factor on log scores in `PrototypePrompting.class_logits`."""


class BankEncoder(nn.Module):
    """A fixed encoder of places and regions of an image as unit vectors.

    Parameters
    ----------
    trunk : Trunk
        Its weights are not trained.
    """

    centre: Tensor
    """(length,) mean of the vectors, see `standardise_by`."""
    spread: Tensor
    """(length,) standard deviation."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk.eval().requires_grad_(False)
        self.register_buffer("centre", torch.zeros(self.length))
        self.register_buffer("spread", torch.ones(self.length))

    @property
    def length(self) -> int:
        """Length of a vector: the channels of all four strides."""
        return sum(self.trunk.channels)

    def places(self, image: Tensor) -> Tensor:
        """Return vectors (B, H/8, W/8, length) of a grid of places.

        They are not standardised.

        Parameters
        ----------
        image : (B, 3, H, W) tensor
            H and W are multiples of 16.
        """
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
        """Return one unit vector (B, length) for each weighted region of the images.

        The features are averaged with the weights. The paper multiplies the image by
        them instead, but then the encoder mostly sees the border of the region
        (``docs/decisions/0032-contrast-on-features.md``).

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
                size = (m.shape[-2], m.shape[-1])
                share = F.adaptive_avg_pool2d(weight[:, None], size)  # (B, 1, h, w)
                total = share.sum((2, 3)).clamp(min=1e-4)
                pooled.append((m * share).sum((2, 3)) / total)
            vectors.append(self.standardised(torch.cat(pooled, dim=1)))
        return vectors

    def standardise_by(self, raw: Tensor) -> None:
        """Take the mean and standard deviation of vectors (N, length) as units.

        Unstandardised vectors have a large mean in common and all point the same way.
        """
        self.centre.copy_(raw.mean(0))
        self.spread.copy_(raw.std(0).clamp(min=1e-4))

    def standardised(self, raw: Tensor) -> Tensor:
        """Return standardised unit vectors (N, length) of vectors from `places`.

        Each stride's part is scaled to the same length, so that none outweighs another.
        """
        z = (raw - self.centre) / self.spread
        parts = [
            F.normalize(part, dim=-1) for part in z.split(self.trunk.channels, dim=-1)
        ]
        return torch.cat(parts, dim=-1) / math.sqrt(len(parts))


def cosine_kmeans(
    vectors: Tensor, k: int, generator: torch.Generator, steps: int = 100
) -> tuple[Tensor, Tensor]:
    """Return cluster centres by k-means with cosine similarity.

    Parameters
    ----------
    vectors : (N, D) tensor
    k : int
        Number of clusters; at most N are returned.
    generator : torch.Generator
        For the first centres, which are drawn as in k-means++.
    steps : int
        Iterations at most.

    Returns
    -------
    centres : (k, D) tensor
        Unit vectors.
    index : (N,) tensor
        Cluster of each vector.
    """
    vectors = F.normalize(vectors, dim=1)
    k = min(k, len(vectors))
    first = int(torch.randint(len(vectors), (1,), generator=generator))
    centres = vectors[first : first + 1]
    while len(centres) < k:
        # k-means++: far vectors are likely; + 1e-9: equal vectors can be drawn as well
        distance = (1 - vectors @ centres.T).amin(1).clamp(min=0) ** 2 + 1e-9
        at = torch.multinomial(distance.cpu(), 1, generator=generator)
        centres = torch.cat([centres, vectors[at.to(vectors.device)]])
    index = torch.full((len(vectors),), -1, device=vectors.device)
    for _ in range(steps):
        new = (vectors @ centres.T).argmax(1)
        if torch.equal(new, index):
            break
        index = new
        # a cluster without vectors keeps its centre
        sums = torch.zeros_like(centres).index_add_(0, index, vectors)
        filled = sums.norm(dim=1, keepdim=True) > 1e-6
        centres = F.normalize(torch.where(filled, sums, centres), dim=1)
    return centres, index


@register("pbip")
class PrototypePrompting(SemanticSegmenter):
    """Similarity to the prototypes of an image bank, at four strides.

    In the shapes below K is the number of prototypes (subclasses) of a class.

    Parameters
    ----------
    classes, scale
        See `SemanticSegmenter`.
    n_prototypes : int
        Prototypes per class.
    features : int
        Length of the bank's vectors.
    fusion : four floats
        Weight of the maps at stride 2, 4, 8 and 16; a level of weight 0 is not used.
    prototypes : bool
        False replaces them by a linear classifier at each level, whose maps are plain
        class activation maps.
    widths, depths, pixel_features
        See `Trunk`.
    """

    overlap = 64

    bank: Tensor
    """(classes, K, features) prototypes."""
    filled: Tensor
    """(classes, K) bool: which of the prototypes exist."""
    peak: Tensor
    """(levels, classes) value that the class's maps reach in images of the class."""

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
        """Copy the prototypes, see `bank` and `filled`."""
        if self.uses_prototypes:
            self.bank.copy_(bank)
            self.filled.copy_(filled)

    def similarities(self, query: Tensor) -> list[Tensor]:
        """Return similarity maps (B, classes, K, h, w), one for each level in use.

        Parameters
        ----------
        query : (B, 3, H, W) tensor
            H and W are multiples of 16.
        """
        maps = self.trunk(query)
        answer = []
        for j, i in enumerate(self.levels):
            if self.uses_prototypes:
                # the bank's vectors, projected to the channels of this level
                vectors = F.normalize(self.project[j](self.bank), dim=-1)
                level = torch.einsum(
                    "bchw,nkc->bnkhw", F.normalize(maps[i], dim=1), vectors
                )
                answer.append(level * self.log_gain[j].exp())
            else:
                answer.append(self.heads[j](maps[i])[:, :, None])
        return answer

    def tag_logits(self, similarities: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Return tag logits of images: of classes at each level, and of subclasses.

        Parameters
        ----------
        similarities : list of (B, classes, K, h, w) tensors

        Returns
        -------
        logits : list of (B, classes) tensors
            One for each level: the mean over the image and the class's prototypes.
        subclasses : (B, classes, K) tensor
            Mean over the levels.
        """
        pooled = [level.mean((-2, -1)) for level in similarities]  # (B, classes, K)
        exist = self.filled.float()
        logits = [(x * exist).sum(-1) / exist.sum(-1).clamp(min=1) for x in pooled]
        return logits, torch.stack(pooled).mean(0)

    def class_maps(self, similarities: list[Tensor]) -> list[Tensor]:
        """Return class maps (B, classes, h, w) of each level, not negative.

        The prototypes of a class are merged by their softmax at each pixel.
        """
        merged = []
        for level in similarities:
            weights = level.masked_fill(~self.filled[..., None, None], MASKED).softmax(
                2
            )
            merged.append(F.relu((weights * level).sum(2)))
        return merged

    def fused(self, maps: list[Tensor], size: Sequence[int]) -> Tensor:
        """Return the weighted mean of the levels, (B, classes, *size) in [0, 1].

        Parameters
        ----------
        maps : list of (B, classes, h, w) tensors
            Normalised class maps, one for each level in use.
        size : two ints
        """
        total = sum(self.fusion[i] for i in self.levels)
        height, width = size
        enlarged = (
            F.interpolate(m, (height, width), mode="bilinear", align_corners=False)
            for m in maps
        )
        parts = [
            self.fusion[i] / total * m
            for i, m in zip(self.levels, enlarged, strict=True)
        ]
        mean = parts[0]
        for part in parts[1:]:
            mean = mean + part
        return mean.clamp(0, 1)

    def local_maps(self, query: Tensor) -> Tensor:
        """Return class maps (B, classes, H, W) in [0, 1] of any query.

        They are normalised by `peak`, the value that images of the class reach, and not
        by the maximum of this query, which may not show the class at all. So a pixel's
        value does not depend on the rest of the image.
        """
        maps = self.class_maps(self.similarities(query))
        scaled = [
            (m / p[:, None, None].clamp(min=1e-4)).clamp(max=1)
            for m, p in zip(maps, self.peak, strict=True)
        ]
        return self.fused(scaled, query.shape[-2:])

    def tag_scores(self, query: Tensor) -> Tensor:
        """Return the tag logits (B, classes): whether a query shows each class."""
        return torch.stack(self.tag_logits(self.similarities(query))[0]).mean(0)

    def image_scores(self, windows: Tensor, tags: Tensor) -> Tensor:
        """Return scores (n, classes + 1, S, S) of all windows of one training image.

        The maps are normalised by the maximum of the image, which its tags vouch for;
        classes that the image does not show are excluded.

        Parameters
        ----------
        windows : (n, 3, S, S) tensor
        tags : (classes,) tensor
            1 for each class that the image shows.
        """
        levels = [self._mirror_averaged(part) for part in windows.split(8)]
        maps = [torch.cat(level) for level in zip(*levels, strict=True)]
        scaled = [m / m.amax((0, 2, 3), keepdim=True).clamp(min=1e-4) for m in maps]
        fused = self.fused(scaled, windows.shape[-2:])
        return with_background(fused * tags[:, None, None])

    def _mirror_averaged(self, images: Tensor) -> list[Tensor]:
        """Return class maps, the mean of the images' and their mirror images'."""
        plain = self.class_maps(self.similarities(images))
        flipped = self.class_maps(self.similarities(images.flip(-1)))
        return [(a + b.flip(-1)) / 2 for a, b in zip(plain, flipped, strict=True)]

    def class_logits(self, query: Tensor) -> Tensor:
        """Return logits (B, classes + 1, H, W) of a query; background comes first.

        Scores are not probabilities: their logarithms are multiplied by `SHARPNESS`, so
        that the softmax of the best class is clearly above the others.
        """
        height, width = query.shape[-2:]
        maps = self.local_maps(pad_to_multiple(query, 16))[..., :height, :width]
        return with_background(maps.float()).clamp(min=1e-4).log() * SHARPNESS


def with_background(maps: Tensor) -> Tensor:
    """Return class maps (B, N, H, W) with the background's in front, (B, N + 1, H, W).

    Its score is (1 - highest class score) to the power of `BACKGROUND_POWER`.
    """
    background = (1 - maps.amax(1, keepdim=True)) ** BACKGROUND_POWER
    return torch.cat([background, maps], dim=1)


def pseudo_mask(scores: Tensor, margin: float = MARGIN) -> Tensor:
    """Return the best class (B, H, W) uint8 of scores (B, N + 1, H, W).

    Pixels whose two best scores differ by less than ``margin`` are `UNKNOWN`.
    """
    best = scores.topk(2, dim=1)
    mask = best.indices[:, 0].to(torch.uint8)
    mask[best.values[:, 0] - best.values[:, 1] < margin] = UNKNOWN
    return mask


def contrast_loss(found: Tensor, positive: Tensor, negatives: Tensor) -> Tensor:
    """Return the InfoNCE loss of regions with their prototypes.

    All regions of a batch share one logarithm, as in the authors' code.

    Parameters
    ----------
    found : (R, D) tensor
        Unit vectors of regions.
    positive : (R, D) tensor
        Prototype that each region should resemble.
    negatives : (R, M, D) tensor
        Prototypes that it should not resemble; a row of zeros does not count.
    """
    near = (found * positive).sum(-1) / TEMPERATURE
    far = torch.einsum("rd,rmd->rm", found, negatives) / TEMPERATURE
    far = far.masked_fill(~negatives.any(-1), MASKED)
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
    """Return the contrastive losses of the found region and of the rest.

    Parameters
    ----------
    encoder : BankEncoder
    image : (R, 3, H, W) tensor
    maps : (R, H, W) tensor
        Map of one class that each image shows, not negative. It is the only way for the
        gradient into the network, as the encoder is fixed.
    bank : (classes, K, D) tensor
        Prototypes; zeros where there is none.
    chosen : two (R,) tensors
        Class and subclass of each map.
    others : (M, D) tensor
        Prototypes of the background.

    Returns
    -------
    dict
        ``found``: the region should resemble the class's prototype. ``left``: the rest
        should not.
    """
    top = maps.detach().amax((1, 2), keepdim=True).clamp(min=1e-4)
    share = (maps / top).clamp(0, 1)
    # the cut has no gradient: regions are weighted by the map itself, which has one
    inside = (share > CUT).float()
    found, left = inside * share, (1 - inside) * (1 - share)
    g_found, g_left = encoder.regions(image, found, left)
    own = bank[chosen]
    foreign = bank[None].repeat(len(image), 1, 1, 1)
    foreign[torch.arange(len(image)), chosen[0]] = 0
    foreign = foreign.flatten(1, 2)
    foreign = torch.cat([foreign, others[None].expand(len(image), -1, -1)], dim=1)
    # The rest shows several things. Its positive is the one prototype that it resembles
    # most: the mean of all others would be a mixture that never occurs.
    likeness = torch.einsum("rd,rmd->rm", g_left.detach(), foreign)
    nearest = likeness.masked_fill(~foreign.any(-1), -2).argmax(1)
    like = foreign[torch.arange(len(image)), nearest]
    return {
        "found": contrast_loss(g_found, own, foreign),
        "left": contrast_loss(g_left, like, own[:, None]),
    }
