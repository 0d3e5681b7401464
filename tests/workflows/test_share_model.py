"""Models with their prompts, run by ONNX Runtime and imported again."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from typer.testing import CliRunner

import napari_svpseg as svpseg
from napari_svpseg.cli.main import app
from napari_svpseg.core.model_card import ModelCard
from napari_svpseg.core.prompt import Prompt, PromptSet
from napari_svpseg.engine.exchange import graphs
from napari_svpseg.io.model_archive import import_model
from napari_svpseg.io.model_store import ModelFormatError, save_model
from napari_svpseg.io.ownership import ReplaceError
from napari_svpseg.io.prompt_files import save_prompts
from napari_svpseg.workflows.share_model import share_model

SMALL = {
    "widths": [8, 8, 8, 8],
    "depths": [0, 0, 0],
    "features": 12,
    "pixel_features": 8,
    "decoder": [8, 8, 8],
    "filters": 1.0,
}
"""Arguments of a small network: writing ONNX takes as long as there are layers."""

SIDE = 256
"""Of images. ONNX for all sizes takes longer: it is in ``make test-exchange``."""

RUN = """
import json, sys, zipfile
import numpy as np, onnxruntime
with zipfile.ZipFile(sys.argv[1]) as package:
    package.extractall(sys.argv[2])
about = json.load(open(sys.argv[2] + "/rdf.yaml"))
scale = about["inputs"][0]["preprocessing"][0]["kwargs"]
image = np.load(sys.argv[3]).astype(np.float64)[None, None]
ends = [scale["min_percentile"], scale["max_percentile"]]
low, high = np.percentile(image, ends, axis=(2, 3), keepdims=True)
image = ((image - low) / (high - low + scale["eps"])).astype(np.float32)
session = onnxruntime.InferenceSession(sys.argv[2] + "/model.onnx")
np.save(sys.argv[4], session.run(None, {"image": image})[0][0])
assert not any(m.startswith(("torch", "napari")) for m in sys.modules)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def small(folder):
    """Return the folder of a small, untrained model of the default method."""
    import torch

    from napari_svpseg.models.registry import ModelConfig, build

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build(ModelConfig("svp", SMALL))
    save_model(folder / "small", network, ModelCard("small", "svp", SMALL))
    return folder / "small"


