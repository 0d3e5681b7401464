"""The dock "Fine-tune"."""

from __future__ import annotations

from functools import partial
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QFileDialog, QMessageBox

from ...core.image import ImageError
from ...core.jobs.finetune_job import FineTuneSettings
from ..callbacks import reports_errors, tell
from ..messages import STOPPING, sentence
from ..panels.controls import Offer, button
from ..panels.image_panel import ImagePanel
from ..panels.scroll_target import ScrollTarget
from ..panels.share_button import ShareModel
from ..panels.training.comparison import Comparison
from ..panels.training.curves import Curves
from ..panels.training.finetune_form import FineTuneForm
from ..panels.training.label_panel import LabelPanel
from ..panels.training.share_panel import SharePanel
from ..panels.training.training_outcome import TrainingOutcome
from ..panels.training.training_set_panel import TrainingSetPanel
from ..services.background import Background
from ..services.engine_process import Engine
from ..services.model_share import share
from ..services.preferences import preference
from .base import Dock
from .finetune_controller import (
    KEEP,
    LATER,
    STAY,
    VALIDATION,
    FineTuneChoices,
    FineTuneController,
)
from .first_steps import FirstSteps
from .tabs import FINETUNE, SEGMENT, open_docks, show_dock

if TYPE_CHECKING:
    import napari

    from ...core.prompt import PromptSet

BEGIN = "Paint a few cells and some background, then press Add this image."
ASK_TO_CLOSE = "A model is being fine-tuned."
ASK_WHAT_TO_KEEP = (
    "Keep the best model so far, or continue when napari is opened next time? The "
    "labels are kept in any case."
)
RUN_THERE = "The fine-tuned model and its prompts are chosen: press Run."


