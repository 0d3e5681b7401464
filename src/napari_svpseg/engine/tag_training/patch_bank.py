"""The image bank: patches that stand for the looks of each class, and prototypes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ...core.annotation.image_tags import (
    BankPatch,
    TagTrainingError,
    TagTrainingSettings,
)
from ...core.geometry import MIN_BOX_SIZE, PROMPT_SIZE, Box
from ...models.pbip import GRID, BankEncoder, cosine_kmeans
from .tagged_crops import Windows

PLACES = 64
"""Places looked at in each window."""

TYPICAL = 0.3
"""Share of a class's places, the most typical ones, that prototypes are made of."""

RIDGE = 0.1


@dataclass(frozen=True, eq=False)
class Bank:
    """What is known of the classes before anything is trained.

    Parameters
    ----------
    encoder : BankEncoder
    prototypes : (classes, K, D) tensor
        Unit vectors; zeros where a class has fewer looks.
    filled : (classes, K) bool tensor
    background : (M, D) tensor
    patches : tuple of BankPatch
    notes : tuple of str
    """

    encoder: BankEncoder
    prototypes: Tensor
    filled: Tensor
    background: Tensor
    patches: tuple[BankPatch, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Places:
    """Vectors of places in all windows.

    Parameters
    ----------
    vectors : (N, D) tensor
    window : (N,) int64 tensor
    at : (N, 2) float tensor
        Centre in the window, in network pixels.
    """

    vectors: Tensor
    window: Tensor
    at: Tensor


@torch.inference_mode()
def describe_places(
    encoder: BankEncoder,
    windows: Windows,
    device: torch.device,
    *,
    seed: int = 0,
    per_window: int = PLACES,
) -> Places:
    """Return the vectors of random places, and standardise the encoder by them."""
    generator = torch.Generator().manual_seed(seed)
    encoder.to(device)
    raw, window, at = [], [], []
    for index in torch.arange(len(windows)).split(8):
        maps = encoder.places(windows.images(index).to(device)).cpu()
        height, width = maps.shape[1:3]
        for i, vectors in zip(index.tolist(), maps, strict=True):
            n = min(per_window, height * width)
            chosen = torch.randperm(height * width, generator=generator)[:n]
            raw.append(vectors.flatten(0, 1)[chosen])
            window.append(torch.full((n,), i))
            rows, columns = chosen // width, chosen % width
            at.append((torch.stack([rows, columns], 1) + 0.5) * GRID)
    joined = torch.cat(raw).to(device)
    encoder.standardise_by(joined)
    return Places(encoder.standardised(joined).cpu(), torch.cat(window), torch.cat(at))


def build_bank(
    encoder: BankEncoder,
    windows: Windows,
    shapes: Sequence[tuple[int, int]],
    classes: tuple[str, ...],
    settings: TagTrainingSettings,
    device: torch.device,
    given: Sequence[BankPatch] | None = None,
) -> Bank:
    """Find the looks of each class in the images that hold it.

    Of images that hold one class only, where there are any, the places are taken that
    differ most from all places of images without the class. They are clustered; the
    centres are the prototypes, and the patches around the places nearest to them are
    the bank.

    Parameters
    ----------
    encoder : BankEncoder
        Is standardised.
    windows : Windows
    shapes : sequence of (int, int)
        Height and width of each image, in its own pixels.
    classes : tuple of str
    settings : TagTrainingSettings
    device : torch.device
    given : sequence of BankPatch, optional
        A bank that the user has looked through. What was removed counts no more; the
        mean of the other patches of a look is its prototype.

    Raises
    ------
    TagTrainingError
        If a class is left without a patch.
    """
    places = describe_places(encoder, windows, device, seed=settings.seed)
    k = settings.n_prototypes
    length = places.vectors.shape[1]
    prototypes = torch.zeros(len(classes), k, length)
    generator = torch.Generator().manual_seed(settings.seed)
    patches: list[BankPatch] = []
    notes: list[str] = []
    scores = []
    image_of = windows.owner[places.window]
    for c, name in enumerate(classes):
        held = windows.tags[:, c] > 0
        alone = held & (windows.tags.sum(1) == 1)
        if not alone.any():
            notes.append(
                f"no image holds only {name!r}: its prototypes are made of images that "
                "hold other classes too, and may be mixed"
            )
        own = (alone if alone.any() else held)[image_of]
        without = ~held[image_of]
        score = _difference(places.vectors, own, without)
        scores.append(score)
        best = own.nonzero()[:, 0]
        best = best[score[best].argsort(descending=True)]
        best = best[: max(k, round(TYPICAL * len(best)))]
        centres, _ = cosine_kmeans(places.vectors[best], k, generator)
        prototypes[c, : len(centres)] = centres
        if given is None:
            for s, centre in enumerate(centres):
                nearest = best[(places.vectors[best] @ centre).argsort(descending=True)]
                chosen = _of_different_images(nearest, image_of, settings.n_patches)
                patches += [
                    _patch(windows, places, i, shapes, settings.scale, name, s)
                    for i in chosen
                ]
    empty = windows.tags.sum(1)[image_of] == 0
    if not empty.any():  # then what is least like any class
        likeness = torch.stack(scores).amax(0)
        empty = likeness <= likeness.quantile(TYPICAL)
    background, _ = cosine_kmeans(places.vectors[empty], k, generator)
    if given is not None:
        patches = list(given)
        prototypes = _prototypes_of(patches, classes, windows, places, settings)
    filled = prototypes.any(-1)
    for c, name in enumerate(classes):
        if not filled[c].any():
            raise TagTrainingError(
                f"The bank holds no patch of {name!r} any more: keep at least one."
            )
    return Bank(encoder, prototypes, filled, background, tuple(patches), tuple(notes))


def _difference(vectors: Tensor, own: Tensor, others: Tensor) -> Tensor:
    """Return how much more like the one than like the others each vector is.

    0 is as the others are, on average.
    """
    if not others.any():
        return torch.zeros(len(vectors))
    a, b = vectors[own], vectors[others]
    spread = (torch.cov(a.T) + torch.cov(b.T)) / 2
    ridge = RIDGE * spread.diagonal().mean() * torch.eye(len(spread))
    direction = torch.linalg.solve(spread + ridge, a.mean(0) - b.mean(0))
    return (vectors - b.mean(0)) @ direction


def _of_different_images(nearest: Tensor, image_of: Tensor, n: int) -> list[int]:
    """Return the first n, each of another image where there are enough."""
    seen: dict[int, int] = {}
    for i in nearest.tolist():
        seen.setdefault(int(image_of[i]), i)
        if len(seen) == n:
            break
    return list(seen.values())


def _patch(
    windows: Windows,
    places: Places,
    i: int,
    shapes: Sequence[tuple[int, int]],
    scale: float,
    name: str,
    subclass: int,
) -> BankPatch:
    window = int(places.window[i])
    image = int(windows.owner[window])
    height, width = shapes[image]
    side = min(max(MIN_BOX_SIZE, round(PROMPT_SIZE / scale)), height, width)
    y, x = (places.at[i].numpy() + windows.corner[window]) / scale
    box = Box.centred((y - 0.5, x - 0.5), side).clamped((height, width))
    return BankPatch(name, subclass, windows.names[image], box)


def _prototypes_of(
    patches: Sequence[BankPatch],
    classes: tuple[str, ...],
    windows: Windows,
    places: Places,
    settings: TagTrainingSettings,
) -> Tensor:
    """Return the mean vector of the patches of each look that were not removed."""
    prototypes = torch.zeros(
        len(classes), settings.n_prototypes, places.vectors.shape[1]
    )
    for patch in patches:
        if patch.removed or patch.class_name not in classes:
            continue
        near = _place_near(patch, windows, places, settings.scale)
        if near is not None and patch.subclass < settings.n_prototypes:
            c = classes.index(patch.class_name)
            prototypes[c, patch.subclass] += places.vectors[near]
    return F.normalize(prototypes, dim=-1)


def _place_near(
    patch: BankPatch, windows: Windows, places: Places, scale: float
) -> int | None:
    """Return the place that was looked at nearest to the middle of a patch."""
    if patch.image not in windows.names:
        return None
    image = windows.names.index(patch.image)
    here = (windows.owner[places.window] == image).nonzero()[:, 0]
    corner = torch.as_tensor(windows.corner)[places.window[here]]
    middle = torch.tensor([patch.box.y, patch.box.x]) + patch.box.size / 2
    distance = (places.at[here] + corner - middle * scale).norm(dim=1)
    return int(here[distance.argmin()])
