"""A small U-Net for classes: the second stage of training from tags.

Its encoder is that of the default model and starts from its weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import SemanticSegmenter, pad_to_multiple, register
from .losses import known_mean
from .unet import ChannelNorm, Encoder, FeaturePyramid, ResidualBlock, upsample

UNKNOWN = 255
"""Value of unknown pixels in a target (an ``ignore_index``)."""


class Trunk(nn.Module):
    """The default model's feature extractor: maps at stride 2, 4, 8 and 16.

    The layers are named as in `svp.EvidenceSegmenter`, so that its weights fit.

    Parameters
    ----------
    widths, depths
        See `unet.Encoder`.
    pixel_features : int
        Channels of the map at stride 2.
    """

    def __init__(
        self,
        widths: tuple[int, ...] = (24, 48, 96, 128),
        depths: tuple[int, ...] = (1, 2, 2),
        pixel_features: int = 48,
    ) -> None:
        super().__init__()
        w2, w4, w8, w16 = widths
        self.channels = (pixel_features, w4, w8, w16)
        self.encoder = Encoder(tuple(widths), tuple(depths))
        self.pyramid = FeaturePyramid((w4, w8, w16), w4)
        self.coarse_pixels = nn.Conv2d(w4, pixel_features, 1)
        self.fine_pixels = nn.Conv2d(w2, pixel_features, 3, padding=1)
        self.mix_pixels = nn.Conv2d(pixel_features, pixel_features, 1)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return maps (B, `channels`, H / s, W / s) at stride s = 2, 4, 8 and 16.

        Those at stride 2 and 4 include context from the coarser maps.

        Parameters
        ----------
        image : (B, 3, H, W) tensor
            H and W are multiples of 16.
        """
        maps = self.encoder(image)
        pyramid = self.pyramid(maps[1:])
        pixels = self.fine_pixels(maps[0]) + upsample(self.coarse_pixels(pyramid))
        pixels = torch.tanh(self.mix_pixels(F.relu(pixels)))
        return [pixels, pyramid, maps[2], maps[3]]

    def take_weights(self, other: nn.Module) -> bool:
        """Copy the weights of another network that fit; return whether all did."""
        given = other.state_dict()
        own = self.state_dict()
        fitting = {
            name: given[name]
            for name, value in own.items()
            if name in given and given[name].shape == value.shape
        }
        self.load_state_dict(fitting, strict=False)
        return len(fitting) == len(own)


@register("semantic")
class SemanticUNet(SemanticSegmenter):
    """A U-Net that predicts the class of each pixel.

    Parameters
    ----------
    classes, scale
        See `SemanticSegmenter`.
    widths, depths, pixel_features
        See `Trunk`.
    decoder : two ints
        Channels of the decoder at stride 2 and 4.
    """

    overlap = 64

    def __init__(
        self,
        classes: int,
        scale: float = 1.0,
        widths: tuple[int, ...] = (24, 48, 96, 128),
        depths: tuple[int, ...] = (1, 2, 2),
        pixel_features: int = 48,
        decoder: tuple[int, ...] = (24, 48),
    ) -> None:
        super().__init__(classes, scale)
        self.trunk = Trunk(widths, depths, pixel_features)
        d2, d4 = decoder
        pixels, w4, w8, w16 = self.trunk.channels
        self.enter8 = nn.Conv2d(w8, d4, 1)
        self.enter16 = nn.Conv2d(w16, d4, 1)
        self.enter4 = nn.Conv2d(w4, d4, 1)
        self.blocks4 = nn.Sequential(ResidualBlock(d4), ResidualBlock(d4))
        self.up = nn.Conv2d(d4, d2, 1)
        self.enter2 = nn.Conv2d(pixels, d2, 1)
        self.out = nn.Sequential(
            ChannelNorm(d2),
            nn.Conv2d(d2, d2, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(d2, 4 * (classes + 1), 3, padding=1),  # 2 x 2 pixels each
        )

    def class_logits(self, query: Tensor) -> Tensor:
        """Return logits (B, classes + 1, H, W) of a query; background comes first."""
        height, width = query.shape[-2:]
        f2, f4, f8, f16 = self.trunk(pad_to_multiple(query, 16))
        x = self.enter8(f8) + upsample(self.enter16(f16))  # (B, d4, H/8, W/8)
        x = self.blocks4(self.enter4(f4) + upsample(x))  # (B, d4, H/4, W/4)
        x = self.enter2(f2) + upsample(self.up(x))  # (B, d2, H/2, W/2)
        return F.pixel_shuffle(self.out(x), 2)[..., :height, :width].float()


def semantic_loss(
    logits: Tensor, target: Tensor, *, smoothing: float = 0.1
) -> dict[str, Tensor]:
    """Return the terms of the loss: label-smoothed cross-entropy, and soft Dice.

    Parameters
    ----------
    logits : (B, N + 1, H, W) tensor
    target : (B, H, W) int64 tensor
        0 = background, classes 1 to N, `UNKNOWN` where a pixel does not count.
    smoothing : float
        Label smoothing: targets are pseudo labels, some of which are wrong.
    """
    known = target != UNKNOWN
    entropy = F.cross_entropy(
        logits,
        torch.where(known, target, 0),
        reduction="none",
        label_smoothing=smoothing,
    )
    p = logits.softmax(1) * known[:, None]
    t = F.one_hot(torch.where(known, target, 0), logits.shape[1])
    t = t.permute(0, 3, 1, 2) * known[:, None]
    # Dice of the whole batch: of a single window it would be undefined for the classes
    # that the window does not show
    axes = (0, 2, 3)
    size = p.sum(axes) + t.sum(axes)
    dice = (2 * (p * t).sum(axes) + 1) / (size + 1)
    return {
        "cross_entropy": known_mean(entropy, known.float()),
        "dice": (1 - dice).mean(),
    }
