"""The dock "Batch": choose, start, stop, resume; a bad file; thousands of files."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import Qt

from napari_svpseg.core.jobs.folder_job import FileOutcome
from napari_svpseg.core.prompt import PromptSet
from napari_svpseg.io.folder_records import read_run, read_summary
from napari_svpseg.io.prompt_files import save_prompts
from napari_svpseg.plugin.docks.batch_controller import (
    BEGIN,
    CHOOSE_PROMPTS,
    GOES_ON,
    NO_PROMPTS,
    OPEN_SEGMENT,
    START,
    STOPPED,
)
from napari_svpseg.plugin.docks.batch_dock import BatchWidget
from napari_svpseg.plugin.layers.metadata import layer_id, metadata_of
from napari_svpseg.plugin.messages import DRAW_BOX, count
from napari_svpseg.plugin.panels.file_table import WARN_COLOR, FileTable
from napari_svpseg.plugin.services.engine_process import Engine
from napari_svpseg.workflows import folder_run
from napari_svpseg.workflows.identity import image_identity

N = 5


@pytest.fixture
def folder(tmp_path: Path, disc_scene) -> Path:
    """Return a folder of five images, the second of them unreadable."""
    images = tmp_path / "images"
    images.mkdir()
    for i in range(N):
        tifffile.imwrite(images / f"{i}.tif", np.roll(disc_scene.image, 7 * i, axis=0))
    (images / "1.tif").write_bytes(b"no image")
    return images


@pytest.fixture
def prompts_file(tmp_path: Path, disc_prompt) -> str:
    return str(save_prompts(PromptSet([disc_prompt]), tmp_path / "discs.svprompt"))


@pytest.fixture
def dock(viewer, tiny_model, monkeypatch, in_process):
    from napari_svpseg.io import model_store

    card = model_store.find_model(tiny_model)
    monkeypatch.setattr(model_store, "list_models", lambda folders=None: [card])
    widget = BatchWidget(viewer, Engine(lambda: in_process))
    viewer.window.add_dock_widget(widget, name="Batch")
    yield widget


@pytest.fixture
def wait_for_end(qtbot):
    def wait(dock: BatchWidget) -> None:
        qtbot.waitUntil(lambda: not dock.is_busy, timeout=60_000)

    return wait


@pytest.fixture
def slow(monkeypatch):
    """Let each file take 0.1 s and write what `segment_file` would, without a model."""
    done: list[str] = []
    lock = threading.Lock()

    def segment_file(path, prompts, out, model, *, targets, on_progress, **settings):
        for _ in range(10):
            on_progress(0, 1)
            time.sleep(0.01)
        Path(targets["ome-tiff"]).write_bytes(b"II*")
        with lock:
            done.append(Path(path).name)
        made = image_identity(settings["made_of"], path)
        first = targets["ome-tiff"]
        return FileOutcome(str(path), first, objects=2, trust=0.9, fingerprint=made)

    monkeypatch.setattr(folder_run, "segment_file", segment_file)
    return done


def statuses(dock: BatchWidget) -> list[str]:
    return [dock.files.status(row) for row in range(dock.files.rowCount())]


def ready(dock: BatchWidget, folder: Path, prompts_file: str) -> None:
    dock.set_folder(str(folder))
    dock.load_prompts(prompts_file)


def test_series_of_files_are_listed_and_chosen(dock, tmp_path, prompts_file) -> None:
    path = tmp_path / "multi.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for n in range(3):
            plane = np.full((96, 96), n, np.uint8)
            tiff.write(plane, metadata={"axes": "YX", "Name": f"Pos{n}"})
    dock.set_files((str(path),))
    assert dock.files.paths == [str(path)]
    for text, chosen in (("all", "012"), ("2, 0", "20")):
        dock.series.setCurrentText(text)
        dock.controller.list_files()
        assert dock.files.paths == [str(path / n) for n in chosen]
    dock.load_prompts(prompts_file)
    assert dock.controller.batch_job().series == "2, 0"
    dock.show_job(dock.controller.batch_job())
    assert dock.form().series == "2, 0"
    dock.series.setCurrentText("some")
    dock.controller.list_files()
    assert dock.files.paths == []
    dock.series.setCurrentIndex(0)
    assert dock.form().series == ""
    dock.series.setCurrentText("2")
    dock.controller.list_files()
    dock.open_file(0)
    layer = dock.viewer.layers[-1]
    assert layer.data.max() == 2
    dock.open_file(0)  # is open already
    assert len(dock.viewer.layers) == 1


def test_names_of_channels_may_be_typed(dock, tmp_path, prompts_file) -> None:
    path = tmp_path / "a.ome.tif"
    names = {"Channel": {"Name": ["DAPI", "GFP"]}}
    data = np.zeros((2, 96, 96), np.uint8)
    tifffile.imwrite(
        path, data, metadata={"axes": "CYX", **names}, photometric="minisblack"
    )
    dock.set_files((str(path),))
    assert "1 GFP" in dock.channels.placeholderText()
    dock.load_prompts(prompts_file)
    dock.channels.setText("gfp")
    assert dock.controller.batch_job().channels == (1,)


def test_white_is_zero_is_shown_as_it_is_segmented(dock, tmp_path) -> None:
    path = tmp_path / "a.tif"
    stored = np.arange(100, dtype=np.uint8).reshape(10, 10)
    tifffile.imwrite(path, stored, photometric="miniswhite")
    dock.set_files((str(path),))
    dock.open_file(0)
    np.testing.assert_array_equal(dock.viewer.layers[-1].data, 255 - stored)


def test_it_leads_from_step_to_step(dock, folder, prompts_file) -> None:
    assert not dock.start.isEnabled() and not dock.stop.isVisibleTo(dock)
    assert dock.message.text() == BEGIN
    dock.set_folder(str(folder))
    assert dock.message.text() == CHOOSE_PROMPTS
    assert dock.output.text() == str(folder.with_name("images_svpseg"))
    assert statuses(dock) == ["waiting"] * N
    dock.start.click()
    assert dock.message.text() == NO_PROMPTS and not dock.is_busy
    dock.load_prompts(prompts_file)
    assert dock.prompts_line.text() == "1 prompt of discs.svprompt"
    assert dock.message.text() == START.format(images="5 images")
    dock.include.setText("[0-2].tif")
    dock.include.editingFinished.emit()
    assert statuses(dock) == ["waiting"] * 3


def test_a_folder_runs_and_the_bad_file_is_marked(
    dock, folder, prompts_file, wait_for_end, viewer
) -> None:
    ready(dock, folder, prompts_file)
    dock.formats["rois"].setChecked(True)
    dock.run_settings.set_values({"trust": False})
    dock.start.click()
    assert not dock.start.isEnabled() and dock.stop.isVisibleTo(dock)
    wait_for_end(dock)
    assert statuses(dock) == ["done", "failed", *["done"] * 3]
    assert "4 of 5 images done" in dock.message.text()
    assert "1.tif" in dock.message.text() and "cannot be read" in dock.files.details(1)
    assert "1.tif" in dock.log.toPlainText()
    out = Path(dock.output.text())
    assert len(list(out.glob("*_labels.ome.tif"))) == 4
    assert len(list(out.glob("*_labels.zip"))) == 4
    job, record = read_run(out / "run.json")
    assert (record["done"], record["failed"]) == (4, 1)
    assert job.settings["trust"] is False and job.formats == ("ome-tiff", "rois")
    dock.open_file(3)
    image, labels = viewer.layers
    assert (image._type_string, labels._type_string) == ("image", "labels")
    known = metadata_of(labels, "labels")
    assert known["recipe"] and known["source_id"] == layer_id(image)
    dock.open_file(0)
    shown = [layer for layer in viewer.layers if layer.visible]
    assert len(viewer.layers) == 4 and shown == list(viewer.layers)[2:]
    dock.open_file(3)  # it is there already
    shown = [layer for layer in viewer.layers if layer.visible]
    assert len(viewer.layers) == 4 and shown == list(viewer.layers)[:2]


def test_results_of_another_folder_go_elsewhere(dock, folder, tmp_path) -> None:
    dock.set_folder(str(folder))
    assert dock.output.text() == str(tmp_path / "images_svpseg")
    other = tmp_path / "plate 2"
    folder.rename(other)
    dock.set_folder(str(other))
    assert dock.output.text() == str(tmp_path / "plate 2_svpseg")
    dock.set_output(str(tmp_path / "mine"))
    other.rename(folder)
    dock.set_folder(str(folder))
    assert dock.output.text() == str(tmp_path / "mine")


def test_stop_keeps_what_is_done_and_resume_does_the_rest(
    dock, folder, prompts_file, slow, qtbot, wait_for_end
) -> None:
    ready(dock, folder, prompts_file)
    dock.start.click()
    qtbot.waitUntil(lambda: dock.files.count("done") >= 1, timeout=20_000)
    dock.stop.click()
    wait_for_end(dock)
    first = list(slow)
    assert 1 <= len(first) < N
    assert "running" not in statuses(dock) and "waiting" in statuses(dock)
    assert dock.start.text() == "Resume"
    known = count(dock.files.count("done"), "image")  # one more may be written
    assert dock.message.text() == STOPPED.format(images=known)
    summary = Path(dock.output.text()) / "summary.csv"
    assert {Path(name).name for name in read_summary(summary)} == set(first)
    dock.start.click()
    wait_for_end(dock)
    assert sorted(slow) == [f"{i}.tif" for i in range(N)]  # none was done twice
    assert statuses(dock).count("kept") == len(first)
    assert set(statuses(dock)) == {"kept", "done"}
    assert len(read_summary(summary)) == N and dock.start.text() == "Start"


def test_another_day_the_job_file_goes_on(
    dock, folder, prompts_file, slow, wait_for_end, viewer, tiny_model
) -> None:
    ready(dock, folder, prompts_file)
    dock.pattern.setText("{name} cells")
    dock.axes.setText("yx")
    dock.options.set_values({"threshold": 0.7})
    dock.start.click()
    wait_for_end(dock)
    other = BatchWidget(viewer, dock.engine)
    viewer.window.add_dock_widget(other, name="Batch 2")
    other.load_job(str(Path(dock.output.text()) / "run.json"))
    assert other.controller.batch_job() == dock.controller.batch_job()
    assert other.files.paths == dock.files.paths
    assert other.message.text() == GOES_ON.format(images="5 images")
    slow.clear()
    other.start.click()
    wait_for_end(other)
    assert slow == [] and set(statuses(other)) == {"kept"}
    assert "5 had been done before" in other.message.text()


def test_prompts_come_from_the_other_dock(
    dock, open_dock, folder, discs, slow, wait_for_end
) -> None:
    dock.take.click()
    assert dock.message.text() == OPEN_SEGMENT
    segment = open_dock()
    dock.take.click()
    assert dock.message.text() == DRAW_BOX
    segment.prompt_panel.add_prompt_at_centre()
    segment.options.set_values({"threshold": 0.65})
    dock.take.click()
    assert dock.prompts_line.text() == "1 prompt of the dock"
    dock.set_folder(str(folder))
    dock.start.click()
    wait_for_end(dock)
    job, _ = read_run(Path(dock.output.text()) / "run.json")
    assert job.settings["threshold"] == 0.65
    assert Path(job.prompts).name == "prompts.svprompt" and Path(job.prompts).exists()


def test_what_cannot_run_is_said_before_it_starts(
    dock, folder, prompts_file, tmp_path
) -> None:
    ready(dock, folder, prompts_file)
    for change, text in (
        (lambda: dock.pattern.setText("cells"), "holds {name}"),
        (lambda: dock.formats["ome-tiff"].setChecked(False), "at least one format"),
        (lambda: dock.channels.setText("9, x"), "up to three channels"),
    ):
        change()
        dock.start.click()
        assert text in dock.message.text() and not dock.is_busy
        dock.pattern.setText("{name}_labels")
        dock.formats["ome-tiff"].setChecked(True)
        dock.channels.setText("")
    (tmp_path / "empty").mkdir()
    dock.set_folder(str(tmp_path / "empty"))
    assert "holds no image" in dock.message.text() and not dock.start.isEnabled()
    (tmp_path / "x.json").write_text("{}")
    dock.load_job(str(tmp_path / "x.json"))
    assert "no job file" in dock.message.text()


def test_closing_the_dock_ends_the_run(
    dock, folder, prompts_file, slow, qtbot, viewer
) -> None:
    ready(dock, folder, prompts_file)
    dock.start.click()
    qtbot.waitUntil(lambda: dock.files.count("running") > 0, timeout=20_000)
    viewer.window.remove_dock_widget(dock)
    qtbot.waitUntil(lambda: not dock.is_busy)
    assert len(slow) < N


def test_a_thousand_files_are_shown_at_once(dock, tmp_path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(1000):
        (folder / f"{i:04}.tif").touch()
    start = time.process_time()
    dock.set_folder(str(folder))
    assert dock.files.rowCount() == 1000
    dock.files.show(FileOutcome(p, objects=3) for p in dock.files.paths)
    dock.table.viewport().repaint()
    assert time.process_time() - start < 1.0
    assert dock.files.count("done") == 1000


def test_the_table_tells_what_needs_a_look() -> None:
    table = FileTable()
    table.set_paths(["a/1.tif", "a/2.tif", "a/3.tif", "a/4.tif"])
    table.show(
        [
            FileOutcome("a/1.tif", objects=7, trust=0.91, seconds=1.25, area_mean=40.2),
            FileOutcome("a/2.tif", objects=0, trust=0.1),
            FileOutcome("a/3.tif", status="failed", error="a/3.tif: cannot be read."),
            FileOutcome("elsewhere.tif", objects=1),
        ]
    )

    def cells(row: int) -> list[str]:
        return [table.data(table.index(row, c)) for c in range(4)]

    def color(row: int):
        return table.data(table.index(row, 0), Qt.ItemDataRole.ForegroundRole)

    assert cells(0) == ["1", "done", "7", "0.91"] and color(0) is None
    assert table.details(0) == "a/1.tif\nmean area 40 pixels\n1.2 s"
    assert cells(1)[2] == "0" and color(1).name() == WARN_COLOR
    assert cells(2) == ["3", "failed", "", ""]
    assert color(2) is not None and "cannot be read" in table.details(2)
    assert cells(3) == ["4", "waiting", "", ""]


def test_zarr_images_and_labels(
    dock, folder, prompts_file, disc_scene, wait_for_end, tmp_path
) -> None:
    import zarr

    zarr.create_array(folder / "plain.zarr", data=disc_scene.image)
    dock.include.setText("*.zarr")
    dock.set_folder(str(folder))
    assert dock.files.paths == [str(folder / "plain.zarr")]
    dock.load_prompts(prompts_file)
    dock.set_output(str(tmp_path / "out"))
    dock.formats["ome-tiff"].setChecked(False)
    dock.formats["ome-zarr"].setChecked(True)
    dock.start.click()
    wait_for_end(dock)
    assert "1 of 1 image done" in dock.message.text(), dock.message.text()
    dock.open_file(0)
    image, labels = dock.viewer.layers
    assert image.data.shape == labels.data.shape == (96, 96)
    assert not isinstance(labels.data, np.ndarray) and labels.name == "plain_labels"
