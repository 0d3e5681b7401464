"""Ways to tell touching objects apart, as heads of one network: which finds most.

    python benchmarks/object_representations.py train DATA RUN [--steps 400]
    python benchmarks/object_representations.py oracle DATA/SET... [--queries 2]
    python benchmarks/object_representations.py score RUN DATA/SET... [--queries 2]
        [--trained SET,SET] [--json FILE]
    python benchmarks/object_representations.py table FILE

The first trains further heads on the decoder of the shipped `svp`, all weights
together, on the data of ``configs/svp.toml``. The second decodes true maps, which
must give back the objects. The third segments two images of each set with one and with
four boxes of other images, and decodes each head with the same foreground; the fourth
prints its tables again. Needs numba. What the heads are:

- ``today``: distance and boundary as shipped, with the watershed of the product;
- ``new``: the same two maps from a new head, as the others are new;
- ``flow``: unit vectors that lead to the object's centre, where pixels then meet;
- ``affinity``: whether pixels belong to one object, with a mutex watershed;
- ``star``: distances to the border along rays, of which the best polygons are kept.

The results are in docs/experiments/object-representations.md.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numba
import numpy as np
import torch
from scipy import ndimage
from skimage.measure import label as connected_components
from skimage.segmentation import watershed
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from napari_svpseg.benchmark.error_kinds import KINDS, error_kinds
from napari_svpseg.benchmark.one_shot_tasks import BenchmarkSettings, Draw, Task, plan
from napari_svpseg.benchmark.protocol import find_good_box
from napari_svpseg.benchmark.report import paired_interval
from napari_svpseg.core.image import intensity_range, resize_labels
from napari_svpseg.core.labels.holes import fill_object_holes
from napari_svpseg.core.labels.instances import (
    SPLIT_STRENGTHS,
    SPLIT_TOLERANCE,
    filter_objects,
    instances_from_maps,
    smallest_area,
    targets,
)
from napari_svpseg.core.labels.metrics import dice, f1, match_instances
from napari_svpseg.core.labels.object_size import median_diameter
from napari_svpseg.core.labels.splitting import split_touching
from napari_svpseg.core.labels.star_convex import star_convex_labels
from napari_svpseg.core.prompt import Prompt, PromptSet
from napari_svpseg.core.result import Maps, ObjectProperties
from napari_svpseg.core.settings import PostprocessSettings
from napari_svpseg.engine.inference.device import choose
from napari_svpseg.engine.inference.forward import Forward
from napari_svpseg.engine.inference.prompt_features import (
    network_scale,
    prompt_object_properties,
    prompt_tensors,
    resized,
)
from napari_svpseg.engine.inference.tiling import ScaledQuery
from napari_svpseg.engine.training import episodes as episode_module
from napari_svpseg.engine.training.episodes import Episodes
from napari_svpseg.engine.training.trainer import Trainer
from napari_svpseg.io.model_store import load_model
from napari_svpseg.models.base import PromptCode, QueryFeatures
from napari_svpseg.models.losses import binary_loss, known_mean
from napari_svpseg.models.svp import EvidenceSegmenter
from napari_svpseg.models.unet import ChannelNorm
from napari_svpseg.workflows.training_config import TrainingConfig
from napari_svpseg.workflows.training_tasks import read_tasks, sources

Array = np.ndarray

NEAR = ((0, 1), (1, 0), (1, 1), (1, -1))
FAR = ((0, 6), (6, 0), (4, 4), (4, -4))
"""Steps (rows, columns) to the pixels that attract and that repel, network pixels."""
RAYS, FARTHEST = 16, 64
HEADS = {"new": 2, "flow": 2, "affinity": len(NEAR + FAR), "star": 1 + RAYS}
"""Channels of each new head."""
DECODER = (24, 48, 64)
"""Channels of the decoder of `svp`, unless a config has others."""
CROP = 352
"""Side of the part of a query that is segmented, in network pixels."""
BOXES = (1, 4)
TYPICAL = 18.0
"""Diameter of objects to the network."""
ROUND = (
    "monuseg_he_nuclei",
    "nuclei_sbsst265",
    "u2os_bbbc039",
    "powder_sem",
    "powder_satellites_sem",
    "emps_core_shell",
    "emps_sem_spheres",
    "emps_tem_particles",
)
"""Sets of round objects, which stars may suit best."""
CONFIG = Path(__file__).parents[1] / "configs" / "svp.toml"


# -- the true maps -------------------------------------------------------------------


@numba.njit(cache=True)
def flow_target(ids: Array) -> Array:
    """Return unit vectors (2, Y, X) that lead each pixel to its object's centre.

    Heat spreads from the object's pixel nearest to its mean position and is lost at the
    border; the vectors point to where it is warmer (Cellpose, Stringer et al. 2021).
    """
    height, width = ids.shape
    flow = np.zeros((2, height, width), np.float32)
    n = ids.max() + 1
    first_y, last_y = np.full(n, height), np.full(n, -1)
    first_x, last_x = np.full(n, width), np.full(n, -1)
    mean, area = np.zeros((2, n)), np.zeros(n)
    for y in range(height):
        for x in range(width):
            i = ids[y, x]
            first_y[i], last_y[i] = min(first_y[i], y), max(last_y[i], y)
            first_x[i], last_x[i] = min(first_x[i], x), max(last_x[i], x)
            mean[0, i] += y
            mean[1, i] += x
            area[i] += 1
    for i in range(1, n):
        if area[i] == 0:
            continue
        h, w = last_y[i] - first_y[i] + 1, last_x[i] - first_x[i] + 1
        inside = np.zeros((h + 2, w + 2), np.bool_)
        nearest, at_y, at_x = 1e9, 0, 0
        for y in range(h):
            for x in range(w):
                if ids[first_y[i] + y, first_x[i] + x] != i:
                    continue
                inside[y + 1, x + 1] = True
                far = (first_y[i] + y - mean[0, i] / area[i]) ** 2
                far += (first_x[i] + x - mean[1, i] / area[i]) ** 2
                if far < nearest:
                    nearest, at_y, at_x = far, y + 1, x + 1
        heat, following = np.zeros((h + 2, w + 2)), np.zeros((h + 2, w + 2))
        for _ in range(2 * (h + w)):
            heat[at_y, at_x] += 1
            for y in range(1, h + 1):
                for x in range(1, w + 1):
                    if inside[y, x]:
                        total = 0.0
                        for dy in range(-1, 2):
                            for dx in range(-1, 2):
                                total += heat[y + dy, x + dx]
                        following[y, x] = total / 9
            heat, following = following, heat
        for y in range(1, h + 1):
            for x in range(1, w + 1):
                if inside[y, x]:
                    down = math.log1p(heat[y + 1, x]) - math.log1p(heat[y - 1, x])
                    right = math.log1p(heat[y, x + 1]) - math.log1p(heat[y, x - 1])
                    length = math.sqrt(down * down + right * right)
                    if length > 0:
                        flow[0, first_y[i] + y - 1, first_x[i] + x - 1] = down / length
                        flow[1, first_y[i] + y - 1, first_x[i] + x - 1] = right / length
    return flow


@numba.njit(cache=True)
def star_target(ids: Array, rays: int, farthest: int) -> Array:
    """Return distances (R, Y, X) to the border along rays, as `star_convex_labels`.

    A ray that leaves the image is negative: the border is at least that far.
    """
    height, width = ids.shape
    reach = np.zeros((rays, height, width), np.float32)
    for y in range(height):
        for x in range(width):
            i = ids[y, x]
            if i == 0:
                continue
            for r in range(rays):
                down = math.sin(2 * math.pi * r / rays)
                right = math.cos(2 * math.pi * r / rays)
                far = 0.5
                while far < farthest:
                    at_y, at_x = round(y + far * down), round(x + far * right)
                    if at_y < 0 or at_x < 0 or at_y >= height or at_x >= width:
                        far = -far
                        break
                    if ids[at_y, at_x] != i:
                        break
                    far += 0.5
                reach[r, y, x] = far
    return reach


def affinity_target(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return whether pixels share an object with others, and where it is known.

    Parameters
    ----------
    ids : (B, 1, Y, X) int tensor

    Returns
    -------
    same, known : (B, 8, Y, X) float tensors
        For the steps `NEAR` and `FAR`. Two pixels of background are not known.
    """
    same, known = [], []
    height, width = ids.shape[-2:]
    margin = max(max(abs(y), abs(x)) for y, x in NEAR + FAR)
    wide = F.pad(ids, (margin,) * 4, value=-1)
    for dy, dx in NEAR + FAR:
        top, left = margin + dy, margin + dx
        other = wide[..., top : top + height, left : left + width]
        same.append((other == ids) & (ids > 0))
        known.append((other >= 0) & ((ids > 0) | (other > 0)))
    return torch.cat(same, 1).float(), torch.cat(known, 1).float()


