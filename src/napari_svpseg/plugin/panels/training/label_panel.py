"""The part of a dock where labels of an image are painted, accepted and chosen."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from ....core.annotation.partial_labels import BACKGROUND, FIRST_OBJECT
from ....core.image import ImageError
from ....io.training_set import Entry
from ...callbacks import reports_errors
from ...layers.images.image_source import ImageSource
from ...layers.labels.partial_label_layers import (
    Labelled,
    labelled_layers,
    start_painting,
)
from ...messages import OPEN_IMAGE, count, sentence
from ...tools.accept_object import AcceptTool
from ..controls import button, combo, labelled, side_by_side
from ..image_panel import ImagePanel
from .training_set_panel import TrainingSetPanel

if TYPE_CHECKING:
    from napari.components import ViewerModel

logger = logging.getLogger(__name__)

NOTHING_LABELLED = "nothing labelled yet"
PAINT = (
    "Paint {} of '{}' with the mouse; [ and ] change the brush. What you leave "
    "unpainted stays unknown. Then press Add this image."
)
ADDING = "Adding '{}'…"
ADDED = "Added '{name}': {cells}, {pixels:,} pixels, and {background:,} of background."
CAN_START = "Press Start, or add another image."
NOT_YET = "Before Start: {}"
NEEDS_BACKGROUND = "Paint some background beside them, and add it again."


@reports_errors("_paint", "_show_painted", "add_image", "refresh")
class LabelPanel(QWidget):
    """Labels of the selected image, and the button that adds them to the set.

    Parameters
    ----------
    viewer : ViewerModel
    images : ImagePanel
    training_set : TrainingSetPanel
    """

    changed = Signal()
    message = Signal(str, bool)

    def __init__(
        self, viewer: ViewerModel, images: ImagePanel, training_set: TrainingSetPanel
    ) -> None:
        super().__init__()
        self.viewer, self.images, self.training_set = viewer, images, training_set
        self.accepting = AcceptTool(viewer, self.source)
        self.paint_cell = button(
            "Paint a cell", "Paint one more cell: it gets a number of its own"
        )
        self.paint_background = button(
            "Paint background", "Paint background, especially right next to cells"
        )
        self.accept_cells = button(
            "Accept cells of a result",
            "Click on correctly found cells to copy them into the labels",
            checkable=True,
        )
        self.labels = combo("Where the labels of the selected image come from")
        self.add = button(
            "Add this image",
            "Add the selected image and its labels to the training set",
        )
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(
            side_by_side(self.paint_cell, self.paint_background, stretch=(1, 1))
        )
        for widget in (self.accept_cells, labelled("Take", self.labels), self.add):
            column.addWidget(widget)
        self.paint_cell.clicked.connect(lambda: self._paint(FIRST_OBJECT))
        self.paint_background.clicked.connect(lambda: self._paint(BACKGROUND))
        self.accept_cells.clicked.connect(self._on_accept_cells)
        self.accepting.switched.connect(self.accept_cells.setChecked)
        self.accepting.accepted.connect(self._show_painted)
        self.accepting.message.connect(self.message)
        self.add.clicked.connect(self.add_image)

    def source(self) -> ImageSource | None:
        """Return the selected image; None, with a message, where there is none."""
        layer = self.images.selected()
        if layer is None:
            self.message.emit(OPEN_IMAGE, True)
            return None
        try:
            return self.images.source_of(layer)
        except ImageError as error:
            self.message.emit(sentence(error), True)
            return None

    def refresh(self) -> None:
        """Offer the layers that labels of the selected image can be taken from."""
        layer = self.images.selected()
        ways: list[Labelled] = []
        if layer is not None:
            try:
                ways = labelled_layers(self.viewer, self.images.source_of(layer))
            except ImageError as error:
                logger.info("labels of %s: %s", layer.name, error)
        before = self.labels.currentText()
        self.labels.clear()
        for way in ways:
            self.labels.addItem(way.title, way)
        if not ways:
            self.labels.addItem(NOTHING_LABELLED, None)
        self.labels.setCurrentIndex(max(0, self.labels.findText(before)))
        for widget in (self.paint_cell, self.paint_background, self.accept_cells):
            widget.setEnabled(layer is not None)
        self.labels.setEnabled(self.labels.count() > 1)
        self.add.setEnabled(layer is not None and bool(ways))
        self.changed.emit()

    def _paint(self, label: int) -> None:
        source = self.source()
        if source is None:
            return
        self.accepting.stop()
        self.images.show_selected_image()
        layer = start_painting(self.viewer, source, label)
        self._show_painted()
        n = layer.selected_label - FIRST_OBJECT + 1
        what = "background" if label == BACKGROUND else f"cell {n}"
        self.message.emit(PAINT.format(what, source.name), False)

    def _show_painted(self) -> None:
        """Choose what was painted: it is the first of the ways."""
        self.refresh()
        self.labels.setCurrentIndex(0)

    def _on_accept_cells(self, on: bool) -> None:
        self.accept_cells.setChecked(self.accepting.is_on)
        if on:
            self.accepting.start()
        else:
            self.accepting.stop()

    def add_image(self) -> None:
        """Add the selected image and its labels to the training set."""
        source, way = self.source(), self.labels.currentData()
        if source is None or way is None:
            return
        try:
            plane = source.shown_plane(self.viewer)
            read = way.read(plane)
        except (ValueError, IndexError) as error:
            self.message.emit(sentence(error), True)
            return
        name = self.training_set.add(source, plane, read, self._on_added)
        self.message.emit(ADDING.format(name), False)

    def _on_added(self, entry: Entry, problem: str) -> None:
        counts = entry.counts or {}
        background = counts.get("background", 0)
        text = ADDED.format(
            name=entry.name,
            cells=count(counts.get("n_objects", 0), "cell"),
            pixels=counts.get("objects", 0),
            background=background,
        )
        next_step = CAN_START if background else NEEDS_BACKGROUND
        if problem and background:
            next_step = NOT_YET.format(problem)
        self.message.emit(f"{text} {next_step}", bool(problem and background))
