"""Controller of the dock "Batch"."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ...core.image import ImageError
from ...core.jobs.folder_job import BatchJob, FileOutcome, file_label
from ...io.folder_records import check_collisions, find_images, read_run
from ...io.ome_zarr import is_zarr, read_channel_names
from ...workflows.folder_run import run_batch
from ..callbacks import reports_errors
from ..messages import NO_MODEL, STARTING, STOPPING, count, sentence
from ..panels.channel_text import parse_channels
from .controller import DockController, DockView

if TYPE_CHECKING:
    from ...core.model_card import ModelCard
    from ...core.prompt import PromptSet
    from ..panels.file_table import FileTable
    from ..services.engine_process import Engine
    from .segment_dock import SegmentWidget

BEGIN = "Choose a folder of images, prompts, and a folder for the results."
CHOOSE_PROMPTS = "Now choose prompts: take them from the dock or from a file."
NO_PROMPTS = "Choose prompts first: take them from the dock or from a file."
NEEDS_NONE = "The model needs no prompts."
OPEN_SEGMENT = "Open 'Segment from prompts' first and try your prompts there."
START = "Press Start to segment {images}."
GOES_ON = "{images} of this job. Start does those that are not done yet."
NOT_INSTALLED = "The model of this job is not installed: {model}."
STOPPED = "Stopped with {images} done. Resume goes on from there."

N_CHANNELS = 64
"""Most channels that a file may be expected to have."""
N_NAMED = 3
"""Failed files that are named in the message."""


@dataclass(frozen=True)
class BatchForm:
    """The values of the controls."""

    model: ModelCard | None
    settings: dict[str, Any]
    output: str
    formats: tuple[str, ...]
    pattern: str
    include: str
    axes: str
    channels: str
    skip_done: bool
    series: str = ""


class BatchView(DockView, Protocol):
    """The dock, as its controller sees it."""

    def form(self) -> BatchForm:
        """Return the values of the controls."""

    def show_inputs(self, text: str, tip: str = "") -> None:
        """Show which images are taken."""

    def show_channel_names(self, names: tuple[str, ...]) -> None:
        """Show the names of the channels of the first image."""

    def show_prompts(self, text: str) -> None:
        """Show which prompts are taken."""

    def show_output(self, folder: str) -> None:
        """Show the folder for the results."""

    def choose_model(self, model: str) -> bool:
        """Choose a model by name or folder; return whether it is installed."""

    def show_settings(self, settings: dict[str, Any]) -> None:
        """Show settings of a run."""

    def show_job(self, job: BatchJob) -> None:
        """Show all values of a job but model, images and prompts."""

    def skip_done(self) -> None:
        """Show that images that are done are skipped."""

    def add_log(self, line: str) -> None:
        """Add a line to the log."""


@reports_errors("list_files", "start", "cancel")
class BatchController(DockController):
    """Segments all images of a folder with the same prompts.

    Parameters
    ----------
    view : BatchView
    engine : Engine
    files : FileTable
        The files and what became of each.
    """

    view: BatchView

    def __init__(self, view: BatchView, engine: Engine, files: FileTable) -> None:
        super().__init__(view, engine)
        self.files = files
        self.inputs: tuple[str, ...] = ()
        self.channel_names: tuple[str, ...] = ()
        self.prompts_file = ""
        self.prompts: PromptSet | None = None
        self.is_stopped = False
        self._is_stopping = False
        self._suggested = ""

    @property
    def can_start(self) -> bool:
        """Whether there are images and a folder for the results."""
        return bool(self.files.paths) and bool(self.view.form().output)

    @property
    def has_prompts(self) -> bool:
        """Whether prompts were chosen."""
        return self.prompts is not None or bool(self.prompts_file)

    @property
    def lacks_prompts(self) -> bool:
        """Whether the model needs prompts, and none were chosen."""
        model = self.view.form().model
        return not self.has_prompts and (model is None or model.takes_prompts)

    def batch_job(self) -> BatchJob:
        """Return the job that the controls describe.

        Raises
        ------
        ValueError
            If something is missing or wrong; the message says what.
        """
        form = self.view.form()
        # the engine has another working directory
        output = str(Path(form.output).expanduser().absolute()) if form.output else ""
        if self.lacks_prompts:
            raise ValueError(NO_PROMPTS)
        if form.model is None:
            raise ValueError(NO_MODEL)
        return BatchJob(
            inputs=self.inputs,
            prompts=self.prompts_file,
            output=output,
            model=form.model.path or form.model.name,
            settings=form.settings,
            formats=form.formats,
            pattern=form.pattern,
            include=form.include or "*",
            axes=form.axes.upper() or None,
            series=form.series,
            channels=parse_channels(form.channels, N_CHANNELS, self.channel_names),
            skip_done=form.skip_done,
        )

    # ------------------------------------------------------------ choosing

    def set_inputs(self, paths: tuple[str, ...]) -> None:
        """Take the images of a folder, or single files; suggest where results go."""
        self.inputs = tuple(paths)
        if self.view.form().output in ("", self._suggested):
            first = Path(paths[0])
            is_folder = first.is_dir() and not is_zarr(first)
            parent = first if is_folder else first.parent
            self._suggested = str(parent.with_name(f"{parent.name}_svpseg"))
            self.view.show_output(self._suggested)
        self.list_files()

    def list_files(self) -> None:
        """List the files that a run would take."""
        if not self.inputs or self.is_busy:
            return
        try:
            form = self.view.form()
            masks: list[Path] = []
            found = find_images(
                self.inputs,
                form.include or "*",
                self._job_or_none(),
                masks.extend,
                series=form.series,
            )
        except (ValueError, OSError) as error:
            self.files.set_paths(())
            self.view.show_inputs(self.inputs[0])
            self.view.say(sentence(error), True)
        else:
            self.files.set_paths(found)
            self._name_channels(found[0])
            place = Path(self.inputs[0])
            place = place if place.is_dir() else place.parent
            left = f"; {count(len(masks), 'mask')} beside them left out"
            self.view.show_inputs(
                f"{count(len(found), 'image')} of {place.name or place}"
                f"{left if masks else ''}",
                str(place.resolve()),
            )
            self.say_next_step()
        self.is_stopped = False
        self.view.show_state()

    def _name_channels(self, first: Path) -> None:
        """Show the names of the channels of the first image, where it has them."""
        try:
            self.channel_names = read_channel_names(first)
        except (ImageError, OSError):  # segmenting it names the reason
            self.channel_names = ()
        self.view.show_channel_names(self.channel_names)

    def _job_or_none(self) -> BatchJob | None:
        """Return the job, or None while something of it is still to be chosen."""
        try:
            return self.batch_job()
        except ValueError:
            return None

    def follow_model(self) -> None:
        """Show what is to be done next with another model."""
        if self.inputs and not self.is_busy:
            self.say_next_step()

    def say_next_step(self) -> None:
        """Show what is to be done next."""
        if not self.inputs:
            self.view.say(BEGIN)
        elif self.lacks_prompts:
            self.view.say(CHOOSE_PROMPTS)
        else:
            n = len(self.files.paths)
            self.view.say(START.format(images=count(n, "image")))

    def take_from(self, dock: SegmentWidget | None) -> None:
        """Take prompts, model and settings of the dock "Segment from prompts"."""
        if dock is None:
            self.view.say(OPEN_SEGMENT, True)
            return
        found, text = None, NEEDS_NONE
        if dock.models.takes_prompts:
            try:
                found = dock.book.prompts()
            except ValueError as error:
                self.view.say(sentence(error), True)
                return
            text = f"{count(len(found), 'prompt')} of the dock"
        self.prompts, self.prompts_file = found, ""
        self.view.choose_model(dock.model.currentText())
        self.view.show_settings(dock.settings())
        self._show_prompts(text)

    def load_prompts(self, path: str) -> bool:
        """Take the prompts of a file; return whether it could be read."""
        from ...io.prompt_files import load_prompts

        try:
            found = load_prompts(path).usable()
        except (ValueError, OSError) as error:
            self.view.say(sentence(error), True)
            return False
        self.prompts_file, self.prompts = path, None
        self._show_prompts(f"{count(len(found), 'prompt')} of {Path(path).name}")
        return True

    def _show_prompts(self, text: str) -> None:
        self.view.show_prompts(text)
        self.say_next_step()
        self.view.show_state()

    def load_job(self, path: str) -> None:
        """Take everything from a job file, and go on where it was."""
        try:
            job, _ = read_run(path)
        except (ValueError, OSError) as error:
            self.view.say(sentence(error), True)
            return
        if not self.view.choose_model(job.model):
            self.view.say(NOT_INSTALLED.format(model=job.model), True)
            return
        self.view.show_job(job)
        self.view.skip_done()
        self.inputs = job.inputs
        if job.prompts and not self.load_prompts(job.prompts):
            return
        self.list_files()
        n = len(self.files.paths)
        if n:
            self.view.say(GOES_ON.format(images=count(n, "image")))

    # ------------------------------------------------------------ running

    def start(self) -> None:
        """Segment all images of the list."""
        if self.is_busy:
            return
        try:
            job = self.batch_job()
            found = find_images(job.inputs, job.include, job)
            check_collisions(job, found)
        except (ValueError, OSError) as error:
            self.view.say(sentence(error), True)
            return
        self.files.set_paths(found)
        self.is_stopped = self._is_stopping = False
        self.view.say(STARTING)
        self.follow(self.engine.submit(run_batch, job, self.prompts))

    def cancel(self) -> None:
        """Stop the run; what is finished is kept."""
        if self.is_busy:
            self._is_stopping = True
            self.view.say(STOPPING)
        super().cancel()

    def on_progress(self, done: int, total: int, text: str) -> None:
        """Show how many files are done, and how many could not be."""
        super().on_progress(done, total, f"{done} of {total}")
        if not self._is_stopping:
            failed = self.files.count("failed")
            bad = f", {failed} could not be done" if failed else ""
            self.view.say(f"{done} of {count(total, 'image')} done{bad}.")

    def on_partial(self, outcomes: list[FileOutcome]) -> None:
        """Show what became of some files."""
        self.files.show(outcomes)
        for outcome in outcomes:
            if outcome.status != "running":
                self.view.add_log(log_line(outcome))

    def on_result(self, outcomes: list[FileOutcome]) -> None:
        """Show what became of all files."""
        self.files.show(o for o in outcomes if not o.skipped)
        all_failed = all(o.status == "failed" for o in outcomes)
        self.view.say(result_text(outcomes, self.view.form().output), all_failed)

    def on_failed(self, text: str) -> None:
        """Show why the run ended; it can be resumed where a file is done."""
        super().on_failed(text)
        self.is_stopped = bool(self.files.count("done", "skipped"))

    def on_cancelled(self) -> None:
        """Show how far the run came."""
        self.is_stopped = True
        done = self.files.count("done", "skipped")
        self.view.say(STOPPED.format(images=count(done, "image")))

    def on_finished(self) -> None:
        """Let the next run go on where this one was stopped."""
        self.files.forget_running()
        if self.is_stopped:
            self.view.skip_done()


def result_text(outcomes: list[FileOutcome], output: str) -> str:
    """Return the message at the end of a run."""
    bad = [o for o in outcomes if o.status == "failed"]
    objects = sum(max(0, o.objects) for o in outcomes)
    n_done = len(outcomes) - len(bad)
    text = (
        f"{n_done} of {count(len(outcomes), 'image')} done, "
        f"{count(objects, 'object')}. All in {output}."
    )
    before = sum(o.skipped for o in outcomes)
    if before:
        text += f" {before} had been done before."
    if bad:
        names = ", ".join(file_label(o.source) for o in bad[:N_NAMED])
        more = f" and {len(bad) - N_NAMED} more" if len(bad) > N_NAMED else ""
        text += f" Not done: {names}{more}; point at a row to see why."
    return text


def log_line(outcome: FileOutcome) -> str:
    """Return the line of a file in the log.

    Examples
    --------
    >>> log_line(FileOutcome("day1/a.tif", objects=3, trust=0.912))
    'a.tif: 3 objects, trust 0.91'
    """
    name = file_label(outcome.source)
    if outcome.status == "failed":
        return f"{name}: {outcome.error}"
    if outcome.skipped:
        return f"{name}: done before"
    trust = f", trust {outcome.trust:.2f}" if outcome.trust >= 0 else ""
    notes = "".join(f"; {text}" for text in outcome.notes)
    return f"{name}: {count(outcome.objects, 'object')}{trust}{notes}"
