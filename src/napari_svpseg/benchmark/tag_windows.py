"""Windows with tags, cut from data sets with masks, to try and measure tag training.

The tags of a window are the classes in its mask; only the tags are written with it. All
combinations of classes are equally frequent, as far as possible: if every window showed
every class there would be nothing to learn.
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
from ..io.ownership import check_replaceable
from ..io.tag_files import Tags, image_files, write_tags
from .one_shot_tasks import scored_images

MIN_SHARE = 0.01
"""Windows in which a class covers less than this, but more than 0, are not used."""

BLANK = 0.02
"""Windows whose contrast is below this share of the image's are empty, and not used."""

TRIES = 60
"""Random windows per image among which is chosen."""

NO_CLASSES = (
    "{}: tags are names of classes, and dataset.toml names none under [classes]."
)
HAS_IMAGES = "{}: contains images already: choose another folder."
NO_IMAGE_LEFT = (
    "{}: the benchmark scores all its {} images, none is left to cut windows from."
)


@dataclass(frozen=True, eq=False)
class TaggedWindow:
    """A window of an image, and the classes that it shows.

    Parameters
    ----------
    source : str
        Name of the image.
    image : (S, S, C) array
    intensities : (C, 2) array
        Percentiles of the whole image.
    labels : (S, S) int array
        Class ids.
    values : tuple of int
        Ids of the classes in the window.
    """

    source: str
    image: np.ndarray
    intensities: np.ndarray
    labels: np.ndarray
    values: tuple[int, ...]


def pick_windows(
    dataset: Dataset, images: Sequence[str], side: int, n: int, seed: int = 0
) -> list[TaggedWindow]:
    """Return windows of images, one of each combination of classes in turn.

    Parameters
    ----------
    dataset : Dataset
        Its labels are class ids.
    images : sequence of str
        Names.
    side : int
        Side of a window in image pixels; a smaller image is one window.
    n : int
        Number of windows at most.
    seed : int

    Raises
    ------
    DatasetError
        If its labels are not classes.
    """
    if not dataset.classes:
        raise DatasetError(NO_CLASSES.format(dataset.folder))
    rng = np.random.default_rng(seed)
    pools: dict[tuple[int, ...], list[TaggedWindow]] = defaultdict(list)
    for name in images:
        for window in _windows_of(dataset, name, side, rng):
            pools[window.values].append(window)
    return list(_evenly_of(pools, n, rng))


def _windows_of(
    dataset: Dataset, name: str, side: int, rng: np.random.Generator
) -> Iterator[TaggedWindow]:
    """Yield random windows of an image whose classes are clear."""
    image, labels = dataset.image(name), dataset.labels(name)
    image = image if image.ndim == 3 else image[..., None]
    # of the whole image: an empty window by itself would be stretched to full contrast
    intensities = intensity_range(image)
    spread = float(np.diff(intensities, axis=1).mean())
    height, width = labels.shape
    for _ in range(TRIES):
        y = int(rng.integers(max(1, height - side + 1)))
        x = int(rng.integers(max(1, width - side + 1)))
        at = slice(y, y + side), slice(x, x + side)
        share = {v: float((labels[at] == v).mean()) for v in sorted(dataset.classes)}
        # a few pixels of a class may be an error of the mask, and nobody would tag them
        unclear = any(0 < s < MIN_SHARE for s in share.values())
        if unclear or image[at].std(axis=(0, 1)).mean() < BLANK * spread:
            continue
        shown = tuple(v for v, s in share.items() if s)
        yield TaggedWindow(name, image[at], intensities, labels[at], shown)


def _evenly_of(
    pools: dict[tuple[int, ...], list[TaggedWindow]], n: int, rng: np.random.Generator
) -> Iterator[TaggedWindow]:
    """Yield up to ``n`` windows, one of each pool in turn until it is empty."""
    left = {kind: list(rng.permutation(len(pools[kind]))) for kind in sorted(pools)}
    while n > 0 and any(left.values()):
        for kind, order in left.items():
            if order and n > 0:
                yield pools[kind][order.pop()]
                n -= 1


def write_windows(
    dataset: Dataset,
    folder: str | Path,
    side: int,
    n: int,
    seed: int = 0,
    *,
    overwrite: bool = False,
) -> Tags:
    """Write windows of a data set as images with a ``tags.csv``, and return the tags.

    Images that the one-shot benchmark scores are left out, so that it can measure a
    model trained on the windows.

    Parameters
    ----------
    dataset : Dataset
    folder : path
        Folder to write; must not contain images.
    side, n, seed
        See `pick_windows`.
    overwrite : bool
        Allow to replace a ``tags.csv``.

    Raises
    ------
    DatasetError
        If the labels are not classes, no image is left, or the folder contains images.
    """
    folder = Path(folder)
    if folder.is_dir() and image_files(folder):
        raise DatasetError(HAS_IMAGES.format(folder))
    check_replaceable(folder / "tags.csv", overwrite)
    scored = scored_images(dataset)
    images = [name for name in dataset.ids if name not in scored]
    if not images:
        raise DatasetError(NO_IMAGE_LEFT.format(dataset.folder, len(dataset.ids)))
    windows = pick_windows(dataset, images, side, n, seed)
    folder.mkdir(parents=True, exist_ok=True)
    tags_of = {}
    for i, window in enumerate(windows):
        name = f"{i:04d}_{window.source}.png"
        image = window.image[..., 0] if window.image.shape[2] == 1 else window.image
        with atomic_path(folder / name) as part:
            imsave(part, image, check_contrast=False)
        tags_of[name] = [class_name(dataset.classes[v]) for v in window.values]
    names = [class_name(dataset.classes[v]) for v in sorted(dataset.classes)]
    used = [c for c in names if any(c in shown for shown in tags_of.values())]
    tags = Tags(tags_of, used)
    write_tags(folder / "tags.csv", tags, overwrite=overwrite)
    return tags


def class_name(text: str) -> str:
    """Return a class name without commas and semicolons, which separate tags.

    Examples
    --------
    >>> class_name("background, red cells")
    'background red cells'
    """
    return " ".join(text.replace(",", " ").replace(";", " ").split())
