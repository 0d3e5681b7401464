"""Training from image-level tags: settings, progress, results and class scores."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..geometry import Box
from ..settings import MAX_MINUTES, MAX_SEED, Settings, documented, option

COLOURS = (
    "#ffb000", "#35c9ff", "#9be564", "#ff7ab8", "#c69cff", "#ffe14d", "#ff8552",
    "#5ce0c6", "#b0b7c3",
)  # fmt: skip
"""Colours of the classes in order, distinct on a dark background."""

VARIANTS = ("published", "seed")
INTENSITIES = ("auto", "image", "set")

CLASSES_NOT_LIST = "classes must be a list of names, got {classes!r}"
NO_CLASS = "no class: name at least one"
BAD_CLASS_NAME = "a class has a name without commas or line breaks, got {name!r}"
CLASS_TWICE = "the class {name!r} is named twice"

FIRST_STAGE, SECOND_STAGE = "first stage", "second stage"
"""Names of the two stages of training in `TagTrainingProgress`."""


class TagTrainingError(ValueError):
    """Tags or images that cannot be trained on; the message says what to do."""


@documented
@dataclass(frozen=True)
class TagTrainingSettings(Settings):
    """How a network is trained from image-level tags."""

    variant: str = option(
        "published",
        "Prototypes: fixed ones from the image bank, or a learned memory",
        label="Method",
        choices=VARIANTS,
    )
    classes: tuple[str, ...] | None = option(
        None,
        "Names of the classes in the order of their ids; by default as in the tags",
        label="Classes",
    )
    window: int = option(
        224,
        "Side of the windows that images are divided into",
        label="Window",
        low=32,
        high=1024,
        unit="pixel",
    )
    scale: float = option(
        1.0,
        "Factor by which images are resampled; 0.25 for large structures",
        label="Scale",
        low=0.05,
        high=8.0,
    )
    intensities: str = option(
        "auto",
        "Normalise intensities by each image, or by the whole set; auto: the set if "
        "images are no larger than a window",
        label="Normalise by",
        choices=INTENSITIES,
    )
    n_prototypes: int = option(
        3,
        "Prototypes for each class, one for each appearance",
        label="Prototypes per class",
        low=1,
        high=16,
    )
    n_patches: int = option(
        4,
        "Patches in the bank for each prototype",
        label="Patches per prototype",
        low=1,
        high=50,
    )
    epochs: int = option(
        12, "Epochs of the first stage", label="Epochs", low=1, high=1000
    )
    second_epochs: int = option(
        12,
        "Epochs of the second stage",
        label="Epochs of second stage",
        low=1,
        high=1000,
    )
    batch: int = option(
        8, "Windows in a training step", label="Batch size", low=1, high=256
    )
    learning_rate: float = option(
        1e-3, "Peak learning rate", label="Learning rate", low=1e-6, high=1.0
    )
    second_stage: bool = option(
        True,
        "Train a segmentation network on the pseudo masks of the first stage",
        label="Second stage",
    )
    contrast: bool = option(
        True,
        "Contrast found regions and background with the prototypes",
        label="Contrast",
    )
    prototypes: bool = option(
        True,
        "Classify by the image bank; without it by plain class activation maps",
        label="Prototypes",
    )
    seed: int = option(
        0, "Seed of the weights and the order", label="Seed", low=0, high=MAX_SEED
    )
    minutes: float | None = option(
        None,
        "Time limit; the best model so far is kept",
        label="Time limit",
        low=0.01,
        high=MAX_MINUTES,
        unit="min",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes is not None:
            object.__setattr__(self, "classes", checked_classes(self.classes))
        minutes = self.minutes
        if minutes is not None and not (
            isinstance(minutes, int | float) and 0 < minutes < math.inf
        ):
            raise ValueError(f"minutes must be above 0, got {minutes!r}")


def checked_classes(classes: Any) -> tuple[str, ...]:
    """Return class names as a tuple.

    Parameters
    ----------
    classes : iterable of str

    Raises
    ------
    ValueError
        If there is none, or a name is empty, occurs twice, or holds a comma, semicolon
        or line break, as these separate names in a tags file.
    """
    if isinstance(classes, str):  # its characters would be taken for names
        raise ValueError(CLASSES_NOT_LIST.format(classes=classes))
    names = tuple(classes)
    if not names:
        raise ValueError(NO_CLASS)
    for name in names:
        if not isinstance(name, str) or not name.strip() or set(name) & set(",;\n\r"):
            raise ValueError(BAD_CLASS_NAME.format(name=name))
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ValueError(CLASS_TWICE.format(name=twice[0]))
    return names


def class_colours(classes: tuple[str, ...]) -> dict[str, str]:
    """Return a colour ``#rrggbb`` for each class, in order.

    Examples
    --------
    >>> class_colours(("nucleus",))
    {'nucleus': '#ffb000'}
    """
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(classes)}


@dataclass(frozen=True)
class BankPatch:
    """A patch of an image that represents one appearance of a class.

    Parameters
    ----------
    class_name : str
    subclass : int
        Number of the appearance within the class, from 0.
    image : str
        Name of the image that the patch is cut from, as in the tags.
    box : Box
        Position of the patch, in pixels of that image.
    pinned : bool
        The user keeps the patch: later training does not replace it.
    removed : bool
        The user removed the patch: it takes part in no prototype.
    name : str
        Name given by the user; by default class and number of the appearance.
    """

    class_name: str
    subclass: int
    image: str
    box: Box
    pinned: bool = False
    removed: bool = False
    name: str = ""

    @property
    def title(self) -> str:
        """Name that is shown in lists."""
        return self.name or f"{self.class_name} {self.subclass + 1}"

    def to_dict(self) -> dict[str, Any]:
        """Return the patch as plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> BankPatch:
        """Return the patch that `to_dict` described."""
        return cls(**{**values, "box": Box(**values["box"])})


