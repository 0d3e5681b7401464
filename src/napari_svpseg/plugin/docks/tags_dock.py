"""The dock "Train from tags"."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtWidgets import QCheckBox, QDoubleSpinBox, QLineEdit

from ...core.annotation.image_tags import (
    BankPatch,
    TagTrainingResult,
    TagTrainingSettings,
)
from ...core.prompt import PromptSet
from ..callbacks import reports_errors, tell
from ..layers.images.image_preview import ShownImage, drop_overlay, show_overlay
from ..layers.images.tagged_image import TaggedImage
from ..layers.labels.class_colors import class_color
from ..messages import TRY
from ..panels.controls import button, labelled
from ..panels.model_picker import DEFAULT
from ..panels.plain_text import PlainLabel, tip_text
from ..panels.settings_form import SettingsForm
from ..panels.tags.patch_bank_panel import PatchBankPanel
from ..panels.tags.tag_advice import tag_advice, tag_problem
from ..panels.tags.tag_panel import TagPanel
from ..panels.training.curves import Curves
from ..services.background import Background
from ..services.engine_process import Engine
from .base import Dock, device_combo
from .tabs import SEGMENT, TRAIN_FROM_TAGS, open_docks, show_dock
from .tags_controller import MASK_SCORE, TAG_SCORE, TagsChoices, TagsController

if TYPE_CHECKING:
    import napari

MAX_MINUTES = 10_000


@reports_errors()
class TagsWidget(Dock):
    """Train a model from tags that say which image holds what.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    engine : Engine, optional
        Where models run; by default this napari's own.
    """

    title = TRAIN_FROM_TAGS

    def __init__(
        self, napari_viewer: napari.viewer.Viewer, engine: Engine | None = None
    ) -> None:
        stop = button("Stop and keep", "End now and keep the best so far")
        drop = button("Cancel", "End now and keep nothing")
        super().__init__(napari_viewer, engine, stop_buttons=(stop, drop))
        self.drop = drop
        self._files = Background(partial(tell, self))
        self.tag_panel = TagPanel(napari_viewer)
        self.tags = self.tag_panel.tags
        self.shown = ShownImage(napari_viewer, lambda text: self.say(text, True))
        self.bank = PatchBankPanel()
        self.curves = Curves(scores=(TAG_SCORE, MASK_SCORE), x_name="seconds")
        self.controller: TagsController = self.attach(
            TagsController(self, self.engine, self._files)
        )
        self._build()
        self._connect()
        self.at_close(
            self.tag_panel.close_hooks,
            self.bank.close_files,
            self.shown.close,
            self._files.close,
        )
        self._on_tags()

    # ------------------------------------------------------------ values

    def run_choices(self) -> TagsChoices:
        """Return the values that a training depends on."""
        return TagsChoices(
            self.name.text(),
            self.tags.tagged(),
            self.tags.classes,
            {
                **self.options.values(),
                **self.advanced.values(),
                "minutes": self.minutes.value() or None,
            },
            tag_problem(self.tags),
            self.bank.patches(),
            self.device.currentText(),
        )

    def selected_image(self) -> TaggedImage | None:
        """Return the image whose row is selected."""
        images = self.tag_panel.selected_images()
        return images[0] if images else None

    def model(self) -> str:
        """Return the folder of the model that was trained or opened last, or ""."""
        return "" if self.bank.result is None else self.bank.result.model

    # ------------------------------------------------------------ layout

    def _build(self) -> None:
        self.add_heading("Which image shows what")
        self.add(self.tag_panel)
        self.show_selected = QCheckBox("Show the selected image")
        self.show_selected.setToolTip(
            "Show the image of the selected row in the viewer"
        )
        self.show_selected.setChecked(True)
        self.curves.hide()
        self.add(self.show_selected, self.curves)
        self.add_heading("Image bank")
        self.add(self.bank)
        self._build_sections()
        self.add_sessions()
        self._build_footer()

    def _build_sections(self) -> None:
        self.options = SettingsForm(
            TagTrainingSettings,
            (
                "variant",
                "epochs",
                "second_stage",
                "second_epochs",
                "n_prototypes",
                "n_patches",
            ),
        )
        self.minutes = QDoubleSpinBox()
        self.minutes.setRange(0, MAX_MINUTES)
        self.minutes.setDecimals(1)
        self.minutes.setSuffix(" min")
        self.minutes.setSpecialValueText("none")
        minutes = TagTrainingSettings.__dataclass_fields__["minutes"].metadata
        self.minutes.setToolTip(tip_text(minutes["help"]))
        training = self.add_section("training", "Training options", self.options)
        training.form.addRow(PlainLabel(minutes["label"]), self.minutes)
        self.device = device_combo(
            "Where the model is trained; auto takes a GPU if there is one"
        )
        self.advanced = SettingsForm(
            TagTrainingSettings, ("window", "scale", "intensities", "batch")
        )
        advanced = self.add_section("advanced", "Advanced")
        advanced.form.addRow("Device", self.device)
        advanced.form.addRow(self.advanced)

    def _build_footer(self) -> None:
        self.name = QLineEdit("from tags")
        self.name.setToolTip("Name of the new model in the Model menus of all docks")
        self.train = button("Train", "Train a model from the tags")
        self.look = button(
            "Show map", "Show which classes the model finds in the selected image"
        )
        self.use = button("Use model", "Segment images with this model")
        self.footer.add_option(labelled("Save as", self.name))
        self.footer.add_actions(self.train, self.look, self.use, stretch=(2, 1, 1))

    def _connect(self) -> None:
        control = self.controller
        for part in (self.tag_panel, self.bank):
            part.message.connect(self.say)
        self.tag_panel.changed.connect(self._on_tags)
        self.tag_panel.selected.connect(self._on_selected)
        self.bank.asked.connect(control.find_bank)
        self.bank.opened.connect(control.follow_opened)
        self.bank.used.connect(control.use_patches)
        self.show_selected.toggled.connect(self._on_show_selected)
        self.train.clicked.connect(control.start)
        self.stop.clicked.connect(control.stop_and_keep)
        self.drop.clicked.connect(control.cancel)
        self.look.clicked.connect(control.show_map)
        self.use.clicked.connect(control.use_model)
        self.bind(
            train=self.train,
            stop=self.stop,
            next_untagged=self.tag_panel.next,
            show_map=self.look,
            use_model=self.use,
        )

    # ------------------------------------------------------------ tags

    def _on_tags(self) -> None:
        self.controller.follow_tags(tag_advice(self.tags))

    def _on_selected(self, image: TaggedImage) -> None:
        if self.show_selected.isChecked():
            self.shown.show(image)
        self.show_state()

    def _on_show_selected(self, on: bool) -> None:
        image = self.selected_image()
        if on and image is not None:
            self.shown.show(image)

    # ------------------------------------------------------------ showing

    def show_state(self) -> None:
        """Show and enable what makes sense now."""
        busy, has_images = self.is_busy, bool(self.tags.images)
        has_model = bool(self.model())
        self.train.setEnabled(not busy and has_images)
        self.stop.setVisible(self.controller.is_training)
        self.name.setEnabled(not busy)
        self.use.setEnabled(has_model and not busy)
        self.look.setEnabled(
            has_model
            and not busy
            and self.controller.map_job is None
            and self.selected_image() is not None
        )
        self.bank.follow(self.tags.classes, busy=busy, can_find=has_images)

    def show_run(self) -> None:
        """Show empty curves, and no bank or map of an earlier model."""
        self.curves.clear()
        self.curves.show()
        self.bank.clear_model()
        drop_overlay(self.viewer)

    def show_keeping(self, text: str) -> None:
        """Show that the training is ending with its best model so far."""
        self.progress_row.show_stopping(text, [self.stop])

    def add_point(self, series: str, seconds: float, value: float) -> None:
        """Add a point to a curve."""
        self.curves.add_point(series, seconds, value)

    def show_patches(self, patches: Sequence[BankPatch]) -> None:
        """Show an image bank that has no masks yet."""
        images = {image.key: image for image, _ in self.tags.tagged()}
        self.bank.show_found(patches, images)

    def show_result(self, result: TagTrainingResult) -> None:
        """Show the image bank of a new model, and list the model in all docks."""
        self.bank.load(result)
        self.bank.list_models()
        for dock in open_docks(self.viewer, SEGMENT):
            dock.refresh_models()

    def show_image(self, image: TaggedImage) -> None:
        """Show an image on the canvas."""
        if self.shown.layer_of(image) is None:
            self.shown.show(image)

    def show_map(
        self, image: TaggedImage, classes: np.ndarray, foreground: np.ndarray
    ) -> None:
        """Show a class map over an image that is on the canvas."""
        layer = self.shown.layer_of(image)
        if layer is None:
            return
        colors = {i + 1: class_color(i) for i in range(len(self.tags.classes))}
        show_overlay(self.viewer, layer, classes, foreground, colors)

    # ------------------------------------------------------------ segmenting

    def segment_with_prompts(self, prompts: PromptSet) -> None:
        """Add prompts to the dock that segments."""
        dock = show_dock(self.viewer, SEGMENT)
        dock.book.add_loaded(prompts)
        if not dock.models.takes_prompts:
            dock.refresh_models(DEFAULT)
        dock.say(TRY)

    def segment_with_model(self, model: str) -> None:
        """Choose a model in the dock that segments."""
        show_dock(self.viewer, SEGMENT).refresh_models(model)
