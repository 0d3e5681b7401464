"""What the dock "Train from tags" decides, without a window."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from napari_svpseg.core.annotation.image_tags import (
    BankPatch,
    TagTrainingPreview,
    TagTrainingProgress,
    TagTrainingResult,
)
from napari_svpseg.core.geometry import Box
from napari_svpseg.core.image import ImageError
from napari_svpseg.plugin.docks import tags_controller as module
from napari_svpseg.plugin.docks.model_names import NEEDS_NAME
from napari_svpseg.plugin.docks.tags_controller import (
    BANK_SHOWN,
    CANCELLED,
    CHECK_PATCHES,
    CHOSEN,
    FINDING,
    KEEPING_BEST,
    LOSS,
    MASK_SCORE,
    NO_CLASS,
    PRESS_TRAIN,
    PROMPT_ADDED,
    SECOND_LOSS,
    SECOND_STAGE,
    STAGES,
    STOPPED,
    TAG_SCORE,
    TO_CONTINUE,
    TRAINED,
    TagsChoices,
    TagsController,
    class_shares,
)

from .fakes import FakeEngine, FakeFiles, FakeView


class FakeImage:
    """An image that is already open."""

    def __init__(self, key, error=""):
        self.key = self.title = key
        self._error = error

    def for_engine(self):
        if self._error:
            raise ImageError(self._error)
        return np.zeros((8, 8, 1))


ONE, TWO = FakeImage("one"), FakeImage("two")
TAGGED = [(ONE, ("disc",)), (TWO, ("bar",))]
PATCHES = (BankPatch("disc", 0, "one", Box(0, 0, 32)),)


class View(FakeView):
    choices = TagsChoices("from tags", TAGGED, ("disc", "bar"), device="cpu")
    selected = ONE
    trained = ""

    def run_choices(self):
        return self.choices

    def selected_image(self):
        return self.selected

    def model(self):
        return self.trained


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
def controller(view, engine, files):
    return TagsController(view, engine, files)


def result(notes=()):
    return TagTrainingResult("/models/from tags", PATCHES, (), notes, 125.0)


# ------------------------------------------------------------------------ tags


def test_what_the_tags_lack_is_shown_until_there_is_a_model(controller, view):
    controller.follow_tags("Tag more.")
    view.choices = TagsChoices("a", [], (), problem="Tag some.")
    controller.follow_tags("")
    view.choices = View.choices
    controller.follow_tags("")
    assert [text for text, _ in view.messages] == [
        "Tag more.",
        "Tag some.",
        PRESS_TRAIN,
    ]
    view.trained = "/models/a"
    controller.follow_tags("Tag more.")
    assert len(view.messages) == 3


# ------------------------------------------------------------------------ training


def test_a_training_is_begun_with_the_choices(controller, view, engine, own_home):
    controller.start()
    job = engine.job
    images, tags = job.args
    assert job.function is module.train_from_tags and controller.is_training
    assert set(images) == {"one", "two"} and tags["two"] == {"bar"}
    assert tags.classes == ("disc", "bar")
    assert job.kwargs["output"] == str(own_home / "models" / "from tags")
    assert job.kwargs["device"] == "cpu" and job.kwargs["bank"] is None
    assert not job.kwargs["resume"] and view.called("show_run") == [()]


@pytest.mark.parametrize(
    "choices, problem",
    [
        (TagsChoices("a/b", TAGGED, ("disc", "bar")), NEEDS_NAME),
        (TagsChoices("a", [], (), problem="Tag some."), "Tag some."),
        (TagsChoices("a", TAGGED, ("disc", "bar"), {"epochs": 0}), "epochs"),
    ],
)
def test_what_cannot_be_trained_is_refused(controller, view, engine, choices, problem):
    view.choices = choices
    controller.start()
    assert view.is_error and problem.lower() in view.message.lower()
    assert not engine.jobs


def test_stages_losses_and_scores_are_shown(controller, view, engine):
    controller.start()
    send = engine.job.partial.emit
    for step, told in ((0, 0.5), (1, 0.5), (2, 0.6)):
        send(TagTrainingProgress("first stage", step, 3, step, {"total": 1.0}, told))
    send(TagTrainingProgress(SECOND_STAGE, 0, 1, 9.0, {"total": 0.5}, 0.7))
    points = view.called("add_point")
    assert [p for p in points if p[0] == LOSS] == [(LOSS, s, 1.0) for s in (0, 1, 2)]
    # a score is a point when it is measured, not with each step
    assert [p for p in points if p[0] == TAG_SCORE] == [
        (TAG_SCORE, 0, 0.5),
        (TAG_SCORE, 2, 0.6),
    ]
    assert points[-2:] == [(SECOND_LOSS, 9.0, 0.5), (MASK_SCORE, 9.0, 0.7)]
    said = [text for text, _ in view.messages[1:]]
    assert said == [f"{STAGES['first stage']}…", f"{STAGES[SECOND_STAGE]}…"]


def test_maps_of_the_selected_image_are_shown(controller, view, engine):
    controller.start()
    classes = np.ones((4, 4), np.uint8)
    for name in ("one", "two"):
        engine.job.partial.emit(TagTrainingPreview(name, classes, 255 * classes))
    ((image, _, foreground),) = view.called("show_map")
    assert image is ONE and foreground.max() == 1


def test_a_new_model_is_shown_with_its_bank(controller, view, engine):
    controller.start()
    engine.job.partial.emit(list(PATCHES))
    engine.job.end("returned", result(("one note",)))
    assert view.called("show_patches") == [(list(PATCHES),)]
    assert view.message == f"{TRAINED.format('2.1 min', 'from tags')} (one note)"
    assert len(view.called("show_result")) == 1 and not controller.is_busy


def test_stopping_keeps_the_best(controller, view, files, engine, monkeypatch):
    stopped = []
    monkeypatch.setattr(module, "stop_tag_training", stopped.append)
    controller.stop_and_keep()
    assert not view.calls
    controller.start()
    controller.stop_and_keep()
    files.run()
    assert [Path(o).name for o in stopped] == ["from tags"]
    assert view.called("show_keeping") == [(KEEPING_BEST,)]
    assert not engine.job.is_cancelled


def test_cancelling_leaves_nothing(controller, view, files, engine, monkeypatch):
    gone = []
    monkeypatch.setattr(module, "discard_tag_training", gone.append)
    controller.start()
    controller.cancel()
    assert engine.job.is_cancelled and view.is_stopping
    engine.job.end("cancelled")
    files.run()
    assert view.message == CANCELLED
    assert [Path(o).name for o in gone] == ["from tags"]
    controller.start()
    assert not engine.job.kwargs["resume"]


def test_after_a_failure_the_same_training_continues(controller, view, engine):
    controller.start()
    output = Path(engine.job.kwargs["output"])
    module.training_folder(output).mkdir(parents=True)
    (module.training_folder(output) / "checkpoint").write_text("")
    engine.job.end("failed", "The engine ended.")
    assert view.messages[-1] == (f"The engine ended.{TO_CONTINUE}", True)
    controller.start()
    assert engine.job.kwargs["resume"]
    assert engine.job.kwargs["output"] == str(output)
    engine.job.end("failed", "The engine ended.")
    view.choices = TagsChoices("from tags", TAGGED[:1], ("disc",), device="cpu")
    controller.start()
    assert not engine.job.kwargs["resume"]


def test_a_failure_before_the_first_checkpoint_is_only_told(controller, view, engine):
    controller.start()
    engine.job.end("failed", "Out of memory.")
    assert view.messages[-1] == ("Out of memory.", True)


# ------------------------------------------------------------------------ bank


def test_a_bank_is_found_without_training(controller, view, engine):
    controller.find_bank()
    assert engine.job.function is module.find_patch_bank
    assert not controller.is_training and view.message == FINDING
    engine.job.end("returned", PATCHES)
    assert view.called("show_patches") == [(PATCHES,)] and view.message == CHECK_PATCHES
    controller.find_bank()
    controller.cancel()
    engine.job.end("cancelled")
    assert view.message == STOPPED


def test_a_bank_that_was_opened_is_named(controller, view):
    controller.follow_opened(result())
    assert view.message == BANK_SHOWN.format("from tags")


def test_patches_become_prompts(controller, view):
    prompts = [SimpleNamespace(name="disc 1"), SimpleNamespace(name="disc 2")]
    controller.use_patches(prompts)
    assert view.called("segment_with_prompts") == [(prompts,)]
    assert view.message == PROMPT_ADDED.format("'disc 1', 'disc 2'")


# ------------------------------------------------------------------------ model


def test_the_model_is_used_once_there_is_one(controller, view):
    controller.use_model()
    assert not view.messages
    view.trained = "/models/from tags"
    controller.use_model()
    assert view.called("segment_with_model") == [("from tags",)]
    assert view.message == CHOSEN


def test_a_map_of_the_selected_image(controller, view, engine):
    controller.show_map()
    assert not engine.jobs
    view.trained = "/models/from tags"
    controller.show_map()
    job = engine.job
    assert job.function is module.segment and controller.map_job is job
    assert job.kwargs["model"] == "/models/from tags" and not controller.is_busy
    labels = np.array([[1, 1], [2, 0]])
    maps = SimpleNamespace(classes=labels, foreground=labels > 0)
    found = SimpleNamespace(maps=maps, labels=labels, classes={"disc": "", "bar": ""})
    job.end("returned", found)
    assert view.message == "'one': disc 50 %, bar 25 %." and controller.map_job is None
    assert view.called("show_map")[0][0] is ONE
    found.labels = 0 * labels
    assert class_shares(found) == NO_CLASS


def test_an_image_that_cannot_be_read_is_told(controller, view, engine):
    view.trained, view.selected = "/models/a", FakeImage("stack", "is a stack.")
    controller.show_map()
    assert view.messages == [("Is a stack.", True)] and not engine.jobs


def test_cancelling_ends_a_map_too(controller, view, engine):
    view.trained = "/models/a"
    controller.show_map()
    controller.cancel()
    assert engine.job.is_cancelled


def test_the_controller_needs_neither_qt_nor_napari():
    code = (
        "import sys, napari_svpseg.plugin.docks.tags_controller\n"
        "assert not {'qtpy', 'napari', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
