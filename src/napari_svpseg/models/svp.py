"""The default method: a small network that fits itself to the prompt.

Three kinds of evidence are gathered from the prompt's pixels, none of which depends on
what the network was trained on:

- a ridge classifier, solved in closed form on the prompt's pixels, tells foreground,
  object middle and object border of every query pixel (stride 2);
- attention over the prompt's pixels carries their labels to similar query pixels, and
  the largest similarity to foreground and to background is kept (stride 4);
- the mean foreground and background vectors and the object size adjust the decoder.

A decoder turns the evidence into foreground, object middle and border maps. A stiff
linear classifier of plain filters (`models.filters`) is added to the foreground: it
steadies the answer where the cells are unlike all that the network has seen.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import IGNORE, PromptCode, PromptSegmenter, pad_to_multiple, register
from .filters import PENALTY, pixel_filters, standardised
from .panet import masked_average
from .unet import (
    ChannelNorm,
    Encoder,
    FeaturePyramid,
    Pointwise,
    ResidualBlock,
    join_maps,
    pointwise,
    upsample,
)

N_LABELS = 3
"""Foreground, distance and boundary of a prompt pixel."""


@register("svp")
class EvidenceSegmenter(PromptSegmenter):
    """Evidence fitted to the prompt, and a decoder.

    Parameters
    ----------
    widths : four ints
        Channels of the encoder at stride 2, 4, 8 and 16.
    depths : three ints
        Residual blocks at stride 4, 8 and 16.
    features : int
        Length of the vectors compared by attention.
    pixel_features : int
        Length of the vectors the ridge classifier sees.
    decoder : three ints
        Channels of the decoder at stride 2, 4 and 8.
    ridge, attention, modulation : bool
        Switch off a kind of evidence, for ablation.
    filters : float
        Weight of the linear classifier on filters in the foreground's logits; 0
        switches it off. Not used in training.
    """

    overlap = 64
    object_range = (14.0, 24.0)

    def __init__(
        self,
        widths: tuple[int, ...] = (24, 48, 96, 128),
        depths: tuple[int, ...] = (1, 2, 2),
        features: int = 48,
        pixel_features: int = 48,
        decoder: tuple[int, ...] = (24, 48, 64),
        ridge: bool = True,
        attention: bool = True,
        modulation: bool = True,
        filters: float = 0.0,
    ) -> None:
        super().__init__()
        self.filters = float(filters)
        self.use = {"ridge": ridge, "attention": attention, "modulation": modulation}
        w2, w4, w8, w16 = widths
        d2, d4, d8 = decoder
        self.encoder = Encoder(tuple(widths), tuple(depths))
        self.pyramid = FeaturePyramid((w4, w8, w16), w4)
        # pixel features for the ridge classifier
        self.coarse_pixels = Pointwise(w4, pixel_features)
        self.fine_pixels = nn.Conv2d(w2, pixel_features, 3, padding=1)
        self.mix_pixels = Pointwise(pixel_features, pixel_features)
        self.log_ridge = nn.Parameter(torch.tensor(math.log(0.03)))
        self.ridge_gain = nn.Parameter(torch.tensor([4.0] * N_LABELS))
        # attention at stride 4
        self.embed = Pointwise(w4, features)
        self.label_embedding = nn.Linear(N_LABELS + 1, w4)
        self.value = nn.Linear(w4, features - N_LABELS - 1)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(0.1)))
        # decoder
        evidence = N_LABELS + 2 + features
        self.enter = Pointwise(evidence + w4, d4)
        self.block4 = ResidualBlock(d4)
        self.down = nn.Conv2d(d4, d8, 3, stride=2, padding=1)
        self.skip8 = Pointwise(w8, d8)
        self.blocks8 = nn.Sequential(ResidualBlock(d8), ResidualBlock(d8))
        self.up = Pointwise(d8, d4)
        self.out4 = ResidualBlock(d4)
        self.merge2 = Pointwise(d4, d2)
        self.skip2 = Pointwise(w2 + N_LABELS, d2)
        self.out2 = nn.Sequential(
            ChannelNorm(d2),
            nn.Conv2d(d2, d2, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(d2, 4 * N_LABELS, 3, padding=1),
        )
        self.modulate = nn.Linear(2 * w4 + 2, 2 * d8)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    # -- shared by prompt and query ------------------------------------------------

    def features(self, image: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Return encoder maps, the pyramid (stride 4) and pixel features (stride 2)."""
        maps = self.encoder(image.contiguous(memory_format=torch.channels_last))
        pyramid = self.pyramid(maps[1:])
        pixels = self.fine_pixels(maps[0]) + upsample(self.coarse_pixels(pyramid))
        pixels = self.mix_pixels(F.relu(pixels)).float()
        pixels = 2 * torch.sigmoid(2 * pixels) - 1  # tanh, faster on a CPU
        return maps, pyramid, pixels

    # -- the prompt ----------------------------------------------------------------

    def encode_prompts(self, images: Tensor, masks: Tensor) -> PromptCode:
        """Return the ridge weights, keys, values and the decoder's adjustment."""
        batch, n_prompts, _, height, width = images.shape
        images = pad_to_multiple(images.flatten(0, 1), 16)
        masks = F.pad(
            masks.flatten(0, 1),
            (0, images.shape[-1] - width, 0, images.shape[-2] - height),
            value=IGNORE,
        )
        labels, known = prompt_labels(masks)
        _, pyramid, pixels = self.features(images)
        code: PromptCode = {}
        together = (batch, n_prompts)
        if self.use["ridge"]:
            code["ridge"] = ridge_weights(
                rows(pixels, together),
                rows(F.avg_pool2d(labels, 2), together),
                rows(F.avg_pool2d(known, 2), together)[..., 0],
                self.log_ridge.exp(),
            )
        labels4, known4 = F.avg_pool2d(labels, 4), F.avg_pool2d(known, 4)
        foreground, background = labels4[:, :1], known4 - labels4[:, :1]
        if self.use["attention"]:
            code |= self._attention_code(pyramid, labels4, background, known4, together)
        if self.use["modulation"]:
            code["modulation"] = self._modulation(
                pyramid, foreground, background, masks, together
            )
        if self.filters and not self.training:
            code |= _filter_code(images, labels, known, together)
        return code

    def _attention_code(
        self,
        pyramid: Tensor,
        labels: Tensor,
        background: Tensor,
        known: Tensor,
        together: tuple[int, int],
    ) -> PromptCode:
        keys = F.normalize(rows(self.embed(pyramid), together).float(), dim=2)
        given = rows(torch.cat([labels, background], dim=1), together)
        content = F.relu(rows(pyramid, together) + self.label_embedding(given))
        values = torch.cat([given, self.value(content).float()], dim=2)
        weight = rows(known, together)[..., 0]
        # the rarer class is not drowned by the more frequent one
        share = given[..., [0, 3]].sum(1) / weight.sum(1, keepdim=True).clamp(min=1)
        expected = (given[..., [0, 3]] * share[:, None]).sum(-1).clamp(min=0.02)
        off = weight < 0.5
        bias = torch.where(off, -1e4, -expected.log())
        return {"keys": keys, "values": values, "bias": bias}

    def _modulation(
        self,
        pyramid: Tensor,
        foreground: Tensor,
        background: Tensor,
        masks: Tensor,
        together: tuple[int, int],
    ) -> Tensor:
        vectors = [
            masked_average(pyramid.float(), weights[:, 0])
            for weights in (foreground, background)
        ]
        known = (masks != IGNORE).float().mean((1, 2))
        share = (masks > 0).float().mean((1, 2)) / known.clamp(min=1e-3)
        size = torch.stack([share, typical_size(masks)], dim=1)
        each = torch.cat([*vectors, size], dim=1).unflatten(0, together)
        positive = (share > 0).float().unflatten(0, together)[..., None]
        mean = (each * positive).sum(1) / positive.sum(1).clamp(min=1)
        return self.modulate(mean)

    # -- the query -----------------------------------------------------------------

    def forward(self, query: Tensor, code: PromptCode) -> dict[str, Tensor]:
        """Return ``foreground``, ``distance`` and ``boundary`` logits.

        While training also ``evidence_ridge`` and ``evidence_attention``.
        """
        batch, _, height, width = query.shape
        code = {k: v.expand(batch, *v.shape[1:]) for k, v in code.items()}
        maps, pyramid, pixels = self.features(pad_to_multiple(query, 16))
        ridge = self._ridge_maps(pixels, code)
        context, similarity = self._attention_maps(pyramid, code)
        x = join_maps(F.avg_pool2d(ridge, 2), similarity, context, pyramid)
        x = self.block4(self.enter(x))
        y = self.down(F.relu(x)) + self.skip8(maps[2])
        if self.use["modulation"]:
            gain, shift = code["modulation"][..., None, None].chunk(2, dim=1)
            y = y * (1 + gain) + shift
        x = self.out4(x + upsample(self.up(self.blocks8(y))))
        z = upsample(self.merge2(x)) + self.skip2(join_maps(maps[0], ridge))
        out = F.pixel_shuffle(self.out2(z).contiguous(), 2) + upsample(ridge)
        out = out[..., :height, :width].float()
        answer = dict(
            zip(
                ("foreground", "distance", "boundary"), out.split(1, dim=1), strict=True
            )
        )
        if "filter_weights" in code:
            plain = self.filters * self._filter_map(query, code)
            answer["foreground"] = answer["foreground"] + plain
        if self.training:
            if self.use["ridge"]:
                answer["evidence_ridge"] = upsample(ridge[:, :1])[..., :height, :width]
            if self.use["attention"]:
                p = context[:, :1].float().clamp(0.01, 0.99)
                answer["evidence_attention"] = upsample(p.logit(), 4)[
                    ..., :height, :width
                ]
        return answer

    def _filter_map(self, query: Tensor, code: PromptCode) -> Tensor:
        """Return what the filters tell of the foreground, about -1 to 1."""
        height, width = query.shape[2:]
        x = pixel_filters(pad_to_multiple(query, 16))
        units = (code[k][..., None, None] for k in ("filter_mean", "filter_scale"))
        x = standardised(x, *units)
        weights = code["filter_weights"][..., 0]
        found = torch.einsum("bdhw,bd->bhw", x, weights[:, :-1])
        found = (found + weights[:, -1:, None])[:, None]
        return upsample(found)[..., :height, :width]

    def _ridge_maps(self, pixels: Tensor, code: PromptCode) -> Tensor:
        if not self.use["ridge"]:
            return pixels.new_zeros(pixels.shape[0], N_LABELS, *pixels.shape[2:])
        weights = code["ridge"] * self.ridge_gain  # (B, D + 1, 3)
        flat = pixels.flatten(2).transpose(1, 2)
        maps = torch.baddbmm(weights[:, -1:], flat, weights[:, :-1])
        return _as_maps(maps, pixels.shape[2:])

    def _queries(self, pyramid: Tensor) -> tuple[Tensor, ...]:
        """Return the vectors to be compared, of unit length, in blocks of pixels."""
        query = F.normalize(self.embed(pyramid).float(), dim=1)
        return query.flatten(2).transpose(1, 2).split(4096, dim=1)

    def _attention_maps(
        self, pyramid: Tensor, code: PromptCode
    ) -> tuple[Tensor, Tensor]:
        batch, _, height, width = pyramid.shape
        if not self.use["attention"]:
            n = self.value.out_features + N_LABELS + 1
            return (
                pyramid.new_zeros(batch, n, height, width),
                pyramid.new_zeros(batch, 2, height, width),
            )
        temperature = self.log_temperature.exp().clamp(0.02, 1.0)
        parts = [
            similarity_and_context(
                q, code["keys"], code["values"], code["bias"], temperature
            )
            for q in self._queries(pyramid)
        ]
        context, similarity = (
            _as_maps(torch.cat([part[i] for part in parts], dim=1), (height, width))
            for i in (0, 1)
        )
        return context, similarity


