"""Encoder and decoder blocks that all methods share.

Normalisation acts on each pixel alone (over its channels), so that the answer for a
pixel does not depend on which tile it was read in.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (B, C, H, W) normalised over C."""
        x = x.permute(0, 2, 3, 1)
        # in the precision of x: autocast would widen it, at the price of two copies
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
            x = F.layer_norm(x, (x.shape[-1],), weight, bias, 1e-5)
        return x.permute(0, 3, 1, 2)


class Pointwise(nn.Conv2d):
    """A convolution of 1 x 1 pixel that keeps channels last where they are last.

    On a CPU with one thread PyTorch takes a plain matrix product for these, half as
    fast as oneDNN, and its answer has the channels first; sums with maps that have
    them last are then many times as slow. A dilation, which one pixel does not feel,
    makes it take oneDNN.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``outputs`` maps (B, C, H, W)."""
        return pointwise(x, self.weight, self.bias)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``weight`` (D, C, 1, 1) times each pixel of ``x`` (B, C, H, W)."""
    return F.conv2d(x, weight, bias, dilation=2 if x.device.type == "cpu" else 1)


def join_maps(*maps: Tensor) -> Tensor:
    """Return the channels of maps (B, C, H, W) together, channels last."""
    return torch.cat([m.permute(0, 2, 3, 1) for m in maps], dim=3).permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.normal_(self.second.weight, std=1e-2)

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the same shape."""
        return x + self.second(F.relu(self.first(self.norm(x))))


class Encoder(nn.Module):
    """Three channels in, feature maps at stride 2, 4, 8 and 16 out.

    Parameters
    ----------
    widths : sequence of 4 ints
        Channels at stride 2, 4, 8 and 16.
    depths : sequence of 3 ints
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
        """Return the maps of ``image`` (B, 3, H, W), H and W multiples of 16."""
        maps = [self.stem(image)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps


def standard_encoder(width: int = 24) -> Encoder:
    """Return an encoder of the default model's proportions.

    With 24 channels at stride 2 it is the default model's own, so that every method can
    start from what that one has learned.
    """
    widths = (width, 2 * width, 4 * width, 16 * width // 3)
    return Encoder(widths, (1, 2, 2))


class FeaturePyramid(nn.Module):
    """Brings coarse maps down to stride 4 and adds them up."""

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
    """Return ``x`` enlarged bilinearly."""
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
