"""Which result the options act on, and what they show, without a window."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from napari_svpseg.plugin.docks import options_controller as module
from napari_svpseg.plugin.docks.options_controller import OptionsController

from .test_segment_controller import Source, parts  # noqa: F401


def a_result(source, n=2, threshold=0.5, **changes):
    kept = SimpleNamespace(
        source=source,
        plane=None,
        maps=f"maps of {source.name}",
        layer=SimpleNamespace(name=source.name),
    )
    values = {
        "layer": kept.layer,
        "kept": kept,
        "is_stored": False,
        "options": {"threshold": threshold},
        "n_objects": n,
        "trust": 0.8,
    }
    return SimpleNamespace(**(values | changes))


@pytest.fixture
def options(parts):  # noqa: F811
    first, second = Source("a"), Source("b")
    controller, view, engine, layers = parts(first, second)
    layers.results = {"a": a_result(first, 2), "b": a_result(second, 7, 0.3)}
    view.choices = replace(view.choices, settings={"threshold": 0.7, "device": "cpu"})
    made = OptionsController(view, controller)
    made.follow_selection()
    return made, view, engine, layers


def test_options_wait_for_a_result_and_for_the_run(options):
    controller, view, engine, layers = options
    result = layers.results.pop("a")
    controller.follow_options()
    assert view.n_asked == 0
    layers.results["a"] = result
    controller.follow_options()
    assert view.n_asked == 1
    controller.runs.start_run()
    controller.apply()
    assert view.n_asked == 2 and len(engine.jobs) == 1


def test_options_make_the_objects_again(options):
    controller, view, engine, layers = options
    controller.follow_options()
    controller.apply()
    (maps, settings), kwargs = engine.jobs[0].prepare()
    assert maps == "maps of a" and settings.threshold == 0.7
    assert kwargs == {"axes": "YX"}
    controller.follow_options()
    controller.apply()  # it is at work
    assert view.n_asked == 3 and len(engine.jobs) == 1
    engine.jobs[0].end("returned", np.array([0, 3]))
    assert view.message == module.WITH_OPTIONS.format(objects="3 objects")
    assert layers.log[-1]["threshold"] == 0.7 and len(engine.jobs) == 2
    engine.jobs[1].end("failed", "no memory")
    assert view.message == "no memory" and view.is_error and controller.job is None


@pytest.mark.parametrize(
    "change, message",
    [
        ({"is_stored": True}, module.RUN_LARGE_FOR_OPTIONS),
        ({"kept": None}, module.RUN_FOR_OPTIONS),
        ({}, module.EDITED_IS_KEPT.format(name="a")),
    ],
)
def test_options_leave_some_results_alone(options, change, message):
    controller, view, engine, layers = options
    layers.edited = [] if change else [layers.results["a"].kept]
    layers.results["a"].__dict__.update(change)
    controller.follow_options()
    controller.apply()
    assert view.message == message and not engine.jobs


def test_the_selected_image_shows_its_options_and_its_count(options):
    controller, view, engine, layers = options
    assert view.options[-1] == ({"threshold": 0.5}, True)
    controller.runs.images.marked = "b"
    controller.follow_selection()
    assert view.options[-1] == ({"threshold": 0.3}, True)
    assert view.message == module.describe("b", layers.results["b"])
    assert "7 objects" in view.message and not engine.jobs


def test_a_change_just_before_another_image_is_selected_is_not_lost(options):
    controller, _, engine, _ = options
    controller.follow_options()
    controller.runs.images.marked = "b"
    controller.follow_selection()
    (maps, settings), _ = engine.jobs[0].prepare()
    assert maps == "maps of a" and settings.threshold == 0.7


def test_options_of_all_images_are_shown_together(options):
    controller, view, engine, layers = options
    third = layers.results["c"] = a_result(Source("c"))
    layers.edited = [third.kept]
    controller.apply_to_all()
    engine.jobs[0].end("returned", np.array([0, 3]))
    assert layers.log == []  # until all are there
    engine.jobs[1].end("returned", np.array([0, 4]))
    assert layers.log[0] == "begin" and layers.log[-1] == "end"
    assert [one["threshold"] for one in layers.log[1:-1]] == [0.7, 0.7]
    assert view.message == module.APPLIED.format(
        results="2 results", objects="7 objects"
    ) + module.LEFT_OUT.format(names="c")
