"""Packages of bioimage.io of other programs become models that run here."""

from __future__ import annotations

import io
import pickle
import re
import sys
import zipfile

import numpy as np
import pytest
import tifffile
import yaml
from scipy.special import expit, softmax
from typer.testing import CliRunner

import napari_svpseg as svpseg
from napari_svpseg.cli.main import app
from napari_svpseg.core.image import ImageError
from napari_svpseg.core.settings import SegmentSettings
from napari_svpseg.engine.exchange.graphs import ExchangeError
from napari_svpseg.io import foreign_outputs, foreign_package
from napari_svpseg.io.model_archive import CANNOT_READ, NAME_TAKEN, import_model
from napari_svpseg.io.model_store import ModelFormatError
from napari_svpseg.workflows.finetuning import FineTuneError, _start_model
from napari_svpseg.workflows.share_model import share_model

from . import packages
from .packages import SIDE, bright, described, discs, same, scale, write


def imported(tmp_path, files, **options):
    """Return the model of a package, and the files."""
    path = write(tmp_path / "package.zip", files)
    card = import_model(path, tmp_path / "models", **options)
    return svpseg.load_model(card.path)


def stored(files, name="y.npy"):
    return np.load(io.BytesIO(files[name]))


def changed(files, change):
    """Return the files with a changed description."""
    about = yaml.safe_load(files["rdf.yaml"])
    change(about)
    return {**files, "rdf.yaml": yaml.safe_dump(about).encode()}


def refused(tmp_path, files, message, **options):
    with pytest.raises(ModelFormatError) as told:
        imported(tmp_path, files, **options)
    pattern = re.sub(r"\\\{.*?\\\}", ".*", re.escape(message))
    assert re.fullmatch(pattern, str(told.value)), told.value
    assert "\n" not in str(told.value)
    assert not any((tmp_path / "models").glob("*"))


# ------------------------------------------------------------------ what they find
def test_one_channel_is_a_class(tmp_path):
    files = packages.one_package()
    model = imported(tmp_path, files)
    assert list(model.card.classes) == ["foreground"] and not model.card.takes_prompts
    result = model.predict(discs()[0], device="cpu", min_area=1)
    np.testing.assert_allclose(result.maps.foreground, stored(files)[0, 0], atol=1e-5)
    np.testing.assert_array_equal(result.labels > 0, discs()[1] > 0)
    objects = model.predict(discs()[0], device="cpu", labels="objects")
    assert objects.n_objects == 9


def test_softmax_with_background_gives_classes(tmp_path):
    files = packages.softmax_package()
    model = imported(tmp_path, files)
    assert list(model.card.classes) == ["dim cell", "bright cell"]
    result = model.predict(stored(files, "x.npy")[0, 0], device="cpu")
    shares = stored(files)[0]
    np.testing.assert_allclose(result.maps.foreground, 1 - shares[0], atol=1e-5)
    assert {1, 2} <= set(np.unique(result.labels))
    inside = result.labels > 0
    classes = shares[1:].argmax(0) + 1
    assert (result.labels[inside] == classes[inside]).mean() > 0.99


def test_foreground_and_boundary_give_objects(tmp_path):
    files = packages.boundary_package()
    model = imported(tmp_path, files)
    assert not model.card.classes and not model.card.takes_prompts
    assert model.network.overlap == 16
    image, labels = discs(touching=True)
    result = model.predict(image, device="cpu")
    np.testing.assert_allclose(result.maps.boundary, stored(files)[0, 1], atol=1e-5)
    whole = [np.unique(labels[labels > 0], return_counts=True)[1] > 200][0].sum()
    assert result.n_objects >= whole > 10


@pytest.mark.parametrize("grid", [1, 2])
def test_polygons_give_objects(tmp_path, grid):
    model = imported(tmp_path, packages.star_package(grid))
    image, labels = discs()
    result = model.predict(image, device="cpu")
    assert result.n_objects == 9
    assert np.mean((result.labels > 0) != (labels > 0)) < 0.04


