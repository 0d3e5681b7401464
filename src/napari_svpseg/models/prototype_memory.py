"""Tags to masks with a memory of prototypes that is learned (M7, seed variant).

One network from end to end: pixels look into a memory of prototypes, class activation
maps learned from tags become labels for a decoder, and the memory follows the pixels
that are told with confidence.

What the founding summary leaves open is decided in ``docs/decisions`` (weak labels).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import SemanticSegmenter, pad_to_multiple, register
from .losses import known_mean
from .semantic import UNKNOWN, Trunk
from .unet import ChannelNorm, ResidualBlock, upsample

TEMPERATURE = 0.1
MOMENTUM = 0.99
FOUND, NOT_FOUND, SURE = 0.4, 0.15, 0.7
"""Normalised activation from which a pixel is a class, below which it is background,
and from which the memory learns."""


@register("pbip-seed")
class MemoryPrompting(SemanticSegmenter):
    """A memory of prototypes, class activation maps at stride 4, and a decoder.

    Parameters
    ----------
    classes : int
        Number of classes, background not counted.
    scale : float
        Network pixels per image pixel.
    n_prototypes : int
        For each class.
    features : int
        Length of the prototypes.
    decoder : int
        Channels of the decoder at stride 2.
    widths, depths, pixel_features
        As for `Trunk`.
    """

    overlap = 64

    def __init__(
        self,
        classes: int,
        scale: float = 1.0,
        n_prototypes: int = 3,
        features: int = 64,
        decoder: int = 24,
        widths: tuple[int, ...] = (24, 48, 96, 128),
        depths: tuple[int, ...] = (1, 2, 2),
        pixel_features: int = 48,
    ) -> None:
        super().__init__(classes, scale)
        self.trunk = Trunk(widths, depths, pixel_features)
        pixels, w4, w8, w16 = self.trunk.channels
        self.embed = nn.Conv2d(w4, features, 1)
        self.embed8 = nn.Conv2d(w8, features, 1)
        self.embed16 = nn.Conv2d(w16, features, 1)
        self.value = nn.Linear(features, features)
        self.head = nn.Conv2d(features, classes, 1)
        self.mix = nn.Sequential(
            nn.Conv2d(features + classes, features, 1),
            ResidualBlock(features),
            ResidualBlock(features),
        )
        self.up = nn.Conv2d(features, decoder, 1)
        self.enter2 = nn.Conv2d(pixels, decoder, 1)
        self.out = nn.Sequential(
            ChannelNorm(decoder),
            nn.Conv2d(decoder, decoder, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(decoder, 4 * (classes + 1), 3, padding=1),
        )
        memory = torch.randn(classes, n_prototypes, features)
        self.register_buffer("memory", F.normalize(memory, dim=-1))

    def embedded(self, query: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the trunk's maps and the features (B, D, h, w) at stride 4."""
        maps = self.trunk(query)
        x = self.embed8(maps[2]) + upsample(self.embed16(maps[3]))
        return maps, self.embed(maps[1]) + upsample(x)

    def recall(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features after a look into the memory, and the similarities.

        Pixels are the queries of a cross-attention, all prototypes its keys and values.
        What it answers is added, and the whole weighted by how similar the pixel is to
        anything that is remembered.

        Parameters
        ----------
        x : (B, D, h, w) tensor

        Returns
        -------
        (B, D, h, w) tensor, (B, classes, h, w) tensor
            The second: cosine to the nearest prototype of each class.
        """
        cosine = torch.einsum("bdhw,nkd->bnkhw", F.normalize(x, dim=1), self.memory)
        weights = (cosine.flatten(1, 2) / TEMPERATURE).softmax(1)
        answer = torch.einsum(
            "bmhw,md->bdhw", weights, self.value(self.memory.flatten(0, 1))
        )
        similarity = cosine.amax(2)
        share = torch.sigmoid(similarity.amax(1, keepdim=True) / TEMPERATURE)
        return (x + answer) * share, similarity

    def activations(self, query: Tensor) -> dict[str, Tensor]:
        """Return what training needs of a query (B, 3, H, W), multiples of 16.

        Returns
        -------
        dict
            ``features`` (B, D, h, w), ``cam`` (B, classes, h, w) at stride 4, and
            ``logits`` (B, classes + 1, H, W).
        """
        maps, x = self.embedded(query)
        seen, similarity = self.recall(x)
        y = self.mix(torch.cat([seen, similarity], dim=1))
        y = self.enter2(maps[0]) + upsample(self.up(y))
        return {
            "features": x,
            "cam": self.head(seen),
            "logits": F.pixel_shuffle(self.out(y), 2).float(),
        }

    def tag_scores(self, query: Tensor) -> Tensor:
        """Return the logit (B, classes) that a query holds each class."""
        _, x = self.embedded(query)
        return self.head(self.recall(x)[0]).mean((2, 3))

    def class_logits(self, query: Tensor) -> Tensor:
        """Return (B, classes + 1, H, W) logits, background first."""
        height, width = query.shape[-2:]
        return self.activations(pad_to_multiple(query, 16))["logits"][
            ..., :height, :width
        ]

    def image_scores(self, windows: Tensor, held: Tensor) -> Tensor:
        """Return scores (n, classes + 1, S, S) of all windows of one image.

        Parameters
        ----------
        windows : (n, 3, S, S) tensor
        held : (classes,) tensor
            1 for each class that the image holds.
        """
        allowed = torch.cat([held.new_ones(1), held])[:, None, None]
        parts = []
        for part in windows.split(8):
            flipped = self.class_logits(part.flip(-1)).softmax(1).flip(-1)
            parts.append((self.class_logits(part).softmax(1) + flipped) / 2 * allowed)
        scores = torch.cat(parts)
        return scores / scores.sum(1, keepdim=True).clamp(min=1e-4)

    @torch.no_grad()
    def remember(self, features: Tensor, scores: Tensor) -> None:
        """Move each prototype towards the sure pixels that are nearest to it.

        Parameters
        ----------
        features : (B, D, h, w) tensor
        scores : (B, classes, h, w) tensor
            Normalised activations, 0 for a class that the image does not hold.
        """
        vectors = F.normalize(features, dim=1).permute(0, 2, 3, 1)
        best = scores.argmax(1)
        sure = scores.amax(1) >= SURE
        memory = self.memory.clone()  # the old one is still needed for the gradient
        for c in range(self.n_classes):
            own = vectors[sure & (best == c)]
            if not len(own):
                continue
            nearest = (own @ memory[c].T).argmax(1)
            for k in nearest.unique():
                mean = F.normalize(own[nearest == k].mean(0), dim=0)
                moved = MOMENTUM * memory[c, k] + (1 - MOMENTUM) * mean
                memory[c, k] = F.normalize(moved, dim=0)
        self.memory = memory


def normalised_cam(cam: Tensor, tags: Tensor) -> Tensor:
    """Return activations (B, N, h, w) in [0, 1]; 0 for classes an image lacks."""
    cam = F.relu(cam) * tags[..., None, None]
    return cam / cam.amax((2, 3), keepdim=True).clamp(min=1e-4)


def cam_labels(scores: Tensor) -> Tensor:
    """Return labels (B, h, w) int64 of normalised activations (B, N, h, w).

    The strongest class where it is strong, background where all are weak, else unknown.
    """
    best, label = scores.max(1)
    labels = torch.full_like(label, UNKNOWN)
    labels[best < NOT_FOUND] = 0
    found = best >= FOUND
    labels[found] = label[found] + 1
    return labels


def memory_contrast(features: Tensor, scores: Tensor, memory: Tensor) -> Tensor:
    """Return InfoNCE of each class's sure region with the prototypes.

    The nearest of its own prototypes is the positive, those of other classes are the
    negatives.

    Parameters
    ----------
    features : (B, D, h, w) tensor
    scores : (B, N, h, w) tensor
        Normalised activations.
    memory : (N, K, D) tensor
    """
    sure = (scores >= SURE).float()
    total = sure.sum((2, 3))
    mean = torch.einsum("bdhw,bnhw->bnd", features, sure)
    mean = F.normalize(mean / total.clamp(min=1)[..., None], dim=-1)
    cosine = torch.einsum("bnd,mkd->bnmk", mean, memory) / TEMPERATURE
    own = torch.eye(len(memory), device=memory.device, dtype=torch.bool)
    positive = cosine.amax(-1)[:, own]  # (B, N)
    negative = cosine.masked_fill(own[..., None], -1e4).flatten(2)
    both = torch.cat([positive[..., None], negative], dim=-1)
    return known_mean(torch.logsumexp(both, -1) - positive, (total > 0).float())


def region_loss(logits: Tensor, regions: Tensor) -> Tensor:
    """Return the divergence of pixels from the mean prediction of their superpixel.

    Parameters
    ----------
    logits : (B, N + 1, H, W) tensor
    regions : (B, H, W) int64 tensor
        Superpixels of each image, from 0.
    """
    n = int(regions.max()) + 1
    log_p = logits.log_softmax(1).flatten(2)  # (B, N + 1, HW)
    index = regions.flatten(1)
    count = torch.zeros(len(index), n, device=logits.device)
    count.scatter_add_(1, index, torch.ones_like(index, dtype=count.dtype))
    wide = index[:, None].expand(-1, log_p.shape[1], -1)
    total = torch.zeros(*log_p.shape[:2], n, device=logits.device)
    mean = total.scatter_add(2, wide, log_p.exp()) / count[:, None].clamp(min=1)
    mean = mean.gather(2, wide)
    return (mean * (mean.clamp(min=1e-6).log() - log_p)).sum(1).mean()
