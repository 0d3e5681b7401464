"""The dock "Segment from prompts"."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QCheckBox

from ...core.settings import PostprocessSettings, SegmentSettings
from ..callbacks import guarded, reports_errors
from ..layers.prompts.deleted_prompts import DELETED, PromptsDeleted, Removed
from ..layers.results.journal import Journal
from ..layers.results.reopened import link
from ..layers.results.result_layers import Results
from ..layers.results.run_layers import RunLayers
from ..layers.results.stored_results import StoredResults
from ..messages import DRAW_BOX, STARTING
from ..panels.controls import (
    button,
    combo,
    labelled,
    note,
)
from ..panels.correct_panel import CorrectPanel
from ..panels.image_panel import ImagePanel
from ..panels.large_results import LargeResultsPanel
from ..panels.model_picker import ModelPicker
from ..panels.prompt_panel import PromptPanel
from ..panels.results_panel import ResultsPanel
from ..panels.save_panel import SavePanel
from ..panels.settings_form import SettingsForm
from ..panels.share_button import ShareModel
from ..services.engine_process import Engine
from ..services.model_share import share
from ..services.preferences import preference
from .actions import KEYS
from .base import Dock, device_combo
from .first_steps import FirstSteps
from .options_controller import OptionsController
from .segment_controller import RunChoices, SegmentController
from .tabs import SEGMENT

if TYPE_CHECKING:
    import napari
    from napari.layers import Image

    from ..layers.images.image_source import ImageSource

RUN_SETTINGS = ("refine", "tile", "overlap", "batch", "scale_objects", "trust")
OPTIONS_REST_MS = 200
"""From the last change of an option to its being applied."""


@reports_errors("show_state")
class SegmentWidget(Dock):
    """Find more of what a few boxes show, in all open images.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    engine : Engine, optional
        Where models run; by default this napari's own.
    """

    title = SEGMENT

    def __init__(
        self, napari_viewer: napari.viewer.Viewer, engine: Engine | None = None
    ) -> None:
        super().__init__(napari_viewer, engine)
        self.first_steps = FirstSteps(self.say, DRAW_BOX)
        self.journal = Journal()
        self.results = Results(napari_viewer, self.journal)
        self.stored = StoredResults(napari_viewer, self.journal)
        self.image_panel = ImagePanel(napari_viewer)
        self.images = self.image_panel.list
        self.axes, self.channels = self.image_panel.axes, self.image_panel.channels
        self.prompt_panel = PromptPanel(napari_viewer, self.image_panel)
        self.book, self.list = self.prompt_panel.book, self.prompt_panel.list
        self.draw, self.paint = self.prompt_panel.draw, self.prompt_panel.paint
        self.box_size = self.prompt_panel.box_size
        self.mask_choice = self.prompt_panel.mask_choice
        layers = RunLayers(napari_viewer, self.results, self.stored)
        self.controller: SegmentController = self.attach(
            SegmentController(self, self.engine, self.image_panel, self.book, layers)
        )
        self.controller.warm_up.is_on = bool(preference("warm_up"))
        self.options_controller = OptionsController(self, self.controller)
        self._build()
        self._options_timer = _single_shot(self, self.options_controller.apply)
        self._connect()
        self.at_close(
            self.correct.close_panel,
            self.book.close,
            self.image_panel.close_hooks,
            self.stored.close,
            self.results_panel.close_hooks,
        )
        self.image_panel.refresh()
        self.refresh_models()
        self.book.adopt_all()
        self.prompt_panel.adopt_opened()
        _single_shot(self, self.controller.ask_device).start(0)

    def end_work(self) -> None:
        """End the run, because the dock is being closed."""
        self._options_timer.stop()
        self.correct.end_work()
        super().end_work()

    # ------------------------------------------------------------ values

    def settings(self) -> dict[str, Any]:
        """Return the values of all settings of a run."""
        return {
            **self.run_settings.values(),
            **self.options.values(),
            "device": self.device.currentText(),
        }

    def run_choices(self) -> RunChoices:
        """Return the values that a run depends on."""
        maps = {
            "probability": self.add_probability,
            "uncertainty": self.add_uncertainty,
        }
        return RunChoices(
            self.models.card,
            self.settings(),
            all_planes=bool(self.planes.currentData()),
            maps=tuple(name for name, box in maps.items() if box.isChecked()),
        )

    def store_for(self, source: ImageSource, plane: tuple[int, ...] | None) -> str:
        """Return where a result too large for memory is stored, else ""."""
        return self.large.store_for(source, plane)

    def choices(self) -> dict[str, Any]:
        """Return the values of the controls, for the next session."""
        return {
            "run": self.run_settings.values(),
            "options": self.options.values(),
            "size": self.box_size.value(),
            "model": self.model.currentText(),
            "large": self.large.values(),
            "follow": self.correct.follows,
        }

    def restore_choices(self, values: dict[str, Any]) -> None:
        """Show the values that `choices` returned in the last session."""
        self.run_settings.set_values(values["run"])
        self.options.set_values(values["options"])
        self.box_size.setValue(values["size"])
        self.refresh_models(values["model"])
        self.large.set_values(values.get("large", {}))
        self.correct.follow_box.setChecked(values.get("follow", True))

    def source_of(self, layer: Image) -> ImageSource:
        """Return an image layer with the axes declared for it."""
        return self.image_panel.source_of(layer)

    # ------------------------------------------------------------ layout

    def _build(self) -> None:
        self.keep_choices("segment", self.book)
        self.add_heading("Images")
        self._build_planes()
        self.add(self.image_panel, self.planes_row)
        self.add_heading("Prompts")
        self.add(self.prompt_panel)
        self.add_heading("Model")
        self.models = ModelPicker("Model that finds more of what the prompts show")
        self.model = self.models.combo
        self.device_line = note(STARTING)
        self.add(self.models, self.device_line)
        self._build_sections()
        self.add_sessions()
        self._build_footer()

    def _build_sections(self) -> None:
        self.results_panel = ResultsPanel(
            self.viewer,
            self.controller,
            self.image_panel,
            style=preference("labels_look"),
        )
        self.apart += [self.results_panel.objects, self.results_panel.gallery]
        self.add_heading("Results")
        self.add(self.results_panel)
        self.options = SettingsForm(PostprocessSettings)
        self.apply_to_all = button(
            "Apply to all images",
            "Make the objects of all results with these options; above they act on the "
            "result of the selected image",
        )
        self.add_probability = QCheckBox("Add a probability layer")
        self.add_probability.setToolTip("How sure the model is that a pixel belongs")
        self.add_uncertainty = QCheckBox("Add an uncertainty layer")
        self.add_uncertainty.setToolTip("Bright where the model hesitates")
        self.add_section(
            "options",
            "Result options",
            self.options,
            self.apply_to_all,
            self.add_probability,
            self.add_uncertainty,
        )
        self.save_box = SavePanel(self.viewer, self.stored, self.prompt_panel)
        self.share = ShareModel()
        self.add_section("save", "Save", self.save_box, self.share)
        self.large = LargeResultsPanel(self.stored)
        self.add_section("large", "Large results", self.large)
        self.device = device_combo(
            "Where the model runs; auto takes a GPU if there is one"
        )
        self.run_settings = SettingsForm(SegmentSettings, RUN_SETTINGS)
        self.run_settings.set_values({"tile": int(preference("tile"))})
        self.restart = button(
            "End the engine",
            "End the engine and give its memory back; the next run starts it again",
        )
        advanced = self.add_section("advanced", "Advanced")
        advanced.form.addRow("Device", self.device)
        advanced.form.addRow(self.run_settings)
        advanced.form.addRow(self.restart)

    def _build_planes(self) -> None:
        self.planes = combo("Which planes of a stack or time series to segment")
        self.planes.addItem("This plane", False)
        self.planes.addItem("All planes", True)
        self.planes_row = labelled("Run on", self.planes)

    def _build_footer(self) -> None:
        self.preview = button(
            "Preview",
            "Segment what you see of the selected image",
        )
        self.run = button("Run", "Segment all checked images")
        self.undo = button("Undo", "Take the last result back")
        self.correct = CorrectPanel(self.controller, self.book, self.image_panel)
        self.message.setToolTip(
            "Trust: how well the result finds the prompts again; 1 is best."
        )
        self.footer.add_result(self.correct)
        self.footer.add_offer(self.correct.answers)
        self.footer.add_actions(self.preview, self.run, self.undo, stretch=(2, 2, 1))

    def _connect(self) -> None:
        runs, correct = self.controller, self.correct
        for part in (
            self.image_panel,
            self.prompt_panel,
            self.stored,
            self.save_box,
            self.results_panel,
            correct,
        ):
            part.message.connect(self.say)
        self.prompt_panel.missing.connect(self.first_steps.complain)
        self.models.failed.connect(lambda text: self.say(text, True))
        self.image_panel.changed.connect(self._on_images)
        self.image_panel.redeclared.connect(self.book.axes_changed)
        self.book.changed.connect(self._on_prompts)
        self.book.deleted.connect(self._on_deleted)
        self.stored.changed.connect(self.show_state)
        self.models.changed.connect(runs.follow_model)
        self.options.changed.connect(self.autosave.touch)
        self.options.changed.connect(self.options_controller.follow_options)
        self.apply_to_all.clicked.connect(self.options_controller.apply_to_all)
        self.viewer.dims.events.current_step.connect(self._on_plane)
        self.at_close(
            lambda: self.viewer.dims.events.current_step.disconnect(self._on_plane)
        )
        self.device.currentTextChanged.connect(lambda _: runs.ask_device())
        self.restart.clicked.connect(runs.end_engine)
        self.share.sharing.connect(self._on_share)
        self.share.message.connect(self.say)
        self.preview.clicked.connect(runs.start_preview)
        self.run.clicked.connect(runs.start_run)
        self.stop.clicked.connect(runs.cancel)
        self.undo.clicked.connect(correct.controller.undo_last)
        self.list.asked.connect(correct.ask_what_is_wrong)
        correct.changed.connect(self.autosave.touch)
        self._bind()

    def _bind(self) -> None:
        self.bind(
            draw_box=self.draw,
            add_prompt=self.prompt_panel.add_prompt_at_centre,
            paint_mask=self.paint,
            use_mask=self.prompt_panel.suggested.take,
            preview=self.preview,
            run=self.run,
            stop=self.stop,
            undo=self.undo,
            next_doubtful_place=self.correct.next_place,
            save_labels=self.save_box.save,
            next_image=self.results_panel.next,
            previous_image=self.results_panel.previous,
            next_style=self.results_panel.next_style,
            not_this=self.correct.not_this,
            this_too=self.correct.this_too,
            split=self.correct.split,
            join=self.correct.join,
        )
        self.tell_keys(self.draw, add_prompt="a box in the middle of the view")
        self.tell_keys(self.images, next_image="next", previous_image="previous")
        for one in self.results_panel.styles.values():
            self.tell_keys(one, next_style="next")
        if preference("shortcuts"):  # before those of napari for such layers
            self.book.shortcuts = {
                KEYS[name]: (name, partial(self.perform, name))
                for name in self.commands
            } | {"Control-Z": ("Bring deleted prompts back", self._on_undo_deletion)}

    # ------------------------------------------------------------ showing

    def say(self, text: str, error: bool = False) -> None:
        """Show a message in the footer."""
        super().say(text, error)
        self.first_steps.said()

    def complain(self, text: str, error: bool = False) -> None:
        """Show what a prompt lacks, until no prompt lacks anything."""
        self.first_steps.complain(text, error)

    def _on_images(self) -> None:
        """Follow the list of images and its selection."""
        self.journal.follow(self.viewer.layers)
        link(self.viewer)
        self.prompt_panel.show_masks()
        self.show_state()
        self.controller.skip_closed()
        self.options_controller.follow_selection()
        self.first_steps.follow_images(self.image_panel.selected() is not None)

    def _on_plane(self) -> None:
        self.options_controller.follow_plane()

    def _on_prompts(self) -> None:
        """Follow the prompts: what was missing may be there now."""
        self.first_steps.follow_prompts(len(self.book.items), self.book.is_ready)
        self.show_state()

    def _on_deleted(self, removed: Removed) -> None:
        self.journal.add_alone(PromptsDeleted(self.book, removed))
        self.show_state()

    def _on_undo_deletion(self) -> None:
        self.say(self.journal.undo_last_of(DELETED))
        self.show_state()

    def show_state(self) -> None:
        """Show and enable what can be done now."""
        busy = self.is_busy
        has_stacks = self.image_panel.has_stacks()
        self.planes_row.setVisible(has_stacks)
        self.options.show_rows(("link_planes", "link_overlap"), has_stacks)
        self.preview.setEnabled(self.image_panel.selected() is not None and not busy)
        self.run.setEnabled(bool(self.image_panel.checked()) and not busy)
        self.undo.setEnabled(bool(self.journal.edits) and not busy)
        several = len(self.controller.layers.every_result()) > 1
        self.apply_to_all.setEnabled(several and not busy)
        self.correct.refresh(busy=busy)
        self.save_box.refresh()
        self.results_panel.follow()

    def _on_share(self, path: str) -> None:
        card = self.models.card
        model = "" if card is None else card.path or card.name
        share(self, path, model, self.book.prompts())

    def show_device(self, text: str) -> None:
        """Show where models run."""
        self.device_line.setText(text)

    def refresh_models(self, name: str = "") -> None:
        """List the models anew, and choose one by its name."""
        self.models.refresh(name)

    def leave_tools(self) -> None:
        """End drawing and correcting, because a run begins."""
        self.prompt_panel.tool.stop()
        self.correct.end_work()

    def set_options(self, values: dict[str, Any], *, quiet: bool = False) -> None:
        """Show result options; quietly, as the result is shown with them already."""
        if quiet:
            self._options_timer.stop()
        self.options.blockSignals(quiet)
        self.options.set_values(values)
        self.options.blockSignals(False)

    def apply_options_soon(self) -> None:
        """Apply the options to the shown result once they rest for a moment."""
        self._options_timer.start(OPTIONS_REST_MS)


def _single_shot(dock: SegmentWidget, action: Callable[[], None]) -> QTimer:
    """Return a timer that ends with the dock."""
    timer = QTimer(dock)
    timer.setSingleShot(True)
    timer.timeout.connect(guarded(dock, action))
    return timer
