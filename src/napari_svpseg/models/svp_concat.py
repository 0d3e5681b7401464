"""Concatenation: the prompt becomes one vector that is joined to every query pixel.

References
----------
S. Kato, K. Hotta. "One-shot and partially-supervised cell image segmentation using
small visual prompt". CVPR Workshops (CVMI), 2023. The method is often described in this
form; the authors' code is that of `models.svp_attention`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import (
    PromptCode,
    PromptSegmenter,
    QueryFeatures,
    pad_to_multiple,
    register,
)
from .panet import masked_average
from .svp_attention import label_values
from .unet import ChannelNorm, Encoder, ResidualBlock, upsample

STRIDE = 8
"""Image pixels per pixel of the deepest feature map."""
QUERY_FEATURES = 64
"""Length of the vectors with which a query pixel attends to the prompts."""


@register("svp-concat")
class ConcatSegmenter(PromptSegmenter):
    """M1: masked pooling of the prompt, concatenated to the query's features.

    Parameters
    ----------
    widths : three ints
        Channels of the encoder at stride 2, 4 and 8.
    depths : two ints
        Residual blocks at stride 4 and 8.
    vector : int
        Length of a prompt's vector.
    use_mask : bool
        Whether the prompt's mask is used. Without it the prompt is pooled as a whole
        and cannot express which of two visible structures is meant (ablation).
    deep : bool
        Whether the vector is concatenated at each level of the decoder, or only at the
        deepest.
    fusion : str
        How several prompts are combined: ``"attention"`` (each query pixel weights
        them) or ``"mean"``. Both have the same weights, so either fits a trained model.
    hidden : int
        Channels of two hidden layers after each concatenation, at which a pixel's
        features and the vector decide together; 0 for none.
    """

    overlap = 64

    def __init__(
        self,
        widths: tuple[int, ...] = (24, 56, 112),
        depths: tuple[int, ...] = (1, 2),
        vector: int = 128,
        use_mask: bool = True,
        deep: bool = True,
        fusion: str = "attention",
        hidden: int = 0,
    ) -> None:
        super().__init__()
        if fusion not in ("attention", "mean"):
            raise ValueError(f"fusion must be attention or mean, got {fusion!r}")
        w2, w4, w8 = widths  # channels at stride 2, 4 and 8
        self.use_mask, self.deep, self.fusion = use_mask, deep, fusion
        self.encoder = Encoder(tuple(widths), tuple(depths))
        self.embed = nn.Linear(2 * w8 if use_mask else w8, vector)
        self.pick = nn.Conv2d(w8, QUERY_FEATURES, 1, bias=False)
        self.offer = nn.Linear(vector, QUERY_FEATURES, bias=False)
        self.value = nn.Linear(vector, vector)
        more = vector if deep else 0
        if hidden:
            self.fuse8 = nn.Sequential(
                *_mixed(w8 + vector, hidden, w8), ResidualBlock(w8), ResidualBlock(w8)
            )
            self.fuse4 = nn.Sequential(
                *_mixed(w8 + w4 + more, hidden, w4), ResidualBlock(w4)
            )
        else:
            self.fuse8 = nn.Sequential(
                nn.Conv2d(w8 + vector, w8, 3, padding=1), ResidualBlock(w8)
            )
            self.fuse4 = nn.Sequential(
                nn.Conv2d(w8 + w4 + more, w4, 1), ResidualBlock(w4)
            )
        self.fuse2 = nn.Sequential(
            nn.Conv2d(w4 + w2 + more, w2, 1),
            ChannelNorm(w2),
            nn.Conv2d(w2, w2, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(w2, 4, 3, padding=1),  # 2 x 2 pixels of the foreground
        )

    def encode_prompts(self, images: Tensor, masks: Tensor) -> PromptCode:
        """Return ``vectors`` (B, K, V), one for each prompt."""
        batch, n_prompts = images.shape[:2]
        values, known = label_values(masks)
        # background, foreground, known: (B K, 3, h, w)
        shares = torch.cat([values, known[:, :, None]], dim=2).flatten(0, 1)
        images = pad_to_multiple(images.flatten(0, 1), STRIDE)
        down = images.shape[-2] - shares.shape[-2]
        right = images.shape[-1] - shares.shape[-1]
        # area means, because nearest neighbours would lose thin structures
        shares = F.avg_pool2d(F.pad(shares, (0, right, 0, down)), STRIDE)
        deepest = self.encoder(images)[-1].float()
        kinds = (1, 0) if self.use_mask else (2,)
        pooled = [
            masked_average(deepest, shares[:, kind]) for kind in kinds
        ]  # (B K, w8)
        vectors = self.embed(torch.cat(pooled, dim=1))
        return {"vectors": vectors.unflatten(0, (batch, n_prompts)).float()}

    def encode_query(self, query: Tensor) -> QueryFeatures:
        """Return the maps of the encoder by their stride."""
        maps = self.encoder(pad_to_multiple(query, STRIDE))
        return {"2": maps[0], "4": maps[1], "8": maps[2], "query": query}

    def decode(self, features: QueryFeatures, code: PromptCode) -> dict[str, Tensor]:
        """Return ``foreground`` logits (B, 1, H, W)."""
        batch, _, height, width = features["query"].shape
        maps = [features[stride] for stride in ("2", "4", "8")]
        vectors = code["vectors"].expand(batch, -1, -1).to(maps[-1].dtype)
        prompt = self._prompt_map(maps[-1], vectors)  # (B, V, H/8, W/8)
        x = self.fuse8(torch.cat([maps[2], prompt], dim=1))  # (B, w8, H/8, W/8)
        for fuse, skip in ((self.fuse4, maps[1]), (self.fuse2, maps[0])):
            prompt = upsample(prompt)
            joined = [upsample(x), skip, *([prompt] if self.deep else [])]
            x = fuse(torch.cat(joined, dim=1))  # at last (B, 4, H/2, W/2)
        logits = F.pixel_shuffle(x, 2)[..., :height, :width]
        return {"foreground": logits.float()}

    def _prompt_map(self, features: Tensor, vectors: Tensor) -> Tensor:
        """Return the prompts' vector at each query pixel, (B, V, h, w).

        Parameters
        ----------
        features : (B, w8, h, w) tensor
        vectors : (B, K, V) tensor
        """
        values = self.value(vectors)
        if self.fusion == "mean" or vectors.shape[1] == 1:
            mean = values.mean(1)[..., None, None]
            return mean.expand(-1, -1, *features.shape[2:])
        picks, offers = self.pick(features), self.offer(vectors)
        # scaled dot-product attention over the K prompts
        scores = torch.einsum("bdhw,bkd->bkhw", picks, offers)
        weights = (scores / math.sqrt(QUERY_FEATURES)).softmax(dim=1)
        return torch.einsum("bkhw,bkv->bvhw", weights, values)


def _mixed(channels: int, hidden: int, out: int) -> list[nn.Module]:
    """Return layers that look at single pixels, with two hidden ones."""
    return [
        ChannelNorm(channels),
        nn.Conv2d(channels, hidden, 1),
        nn.ReLU(),
        nn.Conv2d(hidden, hidden, 1),
        nn.ReLU(),
        nn.Conv2d(hidden, out, 1),
    ]
