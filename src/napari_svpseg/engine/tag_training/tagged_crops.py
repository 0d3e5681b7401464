"""Images as windows of one size, and batches of them: what training from tags reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...core.annotation.image_tags import TagTrainingSettings
from ...core.image import Plane
from ..inference.tiling import ScaledQuery, network_length

MAX_WINDOWS = 2000
"""Windows that are held in memory, 8 bit each."""

STRIDE = 16


@dataclass(frozen=True, eq=False)
class Windows:
    """Images as windows that a network can take, and the tags of the images.

    Parameters
    ----------
    pixels : (n, 3, S, S) uint8 tensor
        Normalised intensities, 8 bit.
    owner : (n,) int64 tensor
        Image of each window.
    corner : (n, 2) int array
        Its top-left corner, in network pixels of its image.
    tags : (images, classes) float tensor
        1 where the image holds the class.
    names : tuple of str
        Of the images.
    """

    pixels: Tensor
    owner: Tensor
    corner: np.ndarray
    tags: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, index: Tensor | slice) -> Tensor:
        """Return windows as the network takes them, (B, 3, S, S) float."""
        return self.pixels[index].float() / 255 * 5.6 - 2.8

    def of_images(self, images: Iterable[int]) -> Tensor:
        """Return the numbers of the windows of some images."""
        wanted = torch.as_tensor(sorted(images))
        return torch.isin(self.owner, wanted).nonzero()[:, 0]


def cut_windows(
    planes: Iterable[tuple[str, Plane, np.ndarray]],
    tags: Mapping[str, Sequence[float]],
    settings: TagTrainingSettings,
) -> Windows:
    """Cut images into windows of one size.

    Parameters
    ----------
    planes : iterable of (name, (Y, X, C) array, (C, 2) array)
        Name, raw intensities and percentiles of each image, read one by one.
    tags : mapping of str to (classes,) floats
        1 for each class that the image of that name holds.
    settings : TagTrainingSettings
    """
    n_images = len(tags)
    at_most = max(1, MAX_WINDOWS // max(n_images, 1))
    side = -(-settings.window // STRIDE) * STRIDE
    pixels, owner, corners, names, largest = [], [], [], [], STRIDE
    for i, (name, plane, intensities) in enumerate(planes):
        query = ScaledQuery(plane, intensities, settings.scale)
        shape = [network_length(n, settings.scale) for n in plane.shape[:2]]
        largest = max(largest, *shape)
        grid = list(product(*(_starts(n, side) for n in shape)))
        chosen = np.linspace(0, len(grid) - 1, min(at_most, len(grid))).round()
        for y, x in (grid[int(at)] for at in chosen):
            piece = query.read((y, y + side), (x, x + side))
            pixels.append(_to_8_bit(piece))
            owner.append(i)
            corners.append((y, x))
        names.append(name)
    smaller = min(side, -(-largest // STRIDE) * STRIDE)  # all images are small
    stacked = torch.stack([p[:, :smaller, :smaller] for p in pixels])
    return Windows(
        stacked,
        torch.tensor(owner),
        np.array(corners),
        torch.tensor([list(tags[name]) for name in names], dtype=torch.float32),
        tuple(names),
    )


def _starts(length: int, side: int) -> list[int]:
    if length <= side:
        return [0]
    n = -(-length // side)
    return [round(at) for at in np.linspace(0, length - side, n)]


def _to_8_bit(piece: Tensor) -> Tensor:
    return ((piece + 2.8) / 5.6 * 255).round().clamp(0, 255).to(torch.uint8)


@dataclass
class Batches(Dataset[dict[str, Tensor]]):
    """Batches of turned and shaded windows, for a step always the same.

    Parameters
    ----------
    windows : Windows
    chosen : (n,) int64 tensor
        Those that are used.
    batch, n_batches, seed : int
    maps : (windows, S, S) tensor, optional
        Something of each pixel (labels, superpixels) that is turned with the windows.
    start : int
        Number of the first batch.
    """

    windows: Windows
    chosen: Tensor
    batch: int
    n_batches: int
    seed: int
    maps: Tensor | None = None
    start: int = 0

    def __len__(self) -> int:
        return max(0, self.n_batches - self.start)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        if i >= len(self):
            raise IndexError(i)
        step = self.start + i
        index = torch.stack(
            [self._at(step * self.batch + j) for j in range(self.batch)]
        )
        rng = np.random.default_rng([self.seed, step])
        images = self.windows.images(index)
        maps = None if self.maps is None else self.maps[index].long()
        for j in range(self.batch):
            turn, flip = int(rng.integers(4)), bool(rng.integers(2))
            images[j] = turned(images[j], turn, flip)
            if maps is not None:
                maps[j] = turned(maps[j], turn, flip)
        shape = (self.batch, 1, 1, 1)
        gain = torch.from_numpy(rng.uniform(0.85, 1.2, shape).astype(np.float32))
        shift = torch.from_numpy(rng.uniform(-0.25, 0.25, shape).astype(np.float32))
        batch = {"query": images * gain + shift, "window": index}
        if maps is not None:
            batch["maps"] = maps
        return batch

    def _at(self, n: int) -> Tensor:
        """Return the n-th window: every one comes once in a pass."""
        of_pass, at = divmod(n, len(self.chosen))
        generator = torch.Generator().manual_seed(self.seed * 9973 + of_pass)
        order = torch.randperm(len(self.chosen), generator=generator)
        return self.chosen[order[at]]


def turned(x: Tensor, turn: int, flip: bool) -> Tensor:
    """Return maps turned by quarters of a circle, then flipped."""
    x = torch.rot90(x, turn, (-2, -1))
    return x.flip(-1) if flip else x
