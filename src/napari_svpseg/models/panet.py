"""Prototypes: mean vectors of labelled regions, compared by cosine similarity.

ALPNet and DSPNet (`models.alpnet`, `models.dspnet`) are refinements of this class; a
refinement overrides `PrototypeSegmenter.prototypes` and `PrototypeSegmenter.compare`
(``docs/decisions/0020-prototype-methods-share-a-class.md``).

References
----------
K. Wang, J. H. Liew, Y. Zou, D. Zhou, J. Feng. "PANet: few-shot image semantic
segmentation with prototype alignment". ICCV, 2019.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import (
    IGNORE,
    PromptCode,
    PromptSegmenter,
    QueryFeatures,
    pad_to_multiple,
    register,
)
from .losses import binary_loss
from .svp_attention import label_values
from .unet import FeaturePyramid, standard_encoder, upsample

STRIDE = 4
"""Image pixels per feature pixel."""


def masked_average(features: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean vector of a map (masked average pooling).

    Parameters
    ----------
    features : (B, C, h, w) tensor
    weights : (B, h, w) tensor
        Not negative; weights that are all zero give a zero vector.

    Returns
    -------
    (B, C) tensor
    """
    total = (features * weights[:, None]).sum((2, 3))
    return total / (weights.sum((1, 2))[:, None] + 1e-5)


def cosine_map(features: Tensor, vectors: Tensor) -> Tensor:
    """Return the cosine similarity of each pixel to each vector.

    Parameters
    ----------
    features : (B, C, h, w) tensor
    vectors : (B, N, C) tensor

    Returns
    -------
    (B, N, h, w) tensor
    """
    features = F.normalize(features.float(), dim=1, eps=1e-4)
    vectors = F.normalize(vectors.float(), dim=2, eps=1e-4)
    return torch.einsum("bchw,bnc->bnhw", features, vectors)


@register("panet")
class PrototypeSegmenter(PromptSegmenter):
    """M4: one prototype for background and one for foreground.

    Parameters
    ----------
    width : int
        Channels at stride 2, see `unet.standard_encoder`.
    features : int
        Length of the vectors.
    scale : float
        Factor on the cosine similarity before the softmax (20 in the paper).
    """

    overlap = 64

    def __init__(
        self, width: int = 24, features: int = 48, scale: float = 20.0
    ) -> None:
        super().__init__()
        self.encoder = standard_encoder(width)
        self.pyramid = FeaturePyramid(self.encoder.widths[1:], 2 * width)
        self.embed = nn.Conv2d(2 * width, features, 1)
        self.scale = scale

    def embeddings(self, image: Tensor) -> Tensor:
        """Return features (B, D, H/4, W/4) of an image (B, 3, H, W).

        H and W are padded to multiples of 16 first.
        """
        return self.embed(self.pyramid(self.encoder(pad_to_multiple(image, 16))[1:]))

    def encode_prompts(self, images: Tensor, masks: Tensor) -> PromptCode:
        """Return the code of `prototypes`; in training the features too."""
        features = self.embeddings(images.flatten(0, 1)).float()
        features = features.unflatten(0, images.shape[:2])  # (B, K, D, h/4, w/4)
        code = self.prototypes(features, masks)
        return code | {"features": features} if self.training else code

    def encode_query(self, query: Tensor) -> QueryFeatures:
        """Return the features of the query."""
        return {"features": self.embeddings(query).float(), "query": query}

    def decode(self, features: QueryFeatures, code: PromptCode) -> dict[str, Tensor]:
        """Return ``foreground`` logits (B, 1, H, W)."""
        height, width = features["query"].shape[-2:]
        logits = upsample(self.compare(features["features"], code), STRIDE)
        maps = {"foreground": logits[..., :height, :width]}
        if self.training:  # kept for `regularise`, which would encode both again
            maps |= {
                "features": features["features"],
                "prompt_features": code["features"],
            }
        return maps

    def prototypes(self, features: Tensor, masks: Tensor) -> PromptCode:
        """Return ``prototypes`` (B, 2, D): background, foreground.

        Each is the mean over the prompts that show the class.

        Parameters
        ----------
        features : (B, K, D, h/4, w/4) tensor
            Of the prompts; may be larger by padding.
        masks : (B, K, h, w) int tensor
        """
        batch_shape = masks.shape[:2]
        height, width = masks.shape[2:]
        # The features are enlarged to the mask, not the mask reduced: masked average
        # pooling at full resolution, as in the paper (equation 1).
        features = upsample(features.flatten(0, 1), STRIDE)[..., :height, :width]
        values, _ = label_values(masks)
        values = values.flatten(0, 1)  # (B K, 2, h, w)
        vectors = torch.stack(
            [masked_average(features, values[:, c]) for c in (0, 1)], dim=1
        ).unflatten(0, batch_shape)  # (B, K, 2, D)
        shown = (values.sum((2, 3)) > 0).float().unflatten(0, batch_shape)
        total = (vectors * shown[..., None]).sum(1)
        return {"prototypes": total / shown.sum(1)[..., None].clamp(min=1)}

    def compare(self, features: Tensor, code: PromptCode) -> Tensor:
        """Return logits (B, 1, h, w) of a query's features (B, D, h, w).

        A softmax over two classes is the sigmoid of the difference of their scores.
        """
        vectors = code["prototypes"].expand(features.shape[0], -1, -1)
        similarity = cosine_map(features, vectors)  # (B, 2, h, w)
        return self.scale * (similarity[:, 1:] - similarity[:, :1])

    def regularise(
        self, query: Tensor, maps: dict[str, Tensor], images: Tensor, masks: Tensor
    ) -> dict[str, Tensor]:
        """Return the prototype alignment loss: query and prompt change roles.

        The prompts are segmented with the query and its predicted mask as the prompt
        (PAR in the paper).
        """
        predicted = (maps["foreground"] > 0).long()
        share = predicted.float().mean((1, 2, 3))
        # a prediction of one class only gives no prototype of the other
        usable = (share > 0) & (share < 1)
        if not usable.any():
            return {}
        code = self.query_prototypes(maps["features"][usable, None], predicted[usable])
        n_prompts, height, width = masks.shape[1:]
        code = {k: v.repeat_interleave(n_prompts, dim=0) for k, v in code.items()}
        logits = self.compare(maps["prompt_features"][usable].flatten(0, 1), code)
        logits = upsample(logits, STRIDE)[..., :height, :width]
        given = masks[usable].flatten(0, 1)[:, None]  # (B K, 1, h, w)
        return {
            "alignment": binary_loss(
                logits, (given > 0).float(), (given != IGNORE).float()
            )
        }

    def query_prototypes(self, features: Tensor, masks: Tensor) -> PromptCode:
        """Return the prototypes of a query and its prediction, for `regularise`."""
        return self.prototypes(features, masks)
