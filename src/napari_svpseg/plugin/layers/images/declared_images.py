"""Declarations of the user about images: axes, channels, level, channel layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..metadata import is_image
from .image_axes import declare, declared, known_axes, label_axes
from .image_source import ImageSource

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image


class DeclaredImages:
    """The images of a viewer, and how each of them is read.

    Parameters
    ----------
    viewer : ViewerModel
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        self._axes: dict[Any, str] = {}
        self._channels: dict[Any, tuple[int, ...]] = {}
        self._levels: dict[Any, int] = {}
        self._others: dict[Any, list[Image]] = {}

    def layers(self) -> list[Image]:
        """Return the image layers, as napari lists them."""
        return [layer for layer in self.viewer.layers if is_image(layer)]

    def whole_images(self) -> list[Image]:
        """Return the images, without those that are channels of others."""
        layers = self.layers()
        taken = {other.unique_id for la in layers for other in self.others(la)}
        return [layer for layer in layers if layer.unique_id not in taken]

    def learn(self, layer: Image) -> bool:
        """Take over what is known of a layer; return whether it is new."""
        if layer.unique_id in self._axes:
            return False
        order = self._axes[layer.unique_id] = known_axes(layer)
        label_axes(layer, order)
        told, channels = declared(layer)
        if channels is not None and told == order:
            self._channels[layer.unique_id] = channels
        return True

    def source_of(self, layer: Image) -> ImageSource:
        """Return an image layer with all that was declared for it.

        Raises
        ------
        ImageError
            Where its axes were not declared; the message says what to do.
        """
        return ImageSource.of(
            layer,
            self.axes(layer),
            self.channels(layer),
            level=self.level(layer),
            others=self.others(layer),
        )

    def axes(self, layer: Image) -> str:
        """Return the axes of a layer; empty where they are not known."""
        return self._axes.get(layer.unique_id, "")

    def channels(self, layer: Image) -> tuple[int, ...] | None:
        """Return the channels that are used; None for all."""
        return self._channels.get(layer.unique_id)

    def level(self, layer: Image) -> int:
        """Return the level of a pyramid that is used; 0 is full size."""
        return self._levels.get(layer.unique_id, 0)

    def others(self, layer: Image) -> tuple[Image, ...]:
        """Return the layers that are further channels of a layer."""
        chosen = self._others.get(layer.unique_id, [])
        return tuple(other for other in chosen if other in self.viewer.layers)

    def owner(self, layer: Image) -> Image | None:
        """Return the layer that a layer is a channel of."""
        if not any(self._others.values()):  # napari's lists of layers are slow
            return None
        return next((la for la in self.layers() if layer in self.others(la)), None)

    def candidates(self, layer: Image) -> list[Image]:
        """Return the layers that can become further channels of a layer."""
        order = self.axes(layer)
        if layer.rgb or not order or "C" in order or self.owner(layer) is not None:
            return []
        return [la for la in self.layers() if la != layer and not la.rgb]

    def is_stack(self, layer: Image) -> bool:
        """Return whether a layer has planes along Z or T."""
        return bool(set(self.axes(layer)) & set("TZ"))

    # ------------------------------------------------------------ declaring

    def set_axes(self, layer: Image, order: str) -> None:
        """Declare the axes of a layer; its channels are all used again.

        Raises
        ------
        ImageError
            If they do not fit.
        """
        ImageSource.of(layer, order)
        self._axes[layer.unique_id] = order
        self._channels.pop(layer.unique_id, None)
        self._others.pop(layer.unique_id, None)
        declare(layer, order, None)
        label_axes(layer, order)

    def set_channels(self, layer: Image, channels: tuple[int, ...] | None) -> None:
        """Declare the channels that are used; None for all."""
        self._channels.pop(layer.unique_id, None)
        if channels is not None:
            self._channels[layer.unique_id] = channels
        declare(layer, self.axes(layer), channels)

    def set_level(self, layer: Image, level: int) -> None:
        """Declare the level of a pyramid that is used."""
        self._levels[layer.unique_id] = level

    def join(self, layer: Image, other: Image, is_on: bool) -> None:
        """Take another layer as a further channel, or no longer.

        Raises
        ------
        ImageError
            If they do not fit together.
        """
        chosen = [la for la in self.others(layer) if la != other]
        chosen += [other] if is_on else []
        ImageSource.of(layer, self.axes(layer), others=tuple(chosen))
        self._others[layer.unique_id] = chosen
        self._others.pop(other.unique_id, None)
        self._channels.pop(layer.unique_id, None)
