"""The dock "Batch": the same prompts over a folder of images."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QLineEdit,
    QPlainTextEdit,
)

from ...core.jobs.folder_job import (
    ALL_SERIES,
    FORMAT_TITLES,
    FORMATS,
    PATTERN,
    BatchJob,
)
from ...core.settings import PostprocessSettings, SegmentSettings
from ...io.folder_records import RUN
from ..callbacks import reports_errors
from ..layers.images.opened_files import show_file
from ..messages import sentence
from ..panels.channel_text import CHANNELS_TIP, channel_text, named_channels
from ..panels.controls import button, labelled, note, side_by_side
from ..panels.file_table import FileTable, FileTableView
from ..panels.model_picker import ModelPicker
from ..panels.plain_text import shown, tip_text
from ..panels.settings_form import SettingsForm
from ..services.engine_process import Engine
from ..services.preferences import preference
from .base import Dock, device_combo
from .batch_controller import BEGIN, BatchController, BatchForm
from .tabs import BATCH, SEGMENT, open_docks

if TYPE_CHECKING:
    import napari

logger = logging.getLogger(__name__)

RUN_SETTINGS = ("tile", "scale_objects", "trust")
MAX_LOG_LINES = 5000
FIRST_SERIES = "first"
"""What the box shows for the first image of each file."""


@reports_errors(
    "_take_from_dock",
    "set_folder",
    "set_files",
    "set_output",
    "load_prompts",
    "load_job",
    "open_file",
    "show_state",
)
class BatchWidget(Dock):
    """Segment all images of a folder with the same prompts.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    engine : Engine, optional
        Where models run; by default this napari's own.
    """

    title = BATCH

    def __init__(
        self, napari_viewer: napari.viewer.Viewer, engine: Engine | None = None
    ) -> None:
        super().__init__(napari_viewer, engine)
        self.files = FileTable()
        self.controller: BatchController = self.attach(
            BatchController(self, self.engine, self.files)
        )
        self._build_images()
        self._build_prompts()
        self._build_results()
        self._build_sections()
        self.add_sessions()
        self._build_footer()
        self._connect()
        self.say(BEGIN)
        self.models.refresh()
        self.show_state()

    # ------------------------------------------------------------ layout

    def _build_images(self) -> None:
        self.add_heading("Images")
        self.choose_folder = button("Open folder…", "Take the images of a folder")
        self.choose_files = button("Open files…", "Take single image files")
        self.include = QLineEdit("*")
        self.include.setAccessibleName("Files to take")
        self.include.setToolTip("Which files of the folder are taken, such as *.tif")
        self.include.setMaximumWidth(80)
        self.series = QComboBox()
        self.series.setEditable(True)
        self.series.addItems([FIRST_SERIES, ALL_SERIES])
        self.series.setToolTip(
            "Images of files that hold several (positions, scenes, series): the first, "
            "all, or numbers such as 0, 2"
        )
        self.where = note("No images yet.")
        self.table = FileTableView(self.files)
        self.add(
            side_by_side(
                self.choose_folder, self.choose_files, self.include, stretch=(1, 1, 1)
            ),
            labelled("Series", self.series),
            self.where,
        )
        self.add(self.table, stretch=1)

    def _build_prompts(self) -> None:
        self.add_heading("Prompts and model")
        self.take = button(
            "Take from dock",
            "Take prompts, model and options of the dock 'Segment from prompts'",
        )
        self.choose_prompts = button(
            "Load prompts…", "Take the prompts of a .svprompt file"
        )
        self.prompts_line = note("No prompts yet.")
        self.models = ModelPicker("Model that finds more of what the prompts show")
        self.model = self.models.combo
        self.add(
            side_by_side(self.take, self.choose_prompts, stretch=(1, 1)),
            self.prompts_line,
            self.models,
        )

    def _build_results(self) -> None:
        self.add_heading("Results")
        self.output = QLineEdit()
        self.output.setPlaceholderText("folder for the results")
        self.output.setAccessibleName("Folder for the results")
        self.output.setToolTip("Labels, summary.csv and run.json are written there")
        self.choose_output = button("…", "Choose the folder for the results")
        self.choose_output.setFixedWidth(36)
        self.add(side_by_side(self.output, self.choose_output, stretch=(1, 0)))
        self.formats = {kind: QCheckBox(title) for kind, title in FORMAT_TITLES.items()}
        for kind, box in self.formats.items():
            box.setToolTip(tip_text(f"Write files that end in {FORMATS[kind]}"))
        self.formats["ome-tiff"].setChecked(True)
        self.pattern = QLineEdit(PATTERN)
        self.pattern.setToolTip(
            "Names of the results: {name} of the image, {folder} it lies in, {model}, "
            "{prompts}"
        )
        self.skip_done_box = QCheckBox("Skip images that are done")
        self.skip_done_box.setChecked(True)
        self.skip_done_box.setToolTip(
            "Skip images whose results are in the folder already"
        )
        self.add(
            *self.formats.values(), labelled("Names", self.pattern), self.skip_done_box
        )

    def _build_sections(self) -> None:
        self.options = SettingsForm(PostprocessSettings)
        self.add_section("options", "Result options", self.options)
        advanced = self.add_section("advanced", "Advanced")
        self.axes = QLineEdit()
        self.axes.setPlaceholderText("as the files say")
        self.axes.setToolTip("Axes of the images where files do not say: ZYX, TYX, ...")
        self.channels = QLineEdit()
        self.channels.setPlaceholderText("as in the prompts")
        self.channels.setToolTip(tip_text(CHANNELS_TIP))
        self.device = device_combo(
            "Where the model runs; auto takes a GPU if there is one"
        )
        self.run_settings = SettingsForm(SegmentSettings, RUN_SETTINGS)
        self.run_settings.set_values({"tile": int(preference("tile"))})
        advanced.form.addRow("Axes", self.axes)
        advanced.form.addRow("Channels", self.channels)
        advanced.form.addRow("Device", self.device)
        advanced.form.addRow(self.run_settings)
        self.log = QPlainTextEdit()
        self.log.setAccessibleName("Log")
        self.log.setToolTip("What became of each file")
        self.log.setReadOnly(True)
        self.log.setMaximumBlockCount(MAX_LOG_LINES)
        self.log.setMinimumHeight(120)
        self.log.setPlaceholderText("What became of each file; also in run.log.")
        self.add_section("log", "Log", self.log)

    def _build_footer(self) -> None:
        self.start = button("Start", "Segment all images of the list")
        self.load = button(
            "Load job…", f"Take all of this from a {RUN}, and go on where it was"
        )
        self.footer.add_actions(self.start, self.load, stretch=(2, 1))

    def _connect(self) -> None:
        batch = self.controller
        self.choose_folder.clicked.connect(lambda: self.set_folder())
        self.choose_files.clicked.connect(lambda: self.set_files())
        self.include.editingFinished.connect(batch.list_files)
        self.series.activated.connect(lambda _: batch.list_files())
        line = self.series.lineEdit()
        assert line is not None  # the box is editable
        line.editingFinished.connect(batch.list_files)
        self.table.doubleClicked.connect(lambda index: self.open_file(index.row()))
        self.take.clicked.connect(self._take_from_dock)
        self.choose_prompts.clicked.connect(lambda: self.load_prompts())
        self.models.failed.connect(lambda text: self.say(text, True))
        self.models.changed.connect(lambda: batch.follow_model())
        self.choose_output.clicked.connect(lambda: self.set_output())
        self.output.textChanged.connect(lambda _: self.show_state())
        self.start.clicked.connect(batch.start)
        self.stop.clicked.connect(batch.cancel)
        self.load.clicked.connect(lambda: self.load_job())
        self.bind(start_batch=self.start, stop=self.stop)

    # ------------------------------------------------------------ choosing

    def set_folder(self, path: str = "") -> None:
        """Take the images of a folder; asks for it if none is given."""
        path = path or QFileDialog.getExistingDirectory(self, "Folder of images")
        if path:
            self.controller.set_inputs((path,))

    def set_files(self, paths: tuple[str, ...] = ()) -> None:
        """Take single files; asks for them if none are given."""
        paths = paths or tuple(QFileDialog.getOpenFileNames(self, "Images")[0])
        if paths:
            self.controller.set_inputs(paths)

    def set_output(self, path: str = "") -> None:
        """Choose the folder for the results; asks for it if none is given."""
        path = path or QFileDialog.getExistingDirectory(self, "Folder for results")
        if path:
            self.output.setText(path)
            self.controller.list_files()

    def load_prompts(self, path: str = "") -> None:
        """Take the prompts of a file; asks for it if none is given."""
        kinds = "Prompt sets (*.svprompt)"
        path = path or QFileDialog.getOpenFileName(self, "Prompts", "", kinds)[0]
        if path:
            self.controller.load_prompts(path)

    def load_job(self, path: str = "") -> None:
        """Take everything from a job file; asks for it if none is given."""
        path = path or QFileDialog.getOpenFileName(self, "Job", "", "Jobs (*.json)")[0]
        if path:
            self.controller.load_job(path)

    def _take_from_dock(self) -> None:
        docks = open_docks(self.viewer, SEGMENT)
        self.controller.take_from(docks[0] if docks else None)

    def open_file(self, row: int) -> None:
        """Show an image and its labels, opened if need be, and hide others there."""
        outcome = self.files.outcome(row)
        labels = outcome.labels if outcome is not None else ""
        try:
            show_file(self.viewer, self.files.paths[row], labels)
        except Exception as error:  # any reader of any plugin
            logger.info("opening failed", exc_info=True)
            self.say(sentence(error), True)

    # ------------------------------------------------------------ values

    def form(self) -> BatchForm:
        """Return the values of the controls."""
        series = self.series.currentText().strip().lower()
        return BatchForm(
            model=self.models.card,
            settings={
                **self.run_settings.values(),
                **self.options.values(),
                "device": self.device.currentText(),
            },
            output=self.output.text().strip(),
            formats=tuple(k for k, box in self.formats.items() if box.isChecked()),
            pattern=self.pattern.text().strip(),
            include=self.include.text().strip(),
            axes=self.axes.text().strip(),
            series="" if series == FIRST_SERIES else series,
            channels=self.channels.text(),
            skip_done=self.skip_done_box.isChecked(),
        )

    def show_inputs(self, text: str, tip: str = "") -> None:
        """Show which images are taken."""
        self.where.setText(text)
        self.where.setToolTip(tip_text(tip))

    def show_channel_names(self, names: tuple[str, ...]) -> None:
        """Show the names of the channels of the first image."""
        listed = named_channels(names)
        text = f"as in the prompts; {listed}" if listed else "as in the prompts"
        self.channels.setPlaceholderText(text)
        tip = f"{CHANNELS_TIP}: {listed}" if listed else CHANNELS_TIP
        self.channels.setToolTip(tip_text(tip))

    def show_prompts(self, text: str) -> None:
        """Show which prompts are taken."""
        self.prompts_line.setText(text)

    def show_output(self, folder: str) -> None:
        """Show the folder for the results."""
        self.output.setText(folder)

    def choose_model(self, model: str) -> bool:
        """Choose a model by name or folder; return whether it is installed."""
        return self.models.choose(model)

    def show_settings(self, settings: dict[str, Any]) -> None:
        """Show settings of a run."""
        self.options.set_values(settings)
        self.run_settings.set_values(settings)
        self.device.setCurrentText(str(settings.get("device", "auto")))

    def show_job(self, job: BatchJob) -> None:
        """Show all values of a job but model, images and prompts."""
        self.include.setText(job.include)
        self.output.setText(job.output)
        self.pattern.setText(job.pattern)
        for kind, box in self.formats.items():
            box.setChecked(kind in job.formats)
        self.show_settings(job.settings)
        self.axes.setText(job.axes or "")
        self.series.setCurrentText(job.series or FIRST_SERIES)
        self.channels.setText(channel_text(job.channels))

    def skip_done(self) -> None:
        """Show that images that are done are skipped."""
        self.skip_done_box.setChecked(True)

    def add_log(self, line: str) -> None:
        """Add a line to the log."""
        self.log.appendPlainText(shown(line))

    def show_state(self) -> None:
        """Show and enable what can be done now."""
        busy = self.is_busy
        for widget in (
            self.choose_folder,
            self.choose_files,
            self.include,
            self.series,
            self.take,
            self.choose_prompts,
            self.model,
            self.output,
            self.choose_output,
            self.pattern,
            self.skip_done_box,
            self.load,
            *self.formats.values(),
        ):
            widget.setEnabled(not busy)
        self.start.setEnabled(self.controller.can_start and not busy)
        self.start.setText("Resume" if self.controller.is_stopped else "Start")
