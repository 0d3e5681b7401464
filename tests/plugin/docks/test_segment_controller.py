"""What the dock "Segment from prompts" decides, without a window."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from napari_svpseg.core.geometry import Tile
from napari_svpseg.core.image import Axes, ImageError
from napari_svpseg.core.jobs.stored_labels import Filled, StoredLabels
from napari_svpseg.core.model_card import ModelCard
from napari_svpseg.core.prompt import PromptError
from napari_svpseg.core.result import Maps, Recipe, Result
from napari_svpseg.plugin.docks import segment_controller as module
from napari_svpseg.plugin.docks.first_steps import FirstSteps
from napari_svpseg.plugin.docks.segment_controller import (
    RunChoices,
    RunReport,
    SegmentController,
)
from napari_svpseg.plugin.messages import DRAW_BOX, NO_MODEL, OPEN_IMAGE, STARTING, TRY
from napari_svpseg.workflows.segment_image import segment
from napari_svpseg.workflows.segment_several import Segmented, segment_several

from . import jobs

CARD = ModelCard("svp", "svp")
LARGE = (1300, 1300)
"""Shape of an image that has the engine for itself."""


class Source:
    """What `ImageSource` is for a controller."""

    channels = None
    channel_names = ()
    level = 0
    others = ()

    def __init__(self, name, order="YX", shape=(20, 30)):
        self.name, self.axes, self.shape = name, Axes(order), shape
        self.layer = SimpleNamespace(name=name, rgb=False)
        self.n_planes = shape[0] if len(shape) == 3 else 1
        self.plane_shape = shape[-2:]

    def plane_at(self, point):
        return (int(point[0]),) if self.n_planes > 1 else ()

    def query(self, plane, tile=None):
        return np.zeros(self.plane_shape if tile is None else tile.shape)

    def query_axes(self, plane):
        return "YX" if plane is not None else self.axes.order


class Layers:
    """What `RunLayers` is for a controller; it only takes note."""

    def __init__(self):
        self.shown, self.gone, self.log = [], [], []
        self.edited, self.results = [], {}
        self.undone = ("Nothing to undo.", None)
        self.stored = SimpleNamespace(
            remark="", stop=lambda: self.log.append("stop"), end=lambda labels: "layer"
        )

    def has(self, source):
        return source not in self.gone

    def shown_plane(self, source):
        return source.plane_at((1.0, 0.0, 0.0))

    def visible_tile(self, source):
        return Tile(2, 12, 3, 15)

    def bring_into_sight(self, layer):
        self.log.append(layer.name)

    def begin(self, *, options=False):
        self.log.append("begin")

    def end(self):
        self.log.append("end")

    def show(self, step, result, maps):
        self.shown.append((step, result, maps))
        return SimpleNamespace(visible=step.source.name != "hidden"), ""

    def show_plane(self, source, index, labels):
        self.log.append(index)

    def show_stored(self, step, value):
        self.log.append(value)

    def stored_arguments(self, step):
        return "stack", {"about": step.store}

    def shown_result(self, image):
        return self.results.get(image.name)

    def every_result(self):
        return list(self.results.values())

    def holds(self, kept):
        return kept.layer not in self.gone

    def is_edited(self, kept):
        return kept in self.edited

    def show_again(self, kept, labels, values):
        self.log.append(values)
        return int(labels.max())

    def undo(self, image):
        return self.undone


class View(jobs.View):
    """What the dock is for the controllers."""

    def __init__(self):
        super().__init__()
        self.choices = RunChoices(CARD, {"device": "cpu"})
        self.store, self.complaint, self.device = "", "", ""
        self.options, self.n_left_tools, self.n_asked = [], 0, 0

    def complain(self, text, error=False):
        self.say(text, error)
        self.complaint = text

    def run_choices(self):
        return self.choices

    def store_for(self, source, plane):
        return self.store

    def leave_tools(self):
        self.n_left_tools += 1

    def set_options(self, values, *, quiet=False):
        self.options.append((values, quiet))

    def apply_options_soon(self):
        self.n_asked += 1

    def show_device(self, text):
        self.device = text


class Images:
    def __init__(self, *sources):
        self.sources = {source.layer.name: source for source in sources}
        self.problem, self.marked = "", None

    def selected(self):
        first = next((s.layer for s in self.sources.values()), None)
        return first if self.marked is None else self.sources[self.marked].layer

    def checked(self):
        return [source.layer for source in self.sources.values()]

    def source_of(self, layer):
        if self.problem:
            raise ImageError(self.problem)
        return self.sources[layer.name]


class Book:
    problem = ""
    items = ()
    intensities = SimpleNamespace(
        request=lambda source, plane: SimpleNamespace(result=lambda: "of the whole")
    )

    def prompts(self):
        if self.problem:
            raise PromptError(self.problem)
        return ()


@pytest.fixture
def parts():
    """Return a function that makes a controller for some images."""

    def make(*sources):
        view, engine, layers = View(), jobs.Engine(), Layers()
        images, book = Images(*sources), Book()
        controller = SegmentController(view, engine, images, book, layers)
        return controller, view, engine, layers

    return make


def a_result(n=2, shape=(20, 30), trust=0.9, **recipe):
    labels = np.zeros(shape, np.uint32)
    labels.flat[: n + 1] = np.arange(n + 1)
    maps = Maps(np.zeros(shape, np.float32))
    return Result(labels, maps, trust, Recipe("svp", **recipe), 1.0)


def test_a_controller_loads_neither_qt_nor_napari():
    code = (
        "import sys, napari_svpseg.plugin.docks.segment_controller\n"
        "print([m for m in ('torch', 'qtpy', 'napari') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_large_images_run_one_after_the_other(parts):
    sources = Source("a", shape=LARGE), Source("b", shape=LARGE)
    controller, view, engine, layers = parts(*sources)
    controller.start_run()
    assert view.is_busy and controller.is_busy and view.n_left_tools == 1
    controller.start_run()  # it runs already
    assert len(engine.jobs) == 1
    first = engine.jobs[0]
    args, kwargs = first.prepare()
    assert args[0].shape == LARGE and "intensities" not in kwargs
    assert kwargs["model"] == "svp" and kwargs["settings"].device == "cpu"
    first.progressed.emit(1, 4, "tile 1 of 4")
    assert view.progress == (1, 4, "image 1 of 2, tile 1 of 4")
    first.end("returned", a_result(2, LARGE))
    assert view.is_busy and len(engine.jobs) == 2
    engine.jobs[1].end("returned", a_result(3, LARGE))
    assert not view.is_busy and not controller.is_busy
    assert view.message.startswith("5 objects in 2 images, 2.0 s, trust 0.90")
    assert [step.source.name for step, _, _ in layers.shown] == ["a", "b"]
    assert layers.log == ["begin", "end"]


@pytest.mark.parametrize(
    "prepare, message",
    [
        (lambda c, v: v.__dict__.update(choices=RunChoices(None, {})), NO_MODEL),
        (lambda c, v: setattr(c.images, "problem", "axes?"), "Axes?"),
        (lambda c, v: setattr(c.images, "sources", {}), module.CHECK_AN_IMAGE),
    ],
)
def test_what_is_missing_is_said_and_nothing_starts(parts, prepare, message):
    controller, view, engine, _ = parts(Source("a"))
    prepare(controller, view)
    controller.start_run()
    assert view.message == message and view.is_error and not engine.jobs


def test_a_prompt_that_lacks_something_is_complained_of(parts):
    controller, view, engine, _ = parts(Source("a"))
    controller.book.problem = "paint the mask"
    controller.start_preview()
    assert view.complaint == "Paint the mask" and not engine.jobs
    view.choices = replace(view.choices, model=replace(CARD, classes={"a": "#ff0000"}))
    controller.start_preview()  # such a model needs no prompt
    assert len(engine.jobs) == 1


def test_one_of_several_images_may_be_unchecked_instead(parts):
    controller, view, _, _ = parts(Source("a"), Source("b"))
    controller.images.problem = "axes?"
    controller.start_run()
    assert view.message == "Axes?" + module.OR_UNCHECK


def test_a_preview_is_scaled_by_the_whole_image(parts):
    controller, view, engine, layers = parts(Source("a"))
    controller.start_preview()
    (query, _), kwargs = engine.jobs[0].prepare()
    assert query.shape == (10, 12) and kwargs["intensities"] == "of the whole"
    assert layers.log == ["a"]  # brought into sight; no undo of its own
    engine.jobs[0].end("returned", a_result(shape=(10, 12)))
    assert view.message.endswith(module.RUN_WHOLE)


def test_this_plane_or_all(parts):
    controller, view, engine, layers = parts(Source("s", "ZYX", (3, 20, 30)))
    controller.start_run()
    assert engine.jobs[0].prepare()[1]["axes"] == "YX"
    engine.jobs[0].end("returned", a_result())
    assert layers.shown[0][0].plane == (1,)
    assert layers.shown[0][1].recipe.plane == (1,)
    view.choices = replace(view.choices, all_planes=True)
    controller.start_run()
    assert engine.jobs[1].prepare()[1]["axes"] == "ZYX"
    engine.jobs[1].partial.emit(((2,), np.zeros((20, 30))))
    assert layers.log[-1] == (2,)


def test_small_images_run_together(parts):
    sources = [Source(name) for name in "abcde"]
    controller, view, engine, layers = parts(*sources)
    controller.start_run()
    assert view.message == "Segmenting 4 images…" and len(engine.jobs) == 1
    (calls,), _ = engine.jobs[0].prepare()
    assert engine.jobs[0].function is segment_several
    assert [args[0].shape for args, _ in calls] == [(20, 30)] * 4
    assert calls[3][1]["model"] == "svp"
    engine.jobs[0].partial.emit(Segmented(2, a_result(2), seconds=0.5))
    assert view.message.startswith("2 objects in 1 image, ")
    engine.jobs[0].progressed.emit(1, 4, "")
    assert view.progress == (1, 5, "1 of 5 images done")
    for i in (0, 3, 1):
        engine.jobs[0].partial.emit(Segmented(i, a_result(1), seconds=0.5))
    engine.jobs[0].end("returned", None)
    assert view.is_busy and engine.jobs[1].function is segment
    engine.jobs[1].end("returned", a_result(4))
    assert not view.is_busy
    assert view.message.startswith("9 objects in 5 images, 3.0 s, trust 0.90")
    assert [step.source.name for step, _, _ in layers.shown] == list("cadbe")


def test_only_single_planes_of_few_pixels_run_together(parts):
    stack = Source("stack", "ZYX", (3, 20, 30))
    sources = Source("a"), stack, Source("b"), Source("c", shape=LARGE), Source("d")
    controller, view, engine, _ = parts(*sources)
    view.choices = replace(view.choices, all_planes=True)
    controller.start_run()
    for _ in range(4):
        engine.jobs[-1].end("failed", "no.")
    assert [job.function for job in engine.jobs] == [segment] * 5
    controller, view, engine, _ = parts(*sources)  # one plane of the stack
    controller.start_run()
    (calls,), _ = engine.jobs[0].prepare()
    assert len(calls) == 3


def test_one_of_several_images_may_fail(parts):
    controller, view, engine, layers = parts(Source("a"), Source("b"), Source("c"))
    controller.start_run()
    layers.gone.append(controller.images.sources["b"])
    engine.jobs[0].partial.emit(Segmented(0, None, "too small."))
    engine.jobs[0].partial.emit(Segmented(1, a_result(1)))
    assert "'b' was closed" in view.message
    engine.jobs[0].partial.emit(Segmented(2, a_result(3)))
    engine.jobs[0].end("returned", None)
    assert view.message.startswith("'a': too small. 2 other images done: 3 objects.")
    assert len(layers.shown) == 1 and not view.is_busy


def test_several_images_that_end_the_engine_are_tried_one_by_one(parts):
    controller, view, engine, layers = parts(Source("a"), Source("b"), Source("c"))
    controller.start_run()
    engine.jobs[0].partial.emit(Segmented(1, a_result(1)))
    engine.jobs[0].end("failed", "The engine ended unexpectedly.")
    engine.jobs[1].end("returned", a_result(2))
    engine.jobs[2].end("failed", "too large.")
    assert [job.function for job in engine.jobs[1:]] == [segment] * 2
    assert view.message == "'c': too large. 2 other images done: 3 objects."
    assert [step.source.name for step, _, _ in layers.shown] == ["b", "a"]


def test_several_images_are_stopped_once_all_are_closed(parts):
    a, b = Source("a"), Source("b")
    controller, view, engine, layers = parts(a, b)
    controller.start_run()
    layers.gone.append(a)
    controller.skip_closed()
    assert not engine.jobs[0].is_cancelled
    layers.gone.append(b)
    controller.skip_closed()
    assert engine.jobs[0].is_cancelled
    engine.jobs[0].end("cancelled")
    assert len(engine.jobs) == 1 and not view.is_busy


def test_a_failed_image_does_not_stop_the_others(parts):
    sources = Source("a", shape=LARGE), Source("b", shape=LARGE)
    controller, view, engine, _ = parts(*sources)
    controller.start_run()
    engine.jobs[0].end("failed", "too small.")
    engine.jobs[1].end("returned", a_result(3, LARGE))
    assert view.message == "'a': too small. 1 other image done: 3 objects."
    assert view.is_error and not view.is_busy


def test_stop_ends_all_images(parts):
    controller, view, engine, layers = parts(Source("a"), Source("b"))
    controller.start_run()
    controller.cancel()
    assert engine.jobs[0].is_cancelled and view.is_stopping
    engine.jobs[0].end("cancelled")
    assert view.message == module.STOPPED and len(engine.jobs) == 1
    assert not view.is_busy and layers.log == ["begin", "stop", "end"]


def test_a_closed_image_ends_only_its_own_part(parts):
    a, b = Source("a", shape=LARGE), Source("b", shape=LARGE)
    controller, view, engine, layers = parts(a, b)
    controller.start_run()
    layers.gone.append(a)
    controller.skip_closed()
    assert engine.jobs[0].is_cancelled
    engine.jobs[0].end("cancelled")
    assert len(engine.jobs) == 2  # b has its turn
    layers.gone.append(b)
    engine.jobs[1].end("returned", a_result())
    assert "'b' was closed" in view.message and not layers.shown


def test_an_image_that_changed_is_not_shown_wrongly(parts):
    controller, view, engine, layers = parts(Source("a"))
    controller.start_run()
    engine.jobs[0].end("returned", a_result(shape=(9, 9)))
    assert view.message == module.CHANGED_MEANWHILE.format(name="a")
    assert view.is_error and not layers.shown


def test_a_large_result_goes_to_the_disk(parts):
    controller, view, engine, layers = parts(Source("a"))
    view.store = "/results/a.zarr"
    controller.start_run()
    args, kwargs = engine.jobs[0].prepare()
    assert args == ("stack", (), view.store) and kwargs["about"] == view.store
    assert kwargs["intensities"] == "of the whole"
    filled = Filled((), (slice(0, 9), slice(0, 9)))
    engine.jobs[0].partial.emit(filled)
    assert layers.log[-1] is filled
    engine.jobs[0].end("returned", StoredLabels("labels", 2, objects=7, seconds=3))
    assert view.message.startswith("7 objects, 3 s. It lies in /results/a.zarr.")
    controller.start_run()
    engine.jobs[1].end("cancelled")
    assert view.message == module.STOPPED + module.RUN_CONTINUES


def test_maps_are_shown_that_are_asked_for(parts):
    controller, view, engine, layers = parts(Source("a"))
    view.choices = replace(view.choices, maps=("probability",))
    controller.start_run()
    engine.jobs[0].end("returned", a_result())
    assert layers.shown[0][2] == ("probability",)


def test_nobody_is_called_after_the_dock_is_gone(parts):
    controller, view, engine, _ = parts(Source("a"))
    controller.start_run()
    before = view.message
    controller.detach()
    engine.jobs[0].end("failed", "too late")
    assert view.message == before


def test_undo_of_options_brings_their_controls_back(parts):
    controller, view, _, layers = parts(Source("a"))
    layers.undone = ("'a' is as it was before.", None)
    controller.undo_last()
    assert view.message == "'a' is as it was before." and view.options == []
    layers.undone = ("as before", Recipe("svp", postprocess={"threshold": 0.3}))
    controller.undo_last()
    assert view.options == [({"threshold": 0.3}, True)]


def test_a_model_that_knows_classes_changes_what_is_asked_for(parts):
    controller, view, _, _ = parts(Source("a"))
    controller.follow_model()
    assert view.options == []
    view.choices = replace(view.choices, model=replace(CARD, classes={"a": "#ff0000"}))
    controller.follow_model()
    assert view.options == [({"labels": "classes"}, False)]
    assert view.message == module.NEEDS_NO_PROMPT
    view.choices = replace(view.choices, model=CARD)
    controller.follow_model()
    assert view.options[-1] == ({"labels": "objects"}, False)


def test_a_model_of_another_program_runs_without_prompts(parts):
    controller, view, engine, _ = parts(Source("a"))
    view.choices = replace(view.choices, model=replace(CARD, needs_prompt=False))
    controller.follow_model()
    assert view.message == module.NEEDS_NO_PROMPT
    assert view.options == [({"labels": "objects"}, False)]
    controller.book.problem = "paint the mask"  # is not asked
    controller.start_run()
    assert len(engine.jobs) == 1 and not view.is_error


def test_the_device_is_asked_for_and_shown(parts):
    controller, view, engine, _ = parts()
    controller.ask_device()
    assert view.device == STARTING and engine.jobs[0].prepare() == (("cpu",), {})
    about = {"device": "cpu", "threads": 2, "reason": "no GPU found"}
    engine.jobs[0].returned.emit(about)
    assert view.device == "CPU · 2 cores (no GPU found)"
    controller.end_engine()
    assert engine.is_closed and view.device == module.ENGINE_OFF


# ---------------------------------------------------------------- the message


def test_a_report_says_what_helps():
    report = RunReport(1)
    result = a_result(0)
    report.add(result, 1.0)
    assert "0 objects, 1.0 s, trust 0.90. Lower the threshold, or draw" in report.text(
        result, 0
    )
    report = RunReport(1)
    report.add(low := a_result(2, trust=0.1), 1.0)
    assert report.text(low, 0).endswith(module.IS_LOW)
    report = RunReport(1, is_hidden=True, remark=" You edited it.")
    result = a_result(2, trust=np.nan, notes=("no usable GPU", "a smaller tile"))
    report.add(result, 1.0)
    text = report.text(result, 0)
    assert "trust" not in text and module.SHOW_BY_NAME in text
    assert text.endswith(" (a smaller tile) You edited it.")


def test_a_report_names_classes():
    result = replace(
        a_result(2, postprocess={"labels": "classes"}),
        classes={"disc": "#ff0000", "bar": "#00ff00"},
    )
    report = RunReport(1)
    report.add(result, 1.0)
    assert report.text(result, 0).startswith("disc, bar, 1.0 s")
    none = replace(result, labels=result.labels * 0)
    report = RunReport(1)
    report.add(none, 1.0)
    assert report.text(none, 0).startswith(module.NO_CLASS_FOUND)


# ---------------------------------------------------------------- first steps


def test_first_steps_give_way_to_other_messages():
    said = []

    def say(text, error=False):
        said.append(text)
        steps.said()

    steps = FirstSteps(say, DRAW_BOX)
    steps.follow_images(False)
    steps.follow_images(True)
    assert said == [OPEN_IMAGE, DRAW_BOX]
    say("4 objects")
    steps.follow_images(True)
    assert said[-1] == "4 objects"
    steps.follow_images(False)  # all images were closed
    assert said[-1] == OPEN_IMAGE


def test_a_complaint_ends_with_its_cause():
    said = []

    def say(text, error=False):
        said.append(text)
        steps.said()

    steps = FirstSteps(say, DRAW_BOX)
    steps.follow_images(True)
    steps.complain("no mask", True)
    steps.follow_prompts(1, False)
    assert said[-1] == "no mask"
    steps.follow_prompts(1, True)
    assert said[-1] == TRY
    steps.complain("no mask", True)
    steps.follow_prompts(0, False)
    assert said[-1] == DRAW_BOX
    steps.follow_prompts(1, True)  # nothing is complained of any more
    assert said[-1] == DRAW_BOX
