"""How results are shown, and the docks with their objects and all images."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QButtonGroup,
    QDockWidget,
    QMainWindow,
    QVBoxLayout,
    QWidget,
)

from ..callbacks import reports_errors
from ..docks.tabs import GALLERY, OBJECTS
from ..layers.results.result_style import STYLES, ResultStyle, Style
from .accessibility import ControlKeeper
from .controls import button, labelled, side_by_side
from .gallery import Gallery
from .objects_panel import ObjectsPanel

if TYPE_CHECKING:
    import napari

    from ..docks.segment_controller import SegmentController
    from .image_panel import ImagePanel

CORNER = Qt.Corner.BottomLeftCorner
TITLES: dict[Style, str] = {"outline": "Outline", "fill": "Fill", "both": "Both"}
TIPS: dict[Style, str] = {
    "outline": "Show results as outlines, which leave the image free",
    "fill": "Show results as filled areas",
    "both": "Show results as outlines over faint areas",
}


@reports_errors("show_as", "next_style", "follow")
class ResultsPanel(QWidget):
    """Outline, fill or both; buttons that open the objects and the gallery.

    Parameters
    ----------
    viewer : napari.Viewer
    runs : SegmentController
    images : ImagePanel
    style : str
        How results are shown at first: "outline", "fill" or "both".
    """

    message = Signal(str, bool)

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        runs: SegmentController,
        images: ImagePanel,
        *,
        style: Style = "fill",
    ) -> None:
        super().__init__()
        self.viewer, self.images = viewer, images
        self.style_of = ResultStyle(viewer, style)
        self.objects = ObjectsPanel(viewer, runs)
        self.gallery = Gallery(viewer, images, runs.layers)
        self._docks: dict[str, QDockWidget] = {}
        self._corner: Qt.DockWidgetArea | None = None
        self._build()
        for part in (self.objects, self.gallery):
            part.message.connect(self.message)
            ControlKeeper(part)  # a child of it, as it lies in a dock of its own

    def _build(self) -> None:
        self.styles = {
            style: button(TITLES[style], TIPS[style], checkable=True)
            for style in STYLES
        }
        self._group = QButtonGroup(self)
        for style, one in self.styles.items():
            self._group.addButton(one)
            one.clicked.connect(partial(self.show_as, style))
        self.styles[self.style_of.style].setChecked(True)
        self.open_objects = button(
            "Objects…", "Measure, sort and filter the objects of the selected image"
        )
        self.open_gallery = button(
            "Gallery…", "See all images with their results, counts and trust"
        )
        self.previous = button("◂ Image", "Show the image before")
        self.next = button("Image ▸", "Show the next image")
        self.previous.setAccessibleName("Previous image")
        self.next.setAccessibleName("Next image")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(
            labelled("Show as", side_by_side(*self.styles.values(), stretch=(1, 1, 1)))
        )
        column.addWidget(
            side_by_side(
                self.previous, self.next, self.open_objects, self.open_gallery,
                stretch=(1, 1, 1, 1),
            )
        )  # fmt: skip
        self.open_objects.clicked.connect(self._on_objects)
        self.open_gallery.clicked.connect(self._on_gallery)
        self.previous.clicked.connect(lambda: self.images.step(-1))
        self.next.clicked.connect(lambda: self.images.step(1))

    def close_hooks(self) -> None:
        """Let go of the viewer, and close the docks."""
        self.style_of.close()
        self.objects.close_hooks()
        self.gallery.close_hooks()
        for frame in self._docks.values():
            # napari's window may be gone before the dock
            with suppress(AttributeError, LookupError, RuntimeError):
                window = frame.parentWidget()
                if self._corner is not None and isinstance(window, QMainWindow):
                    window.setCorner(CORNER, self._corner)
                self.viewer.window.remove_dock_widget(frame)
        self._docks.clear()
        self._corner = None

    # ------------------------------------------------------------ showing

    def show_as(self, style: Style) -> None:
        """Show results as outlines, filled, or both."""
        self.styles[style].setChecked(True)
        self.style_of.show_as(style)

    def next_style(self) -> None:
        """Show results in the next style."""
        self.show_as(self.style_of.next_style())

    def follow(self) -> None:
        """Follow the images, their results, and which one is selected."""
        self.objects.controller.follow()
        self.gallery.refresh_soon()
        several = len(self.images.declared.whole_images()) > 1
        self.previous.setEnabled(several)
        self.next.setEnabled(several)

    # ------------------------------------------------------------ docks

    def _on_objects(self) -> None:
        self._show(OBJECTS, self.objects)
        self.objects.measure_soon()

    def _on_gallery(self) -> None:
        self._show(GALLERY, self.gallery)
        self.gallery.refresh_soon()

    def _show(self, name: str, panel: QWidget) -> None:
        """Show a dock below the images, or bring it to the front."""
        frame = self._docks.get(name)
        if frame is None or panel.parent() is None:
            frame = self.viewer.window.add_dock_widget(
                panel, name=name, area="bottom", tabify=bool(self._docks)
            )
            self._docks[name] = frame
            self._spare_the_left(frame.parentWidget())
        frame.show()
        frame.raise_()

    def _spare_the_left(self, window: QWidget | None) -> None:
        """Keep the docks below out of the left: napari's own docks fill its height."""
        if self._corner is None and isinstance(window, QMainWindow):
            self._corner = window.corner(CORNER)
            window.setCorner(CORNER, Qt.DockWidgetArea.LeftDockWidgetArea)
