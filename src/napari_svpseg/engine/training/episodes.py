"""Episodes: a task is drawn, then prompts and a query are cut from its pictures.

Episode number n of a seed is always the same, whatever the number of loader workers and
however often training was interrupted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache

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
from .synthetic import draw_scene

Rng = np.random.Generator
OTHER = 65_535
"""Id of the pixels of objects that are not wanted, in `Task.baselines`."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One image of a task and its labels.

    Parameters
    ----------
    image : (H, W, 3) uint8 array
    ids : (H, W) integer array
        Object ids of the task's kind; 0 is background.
    """

    image: np.ndarray
    ids: np.ndarray

    @property
    def intensities(self) -> np.ndarray:
        """(3, 2) percentiles of the whole image."""
        return _intensities(self)


@lru_cache(maxsize=4096)
def _intensities(picture: Picture) -> np.ndarray:
    return intensity_range(picture.image, 40_000)


@lru_cache(maxsize=8192)
def _foreground_pixels(picture: Picture) -> np.ndarray:
    """Return up to 2000 pixels (y, x) of objects, all objects counting alike."""
    rng = np.random.default_rng(0)
    flat = picture.ids.ravel()
    where = np.flatnonzero(flat)
    if where.size > 2000:
        weight = 1 / np.bincount(flat)[flat[where]] if flat.max() < 60_000 else None
        if weight is not None:
            weight = weight / weight.sum()
        where = rng.choice(where, 2000, p=weight)
    return np.stack(np.unravel_index(where, picture.ids.shape), axis=1)


@dataclass(frozen=True, eq=False)
class Task:
    """One thing to segment in one set of pictures.

    Parameters
    ----------
    name : str
    pictures : tuple of Picture
    instances : bool
        Whether ids are single objects; else they only tell foreground.
    diameter : float
        Typical object diameter in pixels; 0 where it has no meaning.
    baselines : tuple of Picture
        The same pictures with `OTHER` where they show another kind of object, where
        that is known; none otherwise.
    """

    name: str
    pictures: tuple[Picture, ...]
    instances: bool
    diameter: float = 0.0
    baselines: tuple[Picture, ...] = ()


def make_task(
    name: str, images: list[np.ndarray], ids: list[np.ndarray], *, instances: bool
) -> Task | None:
    """Return a task of the pictures that show an object, or None if none does."""
    pictures = tuple(
        Picture(image, label)
        for image, label in zip(images, ids, strict=True)
        if label.any()
    )
    if not pictures:
        return None
    diameter = 0.0
    if instances:
        diameter = float(np.median([median_diameter(p.ids) for p in pictures]))
    return Task(name, pictures, instances, diameter)


TaskSource = Callable[[Rng], Task]
"""Draws a task with the generator it is given."""


class TaskList:
    """Draws one of a list of tasks, grouped so that every group counts alike.

    Parameters
    ----------
    groups : list of list of Task
        For example one group for each data set.
    """

    def __init__(self, groups: list[list[Task]]) -> None:
        self.groups = [group for group in groups if group]

    def __call__(self, rng: Rng) -> Task:
        """Return a task."""
        group = self.groups[rng.integers(len(self.groups))]
        return group[rng.integers(len(group))]


class SyntheticTasks:
    """Draws tasks from ``n_scenes`` drawn scenes.

    They stay in memory (0.7 MB each), as drawing takes longer than cutting.
    """

    def __init__(self, n_scenes: int, seed: int = 0) -> None:
        self.n_scenes, self.seed = n_scenes, seed
        self._scene = lru_cache(maxsize=n_scenes)(self._draw)

    def _draw(self, number: int) -> list[Task]:
        scene = draw_scene(self.seed * 1_000_003 + number)
        drawn = []
        for kind, (ids, instances) in enumerate(
            zip(scene.kinds, scene.instances, strict=True)
        ):
            name = f"synthetic-{number}"
            task = make_task(name, scene.images, ids, instances=instances)
            if task is not None:
                others = [k for i, k in enumerate(scene.kinds) if i != kind]
                baselines = _baselines(scene.images, ids, others)
                drawn.append(replace(task, baselines=baselines))
        return drawn

    def __call__(self, rng: Rng) -> Task:
        """Return one kind of object of one scene."""
        while True:
            found = self._scene(int(rng.integers(self.n_scenes)))
            if found:
                return found[rng.integers(len(found))]


def _baselines(
    images: list[np.ndarray], ids: list[np.ndarray], kinds: list[list[np.ndarray]]
) -> tuple[Picture, ...]:
    """Return the pictures that show both the wanted and another kind."""
    found = []
    for i, (image, wanted) in enumerate(zip(images, ids, strict=True)):
        other = np.any([kind[i] > 0 for kind in kinds], axis=0) & (wanted == 0)
        if wanted.any() and np.any(other):
            found.append(Picture(image, np.where(other, OTHER, wanted)))
    return tuple(found)


@dataclass(frozen=True)
class EpisodeSettings(Settings):
    """How episodes are cut and disturbed."""

    query: int = option(128, "Side of the query", low=32, high=1024, unit="pixel")
    prompt: int = option(64, "Side of a prompt", low=16, high=256, unit="pixel")
    max_prompts: int = option(3, "Most prompts of an episode", low=1, high=8)
    border_tasks: float = option(0.12, "Share of border-of-object tasks", low=0, high=1)
    role_swap: float = option(0.08, "Share with roles swapped", low=0, high=1)
    empty: float = option(0.1, "Share of queries cut away from objects", low=0, high=1)
    negative: float = option(0.1, "Share with a negative prompt added", low=0, high=1)
    baselines: float = option(
        0.0, "Share where only a negative prompt tells two kinds apart", low=0, high=1
    )
    smallest: float = option(8.0, "Smallest object drawn", low=2, unit="pixel")
    largest: float = option(44.0, "Largest object drawn", low=4, unit="pixel")


@dataclass(frozen=True, eq=False)
class Look:
    """A change of intensities that prompt and query share."""

    order: tuple[int, ...]
    grey: np.ndarray | None
    invert: bool
    gamma: float

    @classmethod
    def draw(cls, rng: Rng) -> Look:
        """Return a random look."""
        grey = (
            rng.dirichlet([1, 1, 1]).astype(np.float32) if rng.random() < 0.3 else None
        )
        order = tuple(rng.permutation(3)) if rng.random() < 0.3 else (0, 1, 2)
        gamma = float(np.exp(rng.normal(0, 0.25)))
        return cls(order, grey, bool(rng.random() < 0.3), gamma)

    def __call__(self, crop: np.ndarray) -> np.ndarray:
        """Return ``crop`` (3, h, w), values about 0 to 1, with this look."""
        crop = crop[list(self.order)]
        if self.grey is not None:
            crop = np.repeat(np.tensordot(self.grey, crop, 1)[None], 3, axis=0)
        if self.invert:
            crop = 1 - crop
        return np.asarray(np.sign(crop) * np.abs(crop) ** self.gamma)


class Episodes(Dataset[dict[str, Tensor]]):
    """Batches of episodes, by number.

    Parameters
    ----------
    sources : list of (TaskSource, float)
        Where tasks come from, and how often each is asked.
    settings : EpisodeSettings
    batch, n_batches, seed : int
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
        rng = np.random.default_rng([self.seed, 11, number])
        n_prompts = 1
        if rng.random() < 0.4:
            n_prompts = int(rng.integers(1, self.settings.max_prompts + 1))
        episodes = []
        for i in range(self.batch):
            rng = np.random.default_rng([self.seed, 13, number, i])
            for _ in range(20):
                source = self.sources[rng.choice(len(self.sources), p=self.weights)]
                episode = cut_episode(source(rng), n_prompts, self.settings, rng)
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
    """Return one episode of a task, or None where no legal prompt was found.

    Returns
    -------
    dict of tensors
        ``prompts`` (K, 3, p, p) float32, ``masks`` (K, p, p) int64, ``query``
        (3, q, q) float32 and the query's ``foreground``, ``distance``, ``boundary``,
        ``known`` and ``instances``, each (1, q, q) float32.
    """
    if n_prompts > 1 and task.baselines and rng.random() < settings.baselines:
        return _baselines_episode(task, n_prompts, settings, rng)
    role = rng.random()
    border = task.instances and role < settings.border_tasks
    swap = not border and role > 1 - settings.role_swap
    instances = task.instances and not border and not swap
    look = Look.draw(rng)
    zoom = _zoom(task, settings, rng)
    band = rng.uniform(1.0, 2.2)

    def target(ids: np.ndarray) -> np.ndarray:
        if border:
            return _borders(ids, band)
        return (ids == 0).astype(ids.dtype) if swap else ids

    first = int(rng.integers(len(task.pictures)))
    prompts, masks = [], []
    for k in range(n_prompts):
        picture = task.pictures[
            first if k == 0 or rng.random() < 0.5 else rng.integers(len(task.pictures))
        ]
        for _ in range(8):
            crop, ids = cut(
                picture,
                _centre(picture, rng, 0.35 * settings.prompt / zoom),
                settings.prompt,
                zoom,
                rng,
                turn=k > 0 or rng.random() < 0.5,
            )
            mask = target(ids)
            share = float((mask > 0).mean())
            if 0.03 <= share <= 0.95:
                break
        else:
            return None
        prompts.append(disturb(look(crop), rng, 0.5))
        masks.append(mask.astype(np.int64))
    if n_prompts > 1 and rng.random() < settings.negative:
        found = _empty_crop(task, settings, zoom, rng, target)
        if found is not None:
            prompts[-1], masks[-1] = disturb(look(found), rng, 0.5), 0 * masks[-1]

    same = rng.random() < 0.5
    picture = task.pictures[first if same else rng.integers(len(task.pictures))]
    away = rng.random() < settings.empty
    height, width = picture.ids.shape
    centre = (
        rng.uniform([0, 0], [height, width])
        if away
        else _centre(picture, rng, 0.45 * settings.query / zoom)
    )
    shift = float(np.exp(rng.normal(0, 0.12)))
    crop, ids = cut(picture, centre, settings.query, zoom * shift, rng, turn=True)
    strong = 1.0 if rng.random() < 0.5 else 0.5
    query = disturb(look(crop), rng, strong)
    return _as_tensors(prompts, masks, query, target(ids), instances)


