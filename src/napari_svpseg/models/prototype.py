"""Prototypes: mean vectors of labelled regions, compared by cosine similarity.

References
----------
K. Wang, J. H. Liew, Y. Zou, D. Zhou, J. Feng. "PANet: few-shot image semantic
segmentation with prototype alignment". ICCV, 2019.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import label_values
from .base import IGNORE, PromptCode, PromptSegmenter, pad_to_multiple, register
from .losses import binary_loss
from .unet import Encoder, FeaturePyramid, upsample


def masked_average(features: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean vector of a map.

    Parameters
    ----------
    features : (B, C, h, w) tensor
    weights : (B, h, w) tensor
        Not negative; all zero gives a zero vector.

    Returns
    -------
    (B, C) tensor
    """
    total = (features * weights[:, None]).sum((2, 3))
    return total / (weights.sum((1, 2))[:, None] + 1e-5)


def cosine_map(features: Tensor, vectors: Tensor) -> Tensor:
    """Return cosine similarities (B, N, h, w) of a map (B, C, h, w) to (B, N, C)."""
    features = F.normalize(features.float(), dim=1, eps=1e-4)
    vectors = F.normalize(vectors.float(), dim=2, eps=1e-4)
    return torch.einsum("bchw,bnc->bnhw", features, vectors)


@register("panet")
class PrototypeSegmenter(PromptSegmenter):
    """M4: one prototype for background and one for foreground.

    Parameters
    ----------
    width : int
        Channels at stride 2.
    features : int
        Length of the vectors.
    scale : float
        Factor on the cosine similarity before the softmax.
    """

    overlap = 64

    def __init__(
        self, width: int = 24, features: int = 64, scale: float = 20.0
    ) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width, 4 * width)
        self.encoder = Encoder(widths, (1, 1, 1))
        self.pyramid = FeaturePyramid(widths[1:], 2 * width)
        self.embed = nn.Conv2d(2 * width, features, 1)
        self.scale = scale

    def embeddings(self, image: Tensor) -> Tensor:
        """Return features (B, D, H/4, W/4) of an image whose sides are padded to 16."""
        return self.embed(self.pyramid(self.encoder(pad_to_multiple(image, 16))[1:]))

    def encode_prompts(self, images: Tensor, masks: Tensor) -> PromptCode:
        """Return the prototypes (B, 2, D): background, foreground.

        Each prompt's are averaged over the prompts that show the class.
        """
        batch, n_prompts, _, height, width = images.shape
        features = self.embeddings(images.flatten(0, 1))
        # masks are met at full resolution, as in the original
        features = upsample(features, 4)[..., :height, :width]
        values, _ = label_values(masks)
        values = values.flatten(0, 1)
        vectors = torch.stack(
            [masked_average(features, values[:, c]) for c in (0, 1)], dim=1
        ).unflatten(0, (batch, n_prompts))
        shown = (values.sum((2, 3)) > 0).float().unflatten(0, (batch, n_prompts))
        total = (vectors * shown[..., None]).sum(1)
        return {"prototypes": total / shown.sum(1)[..., None].clamp(min=1)}

    def forward(self, query: Tensor, code: PromptCode) -> dict[str, Tensor]:
        """Return ``foreground`` logits (B, 1, H, W)."""
        height, width = query.shape[-2:]
        similarity = cosine_map(
            self.embeddings(query),
            code["prototypes"].expand(query.shape[0], -1, -1),
        )
        logits = self.scale * (similarity[:, 1:] - similarity[:, :1])
        return {"foreground": upsample(logits, 4)[..., :height, :width]}

    def regularise(
        self, query: Tensor, maps: dict[str, Tensor], images: Tensor, masks: Tensor
    ) -> dict[str, Tensor]:
        """Return the alignment loss: the answer, as a prompt, explains the prompt.

        Episodes whose answer is all one class are left out.
        """
        answer = (maps["foreground"][:, 0] > 0).long()
        share = answer.float().mean((1, 2))
        usable = (share > 0) & (share < 1)
        if not usable.any():
            return {}
        code = self.encode_prompts(query[usable][:, None], answer[usable][:, None])
        n_prompts = images.shape[1]
        code = {k: v.repeat_interleave(n_prompts, dim=0) for k, v in code.items()}
        logits = self(images[usable].flatten(0, 1), code)["foreground"]
        given = masks[usable].flatten(0, 1)[:, None]
        return {
            "alignment": binary_loss(
                logits, (given > 0).float(), (given != IGNORE).float()
            )
        }