@pytest.mark.parametrize(
    ("axes", "size"),
    [
        ("bcyx", {"min": 16, "step": 16}), ("byxc", {"min": 40, "step": 8}),
        ("yx", {"min": 1, "step": 1}), ("bcyx", SIDE), ("cxy", {"min": 64, "step": 32}),
    ],
)  # fmt: skip
def test_axes_and_sizes(tmp_path, axes, size):
    image = discs(176)[0][:131, :173]
    fixed = isinstance(size, int)
    graph = bright(side=(size, size) if fixed else ("h", "w"), axes=axes)
    files = described(
        discs()[0],
        graph,
        scale,
        same,
        steps=[packages.SCALE],
        axes=axes,
        size=size,
        tags=["segmentation"],
    )
    model = imported(tmp_path, files)
    wanted = expit(20 * (scale(image[None])[0] - 0.5))
    for tile in (64, 512):
        settings = SegmentSettings(tile=tile, device="cpu")
        found = model.predict(image, settings=settings).maps.foreground
        np.testing.assert_allclose(found, wanted, atol=1e-4)
    small = model.predict(image[:9, :11], device="cpu").maps.foreground
    assert small.shape == (9, 11)


def test_stacks_and_channels(tmp_path):
    image = np.stack([discs()[0], discs()[0][::-1], discs()[0] * 2])
    graph = bright(channels=3)
    names = ("background", "a", "ignore")
    shares = lambda y: softmax(y, axis=1)  # noqa: E731
    files = described(
        image, graph, scale, shares, steps=[packages.SCALE], names=names,
        ends=[{"id": "softmax", "kwargs": {"axis": "channel"}}],
    )  # fmt: skip
    model = imported(tmp_path, files)
    found = model.predict(image, axes="CYX", device="cpu")
    wanted = stored(files)[0, 1]
    np.testing.assert_allclose(found.maps.foreground, wanted, atol=1e-4)
    assert np.ptp(wanted) > 0.1 and found.labels.shape == (SIDE, SIDE)
    stack = np.stack([discs()[0]] * 2)  # one channel is repeated
    assert model.predict(stack, axes="ZYX", device="cpu").labels.shape == stack.shape
    with pytest.raises(ImageError):
        model.predict(stack, axes="CYX", device="cpu")


STEPS = {
    "percentiles of each channel": (
        [packages.SCALE], lambda x: scale(x), 0.5
    ),
    "percentiles of all": (
        [{"id": "scale_range", "kwargs": {}}], lambda x: scale(x, 0, 100, None), 0.5
    ),
    "mean and variance": (
        [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["y", "x"]}}],
        lambda x: (x - x.mean((1, 2), keepdims=True))
        / (x.std((1, 2), keepdims=True) + 1e-6), 0.3,
    ),
    "fixed mean and variance": (
        [{"id": "fixed_zero_mean_unit_variance", "kwargs": {"mean": 400, "std": 200}}],
        lambda x: (x - 400) / 200, 0.1,
    ),
    "of each channel": (
        [{
            "id": "fixed_zero_mean_unit_variance",
            "kwargs": {"axis": "channel", "mean": [400], "std": [200]},
        }],
        lambda x: (x - 400) / 200, 0.1,
    ),
    "linear": (
        [{"id": "scale_linear", "kwargs": {"gain": 0.002, "offset": -0.4}}],
        lambda x: x * 0.002 - 0.4, 0.5,
    ),
    "binarize": (
        [{"id": "binarize", "kwargs": {"threshold": 450}}],
        lambda x: (x > 450) * 1.0, 0.5,
    ),
    "clip and scale": (
        [
            {"id": "clip", "kwargs": {"min": 250.0, "max": 600.0}},
            {"id": "zero_mean_unit_variance", "kwargs": {}},
            {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}},
        ],
        lambda x: (x.clip(250, 600) - x.clip(250, 600).mean())
        / (x.clip(250, 600).std() + 1e-6), 0.3,
    ),
    "clip by percentiles": (
        [
            {"id": "clip", "kwargs": {"min_percentile": 5.0, "max_percentile": 95.0}},
            {"id": "ensure_dtype", "kwargs": {"dtype": "uint16"}},
            {"id": "scale_linear", "kwargs": {"gain": 0.002}},
        ],
        lambda x: np.trunc(x.clip(*np.percentile(x, [5, 95]))) * 0.002, 1.0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", STEPS)
def test_preparation(tmp_path, kind):
    steps, formula, middle = STEPS[kind]
    image, labels = discs()
    double = lambda x: formula(x.astype(np.float64))  # noqa: E731
    files = described(image, bright(middle), double, same, steps=steps)
    model = imported(tmp_path, files)  # which compares with the test output
    found = model.predict(image, device="cpu").maps.foreground
    np.testing.assert_allclose(found, stored(files)[0, 0], atol=1e-4)
    assert np.mean((found > 0.5) == (labels > 0)) > 0.99


def linear():
    """Return ONNX that gives the input as it is."""
    node = packages.helper.make_node("Identity", ["x"], ["y"])
    return packages.onnx_graph([node], ["y"])


@pytest.mark.parametrize(
    ("ends", "formula"),
    [
        ([{"id": "sigmoid"}], expit),
        ([{"id": "binarize", "kwargs": {"threshold": 0.5}}], lambda y: (y > 0.5) * 1.0),
        (
            [
                {"id": "scale_linear", "kwargs": {"gain": 2.0, "offset": -0.5}},
                {"id": "clip", "kwargs": {"min": 0.0, "max": 1.0}},
                {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}},
            ],
            lambda y: (2 * y - 0.5).clip(0, 1),
        ),
    ],
)
def test_steps_after(tmp_path, ends, formula):
    image = discs()[0]
    files = described(
        image, linear(), scale, formula, steps=[packages.SCALE], ends=ends
    )
    model = imported(tmp_path, files)
    found = model.predict(image, device="cpu").maps.foreground
    np.testing.assert_allclose(found, stored(files)[0, 0], atol=1e-4)


