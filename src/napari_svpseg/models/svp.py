"""The default method: a small network with classifiers fitted to the prompt.

Three kinds of evidence are computed from the prompt's pixels. None of them depends on
which kinds of objects the network was trained on:

- a ridge classifier, solved in closed form on the prompt's pixels, predicts
  foreground, depth and border of every query pixel (stride 2);
- attention over the prompt's pixels transfers their labels to similar query pixels,
  with the largest similarity to foreground and to background (stride 4);
- the mean foreground and background vectors and the object size modulate the decoder.

A decoder turns the evidence into foreground, distance and boundary maps. A strongly
regularised linear classifier of fixed filters (`models.filters`) is added to the
foreground: it helps most where the cells look like nothing in the training data.

In the shapes below B is the number of episodes, K of prompts in each, N of query
pixels, M of prompt pixels. What was tried: ``docs/decisions/0003-default-model.md``.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.labels.object_size import specks
from .base import (
    IGNORE,
    MASKED,
    PromptCode,
    PromptSegmenter,
    QueryFeatures,
    is_exported,
    pad_to_multiple,
    register,
)
from .filters import N_FILTERS, PENALTY, pixel_filters, standardised
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
from .weighed import LEAST_PROMPTS, classified, fit_classifier, random_layer

N_LABELS = 3
"""Labels of a prompt pixel: foreground, depth, border."""
QUERY_BLOCK = 1024
"""Query pixels that attend at once."""
MAX_BLIND = 8
"""Prompts that are predicted from the others to weigh the evidence."""


@register("svp")
class EvidenceSegmenter(PromptSegmenter):
    """Evidence fitted to the prompt, and a decoder.

    Parameters
    ----------
    widths, depths
        See `unet.Encoder`.
    features : int
        Length of the vectors compared by attention.
    pixel_features : int
        Length of the vectors that the ridge classifier classifies.
    decoder : three ints
        Channels of the decoder at stride 2, 4 and 8.
    ridge, attention, modulation : bool
        Whether a kind of evidence is used; False for ablations.
    filters : float
        Weight of the linear classifier of filters in the foreground logits; 0 switches
        it off. It is not used in training, as the decoder would learn to undo it.
    weighed : bool
        Whether three prompts or more add the evidence of `models.weighed`, if there are
        filters. It has nothing to train either.
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
        weighed: bool = True,
    ) -> None:
        super().__init__()
        self.filters, self.weighed = float(filters), weighed
        self.use = {"ridge": ridge, "attention": attention, "modulation": modulation}
        w2, w4, w8, w16 = widths
        d2, d4, d8 = decoder
        self.encoder = Encoder(tuple(widths), tuple(depths))
        self.pyramid = FeaturePyramid((w4, w8, w16), w4)
        # pixel features for the ridge classifier, stride 2
        self.coarse_pixels = Pointwise(w4, pixel_features)
        self.fine_pixels = nn.Conv2d(w2, pixel_features, 3, padding=1)
        self.mix_pixels = Pointwise(pixel_features, pixel_features)
        self.log_ridge = nn.Parameter(torch.tensor(math.log(0.03)))
        self.ridge_gain = nn.Parameter(torch.tensor([4.0] * N_LABELS))
        # attention, stride 4
        self.embed = Pointwise(w4, features)
        self.label_embedding = nn.Linear(N_LABELS + 1, w4)
        self.value = nn.Linear(w4, features - N_LABELS - 1)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(0.1)))
        # decoder: w4, d8 are the channels at stride 4 of the encoder, 8 of the decoder
        evidence = N_LABELS + 2 + features  # ridge, similarity, attended values
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
            nn.Conv2d(d2, 4 * N_LABELS, 3, padding=1),  # 2 x 2 pixels of each map
        )
        layer = random_layer(N_FILTERS + pixel_features + w4)
        for name, value in zip(
            ("random_weights", "random_offsets"), layer, strict=True
        ):
            self.register_buffer(name, value, persistent=False)  # the same for all
        # zero: an untrained modulation leaves the decoder's maps as they are
        self.modulate = nn.Linear(2 * w4 + 2, 2 * d8)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    # -- shared by prompt and query ------------------------------------------------

    def features(self, image: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Return the features of an image (B, 3, H, W), H and W multiples of 16.

        Returns
        -------
        maps : list of tensors
            Of the encoder, at stride 2, 4, 8 and 16.
        pyramid : (B, w4, H/4, W/4) tensor
        pixels : (B, pixel_features, H/2, W/2) tensor
            In -1 to 1, so that no single pixel dominates the least squares of the
            ridge classifier.
        """
        maps = self.encoder(image.contiguous(memory_format=torch.channels_last))
        pyramid = self.pyramid(maps[1:])
        pixels = self.fine_pixels(maps[0]) + upsample(self.coarse_pixels(pyramid))
        pixels = self.mix_pixels(F.relu(pixels)).float()
        pixels = 2 * torch.sigmoid(2 * pixels) - 1  # tanh; this form is faster on a CPU
        return maps, pyramid, pixels

    # -- the prompt ----------------------------------------------------------------

    def encode_prompts(self, images: Tensor, masks: Tensor) -> PromptCode:
        """Return the code of the prompts: all that the query's evidence needs of them.

        It holds the ridge weights, keys and values, the modulation and the weights of
        the filters, and from three prompts on those of `models.weighed`.
        """
        batch, n_prompts, _, height, width = images.shape
        images = pad_to_multiple(images.flatten(0, 1), 16)  # (B K, 3, h, w)
        masks = F.pad(
            masks.flatten(0, 1),
            (0, images.shape[-1] - width, 0, images.shape[-2] - height),
            value=IGNORE,
        )
        features = self.encode_query(images)
        code = self._code(features, masks, (batch, n_prompts))
        # In training batches every prompt set would be fitted by itself.
        several = batch == 1 and n_prompts >= LEAST_PROMPTS
        if "filters" in features and self.weighed and several:
            code |= self._weighed_code(features, masks)
        return code

    def _code(
        self, features: QueryFeatures, masks: Tensor, batch_shape: tuple[int, int]
    ) -> PromptCode:
        """Return the code of prompts without `models.weighed`.

        Parameters
        ----------
        features : dict
            From `encode_query` of the prompts' padded images (B K, 3, h, w).
        masks : (B K, h, w) int tensor
        batch_shape : (B, K)
        """
        pyramid, pixels = features["pyramid"], features["pixels"]
        labels, known = prompt_labels(masks)
        code: PromptCode = {}
        # Labels are area means at the stride of the features, i.e. shares of a feature
        # pixel: nearest neighbours would lose thin structures.
        labels2, known2 = F.avg_pool2d(labels, 2), F.avg_pool2d(known, 2)
        if self.use["ridge"]:
            code["ridge"] = ridge_weights(
                pixel_rows(pixels, batch_shape),
                pixel_rows(labels2, batch_shape),
                pixel_rows(known2, batch_shape)[..., 0],
                self.log_ridge.exp(),
            )
        labels4, known4 = F.avg_pool2d(labels, 4), F.avg_pool2d(known, 4)
        foreground, background = labels4[:, :1], known4 - labels4[:, :1]
        if self.use["attention"]:
            code |= self._attention_code(
                pyramid, labels4, background, known4, batch_shape
            )
        if self.use["modulation"]:
            code["modulation"] = self._modulation(
                pyramid, foreground, background, masks, batch_shape
            )
        if "filters" in features:
            code |= _filter_code(
                features["filters"], labels2[:, :1], known2, batch_shape
            )
        return code

    def _weighed_code(self, features: QueryFeatures, masks: Tensor) -> PromptCode:
        """Return the classifier of `models.weighed`, fitted to K prompts, or nothing.

        Parameters
        ----------
        features, masks
            As for `_code`, of one episode.
        """
        labels, known = prompt_labels(masks)
        foreground = F.avg_pool2d(labels[:, :1], 2).flatten(1)  # (K, M)
        background = F.avg_pool2d(known, 2).flatten(1) - foreground
        x = self._rows(features)
        weight = (foreground + background)[..., None]
        total = weight.sum().clamp(min=1)
        mean = (x * weight).sum((0, 1)) / total
        scale = ((x - mean).square() * weight).sum((0, 1)).div(total).sqrt() + 1e-2
        blind: dict[int, Tensor] = {}
        n_prompts = len(masks)
        for k in range(min(n_prompts, MAX_BLIND)):
            others = [i for i in range(n_prompts) if i != k]
            if not (masks[others] > 0).any() or not (masks[others] == 0).any():
                continue
            if (masks[k] == IGNORE).all():
                continue
            left = self._code(
                _chosen(features, others), masks[others], (1, len(others))
            )
            found = self.decode(_chosen(features, [k]), left)["foreground"]
            blind[k] = F.avg_pool2d(found, 2).flatten()
        with torch.autocast(x.device.type, enabled=False):
            fitted = fit_classifier(
                standardised(x, mean, scale), foreground, background, blind, self._layer
            )
        if fitted is None:
            return {}
        return {**fitted, "weighed_mean": mean[None], "weighed_scale": scale[None]}

    @property
    def _layer(self) -> tuple[Tensor, Tensor]:
        weights, offsets = self.get_buffer("random_weights"), "random_offsets"
        return weights, self.get_buffer(offsets)

    def _rows(self, features: QueryFeatures) -> Tensor:
        """Return the pixels (B, M, D) at stride 2 that `models.weighed` classifies."""
        pixels, pyramid = features["pixels"], features["pyramid"]
        joined = (features["filters"], pixels.float(), upsample(pyramid).float())
        return torch.cat([x.flatten(2).transpose(1, 2) for x in joined], dim=2)

    def _attention_code(
        self,
        pyramid: Tensor,
        labels: Tensor,
        background: Tensor,
        known: Tensor,
        batch_shape: tuple[int, int],
    ) -> PromptCode:
        """Return ``keys`` (B, M, D), ``values`` (B, M, V) and ``bias`` (B, M).

        Parameters
        ----------
        pyramid : (B K, w4, h/4, w/4) tensor
        labels : (B K, 3, h/4, w/4) tensor
        background, known : (B K, 1, h/4, w/4) tensors
            Shares of each feature pixel.
        batch_shape : (B, K)
        """
        keys = F.normalize(pixel_rows(self.embed(pyramid), batch_shape).float(), dim=2)
        given = pixel_rows(torch.cat([labels, background], dim=1), batch_shape)
        content = F.relu(pixel_rows(pyramid, batch_shape) + self.label_embedding(given))
        # The first four values are the labels themselves, which attention carries to
        # the query unchanged; the rest is learned.
        values = torch.cat([given, self.value(content).float()], dim=2)
        weight = pixel_rows(known, batch_shape)[..., 0]  # (B, M)
        # Classes are balanced: a pixel's weight is divided by its class's share of the
        # prompt, so that a query pixel that resembles all of them equally gets even
        # odds (at most 50-fold).
        share = given[..., [0, 3]].sum(1) / weight.sum(1, keepdim=True).clamp(min=1)
        expected = (given[..., [0, 3]] * share[:, None]).sum(-1).clamp(min=0.02)
        bias = torch.where(weight < 0.5, MASKED, -expected.log())
        return {"keys": keys, "values": values, "bias": bias}

    def _modulation(
        self,
        pyramid: Tensor,
        foreground: Tensor,
        background: Tensor,
        masks: Tensor,
        batch_shape: tuple[int, int],
    ) -> Tensor:
        """Return gain and shift (B, 2 d8) of the decoder's map at stride 8.

        This is feature-wise linear modulation (FiLM; Perez et al., AAAI 2018) by the
        mean vectors of both classes, the share of foreground and the object size.
        """
        vectors = [
            masked_average(pyramid.float(), weights[:, 0])
            for weights in (foreground, background)
        ]
        known = (masks != IGNORE).float().mean((1, 2))
        share = (masks > 0).float().mean((1, 2)) / known.clamp(min=1e-3)
        size = torch.stack([share, typical_size(masks)], dim=1)
        each = torch.cat([*vectors, size], dim=1).unflatten(0, batch_shape)
        # mean over the prompts that show an object: a negative prompt has no size
        positive = (share > 0).float().unflatten(0, batch_shape)[..., None]
        mean = (each * positive).sum(1) / positive.sum(1).clamp(min=1)
        return self.modulate(mean)

    # -- the query -----------------------------------------------------------------

    def encode_query(self, query: Tensor) -> QueryFeatures:
        """Return the maps of `features` that the decoder takes, and the filters."""
        padded = pad_to_multiple(query, 16)
        maps, pyramid, pixels = self.features(padded)
        found = {"fine": maps[0], "coarse": maps[2], "pyramid": pyramid}
        found |= {"pixels": pixels, "query": query}
        if self.filters and not self.training:
            found["filters"] = pixel_filters(padded)
        return found

    def decode(self, features: QueryFeatures, code: PromptCode) -> dict[str, Tensor]:
        """Return ``foreground``, ``distance`` and ``boundary`` logits (B, 1, H, W).

        In training also ``evidence_ridge`` and ``evidence_attention``, the foreground
        logits of each kind of evidence, so that each is trained to be right by itself.
        """
        batch, _, height, width = features["query"].shape
        pyramid = features["pyramid"]
        given = code  # of one set of prompts for all queries, or of each query
        code = {k: v.expand(batch, *v.shape[1:]) for k, v in code.items()}
        ridge = self._ridge_maps(features["pixels"], code)  # (B, 3, H/2, W/2)
        context, similarity = self._attention_maps(pyramid, given)
        x = join_maps(F.avg_pool2d(ridge, 2), similarity, context, pyramid)
        x = self.block4(self.enter(x))  # (B, d4, H/4, W/4)
        y = self.down(F.relu(x)) + self.skip8(features["coarse"])  # (B, d8, H/8, W/8)
        if self.use["modulation"]:
            both, half = code["modulation"][..., None, None], y.shape[1]
            gain, shift = both[:, :half], both[:, half:]
            y = y * (1 + gain) + shift
        x = self.out4(x + upsample(self.up(self.blocks8(y))))  # (B, d4, H/4, W/4)
        z = upsample(self.merge2(x)) + self.skip2(join_maps(features["fine"], ridge))
        # residual: the decoder only has to correct the ridge classifier's logits
        out = F.pixel_shuffle(self.out2(z).contiguous(), 2) + upsample(ridge)
        out = out[..., :height, :width].float()  # (B, 3, H, W)
        answer = dict(
            zip(
                ("foreground", "distance", "boundary"), out.split(1, dim=1), strict=True
            )
        )
        if "filter_weights" in code:
            filtered = self.filters * self._filter_map(features, code)
            answer["foreground"] = answer["foreground"] + filtered
        if "weighed_ridge" in code:
            answer["foreground"] = self._weighed(features, answer["foreground"], code)
        if self.training:
            if self.use["ridge"]:
                answer["evidence_ridge"] = upsample(ridge[:, :1])[..., :height, :width]
            if self.use["attention"]:
                p = context[:, :1].float().clamp(0.01, 0.99)
                answer["evidence_attention"] = upsample(p.logit(), 4)[
                    ..., :height, :width
                ]
        return answer

    def _filter_map(self, features: QueryFeatures, code: PromptCode) -> Tensor:
        """Return the filters' foreground score (B, 1, H, W), about -1 to 1."""
        height, width = features["query"].shape[2:]
        units = (code[k][..., None, None] for k in ("filter_mean", "filter_scale"))
        x = standardised(features["filters"], *units)  # (B, 36, H/2, W/2)
        weights = code["filter_weights"][..., 0]
        found = torch.einsum("bdhw,bd->bhw", x, weights[:, :-1])
        found = (found + weights[:, -1:, None])[:, None]
        return upsample(found)[..., :height, :width]

    def _weighed(
        self, features: QueryFeatures, logits: Tensor, code: PromptCode
    ) -> Tensor:
        """Return foreground logits (B, 1, H, W) with those of the classifier added."""
        shape, (height, width) = features["pixels"].shape[2:], logits.shape[2:]
        answers = []
        for x, own, *of_code in zip(
            self._rows(features),
            logits,
            *(code[f"weighed_{k}"] for k in ("mean", "scale", "ridge", "factors")),
            strict=True,
        ):
            mean, scale, ridge, (network, classifier) = of_code
            found = classified(standardised(x, mean, scale), ridge.float(), self._layer)
            found = upsample(found.view(1, 1, *shape))[0, :, :height, :width]
            answers.append(network * own + classifier * found)
        return torch.stack(answers)

    def _ridge_maps(self, pixels: Tensor, code: PromptCode) -> Tensor:
        """Return the ridge classifier's logits (B, 3, H/2, W/2)."""
        if not self.use["ridge"]:
            return pixels.new_zeros(pixels.shape[0], N_LABELS, *pixels.shape[2:])
        # regression targets are -1 and 1: the learned gain turns them into logits
        weights = code["ridge"] * self.ridge_gain  # (B, D + 1, 3)
        flat = pixels.flatten(2).transpose(1, 2)  # (B, N, D)
        maps = torch.baddbmm(weights[:, -1:], flat, weights[:, :-1])
        return _as_maps(maps, pixels.shape[2:])

    def _queries(self, pyramid: Tensor) -> Tensor:
        """Return unit vectors (B, N, D) of the query's pixels."""
        query = F.normalize(self.embed(pyramid).float(), dim=1)
        return query.flatten(2).transpose(1, 2)

    def _attention_maps(
        self, pyramid: Tensor, code: PromptCode
    ) -> tuple[Tensor, Tensor]:
        """Return attended values (B, V, H/4, W/4) and similarities (B, 2, H/4, W/4).

        The batch of ``code`` is B or 1.
        """
        batch, _, height, width = pyramid.shape
        if not self.use["attention"]:
            n = self.value.out_features + N_LABELS + 1
            return (
                pyramid.new_zeros(batch, n, height, width),
                pyramid.new_zeros(batch, 2, height, width),
            )
        temperature = self.log_temperature.exp().clamp(0.02, 1.0)
        keys, values, bias = (code[name] for name in ("keys", "values", "bias"))
        queries = self._queries(pyramid)
        attend = partial(similarity_and_context, temperature=temperature)
        if len(keys) == 1 and pyramid.device.type == "cpu" and not _in_graph():
            queries = queries.reshape(1, -1, queries.shape[2])
            keys, values, bias, counts = _by_class(keys, values, bias)
            attend = partial(_attended, counts=counts, temperature=temperature)
        # The attention matrix of one block is block x M; the matrix of a whole tile
        # would be the largest array of the network.
        blocks = [queries] if is_exported() else queries.split(QUERY_BLOCK, dim=1)
        parts = [attend(q, keys, values, bias) for q in blocks]
        found = (torch.cat([part[i] for part in parts], dim=1) for i in (0, 1))
        context, similarity = (
            _as_maps(x.reshape(batch, height * width, -1), (height, width))
            for x in found
        )
        return context, similarity


def _in_graph() -> bool:
    """Return whether a graph is recorded, for training or for export."""
    return torch.is_grad_enabled() or is_exported()


def _as_maps(pixels: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return rows of pixels (B, H W, C) as maps (B, C, H, W), channels last."""
    return pixels.unflatten(1, shape).permute(0, 3, 1, 2)


def _chosen(features: QueryFeatures, which: list[int]) -> QueryFeatures:
    """Return the features of some images."""
    return {name: value[which] for name, value in features.items()}


def _filter_code(
    filters: Tensor, labels: Tensor, known: Tensor, batch_shape: tuple[int, int]
) -> PromptCode:
    """Return the weights of the linear classifier of filters, and the filters' units.

    Parameters
    ----------
    filters : (B K, 36, h/2, w/2) tensor
    labels, known : (B K, 1, h/2, w/2) tensors
        Share of foreground, and of known pixels.
    batch_shape : (B, K)

    Returns
    -------
    dict
        ``filter_weights`` (B, 37, 1), ``filter_mean`` and ``filter_scale`` (B, 36).
    """
    x = pixel_rows(filters, batch_shape)  # (B, M, 36)
    given, weight = pixel_rows(labels, batch_shape), pixel_rows(known, batch_shape)
    total = weight.sum(1).clamp(min=1)
    mean = (x * weight).sum(1) / total
    # + 0.01: a filter that is constant in the prompt would be divided by zero
    scale = ((x - mean[:, None]).square() * weight).sum(1).div(total).sqrt() + 1e-2
    code = {"filter_mean": mean, "filter_scale": scale}
    x = standardised(x, mean[:, None], scale[:, None])
    penalty = torch.tensor(PENALTY, device=x.device)
    code["filter_weights"] = ridge_weights(x, given, weight[..., 0], penalty)
    return code


def prompt_labels(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return the labels of each pixel of a prompt, and where they are known.

    Parameters
    ----------
    masks : (B, h, w) int tensor
        Object ids, 0 = background, -1 = unknown.

    Returns
    -------
    labels : (B, 3, h, w) float tensor
        Foreground (0 or 1); depth inside the object, which reaches 1 at 8 pixels from
        its border; border (1 within a pixel of an object's outline).
    known : (B, 1, h, w) float tensor
    """
    known = (masks != IGNORE).float()[:, None]
    foreground = (masks > 0).float()[:, None]
    # without the outermost pixels, so that touching objects are apart
    inside = foreground * (1 - _id_change(masks)[:, None])
    # The depth counts repeated erosions (a minimum filter). A distance transform would
    # be exact, but runs on the CPU only.
    depth, level = inside.clone(), inside
    for _ in range(7):
        level = -F.max_pool2d(-level, 3, stride=1, padding=1)
        depth = depth + level
    border = F.max_pool2d(foreground - inside, 3, stride=1, padding=1)
    return torch.cat([foreground, depth / 8, border], dim=1) * known, known


def _id_change(masks: Tensor) -> Tensor:
    """Return 1 where a 4-neighbour has another id, (B, h, w).

    Unknown neighbours and the image's edge do not count.
    """
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
    """Return log2 of the objects' mean diameter over 16 pixels, (B,), 0 if none.

    Specks do not count, as in `core.labels.object_size.median_diameter`.
    """
    sizes = []
    for mask in masks:
        ids, areas = torch.unique(mask, return_counts=True)
        areas = areas[ids > 0]
        if len(areas):
            areas = areas[~specks(areas)]
        # 1.13 = 2 / sqrt(pi): the diameter of a disc of that area
        sizes.append(
            torch.log2(((areas.sum() / len(areas)).sqrt() * 1.13 + 1) / 16)
            if len(areas)
            else torch.zeros((), device=mask.device)
        )
    return torch.stack(sizes)


def pixel_rows(x: Tensor, batch_shape: tuple[int, int]) -> Tensor:
    """Return the pixels of all prompts of an episode as rows of one matrix.

    Parameters
    ----------
    x : (B K, C, h, w) tensor
    batch_shape : (B, K)

    Returns
    -------
    (B, K h w, C) tensor
    """
    batch, n_prompts = batch_shape
    x = x.flatten(2).transpose(1, 2)  # (B K, h w, C)
    return x.reshape(batch, n_prompts * x.shape[1], x.shape[2])


def ridge_weights(x: Tensor, labels: Tensor, known: Tensor, penalty: Tensor) -> Tensor:
    """Return the weights W of a class-balanced ridge regression, in closed form.

    W minimises ``sum_i w_i |x_i W - y_i|^2 + r |W|^2``, where ``x_i`` is a pixel's
    feature vector with a 1 appended and ``y_i`` its labels as -1 to 1. The minimum is
    ``(X^T D X + r I)^-1 X^T D Y`` with ``D = diag(w)``: one small linear system, which
    costs next to nothing at prediction and through which training differentiates.

    Parameters
    ----------
    x : (B, M, D) tensor
        Pixel features.
    labels : (B, M, L) tensor
        Labels in [0, 1]; the first is the foreground.
    known : (B, M) tensor
        Share of the pixel that is known, in [0, 1].
    penalty : tensor
        ``r`` in units of the mean squared feature.

    Returns
    -------
    (B, D + 1, L) tensor
        The last row is the offset.
    """
    # float32: in half precision the system is too close to singular
    with torch.autocast(x.device.type, enabled=False):
        x, labels, known = x.float(), labels.float(), known.float()
        foreground = labels[..., 0]
        background = known - foreground
        # w: each class sums to 1, however few of the pixels it has
        weight = foreground / foreground.sum(1, keepdim=True).clamp(min=1)
        weight = weight + background / background.sum(1, keepdim=True).clamp(min=1)
        x1 = torch.cat([x, torch.ones_like(x[..., :1])], dim=2)  # (B, M, D + 1)
        weighted = x1 * weight[..., None]
        gram = weighted.transpose(1, 2) @ x1  # (B, D + 1, D + 1)
        target = 2 * labels / known[..., None].clamp(min=1e-3) - 1
        right = weighted.transpose(1, 2) @ target
        # In units of the features' mean square, a penalty suits features of any scale.
        # The constant keeps the system regular where all features are zero.
        scale = gram.diagonal(dim1=1, dim2=2)[:, :-1].mean(1)
        ridge = (penalty * scale + 1e-4)[:, None].expand(-1, x1.shape[2])
        return torch.linalg.solve(gram + torch.diag_embed(ridge), right)


def similarity_and_context(
    query: Tensor, keys: Tensor, values: Tensor, bias: Tensor, temperature: Tensor
) -> tuple[Tensor, Tensor]:
    """Return attended values and the largest similarity to each class.

    Parameters
    ----------
    query : (B, N, D) tensor of unit vectors
    keys : (B, M, D) tensor of unit vectors
    values : (B, M, V) tensor
        Channel 0 is the share of foreground, channel 3 that of background.
    bias : (B, M) tensor
        Added to the scores; `MASKED` leaves a key out.
    temperature : tensor
        Divides the cosine similarities.

    Returns
    -------
    context : (B, N, V) tensor
    similarity : (B, N, 2) tensor
        Largest cosine to foreground and to background; -1 where the prompt has none.
    """
    cosine = _products(query, keys)  # (B, N, M)
    weights = (cosine / temperature + bias[:, None]).softmax(dim=-1)
    context = _products(weights, values.transpose(1, 2))
    # The maximum is over the pixels of one class: subtracting 2 puts all others below
    # the smallest cosine.
    others = ((values[..., c] <= 0.5) | (bias < -100) for c in (0, 3))
    best = [(cosine - 2.0 * other[:, None]).amax(-1) for other in others]
    return context, torch.stack(best, dim=-1).clamp(min=-1)


def _by_class(
    keys: Tensor, values: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """Return the keys that take part, foreground first, then background, then others.

    And how many there are of each, so that the keys of one class are a slice.
    """
    foreground, background = (values[0, :, c] > 0.5 for c in (0, 3))
    kind = torch.where(foreground, 0, torch.where(background, 1, 2))
    kind = torch.where(bias[0] < -100, 3, kind)
    counts = torch.bincount(kind, minlength=4).tolist()[:3]
    if not sum(counts):  # nothing is known: all keys count alike, and none for a class
        return keys, values, bias, [0, 0, keys.shape[1]]
    order = kind.argsort(stable=True)[: sum(counts)]
    return keys[:, order], values[:, order], bias[:, order], counts


def _attended(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    bias: Tensor,
    *,
    counts: list[int],
    temperature: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the same as `similarity_and_context`, faster, for one code on a CPU.

    Parameters
    ----------
    query, temperature
        As there.
    keys, values, bias, counts
        From `_by_class`.
    """
    cosine = _products(query, keys)  # (1, N, M)
    best = [
        part.amax(-1) if part.shape[-1] else part.new_full(part.shape[:2], -1.0)
        for part in cosine.split(counts, dim=-1)[:2]
    ]
    # in place: this is the largest array of all
    weights = cosine.div_(temperature).add_(bias[:, None]).softmax(dim=-1)
    context = _products(weights, values.transpose(1, 2))
    return context, torch.stack(best, dim=-1).clamp(min=-1)


def _products(one: Tensor, two: Tensor) -> Tensor:
    """Return the product (B, N, M) of ``one`` (B, N, D) and ``two`` (B, M, D).

    On a CPU the product of one image goes through a 1 x 1 convolution, which keeps the
    layout of all other maps, see `unet.Pointwise`.
    """
    if len(one) > 1 or one.device.type != "cpu" or is_exported():
        return one @ two.transpose(1, 2)
    n = one.shape[1]
    wide = math.gcd(n, 64)  # a map wider than one pixel comes back channels last
    found = pointwise(_as_maps(one, (n // wide, wide)), two[0, :, :, None, None])
    return found.flatten(2).transpose(1, 2)
