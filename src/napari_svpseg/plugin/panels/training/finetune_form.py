"""The controls of fine-tuning: which model, its new name, and how it is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QFileDialog, QLineEdit, QVBoxLayout, QWidget

from ....core.jobs.finetune_job import FineTuneSettings
from ...callbacks import reports_errors
from ..controls import button, combo, labelled, note, side_by_side
from ..model_picker import ModelPicker
from ..plain_text import tip_text
from ..settings_form import SettingsForm

PRESETS = {
    "quick": "Quick (under a minute)",
    "thorough": "Thorough (15 minutes)",
    "custom": "Custom (see Training options)",
}
ONLY_SET = "Only images of the set"


@reports_errors("_ask_for_unlabelled")
class FineTuneForm(QWidget):
    """The model, name and time of a training; its options are forms of their own.

    Attributes
    ----------
    meaning : SettingsForm
        What the labels mean.
    options : SettingsForm
        Settings of the custom preset.
    unlabelled : str
        Folder of images without labels; empty for those of the training set only.
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.unlabelled = ""
        self.models = ModelPicker("Model to train further")
        self.name = QLineEdit("my cells")
        self.name.setToolTip("Name of the new model in the Model menus of all docks")
        self.preset = combo("How long to train")
        for key, title in PRESETS.items():
            self.preset.addItem(title, key)
        self.pretrain = QCheckBox("Learn from my unlabelled images first")
        self.pretrain.setToolTip(
            "First learn from superpixels, which need no labels, of the images of the "
            "set and of a folder of your images"
        )
        self.unlabelled_line = note()
        self.choose_unlabelled = button(
            "Folder…", "Choose a folder of images without labels; some of them are used"
        )
        self._unlabelled_row = side_by_side(
            self.unlabelled_line, self.choose_unlabelled, stretch=(1, 0)
        )
        self._unlabelled_row.hide()
        self._build_options()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        for widget in (
            self.models,
            labelled("Save as", self.name),
            labelled("Time", self.preset),
            self.pretrain,
            self._unlabelled_row,
        ):
            column.addWidget(widget)
        self.pretrain.toggled.connect(self._unlabelled_row.setVisible)
        self.pretrain.toggled.connect(lambda _: self.changed.emit())
        self.options.changed.connect(self.changed)
        self.choose_unlabelled.clicked.connect(self._ask_for_unlabelled)
        self.use_unlabelled("")

    def _build_options(self) -> None:
        self.meaning = SettingsForm(
            FineTuneSettings, ("unlabelled_is_background", "semantic", "wanted")
        )
        self.options = SettingsForm(
            FineTuneSettings,
            (
                "seconds",
                "steps",
                "learning_rate",
                "batch",
                "validation",
                "pseudo_labels",
                "student",
                "seed",
            ),
        )

    def values(self) -> dict[str, Any]:
        """Return the values of the controls, for the next session."""
        return {
            "options": self.options.values(),
            "meaning": self.meaning.values(),
            "preset": self.preset.currentData(),
            "name": self.name.text(),
            "model": self.models.combo.currentText(),
            "pretrain": self.pretrain.isChecked(),
            "unlabelled": self.unlabelled,
        }

    def set_values(self, values: dict[str, Any]) -> None:
        """Show what `values` returned in the last session."""
        self.options.set_values(values["options"])
        self.meaning.set_values(values["meaning"])
        self.preset.setCurrentIndex(max(0, self.preset.findData(values["preset"])))
        self.name.setText(values["name"])
        self.models.refresh(values["model"])
        self.use_unlabelled(values.get("unlabelled", ""))
        self.pretrain.setChecked(bool(values.get("pretrain")))

    def model_names(self) -> tuple[str, ...]:
        """Return the names of all installed models."""
        choice = self.models.combo
        return tuple(choice.itemText(i) for i in range(choice.count()))

    def use_unlabelled(self, folder: str) -> None:
        """Learn first from the images in a folder too; an empty name takes none."""
        self.unlabelled = folder
        self.unlabelled_line.setText(
            f"Set, and {Path(folder).name}" if folder else ONLY_SET
        )
        self.unlabelled_line.setToolTip(tip_text(folder))

    def _ask_for_unlabelled(self) -> None:
        folder = QFileDialog.getExistingDirectory(
            self, "Folder of images", self.unlabelled
        )
        if folder:
            self.use_unlabelled(folder)