def test_specification_4(tmp_path):
    files = packages.boundary_package()
    about = yaml.safe_load(files["rdf.yaml"])
    about["format_version"] = "0.4.10"
    about["inputs"] = [{
        "name": "x", "axes": "bcyx", "data_type": "float32",
        "shape": {"min": [1, 1, 16, 16], "step": [0, 0, 16, 16]},
        "preprocessing": [{
            "name": "scale_range",
            "kwargs": {
                "mode": "per_sample", "axes": "yx", "min_percentile": 1,
                "max_percentile": 99.8,
            },
        }],
    }]  # fmt: skip
    shape = {"reference_tensor": "x", "scale": [1, 0, 1, 1], "offset": [0, 1, 0, 0]}
    about["outputs"] = [{
        "name": "y", "axes": "bcyx", "data_type": "float32", "halo": [0, 0, 16, 16],
        "shape": shape,
    }]  # fmt: skip
    about["test_inputs"], about["test_outputs"] = ["x.npy"], ["y.npy"]
    files["rdf.yaml"] = yaml.safe_dump(about).encode()
    refused(tmp_path, files, foreign_outputs.NOT_KNOWN)  # it has no names of channels
    model = imported(tmp_path, files, outputs=["foreground", "boundary"])
    result = model.predict(discs(touching=True)[0], device="cpu")
    np.testing.assert_allclose(result.maps.boundary, stored(files)[0, 1], atol=1e-5)


# ------------------------------------------------------------------- what is refused
def test_outputs_that_nobody_named(tmp_path):
    files = changed(packages.boundary_package(), unnamed)
    refused(tmp_path, files, foreign_outputs.NOT_KNOWN)
    refused(tmp_path, files, foreign_outputs.WRONG_NUMBER, outputs=["foreground"])
    refused(tmp_path, files, foreign_outputs.NOT_KNOWN, outputs=["foreground", "flow"])
    model = imported(tmp_path, files, outputs=["foreground", "boundary"])
    assert model.predict(discs()[0], device="cpu").n_objects == 9


def unnamed(about):
    about["outputs"][0]["axes"][1]["channel_names"] = ["channel0", "channel1"]


