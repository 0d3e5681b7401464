"""Results from files, as layers that the docks know as if they had made them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ....core.image import ImageError
from ....core.labels.ids import count_objects
from ....io.ome_zarr import is_zarr, open_image
from ....io.result_files import image_stem, kind_of_result
from ..images.image_axes import known_axes
from ..images.image_source import ImageSource, plain_name
from ..images.visibility import OF, is_in_sight
from ..labels.class_colors import dress, plain_colors
from ..labels.object_colors import PALETTE, palette_of
from ..metadata import METADATA_KEY, find_layer, is_image, layer_name, metadata_of
from ..placement import Place, align
from .written_labels import MAX_UNDOABLE, fingerprints, keep_written

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels

    from ....io.exports import ExportData
    from ....workflows.reopen_labels import ReopenedLabels

logger = logging.getLogger(__name__)

REOPENED = "file"
"""Entry in a result's metadata: the file that it was opened from."""

NEAR = 0.01
"""Relative difference of two pixel sizes that count as one."""


def labels_layer(
    path: str | Path, viewer: ViewerModel | None = None, image: Image | None = None
) -> Labels:
    """Return a Labels layer of a file of labels or outlines, not added to a viewer.

    Parameters
    ----------
    path : path
    viewer : ViewerModel, optional
        Whose images the labels may lie on.
    image : Image, optional
        The image that they are of, where that is known.

    Raises
    ------
    ValueError
        If it cannot be read; one line that names the file.
    """
    from napari.layers import Labels

    from ....workflows.reopen_labels import Canvas, reopen_labels

    path = Path(path)
    if kind_of_result(path) == "outlines":
        source = image_of(path, viewer, image=image)
        canvas = None
        if source is not None:
            companion = source.companion
            shape = dict(zip(companion.axes, companion.shape, strict=True))
            axes = companion.axes.replace("C", "")
            canvas = Canvas(tuple(shape[a] for a in axes), axes, source.name)
        found = reopen_labels(path, canvas)
    else:
        found = reopen_labels(path)
        source = image_of(path, viewer, found.data, image)
    data = found.data
    values = np.ascontiguousarray(_expanded(data, source))
    if found.is_result:
        # of the type that runs write, as another one could not take their ids
        values = values.astype(np.uint64 if values.itemsize == 8 else np.uint32)
    layer = Labels(
        values,
        name=layer_name(path.name.split(".")[0]),
        opacity=0.5,
        **(_own_place(data) if source is None else source.placement()),
    )
    _describe(layer, found, source)
    return layer


def _expanded(data: ExportData, source: ImageSource | None) -> np.ndarray:
    """Return labels with the C of length 1 that their image's companions have."""
    labels = np.asarray(data.labels)
    if labels.dtype == bool:
        labels = labels.astype(np.uint8)
    axes = data.axes if source is None else source.companion.axes
    if "C" in axes and "C" not in data.axes:
        labels = np.expand_dims(labels, axes.index("C"))
    return labels


def _own_place(data: ExportData) -> dict[str, Any]:
    """Return the arguments that place labels as their file says."""
    sizes = (
        {} if data.pixel_size is None else dict(zip("YX", data.pixel_size, strict=True))
    )
    if data.z_step:
        sizes["Z"] = data.z_step
    return {
        "scale": [sizes.get(a, 1.0) for a in data.axes],
        "translate": [data.origin.get(a, 0.0) for a in data.axes],
        "units": tuple(data.unit if a in sizes else "pixel" for a in data.axes),
        "axis_labels": tuple(data.axes.lower()),
    }


def _describe(layer: Labels, found: ReopenedLabels, source: ImageSource | None) -> None:
    """Note in a layer's metadata what its file and its image know of it."""
    data = found.data
    if not found.is_result:
        if source is not None:
            layer.metadata[OF] = _id_of(source)
        return
    axes = data.axes if source is None else source.companion.axes
    metadata: dict[str, Any] = {
        "kind": "labels",
        "image": image_stem(data.source),
        "source_id": "",
        "axes": axes,
        REOPENED: data.source,
        "recipe": None if data.recipe is None else data.recipe.to_dict(),
        "objects": count_objects(np.asarray(layer.data)),
        "classes": dict(data.classes),
        "class_of": dict(data.class_of),
        "written": fingerprints(np.asarray(layer.data), axes),
    }
    if source is not None:
        metadata |= _entry_on(source)
    layer.metadata[METADATA_KEY] = metadata
    layer.colormap = plain_colors(layer)
    keep_written(layer)
    dress(layer)
    if found.table:
        _add_columns(layer, found.table)


