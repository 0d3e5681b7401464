"""Settings are checked, and survive being written down."""

from __future__ import annotations

import importlib
import json
import math
from dataclasses import fields

import pytest

from napari_svpseg.benchmark.one_shot_tasks import BenchmarkSettings
from napari_svpseg.cli.main import main
from napari_svpseg.core.annotation.image_tags import TagTrainingSettings
from napari_svpseg.core.jobs.finetune_job import FineTuneSettings
from napari_svpseg.core.result import Recipe
from napari_svpseg.core.settings import (
    PostprocessSettings,
    SegmentSettings,
    Settings,
    option,
    split_settings,
)

SHOWN = [PostprocessSettings, SegmentSettings, FineTuneSettings, TagTrainingSettings]


@pytest.mark.parametrize("kind", SHOWN)
def test_every_setting_says_what_it_is(kind):
    for field in fields(kind):
        assert len(field.metadata["help"]) > 8, field.name
        assert f"{field.name} : " in kind.__doc__
    labels = [field.metadata["label"] for field in fields(kind)]
    assert all(labels) and len({*labels}) == len(labels)


@pytest.mark.parametrize("module", ["trainer", "episodes", "one_image"])
def test_every_number_has_a_range(module):
    importlib.import_module(f"napari_svpseg.engine.training.{module}")
    kinds = {BenchmarkSettings}
    while more := {s for k in {Settings, *kinds} for s in k.__subclasses__()} - kinds:
        kinds |= more
    numbers = 0
    for kind in kinds:
        for field in fields(kind):
            default, meta = field.default, field.metadata
            is_number = isinstance(default, int | float) or bool(meta["unit"])
            if not is_number or isinstance(default, bool):
                continue
            numbers += 1
            assert meta["low"] < meta["high"] < math.inf, (kind, field.name)
            for wrong in (meta["low"] - 1, meta["high"] + 1, math.nan, -math.inf):
                with pytest.raises(ValueError, match=field.name):
                    kind(**{field.name: wrong})
    assert numbers > 30
    with pytest.raises(TypeError):
        option(1, "A number without a range")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("segment", ["--workers", "-1"]),
        ("segment", ["--workers", "100000"]),
        ("segment", ["--level", "-1"]),
        ("segment", ["--size", "1000000000"]),
        ("finetune", ["--minutes", "nan"]),
        ("finetune", ["--minutes", "-1"]),
        ("finetune", ["--size", "1"]),
        ("train", ["--minutes", "0"]),
        ("train-tags", ["--minutes", "-3"]),
        ("benchmark", ["--seed", "-1"]),
        ("benchmark-windows", ["--side", "0"]),
    ],
)
def test_numbers_out_of_range_are_refused_by_the_commands(command, words, capsys):
    assert main([command, "a", "-o", "b", *words]) == 2
    assert words[0].strip("-") in capsys.readouterr().err


def test_a_setting_is_given_unless_its_default_is_none():
    assert PostprocessSettings(labels=None) == PostprocessSettings()
    with pytest.raises(ValueError, match="threshold must be a number"):
        PostprocessSettings(threshold=None)


@pytest.mark.parametrize("name", ["auto", "CPU", " cuda ", "cuda:12", "mps"])
def test_device_names_are_checked_without_torch(name):
    assert SegmentSettings(device=name).device == name.strip().lower()


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0"])
def test_what_no_device_is_called_is_refused(name):
    with pytest.raises(ValueError, match="device must be"):
        SegmentSettings(device=name)


def test_settings_are_told_apart_by_their_names():
    run, post = split_settings({"tile": 256, "split": False})
    assert run == SegmentSettings(tile=256)
    assert post == PostprocessSettings(split=False)
    with pytest.raises(ValueError, match="unknown setting treshold; known: batch"):
        split_settings({"treshold": 0.5})


@pytest.mark.parametrize("kind", [PostprocessSettings, SegmentSettings])
def test_settings_survive_json(kind):
    there = kind()
    assert kind.from_dict(json.loads(json.dumps(there.to_dict()))) == there


@pytest.mark.parametrize(
    ("kind", "values", "text"),
    [
        (PostprocessSettings, {"threshold": 0.99}, "threshold must be 0.05 to 0.95"),
        (PostprocessSettings, {"labels": "boxes"}, "one of objects, classes"),
        (PostprocessSettings, {"min_area": -2}, "min_area must be"),
        (SegmentSettings, {"tile": 8}, "tile must be 64 to 8192"),
    ],
)
def test_values_out_of_range_are_named(kind, values, text):
    with pytest.raises(ValueError, match=text):
        kind(**values)


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="unknown PostprocessSettings: speed"):
        PostprocessSettings.from_dict({"speed": 1})


def test_a_recipe_survives_json():
    recipe = Recipe(
        "svp",
        "abc",
        ({"name": "one", "box": [1, 2, 64]},),
        {"tile": 256},
        {"threshold": 0.4},
        "cpu",
        "ZYXC",
        (2, 0),
        ((0.0, 9.5),),
        0.5,
        ("smaller tile",),
        {"numpy": "2"},
        "cells.svprompt",
        "q.tif",
    )
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_a_recipe_as_python_and_as_command_names_what_differs():
    recipe = Recipe(
        "svp",
        segment=SegmentSettings(tile=256).to_dict(),
        postprocess=PostprocessSettings(split=False).to_dict(),
        axes="ZYX",
        prompts_file="my cells.svprompt",
        query_file="q.tif",
    )
    python, command = recipe.to_python(), recipe.to_command()
    compile(python, "recipe", "exec")
    for text in ("tile=256", "split=False", "axes='ZYX'", "my cells.svprompt"):
        assert text in python
    for text in (
        "--tile 256",
        "--no-split",
        "--axes ZYX",
        "'my cells.svprompt'",
        "q.tif",
    ):
        assert text in command
    assert "threshold" not in python + command


@pytest.mark.parametrize("kind", ["objects", "classes"])
@pytest.mark.parametrize("needs_prompt", [True, False])
def test_the_kind_of_labels_is_named_where_the_model_gives_another(kind, needs_prompt):
    post = PostprocessSettings(labels=kind).to_dict()
    recipe = Recipe("m", postprocess=post, needs_prompt=needs_prompt)
    named = (kind == "objects") != needs_prompt
    assert (f"labels={kind!r}" in recipe.to_python()) == named
    assert (f"--as {kind}" in recipe.to_command()) == named


def test_settings_of_another_kind_are_refused_in_one_line():
    given = SegmentSettings(trust=False)
    assert SegmentSettings.of(given) is given
    assert SegmentSettings.of(None) == SegmentSettings()
    with pytest.raises(TypeError, match=r"got dict: use SegmentSettings\.from_dict"):
        SegmentSettings.of({"trust": False})
    with pytest.raises(TypeError, match="SegmentSettings, got dict"):
        SegmentSettings.of({})  # empty, and still not what the defaults are
    with pytest.raises(TypeError, match=r"got FineTuneSettings: use SegmentSettings\("):
        SegmentSettings.of(FineTuneSettings())
