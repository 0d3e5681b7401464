"""How much an image is enlarged so that its objects are as large as the prompts'.

Two measures of the size of objects must agree, as each fails where the other does not:
the depth of the foreground is that of a clump where touching objects are not told
apart, and the area of the objects that of a fragment where one is cut into many.
"""

from __future__ import annotations

import math

import numpy as np

from ..result import Maps
from ..settings import PostprocessSettings
from .confidence import typical
from .instances import instances_from_maps
from .object_size import mean_depth

SAME_SIZE = 1.3
"""Ratio of sizes up to which objects count as equally large."""

SMALLEST, LARGEST = 0.25, 2.0
"""Range of the zoom; an image twice as large takes four times as long."""

FULL = 0.85
"""Share of foreground from which objects have no background to be measured by."""


def zoom_for(maps: Maps) -> float:
    """Return how much to enlarge an image so that objects are of the prompts' size.

    Parameters
    ----------
    maps : Maps
        Of the image as it is, with the properties of the prompts' objects.

    Returns
    -------
    float
        In [`SMALLEST`, `LARGEST`]; 1 where the sizes are about the same or not known.
    """
    properties = maps.objects
    if properties is None or properties.net or not math.isfinite(properties.depth):
        return 1.0
    if np.count_nonzero(maps.foreground > 0.5) > FULL * maps.foreground.size:
        return 1.0
    by_depth = mean_depth(maps.foreground, maps.boundary) / properties.depth
    if not _differs(by_depth):
        return 1.0
    areas = np.bincount(instances_from_maps(maps, PostprocessSettings()).ravel())[1:]
    diameter = 2 * math.sqrt(typical(areas, areas) / math.pi)
    by_area = diameter / properties.diameter
    if not _differs(by_area) or (by_depth > 1) != (by_area > 1):
        return 1.0
    ratio = min(by_depth, by_area) if by_depth > 1 else max(by_depth, by_area)
    return min(max(1 / ratio, SMALLEST), LARGEST)


def _differs(ratio: float) -> bool:
    """Return whether a ratio of sizes is known and not about 1."""
    return math.isfinite(ratio) and not 1 / SAME_SIZE <= ratio <= SAME_SIZE
