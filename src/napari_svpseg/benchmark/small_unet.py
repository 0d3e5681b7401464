"""A plain U-Net, as a user without our models would train it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..models.base import pad_to_multiple


class SmallUNet(nn.Module):
    """A U-Net of three levels with group norm; 0.1 M parameters at width 16.

    Parameters
    ----------
    channels : int
        Channels of the image.
    width : int
        Channels of the first level; doubled at each of the next two.
    """

    def __init__(self, channels: int, width: int = 16) -> None:
        super().__init__()
        self.down1 = _block(channels, width)
        self.down2 = _block(width, 2 * width)
        self.bottom = _block(2 * width, 4 * width)
        self.up2 = _block(6 * width, 2 * width)
        self.up1 = _block(3 * width, width)
        self.head = nn.Conv2d(width, 1, 1)
        self.pool = nn.MaxPool2d(2)
        self.grow = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, 1, H, W) of an image (B, C, H, W) of any size."""
        height, width = image.shape[-2:]
        fine = self.down1(pad_to_multiple(image, 4))  # (B, w, H, W)
        middle = self.down2(self.pool(fine))  # (B, 2w, H/2, W/2)
        coarse = self.bottom(self.pool(middle))  # (B, 4w, H/4, W/4)
        middle = self.up2(torch.cat([middle, self.grow(coarse)], dim=1))
        fine = self.up1(torch.cat([fine, self.grow(middle)], dim=1))
        logits: Tensor = self.head(fine)
        return logits[..., :height, :width]


def _block(channels: int, width: int) -> nn.Sequential:
    """Return two 3 x 3 convolutions, each with group norm and ReLU."""
    layers: list[nn.Module] = []
    for n in (channels, width):
        layers += [nn.Conv2d(n, width, 3, padding=1), nn.GroupNorm(8, width), nn.ReLU()]
    return nn.Sequential(*layers)
