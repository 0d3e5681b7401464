"""Correcting a result by points: grown prompts, and the new result."""

from __future__ import annotations

import numpy as np
import pytest

import napari_svpseg as svpseg
from napari_svpseg.core.annotation.corrections import CorrectionError
from napari_svpseg.engine.inference import agreement
from napari_svpseg.workflows.correct_image import (
    NOT_ONE_PLANE,
    NOTHING,
    ONE_CLASS_LABELS,
    OTHER_IMAGE,
)

SETTINGS = svpseg.SegmentSettings(device="cpu", trust=False)


@pytest.fixture
def result(disc_scene, disc_prompt, tiny_svp):
    made = svpseg.segment(
        disc_scene.image, disc_prompt, tiny_svp, settings=SETTINGS, min_area=4
    )
    # the model is untrained: these are the labels of a good one
    labels = np.where(disc_scene.labels == 5, 0, disc_scene.labels)
    return svpseg.Result(
        labels.astype(np.uint32), made.maps, made.trust, made.recipe, made.seconds
    )


def test_clicks_grow_the_prompts_and_hold_in_the_result(
    disc_scene, disc_prompt, result, monkeypatch
):
    monkeypatch.setattr(agreement, "TOLERANCE", 2.0)
    monkeypatch.setattr(agreement, "WORST", 2.0)
    done = svpseg.correct(
        disc_scene.image,
        disc_prompt,
        result,
        not_this=[(20, 24)],
        this_too=[(48, 46)],
        source="discs.tif",
    )
    wrong, right = done.added
    assert wrong.is_negative and not right.is_negative
    assert [p.name for p in done.prompts] == ["discs", wrong.name, right.name]
    assert wrong.name != right.name
    assert wrong.source == right.source == "discs.tif"
    assert not done.result.labels[disc_scene.labels == 1].any()
    assert done.result.labels[48, 46] > 0
    assert not len(done.here_only)
    assert not done.notes
    assert len(done.result.recipe.prompts) == 3
    # a later correction keeps the earlier ones
    ids = np.unique(done.result.labels[done.fixed == -1])
    if not ids.any():
        return
    y, x = np.argwhere((done.result.labels == ids.max()) & (done.fixed == -1))[0]
    more = svpseg.correct(
        disc_scene.image,
        done.prompts,
        done.result,
        not_this=[(y, x)],
        fixed=done.fixed,
        here_only=done.here_only,
    )
    assert len(more.prompts) == 4
    assert not more.result.labels[disc_scene.labels == 1].any()
    assert more.result.labels[48, 46] > 0


def test_an_example_that_makes_others_worse_stays_here(
    disc_scene, disc_prompt, result, monkeypatch
):
    monkeypatch.setattr(agreement, "TOLERANCE", -2.0)
    done = svpseg.correct(disc_scene.image, disc_prompt, result, not_this=[(20, 24)])
    assert len(done.prompts) == 1
    assert len(done.here_only) == 1
    assert done.notes
    assert len(done.result.recipe.prompts) == 2, "it is used in this image"


def test_an_outline_may_be_given(disc_scene, disc_prompt, result):
    outline = disc_scene.labels == 5
    done = svpseg.correct(disc_scene.image, disc_prompt, result, this_too=[outline])
    (made,) = done.added
    np.testing.assert_array_equal(made.mask == 1, outline[made.box.slices])
    found = done.result.labels[outline]
    assert found.min() == found.max() > 0


def test_what_cannot_be_corrected_is_refused(disc_scene, disc_prompt, result, pattern):
    image = disc_scene.image
    with pytest.raises(CorrectionError, match=pattern(NOTHING)):
        svpseg.correct(image, disc_prompt, result)
    with pytest.raises(CorrectionError, match=pattern(OTHER_IMAGE)):
        svpseg.correct(image[:90], disc_prompt, result, not_this=[(20, 24)])
    stack = svpseg.Result(result.labels[None], result.maps, result.trust, result.recipe)
    with pytest.raises(CorrectionError, match=pattern(NOT_ONE_PLANE)):
        svpseg.correct(image, disc_prompt, stack, not_this=[(20, 24)])
    classes = svpseg.segment(
        image,
        disc_prompt,
        result.recipe.model,
        labels="classes",
        settings=SETTINGS,
    )
    with pytest.raises(CorrectionError, match=pattern(ONE_CLASS_LABELS)):
        svpseg.correct(image, disc_prompt, classes, not_this=[(20, 24)])
