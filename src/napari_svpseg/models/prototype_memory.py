"""Tags to masks with a learned memory of prototypes (M7, seed variant).

One network, trained end to end: pixels attend to a memory of prototypes, class
activation maps (CAM) learned from image-level tags become labels for a decoder, and the
memory follows the pixels that are classified with confidence.

Sizes and schedules are ours: ``docs/decisions/0034-seed-variant.md``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import MASKED, SemanticSegmenter, pad_to_multiple, register
from .losses import known_mean
from .semantic import UNKNOWN, Trunk
from .unet import ChannelNorm, ResidualBlock, upsample

TEMPERATURE = 0.1
"""Divides cosine similarities before a softmax or sigmoid."""
MOMENTUM = 0.99
"""Share of a prototype that an update of the memory keeps."""
FOREGROUND_CAM = 0.4
"""A pixel belongs to a class from this normalised activation on."""
BACKGROUND_CAM = 0.15
"""A pixel is background below this activation; between the two it is unknown."""
CONFIDENT_CAM = 0.7
"""The memory learns from pixels with at least this activation."""


@register("pbip-seed")
class MemoryPrompting(SemanticSegmenter):
    """A memory of prototypes, class activation maps at stride 4, and a decoder.

    Parameters
    ----------
    classes, scale
        See `SemanticSegmenter`.
    n_prototypes : int
        Prototypes per class.
    features : int
        Length of a prototype.
    decoder : int
        Channels of the decoder at stride 2.
    widths, depths, pixel_features
        See `Trunk`.
    """

    overlap = 64

    memory: Tensor
    """(classes, n_prototypes, features) unit vectors."""

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
            nn.Conv2d(decoder, 4 * (classes + 1), 3, padding=1),  # 2 x 2 pixels each
        )
        memory = torch.randn(classes, n_prototypes, features)
        self.register_buffer("memory", F.normalize(memory, dim=-1))

    def embeddings(self, query: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the trunk's maps and the features (B, D, H/4, W/4) of a query.

        Parameters
        ----------
        query : (B, 3, H, W) tensor
            H and W are multiples of 16.
        """
        maps = self.trunk(query)
        x = self.embed8(maps[2]) + upsample(self.embed16(maps[3]))
        return maps, self.embed(maps[1]) + upsample(x)

    def read_memory(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features enriched from the memory, and similarities to the classes.

        In a cross-attention pixels are the queries and all prototypes are keys and
        values. Its output is added to the features, which are then multiplied by how
        similar the pixel is to any prototype (spatial re-weighting).

        Parameters
        ----------
        x : (B, D, h, w) tensor

        Returns
        -------
        features : (B, D, h, w) tensor
        similarity : (B, classes, h, w) tensor
            Cosine to the nearest prototype of each class.
        """
        # b: batch, d: feature, n: class, k: prototype of a class, m: any prototype
        cosine = torch.einsum("bdhw,nkd->bnkhw", F.normalize(x, dim=1), self.memory)
        weights = (cosine.flatten(1, 2) / TEMPERATURE).softmax(1)
        answer = torch.einsum(
            "bmhw,md->bdhw", weights, self.value(self.memory.flatten(0, 1))
        )
        similarity = cosine.amax(2)  # (B, classes, h, w)
        share = torch.sigmoid(similarity.amax(1, keepdim=True) / TEMPERATURE)
        return (x + answer) * share, similarity

    def activations(self, query: Tensor) -> dict[str, Tensor]:
        """Return the maps that the losses of training compare.

        Parameters
        ----------
        query : (B, 3, H, W) tensor
            H and W are multiples of 16.

        Returns
        -------
        dict
            ``features`` (B, D, H/4, W/4), ``cam`` (B, classes, H/4, W/4) and
            ``logits`` (B, classes + 1, H, W).
        """
        maps, x = self.embeddings(query)
        seen, similarity = self.read_memory(x)
        y = self.mix(torch.cat([seen, similarity], dim=1))
        y = self.enter2(maps[0]) + upsample(self.up(y))
        return {
            "features": x,
            "cam": self.head(seen),
            "logits": F.pixel_shuffle(self.out(y), 2).float(),
        }

    def tag_scores(self, query: Tensor) -> Tensor:
        """Return the tag logits (B, classes): whether a query shows each class."""
        _, x = self.embeddings(query)
        return self.head(self.read_memory(x)[0]).mean((2, 3))

    def class_logits(self, query: Tensor) -> Tensor:
        """Return logits (B, classes + 1, H, W) of a query; background comes first."""
        height, width = query.shape[-2:]
        return self.activations(pad_to_multiple(query, 16))["logits"][
            ..., :height, :width
        ]

    def image_scores(self, windows: Tensor, tags: Tensor) -> Tensor:
        """Return scores (n, classes + 1, S, S) of all windows of one training image.

        Classes that the image does not show are excluded.

        Parameters
        ----------
        windows : (n, 3, S, S) tensor
        tags : (classes,) tensor
            1 for each class that the image shows.
        """
        allowed = torch.cat([tags.new_ones(1), tags])[:, None, None]
        parts = []
        for part in windows.split(8):
            # mean of the window and its mirror image (test-time augmentation)
            flipped = self.class_logits(part.flip(-1)).softmax(1).flip(-1)
            parts.append((self.class_logits(part).softmax(1) + flipped) / 2 * allowed)
        scores = torch.cat(parts)
        return scores / scores.sum(1, keepdim=True).clamp(min=1e-4)

    @torch.no_grad()
    def update_memory(self, features: Tensor, scores: Tensor) -> None:
        """Move each prototype towards the confident pixels that are nearest to it.

        Parameters
        ----------
        features : (B, D, h, w) tensor
        scores : (B, classes, h, w) tensor
            Normalised activations, 0 for a class that the image does not show.
        """
        vectors = F.normalize(features, dim=1).permute(0, 2, 3, 1)  # (B, h, w, D)
        best = scores.argmax(1)
        confident = scores.amax(1) >= CONFIDENT_CAM
        # a copy: autograd still needs the old memory of this step
        memory = self.memory.clone()
        for c in range(self.n_classes):
            own = vectors[confident & (best == c)]
            if not len(own):
                continue
            nearest = (own @ memory[c].T).argmax(1)
            for k in nearest.unique():
                mean = F.normalize(own[nearest == k].mean(0), dim=0)
                moved = MOMENTUM * memory[c, k] + (1 - MOMENTUM) * mean
                memory[c, k] = F.normalize(moved, dim=0)
        self.memory = memory


def normalised_cam(cam: Tensor, tags: Tensor) -> Tensor:
    """Return activations in [0, 1], where each class of an image reaches 1.

    Parameters
    ----------
    cam : (B, N, h, w) tensor
        Class activation maps.
    tags : (B, N) tensor
        1 for each class that the image shows; the maps of others become 0.

    Returns
    -------
    (B, N, h, w) tensor
    """
    cam = F.relu(cam) * tags[..., None, None]
    return cam / cam.amax((2, 3), keepdim=True).clamp(min=1e-4)


def cam_labels(scores: Tensor) -> Tensor:
    """Return labels (B, h, w) int64 of normalised activations (B, N, h, w).

    A pixel gets its strongest class (from 1) if that reaches `FOREGROUND_CAM`, 0 if
    all are below `BACKGROUND_CAM`, else `UNKNOWN`.
    """
    best, label = scores.max(1)
    labels = torch.full_like(label, UNKNOWN)
    labels[best < BACKGROUND_CAM] = 0
    found = best >= FOREGROUND_CAM
    labels[found] = label[found] + 1
    return labels


def memory_contrast(features: Tensor, scores: Tensor, memory: Tensor) -> Tensor:
    """Return the InfoNCE loss of each class's confident region with the prototypes.

    The positive is the nearest prototype of the class, the negatives are all prototypes
    of other classes.

    Parameters
    ----------
    features : (B, D, h, w) tensor
    scores : (B, N, h, w) tensor
        Normalised activations.
    memory : (N, K, D) tensor
        Prototypes.
    """
    confident = (scores >= CONFIDENT_CAM).float()
    total = confident.sum((2, 3))
    mean = torch.einsum("bdhw,bnhw->bnd", features, confident)  # of each region
    mean = F.normalize(mean / total.clamp(min=1)[..., None], dim=-1)
    cosine = torch.einsum("bnd,mkd->bnmk", mean, memory) / TEMPERATURE
    own = torch.eye(len(memory), device=memory.device, dtype=torch.bool)
    positive = cosine.amax(-1)[:, own]  # (B, N)
    negative = cosine.masked_fill(own[..., None], MASKED).flatten(2)  # (B, N, N K)
    both = torch.cat([positive[..., None], negative], dim=-1)
    return known_mean(torch.logsumexp(both, -1) - positive, (total > 0).float())


def region_loss(logits: Tensor, regions: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of pixels from their superpixel's mean.

    Parameters
    ----------
    logits : (B, N + 1, H, W) tensor
    regions : (B, H, W) int64 tensor
        Superpixel ids of each image, from 0.
    """
    n = int(regions.max()) + 1
    log_p = logits.log_softmax(1).flatten(2)  # (B, N + 1, HW)
    index = regions.flatten(1)
    # means by scatter-add: superpixels differ in size, so they cannot be stacked
    count = torch.zeros(len(index), n, device=logits.device)
    count.scatter_add_(1, index, torch.ones_like(index, dtype=count.dtype))
    wide = index[:, None].expand(-1, log_p.shape[1], -1)
    total = torch.zeros(*log_p.shape[:2], n, device=logits.device)
    mean = total.scatter_add(2, wide, log_p.exp()) / count[:, None].clamp(min=1)
    mean = mean.gather(2, wide)
    return (mean * (mean.clamp(min=1e-6).log() - log_p)).sum(1).mean()
