"""Encoder, decoder blocks and layers that all methods share.

Normalisation acts on each pixel alone (over its channels), never over the image, so
that the result for a pixel does not depend on which tile it was read in.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel.

    Parameters
    ----------
    channels : int
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (B, C, H, W) normalised over C."""
        x = x.permute(0, 2, 3, 1)  # (B, H, W, C)
        # Stay in the precision of x: autocast would compute in float32, which costs
        # two copies of the map.
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
            x = F.layer_norm(x, (x.shape[-1],), weight, bias, 1e-5)
        return x.permute(0, 3, 1, 2)


class Pointwise(nn.Conv2d):
    """A 1 x 1 convolution that keeps the channels-last layout on a CPU.

    With one thread PyTorch computes a 1 x 1 convolution as a plain matrix product. That
    is half as fast as oneDNN and returns channels first, which makes a later sum with a
    channels-last map many times slower. A dilation changes nothing for a kernel of one
    pixel, but makes PyTorch choose oneDNN
    (``docs/decisions/0060-one-layout-of-maps.md``).

    Parameters
    ----------
    inputs, outputs : int
        Number of channels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map (B, outputs, H, W) of a map (B, inputs, H, W)."""
        return pointwise(x, self.weight, self.bias)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the 1 x 1 convolution of ``x``, see `Pointwise`.

    Parameters
    ----------
    x : (B, C, H, W) tensor
    weight : (D, C, 1, 1) tensor
    bias : (D,) tensor, optional

    Returns
    -------
    (B, D, H, W) tensor
    """
    return F.conv2d(x, weight, bias, dilation=2 if x.device.type == "cpu" else 1)


def join_maps(*maps: Tensor) -> Tensor:
    """Return maps (B, C, H, W) concatenated along C, in channels-last layout."""
    return torch.cat([m.permute(0, 2, 3, 1) for m in maps], dim=3).permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions added to their input.

    Parameters
    ----------
    channels : int
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        # starts close to the identity, so that deep stacks train from the first step
        nn.init.normal_(self.second.weight, std=1e-2)

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the same shape as ``x`` (B, C, H, W)."""
        return x + self.second(F.relu(self.first(self.norm(x))))


class Encoder(nn.Module):
    """Feature maps at stride 2, 4, 8 and 16 of an image with three channels.

    Parameters
    ----------
    widths : four ints
        Channels at stride 2, 4, 8 and 16; three for an encoder that ends at stride 8.
    depths : three ints
        Residual blocks at stride 4, 8 and 16.
    """

    def __init__(
        self,
        widths: tuple[int, ...] = (24, 48, 96, 128),
        depths: tuple[int, ...] = (2, 2, 2),
    ) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(widths[0], widths[0], 3, padding=1),
        )
        self.stages = nn.ModuleList(
            nn.Sequential(
                ChannelNorm(width_in),
                nn.Conv2d(width_in, width, 3, stride=2, padding=1),
                *(ResidualBlock(width) for _ in range(depth)),
            )
            for width_in, width, depth in zip(
                widths[:-1], widths[1:], depths, strict=True
            )
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the maps of ``image`` (B, 3, H, W), the finest first.

        H and W are multiples of 16. The map at stride s is
        (B, widths at s, H / s, W / s).
        """
        maps = [self.stem(image)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps


def standard_encoder(width: int = 24) -> Encoder:
    """Return an encoder with the proportions of the default model's.

    With 24 channels at stride 2 it is the default model's own, so that every method can
    start from its weights.
    """
    widths = (width, 2 * width, 4 * width, 16 * width // 3)
    return Encoder(widths, (1, 2, 2))


class FeaturePyramid(nn.Module):
    """Sum of encoder maps at stride 4, the coarse ones enlarged (Lin et al., 2017).

    Parameters
    ----------
    widths : sequence of int
        Channels of the maps, from fine to coarse.
    channels : int
        Channels of the sum.
    """

    def __init__(self, widths: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(Pointwise(w, channels) for w in widths)
        self.smooth = nn.Sequential(
            ChannelNorm(channels), nn.Conv2d(channels, channels, 3, padding=1)
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Return one map (B, C, H/4, W/4) from maps at stride 4, 8, 16."""
        top = self.laterals[-1](maps[-1])
        for lateral, fine in zip(
            reversed(self.laterals[:-1]), reversed(maps[:-1]), strict=True
        ):
            top = lateral(fine) + upsample(top)
        return self.smooth(top)


def upsample(x: Tensor, factor: int = 2) -> Tensor:
    """Return ``x`` (B, C, H, W) enlarged bilinearly by ``factor``."""
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
