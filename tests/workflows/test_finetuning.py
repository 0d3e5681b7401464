"""Fine-tuning as a user sees it: arrays or files in, a model folder and scores out."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

import napari_svpseg as svpseg
from napari_svpseg import api
from napari_svpseg.cli.finetune import IMAGE_AND_LABELS
from napari_svpseg.cli.main import main
from napari_svpseg.core.annotation.partial_labels import (
    PartialLabelError,
    from_labels,
    label_counts,
)
from napari_svpseg.core.annotation.validation_split import TOO_FEW_LABELS
from napari_svpseg.core.jobs.finetune_job import FineTuneError, FineTuneSettings
from napari_svpseg.core.model_card import ModelCard
from napari_svpseg.core.progress import Cancelled
from napari_svpseg.engine.finetuning import loop
from napari_svpseg.engine.finetuning.loop import (
    NOT_BETTER,
    SUPERPIXELS,
    is_better,
)
from napari_svpseg.engine.training.trainer import (
    NO_CHECKPOINT,
    CheckpointWriteError,
    Trainer,
)
from napari_svpseg.io.atomic import WriteError
from napari_svpseg.io.mask_files import read_mask
from napari_svpseg.io.model_store import (
    ModelFormatError,
    load_model,
    model_prompts,
    save_model,
)
from napari_svpseg.io.training_set import TrainingSet
from napari_svpseg.models.registry import ModelConfig, build
from napari_svpseg.workflows import finetuning, identity
from napari_svpseg.workflows.finetune_data import (
    FEW_LABELS,
    LOOK_ORDINARY,
    NO_IMAGES,
    NO_LABELS,
    NOT_FINITE,
    ONLY_BACKGROUND,
    ONLY_OBJECTS,
    OTHER_NUMBERS,
    SOME_NOT_FINITE,
)
from napari_svpseg.workflows.finetune_files import LabelledFiles
from napari_svpseg.workflows.finetuning import IS_TRAINED, TAKES_NO_PROMPTS
from napari_svpseg.workflows.training_state import NOTHING_TO_RESUME, OTHER_TRAINING

BOXES = ((0, 0, 48, 48), (48, 48, 48, 48))
TINY = FineTuneSettings(steps=5, batch=2, learning_rate=3e-3, seed=3, seconds=1000)


@pytest.fixture
def images(disc_scene):
    """Return two images and partial labels of two boxes each."""
    flipped = [np.ascontiguousarray(a[:, ::-1]) for a in disc_scene]
    return (
        [disc_scene.image, flipped[0]],
        [from_labels(disc_scene.labels, BOXES), from_labels(flipped[1], BOXES)],
    )


@pytest.fixture
def tune(images, tiny_model, tmp_path):
    """Return a call that fine-tunes the tiny model on the two images."""

    def call(name="mine", *, settings=TINY, **changed):
        given = dict(zip(("images", "partial_labels"), images, strict=True)) | changed
        return svpseg.finetune(
            start_from=given.pop("start_from", tiny_model),
            settings=settings,
            output=tmp_path / name,
            **given,
        )

    return call


def weights(folder):
    return {k: v.numpy() for k, v in load_model(folder).network.state_dict().items()}


def same(first, second):
    return all(np.array_equal(v, second[k]) for k, v in first.items())


def test_a_model_comes_out_that_segments_without_prompts(tune, images, tmp_path):
    seen = []
    result = tune(on_partial=seen.append)
    assert result.model == str(tmp_path / "mine")
    assert [p.step for p in seen] == list(range(1, 6))
    assert any(p.validation_dice is not None for p in seen)
    assert result.before.n_pixels == result.after.n_pixels > 0
    better = is_better(result.after.value, result.before.value)
    assert better == (result.kept == "after")
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]  # and nothing beside it
    found = svpseg.segment(images[0][0], model=result.model)
    assert found.labels.shape == images[0][0].shape
    assert len(model_prompts(result.model)) >= 1
    told = load_model(result.model).card.training
    assert told["start_from"] == "tiny" and told["kept"] == result.kept


def test_ids_of_any_size_train_the_same_model(tune, images):
    """Ids near 2e9 asked for as many bytes, and were lost to int32."""
    huge = [np.where(a > 1, 2_000_000_000 + a.astype(np.int64), a) for a in images[1]]
    results = [tune("huge", partial_labels=huge), tune("small")]
    assert same(*(weights(r.model) for r in results))
    assert results[0].before == results[1].before


def test_ordinary_labels_are_no_partial_ones(tune, images, disc_scene):
    assert not tune().notes
    ordinary = [disc_scene.labels, np.ascontiguousarray(disc_scene.labels[:, ::-1])]
    notes = tune("m", partial_labels=ordinary).notes
    assert LOOK_ORDINARY.format(name="image 1") in notes


@pytest.fixture
def files(tmp_path, disc_scene):
    """Write an image and its labels of several kinds; return the folder."""
    tifffile.imwrite(tmp_path / "a.tif", disc_scene.image)
    for name, labels in (
        ("ids.tif", disc_scene.labels.astype(np.uint16)),
        ("float.tif", disc_scene.labels.astype(np.float32)),
        ("white.tif", np.where(disc_scene.labels, 255, 0).astype(np.uint8)),
        ("partial.tif", from_labels(disc_scene.labels, BOXES).astype(np.uint16)),
    ):
        tifffile.imwrite(tmp_path / name, labels)
    return tmp_path


def pair(files, name):
    return [(str(files / "a.tif"), str(files / name))]


def test_labels_of_all_kinds_are_the_same_if_they_are_complete(files):
    ids, *others = (
        LabelledFiles.read(pair(files, name), complete=True).labels[0]
        for name in ("ids.tif", "float.tif", "white.tif")
    )
    for labels in others:
        assert label_counts(labels) == label_counts(ids)
        assert np.array_equal(labels > 1, ids > 1)
    classes = LabelledFiles.read(pair(files, "white.tif"), complete=True, classes=True)
    assert np.unique(classes.labels[0]).tolist() == [1, 256]


def test_labels_that_may_be_meant_otherwise_are_asked_about(files):
    said = []
    for name in ("ids.tif", "float.tif", "white.tif"):
        with pytest.raises(PartialLabelError, match=name):
            LabelledFiles.read(pair(files, name), on_read=said.append)
        LabelledFiles.read(pair(files, name), complete=False)
    assert not said
    LabelledFiles.read(pair(files, "partial.tif"), on_read=said.append)
    n = label_counts(from_labels(read_mask(files / "ids.tif"), BOXES))["n_objects"]
    assert len(said) == 1 and f"partial.tif: {n} object" in said[0]


def test_training_learns_the_discs(tune):
    result = tune(settings=replace(TINY, steps=40, learning_rate=1e-2))
    assert result.kept == "after"
    assert result.after.dice > max(0.8, result.before.dice)


def test_the_same_seed_gives_the_same_model_and_another_does_not(tune):
    settings = replace(TINY, learning_rate=1e-2, steps=12)
    runs = [tune(f"m{i}", settings=settings) for i in range(2)]
    other = tune("m2", settings=replace(settings, seed=4))
    assert all(r.kept == "after" for r in (*runs, other))
    assert same(weights(runs[0].model), weights(runs[1].model))
    assert not same(weights(runs[0].model), weights(other.model))


def test_a_model_that_is_not_better_is_not_kept(tune, tiny_model):
    result = tune(settings=replace(TINY, learning_rate=0.0, anchor=0.0))
    assert result.kept == "before"
    assert same(weights(result.model), weights(tiny_model))
    assert NOT_BETTER in result.notes


def test_a_gain_that_may_be_noise_is_not_kept(tune, tiny_model, monkeypatch):
    settings = replace(TINY, steps=12, learning_rate=1e-2)
    result = tune("kept", settings=settings)
    scores = [
        np.nanmean([row["validation_dice"], row["validation_f1"]])
        for row in result.history
    ]
    left = (1 - max(scores)) / (1 - result.before.value)  # of the error
    assert result.kept == "after" and left < 0.97
    monkeypatch.setattr(
        "napari_svpseg.engine.finetuning.loop.MIN_GAIN", 1 - left + 0.001
    )
    result = tune("not kept", settings=settings)
    assert result.kept == "before" and result.after.value > result.before.value
    assert same(weights(result.model), weights(tiny_model))


def test_stop_keeps_the_best_so_far(tune, tmp_path):
    stopped_at = []

    def watch(progress):
        if progress.step == 2:
            assert api.stop_finetune(tmp_path / "mine")
        stopped_at.append(progress.step)

    result = tune(on_partial=watch, settings=replace(TINY, steps=1000))
    assert result.stopped and stopped_at[-1] <= 4
    assert load_model(result.model).card.name == "mine"
    assert not api.stop_finetune(tmp_path / "mine")  # nothing is running any more


def test_a_cancelled_run_goes_on_and_ends_like_one_in_one_go(tune, tmp_path):
    settings = replace(TINY, learning_rate=1e-2, steps=12)
    whole = tune("whole", settings=settings)

    def cancel(done, total, message=""):
        if done == 7:
            raise Cancelled

    with pytest.raises(Cancelled):
        tune("parts", settings=settings, on_progress=cancel)
    assert [r["output"] for r in api.unfinished_finetunes(tmp_path)] == [
        str(tmp_path / "parts")
    ]
    steps = []
    parts = tune(
        "parts",
        settings=settings,
        resume=True,
        on_partial=lambda p: steps.append(p.step),
    )
    assert steps[0] == 8
    assert whole.kept == parts.kept == "after"
    assert same(weights(whole.model), weights(parts.model))
    assert api.unfinished_finetunes(tmp_path) == []


def cancelled(tune, name="mine", **changed):
    def cancel(done, total, message=""):
        raise Cancelled

    with pytest.raises(Cancelled):
        tune(name, on_progress=cancel, **changed)


@pytest.mark.parametrize("what", ["labels", "settings", "versions", "record"])
def test_another_training_starts_anew_and_says_so(
    tune, images, tmp_path, monkeypatch, what
):
    cancelled(tune)
    folder = finetuning.run_folder(tmp_path / "mine")
    changed = {"resume": True}
    if what == "labels":
        fewer = np.where(images[1][1] > 1, 0, images[1][1])
        changed["partial_labels"] = [images[1][0], fewer]
    elif what == "settings":
        changed["settings"] = replace(TINY, learning_rate=1e-3)
    elif what == "versions":
        monkeypatch.setattr(identity, "versions", lambda: {"torch": "0"})
    else:
        (folder / "run.json").write_text("{")
    steps = []
    result = tune(**changed, on_partial=lambda p: steps.append(p.step))
    assert OTHER_TRAINING.format(folder=folder) in result.notes
    assert steps[0] == 1 and not folder.exists()


def test_the_checkpoint_of_another_training_is_kept_while_one_runs(tune, tmp_path):
    cancelled(tune)
    old = (finetuning.run_folder(tmp_path / "mine") / "checkpoint.pt").read_bytes()
    cancelled(tune, settings=replace(TINY, learning_rate=1e-3), resume=True)
    folder = finetuning.run_folder(tmp_path / "mine")
    assert (folder / "earlier-checkpoint.pt").read_bytes() == old
    assert (folder / "checkpoint.pt").read_bytes() != old


def test_a_checkpoint_is_not_written_in_the_middle_of_a_step(tune, monkeypatch):
    """A signal may come at any time: the weights would be those of half a step."""
    settings = replace(TINY, learning_rate=1e-2, steps=12)
    whole = tune("whole", settings=settings)
    monkeypatch.setattr(loop, "CHECKPOINT_S", -1.0)
    update = Trainer._follow

    def interrupted(self, *args):
        if self.step == 7:
            raise SystemExit(143)
        update(self, *args)

    monkeypatch.setattr(Trainer, "_follow", interrupted)
    with pytest.raises(SystemExit):
        tune("parts", settings=settings)
    monkeypatch.undo()
    steps = []
    parts = tune(
        "parts",
        settings=settings,
        resume=True,
        on_partial=lambda p: steps.append(p.step),
    )
    assert steps[0] == 7 and same(weights(whole.model), weights(parts.model))


def test_what_is_being_trained_is_left_alone_by_others(tune, tmp_path, pattern):
    message = pattern(IS_TRAINED, output=tmp_path / "mine")
    cancelled(tune)
    assert not finetuning.is_running(tmp_path / "mine")
    with finetuning.claimed(tmp_path / "mine"):
        assert finetuning.is_running(tmp_path / "mine")
        for call in (tune, lambda: tune(resume=True)):
            with pytest.raises(FineTuneError, match=message):
                call()
        with pytest.raises(FineTuneError, match=message):
            api.discard_finetune(tmp_path / "mine")
        assert api.unfinished_finetunes(tmp_path) == []  # not cut off: going on
    (left,) = api.unfinished_finetunes(tmp_path)
    assert tune(resume=True).model == left["output"]
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_a_killed_process_leaves_no_lock(tmp_path):
    code = (
        "import os, sys; from napari_svpseg.workflows import finetuning\n"
        "with finetuning.claimed(sys.argv[1]):\n"
        "    print(finetuning.is_running(sys.argv[1]), flush=True)\n"
        "    os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "m"], stdout=subprocess.PIPE, text=True
    )
    assert done.stdout == "True\n" and done.returncode
    assert (tmp_path / ".m.run").is_dir()
    assert not finetuning.is_running(tmp_path / "m")
    api.discard_finetune(tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_a_corrupt_checkpoint_is_named(tune, tmp_path):
    cancelled(tune)
    (tmp_path / ".mine.run" / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match=r"checkpoint\.pt"):
        tune(resume=True)
    assert tune().kept in ("before", "after")  # a new start needs nothing deleted


def test_resuming_nothing_starts_anew_and_says_so(tune, tmp_path):
    note = NOTHING_TO_RESUME.format(folder=finetuning.run_folder(tmp_path / "mine"))
    assert note in tune(resume=True).notes


def test_a_full_disk_ends_the_training_at_once_and_it_goes_on_later(
    tune, tmp_path, monkeypatch, pattern
):
    settings = replace(TINY, learning_rate=1e-2, steps=12)
    whole = tune("whole", settings=settings)
    monkeypatch.setattr(loop, "CHECKPOINT_S", -1.0)
    flush, steps = os.fsync, []

    def full(file):
        if len(steps) > 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(file)

    monkeypatch.setattr(os, "fsync", full)
    folder = finetuning.run_folder(tmp_path / "parts")
    with pytest.raises(
        CheckpointWriteError, match=pattern(NO_CHECKPOINT, folder=folder)
    ) as caught:
        tune("parts", settings=settings, on_partial=lambda p: steps.append(p.step))
    assert "\n" not in str(caught.value) and len(steps) == 7
    assert not (tmp_path / "parts").exists()
    monkeypatch.undo()
    parts = tune(
        "parts",
        settings=settings,
        resume=True,
        on_partial=lambda p: steps.append(p.step),
    )
    assert steps[7:] == list(range(7, 13))
    assert same(weights(whole.model), weights(parts.model))


def test_a_training_is_moved_to_where_there_is_room(tune, tmp_path, monkeypatch):
    cancelled(tune)
    old = tmp_path / "mine"
    assert not finetuning.needs_other_place(old)
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert finetuning.needs_other_place(old)
    new = Path(finetuning.move_finetune(old, tmp_path / "other"))
    assert new == tmp_path / "other" / "mine"
    assert not finetuning.run_folder(old).exists()
    (left,) = api.unfinished_finetunes(new.parent)
    assert left["output"] == str(new)
    steps = []
    result = tune("other/mine", resume=True, on_partial=lambda p: steps.append(p.step))
    assert steps[0] == 2 and result.model == str(new)


def test_a_model_that_cannot_be_written_leaves_the_checkpoint(
    tune, tmp_path, monkeypatch
):
    def full(*args, **kwargs):
        raise WriteError("mine: cannot be written, the disk is full.")

    monkeypatch.setattr(finetuning, "save_model", full)
    with pytest.raises(WriteError, match="disk is full"):
        tune()
    monkeypatch.undo()
    steps = []
    result = tune(resume=True, on_partial=lambda p: steps.append(p.step))
    assert steps == [] and result.kept in ("before", "after")  # only written again


def test_the_start_model_deleted_is_named(tune, tiny_model, tmp_path):
    gone = tmp_path / "gone"
    shutil.copytree(tiny_model, gone)
    shutil.rmtree(gone)
    with pytest.raises(ModelFormatError, match="gone"):
        tune(start_from=gone)


def test_a_model_without_prompts_is_refused(tune, tmp_path, pattern):
    config = ModelConfig("semantic", {"classes": 2})
    card = ModelCard("classes", config.method, config.arguments)
    save_model(tmp_path / "classes", build(config), card)
    with pytest.raises(FineTuneError, match=pattern(TAKES_NO_PROMPTS, name="classes")):
        tune(start_from=tmp_path / "classes")


def test_a_place_that_holds_something_else_is_refused_before_training(tune, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(WriteError, match=r"thesis\.txt"):
        tune()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda ls: [0 * a for a in ls], NO_LABELS),
        (lambda ls: [(a > 1) * a for a in ls], ONLY_OBJECTS),
        (lambda ls: [(a == 1) * 1 for a in ls], ONLY_BACKGROUND),
        (lambda ls: ls[:1], OTHER_NUMBERS),
        (lambda ls: [few(a) for a in ls], FEW_LABELS),
        (lambda ls: [a[:-1] for a in ls], "96 x 96"),
        (lambda ls: [-a for a in ls], "image 1"),
        (lambda ls: [a + 0.5 for a in ls], "image 1"),
    ],
)
def test_labels_that_do_not_do_are_refused_in_one_line(
    tune, images, pattern, spoil, told
):
    with pytest.raises(FineTuneError, match=pattern(told)) as error:
        tune(partial_labels=spoil(images[1]))
    assert "\n" not in str(error.value)
    if told in (NO_LABELS, ONLY_OBJECTS, ONLY_BACKGROUND, FEW_LABELS):
        assert "image 1" in str(error.value)


def few(labels):
    """Return the labels with five pixels left."""
    kept = np.zeros_like(labels)
    kept[20, 20:25] = (2, 2, 2, 1, 1)
    return kept


def test_no_image_at_all_is_refused(tune):
    with pytest.raises(FineTuneError, match=NO_IMAGES):
        tune(images=[], partial_labels=[])


def test_nan_in_an_image_is_left_out_and_told(tune, images, pattern):
    spoiled = images[0][0].copy()
    spoiled[:4] = np.nan
    result = tune(images=[spoiled, images[0][1]])
    assert SOME_NOT_FINITE.format(name="image 1", n=384) in result.notes
    with pytest.raises(FineTuneError, match=pattern(NOT_FINITE, name="image 1")):
        tune(images=[np.full_like(spoiled, np.nan), images[0][1]])


def test_one_box_is_halved_to_check_on(tune, images):
    one = from_labels(images[1][0] - 1 + 1 - 1 + (images[1][0] == 0), [(0, 0, 96, 96)])
    result = tune(images=images[0][:1], partial_labels=[one])
    assert 0 < result.before.n_pixels < one.size / 2


def test_too_few_labels_to_hold_back_are_told(tune, images, disc_scene):
    one = from_labels(disc_scene.labels, [(10, 14, 14, 14)])
    result = tune(images=images[0][:1], partial_labels=[one])
    assert TOO_FEW_LABELS in result.notes


def test_scribbles_are_enough(tune, images, disc_scene):
    scribble = np.zeros_like(disc_scene.labels)
    scribble[20, 20:28] = scribble[66, 18:26] = scribble[70, 62:70] = 2
    scribble[42:45, 5:90] = 1
    scribble[5:8, 5:90] = 1
    result = tune(images=images[0][:1], partial_labels=[scribble])
    assert model_prompts(result.model)[0].n_objects >= 1
    assert result.before.f1 is None  # scribbles say nothing of whole objects


def test_chosen_channels_are_those_of_the_prompts(tune, images):
    stacked = [np.stack([0 * i, i, 2 * i, i], axis=-1) for i in images[0]]
    result = tune(images=stacked, channels=(1,))
    assert model_prompts(result.model)[0].channels == (1,)
    found = svpseg.segment(stacked[0], model=result.model, axes="YXC")
    assert np.array_equal(
        found.labels, svpseg.segment(images[0][0], model=result.model).labels
    )


def test_classes_instead_of_objects(tune, images, disc_scene, pattern):
    classes = np.where(disc_scene.labels > 3, 3, np.where(disc_scene.labels > 0, 2, 1))
    settings = replace(TINY, semantic=True, wanted=3)
    result = tune(images=images[0][:1], partial_labels=[classes], settings=settings)
    assert result.before.f1 is None
    with pytest.raises(FineTuneError, match=pattern(ONLY_BACKGROUND, what="class 7")):
        tune(
            images=images[0][:1],
            partial_labels=[classes],
            settings=replace(settings, wanted=7),
        )


def test_other_ways_of_training_run(tune):
    settings = replace(
        TINY,
        self_supervised_first=True,
        pseudo_labels=False,
        unlabelled_is_background=True,
    )
    assert tune(settings=settings).before.n_pixels > 96 * 96 / 8


def test_unlabelled_images_are_learned_from_first(tune, images, tmp_path):
    folder = tmp_path / "others"
    folder.mkdir()
    for n, image in enumerate(images[0]):
        tifffile.imwrite(folder / f"{n}.tif", image.T)
    (folder / "broken.tif").write_bytes(b"no image")
    told = []
    settings = replace(TINY, steps=20, learning_rate=1e-2)
    first = tune(
        "first",
        settings=settings,
        unlabelled=folder,
        on_progress=lambda done, total, text="": told.append(text),
    )
    assert SUPERPIXELS in told
    plain = tune("plain", settings=settings)
    again = tune("again", settings=settings, unlabelled=folder)
    training = load_model(first.model).card.training
    assert training["unlabelled_images"] == 2
    assert training["settings"]["self_supervised_first"]
    losses = [[row["train_loss"] for row in r.history] for r in (first, again, plain)]
    assert losses[0] == losses[1] != losses[2]
    assert same(weights(first.model), weights(again.model))


def test_a_folder_without_images_is_named(tune, tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "missing"):
        with pytest.raises(FineTuneError, match=name):
            tune(unlabelled=tmp_path / name)
    assert api.unfinished_finetunes(tmp_path) == []


def test_a_training_set_grows_and_is_trained_on_as_a_whole(tune, images, tmp_path):
    folder = tmp_path / "set"
    first = tune(
        images=images[0][:1],
        partial_labels=images[1][:1],
        training_set=folder,
        names=["a"],
    )
    second = tune(
        "second",
        images=images[0][1:],
        partial_labels=images[1][1:],
        training_set=folder,
        names=["b"],
    )
    assert [e.name for e in TrainingSet(folder).entries()] == ["a", "b"]
    assert load_model(second.model).card.training["images"] == ["a", "b"]
    TrainingSet(folder).set_used("b", False)
    third = tune("third", images=[], partial_labels=[], training_set=folder)
    assert load_model(third.model).card.training["images"] == ["a"]
    assert same(weights(first.model), weights(third.model))


def test_held_out_images_only_check(tune, images):
    result = tune(validation_images=[1])
    assert result.before.n_pixels == int((images[1][1] > 0).sum())


def test_it_runs_as_a_job(images, tiny_model, tmp_path, in_process):
    events = []
    job = in_process.submit(
        api.finetune,
        *images,
        start_from=str(tiny_model),
        settings=TINY,
        output=str(tmp_path / "job"),
        on_event=events.append,
    )
    result = job.result(60)
    assert result.model == str(tmp_path / "job")
    assert sum(e.kind == "partial" for e in events) == 5


# ---------------------------------------------------------------- command line


@pytest.fixture
def pairs(images, tmp_path):
    """Return IMAGE=LABELS for the two images, written as files."""
    found = []
    for n, (image, labels) in enumerate(zip(*images, strict=True)):
        tifffile.imwrite(tmp_path / f"i{n}.tif", image)
        tifffile.imwrite(tmp_path / f"l{n}.tif", labels.astype(np.uint16))
        found.append(f"{tmp_path / f'i{n}.tif'}={tmp_path / f'l{n}.tif'}")
    return found


def command(pairs, model, out, *more):
    return main(
        [
            "finetune",
            *pairs,
            "-o",
            str(out),
            "--start-from",
            str(model),
            "--steps",
            "5",
            *more,
        ]
    )


def test_the_command_prints_before_and_after(pairs, tiny_model, tmp_path, capsys):
    assert command(pairs, tiny_model, tmp_path / "model", "--seed", "1") == 0
    printed = capsys.readouterr().out
    assert "before: Dice" in printed and "after:  Dice" in printed
    assert printed.strip().splitlines()[-1] == str(tmp_path / "model")


def test_the_command_gives_the_same_model_as_python(
    pairs, images, tiny_model, tmp_path, capsys
):
    assert command(pairs, tiny_model, tmp_path / "model", "--seed", "1", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    result = svpseg.finetune(
        *images,
        names=["i0.tif", "i1.tif"],
        start_from=tiny_model,
        output=tmp_path / "again",
        settings=FineTuneSettings(steps=5, seed=1),
    )
    assert told["after"]["dice"] == result.after.dice
    assert same(weights(tmp_path / "model"), weights(tmp_path / "again"))


def test_the_command_segments_with_a_fine_tuned_model_and_no_prompts(
    pairs, tiny_model, tmp_path
):
    assert command(pairs, tiny_model, tmp_path / "model") == 0
    image = pairs[0].split("=")[0]
    words = ["segment", image, "-o", str(tmp_path / "out"), "--model"]
    assert main([*words, str(tmp_path / "model")]) == 0
    assert (tmp_path / "out" / "i0_labels.ome.tif").is_file()


def test_ordinary_labels_with_boxes(disc_scene, tiny_model, tmp_path, capsys):
    tifffile.imwrite(tmp_path / "i.tif", disc_scene.image)
    tifffile.imwrite(tmp_path / "l.tif", disc_scene.labels.astype(np.uint8))
    pair = f"{tmp_path / 'i.tif'}={tmp_path / 'l.tif'}"
    out = tmp_path / "model"
    boxes = ("--box", "0", "0", "--box", "48", "48", "--size", "48", "--json")
    assert command([pair, pair], tiny_model, out, *boxes) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["before"]["n_pixels"] >= 1000
    assert 0 <= told["rest"]["after"]["dice"] <= 1


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["a.tif", "-o", "m"], 2, f"{IMAGE_AND_LABELS}, got 'a.tif'"),
        (["a.tif=b.tif", "-o", "m"], 1, "a.tif"),
        (["a.tif=b.tif"], 2, "--output"),
        (["-o", "m"], 2, IMAGE_AND_LABELS),
        (["a.tif=b.tif", "-o", "m", "--preset", "slow"], 2, "'slow'"),
        (["a.tif=b.tif", "-o", "m", "--validation", "3"], 2, "0 to 0.8, got 3.0"),
        (["a.tif=b.tif", "-o", "m", "--start-from", "nothing"], 2, "'nothing'"),
        (
            ["a.tif=b.tif", "-o", "m", "--box", "1", "2", "--box", "3", "4"],
            2,
            "2 boxes",
        ),
    ],
)
def test_wrong_words_are_refused_in_one_line(
    words, status, told, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["finetune", *words]) == status
    said = capsys.readouterr().err
    assert told in said and len(said.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_labels_that_contradict_each_other_are_refused(
    pairs, images, tiny_model, tmp_path, capsys
):
    other = np.where(images[1][0] > 0, 3 - np.minimum(images[1][0], 2), 0)
    tifffile.imwrite(tmp_path / "other.tif", other.astype(np.uint16))
    image = pairs[0].split("=")[0]
    again = f"{image}={tmp_path / 'other.tif'}"
    assert command([*pairs, again], tiny_model, tmp_path / "model") == 1
    assert "contradict each other" in capsys.readouterr().err


def test_the_run_folder_lies_hidden_beside_the_model(tmp_path):
    assert finetuning.run_folder(tmp_path / "mine") == tmp_path / ".mine.run"
