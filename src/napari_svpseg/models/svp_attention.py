"""Attention over prompt pixels: each query pixel averages the prompt's labels.

Three functions compute the same attention; they differ in memory and speed
(`attend` chooses). In the shapes below N is the number of query pixels, M of prompt
pixels.

References
----------
S. Kato, K. Hotta. "One-shot and partially-supervised cell image segmentation using
small visual prompt". CVPR Workshops (CVMI), 2023.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import (
    IGNORE,
    MASKED,
    PromptCode,
    PromptSegmenter,
    QueryFeatures,
    pad_to_multiple,
    register,
)
from .unet import ChannelNorm, FeaturePyramid, standard_encoder, upsample

CHUNK = 4096
"""Query pixels that attend at once in `chunked_attention`."""


def naive_attention(
    query: Tensor, keys: Tensor, values: Tensor, bias: Tensor
) -> Tensor:
    """Return ``softmax(query keys^T + bias) values``, computed as it is written.

    The whole (N, M) matrix is held in memory.

    Parameters
    ----------
    query : (B, N, D) tensor
        Already divided by the temperature.
    keys : (B, M, D) tensor
    values : (B, M, V) tensor
    bias : (B, M) tensor
        Added to each key's score; `MASKED` leaves a key out.

    Returns
    -------
    (B, N, V) tensor
    """
    scores = query @ keys.transpose(1, 2) + bias[:, None]  # (B, N, M)
    return scores.softmax(dim=-1) @ values


def chunked_attention(
    query: Tensor, keys: Tensor, values: Tensor, bias: Tensor, chunk: int = CHUNK
) -> Tensor:
    """Return `naive_attention`, computed for ``chunk`` query pixels at a time."""
    return torch.cat(
        [naive_attention(q, keys, values, bias) for q in query.split(chunk, dim=1)],
        dim=1,
    )


def fused_attention(
    query: Tensor, keys: Tensor, values: Tensor, bias: Tensor
) -> Tensor:
    """Return `naive_attention`, computed by a kernel that stores no scores.

    Fused kernels need keys and values of one length, so both are padded with zeros. An
    additive mask would be as large as the scores; instead the bias becomes one more
    feature of the keys, multiplied by a 1 in every query.
    """
    width = max(query.shape[-1] + 1, values.shape[-1])
    width += -width % 8  # kernels are faster on multiples of 8
    bias = bias.clamp(min=MASKED)
    one = torch.ones_like(query[..., :1])
    query = _padded(torch.cat([query, one], dim=-1), width)
    keys = _padded(torch.cat([keys, bias[..., None]], dim=-1), width)
    n_values = values.shape[-1]
    out = F.scaled_dot_product_attention(
        query[:, None], keys[:, None], _padded(values, width)[:, None], scale=1.0
    )
    return out[:, 0, :, :n_values]


def _padded(x: Tensor, width: int) -> Tensor:
    """Return vectors padded with zeros to a length of ``width``."""
    return F.pad(x, (0, width - x.shape[-1]))


def attend(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """Return `naive_attention`, fused where the matrix of scores would be large."""
    if query.shape[1] * keys.shape[1] <= CHUNK * 256:
        return naive_attention(query, keys, values, bias)
    return fused_attention(query, keys, values, bias)


def label_values(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return the classes of prompt pixels, one-hot, and which of them are known.

    Parameters
    ----------
    masks : (B, K, h, w) int tensor
        Object ids, 0 = background, -1 = unknown.

    Returns
    -------
    values : (B, K, 2, h, w) float tensor
        Background, foreground; both 0 where unknown.
    known : (B, K, h, w) float tensor
    """
    known = (masks != IGNORE).float()
    foreground = (masks > 0).float()
    return torch.stack([(1 - foreground) * known, foreground], dim=2), known


