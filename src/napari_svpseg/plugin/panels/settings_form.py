"""Forms for settings, built by magicgui from their one declaration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import Field, fields
from functools import partial
from typing import Any

from magicgui.widgets import CheckBox, ComboBox, FloatSlider, FloatSpinBox, SpinBox
from magicgui.widgets.bases import RangedWidget, ValueWidget
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QDoubleSpinBox, QFormLayout, QWidget

from ...core.settings import AUTO, Settings
from .controls import narrow
from .plain_text import PlainLabel, tip_text

CHOICE_TITLES = {"published": "Fixed", "seed": "Learned"}
"""Choices that are shown by other words than their own."""

MAX_INT = 2**31 - 1
READOUT_STYLE = (
    "background: transparent; border: 0; padding: 0;"
    " min-width: 2.4em; max-width: 2.4em;"
)
"""Of the number beside a slider: napari's own style leaves a slider no room."""


class SettingsForm(QWidget):
    """Controls for the fields of a settings class.

    Label, tooltip, range, unit and choices come from the declaration of the field.

    Parameters
    ----------
    kind : type of Settings
    names : iterable of str, optional
        Fields to show, in order; by default all.
    """

    changed = Signal()

    def __init__(
        self, kind: type[Settings], names: Iterable[str] | None = None
    ) -> None:
        super().__init__()
        known = {f.name: f for f in fields(kind)}
        self._controls: dict[str, ValueWidget[Any]] = {}
        self._form = QFormLayout(self)
        self._form.setContentsMargins(0, 0, 0, 0)
        for name in known if names is None else names:
            control = self._controls[name] = control_for(known[name])
            control.changed.connect(partial(_emit, self.changed))
            if isinstance(control, CheckBox):
                self._form.addRow(control.native)
            else:
                self._form.addRow(PlainLabel(control.label), control.native)

    def values(self) -> dict[str, Any]:
        """Return the values of the controls."""
        return {name: _plain(control.value) for name, control in self._controls.items()}

    def set_values(self, values: dict[str, Any]) -> None:
        """Show these values; names without a control are passed over."""
        for name in self._controls.keys() & values.keys():
            control, value = self._controls[name], values[name]
            if isinstance(control, ComboBox):
                known = value in control.choices
                control.value = value if known else control.choices[0]
            elif isinstance(control, RangedWidget):
                control.value = min(max(value, control.min), control.max)
            else:
                control.value = value

    def show_rows(self, names: Iterable[str], visible: bool) -> None:
        """Show or hide the rows of some fields."""
        for name in names:
            self._form.setRowVisible(self._controls[name].native, visible)

    def control(self, name: str) -> QWidget:
        """Return the Qt widget of a field."""
        native: QWidget = self._controls[name].native
        return native


def control_for(setting: Field[Any]) -> ValueWidget[Any]:
    """Return the control of a field, with its default."""
    meta = setting.metadata
    default: Any = setting.default
    told = {
        "name": setting.name,
        "label": meta.get("label") or setting.name,
        "tooltip": meta["help"],
    }
    if meta["choices"]:
        return _choice(meta["choices"], default, told)
    if isinstance(default, bool):
        return CheckBox(value=default, **told)
    low = meta["low"]
    high = MAX_INT if meta["high"] is None else meta["high"]
    if isinstance(default, int) and not meta["unit"]:
        return SpinBox(value=default, min=low, max=high, **told)
    if isinstance(default, int) or high > 1 or default < 0.01:
        return _number(setting, low, high, told)
    slider = FloatSlider(value=default, min=low, max=high, step=0.01, **told)
    # magicgui gives it to the bare slider
    slider.native.setToolTip(tip_text(meta["help"]))
    readout = slider.native.findChild(QDoubleSpinBox)
    readout.setToolTip(tip_text(meta["help"]))
    readout.setStyleSheet(READOUT_STYLE)
    return slider


def _choice(
    choices: tuple[str, ...], default: str | None, told: dict[str, Any]
) -> ComboBox:
    titled = [(CHOICE_TITLES.get(c, c.capitalize()), c) for c in choices]
    control = ComboBox(choices=titled, value=default or choices[0], **told)
    narrow(control.native)
    return control


def _number(
    setting: Field[Any], low: float, high: float, told: dict[str, Any]
) -> ValueWidget[Any]:
    """Return a number with its unit; magicgui's own box for integers shows none."""
    default: Any = setting.default
    unit = setting.metadata["unit"]
    step = 1 if isinstance(default, int) else default / 10 or 0.1
    kind = WholeNumber if isinstance(default, int) else FloatSpinBox
    control = kind(value=default, min=low, max=high, step=step, **told)
    box = control.native
    box.setDecimals(_decimals(default))
    box.setKeyboardTracking(False)
    box.setSuffix({"": "", "pixel": " px"}.get(unit, f" {unit}"))
    if low == AUTO:
        box.setSpecialValueText("auto")
    return control


def _decimals(default: float) -> int:
    """Return how many decimals a number is shown with, from its default."""
    if isinstance(default, int) or default >= 10:
        return 0
    return 2 if default >= 0.01 else 5


class WholeNumber(FloatSpinBox):
    """A box for integers that can show a unit."""

    def get_value(self) -> int:
        """Return the value as an integer."""
        return int(super().get_value())


def _plain(value: Any) -> Any:
    """Return a value without the noise of a slider's steps."""
    return round(value, 6) if isinstance(value, float) else value


def _emit(signal: Any, value: Any) -> None:
    signal.emit()
