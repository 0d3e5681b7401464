"""A network that knows one kind of object and needs no prompt.

It is what partially supervised learning ends with: trained on labels that a prompted
model made, for one kind of image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import PromptCode, PromptSegmenter, pad_to_multiple, register
from .unet import ChannelNorm, Encoder, FeaturePyramid, ResidualBlock, upsample


@register("unet")
class PlainSegmenter(PromptSegmenter):
    """An encoder-decoder; prompts are taken and have no influence.

    Parameters
    ----------
    widths : four ints
        Channels of the encoder at stride 2, 4, 8 and 16.
    depths : three ints
        Residual blocks at stride 4, 8 and 16.
    """

    overlap = 64
    object_range = (14.0, 24.0)

    def __init__(
        self,
        widths: tuple[int, ...] = (24, 48, 96, 128),
        depths: tuple[int, ...] = (1, 1, 1),
    ) -> None:
        super().__init__()
        w2, w4, *_ = widths
        self.encoder = Encoder(tuple(widths), tuple(depths))
        self.pyramid = FeaturePyramid(tuple(widths[1:]), w4)
        self.block4 = ResidualBlock(w4)
        self.down = nn.Conv2d(w4, w2, 1)
        self.head = nn.Sequential(
            ChannelNorm(w2),
            nn.Conv2d(w2, w2, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(w2, 12, 3, padding=1),  # three maps of four pixels each
        )

    def encode_prompts(self, images: Tensor, masks: Tensor) -> PromptCode:
        """Return a code that says nothing."""
        return {"nothing": images.new_zeros(images.shape[0], 1)}

    def forward(self, query: Tensor, code: PromptCode) -> dict[str, Tensor]:
        """Return ``foreground``, ``distance`` and ``boundary`` logits."""
        height, width = query.shape[-2:]
        padded = pad_to_multiple(query, 16)
        maps = self.encoder(padded.contiguous(memory_format=torch.channels_last))
        fine = upsample(self.down(self.block4(self.pyramid(maps[1:])))) + maps[0]
        out = nn.functional.pixel_shuffle(self.head(fine), 2)
        out = out[..., :height, :width].float()
        names = ("foreground", "distance", "boundary")
        return dict(zip(names, out.split(1, dim=1), strict=True))
