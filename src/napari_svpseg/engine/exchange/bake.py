"""Bake prompts into a network, and write the graph."""

from __future__ import annotations

import numpy as np
import torch

from ...core.exchange import (
    LEFT_OUT_BY_IMAGE,
    BakedGraph,
    GraphFormat,
    GraphShape,
    scaled_range,
)
from ...core.image import resize_image
from ...core.progress import Progress, ignore_progress
from ...core.prompt import Prompt, PromptSet
from ...models.base import PromptSegmenter
from ...models.svp import EvidenceSegmenter
from ..inference.device import choose
from ..inference.forward import Forward, evaluating
from ..inference.prompt_features import (
    network_scale,
    prompt_code,
    prompt_object_properties,
    prompt_tensors,
)
from ..inference.unwanted import shown_to_network
from .baked import BakedModel
from .graphs import ExchangeError, onnx_graph, torchscript_graph

OTHER_METHOD = (
    "Models of this method cannot be written for other programs: only svp, and models "
    "fine-tuned from it."
)
TOO_SMALL = (
    "An image for this model has sides of at least {smallest} pixels, got {side}."
)

LARGEST_TEST = 512
"""Largest side of the test image in pixels, unless the model needs a larger one."""


def bake(
    network: PromptSegmenter,
    prompts: PromptSet,
    form: GraphFormat,
    side: int | None = None,
    on_progress: Progress = ignore_progress,
) -> BakedGraph:
    """Return a network with its prompts as a graph for other programs.

    Parameters
    ----------
    network : PromptSegmenter
    prompts : PromptSet
        Usable ones.
    form : {"bioimageio", "onnx", "torchscript"}
        A package of bioimage.io holds ONNX.
    side : int, optional
        The only side of images, for programs that cannot compute with shapes.
    on_progress : callable
        ``(done, total, message)``.

    Raises
    ------
    ExchangeError
        For another method, a side that does not fit, or if a package is missing.
    """
    network = check_method(network)
    on_progress(0, 2, "Encoding the prompts")
    shown, scale = shown_to_network(prompts), network_scale(prompts, network)
    device = choose("cpu")
    forward = Forward(network, device)
    with evaluating(network, device):
        images, masks = prompt_tensors(shown, scale)
        code = prompt_code(images, masks, forward)
        objects = prompt_object_properties(shown, images, forward, code, scale)
    model = BakedModel(network, code, scale, side).eval()
    if side is not None:
        _check_side(model, side)
    on_progress(1, 2, "Writing the graph")
    channels = shown[0].n_channels
    write = torchscript_graph if form == "torchscript" else onnx_graph
    data = write(model, channels)
    image = _test_image(next(p for p in shown if not p.is_negative), model)
    with torch.inference_mode():
        maps = model(torch.from_numpy(scaled_range(image))).numpy()
    wrong = len(prompts) - len(shown)
    return BakedGraph(
        data,
        GraphShape(channels, model.smallest, model.halo, scale, side),
        image,
        maps,
        objects,
        (LEFT_OUT_BY_IMAGE.format(n=wrong),) if wrong else (),
    )


def check_method(network: PromptSegmenter) -> EvidenceSegmenter:
    """Return a network that can be written for other programs.

    Raises
    ------
    ExchangeError
        For one of another method.
    """
    if not isinstance(network, EvidenceSegmenter):
        raise ExchangeError(OTHER_METHOD)
    return network


def _check_side(model: BakedModel, side: int) -> None:
    if side < model.smallest:
        raise ExchangeError(TOO_SMALL.format(smallest=model.smallest, side=side))


def _test_image(prompt: Prompt, model: BakedModel) -> np.ndarray:
    """Return an image (1, C, H, W) of a prompt, mirrored until it is large enough."""
    size = prompt.box.size
    crop = resize_image(prompt.image, (size, size))
    side = model.side or max(model.smallest, min(size, LARGEST_TEST))
    crop = crop[:side, :side]
    pad = (0, side - len(crop))
    image = np.pad(crop, (pad, pad, (0, 0)), mode="symmetric")
    return np.ascontiguousarray(np.moveaxis(image, -1, 0)[None], np.float32)
