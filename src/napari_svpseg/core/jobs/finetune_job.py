"""Settings, progress and result of fine-tuning; no torch here."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..geometry import PROMPT_SIZE
from ..settings import MAX_SEED, Settings, documented, option

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {},
    "thorough": {"seconds": 900.0, "steps": 800, "batch": 6},
}
"""Fields in which each preset differs from the defaults."""


NOT_BETTER = (
    "Fine-tuning did not improve the score on the validation set, so the old model was "
    "kept, with your boxes as its prompts."
)
"""Note of a result whose ``kept`` is ``before``."""


class FineTuneError(ValueError):
    """Fine-tuning that cannot be done; the message says what to do."""


@documented
@dataclass(frozen=True)
class FineTuneSettings(Settings):
    """How a model is fine-tuned; the defaults are the quick preset."""

    preset: str = option(
        "quick",
        "How long training takes",
        label="Preset",
        choices=("quick", "thorough", "custom"),
    )
    seconds: float = option(
        45.0,
        "Time after which training ends, with its checks",
        label="Time limit",
        low=1,
        high=1e6,
        unit="s",
    )
    steps: int = option(160, "Training steps", label="Steps", low=1, high=1_000_000)
    batch: int = option(
        4, "Image windows per training step", label="Windows per step", low=1, high=256
    )
    learning_rate: float = option(
        1e-3, "Highest learning rate", label="Learning rate", low=0, high=1
    )
    validation: float = option(
        0.25,
        "Share of the labels that is kept out of training, to check the model",
        label="Validation share",
        low=0,
        high=0.8,
    )
    seed: int = option(
        0,
        "Seed of the random numbers: same seed, same model",
        label="Seed",
        low=0,
        high=MAX_SEED,
    )
    unlabelled_is_background: bool = option(
        False,
        "Take unlabelled pixels as background, not as unknown",
        label="Unlabelled is background",
    )
    semantic: bool = option(
        False,
        "Labels 2, 3, ... are classes of pixels, not single objects",
        label="Numbers are classes, not cells",
    )
    wanted: int = option(
        2,
        "Class to find, where labels are classes",
        label="Class to find",
        low=2,
        high=1_000_000,
    )
    pseudo_labels: bool = option(
        False,
        "Learn from confident predictions where nothing is labelled",
        label="Learn from unlabelled pixels too",
    )
    student: bool = option(
        False,
        "Train a plain U-Net, the student, on the labels that the model predicts",
        label="Train a student too",
    )
    self_supervised_first: bool = option(
        False,
        "First learn from superpixels of the images, labelled or not",
        label="First learn from unlabelled images",
    )
    anchor: float = option(
        1e-3,
        "Strength with which weights are held to where they started",
        label="Anchor",
        low=0,
        high=100,
    )
    prompts: int = option(
        5, "Boxes kept with the model as its prompts", label="Prompts", low=1, high=16
    )

    @classmethod
    def of_preset(cls, preset: str, **changed: Any) -> FineTuneSettings:
        """Return the settings of a preset, ``quick`` or ``thorough``.

        Examples
        --------
        >>> FineTuneSettings.of_preset("quick").seconds
        45.0
        """
        if preset not in PRESETS:
            raise FineTuneError(
                f"there is no preset {preset!r}: choose {' or '.join(PRESETS)}."
            )
        return replace(cls(preset=preset, **PRESETS[preset]), **changed)


@dataclass(frozen=True)
class FineTuneProgress:
    """Progress of a training.

    Parameters
    ----------
    step, n_steps : int
    seconds : float
        Since the training began (all sittings together).
    train_loss : float
        Running mean.
    validation_dice : float or None
        Dice of the validation labels; None between checks.
    best_step : int
        Step of the best model so far; 0 is the model it started from.
    """

    step: int
    n_steps: int
    seconds: float
    train_loss: float
    validation_dice: float | None = None
    best_step: int = 0


@dataclass(frozen=True)
class ValidationScore:
    """Score of a model on the validation labels, which are not trained on.

    Parameters
    ----------
    dice : float
        Of the foreground, over all validation pixels; NaN where there are none.
    f1 : float or None
        F1 of objects matched at an IoU of 0.5; None where no whole object is known.
    n_pixels, n_objects : int
        Number of validation pixels, and of whole objects among them.
    joined : float
        Share of the objects, whole or cut, that are found as one with another object.
        Where no whole object is labelled, of those that the model at the start found.
    """

    dice: float
    f1: float | None
    n_pixels: int
    n_objects: int
    joined: float = 0.0

    @property
    def value(self) -> float:
        """Dice, or the mean of Dice and F1: the better model has the higher value."""
        return self.dice if self.f1 is None else (self.dice + self.f1) / 2

    @property
    def chance(self) -> float:
        """About one standard error of `value`: the fewer labels, the larger.

        Examples
        --------
        >>> ValidationScore(0.9, 0.8, 4096, n_objects=4).chance
        0.125
        """
        if self.f1 is None:
            return 0.1 / math.sqrt(max(1.0, self.n_pixels / PROMPT_SIZE**2))
        return 0.25 / math.sqrt(max(1, self.n_objects))

    def __str__(self) -> str:
        """Return one line."""
        if math.isnan(self.dice):
            return "not checked"
        objects = "" if self.f1 is None else f", F1@0.5 {self.f1:.3f}"
        return f"Dice {self.dice:.3f}{objects}"


@dataclass(frozen=True)
class FineTuneResult:
    """Result of fine-tuning.

    Parameters
    ----------
    before, after : ValidationScore
        Of the model at the start, and of the best fine-tuned one.
    kept : str
        ``before`` or ``after``: which of them the model folder holds.
    model : str
        The model's folder.
    history : list of dict
        ``step``, ``seconds``, ``train_loss`` and ``validation_dice`` of each check.
    notes : tuple of str
        Deviations from the settings, and advice.
    stopped : bool
        Whether training was stopped early; the best so far was kept.
    seconds : float
        Wall time of all sittings.
    """

    before: ValidationScore
    after: ValidationScore
    kept: str
    model: str
    history: list[dict[str, Any]] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    stopped: bool = False
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold (no NaN)."""
        return {
            "before": _plain(self.before),
            "after": _plain(self.after),
            "kept": self.kept,
            "model": self.model,
            "stopped": self.stopped,
            "seconds": self.seconds,
            "notes": list(self.notes),
            "history": self.history,
        }


def _plain(score: ValidationScore) -> dict[str, Any]:
    values = asdict(score)
    if math.isnan(score.dice):
        values["dice"] = None
    return values
