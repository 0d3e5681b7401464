"""What every network offers, and how a method is registered under its name.

A method is a `torch.nn.Module` with two steps: `encode_prompts` once, and `forward`
for each tile of the query. All tensors are float32 on the module's device unless
mixed precision is on; intensities are those of `core.image.normalise`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor, nn
from torch.nn import functional as F

IGNORE = -1
"""Value in a prompt's mask: this pixel is unknown (also used as padding)."""

PromptCode = dict[str, Tensor]
"""What `encode_prompts` keeps of the prompts; each tensor's first axis is the batch."""


class PromptSegmenter(nn.Module):
    """Base of all methods."""

    overlap: int = 32
    """Pixels around a tile that influence its inside; the least sensible overlap."""

    needs_prompt: bool = True
    """False for a network that knows its classes, see `SemanticSegmenter`."""

    def encode_prompts(self, images: Tensor, masks: Tensor) -> PromptCode:
        """Return all that is needed of the prompts, independent of the query.

        Parameters
        ----------
        images : (B, K, 3, h, w) tensor
            K prompts; h and w are any size, 64 as a rule.
        masks : (B, K, h, w) int64 tensor
            Object ids, 0 = background, -1 = unknown. A mask of zeros is a negative
            prompt.
        """
        raise NotImplementedError(type(self).__name__)

    def forward(self, query: Tensor, code: PromptCode) -> dict[str, Tensor]:
        """Return maps of the query.

        Parameters
        ----------
        query : (B, 3, H, W) tensor
            Any H and W from 1 pixel. B equals the code's batch, or the code's is 1.

        Returns
        -------
        dict
            ``foreground`` (B, 1, H, W) logits; where the method has them
            ``distance`` (B, 1, H, W) logits (sigmoid: 0 at the object's border, 1 in
            its middle) and ``boundary`` (B, 1, H, W) logits.
        """
        raise NotImplementedError(type(self).__name__)

    def regularise(
        self, query: Tensor, maps: dict[str, Tensor], images: Tensor, masks: Tensor
    ) -> dict[str, Tensor]:
        """Return further parts of the training loss, by name; none by default.

        Parameters
        ----------
        query, images, masks
            The episode, as given to `forward` and `encode_prompts`.
        maps : dict
            What `forward` returned.
        """
        return {}


class SemanticSegmenter(PromptSegmenter):
    """A network that was trained on certain classes and is asked without a prompt.

    Parameters
    ----------
    classes : int
        Number of classes, background not counted.
    scale : float
        Network pixels per image pixel.
    """

    needs_prompt = False

    def __init__(self, classes: int, scale: float = 1.0) -> None:
        super().__init__()
        if not 1 <= classes <= 254:
            raise ValueError(f"a network has 1 to 254 classes, got {classes}")
        if not scale > 0:
            raise ValueError(f"scale must be above 0, got {scale}")
        self.n_classes, self.scale = int(classes), float(scale)

    def encode_prompts(self, images: Tensor, masks: Tensor) -> PromptCode:
        """Return nothing: the classes are known."""
        return {}

    def class_logits(self, query: Tensor) -> Tensor:
        """Return (B, classes + 1, H, W) logits of (B, 3, H, W); background is first."""
        raise NotImplementedError(type(self).__name__)

    def forward(self, query: Tensor, code: PromptCode) -> dict[str, Tensor]:
        """Return ``classes`` (B, classes + 1, H, W): logits, background first."""
        return {"classes": self.class_logits(query)}


Factory = TypeVar("Factory", bound=Callable[..., PromptSegmenter])

METHODS: dict[str, Callable[..., PromptSegmenter]] = {}
"""What builds the network of each method; `registry` fills it."""


def register(name: str) -> Callable[[Factory], Factory]:
    """Register a class or function that builds a network under ``name``."""

    def keep(factory: Factory) -> Factory:
        METHODS[name] = factory
        return factory

    return keep


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Return ``(B, C, H, W)`` extended at the bottom and right to a multiple."""
    height, width = image.shape[-2:]
    down, right = -height % multiple, -width % multiple
    if not down and not right:
        return image
    mode = "reflect" if down < height and right < width else "replicate"
    return F.pad(image, (0, right, 0, down), mode=mode)


def count_parameters(network: nn.Module) -> int:
    """Return the number of trainable weights."""
    return sum(p.numel() for p in network.parameters())
