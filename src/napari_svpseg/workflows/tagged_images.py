"""Images with image-level tags, read when they are needed, and checks of the tags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..core.annotation.image_tags import TagTrainingError
from ..core.geometry import MIN_BOX_SIZE
from ..core.image import (
    ImageError,
    channels_last,
    intensity_range,
    to_three_channels,
)
from ..io.images import read_image
from ..io.tag_files import Tags, read_tags, tagged_files

Images = str | Path | Mapping[str, Any] | Sequence[Any]
"""A folder, images by name, or a list of paths or arrays."""

TagsOfImages = Tags | str | Path | Mapping[str, Iterable[str]] | Sequence[Iterable[str]]
"""Tags, the path of a ``tags.csv``, or the classes of each image."""

MAX_NAMED = 5
"""Images that a note names; of further ones it gives the number."""

PIXELS_OF_EACH = 10_000
"""Pixels sampled of each image for intensities that all share."""

FEW_IMAGES = 3
"""Images that should hold a class at least."""

OTHER_NUMBER = (
    "{images} images but tags of {tags}: give a list of classes for each image."
)
STACK = (
    "{path}: tags are for single planes, this file has the axes {axes}: save its "
    "planes one by one."
)
TOO_SMALL = "{name}: {height} x {width} pixels are too few, {side} x {side} are needed."
NOT_FINITE = "{name}: no pixel of it is a finite number: leave it out."
NO_CLASS = "No image has a class: tag at least one image."
ONE_IMAGE = "{n} image: tags only help by comparison, give at least 2 that differ."
UNUSED_CLASS = "No image holds {name!r}: tag one, or remove the class."
EVERYWHERE = (
    "Every image holds {what}: add images without, such as windows of background, so "
    "that there is something to compare with."
)
ONE_EVERYWHERE = (
    "every image holds {name!r}: its place cannot be learned well, add images without "
    "it"
)
RARE = f"fewer than {FEW_IMAGES} images hold {{name!r}}"


@dataclass(frozen=True, eq=False)
class TaggedImages:
    """Images that are read when they are needed, with the classes that each holds.

    Parameters
    ----------
    sources : dict of str to path or array
        In the order of the tags.
    tags : Tags
    notes : tuple of str
        What was left out, and why.
    """

    sources: dict[str, Any]
    tags: Tags
    notes: tuple[str, ...] = ()
    _intensities: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, images: Images, tags: TagsOfImages) -> TaggedImages:
        """Return images and tags as they may be given to `train_from_tags`."""
        given = read_tags(tags) if isinstance(tags, str | Path) else tags
        if isinstance(images, str | Path):
            if not isinstance(given, Mapping):
                raise TagTrainingError("tags of a folder name its files")
            known = given if isinstance(given, Tags) else Tags(given)
            files, notes = tagged_files(images, known)
            return cls(dict(files), known, tuple(notes))
        named = _named(images)
        if not isinstance(given, Mapping):
            given = list(given)
            if len(given) != len(named):
                raise TagTrainingError(
                    OTHER_NUMBER.format(images=len(named), tags=len(given))
                )
            given = dict(zip(named, given, strict=True))
        known = given if isinstance(given, Tags) else Tags(given)
        sources = {name: named[name] for name in known if name in named}
        missing = [name for name in known if name not in named]
        untagged = [name for name in named if name not in known]
        return cls(
            sources,
            known,
            (
                *named_in_note("tagged but not there, left out", missing),
                *named_in_note("without tags, left out", untagged),
            ),
        )

    def plane(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return an image (Y, X, C) and its percentiles (C, 2).

        Raises
        ------
        ImageError
            If it cannot be read, is a stack, has more than three channels, or no
            pixel that is a number.
        """
        source = self.sources[name]
        if isinstance(source, str | Path):
            file = read_image(source)
            if file.axes.stack:
                raise ImageError(STACK.format(path=source, axes=file.axes.order))
            plane = file.axes.to_plane(np.asarray(file.array))
            plane, _ = channels_last(plane, rgb=file.rgb)
        else:
            plane, _ = channels_last(np.asarray(source))
        to_three_channels(np.empty((0, 0, plane.shape[2])))  # raises for too many
        height, width = plane.shape[:2]
        if min(height, width) < MIN_BOX_SIZE:
            raise ImageError(
                TOO_SMALL.format(
                    name=name, height=height, width=width, side=MIN_BOX_SIZE
                )
            )
        if plane.dtype.kind == "f" and not np.isfinite(plane).any():
            raise ImageError(NOT_FINITE.format(name=name))
        if name not in self._intensities:
            self._intensities[name] = intensity_range(plane)
        return plane, self._intensities[name]

    def share_intensities(self, largest: int | None) -> dict[str, Any] | None:
        """Give all images the percentiles of all of them together.

        Windows cut from larger images need that: in one of empty background, its own
        percentiles would stretch the noise until it looks like cells.

        Parameters
        ----------
        largest : int or None
            Nothing is done if a side of an image is longer.

        Returns
        -------
        dict or None
            For the model's card: ``range`` (the percentiles of each channel),
            ``dtype``, ``largest``. None where the images keep their own percentiles:
            they are larger, or of several kinds.
        """
        pixels, kinds = [], set()
        for name in self.sources:
            try:
                plane, _ = self.plane(name)
            except ImageError:
                continue  # noted when it is read to be trained on
            kinds.add((plane.shape[2], plane.dtype))
            too_large = largest is not None and max(plane.shape[:2]) > largest
            if too_large or len(kinds) > 1:
                return None
            flat = plane.reshape(-1, plane.shape[2])
            pixels.append(flat[:: max(1, len(flat) // PIXELS_OF_EACH)])
        if not pixels:
            return None
        shared = intensity_range(np.concatenate(pixels))
        self._intensities.update(dict.fromkeys(self.sources, shared))
        dtype = str(kinds.pop()[1])
        return {"range": shared.tolist(), "dtype": dtype, "largest": largest}


def _named(images: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    """Return images by name: that of the file, else ``image N``."""
    if isinstance(images, Mapping):
        return dict(images)
    return {
        str(image) if isinstance(image, str | Path) else f"image {i}": image
        for i, image in enumerate(images, start=1)
    }


def named_in_note(what: str, names: Sequence[str]) -> list[str]:
    """Return a note that names some things, or none where there are none.

    Examples
    --------
    >>> named_in_note("left out", ["a", "b"])
    ['left out: a, b']
    """
    if not names:
        return []
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return [f"{what}: {', '.join(names[:MAX_NAMED])}{more}"]


def check_tags(
    tags: Mapping[str, frozenset[str]], classes: tuple[str, ...]
) -> list[str]:
    """Return notes on the tags of the images that can be used.

    Raises
    ------
    TagTrainingError
        If nothing can be learned from them.
    """
    if not classes:
        raise TagTrainingError(NO_CLASS)
    if len(tags) < 2:
        raise TagTrainingError(ONE_IMAGE.format(n=len(tags)))
    n_images = {c: sum(c in held for held in tags.values()) for c in classes}
    for name, n in n_images.items():
        if not n:
            raise TagTrainingError(UNUSED_CLASS.format(name=name))
    everywhere = [c for c, n in n_images.items() if n == len(tags)]
    if len(everywhere) == len(classes):
        what = "the class" if len(classes) == 1 else "all classes"
        raise TagTrainingError(EVERYWHERE.format(what=what))
    notes = [ONE_EVERYWHERE.format(name=name) for name in everywhere]
    rare = [c for c, n in n_images.items() if n < FEW_IMAGES]
    return notes + [RARE.format(name=name) for name in rare]