def _as_tensors(
    prompts: list[np.ndarray],
    masks: list[np.ndarray],
    query: np.ndarray,
    truth: np.ndarray,
    instances: bool,
) -> dict[str, Tensor]:
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


def _baselines_episode(
    task: Task, n_prompts: int, settings: EpisodeSettings, rng: Rng
) -> dict[str, Tensor] | None:
    """Return an episode in which only the last prompt tells what is not wanted.

    The other kind of object is unknown in the prompts that show the wanted one, and
    background in the last, which shows nothing else.
    """
    look, zoom = Look.draw(rng), _zoom(task, settings, rng)
    prompts, masks = [], []
    for k in range(n_prompts):
        negative = k == n_prompts - 1
        for _ in range(8):
            picture = task.baselines[rng.integers(len(task.baselines))]
            shown = (picture.ids == OTHER) if negative else _wanted(picture.ids)
            centre = _centre_of(shown, rng)
            crop, ids = cut(picture, centre, settings.prompt, zoom, rng, turn=True)
            wanted, other = _wanted(ids), ids == OTHER
            if float((other if negative else wanted).mean()) >= 0.03:
                break
        else:
            return None
        mask = np.where(other, IGNORE, ids)
        if negative:
            mask = np.where(wanted, IGNORE, 0)
        prompts.append(disturb(look(crop), rng, 0.5))
        masks.append(mask.astype(np.int64))
    picture = task.baselines[rng.integers(len(task.baselines))]
    centre = _centre_of(picture.ids > 0, rng)
    crop, ids = cut(picture, centre, settings.query, zoom, rng, turn=True)
    truth = np.where(ids == OTHER, 0, ids)
    query = disturb(look(crop), rng, 0.5)
    return _as_tensors(prompts, masks, query, truth, task.instances)


