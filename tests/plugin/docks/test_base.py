"""What the four docks share: looks, a footer that stays put, messages, closing."""

from __future__ import annotations

import pytest
from qtpy.QtCore import QPoint
from qtpy.QtWidgets import QApplication, QLabel, QPushButton

from napari_svpseg.plugin.docks.base import Closing, Dock, device_combo
from napari_svpseg.plugin.docks.batch_dock import BatchWidget
from napari_svpseg.plugin.docks.controller import DockController
from napari_svpseg.plugin.docks.finetune_dock import FineTuneWidget
from napari_svpseg.plugin.docks.segment_dock import SegmentWidget
from napari_svpseg.plugin.docks.tabs import bring_to_front, open_docks, show_dock
from napari_svpseg.plugin.docks.tags_dock import TagsWidget
from napari_svpseg.plugin.messages import STOPPING
from napari_svpseg.plugin.panels.controls import theme_color
from napari_svpseg.plugin.panels.correct_panel import Answers
from napari_svpseg.plugin.services.engine_process import Engine

DOCKS = [SegmentWidget, BatchWidget, FineTuneWidget, TagsWidget]
LONG = "This message is much longer than the two lines that are kept for it. " * 4


@pytest.fixture
def viewer(make_napari_viewer_proxy):
    """Return a viewer whose window is laid out."""
    return make_napari_viewer_proxy(show=True)


@pytest.fixture
def open_any(viewer, runner, settle):
    """Return a function that opens a dock in the viewer, on the fake runner."""

    def open_it(kind):
        engine = Engine(lambda: runner)
        engine.runner()
        dock = kind(viewer, engine)
        viewer.window.add_dock_widget(dock, name=kind.title)
        bring_to_front(dock)
        settle()
        return dock

    return open_it


class Plain(Dock):
    """A dock with nothing of its own."""

    title = "Plain"

    def __init__(self, viewer, engine):
        super().__init__(viewer, engine)
        self.controller = self.attach(DockController(self, self.engine))
        self.go = QPushButton("Go")
        self.footer.add_actions(self.go)
        self.steps = []
        self.at_close(lambda: self.steps.append("first"))
        self.at_close(lambda: self.steps.append("second"))

    def end_work(self):
        super().end_work()
        self.steps.append("work")

    def show_state(self):
        """Do without."""


def place(dock, widget):
    QApplication.processEvents()
    return widget.mapTo(dock, QPoint(0, 0))


@pytest.mark.parametrize("kind", DOCKS)
def test_no_button_of_the_footer_moves(open_any, kind, settle):
    dock = open_any(kind)
    dock.show_busy(True)
    buttons = [b for b in dock.footer.findChildren(QPushButton) if b.isVisible()]
    assert len(buttons) >= 3
    before = [place(dock, b) for b in buttons]
    body = dock.scroll_area.geometry()
    for text in (LONG, "short", ""):
        dock.say(text, error=True)
        settle()
        assert dock.message.more.isVisible() == (text == LONG)
        assert [place(dock, b) for b in buttons] == before, text
    dock.show_busy(False)
    for row in dock.footer.findChildren(Answers):
        row.show()
    settle()
    assert not dock.stop.isVisible() and dock.scroll_area.geometry() == body
    assert [place(dock, b) for b in buttons] == before


@pytest.mark.parametrize("kind", DOCKS)
def test_a_long_message_has_two_lines_and_opens_whole(open_any, kind, settle):
    dock = open_any(kind)
    dock.say("short")
    settle()
    assert dock.message.shown_text() == "short" and not dock.message.more.isVisible()
    dock.say(LONG)
    settle()
    shown = dock.message.shown_text()
    assert shown.count("\n") == 1 and shown.endswith("…")
    assert dock.message.text() == dock.message.accessibleName() == LONG
    assert dock.message.height() >= 2 * dock.message.fontMetrics().lineSpacing()
    dock.message.more.click()
    assert dock.message.whole.isVisible() and dock.message.whole.text.text() == LONG
    dock.message.whole.close()


