"""Percentiles of whole images, computed in a thread and kept."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ....core.contrast import Profile
from ....core.image import Axes, StackedChannels
from .image_source import ImageSource

if TYPE_CHECKING:
    from napari.layers import Layer


class Intensities:
    """Percentiles of whole images, computed once in the background."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="svpseg-intensities")
        self._found: dict[tuple[Any, ...], Future[Profile]] = {}

    def request(
        self, source: ImageSource, plane: tuple[int, ...] | None = None
    ) -> Future[Profile]:
        """Return the percentiles of an image, or those at a plane, as a future."""
        whole = self._request(source)
        stack = source.axes.stack
        if plane is None or "T" not in stack:
            return whole
        # the thread has done the whole before it comes to this
        return self._pool.submit(lambda: whole.result().at(plane[stack.index("T")]))

    def _request(self, source: ImageSource) -> Future[Profile]:
        data = source.data
        parts = data.arrays if isinstance(data, StackedChannels) else (data,)
        # by identity: a layer that gets new data gets new percentiles
        pixels = tuple(map(id, parts))
        key = (source.layer.unique_id, pixels, source.axes.order, source.channels)
        if key not in self._found:
            self._found[key] = self._pool.submit(
                _profile, data, source.axes, source.channels, source.layer.rgb
            )
        return self._found[key]

    def forget(self, layer: Layer) -> None:
        """Drop the percentiles of a layer."""
        self._found = {k: v for k, v in self._found.items() if k[0] != layer.unique_id}


def _profile(
    data: Any, axes: Axes, channels: tuple[int, ...] | None, rgb: bool
) -> Profile:
    from ....core.planes import Planes

    return Planes(data, axes, channels, bool(rgb)).profile()
