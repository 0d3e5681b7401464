"""Every option of a run, declared once: default, range, unit, label and help.

The command line, the docks and the keywords of the public functions are built from
these declarations, or checked against them by a test.
"""

from __future__ import annotations

from dataclasses import Field, asdict, dataclass, field, fields, replace
from typing import Any, Literal, Self, TypeVar

import numpy as np

AUTO = -1
"""Value of a setting that is taken from the prompts."""

LabelKind = Literal["objects", "classes"]
"""Content of labels: an id for each object, or one value for each class."""

HoleFilling = Literal["auto", "yes", "no"] | bool
"""Whether holes are filled; True and False are "yes" and "no"."""

MAX_SEED, MAX_MINUTES = 2**31 - 1, 100_000.0
MAX_WORKERS, MAX_LEVEL = 1024, 64
"""Limits of numbers that several commands and functions take."""

DEVICES = ("auto", "cpu", "cuda", "mps")
"""Devices to choose from; ``cuda:1`` names the second GPU."""

FLAGS = {"labels": "as"}
"""Settings called otherwise on the command line, where labels are a file."""

DEVICE_NAMES = "device must be auto, cpu, cuda, cuda:N or mps"
WRONG_SETTINGS = "settings must be {name}, got {kind}: use {make}"
NO_GPU = "no usable GPU"
"""Start of the note that a run went to the CPU; the docks show the device already."""

S = TypeVar("S", bound="Settings")


def option(
    default: Any,
    help: str,
    *,
    label: str = "",
    low: float | None = None,
    high: float | None = None,
    unit: str = "",
    choices: tuple[str, ...] = (),
    keyword: bool = False,
) -> Any:
    """Declare a setting.

    Parameters
    ----------
    default : object
    help : str
        One sentence, shown by the command line, and by the docks as a tooltip.
    label : str
        Name of the control in a dock; by default the field's name.
    low, high : float, optional
        Smallest and largest value; a number needs both.
    unit : str
    choices : tuple of str
        Allowed values.
    keyword : bool
        Whether `svpseg.segment` and its siblings have a keyword of this name: those
        that change from image to image have, the others are only fields.
    """
    is_number = isinstance(default, int | float) and not isinstance(default, bool)
    if is_number and (low is None or high is None):
        raise TypeError(f"an option needs a range: {help}")
    return field(
        default=default,
        metadata={
            "help": help,
            "label": label,
            "low": low,
            "high": high,
            "unit": unit,
            "choices": choices,
            "keyword": keyword,
        },
    )


KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _is_kind(value: Any, default: Any) -> bool:
    """Return whether a value has the type of a default; numpy scalars count too."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    return isinstance(value, type(default))


@dataclass(frozen=True)
class Settings:
    """Base of all settings: checked values, turned to and from plain dicts."""

    def __post_init__(self) -> None:
        for f in fields(self):
            _check(f, getattr(self, f.name))

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return settings from plain values.

        Raises
        ------
        ValueError
            For unknown names, or values that are not allowed.
        """
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"unknown {cls.__name__}: {', '.join(unknown)}")
        return cls(**values)

    @classmethod
    def of(cls, settings: Self | None) -> Self:
        """Return settings that were given, or the defaults for None.

        Raises
        ------
        TypeError
            For anything else, such as a dict or the settings of another function.
        """
        if settings is None:
            return cls()
        if isinstance(settings, cls):
            return settings
        name, kind = cls.__name__, type(settings).__name__
        make = f"{name}.from_dict({{...}})" if kind == "dict" else f"{name}(...)"
        raise TypeError(WRONG_SETTINGS.format(name=name, kind=kind, make=make))


def _check(setting: Field[Any], value: Any) -> None:
    """Raise ValueError where a setting does not allow a value."""
    name, meta = setting.name, setting.metadata
    if value is None and setting.default is None:
        return
    if setting.default is not None and not _is_kind(value, setting.default):
        raise ValueError(
            f"{name} must be {KINDS[type(setting.default)]}, got {value!r}"
        )
    if meta["choices"] and value not in meta["choices"]:
        raise ValueError(
            f"{name} must be one of {', '.join(meta['choices'])}, got {value!r}"
        )
    low, high = meta["low"], meta["high"]
    if setting.default is None and low is not None:
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise ValueError(f"{name} must be a number, got {value!r}")
    elif setting.default is None:
        return
    below = low is not None and not value >= low  # not value < low: NaN is refused too
    if below or (high is not None and not value <= high):
        raise ValueError(f"{name} must be {_range(setting)}, got {value!r}")


def documented(kind: type[S]) -> type[S]:
    """Add a Parameters section, made from the declarations, to a class's docstring."""
    lines = ["", "", "    Parameters", "    ----------"]
    for f in fields(kind):
        lines += [f"    {f.name} : {f.type}, default {f.default!r}"]
        lines += [f"        {help_text(f)}."]
    kind.__doc__ = (kind.__doc__ or "") + "\n".join(lines)
    return kind


def help_text(setting: Field[Any]) -> str:
    """Return a setting's help with its choices or its range."""
    meta = setting.metadata
    text = str(meta["help"])
    if meta["choices"]:
        text += f": {', '.join(meta['choices'])}"
    if meta["low"] is not None:
        text += f": {_range(setting)} {meta['unit']}".rstrip()
    return text


