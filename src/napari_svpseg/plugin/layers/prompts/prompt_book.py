"""The list of prompts of a dock: boxes drawn in the viewer, and loaded prompts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from ....core.annotation.patches import Patch
from ....core.geometry import PROMPT_SIZE, Box
from ....core.image import ImageError
from ....core.prompt import Prompt, PromptError, PromptSet
from ...callbacks import guarded, reports_errors
from ...messages import DRAW_BOX, SHOWING, TRY
from ..images.image_source import ImageSource
from ..images.intensities import Intensities
from ..images.visibility import bring_into_sight, is_in_sight, look_at
from ..labels.edit_watcher import EditWatcher
from ..metadata import metadata_of
from ..world import NOT_YX, world_units
from .mask_layers import clear_mask, likely_masks, paint_mask
from .prompt_boxes import PromptBoxes, box_ids
from .prompt_item import COLORS, PromptItem

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer, Shapes

OUTSIDE = "A box outside '{}' was removed: draw it on the image."
NONE_FINISHED = "There is no finished prompt to save yet."


@reports_errors(
    "_bind_keys",
    "_follow",
    "refresh",
    "axes_changed",
    "show_image",
    "remove",
)
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
    closed = Signal()
    deleted = Signal(object)
    """Items that the user deleted at once, each with the row it had."""

    def __init__(
        self, viewer: ViewerModel, source_of: Callable[[Image], ImageSource]
    ) -> None:
        super().__init__()
        self.viewer, self.source_of = viewer, source_of
        self.items: list[PromptItem] = []
        self.size = PROMPT_SIZE
        self.default_mask: Labels | None = None
        self.shortcuts: dict[str, tuple[str, Callable[[], None]]] = {}
        """Key to what it does: its name and the action, bound to the box layers."""
        self.intensities = Intensities()
        self.boxes = PromptBoxes(viewer, source_of)
        self._watcher = EditWatcher()
        self._n_named = 0
        self.boxes.message.connect(self.message)
        self.boxes.taken.connect(self._bind_keys)
        self.boxes.edited.connect(self._follow)
        self.boxes.selected.connect(self._on_box_selected)
        self._watcher.edited.connect(self.refresh)
        self._watcher.replaced.connect(self.intensities.forget)
        viewer.layers.events.removed.connect(self._on_layer_removed)

    def close(self) -> None:
        """Disconnect from the viewer; the boxes stay there."""
        self.closed.emit()
        self.viewer.layers.events.removed.disconnect(self._on_layer_removed)
        self.boxes.close()

    def adopt_all(self) -> None:
        """Add the boxes of a sample, or of a dock that was closed, to the list."""
        for layer in list(self.viewer.layers):
            self.boxes.adopt(layer)

    # ------------------------------------------------------------ the list

    def item(self, item_id: str) -> PromptItem | None:
        """Return the item with this id."""
        return next((i for i in self.items if i.id == item_id), None)

    @property
    def is_ready(self) -> bool:
        """Whether there are prompts that show what to find, and none lacks anything."""
        chosen = [i for i in self.items if i.enabled]
        return all(i.is_ready for i in chosen) and any(not i.negative for i in chosen)

    def prompts(self, image: Layer | None = None) -> PromptSet:
        """Return the prompts that are on, as the engine takes them.

        Parameters
        ----------
        image : Layer, optional
            With those that are used in this image only.

        Raises
        ------
        PromptError
            If there is none, or one that is on has no mask. The message names the next
            step.
        """
        if not self.items:
            raise PromptError(DRAW_BOX)
        chosen = [
            i
            for i in self.items
            if i.enabled
            and (not i.here_only or (image is not None and _is_on(i, image)))
        ]
        for item in chosen:
            if not item.is_ready:
                raise PromptError(f"'{item.name}': {item.problem}")
        return PromptSet([self.prompt(i) for i in chosen]).usable()

    def all_prompts(self) -> PromptSet:
        """Return all prompts that have a mask, on or off, for saving."""
        ready = [i for i in self.items if i.is_ready]
        if not ready:
            raise PromptError(NONE_FINISHED)
        return PromptSet([self.prompt(i) for i in ready])

    def prompt(self, item: PromptItem) -> Prompt:
        """Return one item as a prompt."""
        return item.prompt(self.intensities)

    def add_loaded(
        self, prompts: Iterable[Prompt], here_only: Collection[str] = ()
    ) -> None:
        """Append prompts that come from a file.

        Parameters
        ----------
        prompts : iterable of Prompt
        here_only : collection of str
            Names of those that are used in their own image only, which is not open.
        """
        for prompt in prompts:
            self.items.append(
                PromptItem(
                    name=prompt.name,
                    color=prompt.color,
                    enabled=prompt.enabled,
                    negative=prompt.is_negative,
                    here_only=prompt.name in here_only,
                    loaded=prompt,
                    crop=prompt.image,
                    mask=prompt.mask,
                    box=prompt.box,
                )
            )
        self.changed.emit()

    def remove(self, item_id: str) -> None:
        """Remove an item from the list, and its box from the viewer."""
        item = self.item(item_id)
        if item is not None:
            row = self.items.index(item)
            self.take_back(item)
            self.deleted.emit([(row, item)])

    def take_back(self, item: PromptItem) -> None:
        """Remove an item that a correction has added, or one that it replaces."""
        if item not in self.items:
            return
        self.boxes.remove(item.id)
        self.items.remove(item)
        self.boxes.style(self.items)
        self.changed.emit()

    def put_back(self, removed: Sequence[tuple[int, PromptItem]]) -> int:
        """Put deleted items back into their rows, with their boxes.

        Parameters
        ----------
        removed : sequence of (int, PromptItem)
            Row of each item; the image of each is open, or it has none.

        Returns
        -------
        int
            Number of items that are back.
        """
        missing = [r for r in removed if r[1] not in self.items]
        for row, item in missing:
            if (
                item.mask_layer is not None
                and item.mask_layer not in self.viewer.layers
            ):
                item.mask_layer = None
            if item.source is not None and item.box is not None:
                self.boxes.put(item)
            self.items.insert(row, item)
            self._watcher.watch(item.mask_layer)
        self.boxes.style(self.items)
        self.refresh()
        if missing:
            self.selected.emit(missing[-1][1].id)
        return len(missing)

    def update(self, item_id: str, **values: Any) -> None:
        """Change the name, state or mask of an item."""
        item = self.item(item_id)
        if item is None:
            return
        for name, value in values.items():
            setattr(item, name, value)
        if "mask_layer" in values:
            item.patch = None
            self._watcher.watch(item.mask_layer)
        self._cut(item)
        self.boxes.style(self.items)
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
        self.boxes.realign(layer)
        self.refresh()

    # ------------------------------------------------------------ boxes

    def place(
        self, source: ImageSource, plane: tuple[int, ...], box: Box
    ) -> PromptItem:
        """Add a box, moved inside the image where it leaves it."""
        box = box.clamped(source.plane_shape)
        layer = self.boxes.layer_on(source)
        known = {i.id for i in self.items}
        layer.add_rectangles([source.companion.corners(plane, box)])
        layer.selected_data = {layer.nshapes - 1}
        return next(i for i in self.items if i.id not in known)

    def add_example(
        self,
        source: ImageSource,
        plane: tuple[int, ...],
        box: Box,
        patch: Patch,
        name: str,
        *,
        negative: bool,
    ) -> PromptItem:
        """Add a prompt whose mask is given by a click on an object."""
        n = 1 + sum(i.name.startswith(name) for i in self.items)
        item = PromptItem(
            name=f"{name} {n}",
            color=COLORS[len(self.items) % len(COLORS)],
            source=source,
            plane=plane,
            box=box,
            patch=patch,
            negative=negative,
        )
        self.add(item)
        return item

    def add(self, item: PromptItem) -> None:
        """Add an item that has a box on an image, with the box."""
        source = item.source
        if source is None or source.layer not in self.viewer.layers:
            return
        self.boxes.put(item)
        self.items.append(item)
        self._watcher.watch(source.layer)
        self.intensities.request(source)
        self._cut(item)
        self.boxes.style(self.items)
        self.changed.emit()

    def select(self, item_id: str) -> None:
        """Select an item's box in the viewer."""
        if self.item(item_id) is not None:
            self.boxes.select(item_id)

    def show_image(self, item_id: str) -> None:
        """Bring the image of an item into view."""
        item = self.item(item_id)
        if item is None or item.source is None:
            return
        image = item.source.layer
        if image in self.viewer.layers and not is_in_sight(self.viewer, image):
            bring_into_sight(self.viewer, image)
            self.message.emit(SHOWING.format(image.name), False)

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
        if found is None and item.patch is not None and item.mask is not None:
            found = np.maximum(item.mask, 0)
        layer = paint_mask(self.viewer, item, found)
        self.update(item.id, mask_layer=layer)
        boxes = self.boxes.layer_of(item.id)
        if boxes is not None and item.source is not None and item.box is not None:
            corners = item.source.companion.corners(item.plane, item.box)
            look_at(self.viewer, boxes, corners)
        return layer

    def clear_mask(self, item: PromptItem) -> None:
        """Remove what is painted in an item's box, on the layer for masks."""
        clear_mask(self.viewer, item)
        self.update(item.id, suggestion=None)

    def _bind_keys(self, layer: Shapes) -> None:
        for key, (_, action) in self.shortcuts.items():
            act = guarded(self, lambda _layer, action=action: action())
            layer.bind_key(key, act, overwrite=True)

    def _on_box_selected(self, item_id: str) -> None:
        if self.item(item_id) is not None:
            self.selected.emit(item_id)

    def _follow(self, layer: Shapes) -> None:
        """Make the list follow the boxes of a layer, and snap those to pixels."""
        image = self.boxes.image_of(layer)
        source = self.source_of(image)
        ids = box_ids(layer)
        listed = list(self.items)
        self.items = [i for i in self.items if i.id in ids or not _is_on(i, image)]
        kept_ids, vertices, outside, across = [], [], [], []
        for item_id, data in zip(ids, layer.data, strict=True):
            corners = np.asarray(data)[:, source.companion.yx]
            if _is_across(np.asarray(data), source.companion.yx):
                across.append(item_id)
                continue
            if not _touches(corners, source.plane_shape):
                outside.append(item_id)
                continue
            box = Box.from_corners(corners, shape=source.plane_shape)
            plane = source.companion.plane_of(np.asarray(data)[0])
            item = self.item(item_id)
            if item is None:
                before = (metadata_of(layer) or {}).get("items", {}).get(item_id)
                item = self._new_item(source, plane, box, before or {})
            elif (item.box, item.plane) != (box, plane):
                item.box, item.plane = box, plane
                self._cut(item)
            kept_ids.append(item.id)
            vertices.append(source.companion.corners(plane, box))
        self.items = [i for i in self.items if i.id not in (*outside, *across)]
        self.boxes.write(layer, vertices, kept_ids)
        self.boxes.style(self.items)
        gone = [(row, i) for row, i in enumerate(listed) if i not in self.items]
        if gone:
            self.deleted.emit(gone)
        if outside or across:
            text = OUTSIDE if outside else NOT_YX
            self.message.emit(text.format(source.name), True)
        self.changed.emit()

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
            for k in ("name", "color", "negative", "enabled", "here_only")
            if k in before
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
        if before.get("patch"):
            item.patch = Patch.from_dict(before["patch"])
            self._cut(item)
        else:
            self._choose_mask(item, str(before.get("mask", "")))
        if before.get("suggested") and item.is_ready and item.mask is not None:
            item.suggestion = item.mask.copy()
            self._cut(item)
        self._watcher.watch(item.mask_layer)
        self._watcher.watch(source.layer)
        self.intensities.request(source)
        self.selected.emit(item.id)
        self.message.emit(item.problem or TRY, False)
        return item

    def _choose_mask(self, item: PromptItem, wanted: str) -> None:
        """Use the most likely of the Labels layers that show something in the box."""
        likely = likely_masks(self.viewer, item, self.default_mask, wanted)
        for layer in (*likely, likely[0] if likely else None):
            item.mask_layer = layer
            self._cut(item)
            if item.is_ready:
                return

    def _cut(self, item: PromptItem) -> None:
        """Cut the crop and the mask of an item's box."""
        item.cut(self.boxes.layer_of(item.id), world_units(self.viewer))

    def _on_layer_removed(self, event: Any) -> None:
        layer = event.value
        self._watcher.forget(layer)
        image = self.boxes.release(layer)
        if image is not None:
            self.items = [i for i in self.items if not _is_on(i, image)]
            self.changed.emit()
            return
        touched = [i.drop_layer(layer, self.intensities) for i in self.items]
        self.items = [i for i in self.items if i.source or i.loaded]
        self.boxes.remove_from(layer)
        if any(touched):
            self.changed.emit()
        self.intensities.forget(layer)


def _is_on(item: PromptItem, image: Layer) -> bool:
    """Return whether an item is cut from an image."""
    return item.source is not None and item.source.layer == image


def _is_across(vertices: np.ndarray, yx: list[int]) -> bool:
    """Return whether a rectangle runs across planes, as drawn in a view of XZ."""
    spans = np.ptp(vertices, axis=0)
    others = np.delete(spans, yx)
    return bool(others.max(initial=0) >= 1 and spans[yx].min() < 1)


def _touches(corners: np.ndarray, shape: tuple[int, int]) -> bool:
    """Return whether a rectangle and an image share a pixel."""
    low, high = corners.min(axis=0), corners.max(axis=0)
    return bool((high > -0.5).all() and (low < np.array(shape) - 0.5).all())
