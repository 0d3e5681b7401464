"""Fine-tuning as a user sees it: arrays or files in, a model folder and scores out."""

from __future__ import annotations

import json

import numpy as np
import pytest

import napari_svpseg as svpseg
from napari_svpseg import api
from napari_svpseg.core.finetune import FineTuneError, FineTuneSettings
from napari_svpseg.core.partial import from_labels
from napari_svpseg.core.progress import Cancelled
from napari_svpseg.io.store import load_model, prompts_of

BOXES = ((0, 0, 48, 48), (48, 48, 48, 48), (0, 48, 48, 48), (48, 0, 48, 48))
TINY = FineTuneSettings(steps=6, batch=2, learning_rate=3e-3, seed=3, seconds=1000)


@pytest.fixture
def images(disc_scene):
    """Return two images and partial labels of two boxes each."""
    flipped = [np.ascontiguousarray(a[:, ::-1]) for a in disc_scene]
    return (
        [disc_scene.image, flipped[0]],
        [from_labels(disc_scene.labels, BOXES[:2]), from_labels(flipped[1], BOXES[:2])],
    )


def weights(folder):
    return {k: v.numpy() for k, v in load_model(folder).network.state_dict().items()}


def test_a_model_comes_out_that_segments_without_prompts(images, tiny_model, tmp_path):
    seen = []
    result = svpseg.finetune(
        *images, start_from=tiny_model, output=tmp_path / "mine", settings=TINY,
        on_partial=seen.append,
    )
    assert result.model == str(tmp_path / "mine")
    assert [p.step for p in seen] == list(range(1, 7))
    assert any(p.held_back_dice is not None for p in seen)
    assert result.before.n_pixels == result.after.n_pixels > 0
    assert result.kept in ("before", "after")
    assert (result.after.value > result.before.value) == (result.kept == "after")
    assert not list(tmp_path.glob(".*"))  # nothing is left beside the model
    found = svpseg.segment(images[0][0], model=result.model)
    assert found.labels.shape == images[0][0].shape
    assert len(prompts_of(result.model)) >= 1