@dataclass(frozen=True)
class TagTrainingProgress:
    """Progress of a training.

    Parameters
    ----------
    stage : str
        ``reading``, ``bank``, ``first stage``, ``pseudo masks``, ``second stage`` or
        ``saving``.
    step, n_steps : int
        Steps done and planned in this stage.
    seconds : float
        Time since the start.
    losses : dict
        Running mean of each term of the loss; ``total`` is their sum.
    validation : float or None
        Score on the validation images. First stage: balanced accuracy of the tags, mean
        over the classes. Second stage: mean IoU with the pseudo masks.
    """

    stage: str
    step: int
    n_steps: int
    seconds: float
    losses: dict[str, float] = field(default_factory=dict)
    validation: float | None = None


@dataclass(frozen=True, eq=False)
class TagTrainingPreview:
    """Current prediction for one image, to be shown during training.

    Parameters
    ----------
    image : str
        Name of the image, as in the tags.
    classes : (Y, X) uint8 array
        Most likely class of each pixel, from 1.
    foreground : (Y, X) uint8 array
        Probability of any of the classes, scaled to 0 to 255.
    """

    image: str
    classes: np.ndarray
    foreground: np.ndarray


@dataclass(frozen=True, eq=False)
class TagTrainingResult:
    """Result of a training from tags.

    Parameters
    ----------
    model : str
        Model folder; its ``prompts.svprompt`` holds the bank as prompts.
    bank : tuple of BankPatch
    history : tuple of dict
        Rows of ``history.csv``.
    notes : tuple of str
        Information for the user: skipped images, classes without an image that shows
        no other class, an early stop.
    seconds : float
        Wall time of the training.
    """

    model: str
    bank: tuple[BankPatch, ...] = ()
    history: tuple[dict[str, float], ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


def confusion_matrix(prediction: np.ndarray, truth: np.ndarray, n: int) -> np.ndarray:
    """Return how many pixels of each true class were given each predicted class.

    Parameters
    ----------
    prediction, truth : int arrays of one shape
        Class ids 0 to n - 1; pixels whose true class is outside are ignored.
    n : int
        Number of classes, including background.

    Returns
    -------
    (n, n) int array
        True classes are rows, predicted classes columns.
    """
    known = (truth >= 0) & (truth < n)
    # Each pair of classes as one number: a single bincount counts all pairs.
    pairs = truth[known].astype(np.int64) * n + prediction[known]
    return np.bincount(pairs, minlength=n * n).reshape(n, n)


def class_ious(table: np.ndarray) -> np.ndarray:
    """Return the IoU of each class of a confusion matrix; NaN for absent classes.

    Examples
    --------
    >>> class_ious(np.array([[6, 2], [0, 4]])).round(2).tolist()
    [0.75, 0.67]
    """
    both = np.diag(table).astype(float)
    either = table.sum(0) + table.sum(1) - both
    return np.where(either > 0, both / np.maximum(either, 1), np.nan)
