"""A network for one kind of object, which needs no prompt.

It is the student that fine-tuning can end with: trained on labels that a prompted
model predicted, for one kind of image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import PromptCode, PromptSegmenter, pad_to_multiple, register
from .unet import ChannelNorm, Encoder, FeaturePyramid, ResidualBlock, upsample

MAPS = ("foreground", "distance", "boundary")


@register("unet")
class PlainSegmenter(PromptSegmenter):
    """An encoder-decoder; prompts are accepted and ignored.

    Parameters
    ----------
    widths, depths
        See `unet.Encoder`.
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
            # 2 x 2 pixels of each map, which pixel_shuffle spreads out
            nn.Conv2d(w2, 4 * len(MAPS), 3, padding=1),
        )

    def encode_prompts(self, images: Tensor, masks: Tensor) -> PromptCode:
        """Return a code without information; it only carries the batch size."""
        return {"nothing": images.new_zeros(images.shape[0], 1)}

    def forward(self, query: Tensor, code: PromptCode) -> dict[str, Tensor]:
        """Return ``foreground``, ``distance`` and ``boundary`` logits (B, 1, H, W)."""
        height, width = query.shape[-2:]
        padded = pad_to_multiple(query, 16)
        maps = self.encoder(padded.contiguous(memory_format=torch.channels_last))
        x = self.block4(self.pyramid(maps[1:]))  # (B, w4, H/4, W/4)
        x = upsample(self.down(x)) + maps[0]  # (B, w2, H/2, W/2)
        out = nn.functional.pixel_shuffle(self.head(x), 2)  # (B, 3, H, W)
        out = out[..., :height, :width].float()
        return dict(zip(MAPS, out.split(1, dim=1), strict=True))
