"""What the dock "Batch" decides, without a window."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import tifffile

from napari_svpseg.core.jobs.folder_job import FileOutcome
from napari_svpseg.core.model_card import ModelCard
from napari_svpseg.core.prompt import PromptSet
from napari_svpseg.io.folder_records import write_run
from napari_svpseg.io.prompt_files import save_prompts
from napari_svpseg.plugin.docks import batch_controller as module
from napari_svpseg.plugin.docks.batch_controller import (
    BatchController,
    BatchForm,
    result_text,
)
from napari_svpseg.plugin.messages import NO_MODEL, STARTING, STOPPING

from . import jobs

CARD = ModelCard("svp", "svp")


class Files:
    """What `FileTable` is for a controller."""

    def __init__(self):
        self.paths, self.outcomes = [], {}

    def set_paths(self, paths):
        self.paths, self.outcomes = [str(p) for p in paths], {}

    def show(self, outcomes):
        self.outcomes |= {o.source: o for o in outcomes}

    def count(self, *statuses):
        return sum(o.status in statuses for o in self.outcomes.values())

    def forget_running(self):
        self.outcomes = {
            p: o for p, o in self.outcomes.items() if o.status != "running"
        }


class View(jobs.View):
    """What the dock is for its controller; its controls are a `BatchForm`."""

    def __init__(self):
        super().__init__()
        self.values = BatchForm(
            CARD, {"device": "cpu"}, "", ("ome-tiff",), "{name}", "*", "", "", False
        )
        self.inputs = self.prompts = ""
        self.log, self.models = [], ["svp"]

    def form(self):
        return self.values

    def show_inputs(self, text, tip=""):
        self.inputs = text

    def show_channel_names(self, names):
        self.channel_names = names

    def show_prompts(self, text):
        self.prompts = text

    def show_output(self, folder):
        self.values = replace(self.values, output=folder)

    def choose_model(self, model):
        return model in self.models

    def show_settings(self, settings):
        self.values = replace(self.values, settings=settings)

    def show_job(self, job):
        self.values = replace(
            self.values, output=job.output, settings=job.settings, pattern=job.pattern
        )

    def skip_done(self):
        self.values = replace(self.values, skip_done=True)

    def add_log(self, line):
        self.log.append(line)


@pytest.fixture
def images(tmp_path, disc_scene) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(3):
        tifffile.imwrite(folder / f"{i}.tif", disc_scene.image)
    return folder


@pytest.fixture
def prompts_file(tmp_path, disc_prompt) -> str:
    return str(save_prompts(PromptSet([disc_prompt]), tmp_path / "discs.svprompt"))


@pytest.fixture
def batch():
    view, engine = View(), jobs.Engine()
    return BatchController(view, engine, Files())


@pytest.fixture
def ready(batch, images, prompts_file):
    batch.set_inputs((str(images),))
    assert batch.load_prompts(prompts_file)
    return batch


def outcomes(batch, *statuses):
    return [
        FileOutcome(
            path,
            status=status,
            objects=2 if status == "done" else -1,
            error="cannot be read.",
        )
        for path, status in zip(batch.files.paths, statuses, strict=False)
    ]


def test_it_leads_from_step_to_step(batch, images, prompts_file):
    view = batch.view
    assert not batch.can_start
    batch.say_next_step()
    assert view.message == module.BEGIN
    batch.set_inputs((str(images),))
    assert view.message == module.CHOOSE_PROMPTS and view.inputs == "3 images of images"
    assert view.values.output == str(images.with_name("images_svpseg"))
    assert batch.can_start
    batch.start()
    assert view.message == module.NO_PROMPTS and view.is_error
    batch.load_prompts(prompts_file)
    assert view.message == module.START.format(images="3 images")
    assert view.prompts == "1 prompt of discs.svprompt"


def test_what_cannot_be_read_is_one_line(batch, images, tmp_path):
    view = batch.view
    (tmp_path / "bad.svprompt").write_bytes(b"no zip")
    assert not batch.load_prompts(str(tmp_path / "bad.svprompt"))
    assert view.is_error and "\n" not in view.message
    (tmp_path / "empty").mkdir()
    batch.set_inputs((str(tmp_path / "empty"),))
    assert view.is_error and batch.files.paths == [] and not batch.can_start


def test_a_folder_of_ones_own_for_the_results_stays(batch, images, tmp_path):
    batch.set_inputs((str(images),))
    batch.view.show_output(str(tmp_path / "mine"))
    batch.set_inputs((str(images / "0.tif"),))
    assert batch.view.values.output == str(tmp_path / "mine")


def test_results_go_where_the_viewer_is_not_the_engine(ready, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ready.view.show_output("results")
    assert ready.batch_job().output == os.path.join(tmp_path, "results")


def test_the_run_is_followed_to_its_end(ready):
    ready.start()
    view, (job,) = ready.view, ready.engine.jobs
    assert view.message == STARTING and view.is_busy
    ready.start()  # it runs already
    assert len(ready.engine.jobs) == 1
    ((told, prompts), _) = job.prepare()
    assert told == ready.batch_job() and prompts is None
    job.partial.emit(outcomes(ready, "running"))
    assert view.log == []
    job.partial.emit(outcomes(ready, "done", "failed"))
    assert view.log == ["0.tif: 2 objects", "1.tif: cannot be read."]
    job.progressed.emit(2, 3, "")
    assert view.progress == (2, 3, "2 of 3")
    assert view.message == "2 of 3 images done, 1 could not be done."
    job.end("returned", outcomes(ready, "done", "failed", "done"))
    assert view.message.startswith("2 of 3 images done, 4 objects. All in ")
    assert not view.is_error and not view.is_busy and not ready.is_stopped


def test_a_stopped_run_is_resumed(ready):
    ready.start()
    job = ready.engine.jobs[0]
    job.partial.emit(outcomes(ready, "done", "running"))
    ready.cancel()
    assert job.is_cancelled and ready.view.message == STOPPING
    job.progressed.emit(2, 3, "")
    assert ready.view.message == STOPPING  # not that two are done
    job.end("cancelled")
    assert ready.view.message == module.STOPPED.format(images="1 image")
    assert ready.is_stopped and ready.view.values.skip_done
    assert ready.files.count("running") == 0
    ready.start()
    assert not ready.is_stopped
    ready.engine.jobs[1].end("failed", "the disk is full")
    assert ready.view.is_error and not ready.is_stopped  # nothing is done


def test_prompts_model_and_settings_come_from_the_other_dock(batch, disc_prompt):
    batch.take_from(None)
    assert batch.view.message == module.OPEN_SEGMENT and batch.view.is_error

    def no_prompts():
        raise ValueError("draw a box")

    dock = SimpleNamespace(
        book=SimpleNamespace(prompts=no_prompts),
        model=SimpleNamespace(currentText=lambda: "svp"),
        models=SimpleNamespace(takes_prompts=True),
        settings=lambda: {"threshold": 0.7},
    )
    batch.take_from(dock)
    assert batch.view.message == "Draw a box" and not batch.has_prompts
    dock.book.prompts = lambda: PromptSet([disc_prompt])
    batch.take_from(dock)
    assert batch.has_prompts and batch.view.prompts == "1 prompt of the dock"
    assert batch.view.values.settings == {"threshold": 0.7}
    dock.models.takes_prompts = False
    batch.take_from(dock)
    assert not batch.has_prompts and batch.view.prompts == module.NEEDS_NONE


def test_a_model_that_needs_no_prompts_runs_without(ready):
    ready.prompts, ready.prompts_file = None, ""
    with pytest.raises(ValueError, match=module.NO_PROMPTS.partition(":")[0]):
        ready.batch_job()
    model = replace(CARD, needs_prompt=False)
    ready.view.values = replace(ready.view.values, model=model)
    assert ready.batch_job().prompts == ""
    ready.follow_model()
    assert ready.view.message == module.START.format(images="3 images")


def test_prompts_of_the_dock_go_to_the_run_which_saves_them(ready, disc_prompt):
    ready.prompts, ready.prompts_file = PromptSet([disc_prompt]), ""
    ready.start()
    ((told, prompts), _) = ready.engine.jobs[0].prepare()
    assert told.prompts == "" and prompts is ready.prompts
    assert not Path(told.output).exists()  # nothing is written before it is locked


def test_a_job_file_goes_on_another_day(ready, tmp_path):
    path = tmp_path / "run.json"
    ready.view.values = replace(ready.view.values, pattern="{name} cells")
    job = ready.batch_job()
    write_run(path, job, {})
    other = BatchController(View(), jobs.Engine(), Files())
    other.load_job(str(path))
    assert other.view.message == module.GOES_ON.format(images="3 images")
    assert other.batch_job() == replace(job, skip_done=True)
    other.view.models = []
    other.load_job(str(path))
    assert other.view.message == module.NOT_INSTALLED.format(model="svp")
    (tmp_path / "x.json").write_text("{}")
    other.load_job(str(tmp_path / "x.json"))
    assert other.view.is_error


def test_no_model_is_said(ready):
    ready.view.values = replace(ready.view.values, model=None)
    with pytest.raises(ValueError, match=NO_MODEL):
        ready.batch_job()


def test_the_message_at_the_end_names_some_failed_files(batch):
    files = [FileOutcome(f"{i}.tif", status="failed", error="bad") for i in range(5)]
    text = result_text([*files, FileOutcome("a.tif", status="skipped")], "out")
    assert text == (
        "1 of 6 images done, 0 objects. All in out. 1 had been done before. "
        "Not done: 0.tif, 1.tif, 2.tif and 2 more; point at a row to see why."
    )