def true_maps(ids: Array) -> dict[str, Array]:
    """Return the true maps of all representations, as `divided` takes them."""
    foreground, distance, boundary = targets(ids)
    affinity = affinity_target(torch.from_numpy(ids.astype(np.int64))[None, None])[0][0]
    reach = np.abs(star_target(ids.astype(np.int64), RAYS, FARTHEST))
    return {
        "foreground": foreground,
        "distance": distance,
        "boundary": boundary,
        "new": np.stack([distance, boundary]),
        "flow": flow_target(ids.astype(np.int64)),
        "affinity": affinity.numpy(),
        "star": np.concatenate([distance[None], reach]),
    }


# -- from maps to objects ------------------------------------------------------------


def by_watershed(
    mask: Array, distance: Array, boundary: Array, diameter: float, strength: float
) -> Array:
    """Return the mask split as the product does it."""
    maps = Maps(mask.astype(np.float32), distance, boundary, ObjectProperties(diameter))
    return split_touching(mask, maps, strength)


def by_flow(mask: Array, flow: Array, diameter: float, blur: float) -> Array:
    """Return the mask divided by where its pixels end that follow the flow.

    Parameters
    ----------
    mask : (Y, X) bool array
    flow : (2, Y, X) array
    diameter : float
        Of the typical object.
    blur : float
        In diameters. The places of the ends, blurred by it, have one hill an object.
    """
    start = np.stack(np.nonzero(mask)).astype(np.float64)
    inside = np.where(mask, flow, 0)
    at = start.copy()
    limit = np.array(mask.shape)[:, None] - 1.0
    for _ in range(round(np.clip(2 * diameter, 20, 120))):
        step = [ndimage.map_coordinates(f, at, order=1, mode="nearest") for f in inside]
        at = np.clip(at + np.stack(step), 0, limit)
    end = tuple(np.rint(at).astype(int))
    ends = np.zeros(mask.shape, np.float32)
    np.add.at(ends, end, 1)
    ends = ndimage.gaussian_filter(ends, max(1.0, blur * diameter))
    reached = np.asarray(ends > 1e-6)
    summits = (ndimage.maximum_filter(ends, 3) == ends) & reached
    seeds = connected_components(summits, connectivity=2)
    hills = np.asarray(watershed(-ends, seeds, mask=reached))
    labels = np.zeros(mask.shape, np.int64)
    labels[mask] = hills[end]
    return labels


