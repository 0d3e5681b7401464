"""The image bank: patches that represent the subclasses of each class, and prototypes.

The bank is made of *places*: feature vectors of points in the images. The paper encodes
whole images instead; in images of cells most of a whole image is background
(``docs/decisions/0031-bank-of-places.md``).
"""

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
"""Places per window."""

TYPICAL = 0.3
"""Share of a class's places, the most typical ones, from which prototypes are made."""

RIDGE = 0.1
"""Regularisation of the discriminant, in units of the mean variance."""

NEVER_ALONE = (
    "no image shows only {!r}: its prototypes come from images that also show other "
    "classes, and may be a mixture"
)
NO_PATCH = "The bank has no patch of {!r} any more: keep at least one."


@dataclass(frozen=True, eq=False)
class Bank:
    """Prototypes of the classes, found before anything is trained.

    Parameters
    ----------
    encoder : BankEncoder
    prototypes : (classes, K, D) tensor
        Unit vectors; zeros where a class has fewer subclasses than K.
    filled : (classes, K) bool tensor
        Which of the prototypes exist.
    background : (M, D) tensor
        Prototypes of the background.
    patches : tuple of BankPatch
    notes : tuple of str
        What the user should know.
    """

    encoder: BankEncoder
    prototypes: Tensor
    filled: Tensor
    background: Tensor
    patches: tuple[BankPatch, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Places:
    """Places of all windows and their feature vectors.

    Parameters
    ----------
    vectors : (N, D) tensor
        Standardised unit vectors.
    window : (N,) int64 tensor
        Number of the window of each place.
    at : (N, 2) float tensor
        Position (y, x) in the window, in network pixels.
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
    """Return random places of all windows, and standardise the encoder by them.

    Parameters
    ----------
    encoder : BankEncoder
        Is moved to the device and standardised.
    windows : Windows
    device : torch.device
    seed : int
    per_window : int
    """
    generator = torch.Generator().manual_seed(seed)
    encoder.to(device)
    raw, window, at = [], [], []
    for index in torch.arange(len(windows)).split(8):
        maps = encoder.places(windows.images(index).to(device)).cpu()
        height, width = maps.shape[1:3]
        # a random subset: neighbouring places are alike, and all would fill the memory
        for i, vectors in zip(index.tolist(), maps, strict=True):
            n = min(per_window, height * width)
            chosen = torch.randperm(height * width, generator=generator)[:n]
            raw.append(vectors.flatten(0, 1)[chosen])
            window.append(torch.full((n,), i))
            rows, columns = chosen // width, chosen % width
            # the middle of a grid cell, in network pixels
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
    """Return the bank: typical places of each class, clustered into subclasses.

    For each class, the places are taken that differ most from the places of images
    without the class. They come from images that show no other class, if there are any.
    K-means clusters them into subclasses; the centres are the prototypes, and the
    patches around the places nearest to a centre are the bank.

    Parameters
    ----------
    encoder : BankEncoder
        Is standardised.
    windows : Windows
    shapes : sequence of (int, int)
        Height and width of each image, in image pixels.
    classes : tuple of str
    settings : TagTrainingSettings
    device : torch.device
    given : sequence of BankPatch, optional
        A bank that the user has edited. Removed patches are ignored; the mean of the
        other patches of a subclass is its prototype.

    Raises
    ------
    TagTrainingError
        If a class has no patch left.
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
            notes.append(NEVER_ALONE.format(name))
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
    if not empty.any():  # no image without tags: take what resembles no class
        likeness = torch.stack(scores).amax(0)
        empty = likeness <= likeness.quantile(TYPICAL)
    background, _ = cosine_kmeans(places.vectors[empty], k, generator)
    if given is not None:
        patches = list(given)
        prototypes = _prototypes_of(patches, classes, windows, places, settings)
    filled = prototypes.any(-1)
    for c, name in enumerate(classes):
        if not filled[c].any():
            raise TagTrainingError(NO_PATCH.format(name))
    return Bank(encoder, prototypes, filled, background, tuple(patches), tuple(notes))


def _difference(vectors: Tensor, own: Tensor, others: Tensor) -> Tensor:
    """Return the score of each vector by Fisher's linear discriminant.

    Parameters
    ----------
    vectors : (N, D) tensor
    own, others : (N,) bool tensors
        The two groups. The mean of ``others`` has the score 0.

    Returns
    -------
    (N,) tensor
        The higher, the more a vector differs from ``others`` as ``own`` do.
    """
    if not others.any():
        return torch.zeros(len(vectors))
    # direction = (covariance within the groups)^-1 (difference of their means)
    a, b = vectors[own], vectors[others]
    spread = (torch.cov(a.T) + torch.cov(b.T)) / 2
    ridge = RIDGE * spread.diagonal().mean() * torch.eye(len(spread))
    direction = torch.linalg.solve(spread + ridge, a.mean(0) - b.mean(0))
    return (vectors - b.mean(0)) @ direction


def _of_different_images(nearest: Tensor, image_of: Tensor, n: int) -> list[int]:
    """Return the first ``n`` places of different images, fewer if there are fewer."""
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
    """Return the patch around place ``i``, of the size of a prompt."""
    window = int(places.window[i])
    image = int(windows.owner[window])
    height, width = shapes[image]
    # a patch may become a prompt: 64 network pixels, in image pixels
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
    """Return prototypes (classes, K, D): the mean of each subclass's patches.

    Removed patches are ignored.
    """
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
    """Return the number of the place nearest to the middle of a patch, or None."""
    if patch.image not in windows.names:
        return None
    image = windows.names.index(patch.image)
    here = (windows.owner[places.window] == image).nonzero()[:, 0]
    corner = torch.as_tensor(windows.corner)[places.window[here]]
    middle = torch.tensor([patch.box.y, patch.box.x]) + patch.box.size / 2
    distance = (places.at[here] + corner - middle * scale).norm(dim=1)
    return int(here[distance.argmin()])
