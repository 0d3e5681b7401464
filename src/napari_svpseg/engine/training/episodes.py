"""Training episodes: draw a task, then cut prompts and a query from its images.

An episode is one training example of few-shot segmentation: prompts, a query, and the
true maps of the query. Episode number n of a seed is always the same, whatever the
number of loader workers and however often training was interrupted, because each
episode has a random generator of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TypedDict

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from ...core.image import intensity_range
from ...core.labels.instances import targets
from ...core.labels.object_size import median_diameter
from ...core.settings import Settings, option
from ...models.base import IGNORE
from .looks import own_look, painted
from .synthetic import draw_scene, smooth_noise, texture_noise

Rng = np.random.Generator
DISTRACTOR = 65_535
"""Id of the pixels of unwanted objects in `Task.distractors`."""
MAX_FOREGROUND_PIXELS = 2000
"""Foreground pixels per image among which the middle of a crop is chosen."""
PROMPT_SHARE = (0.03, 0.95)
"""Smallest and largest share of foreground in a prompt."""


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """One image of a task and its labels.

    Parameters
    ----------
    image : (H, W, 3) uint8 array
    ids : (H, W) integer array
        Ids of the objects to segment; 0 is background.
    """

    image: np.ndarray
    ids: np.ndarray

    @property
    def intensities(self) -> np.ndarray:
        """(3, 2) low and high percentile of each channel of the whole image."""
        return _intensities(self)


@lru_cache(maxsize=4096)
def _intensities(labelled: LabelledImage) -> np.ndarray:
    return intensity_range(labelled.image, 40_000)


@lru_cache(maxsize=8192)
def _foreground_pixels(labelled: LabelledImage) -> np.ndarray:
    """Return object pixels (N, 2) as (y, x), as many of small objects as of large."""
    rng = np.random.default_rng(0)
    flat = labelled.ids.ravel()
    where = np.flatnonzero(flat)
    if where.size > MAX_FOREGROUND_PIXELS:
        # 1 / area of the pixel's object; ids near `DISTRACTOR` are no single objects
        weight = 1 / np.bincount(flat)[flat[where]] if flat.max() < 60_000 else None
        if weight is not None:
            weight = weight / weight.sum()
        where = rng.choice(where, MAX_FOREGROUND_PIXELS, p=weight)
    return np.stack(np.unravel_index(where, labelled.ids.shape), axis=1)


@dataclass(frozen=True, eq=False)
class Task:
    """One kind of object (or region) to segment in one set of images.

    Parameters
    ----------
    name : str
    images : tuple of LabelledImage
    instances : bool
        Whether ids are single objects; otherwise they only mean foreground.
    diameter : float
        Typical object diameter in pixels; 0 if there are no single objects.
    distractors : tuple of LabelledImage
        Those of the images that also show another, unwanted kind of object, whose
        pixels have the id `DISTRACTOR`. Empty where no other kind is labelled.
    """

    name: str
    images: tuple[LabelledImage, ...]
    instances: bool
    diameter: float = 0.0
    distractors: tuple[LabelledImage, ...] = ()


def make_task(
    name: str, images: list[np.ndarray], ids: list[np.ndarray], *, instances: bool
) -> Task | None:
    """Return a task of the images that show an object, or None if none does.

    Parameters
    ----------
    name : str
    images : list of (H, W, 3) uint8 arrays
    ids : list of (H, W) integer arrays
    instances : bool
        Whether ids are single objects.
    """
    labelled = tuple(
        LabelledImage(image, label)
        for image, label in zip(images, ids, strict=True)
        if label.any()
    )
    if not labelled:
        return None
    diameter = 0.0
    if instances:
        diameter = float(np.median([median_diameter(x.ids) for x in labelled]))
    return Task(name, labelled, instances, diameter)


TaskSource = Callable[[Rng], Task]
"""Returns a task drawn with the given generator."""


class TaskList:
    """Draws from groups of tasks; every group is equally frequent.

    Parameters
    ----------
    groups : list of list of Task
        For example one group for each data set, so that large sets do not dominate.
    """

    def __init__(self, groups: list[list[Task]]) -> None:
        self.groups = [group for group in groups if group]

    def __call__(self, rng: Rng) -> Task:
        """Return a random task of a random group."""
        group = self.groups[rng.integers(len(self.groups))]
        return group[rng.integers(len(group))]


class SyntheticTasks:
    """Draws tasks from synthetic scenes.

    Parameters
    ----------
    n_scenes : int
        Number of different scenes. They stay in memory (0.7 MB each), because drawing a
        scene takes longer than cutting an episode from it.
    seed : int
    touching : float
        Share of scenes whose objects touch, 0 to 1.
    textured : float
        Share of scenes whose textures are cut from ``images``, 0 to 1.
    images : sequence of (H, W, 3) uint8 arrays
        For example unlabelled ones; without any, no scene is textured by them.
    """

    def __init__(
        self,
        n_scenes: int,
        seed: int = 0,
        *,
        touching: float = 0.0,
        textured: float = 0.0,
        images: Sequence[np.ndarray] = (),
    ) -> None:
        self.n_scenes, self.seed = n_scenes, seed
        self.touching, self.textured = touching, textured if images else 0.0
        self._texture_noise = texture_noise(images)
        self._scene = lru_cache(maxsize=n_scenes)(self._draw)

    def _draw(self, number: int) -> list[Task]:
        """Return a task for each kind of object of a scene."""
        rng = np.random.default_rng([self.seed, 79, number])
        touching, textured = rng.random(2) < (self.touching, self.textured)
        scene = draw_scene(
            self.seed * 1_000_003 + number,
            touching=bool(touching),
            noise=self._texture_noise if textured else smooth_noise,
        )
        drawn = []
        for kind, (ids, instances) in enumerate(
            zip(scene.kinds, scene.instances, strict=True)
        ):
            name = f"synthetic-{number}"
            task = make_task(name, scene.images, ids, instances=instances)
            if task is not None:
                others = [k for i, k in enumerate(scene.kinds) if i != kind]
                distractors = _with_distractors(scene.images, ids, others)
                drawn.append(replace(task, distractors=distractors))
        return drawn

    def __call__(self, rng: Rng) -> Task:
        """Return a random kind of object of a random scene."""
        while True:
            found = self._scene(int(rng.integers(self.n_scenes)))
            if found:
                return found[rng.integers(len(found))]


def _with_distractors(
    images: list[np.ndarray], ids: list[np.ndarray], kinds: list[list[np.ndarray]]
) -> tuple[LabelledImage, ...]:
    """Return the images that show both kinds, see `Task.distractors`.

    Parameters
    ----------
    images : list of (H, W, 3) uint8 arrays
    ids : list of (H, W) integer arrays
        Of the wanted kind.
    kinds : list of list of (H, W) integer arrays
        Of each other kind.
    """
    found = []
    for i, (image, wanted) in enumerate(zip(images, ids, strict=True)):
        other = np.any([kind[i] > 0 for kind in kinds], axis=0) & (wanted == 0)
        if wanted.any() and np.any(other):
            found.append(LabelledImage(image, np.where(other, DISTRACTOR, wanted)))
    return tuple(found)


@dataclass(frozen=True)
class EpisodeSettings(Settings):
    """How episodes are cut and augmented."""

    query: int = option(128, "Side of the query", low=32, high=1024, unit="pixel")
    largest_query: int = option(
        0,
        "Largest side of the query, in steps of 16; 0 means that none is larger",
        low=0,
        high=1024,
        unit="pixel",
    )
    prompt: int = option(64, "Side of a prompt", low=16, high=256, unit="pixel")
    max_prompts: int = option(3, "Most prompts of an episode", low=1, high=8)
    border_tasks: float = option(
        0.12, "Share of episodes that segment the borders of objects", low=0, high=1
    )
    role_swap: float = option(
        0.08, "Share of episodes that segment the background", low=0, high=1
    )
    empty: float = option(
        0.1, "Share of queries cut at random places, mostly empty ones", low=0, high=1
    )
    negative: float = option(
        0.1, "Share of episodes with a negative prompt among several", low=0, high=1
    )
    distractors: float = option(
        0.0,
        "Share of episodes in which only a negative prompt distinguishes two kinds",
        low=0,
        high=1,
    )
    own_looks: float = option(
        0.0,
        "Share of episodes whose crops each have a stain and light of their own",
        low=0,
        high=1,
    )
    painted: float = option(
        0.0, "Share of prompts with a mask as a person paints it", low=0, high=1
    )
    other_scale: float = option(
        0.0, "Share of queries up to twice as large or as small", low=0, high=1
    )
    several: float = option(
        0.4, "Share of batches with a random number of prompts", low=0, high=1
    )
    smallest: float = option(
        8.0,
        "Smallest diameter that objects are scaled to",
        low=2,
        high=1024,
        unit="pixel",
    )
    largest: float = option(
        44.0,
        "Largest diameter that objects are scaled to",
        low=4,
        high=1024,
        unit="pixel",
    )


@dataclass(frozen=True, eq=False)
class IntensityAugmentation:
    """A change of channels and intensities that prompts and query share.

    It makes an episode look like another stain or microscope. As all crops of the
    episode share it, the prompt still shows what the query's objects look like.

    Parameters
    ----------
    order : tuple of int
        Permutation of the channels.
    grey : (3,) float32 array or None
        Weights of the channels in a grey image; None keeps the colours.
    invert : bool
        Whether bright becomes dark.
    gamma : float
    """

    order: tuple[int, ...]
    grey: np.ndarray | None
    invert: bool
    gamma: float

    @classmethod
    def draw(cls, rng: Rng) -> IntensityAugmentation:
        """Return a random augmentation; most parts of it are off."""
        grey = (
            rng.dirichlet([1, 1, 1]).astype(np.float32) if rng.random() < 0.3 else None
        )
        order = tuple(rng.permutation(3)) if rng.random() < 0.3 else (0, 1, 2)
        gamma = float(np.exp(rng.normal(0, 0.25)))
        return cls(order, grey, bool(rng.random() < 0.3), gamma)

    def __call__(self, crop: np.ndarray) -> np.ndarray:
        """Return the augmented ``crop`` (3, h, w), whose values are about 0 to 1."""
        crop = crop[list(self.order)]
        if self.grey is not None:
            crop = np.repeat(np.tensordot(self.grey, crop, 1)[None], 3, axis=0)
        if self.invert:
            crop = 1 - crop
        # values beyond the percentiles may be negative, and a power of them undefined
        return np.asarray(np.sign(crop) * np.abs(crop) ** self.gamma)


class Episodes(Dataset[dict[str, Tensor]]):
    """Data set of batches of episodes.

    Parameters
    ----------
    sources : list of (TaskSource, float)
        Sources of tasks and the relative frequency of each.
    settings : EpisodeSettings
    batch : int
        Episodes per batch.
    n_batches : int
    seed : int
    start : int
        Number of the first batch: a resumed training continues where it was.
    """

    def __init__(
        self,
        sources: list[tuple[TaskSource, float]],
        settings: EpisodeSettings,
        *,
        batch: int,
        n_batches: int,
        seed: int = 0,
        start: int = 0,
    ) -> None:
        self.sources = [s for s, _ in sources]
        weights = np.array([w for _, w in sources], float)
        self.weights = weights / weights.sum()
        self.settings, self.batch, self.seed = settings, batch, seed
        self.n_batches, self.start = n_batches, start

    def __len__(self) -> int:
        return self.n_batches - self.start

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return batch number ``start + index``; see `cut_episode` for its tensors."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = self.start + index
        # seeded by the batch's number, so that no worker depends on what others drew
        rng = np.random.default_rng([self.seed, 11, number])
        n_prompts = 1  # the same for all episodes of a batch, which are stacked
        if rng.random() < self.settings.several:
            n_prompts = int(rng.integers(1, self.settings.max_prompts + 1))
        settings = self.settings
        if settings.largest_query > settings.query:
            steps = int(
                rng.integers((settings.largest_query - settings.query) // 16 + 1)
            )
            settings = replace(settings, query=settings.query + 16 * steps)
        episodes = []
        for i in range(self.batch):
            rng = np.random.default_rng([self.seed, 13, number, i])
            for _ in range(20):
                source = self.sources[rng.choice(len(self.sources), p=self.weights)]
                episode = cut_episode(source(rng), n_prompts, settings, rng)
                if episode is not None:
                    break
            else:
                raise ValueError(
                    "20 tasks in a row gave no prompt with an object: check the data"
                )
            episodes.append(episode)
        return {k: torch.stack([e[k] for e in episodes]) for k in episodes[0]}


def cut_episode(
    task: Task, n_prompts: int, settings: EpisodeSettings, rng: Rng
) -> dict[str, Tensor] | None:
    """Return one episode of a task, or None if no prompt shows enough of the object.

    Parameters
    ----------
    task : Task
    n_prompts : int
    settings : EpisodeSettings
    rng : numpy Generator

    Returns
    -------
    dict of tensors
        ``prompts`` (K, 3, p, p) float32, ``masks`` (K, p, p) int64, ``query``
        (3, q, q) float32 and the query's ``foreground``, ``distance``, ``boundary``,
        ``known`` and ``instances``, each (1, q, q) float32 (see
        `core.labels.instances.targets` and `models.losses.maps_loss`).
    """
    if n_prompts > 1 and task.distractors and rng.random() < settings.distractors:
        return _distractor_episode(task, n_prompts, settings, rng)
    # Some episodes ask for the borders or for the background. Otherwise the network
    # could learn to find objects without regard to the prompt's mask.
    role = rng.random()
    border = task.instances and role < settings.border_tasks
    swap = not border and role > 1 - settings.role_swap
    instances = task.instances and not border and not swap
    recolour = _recolour(settings, rng)
    zoom = _zoom(task, settings, rng)
    band = rng.uniform(1.0, 2.2)  # half the width of borders, in pixels

    def target(ids: np.ndarray) -> np.ndarray:
        if border:
            return _borders(ids, band)
        return (ids == 0).astype(ids.dtype) if swap else ids

    first = int(rng.integers(len(task.images)))
    prompts, masks = [], []
    for k in range(n_prompts):
        labelled = task.images[
            first if k == 0 or rng.random() < 0.5 else rng.integers(len(task.images))
        ]
        for _ in range(8):
            # the first prompt is often cut upright, as a user's box is
            crop, ids = cut(
                labelled,
                _centre(labelled, rng, 0.35 * settings.prompt / zoom),
                settings.prompt,
                zoom,
                rng,
                turn=k > 0 or rng.random() < 0.5,
            )
            mask = target(ids)
            share = float((mask > 0).mean())
            if PROMPT_SHARE[0] <= share <= PROMPT_SHARE[1]:
                break
        else:
            return None
        if settings.painted and rng.random() < settings.painted:
            mask = painted(mask, rng, instances=instances)
        prompts.append(disturb(recolour(crop), rng, 0.5))
        masks.append(mask.astype(np.int64))
    if n_prompts > 1 and rng.random() < settings.negative:
        found = _empty_crop(task, settings, zoom, rng, target)
        if found is not None:
            prompts[-1], masks[-1] = disturb(recolour(found), rng, 0.5), 0 * masks[-1]

    same = rng.random() < 0.5
    labelled = task.images[first if same else rng.integers(len(task.images))]
    crop, ids = _cut_query(labelled, settings, zoom, rng)
    strength = 1.0 if rng.random() < 0.5 else 0.5
    query = disturb(recolour(crop), rng, strength)
    return _as_tensors(prompts, masks, query, target(ids), instances)


def _recolour(
    settings: EpisodeSettings, rng: Rng
) -> Callable[[np.ndarray], np.ndarray]:
    """Return what changes the intensities of an episode's crops.

    All share an `IntensityAugmentation`; in some episodes each gets a look of its own.
    """
    shared = IntensityAugmentation.draw(rng)
    if not settings.own_looks or rng.random() >= settings.own_looks:
        return shared
    return lambda crop: own_look(shared(crop), rng)


def _cut_query(
    labelled: LabelledImage, settings: EpisodeSettings, zoom: float, rng: Rng
) -> tuple[np.ndarray, np.ndarray]:
    """Return the crop and ids of a query, mostly around an object."""
    away = rng.random() < settings.empty
    centre = (
        rng.uniform([0, 0], labelled.ids.shape)
        if away
        else _centre(labelled, rng, 0.45 * settings.query / zoom)
    )
    # objects of the query may be a little larger or smaller than those of the prompts
    shift = float(np.exp(rng.normal(0, 0.12)))
    if settings.other_scale and rng.random() < settings.other_scale:
        shift = float(2 ** rng.uniform(-1, 1))
    return cut(labelled, centre, settings.query, zoom * shift, rng, turn=True)


def _as_tensors(
    prompts: list[np.ndarray],
    masks: list[np.ndarray],
    query: np.ndarray,
    truth: np.ndarray,
    instances: bool,
) -> dict[str, Tensor]:
    """Return an episode as tensors, see `cut_episode`.

    Parameters
    ----------
    prompts : list of (3, p, p) float32 arrays
    masks : list of (p, p) int64 arrays
    query : (3, q, q) float32 array
    truth : (q, q) int array
        Object ids of the query.
    instances : bool
        Whether ids are single objects.
    """
    foreground, distance, boundary = targets(truth)
    full = np.ones_like(foreground)
    maps = {
        "foreground": foreground,
        "distance": distance,
        "boundary": boundary,
        "known": full,
        "instances": full * float(instances),
    }
    episode = {
        k: torch.from_numpy(np.asarray(v, np.float32)[None]) for k, v in maps.items()
    }
    episode["query"] = torch.from_numpy(query)
    episode["prompts"] = torch.from_numpy(np.stack(prompts))
    episode["masks"] = torch.from_numpy(np.stack(masks))
    return episode


def _distractor_episode(
    task: Task, n_prompts: int, settings: EpisodeSettings, rng: Rng
) -> dict[str, Tensor] | None:
    """Return an episode in which only the last, negative prompt excludes distractors.

    In the other prompts distractors are unknown, so that they do not give the answer
    away. The last prompt shows distractors as background, and the wanted objects are
    unknown in it.
    """
    recolour, zoom = _recolour(settings, rng), _zoom(task, settings, rng)
    prompts, masks = [], []
    for k in range(n_prompts):
        negative = k == n_prompts - 1
        for _ in range(8):
            labelled = task.distractors[rng.integers(len(task.distractors))]
            shown = (labelled.ids == DISTRACTOR) if negative else _wanted(labelled.ids)
            centre = _centre_of(shown, rng)
            crop, ids = cut(labelled, centre, settings.prompt, zoom, rng, turn=True)
            wanted, other = _wanted(ids), ids == DISTRACTOR
            if float((other if negative else wanted).mean()) >= PROMPT_SHARE[0]:
                break
        else:
            return None
        mask = np.where(other, IGNORE, ids)
        if negative:
            mask = np.where(wanted, IGNORE, 0)
        prompts.append(disturb(recolour(crop), rng, 0.5))
        masks.append(mask.astype(np.int64))
    labelled = task.distractors[rng.integers(len(task.distractors))]
    centre = _centre_of(labelled.ids > 0, rng)
    crop, ids = cut(labelled, centre, settings.query, zoom, rng, turn=True)
    truth = np.where(ids == DISTRACTOR, 0, ids)
    query = disturb(recolour(crop), rng, 0.5)
    return _as_tensors(prompts, masks, query, truth, task.instances)


def _wanted(ids: np.ndarray) -> np.ndarray:
    """Return where ids are those of wanted objects."""
    return (ids > 0) & (ids != DISTRACTOR)


def _centre_of(mask: np.ndarray, rng: Rng) -> np.ndarray:
    """Return a random pixel (y, x) of a mask."""
    where = np.flatnonzero(mask)
    return np.array(np.unravel_index(where[rng.integers(len(where))], mask.shape))


def _zoom(task: Task, settings: EpisodeSettings, rng: Rng) -> float:
    """Return network pixels per image pixel, at random.

    Objects get a random diameter; without single objects the zoom itself is random.
    """
    if task.diameter:
        low, high = np.log(settings.smallest), np.log(settings.largest)
        wanted = float(np.exp(rng.uniform(low, high)))
        if rng.random() < 0.6:  # mostly near the original size: labels are sharp there
            wanted = task.diameter * float(np.exp(rng.normal(0, 0.35)))
        zoom = wanted / task.diameter
    else:
        zoom = float(np.exp(rng.uniform(np.log(0.4), np.log(1.5))))
    # a prompt covers little more than the whole image: beyond it is only reflection
    least = settings.prompt / min(task.images[0].ids.shape)
    return float(np.clip(zoom, max(0.2, 0.6 * least), 4.0))


def _centre(labelled: LabelledImage, rng: Rng, jitter: float) -> np.ndarray:
    """Return a point (y, x) within ``jitter`` pixels of a random object pixel."""
    pixels = _foreground_pixels(labelled)
    return pixels[rng.integers(len(pixels))] + rng.uniform(-jitter, jitter, 2)


def _empty_crop(
    task: Task,
    settings: EpisodeSettings,
    zoom: float,
    rng: Rng,
    target: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray | None:
    """Return a crop without anything to segment, or None if none was found."""
    for _ in range(6):
        labelled = task.images[rng.integers(len(task.images))]
        centre = rng.uniform([0, 0], labelled.ids.shape)
        crop, ids = cut(labelled, centre, settings.prompt, zoom, rng, turn=True)
        if not target(ids).any():
            return crop
    return None


def cut(
    labelled: LabelledImage,
    centre: np.ndarray,
    size: int,
    zoom: float,
    rng: Rng,
    *,
    turn: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Return a rotated, mirrored and zoomed crop of an image and its labels.

    Parameters
    ----------
    labelled : LabelledImage
    centre : (2,) array
        Middle of the crop (y, x); moved inwards where the crop would lie outside.
    size : int
        Side of the crop, in network pixels.
    zoom : float
        Network pixels per image pixel.
    rng : numpy Generator
    turn : bool
        Whether to rotate by any angle and to stretch a little; otherwise the crop is
        rotated by multiples of 90 degrees only.

    Returns
    -------
    crop : (3, size, size) float32 array
        Intensities, 0 at the image's low and 1 at its high percentile.
    ids : (size, size) int32 array
    """
    angle = float(rng.integers(4) * np.pi / 2)
    if turn and rng.random() < 0.6:
        angle = rng.uniform(0, 2 * np.pi)
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    stretch = float(np.exp(rng.normal(0, 0.06))) if turn else 1.0
    rotation = np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    matrix = rotation @ np.diag([stretch * mirror, 1 / stretch]) / zoom
    # Read only the part of the image that the crop can reach: half the diagonal of the
    # square is 0.71 of its side.
    reach = int(np.ceil(size * 0.75 * max(stretch, 1 / stretch) / zoom)) + 4
    height, width = labelled.ids.shape
    margin = min(size / zoom, height, width) / 2
    y = float(np.clip(centre[0], margin, height - margin))
    x = float(np.clip(centre[1], margin, width - margin))
    y0, x0 = max(int(y) - reach, 0), max(int(x) - reach, 0)
    y1, x1 = min(int(y) + reach, height), min(int(x) + reach, width)
    part = labelled.image[y0:y1, x0:x1]
    ids = labelled.ids[y0:y1, x0:x1].astype(np.float32)
    # image coordinates of each pixel of the crop, then as -1 to 1 for grid_sample
    offsets = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    oy, ox = torch.meshgrid(offsets, offsets, indexing="ij")
    gy = matrix[0, 0] * oy + matrix[0, 1] * ox + (y - y0)
    gx = matrix[1, 0] * oy + matrix[1, 1] * ox + (x - x0)
    grid = torch.stack(
        [(2 * gx + 1) / part.shape[1] - 1, (2 * gy + 1) / part.shape[0] - 1], dim=-1
    )[None]
    image = torch.from_numpy(part.astype(np.float32)).permute(2, 0, 1)[None]
    labels = torch.from_numpy(ids)[None, None]
    if zoom < 0.7:  # average before sampling sparsely, against aliasing
        step = max(1, round(1 / zoom))
        image = F.avg_pool2d(
            F.pad(image, (step // 2, (step - 1) // 2) * 2, mode="replicate"), step, 1
        )
    crop = _sampled(image, grid, "bilinear")[0].numpy()
    cut_ids = _sampled(labels, grid, "nearest")[0, 0].numpy()
    low, high = labelled.intensities.T.astype(np.float32)
    span = np.maximum(high - low, 1)
    crop = np.clip((crop - low[:, None, None]) / span[:, None, None], -0.2, 1.2)
    return crop, np.rint(cut_ids).astype(np.int32)


def _sampled(image: Tensor, grid: Tensor, mode: str) -> Tensor:
    """Return an image (1, C, H, W) sampled at a grid; it is mirrored at its border."""
    return F.grid_sample(
        image, grid, mode=mode, padding_mode="reflection", align_corners=False
    )


def disturb(crop: np.ndarray, rng: Rng, strength: float) -> np.ndarray:
    """Return a crop with random contrast, shading, blur and noise, standardised.

    Unlike `IntensityAugmentation`, each crop of an episode gets its own.

    Parameters
    ----------
    crop : (3, h, w) float array
        Values about 0 to 1.
    rng : numpy Generator
    strength : float
        Scales size and probability of the changes; about 0.4 to 1.

    Returns
    -------
    (3, h, w) float32 array
        In the units of `core.image.normalise`.
    """
    if rng.random() < 0.7:
        contrast = np.exp(rng.normal(0, 0.15 * strength))
        crop = (crop - 0.5) * contrast + 0.5 + rng.normal(0, 0.05 * strength)
    if rng.random() < 0.25 * strength:  # uneven illumination: a linear ramp
        size = crop.shape[-1]
        ramp = np.linspace(-1, 1, size, dtype=np.float32)
        slope = rng.normal(0, 0.12, 2)
        crop = crop + slope[0] * ramp[:, None] + slope[1] * ramp[None]
    if rng.random() < 0.3 * strength:
        sigma = rng.uniform(0.3, 1.2)
        crop = ndimage.gaussian_filter(crop, (0, sigma, sigma), truncate=2.5)
    if rng.random() < 0.5 * strength:
        # noise of a grey image is the same in all three channels
        grey = rng.random() < 0.5 or np.ptp(crop, axis=0).max() == 0
        shape = (1, *crop.shape[1:]) if grey else crop.shape
        noise = rng.standard_normal(shape, dtype=np.float32)
        crop = crop + rng.uniform(0, 0.09) * strength * noise
    return np.asarray((np.clip(crop, -0.2, 1.2) - 0.5) / 0.25, np.float32)


def _borders(ids: np.ndarray, band: float) -> np.ndarray:
    """Return 1 within ``band`` pixels of the outlines of objects, else 0.

    An outline is where two pixels side by side have different ids.
    """
    change = np.zeros(ids.shape, bool)
    down, right = ids[1:] != ids[:-1], ids[:, 1:] != ids[:, :-1]
    change[1:] |= down
    change[:-1] |= down
    change[:, 1:] |= right
    change[:, :-1] |= right
    near = ndimage.distance_transform_edt(~change) <= band - 0.5
    return near.astype(ids.dtype)


class PackedTask(TypedDict):
    """Entry of a task in `PackedTasks.index`; ``images`` are pairs of array names."""

    group: str
    name: str
    instances: bool
    images: list[list[str]]


@dataclass
class PackedTasks:
    """Tasks as plain arrays and names, to be saved in one file (`io.packed_tasks`).

    Attributes
    ----------
    arrays : dict
        ``image-NAME`` (H, W, 3) uint8 and ``ids-TASK-NAME`` (H, W) uint16 arrays. An
        image that several tasks share is stored once.
    index : list of PackedTask
    """

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    index: list[PackedTask] = field(default_factory=list)

    def add(
        self,
        group: str,
        name: str,
        images: list[tuple[str, np.ndarray, np.ndarray]],
        *,
        instances: bool,
    ) -> None:
        """Add a task.

        Parameters
        ----------
        group, name : str
        images : list of (str, (H, W, 3) uint8 array, (H, W) integer array)
            Name, image and ids.
        instances : bool
            Whether ids are single objects.
        """
        pairs = []
        for image_name, image, ids in images:
            self.arrays.setdefault(f"image-{image_name}", image)
            key = f"ids-{len(self.index)}-{image_name}"
            self.arrays[key] = ids.astype(np.uint16)
            pairs.append([f"image-{image_name}", key])
        self.index.append(
            {"group": group, "name": name, "instances": instances, "images": pairs}
        )

    def tasks(self, groups: set[str] | None = None) -> list[list[Task]]:
        """Return the tasks of each group, or of the given ``groups`` only."""
        found: dict[str, list[Task]] = {}
        for entry in self.index:
            if groups is not None and entry["group"] not in groups:
                continue
            task = make_task(
                entry["name"],
                [self.arrays[image] for image, _ in entry["images"]],
                [self.arrays[ids] for _, ids in entry["images"]],
                instances=entry["instances"],
            )
            if task is not None:
                found.setdefault(entry["group"], []).append(task)
        return list(found.values())
