"""The weights that ship are alive: they listen to the prompt, and to nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_svpseg.core.labels.metrics import dice
from napari_svpseg.core.prompt import Prompt, PromptSet
from napari_svpseg.core.settings import SegmentSettings
from napari_svpseg.engine.inference.predict import predict
from napari_svpseg.engine.training.episodes import (
    Episodes,
    EpisodeSettings,
    SyntheticTasks,
    cut_episode,
)
from napari_svpseg.engine.training.trainer import episode_loss
from napari_svpseg.io.model_store import load_model

UNSEEN = 123_456
"""Seed of drawn scenes that no training used."""
MUST_LISTEN = ["svp"]


@pytest.fixture(scope="module", params=MUST_LISTEN)
def network(request: pytest.FixtureRequest) -> torch.nn.Module:
    return load_model(request.param).network.eval()


@pytest.fixture(scope="module")
def batch() -> dict[str, torch.Tensor]:
    settings = EpisodeSettings(empty=0, negative=0, role_swap=0.5)
    source = SyntheticTasks(12, seed=UNSEEN)
    return Episodes([(source, 1.0)], settings, batch=16, n_batches=1)[0]


def loss_of(network: torch.nn.Module, batch: dict[str, torch.Tensor]) -> float:
    with torch.no_grad():
        return float(torch.stack(list(episode_loss(network, batch).values())).sum())


def test_other_episodes_prompts_raise_the_loss(network, batch) -> None:
    """A network that had learned to overlook the prompt would not notice."""
    order = torch.arange(16).roll(1)
    swapped = batch | {k: batch[k][order] for k in ("prompts", "masks")}
    assert loss_of(network, swapped) > 1.2 * loss_of(network, batch)


def two_kinds() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return an image (128, 160) of round and of long objects, and the ids of each."""
    y, x = np.mgrid[:128, :160]
    round_ones, long_ones = (np.zeros((128, 160), np.int32) for _ in range(2))
    for i, (cy, cx) in enumerate([(18, 20), (44, 44), (90, 20), (100, 120), (30, 130)]):
        round_ones[(y - cy) ** 2 + (x - cx) ** 2 <= 64] = i + 1
    for i, (cy, cx) in enumerate([(16, 50), (46, 16), (64, 100), (110, 60), (90, 90)]):
        long_ones[(abs(y - cy) <= 3) & (abs(x - cx) <= 12)] = i + 1
    noise = np.random.default_rng(0).normal(0, 4, (128, 160))
    image = 40 + 120.0 * (round_ones > 0) + 70.0 * (long_ones > 0) + noise
    return image.astype(np.float32), round_ones, long_ones


def foreground(network, image, *prompts: Prompt) -> np.ndarray:
    found = predict(
        image[..., None],
        PromptSet(list(prompts)),
        network,
        "cpu",
        SegmentSettings(trust=False),
    )
    return found.maps.foreground > 0.5


def test_the_prompt_finds_itself(network) -> None:
    image, round_ones, _ = two_kinds()
    prompt = Prompt.from_image(image, round_ones, (0, 0))
    found = foreground(network, image[:64, :64], prompt)
    assert dice(found, round_ones[:64, :64]) > 0.95


def test_only_the_kind_that_the_prompt_shows_is_found(network) -> None:
    image, *kinds = two_kinds()
    for wanted, other in (kinds, kinds[::-1]):
        found = foreground(network, image, Prompt.from_image(image, wanted, (0, 0)))
        assert dice(found, wanted) > 0.8
        assert found[other > 0].mean() < 0.3


def test_a_negative_prompt_removes_what_it_shows(network) -> None:
    """Drawn scenes of two kinds, of which only the last prompt says which is wanted."""
    source, settings = (
        SyntheticTasks(24, seed=UNSEEN + 1),
        EpisodeSettings(distractors=1.0),
    )
    found: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    truth = []
    for i in range(40):
        rng = np.random.default_rng([3, i])
        task = source(rng)
        episode = cut_episode(task, 2, settings, rng) if task.distractors else None
        if episode is None:
            continue
        truth.append(episode["foreground"] > 0.5)
        images, masks = episode["prompts"][None], episode["masks"][None]
        for with_negative in (True, False):
            n = 2 if with_negative else 1
            with torch.no_grad():
                code = network.encode_prompts(images[:, :n], masks[:, :n])
                maps = network(episode["query"][None], code)
            found[with_negative].append(maps["foreground"][0] > 0)
    assert len(truth) > 10
    wanted = torch.stack(truth)
    after, before = (torch.stack(found[key]) for key in (True, False))
    assert after[~wanted].float().mean() < 0.5 * before[~wanted].float().mean()
    assert after[wanted].float().mean() > 0.5
