"""The dock "Fine-tune"."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QFrame,
    QLineEdit,
    QMessageBox,
    QProgressBar,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from ...core.annotation.partial_labels import BACKGROUND, FIRST_OBJECT
from ...core.image import ImageError
from ...core.jobs.finetune_job import FineTuneProgress, FineTuneResult, FineTuneSettings
from ...io.model_archive import import_model
from ...io.training_set import Entry
from ...workflows.finetuning import (
    discard_finetune,
    finetune,
    stop_finetune,
    unfinished_finetunes,
)
from ..layers.comparison import Comparison
from ..layers.image_source import ImageSource
from ..layers.partial_label_layers import Labelled, labelled_layers, start_painting
from ..panels.controls import (
    Offer,
    Section,
    SettingsForm,
    button,
    combo,
    count,
    heading,
    labelled,
    note,
    sentence,
    side_by_side,
    theme_color,
)
from ..panels.curves import Curves
from ..panels.image_panel import ImagePanel
from ..panels.model_picker import ModelPicker
from ..panels.prompt_panel import OPEN_IMAGE
from ..panels.training_set_panel import TrainingPanel
from ..services.autosave import Autosave
from ..services.background import Background
from ..services.engine_process import Engine, EngineJob, shared_engine
from ..services.preferences import preference
from ..tools.accept_object import AcceptTool
from .tabs import share_tabs

if TYPE_CHECKING:
    import napari

logger = logging.getLogger(__name__)


PRESETS = {
    "quick": "Quick (under a minute)",
    "thorough": "Thorough (15 minutes)",
    "custom": "Custom (see Training options)",
}
LOSS, HELD_BACK = "training loss", "labels kept back"
BEGIN = "Paint a few cells and some background, then press Add this image."
KEEP, LATER, STAY = "Stop and keep best", "Go on next time", "Cancel"


class FineTuneWidget(QWidget):
    """Train a model further on a few painted cells.

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
        self.image_panel = ImagePanel(napari_viewer, checkable=False)
        self.curves = Curves(scores=(HELD_BACK,))
        self.compare = Comparison(napari_viewer, self.engine)
        self.accepting = AcceptTool(napari_viewer, self.source)
        self.result: FineTuneResult | None = None
        self._files = Background(1)
        self.training_set = TrainingPanel(self._files)
        self._offered: dict[str, Any] = {}
        self._job: EngineJob | None = None
        self._run: dict[str, Any] = {}
        self._started_from = ""
        self._unlabelled = ""
        self._closes = False
        self._build()
        self._outcome_timer = QTimer(self)
        self._outcome_timer.setSingleShot(True)
        self._outcome_timer.timeout.connect(self._scroll_to_outcome)
        self._connect()
        self._leave = _Leave(self)
        self.destroyed.connect(partial(_Leave.__call__, self._leave))
        self.use_unlabelled("")
        self.image_panel.refresh()
        self.models.refresh()
        self.training_set.read()
        self._look_for_unfinished()
        share_tabs(self)

    # ------------------------------------------------------------ closing

    def changeEvent(self, event: QEvent | None) -> None:
        """Let go of the viewer when the dock is closed; checkpoints stay."""
        super().changeEvent(event)
        if event is None or event.type() != QEvent.Type.ParentChange:
            return
        if self.parentWidget() is None:
            self.accepting.stop()
            self.cancel()
            self._leave()

    def showEvent(self, event: Any) -> None:
        """Watch for the window being closed."""
        super().showEvent(event)
        window = self.window()
        if window is not self:
            window.installEventFilter(self)  # once, however often it is shown

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Ask before a window is closed in which a model is trained."""
        is_close = event is not None and event.type() == QEvent.Type.Close
        if not is_close or self._job is None or self._job.function is not finetune:
            return False
        choice = self.ask_to_close()
        if choice == LATER:
            self.cancel()
            return False
        if choice == KEEP:
            self._closes = True
            self.stop_and_keep()
        event.ignore()  # type: ignore[union-attr]
        return True

    def ask_to_close(self) -> str:
        """Ask what becomes of the training; return what was chosen."""
        box = QMessageBox(self)
        box.setIcon(QMessageBox.Icon.Question)
        box.setText("A model is being fine-tuned.")
        box.setInformativeText(
            "Keep the best model so far, or go on when napari is opened next time? "
            "The labels are kept in any case."
        )
        roles = QMessageBox.ButtonRole
        chosen = {
            box.addButton(KEEP, roles.AcceptRole): KEEP,
            box.addButton(LATER, roles.DestructiveRole): LATER,
            box.addButton(STAY, roles.RejectRole): STAY,
        }
        box.exec()
        return chosen.get(box.clickedButton(), STAY)

    # ------------------------------------------------------------ what it says

    def settings(self) -> FineTuneSettings:
        """Return the settings of a training."""
        preset = self.preset.currentData()
        if preset == "custom":
            chosen = FineTuneSettings(preset=preset, **self.options.values())
        else:
            chosen = FineTuneSettings.of_preset(preset)
        return replace(
            chosen,
            self_supervised_first=self.practise.isChecked(),
            **self.meaning.values(),
        )

    def choices(self) -> dict[str, Any]:
        """Return what the controls say, for the next session."""
        return {
            "options": self.options.values(),
            "meaning": self.meaning.values(),
            "preset": self.preset.currentData(),
            "name": self.name.text(),
            "model": self.models.combo.currentText(),
            "set": str(self.training_set.folder),
            "practise": self.practise.isChecked(),
            "unlabelled": self._unlabelled,
        }

    def restore_choices(self, values: dict[str, Any]) -> None:
        """Show what `choices` returned in the last session."""
        self.options.set_values(values["options"])
        self.meaning.set_values(values["meaning"])
        self.preset.setCurrentIndex(max(0, self.preset.findData(values["preset"])))
        self.name.setText(values["name"])
        self.models.refresh(values["model"])
        self.training_set.open(values["set"])
        self.use_unlabelled(values.get("unlabelled", ""))
        self.practise.setChecked(bool(values.get("practise")))

    def say(self, text: str, error: bool = False) -> None:
        """Show a message at the bottom of the dock."""
        self.message.setStyleSheet(
            f"background: {theme_color(self.viewer.theme, 'error')}; color: white;"
            " padding: 4px; border-radius: 3px;"
            if error
            else ""
        )
        self.message.setText(text)

    def _fail(self, error: Any) -> None:
        self.say(sentence(error) if isinstance(error, Exception) else str(error), True)

    # ------------------------------------------------------------ layout

    def _build(self) -> None:
        body = QWidget()
        column = QVBoxLayout(body)
        column.setContentsMargins(6, 3, 6, 6)
        column.setSpacing(4)
        self.autosave = Autosave.of(self.viewer)
        self.last_session = self.autosave.attach(
            "finetune", self.choices, self.restore_choices
        )
        column.addWidget(self.last_session)
        self.unfinished = Offer("Go on", "Discard")
        column.addWidget(self.unfinished)
        self._build_labels(column)
        column.addWidget(heading("Training set"))
        column.addWidget(self.training_set)
        self._build_model(column)
        self._build_options(column)
        self._build_outcome(column)
        column.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(body)
        self.scroll = scroll
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 4)
        layout.addWidget(scroll, 1)
        layout.addWidget(self._build_footer())
        self.setMinimumWidth(320)

    def _build_labels(self, column: QVBoxLayout) -> None:
        column.addWidget(heading("Labels of the marked image"))
        column.addWidget(self.image_panel)
        self.paint_cell = button(
            "Paint a cell", "Paint one more cell: it gets a number of its own"
        )
        self.paint_background = button(
            "Paint background", "Paint what is no cell, beside the cells above all"
        )
        column.addWidget(
            side_by_side(self.paint_cell, self.paint_background, stretch=(1, 1))
        )
        self.accept_cells = button(
            "Accept cells of a result",
            "Click on cells that were found right: they become labels",
        )
        self.accept_cells.setCheckable(True)
        column.addWidget(self.accept_cells)
        self.labels = combo("Where the labels of the marked image are taken from")
        self.add = button(
            "Add this image", "Put the marked image and its labels into the set"
        )
        column.addWidget(labelled("Take", self.labels))
        column.addWidget(self.add)

    def _build_model(self, column: QVBoxLayout) -> None:
        column.addWidget(heading("Model"))
        self.models = ModelPicker("Model that is trained further")
        column.addWidget(self.models)
        self.name = QLineEdit("my cells")
        self.name.setToolTip("Name under which the new model is listed in all docks")
        column.addWidget(labelled("Save as", self.name))
        self.preset = combo("How long it trains")
        for key, title in PRESETS.items():
            self.preset.addItem(title, key)
        column.addWidget(labelled("Time", self.preset))
        self.practise = QCheckBox("Learn from my unlabelled images first")
        self.practise.setToolTip(
            "First learn from superpixels, which need no labels, of the images of the "
            "set and of a folder of your images"
        )
        column.addWidget(self.practise)
        self.unlabelled_line = note()
        self.choose_unlabelled = button(
            "Folder…", "Folder of images that need no labels; some of them are taken"
        )
        self._unlabelled_row = side_by_side(
            self.unlabelled_line, self.choose_unlabelled, stretch=(1, 0)
        )
        self._unlabelled_row.hide()
        column.addWidget(self._unlabelled_row)

    def _build_options(self, column: QVBoxLayout) -> None:
        meaning = Section("What the labels mean")
        self.meaning = SettingsForm(
            FineTuneSettings,
            {
                "unlabelled_is_background": "Unlabelled is background",
                "semantic": "Numbers are classes, not cells",
                "wanted": "Class to find",
            },
        )
        meaning.form.addRow(self.meaning)
        training = Section("Training options")
        self.options = SettingsForm(
            FineTuneSettings,
            {
                "seconds": "Time limit",
                "steps": "Steps",
                "learning_rate": "Learning rate",
                "batch": "Windows of a step",
                "validation": "Share kept back",
                "pseudo_labels": "Learn from unlabelled pixels too",
                "student": "Second network on its labels",
                "seed": "Seed",
            },
        )
        training.form.addRow(self.options)
        share = Section("Share")
        self.export = button("Export…", "Write the model as one zip for others")
        self.bring = button("Import…", "Add a model that somebody exported")
        share.form.addRow(side_by_side(self.export, self.bring, stretch=(1, 1)))
        self.sections = {"meaning": meaning, "training": training, "share": share}
        for section in self.sections.values():
            column.addWidget(section)

    def _build_outcome(self, column: QVBoxLayout) -> None:
        self.outcome = QWidget()
        inside = QVBoxLayout(self.outcome)
        inside.setContentsMargins(0, 0, 0, 0)
        inside.setSpacing(4)
        inside.addWidget(heading("Progress"))
        inside.addWidget(self.curves)
        self.scores = note()
        inside.addWidget(self.scores)
        inside.addWidget(self.compare)
        self.outcome.hide()
        column.addWidget(self.outcome)

    def _build_footer(self) -> QWidget:
        footer = QWidget()
        column = QVBoxLayout(footer)
        column.setContentsMargins(6, 4, 6, 0)
        column.setSpacing(4)
        self.start_button = button("Start", "Train with the images of the set")
        self.use = button(
            "Use model", "Segment images with it, in Segment from prompts"
        )
        self.progress = QProgressBar()
        self.progress.setRange(0, 100)
        self.stop = button("Stop and keep best", "End now; the best so far is saved")
        self._progress_row = QWidget()
        rows = QVBoxLayout(self._progress_row)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(4)
        rows.addWidget(self.progress)
        rows.addWidget(self.stop)
        self._progress_row.hide()
        self.message = note()
        self.message.setMinimumHeight(36)
        self.message.setAlignment(Qt.AlignmentFlag.AlignTop)
        column.addWidget(side_by_side(self.start_button, self.use, stretch=(2, 1)))
        column.addWidget(self._progress_row)
        column.addWidget(self.message)
        return footer

    def _connect(self) -> None:
        self.scroll.verticalScrollBar().rangeChanged.connect(self._on_laid_out)
        self.autosave.message.connect(self.say)
        self.options.changed.connect(self.autosave.touch)
        self.image_panel.changed.connect(self._show_labels)
        self.image_panel.message.connect(self.say)
        self.image_panel.redeclared.connect(lambda _: self._show_labels())
        self.paint_cell.clicked.connect(lambda: self._paint(FIRST_OBJECT))
        self.paint_background.clicked.connect(lambda: self._paint(BACKGROUND))
        self.accept_cells.clicked.connect(self._on_accept_cells)
        self.accepting.switched.connect(self.accept_cells.setChecked)
        self.accepting.accepted.connect(self._show_painted)
        self.accepting.message.connect(self.say)
        self.add.clicked.connect(self.add_image)
        self.training_set.changed.connect(self._show_state)
        self.training_set.failed.connect(self._fail)
        self.models.failed.connect(self._fail)
        self.practise.toggled.connect(self._unlabelled_row.setVisible)
        self.practise.toggled.connect(self.autosave.touch)
        self.choose_unlabelled.clicked.connect(self._ask_for_unlabelled)
        self.unfinished.taken.connect(self.resume)
        self.unfinished.left.connect(self._discard)
        self.start_button.clicked.connect(self.start)
        self.stop.clicked.connect(self.stop_and_keep)
        self.use.clicked.connect(self.use_model)
        self.export.clicked.connect(lambda: self.export_model())
        self.bring.clicked.connect(lambda: self.import_model())
        self.compare.look.clicked.connect(self._on_compare)
        self.compare.failed.connect(self._fail)
        self.compare.changed.connect(self._show_state)

    def _show_state(self) -> None:
        """Enable what makes sense now."""
        busy = self._job is not None
        has_image = self.image_panel.marked() is not None
        for widget in (self.paint_cell, self.paint_background, self.accept_cells):
            widget.setEnabled(has_image)
        self.labels.setEnabled(self.labels.count() > 1)
        self.add.setEnabled(has_image and self.labels.currentData() is not None)
        something = any(entry.used for entry in self.training_set.entries)
        self.start_button.setEnabled(not busy and something)
        self.name.setEnabled(not busy)
        self._progress_row.setVisible(busy)
        self.use.setEnabled(self.result is not None and not busy)
        self.compare.setVisible(self.result is not None)
        self.compare.look.setEnabled(
            has_image and not busy and not self.compare.is_busy
        )
        for one in (self.unfinished.take, self.unfinished.leave):
            one.setEnabled(not busy)

    # ------------------------------------------------------------ labels

    def source(self) -> ImageSource | None:
        """Return the marked image; None where it is said what is missing."""
        layer = self.image_panel.marked()
        if layer is None:
            self.say("Open an image first.", True)
            return None
        try:
            return self.image_panel.source_of(layer)
        except ImageError as error:
            self._fail(error)
            return None

    def _show_labels(self) -> None:
        """Offer the layers that labels of the marked image can be taken of."""
        layer = self.image_panel.marked()
        ways: list[Labelled] = []
        if layer is not None:
            try:
                source = self.image_panel.source_of(layer)
                ways = labelled_layers(self.viewer, source)
            except ImageError as error:
                logger.info("labels of %s: %s", layer.name, error)
        before = self.labels.currentText()
        self.labels.clear()
        for way in ways:
            self.labels.addItem(way.title, way)
        if not ways:
            self.labels.addItem("nothing labelled yet", None)
        self.labels.setCurrentIndex(max(0, self.labels.findText(before)))
        if self.message.text() in ("", BEGIN, OPEN_IMAGE):
            self.say(OPEN_IMAGE if layer is None else BEGIN)
        self._show_state()

    def _paint(self, label: int) -> None:
        source = self.source()
        if source is None:
            return
        self.accepting.stop()
        layer = start_painting(self.viewer, source, label)
        self._show_painted()
        n = layer.selected_label - FIRST_OBJECT + 1
        what = "background" if label == BACKGROUND else f"cell {n}"
        self.say(
            f"Paint {what} with the mouse; [ and ] change the brush. What you leave "
            "unpainted stays unknown. Then press Add this image."
        )

    def _show_painted(self) -> None:
        self._show_labels()
        self.labels.setCurrentIndex(0)

    def _on_accept_cells(self, on: bool) -> None:
        self.accept_cells.setChecked(self.accepting.is_on)
        if on:
            self.accepting.start()
        else:
            self.accepting.stop()

    def add_image(self) -> None:
        """Put the marked image and its labels into the training set."""
        source, way = self.source(), self.labels.currentData()
        if source is None or way is None:
            return
        plane = source.plane_at(self.viewer.dims.point)
        try:
            read = way.read(plane)
        except (ValueError, IndexError) as error:
            self._fail(error)
            return
        name = self.training_set.add(source, plane, read, self._on_added)
        self.say(f"Adding '{name}'…")

    def _on_added(self, entry: Entry) -> None:
        counts = entry.counts or {}
        background = counts.get("background", 0)
        what_next = (
            "Press Start, or add another image."
            if background
            else "Paint some background beside them, and add it again."
        )
        self.say(
            f"Added '{entry.name}': {count(counts.get('n_objects', 0), 'cell')}, "
            f"{counts.get('objects', 0):,} pixels, and {background:,} of background. "
            f"{what_next}"
        )

    # ------------------------------------------------------------ unlabelled images

    def use_unlabelled(self, folder: str) -> None:
        """Learn first from the images in a folder too; an empty name takes none."""
        self._unlabelled = folder
        self.unlabelled_line.setText(
            f"Set, and {Path(folder).name}" if folder else "Only images of the set"
        )
        self.unlabelled_line.setToolTip(folder)

    def _ask_for_unlabelled(self) -> None:
        folder = QFileDialog.getExistingDirectory(
            self, "Folder of images", self._unlabelled
        )
        if folder:
            self.use_unlabelled(folder)

    # ------------------------------------------------------------ training

    def start(self) -> None:
        """Train with the images of the set."""
        card = self.models.card
        if card is None:
            self.say("No model is installed: reinstall napari-svpseg.", True)
            return
        name = " ".join(self.name.text().split())
        if not name or set(name) & set('/\\:*?"<>|') or name.startswith("."):
            self.say("Give the model a name of letters and numbers.", True)
            return
        try:
            settings = self.settings()
        except ValueError as error:
            self._fail(error)
            return
        from ...io.model_store import user_folder

        output = free_place(user_folder() / name, [c.name for c in self.models_known()])
        self.name.setText(output.name)
        self._submit(
            {
                "output": str(output),
                "start_from": card.path or card.name,
                "settings": settings.to_dict(),
                "training_set": str(self.training_set.folder),
                "unlabelled": self._unlabelled if self.practise.isChecked() else None,
            },
            resume=False,
        )

    def models_known(self) -> list[Any]:
        """Return the cards of all models in the list."""
        combo = self.models.combo
        return [combo.itemData(i) for i in range(combo.count())]

    def resume(self) -> None:
        """Go on with the training that was cut off."""
        run, self._offered = self._offered, {}
        if run:
            self.unfinished.hide()
            self.name.setText(Path(run["output"]).name)
            self._submit(run, resume=True)

    def _submit(self, run: dict[str, Any], *, resume: bool) -> None:
        try:
            settings = FineTuneSettings(**run["settings"])
        except (TypeError, ValueError) as error:
            self._fail(error)
            return
        self._run = run
        self.result = None
        self.compare.clear()
        self.curves.clear()
        self.scores.setText("")
        self.outcome.show()
        self.progress.setRange(0, 0)
        self.progress.setFormat("")
        self.stop.setEnabled(True)
        self.say("Going on…" if resume else "Training; you can go on working.")
        job = self.engine.submit(
            finetune,
            [],
            [],
            start_from=run["start_from"],
            settings=settings,
            output=run["output"],
            training_set=run["training_set"],
            unlabelled=run.get("unlabelled") or None,
            device=str(preference("device")),
            resume=resume,
        )
        self._job = job
        job.progressed.connect(self._on_progress)
        job.partial.connect(self._on_partial)
        job.returned.connect(self._on_result)
        job.failed.connect(self._on_failed)
        job.cancelled.connect(self._on_cancelled)
        job.finished.connect(self._on_finished)
        self._show_state()
        # in a thread, long before they are needed: loading them takes a second
        for module in ("pyqtgraph", "napari_svpseg.plugin.docks.tags_dock"):
            self._files.call(partial(import_module, module), lambda _: None)

    def _show_outcome(self) -> None:
        """Bring the curves into view, while and after they are laid out."""
        self._outcome_timer.start(500)

    def _scroll_to_outcome(self) -> None:
        self.scroll.ensureWidgetVisible(self.outcome, 0, 0)

    def _on_laid_out(self) -> None:
        if self._outcome_timer.isActive():
            self._scroll_to_outcome()

    def stop_and_keep(self) -> None:
        """End the training; the best model so far is saved."""
        if self._job is None or self._job.function is not finetune:
            return
        output = self._run["output"]
        self.stop.setEnabled(False)
        self.progress.setFormat("Stopping; the best so far is kept…")

        self._files.call(lambda: stop_finetune(output), self._on_stop, self._fail)

    def _on_stop(self, was_there: bool) -> None:
        if not was_there and self._job is not None:  # it has not begun yet
            self._job.cancel()

    def cancel(self) -> None:
        """End the training; its checkpoint stays, to go on from."""
        self.compare.cancel()
        if self._job is not None:
            self._job.cancel()

    def _on_progress(self, done: int, total: int, text: str) -> None:
        self.progress.setRange(0, max(total, 1))
        self.progress.setValue(done)
        if self.stop.isEnabled():
            self.progress.setFormat(text or "%p %")

    def _on_partial(self, value: Any) -> None:
        if not isinstance(value, FineTuneProgress):
            return
        n_curves = len(self.curves.points)
        if np.isfinite(value.train_loss):
            self.curves.add_point(LOSS, value.step, value.train_loss)
        if value.validation_dice is not None and np.isfinite(value.validation_dice):
            self.curves.add_point(HELD_BACK, value.step, value.validation_dice)
        if len(self.curves.points) > n_curves:
            self._show_outcome()

    def _on_result(self, result: FineTuneResult) -> None:
        self.result = result
        self._started_from = str(self._run["start_from"])
        self.scores.setText(score_lines(result))
        name = Path(result.model).name
        if result.kept == "after":
            text = f"Better on the labels kept back. '{name}' is in every Model menu."
        else:
            text = (
                f"Not better on the labels kept back: '{name}' is the model it started "
                "from. Add more labels where it fails, and start again."
            )
        said = ("no usable GPU", "did not do better")
        notes = [n for n in result.notes if not any(s in n for s in said)]
        self.say(f"{text} ({'; '.join(notes)})" if notes else text)
        self._refresh_models()
        self._show_outcome()

    def _refresh_models(self) -> None:
        from .tags_dock import segment_docks

        self.models.refresh()
        for dock in segment_docks(self.viewer):
            dock.refresh_models()

    def _on_failed(self, text: str) -> None:
        self._fail(text)
        self._look_for_unfinished()

    def _on_cancelled(self) -> None:
        self.say("Stopped.")
        self._look_for_unfinished()

    def _on_finished(self) -> None:
        self._job = None
        self._show_state()
        if self._closes:
            self.window().close()

    # ------------------------------------------------------------ what was cut off

    def _look_for_unfinished(self) -> None:

        self._files.call(unfinished_finetunes, self._on_unfinished)

    def _on_unfinished(self, runs: list[dict[str, Any]]) -> None:
        runs = [r for r in runs if r.get("training_set")]
        if not runs or self._job is not None:
            return
        self._offered = runs[-1]
        name = Path(self._offered["output"]).name
        self.unfinished.offer(
            f"The training of '{name}' was cut off. Its checkpoint is there."
        )

    def _discard(self) -> None:
        run, self._offered = self._offered, {}
        self.unfinished.hide()
        if run:
            self._files.call(
                lambda: discard_finetune(run["output"]),
                lambda _: self._look_for_unfinished(),
                self._fail,
            )

    # ------------------------------------------------------------ using the model

    def _on_compare(self) -> None:
        source = self.source()
        if source is None or self.result is None:
            return
        plane = source.plane_at(self.viewer.dims.point)
        self.compare.start(source, plane, self._started_from, self.result.model)

    def use_model(self) -> None:
        """Choose the model and its prompts in the Segment dock."""
        if self.result is None:
            return
        model = self.result.model
        from ...io.model_store import model_prompts

        self._files.call(lambda: model_prompts(model), self._on_prompts, self._fail)

    def _on_prompts(self, prompts: Any) -> None:
        from ..manifest import show_dock

        assert self.result is not None
        dock = show_dock(self.viewer)
        dock.refresh_models(Path(self.result.model).name)
        if not dock.book.items:
            dock.book.add_loaded(prompts)
        dock.say("The fine-tuned model and its prompts are chosen: press Run.")
        self.say("The model is chosen in Segment from prompts: press Run there.")

    def export_model(self, path: str = "") -> None:
        """Write the latest, or the chosen, model as one zip."""
        card = self.models.card
        model = self.result.model if self.result else card.path if card else ""
        if not model:
            return
        if not path:
            path, _ = QFileDialog.getSaveFileName(
                self, "Export model", f"{Path(model).name}.zip", "Models (*.zip)"
            )
        if not path:
            return
        from ...io.model_archive import export_model

        self._files.call(
            lambda: export_model(model, path),
            lambda written: self.say(f"Exported '{Path(model).name}' as {written}."),
            self._fail,
        )

    def import_model(self, path: str = "") -> None:
        """Add a model that somebody exported; its weights are proven first."""
        if not path:
            path, _ = QFileDialog.getOpenFileName(
                self, "Import model", "", "Models (*.zip)"
            )
        if not path:
            return
        job = self.engine.submit(import_model, path)
        job.returned.connect(self._on_imported)
        job.failed.connect(self._fail)

    def _on_imported(self, card: Any) -> None:
        self.models.refresh(card.name)
        self._refresh_models()
        self.say(f"'{card.name}' is now among the models.")


class _Leave:
    """What is left to do, once, when the dock is closed or gone."""

    def __init__(self, dock: FineTuneWidget) -> None:
        self._parts = dock.image_panel, dock._files, dock.engine
        self.is_done = False

    def __call__(self, *_: object) -> None:
        if self.is_done:
            return
        self.is_done = True
        images, files, engine = self._parts
        images.close_hooks()
        files.close()
        engine.release()


def free_place(folder: Path, taken: list[str]) -> Path:
    """Return a folder that is not there, and whose name no model has."""
    free, n = folder, 2
    while free.exists() or free.name in taken:
        free, n = folder.with_name(f"{folder.name} {n}"), n + 1
    return free


def score_lines(result: FineTuneResult) -> str:
    """Return the scores before and after, as they are shown."""
    if result.after.n_pixels == 0:
        return "No labels were kept back, so it could not be checked."
    objects = result.after.n_objects
    held = f"{result.after.n_pixels:,} pixels"
    held += f" and {count(objects, 'cell')}" if objects else ""
    before, after = result.before, result.after
    if result.kept == "after":
        return f"{before} → <b>{after}</b><br>on {held} kept back from training"
    return f"<b>{before}</b>, new {after}<br>on {held} kept back from training"
