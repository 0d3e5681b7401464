"""A network with its prompts baked in: one image in, maps out, at the image's scale.

What `engine.inference` does around a network is part of the module: intensities,
resampling, mirrored borders. It is written in steps that are the same in all programs
that read the exported graph: they differ in how they resize images and normalise
channels, so images are resampled by products with matrices, and channels are normalised
in single steps.
"""

from __future__ import annotations

import copy
import math
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...models.base import PromptCode
from ...models.svp import EvidenceSegmenter
from ...models.unet import ChannelNorm
from ..inference.forward import MAPS

PARTS = 10**9
"""Denominator of the scale: shapes are counted in whole numbers."""

ENDLESS = 1e6
"""From here on a value shows that it was divided by nothing: see `_contrast`."""

Length = int
"""While a graph is written for all sizes, a symbol that computes like one."""


class PlainNorm(nn.Module):
    """`ChannelNorm` in single steps.

    Parameters
    ----------
    norm : ChannelNorm
    """

    def __init__(self, norm: ChannelNorm) -> None:
        super().__init__()
        shape = (1, -1, 1, 1)
        self.register_buffer("weight", norm.weight.detach().clone().view(shape))
        self.register_buffer("bias", norm.bias.detach().clone().view(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (B, C, H, W) normalised over C."""
        x = x - x.mean(1, keepdim=True)
        spread = ((x * x).mean(1, keepdim=True) + 1e-5).sqrt()
        return x / spread * self.get_buffer("weight") + self.get_buffer("bias")


class BakedModel(nn.Module):
    """A network, the code of its prompts and the scale of both.

    Parameters
    ----------
    network : EvidenceSegmenter
        A copy is kept.
    code : dict of tensors
        From ``network.encode_prompts``, with a batch of 1.
    scale : float
        Network pixels per pixel of the image.
    side : int, optional
        The only side that images have, for programs that cannot compute with shapes;
        by default images have any size.
    """

    def __init__(
        self,
        network: EvidenceSegmenter,
        code: PromptCode,
        scale: float,
        side: int | None = None,
    ) -> None:
        super().__init__()
        self.network = _in_single_steps(copy.deepcopy(network).cpu().eval())
        self.network.requires_grad_(False)
        self.names = tuple(code)
        for name, value in code.items():
            self.register_buffer(f"code_{name}", value.detach().cpu().float().clone())
        self.scale, self.stride = float(scale), network.stride
        # the same smoothing before reduction as engine.inference.tiling.ScaledQuery
        sigma = max(0.0, (1 / scale - 1) / 2)
        radius = int(4 * sigma + 0.5)
        x = torch.arange(-radius, radius + 1, dtype=torch.float64)
        kernel = torch.exp(-0.5 * (x / sigma) ** 2) if radius else torch.ones(1)
        self.register_buffer("kernel", (kernel / kernel.sum()).float())
        self.side = side
        if side is not None:
            there = _to_network(side, self.scale, self.stride)
            self.register_buffer("there", there)
            self.register_buffer("back", _to_image(side, self.scale, len(there)))

    @property
    def smallest(self) -> int:
        """Smallest side of an image in pixels, which still has more than its halo."""
        return 2 * self.halo + self.stride

    @property
    def halo(self) -> int:
        """Pixels from the border of an image at which its maps are not affected."""
        halo = math.ceil(self.network.overlap / self.scale)
        halo += len(self.get_buffer("kernel")) // 2
        return math.ceil(halo / self.stride) * self.stride

    def forward(self, image: Tensor) -> Tensor:
        """Return the maps (1, 3, H, W) of `MAPS`, in [0, 1].

        Parameters
        ----------
        image : (1, C, H, W) float32 tensor
            0 at the low and 1 at the high percentile of each channel; one to three
            channels, as many as the prompts'.
        """
        height, width = image.shape[2:]
        # as `core.image.normalise`, where a channel without contrast is in the middle
        contrast = _contrast(image)
        x = (image.clamp(-0.2, 1.2) - 0.5) / 0.25 * contrast
        # at a scale of 1, too: it mirrors the border up to the next multiple of stride
        x = _sampled(self._smoothed(x), *(self._there(n) for n in (height, width)))
        code = {name: self.get_buffer(f"code_{name}") for name in self.names}
        named = self.network(_three_maps(x), code)
        maps = torch.cat([named[name] for name in MAPS], dim=1).sigmoid()
        sides = zip((height, width), maps.shape[2:], strict=True)
        return _sampled(maps, *(self._back(n, m) for n, m in sides))

    def _there(self, length: Length) -> Tensor:
        """Return the matrix that resamples one axis of the image for the network."""
        if self.side is not None:
            return self.get_buffer("there")
        return _to_network(length, self.scale, self.stride)

    def _back(self, length: Length, n: Length) -> Tensor:
        """Return the matrix that resamples one axis of the network's maps."""
        if self.side is not None:
            return self.get_buffer("back")
        return _to_image(length, self.scale, n)

    def _smoothed(self, x: Tensor) -> Tensor:
        """Return a map (1, C, H, W), blurred and mirrored at its borders."""
        kernel = self.get_buffer("kernel")
        radius = len(kernel) // 2
        if not radius:
            return x
        for pad, shape in (((radius, radius, 0, 0), 2), ((0, 0, radius, radius), 3)):
            weights = kernel.view(1, 1, *(1, -1) if shape == 2 else (-1, 1))
            weights = weights.repeat(x.shape[1], 1, 1, 1)
            x = F.conv2d(F.pad(x, pad, mode="reflect"), weights, groups=x.shape[1])
        return x


def _in_single_steps(network: EvidenceSegmenter) -> EvidenceSegmenter:
    """Return a network whose normalisation is in single steps."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, ChannelNorm):
                setattr(module, name, PlainNorm(child))
    return network


def _contrast(image: Tensor) -> Tensor:
    """Return 1 for each channel (1, C, 1, 1) with contrast, 0 for others.

    Where both percentiles are the same, `scaled_range` makes each pixel 0, and the few
    that are darker or brighter larger than `ENDLESS`.
    """
    # by numbers, as OpenCV 4 reads no truth values
    far = image.abs()
    differs = (far.clamp(max=1) * 1e30).clamp(max=1)
    return (differs * (ENDLESS - far).clamp(0, 1)).amax((2, 3), keepdim=True)


def _three_maps(x: Tensor) -> Tensor:
    """Return an image (1, C, H, W) of one to three channels with three."""
    if x.shape[1] == 1:
        return torch.cat([x, x, x], dim=1)
    if x.shape[1] == 2:
        return torch.cat([x, x.mean(1, keepdim=True)], dim=1)
    return x


def _to_network(length: Length, scale: float, stride: int) -> Tensor:
    """Return a matrix (network pixels, ``length``) that resamples one axis.

    As `engine.inference.tiling.ScaledQuery`: linear, mirrored beyond the last pixel up
    to the next multiple of the stride.
    """
    parts = Fraction(scale).limit_denominator(PARTS)
    # a millionth of a pixel less, as in `engine.inference.tiling.network_length`
    part, whole = parts.numerator, parts.denominator
    # never negative: programs divide negative whole numbers differently
    inside = (length * part + whole - 1 - whole // 10**6) // whole
    n = stride * ((inside + stride - 1) // stride)
    index = torch.arange(n, dtype=torch.float64)
    index = torch.minimum(index, 2 * (inside - 1) - index).clamp(min=0)
    return _hats((index + 0.5) / scale - 0.5, length)


def _to_image(length: Length, scale: float, n: Length) -> Tensor:
    """Return a matrix (``length``, n) from network pixels to those of the image."""
    at = (torch.arange(length, dtype=torch.float64) + 0.5) * scale - 0.5
    return _hats(at, n)


def _hats(at: Tensor, length: Length) -> Tensor:
    """Return the weights (N, length) of linear interpolation at positions (N,)."""
    # float64: a position in float32 is off by more than 1e-4 pixels in large images
    at = at.clamp(min=0).clamp(max=length - 1)
    there = torch.arange(length, dtype=torch.float64)
    return (1 - (at[:, None] - there).abs()).clamp(min=0).float()


def _sampled(x: Tensor, ys: Tensor, xs: Tensor) -> Tensor:
    """Return maps (1, C, H, W) resampled by a matrix for each axis."""
    return ys @ (x @ xs.transpose(0, 1))
