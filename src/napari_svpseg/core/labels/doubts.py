"""Doubtful objects: those that may be wrong, missed, or several in one.

Each is a question with an answer, and the questions come in the order of what their
answers are expected to change in all images. Each answer counts for all like it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import ndimage
from skimage.measure import label as connected_components

from ..result import Maps
from ..settings import PostprocessSettings
from .instances import instances_from_maps, smallest_area
from .uncertainty import POSSIBLE_FOREGROUND

Array = np.ndarray
Kind = Literal["wrong", "missed", "touching"]
Point = tuple[int, int]

LEAST_CHANCE = 0.12
"""Chance from which something is doubtful."""

READIER_SPLIT = 0.8
"""Split strength whose cuts may have been left out wrongly."""

LEAST_PIECE = 0.2
"""Least share of an object that a piece must have for the object to be doubtful."""

TOUCHING_CHANCE = 0.35
"""Chance that such an object is several: most are not."""

ALIKE_CHANCE, ALIKE_SIZE = 0.15, 0.6
"""Difference of chance, and of the logarithm of the area, up to which two are alike."""

PRIOR = 2.0
"""Answers about doubts like it that the model's own chance counts as much as."""

RIM = 2
"""Pixels around an object that belong to its uncertain rim."""


@dataclass(frozen=True)
class Doubt:
    """An object, or what may be one, that is doubtful.

    Parameters
    ----------
    kind : {"wrong", "missed", "touching"}
        An object that may be none, none that may be one, one that may be several.
    point : (int, int)
        A pixel (y, x) of it, near its middle.
    window : (int, int, int, int)
        First row, last row + 1, first column, last column + 1.
    chance : float
        That it is so, in [0, 1].
    area : int
        In pixels.
    """

    kind: Kind
    point: Point
    window: tuple[int, int, int, int]
    chance: float
    area: int

    def is_about(self, kind: Kind, point: Point) -> bool:
        """Return whether it is of a kind and has a point in its window."""
        y0, y1, x0, x1 = self.window
        y, x = point
        return kind == self.kind and y0 <= y < y1 and x0 <= x < x1


def doubts(
    maps: Maps, labels: Array, settings: PostprocessSettings | None = None
) -> list[Doubt]:
    """Return what is doubtful in the result of one plane, in no order.

    Parameters
    ----------
    maps : Maps
    labels : (Y, X) int array
    settings : PostprocessSettings, optional
        With which the labels were made.
    """
    settings = PostprocessSettings.of(settings)
    return [
        *_wrong(maps, labels),
        *_missed(maps, labels, settings),
        *_touching(maps, labels, settings),
    ]


def _wrong(maps: Maps, labels: Array) -> Iterable[Doubt]:
    ids, index = np.unique(labels, return_inverse=True)
    index = index.reshape(labels.shape)
    mean = _means(maps.foreground, index, len(ids))
    chances = np.clip(1 - mean, 0, 1)
    chances[ids == 0] = 0
    return _described("wrong", index, chances)


def _missed(
    maps: Maps, labels: Array, settings: PostprocessSettings
) -> Iterable[Doubt]:
    # the rim of an object is no object
    free = ~ndimage.binary_dilation(labels > 0, iterations=RIM)
    regions = np.asarray(
        connected_components((maps.foreground >= POSSIBLE_FOREGROUND) & free)
    )
    n = int(regions.max()) + 1
    chances = np.clip(_means(maps.foreground, regions, n), 0, 1)
    area = np.bincount(regions.ravel(), minlength=n)
    chances[(area < smallest_area(maps, settings)) | (np.arange(n) == 0)] = 0
    return _described("missed", regions, chances)


def _touching(
    maps: Maps, labels: Array, settings: PostprocessSettings
) -> Iterable[Doubt]:
    if not settings.split or settings.split_strength >= READIER_SPLIT:
        return []
    finer = readier_objects(maps, settings)
    ids, index = np.unique(labels, return_inverse=True)
    index = index.reshape(labels.shape)
    area = np.bincount(index.ravel())
    both = index.astype(np.int64) * (int(finer.max(initial=0)) + 1) + finer
    pairs, shared = np.unique(both[(labels > 0) & (finer > 0)], return_counts=True)
    owner = pairs // (int(finer.max(initial=0)) + 1)
    large = shared >= LEAST_PIECE * area[owner]
    pieces = np.bincount(owner[large], minlength=len(ids))
    chances = np.where(pieces > 1, TOUCHING_CHANCE, 0.0)
    return _described("touching", index, chances)


