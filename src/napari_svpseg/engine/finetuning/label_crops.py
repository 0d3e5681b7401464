"""Prompts and training windows, cut from partly labelled images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ...core.annotation.labelled_boxes import prompt_boxes
from ...core.annotation.partial_images import PartialImage
from ...core.annotation.partial_labels import (
    UNKNOWN,
    complete_ids,
    known_borders,
    label_regions,
)
from ...core.geometry import PROMPT_SIZE, Box
from ...core.jobs.finetune_job import FineTuneError, FineTuneSettings
from ...core.labels.instances import targets
from ...core.prompt import Prompt, PromptSet
from ...models.base import PromptSegmenter
from ..inference.device import Device
from ..training.episodes import IntensityAugmentation, LabelledImage, cut, disturb

Rng = np.random.Generator

QUERY_SIDE = 96
"""Side of a training window, in network pixels."""

NO_PLACE = (
    "No place shows an object and something else: label an object and some background "
    "near it."
)


@dataclass(frozen=True, eq=False)
class _TrainingImage(LabelledImage):
    """An image of which only some pixels are labelled.

    Parameters
    ----------
    complete : (n,) int array
        Ids of the objects that are labelled as a whole.
    """

    complete: np.ndarray = field(default_factory=lambda: np.zeros(0, int))

    @property
    def intensities(self) -> np.ndarray:
        """(3, 2) percentiles: 0 and 1, as the image is scaled already."""
        return np.tile([0.0, 1.0], (3, 1))


# ---------------------------------------------------------------- prompts


def cut_prompts(
    images: Sequence[PartialImage],
    settings: FineTuneSettings,
    network: PromptSegmenter,
    device: Device,
) -> PromptSet:
    """Return prompts cut from the labelled places of the images.

    Where no box is labelled completely, as with scribbles, the network fills in the
    unknown pixels, which a prompt must not have.

    Raises
    ------
    FineTuneError
        If no place shows an object and something else.
    """
    labels = [image.training_ids for image in images]
    boxes = prompt_boxes(labels, settings.prompts, settings.seed)
    if boxes:
        return PromptSet((images[i].prompt(box) for i, box in boxes), "labelled boxes")
    found = _filled_prompts(images, settings, network, device)
    if not found:
        raise FineTuneError(NO_PLACE)
    return PromptSet(found, "scribbles, completed by the model")


def _filled_prompts(
    images: Sequence[PartialImage],
    settings: FineTuneSettings,
    network: PromptSegmenter,
    device: Device,
) -> list[Prompt]:
    """Return prompts around scribbles, with the network's masks in unknown pixels."""
    sites = _scribbled_boxes(images, settings)
    if not sites:
        return []
    crops, masks = [], []
    for i, box in sites:
        # back to the intensities of `core.image.normalise`, which the network takes
        standard = (images[i].three_channels[box.slices] - 0.5) / 0.25
        crops.append(standard.transpose(2, 0, 1))
        masks.append(images[i].training_ids[box.slices])
    to = device.torch_device
    with torch.inference_mode():
        network = network.to(to).eval()
        queries = torch.from_numpy(np.stack(crops)).to(to)
        # each crop is a query, and all of them together are the prompts
        code = network.encode_prompts(
            queries[None], torch.from_numpy(np.stack(masks)).long()[None].to(to)
        )
        maps = network(queries, code)
    prompts = []
    for n, (i, box) in enumerate(sites):
        seen = (maps["foreground"][n, 0] > 0).cpu().numpy().astype(np.int32)
        mask = np.where(masks[n] == UNKNOWN, seen, masks[n])
        if 0 < (mask > 0).mean() < 1:
            whole = np.zeros(images[i].ids.shape, np.int32)
            whole[box.slices] = ndimage.label(mask > 0)[0]
            prompts.append(images[i].prompt(box, whole))
    return prompts


def _scribbled_boxes(
    images: Sequence[PartialImage], settings: FineTuneSettings
) -> list[tuple[int, Box]]:
    """Return the boxes that hold most labels of objects and of background.

    No box is centred in another one.
    """
    sites: list[tuple[float, int, Box]] = []
    for i, image in enumerate(images):
        ids = image.training_ids
        side = min(PROMPT_SIZE, *ids.shape)
        if side < 16 or not (ids > 0).any():
            continue
        # share of labelled pixels of each kind in the box around a pixel; the filter
        # may give values a little below 0
        near = [
            np.maximum(ndimage.uniform_filter(mask.astype(float), side), 0)
            for mask in (ids == 0, ids > 0)
        ]
        # by the square roots, some of both kinds is worth more than much of one
        value = np.sqrt(near[0]) + np.sqrt(near[1])
        value[~(ids > 0)] = -1  # boxes are centred on objects
        for _ in range(settings.prompts):
            y, x = (int(i) for i in np.unravel_index(np.argmax(value), value.shape))
            if value[y, x] < 0:
                break
            box = Box.centred((y, x), side).clamped(ids.shape)
            sites.append((float(value[y, x]), i, box))
            value[box.slices] = -1
    sites.sort(key=lambda s: -s[0])
    return [(i, box) for _, i, box in sites[: settings.prompts]]


# ---------------------------------------------------------------- windows


