"""Every control of every dock: wheel, Tab key, tooltip, name for screen readers."""

from __future__ import annotations

from itertools import pairwise

import pytest
import qtpy
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import (
    QAbstractSlider,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QScrollBar,
    QSpinBox,
    QTabBar,
    QVBoxLayout,
    QWidget,
)

from napari_svpseg.core.geometry import Box
from napari_svpseg.plugin.docks.batch_dock import BatchWidget
from napari_svpseg.plugin.docks.finetune_dock import FineTuneWidget
from napari_svpseg.plugin.docks.segment_dock import SegmentWidget
from napari_svpseg.plugin.docks.tabs import GALLERY, OBJECTS, ON_TABS, bring_to_front
from napari_svpseg.plugin.docks.tags_dock import TagsWidget
from napari_svpseg.plugin.panels.accessibility import (
    CONTROLS,
    TURNED_BY_WHEEL,
    ControlKeeper,
    spoken_name,
)
from napari_svpseg.plugin.panels.controls import Offer
from napari_svpseg.plugin.services.engine_process import Engine

from ..conftest import disc_image

DOCKS = [SegmentWidget, BatchWidget, FineTuneWidget, TagsWidget]


@pytest.fixture
def viewer(make_napari_viewer_proxy):
    """Return a viewer whose window is laid out."""
    return make_napari_viewer_proxy(show=True)


@pytest.fixture
def open_full(viewer, runner, settle):
    """Return a function that opens a dock with all its sections, on two prompts."""

    def open_it(kind):
        viewer.add_image(disc_image()[0], name="discs")
        engine = Engine(lambda: runner)
        engine.runner()
        dock = kind(viewer, engine)
        viewer.window.add_dock_widget(dock, name=kind.title)
        bring_to_front(dock)
        if kind is SegmentWidget:
            for corner in (4, 50):
                source = dock.source_of(viewer.layers["discs"])
                dock.book.place(source, (), Box(corner, 8, 32))
        if kind is TagsWidget:
            dock.tags.add_class("one")
        for section in dock.sections.values():
            section.expand(animate=False)
        for offer in dock.findChildren(Offer):
            offer.show()
        dock.show_busy(True)
        settle()
        dock.keeper.keep()
        settle()
        return dock

    return open_it


def seen_controls(root):
    """Return the controls that are seen, not their parts such as a box's line."""
    found = []
    for widget in root.findChildren(QWidget):
        inside = widget.parentWidget()
        while inside is not root and not (
            isinstance(inside, CONTROLS) and inside.layout() is None
        ):
            inside = inside.parentWidget()
        is_control = isinstance(widget, CONTROLS) and widget.layout() is None
        if is_control and inside is root and not isinstance(widget, QScrollBar):
            found.append(widget)
    return [w for w in found if w.isVisibleTo(root)]


def label_of(widget):
    return spoken_name(widget) or f"{type(widget).__name__} '{widget.toolTip()}'"


def tip_of(widget):
    """Return the tooltip that Qt shows: that of a part is that of the whole."""
    whole = widget.parentWidget()
    return widget.toolTip() or (whole.toolTip() if isinstance(whole, CONTROLS) else "")


def value_of(widget):
    if isinstance(widget, QComboBox):
        return widget.currentIndex()
    is_number = isinstance(widget, QAbstractSlider) or hasattr(widget, "value")
    return widget.value() if is_number else widget.currentIndex()


def turn(widget, by=-120):
    """Turn the mouse wheel over a widget; Qt offers the parents what is ignored.

    It does so for events of the window system only.
    """
    while widget is not None:
        place = QPointF(widget.rect().center())
        event = QWheelEvent(
            place, QPointF(widget.mapToGlobal(place.toPoint())), QPoint(),
            QPoint(0, by), Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier,
            Qt.ScrollPhase.NoScrollPhase, False,
        )  # fmt: skip
        QApplication.sendEvent(widget, event)
        if event.isAccepted() or widget.isWindow():
            return
        widget = widget.parentWidget()


def place_of(widget, root):
    """Return where a widget is seen; the footer is below all that is scrolled."""
    area = getattr(root, "scroll_area", None)
    if area is None:
        return widget.mapTo(root, QPoint(0, 0))
    body = area.widget()
    if body.isAncestorOf(widget):
        return widget.mapTo(body, QPoint(0, 0))
    return widget.mapTo(root, QPoint(0, body.height()))


def unnamed(root):
    return [label_of(w) for w in seen_controls(root) if not spoken_name(w)]


def untold(root):
    return [label_of(w) for w in seen_controls(root) if not tip_of(w)]


def turned_unfocused(root):
    """Return the controls that the wheel changes though another has the focus."""
    root.setFocus()
    turned = []
    for widget in seen_controls(root):
        if not isinstance(widget, TURNED_BY_WHEEL):
            continue
        before = value_of(widget)
        for by in (-120, 120):
            turn(widget, by)
            if value_of(widget) != before or widget.hasFocus():
                turned.append(label_of(widget))
    return turned


