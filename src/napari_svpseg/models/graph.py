"""Networks of other programs: a graph (ONNX or TorchScript) as a model here.

The graph is kept as it came, as the bytes of a buffer, and is run by ONNX Runtime or
PyTorch. It gets intensities that are prepared as its description says, at the image's
scale, and its answer is named.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.labels.instances import targets
from ..core.labels.star_convex import star_convex_labels
from ..core.processing import applied
from .base import PromptCode, PromptSegmenter, register

MAPS = ("foreground", "distance", "boundary")
CERTAIN = 1e-6
"""Probabilities are kept this far from 0 and 1, where logits end."""

STAR_RADIUS = 64
"""Pixels around an object that a network of polygons looks at, if nobody says."""

NO_RUNTIME = (
    "This model is ONNX, which needs the package onnxruntime: "
    'pip install "napari-svpseg[bioimageio]".'
)
OTHER_DTYPE = (
    "the model takes intensities of {dtype}, the image has up to {high:.6g}: scale it "
    "to the range of {dtype} before"
)
OTHER_SIZE = "the model's output has {got} pixels for an input of {given}"


def to_layout(image: np.ndarray, axes: str) -> np.ndarray:
    """Return an image (C, H, W) as a tensor with other axes.

    Parameters
    ----------
    image : (C, H, W) array
    axes : str
        Letters out of ``bcyx``, and ``1`` for each further axis, of size 1.
    """
    letters = [a for a in axes if a != "1"]
    missing = [a for a in "bc" if a not in letters]
    order = ["bcyx".index(a) for a in (*missing, *letters)]
    laid = (
        image[None]
        .transpose(order)
        .reshape([image[None].shape["bcyx".index(a)] for a in letters])
    )
    for i, a in enumerate(axes):
        if a == "1":
            laid = np.expand_dims(laid, i)
    return np.ascontiguousarray(laid)


def from_layout(tensor: np.ndarray, axes: str) -> np.ndarray:
    """Return a tensor of other axes as (C, H, W); the inverse of `to_layout`."""
    if tensor.ndim != len(axes):
        raise ValueError(f"got {tensor.ndim} axes, expected {axes}")
    tensor = tensor.squeeze(tuple(i for i, a in enumerate(axes) if a == "1"))
    letters = [a for a in axes if a != "1"]
    tensor = tensor.transpose([letters.index(a) for a in "bcyx" if a in letters])
    shape = iter(tensor.shape)
    full = [next(shape) if a in letters else 1 for a in "bcyx"]
    return np.asarray(tensor.reshape(full)[0])


@register("graph")
class GraphSegmenter(PromptSegmenter):
    """A graph of another program, which needs no prompt.

    Parameters
    ----------
    form : {"onnx", "torchscript"}
    size : int
        Bytes of the graph.
    image : dict
        ``axes`` as for `to_layout`, ``channels``, ``dtype``, ``steps`` of
        `core.processing`, and the sides ``y`` and ``x``: a number, or the smallest and
        the step.
    outputs : list of dict
        Of each tensor: ``axes`` and ``steps``.
    names : list of str
        What each channel of the outputs is, one output after the other: classes with
        ``background`` among them, or a single one; ``foreground`` with ``boundary`` or
        ``distance``; ``probability`` and then distances along rays. Others are
        ``ignore``.
    halo : int
        Pixels from the border of a tile that are not used.
    stars : dict, optional
        ``threshold`` and ``overlap`` of polygons.
    """

    needs_prompt = False
    object_range = (1.0, math.inf)
    steps: Sequence[Mapping[str, Any]]

    def __init__(
        self,
        form: str,
        size: int,
        image: Mapping[str, Any],
        outputs: Sequence[Mapping[str, Any]],
        names: Sequence[str],
        halo: int = 0,
        stars: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.form, self.image, self.outputs = form, dict(image), list(outputs)
        self.names, self.stars, self.scale = list(names), stars, 1.0
        self.steps, self.image_channels = image["steps"], int(image["channels"])
        self.sides = tuple(_side(image[a]) for a in "yx")
        fixed = [low for low, step in self.sides if not step]
        self.tile = max(low for low, _ in self.sides), min(fixed, default=None)
        self.overlap = halo or (STAR_RADIUS if stars else type(self).overlap)
        self.least_overlap = 2 * self.overlap
        self.stride = math.gcd(16, *(n for side in self.sides for n in side if n))
        self.knows_classes = not stars and not {"boundary", "distance"} & set(names)
        self.register_buffer("graph", torch.zeros(size, dtype=torch.uint8))
        self._run: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the running graph, which cannot be copied."""
        return {**super().__getstate__(), "_run": None}  # type: ignore[misc]

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of their ids from 1."""
        return [n for n in self.names if n not in ("background", "ignore")]

    def encode_prompts(self, images: Tensor, masks: Tensor) -> PromptCode:
        """Return an empty code: the model needs no prompt."""
        return {}

    def forward(self, query: Tensor, code: PromptCode) -> dict[str, Tensor]:
        """Return the logits of ``classes``, or of some of `MAPS`.

        Parameters
        ----------
        query : (B, C, H, W) tensor
            Prepared intensities.
        """
        maps = [
            self._named(self.answer(one), one.shape[1:])
            for one in query.float().cpu().numpy()
        ]
        return {
            name: torch.from_numpy(np.stack([m[name] for m in maps])).to(query.device)
            for name in maps[0]
        }

    def answer(self, image: np.ndarray) -> np.ndarray:
        """Return all channels of all outputs, after their steps.

        Parameters
        ----------
        image : (C, H, W) float32 array
            Prepared intensities; extended to a size that the graph takes.

        Returns
        -------
        (M, h, w) float64 array
            As large as the image, or a whole fraction of it for polygons.
        """
        height, width = image.shape[1:]
        more = [
            (0, _fitting(n, side) - n)
            for n, side in zip((height, width), self.sides, strict=True)
        ]
        padded = np.pad(image, [(0, 0), *more], mode="symmetric")
        dtype = np.dtype(self.image["dtype"])
        if dtype.kind in "iu":
            ends = np.iinfo(dtype)
            if padded.min() < ends.min or padded.max() > ends.max:
                raise ValueError(OTHER_DTYPE.format(dtype=dtype, high=padded.max()))
        given = to_layout(padded, self.image["axes"]).astype(dtype)
        found = []
        for tensor, about in zip(self._running()(given), self.outputs, strict=True):
            maps = from_layout(np.asarray(tensor), about["axes"])
            maps = applied(about["steps"], np.moveaxis(maps, 0, -1))
            found.append(np.moveaxis(maps, -1, 0))
        joined = np.concatenate(found)
        grid = padded.shape[1] // joined.shape[1]
        if joined.shape[1] * grid != padded.shape[1] or (grid > 1 and not self.stars):
            raise ValueError(
                OTHER_SIZE.format(got=joined.shape[1:], given=padded.shape[1:])
            )
        return joined[:, : -(-height // grid), : -(-width // grid)]

    def _named(self, maps: np.ndarray, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        """Return the logits (M, H, W) of the maps, by name."""
        if self.stars is not None:
            labels = star_convex_labels(
                maps[0], maps[1:], (shape[0], shape[1]), **self.stars
            )
            drawn = np.clip(np.stack(targets(labels)), CERTAIN, 1 - CERTAIN)
            return dict(zip(MAPS, _logit(drawn)[:, None], strict=True))
        by = dict(zip(self.names, np.clip(maps, CERTAIN, 1 - CERTAIN), strict=True))
        if not self.knows_classes:
            if "background" in by:  # what is boundary is a part of the object
                by["foreground"] = 1 - by["background"]
            chosen = (n for n in MAPS if n in by)
            return {n: _logit(by[n])[None].astype(np.float32) for n in chosen}
        shares = [by[n] for n in self.classes]
        background = np.maximum(1 - np.sum(shares, axis=0), CERTAIN)
        logits = np.log(np.stack([background, *shares]))
        return {"classes": logits.astype(np.float32)}

    def _running(self) -> Any:
        """Return a function from the input to the list of outputs."""
        if self._run is None:
            data = self.get_buffer("graph").cpu().numpy().tobytes()
            self._run = _onnx(data) if self.form == "onnx" else _torchscript(data)
        return self._run


def graph_tensor(data: bytes) -> Tensor:
    """Return the bytes of a graph as the buffer that a network keeps."""
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _side(size: Any) -> tuple[int, int]:
    """Return the smallest side and the step; a step of 0 where there is one side."""
    return (int(size), 0) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _fitting(n: int, side: tuple[int, int]) -> int:
    """Return the smallest side that the graph takes and that holds ``n`` pixels."""
    low, step = side
    return low if n <= low or not step else low + -(-(n - low) // step) * step


def _logit(p: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(p / (1 - p)))


def _onnx(data: bytes) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ValueError(NO_RUNTIME) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        data, options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image})


def _torchscript(data: bytes) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it will be replaced
        module = torch.jit.load(io.BytesIO(data), map_location="cpu").eval()

    def run(image: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            found = module(torch.from_numpy(image))
        found = found if isinstance(found, tuple | list) else [found]
        return [tensor.numpy() for tensor in found]

    return run