def test_one_channel_that_may_be_anything(tmp_path):
    def nameless(about):
        about["outputs"][0]["axes"][1]["channel_names"] = ["channel0"]

    files = changed(packages.one_package(), nameless)
    refused(tmp_path, files, foreign_outputs.NOT_KNOWN)
    tagged = changed(files, lambda a: a.update(tags=["semantic-segmentation"]))
    assert list(imported(tmp_path, tagged).card.classes) == ["foreground"]


def test_values_that_are_no_probabilities(tmp_path):
    files = described(discs()[0], linear(), same, same)
    refused(tmp_path, files, foreign_package.NOT_PROBABILITIES)


def test_sigmoids_beside_a_background(tmp_path):
    three = packages.onnx_graph(
        [
            packages.helper.make_node("Sigmoid", ["x"], ["s"]),
            packages.helper.make_node("Concat", ["s", "s"], ["y"], axis=1),
        ],
        ["y"],
    )
    files = described(
        discs()[0],
        three,
        scale,
        same,
        steps=[packages.SCALE],
        names=("background", "a"),
    )
    refused(tmp_path, files, foreign_package.NO_SHARES)


def test_intensities_beyond_the_type_of_the_model(tmp_path):
    def eight_bits(about):
        about["inputs"][0]["data"]["type"] = "uint8"

    image = (discs()[0] / 4).astype(np.uint8)
    nodes = [
        packages.helper.make_node("Cast", ["x"], ["f"], to=1),
        packages.helper.make_node("Div", ["f", "most"], ["y"]),
    ]
    graph = packages.onnx_graph(nodes, ["y"], [("most", np.float32(255))], kind="UINT8")
    session = packages.onnxruntime.InferenceSession(graph)
    files = described(image.astype(np.float32), bright(), same, same)
    files |= {"model.onnx": graph, "x.npy": packages.npy(image[None, None])}
    files["y.npy"] = packages.npy(session.run(None, {"x": image[None, None]})[0])

    def unsummed(about):
        eight_bits(about)
        for part in (
            about["weights"]["onnx"], about["inputs"][0]["test_tensor"],
            about["outputs"][0]["test_tensor"],
        ):  # fmt: skip
            part.pop("sha256")

    model = imported(tmp_path, changed(files, unsummed))
    found = model.predict(image, device="cpu").maps.foreground
    np.testing.assert_allclose(found, image / 255, atol=1e-5)
    with pytest.raises(ValueError, match="uint8"):
        model.predict(image.astype(np.uint16) * 9, device="cpu")


def weights_of(*words):
    def change(about):
        about["weights"] = dict.fromkeys(words, about["weights"]["onnx"])

    return change