@reports_errors("show_state")
class FineTuneWidget(Dock):
    """Train a model further on a few painted cells.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    engine : Engine, optional
        Where models run; by default this napari's own.
    """

    title = FINETUNE

    def __init__(
        self, napari_viewer: napari.viewer.Viewer, engine: Engine | None = None
    ) -> None:
        stop = button("Stop and keep best", "End now; the best so far is saved")
        super().__init__(napari_viewer, engine, stop_buttons=(stop,))
        self.first_steps = FirstSteps(self.say, BEGIN)
        self._files = Background(partial(tell, self))
        self.image_panel = ImagePanel(napari_viewer, checkable=False)
        self.training_set = TrainingSetPanel(self._files, self.training_settings)
        self.label_panel = LabelPanel(
            napari_viewer, self.image_panel, self.training_set
        )
        self.form = FineTuneForm()
        self.curves = Curves(scores=(VALIDATION,))
        self.compare = Comparison(napari_viewer, self.engine)
        self.outcome = TrainingOutcome(self.curves, self.compare)
        self.controller: FineTuneController = self.attach(
            FineTuneController(
                self, self.engine, self._files, str(preference("device"))
            )
        )
        self._build()
        self._outcome_view = ScrollTarget(self.scroll_area, self.outcome)
        self._connect()
        self.at_close(self.image_panel.close_hooks, self._files.close)
        self.image_panel.refresh()
        self.form.models.refresh()
        self.training_set.read()
        self.controller.look_for_unfinished()

    # ------------------------------------------------------------ closing

    def end_work(self) -> None:
        """End what runs, because the dock is being closed; checkpoints stay."""
        self.label_panel.accepting.stop()
        self.compare.cancel()
        super().end_work()

    def showEvent(self, event: Any) -> None:
        """Watch for the window being closed."""
        super().showEvent(event)
        window = self.window()
        if window is not None and window is not self:
            window.installEventFilter(self)  # once, however often it is shown

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Ask before a window is closed in which a model is trained."""
        if event is None or event.type() != QEvent.Type.Close or not self.is_busy:
            return False
        if self.controller.answer_close(self.ask_to_close()):
            return False
        event.ignore()
        return True

    def ask_to_close(self) -> str:
        """Ask what becomes of the training; return what was chosen."""
        box = QMessageBox(self)
        box.setTextFormat(Qt.TextFormat.PlainText)
        box.setIcon(QMessageBox.Icon.Question)
        box.setText(ASK_TO_CLOSE)
        box.setInformativeText(ASK_WHAT_TO_KEEP)
        roles = QMessageBox.ButtonRole
        chosen = {
            box.addButton(KEEP, roles.AcceptRole): KEEP,
            box.addButton(LATER, roles.DestructiveRole): LATER,
            box.addButton(STAY, roles.RejectRole): STAY,
        }
        box.exec()
        clicked = box.clickedButton()
        return next((text for one, text in chosen.items() if one is clicked), STAY)

    def close_window(self) -> None:
        """Close the window that the dock is in."""
        window = self.window()
        if window is not None:
            window.close()

    # ------------------------------------------------------------ values

    def run_choices(self) -> FineTuneChoices:
        """Return the values that a training depends on."""
        form = self.form
        return FineTuneChoices(
            form.models.card,
            form.model_names(),
            form.name.text(),
            form.preset.currentData(),
            form.options.values(),
            form.meaning.values(),
            str(self.training_set.folder),
            form.pretrain.isChecked(),
            form.unlabelled,
        )

    def training_settings(self) -> FineTuneSettings:
        """Return the settings of a training; the usual ones while some are wrong."""
        try:
            return self.run_choices().settings()
        except ValueError:
            return FineTuneSettings()

    def choices(self) -> dict[str, Any]:
        """Return the values of the controls, for the next session."""
        return {**self.form.values(), "set": str(self.training_set.folder)}

    def restore_choices(self, values: dict[str, Any]) -> None:
        """Show the values that `choices` returned in the last session."""
        self.form.set_values(values)
        self.training_set.open(values["set"])

    # ------------------------------------------------------------ layout

    def _build(self) -> None:
        self.keep_choices("finetune")
        self.unfinished = Offer(
            ("Continue", "Go on from the last checkpoint"),
            ("Discard", "Delete the checkpoints of that training"),
        )
        self.add(self.unfinished)
        self.add_heading("Labels of the selected image")
        self.add(self.image_panel, self.label_panel)
        self.add_heading("Training set")
        self.add(self.training_set)
        self.add_heading("Model")
        self.add(self.form)
        self.add_section("meaning", "What the labels mean", self.form.meaning)
        self.add_section("training", "Training options", self.form.options)
        self.share = SharePanel(lambda: self.controller.exportable_name)
        self.share_model = ShareModel()
        self.add_section("share", "Share", self.share, self.share_model)
        self.add_sessions()
        self.add(self.outcome)
        self.start_button = button("Start", "Train with the images of the set")
        self.use = button("Use model", "Segment images with the new model")
        self.footer.add_actions(self.start_button, self.use, stretch=(2, 1))

    def _connect(self) -> None:
        control = self.controller
        self.curves.grown.connect(self._outcome_view.show)
        for part in (self.image_panel, self.label_panel):
            part.message.connect(self.say)
        for failed in (
            self.training_set.failed,
            self.form.models.failed,
            self.compare.failed,
        ):
            failed.connect(control.fail)
        self.form.changed.connect(self.autosave.touch)
        self.image_panel.changed.connect(self.label_panel.refresh)
        self.image_panel.redeclared.connect(lambda _: self.label_panel.refresh())
        self.label_panel.changed.connect(self._on_labels)
        self.training_set.changed.connect(self.show_state)
        self.compare.changed.connect(self.show_state)
        self.compare.look.clicked.connect(self._on_compare)
        self.unfinished.taken.connect(control.resume)
        self.unfinished.left.connect(control.discard)
        self.start_button.clicked.connect(control.start)
        self.stop.clicked.connect(control.stop_and_keep)
        self.use.clicked.connect(control.use_model)
        self.share.exporting.connect(control.export_model)
        self.share.importing.connect(control.import_model)
        self.share_model.message.connect(self.say)
        self.share_model.sharing.connect(
            lambda path: share(self, path, control.exportable)
        )
        self.bind(
            paint_cell=self.label_panel.paint_cell,
            paint_background=self.label_panel.paint_background,
            accept_cells=self.label_panel.accept_cells,
            add_image=self.label_panel.add,
            start_finetuning=self.start_button,
            stop=self.stop,
            use_model=self.use,
            next_image=partial(self.image_panel.step, 1),
            previous_image=partial(self.image_panel.step, -1),
        )
        self.tell_keys(
            self.image_panel.list, next_image="next", previous_image="previous"
        )

    # ------------------------------------------------------------ showing

    def say(self, text: str, error: bool = False) -> None:
        """Show a message in the footer."""
        super().say(text, error)
        self.first_steps.said()

    def show_state(self) -> None:
        """Show and enable what makes sense now."""
        busy = self.is_busy
        has_image = self.image_panel.selected() is not None
        has_entry = any(entry.used for entry in self.training_set.entries)
        has_result = self.controller.result is not None
        self.start_button.setEnabled(not busy and has_entry)
        self.form.name.setEnabled(not busy)
        self.use.setEnabled(has_result and not busy)
        self.compare.setVisible(has_result)
        self.compare.look.setEnabled(
            has_image and not busy and not self.compare.is_busy
        )
        for one in (self.unfinished.take, self.unfinished.leave):
            one.setEnabled(not busy)

    def _on_labels(self) -> None:
        self.first_steps.follow_images(self.image_panel.selected() is not None)
        self.show_state()

    def show_run(self, name: str) -> None:
        """Show the name of the new model, and empty curves."""
        self.form.name.setText(name)
        self.outcome.begin()
        # in a thread, before the first point needs it: loading it takes a second
        self._files.call(partial(import_module, "pyqtgraph"), lambda _: None)

    def show_stage(self, text: str) -> None:
        """Show what the training is doing, and how long it will."""
        self.outcome.scores.setText(escape(text))

    def show_keeping(self, text: str) -> None:
        """Show that the training is ending with its best model so far."""
        self.progress_row.show_stopping(text)
        self.activity.say(STOPPING)

    def add_point(self, series: str, step: int, value: float) -> None:
        """Add a point to a curve."""
        is_new = series not in self.curves.points
        self.curves.add_point(series, step, value)
        if is_new:
            self._outcome_view.show()

    def show_scores(self, text: str) -> None:
        """Show the scores of a result."""
        self.outcome.scores.setText(text)
        self._outcome_view.show()

    def offer_run(self, text: str) -> None:
        """Offer to continue a run that was cut off; an empty text withdraws it."""
        if text:
            self.unfinished.offer(text)
        else:
            self.unfinished.hide()

    def ask_folder(self) -> str:
        """Ask for a folder to go on in; an empty text for none."""
        return QFileDialog.getExistingDirectory(self, "Folder with room for the model")

    # ------------------------------------------------------------ using the model

    def refresh_models(self, name: str = "") -> None:
        """List the models anew in all docks; choose one in this one."""
        self.form.models.refresh(name)
        for dock in open_docks(self.viewer, SEGMENT):
            dock.refresh_models()

    def segment_with(self, model: str, prompts: PromptSet) -> None:
        """Choose a model, and its prompts, in the dock that segments."""
        dock = show_dock(self.viewer, SEGMENT)
        dock.refresh_models(model)
        if not dock.book.items:
            dock.book.add_loaded(prompts)
        dock.say(RUN_THERE)

    def _on_compare(self) -> None:
        source, result = self.label_panel.source(), self.controller.result
        if source is not None and result is not None:
            try:
                plane = source.shown_plane(self.viewer)
            except ImageError as error:
                self.say(sentence(error), True)
                return
            started_from = self.controller.started_from
            self.compare.start(source, plane, started_from, result.model)
