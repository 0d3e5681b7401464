"""A network run on pieces of a query, as large as the device's memory allows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ...models.base import PromptCode, PromptSegmenter
from .cache import query_features
from .device import Device, free_memory, is_out_of_memory
from .tiling import sample, spans

NO_NUMBERS = (
    "the model's answer is no numbers (NaN): its weights are damaged, or too large"
)


class NoNumbersError(ValueError):
    """A network that answers NaN, of which no labels can be made."""


MAPS = ("foreground", "distance", "boundary")
"""Names of the maps, in the order in which they are stacked."""

SMALL = 256 * 256
"""Network pixels that a CPU takes at once where pieces are smaller, such as prompts."""

MIN_SIDE = 128
"""Side of a piece, in network pixels, that is not cut further but moved to the CPU."""

NO_MEMORY = "Not enough memory even for the smallest tile: close other programs."
ENCODED_ON_CPU = "the prompts were encoded on the CPU: the GPU's memory is full"
FEWER_TILES = "memory is full: {n} tile(s) at a time"
SMALLER_TILES = "memory is full: tiles of {side} pixels"
TILES_ON_CPU = "memory is full: one or more tiles ran on the CPU"

T = TypeVar("T")


class Forward:
    """A network on a device, and its fallbacks when memory runs out.

    First the batch is halved, then pieces are cut into overlapping quarters, then a
    piece is run on the CPU. A fallback stays for the rest of the run, and is named in
    `notes`.

    Parameters
    ----------
    network : PromptSegmenter
        Moved to the device, in evaluation mode.
    device : Device
    batch : int
        Largest number of pieces run together.
    overlap, radius, stride : int
        How pieces are cut, see `tiling.spans`.
    """

    def __init__(
        self,
        network: PromptSegmenter,
        device: Device,
        *,
        batch: int = 1,
        overlap: int = 64,
        radius: int = 64,
        stride: int = 16,
    ) -> None:
        self.network = network
        self.device = device
        self.batch = batch if device.type != "cpu" else 1
        self._pixels = SMALL if device.type == "cpu" else 0
        self.notes: list[str] = []
        self.names: tuple[str, ...] = ()
        self._cuts: dict[str, int] = {
            "overlap": overlap,
            "radius": radius,
            "stride": stride,
        }
        self._side: int | None = None  # largest side known to fit into the memory
        self._on_cpu: PromptSegmenter | None = None  # a copy, made when needed

    def encode(self, images: Tensor, masks: Tensor) -> PromptCode:
        """Return the code of prompts (1, K, 3, h, w) with masks (1, K, h, w)."""
        try:
            return self._call(
                self.device.torch_device,
                lambda network, to: network.encode_prompts(to(images), to(masks)),
            )
        except (RuntimeError, MemoryError) as error:
            self._check(error)
            self._note(ENCODED_ON_CPU)
        return self._call(
            torch.device("cpu"),
            lambda network, to: network.encode_prompts(to(images), to(masks)),
        )

    def __call__(self, pieces: Tensor, code: PromptCode) -> Tensor:
        """Return probabilities (B, M, H, W), on the CPU, of pieces (B, 3, H, W).

        The M maps are those in `names`. A network of classes gives ``foreground`` and
        maps named ``1``, ``2`` and so on.
        """
        # A CPU takes one large piece, or several small ones.
        batch = max(self.batch, self._pixels // (pieces.shape[2] * pieces.shape[3]))
        if len(pieces) > batch:
            return torch.cat([self(part, code) for part in pieces.split(batch)])
        if self._side is not None and max(pieces.shape[2:]) > self._side:
            return torch.cat([self._quartered(piece[None], code) for piece in pieces])
        try:
            return self._maps(self.device.torch_device, pieces, code)
        except (RuntimeError, MemoryError) as error:
            self._check(error)
        return self._smaller(pieces, code)

    def _smaller(self, pieces: Tensor, code: PromptCode) -> Tensor:
        """Return the maps of pieces that did not fit, with the next fallback."""
        side = max(pieces.shape[2:])
        if len(pieces) > 1:
            self._pixels, self.batch = 0, min(len(pieces) // 2, self.batch)
            self._note(FEWER_TILES.format(n=self.batch))
            return self(pieces, code)
        if side >= 2 * MIN_SIDE:
            stride = self._cuts["stride"]
            self._side = side // 2 // stride * stride
            self._note(SMALLER_TILES.format(side=self._side))
            return self(pieces, code)
        if self.device.type == "cpu":
            raise MemoryError(NO_MEMORY)
        self._note(TILES_ON_CPU)
        return self._maps(torch.device("cpu"), pieces, code)

    def _quartered(self, piece: Tensor, code: PromptCode) -> Tensor:
        """Return the maps of one piece (1, 3, H, W), blended from smaller pieces."""
        assert self._side is not None
        height, width = piece.shape[2:]
        joined: Tensor | None = None
        for ys in spans(height, 1.0, self._side, **self._cuts):
            for xs in spans(width, 1.0, self._side, **self._cuts):
                part = sample(
                    piece[0],
                    np.arange(ys.start, ys.stop),
                    np.arange(xs.start, xs.stop),
                )
                maps = self(part[None], code)[0]
                if joined is None:
                    joined = torch.zeros(len(maps), height, width)
                weights = torch.from_numpy(np.outer(ys.weights, xs.weights))
                joined[:, ys.first : ys.last, xs.first : xs.last] += (
                    maps[:, : len(ys.weights), : len(xs.weights)] * weights
                )
        assert joined is not None
        return joined[None]

    def _maps(self, device: torch.device, pieces: Tensor, code: PromptCode) -> Tensor:
        def run(network: PromptSegmenter, to: Callable[[Tensor], Tensor]) -> Tensor:
            there = {name: to(value) for name, value in code.items()}
            # only on the CPU: a GPU encodes faster than its memory is worth
            if device.type == "cpu" and splits(network):
                features = query_features.get(
                    network,
                    [str(tuple(pieces.shape)), pieces.numpy()],
                    lambda: network.encode_query(to(pieces)),
                )
                answer = network.decode(features, there)
            else:
                answer = network(to(pieces), there)
            if "classes" in answer:
                # foreground is whatever is not background, which is class 0
                shares = answer["classes"].float().softmax(dim=1)
                self.names = ("foreground", *map(str, range(1, shares.shape[1])))
                return torch.cat([1 - shares[:, :1], shares[:, 1:]], dim=1).cpu()
            self.names = tuple(name for name in MAPS if name in answer)
            maps = torch.cat([answer[name].float() for name in self.names], dim=1)
            if maps.isnan().any():
                raise NoNumbersError(NO_NUMBERS)
            return maps.sigmoid_().cpu()

        return self._call(device, run)

    def _call(self, device: torch.device, work: Callable[..., T]) -> T:
        def to(tensor: Tensor) -> Tensor:
            if tensor.ndim == 4 and tensor.shape[1] == 3:  # an image
                tensor = tensor.contiguous(memory_format=memory_format(device))
            return tensor.to(device, non_blocking=True)

        network = self.network
        if device.type == "cpu" and self.device.type != "cpu":
            if self._on_cpu is None:
                self._on_cpu = copy.deepcopy(self.network).to("cpu")
            network = self._on_cpu
        with torch.inference_mode(), mixed_precision(device):
            return work(network, to)

    def _check(self, error: BaseException) -> None:
        """Raise ``error`` unless it says that memory is full."""
        if not is_out_of_memory(error):
            raise error
        free_memory(self.device.torch_device)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def splits(network: PromptSegmenter) -> bool:
    """Return whether a network encodes queries without knowing the prompts."""
    return type(network).encode_query is not PromptSegmenter.encode_query


def mixed_precision(device: torch.device) -> Any:
    """Return the context in which a network runs: half precision on CUDA only."""
    if device.type != "cuda":
        return nullcontext()
    half = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.autocast("cuda", dtype=half)


def memory_format(device: torch.device) -> torch.memory_format:
    """Return the layout that is fastest: channels last on CUDA only (measured)."""
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


@contextmanager
def evaluating(network: PromptSegmenter, device: Device) -> Iterator[None]:
    """Move a network to a device and into evaluation mode; restore the mode after."""
    was_training = network.training
    # torch's stubs lack the argument memory_format
    network.to(  # type: ignore[call-overload]
        device.torch_device, memory_format=memory_format(device.torch_device)
    )
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)
