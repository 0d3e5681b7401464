"""Which image is seen; what lies on images that are not seen is not drawn."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal

from ...callbacks import reports_errors
from ..metadata import is_image
from .visibility import belongs_to, hiding_images, is_in_sight

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer


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
        owner = owner_of(active, images)
        seen = [image for image in images if is_in_sight(self.viewer, image)]
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
        layers = list(self.viewer.layers)
        images = [layer for layer in layers if is_image(layer)]
        seen = [image for image in images if is_in_sight(self.viewer, image)]
        over = {image: [] if image in seen else seen for image in images}
        for layer in layers:
            image = None if layer in images else owner_of(layer, images)
            if image is None:
                continue
            if image in seen and layer.unique_id in self._hidden:
                self._hidden.discard(layer.unique_id)
                layer.visible = True
            # an image that the user hid may leave its labels to be looked at
            elif layer.visible and hiding_images(self.viewer, image, over[image]):
                self._hidden.add(layer.unique_id)
                layer.visible = False
        self.changed.emit()


def owner_of(layer: Layer | None, images: list[Image]) -> Image | None:
    """Return the image that a layer is or lies on, if it is one of these."""
    if layer is None:
        return None
    if layer in images:
        return layer
    return next((image for image in images if belongs_to(layer, image)), None)
