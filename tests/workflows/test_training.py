"""`svpseg train`: from a config file to a model folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from napari_svpseg.io.atomic import WriteError
from napari_svpseg.io.locks import run_folder
from napari_svpseg.io.model_store import load_model
from napari_svpseg.io.packed_tasks import load_tasks
from napari_svpseg.models.registry import ModelConfig, build
from napari_svpseg.workflows import training
from napari_svpseg.workflows.training import (
    OTHER_ENCODER,
    _take_weights,
    train_from_config,
)
from napari_svpseg.workflows.training_config import ConfigError, TrainingConfig
from napari_svpseg.workflows.training_state import OTHER_TRAINING
from napari_svpseg.workflows.training_tasks import (
    NEEDS_DATA,
    NO_IMAGE,
    ONE_CLASS,
    OTHER_TASKS,
    PACKED_AGAIN,
    pack,
)

CONFIG = """
name = "tiny"
method = "panet"
[arguments]
width = 4
features = 8
[data]
datasets = [{datasets}]
scenes = 3
share = {{ real = 0.5, synthetic = 0.5 }}
[episodes]
query = 48
prompt = 32
[train]
steps = 3
batch = 2
validate_every = 2
"""


@pytest.fixture
def config(tmp_path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(CONFIG.format(datasets=""))
    return path


def data_set(folder: Path, kind: str = "instance") -> Path:
    rng = np.random.default_rng(0)
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    labels = np.zeros((96, 96), np.uint16)
    for i in range(9):
        y, x = 8 + 30 * (i // 3), 8 + 30 * (i % 3)
        labels[y : y + 16, x : x + 16] = i + 1 if kind == "instance" else 1 + i % 2
    for name in ("a", "b"):
        image = (labels > 0) * 900.0 + rng.normal(100, 20, labels.shape)
        tifffile.imwrite(folder / "images" / f"{name}.tif", image.astype(np.uint16))
        tifffile.imwrite(folder / "labels" / f"{name}.tif", labels)
    classes = '[classes]\n1 = "one"\n2 = "two"\n' if kind == "semantic" else ""
    (folder / "dataset.toml").write_text(
        f'name = "{folder.name}"\nkind = "{kind}"\n{classes}'
    )
    return folder


def test_a_config_becomes_a_model_that_loads(config, tmp_path):
    card = train_from_config(config, output=tmp_path / "run" / "model", device="cpu")
    assert (card.name, card.method) == ("tiny", "panet")
    assert card.training["steps_done"] == 3
    loaded = load_model(tmp_path / "run" / "model")
    assert loaded.card.sha256 == card.sha256
    assert (tmp_path / "run" / "model" / "history.csv").exists()


def test_a_seed_gives_one_result(config, tmp_path):
    hashes = {
        train_from_config(config, output=tmp_path / n / "model", device="cpu").sha256
        for n in "ab"
    }
    assert len(hashes) == 1


def test_it_trains_on_a_folder_of_the_data_form(tmp_path):
    data_set(tmp_path / "data" / "cells")
    path = tmp_path / "c.toml"
    path.write_text(CONFIG.format(datasets='"cells"'))
    card = train_from_config(
        path, data=tmp_path / "data", output=tmp_path / "run" / "model", device="cpu"
    )
    assert card.training["config"]["data"]["datasets"] == ("cells",)
    assert (tmp_path / "run" / ".model.run" / "tasks.npz").exists()


def test_semantic_sets_give_a_task_for_each_class(tmp_path):
    data_set(tmp_path / "parts", "semantic")
    path = tmp_path / "c.toml"
    path.write_text(CONFIG.format(datasets='"parts", "parts:2"'))
    packed = pack(TrainingConfig.read(path).data, tmp_path)
    names = [(e["group"], e["name"], e["instances"]) for e in packed.index]
    assert names == [
        ("parts", "parts-1", False),
        ("parts", "parts-2", False),
        ("parts:2", "parts-2", False),
    ]


def test_data_that_is_named_must_be_given(tmp_path, pattern):
    path = tmp_path / "c.toml"
    path.write_text(CONFIG.format(datasets='"cells"'))
    with pytest.raises(ConfigError, match=pattern(NEEDS_DATA, what="cells")):
        train_from_config(path, output=tmp_path / "run" / "model")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", ""),
        ('name = "a"', "method"),
        ('name = "a"\nmethod = "panet"\nspeed = 3', "speed"),
        ('name = "a"\nmethod = "panet"\n[data]\nset = 1', "set"),
        ('name = "a"\nmethod = "panet"\n[data]\nscenes = -1', "scenes"),
        ('name = "a"\nmethod = "panet"\n[data]\ntouching = 1.5', "touching"),
        ('name = "a"\nmethod = "panet"\n[data]\ntextured = "x"', "textured"),
        ('name = "a"\nmethod = "panet"\n[data]\nshare.real = nan', "share"),
        ('name = "a"\nmethod = "panet"\n[data]\nshare.real = "x"', "share"),
    ],
)
def test_a_wrong_config_is_one_line_naming_the_file(tmp_path, text, message):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"wrong\.toml.*{message}") as caught:
        TrainingConfig.read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("steps = 3", "steps = 0"),
        ("panet", "unet9"),
        ("width = 4", "colour = 4"),
        ("width = 4", "width = 0"),
        ("width = 4", 'width = "x"'),
        ("scenes = 3", "scenes = 0"),
    ],
)
def test_what_shows_when_a_config_is_used_names_it_too(config, tmp_path, old, new):
    config.write_text(config.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=r"tiny\.toml") as caught:
        train_from_config(config, output=tmp_path / "run" / "model", device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", sorted(Path("configs").glob("*.toml")), ids=str)
def test_the_configs_of_the_project_are_valid(path):
    from napari_svpseg.models.registry import ModelConfig, build

    config = TrainingConfig.read(path)
    config.settings()
    build(ModelConfig(config.method, config.arguments))


def test_tasks_packed_for_another_config_are_not_taken(tmp_path, pattern):
    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    first.write_text(CONFIG.format(datasets='"blobs"'))
    second.write_text(CONFIG.format(datasets='"blobs", "more"'))
    data_set(tmp_path / "data" / "blobs")
    data_set(tmp_path / "data" / "more")
    run = {"data": tmp_path / "data", "output": tmp_path / "run" / "model"}
    train_from_config(first, **run)
    cache = tmp_path / "run" / ".model.run" / "tasks.npz"
    with pytest.raises(ConfigError, match=pattern(OTHER_TASKS, what="more")):
        train_from_config(second, data=cache, output=tmp_path / "other" / "model")
    train_from_config(second, **run)  # packs again
    groups = {entry["group"] for entry in load_tasks(cache).index}
    assert groups == {"blobs", "more"}


@pytest.fixture
def quick(monkeypatch):
    """Train without validation, whose scenes take a second to draw."""
    monkeypatch.setattr(training, "validation_batches", lambda *args: [])


def test_models_of_one_folder_share_no_checkpoint(config, tmp_path, quick):
    """The second is not gone on with from the first one's state."""
    alone = train_from_config(config, output=tmp_path / "other" / "b", resume=True)
    other = tmp_path / "other.toml"
    other.write_text(config.read_text().replace("batch = 2", "batch = 3"))
    train_from_config(other, output=tmp_path / "models" / "a")
    card = train_from_config(config, output=tmp_path / "models" / "b", resume=True)
    assert card.sha256 == alone.sha256
    assert sorted(p.name for p in (tmp_path / "models").iterdir()) == [
        ".a.run",
        ".b.run",
        "a",
        "b",
    ]