class Windows:
    """Batches of training windows by their number, always the same for the same seed.

    Parameters
    ----------
    images : sequence of PartialImage
    prompts : PromptSet
        Their boxes say where prompts are cut and how large they are.
    zoom : float
        Network pixels per image pixel.
    settings : FineTuneSettings
    """

    def __init__(
        self,
        images: Sequence[PartialImage],
        prompts: PromptSet,
        zoom: float,
        settings: FineTuneSettings,
    ) -> None:
        self.settings, self.zoom = settings, zoom
        self.images = [
            _TrainingImage(
                i.three_channels, i.training_ids, complete_ids(i.training_ids)
            )
            for i in images
        ]
        self.is_object = not settings.semantic
        sides = [p.box.size * zoom for p in prompts]
        self.prompt_side = int(np.clip(round(np.median(sides) / 16) * 16, 32, 96))
        self.sites = self._sites(images)
        by_name = {image.name: n for n, image in enumerate(images)}
        self.prompt_sites = [
            (by_name[p.source], p.box.y + p.box.size / 2, p.box.x + p.box.size / 2)
            for p in prompts
            if not p.is_negative
        ]

    @staticmethod
    def _sites(
        images: Sequence[PartialImage],
    ) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """Return for each labelled region its image, object pixels and other pixels."""
        sites = []
        for n, image in enumerate(images):
            regions, count = label_regions(image.training_ids != UNKNOWN)
            for r in range(1, count + 1):
                pixels = np.stack(np.nonzero(regions == r), axis=1)
                objects = image.training_ids[tuple(pixels.T)] > 0
                sites.append((n, pixels[objects], pixels[~objects]))
        return sites

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """Return batch ``number``; keys as in `episodes.cut_episode`, and two.

        ``clean`` is the query as it is; ``cut`` is 1 in objects of unknown depth.
        """
        seed = self.settings.seed
        rng = np.random.default_rng([seed, 23, number])
        n_prompts = int(rng.choice([1, 2, 3], p=[0.4, 0.3, 0.3]))
        windows = [
            self._window(np.random.default_rng([seed, 29, number, i]), n_prompts)
            for i in range(self.settings.batch)
        ]
        return {k: torch.stack([w[k] for w in windows]) for k in windows[0]}

    def _window(self, rng: Rng, n_prompts: int) -> dict[str, Tensor]:
        """Return one training window with its prompts, as `cut_episode` does."""
        recolour = IntensityAugmentation.draw(rng) if rng.random() < 0.4 else _PLAIN
        shift = float(np.exp(rng.normal(0, 0.12)))  # objects differ in size
        n, centre = self._place(rng)
        prompts, masks = [], []
        for _ in range(n_prompts):
            crop, ids = self._prompt(rng, (n, *centre))
            prompts.append(disturb(recolour(crop), rng, 0.4))
            masks.append(ids.astype(np.int64))
        zoom = self.zoom * shift
        crop, ids = cut(self.images[n], centre, QUERY_SIDE, zoom, rng, turn=True)
        seen = recolour(crop)
        maps = self._targets(ids, self.images[n].complete)
        window = {
            k: torch.from_numpy(np.asarray(v, np.float32)[None])
            for k, v in maps.items()
        }
        # what the teacher sees: the same window, standardised but not disturbed
        window["clean"] = torch.from_numpy(
            np.asarray((np.clip(seen, -0.2, 1.2) - 0.5) / 0.25, np.float32)
        )
        window["query"] = torch.from_numpy(disturb(seen, rng, 0.7))
        window["prompts"] = torch.from_numpy(np.stack(prompts))
        window["masks"] = torch.from_numpy(np.stack(masks))
        return window

    def _place(self, rng: Rng) -> tuple[int, np.ndarray]:
        """Return an image and a place in it, mostly where something is labelled."""
        if self.settings.pseudo_labels and rng.random() < 0.15:
            n = int(rng.integers(len(self.images)))
            return n, rng.uniform([0, 0], self.images[n].ids.shape)
        n, objects, others = self.sites[rng.integers(len(self.sites))]
        wanted = len(objects) and (rng.random() < 0.6 or not len(others))
        pixels = objects if wanted else others
        jitter = 0.25 * QUERY_SIDE / self.zoom  # the place need not be in the middle
        return n, pixels[rng.integers(len(pixels))] + rng.uniform(-jitter, jitter, 2)

    def _prompt(
        self, rng: Rng, query: tuple[float, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return a prompt, from another place than the query's where there is one."""
        far = [
            s
            for s in self.prompt_sites
            if s[0] != query[0] or math.dist(s[1:], query[1:]) > QUERY_SIDE / self.zoom
        ]
        sites = far if far and rng.random() < 0.8 else self.prompt_sites
        # moved and turned less and less, until the prompt shows an object
        for attempt in range(4):
            n, y, x = sites[rng.integers(len(sites))]
            jitter = (0.1, 0.1, 0.05, 0.0)[attempt] * self.prompt_side / self.zoom
            centre = np.array([y, x]) + rng.uniform(-jitter, jitter, 2)
            turn = attempt < 2 and rng.random() < 0.4
            crop, ids = cut(
                self.images[n], centre, self.prompt_side, self.zoom, rng, turn=turn
            )
            if (ids > 0).any():
                break
        return crop, ids

    def _targets(self, ids: np.ndarray, complete: np.ndarray) -> dict[str, np.ndarray]:
        """Return the true maps, and the weights with which their pixels count."""
        foreground, distance, boundary = targets(np.maximum(ids, 0))
        depth, outline = known_borders(ids, complete)
        cut = (ids > 0) & ~depth
        if not (depth & (ids > 0)).any():
            depth = np.zeros_like(depth)  # background alone teaches a distance of 0
        instances = float(self.is_object)
        return {
            "foreground": foreground,
            "distance": distance,
            "boundary": boundary,
            "known": (ids != UNKNOWN).astype(np.float32),
            "instances": depth * instances,
            "outlines": outline * instances,
            "cut": cut * instances,
        }


_PLAIN = IntensityAugmentation((0, 1, 2), None, False, 1.0)
