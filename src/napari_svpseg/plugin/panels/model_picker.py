"""Choosing a model: the list, and what is known of the chosen one."""

from __future__ import annotations

import logging

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from ...core.model_card import ModelCard
from ..callbacks import reports_errors
from ..services.preferences import preference
from .controls import combo, note
from .plain_text import tip_text

logger = logging.getLogger(__name__)

DEFAULT = "svp"


@reports_errors("_show_card")
class ModelPicker(QWidget):
    """The models that are installed; none is loaded.

    Parameters
    ----------
    tip : str
        What the model is for.
    """

    changed = Signal()
    failed = Signal(str)

    def __init__(self, tip: str) -> None:
        super().__init__()
        self.combo = combo(tip)
        self.combo.setAccessibleName("Model")
        self.about = note()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(self.combo)
        column.addWidget(self.about)
        self.combo.currentIndexChanged.connect(self._show_card)

    @property
    def card(self) -> ModelCard | None:
        """The card of the chosen model."""
        card = self.combo.currentData()
        return card if isinstance(card, ModelCard) else None

    @property
    def takes_prompts(self) -> bool:
        """Whether the chosen model finds what prompts show."""
        return self.card is None or self.card.takes_prompts

    @property
    def knows_classes(self) -> bool:
        """Whether the chosen model finds classes of its own, without a prompt."""
        return self.card is not None and bool(self.card.classes)

    def refresh(self, name: str = "") -> None:
        """List the models anew; choose one, by default the one chosen before."""
        chosen = self.combo.currentText() or str(preference("model"))
        name = name or chosen or DEFAULT
        cards: list[ModelCard] = []
        try:
            from ...io.model_store import list_models

            cards = list_models()
        except Exception as error:
            logger.exception("could not list the models")
            self.failed.emit(f"Models could not be listed: {error}")
        self.combo.blockSignals(True)
        self.combo.clear()
        for i, card in enumerate(cards):
            self.combo.addItem(card.name, card)
            self.combo.setItemData(
                i, tip_text(card.title or card.method), Qt.ItemDataRole.ToolTipRole
            )
        self.combo.setCurrentIndex(max(0, self.combo.findText(name)))
        self.combo.blockSignals(False)
        self._show_card()

    def choose(self, model: str) -> bool:
        """Choose a model by its name or folder; return whether it is installed."""
        for i in range(self.combo.count()):
            card = self.combo.itemData(i)
            if model in (card.name, card.path):
                self.combo.setCurrentIndex(i)
                return True
        return False

    def _show_card(self) -> None:
        card = self.card
        self.about.setText(card_line(card) if card else "No model is installed.")
        self.changed.emit()


def card_line(card: ModelCard) -> str:
    """Return the description of a model that is shown below its name."""
    parts = [card.title or card.method]
    if not card.takes_prompts:
        parts.append("needs no prompt")
    if card.n_parameters:
        parts.append(f"{card.n_parameters / 1e6:.1f} M weights")
    parts.append(
        "any channels" if card.channels == "any" else f"channels: {card.channels}"
    )
    parts.append(f"licence {card.licence}")
    return " · ".join(parts)
