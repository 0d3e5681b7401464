"""The dock "Segment from prompts"."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QProgressBar,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from ...core.image import ImageError
from ...core.jobs.stored_labels import Filled, StoredLabels
from ...core.prompt import PromptError, PromptSet
from ...core.result import Result
from ...core.settings import PostprocessSettings, SegmentSettings, split_settings
from ...workflows.segment_image import describe_device, postprocess, segment
from ...workflows.segment_live import segment_stored
from ..layers.image_source import ImageSource, is_untouched, mark_of
from ..layers.prompt_item import TRY
from ..layers.result_layers import Journal, Kept, Results, recipe_of
from ..layers.run_step import (
    Step,
    closed,
    expected_shape,
    found_classes,
    named_channels,
    recipe_with_plane,
)
from ..layers.stored_results import KIND as STORED
from ..layers.stored_results import StoredResults
from ..layers.visibility import bring_into_sight, is_in_sight
from ..panels.controls import (
    Section,
    SettingsForm,
    button,
    combo,
    count,
    device_line,
    heading,
    is_alive,
    labelled,
    note,
    result_options,
    sentence,
    side_by_side,
    theme_color,
)
from ..panels.image_panel import ImagePanel
from ..panels.large_results import StoredBox
from ..panels.model_picker import ModelPicker
from ..panels.prompt_panel import OPEN_IMAGE, PromptPanel
from ..panels.save_panel import SaveBox
from ..services.autosave import Autosave
from ..services.engine_process import Engine, EngineJob, shared_engine
from ..services.preferences import preference
from ..tools.uncertainty_guide import UncertaintyGuide
from .tabs import share_tabs

if TYPE_CHECKING:
    import napari
    from napari.layers import Image


BEGIN = "Draw a box on a few labelled cells to begin."
DEVICES = ("auto", "cpu", "cuda", "mps")
LOW_TRUST = 0.4
"""Below this a result needs another look."""


class SegmentWidget(QWidget):
    """Find more of what a few boxes show, in all open images.

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
        self.journal = Journal()
        self.results = Results(napari_viewer, self.journal)
        self.stored = StoredResults(napari_viewer, self.journal)
        self.image_panel = ImagePanel(napari_viewer)
        self.images = self.image_panel.list
        self.axes, self.channels = self.image_panel.axes, self.image_panel.channels
        self.prompt_panel = PromptPanel(napari_viewer, self.image_panel)
        self.book, self.list = self.prompt_panel.book, self.prompt_panel.list
        self.draw, self.size = self.prompt_panel.draw, self.prompt_panel.size
        self.mask, self.paint = self.prompt_panel.mask, self.prompt_panel.paint
        self._steps: list[Step] = []
        self._step: Step
        self._n_steps = 0
        self._n_objects = 0
        self._seconds = 0.0
        self._trusts: list[float] = []
        self._failed: list[str] = []
        self._is_closed = False
        self._prompts: PromptSet | None = None
        self._job: EngineJob | None = None
        self._option_job: EngineJob | None = None
        self._option_call: tuple[Kept, dict[str, Any]]
        self._last_result: Any = None
        self._is_preview = self._knew_classes = self._is_hidden = False
        self._remark = self._once_ready = ""
        self._had_image = False
        self._build()
        self._connect()
        self._leave = _Leave(
            self.guide.close_guide,
            self.book.close,
            self.image_panel.close_hooks,
            self.stored.close,
            self.engine.release,
        )
        self.destroyed.connect(partial(_Leave.__call__, self._leave))
        self.image_panel.refresh()
        self.refresh_models()
        self.book.adopt_all()
        self._options_timer = QTimer(self)
        self._options_timer.setSingleShot(True)
        self._options_timer.setInterval(200)
        self._options_timer.timeout.connect(self._apply_options)
        self._open.append(weakref.ref(self))
        self._start_timer = QTimer(self)
        self._start_timer.setSingleShot(True)
        self._start_timer.timeout.connect(self.ask_device)
        self._start_timer.start(0)
        share_tabs(self)

    _open: ClassVar[list[weakref.ref[SegmentWidget]]] = []

    @classmethod
    def docks(cls) -> list[SegmentWidget]:
        """Return the docks that are open."""
        docks = [d for ref in cls._open if (d := ref()) is not None]
        return [d for d in docks if is_alive(d) and not d._leave.is_done]

    def changeEvent(self, event: QEvent) -> None:
        """End the run and let go of the viewer when the dock is closed.

        napari only takes a closed dock's widget out of the window; it lives on.
        """
        super().changeEvent(event)
        if event.type() == QEvent.Type.ParentChange and self.parentWidget() is None:
            self._options_timer.stop()
            self.cancel()
            self._leave()

    # ------------------------------------------------------------ what it says

    def settings(self) -> dict[str, Any]:
        """Return the values of all settings of a run."""
        return {
            **self.run_settings.values(),
            **self.options.values(),
            "device": self.device.currentText(),
        }

    def choices(self) -> dict[str, Any]:
        """Return what the controls say, for the next session."""
        return {
            "run": self.run_settings.values(),
            "options": self.options.values(),
            "size": self.size.value(),
            "model": self.model.currentText(),
            "large": self.large.values(),
        }

    def restore_choices(self, values: dict[str, Any]) -> None:
        """Show what `choices` returned in the last session."""
        self.run_settings.set_values(values["run"])
        self.options.set_values(values["options"])
        self.size.setValue(values["size"])
        self.refresh_models(values["model"])
        self.large.set_values(values.get("large", {}))

    def source_of(self, layer: Image) -> ImageSource:
        """Return an image layer with the axes declared for it."""
        return self.image_panel.source_of(layer)

    def current_image(self) -> Image | None:
        """Return the image that is marked in the list."""
        return self.image_panel.marked()

    def chosen_images(self) -> list[Image]:
        """Return the images that are checked in the list."""
        return self.image_panel.checked()

    def say(self, text: str, error: bool = False) -> None:
        """Show a message at the bottom of the dock."""
        self.message.setStyleSheet(
            f"background: {theme_color(self.viewer.theme, 'error')}; color: white;"
            " padding: 4px; border-radius: 3px;"
            if error
            else ""
        )
        self.message.setText(text)
        self._once_ready = ""

    def _complain(self, text: str, error: bool = False, then: str = TRY) -> None:
        """Say what a prompt lacks, until no prompt lacks anything."""
        self.say(text, error)
        self._once_ready = then

    # ------------------------------------------------------------ layout

    def _build(self) -> None:
        body = QWidget()
        column = QVBoxLayout(body)
        column.setContentsMargins(6, 3, 6, 6)
        column.setSpacing(4)
        self.autosave = Autosave.of(self.viewer)
        self.last_session = self.autosave.attach(
            "segment", self.choices, self.restore_choices, self.book
        )
        column.addWidget(self.last_session)
        column.addWidget(heading("Images"))
        column.addWidget(self.image_panel)
        column.addWidget(heading("Prompts"))
        column.addWidget(self.prompt_panel)
        self._build_model(column)
        self._build_sections(column)
        column.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(body)
        self.scroll = scroll
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 4)
        layout.addWidget(scroll, 1)
        layout.addWidget(self._build_footer())
        self.setMinimumWidth(300)

    def _build_model(self, column: QVBoxLayout) -> None:
        column.addWidget(heading("Model"))
        self.models = ModelPicker("Model that finds more of what the prompts show")
        self.model = self.models.combo
        column.addWidget(self.models)
        self.device_line = note("Starting the engine…")
        column.addWidget(self.device_line)

    def _build_sections(self, column: QVBoxLayout) -> None:
        options = Section("Result options")
        self.options = result_options()
        self.add_probability = QCheckBox("Add a probability layer")
        self.add_probability.setToolTip("How sure the model is that a pixel belongs")
        self.add_uncertainty = QCheckBox("Add an uncertainty layer")
        self.add_uncertainty.setToolTip("Bright where the model hesitates")
        for widget in (self.options, self.add_probability, self.add_uncertainty):
            options.form.addRow(widget)
        save = Section("Save")
        self.save_box = SaveBox(self.viewer, self.stored, self.prompt_panel)
        save.form.addRow(self.save_box)
        advanced = Section("Advanced")
        self.device = combo("Where the model runs; auto takes a GPU if there is one")
        self.device.addItems(DEVICES)
        self.device.setEditable(True)
        self.device.setCurrentText(str(preference("device")))
        self.run_settings = SettingsForm(
            SegmentSettings,
            {
                "refine": "Fit to prompts",
                "tile": "Largest tile",
                "overlap": "Overlap",
                "batch": "Tiles at once",
                "scale_objects": "Bring objects to the model's size",
                "trust": "Check the result on the prompt",
            },
        )
        self.run_settings.set_values({"tile": int(preference("tile"))})
        self.restart = button(
            "End the engine",
            "End the engine and give its memory back; the next run starts it again",
        )
        advanced.form.addRow("Device", self.device)
        advanced.form.addRow(self.run_settings)
        advanced.form.addRow(self.restart)
        large = Section("Large results")
        self.large = StoredBox(self.stored)
        large.form.addRow(self.large)
        self.sections = {
            "options": options,
            "save": save,
            "large": large,
            "advanced": advanced,
        }
        for section in self.sections.values():
            column.addWidget(section)

    def _build_footer(self) -> QWidget:
        footer = QWidget()
        column = QVBoxLayout(footer)
        column.setContentsMargins(6, 4, 6, 0)
        column.setSpacing(4)
        self.planes = combo("Which planes of a stack or time series to segment")
        self.planes.addItem("This plane", False)
        self.planes.addItem("All planes", True)
        self.planes_row = labelled("Run on", self.planes)
        self.preview = button(
            "Preview", "Segment what you see of the marked image (Shift+P on the boxes)"
        )
        self.run = button("Run", "Segment all checked images (Shift+R on the boxes)")
        self.stop = button("Stop", "Stop; what is finished is kept")
        self.undo = button("Undo", "Take the last result back")
        self.progress = QProgressBar()
        self.progress.setTextVisible(True)
        self.progress.setRange(0, 100)
        self._progress_row = side_by_side(self.progress, self.stop, stretch=(1, 0))
        self._progress_row.hide()
        self.message = note()
        self.message.setMinimumHeight(36)
        self.message.setToolTip(
            "Trust: how well the result finds the prompts again; 1 is best."
        )
        self.message.setAlignment(Qt.AlignmentFlag.AlignTop)
        column.addWidget(self.planes_row)
        column.addWidget(
            side_by_side(self.preview, self.run, self.undo, stretch=(2, 2, 1))
        )
        self.guide = UncertaintyGuide(
            self.viewer, self.results, self.book, self.image_panel
        )
        column.addWidget(self._progress_row)
        column.addWidget(self.guide)
        column.addWidget(self.message)
        return footer

    def _connect(self) -> None:
        self.autosave.message.connect(self.say)
        self.options.changed.connect(self.autosave.touch)
        self.image_panel.changed.connect(self._on_images)
        self.image_panel.message.connect(self.say)
        self.stored.message.connect(self.say)
        self.stored.changed.connect(self._show_state)
        self.image_panel.redeclared.connect(self.book.axes_changed)
        self.prompt_panel.message.connect(self.say)
        self.prompt_panel.missing.connect(self._complain)
        self.models.changed.connect(self._on_model)
        self.models.failed.connect(lambda text: self.say(text, True))
        self.device.currentTextChanged.connect(lambda _: self.ask_device())
        self.restart.clicked.connect(self._on_restart)
        self.preview.clicked.connect(self.start_preview)
        self.run.clicked.connect(self.start_run)
        self.stop.clicked.connect(self.cancel)
        self.undo.clicked.connect(self.undo_last)
        self.options.changed.connect(self._on_options)
        self.save_box.message.connect(self.say)
        self.guide.message.connect(self.say)
        self.book.changed.connect(self._on_prompts)
        if preference("shortcuts"):
            self.book.shortcuts = {
                "Shift-D": ("Draw box", self.draw.click),
                "Shift-P": ("Preview", self.start_preview),
                "Shift-R": ("Run", self.start_run),
                "Shift-N": ("Next doubtful place", self.guide.next_place),
                "Shift-I": ("Next doubtful image", self.guide.next_image),
                "Shift-A": ("Make it a prompt", self.guide.accept),
            }

    # ------------------------------------------------------------ showing

    def _on_images(self) -> None:
        """Follow the list of images and its marks."""
        self.journal.follow(self.viewer.layers)
        self.prompt_panel.show_masks()
        self._show_state()
        self._skip_closed()
        has_image = self.current_image() is not None
        was_closed = self._had_image and not has_image
        self._had_image = has_image
        if was_closed or self.message.text() in ("", BEGIN, OPEN_IMAGE):
            self.say(BEGIN if has_image else OPEN_IMAGE)

    def _show_state(self) -> None:
        """Show and enable what makes sense now."""
        layer = self.current_image()
        has_stacks = self.image_panel.has_stacks()
        self.planes_row.setVisible(has_stacks)
        self.options.show_rows(("link_planes", "link_overlap"), has_stacks)
        busy = self._job is not None
        self.preview.setEnabled(layer is not None and not busy)
        self.run.setEnabled(bool(self.chosen_images()) and not busy)
        self.undo.setEnabled(bool(self.journal.edits) and not busy)
        self._progress_row.setVisible(busy)
        self.guide.refresh(busy=busy)
        self.save_box.refresh()

    def _on_prompts(self) -> None:
        """Follow the prompts: what was missing may be there now."""
        if self._once_ready and self.book.is_ready:
            self.say(self._once_ready)
        elif self._once_ready and not self.book.items:
            self.say(BEGIN if self.current_image() is not None else OPEN_IMAGE)
        self._show_state()

    def refresh_models(self, name: str = "") -> None:
        """List the models anew, and choose one by its name."""
        self.models.refresh(name)

    def _on_model(self) -> None:
        """Follow the choice: classes of a model that knows them, objects else."""
        knows_classes = self.models.knows_classes
        if knows_classes == self._knew_classes:
            return
        self._knew_classes = knows_classes
        self.options.set_values({"labels": "classes" if knows_classes else "objects"})
        if knows_classes:
            self.say("This model needs no prompt: press Preview or Run.")

    # ------------------------------------------------------------ running

    def start_preview(self) -> None:
        """Segment the visible field of the marked image."""
        layer = self.current_image()
        if layer is None or self._job is not None:
            return
        try:
            source = self.source_of(layer)
        except ImageError as error:
            self.say(sentence(error), True)
            return
        if not is_in_sight(self.viewer, layer):
            bring_into_sight(self.viewer, layer)
        plane = source.plane_at(self.viewer.dims.point)
        self._start([Step(source, plane, source.visible_tile())], preview=True)

    def start_run(self) -> None:
        """Segment all checked images."""
        if self._job is not None:
            return
        steps = []
        try:
            for layer in self.chosen_images():
                source = self.source_of(layer)
                everything = self.planes.currentData() or source.n_planes == 1
                plane = None if everything else source.plane_at(self.viewer.dims.point)
                steps.append(Step(source, plane, store=self._store(source, plane)))
        except ImageError as error:
            more = " Or uncheck it." if len(self.chosen_images()) > 1 else ""
            self.say(f"{sentence(error)}{more}", True)
            return
        if not steps:
            self.say("Check at least one image in the list.", True)
            return
        self._start(steps, preview=False)

    def _store(self, source: ImageSource, plane: tuple[int, ...] | None) -> str:
        """Return where a result is stored that is too large for memory, else ""."""
        return "" if self.models.knows_classes else self.large.store_for(source, plane)

    def cancel(self) -> None:
        """Stop the run; finished images and planes stay."""
        self._steps = []
        if self._job is not None:
            self.stop.setEnabled(False)
            self.progress.setFormat("Stopping…")
            self._job.cancel()

    def _start(self, steps: list[Step], *, preview: bool) -> None:
        self.book.tool.stop()
        self.guide.drop()
        if self.models.card is None:
            self.say("No model is installed: reinstall napari-svpseg.", True)
            return
        try:
            self._prompts = None if self.models.knows_classes else self.book.prompts()
        except PromptError as error:
            self._complain(sentence(error), True)
            return
        self._steps, self._n_steps = list(steps), len(steps)
        self._n_objects, self._remark, self._is_preview = 0, "", preview
        self._seconds, self._trusts = 0.0, []
        self._is_hidden, self._failed = False, []
        if not preview:
            self.journal.begin()
        self._next()

    def _next(self) -> None:
        """Submit the next image of the run."""
        step = self._steps.pop(0)
        self.say(f"Segmenting '{step.source.name}'…")
        self.progress.setRange(0, 0)
        self.progress.setFormat("")
        self.stop.setEnabled(True)
        function = segment_stored if step.store else segment
        job = self.engine.submit_prepared(function, self._call(step))
        self._job = job
        self._step = step
        self._is_closed = False
        job.progressed.connect(self._on_progress)
        job.partial.connect(self._on_partial)
        job.returned.connect(self._on_result)
        job.failed.connect(self._on_failed)
        job.cancelled.connect(self._on_cancelled)
        job.finished.connect(self._on_finished)
        self._show_state()

    def _call(self, step: Step) -> Callable[[], Any]:
        """Return what makes the arguments of a step, away from the GUI's thread."""
        source, intensities = step.source, self.book.intensities
        prompts, model = self._prompts, self.model.currentData()
        settings = self.settings()
        several = bool(step.tile or step.store) or (
            step.plane is not None and source.n_planes > 1
        )
        promise = intensities.request(source) if several else None

        query = source.query(step.plane, step.tile)
        kwargs = {
            "model": model.path or model.name,
            "axes": source.query_axes(step.plane),
            "channels": source.channels or named_channels(prompts, source),
            "rgb": bool(source.layer.rgb),
        }
        args: tuple[Any, ...] = (query, prompts)
        if step.store:
            query, about = self.stored.arguments(source, step.plane, step.store)
            args, kwargs = (query, prompts, step.store), kwargs | about

        def prepare() -> Any:
            kwargs["settings"], kwargs["postprocess"] = split_settings(settings)
            if promise is not None:
                kwargs["intensities"] = promise.result()
            return args, kwargs

        return prepare

    def _on_progress(self, done: int, total: int, text: str) -> None:
        self.progress.setRange(0, max(total, 1))
        self.progress.setValue(done)
        n = self._n_steps
        which = f"image {n - len(self._steps)} of {n}, " if n > 1 else ""
        self.progress.setFormat(f"{which}{text or '%p %'}")

    def _on_partial(self, value: Any) -> None:
        """Show a finished plane of a stack while the rest is running."""
        step = self._step
        if step.store:
            self._on_filled(step, value)
            return
        index, labels = value
        if self._is_preview or not isinstance(index, tuple) or step.plane is not None:
            return
        if step.source.layer not in self.viewer.layers or step.source.n_planes == 1:
            return
        if labels.shape == step.source.plane_shape:
            self.results.show(step.source, index, labels, text="Plane")

    def _on_filled(self, step: Step, value: StoredLabels | Filled) -> None:
        """Show what there is of a result on the disk."""
        if step.source.layer not in self.viewer.layers:
            return
        if isinstance(value, Filled):
            self.stored.show(value)
        else:
            self.results.drop_preview(step.source)
            self._last_result = self.stored.begin(
                step.source, step.plane, step.store, value
            )

    def _on_stored(self, labels: StoredLabels) -> None:
        """Say what became of a result on the disk."""
        layer = self.stored.end(labels)
        self._n_objects += max(labels.objects, 0)
        notes = "".join(f" ({text})" for text in labels.notes if "usable" not in text)
        where = f" It lies in {self._step.store}." if layer is not None else ""
        self.say(
            f"{count(labels.objects, 'object')}, {labels.seconds:.0f} s."
            f"{where} Save writes it elsewhere.{notes}{self.stored.remark}"
        )

    def _on_result(self, result: Result | StoredLabels) -> None:
        step = self._step
        if isinstance(result, StoredLabels):
            self._on_stored(result)
            return
        if step.source.layer not in self.viewer.layers:
            self.say(closed(step))
            return
        if result.labels.shape != expected_shape(step):
            self.say(
                f"'{step.source.name}' changed while it was segmented: run again.", True
            )
            return
        self._n_objects += result.n_objects
        self._seconds += result.seconds
        self._trusts.append(result.trust)
        result = replace(result, recipe=recipe_with_plane(result.recipe, step))
        if step.tile is not None:
            layer = self.results.show_preview(
                step.source, step.plane or (), step.tile, result
            )
        else:
            self.results.drop_preview(step.source)
            layer, remark = self.results.show(
                step.source, step.plane, result.labels, result=result
            )
            self._remark += remark
            self._show_maps(step, result)
        self.results.keep(layer, step.source, step.plane, result, step.tile)
        self._last_result = layer
        self._is_hidden |= not layer.visible
        self._describe(result)

    def _show_maps(self, step: Step, result: Result) -> None:
        if self.add_probability.isChecked():
            self.results.show_map(
                step.source, step.plane, result.foreground, "probability"
            )
        if self.add_uncertainty.isChecked():
            self.results.show_map(
                step.source, step.plane, result.uncertainty, "uncertainty"
            )

    def _describe(self, result: Result) -> None:
        are_classes = result.recipe.postprocess.get("labels") == "classes"
        if result.classes and are_classes:
            text = ", ".join(found_classes(result)) or "None of the classes"
        else:
            text = count(self._n_objects, "object")
        if self._n_steps > 1:
            n_done = self._n_steps - len(self._steps) - len(self._failed)
            text += f" in {count(n_done, 'image')}"
        text += f"{' in this view' if self._is_preview else ''}, {self._seconds:.1f} s"
        trusts = [t for t in self._trusts if np.isfinite(t)]
        trust = float(np.mean(trusts)) if trusts else np.nan
        if trusts:
            text += f", trust {trust:.2f}"
        if self._n_objects == 0:
            text += ". Lower the threshold" + (
                "." if result.classes else ", or draw a box on a clearer cell."
            )
        elif trust < LOW_TRUST:
            text += (
                ", which is low. Mask every object in the box to its edge, or draw "
                "a second box."
            )
        elif self._is_preview:
            text += ". Press Run for the whole image."
        else:
            text += ". Adjust it under Result options, or save it."
        if self._is_hidden:
            text += " Click on the name of an image to see its result."
        notes = [n for n in result.recipe.notes if "no usable GPU" not in n]
        if notes:
            text += f" ({'; '.join(notes)})"
        self.say(text + self._remark)

    def _on_failed(self, text: str) -> None:
        """Say what went wrong; the images that are left have their turn."""
        self.stored.stop()
        self._failed.append(f"'{self._step.source.name}': {text}")
        self.say(self._failed[0], True)

    def _say_failed(self) -> None:
        """Say at the end of a run which images could not be segmented."""
        n = len(self._failed)
        more = f" {n - 1} more could not be segmented." if n > 1 else ""
        n_done = self._n_steps - n
        found = count(self._n_objects, "object")
        rest = f" {count(n_done, 'other image')} done: {found}." if n_done else ""
        self.say(f"{self._failed[0]}{more}{rest}", True)

    def _skip_closed(self) -> None:
        """Do not segment images that have been closed since the run began."""
        layers = self.viewer.layers
        self._steps = [s for s in self._steps if s.source.layer in layers]
        if self._job is not None and self._step.source.layer not in layers:
            self._is_closed = True
            self._job.cancel()

    def _on_cancelled(self) -> None:
        self.stored.stop()
        if self._is_closed:
            self.say(closed(self._step))
            return
        self._steps, self._failed = [], []
        more = " Run goes on from there." if self._step.store else ""
        self.say(f"Stopped. What was finished is kept.{more}")

    def _on_finished(self) -> None:
        self._job = None
        if self._steps:
            self._next()
        else:
            self.journal.end()
            if self._failed:
                self._say_failed()
        self._show_state()

    # ------------------------------------------------------------ result options

    def _on_options(self) -> None:
        if self._last_result is not None:
            self._options_timer.start()

    def _apply_options(self) -> None:
        """Make the objects of the latest result again, without the model."""
        if mark_of(self._last_result, STORED):
            self.say("Press Run for a large result with these options.")
            return
        kept = self.results.kept.get(getattr(self._last_result, "unique_id", None))
        if self._job is not None or self._option_job is not None:
            self._options_timer.start()
            return
        if kept is None or kept.layer not in self.viewer.layers:
            self.say("Press Run for a result with these options.")
            return
        if not is_untouched(kept.layer):
            self.say(
                f"You edited '{kept.layer.name}', so it is left as it is: "
                "press Run for a new result with these options."
            )
            return
        values = self.options.values()
        axes = kept.source.query_axes(kept.plane)
        job = self.engine.submit(
            postprocess, kept.maps, PostprocessSettings(**values), axes=axes
        )
        self._option_job, self._option_call = job, (kept, values)
        job.returned.connect(self._show_options)
        job.failed.connect(self._on_options_failed)
        job.finished.connect(self._on_options_done)

    def _on_options_done(self) -> None:
        self._option_job = None
        self._show_state()

    def _on_options_failed(self, text: str) -> None:
        self.say(text, True)

    def _show_options(self, labels: np.ndarray) -> None:
        kept, values = self._option_call
        if kept.layer not in self.viewer.layers:
            return
        n = self.results.show_again(kept, labels, values)
        hint = "" if n else " Lower the threshold or the smallest object."
        self.say(f"{count(n, 'object')} with these options.{hint}")

    # ------------------------------------------------------------ undo

    def undo_last(self) -> None:
        """Take our last change of the viewer back."""
        edits = self.journal.edits
        are_options = bool(edits) and edits[-1].text == "Options"
        if edits and not are_options:
            self.results.forget(edits[-1])
        self.say(self.journal.undo())
        recipe = recipe_of(self._last_result) if are_options else None
        if recipe is not None:  # the controls say what is shown
            self._options_timer.stop()
            self.options.blockSignals(True)
            self.options.set_values(recipe.postprocess)
            self.options.blockSignals(False)
        self._show_state()

    # ------------------------------------------------------------ engine

    def ask_device(self) -> None:
        """Start the engine if need be, and show where models will run."""
        self.device_line.setText("Starting the engine…")
        job = self.engine.submit(describe_device, self.device.currentText())
        job.returned.connect(self._show_device)
        job.failed.connect(self.device_line.setText)

    def _show_device(self, about: dict[str, Any]) -> None:
        self.device_line.setText(device_line(about))

    def _on_restart(self) -> None:
        self.engine.close()
        self.device_line.setText("The engine is off; the next run starts it.")


class _Leave:
    """What is left to do, once, when the dock is closed or gone."""

    def __init__(self, *steps: Callable[[], None]) -> None:
        self._steps = steps
        self.is_done = False

    def __call__(self, *_: object) -> None:
        if self.is_done:
            return
        self.is_done = True
        for step in self._steps:
            step()
