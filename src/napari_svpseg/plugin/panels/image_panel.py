"""The list of images to segment, and what their axes are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
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
from ..layers.image_source import (
    ImageSource,
    axes_choices,
    declare,
    declared,
    is_picture,
    known_axes,
)
from ..layers.visibility import activate, bring_into_sight, is_in_sight
from ..messages import sentence
from .controls import WARN_COLOR, button, combo

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

LAYER = Qt.ItemDataRole.UserRole
MAX_ROWS = 4


class ImagePanel(QWidget):
    """The images of a viewer: checked ones are segmented, the marked one gets boxes.

    Parameters
    ----------
    viewer : ViewerModel
    checkable : bool
        Whether there is something to check; else only the marked image counts, as it
        is: at full size, and with its own channels.
    """

    changed = Signal()
    redeclared = Signal(object)
    message = Signal(str, bool)

    def __init__(self, viewer: ViewerModel, *, checkable: bool = True) -> None:
        super().__init__()
        self.viewer = viewer
        self._checkable = checkable
        self._axes: dict[Any, str] = {}
        self._channels: dict[Any, tuple[int, ...]] = {}
        self._levels: dict[Any, int] = {}
        self._others: dict[Any, list[Image]] = {}
        self._unchecked: set[Any] = set()
        self._asked: Any = None
        self._just_checked = False
        self._unhook: list[Callable[[], None]] = []
        self._build()
        self._connect()

    def source_of(self, layer: Image) -> ImageSource:
        """Return an image layer with the axes declared for it.

        Raises
        ------
        ImageError
            Where they have not been, saying what to do.
        """
        key = layer.unique_id
        return ImageSource.of(
            layer,
            self._axes.get(key, ""),
            self._channels.get(key),
            level=self._levels.get(key, 0),
            others=self._others_of(layer),
        )

    def _others_of(self, layer: Image) -> tuple[Image, ...]:
        """Return the layers that are further channels of a layer."""
        chosen = self._others.get(layer.unique_id, [])
        return tuple(la for la in chosen if la in self.viewer.layers)

    def _owner_of(self, layer: Image) -> Image | None:
        """Return the layer that a layer is a channel of."""
        pictures = [la for la in self.viewer.layers if is_picture(la)]
        return next((la for la in pictures if layer in self._others_of(la)), None)

    def marked(self) -> Image | None:
        """Return the image that boxes are drawn on."""
        row = self.list.currentItem()
        return None if row is None else row.data(LAYER)

    def mark(self, layer: Image) -> None:
        """Mark an image of the list."""
        for i in range(self.list.count()):
            if self.list.item(i).data(LAYER) == layer:
                self.list.setCurrentRow(i)

    def checked(self) -> list[Image]:
        """Return the images that are to be segmented."""
        rows = [self.list.item(i) for i in range(self.list.count())]
        return [r.data(LAYER) for r in rows if r.checkState() == Qt.CheckState.Checked]

    def has_stacks(self) -> bool:
        """Tell whether a checked image has planes along Z or T."""
        return any(
            set(self._axes.get(la.unique_id, "")) & set("TZ") for la in self.checked()
        )

    def close_hooks(self) -> None:
        """Let go of the viewer."""
        for disconnect in self._unhook:
            disconnect()

    def refresh(self, event: Any = None) -> None:
        """Bring the list up to date with the viewer."""
        current = self.marked()
        pictures = [la for la in self.viewer.layers if is_picture(la)]
        for layer in pictures:
            if layer.unique_id not in self._axes:
                order = self._axes[layer.unique_id] = known_axes(layer)
                told, channels = declared(layer)
                if channels is not None and told == order:
                    self._channels[layer.unique_id] = channels
                self._hook(layer.events.name, self.refresh)
        self.list.blockSignals(True)
        self.list.clear()
        for layer in pictures:
            self.list.addItem(self._row(layer))
        if pictures:
            index = pictures.index(current) if current in pictures else 0
            self.list.setCurrentRow(index)
        self.list.blockSignals(False)
        rows = min(max(1, len(pictures)), MAX_ROWS)
        height = self.list.sizeHintForRow(0) if pictures else 18
        self.list.setFixedHeight(rows * height + 2 * self.list.frameWidth())
        self._show_marked()

    def _build(self) -> None:
        self.list = QListWidget()
        self.list.setToolTip(
            "Check the images to segment; boxes go on the marked one, and a click "
            "on its name shows it"
            if self._checkable
            else "The marked image is the one that is worked on"
        )
        self.list.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.axes = combo(
            "What each axis of the marked image is: T time, Z depth, C channel, Y, X"
        )
        self.axes.setEditable(True)
        self.axes.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.axes.lineEdit().setPlaceholderText("for example ZYX or TYX")
        self.channels = QLineEdit()
        self.channels.setPlaceholderText("all")
        self.channels.setToolTip("Channels to use, up to three, such as 0, 2")
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
        self._hook(layers.selection.events.active, self._on_active)
        self.list.currentRowChanged.connect(self._on_row)
        self.list.itemChanged.connect(self._on_checked)
        self.list.itemPressed.connect(self._on_pressed)
        self.list.itemClicked.connect(self._on_clicked)
        self.axes.activated.connect(self._on_axes)
        self.axes.lineEdit().editingFinished.connect(self._on_axes)
        self.channels.editingFinished.connect(self._on_channels)
        self.level.activated.connect(self._on_level)

    def _hook(self, emitter: Any, callback: Callable[..., None]) -> None:
        emitter.connect(callback)
        self._unhook.append(partial(emitter.disconnect, callback))

    def _row(self, layer: Image) -> QListWidgetItem:
        row = QListWidgetItem(layer.name)
        row.setData(LAYER, layer)
        owner = self._owner_of(layer)
        if owner is not None:
            row.setText(f"{layer.name} (channel of {owner.name})")
            row.setFlags(row.flags() & ~Qt.ItemFlag.ItemIsUserCheckable)
            return row
        if not self._checkable:
            return row
        row.setFlags(row.flags() | Qt.ItemFlag.ItemIsUserCheckable)
        is_on = layer.unique_id not in self._unchecked
        row.setCheckState(Qt.CheckState.Checked if is_on else Qt.CheckState.Unchecked)
        return row

    def _on_row(self) -> None:
        """Follow the mark; napari's own selection must not bring another one back."""
        layer, active = self.marked(), self.viewer.layers.selection.active
        if layer is not None and active != layer and is_picture(active):
            activate(self.viewer, layer)
        self._show_marked()

    def _show_marked(self) -> None:
        """Show the axes of the marked image; ask for them where they are not known."""
        layer = self.marked()
        order = "" if layer is None else self._axes[layer.unique_id]
        self.axes.blockSignals(True)
        self.axes.clear()
        if layer is not None:
            self.axes.addItems(axes_choices(layer))
            self.axes.setCurrentText(order)
            taken = self._channels.get(layer.unique_id)
            self.channels.setText(", ".join(map(str, taken)) if taken else "")
        self.axes.blockSignals(False)
        self._show_level(layer)
        self._show_others(layer)
        self.axes.setEnabled(layer is not None)
        unsaid = layer is not None and not order
        self.axes.setStyleSheet(f"border: 1px solid {WARN_COLOR};" if unsaid else "")
        several = layer is not None and "C" in order and not layer.rgb
        self._form.setRowVisible(self.channels, several)
        self.changed.emit()
        if layer is not None and unsaid and self._asked != layer.unique_id:
            self._asked = layer.unique_id
            self.message.emit(
                f"Say what the {layer.ndim} axes of '{layer.name}' are, in the Axes "
                "row: T time, Z depth, C channel, Y, X.",
                False,
            )

    def _show_level(self, layer: Image | None) -> None:
        """Show the levels of a pyramid, and the one that is taken."""
        several = self._checkable and layer is not None and bool(layer.multiscale)
        self.level.clear()
        if layer is not None and several:
            order = self._axes[layer.unique_id] or "YX"
            for n, data in enumerate(layer.data):
                sizes = dict(zip(order[-data.ndim :], data.shape, strict=False))
                text = f"{n}: {sizes.get('Y', '?')} x {sizes.get('X', '?')}"
                self.level.addItem(text, n)
            self.level.setCurrentIndex(self._levels.get(layer.unique_id, 0))
        self._form.setRowVisible(self.level, several)

    def _show_others(self, layer: Image | None) -> None:
        """Offer the layers that can be channels of the marked one."""
        self._menu.clear()
        taken = () if layer is None else self._others_of(layer)
        pictures = [la for la in self.viewer.layers if is_picture(la)]
        offered = []
        if layer is not None and not layer.rgb and self._owner_of(layer) is None:
            order = self._axes[layer.unique_id]
            offered = [la for la in pictures if la != layer and not la.rgb]
            offered = [] if "C" in order or not order else offered
        for other in offered:
            action = self._menu.addAction(other.name)
            action.setCheckable(True)
            action.setChecked(other in taken)
            action.toggled.connect(partial(self._on_other, layer, other))
        names = [la.name for la in (layer, *taken)] if layer is not None else []
        self.others.setText(" + ".join(names) if taken else "this layer alone")
        self._form.setRowVisible(self.others, self._checkable and bool(offered))

    def _on_other(self, layer: Image, other: Image, is_on: bool) -> None:
        """Take another layer as a further channel, or no more."""
        chosen = [la for la in self._others_of(layer) if la != other]
        chosen += [other] if is_on else []
        order = self._axes[layer.unique_id]
        try:
            ImageSource.of(layer, order, others=tuple(chosen))
        except ImageError as error:
            self.message.emit(sentence(error), True)
            self._show_others(layer)
            return
        self._others[layer.unique_id] = chosen
        self._others.pop(other.unique_id, None)
        self._channels.pop(layer.unique_id, None)
        names = " + ".join(la.name for la in (layer, *chosen))
        self.message.emit(f"'{layer.name}' is read as {names}.", False)
        self.refresh()
        self.redeclared.emit(layer)

    def _on_level(self) -> None:
        layer = self.marked()
        level = self.level.currentData()
        if layer is None or level == self._levels.get(layer.unique_id, 0):
            return
        self._levels[layer.unique_id] = level
        self.message.emit(
            f"'{layer.name}' is segmented at {self.level.currentText()}; "
            "boxes keep their place.",
            False,
        )
        self.redeclared.emit(layer)
        self.changed.emit()

    def _on_active(self, event: Any) -> None:
        """Mark the image that the user selects in napari's layer list."""
        self.mark(event.value)

    def _on_clicked(self, row: QListWidgetItem) -> None:
        """Show the image that was clicked on, unless only its box was checked."""
        layer = row.data(LAYER)
        if not self._just_checked and not is_in_sight(self.viewer, layer):
            bring_into_sight(self.viewer, layer)

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
        layer = self.marked()
        order = self.axes.currentText().strip().upper().replace(" ", "")
        if layer is None or order == self._axes[layer.unique_id]:
            return
        try:
            ImageSource.of(layer, order)
        except ImageError as error:
            self.message.emit(sentence(error), True)
            return
        self._axes[layer.unique_id] = order
        self._channels.pop(layer.unique_id, None)
        self._others.pop(layer.unique_id, None)
        declare(layer, order, None)
        self.message.emit(f"'{layer.name}' is read as {order}.", False)
        self.redeclared.emit(layer)
        self._show_marked()

    def _on_channels(self) -> None:
        layer = self.marked()
        if layer is None:
            return
        try:
            whole = ImageSource.of(layer, self._axes[layer.unique_id])
            taken = parse_channels(self.channels.text(), whole.n_channels)
        except ValueError as error:
            self.message.emit(sentence(error), True)
            return
        if taken == self._channels.get(layer.unique_id):
            return
        self._channels.pop(layer.unique_id, None)
        if taken is not None:
            self._channels[layer.unique_id] = taken
        declare(layer, self._axes[layer.unique_id], taken)
        self.redeclared.emit(layer)


def parse_channels(text: str, n: int) -> tuple[int, ...] | None:
    """Return the channels named in a text such as ``0, 2``; None for all.

    Parameters
    ----------
    text : str
    n : int
        Number of channels that there are.

    Raises
    ------
    ValueError
        For anything but up to three different channels.

    Examples
    --------
    >>> parse_channels("0, 2", 4)
    (0, 2)
    """
    words = text.replace(",", " ").split()
    if not words or words == ["all"]:
        return None
    taken = tuple(int(w) for w in words if w.isdecimal() and int(w) < n)
    if len(taken) != len(words) or len(set(taken)) != len(taken) or len(taken) > 3:
        raise ValueError(
            f"Choose up to three channels from 0 to {n - 1}, such as 0, 1; "
            f"got '{text}'."
        )
    return taken
