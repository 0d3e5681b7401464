"""Tagged images as windows of one size, and batches of windows to train on."""

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
"""Windows that are kept in memory at most (as 8 bit)."""

STRIDE = 16
"""Sides of windows are multiples of the encoder's largest stride."""

RANGE = 2.8
"""Normalised intensities from -2.8 to 2.8 are stored as 0 to 255."""


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of images, and the tags of the images.

    Parameters
    ----------
    pixels : (n, 3, S, S) uint8 tensor
        Normalised intensities, 8 bit.
    owner : (n,) int64 tensor
        Number of the image that each window was cut from.
    corner : (n, 2) int array
        Top-left corner of each window (y, x), in network pixels of its image.
    tags : (images, classes) float tensor
        1 where the image shows the class.
    names : tuple of str
        Names of the images.
    """

    pixels: Tensor
    owner: Tensor
    corner: np.ndarray
    tags: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, index: Tensor | slice) -> Tensor:
        """Return windows (B, 3, S, S) as float32, normalised as the network expects."""
        return self.pixels[index].float() / 255 * (2 * RANGE) - RANGE

    def of_images(self, images: Iterable[int]) -> Tensor:
        """Return the numbers of the windows of some images."""
        wanted = torch.as_tensor(sorted(images))
        return torch.isin(self.owner, wanted).nonzero()[:, 0]


def cut_windows(
    planes: Iterable[tuple[str, Plane, np.ndarray]],
    tags: Mapping[str, Sequence[float]],
    settings: TagTrainingSettings,
) -> Windows:
    """Return images cut into windows of one size.

    Parameters
    ----------
    planes : iterable of (name, (Y, X, C) array, (C, 2) array)
        Name, raw intensities and percentiles of each image, read one by one.
    tags : mapping of str to (classes,) floats
        1 for each class that the image of that name shows.
    settings : TagTrainingSettings
    """
    n_images = len(tags)
    # each image gets an equal share of the memory
    at_most = max(1, MAX_WINDOWS // max(n_images, 1))
    side = -(-settings.window // STRIDE) * STRIDE
    pixels, owner, corners, names, largest = [], [], [], [], STRIDE
    for i, (name, plane, intensities) in enumerate(planes):
        query = ScaledQuery(plane, intensities, settings.scale)
        shape = [network_length(n, settings.scale) for n in plane.shape[:2]]
        largest = max(largest, *shape)
        grid = list(product(*(_starts(n, side) for n in shape)))
        # of a large image some windows only, evenly spaced
        chosen = np.linspace(0, len(grid) - 1, min(at_most, len(grid))).round()
        for y, x in (grid[int(at)] for at in chosen):
            piece = query.read((y, y + side), (x, x + side))  # mirrored at the border
            pixels.append(_to_8_bit(piece))
            owner.append(i)
            corners.append((y, x))
        names.append(name)
    # if all images are smaller than a window, the rest of each window is padding
    smaller = min(side, -(-largest // STRIDE) * STRIDE)
    stacked = torch.stack([p[:, :smaller, :smaller] for p in pixels])
    return Windows(
        stacked,
        torch.tensor(owner),
        np.array(corners),
        torch.tensor([list(tags[name]) for name in names], dtype=torch.float32),
        tuple(names),
    )


def _starts(length: int, side: int) -> list[int]:
    """Return the first pixel of each window along an axis; windows may overlap."""
    if length <= side:
        return [0]
    n = -(-length // side)
    return [round(at) for at in np.linspace(0, length - side, n)]


def _to_8_bit(piece: Tensor) -> Tensor:
    """Return normalised intensities as uint8, see `RANGE`."""
    return ((piece + RANGE) / (2 * RANGE) * 255).round().clamp(0, 255).to(torch.uint8)


@dataclass
class Batches(Dataset[dict[str, Tensor]]):
    """Data set of batches of turned, flipped and shaded windows.

    A batch depends on its number and the seed only, so that a resumed training sees
    the same batches.

    Parameters
    ----------
    windows : Windows
    chosen : (n,) int64 tensor
        Numbers of the windows that are used.
    batch : int
        Windows per batch.
    n_batches, seed : int
    maps : (windows, S, S) tensor, optional
        Labels or superpixels, which are turned with the windows.
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
        # small changes of contrast and brightness, in units of normalised intensities
        gain = torch.from_numpy(rng.uniform(0.85, 1.2, shape).astype(np.float32))
        shift = torch.from_numpy(rng.uniform(-0.25, 0.25, shape).astype(np.float32))
        batch = {"query": images * gain + shift, "window": index}
        if maps is not None:
            batch["maps"] = maps
        return batch

    def _at(self, n: int) -> Tensor:
        """Return the number of the n-th window drawn; a pass draws each once."""
        # another permutation for each pass, from the number alone
        of_pass, at = divmod(n, len(self.chosen))
        generator = torch.Generator().manual_seed(self.seed * 9973 + of_pass)
        order = torch.randperm(len(self.chosen), generator=generator)
        return self.chosen[order[at]]


def turned(x: Tensor, turn: int, flip: bool) -> Tensor:
    """Return ``x`` (..., H, W) rotated by ``turn`` times 90 degrees, then flipped."""
    x = torch.rot90(x, turn, (-2, -1))
    return x.flip(-1) if flip else x
