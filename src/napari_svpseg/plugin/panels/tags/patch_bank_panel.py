"""The part of a dock where the image bank is found, edited and saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QFileDialog, QVBoxLayout, QWidget

from ....core.annotation.image_tags import BankPatch, TagTrainingResult
from ....core.image import intensity_range
from ...callbacks import reports_errors, tell
from ...layers.images.tagged_image import TaggedImage
from ...messages import count, sentence
from ...services.background import Background
from ..controls import button, combo, side_by_side
from ..prompt_panel import with_suffix
from .patch_view import PatchItem, PatchView

SAVED = "Saved {} in {}."


@reports_errors("_open", "save")
class PatchBankPanel(QWidget):
    """The image bank of a model, or one to train a model with."""

    asked = Signal()
    """The user wants the bank to be found without training."""
    opened = Signal(object)
    """A `TagTrainingResult`: the bank of its model is shown."""
    used = Signal(object)
    """A `PromptSet` to segment with."""
    message = Signal(str, bool)

    def __init__(self) -> None:
        super().__init__()
        self.result: TagTrainingResult | None = None
        self._classes: tuple[str, ...] = ()
        self._busy = False
        self._files = Background(partial(tell, self))
        self.view = PatchView()
        self.find_button = button(
            "Find patches", "Find the patches that show each class best; takes seconds"
        )
        self.models = combo("Show the image bank of a model that was trained from tags")
        self.models.setPlaceholderText("of a model trained before")
        self.reuse = QCheckBox("Train again with this bank")
        self.reuse.setToolTip("Keep these patches; ignore the ones you removed")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(side_by_side(self.find_button, self.models, stretch=(1, 2)))
        column.addWidget(self.view)
        column.addWidget(self.reuse)
        self.find_button.clicked.connect(self.asked.emit)
        self.models.activated.connect(lambda _: self._open())
        self.view.edited.connect(self._on_edited)
        self.view.used.connect(self.used.emit)
        self.view.message.connect(self.message.emit)
        self.view.saving.connect(lambda: self.save())
        self.list_models()

    def close_files(self) -> None:
        """Wait until all is written."""
        self._files.close(finish=True)

    # ------------------------------------------------------------ what it holds

    def patches(self) -> tuple[BankPatch, ...] | None:
        """Return the bank to train with; None to find a new one."""
        return self.view.patches() if self.reuse.isChecked() else None

    def follow(self, classes: tuple[str, ...], *, busy: bool, can_find: bool) -> None:
        """Enable the controls that make sense with these classes."""
        self._classes, self._busy = classes, busy
        self.find_button.setEnabled(can_find and not busy)
        self.models.setEnabled(not busy)
        self.models.setVisible(self.models.count() > 0)
        fits = self._fits()
        self.reuse.setVisible(bool(self.view.items))
        self.reuse.setEnabled(fits and not busy)
        if not fits:
            self.reuse.setChecked(False)

    def _fits(self) -> bool:
        """Return whether the bank is of the classes that there are now."""
        found = {p.class_name for p in self.view.patches()}
        return bool(found) and found <= set(self._classes)

    def clear_model(self) -> None:
        """Forget the model: the bank that is shown from now on has none yet."""
        self.result = None

    # ------------------------------------------------------------ showing

    def show_found(
        self, patches: Sequence[BankPatch], images: dict[str, TaggedImage]
    ) -> None:
        """Show a bank that has no masks yet.

        Parameters
        ----------
        patches : sequence of BankPatch
        images : dict of str to TaggedImage
            The tagged images by their keys.
        """
        self._files.call(
            lambda: with_crops(patches, images),
            lambda items: self._show(items) if self.result is None else None,
            self._tell,
        )

    def load(self, result: TagTrainingResult) -> None:
        """Show the bank of a model."""
        self.result = result
        self._files.call(lambda: bank_of(result), self._show, self._tell)

    def list_models(self) -> None:
        """Offer the banks of the models that were trained from tags."""
        from ....io.model_store import list_models

        self.models.clear()
        for card in list_models():
            if card.training.get("bank"):
                self.models.addItem(card.name, card)
        name = Path(self.result.model).name if self.result is not None else ""
        self.models.setCurrentIndex(self.models.findText(name))
        self.models.setVisible(self.models.count() > 0)

    def _open(self) -> None:
        """Show the bank of a model that was trained before."""
        card = self.models.currentData()
        try:
            bank = tuple(BankPatch.from_dict(v) for v in card.training["bank"])
        except (TypeError, KeyError, ValueError):
            self.message.emit(f"The bank of '{card.name}' cannot be read.", True)
            return
        result = TagTrainingResult(card.path, bank)
        self.load(result)
        self.opened.emit(result)

    def _show(self, items: list[PatchItem]) -> None:
        names = dict.fromkeys(i.patch.class_name for i in items)
        classes = self._classes if set(names) <= set(self._classes) else tuple(names)
        self.view.show_bank(items, classes)
        self.reuse.setChecked(False)
        self.follow(
            self._classes,
            busy=self._busy,
            can_find=self.find_button.isEnabled() or self._busy,
        )

    # ------------------------------------------------------------ changing it

    def _on_edited(self) -> None:
        """Save the user's changes of the bank with its model."""
        self.reuse.setChecked(self._fits() and not self._busy)
        if self.result is None:
            return
        model, patches = self.result.model, self.view.patches()
        self._files.call(lambda: keep_bank(model, patches), lambda _: None, self._tell)

    def save(self, path: str = "") -> None:
        """Save the bank as a prompt set; asks for the file if none is given."""
        if not path:
            path, _ = QFileDialog.getSaveFileName(
                self, "Save the bank", "bank.svprompt", "Prompt sets (*.svprompt)"
            )
            path, problem = with_suffix(path, (".svprompt",))
            if problem:
                self.message.emit(problem, True)
        if not path:
            return
        from ....io.prompt_files import save_prompts

        prompts = self.view.prompts()
        try:
            written = save_prompts(prompts, path, overwrite=True)
        except (ValueError, OSError) as error:
            self._tell(error)
            return
        self.message.emit(
            SAVED.format(count(len(prompts), "prompt"), written.name), False
        )

    def _tell(self, error: Any) -> None:
        self.message.emit(sentence(error), True)


def bank_of(result: TagTrainingResult) -> list[PatchItem]:
    """Return the bank of a model with its patches as prompts; called in a thread."""
    from ....io.prompt_files import load_prompts

    path = Path(result.model) / "prompts.svprompt"
    prompts = list(load_prompts(path)) if path.exists() else []
    by_place = {(p.source, p.box): p for p in prompts}
    return [PatchItem(p, by_place.get((p.image, p.box))) for p in result.bank]


def keep_bank(model: str, patches: tuple[BankPatch, ...]) -> None:
    """Write the user's changes of a bank into its model's card."""
    from ....io.model_store import read_card, update_card

    card = read_card(model)
    training = {**card.training, "bank": [p.to_dict() for p in patches]}
    update_card(replace(card, training=training))


def with_crops(
    patches: Sequence[BankPatch], images: dict[str, TaggedImage]
) -> list[PatchItem]:
    """Return patches with their pixels; called in a thread."""
    planes: dict[str, np.ndarray] = {}
    for name in {p.image for p in patches} & set(images):
        planes[name] = images[name].plane()
    ranges = {name: intensity_range(plane) for name, plane in planes.items()}
    return [
        PatchItem(
            p,
            crop=planes[p.image][p.box.slices] if p.image in planes else None,
            intensities=ranges.get(p.image),
        )
        for p in patches
    ]
