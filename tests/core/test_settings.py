"""Settings are checked, and survive being written down."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from napari_svpseg.core.result import Recipe
from napari_svpseg.core.settings import PostprocessSettings, SegmentSettings


@pytest.mark.parametrize("kind", [PostprocessSettings, SegmentSettings])
def test_every_setting_says_what_it_is(kind):
    for field in fields(kind):
        assert len(field.metadata["help"]) > 8, field.name


@pytest.mark.parametrize("kind", [PostprocessSettings, SegmentSettings])
def test_settings_survive_json(kind):
    there = kind()
    assert kind.from_dict(json.loads(json.dumps(there.to_dict()))) == there


@pytest.mark.parametrize(
    ("kind", "values", "text"),
    [
        (PostprocessSettings, {"threshold": 0.99}, "threshold must be 0.05 to 0.95"),
        (PostprocessSettings, {"output": "objects"}, "one of instances, semantic"),
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
