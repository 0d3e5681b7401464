"""How results are shown: as outlines, filled, or both."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

from ...callbacks import reports_errors
from ..metadata import METADATA_KEY, layer_id, layer_name, metadata_of
from ..placement import Place
from .stored_edits import KIND as STORED

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels, Layer

Style = Literal["outline", "fill", "both"]
STYLES: tuple[Style, ...] = get_args(Style)

OUTLINE = "outline"
"""Kind of the layer with the outlines of a result that is filled too."""

OF_RESULT = "outline_of"
"""Entry in the metadata of such a layer: id of the result."""

OPACITY = {"outline": 1.0, "fill": 0.5, "both": 0.25}
"""Of results; outlines beside a fill are opaque."""

WIDE_FROM = 1200
"""Side of an image, in pixels, from which outlines are wider."""


@reports_errors("refresh")
class ResultStyle:
    """Shows results as outlines, filled, or both.

    napari's Labels layer shows outlines or fills. For both, a layer of outlines lies
    over each result in sight; it shares the result's array, and goes with it.

    Parameters
    ----------
    viewer : ViewerModel
    style : str
        How results are shown at first: "outline", "fill" or "both"; also those that
        are there already.
    """

    def __init__(self, viewer: ViewerModel, style: Style = "fill") -> None:
        self.viewer = viewer
        self.style: Style = style
        self._unhook: dict[Any, Any] = {}
        for layer in self.results():
            self._follow(layer)
            if style != "fill" or layer.contour:
                self._dress(layer)
        self.refresh()
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removed.connect(self._on_removed)

    def close(self) -> None:
        """Let go of the viewer; the outlines over fills are removed."""
        self.viewer.layers.events.inserted.disconnect(self._on_inserted)
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        for layer in self.results():
            self._let_go(layer)
        self._drop_outlines(keep=False)

    def results(self) -> list[Labels]:
        """Return the layers that show results."""
        return [layer for layer in self.viewer.layers if is_result(layer)]

    def show_as(self, style: Style) -> None:
        """Show all results in one of the styles."""
        if style == self.style:
            return
        self.style = style
        for layer in self.results():
            self._dress(layer)
        self.refresh()

    def next_style(self) -> Style:
        """Show all results in the style after this one; return it."""
        self.show_as(STYLES[(STYLES.index(self.style) + 1) % len(STYLES)])
        return self.style

    def refresh(self, event: Any = None) -> None:
        """Give each filled result in sight its outlines, and remove all others."""
        self._drop_outlines(keep=self.style == "both")
        if self.style != "both":
            return
        known = {outlined(layer) for layer in self.viewer.layers}
        for layer in self.results():
            if layer.visible and layer_id(layer) not in known:
                self._add_outline(layer)

    def _dress(self, layer: Labels) -> None:
        layer.contour = width_of(layer) if self.style == "outline" else 0
        layer.opacity = OPACITY[self.style]

    def _drop_outlines(self, *, keep: bool) -> None:
        """Remove outlines; or only those whose result is gone or hidden."""
        shown = {layer_id(layer) for layer in self.results() if layer.visible}
        for layer in list(self.viewer.layers):
            of = outlined(layer)
            if of and not (keep and of in shown):
                self.viewer.layers.remove(layer)

    def _add_outline(self, result: Labels) -> None:
        from napari.layers import Labels

        about = metadata_of(result) or {}
        known = {k: v for k, v in about.items() if k in ("image", "source_id", "grid")}
        layer = Labels(
            list(result.data) if result.multiscale else result.data,
            name=layer_name(f"{result.name} outline"),
            opacity=1.0,
            multiscale=bool(result.multiscale),
            colormap=result.colormap,
            metadata={
                METADATA_KEY: {**known, "kind": OUTLINE, OF_RESULT: layer_id(result)}
            },
            **Place.of(result).arguments(),
        )
        layer.contour = width_of(result)
        layers = self.viewer.layers
        active = layers.selection.active
        layers.insert(layers.index(result) + 1, layer)
        layer.editable = False
        layers.selection.active = active

    def _follow(self, layer: Labels) -> None:
        redraw = partial(self._on_drawn, layer)
        layer.events.visible.connect(self.refresh)
        for name in ("set_data", "labels_update", "colormap", "data"):
            getattr(layer.events, name).connect(redraw)
        self._unhook[layer.unique_id] = redraw

    def _let_go(self, layer: Labels) -> None:
        layer.events.visible.disconnect(self.refresh)
        redraw = self._unhook.pop(layer.unique_id, None)
        for name in ("set_data", "labels_update", "colormap", "data"):
            getattr(layer.events, name).disconnect(redraw)

    def _on_drawn(self, result: Labels, event: Any) -> None:
        """Draw the outlines of a result anew."""
        of = layer_id(result)
        for layer in self.viewer.layers:
            if outlined(layer) != of:
                continue
            if event.type == "colormap":
                layer.colormap = result.colormap
            elif event.type == "data":
                layer.data = result.data
            else:
                layer.refresh(extent=False)

    def _on_inserted(self, event: Any) -> None:
        layer = event.value
        if not is_result(layer):
            return
        if layer.unique_id not in self._unhook:
            self._follow(layer)
        if self.style != "fill":
            self._dress(layer)
        self.refresh()

    def _on_removed(self, event: Any) -> None:
        if event.value.unique_id in self._unhook:
            self._let_go(event.value)
            self.refresh()


def is_result(layer: Layer) -> bool:
    """Return whether a layer shows a result."""
    return (metadata_of(layer) or {}).get("kind") in ("labels", "preview", STORED)


def outlined(layer: Layer) -> str:
    """Return the id of the result whose outlines a layer shows; else an empty text."""
    return str((metadata_of(layer, OUTLINE) or {}).get(OF_RESULT, ""))


def width_of(layer: Labels) -> int:
    """Return the width of outlines, in pixels of the layer."""
    data = layer.data[0] if layer.multiscale else layer.data
    return 1 if max(data.shape[-2:]) < WIDE_FROM else 2
