"""Events of jobs come one in a turn, in their order, and none within another's."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

from qtpy.QtCore import QCoreApplication, QTimer

from napari_svpseg.plugin.services.engine_process import EngineJob
from napari_svpseg.plugin.services.turns import Turns


def test_other_events_come_between_two_calls(qtbot):
    turns, seen = Turns(), []
    for i in range(3):
        turns.add(lambda i=i: seen.append(i))

    def click():
        seen.append("click")
        if seen.count("click") < 5:
            QTimer.singleShot(0, click)

    QTimer.singleShot(0, click)
    assert seen == [], "nothing is called at once"
    qtbot.waitUntil(lambda: seen.count("click") == 5 and 2 in seen)
    calls = [i for i, one in enumerate(seen) if one != "click"]
    assert [seen[i] for i in calls] == [0, 1, 2]
    assert all(b - a > 1 for a, b in pairwise(calls))


def test_nothing_is_called_while_a_call_handles_events_itself(qtbot):
    turns, seen = Turns(), []
    turns.add(lambda: seen.append("first"))
    with turns.held():
        turns.add(lambda: seen.append("second"))
        for _ in range(5):
            QCoreApplication.processEvents()
        assert seen == []
    qtbot.waitUntil(lambda: len(seen) == 2)
    assert seen == ["first", "second"]


def test_a_call_that_opens_a_dialog_does_not_stop_the_others(qtbot):
    turns, seen = Turns(), []

    def dialog():
        seen.append("opened")
        qtbot.waitUntil(lambda: "other" in seen)
        seen.append("closed")

    turns.add(dialog)
    turns.add(lambda: seen.append("other"))
    qtbot.waitUntil(lambda: "closed" in seen)
    assert seen == ["opened", "other", "closed"]


def test_of_many_reports_of_progress_the_latest_is_shown(qtbot):
    job, seen = EngineJob(print), []
    job.progressed.connect(lambda done, total, text: seen.append(done))
    job.partial.connect(seen.append)
    job.returned.connect(seen.append)
    job.finished.connect(lambda: seen.append("finished"))
    for done in range(1, 51):
        job.post("progress", SimpleNamespace(done=done, total=50, message=""))
    job.post("partial", SimpleNamespace(value="a part"))
    job.post("done", SimpleNamespace(value="all"))
    job.post("partial", SimpleNamespace(value="too late"))
    qtbot.waitUntil(lambda: "finished" in seen)
    qtbot.wait(20)
    assert seen == [50, "a part", "all", "finished"]
