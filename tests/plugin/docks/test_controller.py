"""A controller follows one job from its start to its end."""

from __future__ import annotations

from napari_svpseg.plugin.docks.controller import DockController

from . import jobs


class Controller(DockController):
    """Takes note of what is called."""

    def __init__(self):
        super().__init__(jobs.View(), jobs.Engine())
        self.log = []
        self.again = False

    def go(self):
        self.follow(self.engine.submit(print, 1, end=""))

    def on_partial(self, value):
        self.log.append(("partial", value))

    def on_result(self, value):
        self.log.append(("result", value))

    def on_cancelled(self):
        self.log.append("cancelled")

    def on_finished(self):
        self.log.append("finished")
        if self.again:
            self.again = False
            self.go()


def test_a_job_is_followed_to_its_result():
    controller = Controller()
    view = controller.view
    controller.go()
    (job,) = controller.engine.jobs
    assert controller.is_busy and view.is_busy and view.n_states == 1
    assert job.prepare() == ((1,), {"end": ""})
    job.progressed.emit(1, 3, "one")
    assert view.progress == (1, 3, "one")
    job.partial.emit("part")
    job.end("returned", "whole")
    assert controller.log == [("partial", "part"), ("result", "whole"), "finished"]
    assert not controller.is_busy and not view.is_busy and view.n_states == 2


def test_a_failure_is_shown():
    controller = Controller()
    controller.go()
    controller.engine.jobs[0].end("failed", "no memory")
    assert controller.view.message == "no memory" and controller.view.is_error
    assert not controller.is_busy


def test_cancelling_is_shown_until_the_job_has_ended():
    controller = Controller()
    controller.cancel()  # nothing runs
    assert not controller.view.is_stopping
    controller.go()
    controller.cancel()
    (job,) = controller.engine.jobs
    assert job.is_cancelled and controller.view.is_stopping and controller.is_busy
    job.end("cancelled")
    assert controller.log == ["cancelled", "finished"] and not controller.is_busy


def test_a_further_job_keeps_the_progress_in_sight():
    controller = Controller()
    controller.again = True
    controller.go()
    controller.engine.jobs[0].end("returned", 1)
    assert controller.is_busy and controller.view.is_busy
    controller.engine.jobs[1].end("returned", 2)
    assert not controller.view.is_busy


def test_a_detached_controller_calls_nobody():
    controller = Controller()
    controller.go()
    controller.detach()
    controller.engine.jobs[0].end("returned", 1)
    assert controller.log == []
