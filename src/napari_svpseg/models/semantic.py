"""A small U-Net for classes: the second stage of training from tags.

Its encoder is that of the default model, whose weights are a good start.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import SemanticSegmenter, pad_to_multiple, register
from .losses import known_mean
from .unet import ChannelNorm, Encoder, FeaturePyramid, ResidualBlock, upsample

UNKNOWN = 255
"""Value in a target: this pixel is not known."""


class Trunk(nn.Module):
    """Features at stride 2, 4, 8 and 16, named as in the default model.

    Parameters
    ----------
    widths : four ints
        Channels of the encoder at stride 2, 4, 8 and 16.
    depths : three ints
        Residual blocks at stride 4, 8 and 16.
    pixel_features : int
        Channels of the features at stride 2.
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
        """Return maps of ``image`` (B, 3, H, W), H and W multiples of 16.

        At stride 2 and 4 they hold what coarser maps know of the surroundings.
        """
        maps = self.encoder(image)
        pyramid = self.pyramid(maps[1:])
        pixels = self.fine_pixels(maps[0]) + upsample(self.coarse_pixels(pyramid))
        pixels = torch.tanh(self.mix_pixels(F.relu(pixels)))
        return [pixels, pyramid, maps[2], maps[3]]

    def take_weights(self, other: nn.Module) -> bool:
        """Take the weights of another network that fit; tell whether all were there."""
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
    """Classes of each pixel.

    Parameters
    ----------
    classes : int
        Number of classes, background not counted.
    scale : float
        Network pixels per image pixel.
    widths, depths, pixel_features
        As for `Trunk`.
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
            nn.Conv2d(d2, 4 * (classes + 1), 3, padding=1),
        )

    def class_logits(self, query: Tensor) -> Tensor:
        """Return (B, classes + 1, H, W) logits, background first."""
        height, width = query.shape[-2:]
        f2, f4, f8, f16 = self.trunk(pad_to_multiple(query, 16))
        x = self.enter8(f8) + upsample(self.enter16(f16))
        x = self.blocks4(self.enter4(f4) + upsample(x))
        x = self.enter2(f2) + upsample(self.up(x))
        return F.pixel_shuffle(self.out(x), 2)[..., :height, :width].float()


def semantic_loss(
    logits: Tensor, target: Tensor, *, smoothing: float = 0.1
) -> dict[str, Tensor]:
    """Return cross-entropy with label smoothing, and soft Dice over classes.

    Parameters
    ----------
    logits : (B, N + 1, H, W) tensor
    target : (B, H, W) int64 tensor
        0 = background, 1 to N, `UNKNOWN` where it does not count.
    smoothing : float
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
    axes = (0, 2, 3)  # over the batch: a class that one window lacks is no loss
    size = p.sum(axes) + t.sum(axes)
    dice = (2 * (p * t).sum(axes) + 1) / (size + 1)
    return {
        "cross_entropy": known_mean(entropy, known.float()),
        "dice": (1 - dice).mean(),
    }
