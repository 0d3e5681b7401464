"""What a training would refuse is known when an image is added to its set."""

from __future__ import annotations

import numpy as np
import pytest

from napari_svpseg.core.annotation.validation_split import NOTHING_TO_TRAIN_ON
from napari_svpseg.core.jobs.finetune_job import FineTuneError, FineTuneSettings
from napari_svpseg.io.training_set import TrainingSet
from napari_svpseg.workflows.finetune_data import (
    NO_IMAGES,
    ONLY_OBJECTS,
    OTHER_CHANNELS,
    check_image,
    training_problem,
)

SETTINGS = FineTuneSettings.of_preset("quick")


def marked(shape=(64, 64), background=True):
    """Return partial labels with an object, and background beside it."""
    labels = np.zeros(shape, np.int32)
    labels[4:20, 4:20] = 2
    if background:
        labels[24:40, 4:40] = 1
    return labels


def noise(*shape):
    return np.random.default_rng(0).normal(100, 9, shape).astype(np.float32)


@pytest.mark.parametrize("image", (noise(12, 64), np.full((64, 64), np.nan)))
def test_an_image_that_cannot_be_trained_on_is_refused(image):
    with pytest.raises(FineTuneError):
        check_image(image, marked(image.shape), "a", SETTINGS)
    check_image(noise(64, 64), marked(), "a", SETTINGS)


def test_a_set_says_what_it_lacks(tmp_path):
    stored = TrainingSet(tmp_path / "set")
    assert training_problem(stored.folder, SETTINGS) == NO_IMAGES
    stored.add("a", noise(64, 64), marked(background=False))
    lacks = training_problem(stored.folder, SETTINGS)
    assert ONLY_OBJECTS.format(what="objects") in lacks
    stored.add("b", noise(64, 64), marked())
    assert training_problem(stored.folder, SETTINGS) == ""
    stored.add("c", noise(64, 64, 3), marked(), "YXC")
    other = OTHER_CHANNELS.partition("(")[0]
    assert training_problem(stored.folder, SETTINGS).startswith(other)
    stored.set_used("c", False)
    for name in "ab":
        stored.set_validation(name, True)
    assert training_problem(stored.folder, SETTINGS) == NOTHING_TO_TRAIN_ON
