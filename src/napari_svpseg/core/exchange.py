"""What other programs are told of a model whose prompts are baked in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from .image import HIGH_PERCENTILE, LOW_PERCENTILE
from .result import ObjectProperties

GraphFormat = Literal["bioimageio", "onnx", "torchscript"]

EPSILON = 1e-9
"""Added to the range of intensities, where it divides."""

LEFT_OUT_BY_IMAGE = (
    "{n} prompt(s) that mark a wrong object are not in the model: what they leave out "
    "is decided for each image, with svpseg only"
)


@dataclass(frozen=True)
class GraphShape:
    """Sizes of images that a graph takes, in pixels.

    Parameters
    ----------
    channels : int
    smallest : int
        Smallest side.
    halo : int
        Width of the border of a tile whose maps are affected by what is beyond it.
    scale : float
        Pixels of the network for each pixel of the image.
    side : int, optional
        The only side, for programs that cannot compute with shapes.
    """

    channels: int
    smallest: int
    halo: int
    scale: float
    side: int | None = None


@dataclass(frozen=True, eq=False)
class BakedGraph:
    """A model with its prompts, as a graph with one input and one output.

    Parameters
    ----------
    data : bytes
        The file of the graph.
    shape : GraphShape
    test_input : (1, C, H, W) float32 array
        Raw intensities, made of a prompt.
    test_output : (1, 3, H, W) float32 array
        Foreground, distance and boundary in it.
    objects : ObjectProperties
        Of the prompts' objects.
    notes : tuple of str
        What is not in the graph.
    """

    data: bytes
    shape: GraphShape
    test_input: np.ndarray
    test_output: np.ndarray
    objects: ObjectProperties
    notes: tuple[str, ...] = ()


def scaled_range(image: np.ndarray) -> np.ndarray:
    """Return an image (1, C, H, W) with its percentiles at 0 and 1, as float32.

    This is ``scale_range`` of the bioimage.io specification. NaN, for which that has no
    rule, becomes 0.
    """
    low, high = np.nanpercentile(
        image.astype(np.float64),
        [LOW_PERCENTILE, HIGH_PERCENTILE],
        axis=(2, 3),
        keepdims=True,
    )
    scaled = (image - low) / (high - low + EPSILON)
    return np.where(np.isnan(scaled), 0, scaled).astype(np.float32)
