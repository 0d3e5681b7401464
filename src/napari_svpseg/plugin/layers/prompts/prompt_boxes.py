"""The Shapes layers that hold the boxes of prompts, one for each image."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from ....core.image import ImageError
from ...callbacks import reports_errors
from ..images.image_source import ImageSource
from ..images.visibility import activate, camera_of
from ..metadata import METADATA_KEY, find_layer, is_image, layer_name, metadata_of
from ..placement import Grid, Place, align
from ..world import pixel_lengths, world_units
from .prompt_item import COLORS, PromptItem, outline_color

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer, Shapes

logger = logging.getLogger(__name__)

NAME = "SVPSeg prompts"

OUTLINE_PIXELS = 3.0
"""Width of a box's outline on the screen, however far the view is zoomed."""

ZOOM_WAIT_MS = 60


@reports_errors("_fit_outlines")
class PromptBoxes(QObject):
    """Boxes in the viewer. A box and its prompt share an id, a feature of the layer.

    Parameters
    ----------
    viewer : ViewerModel
    source_of : callable
        Returns the `ImageSource` of an image layer; raises `ImageError` where its axes
        are not known.
    """

    taken = Signal(object)
    """A layer that is followed from now on."""
    edited = Signal(object)
    """A layer whose boxes were added, moved or deleted, or that was adopted."""
    selected = Signal(str)
    """Id of the box that the user has selected."""
    message = Signal(str, bool)

    def __init__(
        self, viewer: ViewerModel, source_of: Callable[[Image], ImageSource]
    ) -> None:
        super().__init__()
        self.viewer, self.source_of = viewer, source_of
        self._layers: dict[Any, tuple[Shapes, Image]] = {}
        self._is_quiet = False
        self._zoomed = QTimer(self)
        self._zoomed.setSingleShot(True)
        self._zoomed.setInterval(ZOOM_WAIT_MS)
        self._zoomed.timeout.connect(self._fit_outlines)
        viewer.layers.events.inserted.connect(self._on_inserted)
        camera_of(viewer).events.zoom.connect(self._on_zoom)

    def close(self) -> None:
        """Disconnect from the viewer; the boxes stay there."""
        self.viewer.layers.events.inserted.disconnect(self._on_inserted)
        camera_of(self.viewer).events.zoom.disconnect(self._on_zoom)
        self._zoomed.stop()
        for layer, _ in self._layers.values():
            layer.events.data.disconnect(self._on_data)
            layer.events.highlight.disconnect(self._on_highlight)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Change boxes without reporting it as an edit of the user's."""
        before, self._is_quiet = self._is_quiet, True
        try:
            yield
        finally:
            self._is_quiet = before

    # ------------------------------------------------------------ layers

    def adopt(self, layer: Layer) -> None:
        """Follow the boxes of a sample, or of a dock that was closed."""
        metadata = metadata_of(layer, "boxes")
        if metadata is None or layer.unique_id in self._layers:
            return
        image = find_layer(self.viewer.layers, metadata.get("source_id"))
        if image is None or not is_image(image):
            return
        try:
            source = self.source_of(image)
        except ImageError as error:
            logger.info("boxes of %s: %s", image.name, error)
            return
        if layer.ndim == len(source.companion.axes):
            self._take(layer, image)
            self._move_to_level(layer)  # an earlier dock may have used another one
            self.edited.emit(layer)

    def image_of(self, layer: Shapes) -> Image:
        """Return the image that the boxes of a layer are on."""
        return self._layers[layer.unique_id][1]

    def layer_of(self, item_id: str) -> Shapes | None:
        """Return the layer that holds the box with this id."""
        for layer, _ in self._layers.values():
            if item_id in box_ids(layer):
                return layer
        return None

    def layer_on(self, source: ImageSource) -> Shapes:
        """Return the layer with the boxes on an image, added if there is none."""
        for layer, image in self._layers.values():
            if image == source.layer and layer.ndim == len(source.companion.axes):
                return layer
        active = self.viewer.layers.selection.active
        with self.quiet():
            layer = self.viewer.add_shapes(
                ndim=len(source.companion.axes),
                name=layer_name(f"{NAME} [{source.name}]") if self._layers else NAME,
                face_color="transparent",
                edge_color=COLORS[0],
                edge_width=2,
                opacity=1.0,
                features={"id": np.empty(0, object), "name": np.empty(0, object)},
                metadata={METADATA_KEY: source.entry("boxes")},
                **source.placement(),
            )
            self._take(layer, source.layer)
        activate(self.viewer, active)
        return layer

    def release(self, layer: Layer) -> Image | None:
        """Stop following a layer that was removed; return the image of its boxes."""
        return self._layers.pop(layer.unique_id, (None, None))[1]

    def remove_from(self, image: Layer) -> None:
        """Remove the boxes of an image that was removed."""
        for layer, of in list(self._layers.values()):
            if of == image and layer in self.viewer.layers:
                self._layers.pop(layer.unique_id)
                self.viewer.layers.remove(layer)

    def realign(self, image: Image) -> None:
        """Move boxes so that they stay in place in the world when the level changes."""
        for layer, of in list(self._layers.values()):
            if of == image:
                self._move_to_level(layer)

    def _move_to_level(self, layer: Shapes) -> None:
        image, metadata = self.image_of(layer), metadata_of(layer) or {}
        try:
            new = self.source_of(image).grid()
        except ImageError:
            return
        old = Grid.from_dict(metadata.get("grid") or new.to_dict())
        if len(new.factors) != layer.ndim or np.allclose(new.factors, old.factors):
            return
        boxes = [[old.moved_to(new, v) for v in box] for box in layer.data]
        layer.metadata[METADATA_KEY] = {**metadata, "grid": new.to_dict()}
        with self.quiet():
            align(layer, Place.of(image).on(new).in_units(layer.units))
            if boxes:
                layer.data = [(np.array(box), "rectangle") for box in boxes]
        self.edited.emit(layer)

    def _take(self, layer: Shapes, image: Image) -> None:
        """Follow the boxes of a layer from now on."""
        self._layers[layer.unique_id] = (layer, image)
        if "grid" not in (metadata_of(layer) or {}):  # of a sample
            entry = self.source_of(image).entry("boxes")
            layer.metadata[METADATA_KEY] = {**entry, **(metadata_of(layer) or {})}
        with self.quiet():
            _set_features(layer, box_ids(layer))
            layer.text = {
                "string": "{name}",
                "color": COLORS[0],
                "size": 9,
                "anchor": "upper_left",
            }
        layer.events.data.connect(self._on_data)
        layer.events.highlight.connect(self._on_highlight)
        self._fit_outlines()
        self.taken.emit(layer)

    # ------------------------------------------------------------ boxes

    def write(self, layer: Shapes, vertices: list[np.ndarray], ids: list[str]) -> None:
        """Put the boxes of a layer back, snapped to pixels, with their ids."""
        selected = {i for i in layer.selected_data if i < len(vertices)}
        same = len(vertices) == layer.nshapes and all(
            np.allclose(a, b) for a, b in zip(layer.data, vertices, strict=True)
        )
        with self.quiet():
            if not same:
                layer.data = [(v, "rectangle") for v in vertices]
                layer.selected_data = selected
            _set_features(layer, ids)

    def style(self, items: Iterable[PromptItem]) -> None:
        """Show the colour and the name of its prompt at each box."""
        by_id = {item.id: item for item in items}
        for layer, _ in self._layers.values():
            ids = box_ids(layer)
            if not ids:
                continue
            here = [by_id.get(i) for i in ids]
            with self.quiet():
                colors = [outline_color(i) if i else COLORS[0] for i in here]
                layer.edge_color = colors
                layer.text.color = colors
                _set_features(layer, ids, [i.name if i else "" for i in here])
            layer.metadata[METADATA_KEY] = {
                **(metadata_of(layer) or {}),
                "items": {i.id: i.state() for i in here if i is not None},
            }

    def remove(self, item_id: str) -> None:
        """Remove the box with this id, if there is one."""
        layer = self.layer_of(item_id)
        if layer is not None:
            with self.quiet():
                layer.remove([box_ids(layer).index(item_id)])

    def put(self, item: PromptItem) -> None:
        """Add the box of an item that was deleted."""
        assert item.source is not None and item.box is not None
        layer = self.layer_on(item.source)
        corners = item.source.companion.corners(item.plane, item.box)
        self.write(layer, [*layer.data, corners], [*box_ids(layer), item.id])

    def select(self, item_id: str) -> None:
        """Select the box with this id, if there is one."""
        layer = self.layer_of(item_id)
        if layer is None:
            return
        chosen = {box_ids(layer).index(item_id)}
        if set(layer.selected_data) != chosen:
            with self.quiet():
                layer.selected_data = chosen
                layer.refresh()

    # ------------------------------------------------------------ events

    def _on_inserted(self, event: Any) -> None:
        if not self._is_quiet:
            self.adopt(event.value)

    def _on_data(self, event: Any) -> None:
        # napari announces a change ("adding") before it reports it ("added")
        if self._is_quiet or "ing" in str(getattr(event, "action", "")).lower():
            return
        if event.source.unique_id in self._layers:
            self.edited.emit(event.source)

    def _on_highlight(self, event: Any) -> None:
        layer = event.source
        chosen = list(layer.selected_data)
        if not self._is_quiet and len(chosen) == 1 and chosen[0] < layer.nshapes:
            self.selected.emit(box_ids(layer)[chosen[0]])

    def _on_zoom(self, event: Any) -> None:
        self._zoomed.start()

    def _fit_outlines(self) -> None:
        """Set the width of outlines so that it is the same on screen at any zoom."""
        zoom, units = float(camera_of(self.viewer).zoom), world_units(self.viewer)
        for layer, _ in self._layers.values():
            length = float(pixel_lengths(layer, units)[-1])
            width = OUTLINE_PIXELS / max(zoom * length, 1e-9)
            if not np.isclose(width, layer.current_edge_width):
                with self.quiet():
                    layer.edge_width = width
                    layer.current_edge_width = width


def box_ids(layer: Shapes) -> list[str]:
    """Return the id of each box; boxes that are new or pasted have an empty one."""
    column = list(layer.features["id"]) if "id" in layer.features else []
    column += [""] * (layer.nshapes - len(column))
    ids: list[str] = []
    for value in column:
        known = isinstance(value, str) and value not in ids
        ids.append(value if known else "")
    return ids


def _set_features(
    layer: Shapes, ids: list[str], names: list[str] | None = None
) -> None:
    names = [""] * len(ids) if names is None else names
    layer.features = {"id": np.array(ids, object), "name": np.array(names, object)}
    layer.feature_defaults = {"id": "", "name": ""}
    layer.refresh_text()