def interrupt(step: int):
    def on_progress(done, total, text=""):
        if done == step:
            raise KeyboardInterrupt

    return on_progress


def test_labels_that_changed_are_another_training(tmp_path, caplog, quick):
    folder = data_set(tmp_path / "data" / "cells")
    path = tmp_path / "c.toml"
    path.write_text(CONFIG.format(datasets='"cells"'))
    run = {"data": tmp_path / "data", "device": "cpu"}
    out = tmp_path / "run" / "model"
    with pytest.raises(KeyboardInterrupt):
        train_from_config(path, output=out, on_progress=interrupt(2), **run)
    steps = []
    train_from_config(
        path,
        output=out,
        resume=True,
        on_progress=lambda done, *_: steps.append(done),
        **run,
    )
    assert steps == [3] and not caplog.records  # nothing was changed until here
    labels = tifffile.imread(folder / "labels" / "a.tif")
    tifffile.imwrite(folder / "labels" / "a.tif", np.roll(labels, 5, axis=0))
    card = train_from_config(path, output=out, resume=True, **run)
    anew = train_from_config(path, output=tmp_path / "new" / "model", **run)
    assert card.sha256 == anew.sha256
    state = run_folder(out)
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        PACKED_AGAIN % (state / "tasks.npz"),
        OTHER_TRAINING.format(folder=state),
    ]


