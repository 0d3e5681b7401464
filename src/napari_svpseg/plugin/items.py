"""One prompt of the list: where it is cut, its mask, and what it still lacks."""

from __future__ import annotations

import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from ..core.geometry import Box
from ..core.image import Axes, StackedChannels
from ..core.prompt import Prompt
from .layers import ImageSource

if TYPE_CHECKING:
    from napari.layers import Labels, Layer

COLORS = ("#ffb000", "#35c9ff", "#9be564", "#ff7ab8", "#c69cff", "#ffe14d")
NEGATIVE_COLOR = "#ff5a4d"
OFF_COLOR = "#8c8c8c"

NO_MASK = "No mask yet: choose Labels in the Mask row, or press Paint."
FAR_MASK = "The mask layer does not reach this box: choose another, or press Paint."
EMPTY_MASK = "The mask is empty here: paint an object, or press – if it is not wanted."
TRY = "Press Preview to try it on what you see."
BAD_PIXELS = "There are NaN or infinite pixels in the box: move it."


@dataclass(eq=False)
class PromptItem:
    """One row of the list: a box on an image, or a prompt that was loaded.

    Parameters
    ----------
    name : str
    color : str
    source : ImageSource, optional
        The image it is cut from; None for a loaded prompt.
    plane : tuple of int
        Index into Z and T.
    box : Box, optional
    mask_layer : Labels, optional
    negative, enabled : bool
    loaded : Prompt, optional
        The prompt itself where there is no image to cut it from.
    """

    name: str
    color: str
    source: ImageSource | None = None
    plane: tuple[int, ...] = ()
    box: Box | None = None
    mask_layer: Labels | None = None
    negative: bool = False
    enabled: bool = True
    loaded: Prompt | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    crop: np.ndarray | None = None
    mask: np.ndarray | None = None
    problem: str = ""

    @property
    def n_objects(self) -> int:
        """Number of objects in the mask."""
        if self.mask is None:
            return 0
        return int(np.unique(self.mask[self.mask > 0]).size)

    @property
    def status(self) -> str:
        """What the row says below the name."""
        if not self.is_ready:
            return self.problem
        if self.negative:
            return "Negative: not wanted"
        n = self.n_objects
        size = "" if self.box is None else f" · {self.box.size} px"
        return f"{n} object{'' if n == 1 else 's'}{size}"

    @property
    def is_ready(self) -> bool:
        """Whether it can be used in a run."""
        return not self.problem or (self.negative and self.problem != BAD_PIXELS)


class Intensities:
    """Percentiles of whole images, computed once in the background."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="svpseg-intensities")
        self._found: dict[tuple[Any, ...], Future[np.ndarray]] = {}

    def request(self, source: ImageSource) -> Future[np.ndarray]:
        """Return the percentiles, or the promise of them."""
        data = source.data
        parts = data.arrays if isinstance(data, StackedChannels) else (data,)
        pixels = tuple(map(id, parts))
        key = (source.layer.unique_id, pixels, source.axes.order, source.channels)
        if key not in self._found:
            self._found[key] = self._pool.submit(
                _intensities, data, source.axes, source.channels, source.layer.rgb
            )
        return self._found[key]

    def forget(self, layer: Layer) -> None:
        """Drop what is known of a layer."""
        self._found = {k: v for k, v in self._found.items() if k[0] != layer.unique_id}


def _intensities(
    data: Any, axes: Axes, channels: tuple[int, ...] | None, rgb: bool
) -> np.ndarray:
    from ..core.planes import Planes

    return Planes(data, axes, channels, bool(rgb)).intensities()


def as_objects(mask: np.ndarray) -> np.ndarray:
    """Return a mask with a number for each object.

    Where all was painted with one number, pieces that do not touch are objects of
    their own.
    """
    ids = np.unique(mask[mask > 0])
    if ids.size != 1:
        return mask
    return np.asarray(ndimage.label(mask > 0)[0], mask.dtype)


def outline_color(item: PromptItem) -> str:
    """Return the colour of an item's box and row."""
    if not item.enabled:
        return OFF_COLOR
    return NEGATIVE_COLOR if item.negative else item.color


def source_name(source: ImageSource) -> str:
    """Return the file an image was opened from, or the layer's name."""
    path = getattr(getattr(source.layer, "source", None), "path", None)
    return str(path) if path else source.name