def _entry_on(source: ImageSource) -> dict[str, Any]:
    """Return what metadata say of labels on an image, and colours that stand out."""
    return source.entry("labels") | {PALETTE: palette_of(source.layer)}


def _add_columns(layer: Labels, table: dict[str, list[Any]]) -> None:
    """Add measurements to the features of a layer, by the id of each row."""
    row_of: dict[int, int] = {}
    for row, n in enumerate(table["label"]):
        row_of.setdefault(int(n), row)  # of several planes the first
    known = {name: list(layer.features[name]) for name in layer.features}
    ids = known.setdefault("index", [0, *sorted(row_of)])
    for name, column in table.items():
        if name != "label":
            known[name] = [
                column[row_of[n]] if n in row_of else float("nan") for n in ids
            ]
    layer.features = known


def _id_of(source: ImageSource) -> str:
    return str(source.entry("labels")["source_id"])


# ---------------------------------------------------------------- on which image


def image_of(
    path: Path | str,
    viewer: ViewerModel | None,
    data: ExportData | None = None,
    image: Image | None = None,
) -> ImageSource | None:
    """Return the open image that the labels of a file lie on, or None.

    It is the image of that name, else the only one in sight that they fit.

    Parameters
    ----------
    path : path
    viewer : ViewerModel, optional
    data : ExportData, optional
        The labels, whose shape and pixel size must be those of the image; outlines fit
        any image.
    image : Image, optional
        The only one that may be returned.
    """
    if viewer is None:
        return None
    fitting = [s for s in _sources(viewer) if data is None or _fits(s, data)]
    if image is not None:
        return next((s for s in fitting if s.layer == image), None)
    images = list(dict.fromkeys(s.layer for s in fitting))
    active = viewer.layers.selection.active
    choices = (
        [la for la in images if plain_name(la.name).strip() == image_stem(path)],
        [la for la in images if _file_stem(la) == image_stem(path)],
        [la for la in images if la == active] if data is None else [],
        [la for la in images if is_in_sight(viewer, la)],
        images,
    )
    chosen = next((some[0] for some in choices if len(some) == 1), None)
    return next((s for s in fitting if s.layer == chosen), None)


def _sources(viewer: ViewerModel) -> Iterator[ImageSource]:
    """Yield the images whose axes are known, at each level, the full size first."""
    for layer in viewer.layers:
        if not is_image(layer):
            continue
        n_levels = len(layer.data) if layer.multiscale else 1
        for level in range(n_levels):
            try:
                yield ImageSource.of(layer, known_axes(layer), level=level)
            except ImageError as error:
                logger.debug("no labels for %s: %s", layer.name, error)


def _file_stem(layer: Image) -> str:
    path = getattr(layer.source, "path", None)
    return Path(str(path)).name.split(".")[0] if path else ""


def _fits(source: ImageSource, data: ExportData) -> bool:
    """Return whether labels have the shape and the pixel size of an image."""
    companion = source.companion
    lengths = dict(zip(companion.axes, companion.shape, strict=True))
    lengths.pop("C", None)
    if lengths != dict(zip(data.axes, data.labels.shape, strict=True)):
        return False
    size, unit = source.pixel_size()
    if data.pixel_size is None or (unit == "pixel") != (data.unit == "pixel"):
        return True  # one of them does not know its size
    return bool(np.allclose(size, data.pixel_size, rtol=NEAR))


def link(viewer: ViewerModel) -> list[Labels]:
    """Put reopened results that lie on no image on the one that they fit.

    Returns
    -------
    list of Labels
        Those that lie on an image now.
    """
    if not any(REOPENED in (metadata_of(la, "labels") or {}) for la in viewer.layers):
        return []
    from ....io.exports import ExportData  # slow: a dock opens without it

    linked = []
    for layer in viewer.layers:
        metadata = metadata_of(layer, "labels")
        if not metadata or REOPENED not in metadata or layer.multiscale:
            continue
        if find_layer(viewer.layers, metadata.get("source_id")) is not None:
            continue
        axes = metadata["axes"]
        place = Place.of(layer).calibration(axes)
        known = place.pixel_size if place.unit != "pixel" else None
        data = ExportData(layer.data, axes, known, place.unit)
        source = image_of(metadata[REOPENED], viewer, data)
        if source is None or source.companion.axes != axes:
            continue
        layer.metadata[METADATA_KEY] = metadata | _entry_on(source)
        if not metadata["classes"]:
            layer.colormap = plain_colors(layer)
        align(layer, Place.of(source.layer).on(source.grid()).in_units(layer.units))
        linked.append(layer)
    return linked


def is_large(path: str | Path) -> bool:
    """Return whether labels in a Zarr are better read where they are shown."""
    return is_zarr(path) and open_image(path).n_pixels > MAX_UNDOABLE
