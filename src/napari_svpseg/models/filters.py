"""Fixed image filters for a linear pixel classifier, as in classical pixel classifiers.

A network cannot distinguish what its training images never asked it to distinguish. A
strongly regularised linear classifier of intensity, edges and texture, fitted to the
prompt alone, depends on no training images. `models.svp` adds it to its foreground.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import is_exported

SIGMAS = (1.0, 2.0, 4.0)
"""Widths of the Gaussians in network pixels; the first acts at full resolution."""
N_FILTERS = 3 * 4 * len(SIGMAS)
PENALTY = 1.0
"""Ridge penalty, relative to the mean square of the standardised filters."""
FARTHEST = 6.0
"""Filters are clipped at this many standard deviations from the prompts' mean."""


def pixel_filters(image: Tensor) -> Tensor:
    """Return intensity, edge and texture filters of each pixel at three scales.

    Parameters
    ----------
    image : (B, 3, H, W) tensor
        H and W are even.

    Returns
    -------
    (B, 36, H / 2, W / 2) float32 tensor
        For each scale and channel: Gaussian, gradient magnitude and the two Hessian
        eigenvalues. Derivatives are multiplied by sigma (second ones by sigma squared),
        so that all scales have comparable ranges.
    """
    # float32: second differences of neighbouring pixels cancel in half precision
    with torch.autocast(image.device.type, enabled=False):
        image = image.float()
        grey = not is_exported() and bool((image[:, :1] == image[:, 1:]).all())
        if grey:  # filter one channel and repeat the result
            image = image[:, :1]
        half = F.avg_pool2d(image, 2)
        # Only the finest Gaussian needs the full resolution. For the wider ones half
        # the resolution is enough and costs a quarter.
        fine = F.avg_pool2d(_texture(_gaussian(image, SIGMAS[0]), SIGMAS[0]), 2)
        coarse = [_texture(_gaussian(half, s / 2), s / 2) for s in SIGMAS[1:]]
        maps = [fine, *coarse]  # each (B, 4 C, H / 2, W / 2)
        if grey:
            maps = [m.repeat_interleave(3, dim=1) for m in maps]
        return torch.cat(maps, dim=1)


def _gaussian(image: Tensor, sigma: float) -> Tensor:
    """Return the smoothed image (B, C, H, W); edge pixels are repeated outside."""
    radius = int(3 * sigma + 0.5)
    weights = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(radius + 1)]
    total = 2 * sum(weights) - weights[0]
    weights = [weight / total for weight in weights]
    across = F.pad(image, (radius, radius, 0, 0), mode="replicate")
    smooth = _weighted_sum(across, weights, 3)
    down = F.pad(smooth, (0, 0, radius, radius), mode="replicate")
    return _weighted_sum(down, weights, 2)


def _weighted_sum(x: Tensor, weights: list[float], dim: int) -> Tensor:
    """Return the symmetric weighted sum of neighbours, one shifted map after the other.

    A convolution of one channel takes up to ten times as long on a CPU.

    Parameters
    ----------
    x : tensor
        With as many pixels more at both ends of ``dim`` as a pixel has neighbours.
    weights : list of float
        Of the pixel itself, of its two neighbours, and so on.
    dim : int
    """
    radius = len(weights) - 1
    size = x.shape[dim] - 2 * radius
    found = x.narrow(dim, radius, size) * weights[0]
    for shift, weight in enumerate(weights[1:], start=1):
        found.add_(x.narrow(dim, radius - shift, size), alpha=weight)
        found.add_(x.narrow(dim, radius + shift, size), alpha=weight)
    return found


def _texture(smooth: Tensor, sigma: float) -> Tensor:
    """Return the four filters (B, 4 C, H, W) of a smoothed image (B, C, H, W)."""
    x = F.pad(smooth, (1, 1, 1, 1), mode="replicate")
    centre = x[..., 1:-1, 1:-1]
    up, down = x[..., :-2, 1:-1], x[..., 2:, 1:-1]
    left, right = x[..., 1:-1, :-2], x[..., 1:-1, 2:]
    dy, dx = (down - up) / 2, (right - left) / 2
    dyy, dxx = down + up - 2 * centre, left + right - 2 * centre
    dxy = (x[..., 2:, 2:] + x[..., :-2, :-2] - x[..., 2:, :-2] - x[..., :-2, 2:]) / 4
    gradient = _length(dy, dx)
    # eigenvalues of the symmetric 2 x 2 Hessian: half its trace, plus and minus
    mean, spread = (dyy + dxx) / 2, _length((dyy - dxx) / 2, dxy)
    area = sigma**2
    return torch.cat(
        [centre, sigma * gradient, area * (mean + spread), area * (mean - spread)],
        dim=1,
    )


def _length(y: Tensor, x: Tensor) -> Tensor:
    """Return the length of vectors; ONNX has no ``hypot``."""
    return (y * y + x * x).sqrt()


def standardised(filters: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Return filters in standard deviations from the prompts' mean, clipped.

    Clipped, because a linear classifier would answer with any value to a pixel (a
    bright speck) far outside what the prompts show.

    Parameters
    ----------
    filters : (B, N, 36) or (B, 36, h, w) tensor
    mean, scale : tensors
        Mean and standard deviation of the prompts' filters, shaped to broadcast.
    """
    # in place: the difference is a new tensor, and the largest of its kind
    return (filters - mean).div_(scale).clamp_(-FARTHEST, FARTHEST)
