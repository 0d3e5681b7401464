"""What a user corrected in the objects of an image, kept in the image's metadata.

Each plane has an array as `core.annotation.corrections.fixed_by` makes it: -1 where the
model decides, 0 where there is no object, 1, 2, ... for objects. Every later result of
the image keeps to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ....core.annotation.corrections import fixed_by, with_fixed
from ....core.annotation.patches import Patch
from ....core.image import Axes
from ....core.planes import put_plane, take_plane
from ....core.prompt import UNKNOWN
from ..metadata import METADATA_KEY
from .written_labels import WRITTEN, fingerprints, is_untouched, keep_written

if TYPE_CHECKING:
    from napari.layers import Labels, Layer

    from ....core.geometry import Tile
    from ..images.image_source import ImageSource

KEY = "svpseg_corrected"
"""Key in an image's metadata."""

NO_CORRECTION = "damaged, no corrections of a plane"

Plane = tuple[int, ...]


def fixed_on(source: ImageSource, plane: Plane) -> np.ndarray | None:
    """Return what was corrected on a plane of an image, (Y, X) int32, or None."""
    fixed = source.layer.metadata.get(KEY, {}).get(plane)
    # of another level of a pyramid
    return None if fixed is None or fixed.shape != source.plane_shape else fixed


def fix(source: ImageSource, plane: Plane, fixed: np.ndarray | None) -> None:
    """Keep what was corrected on a plane of an image; None for nothing."""
    known = dict(source.layer.metadata.get(KEY, {}))
    known.pop(plane, None)
    if fixed is not None:
        known[plane] = fixed
    source.layer.metadata[KEY] = known


def corrected(
    source: ImageSource,
    plane: Plane | None,
    labels: np.ndarray,
    tile: Tile | None = None,
) -> np.ndarray:
    """Return labels of the model with what the user corrected.

    Parameters
    ----------
    source : ImageSource
    plane : tuple of int, optional
        None: the labels are those of all planes.
    labels : int array
        As `segment` returns them.
    tile : Tile, optional
        The part of the plane that they are of.
    """
    if not source.layer.metadata.get(KEY):
        return labels
    layout = Axes(Axes(source.query_axes(plane)).labels)
    planes = [plane] if plane is not None else list(all_planes(source))
    found, last = labels.copy(), int(labels.max(initial=0))
    for index in planes:
        fixed = fixed_on(source, index)
        if fixed is None:
            continue
        fixed = fixed if tile is None else fixed[tile.slices]
        within = () if plane is not None else index
        one = with_fixed(take_plane(labels, layout, within), fixed)
        if len(planes) > 1:  # no id may occur in two planes
            one = np.where(one > 0, one + np.uint32(last), 0)
            last = max(last, int(one.max(initial=0)))
        put_plane(found, layout, within, one)
    return found


def all_planes(source: ImageSource) -> Iterator[Plane]:
    """Return the index into Z and T of each plane of an image."""
    return source.axes.plane_indices(source.shape)


def keep_strokes(layer: Labels, source: ImageSource, planes: list[Plane]) -> bool:
    """Keep what the user painted in a result as corrections; return whether any.

    Objects that were painted in stay as they are now.
    """
    written = layer.metadata.get(WRITTEN)
    shape = source.companion.shape  # not that of a preview
    if written is None or not written.shape == tuple(layer.data.shape) == shape:
        return False
    if is_untouched(layer):
        return False
    for plane in planes:
        region = source.companion.index(plane)
        now, before = (
            source.companion.flat(np.asarray(a[region])) for a in (layer.data, written)
        )
        changed = now != before
        if not changed.any():
            continue
        ids = np.unique(now[changed])
        fixed = fixed_by(
            fixed_on(source, plane),
            now.shape,
            [changed],
            [now == i for i in ids[ids > 0].tolist()],
        )
        fix(source, plane, fixed)
    # they are kept now, so that the next result may be written into the layer
    entry = dict(layer.metadata[METADATA_KEY])
    prints = fingerprints(np.asarray(layer.data), source.companion.axes)
    layer.metadata[METADATA_KEY] = {**entry, "written": prints}
    keep_written(layer)
    return True


def corrected_entries(image: Layer) -> list[dict[str, Any]]:
    """Return what was corrected in an image as plain values."""
    return [
        {
            "plane": list(plane),
            "size": list(fixed.shape),
            "patch": Patch.of(fixed).to_dict(),
        }
        for plane, fixed in image.metadata.get(KEY, {}).items()
        if (fixed != UNKNOWN).any()
    ]


def from_entries(entries: list[dict[str, Any]]) -> dict[Plane, np.ndarray]:
    """Return the value of `KEY` that `corrected_entries` described.

    Raises
    ------
    ValueError
        If they are damaged.
    """
    found: dict[Plane, np.ndarray] = {}
    for entry in entries:
        try:
            plane, (height, width) = tuple(entry["plane"]), entry["size"]
            patch = Patch.from_dict(entry["patch"])
            if not all(type(n) is int for n in (*plane, height, width)):
                raise ValueError(NO_CORRECTION)
            rows, columns = patch.slices
            if rows.stop > height or columns.stop > width:
                raise ValueError(NO_CORRECTION)
            found[plane] = patch.on_plane((height, width))
        except (LookupError, TypeError, ValueError, MemoryError) as error:
            raise ValueError(NO_CORRECTION) from error
    return found