def by_affinity(mask: Array, affinity: Array, bias: float) -> Array:
    """Return the mask divided by a mutex watershed (Wolf et al. 2018).

    Parameters
    ----------
    mask : (Y, X) bool array
    affinity : (8, Y, X) array
        In [0, 1], for the steps `NEAR`, which attract, and `FAR`, which repel.
    bias : float
        Added to the repulsion.
    """
    number = np.arange(mask.size).reshape(mask.shape)
    ones, twos, weights, repel = [], [], [], []
    height, width = mask.shape
    for k, (dy, dx) in enumerate(NEAR + FAR):
        here = np.s_[: height - dy, max(0, -dx) : width - max(0, dx)]
        there = np.s_[dy:, max(0, dx) : width - max(0, -dx)]
        both = mask[here] & mask[there]
        ones.append(number[here][both])
        twos.append(number[there][both])
        strength = affinity[k][here][both]
        far = k >= len(NEAR)
        weights.append(1 - strength + bias if far else strength)
        repel.append(np.full(len(strength), far))
    order = np.argsort(-np.concatenate(weights), kind="stable")
    owner = _mutex_watershed(
        mask.size,
        np.concatenate(ones)[order],
        np.concatenate(twos)[order],
        np.concatenate(repel)[order],
    )
    return np.where(mask, owner.reshape(mask.shape) + 1, 0)


@numba.njit(cache=True)
def _root(owner: Array, i: int) -> int:
    while owner[i] != i:
        owner[i] = owner[owner[i]]
        i = owner[i]
    return i


@numba.njit(cache=True)
def _mutex_watershed(n: int, one: Array, two: Array, repel: Array) -> Array:
    """Return the owner of each of ``n`` pixels; edges are given strongest first.

    An edge that attracts joins two groups unless they exclude each other; one that
    repels makes them exclude each other. The groups that a group excludes are a linked
    list; only the shorter one of two is walked.
    """
    owner, size = np.arange(n), np.zeros(n, np.int64)
    first, last = np.full(n, -1), np.full(n, -1)
    links = int(repel.sum()) * 2
    excluded, after = np.zeros(links, np.int64), np.full(links, -1)
    used = 0
    for e in range(len(one)):
        a, b = _root(owner, one[e]), _root(owner, two[e])
        if a == b:
            continue
        if size[a] > size[b]:
            a, b = b, a
        apart, link = False, first[a]
        while link >= 0:
            if _root(owner, excluded[link]) == b:
                apart = True
                break
            link = after[link]
        if apart:
            continue
        if repel[e]:
            for x, y in ((a, b), (b, a)):
                excluded[used] = y
                if first[x] < 0:
                    first[x] = used
                else:
                    after[last[x]] = used
                last[x] = used
                size[x] += 1
                used += 1
        else:
            owner[a] = b
            if first[a] >= 0:
                if first[b] < 0:
                    first[b] = first[a]
                else:
                    after[last[b]] = first[a]
                last[b] = last[a]
                size[b] += size[a]
    for i in range(n):
        owner[i] = _root(owner, i)
    return owner


def by_star(mask: Array, star: Array, threshold: float, overlap: float) -> Array:
    """Return the mask shared out among the best polygons.

    Pixels in no polygon go to the nearest one they are connected with; parts of the
    mask without any polygon stay whole.
    """
    score = np.where(mask, star[0], 0)
    labels = star_convex_labels(score, star[1:], mask.shape, threshold, overlap)
    labels = np.asarray(watershed(np.zeros(mask.shape), labels, mask=mask))
    rest = connected_components(mask & (labels == 0), connectivity=1)
    return np.where(rest > 0, rest + labels.max(), labels)


