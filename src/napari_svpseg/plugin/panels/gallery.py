"""All images as small pictures: count, trust, and whether they were looked at."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QSize, Qt, QTimer, Signal
from qtpy.QtWidgets import QListView, QListWidget, QListWidgetItem, QVBoxLayout, QWidget

from ..callbacks import reports_errors, tell
from ..layers.results.image_card import (
    ImageCard,
    card_of,
    is_looked_at,
    look_at_result,
    version_of,
)
from ..messages import count
from ..services.background import Background
from .controls import can_be_seen, is_alive, note
from .tags.pixmaps import RATIO, to_icon, to_whole_pixmap

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from ..layers.results.run_layers import RunLayers, ShownResult
    from .image_panel import ImagePanel

LAYER = Qt.ItemDataRole.UserRole
ICON = 112
"""Longest side of a picture on screen, in pixels."""
REST_MS = 150
ALL_LOOKED_AT = "All {images} looked at."
LOOKED_AT = "{n} of {images} looked at."


@reports_errors("refresh")
class Gallery(QWidget):
    """Pictures of the images and their results; a click shows one.

    Pictures are made in a thread, and again only where a result has changed. The box
    of an image is checked once it was gone to, from here or by `ImagePanel.step`; a
    new result clears it.

    Parameters
    ----------
    viewer : ViewerModel
    images : ImagePanel
    layers : RunLayers
    """

    message = Signal(str, bool)

    def __init__(
        self, viewer: ViewerModel, images: ImagePanel, layers: RunLayers
    ) -> None:
        super().__init__()
        self.viewer, self.images, self.layers = viewer, images, layers
        self.text = note()
        self.list = QListWidget()
        self.list.setViewMode(QListView.ViewMode.IconMode)
        self.list.setMovement(QListView.Movement.Static)
        self.list.setResizeMode(QListView.ResizeMode.Adjust)
        self.list.setUniformItemSizes(True)
        self.list.setSpacing(4)
        self.list.setIconSize(QSize(ICON, ICON))
        self.list.setToolTip("Click to show an image; its box says that you saw it")
        self.list.setAccessibleName("Gallery of images")
        column = QVBoxLayout(self)
        column.setContentsMargins(6, 2, 6, 4)
        column.addWidget(self.text)
        column.addWidget(self.list)
        self._cards: dict[Any, tuple[tuple[Any, ...], ImageCard]] = {}
        self._making: dict[Any, tuple[Any, ...]] = {}
        self._background = Background(partial(tell, self))
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(REST_MS)
        self._timer.timeout.connect(self.refresh)
        images.visited.connect(self._on_visited)
        self.list.itemClicked.connect(self._on_clicked)
        self.list.itemActivated.connect(self._on_clicked)
        self.list.itemChanged.connect(self._on_checked)

    def close_hooks(self) -> None:
        """Make no more pictures."""
        if is_alive(self):  # closed with the dock, or before it with the window
            self._timer.stop()
        self._background.close()

    def refresh_soon(self) -> None:
        """Bring the gallery up to date, if it can be seen."""
        if can_be_seen(self):
            self._timer.start()

    def showEvent(self, event: Any) -> None:
        """Show what has changed while the gallery was hidden."""
        super().showEvent(event)
        self._timer.start()

    # ------------------------------------------------------------ showing

    def refresh(self) -> None:
        """Bring pictures, counts and boxes up to date."""
        images = self.images.declared.whole_images()
        rows = [self.list.item(i) for i in range(self.list.count())]
        known = [row.data(LAYER) for row in rows if row is not None]
        self.list.blockSignals(True)
        if known != images:
            self.list.clear()
            for image in images:
                row = QListWidgetItem()
                row.setData(LAYER, image)
                row.setFlags(row.flags() | Qt.ItemFlag.ItemIsUserCheckable)
                row.setTextAlignment(Qt.AlignmentFlag.AlignHCenter)
                row.setSizeHint(QSize(ICON + 34, ICON + 58))
                self.list.addItem(row)
        n_looked = 0
        for i, image in enumerate(images):
            shown = self.layers.shown_result(image)
            n_looked += self._show_row(self.list.item(i), image, shown)
        current = self.images.selected()
        if current in images:
            self.list.setCurrentRow(images.index(current))
        self.list.blockSignals(False)
        total = count(len(images), "image")
        is_all = bool(images) and n_looked == len(images)
        text = ALL_LOOKED_AT if is_all else LOOKED_AT
        self.text.setText(text.format(images=total, n=n_looked))

    def _show_row(
        self, row: QListWidgetItem | None, image: Image, shown: ShownResult | None
    ) -> bool:
        """Show the card of an image, and return whether it was looked at."""
        assert row is not None
        key, version = image.unique_id, (image.name, *version_of(shown))
        made, card = self._cards.get(key, ((), None))
        if made != version and self._making.get(key) != version:
            self._making[key] = version
            self._background.call(
                lambda: card_of(image, shown),
                partial(self._keep, key, version),
                lambda error: tell(self, error),
            )
        looked = is_looked_at(image, shown)
        on = Qt.CheckState.Checked if looked else Qt.CheckState.Unchecked
        row.setCheckState(on)
        row.setText(text_of(image.name, card))
        if card is not None and row.data(LAYER + 1) != made:
            row.setIcon(to_icon(to_whole_pixmap(card.pixels, RATIO * ICON)))
            row.setData(LAYER + 1, made)
        return looked

    def _keep(self, key: Any, version: tuple[Any, ...], card: ImageCard) -> None:
        self._cards[key] = version, card
        self._timer.start()

    # ------------------------------------------------------------ going there

    def _on_visited(self, image: Image) -> None:
        """Note that an image was looked at."""
        look_at_result(image, self.layers.shown_result(image), True)
        self.refresh_soon()

    def _on_clicked(self, row: QListWidgetItem) -> None:
        # a click on the box only checks it
        if row.data(LAYER) is not None and row.data(LAYER) != self.images.selected():
            self.images.go_to(row.data(LAYER))

    def _on_checked(self, row: QListWidgetItem) -> None:
        image = row.data(LAYER)
        is_on = row.checkState() == Qt.CheckState.Checked
        look_at_result(image, self.layers.shown_result(image), is_on)
        self._timer.start()


def text_of(name: str, card: ImageCard | None) -> str:
    r"""Return the lines below a picture.

    Examples
    --------
    >>> text_of("cells", ImageCard(np.zeros((1, 1, 3), np.uint8), 3, 0.914))
    'cells\n3 objects\ntrust 0.91'
    """
    short = name if len(name) <= 18 else f"{name[:9]}…{name[-8:]}"
    if card is None or card.n_objects < 0:
        return f"{short}\n"
    text = f"{short}\n{count(card.n_objects, 'object')}"
    return text if np.isnan(card.trust) else f"{text}\ntrust {card.trust:.2f}"