def test_what_would_fail_at_the_end_fails_before_the_training(
    config, tmp_path, pattern
):
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "diary.txt").write_text("dear diary")
    steps = []
    with pytest.raises(WriteError, match=r"diary\.txt"):
        train_from_config(config, output=folder, on_progress=lambda *a: steps.append(a))
    assert not steps
    other = tmp_path / "other.toml"
    other.write_text(config.read_text().replace("width = 4", "width = 6"))
    train_from_config(config, output=tmp_path / "a" / "model")
    with pytest.raises(ConfigError, match=pattern(OTHER_ENCODER)):
        train_from_config(
            other,
            output=tmp_path / "b" / "model",
            start_from=str(tmp_path / "a" / "model"),
        )


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("panet", {}),
        ("alpnet", {}),
        ("dspnet", {}),
        ("svp-attention", {}),
        ("svp-concat", {"widths": (24, 48, 96)}),
    ],
)
def test_every_method_can_start_from_the_default_models_encoder(method, arguments):
    start = build(ModelConfig("svp"))
    network = build(ModelConfig(method, arguments))
    _take_weights(network, start, "svp")
    theirs = start.encoder.state_dict()
    for name, value in network.encoder.state_dict().items():
        assert torch.equal(value, theirs[name]), name
    if method != "svp-concat":
        assert torch.equal(
            network.pyramid.smooth[1].weight, start.pyramid.smooth[1].weight
        )


def test_a_config_of_one_image_trains_on_it(tmp_path, disc_scene, pattern):
    folder = tmp_path / "data" / "discs"
    for name, array in (("images", disc_scene.image), ("labels", disc_scene.labels)):
        (folder / name).mkdir(parents=True)
        for item in "ab":
            array = array.astype(np.uint16)
            tifffile.imwrite(folder / name / f"{item}.tif", np.minimum(array, 255))
    (folder / "dataset.toml").write_text('name = "discs"\nkind = "instance"\n')
    config = tmp_path / "one.toml"
    config.write_text(
        'name = "one"\nmethod = "svp-attention"\n[arguments]\nwidth = 4\n'
        'features = 8\n[one_image]\nimage = "discs/a"\nprompt = "discs/b"\n'
        "label = 1\n[train]\nsteps = 2\nside = 48\n"
    )
    card = train_from_config(config, data=tmp_path / "data", output=tmp_path / "m")
    assert card.training["steps_done"] == 2
    assert card.training["config"]["one_image"]["image"] == "discs/a"
    config.write_text(config.read_text().replace("discs/b", "discs/z"))
    with pytest.raises(ConfigError, match=pattern(NO_IMAGE, name="z")):
        train_from_config(config, data=tmp_path / "data", output=tmp_path / "m")
    config.write_text(
        config.read_text()
        .replace("discs/z", "discs/b")
        .replace("label = 1", "label = 9")
    )
    with pytest.raises(ConfigError, match=pattern(ONE_CLASS, name="discs/b")):
        train_from_config(config, data=tmp_path / "data", output=tmp_path / "m")
    with pytest.raises(ConfigError, match=pattern(NEEDS_DATA, what="discs/a")):
        train_from_config(config, output=tmp_path / "m")
