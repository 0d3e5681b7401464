"""Models with their prompts, run by other programs: ``make test-exchange``."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

import napari_svpseg as svpseg
from napari_svpseg.core.exchange import scaled_range
from napari_svpseg.core.prompt import Prompt
from napari_svpseg.workflows.share_model import share_model

PYTHON = Path(".venv-bioimageio/bin/python").absolute()
"""Python that has bioimageio.core, ONNX Runtime and OpenCV."""

pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="there is no environment with other programs"
)

SIDE = 400


def scene():
    y, x = np.mgrid[:SIDE, :SIDE]
    near = ((y % 56 - 28) ** 2 + (x % 56 - 28) ** 2) ** 0.5
    labels = np.where(near < 19, y // 56 * 10 + x // 56 + 1, 0)
    noise = np.random.default_rng(1).normal(0, 20, labels.shape)
    return (300 + 500 * (labels > 0) + noise).astype(np.uint16), labels


@pytest.fixture(scope="module", params=[None, SIDE], ids=["all sizes", "one side"])
def package(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exchange")
    prompt = Prompt.from_image(*scene(), (0, 0), 112)
    share_model("svp", folder / "demo.zip", prompt, side=request.param)
    with zipfile.ZipFile(folder / "demo.zip") as archive:
        archive.extract("model.onnx", folder)
    image = scene()[0]
    np.save(folder / "image.npy", scaled_range(image[None, None]))
    usual = svpseg.segment(image, prompt, device="cpu").maps
    return folder, usual


def run(*words, **environment):
    done = subprocess.run(
        [PYTHON, *map(str, words)], env={**os.environ, **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_bioimageio_core(package, tmp_path):
    folder, _ = package
    summary = tmp_path / "summary.json"
    run(
        "-m", "bioimageio.core", "test", folder / "demo.zip", "--summary", summary,
        HTTPS_PROXY="http://127.0.0.1:9", HTTP_PROXY="http://127.0.0.1:9",
        BIOIMAGEIO_CACHE_PATH=str(tmp_path / "cache"),
    )  # fmt: skip
    assert '"status":"passed"' in summary.read_text().replace(" ", "")
    assert '"status":"failed"' not in summary.read_text().replace(" ", "")


@pytest.mark.parametrize("program", ["onnxruntime", "opencv"])
def test_same_maps(package, tmp_path, program):
    folder, usual = package
    words = (folder / "model.onnx", folder / "image.npy", tmp_path / "maps.npy")
    run(Path(__file__).with_name("run_onnx.py"), program, *words)
    maps = np.load(tmp_path / "maps.npy")[0]
    for own, other in zip(
        maps, (usual.foreground, usual.distance, usual.boundary), strict=True
    ):
        np.testing.assert_allclose(own, other, atol=1e-4)
