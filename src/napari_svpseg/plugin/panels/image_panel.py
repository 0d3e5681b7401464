"""The list of images to segment, and what their axes are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QComboBox,
    QFormLayout,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QMenu,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from ...core.image import ImageError
from ..callbacks import reports_errors
from ..layers.images.channel_names import channel_names
from ..layers.images.declared_images import DeclaredImages
from ..layers.images.image_axes import axes_choices, sizes_text
from ..layers.images.image_source import NAME_AXES, ImageSource
from ..layers.images.sight import Sight
from ..layers.images.visibility import activate, bring_into_sight, is_in_sight
from ..layers.metadata import is_image
from ..messages import SHOWING, sentence
from .axes_combo import AxesCombo
from .channel_text import (
    CHANNELS_TIP,
    channel_text,
    named_channels,
    parse_channels,
)
from .controls import WARN_COLOR, button, combo, set_style
from .plain_text import button_text, tip_text

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

LAYER = Qt.ItemDataRole.UserRole
MAX_ROWS = 4

READ_AS = "'{image}' is read as {axes}."
AT_LEVEL = "'{image}' is segmented at {level}; boxes keep their place."
NO_IMAGE = "There is no other image."
ALONE = "this layer alone"
CHANGED = " · changed"
CHANGED_TIP = "Its result followed a correction: click on the name to look at it"


@reports_errors("refresh", "step", "go_to")
class ImagePanel(QWidget):
    """The images of a viewer: checked ones are segmented, the selected one gets boxes.

    Parameters
    ----------
    viewer : ViewerModel
    checkable : bool
        Whether there is something to check; else only the selected image counts, as it
        is: at full size, and with its own channels.
    """

    changed = Signal()
    redeclared = Signal(object)
    message = Signal(str, bool)
    visited = Signal(object)
    """An image that was gone to."""

    def __init__(self, viewer: ViewerModel, *, checkable: bool = True) -> None:
        super().__init__()
        self.viewer = viewer
        self._checkable = checkable
        self.declared = DeclaredImages(viewer)
        self.sight = Sight(viewer)
        self._unchecked: set[Any] = set()
        self._marked: set[Any] = set()
        self._asked: Any = None
        self._just_checked = self._is_chosen = False
        self._unhook: list[Callable[[], None]] = []
        self._build()
        self._connect()

    def source_of(self, layer: Image) -> ImageSource:
        """Return an image layer with the axes declared for it; see `DeclaredImages`."""
        return self.declared.source_of(layer)

    def selected(self) -> Image | None:
        """Return the image that boxes are drawn on."""
        row = self.list.currentItem()
        return None if row is None else row.data(LAYER)

    def select(self, layer: Image) -> None:
        """Select an image of the list."""
        for i, row in enumerate(self._rows()):
            if row.data(LAYER) == layer:
                self.list.setCurrentRow(i)

    def step(self, by: int) -> None:
        """Go to the next or previous image; after the last one comes the first.

        Layers that are channels of others are passed over.

        Parameters
        ----------
        by : int
            1 for the next image, -1 for the previous one.
        """
        images, now = self.declared.whole_images(), self.selected()
        if len(images) < 2:
            self.message.emit(NO_IMAGE, False)
            return
        if now is not None:
            now = self.declared.owner(now) or now
        before_first = -1 if by > 0 else 0
        place = images.index(now) if now in images else before_first
        self.go_to(images[(place + by) % len(images)])

    def go_to(self, layer: Image) -> None:
        """Select and show an image, which then was looked at."""
        self.select(layer)
        self.show_selected_image()
        activate(self.viewer, layer)  # nothing is painted on the image before
        self.visited.emit(layer)

    def show_selected_image(self) -> None:
        """Bring the selected image into sight, and say so where it was not."""
        layer = self.selected()
        if layer is not None and not is_in_sight(self.viewer, layer):
            bring_into_sight(self.viewer, layer)
            self.message.emit(SHOWING.format(layer.name), False)

    def checked(self) -> list[Image]:
        """Return the images that are to be segmented."""
        on = Qt.CheckState.Checked
        return [row.data(LAYER) for row in self._rows() if row.checkState() == on]

    def _rows(self) -> list[QListWidgetItem]:
        rows = (self.list.item(i) for i in range(self.list.count()))
        return [row for row in rows if row is not None]

    def has_stacks(self) -> bool:
        """Return whether a checked image has planes along Z or T."""
        return any(self.declared.is_stack(layer) for layer in self.checked())

    def mark(self, layer: Image) -> None:
        """Mark an image as changed, until it is looked at."""
        if layer.unique_id not in self._marked and not is_in_sight(self.viewer, layer):
            self._marked.add(layer.unique_id)
            self.refresh()

    def close_hooks(self) -> None:
        """Let go of the viewer."""
        self.sight.close()
        for disconnect in self._unhook:
            disconnect()

    def refresh(self, event: Any = None) -> None:
        """Bring the list up to date with the viewer."""
        current = self.selected()
        images = self.declared.layers()
        for layer in images:
            if self.declared.learn(layer):
                self._hook(layer.events.name, self.refresh)
        self.list.blockSignals(True)
        self.list.clear()
        for layer in images:
            self.list.addItem(self._row(layer))
        seen = self.sight.image(images, current)
        if seen is not None:
            self.list.setCurrentRow(images.index(seen))
        self.list.blockSignals(False)
        rows = min(max(1, len(images)), MAX_ROWS)
        height = self.list.sizeHintForRow(0) if images else 18
        self.list.setFixedHeight(rows * height + 2 * self.list.frameWidth())
        self._show_selected()

    def _build(self) -> None:
        self.list = QListWidget()
        self.list.setAccessibleName("Images")
        self.list.setToolTip(
            "Check the images to segment; boxes go on the selected one, and a click "
            "on its name shows it"
            if self._checkable
            else "The selected image is the one that is worked on"
        )
        self.list.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.axes = AxesCombo(
            "What each axis of the selected image is: T time, Z depth, C channel, Y, X"
        )
        self.axes.setEditable(True)
        self.axes.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        line = self.axes.lineEdit()
        assert line is not None  # the box is editable
        line.setPlaceholderText("for example ZYX or TYX")
        line.editingFinished.connect(self._on_axes)
        self.channels = QLineEdit()
        self.channels.setPlaceholderText("all")
        self.channels.setToolTip(tip_text(CHANNELS_TIP))
        self._form = QFormLayout()
        self._form.setContentsMargins(0, 0, 0, 0)
        self._form.addRow("Axes", self.axes)
        self._form.addRow("Channels", self.channels)
        self.others = button(
            "", "Other layers of the same shape, to be taken as further channels"
        )
        self.others.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._menu = QMenu(self.others)
        self.others.setMenu(self._menu)
        self._form.addRow("Together", self.others)
        self.level = combo("Level of the pyramid: 0 is full size, others are faster")
        self._form.addRow("Level", self.level)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(self.list)
        column.addLayout(self._form)

    def _connect(self) -> None:
        layers = self.viewer.layers
        for emitter in (
            layers.events.inserted,
            layers.events.removed,
            layers.events.reordered,
        ):
            self._hook(emitter, self.refresh)
        self._hook(layers.selection.events.active, self._on_sight)
        self.sight.changed.connect(self._on_sight)
        self.list.currentRowChanged.connect(self._on_row)
        self.list.itemChanged.connect(self._on_checked)
        self.list.itemPressed.connect(self._on_pressed)
        self.list.itemClicked.connect(self._on_clicked)
        self.axes.activated.connect(self._on_axes)
        self.channels.editingFinished.connect(self._on_channels)
        self.level.activated.connect(self._on_level)

    def _hook(self, emitter: Any, callback: Callable[..., None]) -> None:
        emitter.connect(callback)
        self._unhook.append(partial(emitter.disconnect, callback))

    def _row(self, layer: Image) -> QListWidgetItem:
        row = QListWidgetItem(layer.name)
        row.setData(LAYER, layer)
        owner = self.declared.owner(layer)
        if owner is not None:
            row.setText(f"{layer.name} (channel of {owner.name})")
            row.setFlags(row.flags() & ~Qt.ItemFlag.ItemIsUserCheckable)
            return row
        if layer.unique_id in self._marked:
            row.setText(f"{layer.name}{CHANGED}")
            row.setToolTip(tip_text(CHANGED_TIP))
        if not self._checkable:
            return row
        row.setFlags(row.flags() | Qt.ItemFlag.ItemIsUserCheckable)
        is_on = layer.unique_id not in self._unchecked
        row.setCheckState(Qt.CheckState.Checked if is_on else Qt.CheckState.Unchecked)
        return row

    def _on_row(self) -> None:
        """Keep napari's selection from bringing another image back."""
        layer, active = self.selected(), self.viewer.layers.selection.active
        if layer is not None and active != layer and is_image(active):
            self._is_chosen = True  # though it is not seen yet
            activate(self.viewer, layer)
            self._is_chosen = False
        row = self.list.currentItem()
        if row is not None and is_in_sight(self.viewer, row.data(LAYER)):
            self._unmark(row)
        self._show_selected()
        if self.list.hasFocus() and not QApplication.mouseButtons():
            self.show_selected_image()  # chosen with the arrow keys

    def _show_selected(self) -> None:
        """Show how the selected image is read; ask for axes that are not known."""
        layer = self.selected()
        order = "" if layer is None else self.declared.axes(layer)
        self.axes.blockSignals(True)
        self.axes.clear()
        if layer is not None:
            for choice in axes_choices(layer):
                self.axes.addItem(choice)
                self.axes.show_as(self.axes.count() - 1, sizes_text(layer, choice))
            self.axes.setCurrentText(order)
            self.channels.setText(channel_text(self.declared.channels(layer)))
        self.axes.blockSignals(False)
        self._show_level(layer)
        self._show_others(layer)
        self.axes.setEnabled(layer is not None)
        unsaid = layer is not None and not order
        set_style(self.axes, f"border: 1px solid {WARN_COLOR};" if unsaid else "")
        several = layer is not None and "C" in order and not layer.rgb
        self._form.setRowVisible(self.channels, several)
        names = channel_names(layer) if layer is not None and several else ()
        listed = named_channels(names)
        self.channels.setPlaceholderText(f"all: {listed}" if listed else "all")
        tip = f"{CHANNELS_TIP}: {listed}" if listed else CHANNELS_TIP
        self.channels.setToolTip(tip_text(tip))
        self.changed.emit()
        if layer is not None and unsaid and self._asked != layer.unique_id:
            self._asked = layer.unique_id
            text = NAME_AXES.format(n=layer.ndim, image=layer.name)
            self.message.emit(text, False)

    def _show_level(self, layer: Image | None) -> None:
        """Show the levels of a pyramid, and the one that is taken."""
        several = self._checkable and layer is not None and bool(layer.multiscale)
        self.level.clear()
        if layer is not None and several:
            order = self.declared.axes(layer) or "YX"
            for n, data in enumerate(layer.data):
                sizes = dict(zip(order[-data.ndim :], data.shape, strict=False))
                text = f"{n}: {sizes.get('Y', '?')} x {sizes.get('X', '?')}"
                self.level.addItem(text, n)
            self.level.setCurrentIndex(self.declared.level(layer))
        self._form.setRowVisible(self.level, several)

    def _show_others(self, layer: Image | None) -> None:
        """Offer the layers that can be channels of the selected one."""
        self._menu.clear()
        taken = () if layer is None else self.declared.others(layer)
        offered = [] if layer is None else self.declared.candidates(layer)
        for other in offered:
            action = self._menu.addAction(button_text(other.name))
            assert action is not None
            action.setCheckable(True)
            action.setChecked(other in taken)
            action.toggled.connect(partial(self._on_other, layer, other))
        names = [la.name for la in (layer, *taken)] if layer is not None else []
        self.others.setText(button_text(" + ".join(names)) if taken else ALONE)
        self._form.setRowVisible(self.others, self._checkable and bool(offered))

    def _on_other(self, layer: Image, other: Image, is_on: bool) -> None:
        """Take another layer as a further channel, or no longer."""
        try:
            self.declared.join(layer, other, is_on)
        except ImageError as error:
            self.message.emit(sentence(error), True)
            self._show_others(layer)
            return
        names = " + ".join(la.name for la in (layer, *self.declared.others(layer)))
        self.message.emit(READ_AS.format(image=layer.name, axes=names), False)
        self.refresh()
        self.redeclared.emit(layer)

    def _on_level(self) -> None:
        layer = self.selected()
        level = self.level.currentData()
        if layer is None or level == self.declared.level(layer):
            return
        self.declared.set_level(layer, level)
        text = AT_LEVEL.format(image=layer.name, level=self.level.currentText())
        self.message.emit(text, False)
        self.redeclared.emit(layer)
        self.changed.emit()

    def _on_sight(self, event: Any = None) -> None:
        """Select the image that is seen, as when the user shows or selects another."""
        if self._is_chosen:
            return
        current, layers = self.selected(), self.viewer.layers
        images = [la for row in self._rows() if (la := row.data(LAYER)) in layers]
        seen = self.sight.image(images, current)
        if seen is not None and seen != current:
            self.select(seen)

    def _on_clicked(self, row: QListWidgetItem) -> None:
        """Show the image that was clicked on, unless only its box was checked."""
        if self._just_checked:
            self._on_sight()  # the image in sight stays selected
        else:
            self.select(row.data(LAYER))
            self.show_selected_image()

    def _unmark(self, row: QListWidgetItem) -> None:
        """Show an image as one that was looked at."""
        layer = row.data(LAYER)
        if layer.unique_id in self._marked:
            self._marked.discard(layer.unique_id)
            row.setText(layer.name)
            row.setToolTip("")

    def _on_pressed(self) -> None:
        self._just_checked = False

    def _on_checked(self, row: QListWidgetItem) -> None:
        layer = row.data(LAYER)
        self._just_checked = True
        if row.checkState() == Qt.CheckState.Checked:
            self._unchecked.discard(layer.unique_id)
        else:
            self._unchecked.add(layer.unique_id)
        self.changed.emit()

    def _on_axes(self) -> None:
        layer = self.selected()
        order = self.axes.currentText().strip().upper().replace(" ", "")
        if layer is None or order == self.declared.axes(layer):
            return
        try:
            self.declared.set_axes(layer, order)
        except ImageError as error:
            self.message.emit(sentence(error), True)
            return
        self.message.emit(READ_AS.format(image=layer.name, axes=order), False)
        self.redeclared.emit(layer)
        self._show_selected()

    def _on_channels(self) -> None:
        layer = self.selected()
        if layer is None:
            return
        try:
            whole = ImageSource.of(layer, self.declared.axes(layer))
            names = channel_names(layer)
            channels = parse_channels(self.channels.text(), whole.n_channels, names)
        except ValueError as error:
            self.message.emit(sentence(error), True)
            return
        if channels != self.declared.channels(layer):
            self.declared.set_channels(layer, channels)
            self.redeclared.emit(layer)