def out_of_order(root):
    """Return the controls that the Tab key reaches before those above or left."""
    reached = [
        w for w in seen_controls(root) if w.focusPolicy() & Qt.FocusPolicy.TabFocus
    ]
    chain, widget = [], reached[0]
    while widget not in chain:
        chain.append(widget)
        widget = widget.nextInFocusChain()
    start = min(chain.index(w) if w in chain else -1 for w in reached)
    assert start == 0
    chain = [w for w in chain if w in reached]
    assert set(chain) == set(reached)
    places = [(w, place_of(w, root), w.size()) for w in chain]
    # the chain is a ring: it begins at the top left
    first = min(range(len(places)), key=lambda i: places[i][1].y() + places[i][1].x())
    places = places[first:] + places[:first]
    bad = []
    for (_, a, size), (widget, b, other) in pairwise(places):
        is_below = b.y() + other.height() / 2 >= a.y() + size.height()
        is_right = b.x() >= a.x() + size.width() - 1 and b.y() < a.y() + size.height()
        if not (is_below or is_right):
            bad.append(label_of(widget))
    return bad


@pytest.mark.parametrize("kind", DOCKS)
def test_all_controls_of_a_dock(open_full, kind):
    dock = open_full(kind)
    assert len(seen_controls(dock)) > 15
    assert (unnamed(dock), untold(dock)) == ([], [])
    turned = [w for w in seen_controls(dock) if isinstance(w, TURNED_BY_WHEEL)]
    assert len(turned) >= 3
    assert turned_unfocused(dock) == []
    if not qtpy.PYSIDE6:  # whose nextInFocusChain keeps all widgets alive
        assert out_of_order(dock) == []


@pytest.fixture
def apart(open_full, settle):
    """Return the docks that lie apart, Objects and Gallery, shown one after another."""
    dock = open_full(SegmentWidget)
    panel = dock.results_panel

    def show():
        for opens, part in (
            (panel.open_objects, panel.objects),
            (panel.open_gallery, panel.gallery),
        ):
            opens.click()
            settle()
            for keeper in part.findChildren(ControlKeeper):
                keeper.keep()
            yield part

    return show


def test_all_controls_of_the_docks_that_lie_apart(apart):
    n_seen, n_turned = [], 0
    for part in apart():
        controls = seen_controls(part)
        n_seen.append(len(controls))
        n_turned += sum(isinstance(w, TURNED_BY_WHEEL) for w in controls)
        assert (unnamed(part), untold(part)) == ([], [])
        assert turned_unfocused(part) == []
        if not qtpy.PYSIDE6:
            assert out_of_order(part) == []
    assert n_seen == [7, 1] and n_turned >= 3


def test_all_tabs_of_the_docks(open_full, settle, qtbot):
    docks = [open_full(kind) for kind in DOCKS]
    window = docks[0].window()
    names = {ON_TABS[kind.title] for kind in DOCKS}

    def bars(names):
        return [
            bar
            for bar in window.findChildren(QTabBar)
            if names & {bar.tabText(i) for i in range(bar.count())}
        ]

    qtbot.waitUntil(lambda: [bar.count() for bar in bars(names)] == [len(names)])
    (bar,) = bars(names)
    # a screen reader says the text of a tab, which no other dock has
    assert {bar.tabText(i) for i in range(bar.count())} == names
    assert all(bar.tabToolTip(i) for i in range(bar.count()))
    before = bar.currentIndex()
    for by in (-120, 120):
        turn(bar, by)
        assert bar.currentIndex() == before
    docks[0].results_panel.open_objects.click()
    docks[0].results_panel.open_gallery.click()
    below = {OBJECTS, GALLERY}
    qtbot.waitUntil(lambda: [bar.count() for bar in bars(below)] == [2])
    (bar,) = bars(below)
    before = bar.currentIndex()
    for by in (-120, 120):
        turn(bar, by)
        assert bar.currentIndex() == before


def test_the_wheel_scrolls_the_dock_but_changes_what_has_the_focus(open_full, qtbot):
    dock = open_full(SegmentWidget)
    bar = dock.scroll_area.verticalScrollBar()
    qtbot.waitUntil(lambda: bar.maximum() > 0)
    for widget in (dock.model, dock.box_size, dock.options.control("threshold")):
        bar.setValue(0)
        turn(widget)
        assert bar.value() > 0, label_of(widget)
    dock.activateWindow()
    dock.box_size.setFocus()
    qtbot.waitUntil(dock.box_size.hasFocus)
    before = dock.box_size.value()
    turn(dock.box_size)
    assert dock.box_size.value() < before


def test_a_control_that_is_planted_is_found(qtbot, settle):
    root = QWidget()
    qtbot.addWidget(root)
    column = QVBoxLayout(root)
    first, planted, third = QSpinBox(), QSpinBox(), QSpinBox()
    for widget in (planted, first, third):
        column.addWidget(widget)
    for widget in (first, third):
        widget.setToolTip("Told")
        widget.setAccessibleName("Named")
    root.show()
    QWidget.setTabOrder(third, first)
    settle()
    assert len(unnamed(root)) == len(untold(root)) == 1
    assert turned_unfocused(root) and out_of_order(root)
    keeper = ControlKeeper(root)
    keeper.keep()
    assert not turned_unfocused(root) and not out_of_order(root)
    late = QWidget()
    inside = QVBoxLayout(late)
    inside.addWidget(QSpinBox())
    column.addWidget(late)
    qtbot.waitUntil(lambda: not turned_unfocused(root))
    assert isinstance(seen_controls(root)[-1], QAbstractSpinBox)
