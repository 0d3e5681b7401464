"""What plain ImageJ reads of an OME-TIFF: frames, planes and their distance.

ImageJ knows no OME-XML. It reads a description of its own, which here is a second tag
ImageDescription beside that of OME: ImageJ takes the last one, and tifffile, libtiff,
Pillow and Bio-Formats take the first.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tifffile

DESCRIPTION = 270
PLACEHOLDER = 271
"""Tag that the text is written as at first, as tifffile writes no second 270: the next
one, so that the order of the tags stays that of TIFF."""

UNIT = "micron"
"""ImageJ's word for micrometres in files."""

PER_CM = 10_000.0
"""Micrometres of a centimetre."""

MAX_RATIONAL = 2.0**32
"""Resolutions from here on do not fit into a tag."""


def imagej_description(
    lengths: Mapping[str, int], largest: int, z_step: float | None, *, has_size: bool
) -> str:
    """Return ImageJ's description of a stack.

    Parameters
    ----------
    lengths : mapping of str to int
        Length of each axis, T and Z among them.
    largest : int
        Value that is shown in white.
    z_step : float or None
        Distance of two planes in micrometres.
    has_size : bool
        The resolution tags are pixels for each micrometre.
    """
    n_t, n_z = lengths.get("T", 1), lengths.get("Z", 1)
    lines = ["ImageJ=1.53t", f"images={n_t * n_z}", f"slices={n_z}", f"frames={n_t}"]
    lines += ["hyperstack=true"] if min(n_t, n_z) > 1 else []
    lines += [f"unit={UNIT}"] if has_size else []
    lines += [f"spacing={z_step}"] if has_size and z_step else []
    return "\n".join([*lines, "loop=false", "min=0", f"max={max(largest, 1)}", ""])


def resolution(sizes: Mapping[str, Any], *, is_stack: bool) -> dict[str, Any]:
    """Return tifffile's options for the size of a pixel; empty if it does not fit.

    Parameters
    ----------
    sizes : mapping
        ``X`` and ``Y`` in micrometres.
    is_stack : bool
        There is an `imagej_description`, which has the unit. Otherwise it is the
        centimetre, from which ImageJ makes micrometres.
    """
    factor, unit = (1.0, "NONE") if is_stack else (PER_CM, "CENTIMETER")
    found = tuple(factor / sizes[axis] for axis in "XY")
    if not 1 / MAX_RATIONAL < min(found) <= max(found) < MAX_RATIONAL:
        return {}
    return {"resolution": found, "resolutionunit": unit}


def extra_tags(text: str) -> list[tuple[int, int, int, str, bool]]:
    """Return tifffile's option for a text that `show_to_imagej` makes a description."""
    return [(PLACEHOLDER, 2, 0, text, True)]


def show_to_imagej(path: str | Path) -> None:
    """Make the text in the placeholder of a TIFF its second description."""
    with tifffile.TiffFile(path) as tiff:
        offset, order = tiff.pages.first.tags[PLACEHOLDER].offset, tiff.byteorder
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(struct.pack(f"{order}H", DESCRIPTION))