def _range(setting: Field[Any]) -> str:
    low, high = setting.metadata["low"], setting.metadata["high"]
    return f"at least {low}" if high is None else f"{low} to {high}"


def flag_of(setting: Field[Any]) -> str:
    """Return the name of a setting on the command line, such as ``--min-area``."""
    return "--" + FLAGS.get(setting.name, setting.name).replace("_", "-")


def check_device(name: str) -> str:
    """Return a device's name in lower case, without asking whether it is there.

    Examples
    --------
    >>> check_device("CUDA:1")
    'cuda:1'

    Raises
    ------
    ValueError
        If no device has such a name.
    """
    found = name.strip().lower()
    kind, colon, index = found.partition(":")
    if found in DEVICES or (kind == "cuda" and colon and index.isdecimal()):
        return found
    raise ValueError(f"{DEVICE_NAMES}, got {name!r}")


@documented
@dataclass(frozen=True)
class PostprocessSettings(Settings):
    """How labels are made from maps; changing these needs no new model run."""

    threshold: float = option(
        0.5,
        "Foreground probability from which a pixel belongs to an object",
        label="Threshold",
        low=0.05,
        high=0.95,
        keyword=True,
    )
    min_area: int = option(
        AUTO,
        "Area of the smallest object; -1 takes a twelfth of the prompts' objects",
        label="Smallest object",
        low=AUTO,
        high=1_000_000,
        unit="pixel",
        keyword=True,
    )
    min_confidence: float = option(
        0.95,
        "Drop objects that the model is less sure of than this fraction of the typical "
        "object, by peak and outline (0: keep all)",
        label="Minimum confidence",
        low=0.0,
        high=1.0,
    )
    split: bool = option(
        True, "Split touching objects", label="Split touching objects", keyword=True
    )
    split_strength: float = option(
        0.5,
        "How readily touching objects are split: 0 rarely, 0.5 as in the prompts, 1 "
        "often",
        label="Split strength",
        low=0.0,
        high=1.0,
    )
    fill_holes: HoleFilling = option(
        "auto",
        "Fill holes inside objects; auto: unless the prompts' objects have holes",
        label="Fill holes",
        choices=("auto", "yes", "no"),
    )
    labels: LabelKind | None = option(
        None,
        "Kind of labels, by default classes for a model that knows classes",
        label="Kind of labels",
        choices=("objects", "classes"),
        keyword=True,
    )
    link_planes: bool = option(
        False,
        "Give an object of a stack the same id in all planes",
        label="Link objects across planes",
        keyword=True,
    )
    link_overlap: float = option(
        0.25,
        "Least overlap (intersection over union) of linked objects",
        label="Least overlap",
        low=0.01,
        high=1.0,
    )

    def __post_init__(self) -> None:
        given: object = self.fill_holes
        if isinstance(given, bool):
            object.__setattr__(self, "fill_holes", "yes" if given else "no")
        super().__post_init__()


@documented
@dataclass(frozen=True)
class SegmentSettings(Settings):
    """How the model is run."""

    device: str = option(
        "auto",
        "Device to run on: auto, cpu, cuda, cuda:1 or mps",
        label="Device",
        keyword=True,
    )
    tile: int = option(
        512,
        "Side of the largest tile that is read at once",
        label="Largest tile",
        low=64,
        high=8192,
        unit="pixel",
    )
    overlap: int = option(
        64,
        "Pixels shared by neighbouring tiles",
        label="Overlap",
        low=0,
        high=1024,
        unit="pixel",
    )
    batch: int = option(
        4, "Tiles that run together on a GPU", label="Tiles at once", low=1, high=256
    )
    scale_objects: bool = option(
        True,
        "Resample images so that objects have the size the model was trained on",
        label="Bring objects to the model's size",
    )
    refine: int = option(
        0,
        "Steps of fitting the model to the prompts (40 are plenty), used where the "
        "check of the result says that it helps; 0: off",
        label="Fit to prompts",
        low=0,
        high=1000,
    )
    trust: bool = option(
        True,
        "Check each result by segmenting the prompt with it",
        label="Check each result on the prompt",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "device", check_device(self.device))


def check_range(name: str, value: float | None, low: float, high: float) -> None:
    """Raise ValueError where a number that is no field of settings is out of range.

    Examples
    --------
    >>> check_range("workers", 2, 0, MAX_WORKERS)
    """
    if value is not None and not low <= value <= high:
        raise ValueError(f"{name} must be {low} to {high}, got {value!r}")


def changed(settings: S, **given: Any) -> S:
    """Return settings with the fields that are not None replaced."""
    return replace(settings, **{k: v for k, v in given.items() if v is not None})


def split_settings(
    values: dict[str, Any],
) -> tuple[SegmentSettings, PostprocessSettings]:
    """Return plain values as the settings that they are fields of.

    Raises
    ------
    ValueError
        For a name that is a field of neither, with the known ones, or for a value
        that is not allowed.
    """
    run, post = (
        {f.name for f in fields(k)} for k in (SegmentSettings, PostprocessSettings)
    )
    unknown = ", ".join(sorted(set(values) - run - post))
    if unknown:
        known = ", ".join(sorted(run | post))
        raise ValueError(f"unknown setting {unknown}; known: {known}")
    return (
        SegmentSettings.from_dict({k: v for k, v in values.items() if k in run}),
        PostprocessSettings.from_dict({k: v for k, v in values.items() if k in post}),
    )