def _as_maps(pixels: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a list of pixels (B, H W, C) as maps (B, C, H, W), channels last."""
    return pixels.unflatten(1, shape).permute(0, 3, 1, 2)


def _filter_code(
    images: Tensor, labels: Tensor, known: Tensor, together: tuple[int, int]
) -> PromptCode:
    """Return the weights of the linear classifier on filters, and their units."""
    x = rows(pixel_filters(images), together)
    given = rows(F.avg_pool2d(labels[:, :1], 2), together)
    weight = rows(F.avg_pool2d(known, 2), together)
    total = weight.sum(1).clamp(min=1)
    mean = (x * weight).sum(1) / total
    scale = ((x - mean[:, None]).square() * weight).sum(1).div(total).sqrt() + 1e-2
    code = {"filter_mean": mean, "filter_scale": scale}
    x = standardised(x, mean[:, None], scale[:, None])
    penalty = torch.tensor(PENALTY, device=x.device)
    code["filter_weights"] = ridge_weights(x, given, weight[..., 0], penalty)
    return code


def prompt_labels(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a prompt says of each pixel.

    Parameters
    ----------
    masks : (B, h, w) int tensor
        Ids, 0 = background, -1 = unknown.

    Returns
    -------
    labels : (B, 3, h, w) float tensor
        Foreground (0 or 1); depth inside the object in [0, 1], saturating 8 pixels from
        its border; and 1 within a pixel of an object's border.
    known : (B, 1, h, w) float tensor
    """
    known = (masks != IGNORE).float()[:, None]
    foreground = (masks > 0).float()[:, None]
    inside = foreground * (1 - _id_change(masks)[:, None])
    # depth by repeated erosion: exact enough, and runs on any device
    depth, level = inside.clone(), inside
    for _ in range(7):
        level = -F.max_pool2d(-level, 3, stride=1, padding=1)
        depth = depth + level
    border = F.max_pool2d(foreground - inside, 3, stride=1, padding=1)
    return torch.cat([foreground, depth / 8, border], dim=1) * known, known


def _id_change(masks: Tensor) -> Tensor:
    """Return 1 where a 4-neighbour has another id (the image's edge does not count)."""
    ids = F.pad(masks.float()[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    centre = ids[:, 1:-1, 1:-1]
    neighbours = (
        ids[:, :-2, 1:-1],
        ids[:, 2:, 1:-1],
        ids[:, 1:-1, :-2],
        ids[:, 1:-1, 2:],
    )
    changed = torch.zeros_like(centre, dtype=torch.bool)
    for neighbour in neighbours:
        changed |= (neighbour != centre) & (neighbour != IGNORE)
    return changed.float()


def typical_size(masks: Tensor) -> Tensor:
    """Return log2 of the objects' mean diameter over 16 pixels, (B,), 0 if none."""
    sizes = []
    for mask in masks:
        ids = torch.unique(mask)
        n = int((ids > 0).sum())
        area = (mask > 0).sum() / max(n, 1)
        sizes.append(
            torch.log2((area.float().sqrt() * 1.13 + 1) / 16)
            if n
            else torch.zeros((), device=mask.device)
        )
    return torch.stack(sizes)


def rows(x: Tensor, together: tuple[int, int]) -> Tensor:
    """Return a map (B K, C, h, w) as one list of pixels for each episode, (B, N, C)."""
    batch, n_prompts = together
    x = x.flatten(2).transpose(1, 2)  # (B K, h w, C)
    return x.reshape(batch, n_prompts * x.shape[1], x.shape[2])


def ridge_weights(x: Tensor, labels: Tensor, known: Tensor, penalty: Tensor) -> Tensor:
    """Return ridge regression weights, foreground and background counting equally.

    Parameters
    ----------
    x : (B, N, D) tensor
        Pixel features.
    labels : (B, N, 3) tensor
        Foreground, distance and boundary in [0, 1]; regressed as -1 to 1.
    known : (B, N) tensor
        Share of the pixel that is known, in [0, 1].
    penalty : tensor
        Ridge penalty in units of the mean squared feature.

    Returns
    -------
    (B, D + 1, 3) tensor
        The last row is the offset.
    """
    with torch.autocast(x.device.type, enabled=False):
        x, labels, known = x.float(), labels.float(), known.float()
        foreground = labels[..., 0]
        background = known - foreground
        weight = foreground / foreground.sum(1, keepdim=True).clamp(min=1)
        weight = weight + background / background.sum(1, keepdim=True).clamp(min=1)
        x1 = torch.cat([x, torch.ones_like(x[..., :1])], dim=2)
        weighted = x1 * weight[..., None]
        gram = weighted.transpose(1, 2) @ x1
        target = 2 * labels / known[..., None].clamp(min=1e-3) - 1
        right = weighted.transpose(1, 2) @ target
        scale = gram.diagonal(dim1=1, dim2=2)[:, :-1].mean(1)
        ridge = (penalty * scale + 1e-4)[:, None].expand(-1, x1.shape[2])
        return torch.linalg.solve(gram + torch.diag_embed(ridge), right)


def similarity_and_context(
    query: Tensor, keys: Tensor, values: Tensor, bias: Tensor, temperature: Tensor
) -> tuple[Tensor, Tensor]:
    """Return attended values and the largest similarity to fore- and background.

    Parameters
    ----------
    query : (B, N, D), keys : (B, M, D) tensors of unit length
    values : (B, M, V) tensor
        Channel 0 is the share of foreground, channel 3 that of background.
    bias : (B, M) tensor
    temperature : tensor

    Returns
    -------
    (B, N, V) and (B, N, 2) tensors
    """
    cosine = _products(query, keys)  # (B, N, M)
    weights = (cosine / temperature + bias[:, None]).softmax(dim=-1)
    context = _products(weights, values.transpose(1, 2))
    others = ((values[..., c] <= 0.5) | (bias < -100) for c in (0, 3))
    best = [(cosine - 2.0 * other[:, None]).amax(-1) for other in others]
    return context, torch.stack(best, dim=-1).clamp(min=-1)


def _products(one: Tensor, two: Tensor) -> Tensor:
    """Return ``one`` (B, N, D) times ``two`` (B, M, D), (B, N, M)."""
    if len(one) > 1 or one.device.type != "cpu":
        return one @ two.transpose(1, 2)
    n = one.shape[1]
    wide = math.gcd(n, 64)  # more than one, for the layout of what comes back
    found = pointwise(_as_maps(one, (n // wide, wide)), two[0, :, :, None, None])
    return found.flatten(2).transpose(1, 2)