SHARES = (0.0, 0.25, 0.5)
"""Fragments of up to this many typical objects join a neighbour.

The watershed of today has such a rule of its own, so the others may have one.
"""
STRENGTHS = (0.0, *SPLIT_STRENGTHS)
WAYS: dict[str, tuple[tuple[float, ...], ...]] = {
    "today": tuple((strength,) for strength in STRENGTHS),
    "new": tuple((strength,) for strength in STRENGTHS),
    "flow": ((0.15,), (0.22,), (0.3,), (0.4,)),
    "affinity": ((-0.1,), (0.0,), (0.1,), (0.2,)),
    "star": ((0.5, 0.3), (0.6, 0.3), (0.7, 0.3), (0.8, 0.3)),
}
"""Values of what is tuned, see the decoders; each is tried with all `SHARES`."""


def divided(
    maps: Mapping[str, Array], way: str, value: Sequence[float], found: Maps
) -> Array:
    """Return the foreground divided as one representation says.

    Parameters
    ----------
    maps : mapping of str to array
        Of the heads by name, see `true_maps`.
    way : str
        One of `WAYS`.
    value : sequence of float
        One of its values.
    found : Maps
        Foreground and today's boundary, with the properties of the prompts' objects.
    """
    assert found.objects is not None
    diameter = found.objects.diameter
    mask = found.foreground >= PostprocessSettings().threshold
    if not mask.any() or found.objects.net:
        return np.asarray(connected_components(mask, connectivity=1))
    if way == "today":
        return by_watershed(mask, maps["distance"], maps["boundary"], diameter, *value)
    if way == "new":
        distance, boundary = maps["new"]
        return by_watershed(mask, distance, boundary, diameter, *value)
    if way == "flow":
        return by_flow(mask, maps["flow"], diameter, *value)
    if way == "affinity":
        return by_affinity(mask, maps["affinity"], *value)
    return by_star(mask, maps["star"], *value)


def finished(parts: Array, share: float, found: Maps) -> Array:
    """Return the objects of a divided foreground, by the same rules for all.

    Parts that are not connected are objects of their own, fragments join a neighbour,
    holes are filled, small and unconfident objects are removed.

    Parameters
    ----------
    parts : (Y, X) int array
        From `divided`.
    share : float
        One of `SHARES`.
    found : Maps
        As there.
    """
    assert found.objects is not None
    post = PostprocessSettings()
    least = smallest_area(found, post)
    labels = without_fragments(
        connected_components(parts, connectivity=1),
        max(least, round(share * np.pi / 4 * found.objects.diameter**2)),
    )
    if not (found.objects.net or found.objects.holes):
        labels = fill_object_holes(labels)
    return filter_objects(
        labels,
        least,
        found.foreground,
        None if found.objects.net else found.boundary,
        confidence=post.min_confidence,
    )


def without_fragments(labels: Array, least: int) -> Array:
    """Return labels in which parts below an area join their longest neighbour."""
    for _ in range(3):  # a fragment may join a fragment
        area = np.bincount(labels.ravel())
        borders: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        for a, b in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
            meet = (a != b) & (a > 0) & (b > 0)
            pairs, counts = np.unique(
                np.stack([a[meet], b[meet]], 1), axis=0, return_counts=True
            )
            for (i, j), count in zip(pairs.tolist(), counts.tolist(), strict=True):
                borders[i][j] += count
                borders[j][i] += count
        owner = np.arange(len(area))
        changed = False
        for i in sorted(borders, key=lambda i: area[i]):
            if area[i] < least:
                others = {j: n for j, n in borders[i].items() if owner[j] != i}
                if others:
                    owner[i] = owner[max(others, key=lambda j: others[j])]
                    changed = True
        labels = owner[labels]
        if not changed:
            break
    return np.asarray(labels)


# -- the network and its training ----------------------------------------------------


class _KeepsInput(nn.Sequential):
    """Layers in a row that keep what they were given last, for the other heads."""

    given: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return the result of all layers."""
        self.given = x
        for layer in self:
            x = layer(x)
        return x


class ObjectHeads(EvidenceSegmenter):
    """The default network with further heads on the decoder's last features."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        width = arguments.get("decoder", DECODER)[0]
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(
                    ChannelNorm(width),
                    nn.Conv2d(width, width, 3, padding=1),
                    nn.ReLU(),
                    nn.Conv2d(width, 4 * channels, 1),  # 2 x 2 pixels of each map
                )
                for name, channels in HEADS.items()
            }
        )
        self.out2 = _KeepsInput(*self.out2)

    def decode(self, features: QueryFeatures, code: PromptCode) -> dict[str, Tensor]:
        """Return the maps of the network, and those of the heads as they are."""
        answer = super().decode(features, code)
        height, width = features["query"].shape[2:]
        for name, head in self.heads.items():
            maps = F.pixel_shuffle(head(self.out2.given).contiguous(), 2)
            answer[name] = maps[..., :height, :width].float()
        return answer


