"""Baselines that our models are compared with.

A baseline is fitted to one prompt and then segments any query. As our models do, it
sees the query at the scale of the prompt (a box of 64 x 64) and returns labels at full
size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

from ..core.geometry import PROMPT_SIZE
from ..core.image import intensity_range, normalise, resize_image, resize_labels
from ..core.labels.metrics import dice
from ..core.prompt import Prompt
from .pixel_forest import (
    PixelForest,
    best_splitting,
    pixel_features,
    split_objects,
    splitting_grid,
)

T = TypeVar("T")

NEEDS_IMAGES = "unet-full needs the other images of a task: use for_images"


@dataclass(eq=False)
class Query:
    """One image to segment, and computations that several contestants share.

    Parameters
    ----------
    plane : (Y, X, C) array
        Raw intensities of the whole image.
    scale : float
        Prompt pixels per image pixel (64 over the side of the box).
    truth : (Y, X) int array, optional
        True object ids; only scores and upper bounds use them.
    ignore : (Y, X) bool array, optional
        Pixels that are not scored.
    name : str
    """

    plane: np.ndarray
    scale: float = 1.0
    truth: np.ndarray | None = None
    ignore: np.ndarray | None = None
    name: str = ""
    _kept: dict[Hashable, tuple[Any, float]] = field(default_factory=dict)
    _reused_s: float = 0.0

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the whole image."""
        return (self.plane.shape[0], self.plane.shape[1])

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return the result of ``compute``, which is called only once for a key.

        Its time is added to each later use, see `take_reused_seconds`: a contestant
        must not seem faster because another one came first.
        """
        if key in self._kept:
            value, seconds = self._kept[key]
            self._reused_s += seconds
            return value  # type: ignore[no-any-return]
        before, self._reused_s = self._reused_s, 0.0
        start = time.perf_counter()
        value = compute()  # may itself use shared values
        seconds = time.perf_counter() - start + self._reused_s
        self._reused_s += before
        self._kept[key] = (value, seconds)
        return value

    def take_reused_seconds(self) -> float:
        """Return the time that `once` saved since the last call of this method."""
        seconds, self._reused_s = self._reused_s, 0.0
        return seconds

    @property
    def scaled(self) -> np.ndarray:
        """Normalised image (y, x, C) float32 at the scale of the prompt."""
        return self.once("scaled", self._scale)

    def _scale(self) -> np.ndarray:
        shape = tuple(max(1, round(n * self.scale)) for n in self.shape)
        return resize_image(
            normalise(self.plane, intensity_range(self.plane)), (shape[0], shape[1])
        )

    def full_size(self, foreground: np.ndarray) -> np.ndarray:
        """Return a map (y, x) at the scale of the prompt resampled to the full size."""
        return resize_image(foreground[..., None], self.shape)[..., 0]


Answer = Callable[[Query], np.ndarray]
"""Returns the (Y, X) labels of a query."""


class Contestant(Protocol):
    """A baseline or a model that takes part in the benchmark."""

    def fit(self, prompt: Prompt) -> Answer:
        """Return the function that segments queries like the prompt."""
        ...


@dataclass(frozen=True)
class ForestBaseline:
    """A random forest on filter features, with the splitting that suits the prompt.

    Parameters
    ----------
    seed, n_threads : int
    best_on_truth : bool
        Whether to choose the splitting by the truth of each query (an upper bound).
    """

    seed: int = 0
    n_threads: int = 1
    best_on_truth: bool = False

    def fit(self, prompt: Prompt) -> Answer:
        """Return the segmentation function of a forest fitted to the prompt."""
        forest = PixelForest.fit([prompt], seed=self.seed, n_threads=self.n_threads)
        ways = splitting_grid(prompt.mask)

        def answer(query: Query) -> np.ndarray:
            features = query.once(
                "features", lambda: pixel_features(query.scaled, self.n_threads)
            )
            mask = query.full_size(forest.foreground(features)) > 0.5
            zoom = 1 / query.scale
            if self.best_on_truth and query.truth is not None:
                return best_splitting(mask, query.truth, ways, zoom, query.ignore)[1]
            return split_objects(mask, forest.splitting, zoom)

        return answer


@dataclass(frozen=True)
class OtsuBaseline:
    """Otsu's threshold, with the channel and polarity that suit the prompt.

    Parameters
    ----------
    sigma : float
        Width of the Gaussian that smooths the image first, in prompt pixels.
    """

    sigma: float = 1.0

    def fit(self, prompt: Prompt) -> Answer:
        """Return the segmentation function with the best choices for the prompt."""
        crop = self._smooth(normalise(prompt.image, prompt.intensities))
        # every channel, once for objects brighter and once for objects darker than the
        # threshold; the best on the prompt's mask wins
        sides = [(c, bright) for c in range(crop.shape[2]) for bright in (True, False)]
        channel, bright = max(
            sides, key=lambda side: dice(_beyond(crop, *side), prompt.mask > 0)
        )
        way, _ = best_splitting(
            _beyond(crop, channel, bright), prompt.mask, splitting_grid(prompt.mask)
        )

        def answer(query: Query) -> np.ndarray:
            mask = _beyond(self._smooth(query.scaled), channel, bright)
            full = query.full_size(mask.astype(np.float32)) > 0.5
            return split_objects(full, way, 1 / query.scale)

        return answer

    def _smooth(self, image: np.ndarray) -> np.ndarray:
        return np.asarray(
            ndimage.gaussian_filter(image, (self.sigma, self.sigma, 0)), np.float32
        )


def _beyond(image: np.ndarray, channel: int, bright: bool) -> np.ndarray:
    """Return the mask (Y, X) above Otsu's threshold, or below it."""
    values = image[..., channel]
    # a constant image has no threshold: nothing is above it
    above = values > threshold_otsu(values) if np.ptp(values) else values > values + 1
    return np.asarray(above if bright else ~above)


