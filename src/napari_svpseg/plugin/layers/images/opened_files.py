"""Files of a folder run in the viewer: an image with its labels, opened once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ....core.jobs.stored_labels import NAME
from ....io.ome_zarr import is_zarr
from ..metadata import layer_id, layer_name
from .lazy_zarr import add_zarr
from .visibility import IMAGE_PIXELS, OF, bring_into_sight, look_at

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

OPENED = "svpseg_opened"
"""Key, in a layer's metadata, of the file it was opened from, and how old that was."""


def show_file(viewer: ViewerModel, path: str, labels: str = "") -> None:
    """Show an image and its labels, and hide others in their place.

    Parameters
    ----------
    viewer : ViewerModel
    path : str
        Image file; opened unless it is open as it is now.
    labels : str
        Its labels; formats that hold none, or files that are gone, are passed over.
    """
    image = _opened(viewer, path, "image")
    if is_zarr(labels):
        labels = str(Path(labels) / "labels" / NAME)
    is_tiff = labels.lower().endswith((".tif", ".tiff"))
    if is_zarr(labels) or (is_tiff and Path(labels).exists()):
        _opened(viewer, labels, "labels").metadata[OF] = layer_id(image)
    bring_into_sight(viewer, image)
    look_at(viewer, image, image.extent.data, IMAGE_PIXELS, closer=False)


def _opened(viewer: ViewerModel, path: str, kind: str) -> Layer:
    """Return the layer of a file; opened unless it is there as it is now."""
    now = (path, Path(path).stat().st_mtime_ns)
    for layer in viewer.layers:
        if layer.metadata.get(OPENED) == now:
            return layer
    if is_zarr(path):
        layer = add_zarr(viewer, path, kind)
    else:
        told = {"layer_type": kind} if kind == "labels" else {}
        layer = viewer.open(path, **told)[0]
        layer.name = layer_name(layer.name)
    layer.metadata[OPENED] = now
    return layer
