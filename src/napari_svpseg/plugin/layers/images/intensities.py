"""Percentiles of whole images, computed in a thread and kept."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from ....core.image import Axes, StackedChannels
from .image_source import ImageSource

if TYPE_CHECKING:
    from napari.layers import Layer


class Intensities:
    """Percentiles of whole images, computed once in the background."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="svpseg-intensities")
        self._found: dict[tuple[Any, ...], Future[np.ndarray]] = {}

    def request(self, source: ImageSource) -> Future[np.ndarray]:
        """Return the percentiles of an image as a future."""
        data = source.data
        parts = data.arrays if isinstance(data, StackedChannels) else (data,)
        # by identity: a layer that gets new data gets new percentiles
        pixels = tuple(map(id, parts))
        key = (source.layer.unique_id, pixels, source.axes.order, source.channels)
        if key not in self._found:
            self._found[key] = self._pool.submit(
                _intensities, data, source.axes, source.channels, source.layer.rgb
            )
        return self._found[key]

    def forget(self, layer: Layer) -> None:
        """Drop the percentiles of a layer."""
        self._found = {k: v for k, v in self._found.items() if k[0] != layer.unique_id}


def _intensities(
    data: Any, axes: Axes, channels: tuple[int, ...] | None, rgb: bool
) -> np.ndarray:
    from ....core.planes import Planes

    return Planes(data, axes, channels, bool(rgb)).intensities()