CHANGES = {
    "Keras": (weights_of("keras_hdf5"), foreign_package.OTHER_WEIGHTS),
    "TensorFlow": (
        weights_of("tensorflow_saved_model_bundle", "tensorflow_js"),
        foreign_package.OTHER_WEIGHTS,
    ),
    "pickles": (weights_of("pytorch_state_dict"), foreign_package.OTHER_WEIGHTS),
    "two inputs": (
        lambda a: a["inputs"].append(a["inputs"][0]), foreign_package.NOT_2D
    ),
    "3-D": (
        lambda a: a["inputs"][0]["axes"].insert(
            2, {"type": "space", "id": "z", "size": 8}
        ),
        foreign_package.NOT_2D,
    ),
    "unknown step": (
        lambda a: a["inputs"][0].update(preprocessing=[{"id": "custom"}]),
        foreign_package.BAD_STEP,
    ),
    "cellpose": (
        lambda a: a["outputs"][0].update(
            postprocessing=[{"id": "cellpose_flow_dynamics", "kwargs": {}}]
        ),
        foreign_package.BAD_STEP,
    ),
    "other steps than those of the test": (
        lambda a: a["inputs"][0].update(preprocessing=[]), foreign_package.DISAGREES
    ),
    "missing file": (
        lambda a: a["weights"]["onnx"].update(source="other.onnx"),
        foreign_package.MISSING,
    ),
    "file on the internet": (
        lambda a: a["weights"]["onnx"].update(source="https://example.org/m.onnx"),
        foreign_package.ELSEWHERE,
    ),
    "wrong checksum": (
        lambda a: a["weights"]["onnx"].update(sha256="0" * 64),
        foreign_package.WRONG_SUM,
    ),
    "no weights at all": (
        lambda a: a.update(weights={}), foreign_package.OTHER_WEIGHTS
    ),
    "no outputs": (lambda a: a.pop("outputs"), foreign_package.NOT_A_MODEL),
    "old version": (
        lambda a: a.update(format_version="0.3.6"), foreign_package.OTHER_VERSION
    ),
    "a data set": (lambda a: a.update(type="dataset"), foreign_package.NOT_A_MODEL),
    "a code that is no graph": (
        lambda a: a["weights"]["onnx"].update(source="README.md", sha256=None),
        foreign_package.CANNOT_RUN,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CHANGES)
def test_refused_in_one_line(tmp_path, kind):
    change, message = CHANGES[kind]
    refused(tmp_path, changed(packages.one_package(), change), message)


def test_description_that_is_no_yaml(tmp_path):
    files = packages.one_package() | {"rdf.yaml": b"a: [1, {"}
    refused(tmp_path, files, foreign_package.NOT_A_MODEL)


class Danger:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was read",))


def test_pickles_are_never_read(tmp_path):
    array = np.array([Danger()], object)
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    files = packages.one_package() | {"x.npy": buffer.getvalue()}

    def unsummed(about):
        about["inputs"][0]["test_tensor"].pop("sha256")

    refused(tmp_path, changed(files, unsummed), CANNOT_READ)
    torchlike = packages.softmax_package() | {"model.pt": pickle.dumps(Danger())}

    def no_sum(about):
        about["weights"]["torchscript"].pop("sha256")

    refused(tmp_path, changed(torchlike, no_sum), foreign_package.CANNOT_RUN)


def test_paths_and_links(tmp_path):
    refused(tmp_path, packages.one_package() | {"../x": b""}, foreign_package.BAD_PATH)
    path = write(tmp_path / "link.zip", packages.one_package())
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ModelFormatError):
        import_model(path, tmp_path / "models")


def test_a_large_package(tmp_path, monkeypatch):
    monkeypatch.setattr(foreign_package, "MAX_TOTAL", 1000)
    refused(tmp_path, packages.one_package(), foreign_package.TOO_LARGE)


def test_without_onnxruntime(tmp_path, monkeypatch):
    files = packages.one_package()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    refused(tmp_path, files, foreign_package.CANNOT_RUN)


def test_without_pyyaml(tmp_path, monkeypatch):
    files = packages.one_package()
    path = write(tmp_path / "package.zip", files)
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ModelFormatError) as told:
        import_model(path, tmp_path / "models")
    assert str(told.value) == foreign_package.NO_YAML.format(path=path)


def test_nothing_is_replaced(tmp_path):
    imported(tmp_path, packages.one_package())
    with pytest.raises(ModelFormatError, match=NAME_TAKEN.partition("{")[0]):
        imported(tmp_path, packages.one_package())


def test_it_cannot_be_shared_or_trained(tmp_path):
    model = imported(tmp_path, packages.one_package())
    with pytest.raises(ExchangeError):
        share_model(model.card.path, tmp_path / "again.zip")
    with pytest.raises(FineTuneError):
        _start_model(model)


# -------------------------------------------------------------------- the commands
def test_commands(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_SVPSEG_HOME", str(tmp_path / "home"))
    files = changed(packages.boundary_package(), unnamed)
    path = write(tmp_path / "package.zip", files)
    command = ["models", "import", str(path), "--name", "discs"]
    assert CliRunner().invoke(app, command).exit_code != 0
    done = CliRunner().invoke(app, [*command, "--outputs", "foreground, boundary"])
    assert done.exit_code == 0, done.output
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images" / "a.tif", discs()[0].astype(np.uint16))
    command = ["segment", str(tmp_path / "images"), "--model", "discs"]
    done = CliRunner().invoke(app, [*command, "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    labels = tifffile.imread(tmp_path / "out" / "a_labels.ome.tif")
    assert len(np.unique(labels)) == 10
