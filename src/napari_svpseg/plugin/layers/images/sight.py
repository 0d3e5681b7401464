"""Which image is seen; what lies on images that are not seen is not drawn."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal

from ...callbacks import reports_errors
from ..metadata import is_image
from .visibility import Stack, show

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image


@reports_errors("_look")
class Sight(QObject):
    """Notices that another image is seen, and hides the layers that lie on others.

    Results, boxes and masks lie on their image. While another image is seen in its
    place, those that were shown are hidden; they are shown with their image again.

    Parameters
    ----------
    viewer : ViewerModel
    """

    changed = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self.viewer = viewer
        self._hidden: set[Any] = set()
        self._unhook: list[Callable[[], None]] = []
        self._followed: set[Any] = set()
        self._timer = QTimer(self)  # showing one image hides others, one by one
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._look)
        events = viewer.layers.events
        for emitter in (events.inserted, events.removed, events.reordered):
            self._hook(emitter)
        self._on_change()

    def close(self) -> None:
        """Let go of the viewer."""
        self._timer.stop()
        for disconnect in self._unhook:
            disconnect()

    def image(self, images: list[Image], current: Image | None) -> Image | None:
        """Return the image that is seen.

        Of several, this is the one that is selected or whose layer is, else the current
        one, else the topmost.

        Parameters
        ----------
        images : list of Image
            To choose from, from the bottom to the top.
        current : Image, optional
            What was seen so far.
        """
        active = self.viewer.layers.selection.active
        stack = Stack(self.viewer)
        owner = None if active is None else stack.image_of(active)
        seen = [image for image in stack.seen() if image in images]
        for choice in (owner, current):
            if choice in seen:
                return choice
        if seen:
            return seen[-1]
        return next((one for one in (current, owner) if one in images), None) or (
            images[-1] if images else None
        )

    def _hook(self, emitter: Any) -> None:
        emitter.connect(self._on_change)
        self._unhook.append(partial(emitter.disconnect, self._on_change))

    def _on_change(self, event: Any = None) -> None:
        for layer in self.viewer.layers:
            if is_image(layer) and layer.unique_id not in self._followed:
                self._followed.add(layer.unique_id)
                self._hook(layer.events.visible)
        self._timer.start(0)

    def _look(self) -> None:
        """Hide what lies on images that others hide, and show it again with them."""
        stack = Stack(self.viewer)
        seen = stack.seen()
        ids = {image.unique_id for image in seen}
        # an image that the user hid may leave its labels to be looked at
        hidden = {
            image.unique_id
            for image in stack.images
            if image.unique_id not in ids and stack.hiding(image, seen)
        }
        for layer in stack.layers:
            image = None if is_image(layer) else stack.owner(layer)
            if image is None:
                continue
            if image.unique_id in ids and layer.unique_id in self._hidden:
                self._hidden.discard(layer.unique_id)
                show(layer)
            elif layer.visible and image.unique_id in hidden:
                self._hidden.add(layer.unique_id)
                show(layer, visible=False)
        self.changed.emit()