def scene():
    y, x = np.mgrid[:SIDE, :SIDE]
    pitch, diameter = 40, 27
    near = ((y % pitch - 20) ** 2 + (x % pitch - 20) ** 2) ** 0.5
    labels = np.where(near < diameter / 2, y // pitch * 10 + x // pitch + 1, 0)
    noise = np.random.default_rng(1).normal(0, 20, labels.shape)
    return (300 + 500 * (labels > 0) + noise).astype(np.uint16), labels


@pytest.fixture(scope="module")
def prompts():
    return PromptSet([Prompt.from_image(*scene(), (0, 0), 90)], "rounds")


@pytest.fixture(scope="module")
def package(folder, small, prompts):
    pytest.importorskip("onnxscript")
    return share_model(
        small, folder / "rounds.zip", prompts, side=SIDE, authors=["A. B."]
    ).path


@pytest.mark.slow
def test_onnx_runtime_alone_gives_the_foreground(package, small, prompts, tmp_path):
    pytest.importorskip("onnxruntime")
    image, _ = scene()
    np.save(tmp_path / "image.npy", image)
    place = tmp_path / "maps.npy"
    subprocess.run(
        [sys.executable, "-S", "-c", _paths() + RUN, package, tmp_path,
         tmp_path / "image.npy", place],
        check=True, cwd=tmp_path,
    )  # fmt: skip
    usual = svpseg.segment(image, prompts, model=small, device="cpu").maps
    found = np.load(place)
    np.testing.assert_allclose(found[0], usual.foreground, atol=1e-4)
    np.testing.assert_allclose(found[1], usual.distance, atol=1e-4)
    assert np.ptp(usual.foreground) > 0.1


def _paths():
    """Return code that finds the libraries, and nothing of this project."""
    ours = ("src", "wt")
    kept = [p for p in sys.path if p and p.rpartition("/")[2] not in ours]
    return f"import sys; sys.path[:] = {kept!r}\n"


def test_package_is_described(package):
    with zipfile.ZipFile(package) as archive:
        names = set(archive.namelist())
        about = json.loads(archive.read("rdf.yaml"))
    files = [
        about["weights"]["onnx"], *about["attachments"], *about["covers"],
        about["documentation"], about["inputs"][0]["test_tensor"],
        about["outputs"][0]["test_tensor"],
    ]  # fmt: skip
    assert {f["source"] for f in files} | {"rdf.yaml"} == names
    assert about["authors"] == [{"name": "A. B."}]
    assert about["inputs"][0]["axes"][2]["size"] == SIDE
    assert about["outputs"][0]["axes"][2]["halo"] * 2 < SIDE
    assert len(about["name"]) >= 5


def test_package_comes_back_as_model_and_prompts(package, small, prompts, tmp_path):
    card = import_model(package, tmp_path, name="back")
    image, _ = scene()
    again = svpseg.segment(image, model=card.path, device="cpu")
    usual = svpseg.segment(image, prompts, model=small, device="cpu")
    np.testing.assert_array_equal(again.labels, usual.labels)
    np.testing.assert_array_equal(again.maps.foreground, usual.maps.foreground)


def test_command_writes_torchscript_and_replaces_nothing(small, prompts, tmp_path):
    file, target = tmp_path / "p.svprompt", tmp_path / "m.pt"
    save_prompts(prompts, file)
    command = ["models", "export", str(small), "-o", str(target)]
    command += ["--format", "torchscript", "--prompts", str(file)]
    assert CliRunner().invoke(app, command).exit_code == 0
    before = target.read_bytes()
    assert CliRunner().invoke(app, command).exit_code != 0
    assert target.read_bytes() == before
    assert CliRunner().invoke(app, [*command, "--overwrite"]).exit_code == 0


def test_prompts_are_not_ignored_in_our_own_format(small, prompts, tmp_path):
    file = tmp_path / "p.svprompt"
    save_prompts(prompts, file)
    command = ["models", "export", str(small), "-o", str(tmp_path / "m.zip")]
    assert CliRunner().invoke(app, [*command, "--prompts", str(file)]).exit_code == 2
    assert not (tmp_path / "m.zip").exists()


def test_foreign_file_is_refused_before_the_work(small, prompts, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_svpseg.engine.exchange.bake.bake", None)
    (tmp_path / "mine.zip").write_bytes(b"notes")
    with pytest.raises(ReplaceError):
        share_model(small, tmp_path / "mine.zip", prompts)


def test_missing_library_is_named(small, prompts, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(graphs.ExchangeError, match=r"napari-svpseg\[export\]"):
        share_model(small, tmp_path / "m.onnx", prompts, form="onnx")
    assert not list(tmp_path.iterdir())


def test_model_predicts_with_its_own_prompts_or_given_ones(small, prompts, tmp_path):
    image, _ = scene()
    model = svpseg.load_model(small, prompts)
    usual = svpseg.segment(image, prompts, model=small, device="cpu")
    found = model.predict(image, device="cpu")
    np.testing.assert_array_equal(found.labels, usual.labels)
    again = svpseg.load_model(small)
    with pytest.raises(ModelFormatError):
        again.predict(image, device="cpu")
    found = again.predict(image, prompts, device="cpu")
    np.testing.assert_array_equal(found.labels, usual.labels)
    save_model(tmp_path / "own", model.network, model.card, prompts=prompts)
    own = svpseg.load_model(tmp_path / "own")
    found = own.predict(image, device="cpu")
    np.testing.assert_array_equal(found.labels, usual.labels)
    assert svpseg.segment(image, model=own, device="cpu").labels.shape == image.shape
