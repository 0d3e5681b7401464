"""A plane of an image with its result: the maps, and the labels as they are now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ....core.image import Axes
from ....core.planes import take_plane
from ....core.settings import PostprocessSettings
from ....workflows.segment_image import each_map
from .corrected import all_planes
from .result_layers import Kept, recipe_of

if TYPE_CHECKING:
    from napari.layers import Image, Layer

    from ....core.geometry import Tile
    from ....core.result import Maps
    from ..images.image_source import ImageSource

Plane = tuple[int, ...]


@dataclass(frozen=True)
class SeenPlane:
    """A plane of an image that has a result.

    Parameters
    ----------
    kept : Kept
        Its maps.
    plane : tuple of int
    """

    kept: Kept
    plane: Plane

    @property
    def source(self) -> ImageSource:
        """The image."""
        return self.kept.source

    @property
    def key(self) -> tuple[Any, Plane]:
        """Identifies the plane, also in the result of the next run."""
        return self.source.layer.unique_id, self.plane

    @property
    def tile(self) -> Tile | None:
        """The part of the plane that the result is of; None for all of it."""
        return self.kept.tile

    @property
    def corner(self) -> tuple[int, int]:
        """First pixel of the maps in the plane: not 0 for a preview."""
        return (0, 0) if self.tile is None else (self.tile.y0, self.tile.x0)

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the maps in the plane."""
        if self.tile is not None:
            return self.tile.slices
        height, width = self.source.plane_shape
        return slice(0, height), slice(0, width)

    @property
    def region(self) -> tuple[slice, ...]:
        """Where the plane is in the layer of the result."""
        if self.tile is None:
            return self.source.companion.index(self.plane)
        return tuple(slice(0, n) for n in self.kept.layer.data.shape)

    @property
    def settings(self) -> PostprocessSettings:
        """The result options that the labels were made with."""
        recipe = recipe_of(self.kept.layer) or self.kept.result.recipe
        return PostprocessSettings.from_dict(recipe.postprocess)

    def maps(self) -> Maps:
        """Return the plane's maps, (Y, X)."""
        layout = Axes(Axes(self.source.query_axes(self.kept.plane)).labels)
        index = self.plane if self.kept.plane is None else ()
        take = partial(take_plane, layout=layout, index=index)
        return each_map(take, self.kept.maps)

    def labels(self) -> np.ndarray:
        """Return the plane's labels as they are now, (Y, X)."""
        data = np.asarray(self.kept.layer.data[self.region])
        return self.source.companion.flat(data)

    def expanded(self, labels: np.ndarray) -> np.ndarray:
        """Return labels (Y, X) in the shape of `region`."""
        y, x = self.source.companion.yx
        return self.source.companion.expand(labels if y < x else labels.T, self.plane)


def seen_planes(kept: Iterable[Kept], layers: Iterable[Layer]) -> Iterator[SeenPlane]:
    """Yield the planes whose maps are kept, the latest result of each image first.

    Parameters
    ----------
    kept : iterable of Kept
        The newest last.
    layers : iterable of Layer
        Those that are open.
    """
    is_open = set(layers)
    for one in reversed(list(kept)):
        if one.layer not in is_open or one.source.layer not in is_open:
            continue
        if one.maps.classes is not None:
            continue  # a model that knows its classes takes no prompts
        if one.plane is not None:
            yield SeenPlane(one, one.plane)
        else:
            for plane in all_planes(one.source):
                yield SeenPlane(one, plane)


def newest_seen(
    kept: Iterable[Kept], layers: Iterable[Layer], image: Image, plane: Plane
) -> SeenPlane | None:
    """Return the latest result of a plane of an image, or None."""
    for seen in seen_planes(kept, layers):
        if seen.source.layer == image and seen.plane == plane:
            return seen
    return None
