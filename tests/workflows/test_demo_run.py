"""The demo as `make demo` runs it, with a tiny model in place of the real one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from skimage.io import imread

from napari_svpseg.core.geometry import Box
from napari_svpseg.core.model_card import ModelCard
from napari_svpseg.io.model_store import save_model
from napari_svpseg.io.sample_images import SampleImage
from napari_svpseg.models.registry import ModelConfig, build
from napari_svpseg.workflows.demo_run import score


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    config = ModelConfig("panet", {"width": 8})
    torch.manual_seed(0)
    card = ModelCard("tiny", config.method, config.arguments)
    save_model(folder / "models" / "tiny", build(config), card)
    return folder


def run_demo(home: Path, output: Path, *words: str) -> dict:
    screen = ("DISPLAY", "QT_QPA_PLATFORM")
    env = {k: v for k, v in os.environ.items() if k not in screen}
    env |= {"NAPARI_SVPSEG_HOME": str(home), "DEMO": "headless", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "napari_svpseg.cli.main",
            "demo",
            "--output",
            str(output),
            "--model",
            "tiny",
            "--device",
            "cpu",
            *words,
        ],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert str(output / "summary.json") in done.stdout
    summary: dict = json.loads((output / "summary.json").read_text())
    return summary


def check(summary: dict, read_recipe) -> None:
    labels = tifffile.imread(summary["labels"])
    assert np.unique(labels[labels > 0]).size == summary["objects"] > 0
    assert summary["seconds"] > 0
    assert summary["device"].startswith("cpu")
    recipe = read_recipe(summary["labels"])
    assert recipe is not None
    assert Path(recipe.model).name == "tiny"
    for other in summary["others"]:
        assert Path(other["labels"]).exists()
    if summary["image"] == "nuclei":
        assert 0 <= summary["dice"] <= 1
    else:
        assert summary["dice"] is None


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform.startswith("linux") and shutil.which("Xvfb") is None,
    reason="needs Xvfb, which make test installs",
)
def test_the_real_window_on_a_virtual_display(home, tmp_path, read_recipe) -> None:
    summary = run_demo(home, tmp_path / "out")
    check(summary, read_recipe)
    picture = imread(summary["window"])[..., :3]
    assert Path(summary["window"]).name == "window.png"
    assert picture.shape[0] > 700
    assert picture.shape[1] > 1200
    canvas = picture[100:700, 380:1180].astype(int)
    coloured = (canvas.max(axis=2) - canvas.min(axis=2) > 40).mean()
    assert coloured > 0.01, "the result's colours are not in the picture"


def test_without_a_window(home, tmp_path, read_recipe) -> None:
    summary = run_demo(home, tmp_path / "out", "--no-gui")
    check(summary, read_recipe)
    assert summary["window"] is None


def test_ground_truth_is_scored_outside_the_prompt_only() -> None:
    truth = np.zeros((128, 128), int)
    truth[:64, :64] = 1
    truth[100:, 100:] = 2
    sample = SampleImage("a", truth, truth, Box(0, 0, 64), is_complete=True)
    assert score(sample, np.where(truth == 1, 1, 0)) == 0
    assert score(sample, np.where(truth == 2, 1, 0)) == 1
    assert score(replace(sample, is_complete=False), truth) is None
