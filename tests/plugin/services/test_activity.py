"""Work of the docks in napari's activity dock."""

from __future__ import annotations

import pytest
from napari.utils import progress

from napari_svpseg.plugin.services import activity as module
from napari_svpseg.plugin.services.activity import Activity


def titles():
    return [str(bar.desc) for bar in progress._all_instances]


@pytest.fixture(autouse=True)
def nothing_runs():
    assert titles() == []
    yield
    assert titles() == []


def test_a_bar_lives_as_long_as_the_work(qtbot):
    activity = Activity("Fine-tune")
    activity.show(1, 2)  # nothing runs yet
    activity.begin()
    activity.begin()
    activity.show(3, 12, "loss 0.2")
    assert titles() == []  # it is drawn from the event loop only
    qtbot.waitUntil(lambda: len(titles()) == 1)
    (bar,) = progress._all_instances
    assert (bar.n, bar.total) == (3, 12) and "loss 0.2" in bar.desc
    activity.show(0, 4, "50 %")
    qtbot.waitUntil(lambda: (bar.n, bar.total) == (0, 4))
    activity.end()
    activity.end()
    qtbot.waitUntil(lambda: titles() == [])


def test_short_work_has_no_bar(qtbot, monkeypatch):
    drawn = []
    monkeypatch.setattr(Activity, "_draw", lambda self, wanted: drawn.append(wanted))
    monkeypatch.setattr(module, "SHORT_MS", 3_600_000)
    activity = Activity("Segment")
    activity.begin()
    activity.show(1, 2)
    activity.end()
    qtbot.waitUntil(lambda: not activity._timer.isActive())
    assert not any(drawn)


def test_work_that_ends_while_its_bar_is_drawn_leaves_none(qtbot, monkeypatch):
    """As napari handles waiting events while it draws a bar."""
    activity = Activity("Fine-tune")
    drawn = progress.update

    def ends_meanwhile(bar, n):
        activity.end()
        activity._on_rest()
        return drawn(bar, n)

    monkeypatch.setattr(progress, "update", ends_meanwhile)
    activity.begin()
    activity._on_rest()
    assert titles() == []


def test_a_run_is_seen_there(discs, open_dock, runner, finish, qtbot):
    dock = open_dock()
    dock.prompt_panel.add_prompt_at_centre()
    runner.slow = 60
    dock.preview.click() if dock.book.is_ready else dock.run.click()
    if dock.is_busy:
        qtbot.waitUntil(lambda: len(titles()) == 1)
        assert dock.title in titles()[0]
        runner.release.set()
        finish(dock)