def _wanted(ids: np.ndarray) -> np.ndarray:
    return (ids > 0) & (ids != OTHER)


def _centre_of(mask: np.ndarray, rng: Rng) -> np.ndarray:
    where = np.flatnonzero(mask)
    return np.array(np.unravel_index(where[rng.integers(len(where))], mask.shape))


def _zoom(task: Task, settings: EpisodeSettings, rng: Rng) -> float:
    """Return network pixels per source pixel."""
    if task.diameter:
        low, high = np.log(settings.smallest), np.log(settings.largest)
        wanted = float(np.exp(rng.uniform(low, high)))
        if rng.random() < 0.6:  # mostly near its own size, where labels are sharp
            wanted = task.diameter * float(np.exp(rng.normal(0, 0.35)))
        zoom = wanted / task.diameter
    else:
        zoom = float(np.exp(rng.uniform(np.log(0.4), np.log(1.5))))
    least = settings.prompt / min(task.pictures[0].ids.shape)
    return float(np.clip(zoom, max(0.2, 0.6 * least), 4.0))


def _centre(picture: Picture, rng: Rng, jitter: float) -> np.ndarray:
    pixels = _foreground_pixels(picture)
    return pixels[rng.integers(len(pixels))] + rng.uniform(-jitter, jitter, 2)


