"""The prompts of a dock: boxes drawn in the viewer, their masks, and loaded prompts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from ...core.geometry import PROMPT_SIZE, Box, Tile
from ...core.image import ImageError
from ...core.prompt import Prompt, PromptError, PromptSet
from ..tools.draw_box import BoxTool
from .image_source import MARK, ImageSource, fits_on, is_mask, is_picture, mark_of
from .mask_layers import fill, mask_layer
from .prompt_item import COLORS, NO_MASK, TRY, Intensities, PromptItem, outline_color
from .visibility import activate, bring_into_sight, camera_of, is_in_sight, look_at

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer, Shapes

logger = logging.getLogger(__name__)

OUTLINE_PIXELS = 3.0
"""Width of a box's outline on the screen, however far the view is zoomed."""


class PromptBook(QObject):
    """The list of prompts, kept equal to the boxes in the viewer.

    Parameters
    ----------
    viewer : ViewerModel
    source_of : callable
        Returns the `ImageSource` of an image layer; raises `ImageError` where its axes
        are not known.
    """

    changed = Signal()
    selected = Signal(str)
    message = Signal(str, bool)

    def __init__(
        self, viewer: ViewerModel, source_of: Callable[[Image], ImageSource]
    ) -> None:
        super().__init__()
        self.viewer = viewer
        self.items: list[PromptItem] = []
        self.size = PROMPT_SIZE
        self.default_mask: Labels | None = None
        self.intensities = Intensities()
        self.shortcuts: dict[str, tuple[str, Callable[[], None]]] = {}
        self.source_of = source_of
        self._layers: dict[Any, tuple[Shapes, Image]] = {}
        self._watched: set[Any] = set()
        self._busy = False
        self.tool = BoxTool(self)
        self._n_named = 0
        self._recut = QTimer(self)
        self._recut.setSingleShot(True)
        self._recut.setInterval(150)
        self._recut.timeout.connect(self.refresh)
        self._zoomed = QTimer(self)
        self._zoomed.setSingleShot(True)
        self._zoomed.setInterval(60)
        self._zoomed.timeout.connect(self._fit_outlines)
        viewer.layers.events.inserted.connect(self._on_layer_inserted)
        viewer.layers.events.removed.connect(self._on_layer_removed)
        viewer.layers.selection.events.active.connect(self._on_active)
        camera_of(viewer).events.zoom.connect(self._on_zoom)

    def close(self) -> None:
        """Let go of the viewer; the boxes stay there."""
        self.tool.stop()
        events = self.viewer.layers.events
        events.inserted.disconnect(self._on_layer_inserted)
        events.removed.disconnect(self._on_layer_removed)
        self.viewer.layers.selection.events.active.disconnect(self._on_active)
        camera_of(self.viewer).events.zoom.disconnect(self._on_zoom)
        self._zoomed.stop()
        for layer, _ in self._layers.values():
            layer.events.data.disconnect(self._on_boxes)
            layer.events.highlight.disconnect(self._on_highlight)
            layer.events.mode.disconnect(self._on_mode)

    def adopt_all(self) -> None:
        """Take over the boxes of a sample, or of a dock that was closed."""
        for layer in list(self.viewer.layers):
            self._adopt(layer)

    def _adopt(self, layer: Layer) -> None:
        mark = mark_of(layer, "boxes")
        if mark is None or layer.unique_id in self._layers:
            return
        image = next(
            (
                la
                for la in self.viewer.layers
                if is_picture(la) and la.name == mark.get("image")
            ),
            None,
        )
        if image is None:
            return
        try:
            source = self.source_of(image)
        except ImageError as error:
            logger.info("boxes of %s: %s", image.name, error)
            return
        if layer.ndim == len(source.companion_axes):
            self._take(layer, image)
            self._follow(layer)

    def _on_layer_inserted(self, event: Any) -> None:
        if not self._busy:
            self._adopt(event.value)

    # ------------------------------------------------------------ the list

    def item(self, item_id: str) -> PromptItem | None:
        """Return the item with this id."""
        return next((i for i in self.items if i.id == item_id), None)

    @property
    def is_ready(self) -> bool:
        """Whether there are prompts that show what to find, and none lacks anything."""
        chosen = [i for i in self.items if i.enabled]
        return all(i.is_ready for i in chosen) and any(not i.negative for i in chosen)

    def prompts(self) -> PromptSet:
        """Return the prompts that are on, as the engine takes them.

        Raises
        ------
        PromptError
            Saying what to do, if there is none or one that is on has no mask.
        """
        if not self.items:
            raise PromptError("Draw a box on a few labelled cells to begin.")
        chosen = [i for i in self.items if i.enabled]
        for item in chosen:
            if not item.is_ready:
                raise PromptError(f"'{item.name}': {item.problem}")
        return PromptSet([self.prompt(i) for i in chosen]).usable()

    def all_prompts(self) -> PromptSet:
        """Return all prompts that have a mask, on or off, for saving."""
        ready = [i for i in self.items if i.is_ready]
        if not ready:
            raise PromptError("There is no finished prompt to save yet.")
        return PromptSet([self.prompt(i) for i in ready])

    def prompt(self, item: PromptItem) -> Prompt:
        """Return one item as a prompt."""
        return item.prompt(self.intensities)

    def add_loaded(self, prompts: PromptSet) -> None:
        """Append prompts that come from a file."""
        for prompt in prompts:
            self.items.append(
                PromptItem(
                    name=prompt.name,
                    color=prompt.color,
                    enabled=prompt.enabled,
                    negative=prompt.is_negative,
                    loaded=prompt,
                    crop=prompt.image,
                    mask=prompt.mask,
                    box=prompt.box,
                )
            )
        self.changed.emit()

    def remove(self, item_id: str) -> None:
        """Take an item off the list, and its box out of the viewer."""
        item = self.item(item_id)
        if item is None:
            return
        layer = self._box_layer_of(item)
        if layer is not None:
            ids = self._ids(layer)
            with self.quiet():
                layer.remove([ids.index(item_id)])
        self.items.remove(item)
        self._style()
        self.changed.emit()

    def update(self, item_id: str, **values: Any) -> None:
        """Change the name, state or mask of an item."""
        item = self.item(item_id)
        if item is None:
            return
        for name, value in values.items():
            setattr(item, name, value)
        if "mask_layer" in values:
            self._watch(item.mask_layer)
        self._cut(item)
        self._style()
        self.changed.emit()

    def refresh(self) -> None:
        """Cut all boxes anew, after their images or masks have changed."""
        for item in self.items:
            self._cut(item)
        self.changed.emit()

    def axes_changed(self, layer: Image) -> None:
        """Follow a new declaration of a layer's axes, channels or level."""
        for item in self.items:
            if item.source is not None and item.source.layer == layer:
                try:
                    item.source = self.source_of(layer)
                except ImageError as error:
                    item.problem = str(error)
        self.adopt_all()
        for boxes, image in list(self._layers.values()):
            if image == layer:
                self._move_to_level(boxes)
        self.refresh()

    def _move_to_level(self, boxes: Shapes) -> None:
        """Keep boxes where they are in the world when their pixels are others."""
        image = self.image_of(boxes)
        try:
            place = self.source_of(image).placement()
        except ImageError:
            return
        if len(place["scale"]) != boxes.ndim or np.allclose(
            [*place["scale"], *place["translate"]], [*boxes.scale, *boxes.translate]
        ):
            return
        world = [[boxes.data_to_world(v) for v in box] for box in boxes.data]
        with self.quiet():
            boxes.scale, boxes.translate = place["scale"], place["translate"]
            if world:
                boxes.data = [
                    (np.array([boxes.world_to_data(p) for p in box]), "rectangle")
                    for box in world
                ]
        self._follow(boxes)

    # ------------------------------------------------------------ box layers

    def place(
        self, source: ImageSource, plane: tuple[int, ...], box: Box
    ) -> PromptItem:
        """Add a box, moved inside the image where it leaves it."""
        box = box.clamped(source.plane_shape)
        layer = self.box_layer(source)
        known = {i.id for i in self.items}
        layer.add_rectangles([source.corners(plane, box)])
        layer.selected_data = {layer.nshapes - 1}
        return next(i for i in self.items if i.id not in known)

    def image_of(self, layer: Shapes) -> Image:
        """Return the image that the boxes of a layer are on."""
        return self._layers[layer.unique_id][1]

    def box_layer(self, source: ImageSource) -> Shapes:
        """Return the Shapes layer with the boxes on an image, made if need be."""
        for layer, image in self._layers.values():
            if image == source.layer and layer.ndim == len(source.companion_axes):
                return layer
        name = "SVPSeg prompts"
        if self._layers:
            name += f" [{source.name}]"
        active = self.viewer.layers.selection.active
        with self.quiet():
            layer = self.viewer.add_shapes(
                ndim=len(source.companion_axes),
                name=name,
                face_color="transparent",
                edge_color=COLORS[0],
                edge_width=2,
                opacity=1.0,
                features={"id": np.empty(0, object), "name": np.empty(0, object)},
                metadata={MARK: {"kind": "boxes", "image": source.name}},
                **source.placement(),
            )
            self._take(layer, source.layer)
        activate(self.viewer, active)
        return layer

    def _take(self, layer: Shapes, image: Image) -> None:
        """Follow the boxes of a layer from now on."""
        self._layers[layer.unique_id] = (layer, image)
        ids = self._ids(layer)
        with self.quiet():
            self._set_features(layer, ids)
            layer.text = {
                "string": "{name}",
                "color": COLORS[0],
                "size": 9,
                "anchor": "upper_left",
            }
        layer.events.data.connect(self._on_boxes)
        layer.events.highlight.connect(self._on_highlight)
        layer.events.mode.connect(self._on_mode)
        self._fit_outlines()
        for key, (_, action) in self.shortcuts.items():
            layer.bind_key(key, lambda _layer, act=action: act(), overwrite=True)

    def _on_boxes(self, event: Any) -> None:
        """Make the list follow the boxes: added, moved, resized or deleted."""
        if self._busy or "ing" in str(getattr(event, "action", "")).lower():
            return
        layer = event.source
        if layer.unique_id not in self._layers:
            return
        self._follow(layer)

    def _follow(self, layer: Shapes) -> None:
        image = self.image_of(layer)
        source = self.source_of(image)
        ids = self._ids(layer)
        self._drop_vanished(layer, ids)
        vertices, outside = [], []
        for i, data in enumerate(layer.data):
            item = self.item(ids[i])
            corners = np.asarray(data)[:, source.yx]
            if not _touches(corners, source.plane_shape):
                outside.append(i)
                continue
            box = Box.from_corners(corners, shape=source.plane_shape)
            plane = source.plane_of(np.asarray(data)[0])
            if item is None:
                before = (mark_of(layer) or {}).get("items", {}).get(ids[i])
                item = self._new_item(source, plane, box, before or {})
                ids[i] = item.id
            elif (item.box, item.plane) != (box, plane):
                item.box, item.plane = box, plane
                self._cut(item)
            vertices.append(source.corners(plane, box))
        gone = {ids[i] for i in outside}
        self.items = [item for item in self.items if item.id not in gone]
        self._rewrite(
            layer, vertices, [i for n, i in enumerate(ids) if n not in outside]
        )
        if outside:
            self.message.emit(
                f"A box outside '{source.name}' was removed: draw it on the image.",
                True,
            )
        self.changed.emit()

    def _rewrite(
        self, layer: Shapes, vertices: list[np.ndarray], ids: list[str]
    ) -> None:
        """Put the snapped boxes back into their layer."""
        selected = {i for i in layer.selected_data if i < len(vertices)}
        same = len(vertices) == layer.nshapes and all(
            np.allclose(a, b) for a, b in zip(layer.data, vertices, strict=True)
        )
        with self.quiet():
            if not same:
                if vertices:
                    layer.data = [(v, "rectangle") for v in vertices]
                else:
                    layer.data = []
                layer.selected_data = selected
            self._set_features(layer, ids)
        self._style()

    def _set_features(self, layer: Shapes, ids: list[str]) -> None:
        names = [item.name if (item := self.item(i)) else "" for i in ids]
        layer.features = {"id": np.array(ids, object), "name": np.array(names, object)}
        layer.feature_defaults = {"id": "", "name": ""}
        layer.refresh_text()

    def _new_item(
        self,
        source: ImageSource,
        plane: tuple[int, ...],
        box: Box,
        before: dict[str, Any],
    ) -> PromptItem:
        """Append the item of a new box, or of one that an earlier dock left."""
        self._n_named = self._n_named + 1 if len(self.items) else 1
        known = {
            k: before[k]
            for k in ("name", "color", "negative", "enabled") & before.keys()
        }
        item = PromptItem(
            **{
                "name": f"prompt {self._n_named}",
                "color": COLORS[(self._n_named - 1) % len(COLORS)],
                **known,
            },
            source=source,
            plane=plane,
            box=box,
        )
        self.items.append(item)
        self._choose_mask(item, str(before.get("mask", "")))
        self._watch(item.mask_layer)
        self._watch(source.layer)
        self.intensities.request(source)
        self.selected.emit(item.id)
        if item.problem:
            self.message.emit(item.problem, False)
        else:
            self.message.emit(TRY, False)
        return item

    def _choose_mask(self, item: PromptItem, name: str = "") -> None:
        """Take the mask from the Labels layer that a new box most probably means."""
        assert item.source is not None
        likely: list[Labels | None] = [
            la
            for la in reversed(self.viewer.layers)
            if is_mask(la) and fits_on(la, item.source)
        ]
        if self.default_mask in self.viewer.layers:
            likely.insert(0, self.default_mask)
        if name in self.viewer.layers and is_mask(self.viewer.layers[name]):
            likely.insert(0, self.viewer.layers[name])
        for layer in (*likely, likely[0] if likely else None):
            item.mask_layer = layer
            self._cut(item)
            if item.is_ready:
                return

    def _drop_vanished(self, layer: Shapes, ids: list[str]) -> None:
        image = self.image_of(layer)
        for item in list(self.items):
            if (
                item.source is not None
                and item.source.layer == image
                and item.id not in ids
            ):
                self.items.remove(item)

    def _box_layer_of(self, item: PromptItem) -> Shapes | None:
        for layer, _ in self._layers.values():
            if item.id in self._ids(layer):
                return layer
        return None

    @staticmethod
    def _ids(layer: Shapes) -> list[str]:
        """Return the item of each box; boxes that are new or pasted have none."""
        column = list(layer.features["id"]) if "id" in layer.features else []
        column += [""] * (layer.nshapes - len(column))
        ids: list[str] = []
        for value in column:
            known = isinstance(value, str) and value not in ids
            ids.append(value if known else "")
        return ids

    def _style(self) -> None:
        """Give each box its prompt's colour and name."""
        for layer, _ in self._layers.values():
            ids = self._ids(layer)
            if not ids:
                continue
            items = [self.item(i) for i in ids]
            with self.quiet():
                colors = [outline_color(i) if i else COLORS[0] for i in items]
                layer.edge_color = colors
                layer.text.color = colors
                self._set_features(layer, ids)
            layer.metadata[MARK] = {
                **(mark_of(layer) or {}),
                "items": {i.id: i.state() for i in items if i is not None},
            }

    def _on_zoom(self, event: Any) -> None:
        self._zoomed.start()

    def _fit_outlines(self) -> None:
        """Keep outlines of one width on the screen: none hides what it surrounds."""
        zoom = float(camera_of(self.viewer).zoom)
        for layer, _ in self._layers.values():
            width = OUTLINE_PIXELS / max(zoom * float(layer.scale[-1]), 1e-9)
            if not np.isclose(width, layer.current_edge_width):
                with self.quiet():
                    layer.edge_width = width
                    layer.current_edge_width = width

    def select(self, item_id: str) -> None:
        """Select an item's box in the viewer."""
        item = self.item(item_id)
        layer = self._box_layer_of(item) if item else None
        if layer is not None:
            chosen = {self._ids(layer).index(item_id)}
            if set(layer.selected_data) != chosen:
                with self.quiet():
                    layer.selected_data = chosen
                    layer.refresh()

    def show_image(self, item_id: str) -> None:
        """Bring the image of an item into sight."""
        item = self.item(item_id)
        if item is None or item.source is None:
            return
        image = item.source.layer
        if image in self.viewer.layers and not is_in_sight(self.viewer, image):
            bring_into_sight(self.viewer, image)

    def _on_highlight(self, event: Any) -> None:
        layer = event.source
        chosen = list(layer.selected_data)
        if self._busy or len(chosen) != 1 or chosen[0] >= layer.nshapes:
            return
        item_id = self._ids(layer)[chosen[0]]
        if self.item(item_id) is not None:
            self.selected.emit(item_id)

    def _on_mode(self, event: Any) -> None:
        self.tool.follow_mode(event.source, str(event.mode))

    def _on_active(self, event: Any) -> None:
        self.tool.follow_layer(event.value)

    def _on_layer_removed(self, event: Any) -> None:
        layer = event.value
        self.tool.leave(layer)
        self._watched.discard(layer.unique_id)
        boxes = self._layers.pop(layer.unique_id, None)
        if boxes is not None:
            image = boxes[1]
            self.items = [
                i for i in self.items if i.source is None or i.source.layer != image
            ]
            self.changed.emit()
            return
        self._keep_without(layer)

    def _keep_without(self, layer: Layer) -> None:
        """Turn prompts cut from a layer that has gone into prompts of their own."""
        touched = False
        for item in self.items:
            if item.source is not None and item.source.layer == layer:
                if item.is_ready:
                    item.loaded = self.prompt(item)
                    item.crop, item.mask = item.loaded.image, item.loaded.mask
                item.source, touched = None, True
            if item.mask_layer == layer:
                item.mask_layer, touched = None, True
                if item.source is not None:
                    item.problem = NO_MASK
                    item.mask = None
        self.items = [i for i in self.items if i.source or i.loaded]
        for boxes, image in list(self._layers.values()):
            if image == layer and boxes in self.viewer.layers:
                self._layers.pop(boxes.unique_id)
                self.viewer.layers.remove(boxes)
        if touched:
            self.changed.emit()
        self.intensities.forget(layer)

    # ------------------------------------------------------------ masks

    def add_paint_layer(
        self, item: PromptItem, found: np.ndarray | None = None
    ) -> Labels:
        """Return a Labels layer to paint an item's mask in, ready to paint.

        Parameters
        ----------
        item : PromptItem
        found : (side, side) int array, optional
            Labels to begin with, where nothing is painted yet.
        """
        assert item.source is not None and item.box is not None
        source = item.source
        layer = mask_layer(self.viewer, source)
        region = source.companion_index(item.plane, tile_of(item.box))
        if found is not None:
            fill(layer, region, source.to_companion(found, item.plane))
        self.update(item.id, mask_layer=layer)
        activate(self.viewer, layer)
        layer.selected_label = int(layer.data[region].max(initial=0)) + 1
        layer.brush_size = max(2, round(item.box.size / 10))
        layer.mode = "paint"
        self._look_at(item)
        return layer

    def _look_at(self, item: PromptItem) -> None:
        """Bring a box into view, large enough to paint in."""
        assert item.source is not None and item.box is not None
        layer = self._box_layer_of(item)
        if layer is not None:
            look_at(self.viewer, layer, item.source.corners(item.plane, item.box))

    def _watch(self, layer: Layer | None) -> None:
        """Cut the prompts anew after a layer was painted in or got new data."""
        if layer is None or layer.unique_id in self._watched:
            return
        self._watched.add(layer.unique_id)
        for name in ("paint", "data", "labels_update"):
            emitter = getattr(layer.events, name, None)
            if emitter is not None:
                emitter.connect(self._on_edited)

    def _on_edited(self, event: Any) -> None:
        if event.type == "data":
            self.intensities.forget(event.source)
        self._recut.start()

    def _cut(self, item: PromptItem) -> None:
        """Take the crop and the mask of an item's box."""
        item.cut(self._box_layer_of(item))

    def quiet(self) -> _Quiet:
        """Return a context in which changes to the boxes are not followed."""
        return _Quiet(self)


class _Quiet:
    """While open, changes to the boxes are ours and are not followed."""

    def __init__(self, book: PromptBook) -> None:
        self._book = book

    def __enter__(self) -> None:
        self._before, self._book._busy = self._book._busy, True

    def __exit__(self, *args: object) -> None:
        self._book._busy = self._before


def tile_of(box: Box) -> Tile:
    """Return a box as a tile."""
    return Tile(box.y, box.y + box.size, box.x, box.x + box.size)


def _touches(corners: np.ndarray, shape: tuple[int, int]) -> bool:
    low, high = corners.min(axis=0), corners.max(axis=0)
    return bool((high > -0.5).all() and (low < np.array(shape) - 0.5).all())