def test_the_docks_look_alike(open_any):
    looks = []
    for kind in DOCKS:
        dock = open_any(kind)
        body, layout = dock._body, dock.layout()
        looks.append(
            (
                body.contentsMargins(), body.spacing(),
                layout.contentsMargins(), layout.spacing(),
                dock.footer.layout().contentsMargins(), dock.footer.layout().spacing(),
                dock.message.minimumHeight(),
                dock.progress_row.sizeHint().height(),
            )
        )  # fmt: skip
        assert not dock.progress_row.isVisible() and dock.sections
    assert looks.count(looks[0]) == len(DOCKS)


@pytest.mark.parametrize("kind", DOCKS)
def test_a_dock_is_as_wide_as_its_contents_in_any_font(open_any, kind, qtbot):
    dock = open_any(kind)
    for section in dock.sections.values():
        section.expand(animate=False)
    area = dock.scroll_area

    def fits():
        needed = max(w.minimumSizeHint().width() for w in (area.widget(), dock.footer))
        return area.widget().width() >= needed and area.viewport().width() >= needed

    qtbot.waitUntil(fits)
    before = area.minimumSizeHint().width()
    for size in (14, 24):
        dock.setStyleSheet(f"* {{font-size: {size}pt}}")
        qtbot.waitUntil(fits)
    assert area.minimumSizeHint().width() > before


def test_the_body_is_filled_from_the_top(open_any):
    dock = open_any(Plain)
    first, second = QLabel("first"), QLabel("second")
    dock.add_heading("Heading")
    dock.add(first)
    section = dock.add_section("more", "More", second)
    ys = [place(dock, w).y() for w in (first, section)]
    assert ys == sorted(ys) and ys[1] < dock.height() // 2
    assert dock.sections == {"more": section} and not section.isExpanded()


def test_an_error_stands_on_the_error_colour_of_the_theme(open_any):
    dock = open_any(Plain)
    dock.say("wrong", error=True)
    assert theme_color(dock.viewer.theme, "error") in dock.message.styleSheet()
    assert dock.message.is_error
    dock.say("right")
    assert dock.message.styleSheet() == "" and not dock.message.is_error


def test_progress_says_stopping_until_the_run_has_ended(open_any):
    dock = open_any(Plain)
    dock.show_busy(True)
    assert dock.progress.maximum() == 0  # it moves to and fro
    dock.show_progress(2, 4, "tile 2 of 4")
    assert (dock.progress.value(), dock.progress.maximum()) == (2, 4)
    dock.show_stopping()
    dock.show_progress(3, 4, "tile 3 of 4")
    assert dock.progress.format() == STOPPING and not dock.stop.isEnabled()
    dock.show_busy(True)
    assert dock.stop.isEnabled()


def test_closing_ends_the_work_and_lets_go_once(open_any, viewer, runner):
    dock = open_any(Plain)
    assert open_docks(viewer, "Plain") == [dock] and dock.is_open
    assert show_dock(viewer, "Plain") is dock
    viewer.window.remove_dock_widget(dock)
    assert dock.steps == ["work", "first", "second"] and runner.closed == 1
    assert not dock.is_open and open_docks(viewer, "Plain") == []
    dock.deleteLater()
    QApplication.processEvents()
    assert dock.steps.count("first") == 1 and runner.closed == 1


def test_steps_of_closing_are_taken_in_order():
    taken = []
    closing = Closing(lambda: taken.append("last"))
    closing.add(lambda: taken.append("a"), lambda: taken.append("b"))
    assert not closing.is_done
    closing()
    closing(object())
    assert taken == ["a", "b", "last"] and closing.is_done


def test_the_preference_of_a_device(qtbot, monkeypatch):
    from napari_svpseg.plugin.docks import base

    monkeypatch.setattr(base, "preference", {"device": "cuda:1"}.get)
    combo = device_combo("Where it runs")
    qtbot.addWidget(combo)
    assert combo.currentText() == "cuda:1" and combo.toolTip() == "Where it runs"
