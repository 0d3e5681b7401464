"""One prompt of the list: its box, its mask, and what it still lacks."""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ....core.annotation.patches import Patch
from ....core.geometry import Box
from ....core.image import ImageError
from ....core.labels.holes import close_gaps
from ....core.labels.ids import as_objects, count_objects
from ....core.prompt import UNKNOWN, Prompt
from ...messages import count
from ..images.image_source import ImageSource
from ..labels.label_sampling import reaches, sample_labels
from ..metadata import layer_id, metadata_of
from ..world import Units, WorldPoint, to_world

if TYPE_CHECKING:
    from napari.layers import Labels, Layer

    from ..images.intensities import Intensities

logger = logging.getLogger(__name__)

COLORS = ("#ffb000", "#35c9ff", "#9be564", "#ff7ab8", "#c69cff", "#ffe14d")
NEGATIVE_COLOR = "#ff5a4d"
OFF_COLOR = "#8c8c8c"

NO_MASK = "No mask yet: choose Labels in the Mask row, or press Paint."
FAR_MASK = "The mask layer does not reach this box: choose another, or press Paint."
EMPTY_MASK = "The mask is empty here: paint an object, or press – if it is not wanted."
BAD_PIXELS = "There are NaN or infinite pixels in the box: move it."
CHECK_MASK = "Suggested mask: press Use mask, or correct it with the brush."
NO_LONGER_FITS = "The box no longer fits '{}'."
NEGATIVE_IDS = "The mask holds negative ids: object ids start at 1."
WHOLE_BOX = "Not wanted: the whole box. What in it is wrong?"
NOT_WANTED = "Not wanted: this object"
HERE_ONLY = " · in this image only"
OBJECT_OUTSIDE = "The object lies outside this box: move the box back."


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
    patch : Patch, optional
        The mask, where the box was made by a click on an object: 1 in the object, 0 in
        the background, -1 where nothing is known.
    here_only : bool
        Whether it is used in its own image only.
    suggestion : (side, side) int array, optional
        A suggested mask that the user has neither accepted nor changed.
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
    patch: Patch | None = None
    here_only: bool = False
    suggestion: np.ndarray | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    crop: np.ndarray | None = None
    mask: np.ndarray | None = None
    problem: str = ""

    @property
    def n_objects(self) -> int:
        """Number of objects in the mask."""
        if self.mask is None:
            return 0
        return count_objects(self.mask)

    @property
    def status(self) -> str:
        """The text of the row below the name."""
        if not self.is_ready:
            return self.problem
        here = HERE_ONLY if self.here_only else ""
        if self.negative:
            return WHOLE_BOX if self.is_whole_box else f"{NOT_WANTED}{here}"
        n = self.n_objects
        size = "" if self.box is None else f" · {self.box.size} px"
        return f"{count(n, 'object')}{size}{here}"

    @property
    def is_whole_box(self) -> bool:
        """Whether everything in the box counts as not wanted."""
        if not self.negative or self.patch is not None:
            return False
        return self.mask is None or not (self.mask == UNKNOWN).any()

    @property
    def shown_object(self) -> np.ndarray | None:
        """The pixels that the prompt shows, wanted or not; None for a whole box."""
        if self.mask is None or self.is_whole_box:
            return None
        is_given = self.negative and self.patch is None  # of a file: 0 is not wanted
        return np.asarray(self.mask == 0) if is_given else self.mask

    @property
    def is_ready(self) -> bool:
        """Whether it can be used in a run."""
        needs_mask = not self.negative or self.patch is not None
        return not self.problem or (not needs_mask and self.problem != BAD_PIXELS)

    def state(self) -> dict[str, Any]:
        """Return the values that a dock opened later cannot see from the box itself."""
        return {
            "name": self.name,
            "color": self.color,
            "negative": self.negative,
            "enabled": self.enabled,
            "here_only": self.here_only,
            "patch": None if self.patch is None else self.patch.to_dict(),
            "suggested": self.suggestion is not None,
            "mask": "" if self.mask_layer is None else layer_id(self.mask_layer),
        }

    def cut(self, place: Layer | None, units: Units = None) -> None:
        """Cut the crop and the mask of the box anew, and set `problem`.

        Parameters
        ----------
        place : Layer, optional
            Whose coordinates the box is in; by default those of the image.
        units : tuple of units, optional
            Of the world, see `world_units`.
        """
        source, box = self.source, self.box
        if source is None or box is None:
            return
        self.problem = ""
        try:
            self.crop = source.crop(self.plane, box)
        except (IndexError, ImageError, ValueError) as error:
            self.problem = NO_LONGER_FITS.format(source.name)
            logger.info("cannot cut %s: %s", self.name, error)
            return
        if not np.isfinite(self.crop).all():
            self.problem = BAD_PIXELS
        self.mask = None
        if self.patch is not None:
            self.mask = self.patch.within(box)
            if not (self.mask > 0).any():
                self.problem = self.problem or OBJECT_OUTSIDE
            return
        if self.mask_layer is None:
            self.problem = self.problem or NO_MASK
            return
        layer = place if place is not None else source.layer
        start = source.companion.corners(self.plane, box)[0]

        def at(pixel: np.ndarray) -> WorldPoint:
            vertex = start.copy()
            vertex[source.companion.yx] += 0.5 + pixel
            return to_world(layer, vertex, units)

        mask = sample_labels(self.mask_layer, at, box.size)
        if mask.min(initial=0) < 0:
            self.problem = NEGATIVE_IDS
            return
        self.mask = as_objects(mask).astype(np.int32)
        if metadata_of(self.mask_layer, "mask"):  # painted by hand
            self.mask = close_gaps(self.mask)
        if not mask.any() and not self.problem:
            is_here = reaches(self.mask_layer, at, box.size)
            self.problem = EMPTY_MASK if is_here else FAR_MASK
        if self.suggestion is not None and np.array_equal(self.mask, self.suggestion):
            self.problem = self.problem or CHECK_MASK
        else:
            self.suggestion = None

    def drop_layer(self, layer: Layer, intensities: Intensities) -> bool:
        """Do without a layer that was removed; return whether it was used.

        A prompt that was ready is kept as if it had been loaded.
        """
        is_source = self.source is not None and self.source.layer == layer
        is_mask = self.mask_layer == layer
        if is_source:
            if self.is_ready:
                self.loaded = self.prompt(intensities)
                self.crop, self.mask = self.loaded.image, self.loaded.mask
            self.source = self.patch = None
        if is_mask:
            self.mask_layer = None
            if self.source is not None:
                self.problem, self.mask = NO_MASK, None
        return is_source or is_mask

    def prompt(self, intensities: Intensities) -> Prompt:
        """Return the item as a prompt.

        Parameters
        ----------
        intensities : Intensities
            Gives the percentiles of the whole image.
        """
        if self.source is None or self.box is None or self.crop is None:
            assert self.loaded is not None
            mask = self.loaded.mask
            return replace(
                self.loaded,
                name=self.name,
                enabled=self.enabled,
                color=self.color,
                mask=np.minimum(mask, 0) if self.negative else mask,
            )
        source = self.source
        pixel_size, unit = source.pixel_size()
        profile = intensities.request(source, self.plane).result()
        is_rgb = bool(source.layer.rgb)
        prompt = Prompt.from_image(
            self.crop,
            self.mask,
            Box(0, 0, self.box.size),
            channel_axis=2,
            channels=source.channels,
            rgb=is_rgb,
            negative=self.negative,
            name=self.name,
            source=source_name(source),
            intensities=profile.range_at(None, None if is_rgb else self.crop),
            pixel_size=pixel_size,
            unit=unit,
        )
        return replace(
            prompt,
            box=self.box,
            color=self.color,
            enabled=self.enabled,
            channel_names=source.channel_names,
            clicked=self.patch is not None,
        )


def outline_color(item: PromptItem) -> str:
    """Return the colour of an item's box and row."""
    if not item.enabled:
        return OFF_COLOR
    return NEGATIVE_COLOR if item.negative else item.color


def source_name(source: ImageSource) -> str:
    """Return the file that an image was opened from, or the layer's name."""
    path = getattr(getattr(source.layer, "source", None), "path", None)
    return str(path) if path else source.name
