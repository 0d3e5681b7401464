"""Partial labels in the viewer: layers to paint them in, and to take them from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ....core.annotation.partial_labels import (
    BACKGROUND,
    FIRST_OBJECT,
    UNLABELLED,
    PartialLabelError,
    from_correction,
    from_labels,
    from_objects,
    merge_partial_labels,
)
from ....core.geometry import Box, Tile
from ....core.labels.ids import as_objects
from ..images.image_source import ImageSource, fits_on
from ..images.visibility import activate, add_behind_boxes
from ..metadata import METADATA_KEY, is_mask, is_of, layer_name, metadata_of
from ..results.written_labels import WRITTEN, set_ids

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels

BACKGROUND_COLOR = "#9aa5b8"
N_COLORS = 48
KIND = "partial"
"""Kind of the layers that partial labels are painted in."""

ALREADY_LABELLED = "This cell is among the labels already."

PAINTED = "what I painted"
BOTH = "what I painted and corrected"
CORRECTIONS = "corrections of {}"
OBJECTS = "objects of {}"
INSIDE_BOXES = "{}, complete inside the boxes"
"""Titles of the ways to take labels of a layer."""

Boxes = list[tuple[tuple[int, ...], Box]]
Reader = Callable[[tuple[int, ...]], Callable[[], np.ndarray]]
"""Copies a plane at once, and returns the rest of the work, to be done in a thread."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """A way of taking partial labels from a layer.

    Parameters
    ----------
    title : str
        As the user chooses it.
    layer : Labels
    read : Reader
        Returns the ``(Y, X)`` partial labels of a plane.
    """

    title: str
    layer: Labels
    read: Reader


def paint_layer(viewer: ViewerModel, source: ImageSource) -> Labels | None:
    """Return the layer that an image's partial labels are painted in, or None."""
    for layer in viewer.layers:
        if is_of(layer, source.layer, KIND):
            return layer
    return None


def start_painting(viewer: ViewerModel, source: ImageSource, label: int) -> Labels:
    """Return the paint layer of an image, selected, in paint mode and with a label.

    Parameters
    ----------
    label : int
        1 for background; `FIRST_OBJECT` or more takes a number that is free.
    """
    layer = paint_layer(viewer, source)
    if layer is None:
        layer = add_behind_boxes(
            viewer,
            lambda: viewer.add_labels(
                np.zeros(source.companion.shape, np.uint16),
                name=layer_name(f"{source.name} [labels to learn]"),
                opacity=0.6,
                metadata={METADATA_KEY: source.entry(KIND)},
                **source.placement(),
            ),
        )
        color(layer)
        layer.brush_size = 8
    if label >= FIRST_OBJECT:
        label = max(BACKGROUND, int(np.asarray(layer.data).max(initial=0))) + 1
    activate(viewer, layer)
    layer.visible = True
    layer.selected_label = label
    layer.mode = "paint"
    return layer


def results_on(viewer: ViewerModel, source: ImageSource) -> list[Labels]:
    """Return the visible layers whose objects can be accepted, the topmost first."""
    return [
        layer
        for layer in reversed(viewer.layers)
        if layer.visible
        and (is_mask(layer) or metadata_of(layer, "labels") is not None)
        and fits_on(layer, source)
    ]


def accept(
    viewer: ViewerModel, source: ImageSource, point: tuple[float, ...]
) -> str | None:
    """Copy the object of a result at a point of the world into the labels to learn.

    A thin ring around it becomes background. Existing labels are not painted over. One
    undo removes the whole object.

    Returns
    -------
    str or None
        The object, in words for the user; None where there is none.

    Raises
    ------
    PartialLabelError
        If the object is labelled already.
    """
    index = np.round(source.point_to_data(point)).astype(int)
    y, x = (int(index[i]) for i in source.companion.yx)
    plane = source.plane_at(point)
    if not source.contains(point):
        return None
    for result in results_on(viewer, source):
        corner, mask = _object_at(result, source, plane, (y, x))
        if mask.any():
            break
    else:
        return None
    layer = paint_layer(viewer, source) or start_painting(viewer, source, FIRST_OBJECT)
    painted = _window(layer, source, plane, corner, mask.shape)
    partial = from_objects(mask.astype(np.int32))
    inside = (partial >= FIRST_OBJECT) & (painted < FIRST_OBJECT)
    if not inside.any():
        raise PartialLabelError(ALREADY_LABELLED)
    label = max(BACKGROUND, int(np.asarray(layer.data).max(initial=0))) + 1
    around = (partial == BACKGROUND) & (painted == UNLABELLED)
    values = np.where(inside, label, BACKGROUND)[inside | around]
    set_ids(layer, _indices(inside | around, corner, source, plane), values)
    layer.refresh()
    return f"a cell of '{result.name}'"


def _object_at(
    layer: Labels, source: ImageSource, plane: tuple[int, ...], point: tuple[int, int]
) -> tuple[tuple[int, int], np.ndarray]:
    """Return the corner of a window, and the object at a point as a mask in it.

    Only the surroundings are read: the window grows until the object is complete.
    """
    half = 64
    while True:
        low = [max(0, p - half) for p in point]
        high = [
            min(n, p + half) for n, p in zip(source.plane_shape, point, strict=True)
        ]
        corner, shape = (low[0], low[1]), (high[0] - low[0], high[1] - low[1])
        seen = _window(layer, source, plane, corner, shape)
        label = seen[point[0] - low[0], point[1] - low[1]]
        mask = (seen == label) & (label > 0)
        inner = [
            slice(int(lo > 0), n - int(hi < size))
            for lo, hi, n, size in zip(
                low, high, shape, source.plane_shape, strict=True
            )
        ]
        inside = np.zeros(shape, bool)
        inside[tuple(inner)] = True
        if not (mask & ~inside).any():
            return corner, mask
        half *= 2


