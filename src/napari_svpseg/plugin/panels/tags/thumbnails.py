"""Thumbnails of images, made in threads and kept."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

import numpy as np
from qtpy.QtCore import QObject, Signal
from qtpy.QtGui import QColor, QIcon, QPixmap

from ....core.image import Axes
from ...callbacks import tell
from ...layers.images.tagged_image import TaggedImage
from ...services.background import Background
from ..prompt_list import is_colour, visible
from .pixmaps import RATIO, to_icon, to_pixmap

THUMBNAIL = 44
"""Side of a thumbnail on screen, in pixels."""

MAX_THUMBNAILS = 3000
"""Kept in memory; 25 MB."""

MAX_WAITING = 60
"""Thumbnails requested at once; those scrolled past long ago are dropped."""

MAX_THUMBNAIL_BYTES = 100_000_000
"""Larger files are not read for a thumbnail."""


class Thumbnails(QObject):
    """Thumbnails of images, those requested last made first."""

    ready = Signal(object)
    """A `TaggedImage` whose thumbnail is there now."""

    def __init__(self) -> None:
        super().__init__()
        self._background = Background(
            partial(tell, self), 2, newest_first=True, limit=MAX_WAITING
        )
        self._icons: OrderedDict[str, QIcon | None] = OrderedDict()
        self._requested: OrderedDict[str, None] = OrderedDict()
        blank = QPixmap(RATIO * THUMBNAIL, RATIO * THUMBNAIL)
        blank.fill(QColor(60, 63, 70))
        self._blank = to_icon(blank)

    def clear(self) -> None:
        """Drop all thumbnails."""
        self._icons.clear()
        self._requested.clear()

    def close(self) -> None:
        """Make no more thumbnails."""
        self._background.close()

    def get(self, image: TaggedImage) -> QIcon:
        """Return a thumbnail, or a blank one while it is made."""
        key = image.key
        if key in self._icons:
            self._icons.move_to_end(key)
            return self._icons[key] or self._blank
        if key not in self._requested:
            self._requested[key] = None
            while len(self._requested) > MAX_WAITING:  # the background drops those too
                self._requested.popitem(last=False)
            self._background.call(
                lambda: small_view(image),
                lambda array: self._keep(image, array),
                lambda _: self._keep(image, None),
            )
        return self._blank

    def _keep(self, image: TaggedImage, array: np.ndarray | None) -> None:
        self._requested.pop(image.key, None)
        self._icons[image.key] = None if array is None else _icon(array)
        while len(self._icons) > MAX_THUMBNAILS:
            self._icons.popitem(last=False)
        self.ready.emit(image)


def small_view(image: TaggedImage) -> np.ndarray:
    """Return a small view of an image; called in a thread.

    Returns
    -------
    (Y, X, 3) uint8 array, not much longer than twice `THUMBNAIL`
    """
    if image.layer is None:
        assert image.path is not None
        if image.path.stat().st_size > MAX_THUMBNAIL_BYTES:
            raise ValueError(f"{image.path}: too large for a thumbnail.")
        from ....io.images import read_image

        file = read_image(image.path)
        return _small(np.asarray(file.array), file.axes)
    layer = image.layer
    data = layer.data[-1] if layer.multiscale else layer.data
    if not isinstance(data, np.ndarray):  # lazy data is not computed for this
        return np.ascontiguousarray(layer.thumbnail[..., :3], np.uint8)
    while data.ndim > 2 + bool(layer.rgb):
        data = data[len(data) // 2]
    return _small(data, Axes("YXC" if layer.rgb else "YX"))


def _small(array: np.ndarray, axes: Axes) -> np.ndarray:
    """Return the middle plane of an image, subsampled and stretched to 0-255.

    8-bit colour images are shown as they are.
    """
    planes = list(axes.plane_indices(array.shape))
    plane = axes.to_plane(array[axes.plane_slices(planes[len(planes) // 2])])
    step = max(1, min(plane.shape[:2]) // (2 * THUMBNAIL))
    small = plane[::step, ::step, :3]
    if is_colour(small):
        return np.ascontiguousarray(small)
    return visible(small.astype(np.float32))


def _icon(array: np.ndarray) -> QIcon:
    return to_icon(to_pixmap(array, RATIO * THUMBNAIL, cut=True))