@register("svp-attention")
class AttentionSegmenter(PromptSegmenter):
    """M2: pixel attention that transfers the prompt's labels.

    Parameters
    ----------
    width : int
        Channels at stride 2, see `unet.standard_encoder`.
    features : int
        Length of the pixel embeddings that are compared.
    form : str
        ``"corrected"``: cosine similarity, learned temperature, class balance.
        ``"released"``: raw dot product of two-channel outputs with temperature 1, as
        in the published code.
    stride : int, optional
        Image pixels per attending pixel, 1 or 2. The default is 2 in the corrected
        form, which costs a sixteenth, and 1 in the released form.
    """

    overlap = 64

    def __init__(
        self,
        width: int = 24,
        features: int = 32,
        form: str = "corrected",
        stride: int | None = None,
    ) -> None:
        super().__init__()
        if form not in ("corrected", "released"):
            raise ValueError(f"form must be corrected or released, got {form!r}")
        self.form = form
        self.stride = stride or (1 if form == "released" else 2)
        if self.stride not in (1, 2):
            raise ValueError(f"stride must be 1 or 2, got {stride}")
        if form == "released":  # compares the two class channels themselves
            features = 2
        self.encoder = standard_encoder(width)
        self.pyramid = FeaturePyramid(self.encoder.widths[1:], 2 * width)
        self.fine = nn.Conv2d(width, 2 * width, 1)
        self.mix = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            # without the mean in common, cosines spread over all of -1 to 1
            ChannelNorm(2 * width),
        )
        self.embed = nn.Conv2d(2 * width, features, 1)
        self.pixel = nn.Conv2d(3, features, 3, padding=1)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(0.07)))

    def temperature(self) -> Tensor:
        """Return the temperature: 1 in the released form, else learned (0.01 to 1)."""
        if self.form == "released":
            return torch.ones_like(self.log_temperature)
        return self.log_temperature.exp().clamp(0.01, 1.0)

    def embeddings(self, image: Tensor) -> Tensor:
        """Return pixel embeddings (B, D, h, w) of an image (B, 3, H, W).

        The sides are H and W over the stride, rounded up.
        """
        maps = self.encoder(pad_to_multiple(image, 16))
        features = self.embed(
            self.mix(upsample(self.pyramid(maps[1:])) + self.fine(maps[0]))
        )
        # the features are smooth: a skip from the image distinguishes neighbours
        skip = self.pixel(image)
        if self.stride == 1:
            features = upsample(features)
        else:
            skip = F.avg_pool2d(skip, 2, ceil_mode=True)
        features = features[..., : skip.shape[-2], : skip.shape[-1]] + skip
        if self.form == "released":
            return features
        return F.normalize(features.float(), dim=1)

    def encode_prompts(self, images: Tensor, masks: Tensor) -> PromptCode:
        """Return ``keys`` (B, M, D), ``values`` (B, M, 2) and ``bias`` (B, M).

        M counts the pixels of all prompts.
        """
        batch, n_prompts = images.shape[:2]
        features = self.embeddings(images.flatten(0, 1))
        keys = features.unflatten(0, (batch, n_prompts)).permute(0, 1, 3, 4, 2)
        values, _ = label_values(masks)
        # area means, because nearest neighbours would lose thin structures
        values = F.avg_pool2d(values.flatten(0, 1), self.stride, ceil_mode=True)
        values = values.unflatten(0, (batch, n_prompts)).permute(0, 1, 3, 4, 2)
        values = values.reshape(batch, -1, 2)
        # weight of a key: the share of it that is known, as a logarithm, since the
        # softmax takes the exponential of the sum
        known = values.sum(-1)
        bias = torch.where(known > 0, known.clamp(min=1e-3).log(), MASKED)
        values = values / known[..., None].clamp(min=1e-3)
        if self.form == "corrected":
            # Divided by the class's share of the prompt: a query pixel that resembles
            # all prompt pixels equally gets even odds.
            counted = values * known[..., None]
            share = counted.sum(1, keepdim=True) / counted.sum((1, 2), keepdim=True)
            bias = bias - (values * share.clamp(min=1e-3).log()).sum(-1)
        return {
            "keys": keys.reshape(batch, -1, keys.shape[-1]),
            "values": values,
            "bias": bias,
        }

    def encode_query(self, query: Tensor) -> QueryFeatures:
        """Return the embeddings of the query's pixels."""
        return {"embeddings": self.embeddings(query), "query": query}

    def decode(self, features: QueryFeatures, code: PromptCode) -> dict[str, Tensor]:
        """Return ``foreground`` logits (B, 1, H, W)."""
        batch, _, height, width = features["query"].shape
        embeddings = features["embeddings"]
        rows = embeddings.flatten(2).transpose(1, 2) / self.temperature()  # (B, N, D)
        keys, values, bias = (
            code[name].expand(batch, *code[name].shape[1:])
            for name in ("keys", "values", "bias")
        )
        out = attend(rows, keys.to(rows), values.to(rows), bias.to(rows)).float()
        # attended labels are probabilities: foreground and background sum to 1
        logits = out[..., 1].clamp(1e-4, 1 - 1e-4).logit()
        logits = logits.reshape(batch, 1, *embeddings.shape[2:])
        if self.stride > 1:
            logits = upsample(logits, self.stride)
        return {"foreground": logits[..., :height, :width]}
