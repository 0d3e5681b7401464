"""Every option of a run, declared once: default, range, unit and help text."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

AUTO = -1
"""Value of a setting that is taken from the prompts."""


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    unit: str = "",
    choices: tuple[str, ...] = (),
) -> Any:
    """Declare a setting with the text and limits that CLI and dock both show."""
    return field(
        default=default,
        metadata={
            "help": help,
            "low": low,
            "high": high,
            "unit": unit,
            "choices": choices,
        },
    )


KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _is_kind(value: Any, default: Any) -> bool:
    """Tell whether a value is of the kind of a default; numpy's scalars are."""
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
            value, meta = getattr(self, f.name), f.metadata
            if value is None or f.default is None:  # checked by the class itself
                continue
            if not _is_kind(value, f.default):
                raise ValueError(
                    f"{f.name} must be {KINDS[type(f.default)]}, got {value!r}"
                )
            if meta["choices"] and value not in meta["choices"]:
                raise ValueError(
                    f"{f.name} must be one of {', '.join(meta['choices'])}, "
                    f"got {value!r}"
                )
            low, high = meta["low"], meta["high"]
            below = low is not None and not value >= low  # NaN is in no range
            if below or (high is not None and not value <= high):
                raise ValueError(f"{f.name} must be {low} to {high}, got {value!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Any:
        """Return settings from plain values; unknown names are refused."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"unknown {cls.__name__}: {', '.join(unknown)}")
        return cls(**values)


@dataclass(frozen=True)
class PostprocessSettings(Settings):
    """From maps to labels; changing these needs no new model run."""

    threshold: float = option(
        0.5, "Foreground probability from which a pixel counts", low=0.05, high=0.95
    )
    min_area: int = option(
        AUTO,
        "Smallest object; -1 takes a twelfth of the prompts' objects",
        low=AUTO,
        high=1_000_000,
        unit="pixel",
    )
    confidence: float = option(
        0.95,
        "Objects that are nowhere as sure as this share of the image's typical object "
        "are left out; 0 keeps all",
        low=0.0,
        high=1.0,
    )
    split: bool = option(True, "Split touching objects")
    split_strength: float = option(
        0.5,
        "How readily touching objects are split: 0 rarely, 0.5 as in the prompts, 1 "
        "readily",
        low=0.0,
        high=1.0,
    )
    fill_holes: bool = option(True, "Fill holes inside objects")
    output: str = option(
        "instances",
        "Objects with ids, or one foreground class",
        choices=("instances", "semantic"),
    )
    link_planes: bool = option(
        False, "Give objects of a stack one id from plane to plane"
    )
    link_overlap: float = option(
        0.25,
        "Least overlap (intersection over union) of linked objects",
        low=0.01,
        high=1.0,
    )


@dataclass(frozen=True)
class SegmentSettings(Settings):
    """How the model is run."""

    device: str = option("auto", "Where the model runs: auto, cpu, cuda, cuda:1, mps")
    tile: int = option(
        512, "Largest tile read at once", low=64, high=8192, unit="pixel"
    )
    overlap: int = option(
        64, "Pixels shared by neighbouring tiles", low=0, high=1024, unit="pixel"
    )
    batch: int = option(4, "Tiles run together on a GPU", low=1, high=256)
    scale_objects: bool = option(True, "Bring objects to the size the model knows best")
    refine: int = option(
        0,
        "Steps in which the model is fitted to the prompts, 40 are plenty; used where "
        "the check of each result says that it helps; 0 = off",
        low=0,
        high=1000,
    )
    trust: bool = option(True, "Check each result by segmenting the prompt with it")


def split_settings(
    values: dict[str, Any],
) -> tuple[SegmentSettings, PostprocessSettings]:
    """Return plain values as the settings that they are fields of.

    Raises
    ------
    TypeError
        For a name that is a field of neither, with the known ones.
    """
    kinds: tuple[type[Settings], ...] = (SegmentSettings, PostprocessSettings)
    names = [{f.name for f in fields(kind)} for kind in kinds]
    unknown = sorted(set(values) - names[0] - names[1])
    if unknown:
        raise TypeError(
            f"unknown setting {', '.join(unknown)}; known: "
            f"{', '.join(sorted(names[0] | names[1]))}"
        )
    run, post = (
        kind.from_dict({k: v for k, v in values.items() if k in known})
        for kind, known in zip(kinds, names, strict=True)
    )
    return run, post
