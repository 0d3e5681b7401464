"""Small parts that the docks are built of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QSpinBox,
    QStyle,
    QStyleOptionComboBox,
    QStylePainter,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible, QLabeledDoubleSlider

from ...core.settings import AUTO, PostprocessSettings, Settings

WARN_COLOR = "#c07a00"
"""Of what still needs doing; readable on dark and on light."""

CHOICE_NAMES = {
    "objects": "Objects",
    "classes": "Classes",
    "published": "Fixed prototypes (published)",
    "seed": "Learned prototypes",
}


def heading(text: str) -> QLabel:
    """Return the title of a section."""
    label = QLabel(f"<b>{text}</b>")
    label.setContentsMargins(0, 6, 0, 0)
    return label


def note(text: str = "") -> QLabel:
    """Return small print that wraps and never widens the dock."""
    label = QLabel(text)
    wrap(label)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label


def wrap(label: QLabel) -> None:
    """Let a label grow in height, never in width."""
    label.setWordWrap(True)
    policy = QSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
    policy.setHeightForWidth(True)
    label.setSizePolicy(policy)


def button(text: str, tip: str, *, checkable: bool = False) -> QPushButton:
    """Return a button that says in its tooltip what it does."""
    made = QPushButton(text)
    made.setToolTip(tip)
    made.setCheckable(checkable)
    return made


def side_by_side(*widgets: QWidget, stretch: Iterable[int] = ()) -> QWidget:
    """Return widgets in a row."""
    row = QWidget()
    layout = QHBoxLayout(row)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(6)
    for widget in widgets:
        layout.addWidget(widget)
    for i, weight in enumerate(stretch):
        layout.setStretch(i, weight)
    return row


class ElidedCombo(QComboBox):
    """A combo box that ends a name that is too long with an ellipsis."""

    def shown_text(self) -> str:
        """Return the text as it fits."""
        room = self.width() - 34  # the arrow and the paddings of napari's themes
        return str(
            self.fontMetrics().elidedText(
                self.currentText(), Qt.TextElideMode.ElideRight, room
            )
        )

    def paintEvent(self, event: object) -> None:
        """Draw the box with the text as it fits."""
        option = QStyleOptionComboBox()
        self.initStyleOption(option)
        option.currentText = self.shown_text()
        painter = QStylePainter(self)
        painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)


def combo(tip: str) -> ElidedCombo:
    """Return a combo box that shrinks rather than widening the dock."""
    made = ElidedCombo()
    made.setToolTip(tip)
    made.setSizeAdjustPolicy(
        QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
    )
    made.setMinimumContentsLength(6)
    made.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return made


class Section(QCollapsible):
    """A part of the dock that folds away."""

    def __init__(self, title: str) -> None:
        super().__init__(f"▸ {title}")
        self.toggled.connect(
            lambda is_open: self.setText(f"{'▾' if is_open else '▸'} {title}")
        )
        self.setDuration(0)
        self.setCollapsedIcon(QIcon())
        self.setExpandedIcon(QIcon())
        self.layout().setContentsMargins(0, 0, 0, 0)
        self.layout().setSpacing(0)
        self.toggleButton().setStyleSheet(
            "QPushButton {text-align: left; padding: 4px 6px; background: transparent;"
            " border: none; font-weight: bold;}"
        )
        self.form = QFormLayout()
        self.form.setContentsMargins(4, 2, 0, 4)
        self.form.setFieldGrowthPolicy(
            QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow
        )
        body = QWidget()
        body.setLayout(self.form)
        self.setContent(body)
        self.collapse(animate=False)


class Offer(QFrame):
    """A quiet bar that offers something, until it is taken or put away.

    Parameters
    ----------
    take, leave : str
        What the two buttons say.
    """

    taken = Signal()
    left = Signal()

    def __init__(self, take: str, leave: str) -> None:
        super().__init__()
        self.setObjectName("svpsegOffer")
        self.setStyleSheet(
            f"#svpsegOffer {{border: 1px solid {WARN_COLOR}; border-radius: 4px;}}"
        )
        self.text = note()
        self.take = QPushButton(take)
        self.leave = QPushButton(leave)
        column = QVBoxLayout(self)
        column.setContentsMargins(6, 4, 6, 4)
        column.setSpacing(4)
        column.addWidget(self.text)
        column.addWidget(side_by_side(self.take, self.leave, stretch=(2, 1)))
        self.take.clicked.connect(self.taken)
        self.leave.clicked.connect(self.left)
        self.hide()

    def offer(self, text: str) -> None:
        """Show the bar."""
        self.text.setText(text)
        self.show()


class SettingsForm(QWidget):
    """Controls for some fields of a settings class: text and limits come from it.

    Parameters
    ----------
    kind : type of Settings
    names : dict
        Field name -> what the row is called, in order.
    """

    changed = Signal()

    def __init__(self, kind: type[Settings], names: dict[str, str]) -> None:
        super().__init__()
        self._kind = kind
        self._widgets: dict[str, QWidget] = {}
        form = self._form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        for name, title in names.items():
            widget = self._control(name)
            widget.setToolTip(self._field(name).metadata["help"])
            self._widgets[name] = widget
            if isinstance(widget, QCheckBox):
                widget.setText(title)
                form.addRow(widget)
            else:
                form.addRow(title, widget)

    def values(self) -> dict[str, Any]:
        """Return what the controls say."""
        return {name: _value(widget) for name, widget in self._widgets.items()}

    def set_values(self, values: dict[str, Any]) -> None:
        """Show these values; names without a control are passed over."""
        for name, value in values.items():
            if name in self._widgets:
                _set_value(self._widgets[name], value)

    def show_rows(self, names: Iterable[str], visible: bool) -> None:
        """Show or hide the rows of some fields."""
        for name in names:
            self._form.setRowVisible(self._widgets[name], visible)

    def control(self, name: str) -> QWidget:
        """Return the control of a field."""
        return self._widgets[name]

    def _field(self, name: str) -> Any:
        return self._kind.__dataclass_fields__[name]

    def _control(self, name: str) -> QWidget:
        field = self._field(name)
        meta, default = field.metadata, field.default
        if meta["choices"]:
            box = combo(meta["help"])
            for choice in meta["choices"]:
                box.addItem(CHOICE_NAMES.get(choice, choice), choice)
            box.currentIndexChanged.connect(lambda _: self.changed.emit())
            widget: QWidget = box
        elif isinstance(default, bool):
            widget = QCheckBox()
            widget.toggled.connect(lambda _: self.changed.emit())
        elif isinstance(default, int):
            spin = QSpinBox()
            high = 2**31 - 1 if meta["high"] is None else int(meta["high"])
            spin.setRange(int(meta["low"]), high)
            spin.setSuffix(" px" if meta["unit"] == "pixel" else "")
            if meta["low"] == AUTO:
                spin.setSpecialValueText("auto")
            spin.setKeyboardTracking(False)
            spin.valueChanged.connect(lambda _: self.changed.emit())
            widget = spin
        elif meta["high"] > 1 or default < 0.01:  # too wide or too fine to slide
            number = QDoubleSpinBox()
            number.setDecimals(0 if default >= 10 else 5)
            number.setRange(meta["low"], meta["high"])
            number.setSingleStep(default / 10 or 0.1)
            number.setSuffix(f" {meta['unit']}" if meta["unit"] else "")
            number.setKeyboardTracking(False)
            number.valueChanged.connect(lambda _: self.changed.emit())
            widget = number
        else:
            slider = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
            slider.setRange(meta["low"], meta["high"])
            slider.setDecimals(2)
            slider.setSingleStep(0.01)
            slider.valueChanged.connect(lambda _: self.changed.emit())
            widget = slider
        _set_value(widget, default)
        return widget


def _value(widget: QWidget) -> Any:
    if isinstance(widget, QComboBox):
        return widget.currentData()
    if isinstance(widget, QCheckBox):
        return widget.isChecked()
    if isinstance(widget, QSpinBox):
        return int(widget.value())
    return round(float(widget.value()), 6)


def _set_value(widget: QWidget, value: Any) -> None:
    if isinstance(widget, QComboBox):
        widget.setCurrentIndex(max(0, widget.findData(value)))
    elif isinstance(widget, QCheckBox):
        widget.setChecked(bool(value))
    elif isinstance(widget, (QSpinBox, QDoubleSpinBox, QLabeledDoubleSlider)):
        widget.setValue(value)


def result_options() -> SettingsForm:
    """Return the controls of post-processing."""
    return SettingsForm(
        PostprocessSettings,
        {
            "threshold": "Threshold",
            "min_area": "Smallest object",
            "min_confidence": "Minimum confidence",
            "split": "Split touching objects",
            "split_strength": "Split strength",
            "fill_holes": "Fill holes",
            "link_planes": "Link objects across planes",
            "link_overlap": "Least overlap",
            "labels": "Kind of labels",
        },
    )


def sentence(error: Exception) -> str:
    """Return an error's text as a sentence; a name it begins with stays as it is.

    Examples
    --------
    >>> sentence(ValueError("draw a box")), sentence(ValueError("a1.tif: not found"))
    ('Draw a box', 'a1.tif: not found')
    """
    text = str(error) or type(error).__name__
    is_name = ":" in text.split(" ", 1)[0]
    return text if is_name else text[:1].upper() + text[1:]


def is_alive(widget: QWidget) -> bool:
    """Tell whether Qt has not deleted a widget."""
    try:
        widget.objectName()
    except RuntimeError:
        return False
    return True


def labelled(text: str, widget: QWidget) -> QWidget:
    """Return a control with its name before it."""
    label = note(text)
    label.setWordWrap(False)
    label.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Preferred)
    return side_by_side(label, widget, stretch=(0, 1))


def theme_color(theme: str, name: str) -> str:
    """Return a colour of napari's theme."""
    from napari.utils.theme import get_theme

    return str(getattr(get_theme(theme), name).as_hex())


def count(n: int, noun: str) -> str:
    """Return a number with its noun, such as ``1 object`` and ``3 objects``."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def device_line(about: dict[str, Any]) -> str:
    """Return the line on where models run, from `engine.inference.device.describe`."""
    kind = str(about.get("device", "cpu")).upper()
    reason = str(about.get("reason", ""))
    if kind == "CPU":
        cores = about.get("threads", 1)
        return f"CPU · {count(cores, 'core')} ({reason})"
    memory = about.get("free_mb")
    room = f", {memory / 1024:.1f} GB free" if memory else ""
    return f"{about.get('name', kind)} · {kind.lower()}{room} ({reason})"
