"""Base classes of all networks, and how a method is registered by name.

A method is a `torch.nn.Module` with two steps: `encode_prompts` once, and `forward`
for each tile of the query. The methods here part `forward` into `encode_query`, which
knows nothing of the prompts and can be kept, and `decode`. All tensors are float32 on
the module's device unless mixed precision is on; intensities are those of
`core.image.normalise`.

The keyword arguments of a method's constructor are the ``arguments`` of its
``model.json``, one by one. That is why some constructors have more than eight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.prompt import UNKNOWN

IGNORE = UNKNOWN
"""Value of unknown pixels in a prompt's mask; padding has it too."""

MASKED = -1e4
"""Added to a score that takes no part in a softmax.

Finite, because a softmax over -inf alone is NaN, and within the range of half
precision.
"""

PromptCode = dict[str, Tensor]
"""The encoded prompts: tensors by name, whose first axis is the batch."""


QueryFeatures = dict[str, Tensor]
"""The encoded query: tensors by name, whose first axis is the batch."""


class PromptSegmenter(nn.Module):
    """Base class of all methods."""

    overlap: int = 32
    """Smallest useful overlap of tiles, in network pixels."""

    least_overlap: int = 0
    """Overlap of tiles that no setting may undercut, in network pixels."""

    tile: tuple[int, int | None] = (1, None)
    """Smallest side of a tile, and the only one if there is one, in network pixels."""

    stride: int = 16
    """Sides and corners of tiles are multiples of it: that of the coarsest features."""

    object_range: tuple[float, float] = (10.0, 40.0)
    """Object diameters, in network pixels, that the network knows."""

    needs_prompt: bool = True
    """False for a network trained on fixed classes or objects."""

    knows_classes: bool = False
    """Whether it predicts classes of its own, see `SemanticSegmenter`."""

    steps: Sequence[Mapping[str, Any]] | None = None
    """Steps of `core.processing` that prepare intensities; None for our own ranges."""

    image_channels: int = 3
    """Channels that it takes where it has ``steps``."""

    def encode_prompts(self, images: Tensor, masks: Tensor) -> PromptCode:
        """Return the part of the computation that depends on the prompts only.

        Parameters
        ----------
        images : (B, K, 3, h, w) tensor
            K prompts for each of B queries; h and w are usually 64.
        masks : (B, K, h, w) int64 tensor
            Object ids, 0 = background, -1 = unknown. A mask of zeros is a negative
            prompt.
        """
        raise NotImplementedError(type(self).__name__)

    def encode_query(self, query: Tensor) -> QueryFeatures:
        """Return the part of the computation that depends on the query only.

        Parameters
        ----------
        query : (B, 3, H, W) tensor
            H and W are at least 1 pixel.

        Returns
        -------
        dict of tensors
            What `decode` takes. A method that only has `forward` keeps the query.
        """
        return {"query": query}

    def decode(self, features: QueryFeatures, code: PromptCode) -> dict[str, Tensor]:
        """Return the predicted maps of an encoded query.

        Parameters
        ----------
        features : dict of tensors
            From `encode_query`.
        code : dict of tensors
            From `encode_prompts`; its batch is B or 1.

        Returns
        -------
        dict
            As `forward`.
        """
        if type(self).forward is PromptSegmenter.forward:
            raise NotImplementedError(type(self).__name__)
        return self(features["query"], code)

    def forward(self, query: Tensor, code: PromptCode) -> dict[str, Tensor]:
        """Return the predicted maps of the query.

        Parameters
        ----------
        query : (B, 3, H, W) tensor
            H and W are at least 1 pixel.
        code : dict of tensors
            From `encode_prompts`; its batch is B or 1.

        Returns
        -------
        dict
            ``foreground`` (B, 1, H, W) logits; if the method predicts them also
            ``distance`` (B, 1, H, W) logits (sigmoid: 0 at the object's border, 1 in
            its middle) and ``boundary`` (B, 1, H, W) logits.
        """
        return self.decode(self.encode_query(query), code)

    def regularise(
        self, query: Tensor, maps: dict[str, Tensor], images: Tensor, masks: Tensor
    ) -> dict[str, Tensor]:
        """Return further terms of the training loss by name; none by default.

        Parameters
        ----------
        query, images, masks : tensors
            The episode, as given to `forward` and `encode_prompts`.
        maps : dict
            Result of `forward`.
        """
        return {}


class SemanticSegmenter(PromptSegmenter):
    """Base class of networks trained on fixed classes, which need no prompt.

    Parameters
    ----------
    classes : int
        Number of classes, background not counted.
    scale : float
        Network pixels per image pixel.
    """

    needs_prompt = False
    knows_classes = True

    def __init__(self, classes: int, scale: float = 1.0) -> None:
        super().__init__()
        if not 1 <= classes <= 254:
            raise ValueError(f"a network has 1 to 254 classes, got {classes}")
        if not scale > 0:
            raise ValueError(f"scale must be above 0, got {scale}")
        self.n_classes, self.scale = int(classes), float(scale)

    def encode_prompts(self, images: Tensor, masks: Tensor) -> PromptCode:
        """Return an empty code: the classes are fixed."""
        return {}

    def class_logits(self, query: Tensor) -> Tensor:
        """Return logits (B, classes + 1, H, W) of a query; background comes first.

        Parameters
        ----------
        query : (B, 3, H, W) tensor
        """
        raise NotImplementedError(type(self).__name__)

    def forward(self, query: Tensor, code: PromptCode) -> dict[str, Tensor]:
        """Return ``classes``, the logits of `class_logits`."""
        return {"classes": self.class_logits(query)}


Factory = TypeVar("Factory", bound=Callable[..., PromptSegmenter])

METHODS: dict[str, Callable[..., PromptSegmenter]] = {}
"""Network class of each method, by name; `registry` fills it."""


def register(name: str) -> Callable[[Factory], Factory]:
    """Register a class or function that builds a network under ``name``."""

    def keep(factory: Factory) -> Factory:
        METHODS[name] = factory
        return factory

    return keep


def is_exported() -> bool:
    """Return whether a network is being written as a graph for other programs.

    A graph cannot depend on values, nor repeat a step as often as the image is large.
    """
    traced = torch.jit.is_tracing()  # type: ignore[attr-defined]
    return torch.compiler.is_compiling() or bool(traced)


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
