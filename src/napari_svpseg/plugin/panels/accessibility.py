"""Controls that everybody can use: the wheel, names for screen readers, the Tab key."""

from __future__ import annotations

from collections.abc import Iterator

from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSlider,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QFormLayout,
    QLabel,
    QLayout,
    QLineEdit,
    QPlainTextEdit,
    QScrollArea,
    QScrollBar,
    QTabBar,
    QTextEdit,
    QWidget,
)

from ..callbacks import reports_errors

CONTROLS = (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QLineEdit,
    QPlainTextEdit,
    QTabBar,
    QTextEdit,
)
TURNED_BY_WHEEL = (QAbstractSlider, QAbstractSpinBox, QComboBox, QTabBar)
"""Controls that the mouse wheel changes."""


@reports_errors()
class ControlKeeper(QObject):
    """Keeps what all controls of a dock have in common, also of those added later.

    The mouse wheel changes no control that is not focused: it scrolls the dock.
    Controls have the name of their label, and the Tab key goes through them as they
    are seen.

    Parameters
    ----------
    root : QWidget
        The dock.
    """

    def __init__(self, root: QWidget) -> None:
        super().__init__(root)
        self._root = root
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._on_added)
        self._timer.start(0)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Pass the wheel on to the scroll area; notice new controls."""
        if event is None:
            return False
        kind = event.type()
        if kind == QEvent.Type.ChildPolished:
            self._timer.start(0)
        elif (
            kind == QEvent.Type.Wheel
            and isinstance(watched, TURNED_BY_WHEEL)
            and not _has_focus(watched)
        ):
            event.ignore()  # then Qt offers it to the parent
            return True
        return False

    def keep(self) -> None:
        """Bring all controls that there are now up to date."""
        for widget in (self._root, *self._root.findChildren(QWidget)):
            turned = isinstance(widget, TURNED_BY_WHEEL)
            if isinstance(widget, QScrollBar) or not (turned or widget.layout()):
                continue
            widget.removeEventFilter(self)
            widget.installEventFilter(self)
            if turned and widget.focusPolicy() == Qt.FocusPolicy.WheelFocus:
                widget.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        name_rows(self._root)
        order_tabs(self._root)

    def _on_added(self) -> None:
        self.keep()


def _has_focus(widget: QWidget) -> bool:
    """Return whether a widget or a part of it has the focus."""
    focused = QApplication.focusWidget()
    return focused is not None and (focused is widget or widget.isAncestorOf(focused))


def controls(widget: QWidget) -> Iterator[QWidget]:
    """Yield the controls in a widget in the order in which they are laid out."""
    layout = widget.layout()
    if isinstance(widget, QScrollArea):
        inside = widget.widget()
        if inside is not None:
            yield from controls(inside)
    elif layout is not None:
        for inside in _laid_out(layout):
            yield from controls(inside)
    elif isinstance(widget, CONTROLS):
        yield widget


def _laid_out(layout: QLayout) -> Iterator[QWidget]:
    """Yield the widgets of a layout, top to bottom and left to right."""
    items = [layout.itemAt(i) for i in range(layout.count())]
    if isinstance(layout, QFormLayout):
        roles = QFormLayout.ItemRole
        items = [
            layout.itemAt(row, role)
            for row in range(layout.rowCount())
            for role in (roles.LabelRole, roles.FieldRole, roles.SpanningRole)
        ]
    for item in items:
        if item is None:
            continue
        widget, inner = item.widget(), item.layout()
        if widget is not None:
            yield widget
        elif inner is not None:
            yield from _laid_out(inner)


def name_controls(widget: QWidget, name: str) -> None:
    """Give the controls in a widget that have no name and no text a name."""
    for control in controls(widget):
        if not spoken_name(control):
            control.setAccessibleName(name)


def name_rows(root: QWidget) -> None:
    """Name the controls of all forms in a widget by the labels of their rows."""
    for form in root.findChildren(QFormLayout):
        for row in range(form.rowCount()):
            label = form.itemAt(row, QFormLayout.ItemRole.LabelRole)
            field = form.itemAt(row, QFormLayout.ItemRole.FieldRole)
            title = None if label is None else label.widget()
            widget = None if field is None else field.widget()
            if isinstance(title, QLabel) and widget is not None:
                name_controls(widget, title.text())


def spoken_name(control: QWidget) -> str:
    """Return the name that a screen reader says, or "" where there is none."""
    name = control.accessibleName()
    if not name and isinstance(control, QAbstractButton):
        name = control.text().replace("&", "")
    return name if any(letter.isalnum() for letter in name) else ""


def order_tabs(root: QWidget) -> None:
    """Let the Tab key go through controls in the order in which they are laid out."""
    before: QWidget | None = None
    for control in controls(root):
        if not control.focusPolicy() & Qt.FocusPolicy.TabFocus:
            continue
        if before is not None:
            QWidget.setTabOrder(before, control)
        before = control
