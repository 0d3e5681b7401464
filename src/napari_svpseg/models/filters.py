"""Ridge regression on the filters that every pixel classifier uses.

What a network learned of other images may be blind to what sets these cells apart; a
stiff linear classifier of intensity, edges and texture, fitted to the prompt alone, is
blind to nothing that is so plain.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SIGMAS = (1.0, 2.0, 4.0)
"""Widths of the Gaussians, in network pixels; the first at full resolution."""
N_FILTERS = 3 * 4 * len(SIGMAS)
PENALTY = 1.0
"""Ridge penalty in units of the mean squared filter, after standardising."""
FARTHEST = 6.0
"""A filter is cut off that many standard deviations from the prompts' mean."""


def pixel_filters(image: Tensor) -> Tensor:
    """Return intensity, edge and texture of each pixel at three scales.

    Parameters
    ----------
    image : (B, 3, H, W) tensor
        H and W are even.

    Returns
    -------
    (B, 36, H / 2, W / 2) float32 tensor
        Per scale and channel: Gaussian, gradient magnitude, two Hessian eigenvalues,
        the derivatives in units of the scale.
    """
    with torch.autocast(image.device.type, enabled=False):
        image = image.float()
        grey = bool((image[:, :1] == image[:, 1:]).all())
        if grey:  # once instead of three times
            image = image[:, :1]
        half = F.avg_pool2d(image, 2)
        fine = F.avg_pool2d(_texture(_gaussian(image, SIGMAS[0]), SIGMAS[0]), 2)
        coarse = [_texture(_gaussian(half, s / 2), s / 2) for s in SIGMAS[1:]]
        maps = [fine, *coarse]
        if grey:
            maps = [m.repeat_interleave(3, dim=1) for m in maps]
        return torch.cat(maps, dim=1)


def _gaussian(image: Tensor, sigma: float) -> Tensor:
    """Return the smoothed image; the edge is repeated outside."""
    radius = int(3 * sigma + 0.5)
    x = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = (kernel / kernel.sum())[None, None, None]
    flat = image.flatten(0, 1)[:, None]
    flat = F.conv2d(F.pad(flat, (radius, radius, 0, 0), mode="replicate"), kernel)
    flat = F.pad(flat, (0, 0, radius, radius), mode="replicate")
    return F.conv2d(flat, kernel.transpose(2, 3)).view_as(image)


def _texture(smooth: Tensor, sigma: float) -> Tensor:
    """Return the four maps of each channel, (B, 4 C, H, W)."""
    x = F.pad(smooth, (1, 1, 1, 1), mode="replicate")
    centre = x[..., 1:-1, 1:-1]
    up, down = x[..., :-2, 1:-1], x[..., 2:, 1:-1]
    left, right = x[..., 1:-1, :-2], x[..., 1:-1, 2:]
    dy, dx = (down - up) / 2, (right - left) / 2
    dyy, dxx = down + up - 2 * centre, left + right - 2 * centre
    dxy = (x[..., 2:, 2:] + x[..., :-2, :-2] - x[..., 2:, :-2] - x[..., :-2, 2:]) / 4
    gradient = torch.hypot(dy, dx)
    mean, spread = (dyy + dxx) / 2, torch.hypot((dyy - dxx) / 2, dxy)
    area = sigma**2
    return torch.cat(
        [centre, sigma * gradient, area * (mean + spread), area * (mean - spread)],
        dim=1,
    )


def standardised(filters: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Return filters (B, 36, ...) in standard deviations from the prompts' mean."""
    return (filters - mean).div_(scale).clamp_(-FARTHEST, FARTHEST)
