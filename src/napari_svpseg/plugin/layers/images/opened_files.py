"""Files of a folder run in the viewer: an image with its labels, opened once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....core.image import ImageError
from ....core.jobs.folder_job import file_label
from ....core.jobs.stored_labels import NAME
from ....io.images import (
    TIFF_SUFFIXES,
    read_image,
    read_tiff_facts,
    split_series,
)
from ....io.microscope_files import SUFFIXES as MICROSCOPE_SUFFIXES
from ....io.ome_zarr import is_zarr
from ....io.zarr_labels import labels_folder
from ....io.zarr_stores import split_zip
from ..metadata import layer_id, layer_name
from ..results.reopened import labels_layer
from .channel_names import CHANNEL_NAMES
from .lazy_zarr import add_zarr
from .visibility import IMAGE_PIXELS, OF, bring_into_sight, look_at

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

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
    image = _opened(viewer, path)
    if is_zarr(labels):
        labels = str(labels_folder(labels, NAME))
    is_tiff = labels.lower().endswith((".tif", ".tiff"))
    if is_zarr(labels) or (is_tiff and Path(labels).exists()):
        _opened(viewer, labels, image).metadata[OF] = layer_id(image)
    bring_into_sight(viewer, image)
    look_at(viewer, image, image.extent.data, IMAGE_PIXELS, closer=False)


def _opened(viewer: ViewerModel, path: str, of: Image | None = None) -> Any:
    """Return the layer of a file; opened unless it is there as it is now.

    Parameters
    ----------
    viewer : ViewerModel
    path : str
    of : Image, optional
        What the labels in the file are of; without it the file is an image.
    """
    file, series = split_series(path)
    now = (path, _age(path, file))
    for layer in viewer.layers:
        if layer.metadata.get(OPENED) == now:
            return layer
    if is_zarr(path):
        layer = add_zarr(viewer, path, "image" if of is None else "labels")
    elif of is not None:
        layer = viewer.add_layer(labels_layer(path, viewer, of))
    elif _is_ours(file, series):
        layer = _read(viewer, path)
    else:
        layer = viewer.open(path)[0]
        layer.name = layer_name(layer.name)
    layer.metadata[OPENED] = now
    return layer


def _is_ours(file: Path, series: int | None) -> bool:
    """Return whether an image is opened by our reader.

    Those are series, files of microscopes, and TIFFs whose pixels are not to be seen as
    they are stored, which napari's own reader does not know.
    """
    suffix = file.suffix.lower()
    if series is not None or suffix in MICROSCOPE_SUFFIXES:
        return True
    if suffix not in TIFF_SUFFIXES:
        return False
    try:
        facts = read_tiff_facts(file)
    except ImageError:  # opening it names the reason
        return False
    return facts.stored.changes(facts.samples)


def _age(path: str, file: Path) -> int:
    """Return when a file, or the zip that an image lies in, was changed."""
    archive, _ = split_zip(path)
    return (archive or file).stat().st_mtime_ns


def _read(viewer: ViewerModel, path: str) -> Layer:
    """Return a layer of an image that no reader of napari's own opens."""
    image = read_image(path, on_note=lambda note: None)
    order = image.axes.order
    is_rgb = image.rgb and order.endswith("C")
    letters = order[:-1] if is_rgb else order
    sizes = dict(zip("YX", image.pixel_size, strict=True)) if image.pixel_size else {}
    if image.z_step:
        sizes["Z"] = image.z_step
    return viewer.add_image(
        image.array,
        name=layer_name(file_label(path)),
        rgb=is_rgb,
        axis_labels=tuple(letters.lower()),
        scale=[sizes.get(a, 1.0) for a in letters],
        translate=[image.origin.get(a, 0.0) for a in letters],
        units=[image.unit if a in sizes else "pixel" for a in letters],
        metadata={CHANNEL_NAMES: image.channel_names},
    )
