"""Training learns, stops, and goes on as if it had never stopped."""

from __future__ import annotations

import json
import math
import re
import threading

import pytest
import torch

from napari_svpseg.core.progress import Cancelled
from napari_svpseg.engine.training import trainer as module
from napari_svpseg.engine.training.episodes import (
    Episodes,
    EpisodeSettings,
    SyntheticTasks,
)
from napari_svpseg.engine.training.trainer import (
    CheckpointError,
    Trainer,
    TrainSettings,
    parts_by_rows,
    validate,
)
from napari_svpseg.models.registry import ModelConfig, build

SETTINGS = TrainSettings(
    steps=12, batch=2, warm_up=3, validate_every=4, learning_rate=3e-3
)
EPISODES = EpisodeSettings(query=48, prompt=32, max_prompts=2)


def trainer(folder, settings: TrainSettings = SETTINGS) -> Trainer:
    torch.manual_seed(settings.seed)
    network = build(ModelConfig("panet", {"width": 4, "features": 8}))
    return Trainer(network, settings, folder, torch.device("cpu"))


def episodes(start: int = 0) -> Episodes:
    return Episodes(
        [(SyntheticTasks(4), 1.0)],
        EPISODES,
        batch=2,
        n_batches=SETTINGS.steps,
        start=start,
    )


@pytest.fixture(scope="module")
def validation():
    return [episodes()[i] for i in range(2)]


def weights(t: Trainer) -> list[torch.Tensor]:
    return list(t.average.state_dict().values())


def test_in_one_go_or_in_pieces_gives_the_same_weights(tmp_path, validation):
    whole = trainer(tmp_path / "whole")
    whole.run(episodes, validation)

    def stop_at_five(done: int, total: int, message: str = "") -> None:
        if done == 5:
            raise Cancelled

    first = trainer(tmp_path / "pieces")
    with pytest.raises(Cancelled):
        first.run(episodes, validation, on_progress=stop_at_five)
    second = trainer(tmp_path / "pieces")
    assert not all(
        torch.equal(a, b) for a, b in zip(weights(whole), weights(second), strict=True)
    )
    second.resume()
    assert second.step == 5
    second.run(episodes, validation)
    for a, b in zip(weights(whole), weights(second), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def three_steps(folder, n_threads, threads, batch):
    """Return the losses and weights of a network that trains in halves of batches."""
    threads(n_threads)
    torch.manual_seed(0)
    small = {"widths": (4, 8, 8), "depths": (1, 1), "vector": 8}
    network = build(ModelConfig("svp-concat", small))
    t = Trainer(network, SETTINGS, folder, torch.device("cpu"))
    losses = [t._train_step(batch)["total"] for _ in range(3)]
    assert torch.get_num_threads() == n_threads
    return losses, list(t.network.parameters())


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_halves_of_a_batch_give_the_gradients_of_the_whole(
    tmp_path, threads, monkeypatch, n
):
    data = Episodes([(SyntheticTasks(4), 1.0)], EPISODES, batch=n, n_batches=1)
    batch = dict(data[0])
    batch["known"] = batch["known"].clone()
    batch["known"][0, :, :30] = 0  # known pixels differ from half to half
    one, first = three_steps(tmp_path / "1", 1, threads, batch)
    two, second = three_steps(tmp_path / "2", 2, threads, batch)
    assert one == two
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    monkeypatch.setattr(module, "parts_by_rows", lambda _: False)
    whole, third = three_steps(tmp_path / "3", 1, threads, batch)
    assert whole == pytest.approx(one, rel=1e-4)
    for a, b in zip(first, third, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_the_halves_of_a_batch_run_side_by_side(tmp_path, threads, validation):
    threads(2)
    together = threading.Barrier(2)

    class Meeting(Trainer):
        def _maps(self, batch):
            together.wait(20)  # goes on only with both halves in work
            return super()._maps(batch)

    network = build(ModelConfig("svp-concat", {"widths": (4, 8, 8), "vector": 8}))
    t = Meeting(network, SETTINGS, tmp_path, torch.device("cpu"))
    assert math.isfinite(t._train_step(validation[0])["total"])


def test_networks_that_look_at_the_whole_batch_are_not_halved():
    small = {"widths": (4, 8, 8), "vector": 8}
    network = build(ModelConfig("svp-concat", small))
    assert parts_by_rows(network)
    network.extra = torch.nn.Sequential(torch.nn.BatchNorm2d(4))
    assert not parts_by_rows(network)
    network.extra = torch.nn.Dropout(0.1)
    assert not parts_by_rows(network)
    assert not parts_by_rows(build(ModelConfig("panet", {"width": 4, "features": 8})))


def test_time_that_is_up_ends_a_run_that_can_be_resumed(tmp_path, validation):
    t = trainer(tmp_path)
    t.run(episodes, validation, seconds=0)
    assert t.step == 1
    assert t.checkpoint.exists()


def test_validation_is_recorded(tmp_path, validation):
    t = trainer(tmp_path)
    t.run(episodes, validation)
    assert [row["step"] for row in t.history] == [4, 8, 12]
    assert all(0 <= row["validation_dice"] <= 1 for row in t.history)
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [4, 8, 12]


def test_the_loss_falls(tmp_path, validation):
    settings = TrainSettings(steps=80, batch=2, warm_up=5, learning_rate=5e-3)
    t = trainer(tmp_path, settings)
    before = validate(t.average, validation, t.device)["validation_loss"]
    for _ in range(30):
        for batch in validation:
            t._train_step(batch)
    after = validate(t.average, validation, t.device)["validation_loss"]
    assert after < 0.9 * before


def test_a_corrupt_checkpoint_is_named(tmp_path):
    t = trainer(tmp_path)
    t.checkpoint.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match=re.escape(str(t.checkpoint))):
        t.resume()


def test_a_batch_that_is_not_finite_does_not_spoil_the_weights(tmp_path, validation):
    t = trainer(tmp_path)
    t._train_step(validation[0])
    before = [p.clone() for p in t.network.parameters()]
    t._train_step({**validation[0], "query": validation[0]["query"] * torch.nan})
    for a, b in zip(before, t.network.parameters(), strict=True):
        assert torch.equal(a, b)
