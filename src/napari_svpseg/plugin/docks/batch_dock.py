"""The dock "Batch": the same prompts over a folder of images."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QFileDialog,
    QHeaderView,
    QLineEdit,
    QPlainTextEdit,
    QProgressBar,
    QScrollArea,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from ...core.jobs.folder_job import FORMAT_TITLES, PATTERN, BatchJob, FileOutcome
from ...core.jobs.stored_labels import NAME
from ...core.prompt import PromptSet
from ...core.settings import SegmentSettings
from ...io.folder_records import RUN, check_collisions, find_images, read_run
from ...io.ome_zarr import is_zarr
from ...workflows.folder_run import run_batch
from ..layers.lazy_zarr import add_zarr
from ..layers.visibility import IMAGE_PIXELS, OF, bring_into_sight, look_at
from ..panels.controls import (
    Section,
    SettingsForm,
    button,
    combo,
    count,
    heading,
    labelled,
    note,
    result_options,
    sentence,
    side_by_side,
    theme_color,
)
from ..panels.file_table import FileTable
from ..panels.image_panel import parse_channels
from ..services.engine_process import Engine, EngineJob, shared_engine
from ..services.preferences import preference
from .tabs import share_tabs

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

logger = logging.getLogger(__name__)

BEGIN = "Choose a folder of images, prompts, and a folder for the results."
MAX_LOG_LINES = 5000
OPENED = "svpseg_opened"
"""Key, in a layer's metadata, of the file it was opened from, and how old that was."""
N_CHANNELS = 64
"""Most channels that a file may be expected to have."""


