"""Folder runs: one bad file, stop and resume, formats, and the records of a run."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from skimage.io import imread

from napari_svpseg import api
from napari_svpseg.api import labels_path
from napari_svpseg.cli.main import _stop_cleanly_when_terminated, main
from napari_svpseg.core.escapes import escaped
from napari_svpseg.core.image import ImageError
from napari_svpseg.core.jobs.folder_job import (
    FORMAT_TITLES,
    FORMATS,
    NO_FORMAT,
    NO_INPUTS,
    NO_OUTPUT,
    PATTERN_FIELDS,
    PATTERN_FOLDERS,
    PATTERN_NOT_CLOSED,
    UNKNOWN_FORMAT,
    BatchJob,
    FileOutcome,
    check_pattern,
)
from napari_svpseg.core.labels.measure import measure
from napari_svpseg.core.progress import Cancelled
from napari_svpseg.core.prompt import Prompt, PromptSet
from napari_svpseg.io.atomic import is_temporary
from napari_svpseg.io.folder_records import (
    NO_SUCH_IMAGE,
    NOT_A_JOB,
    RUN_FILES,
    JobFileError,
    check_collisions,
    find_images,
    read_run,
    read_summary,
    write_run,
    write_summary,
)
from napari_svpseg.io.images import read_image
from napari_svpseg.io.ome_zarr import open_image
from napari_svpseg.io.ownership import ReplaceError
from napari_svpseg.io.prompt_files import load_prompts, save_prompts
from napari_svpseg.io.rois import read_geojson, read_rois
from napari_svpseg.workflows import folder_run
from napari_svpseg.workflows.folder_run import run_batch
from napari_svpseg.workflows.segment_image import NO_SIGNAL
from napari_svpseg.workflows.segment_large import LargeOutcome

N = 6


@pytest.fixture
def job(tmp_path: Path, disc_scene, disc_prompt, tiny_model) -> BatchJob:
    """Return a job over a folder of six images, the third of them unreadable."""
    images = tmp_path / "images"
    images.mkdir()
    for i in range(N):
        shifted = np.roll(disc_scene.image, 5 * i, axis=1)
        tifffile.imwrite(
            images / f"{i}.ome.tif",
            shifted,
            metadata={"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
        )
    (images / "2.ome.tif").write_bytes(b"no image at all")
    prompts = save_prompts(PromptSet([disc_prompt]), tmp_path / "discs.svprompt")
    return BatchJob(
        (str(images),),
        str(prompts),
        str(tmp_path / "out"),
        str(tiny_model),
        {"device": "cpu", "threshold": 0.5, "min_area": 0},
    )


def summary_of(job: BatchJob) -> list[dict[str, str]]:
    with open(Path(job.output) / "summary.csv", newline="") as file:
        return list(csv.DictReader(file))


def without_seconds(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def results_of(job: BatchJob) -> dict[str, bytes]:
    folder = Path(job.output)
    return {
        p.name: tifffile.imread(p).tobytes()
        for p in sorted(folder.iterdir())
        if p.name not in RUN_FILES
    }


def stop_after(n: int):
    def on_progress(done: int, total: int, message: str = "") -> None:
        if done >= n:
            raise Cancelled

    return on_progress


@pytest.mark.parametrize("formats", [("ome-zarr",), ("ome-tiff", "ome-zarr")])
def test_a_slide_is_read_in_parts_where_only_parts_are_written(
    job, monkeypatch, formats
) -> None:
    called = []
    monkeypatch.setattr(folder_run, "LARGE", 100)
    monkeypatch.setattr(
        folder_run, "segment_file", lambda *_, **__: called.append("whole")
    )
    monkeypatch.setattr(
        "napari_svpseg.workflows.segment_large.segment_zarr",
        lambda *_, **__: called.append("parts") or LargeOutcome("a", "b"),
    )
    path = Path(job.inputs[0]) / "0.ome.tif"
    targets = dict.fromkeys(formats, "x")
    folder_run.segment_item(path, load_prompts(job.prompts), job, targets, "")
    assert called == ["parts" if len(formats) == 1 else "whole"]


def test_one_bad_file_is_named_and_the_rest_is_done(job) -> None:
    outcomes = run_batch(job)
    assert [o.status for o in outcomes] == ["done"] * 2 + ["failed"] + ["done"] * 3
    assert "2.ome.tif" in outcomes[2].error
    rows = summary_of(job)
    names = [Path(row["file"]).name for row in rows]
    assert names == [f"{i}.ome.tif" for i in range(N)]
    assert rows[2]["status"] == "failed" and "2.ome.tif" in rows[2]["note"]
    labels = tifffile.imread(Path(job.output) / "3_labels.ome.tif")
    areas = measure(labels)["area"]
    assert len(areas) and int(rows[3]["objects"]) == len(areas)
    assert float(rows[3]["area_mean"]) == pytest.approx(areas.mean(), rel=1e-5)
    assert float(rows[3]["area_mean_um2"]) == pytest.approx(areas.mean() / 4, rel=1e-5)
    assert float(rows[3]["covered"]) == pytest.approx((labels > 0).mean(), rel=1e-5)
    assert 0 <= float(rows[3]["trust"]) <= 1
    log = (Path(job.output) / "run.log").read_text()
    assert "2.ome.tif: failed:" in log and "done: 5 of 6 done, 1 failed" in log


@pytest.fixture
def odd_names(job) -> dict[str, str]:
    """Put files into the folder that stopped a run; return how each has to end."""
    folder = Path(job.inputs[0])
    good = (folder / "0.ome.tif").read_bytes()
    ends = {}
    for name, status in (
        (os.fsdecode(b"caf\xe9.tif"), "done"),  # no UTF-8
        ("line\nbreak.tif", "done"),
        ("\x1b[31mred.tif", "done"),
        (f"{'n' * 235}.tif", "done"),  # its results have just legal names
        ("empty.tif", "failed"),
        (f"{'n' * 246}.tif", "failed"),  # its results would be longer than allowed
    ):
        try:
            (folder / name).write_bytes(b"" if name == "empty.tif" else good)
        except OSError:  # a file system without such names
            continue
        ends[name] = status
    (folder / "folder.tif").mkdir()
    (folder / "lost.zarr" / "0").mkdir(parents=True)
    (folder / "loop.tif").symlink_to("loop.tif")
    (folder / "broken.tif").symlink_to("nowhere.tif")
    names = ["folder.tif", "lost.zarr", "loop.tif", "broken.tif"]
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.tif")
        names.append("pipe.tif")
    return ends | dict.fromkeys(names, "failed")


def test_any_odd_file_is_named_and_stops_no_other(job, odd_names, capsys) -> None:
    words = ["segment", *job.inputs, "--prompts", job.prompts, "-o", job.output]
    assert main([*words, "--model", job.model, "--device", "cpu"]) == 1
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    rows = {Path(row["file"]).name: row for row in summary_of(job)}
    ends = {escaped(name): status for name, status in odd_names.items()}
    ends |= {f"{i}.ome.tif": "failed" if i == 2 else "done" for i in range(N)}
    assert {name: row["status"] for name, row in rows.items()} == ends
    for name, status in ends.items():
        assert status == "done" or Path(name).stem in rows[name]["note"]
    again, record = read_run(Path(job.output) / "run.json")
    assert record["state"] == "done"
    assert record["failed"] == list(ends.values()).count("failed")
    assert record["done"] + record["failed"] == record["files"] == len(ends)
    kept = run_batch(replace(again, skip_done=True))
    assert [o.status for o in kept].count("skipped") == record["done"]
    assert {o.source for o in kept} == {
        str(Path(job.inputs[0]) / name) for name in (*odd_names, *map(_image, range(N)))
    }


def _image(i: int) -> str:
    return f"{i}.ome.tif"


def test_a_file_that_is_gone_or_locked_is_that_files_error(job, monkeypatch) -> None:
    real = folder_run.segment_item

    def gone_before_it_is_read(path, *args, **kwargs):
        if Path(path).name == _image(1):
            Path(path).unlink()
        return real(path, *args, **kwargs)

    monkeypatch.setattr(folder_run, "segment_item", gone_before_it_is_read)
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name != _image(3))
    failed = {
        Path(o.source).name: o.error for o in run_batch(job) if o.status == "failed"
    }
    assert set(failed) == {_image(i) for i in (1, 2, 3)}
    assert all(name in error for name, error in failed.items())


def test_a_pyramid_without_metadata_is_one_bad_image(tmp_path) -> None:
    zarr = pytest.importorskip("zarr")
    for level in range(3):
        zarr.create_array(tmp_path / "image" / str(level), shape=(8, 8), dtype="u1")
    assert find_images([tmp_path]) == [tmp_path / "image"]
    assert find_images([tmp_path / "image"]) == [tmp_path / "image"]
    with pytest.raises(ImageError, match="image"):
        open_image(tmp_path / "image")


def test_stopped_and_resumed_gives_the_same(job, tmp_path) -> None:
    whole = replace(job, output=str(tmp_path / "whole"))
    run_batch(whole)
    with pytest.raises(Cancelled):
        run_batch(job, on_progress=stop_after(2))
    assert read_run(Path(job.output) / "run.json")[1]["state"] == "stopped"
    assert 2 <= len(summary_of(job)) < N
    again: list[FileOutcome] = []
    run_batch(replace(job, skip_done=True), on_partial=again.extend)
    assert {o.status for o in again} == {"skipped", "running", "done", "failed"}
    assert results_of(job) == results_of(whole)
    assert without_seconds(summary_of(job)) == without_seconds(summary_of(whole))
    assert read_run(Path(job.output) / "run.json")[1]["state"] == "done"


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_run_properly(job, number) -> None:
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP)}

    def hang_up(done: int, total: int, message: str = "") -> None:
        if done >= 1:
            os.kill(os.getpid(), number)

    try:
        signal.signal(number, signal.SIG_DFL)  # the tests may run under nohup
        _stop_cleanly_when_terminated()
        with pytest.raises(SystemExit) as caught:
            run_batch(job, on_progress=hang_up)
        signal.signal(number, signal.SIG_IGN)  # as nohup does
        _stop_cleanly_when_terminated()
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)
    assert caught.value.code == 128 + number
    assert read_run(Path(job.output) / "run.json")[1]["state"] == "stopped"
    assert not any(is_temporary(p.name) for p in Path(job.output).iterdir())


def test_without_an_old_summary_the_labels_tell_what_was_found(job) -> None:
    run_batch(job)
    before = summary_of(job)
    (Path(job.output) / "summary.csv").unlink()
    run_batch(replace(job, skip_done=True))
    for old, new in zip(before, summary_of(job), strict=True):
        for column in ("file", "status", "objects", "area_mean", "area_mean_um2"):
            assert new[column] == old[column]


def outcomes_of(job: BatchJob) -> dict[str, tuple[str, bool]]:
    """Return state, and whether it was done again, of each image of a resumed run."""
    return {
        Path(o.source).name: (o.status, folder_run.AGAIN in o.notes)
        for o in run_batch(replace(job, skip_done=True))
        if o.status != "failed"
    }


@pytest.mark.parametrize("lost", [False, True], ids=["summary", "recipes"])
def test_an_image_that_was_replaced_is_done_again(job, tmp_path, lost) -> None:
    run_batch(job)
    first, second = (Path(job.inputs[0]) / f"{i}.ome.tif" for i in (0, 1))
    facts = first.stat()
    first.write_bytes(second.read_bytes())
    os.utime(first, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert first.stat().st_size == facts.st_size  # its content alone is another
    if lost:
        (Path(job.output) / "summary.csv").unlink()
    found = outcomes_of(job)
    assert found.pop("0.ome.tif") == ("done", True)
    assert set(found.values()) == {("skipped", False)}
    labels = [tifffile.imread(Path(job.output) / f"{i}_labels.ome.tif") for i in (0, 1)]
    assert np.array_equal(*labels)
    assert set(outcomes_of(job).values()) <= {("skipped", True), ("skipped", False)}


def test_results_of_other_settings_prompts_or_models_are_done_again(
    job, tmp_path, disc_scene, tiny_model
) -> None:
    one = replace(job, inputs=(f"{job.inputs[0]}/0.ome.tif",), formats=("csv",))
    run_batch(one)
    other = Prompt.from_image(*disc_scene, (20, 20), name="discs", source="discs.tif")
    save_prompts(PromptSet([other]), one.prompts, overwrite=True)
    assert outcomes_of(one) == {"0.ome.tif": ("done", True)}
    changed = replace(one, settings={**job.settings, "threshold": 0.9})
    assert outcomes_of(changed) == {"0.ome.tif": ("done", True)}
    assert outcomes_of(changed) == {"0.ome.tif": ("skipped", True)}
    assert outcomes_of(one) == {"0.ome.tif": ("done", True)}
    model = shutil.copytree(tiny_model, tmp_path / "tiny")
    moved = replace(one, model=str(model))
    assert outcomes_of(moved) == {"0.ome.tif": ("skipped", True)}  # its weights count


def test_rows_that_a_killed_run_did_not_write_are_made_again(job) -> None:
    run_batch(job)
    whole, folder = without_seconds(summary_of(job)), Path(job.output)
    rows = (folder / "summary.csv").read_text("utf-8").splitlines(keepends=True)
    (folder / "summary.csv").write_text("".join(rows[:2]), "utf-8")
    record = json.loads((folder / "run.json").read_text("utf-8"))
    record["state"] = "running"
    (folder / "run.json").write_text(json.dumps(record), "utf-8")
    run_batch(replace(job, skip_done=True), overwrite=True)
    assert without_seconds(summary_of(job)) == whole


def test_one_file_is_skipped_only_if_its_result_says_so(job) -> None:
    image = Path(job.inputs[0]) / "0.ome.tif"
    call = (image, job.prompts, job.output, job.model)
    assert not api.segment_file(*call).skipped
    assert api.segment_file(*call, skip_done=True).skipped
    assert not api.segment_file(*call, skip_done=True, threshold=0.9).skipped
    tifffile.imwrite(image, tifffile.imread(image)[::-1])
    assert not api.segment_file(*call, skip_done=True, threshold=0.9).skipped
    table = {"csv": str(Path(job.output) / "0.csv")}
    assert not api.segment_file(*call, targets=table).skipped
    again = {"targets": table, "overwrite": True}  # a table alone does not say
    assert not api.segment_file(*call, **again, skip_done=True).skipped


def test_every_format_holds_the_same_objects(job) -> None:
    images = Path(job.inputs[0])
    job = replace(
        job,
        inputs=(str(images / "0.ome.tif"),),
        formats=tuple(FORMATS),
        pattern="{folder}_{name}_{prompts}",
    )
    run_batch(job)
    stem = Path(job.output) / "images_0_discs"
    labels = tifffile.imread(f"{stem}.ome.tif")
    assert labels.any()
    assert np.array_equal(read_rois(f"{stem}.zip", labels.shape), labels)
    assert np.array_equal(read_geojson(f"{stem}.geojson", labels.shape), labels)
    with open(f"{stem}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["label"]) for row in rows] == np.unique(labels)[1:].tolist()
    seg = np.load(f"{stem}.ome_seg.npy", allow_pickle=True).item()
    assert seg["filename"] == str(images / "0.ome.tif")
    for others in (
        imread(f"{stem}.ome_cp_masks.png"),
        tifffile.imread(f"{stem}.ome_cp_masks.tif"),
        seg["masks"],
        np.load(f"{stem}.npy"),
    ):
        assert np.array_equal(others, labels)
    image = tifffile.imread(images / "0.ome.tif")
    first = labels == int(rows[0]["label"])
    assert float(rows[0]["intensity_mean"]) == pytest.approx(
        image[first].mean(), rel=1e-4
    )
    assert float(rows[0]["area_um2"]) == pytest.approx(first.sum() / 4)


def test_ome_xml_is_what_others_read(job) -> None:
    import ome_types

    images = Path(job.inputs[0])
    run_batch(replace(job, inputs=(str(images / "0.ome.tif"),)))
    pixels = ome_types.from_tiff(Path(job.output) / "0_labels.ome.tif").images[0].pixels
    assert (pixels.size_y, pixels.size_x) == (96, 96)
    assert (pixels.physical_size_x, pixels.physical_size_x_unit.value) == (0.5, "µm")


def test_the_job_file_runs_again_from_the_command_line(job, tmp_path, capsys) -> None:
    run_batch(job)
    again = tmp_path / "again"
    words = ["segment", "--job", str(Path(job.output) / "run.json"), "-o", str(again)]
    assert main(words) == 1
    assert "2.ome.tif" in capsys.readouterr().err
    assert results_of(job) == results_of(replace(job, output=str(again)))
    stored, record = read_run(again / "run.json")
    assert replace(stored, output=job.output) == job
    assert (record["state"], record["done"], record["failed"]) == ("done", 5, 1)
    assert main([*words, "images"]) == 2
    assert "--job" in capsys.readouterr().err


def test_formats_and_pattern_are_options(job, capsys) -> None:
    words = [
        "segment",
        *job.inputs,
        "--prompts",
        job.prompts,
        "-o",
        job.output,
        "--model",
        job.model,
        "--include",
        "[01]*",
        "--device",
        "cpu",
        "--no-trust",
    ]
    assert main([*words, "--formats", "rois,csv", "--pattern", "{name} cells"]) == 0
    written = sorted(p.name for p in Path(job.output).iterdir())
    assert written == sorted(
        [
            "0 cells.csv",
            "0 cells.zip",
            "1 cells.csv",
            "1 cells.zip",
            *(set(RUN_FILES) - {"prompts.svprompt"}),
        ]
    )
    assert main([*words, "--formats", "png"]) == 2
    assert main([*words, "--pattern", "cells"]) == 2
    assert main([*words, "--include", "*.czi"]) == 2
    errors = capsys.readouterr().err
    for text in (
        UNKNOWN_FORMAT.format(names="png", known=", ".join(FORMATS)),
        f"{PATTERN_FIELDS}, got 'cells'",
        NO_SUCH_IMAGE.format(folder=job.inputs[0], include="*.czi"),
    ):
        assert text in errors


@pytest.mark.parametrize("fill", [np.nan, 7.0])
def test_an_image_without_signal_is_told_of(job, tmp_path, fill) -> None:
    path = tmp_path / "blank.tif"
    tifffile.imwrite(path, np.full((64, 64), fill, np.float32))
    [outcome] = run_batch(replace(job, inputs=(str(path),)))
    note = NO_SIGNAL.format(what="the image has")
    assert outcome.notes[0] == note
    assert note in summary_of(job)[0]["note"]
    [fine] = run_batch(replace(job, inputs=(f"{job.inputs[0]}/0.ome.tif",)))
    assert fine.notes == ()


def test_a_stack_without_signal_is_told_of(job, tmp_path, disc_scene) -> None:
    path = tmp_path / "stack.tif"
    stack = np.stack([disc_scene.image, 0 * disc_scene.image])
    tifffile.imwrite(path, stack)
    [outcome] = run_batch(replace(job, inputs=(str(path),), axes="ZYX"))
    assert outcome.status == "done" and outcome.notes == ()
    blank = replace(job, inputs=(str(path),), axes="ZYX", output=job.output + "2")
    tifffile.imwrite(path, 0 * stack)
    [outcome] = run_batch(blank)
    assert outcome.notes[0] == NO_SIGNAL.format(what="2 of 2 planes have")


def test_results_among_the_images_are_no_images(job) -> None:
    images = Path(job.inputs[0])
    (images / "2.ome.tif").unlink()
    beside = replace(job, output=str(images))
    first = [o.source for o in run_batch(beside)]
    again = [o.source for o in run_batch(replace(beside, skip_done=True))]
    assert first == again and len(first) == N - 1


def test_images_of_one_name_and_replaced_images_are_refused(
    job, tmp_path, pattern
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for folder in (Path(job.inputs[0]), other):
        tifffile.imwrite(folder / "same.tif", np.zeros((4, 4), np.uint8))
    both = replace(job, inputs=(*job.inputs, str(other)))
    files = find_images(both.inputs)
    with pytest.raises(ValueError, match="same_labels"):
        check_collisions(both, files)
    check_collisions(replace(both, pattern="{folder}_{name}"), files)
    itself = replace(job, pattern="{name}", output=job.inputs[0])
    with pytest.raises(ReplaceError):
        check_collisions(itself, [Path(job.inputs[0]) / "1.ome.tif"])


def test_where_results_go() -> None:
    assert labels_path("a/b.tif", "out", "{folder}-{name}") == Path("out/a-b.ome.tif")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("", PATTERN_FIELDS),
        ("cells", PATTERN_FIELDS),
        ("{name}{x}", PATTERN_FIELDS),
        ("{name}/x", PATTERN_FOLDERS),
        ("{name", PATTERN_NOT_CLOSED),
    ],
)
def test_patterns_that_name_no_files_are_refused(names, message) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{message}, got {names!r}")):
        check_pattern(names)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"inputs": []}, NO_INPUTS),
        ({"formats": []}, NO_FORMAT),
        ({"formats": ["png"]}, UNKNOWN_FORMAT),
        ({"output": ""}, NO_OUTPUT),
        ({"settings": {"treshold": 1}}, "treshold"),
        ({"settings": {"threshold": 7}}, "threshold"),
        ({"inputs": "a.tif"}, "inputs"),
        ({"inputs": [1]}, "inputs"),
        ({"axes": []}, "axes"),
        ({"axes": 7}, "axes"),
        ({"channels": 0}, "channels"),
        ({"channels": "0"}, "channels"),
        ({"channels": ["0"]}, "channels"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_jobs_that_make_no_sense_are_refused_by_name(
    job, tmp_path, pattern, values, text
):
    path = tmp_path / "run.json"
    content = {"version": 1, "job": {**job.to_dict(), **values}}
    path.write_text(json.dumps(content))
    with pytest.raises(JobFileError, match=pattern(text)) as caught:
        read_run(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"job": 3}', '{"version": 9, "job": {}}', "[" * 99_999]
)
def test_files_that_are_no_jobs_are_refused(tmp_path, pattern, text) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(JobFileError, match=pattern(NOT_A_JOB, path=path)):
        read_run(path)


def test_a_job_and_a_summary_are_read_as_they_were_written(job, tmp_path) -> None:
    job = replace(job, formats=("rois", "csv"), channels=(0, 2), axes="CYX")
    write_run(tmp_path / "run.json", job, {})
    assert read_run(tmp_path / "run.json")[0] == job
    rows = [
        FileOutcome(
            "a.tif",
            objects=3,
            trust=0.5,
            area_mean=8.0,
            pixel_area=0.25,
            notes=("one", "two"),
            seconds=1.5,
            covered=0.1,
            area_median=7,
            area_total=24,
        ),
        FileOutcome("b, c.tif", status="failed", error="cannot be read"),
    ]
    write_summary(tmp_path / "summary.csv", rows)
    read = read_summary(tmp_path / "summary.csv")
    assert list(read) == ["a.tif"]  # what failed is tried again
    assert read["a.tif"] == replace(rows[0], status="skipped")
    assert read_summary(tmp_path / "none.csv") == {}


def test_planning_a_run_loads_no_torch() -> None:
    code = (
        "import sys, napari_svpseg.core.jobs.folder_job\n"
        "import napari_svpseg.io.folder_records, napari_svpseg.workflows.folder_run\n"
        "print([m for m in ('torch', 'qtpy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_zarr_images_are_a_format_of_folders(job, disc_scene, capsys) -> None:
    """In: OME-Zarr items among the files; out: OME-Zarr labels with a pyramid."""
    import zarr

    folder = Path(job.inputs[0])
    zarr.create_array(folder / "plain.zarr", data=disc_scene.image)
    words = ("--formats", "ome-zarr,csv", "--include", "*.zarr")
    status = main(
        [
            "segment",
            str(folder),
            "--prompts",
            job.prompts,
            "-o",
            job.output,
            "--model",
            job.model,
            *words,
        ]
    )
    assert status == 0, capsys.readouterr()
    written = Path(job.output) / "plain_labels.zarr"
    found = open_image(written).array
    again = api.segment_file(folder / "plain.zarr", job.prompts, job.output, job.model)
    assert np.array_equal(found[:], read_image(again.labels).array)
    with open(Path(job.output) / "plain_labels.csv") as file:
        assert len(file.readlines()) == found[:].max() + 1
    one = replace(job, include="*.zarr", formats=("ome-zarr",), settings={})
    (outcome,) = run_batch(one)
    (Path(job.output) / "summary.csv").unlink()
    (again,) = run_batch(replace(one, skip_done=True))
    assert not outcome.skipped and again.skipped and again.labels == str(written)
    zarr.open_array(folder / "plain.zarr")[:5] = 7
    assert outcomes_of(one) == {"plain.zarr": ("done", True)}


def test_a_zarr_too_large_for_memory_goes_from_file_to_file(
    job, disc_scene, monkeypatch
) -> None:
    import zarr

    folder = Path(job.inputs[0])
    zarr.create_array(folder / "large.zarr", data=disc_scene.image)
    monkeypatch.setattr(folder_run, "LARGE", 1000)
    large = replace(job, include="large.zarr", formats=("ome-zarr",))
    (outcome,) = run_batch(large)
    labels = open_image(outcome.labels)
    assert outcome.status == "done" and outcome.objects == labels.array[:].max() > 0
    (outcome,) = run_batch(replace(large, formats=("ome-tiff", "ome-zarr")))
    assert outcome.error == folder_run.TOO_LARGE.format(
        path=folder / "large.zarr", what=FORMAT_TITLES["ome-tiff"]
    )