@dataclass(frozen=True)
class PromptUNetBaseline:
    """A small U-Net trained on augmented crops of the prompt alone."""

    seed: int = 0
    steps: int = 300
    batch: int = 8
    width: int = 16
    device: str = "cpu"

    def fit(self, prompt: Prompt) -> Answer:
        """Return the segmentation function of a network trained on the prompt."""
        image = normalise(prompt.image, prompt.intensities)
        network = train_unet(
            [(image, prompt.mask > 0)],
            seed=self.seed,
            steps=self.steps,
            batch=self.batch,
            width=self.width,
            device=self.device,
        )

        # splitting that suits the network's own prediction of the prompt
        seen = unet_foreground(network, image, self.device) > 0.5
        way, _ = best_splitting(seen, prompt.mask, splitting_grid(prompt.mask))

        def answer(query: Query) -> np.ndarray:
            mask = unet_foreground(network, query.scaled, self.device)
            return split_objects(query.full_size(mask) > 0.5, way, 1 / query.scale)

        return answer


@dataclass(frozen=True)
class FullUNetBaseline:
    """An upper bound: a small U-Net trained on the full labels of other images.

    The images are split into two folds; each is segmented by the network that was
    trained on the other fold. Only the scale and the splitting come from the prompt.
    """

    seed: int = 0
    steps: int = 1500
    batch: int = 8
    width: int = 16
    device: str = "cpu"
    names: tuple[str, ...] = ()
    read_query: Callable[[str], Query] | None = None
    _networks: dict[int, Any] = field(default_factory=dict)

    def for_images(
        self, names: Sequence[str], read_query: Callable[[str], Query]
    ) -> FullUNetBaseline:
        """Return the baseline for one task, given its images and how to read them."""
        return replace(self, names=tuple(names), read_query=read_query, _networks={})

    def fit(self, prompt: Prompt) -> Answer:
        """Return the segmentation function; a network is trained at its first use."""
        if self.read_query is None:
            raise ValueError(NEEDS_IMAGES)
        read_query, image = self.read_query, normalise(prompt.image, prompt.intensities)

        def answer(query: Query) -> np.ndarray:
            network = self._network(self.names.index(query.name) % 2, read_query)
            seen = unet_foreground(network, image, self.device) > 0.5
            way, _ = best_splitting(seen, prompt.mask, splitting_grid(prompt.mask))
            mask = unet_foreground(network, query.scaled, self.device)
            return split_objects(query.full_size(mask) > 0.5, way, 1 / query.scale)

        return answer

    def _network(self, fold: int, read_query: Callable[[str], Query]) -> Any:
        """Return the network trained without the images of a fold."""
        if fold not in self._networks:
            others = [n for i, n in enumerate(self.names) if i % 2 != fold]
            self._networks[fold] = train_unet(
                [_example(read_query(name)) for name in others],
                seed=self.seed,
                steps=self.steps,
                batch=self.batch,
                width=self.width,
                device=self.device,
            )
        return self._networks[fold]


