"""Our docks in the window: which are open, and on tabs, each at full height."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QChildEvent, QEvent, QObject, QTimer
from qtpy.QtWidgets import QDockWidget, QMainWindow, QTabBar, QWidget

from ..callbacks import guarded, reports_errors
from ..panels.controls import is_alive

if TYPE_CHECKING:
    import napari

PLUGIN = "napari-svpseg"
SEGMENT = "Segment from prompts"
BATCH = "Batch"
FINETUNE = "Fine-tune"
TRAIN_FROM_TAGS = "Train from tags"
"""Names of the docks in the manifest."""

OBJECTS, GALLERY = "Objects", "Gallery"
"""Names of the docks below the images."""

ON_TABS = {
    SEGMENT: "Segment",
    BATCH: "Batch",
    FINETUNE: "Fine-tune",
    TRAIN_FROM_TAGS: "Tags",
}
"""Short names of docks, so that four tabs are readable side by side."""

_ours: list[weakref.ref[QWidget]] = []


@reports_errors()
class TabWheel(QObject):
    """Keeps the mouse wheel from bringing other docks to the front.

    Parameters
    ----------
    window : QMainWindow
        Its tab bars are followed, also those made later; those without a dock of ours
        are left alone.
    """

    def __init__(self, window: QMainWindow) -> None:
        super().__init__(window)
        self._names = {*ON_TABS.values(), OBJECTS, GALLERY}
        window.installEventFilter(self)
        for bar in window.findChildren(QTabBar):
            bar.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Ignore the wheel over tabs; notice new tab bars."""
        if isinstance(event, QChildEvent) and event.type() == QEvent.Type.ChildPolished:
            bar = event.child()
            if isinstance(bar, QTabBar):
                bar.removeEventFilter(self)
                bar.installEventFilter(self)
        elif (
            event is not None
            and event.type() == QEvent.Type.Wheel
            and isinstance(watched, QTabBar)
        ):
            return any(
                watched.tabText(i) in self._names for i in range(watched.count())
            )
        return False


def open_docks(viewer: Any, title: str) -> list[Any]:
    """Return the docks of a viewer with this name, the one opened first in front."""
    return [
        dock
        for dock in _alive()
        if getattr(dock, "title", "") == title
        and getattr(dock, "is_open", False)
        and _bare(getattr(dock, "viewer", None)) is _bare(viewer)
    ]


def all_open_docks(viewer: Any) -> list[Any]:
    """Return all docks of a viewer, the one opened first in front."""
    titles = (SEGMENT, BATCH, FINETUNE, TRAIN_FROM_TAGS)
    return [dock for title in titles for dock in open_docks(viewer, title)]


def is_in_front(widget: QWidget) -> bool:
    """Return whether a dock is seen, and not behind the tab of another."""
    return not widget.visibleRegion().isEmpty()


def show_dock(viewer: napari.viewer.Viewer, title: str) -> Any:
    """Return the dock with this name, in front of others and opened if need be."""
    docks = open_docks(viewer, title)
    if docks:
        dock = docks[0]
    else:
        _, dock = viewer.window.add_plugin_dock_widget(PLUGIN, title, tabify=True)
    bring_to_front(dock)
    return dock


def share_tabs(widget: QWidget) -> None:
    """Put a dock on the tabs of ours that are open, once napari has docked it.

    napari stacks docks: the second would leave the first too low to work in.
    """
    _ours[:] = [ref for ref in _ours if ref() is not None]
    _ours.append(weakref.ref(widget))
    timer = QTimer(widget)  # ends with the widget
    timer.setSingleShot(True)
    timer.timeout.connect(guarded(widget, partial(_join, widget)))
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
    if window.findChild(TabWheel) is None:
        TabWheel(window)  # owned by the window
    title = getattr(widget, "title", "")
    if title in ON_TABS:
        own.setWindowTitle(ON_TABS[title])
    others = [
        frame
        for one in _alive()
        if one is not widget
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


def _alive() -> list[QWidget]:
    """Return our widgets that Qt has not deleted."""
    widgets = [widget for ref in _ours if (widget := ref()) is not None]
    return [widget for widget in widgets if is_alive(widget)]


def _bare(viewer: Any) -> Any:
    """Return the viewer itself, not the proxy that plugins are given."""
    return getattr(viewer, "__wrapped__", viewer)
