"""Runs replace only what runs wrote, and one run at a time writes into a folder."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from napari_svpseg import api
from napari_svpseg.cli.main import main
from napari_svpseg.core.jobs.folder_job import BatchJob
from napari_svpseg.core.jobs.stored_labels import work_folder
from napari_svpseg.core.prompt import PromptSet
from napari_svpseg.core.settings import SegmentSettings
from napari_svpseg.io import folder_records
from napari_svpseg.io.atomic import WriteError
from napari_svpseg.io.folder_records import (
    CUT_PROMPTS,
    LOG,
    RUN,
    SUMMARY,
    WrittenFiles,
    check_collisions,
)
from napari_svpseg.io.locks import LOCK, RESULTS_LOCK, InUseError, run_folder
from napari_svpseg.io.ownership import (
    ChangedTargetError,
    ForeignTargetError,
    Origin,
    ReplaceError,
    origin,
    read_json,
)
from napari_svpseg.io.prompt_files import load_prompts, save_prompts
from napari_svpseg.io.zarr_labels import open_level
from napari_svpseg.workflows.demo_run import (
    DemoOutcome,
    DemoSettings,
    check_outputs,
    write_summary,
)
from napari_svpseg.workflows.folder_run import run_batch
from napari_svpseg.workflows.segment_large import segment_zarr
from napari_svpseg.workflows.segment_live import segment_stored
from napari_svpseg.workflows.tag_training import (
    discard_tag_training,
    train_from_tags,
    training_folder,
)
from napari_svpseg.workflows.training import train_from_config

QUICK = SegmentSettings(tile=64, overlap=32, scale_objects=False)

HOLD = """
import sys
from napari_svpseg.io.locks import claimed
with claimed(sys.argv[1], sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(folder: Path, name: str = LOCK):
    """Let another process hold the lock of a folder."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield
        process.communicate("")


@pytest.fixture
def job(tmp_path, disc_scene, disc_prompt, tiny_model) -> BatchJob:
    """Return a job over a folder of two images."""
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a", "b"):
        tifffile.imwrite(images / f"{name}.tif", disc_scene.image)
    prompts = save_prompts(PromptSet([disc_prompt]), tmp_path / "discs.svprompt")
    return BatchJob(
        (str(images),),
        str(prompts),
        str(tmp_path / "out"),
        str(tiny_model),
        {"device": "cpu", "threshold": 0.5, "min_area": 0},
        ("ome-tiff", "csv"),
    )


def states(job: BatchJob, **how) -> list[str]:
    return [outcome.status for outcome in run_batch(job, **how)]


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


THEIRS = ("b_labels.ome.tif", "a_labels.csv", RUN, SUMMARY, LOG)


@pytest.mark.parametrize("name", THEIRS)
def test_a_run_leaves_alone_what_no_run_wrote(job, name):
    out = Path(job.output)
    out.mkdir()
    (out / name).write_text("theirs")
    with pytest.raises(ForeignTargetError):
        run_batch(job)
    assert content(out) == {name: b"theirs"}
    assert states(job, overwrite=True) == ["done", "done"]
    assert name == LOG or (out / name).read_bytes() != b"theirs"


def test_a_run_replaces_its_own_results_but_no_corrected_one(job):
    out = Path(job.output)
    assert states(job) == states(job) == ["done", "done"]
    (out / "a_labels.csv").write_text("id,area\n1,77\n")
    tifffile.imwrite(out / "b_labels.ome.tif", np.ones((96, 96), np.uint8))
    with pytest.raises(ForeignTargetError):  # nothing in the file says it was a result
        run_batch(job)
    (out / "b_labels.ome.tif").unlink()
    before = (out / "a_labels.csv").read_bytes()
    first, second = run_batch(job)
    assert (first.status, second.status) == ("failed", "done")
    assert str(out / "a_labels.csv") in first.error
    assert (out / "a_labels.csv").read_bytes() == before
    assert states(job, overwrite=True) == ["done", "done"]


def test_results_without_a_seal_are_known_by_their_hash(job):
    formats = ("cellpose-png", "cellpose-tif", "cellpose-seg", "npy")
    job = replace(job, formats=formats)
    out = Path(job.output)
    assert states(job) == states(job) == ["done", "done"]
    for name in ("a_cp_masks.png", "a_cp_masks.tif", "a_seg.npy", "a_labels.npy"):
        before = (out / name).read_bytes()
        (out / name).write_bytes(before + b"corrected")
        assert states(job) == ["failed", "done"]
        assert (out / name).read_bytes() == before + b"corrected"
        (out / name).write_bytes(before)


def test_files_of_a_killed_run_are_known(job, monkeypatch):
    out = Path(job.output)
    with monkeypatch.context() as killed:  # before it notes what it has written
        killed.setattr(WrittenFiles, "note_results", lambda *_: None)
        killed.setattr(WrittenFiles, "note_summary", lambda *_: None)
        killed.setattr(WrittenFiles, "release", lambda *_: None)
        assert states(job) == ["done", "done"]
    record = read_json(out / RUN)
    assert not record["written"] and SUMMARY in record["writing"]
    assert states(job) == ["done", "done"]
    assert set(read_json(out / RUN)["written"]) >= {SUMMARY, "a_labels.csv"}
    assert not read_json(out / RUN)["writing"]


def test_a_corrected_job_file_is_kept_unless_it_is_run(job):
    out = Path(job.output)
    run_batch(job)
    text = (out / RUN).read_text()
    (out / RUN).write_text(text.replace('"min_area": 0', '"min_area": 9'))
    with pytest.raises(ChangedTargetError):
        run_batch(job)
    corrected = replace(job, settings=job.settings | {"min_area": 9}, formats=("rois",))
    with pytest.raises(ChangedTargetError):
        run_batch(corrected)
    assert main(["segment", "--job", str(out / RUN), "--overwrite"]) == 0
    assert origin(out / RUN) is Origin.OURS


def test_prompts_of_the_run_are_saved_under_its_lock(job, disc_prompt):
    cut, out = replace(job, prompts=""), Path(job.output)
    one, two = PromptSet([disc_prompt]), PromptSet([disc_prompt] * 2)
    run_batch(cut, one)
    with held(out, RESULTS_LOCK), pytest.raises(InUseError):
        run_batch(cut, two)
    assert len(load_prompts(out / CUT_PROMPTS)) == 1
    run_batch(cut, two)
    assert len(load_prompts(out / CUT_PROMPTS)) == 2
    save_prompts(one, out / CUT_PROMPTS, overwrite=True)  # by hand, in the dock
    with pytest.raises(ReplaceError):
        run_batch(cut, two)
    assert len(load_prompts(out / CUT_PROMPTS)) == 1


def test_a_second_run_into_a_folder_is_refused(job):
    out = Path(job.output)
    with held(out, RESULTS_LOCK):
        before = content(out)
        with pytest.raises(InUseError):
            run_batch(job)
        assert content(out) == before
    refused = []

    def meanwhile(done: int, total: int, message: str) -> None:
        with pytest.raises(InUseError) as caught:
            run_batch(replace(job, settings={"device": "cpu"}))
        refused.append(caught.value)

    assert len(run_batch(job, on_progress=meanwhile)) == 2
    assert refused
    assert not [name for name in content(out) if name.startswith(".")]


def test_results_that_differ_in_case_only_collide_where_the_disk_ignores_it(
    job, tmp_path, monkeypatch
):
    files = [tmp_path / "a" / "x.tif", tmp_path / "b" / "X.tif"]
    check_collisions(job, files)
    monkeypatch.setattr(folder_records, "_ignores_case", lambda folder: True)
    with pytest.raises(ValueError, match=r"x\.tif"):
        check_collisions(job, files)


# ------------------------------------------------------------------- command line
@pytest.fixture
def command(job, monkeypatch):
    """Return a function that runs ``svpseg segment`` over the images."""
    folder = Path(job.inputs[0])

    def run(*words: object, image: object = folder / "b.tif") -> int:
        fixed = ["segment", image, "--model", job.model, "--device", "cpu"]
        return main([str(w) for w in (*fixed, *words)])

    return run


@pytest.mark.parametrize("skip", [(), ("--skip-done",)])
def test_a_raw_zarr_beside_the_image_stays(job, command, capsys, skip):
    folder = Path(job.inputs[0])
    raw = np.arange(12).reshape(3, 4)
    zarr.create_array(folder / "b.zarr", data=raw)
    words = ["-o", folder, "--formats", "ome-zarr", "--pattern", "{name}"]
    words += ["--prompts", job.prompts, *skip]
    assert command(*words) == 1
    assert np.array_equal(zarr.open_array(folder / "b.zarr", mode="r")[:], raw)
    error = capsys.readouterr().err
    assert str(folder / "b.zarr") in error
    assert skip or error.count("\n") == 1
    assert skip or not (folder / RUN).exists()


def test_masks_that_prompts_are_cut_from_stay(job, command, disc_scene):
    folder = Path(job.inputs[0])
    mask = folder / "b_labels.ome.tif"
    tifffile.imwrite(mask, disc_scene.labels.astype(np.uint8))
    before = mask.read_bytes()
    words = ["--prompt-image", folder / "b.tif", "--prompt-labels", mask]
    words += ["--box", 8, 8, "-o", folder, "--overwrite"]
    assert command(*words) == 1
    assert mask.read_bytes() == before


def test_an_image_is_never_replaced_by_its_result(job, disc_prompt):
    image = Path(job.inputs[0]) / "a.ome.tif"
    (image.parent / "a.tif").rename(image)
    before = image.read_bytes()
    for overwrite in (False, True):
        with pytest.raises(ReplaceError):
            api.segment_file(
                image,
                disc_prompt,
                image.parent,
                job.model,
                targets={"ome-tiff": str(image.parent / ".." / "images" / image.name)},
                overwrite=overwrite,
            )
    assert image.read_bytes() == before


@pytest.mark.parametrize(
    "words", [["new", "--image", "a.tif", "--labels", "a.tif"], ["merge", "p.svprompt"]]
)
def test_prompt_files_are_kept(job, words, monkeypatch, disc_prompt, disc_scene):
    monkeypatch.chdir(job.inputs[0])
    save_prompts(PromptSet([disc_prompt] * 2), "p.svprompt")
    other = save_prompts(PromptSet([disc_prompt] * 3), "other.svprompt")
    before = other.read_bytes()
    tifffile.imwrite("a.tif", disc_scene.labels.astype(np.uint8))
    box = ["--box", "8", "8"] if words[0] == "new" else []
    command = ["prompts", words[0], "other.svprompt", *words[1:], *box]
    assert main(command) == 1
    assert other.read_bytes() == before
    assert main([*command, "--overwrite"]) == 0


# ------------------------------------------------------------------- large images
@pytest.fixture
def large(tmp_path, disc_scene, disc_prompt, tiny_model):
    """Return a function that segments a Zarr into labels of it, in this process."""
    zarr.create_array(tmp_path / "x.zarr", data=disc_scene.image, chunks=(64, 64))

    def run(store=None, image=tmp_path / "x.zarr", **how):
        fixed = {"workers": 0, "block": 64, "halo": 24, "settings": QUICK}
        return segment_zarr(image, disc_prompt, store, tiny_model, **fixed | how)

    return run


def test_labels_in_a_zarr_are_replaced_as_long_as_nobody_corrects_them(large, tmp_path):
    store = tmp_path / "y.zarr"
    large(store)
    labels = Path(large(store).labels)
    assert origin(labels) is origin(store) is Origin.OURS
    open_level(labels)[3, 3] = 77
    with pytest.raises(ChangedTargetError):
        large(store)
    assert open_level(labels)[3, 3] == 77
    large(store, overwrite=True)
    zarr.create_array(store / "labels" / "theirs", data=np.ones((3, 3), int))
    with pytest.raises(ForeignTargetError):
        large(store, name="theirs")
    assert open_level(store / "labels", "theirs")[:].all()
    assert not list(tmp_path.glob("*.work"))


def test_a_second_run_into_a_work_folder_is_refused(large, tmp_path):
    store, work = tmp_path / "y.zarr", tmp_path / "y.zarr.cells.work"
    refused = []

    def meanwhile(done: int, total: int, message: str) -> None:
        if not refused:
            (work / "tiles.done" / "mine").touch()
            for how in ({}, {"block": 32}):  # the same run, and another one
                with pytest.raises(InUseError) as caught:
                    large(store, **how)
                refused.append(caught.value)
            assert (work / "tiles.done" / "mine").unlink() is None

    outcome = large(store, on_progress=meanwhile)
    assert len(refused) == 2 and origin(outcome.labels) is Origin.OURS
    assert not work.exists()
    with held(work), pytest.raises(InUseError):
        large(store)


def test_an_array_takes_no_labels(large, tmp_path):
    with pytest.raises(WriteError):
        large(on_progress=None)
    assert [p.name for p in tmp_path.glob("x.zarr*")] == ["x.zarr"]


def test_a_work_folder_of_the_user_is_kept(large, tmp_path):
    work = tmp_path / "y.zarr.cells.work"
    work.mkdir()
    (work / "thesis.txt").write_text("years")
    with pytest.raises(ForeignTargetError):
        large(tmp_path / "y.zarr")
    assert [p.name for p in work.iterdir()] == ["thesis.txt"]


def test_labels_are_not_segmented_into_themselves(large, tmp_path):
    labels = Path(large(tmp_path / "y.zarr").labels)
    with pytest.raises(ReplaceError):
        large(tmp_path / "y.zarr", image=labels, overwrite=True)
    assert origin(labels) is Origin.OURS


def test_a_result_that_fills_is_locked_and_one_edited_is_kept(
    tmp_path, disc_scene, disc_prompt, tiny_model
):
    store = tmp_path / "a.zarr"

    def run():
        prompts = PromptSet([disc_prompt])
        how = {"axes": "YX", "block": 64, "settings": QUICK}
        return segment_stored(disc_scene.image, prompts, store, str(tiny_model), **how)

    with held(work_folder(store)), pytest.raises(InUseError):
        run()
    folder = Path(run().folder)
    assert origin(folder) is Origin.OURS
    open_level(folder)[3, 3] = 77
    with pytest.raises(ChangedTargetError):
        run()
    assert open_level(folder)[3, 3] == 77


# ------------------------------------------------------------------- trainings
def test_trainings_of_one_model_lock_each_other_out(tmp_path):
    model = tmp_path / "m"
    config = tmp_path / "c.toml"
    config.write_text('name = "m"\nmethod = "panet"\n[data]\n[train]\nsteps = 1\n')
    images = {n: np.zeros((70, 70), np.uint8) for n in "abcd"}
    tags = {n: ["x"] if n in "ab" else [] for n in "abcd"}
    training_folder(model).mkdir()
    with held(run_folder(model)):
        for call in (
            lambda: train_from_tags(images, tags, output=model),
            lambda: discard_tag_training(model),
            lambda: train_from_config(config, output=model),
        ):
            with pytest.raises(InUseError):
                call()
    assert not model.exists() and training_folder(model).exists()


def test_a_folder_that_is_no_training_of_ours_is_never_emptied(tmp_path):
    folder = training_folder(tmp_path / "m")
    folder.mkdir()
    (folder / "slide1.tif").write_text("raw")
    images = {n: np.zeros((70, 70), np.uint8) for n in "abcd"}
    tags = {n: ["x"] if n in "ab" else [] for n in "abcd"}
    for call in (
        lambda: discard_tag_training(tmp_path / "m"),
        lambda: train_from_tags(images, tags, output=tmp_path / "m"),
    ):
        with pytest.raises(ForeignTargetError):
            call()
    assert (folder / "slide1.tif").read_text() == "raw"


def test_a_training_does_not_replace_the_model_that_it_starts_from(tiny_model):
    with pytest.raises(ReplaceError):
        api.finetune([], [], start_from=tiny_model, output=tiny_model, overwrite=True)


def test_a_demo_replaces_only_what_a_demo_wrote(tmp_path):
    demo = DemoSettings(tmp_path, say=lambda text: None)
    picture, labels = tmp_path / "window.png", tmp_path / "a.tif"
    for path in (picture, labels):
        path.write_bytes(b"a demo's")
    with pytest.raises(ForeignTargetError):
        check_outputs(demo, [picture])
    outcome = DemoOutcome("a", 1, 1.0, "cpu", None, str(picture), str(labels))
    write_summary([outcome], demo)
    check_outputs(demo, [picture, labels])
    picture.write_bytes(b"theirs")
    with pytest.raises(ChangedTargetError):
        check_outputs(demo, [picture, labels])
    check_outputs(replace(demo, overwrite=True), [picture, labels])