def _example(query: Query) -> tuple[np.ndarray, np.ndarray]:
    """Return image and foreground at the scale of the prompt, at least 64 x 64."""
    if query.truth is None:
        raise ValueError(f"{query.name}: no labels to learn from")
    image = query.scaled
    mask = resize_labels(query.truth > 0, (image.shape[0], image.shape[1]))
    # training crops are 64 x 64: smaller images are mirrored to that size
    missing = [(0, max(0, PROMPT_SIZE - n)) for n in mask.shape]
    return np.pad(image, (*missing, (0, 0)), mode="symmetric"), np.pad(
        mask, missing, mode="symmetric"
    )


def unet_foreground(network: Any, image: np.ndarray, device: str = "cpu") -> np.ndarray:
    """Return the (Y, X) foreground probability of a (Y, X, C) normalised image."""
    import torch

    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].to(device)
    with torch.no_grad():
        logits = network(tensor)[0, 0]
    return np.asarray(logits.sigmoid().float().cpu().numpy(), np.float32)


def train_unet(
    examples: list[tuple[np.ndarray, np.ndarray]],
    *,
    seed: int = 0,
    steps: int = 300,
    batch: int = 8,
    width: int = 16,
    device: str = "cpu",
) -> Any:
    """Return a small U-Net trained on 64 x 64 crops of a few images.

    Parameters
    ----------
    examples : list of ((Y, X, C) float32 array, (Y, X) bool array)
        Normalised images of at least 64 x 64 pixels and their foreground.
    seed, steps, batch, width : int
    device : str

    Returns
    -------
    torch.nn.Module
        ``(B, C, H, W)`` to ``(B, 1, H, W)`` logits; any height and width.
    """
    import torch
    from torch.nn import functional as F

    from .small_unet import SmallUNet

    with torch.random.fork_rng(devices=[]):  # leave torch's global generator alone
        torch.manual_seed(seed)
        network = SmallUNet(examples[0][0].shape[2], width).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 3e-3, total_steps=max(steps, 2)
    )
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        chosen = rng.integers(len(examples), size=batch)
        crops, truths = zip(*(_window(examples[i], rng) for i in chosen), strict=True)
        images = torch.from_numpy(np.stack(crops)).to(device)
        masks = torch.from_numpy(np.stack(truths)).to(device)
        logits = network(images.permute(0, 3, 1, 2))[:, 0]
        # cross-entropy plus soft Dice
        overlap = (logits.sigmoid() * masks).sum()
        loss = (
            F.binary_cross_entropy_with_logits(logits, masks)
            + 1
            - 2 * overlap / (logits.sigmoid().sum() + masks.sum() + 1)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def _window(
    example: tuple[np.ndarray, np.ndarray], rng: np.random.Generator, size: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """Return a random crop: rotated, flipped, zoomed by 0.8 to 1.25 and shaded."""
    image, mask = example
    y, x = (int(rng.integers(n - size + 1)) for n in mask.shape)
    image = image[y : y + size, x : x + size]
    mask = mask[y : y + size, x : x + size]
    angle, zoom = rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 1.25)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turn = turn @ np.diag([1, rng.choice([-1, 1])]) / zoom
    # affine_transform maps output to input coordinates: turn around the middle
    middle = np.full(2, (size - 1) / 2)
    offset = middle - turn @ middle
    turned = np.stack(
        [
            ndimage.affine_transform(c, turn, offset, order=1, mode="mirror")
            for c in np.moveaxis(image, 2, 0)
        ],
        axis=-1,
    )
    turned_mask = ndimage.affine_transform(
        mask.astype(np.float32), turn, offset, order=1, mode="mirror"
    )
    gain = rng.uniform(0.8, 1.25) * (turned + rng.uniform(-0.4, 0.4))
    noise = rng.normal(0, rng.uniform(0, 0.1), turned.shape)
    return (
        np.asarray(gain + noise, np.float32),
        np.asarray(turned_mask > 0.5, np.float32),
    )
