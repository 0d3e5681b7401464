"""Axes of an image layer, as its source file states them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ....core.image import ImageError
from .pyramid import full_shape

if TYPE_CHECKING:
    from napari.layers import Image

MAX_GUESSES = 1
"""A shape that fits the file in more ways than this says nothing."""


def file_axes(layer: Image) -> str:
    """Return the axes that the source file of a layer states; empty if it does not.

    The layer has the shape of the file, with or without its axes of length 1 and its
    channels, which readers drop or make layers of.
    """
    path = str(getattr(layer.source, "path", None) or "")
    try:
        age = Path(path).stat().st_mtime_ns if path else 0
    except OSError:
        return ""
    letters, lengths = _stated(path, age) if path else ("", ())
    shape = full_shape(layer)
    known = list(zip(letters, lengths, strict=False))
    long = [pair for pair in known if pair[1] > 1 or pair[0] in "YX"]
    ways = (known, long, *([p for p in way if p[0] != "C"] for way in (known, long)))
    fits = {
        "".join(letter for letter, _ in way)
        for way in ways
        if way and tuple(n for _, n in way) == shape
    }
    return fits.pop() if len(fits) == MAX_GUESSES else ""


@lru_cache(maxsize=64)
def _stated(path: str, age: int) -> tuple[str, tuple[int, ...]]:
    """Return axes and shape of a TIFF or Zarr of a certain age, without its pixels."""
    from ....io.images import TIFF_SUFFIXES, read_tiff_facts, split_series
    from ....io.ome_zarr import is_zarr, open_image

    try:
        file, series = split_series(path)
        if file.suffix.lower() in TIFF_SUFFIXES:
            facts = read_tiff_facts(file, series)
            return facts.axes, facts.shape
        if is_zarr(path):
            image = open_image(path)
            return image.axes.order, tuple(image.array.shape)
    except ImageError:  # damaged, or without axes
        return "", ()
    return "", ()