def readier_objects(maps: Maps, settings: PostprocessSettings) -> Array:
    """Return the labels with objects split more readily than by the settings."""
    return instances_from_maps(maps, replace(settings, split_strength=READIER_SPLIT))


def _means(values: Array, index: Array, n: int) -> Array:
    sums = np.bincount(index.ravel(), values.ravel(), n)
    return np.asarray(sums / np.maximum(np.bincount(index.ravel(), minlength=n), 1))


def _described(kind: Kind, index: Array, chances: Array) -> list[Doubt]:
    """Return the doubtful ones of regions that are numbered from 0."""
    found = []
    windows = ndimage.find_objects(index)
    for i in np.flatnonzero(chances >= LEAST_CHANCE).tolist():
        window = windows[i - 1] if i else None
        if window is None:
            continue
        mask = index[window] == i
        depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
        y, x = np.unravel_index(int(np.argmax(depth)), mask.shape)
        rows, columns = window
        found.append(
            Doubt(
                kind,
                (int(rows.start + y), int(columns.start + x)),
                (rows.start, rows.stop, columns.start, columns.stop),
                float(chances[i]),
                int(mask.sum()),
            )
        )
    return found


@dataclass(frozen=True)
class Answer:
    """What a user said about a doubt.

    Parameters
    ----------
    doubt : Doubt
    is_so : bool
        Whether the object is wrong, missed, or several.
    """

    doubt: Doubt
    is_so: bool


@dataclass(frozen=True)
class Question:
    """The next doubt to be asked about.

    Parameters
    ----------
    image : int
        Which of the images it is in.
    doubt : Doubt
    chance : float
        That it is so, after the answers about doubts like it, in [0, 1].
    alike : int
        How many are like it in all images, itself included.
    images : int
        In how many images they are.
    """

    image: int
    doubt: Doubt
    chance: float
    alike: int
    images: int

    @property
    def expected_change(self) -> float:
        """Objects that the answer is expected to change in all images."""
        return self.alike * self.chance


def questions(
    found: Sequence[Sequence[Doubt]], answers: Sequence[Answer] = ()
) -> list[Question]:
    """Return the doubts of all images, by what their answers are expected to change.

    Each answer counts for all doubts that are like its own, in all images: a *no* makes
    them less likely, a *yes* more. Those that have become unlikely are left out.

    Parameters
    ----------
    found : sequence of sequence of Doubt
        Of each image, those that were not asked about.
    answers : sequence of Answer, optional
        Given so far, in whichever image.
    """
    every = [(i, doubt) for i, few in enumerate(found) for doubt in few]
    if not every:
        return []
    images = np.array([i for i, _ in every])
    them = _traits([doubt for _, doubt in every])
    said = _traits([answer.doubt for answer in answers])
    is_so = np.array([answer.is_so for answer in answers], bool)
    asked = []
    for i, doubt in every:
        alike = _alike(doubt, them)
        heard = is_so[_alike(doubt, said)]
        chance = (PRIOR * doubt.chance + heard.sum()) / (PRIOR + heard.size)
        if chance >= LEAST_CHANCE:
            where = np.unique(images[alike])
            asked.append(
                Question(i, doubt, float(chance), int(alike.sum()), int(where.size))
            )
    return sorted(asked, key=lambda question: -question.expected_change)


def _traits(them: Sequence[Doubt]) -> tuple[Array, Array, Array]:
    """Return kinds, chances, and logarithms of areas."""
    return (
        np.array([doubt.kind for doubt in them], str),
        np.array([doubt.chance for doubt in them], float),
        np.log(np.array([doubt.area for doubt in them], float)),
    )


def _alike(doubt: Doubt, traits: tuple[Array, Array, Array]) -> Array:
    """Return which doubts are like one, (N,) bool."""
    kinds, chances, sizes = traits
    return np.asarray(
        (kinds == doubt.kind)
        & (np.abs(chances - doubt.chance) <= ALIKE_CHANCE)
        & (np.abs(sizes - np.log(doubt.area)) <= ALIKE_SIZE)
    )
