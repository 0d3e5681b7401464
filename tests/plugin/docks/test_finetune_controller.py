"""What the dock "Fine-tune" decides, without a window."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from napari_svpseg.core.jobs.finetune_job import (
    NOT_BETTER,
    FineTuneProgress,
    FineTuneResult,
    ValidationScore,
)
from napari_svpseg.core.model_card import ModelCard
from napari_svpseg.core.settings import NO_GPU
from napari_svpseg.plugin.docks import finetune_controller as module
from napari_svpseg.plugin.docks.finetune_advice import (
    CHECK_LABELS,
    COMPARE,
    MORE_LABELS,
    MORE_TO_CHECK,
    NOT_CHECKED,
    OTHER_BOXES,
    TRY_IT,
    next_steps,
)
from napari_svpseg.plugin.docks.finetune_controller import (
    BETTER,
    CONTINUING,
    CUSTOM,
    CUT_OFF,
    ELSEWHERE,
    KEEP,
    KEEPING_BEST,
    LATER,
    LOSS,
    NO_BETTER,
    NO_ROOM,
    NOT_VALIDATED,
    PREPARING,
    STAGE,
    STAY,
    STOPPED,
    TRAINING,
    VALIDATION,
    FineTuneChoices,
    FineTuneController,
    FineTuneRun,
    score_lines,
)
from napari_svpseg.plugin.docks.model_names import NEEDS_NAME
from napari_svpseg.plugin.docks.run_clock import RunClock
from napari_svpseg.plugin.messages import NO_MODEL

from .fakes import FakeEngine, FakeFiles, FakeView

CARD = ModelCard("svp", "svp")
TWO_CELLS = MORE_TO_CHECK.format(cells="2 cells")
OLD, NEW = ValidationScore(0.6, 0.5, 900, 3), ValidationScore(0.8, 0.7, 900, 3)


class View(FakeView):
    choices = FineTuneChoices(CARD, ("svp",), "my cells", training_set="/a/set")

    def run_choices(self):
        return self.choices


@pytest.fixture
def unfinished(monkeypatch):
    """Return the runs that were cut off, which a test may change."""
    runs = []
    monkeypatch.setattr(module, "unfinished_finetunes", lambda: list(runs))
    return runs


@pytest.fixture
def view():
    return View()


@pytest.fixture
def engine():
    return FakeEngine()


@pytest.fixture
def files():
    return FakeFiles()


@pytest.fixture
def controller(view, engine, files, unfinished):
    return FineTuneController(view, engine, files, "cpu")


def result(kept="after", notes=(), after=NEW):
    return FineTuneResult(OLD, after, kept, "/models/my cells", notes=notes)


def test_a_training_is_begun_with_the_choices(controller, view, engine, own_home):
    controller.start()
    kwargs = engine.job.kwargs
    assert engine.job.function is module.finetune and controller.is_busy
    assert kwargs["output"] == str(own_home / "models" / "my cells")
    assert kwargs["start_from"] == "svp" and kwargs["training_set"] == "/a/set"
    assert kwargs["device"] == "cpu" and not kwargs["resume"]
    assert kwargs["unlabelled"] is None
    assert view.called("show_run") == [("my cells",)] and view.message == TRAINING
    assert view.is_busy


def test_settings_come_from_the_preset_or_the_options():
    quick = FineTuneChoices(CARD, preset="quick", options={"steps": 7})
    assert quick.settings().steps != 7
    custom = FineTuneChoices(
        CARD, preset=CUSTOM, options={"steps": 7}, meaning={"semantic": True}
    )
    assert custom.settings().steps == 7 and custom.settings().semantic
    first = FineTuneChoices(CARD, learns_unlabelled=True, unlabelled="/more")
    assert first.settings().self_supervised_first


@pytest.mark.parametrize(
    "learns, folder, expected",
    [(True, "/more", "/more"), (True, "", None), (False, "/more", None)],
)
def test_unlabelled_images_are_used_where_they_are_wanted(
    controller, view, engine, learns, folder, expected
):
    view.choices = FineTuneChoices(
        CARD, name="a", learns_unlabelled=learns, unlabelled=folder
    )
    controller.start()
    assert engine.job.kwargs["unlabelled"] == expected


def test_a_name_that_is_taken_gets_a_number(controller, view, engine):
    view.choices = FineTuneChoices(CARD, ("svp", "svp 2"), "svp")
    controller.start()
    assert view.called("show_run") == [("svp 3",)]


@pytest.mark.parametrize("name", ["", "  ", "a/b", ".hidden", "x:y"])
def test_a_bad_name_is_refused(controller, view, engine, name):
    view.choices = FineTuneChoices(CARD, name=name)
    controller.start()
    assert view.messages == [(NEEDS_NAME, True)] and not engine.jobs


def test_without_a_model_nothing_is_begun(controller, view, engine):
    view.choices = FineTuneChoices(None, name="a")
    controller.start()
    assert view.messages == [(NO_MODEL, True)] and not engine.jobs


def test_points_go_to_their_curves(controller, view, engine):
    controller.start()
    engine.job.partial.emit(FineTuneProgress(1, 9, 1.0, 0.5))
    engine.job.partial.emit(FineTuneProgress(2, 9, 2.0, float("nan"), 0.7))
    engine.job.partial.emit("something else")
    assert view.called("add_point") == [(LOSS, 1, 0.5), (VALIDATION, 2, 0.7)]


@pytest.mark.parametrize("kept, text", [("after", BETTER), ("before", NO_BETTER)])
def test_the_outcome_names_what_was_kept(controller, view, engine, kept, text):
    controller.start()
    notes = (NOT_BETTER, f"{NO_GPU}: none found", "a note")
    engine.job.end("returned", result(kept, notes))
    assert view.message == f"{text.format('my cells')} (a note)"
    assert view.called("refresh_models") and not controller.is_busy
    assert controller.started_from == "svp"


def test_scores_show_the_kept_model_in_bold():
    assert f"<b>{NEW}</b>" in score_lines(result("after"))
    assert f"<b>{OLD}</b>" in score_lines(result("before"))
    unchecked = ValidationScore(float("nan"), None, 0, 0)
    assert score_lines(result(after=unchecked)).startswith(NOT_VALIDATED)


@pytest.mark.parametrize(
    "before, after, kept, advice",
    [
        (0.6, ValidationScore(0.8, 0.7, 900, 9), "after", (TRY_IT, COMPARE)),
        (0.6, ValidationScore(0.109, 0.1, 900, 9), "before", (CHECK_LABELS,)),
        (
            0.6,
            ValidationScore(0.6, 0.5, 900, 2),
            "before",
            (TWO_CELLS,),
        ),
        (0.6, ValidationScore(0.6, 0.5, 900, 9), "before", ()),
        (0.6, ValidationScore(float("nan"), None, 0, 0), "after", (NOT_CHECKED,)),
    ],
)
def test_the_outcome_says_what_to_do_next(before, after, kept, advice):
    old = ValidationScore(before, before, 900, 9)
    told = next_steps(FineTuneResult(old, after, kept, "/models/a"))
    assert all(one in told for one in advice)
    assert (OTHER_BOXES in told) == (MORE_LABELS in told) == (kept == "before")
    assert (CHECK_LABELS in told) == (CHECK_LABELS in advice)


def test_a_training_shows_stage_step_and_time(controller, view, engine):
    now = [0.0]
    controller.clock = RunClock(lambda: now[0])
    controller.start()
    assert view.called("show_stage") == [(PREPARING,)]
    for step in (1, 4):
        now[0] += 3
        engine.job.progressed.emit(step, 10, "loss 0.2")
    line = view.called("show_stage")[-1][0]
    assert line == controller.clock.line(f"{STAGE}, loss 0.2", 4, 10)
    assert controller.clock.remaining(4, 10) == 6


def test_stopping_keeps_the_best(controller, view, engine, files, monkeypatch):
    stopped = []
    monkeypatch.setattr(module, "stop_finetune", lambda o: stopped.append(o) or True)
    controller.stop_and_keep()
    files.run()
    assert not stopped  # nothing runs
    controller.start()
    controller.stop_and_keep()
    files.run()
    assert [Path(o).name for o in stopped] == ["my cells"]
    assert view.called("show_keeping") == [(KEEPING_BEST,)]
    assert view.message == KEEPING_BEST
    assert not engine.job.is_cancelled


def test_what_has_not_begun_is_cancelled(controller, view, engine, files, monkeypatch):
    monkeypatch.setattr(module, "stop_finetune", lambda _: False)
    controller.start()
    controller.stop_and_keep()
    files.run()
    assert engine.job.is_cancelled
    engine.job.end("cancelled")
    assert view.message == STOPPED


@pytest.mark.parametrize(
    "answer, closes, cancels, waits",
    [
        (KEEP, False, False, True),
        (LATER, True, True, False),
        (STAY, False, False, False),
    ],
)
def test_closing_the_window(
    controller, view, engine, monkeypatch, answer, closes, cancels, waits
):
    monkeypatch.setattr(module, "stop_finetune", lambda _: True)
    controller.start()
    job = engine.job
    assert controller.answer_close(answer) == closes
    assert job.is_cancelled == cancels
    if not cancels:
        job.end("returned", result())
    assert bool(view.called("close_window")) == waits


def test_a_run_that_was_cut_off_is_offered_and_continued(
    controller, view, engine, files, unfinished
):
    controller.start()
    values = engine.job.kwargs
    unfinished.append({**values, "settings": values["settings"].to_dict()})
    engine.job.end("failed", "The engine ended.")
    files.run()
    assert view.messages[-1] == ("The engine ended.", True)
    assert view.called("offer_run") == [(CUT_OFF.format("my cells"),)]
    controller.resume()
    again = engine.job.kwargs
    assert again.pop("resume") and not values.pop("resume") and again == values
    assert view.called("offer_run")[-1] == ("",) and view.message == CONTINUING
    controller.resume()  # it is offered once
    assert len(engine.jobs) == 2


def test_where_the_disk_is_full_another_folder_is_asked_for(
    controller, view, engine, files, unfinished, monkeypatch
):
    controller.start()
    values = engine.job.kwargs
    unfinished.append({**values, "settings": values["settings"].to_dict()})
    full, moved, answers = [True], [], ["", "/b"]
    monkeypatch.setattr(module, "needs_other_place", lambda output: full[0])
    monkeypatch.setattr(
        module, "move_finetune", lambda *a: moved.append(a) or f"{a[1]}/my cells"
    )
    view.ask_folder = lambda: answers.pop(0)
    engine.job.end("failed", "no room")
    files.run()
    assert view.called("offer_run") == [(NO_ROOM.format("my cells"),)]
    controller.resume()
    files.run()
    assert len(engine.jobs) == 1  # no folder was chosen: it is offered further
    controller.resume()
    files.run()
    assert moved == [(values["output"], "/b")]
    assert engine.job.kwargs["output"] == "/b/my cells" and engine.job.kwargs["resume"]
    engine.job.end("returned", replace(result(), model="/b/my cells"))
    assert view.message == ELSEWHERE.format("my cells", Path("/b"))
    full[0] = False  # some space was freed: it goes on where it is
    unfinished[0]["is_full"] = True
    controller.look_for_unfinished()
    files.run()
    controller.resume()
    assert engine.job.kwargs["output"] == values["output"]


def test_a_checkpoint_of_another_version_is_refused(
    controller, view, engine, files, unfinished
):
    with pytest.raises(ValueError, match="cannot be read"):
        FineTuneRun.from_dict({"output": "/a", "training_set": "/b"})
    unfinished.append({"output": "/a/old", "training_set": "/b"})
    controller.look_for_unfinished()
    files.run()
    controller.resume()
    assert view.is_error and not engine.jobs


def test_a_run_that_was_cut_off_is_discarded(
    controller, view, files, unfinished, monkeypatch
):
    gone = []
    monkeypatch.setattr(module, "discard_finetune", gone.append)
    unfinished.append({"output": "/a/old", "training_set": "/b"})
    controller.look_for_unfinished()
    files.run()
    unfinished.clear()
    controller.discard()
    files.run()
    assert gone == ["/a/old"] and view.called("offer_run")[-1] == ("",)
    controller.discard()
    assert gone == ["/a/old"]


def test_the_latest_model_is_exported_else_the_chosen_one(
    controller, view, engine, files, monkeypatch
):
    written = []
    monkeypatch.setattr(
        module,
        "export_model",
        lambda m, p, overwrite: written.append((m, p, overwrite)) or Path(p),
    )
    assert controller.exportable == CARD.path
    controller.start()
    engine.job.end("returned", result())
    controller.export_model("/a/mine.zip")
    files.run()
    # the dialog has asked whether to replace the file
    assert written == [("/models/my cells", "/a/mine.zip", True)]
    assert "mine.zip" in view.message


def test_nobody_is_called_once_the_view_is_gone(controller, view, engine):
    controller.start()
    n = len(view.messages)
    controller.detach()
    engine.job.end("returned", result())
    assert len(view.messages) == n and controller.result is None


def test_the_controller_needs_neither_qt_nor_napari():
    code = (
        "import sys, napari_svpseg.plugin.docks.finetune_controller\n"
        "assert not {'qtpy', 'napari', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