def _empty_crop(
    task: Task,
    settings: EpisodeSettings,
    zoom: float,
    rng: Rng,
    target: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray | None:
    for _ in range(6):
        picture = task.pictures[rng.integers(len(task.pictures))]
        centre = rng.uniform([0, 0], picture.ids.shape)
        crop, ids = cut(picture, centre, settings.prompt, zoom, rng, turn=True)
        if not target(ids).any():
            return crop
    return None


def cut(
    picture: Picture,
    centre: np.ndarray,
    size: int,
    zoom: float,
    rng: Rng,
    *,
    turn: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Return a turned, mirrored and zoomed crop.

    Returns
    -------
    (3, size, size) float32 array
        Intensities, 0 at the picture's low and 1 at its high percentile.
    (size, size) int32 array
        Ids.
    """
    angle = rng.integers(4) * np.pi / 2
    if turn and rng.random() < 0.6:
        angle = rng.uniform(0, 2 * np.pi)
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    stretch = float(np.exp(rng.normal(0, 0.06))) if turn else 1.0
    rotation = np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    matrix = rotation @ np.diag([stretch * mirror, 1 / stretch]) / zoom
    reach = int(np.ceil(size * 0.75 * max(stretch, 1 / stretch) / zoom)) + 4
    height, width = picture.ids.shape
    margin = min(size / zoom, height, width) / 2
    y = float(np.clip(centre[0], margin, height - margin))
    x = float(np.clip(centre[1], margin, width - margin))
    y0, x0 = max(int(y) - reach, 0), max(int(x) - reach, 0)
    y1, x1 = min(int(y) + reach, height), min(int(x) + reach, width)
    part = picture.image[y0:y1, x0:x1]
    ids = picture.ids[y0:y1, x0:x1].astype(np.float32)
    offsets = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    oy, ox = torch.meshgrid(offsets, offsets, indexing="ij")
    gy = matrix[0, 0] * oy + matrix[0, 1] * ox + (y - y0)
    gx = matrix[1, 0] * oy + matrix[1, 1] * ox + (x - x0)
    grid = torch.stack(
        [(2 * gx + 1) / part.shape[1] - 1, (2 * gy + 1) / part.shape[0] - 1], dim=-1
    )[None]
    image = torch.from_numpy(part.astype(np.float32)).permute(2, 0, 1)[None]
    labels = torch.from_numpy(ids)[None, None]
    if zoom < 0.7:  # averaged before it is thinned out
        step = max(1, round(1 / zoom))
        image = F.avg_pool2d(
            F.pad(image, (step // 2, (step - 1) // 2) * 2, mode="replicate"), step, 1
        )
    options = {"padding_mode": "reflection", "align_corners": False}
    crop = F.grid_sample(image, grid, mode="bilinear", **options)[0].numpy()
    cut_ids = F.grid_sample(labels, grid, mode="nearest", **options)[0, 0].numpy()
    low, high = picture.intensities.T.astype(np.float32)
    span = np.maximum(high - low, 1)
    crop = np.clip((crop - low[:, None, None]) / span[:, None, None], -0.2, 1.2)
    return crop, np.rint(cut_ids).astype(np.int32)


def disturb(crop: np.ndarray, rng: Rng, strength: float) -> np.ndarray:
    """Return the crop with its own small change of light and noise, standardised.

    Parameters
    ----------
    crop : (3, h, w) float array
        About 0 to 1.

    Returns
    -------
    (3, h, w) float32 array
        As `core.image.normalise` gives it.
    """
    if rng.random() < 0.7:
        contrast = np.exp(rng.normal(0, 0.15 * strength))
        crop = (crop - 0.5) * contrast + 0.5 + rng.normal(0, 0.05 * strength)
    if rng.random() < 0.25 * strength:
        size = crop.shape[-1]
        ramp = np.linspace(-1, 1, size, dtype=np.float32)
        slope = rng.normal(0, 0.12, 2)
        crop = crop + slope[0] * ramp[:, None] + slope[1] * ramp[None]
    if rng.random() < 0.3 * strength:
        sigma = rng.uniform(0.3, 1.2)
        crop = ndimage.gaussian_filter(crop, (0, sigma, sigma), truncate=2.5)
    if rng.random() < 0.5 * strength:
        grey = rng.random() < 0.5 or np.ptp(crop, axis=0).max() == 0
        shape = (1, *crop.shape[1:]) if grey else crop.shape
        noise = rng.standard_normal(shape, dtype=np.float32)
        crop = crop + rng.uniform(0, 0.09) * strength * noise
    return np.asarray((np.clip(crop, -0.2, 1.2) - 0.5) / 0.25, np.float32)


def _borders(ids: np.ndarray, band: float) -> np.ndarray:
    """Return 1 within ``band`` pixels of where an object meets what it is not."""
    change = np.zeros(ids.shape, bool)
    down, right = ids[1:] != ids[:-1], ids[:, 1:] != ids[:, :-1]
    change[1:] |= down
    change[:-1] |= down
    change[:, 1:] |= right
    change[:, :-1] |= right
    near = ndimage.distance_transform_edt(~change) <= band - 0.5
    return near.astype(ids.dtype)


@dataclass
class PackedTasks:
    """Tasks in one file, small enough to travel: names and arrays.

    Attributes
    ----------
    arrays : dict
        ``image-N`` (H, W, 3) uint8 and ``ids-N-T`` (H, W) uint16 arrays.
    index : list of dict
        For each task: ``name``, ``group``, ``instances`` and ``pictures``, a list of
        pairs of array names.
    """

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    index: list[dict] = field(default_factory=list)  # type: ignore[type-arg]

    def add(
        self,
        group: str,
        name: str,
        pictures: list[tuple[str, np.ndarray, np.ndarray]],
        *,
        instances: bool,
    ) -> None:
        """Add a task of pictures ``(image name, image, ids)``."""
        pairs = []
        for image_name, image, ids in pictures:
            self.arrays.setdefault(f"image-{image_name}", image)
            key = f"ids-{len(self.index)}-{image_name}"
            self.arrays[key] = ids.astype(np.uint16)
            pairs.append([f"image-{image_name}", key])
        self.index.append(
            {"group": group, "name": name, "instances": instances, "pictures": pairs}
        )

    def tasks(self, groups: set[str] | None = None) -> list[list[Task]]:
        """Return the tasks, a list for each group (of ``groups``, if given)."""
        found: dict[str, list[Task]] = {}
        for entry in self.index:
            if groups is not None and entry["group"] not in groups:
                continue
            task = make_task(
                entry["name"],
                [self.arrays[image] for image, _ in entry["pictures"]],
                [self.arrays[ids] for _, ids in entry["pictures"]],
                instances=entry["instances"],
            )
            if task is not None:
                found.setdefault(entry["group"], []).append(task)
        return list(found.values())
