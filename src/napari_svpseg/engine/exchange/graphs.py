"""A baked model as a graph that other programs run: ONNX or TorchScript."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import torch

from .baked import BakedModel

OPSET = 18
"""Version of ONNX's operators: that of 2022, which current programs all read."""

INPUT, OUTPUT = "image", "maps"
"""Names of the graph's input and output."""

LARGEST = 2**16
"""Largest side of an image in pixels."""

FOLDED = 2**24
"""Largest constant that is computed when the graph is written, in numbers."""

NO_EXPORTER = (
    "Writing ONNX needs the packages onnx and onnxscript: "
    'pip install "napari-svpseg[export]".'
)


class ExchangeError(ValueError):
    """A model that cannot be written for other programs; the message says why."""


def onnx_graph(model: BakedModel, channels: int) -> bytes:
    """Return a model as an ONNX file.

    Parameters
    ----------
    model : BakedModel
    channels : int
        Of the image, 1 to 3.

    Raises
    ------
    ExchangeError
        If onnx or onnxscript is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript.optimizer
    except ImportError as error:
        raise ExchangeError(NO_EXPORTER) from error
    shapes = None
    if model.side is None:
        height, width = (
            torch.export.Dim(name, min=model.smallest, max=LARGEST) for name in "hw"
        )
        shapes = ({2: height, 3: width},)
    with _quiet():
        program = torch.onnx.export(
            model,
            (_example(model, channels),),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    # Constants of all sizes: OpenCV 4 reads no truth values, and no steps on constants.
    folded = onnxscript.optimizer.optimize(
        program.model_proto, input_size_limit=FOLDED, output_size_limit=FOLDED
    )
    return folded.SerializeToString()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from telling of each of its steps."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    nothing = io.StringIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(nothing):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def torchscript_graph(model: BakedModel, channels: int) -> bytes:
    """Return a model as a TorchScript file; its image has any size.

    Parameters
    ----------
    model : BakedModel
    channels : int
        Of the image, 1 to 3.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, _example(model, channels), check_trace=False)
        torch.jit.save(traced, buffer)
    return buffer.getvalue()


def _example(model: BakedModel, channels: int) -> torch.Tensor:
    """Return an image whose height and width differ, where they may."""
    if model.side is not None:
        return torch.rand(1, channels, model.side, model.side)
    height = max(model.smallest, 128)
    return torch.rand(1, channels, height, height + model.stride)
