"""Where our docks stand in the window: on tabs, each at full height."""

from __future__ import annotations

from functools import partial
from typing import Any
from weakref import WeakSet

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QDockWidget, QMainWindow, QWidget

from ..panels.controls import is_alive

_ours: WeakSet[QWidget] = WeakSet()


def share_tabs(widget: QWidget) -> None:
    """Put a dock on the tabs of ours that are open, once napari has docked it.

    napari stacks docks: the second would leave the first too low to work in.
    """
    _ours.add(widget)
    timer = QTimer(widget)  # ends with the widget
    timer.setSingleShot(True)
    timer.timeout.connect(partial(_join, widget))
    timer.start(0)


def bring_to_front(widget: QWidget) -> None:
    """Show the tab of a dock."""
    frame = _frame_of(widget)
    if frame is not None:
        frame.show()
        frame.raise_()


def _join(widget: QWidget) -> None:
    own = _frame_of(widget)
    window: Any = None if own is None else own.parentWidget()
    if own is None or not isinstance(window, QMainWindow) or own.isFloating():
        return
    others = [
        frame
        for one in _ours
        if one is not widget
        and is_alive(one)
        and (frame := _frame_of(one)) is not None
        and frame.parentWidget() is window
        and frame.isVisibleTo(window)
        and not frame.isFloating()
        and window.dockWidgetArea(frame) == window.dockWidgetArea(own)
    ]
    tabs = window.tabifiedDockWidgets(own)
    if others and not any(frame in tabs for frame in others):
        window.tabifyDockWidget(others[0], own)
        own.raise_()


def _frame_of(widget: QWidget) -> QDockWidget | None:
    """Return the dock that a widget lies in."""
    parent = widget.parentWidget()
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parentWidget()
    return parent
