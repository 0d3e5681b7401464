"""Tagged windows of data sets with masks: to try training from tags, and to measure it.

What a window holds is known from its mask; only that is written beside it. Each
combination of classes is taken as often as it can be had: where every window held every
class there would be nothing to learn.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from skimage.io import imsave

from ..core.image import intensity_range
from ..io.atomic import atomic_path
from ..io.datasets import Dataset, DatasetError
from ..io.tag_files import Tags, image_files, write_tags
from .one_shot_tasks import scored_images

MIN_SHARE = 0.01
"""Windows in which a class covers less than this, but some, are not used."""

BLANK = 0.02
"""Windows that vary less than this share of the image show nothing."""

TRIES = 60
"""Windows looked at in each image."""


@dataclass(frozen=True, eq=False)
class TaggedWindow:
    """A window of an image, and what it holds.

    Parameters
    ----------
    source : str
    image : (S, S, C) array
    intensities : (C, 2) array
        Percentiles of the whole image.
    labels : (S, S) int array
    values : tuple of int
        Class ids that it holds.
    """

    source: str
    image: np.ndarray
    intensities: np.ndarray
    labels: np.ndarray
    values: tuple[int, ...]


def pick_windows(
    dataset: Dataset, images: Sequence[str], side: int, n: int, seed: int = 0
) -> list[TaggedWindow]:
    """Return windows of some images, one of each combination of classes in turn.

    Parameters
    ----------
    dataset : Dataset
        With class ids as labels.
    images : sequence of str
    side : int
        Of a window, in pixels of the image; a smaller image is one window.
    n : int
        Windows at most.
    seed : int

    Raises
    ------
    DatasetError
        If its labels are not classes.
    """
    if not dataset.classes:
        raise DatasetError(
            f"{dataset.folder}: tags are names of classes, and dataset.toml names none "
            "under [classes]."
        )
    rng = np.random.default_rng(seed)
    pools: dict[tuple[int, ...], list[TaggedWindow]] = defaultdict(list)
    for name in images:
        for window in _windows_of(dataset, name, side, rng):
            pools[window.values].append(window)
    return list(_evenly_of(pools, n, rng))


def _windows_of(
    dataset: Dataset, name: str, side: int, rng: np.random.Generator
) -> Iterator[TaggedWindow]:
    image, labels = dataset.image(name), dataset.labels(name)
    image = image if image.ndim == 3 else image[..., None]
    intensities = intensity_range(image)
    spread = float(np.diff(intensities, axis=1).mean())
    height, width = labels.shape
    for _ in range(TRIES):
        y = int(rng.integers(max(1, height - side + 1)))
        x = int(rng.integers(max(1, width - side + 1)))
        at = slice(y, y + side), slice(x, x + side)
        share = {v: float((labels[at] == v).mean()) for v in sorted(dataset.classes)}
        doubtful = any(0 < s < MIN_SHARE for s in share.values())
        if doubtful or image[at].std(axis=(0, 1)).mean() < BLANK * spread:
            continue
        held = tuple(v for v, s in share.items() if s)
        yield TaggedWindow(name, image[at], intensities, labels[at], held)


def _evenly_of(
    pools: dict[tuple[int, ...], list[TaggedWindow]], n: int, rng: np.random.Generator
) -> Iterator[TaggedWindow]:
    left = {kind: list(rng.permutation(len(pools[kind]))) for kind in sorted(pools)}
    while n > 0 and any(left.values()):
        for kind, order in left.items():
            if order and n > 0:
                yield pools[kind][order.pop()]
                n -= 1


def write_windows(
    dataset: Dataset, folder: str | Path, side: int, n: int, seed: int = 0
) -> Tags:
    """Write windows of a data set as images, and their ``tags.csv``.

    Pictures that the one-shot benchmark scores are left out, so that what is trained on
    the windows can be measured by it.

    Raises
    ------
    DatasetError
        If its labels are not classes, no image is left, or images are in the folder.
    """
    folder = Path(folder)
    if folder.is_dir() and image_files(folder):
        raise DatasetError(f"{folder}: holds images already: choose another folder.")
    scored = scored_images(dataset)
    images = [name for name in dataset.ids if name not in scored]
    if not images:
        raise DatasetError(
            f"{dataset.folder}: the benchmark scores all its {len(dataset.ids)} "
            "images, none is left to cut windows from."
        )
    windows = pick_windows(dataset, images, side, n, seed)
    folder.mkdir(parents=True, exist_ok=True)
    held = {}
    for i, window in enumerate(windows):
        name = f"{i:04d}_{window.source}.png"
        image = window.image[..., 0] if window.image.shape[2] == 1 else window.image
        with atomic_path(folder / name) as part:
            imsave(part, image, check_contrast=False)
        held[name] = [class_name(dataset.classes[v]) for v in window.values]
    names = [class_name(dataset.classes[v]) for v in sorted(dataset.classes)]
    used = [c for c in names if any(c in of for of in held.values())]
    tags = Tags(held, used)
    write_tags(folder / "tags.csv", tags)
    return tags


def class_name(text: str) -> str:
    """Return a name of a class that a table of tags can hold.

    Examples
    --------
    >>> class_name("background, red cells")
    'background red cells'
    """
    return " ".join(text.replace(",", " ").replace(";", " ").split())
