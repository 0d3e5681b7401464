"""A method of another package shows up everywhere without being imported."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import tifffile

from napari_svpseg import api
from napari_svpseg.benchmark.one_shot import run
from napari_svpseg.benchmark.one_shot_tasks import BenchmarkSettings
from napari_svpseg.cli.main import main
from napari_svpseg.core.labels.metrics import dice
from napari_svpseg.core.method_plugins import plugin_methods
from napari_svpseg.core.settings import SegmentSettings
from napari_svpseg.io.model_store import ModelFormatError, list_models
from napari_svpseg.models.registry import ModelConfig, build, methods


def test_methods_of_other_packages_are_absent_by_default():
    assert "brightness" not in plugin_methods()
    assert "brightness" not in methods()


def test_a_method_is_listed_without_being_imported(example_method):
    card = next(c for c in list_models() if c.name == "brightness")
    assert card.method == "brightness"
    assert card.licence == "MIT"
    assert card.title == "Bright like the prompt, or dark like it"
    assert card.training == {"package": "svpseg-brightness 1.2.3"}
    assert "brightness" in methods()
    assert "brightness" not in sys.modules


def test_the_command_line_lists_and_runs_it(
    example_method, disc_scene, tmp_path, capsys
):
    assert main(["models", "list"]) == 0
    assert "svpseg-brightness 1.2.3" in capsys.readouterr().out
    image, labels = tmp_path / "a.tif", tmp_path / "a-labels.tif"
    tifffile.imwrite(image, disc_scene.image)
    tifffile.imwrite(labels, disc_scene.labels)
    words = [
        "segment",
        str(image),
        "--prompt-image",
        str(image),
        "--prompt-labels",
        str(labels),
        "--box",
        "8",
        "8",
        "--no-trust",
        "--model",
        "brightness",
        "--device",
        "cpu",
        "-o",
        str(tmp_path / "out"),
    ]
    assert main(words) == 0
    found = tifffile.imread(next((tmp_path / "out").glob("*.tif")))
    assert dice(found > 0, disc_scene.labels > 0) > 0.9


def test_methods_without_weights_are_not_confused(
    example_method, disc_scene, disc_prompt
):
    result = api.segment(
        disc_scene.image,
        disc_prompt,
        model="brightness",
        device="cpu",
        settings=SegmentSettings(trust=False),
    )
    assert result.recipe.model == "brightness"
    assert dice(np.asarray(result.labels) > 0, disc_scene.labels > 0) > 0.9


def test_the_benchmark_scores_it(example_method, tmp_path, disc_scene):
    folder = tmp_path / "discs"
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for i in range(3):
        image = np.roll(disc_scene.image, i, axis=0).astype(np.uint16)
        labels = np.roll(disc_scene.labels, i, axis=0).astype(np.uint16)
        tifffile.imwrite(folder / "images" / f"{i}.tif", image)
        tifffile.imwrite(folder / "labels" / f"{i}.tif", labels)
    (folder / "dataset.toml").write_text('name = "discs"\nkind = "instance"\n')
    settings = BenchmarkSettings(prompts=1, max_queries=2, device="cpu")
    report = run([folder], ["brightness"], settings)
    scores = [record["dice"] for record in report["records"]]
    assert scores
    assert min(scores) > 0.9


def test_a_method_that_cannot_be_loaded_is_named_in_one_line(install_method):
    install_method("brightness:Missing")
    assert "brightness" in [card.name for card in list_models()]
    with pytest.raises(ModelFormatError, match=r"brightness:Missing.*AttributeError"):
        api.load_model("brightness")


def test_what_gives_no_segmenter_is_refused(install_method):
    install_method("collections:OrderedDict")
    with pytest.raises(ValueError, match="gives no PromptSegmenter but a OrderedDict"):
        build(ModelConfig("brightness"))