def head_losses(
    maps: Mapping[str, Tensor], batch: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the losses of the new heads, where single objects are known."""
    instances, foreground = batch["instances"], batch["foreground"]
    inside = instances * foreground
    weight = instances * (0.25 + foreground)
    near = len(NEAR)

    def distance_loss(logits: Tensor) -> Tensor:  # as in `models.losses.maps_loss`
        target = batch["distance"]
        entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        absolute = (logits.sigmoid() - target).abs()
        return known_mean(absolute + 0.3 * entropy, weight)

    new = maps["new"]
    flow = (maps["flow"] - batch["flow"]).square().sum(1, keepdim=True)
    same, known = affinity_target(batch["ids"])
    attracted, repelled = (
        binary_loss(
            -maps["affinity"][:, part],
            1 - same[:, part],
            known[:, part] * instances,
            positive_weight=3.0,
        )
        for part in (slice(near), slice(near, None))
    )
    reach = batch["star"]
    wanted = reach.abs().log1p()
    error = maps["star"][:, 1:] - wanted
    # a ray that left the image tells only how far the border is at least
    error = torch.where(reach < 0, error.clamp(max=0), error).abs()
    star_weight = inside * (0.1 + batch["distance"])
    return {
        "new": distance_loss(new[:, :1])
        + 0.5
        * binary_loss(new[:, 1:], batch["boundary"], instances, positive_weight=3.0),
        "flow": known_mean(flow, inside),
        "affinity": 0.5 * (attracted + repelled),
        "star": known_mean(error.mean(1, keepdim=True), star_weight)
        + distance_loss(maps["star"][:, :1]),
    }


class ObjectTrainer(Trainer):
    """The training loop with the losses of the new heads."""

    def _terms(
        self, batch: dict[str, Tensor], maps: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        return super()._terms(batch, maps) | head_losses(maps, batch)


class ObjectEpisodes(Dataset[dict[str, Tensor]]):
    """Batches of episodes with ``ids``, and the true ``flow`` and ``star``."""

    def __init__(self, plain: Episodes) -> None:
        self.plain = plain

    def __len__(self) -> int:
        return len(self.plain)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return a batch, see `Episodes`."""
        made = episode_module._as_tensors

        def with_ids(*parts: Any) -> dict[str, Tensor]:
            ids = np.unique(parts[3], return_inverse=True)[1].reshape(parts[3].shape)
            ids = np.where(parts[3] > 0, ids + 1, 0)
            return {**made(*parts), "ids": torch.from_numpy(ids)[None]}

        with mock.patch.object(episode_module, "_as_tensors", with_ids):
            batch = self.plain[index]
        flows, stars = [], []
        for ids, known in zip(batch["ids"], batch["instances"], strict=True):
            # without single objects neither is looked at
            shown = (ids[0] * bool(known.any())).numpy()
            flows.append(torch.from_numpy(flow_target(shown)))
            stars.append(torch.from_numpy(star_target(shown, RAYS, FARTHEST)))
        return batch | {"flow": torch.stack(flows), "star": torch.stack(stars)}


def train(data: Path, folder: Path, steps: int, learning_rate: float) -> None:
    """Train all heads and all weights from the shipped ones; go on if interrupted."""
    config = TrainingConfig.read(CONFIG)
    # the shipped weights need no validation: its sets are among those scored here
    config = replace(config, data=replace(config.data, validation=(), scenes=300))
    episode_settings, settings = config.settings()
    settings = replace(
        settings,
        steps=steps,
        learning_rate=learning_rate,
        warm_up=max(1, steps // 15),
        averaging=0.98,
        precision="float32",
        validate_every=20,
    )
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(settings.seed)
    network = ObjectHeads(**config.arguments)
    shipped = load_model("svp").network.state_dict()
    missing, unexpected = network.load_state_dict(shipped, strict=False)
    assert not unexpected and all(k.startswith("heads.") for k in missing)
    packed = read_tasks(config, data, folder, settings.seed)
    trainer = ObjectTrainer(network, settings, folder, torch.device("cpu"))
    if trainer.checkpoint.exists():
        trainer.resume()
    wanted = sources(config.data, packed, settings.seed)

    def episodes(start: int) -> Dataset[dict[str, Tensor]]:
        return ObjectEpisodes(
            Episodes(
                wanted,
                episode_settings,
                batch=settings.batch,
                n_batches=settings.steps,
                seed=settings.seed,
                start=start,
            )
        )

    def show(done: int, total: int, message: str = "") -> None:
        print(done, total, message, file=sys.stderr, flush=True)

    trainer.run(episodes, [], on_progress=show)


def trained_network(folder: Path) -> ObjectHeads:
    """Return the averaged weights of a training."""
    network = ObjectHeads(**TrainingConfig.read(CONFIG).arguments)
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    network.load_state_dict(state["average"])
    return network.eval()


# -- the true maps decoded -----------------------------------------------------------


def oracle(data: Sequence[Path], queries: int) -> str:
    """Return what each representation finds in its true maps, at the network's scale.

    Images are brought to objects of `TYPICAL` pixels. The value that is best on the
    average over sets is taken.
    """
    scores: dict[str, dict[Any, list[float]]] = {way: defaultdict(list) for way in WAYS}
    names = []
    for task in plan(data, BenchmarkSettings(prompts=1)):
        if task.value is not None:
            continue
        names.append(task.dataset.name)
        found: dict[tuple[str, Any], list[float]] = defaultdict(list)
        for image in task.queries[:queries]:
            truth = task.truth(image)
            factor = TYPICAL / median_diameter(truth)
            height, width = (max(16, round(n * factor)) for n in truth.shape)
            ids = resize_labels(truth, (height, width))[:CROP, :CROP]
            ids = np.unique(ids, return_inverse=True)[1].reshape(ids.shape)
            maps = true_maps(ids)
            shared = maps_of(maps, ObjectProperties(TYPICAL))
            for way, values in WAYS.items():
                for value in values:
                    labels = finished(divided(maps, way, value, shared), 0, shared)
                    found[way, value].append(f1(labels, ids))
        for (way, value), each in found.items():
            scores[way][value].append(float(np.mean(each)))
    lines = [f"| F1@0.5 of true maps | {' | '.join(names)} |"]
    lines.append("|---" * (len(names) + 1) + "|")
    for way, of_values in scores.items():
        best = max(of_values.values(), key=lambda each: float(np.mean(each)))
        lines.append(f"| {way} | {' | '.join(f'{100 * v:.0f}' for v in best)} |")
    return "\n".join(lines)


# -- scores --------------------------------------------------------------------------


def boxes_elsewhere(task: Task, image: str, seed: int = 0) -> list[Prompt]:
    """Return up to `BOXES` prompts of other images, chosen as a person would."""
    rng = np.random.default_rng(
        [seed, zlib.crc32(f"{task.dataset.name}:{task.name}:{image}".encode())]
    )
    others = rng.permutation([i for i in task.queries if i != image]).tolist()
    drawn: list[Prompt] = []
    for other in (others * max(BOXES))[: 3 * max(BOXES)]:
        known = task.dataset.ignore(other)
        box = find_good_box(task.truth(other), task.rule, rng, known)
        if box is not None and len(drawn) < max(BOXES):
            drawn.append(task.prompt(Draw(other, box)))
    return drawn


def as_arrays(answer: Mapping[str, Tensor], which: int = 0) -> dict[str, Array]:
    """Return the maps of one image as `divided` takes them."""
    maps = {name: values[which].float() for name, values in answer.items()}
    new = maps["new"].sigmoid()
    star = torch.cat([maps["star"][:1].sigmoid(), maps["star"][1:].expm1().clamp(0)])
    found = {k: maps[k][0].sigmoid() for k in ("foreground", "distance", "boundary")}
    found |= {"new": new, "flow": maps["flow"], "star": star}
    found |= {"affinity": maps["affinity"].sigmoid()}
    return {name: values.numpy() for name, values in found.items()}


def maps_of(maps: Mapping[str, Array], objects: ObjectProperties) -> Maps:
    """Return what all representations share, see `divided`."""
    return Maps(maps["foreground"], maps["distance"], maps["boundary"], objects)


@torch.no_grad()
def records_of(
    network: ObjectHeads, task: Task, image: str, prompts: Sequence[Prompt]
) -> Iterator[dict[str, Any]]:
    """Yield the scores of each representation and each value of what is tuned."""
    plane, truth, ignore = task.query(image).plane, task.truth(image), None
    chosen = PromptSet(list(prompts))
    scale = network_scale(chosen, network)
    side = round(CROP / scale)
    window = tuple(
        slice((n - side) // 2, (n - side) // 2 + side) if n > side else slice(0, n)
        for n in truth.shape
    )
    if (marked := task.dataset.ignore(image)) is not None:
        ignore = marked[window] > 0
    truth = truth[window]
    images, masks = prompt_tensors(chosen, scale)
    query = ScaledQuery(plane[window], intensity_range(plane), scale)
    height, width = query.network_shape
    code = network.encode_prompts(images, masks)
    answer = network(query.read((0, height), (0, width))[None], code)
    objects = prompt_object_properties(
        chosen, images, Forward(network, choose("cpu")), code, scale
    )
    # the prompts' own objects, found with the code of the prompts
    shown = [k for k, mask in enumerate(masks[0]) if (mask > 0).any()]
    own = network(images[0, shown], code)
    at_network = resized(objects, 1 / scale)
    prompt_maps = [as_arrays(own, i) for i in range(len(shown))]

    known: dict[bytes, dict[str, Any]] = {}  # many values find the same objects

    def record(way: str, value: Any, labels: Array) -> dict[str, Any]:
        full = resize_labels(labels.astype(np.int32), truth.shape)
        key = full.tobytes()
        if key not in known:
            known[key] = {
                "f1": match_instances(full, truth, 0.5, ignore).f1,
                "dice": dice(full > 0, truth > 0, ignore),
                "errors": error_kinds(full, truth, ignore),
            }
        return {
            "task": f"{task.dataset.name}:{task.name}",
            "image": image,
            "boxes": len(prompts),
            "way": way,
            "value": value,
            **known[key],
        }

    maps = as_arrays(answer)
    found = maps_of(maps, at_network)
    known_masks = masks[0, shown].numpy()
    prompt_found = [maps_of(m, at_network) for m in prompt_maps]
    for way, values in WAYS.items():
        for value in values:
            parts = divided(maps, way, value, found)
            on_prompts = [
                divided(m, way, value, f)
                for m, f in zip(prompt_maps, prompt_found, strict=True)
            ]
            for share in SHARES:
                scores = [
                    f1(finished(p, share, f), np.maximum(mask, 0), ignore=mask < 0)
                    for p, f, mask in zip(
                        on_prompts, prompt_found, known_masks, strict=True
                    )
                ]
                labels = finished(parts, share, found)
                yield {
                    **record(way, (share, *value), labels),
                    "prompts": float(np.mean(scores)),
                }
    # the product as it is: maps at the pixels of the image
    distance, boundary, foreground = (
        F.interpolate(answer[k].sigmoid(), size=truth.shape, mode="bilinear")[0, 0]
        for k in ("distance", "boundary", "foreground")
    )
    whole = Maps(foreground.numpy(), distance.numpy(), boundary.numpy(), objects)
    labels = instances_from_maps(whole, PostprocessSettings())
    yield {**record("product", None, labels), "prompts": 0.0}


def score(
    run: Path, data: Sequence[Path], queries: int, trained: set[str], file: Path | None
) -> list[dict[str, Any]]:
    """Score all tasks; see `records_of`."""
    network = trained_network(run)
    records: list[dict[str, Any]] = []
    for task in plan(data, BenchmarkSettings(prompts=1, max_queries=1000)):
        if task.value is not None:  # objects of a class may touch unseen
            continue
        rng = np.random.default_rng(0)
        done = 0
        for image in rng.permutation(task.queries).tolist():
            prompts = boxes_elsewhere(task, image)
            for n in BOXES:
                if len(prompts) >= n:
                    for record in records_of(network, task, image, prompts[:n]):
                        group = "trained" if task.dataset.name in trained else "base"
                        records.append({**record, "group": group})
            done += bool(prompts)
            if done == queries:
                break
        print(task.dataset.name, file=sys.stderr, flush=True)
        if file is not None:
            file.write_text(json.dumps(records), encoding="utf-8")
    return records


# -- tables --------------------------------------------------------------------------


def _key(value: Any) -> str:
    return json.dumps(value)


def chosen_records(
    records: Sequence[dict[str, Any]], way: str, by_prompts: bool
) -> list[dict[str, Any]]:
    """Return one record of each image: that of the value that is chosen for it.

    The base tasks are two halves. A value is the best of the other half (for sets
    trained on, of all base tasks); by the prompts, it is the one nearest to that of
    those which find the prompts' own objects about as well as the best.
    """
    own = [r for r in records if r["way"] == way]
    base = sorted({r["task"] for r in own if r["group"] == "base"})
    half = {task: i % 2 for i, task in enumerate(base)}
    values = list(dict.fromkeys(_key(r["value"]) for r in own))

    def best(tasks: set[str], boxes: int) -> str:
        def mean(value: str) -> float:
            found = defaultdict(list)
            for r in own:
                same = r["boxes"] == boxes and _key(r["value"]) == value
                if same and r["task"] in tasks:
                    found[r["task"]].append(r["f1"])
            return float(np.mean([np.mean(f) for f in found.values()]))

        return max(values, key=mean)

    fixed = {
        (part, n): best({t for t in base if half[t] != part}, n)
        for part in (0, 1, None)
        for n in {r["boxes"] for r in own}
    }
    images: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for r in own:
        images[r["task"], r["image"], r["boxes"]].append(r)
    kept = []
    for (task, _, n), found in images.items():
        start = fixed[half.get(task), n]
        if by_prompts:
            most = max(r["prompts"] for r in found)
            found = [r for r in found if r["prompts"] > most - SPLIT_TOLERANCE]
        at = values.index(start)
        kept.append(min(found, key=lambda r: abs(values.index(_key(r["value"])) - at)))
    return kept


def task_means(records: Sequence[Mapping[str, Any]], key: str) -> dict[str, float]:
    """Return the mean of a score for each task."""
    found = defaultdict(list)
    for r in records:
        found[r["task"]].append(r[key])
    return {task: float(np.mean(values)) for task, values in found.items()}


def difference(ours: Mapping[str, float], theirs: Mapping[str, float]) -> str:
    """Return the mean difference in points with its interval; a dash without tasks."""
    mean, low, high = (100 * v for v in paired_interval(ours, theirs))
    return "-" if math.isnan(mean) else f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"


def tables(records: Sequence[dict[str, Any]]) -> str:
    """Return the tables of scores, differences and errors as markdown."""
    lines = []
    ways = [*WAYS, "product"]
    groups = [g for g in ("base", "trained") if any(r["group"] == g for r in records)]
    places = [(g, n) for g in groups for n in BOXES]
    titles = [f"{g}, {n} box{'es' * (n > 1)}" for g, n in places]

    def cells(of: Callable[[str, int], str]) -> str:
        return " | ".join(of(g, n) for g, n in places)

    for by_prompts, title in ((False, "the other half"), (True, "the prompts")):
        kept = {way: chosen_records(records, way, by_prompts) for way in ways}

        def part(
            way: str, group: str, n: int, kept: Any = kept
        ) -> list[dict[str, Any]]:
            return [r for r in kept[way] if (r["group"], r["boxes"]) == (group, n)]

        def scores(way: str, group: str, n: int) -> str:
            f, d = (task_means(part(way, group, n), k) for k in ("f1", "dice"))
            values = (100 * np.mean(list(x.values())) for x in (f, d))
            return " / ".join(f"{v:.1f}" for v in values)

        def change(way: str, group: str, n: int, other: str = "today") -> str:
            f, old = (task_means(part(w, group, n), "f1") for w in (way, other))
            return difference(f, old)

        def to_new(way: str, group: str, n: int, change: Any = change) -> str:
            return change(way, group, n, "new")

        def to_product(way: str, group: str, n: int, change: Any = change) -> str:
            return change(way, group, n, "product")

        def of_round(way: str, group: str, n: int) -> str:
            f, old = (
                {t: v for t, v in means.items() if t.split(":")[0] in ROUND}
                for means in (
                    task_means(part(w, group, n), "f1") for w in (way, "today")
                )
            )
            return difference(f, old)

        def lost(way: str, group: str, n: int) -> str:
            shares = defaultdict(list)
            for r in part(way, group, n):
                truly = sum(r["errors"].values())
                if truly:
                    shares[r["task"]].append([r["errors"][k] for k in KINDS])
            sums = [np.sum(s, 0) / np.sum(s) for s in shares.values()]
            # shares of all that is lost, times what is lost
            f = task_means(part(way, group, n), "f1")
            total = 100 * (1 - np.mean(list(f.values())))
            return ", ".join(f"{total * v:.1f}" for v in np.mean(sums, 0))

        for what, of in (
            ("F1@0.5 / Dice", scores),
            ("F1 against today", change),
            ("F1 against new", to_new),
            ("F1 against product", to_product),
            (f"the same, {len(ROUND)} sets of round objects", of_round),
            (f"points of F1 lost: {', '.join(KINDS)}", lost),
        ):
            lines += ["", f"| {what}; chosen by {title} | {' | '.join(titles)} |"]
            lines.append("|---" * (len(places) + 1) + "|")
            for way in ways:
                if way == "today" and of in (change, of_round):
                    continue
                row = cells(lambda g, n, w=way, of=of: of(w, g, n))  # type: ignore[misc]
                lines.append(f"| {way} | {row} |")
    lines += ["", f"| F1 of each task, one box, by the prompts | {' | '.join(ways)} |"]
    lines.append("|---" * (len(ways) + 1) + "|")
    means = {w: task_means([r for r in kept[w] if r["boxes"] == 1], "f1") for w in ways}
    for task in means["today"]:
        values = " | ".join(f"{100 * means[w][task]:.1f}" for w in ways)
        lines.append(f"| {task} | {values} |")
    best = {}
    for way in ways:
        top: dict[tuple[Any, ...], float] = defaultdict(float)
        for r in records:
            if r["way"] == way:
                where = r["group"], r["boxes"], r["task"], r["image"]
                top[where] = max(top[where], r["f1"])
        best[way] = top
    lines += ["", f"| F1, best value of each image | {' | '.join(titles)} |"]
    lines.append("|---" * (len(places) + 1) + "|")
    for way in ways:

        def limit(group: str, n: int, way: str = way) -> str:
            found = [
                {"task": t, "f1": v}
                for (g, b, t, _), v in best[way].items()
                if (g, b) == (group, n)
            ]
            return f"{100 * np.mean(list(task_means(found, 'f1').values())):.1f}"

        lines.append(f"| {way} | {cells(limit)} |")
    return "\n".join(lines)


# -- command line --------------------------------------------------------------------


def main() -> None:
    """Train, decode true maps, score, or print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    training.add_argument("data", type=Path, help="folder of the data sets")
    training.add_argument("run", type=Path, help="folder of the checkpoint")
    training.add_argument("--steps", type=int, default=400)
    training.add_argument("--learning-rate", type=float, default=1.5e-3)
    true = commands.add_parser("oracle")
    true.add_argument("data", type=Path, nargs="+", help="data sets")
    true.add_argument("--queries", type=int, default=2, help="images of a set")
    scoring = commands.add_parser("score")
    scoring.add_argument("run", type=Path)
    scoring.add_argument("data", type=Path, nargs="+", help="data sets")
    scoring.add_argument("--queries", type=int, default=2, help="images of a set")
    scoring.add_argument("--trained", default="", help="sets that were trained on")
    scoring.add_argument("--json", type=Path, help="file of the records")
    printing = commands.add_parser("table")
    printing.add_argument("file", type=Path)
    options = parser.parse_args()
    if options.command == "train":
        train(options.data, options.run, options.steps, options.learning_rate)
    elif options.command == "oracle":
        print(oracle(options.data, options.queries))
    elif options.command == "score":
        trained = set(options.trained.split(","))
        records = score(
            options.run, options.data, options.queries, trained, options.json
        )
        print(tables(records))
    else:
        print(tables(json.loads(options.file.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