class BatchWidget(QWidget):
    """Segment all images of a folder with the same prompts.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    engine : Engine, optional
        Where models run; by default this napari's own.
    """

    def __init__(
        self, napari_viewer: napari.viewer.Viewer, engine: Engine | None = None
    ) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.engine = engine or shared_engine()
        self.engine.acquire()
        self.files = FileTable()
        self.inputs: tuple[str, ...] = ()
        self.prompts_file = ""
        self.prompts: PromptSet | None = None
        self._job: EngineJob | None = None
        self._is_stopped = False
        self._suggested = ""
        self._build()
        self._connect()
        self._show_models()
        self._leave = partial(_leave, self.engine, [])
        self.destroyed.connect(self._leave)
        self._show_state()
        self.say(BEGIN)
        share_tabs(self)

    def changeEvent(self, event: QEvent) -> None:
        """End the run when the dock is closed: napari keeps its widget alive."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.ParentChange and self.parentWidget() is None:
            self.stop_run()
            self._leave()

    # ------------------------------------------------------------ what it says

    def job(self) -> BatchJob:
        """Return what the controls say.

        Raises
        ------
        ValueError
            Saying what is missing.
        """
        if self.prompts is None and not self.prompts_file:
            raise ValueError("Say what to find: take prompts from the dock or a file.")
        card = self.model.currentData()
        if card is None:
            raise ValueError("No model is installed: reinstall napari-svpseg.")
        output = self.output.text().strip()
        return BatchJob(
            inputs=self.inputs,
            prompts=self.prompts_file,
            output=str(Path(output).expanduser()) if output else "",
            model=card.path or card.name,
            settings={
                **self.run_settings.values(),
                **self.options.values(),
                "device": self.device.currentText(),
            },
            formats=tuple(k for k, box in self.formats.items() if box.isChecked()),
            pattern=self.pattern.text().strip(),
            include=self.include.text().strip() or "*",
            axes=self.axes.text().strip().upper() or None,
            channels=parse_channels(self.channels.text(), N_CHANNELS),
            skip_done=self.skip_done.isChecked(),
        )

    def say(self, text: str, error: bool = False) -> None:
        """Show a message at the bottom of the dock."""
        self.message.setStyleSheet(
            f"background: {theme_color(self.viewer.theme, 'error')}; color: white;"
            " padding: 4px; border-radius: 3px;"
            if error
            else ""
        )
        self.message.setText(text)

    # ------------------------------------------------------------ layout

    def _build(self) -> None:
        body = QWidget()
        column = QVBoxLayout(body)
        column.setContentsMargins(6, 0, 6, 6)
        column.setSpacing(4)
        for part in (
            self._build_images,
            self._build_prompts,
            self._build_results,
            self._build_sections,
        ):
            part(column)
        column.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(body)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 4)
        layout.addWidget(scroll, 1)
        layout.addWidget(self._build_footer())
        self.setMinimumWidth(300)

    def _build_images(self, column: QVBoxLayout) -> None:
        column.addWidget(heading("Images"))
        self.choose_folder = button("Folder…", "Take the images of a folder")
        self.choose_files = button("Files…", "Take single image files")
        self.include = QLineEdit("*")
        self.include.setToolTip("Which files of the folder are taken, such as *.tif")
        self.include.setMaximumWidth(90)
        column.addWidget(
            side_by_side(
                self.choose_folder, self.choose_files, self.include, stretch=(1, 1, 1)
            )
        )
        self.where = note("No images yet.")
        column.addWidget(self.where)
        self.table = QTableView()
        self.table.setModel(self.files)
        self.table.setToolTip("Double-click a file to open it with its labels")
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.table.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.table.setShowGrid(False)
        self.table.verticalHeader().hide()
        rows = self.table.verticalHeader()
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)  # thousands of files
        rows.setDefaultSectionSize(22)
        header = self.table.horizontalHeader()
        header.setMinimumSectionSize(40)
        header.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for section, width in ((1, 60), (2, 58), (3, 46)):
            header.resizeSection(section, width)
        self.table.setMinimumHeight(180)
        column.addWidget(self.table, 1)

    def _build_prompts(self, column: QVBoxLayout) -> None:
        column.addWidget(heading("Prompts and model"))
        self.take = button(
            "From the dock",
            "Take prompts, model and options of the dock 'Segment from prompts'",
        )
        self.choose_prompts = button("File…", "Take the prompts of a .svprompt file")
        column.addWidget(side_by_side(self.take, self.choose_prompts, stretch=(1, 1)))
        self.prompts_line = note("No prompts yet.")
        column.addWidget(self.prompts_line)
        self.model = combo("Model that finds more of what the prompts show")
        column.addWidget(self.model)

    def _build_results(self, column: QVBoxLayout) -> None:
        column.addWidget(heading("Results"))
        self.output = QLineEdit()
        self.output.setPlaceholderText("folder for the results")
        self.output.setToolTip("Labels, summary.csv and run.json are written there")
        self.choose_output = button("…", "Choose the folder for the results")
        self.choose_output.setFixedWidth(36)
        column.addWidget(side_by_side(self.output, self.choose_output, stretch=(1, 0)))
        self.formats: dict[str, QCheckBox] = {}
        for kind, title in FORMAT_TITLES.items():
            self.formats[kind] = QCheckBox(title)
            column.addWidget(self.formats[kind])
        self.formats["ome-tiff"].setChecked(True)
        self.pattern = QLineEdit(PATTERN)
        self.pattern.setToolTip(
            "Names of the results: {name} of the image, {folder} it lies in, {model}, "
            "{prompts}"
        )
        column.addWidget(labelled("Names", self.pattern))
        self.skip_done = QCheckBox("Leave images alone that are done")
        self.skip_done.setChecked(True)
        self.skip_done.setToolTip("Images whose results are in the folder are skipped")
        column.addWidget(self.skip_done)

    def _build_sections(self, column: QVBoxLayout) -> None:
        options = Section("Result options")
        self.options = result_options()
        options.form.addRow(self.options)
        advanced = Section("Advanced")
        self.axes = QLineEdit()
        self.axes.setPlaceholderText("as the files say")
        self.axes.setToolTip("Axes of the images where files do not say: ZYX, TYX, ...")
        self.channels = QLineEdit()
        self.channels.setPlaceholderText("as in the prompts")
        self.channels.setToolTip("Channels to use, up to three, such as 0, 2")
        self.device = combo("Where the model runs; auto takes a GPU if there is one")
        self.device.addItems(("auto", "cpu", "cuda", "mps"))
        self.device.setEditable(True)
        self.device.setCurrentText(str(preference("device")))
        self.run_settings = SettingsForm(
            SegmentSettings,
            {
                "tile": "Largest tile",
                "scale_objects": "Bring objects to the model's size",
                "trust": "Check each result on the prompt",
            },
        )
        self.run_settings.set_values({"tile": int(preference("tile"))})
        advanced.form.addRow("Axes", self.axes)
        advanced.form.addRow("Channels", self.channels)
        advanced.form.addRow("Device", self.device)
        advanced.form.addRow(self.run_settings)
        log = Section("Log")
        self.log = QPlainTextEdit()
        self.log.setReadOnly(True)
        self.log.setMaximumBlockCount(MAX_LOG_LINES)
        self.log.setMinimumHeight(120)
        self.log.setPlaceholderText("What became of each file; also in run.log.")
        log.form.addRow(self.log)
        self.sections = {"options": options, "advanced": advanced, "log": log}
        for section in self.sections.values():
            column.addWidget(section)

    def _build_footer(self) -> QWidget:
        footer = QWidget()
        column = QVBoxLayout(footer)
        column.setContentsMargins(6, 4, 6, 0)
        column.setSpacing(4)
        self.start = button("Start", "Segment all images of the list")
        self.stop = button("Stop", "Stop; what is finished is kept")
        self.load = button(
            "Load job…", f"Take all of this from a {RUN}, and go on where it was"
        )
        self.progress = QProgressBar()
        self.progress.setTextVisible(True)
        self.message = note()
        self.message.setMinimumHeight(36)
        self.message.setAlignment(Qt.AlignmentFlag.AlignTop)
        column.addWidget(
            side_by_side(self.start, self.stop, self.load, stretch=(2, 1, 1))
        )
        column.addWidget(self.progress)
        column.addWidget(self.message)
        return footer

    def _connect(self) -> None:
        self.choose_folder.clicked.connect(lambda: self.set_folder())
        self.choose_files.clicked.connect(lambda: self.set_files())
        self.include.editingFinished.connect(self._list_files)
        self.table.doubleClicked.connect(lambda index: self.open_file(index.row()))
        self.take.clicked.connect(self.take_from_dock)
        self.choose_prompts.clicked.connect(lambda: self.load_prompts())
        self.choose_output.clicked.connect(lambda: self.set_output())
        self.output.textChanged.connect(lambda _: self._show_state())
        self.start.clicked.connect(self.start_run)
        self.stop.clicked.connect(self.stop_run)
        self.load.clicked.connect(lambda: self.load_job())

    # ------------------------------------------------------------ choosing

    def set_folder(self, path: str = "") -> None:
        """Take the images of a folder; asks for it if none is given."""
        path = path or QFileDialog.getExistingDirectory(self, "Folder of images")
        if path:
            self._set_inputs((path,))

    def set_files(self, paths: tuple[str, ...] = ()) -> None:
        """Take single files; asks for them if none are given."""
        if not paths:
            chosen, _ = QFileDialog.getOpenFileNames(self, "Images")
            paths = tuple(chosen)
        if paths:
            self._set_inputs(paths)

    def _set_inputs(self, paths: tuple[str, ...]) -> None:
        self.inputs = tuple(paths)
        if self.output.text() in ("", self._suggested):
            first = Path(paths[0])
            is_folder = first.is_dir() and not is_zarr(first)
            parent = first if is_folder else first.parent
            self._suggested = str(parent.with_name(f"{parent.name}_svpseg"))
            self.output.setText(self._suggested)
        self._list_files()

    def _list_files(self) -> None:
        """List the files that a run would take."""
        if not self.inputs or self._job is not None:
            return
        try:
            try:
                job = self.job()
            except ValueError:
                job = None  # not all is said yet
            found = find_images(self.inputs, self.include.text().strip() or "*", job)
        except (ValueError, OSError) as error:
            self.files.set_paths(())
            self.where.setText(self.inputs[0])
            self.say(sentence(error), True)
        else:
            self.files.set_paths(found)
            place = Path(self.inputs[0])
            place = place if place.is_dir() else place.parent
            self.where.setText(f"{count(len(found), 'image')} of {place.name or place}")
            self.where.setToolTip(str(place.resolve()))
            self.say(self._next_step())
        self._is_stopped = False
        self._show_state()

    def _next_step(self) -> str:
        if not self.inputs:
            return BEGIN
        if self.prompts is None and not self.prompts_file:
            return "Now say what to find: take the prompts of the dock, or a file."
        return f"Press Start to segment {count(self.files.rowCount(), 'image')}."

    def take_from_dock(self) -> None:
        """Take prompts, model and options of the dock 'Segment from prompts'."""
        from ..manifest import open_dock

        dock = open_dock()
        if dock is None:
            self.say(
                "Open 'Segment from prompts' first and try your prompts there.", True
            )
            return
        try:
            self.prompts = dock.book.prompts()
        except ValueError as error:
            self.say(sentence(error), True)
            return
        self.prompts_file = ""
        index = self.model.findText(dock.model.currentText())
        self.model.setCurrentIndex(max(0, index))
        settings = dock.settings()
        self.options.set_values(settings)
        self.run_settings.set_values(settings)
        self.device.setCurrentText(settings["device"])
        self._show_prompts(f"{count(len(self.prompts), 'prompt')} of the dock")

    def load_prompts(self, path: str = "") -> None:
        """Take the prompts of a file; asks for it if none is given."""
        if not path:
            path, _ = QFileDialog.getOpenFileName(
                self, "Prompts", "", "Prompt sets (*.svprompt)"
            )
        if not path:
            return
        from ...io.prompt_files import load_prompts

        try:
            found = load_prompts(path).usable()
        except (ValueError, OSError) as error:
            self.say(sentence(error), True)
            return
        self.prompts_file, self.prompts = path, None
        self._show_prompts(f"{count(len(found), 'prompt')} of {Path(path).name}")

    def _show_prompts(self, text: str) -> None:
        self.prompts_line.setText(text)
        self.say(self._next_step())
        self._show_state()

    def set_output(self, path: str = "") -> None:
        """Choose the folder for the results; asks for it if none is given."""
        path = path or QFileDialog.getExistingDirectory(self, "Folder for results")
        if path:
            self.output.setText(path)
            self._list_files()

    def load_job(self, path: str = "") -> None:
        """Take all of this from a job file; asks for it if none is given."""
        if not path:
            path, _ = QFileDialog.getOpenFileName(self, "Job", "", "Jobs (*.json)")
        if not path:
            return
        try:
            job, _ = read_run(path)
        except (ValueError, OSError) as error:
            self.say(sentence(error), True)
            return
        index = self._model_index(job.model)
        if index < 0:
            self.say(f"The model of this job is not installed: {job.model}.", True)
            return
        self.model.setCurrentIndex(index)
        self.include.setText(job.include)
        self.output.setText(job.output)
        self.pattern.setText(job.pattern)
        for kind, box in self.formats.items():
            box.setChecked(kind in job.formats)
        self.options.set_values(job.settings)
        self.run_settings.set_values(job.settings)
        self.device.setCurrentText(str(job.settings.get("device", "auto")))
        self.axes.setText(job.axes or "")
        self.channels.setText(", ".join(map(str, job.channels or ())))
        self.skip_done.setChecked(True)
        self.inputs = job.inputs
        if job.prompts:
            self.load_prompts(job.prompts)
        if self.prompts_file == job.prompts:
            self._list_files()
            if self.files.rowCount():
                self.say(
                    f"{count(self.files.rowCount(), 'image')} of this job. "
                    "Start does those that are not done yet."
                )

    def _model_index(self, model: str) -> int:
        cards = [self.model.itemData(i) for i in range(self.model.count())]
        hits = [i for i, card in enumerate(cards) if model in (card.name, card.path)]
        return hits[0] if hits else -1

    def _show_models(self) -> None:
        from ...io.model_store import list_models

        try:
            cards = list_models()
        except (ValueError, OSError) as error:
            logger.exception("could not list the models")
            self.say(f"Models could not be listed: {error}", True)
            return
        for card in cards:
            self.model.addItem(card.name, card)
        self.model.setCurrentIndex(max(0, self.model.findText("svp")))

    # ------------------------------------------------------------ running

    def start_run(self) -> None:
        """Segment all images of the list."""
        if self._job is not None:
            return
        try:
            job = self.job()
            found = find_images(job.inputs, job.include, job)
            check_collisions(job, found)
            if not job.prompts:
                from ...workflows.folder_run import save_cut_prompts

                assert self.prompts is not None  # `job` looks for that
                job = replace(
                    job, prompts=str(save_cut_prompts(self.prompts, job.output))
                )
        except (ValueError, OSError) as error:
            self.say(sentence(error), True)
            return
        self.files.set_paths(found)
        self._is_stopped = False
        self.progress.setRange(0, 0)
        self.say("Starting the engine…")
        running = self._job = self.engine.submit(run_batch, job)
        running.progressed.connect(self._on_progress)
        running.partial.connect(self._on_files)
        running.returned.connect(self._on_returned)
        running.failed.connect(self._on_failed)
        running.cancelled.connect(self._on_cancelled)
        running.finished.connect(self._on_finished)
        self._show_state()

    def stop_run(self) -> None:
        """Stop the run; what is finished is kept."""
        if self._job is not None:
            self.stop.setEnabled(False)
            self.say("Stopping…")
            self._job.cancel()

    def _on_progress(self, done: int, total: int, text: str) -> None:
        self.progress.setRange(0, max(total, 1))
        self.progress.setValue(done)
        self.progress.setFormat(f"{done} of {total}")
        if self._job is not None and self.stop.isEnabled():
            failed = self.files.count("failed")
            bad = f", {failed} could not be done" if failed else ""
            self.say(f"{done} of {count(total, 'image')} done{bad}.")

    def _on_files(self, outcomes: list[FileOutcome]) -> None:
        self.files.show(outcomes)
        for outcome in outcomes:
            if outcome.status != "running":
                self.log.appendPlainText(log_line(outcome))

    def _on_returned(self, outcomes: list[FileOutcome]) -> None:
        self.files.show(o for o in outcomes if not o.skipped)
        self.progress.setRange(0, max(1, len(outcomes)))
        self.progress.setValue(len(outcomes))
        bad = [o for o in outcomes if o.status == "failed"]
        objects = sum(max(0, o.objects) for o in outcomes)
        done = f"{len(outcomes) - len(bad)} of {count(len(outcomes), 'image')} done, "
        text = f"{done}{count(objects, 'object')}. All in {self.output.text()}."
        before = sum(o.skipped for o in outcomes)
        if before:
            text += f" {before} had been done before."
        if bad:
            names = ", ".join(Path(o.source).name for o in bad[:3])
            more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
            text += f" Not done: {names}{more}; point at a row to see why."
        self.say(text, len(bad) == len(outcomes))

    def _on_failed(self, text: str) -> None:
        self.say(text, True)
        self._is_stopped = bool(self.files.count("done", "skipped"))

    def _on_cancelled(self) -> None:
        self._is_stopped = True
        done = self.files.count("done", "skipped")
        self.say(
            f"Stopped with {count(done, 'image')} done. Resume goes on from there."
        )

    def _on_finished(self) -> None:
        self._job = None
        self.files.forget_running()
        if self._is_stopped:
            self.skip_done.setChecked(True)
        if self.progress.maximum() == 0:
            self.progress.setRange(0, 1)
            self.progress.setValue(0)
        self._show_state()

    def _show_state(self) -> None:
        """Show and enable what makes sense now."""
        busy = self._job is not None
        for widget in (
            self.choose_folder,
            self.choose_files,
            self.include,
            self.take,
            self.choose_prompts,
            self.model,
            self.output,
            self.choose_output,
            self.pattern,
            self.skip_done,
            self.load,
            *self.formats.values(),
        ):
            widget.setEnabled(not busy)
        ready = bool(self.files.rowCount()) and bool(self.output.text().strip())
        self.start.setEnabled(not busy and ready)
        self.start.setText("Resume" if self._is_stopped else "Start")
        self.stop.setEnabled(busy)
        self.progress.setVisible(busy or self._is_stopped)

    def open_file(self, row: int) -> None:
        """Show an image and its labels, opened if need be, and hide others there."""
        outcome = self.files.outcome(row)
        try:
            image = self._open(self.files.paths[row], "image")
            labels = outcome.labels if outcome is not None else ""
            if is_zarr(labels):
                labels = str(Path(labels) / "labels" / NAME)
            is_tiff = labels.lower().endswith((".tif", ".tiff"))
            if is_zarr(labels) or (is_tiff and Path(labels).exists()):
                self._open(labels, "labels").metadata[OF] = image.unique_id
        except Exception as error:
            logger.info("opening failed", exc_info=True)
            self.say(sentence(error), True)
            return
        bring_into_sight(self.viewer, image)
        look_at(self.viewer, image, image.extent.data, IMAGE_PIXELS, closer=False)

    def _open(self, path: str, kind: str) -> Layer:
        """Return the layer of a file; opened unless it is there as it is now."""
        now = (path, Path(path).stat().st_mtime_ns)
        for layer in self.viewer.layers:
            if layer.metadata.get(OPENED) == now:
                return layer
        if is_zarr(path):
            layer = add_zarr(self.viewer, path, kind)
        else:
            told = {"layer_type": kind} if kind == "labels" else {}
            layer = self.viewer.open(path, **told)[0]
        layer.metadata[OPENED] = now
        return layer


def log_line(outcome: FileOutcome) -> str:
    """Return what the log says of a file.

    Examples
    --------
    >>> log_line(FileOutcome("day1/a.tif", objects=3, trust=0.912))
    'a.tif: 3 objects, trust 0.91'
    """
    name = Path(outcome.source).name
    if outcome.status == "failed":
        return f"{name}: {outcome.error}"
    if outcome.skipped:
        return f"{name}: done before"
    trust = f", trust {outcome.trust:.2f}" if outcome.trust >= 0 else ""
    notes = "".join(f"; {text}" for text in outcome.notes)
    return f"{name}: {count(outcome.objects, 'object')}{trust}{notes}"


def _leave(engine: Engine, left: list[bool], *_: Any) -> None:
    """Let go of the engine, once, when the dock is closed or gone."""
    if not left:
        left.append(True)
        engine.release()
