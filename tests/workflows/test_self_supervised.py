"""Training without labels on a folder of images."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import torch

from napari_svpseg.cli.main import main
from napari_svpseg.cli.train import NEEDS_OUTPUT, ONE_OR_THE_OTHER
from napari_svpseg.core.progress import Cancelled
from napari_svpseg.io.locks import run_folder
from napari_svpseg.io.model_store import load_model, read_card
from napari_svpseg.workflows import self_supervised
from napari_svpseg.workflows.self_supervised import (
    BLANK,
    NO_FOLDER,
    NO_TIME,
    NOT_TRAINABLE,
    train_self_supervised,
)
from napari_svpseg.workflows.training_config import ConfigError
from napari_svpseg.workflows.training_state import OTHER_TRAINING


@pytest.fixture
def folder(tmp_path, disc_scene):
    """Nine pictures of discs, one of them a stack, and a file that is no image."""
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    for i in range(8):
        noisy = np.roll(disc_scene.image, 5 * i, axis=1) + rng.normal(0, 5, (96, 96))
        tifffile.imwrite(images / f"{i}.tif", noisy.astype(np.float32))
    stack = np.stack([disc_scene.image] * 3).astype(np.uint16)
    tifffile.imwrite(images / "stack.tif", stack, metadata={"axes": "ZYX"}, imagej=True)
    (images / "notes.txt").write_text("no image")
    return images


def test_it_trains_from_an_own_start_and_tells_of_it(
    folder, tiny_model, tmp_path, step_clock, monkeypatch
):
    monkeypatch.setattr(self_supervised, "PREPARING", 0.5)
    rows, told = [], []
    card = train_self_supervised(
        folder,
        tmp_path / "m",
        minutes=0.2,
        start_from=tiny_model,
        device="cpu",
        on_progress=lambda done, total, text="": told.append((done, total, text)),
        on_partial=rows.append,
    )
    assert (card.name, card.method) == ("m", "panet")
    assert card.arguments == {"width": 4, "features": 8}
    assert card.training["start_from"] == "tiny"
    assert card.training["steps_done"] >= 2
    assert card.training["self_supervised"]["images"] == 11
    assert {total for _, total, _ in told} == {12}
    assert any("superpixels of" in text for _, _, text in told)
    assert 0 <= rows[-1]["validation_dice"] <= 1
    before, after = load_model(tiny_model).network, load_model(card.path).network
    assert any(
        not torch.equal(a, b)
        for a, b in zip(before.parameters(), after.parameters(), strict=True)
    )


def test_the_command_line_trains_an_untrained_start(
    folder, tmp_path, capsys, step_clock
):
    words = [
        "train",
        "--self-supervised",
        str(folder),
        "--minutes",
        "0.03",
        "--method",
        "panet",
        "--start-from",
        "none",
        "-o",
        str(tmp_path / "m"),
        "--device",
        "cpu",
    ]
    assert main(words) == 0
    assert read_card(tmp_path / "m").training["start_from"] == "none"
    assert read_card(tmp_path / "m").method == "panet"


def test_stopping_writes_nothing(folder, tiny_model, tmp_path, step_clock):
    def stop(done, total, text=""):
        if text.startswith("step"):
            raise Cancelled

    with pytest.raises(Cancelled):
        train_self_supervised(
            folder,
            tmp_path / "m",
            minutes=0.1,
            start_from=tiny_model,
            device="cpu",
            on_progress=stop,
        )
    assert not (tmp_path / "m").exists()


def test_resumed_equals_undisturbed(
    folder, tiny_model, tmp_path, step_clock, monkeypatch, caplog
):
    monkeypatch.setattr(self_supervised, "CHECKPOINT_S", 0.0)

    def train(name, **more):
        return train_self_supervised(
            folder,
            tmp_path / name,
            minutes=0.1,
            start_from=tiny_model,
            device="cpu",
            **more,
        )

    whole = train("whole")
    n = whole.training["steps_done"]

    def stop(done, total, text=""):
        if text.startswith(f"step {n // 2},"):
            raise SystemExit(143)

    with pytest.raises(SystemExit):
        train("parts", on_progress=stop)
    again = []
    parts = train(
        "parts", resume=True, on_progress=lambda d, t, text="": again.append(text)
    )
    steps = [text for text in again if text.startswith("step")]
    assert steps[0].startswith(f"step {n // 2 + 1},") and len(steps) == n - n // 2
    assert parts.sha256 == whole.sha256 and parts.training == whole.training
    assert not any(text.startswith("superpixels") for text in again)
    assert not caplog.records and not run_folder(tmp_path / "parts").exists()


def test_other_images_are_another_training(
    folder, tiny_model, tmp_path, step_clock, caplog
):
    def stop(done, total, text=""):
        if text.startswith("step 2,"):
            raise Cancelled

    for n in range(2):
        with pytest.raises(Cancelled):
            train_self_supervised(
                folder,
                tmp_path / "m",
                minutes=0.1,
                start_from=tiny_model,
                device="cpu",
                resume=n > 0,
                on_progress=stop,
            )
        image = tifffile.imread(folder / "0.tif")
        tifffile.imwrite(folder / "0.tif", image[::-1])
    (record,) = caplog.records
    assert record.getMessage() == OTHER_TRAINING.format(
        folder=run_folder(tmp_path / "m")
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"minutes": 0}, NO_TIME),
        ({"method": "nope", "start_from": "none"}, NOT_TRAINABLE),
        ({"folder": "missing"}, NO_FOLDER),
        ({"folder": "blank"}, BLANK),
    ],
)
def test_what_cannot_be_trained_is_told_in_one_line(
    folder, tiny_model, tmp_path, pattern, change, message
):
    (tmp_path / "blank").mkdir()
    tifffile.imwrite(tmp_path / "blank" / "a.tif", np.zeros((80, 80), np.uint8))
    values = {"minutes": 0.01, "start_from": tiny_model, "folder": folder} | change
    with pytest.raises(ConfigError, match=pattern(message)) as error:
        train_self_supervised(
            tmp_path / values.pop("folder"), tmp_path / "m", device="cpu", **values
        )
    assert "\n" not in str(error.value)


def test_the_command_wants_one_or_the_other(capsys):
    assert main(["train"]) == 2
    assert ONE_OR_THE_OTHER in capsys.readouterr().err
    assert main(["train", "--self-supervised", "somewhere"]) == 2
    assert NEEDS_OUTPUT in capsys.readouterr().err
