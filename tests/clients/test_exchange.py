"""Models with their prompts, run by other programs: ``make test-exchange``."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile

import napari_svpseg as svpseg
from napari_svpseg.cli.main import main
from napari_svpseg.core.exchange import scaled_range

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
    image, labels = scene()
    tifffile.imwrite(folder / "a.tif", image)
    tifffile.imwrite(folder / "a_labels.tif", labels.astype(np.uint16))
    prompts = folder / "demo.svprompt"
    command(
        "prompts", "new", prompts, "--image", folder / "a.tif", "--labels",
        folder / "a_labels.tif", "--box", 0, 0, "--size", 112, "--name", "round cells",
    )  # fmt: skip
    side = () if request.param is None else ("--side", request.param)
    command(
        "models", "export", "svp", "--prompts", prompts, "--format", "bioimageio", "-o",
        folder / "demo.zip", *side,
    )  # fmt: skip
    with zipfile.ZipFile(folder / "demo.zip") as archive:
        archive.extract("model.onnx", folder)
    np.save(folder / "image.npy", scaled_range(image[None, None]))
    usual = svpseg.segment(image, svpseg.load_prompts(prompts), device="cpu").maps
    return folder, usual


def command(*words):
    assert main([str(word) for word in words]) in (0, None)


def run(*words, **environment):
    done = subprocess.run(
        [PYTHON, *map(str, words)], env={**os.environ, **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def checked(place, tmp_path, *words):
    """Let bioimageio.core check a package without a network; return what it tells."""
    return run(
        "-m", "bioimageio.core", words[0], place, *words[1:],
        HTTPS_PROXY="http://127.0.0.1:9", HTTP_PROXY="http://127.0.0.1:9",
        BIOIMAGEIO_CACHE_PATH=str(tmp_path / "cache"),
    )  # fmt: skip


def test_bioimageio_core(package, tmp_path):
    folder, _ = package
    summary = tmp_path / "summary.json"
    checked(folder / "demo.zip", tmp_path, "test", "--summary", summary)
    assert '"status":"passed"' in summary.read_text().replace(" ", "")
    assert '"status":"failed"' not in summary.read_text().replace(" ", "")


def test_packages_of_other_programs(tmp_path):
    """Those that the tests import are packages of bioimage.io."""
    script = Path(__file__).parents[1] / "foreign" / "packages.py"
    subprocess.run([sys.executable, script, tmp_path], check=True)
    made = sorted(tmp_path.glob("*.zip"))
    assert len(made) == 4
    for place in made:
        checked(place, tmp_path, "validate-format")
        with zipfile.ZipFile(place) as archive:
            runs = "model.onnx" in archive.namelist()
        if runs:  # PyTorch is not in that environment
            checked(place, tmp_path, "test")


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
