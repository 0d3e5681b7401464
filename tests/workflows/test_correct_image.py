"""Correcting a result by points: grown prompts, and the new result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import napari_svpseg as svpseg
from napari_svpseg.core.annotation.corrections import CorrectionError
from napari_svpseg.core.labels.metrics import dice
from napari_svpseg.core.result import Maps
from napari_svpseg.engine.inference import agreement
from napari_svpseg.io.sample_images import tissue
from napari_svpseg.workflows import correct_image
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
    more = svpseg.correct(
        disc_scene.image,
        done.prompts,
        done.result,
        this_too=[disc_scene.labels == 2],
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


def test_an_example_that_floods_its_image_is_not_used(
    disc_scene, disc_prompt, result, monkeypatch
):
    sure = replace(result, maps=Maps(0.97 * (result.labels > 0).astype(np.float32)))
    flood = Maps(np.full(result.labels.shape, 0.6, np.float32))
    flooded = replace(result, labels=np.ones_like(result.labels), maps=flood)

    def found_by(image, prompts, *args, **kwargs):
        return flooded if any(p.clicked for p in prompts) else sure

    monkeypatch.setattr(correct_image, "segment", found_by)
    monkeypatch.setattr(
        correct_image, "split_by_agreement", lambda _, examples, *args: (examples, ())
    )
    outline = disc_scene.labels == 5
    done = svpseg.correct(disc_scene.image, disc_prompt, sure, this_too=[outline])
    assert len(done.prompts) == 1 and not len(done.here_only)
    assert len(done.added) == len(done.notes) == 1
    assert done.result.n_objects == sure.n_objects + 1
    assert len(np.unique(done.result.labels[outline])) == 1


def two_kinds(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return an image of grey and of bright discs, its ids, and which are bright."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:160, :160]
    labels = np.zeros((160, 160), np.int32)
    for i in range(25):
        cy, cx = 16 + 32 * (i // 5) + rng.integers(-4, 5), 16 + 32 * (i % 5)
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= rng.integers(49, 80)] = i + 1
    bright = np.arange(26) % 2 == 0
    bright[0] = False
    image = np.where(labels > 0, 600.0, 200.0) + 350 * bright[labels]
    return image + rng.normal(0, 40, labels.shape), labels, bright


def n_found(labels: np.ndarray, truth: np.ndarray, ids: np.ndarray) -> int:
    return sum((labels[truth == i] > 0).mean() > 0.5 for i in ids)


def test_one_click_takes_a_kind_off_in_all_images_and_nothing_else():
    image, truth, bright = two_kinds(0)
    # the box shows grey discs only
    grey = np.where(bright[truth], np.random.default_rng(1).normal(200, 40), image)
    prompt = svpseg.Prompt.from_image(grey, truth * ~bright[truth], (48, 48))
    result = svpseg.segment(image, prompt, settings=SETTINGS)
    others, wanted = np.flatnonzero(bright), np.flatnonzero(~bright)[1:]
    assert n_found(result.labels, truth, others) > 0.8 * len(others)
    y, x = np.argwhere((truth == others[2]) & (result.labels > 0))[20]
    done = svpseg.correct(image, prompt, result, not_this=[(y, x)])
    assert len(done.prompts) == 2
    for seed in (0, 1):
        image, truth, bright = two_kinds(seed)
        plain = svpseg.segment(image, prompt, settings=SETTINGS)
        found = svpseg.segment(image, done.prompts, settings=SETTINGS)
        before, after = (n_found(r.labels, truth, others) for r in (plain, found))
        assert after < 0.2 * before
        kept, had = (n_found(r.labels, truth, wanted) for r in (found, plain))
        assert kept == had > 0.8 * len(wanted)


def test_one_click_on_a_missed_object_finds_its_kind_in_all_images():
    def faint_scene(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return an image of grey and of faint discs, its ids, and which are faint."""
        _, truth, faint = two_kinds(seed)
        image = np.where(truth > 0, np.where(faint[truth], 280.0, 600.0), 200.0)
        noise = np.random.default_rng(seed + 10).normal(0, 20, truth.shape)
        return image + noise, truth, faint

    image, truth, faint = faint_scene(0)
    # the box shows grey discs only
    grey = np.where(faint[truth], np.random.default_rng(1).normal(200, 20), image)
    prompt = svpseg.Prompt.from_image(grey, truth * ~faint[truth], (48, 48))
    result = svpseg.segment(image, prompt, settings=SETTINGS)
    missed, wanted = np.flatnonzero(faint), np.flatnonzero(~faint)[1:]
    assert n_found(result.labels, truth, missed) == 0
    point = np.argwhere(truth == missed[2]).mean(0)
    done = svpseg.correct(image, prompt, result, this_too=[tuple(point)])
    assert len(done.prompts) == 2 and not done.notes
    for seed in (0, 1, 2):
        image, truth, _ = faint_scene(seed)
        found = svpseg.segment(image, done.prompts, settings=SETTINGS)
        assert n_found(found.labels, truth, missed) > 0.8 * len(missed)
        assert n_found(found.labels, truth, wanted) > 0.8 * len(wanted)


def test_a_right_object_called_wrong_takes_no_other_with_it():
    sample = tissue()
    prompt = svpseg.Prompt.from_image(sample.image, sample.labels, sample.box)
    start = max(0, sample.box.y - 40), max(0, sample.box.x - 40)
    image = sample.image[start[0] : start[0] + 176, start[1] : start[1] + 176]
    result = svpseg.segment(image, prompt, settings=SETTINGS)
    assert result.n_objects > 20
    y, x = np.argwhere(result.labels == np.median(result.labels[result.labels > 0]))[5]
    clicked = result.labels == result.labels[y, x]
    done = svpseg.correct(image, prompt, result, not_this=[(y, x)])
    assert not done.result.labels[clicked].any()
    assert dice(done.result.labels, result.labels, ignore=clicked) > 0.99


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
