"""The image that is selected in a table, on the canvas, and a class map over it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ....core.jobs.folder_job import image_name
from ....core.units import PIXEL
from ...messages import sentence
from ...services.background import Background
from ..metadata import METADATA_KEY, is_image, is_of, layer_name, metadata_of
from ..placement import Grid, Place
from .image_axes import known_axes
from .image_source import ImageSource
from .tagged_image import TaggedImage
from .visibility import activate, add_behind_boxes, show

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

    from ....io.images import ImageFile

SHOWN = "svpseg_shown"
"""Key in a layer's metadata: the file that was opened to be looked at."""

OVERLAY = "class map"
"""Kind of the layer that shows which classes a model finds."""

MOST_OPAQUE = 0.5


class ShownImage:
    """Shows one image of a folder at a time; open images are brought to the front.

    Parameters
    ----------
    viewer : ViewerModel
    failed : callable
        Called with one line about a file that cannot be shown.
    """

    def __init__(self, viewer: ViewerModel, failed: Callable[[str], None]) -> None:
        self.viewer = viewer
        self._failed = failed
        self._reader = Background(
            lambda error: failed(sentence(error)), newest_first=True, limit=1
        )
        self._wanted: TaggedImage | None = None

    def close(self) -> None:
        """Stop reading files."""
        self._reader.close()

    def show(self, image: TaggedImage) -> None:
        """Show an image; a file is read in a thread."""
        self._wanted = image
        if image.layer is not None:
            self._bring_forward(image.layer)
            return
        path = image.path
        assert path is not None
        if self.layer_of(image) is not None:
            return
        from ....io.images import read_image

        self._reader.call(
            lambda: read_image(path),
            lambda file: self._add(image, file),
            lambda error: self._failed(str(error)),
        )

    def layer_of(self, image: TaggedImage) -> Image | None:
        """Return the layer that shows an image, or None."""
        if image.layer is not None:
            return image.layer if image.layer in self.viewer.layers else None
        for layer in self.viewer.layers:
            if layer.metadata.get(SHOWN) == str(image.path):
                return layer
        return None

    def _bring_forward(self, layer: Image) -> None:
        if layer not in self.viewer.layers:
            return
        for other in self.viewer.layers:
            if metadata_of(other, OVERLAY) is not None:
                show(other, visible=is_of(other, layer))
            elif is_image(other):
                show(other, visible=other == layer)
        activate(self.viewer, layer)

    def _add(self, image: TaggedImage, file: Any) -> None:
        """Show a file that was read, and remove the one before."""
        if image is not self._wanted or self.layer_of(image) is not None:
            return
        for old in [la for la in self.viewer.layers if SHOWN in la.metadata]:
            if not has_companions(self.viewer, old):
                drop_overlay(self.viewer, old)
                self.viewer.layers.remove(old)
        order = file.axes.order
        is_rgb = file.rgb and order.endswith("C")
        axes = order[:-1] if is_rgb else order
        layer = self.viewer.add_image(
            file.array,
            name=layer_name(image_name(image.title)),
            rgb=is_rgb,
            axis_labels=tuple(axes),
            metadata={SHOWN: str(image.path)},
            **file_place(file, axes),
        )
        self._bring_forward(layer)
        self.viewer.reset_view()


def file_place(file: ImageFile, axes: str) -> dict[str, Any]:
    """Return scale, position and units of a layer that shows an image file.

    Parameters
    ----------
    file : ImageFile
    axes : str
        Of the layer.
    """
    sizes = {} if file.z_step is None else {"Z": file.z_step}
    sizes |= dict(zip("YX", file.pixel_size or (), strict=False))
    return {
        "scale": [sizes.get(a, 1.0) for a in axes],
        "translate": [file.origin.get(a, 0.0) for a in axes],
        "units": [file.unit if a in sizes else PIXEL for a in axes],
    }


def has_companions(viewer: ViewerModel, layer: Layer) -> bool:
    """Return whether boxes, results or masks of ours lie on an image."""
    return any(
        is_of(other, layer) and not is_of(other, layer, OVERLAY)
        for other in viewer.layers
    )


def show_overlay(
    viewer: ViewerModel,
    layer: Image,
    classes: np.ndarray,
    foreground: np.ndarray,
    colors: Mapping[int, str],
) -> Image:
    """Show a class map over an image: coloured by class, opaque by confidence.

    Parameters
    ----------
    viewer : ViewerModel
    layer : Image
        Of one plane.
    classes : (Y, X) int array
        Most likely class, from 1; may be smaller than the image.
    foreground : (Y, X) float array in [0, 1]
    colors : dict of int to str
        Colour ``#rrggbb`` of each class.
    """
    rgba = overlay(classes, foreground, colors)
    drop_overlay(viewer, layer)
    source = ImageSource.of(layer, known_axes(layer))
    height, width = source.plane_shape
    grid = Grid((height / rgba.shape[0], width / rgba.shape[1]), (0, 0))
    return add_behind_boxes(
        viewer,
        lambda: viewer.add_image(
            rgba,
            rgb=True,
            name=layer_name(f"{layer.name} [svpseg] {OVERLAY}"),
            blending="translucent",
            metadata={METADATA_KEY: {**source.entry(OVERLAY), "grid": grid.to_dict()}},
            **Place.of(layer).on(grid).arguments(),
        ),
    )


def overlay(
    classes: np.ndarray, foreground: np.ndarray, colors: Mapping[int, str]
) -> np.ndarray:
    """Return a class map as an RGBA image, (Y, X, 4) uint8.

    Examples
    --------
    >>> one = np.ones((1, 1))
    >>> overlay(one.astype(int), one, {1: "#ff0000"}).tolist()
    [[[255, 0, 0, 127]]]
    """
    table = np.zeros((max([*colors, int(classes.max(initial=0))]) + 1, 3), np.uint8)
    for value, color in colors.items():
        table[value] = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    alpha = np.clip(foreground, 0, 1) * (classes > 0) * MOST_OPAQUE * 255
    return np.dstack([table[classes], alpha.astype(np.uint8)])


def drop_overlay(viewer: ViewerModel, layer: Image | None = None) -> None:
    """Remove the class map of an image, or all class maps."""
    for other in list(viewer.layers):
        if metadata_of(other, OVERLAY) and (layer is None or is_of(other, layer)):
            viewer.layers.remove(other)
