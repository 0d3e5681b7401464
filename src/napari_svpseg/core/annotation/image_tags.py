"""Training from image-level tags: what is asked, what is reported, what comes back."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..geometry import Box
from ..settings import Settings, documented, option

COLOURS = (
    "#ffb000", "#35c9ff", "#9be564", "#ff7ab8", "#c69cff", "#ffe14d", "#ff8552",
    "#5ce0c6", "#b0b7c3",
)  # fmt: skip
"""One colour for each class; all can be told apart on a dark ground."""

VARIANTS = ("published", "seed")
INTENSITIES = ("auto", "image", "set")


class TagTrainingError(ValueError):
    """Tags or images that cannot be trained on; the message says what to do."""


@documented
@dataclass(frozen=True)
class TagTrainingSettings(Settings):
    """How a network is trained from image-level tags."""

    variant: str = option(
        "published",
        "Fixed prototypes from the image bank, or prototypes that are learned",
        label="Method",
        choices=VARIANTS,
    )
    classes: tuple[str, ...] | None = option(
        None,
        "Names of the classes in the order of their ids, by default as tagged",
        label="Classes",
    )
    window: int = option(
        224,
        "Side of the windows that images are cut into",
        label="Window",
        low=32,
        high=1024,
        unit="pixel",
    )
    scale: float = option(
        1.0,
        "Size at which the network sees the images; 0.25 for large structures",
        label="Scale",
        low=0.05,
        high=8.0,
    )
    intensities: str = option(
        "auto",
        "Brightness is measured in each image by itself, or in the whole set; auto "
        "takes the set if images are no larger than a window",
        label="Measure brightness in",
        choices=INTENSITIES,
    )
    n_prototypes: int = option(
        3,
        "Different appearances that a class may have; each becomes a prototype",
        label="Prototypes per class",
        low=1,
        high=16,
    )
    n_patches: int = option(
        4,
        "Patches that the image bank keeps for each prototype",
        label="Patches per prototype",
        low=1,
        high=50,
    )
    epochs: int = option(
        12,
        "Passes over all images in the first stage",
        label="Epochs",
        low=1,
        high=1000,
    )
    second_epochs: int = option(
        12,
        "Passes over all images in the second stage",
        label="Epochs of second stage",
        low=1,
        high=1000,
    )
    batch: int = option(
        8, "Image windows per training step", label="Windows per step", low=1, high=256
    )
    learning_rate: float = option(
        1e-3, "Highest learning rate", label="Learning rate", low=1e-6, high=1.0
    )
    second_stage: bool = option(
        True,
        "Train a segmentation network on the masks of the first stage",
        label="Second stage",
    )
    contrast: bool = option(
        True,
        "Compare the found regions and the rest with the prototypes",
        label="Contrast",
    )
    prototypes: bool = option(
        True,
        "Classify by the image bank, not by plain class activation maps",
        label="Prototypes",
    )
    seed: int = option(0, "Seed of weights and order", label="Seed", low=0, high=2**31)
    minutes: float | None = option(
        None,
        "Time after which training ends and the best so far is kept",
        label="Time limit",
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

    Raises
    ------
    ValueError
        If there is none, or a name is empty, occurs twice, or holds a comma.
    """
    if isinstance(classes, str):
        raise ValueError(f"classes must be a list of names, got {classes!r}")
    names = tuple(classes)
    if not names:
        raise ValueError("no class: name at least one")
    for name in names:
        if not isinstance(name, str) or not name.strip() or set(name) & set(",;\n\r"):
            raise ValueError(
                f"a class has a name without commas or line breaks, got {name!r}"
            )
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ValueError(f"the class {twice[0]!r} is named twice")
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
    """A piece of an image that stands for a look of a class.

    Parameters
    ----------
    class_name : str
    subclass : int
        Number of the look within the class, from 0.
    image : str
        Name of the image it was cut from, as in the tags.
    box : Box
        Where, in pixels of that image.
    pinned : bool
        The user wants it kept, whatever is found later.
    removed : bool
        The user does not want it: it counts for no prototype.
    name : str
        What the user calls it; by default class and number of the look.
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
        """What it is called in lists."""
        return self.name or f"{self.class_name} {self.subclass + 1}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> BankPatch:
        """Return the patch that `to_dict` gave."""
        return cls(**{**values, "box": Box(**values["box"])})


@dataclass(frozen=True)
class TagTrainingProgress:
    """How far a training is.

    Parameters
    ----------
    stage : str
        ``reading``, ``bank``, ``first stage``, ``pseudo masks``, ``second stage`` or
        ``saving``.
    step, n_steps : int
        Within the stage.
    seconds : float
        Since the start.
    losses : dict
        Running mean of each part of the loss; ``total`` is their sum.
    validation : float or None
        First stage: share of tags told right on images held back (mean over classes of
        the balanced accuracy). Second stage: mean IoU with the pseudo masks there.
    """

    stage: str
    step: int
    n_steps: int
    seconds: float
    losses: dict[str, float] = field(default_factory=dict)
    validation: float | None = None


@dataclass(frozen=True, eq=False)
class TagTrainingPreview:
    """What the network sees in one image so far.

    Parameters
    ----------
    image : str
        Name of the image, as in the tags.
    classes : (Y, X) uint8 array
        Most likely class of each pixel, from 1.
    foreground : (Y, X) uint8 array
        255 = surely one of the classes.
    """

    image: str
    classes: np.ndarray
    foreground: np.ndarray


@dataclass(frozen=True, eq=False)
class TagTrainingResult:
    """What training from tags gives.

    Parameters
    ----------
    model : str
        The model folder; ``prompts.svprompt`` in it holds the bank as prompts.
    bank : tuple of BankPatch
    history : tuple of dict
        Rows of ``history.csv``.
    notes : tuple of str
        What the user should know: images left out, classes without an image of their
        own, stopped early.
    seconds : float
    """

    model: str
    bank: tuple[BankPatch, ...] = ()
    history: tuple[dict[str, float], ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


def confusion(prediction: np.ndarray, truth: np.ndarray, n: int) -> np.ndarray:
    """Return how often each true class was given each class, (n, n) int.

    Parameters
    ----------
    prediction, truth : int arrays of one shape
        Class ids 0 to n - 1; pixels whose truth is outside that do not count.
    n : int
        Number of classes, background included.
    """
    known = (truth >= 0) & (truth < n)
    pairs = truth[known].astype(np.int64) * n + prediction[known]
    return np.bincount(pairs, minlength=n * n).reshape(n, n)


def class_ious(table: np.ndarray) -> np.ndarray:
    """Return the IoU of each class of a confusion table; NaN where it never occurs.

    Examples
    --------
    >>> class_ious(np.array([[6, 2], [0, 4]])).round(2).tolist()
    [0.75, 0.67]
    """
    both = np.diag(table).astype(float)
    either = table.sum(0) + table.sum(1) - both
    return np.where(either > 0, both / np.maximum(either, 1), np.nan)
