"""Our docks stand on tabs, each at full height."""

from __future__ import annotations

import pytest
from qtpy.QtWidgets import QDockWidget, QTabBar

from napari_svpseg.plugin.docks.batch_dock import BatchWidget
from napari_svpseg.plugin.docks.tabs import bring_to_front
from napari_svpseg.plugin.services.engine_process import Engine


@pytest.fixture
def batch(viewer, runner):
    def open_it():
        dock = BatchWidget(viewer, Engine(lambda: runner))
        viewer.window.add_dock_widget(dock, name="Batch")
        return dock

    return open_it


def frame(widget) -> QDockWidget:
    while not isinstance(widget, QDockWidget):
        widget = widget.parentWidget()
    return widget


def tabs_of(widget) -> list[QDockWidget]:
    own = frame(widget)
    return own.parentWidget().tabifiedDockWidgets(own)


def test_a_second_dock_leaves_the_first_its_height(open_dock, batch, qtbot):
    segment = open_dock()
    second = batch()
    assert not tabs_of(second)  # napari itself stacks them
    qtbot.waitUntil(lambda: frame(segment) in tabs_of(second))
    bar = next(
        bar
        for bar in frame(second).parentWidget().findChildren(QTabBar)
        if bar.tabText(bar.currentIndex()).startswith("Batch")
    )
    bring_to_front(segment)
    assert bar.tabText(bar.currentIndex()).startswith("Segment")


def test_a_dock_that_the_user_took_out_stays_where_it_is(open_dock, batch, settle):
    segment = open_dock()
    frame(segment).setFloating(True)
    second = batch()
    settle()
    assert not tabs_of(second) and frame(segment).isFloating()


def test_docks_of_others_are_left_alone(viewer, open_dock, settle):
    from qtpy.QtWidgets import QLabel

    other = QLabel("not ours")
    viewer.window.add_dock_widget(other, name="other", area="right")
    segment = open_dock()
    settle()
    assert not tabs_of(segment)
