"""Which of several networks has not seen a data set: leaving kinds out by halves."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.model_card import ModelCard


def seen_sets(card: ModelCard) -> set[str]:
    """Return the names of the data sets that a model was trained or validated on.

    Parameters
    ----------
    card : ModelCard
        Of a model made by ``svpseg train``; of others nothing is known.
    """
    data = card.training.get("config", {}).get("data", {})
    names = (*data.get("datasets", ()), *data.get("validation", ()))
    return {name.partition(":")[0] for name in names}  # without the classes


def first_unseen(cards: Sequence[ModelCard], dataset: str) -> ModelCard | None:
    """Return the first model that has not seen a data set; None if all have.

    Parameters
    ----------
    cards : sequence of ModelCard
    dataset : str
        Name of the data set.
    """
    return next((card for card in cards if dataset not in seen_sets(card)), None)
