"""Small parts that the docks are built of."""

from __future__ import annotations

from collections.abc import Iterable

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QStyle,
    QStyleOptionComboBox,
    QStylePainter,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from .accessibility import name_controls
from .plain_text import PlainLabel, tip_text

WARN_COLOR = "#c07a00"
"""Of what still needs doing; readable on dark and on light."""


def heading(text: str) -> QLabel:
    """Return the title of a section."""
    label = PlainLabel(text)
    label.setStyleSheet("font-weight: bold;")
    label.setContentsMargins(0, 6, 0, 0)
    return label


def set_style(widget: QWidget, style: str) -> None:
    """Give a widget a style sheet, unless it has it: Qt lays out anew each time."""
    if widget.styleSheet() != style:
        widget.setStyleSheet(style)


def note(text: str = "") -> QLabel:
    """Return small print that wraps and never widens the dock."""
    label = PlainLabel(text)
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
    """Return a button with a tooltip."""
    made = QPushButton(text)
    made.setToolTip(tip_text(tip))
    if not any(letter.isalnum() for letter in text):
        made.setAccessibleName(tip)
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
    made.setToolTip(tip_text(tip))
    narrow(made)
    return made


def narrow(box: QComboBox) -> None:
    """Let a combo box shrink below the width of its entries."""
    box.setSizeAdjustPolicy(
        QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
    )
    box.setMinimumContentsLength(6)
    box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)


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
        layout = self.layout()
        assert layout is not None
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        self.toggleButton().setAccessibleName(title)
        self.toggleButton().setToolTip(tip_text(f"Show or hide: {title}"))
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


def keep_place(widget: QWidget) -> None:
    """Let a widget keep its place while it is hidden."""
    policy = widget.sizePolicy()
    policy.setRetainSizeWhenHidden(True)
    widget.setSizePolicy(policy)


class Offer(QFrame):
    """A quiet bar that offers something, until it is taken or put away.

    Parameters
    ----------
    take, leave : tuple of str
        What the two buttons say, and their tooltips.
    """

    taken = Signal()
    left = Signal()

    def __init__(self, take: tuple[str, str], leave: tuple[str, str]) -> None:
        super().__init__()
        self.setObjectName("svpsegOffer")
        self.setStyleSheet(
            f"#svpsegOffer {{border: 1px solid {WARN_COLOR}; border-radius: 4px;}}"
        )
        self.text = note()
        self.take, self.leave = button(*take), button(*leave)
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


def is_alive(widget: QWidget) -> bool:
    """Return whether Qt has not deleted a widget."""
    try:
        widget.objectName()
    except RuntimeError:
        return False
    return True


def can_be_seen(widget: QWidget) -> bool:
    """Return whether a widget is in front in its window, shown or not."""
    return widget.parent() is not None and widget.isVisibleTo(widget.window())


def labelled(text: str, widget: QWidget) -> QWidget:
    """Return a control with its name before it."""
    label = note(text)
    label.setWordWrap(False)
    label.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Preferred)
    name_controls(widget, text)
    return side_by_side(label, widget, stretch=(0, 1))


def theme_color(theme: str, name: str) -> str:
    """Return a colour of napari's theme."""
    from napari.utils.theme import get_theme

    return str(getattr(get_theme(theme), name).as_hex())


def font_size() -> str:
    """Return the font size of napari's preferences, as a style sheet has it."""
    from napari.settings import get_settings

    return f"{get_settings().appearance.font_size}pt"
