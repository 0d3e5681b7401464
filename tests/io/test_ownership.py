"""Nothing that no run of this program wrote is ever replaced."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tifffile
import zarr

from napari_svpseg.benchmark.one_shot import check_journal, save_report
from napari_svpseg.core.jobs.folder_job import BatchJob
from napari_svpseg.core.prompt import Prompt, PromptSet
from napari_svpseg.core.result import Recipe
from napari_svpseg.engine.training.episodes import PackedTasks
from napari_svpseg.io.atomic import WriteError
from napari_svpseg.io.exports import ExportData, export
from napari_svpseg.io.folder_records import write_run, write_summary
from napari_svpseg.io.label_files import write_labels
from napari_svpseg.io.model_archive import export_model
from napari_svpseg.io.model_store import (
    load_model,
    read_card,
    save_model,
    update_card,
)
from napari_svpseg.io.ownership import (
    OF_THE_SYSTEM,
    WRITTEN,
    ChangedTargetError,
    ForeignTargetError,
    Origin,
    ReplaceError,
    check_no_inputs,
    check_replaceable,
    check_work_folder,
    file_hash,
    origin,
    sealed_json,
)
from napari_svpseg.io.packed_tasks import load_tasks, save_tasks
from napari_svpseg.io.prompt_files import load_prompts, save_prompts
from napari_svpseg.io.rois import read_geojson, read_rois
from napari_svpseg.io.tables import write_table
from napari_svpseg.io.tag_files import Tags, write_tags
from napari_svpseg.io.zarr_labels import write_zarr_labels

LABELS = np.pad(np.kron(np.arange(1, 5).reshape(2, 2), np.ones((4, 4), int)), 2)
RECIPE = Recipe("svp")


def data(**values: Any) -> ExportData:
    return ExportData(LABELS, **{"recipe": RECIPE, **values})


def prompts(n: int = 1) -> PromptSet:
    image = np.kron(np.eye(2), np.full((50, 50), 200)).astype(np.uint8)
    return PromptSet([Prompt.from_image(image, image > 0, (10, 10))] * n)


def tasks() -> PackedTasks:
    packed = PackedTasks()
    image = np.zeros((64, 64, 3), np.uint8)
    packed.add("a", "a", [("a/1", image, np.eye(64, dtype=np.uint16))], instances=True)
    return packed


def exported(kind: str) -> Callable[..., Any]:
    return lambda path, model, **how: export(path, kind, data(**how))


class Writer(NamedTuple):
    """A function that writes a file or folder, and the name that it has."""

    name: str
    write: Callable[..., Any]


def a_report(path: Path, model: Path, **how: Any) -> None:
    save_report(REPORT, path.with_suffix(".json"), **how)


def a_model(path: Path, model: Path, **how: Any) -> None:
    loaded = load_model(model)
    save_model(path, loaded.network, loaded.card, **how)


RESULTS = {
    "ome-tiff": Writer("a.ome.tif", exported("ome-tiff")),
    "rois": Writer("a.zip", exported("rois")),
    "geojson": Writer("a.geojson", exported("geojson")),
    "ome-zarr": Writer("a.zarr", exported("ome-zarr")),
    "model": Writer("a", a_model),
    "model file": Writer("a.zip", lambda p, m, **how: export_model(m, p, **how)),
    "tasks": Writer("tasks.npz", lambda p, _, **how: save_tasks(p, tasks(), **how)),
    "run.json": Writer(
        "run.json",
        lambda p, _, **how: write_run(p, BatchJob(("a",), "", "b"), {"n": 1}, **how),
    ),
}
"""Results that carry a seal."""

OTHERS = {
    "csv": Writer("a.csv", exported("csv")),
    "summary": Writer("summary.csv", lambda p, _, **how: write_summary(p, [], **how)),
    "prompts": Writer(
        "a.svprompt", lambda p, _, **how: save_prompts(prompts(), p, **how)
    ),
    "tags": Writer(
        "t.csv", lambda p, _, **how: write_tags(p, Tags({"a": ["x"]}), **how)
    ),
    "report": Writer("r.md", a_report),
}
"""Files that carry none."""

REPORT: dict[str, Any] = {"recipe": {}, "tasks": [], "records": [], "summary": []}


def content(path: Path) -> dict[str, bytes]:
    files = (
        [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    )
    return {str(p): p.read_bytes() for p in files}


def foreign(path: Path) -> None:
    """Put something of the user's own at a place."""
    if path.suffix == ".zarr":
        zarr.create_array(path, data=np.arange(12).reshape(3, 4))
    elif not path.suffix:
        path.mkdir()
        (path / "model.json").write_text('{"name": "theirs"}')
    elif path.suffix in (".zip", ".npz", ".svprompt"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("thesis.txt", "years")
    elif path.suffix == ".tif":
        tifffile.imwrite(path, LABELS.astype(np.uint8))
    else:
        path.write_text('{"type": "theirs"}')


@pytest.fixture(params=[*RESULTS, *OTHERS])
def writer(request) -> Writer:
    return (RESULTS | OTHERS)[request.param]


@pytest.fixture(params=RESULTS)
def result(request) -> Writer:
    return RESULTS[request.param]


def test_what_others_wrote_is_left_alone(writer, tmp_path, tiny_model):
    path = tmp_path / writer.name
    foreign(path)
    before = content(path)
    with pytest.raises(ForeignTargetError) as caught:
        writer.write(path, tiny_model)
    assert content(path) == before
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    writer.write(path, tiny_model, overwrite=True)
    assert content(path) != before
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_links_are_left_alone(writer, tmp_path, tiny_model):
    theirs = tmp_path / f"theirs{Path(writer.name).suffix}"
    writer.write(theirs, tiny_model)
    there = theirs.with_name("t.md") if writer.name.endswith(".md") else theirs
    os.symlink(there, tmp_path / writer.name)
    with pytest.raises(ForeignTargetError):
        check_replaceable(tmp_path / writer.name)


def test_a_result_is_written_again(result, tmp_path, tiny_model):
    path = tmp_path / result.name
    result.write(path, tiny_model)
    if path.is_dir():  # by a file manager
        (path / min(OF_THE_SYSTEM)).touch()
    result.write(path, tiny_model)
    assert origin(path) is Origin.OURS


def corrected(path: Path) -> None:
    """Change a result as other programs do: what they do not know stays as it is."""
    if path.suffix == ".tif":
        with tifffile.TiffFile(path) as file:
            about, pixels = file.pages.first.description, file.asarray()
        pixels[0, 0] = 9
        tifffile.imwrite(path, pixels, description=about.encode(), metadata=None)
    elif path.suffix == ".zarr":
        zarr.open_array(path / "0", mode="r+")[0, 0] = 9
    elif path.is_dir():
        with (path / "README.md").open("a") as file:
            file.write("Trained on slides of ward 7.")
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("more.roi", b"1")
    else:
        path.write_text(path.read_text().replace("1", "2", 1))


def test_a_corrected_result_is_kept(result, tmp_path, tiny_model):
    path = tmp_path / result.name
    result.write(path, tiny_model)
    corrected(path)
    before = content(path)
    with pytest.raises(ChangedTargetError) as caught:
        result.write(path, tiny_model)
    assert content(path) == before
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    result.write(path, tiny_model, overwrite=True)
    assert origin(path) is Origin.OURS


@pytest.mark.parametrize("kind", ["ome-tiff", "rois", "geojson", "ome-zarr"])
def test_what_a_user_saves_is_no_result_of_a_run(kind, tmp_path):
    path = tmp_path / RESULTS[kind].name
    export(path, kind, data(sealed=False))
    assert origin(path) is not Origin.OURS


def test_sealed_files_are_read_as_before(tmp_path, tiny_model):
    path = write_labels(tmp_path / "a.ome.tif", LABELS, recipe=RECIPE)
    assert np.array_equal(tifffile.imread(path), LABELS)
    for kind, read in (("rois", read_rois), ("geojson", read_geojson)):
        path = tmp_path / RESULTS[kind].name
        export(path, kind, data())
        assert np.array_equal(read(path, LABELS.shape), LABELS)
    export(tmp_path / "none.geojson", "geojson", ExportData(0 * LABELS))
    assert json.loads((tmp_path / "none.geojson").read_text())["features"] == []
    save_tasks(tmp_path / "tasks.npz", tasks())
    assert load_tasks(tmp_path / "tasks.npz").index == tasks().index


def test_a_store_with_anything_else_in_it_is_kept(tmp_path):
    path = write_zarr_labels(tmp_path / "a.zarr", LABELS, axes="YX")
    zarr.create_array(path / "labels" / "theirs", data=LABELS)
    assert origin(path) is Origin.FOREIGN
    shutil.rmtree(path / "labels" / "theirs")
    assert origin(path) is Origin.OURS
    (path / "notes.txt").write_text("mine")
    assert origin(path) is Origin.CHANGED


def test_the_content_of_a_prompt_file_is_kept(tmp_path):
    path = save_prompts(prompts(1), tmp_path / "a.svprompt")
    stamp = path.stat().st_mtime_ns
    save_prompts(prompts(1), path)  # there is nothing to lose
    assert path.stat().st_mtime_ns == stamp
    with pytest.raises(ForeignTargetError):
        save_prompts(prompts(2), path)
    assert len(load_prompts(path)) == 1


@pytest.mark.parametrize("ledger", ["run.json", "summary.json"])
def test_files_without_a_seal_are_known_by_their_hash(tmp_path, ledger):
    path = tmp_path / "a.csv"
    write_table(path, {"id": np.arange(3)})
    with pytest.raises(ForeignTargetError):
        write_table(path, {"id": np.arange(3)})
    sealed_json(tmp_path / ledger, {WRITTEN: {"a.csv": file_hash(path)}})
    write_table(path, {"id": np.arange(3)})
    path.write_text("id\n7\n")
    with pytest.raises(ChangedTargetError):
        write_table(path, {"id": np.arange(3)})


def test_a_report_knows_its_tables(tmp_path):
    save_report(REPORT, tmp_path / "r.json")
    save_report(REPORT | {"recipe": {"seed": 1}}, tmp_path / "r.json")
    (tmp_path / "r.md").write_text("my conclusions")
    with pytest.raises(ChangedTargetError):
        save_report(REPORT, tmp_path / "r.json")
    (tmp_path / "x.jsonl").write_text('{"theirs": 1}\n')
    with pytest.raises(ForeignTargetError):
        check_journal(tmp_path / "x.json", overwrite=False)


def test_a_file_that_appears_meanwhile_is_kept(tmp_path, monkeypatch):
    path = tmp_path / "a.ome.tif"
    write = tifffile.imwrite

    def meanwhile(target, *args, **kwargs):
        write(target, *args, **kwargs)
        path.write_text("theirs")

    monkeypatch.setattr(tifffile, "imwrite", meanwhile)
    with pytest.raises(ForeignTargetError):
        write_labels(path, LABELS)
    assert path.read_text() == "theirs"


def test_a_folder_does_not_take_the_place_of_a_file(tmp_path, tiny_model):
    (tmp_path / "m").write_text("mine")
    with pytest.raises(WriteError):
        a_model(tmp_path / "m", tiny_model, overwrite=True)
    assert content(tmp_path) == {str(tmp_path / "m"): b"mine"}


@pytest.mark.parametrize("inside", ["README.md", "data/", ".git/config"])
def test_no_folder_of_anything_else_is_ever_replaced(tmp_path, inside):
    folder = tmp_path / "home"
    (folder / inside).parent.mkdir(parents=True)
    (folder / inside).mkdir() if inside.endswith("/") else (folder / inside).touch()
    with pytest.raises(ForeignTargetError):
        check_replaceable(folder, overwrite=True)
    shutil.rmtree(folder)
    folder.mkdir()
    check_replaceable(folder)  # an empty one holds nothing


def test_a_model_card_is_updated_and_a_readme_of_the_user_kept(tmp_path, tiny_model):
    a_model(tmp_path / "m", tiny_model)
    update_card(read_card(tmp_path / "m"))
    assert origin(tmp_path / "m") is Origin.OURS
    (tmp_path / "m" / "README.md").write_text("Ours, of ward 7.")
    update_card(read_card(tmp_path / "m"))
    assert (tmp_path / "m" / "README.md").read_text() == "Ours, of ward 7."
    assert origin(tmp_path / "m") is Origin.CHANGED
    load_model(tmp_path / "m")


@pytest.mark.parametrize("link", [os.symlink, os.link, None])
def test_no_result_is_a_file_that_is_read(tmp_path, link):
    image, target = tmp_path / "a.tif", tmp_path / "out" / "a.tif"
    image.touch()
    target.parent.mkdir()
    check_no_inputs([target], [image])
    if link is None:  # another way to the same file
        target = tmp_path / "out" / ".." / "a.tif"
    else:
        link(image, target)
    with pytest.raises(ReplaceError):
        check_no_inputs([target], [image])
    with pytest.raises(ReplaceError):  # a folder that holds it
        check_no_inputs([tmp_path], [image])


def test_only_a_runs_own_work_is_emptied(tmp_path):
    check_work_folder(tmp_path / "none", ["first"])
    (tmp_path / "first").mkdir()
    check_work_folder(tmp_path, ["first"])
    (tmp_path / "images").mkdir()
    with pytest.raises(ForeignTargetError):
        check_work_folder(tmp_path, ["first"])
