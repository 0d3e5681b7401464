"""A widget that grows below the fold comes into view, however late it is laid out."""

from __future__ import annotations

import pytest
from qtpy.QtWidgets import QLabel, QScrollArea, QVBoxLayout, QWidget

from napari_svpseg.plugin.panels import scroll_target
from napari_svpseg.plugin.panels.scroll_target import ScrollTarget


@pytest.fixture
def area(qtbot, monkeypatch):
    """Return a small scroll area with a tall label above a target of no height."""
    monkeypatch.setattr(scroll_target, "LAYOUT_MS", 20)
    area, body = QScrollArea(), QWidget()
    column = QVBoxLayout(body)
    above, area.grows = QLabel(), QLabel()
    above.setFixedHeight(400)
    area.grows.setFixedHeight(0)
    column.addWidget(above)
    column.addWidget(area.grows)
    area.setWidget(body)
    area.setWidgetResizable(True)
    area.resize(200, 200)
    qtbot.addWidget(area)
    area.show()
    qtbot.waitExposed(area)
    return area


def is_in_view(area):
    bottom = area.grows.mapTo(area.viewport(), area.grows.rect().bottomLeft()).y()
    return bottom <= area.viewport().height()


def test_it_is_shown_even_if_it_grows_late(area, qtbot, settle):
    target = ScrollTarget(area, area.grows)
    target.show()
    qtbot.waitUntil(lambda: not target._timer.isActive())
    area.grows.setFixedHeight(150)
    qtbot.waitUntil(lambda: area.grows.height() == 150 and is_in_view(area))
    qtbot.waitUntil(lambda: not target._timer.isActive())
    area.verticalScrollBar().setValue(0)
    area.grows.setFixedHeight(160)  # by itself, long after
    qtbot.waitUntil(lambda: area.grows.height() == 160)
    settle()
    assert not target._timer.isActive()
    assert area.verticalScrollBar().value() == 0  # the user stays where she scrolled


def test_nothing_moves_unless_it_is_to_be_shown(area, qtbot, settle):
    target = ScrollTarget(area, area.grows)
    area.grows.setFixedHeight(150)
    qtbot.waitUntil(lambda: area.grows.height() == 150)
    settle()
    assert not target._timer.isActive()
    assert area.verticalScrollBar().value() == 0 and not is_in_view(area)