def _window(
    layer: Labels,
    source: ImageSource,
    plane: tuple[int, ...],
    corner: tuple[int, int],
    shape: tuple[int, ...],
) -> np.ndarray:
    """Return a copy of a part of one plane of a companion, ``(Y, X)``."""
    y, x = corner
    tile = Tile(y, y + shape[0], x, x + shape[1])
    if layer.data.shape == source.plane_shape:
        return np.array(layer.data[tile.slices])
    return np.array(layer.data[source.companion.index(plane, tile)]).reshape(shape)


def _indices(
    mask: np.ndarray,
    corner: tuple[int, int],
    source: ImageSource,
    plane: tuple[int, ...],
) -> tuple[np.ndarray, ...]:
    """Return the indices of the pixels of a mask in a whole companion."""
    pixels = np.nonzero(mask)
    starts = [part.start for part in source.companion.index(plane)]
    found = [np.full(pixels[0].shape, start) for start in starts]
    for axis, position, first in zip(source.companion.yx, pixels, corner, strict=True):
        found[axis] = position + first
    return tuple(found)


def color(layer: Labels) -> None:
    """Show background in grey, and objects in colours of their own."""
    from napari.utils.colormaps import DirectLabelColormap, label_colormap

    bright = label_colormap(N_COLORS, seed=0.6)
    colors = {i: bright.map(i - BACKGROUND) for i in range(FIRST_OBJECT, N_COLORS + 1)}
    by_id: dict[int | None, Any] = {
        None: "#ffb000",
        0: "transparent",
        BACKGROUND: BACKGROUND_COLOR,
    }
    layer.colormap = DirectLabelColormap(color_dict=by_id | colors)


def labelled_layers(viewer: ViewerModel, source: ImageSource) -> list[Labelled]:
    """Return all ways of taking partial labels for an image, painted ones first."""
    painted: list[Labelled] = []
    corrected: list[Labelled] = []
    others: list[Labelled] = []
    boxes = boxes_on(viewer, source)
    for layer in viewer.layers:
        own = metadata_of(layer) or {}
        if is_of(layer, source.layer, KIND):
            painted.append(Labelled(PAINTED, layer, _painted(layer, source)))
        elif is_of(layer, source.layer, "labels"):
            if layer.metadata.get(WRITTEN) is not None:
                title = CORRECTIONS.format(layer.name)
                corrected.append(Labelled(title, layer, _corrected(layer, source)))
        elif is_mask(layer) and not own and fits_on(layer, source):
            title = OBJECTS.format(layer.name)
            others.append(Labelled(title, layer, _objects(layer, source)))
            if boxes:
                title = INSIDE_BOXES.format(layer.name)
                read = _inside_boxes(layer, source, boxes)
                others.append(Labelled(title, layer, read))
    both = [_both(painted[0], corrected[-1])] if painted and corrected else []
    return both + painted + corrected + others


def _both(painted: Labelled, corrected: Labelled) -> Labelled:
    def read(plane: tuple[int, ...]) -> Callable[[], np.ndarray]:
        first, second = painted.read(plane), corrected.read(plane)
        return lambda: merge_partial_labels(first(), second())

    return Labelled(BOTH, painted.layer, read)


def boxes_on(viewer: ViewerModel, source: ImageSource) -> Boxes:
    """Return the prompt boxes on an image, each with its plane."""
    found: Boxes = []
    for layer in viewer.layers:
        if not is_of(layer, source.layer, "boxes"):
            continue
        for corners in layer.data:
            yx = np.asarray(corners)[:, source.companion.yx]
            box = Box.from_corners(yx, shape=source.plane_shape)
            found.append((source.companion.plane_of(np.asarray(corners)[0]), box))
    return found


def _plane(data: np.ndarray, source: ImageSource, plane: tuple[int, ...]) -> np.ndarray:
    """Return a copy of one plane of a companion, ``(Y, X)``."""
    if data.shape == source.plane_shape:
        return np.array(data)
    part = np.array(data[source.companion.index(plane)])
    return part.reshape(source.plane_shape)


def _painted(layer: Labels, source: ImageSource) -> Reader:
    def read(plane: tuple[int, ...]) -> Callable[[], np.ndarray]:
        now = _plane(np.asarray(layer.data), source, plane)
        return lambda: now.astype(np.int32)

    return read


def _corrected(layer: Labels, source: ImageSource) -> Reader:
    def read(plane: tuple[int, ...]) -> Callable[[], np.ndarray]:
        before = _plane(layer.metadata[WRITTEN], source, plane)
        after = _plane(np.asarray(layer.data), source, plane)
        return lambda: from_correction(before, after)

    return read


def _objects(layer: Labels, source: ImageSource) -> Reader:
    def read(plane: tuple[int, ...]) -> Callable[[], np.ndarray]:
        now = _plane(np.asarray(layer.data), source, plane)
        return lambda: from_objects(as_objects(now))

    return read


def _inside_boxes(layer: Labels, source: ImageSource, boxes: Boxes) -> Reader:
    def read(plane: tuple[int, ...]) -> Callable[[], np.ndarray]:
        now = _plane(np.asarray(layer.data), source, plane)
        here = [box for where, box in boxes if where == plane]
        return lambda: from_labels(now, here)

    return read
