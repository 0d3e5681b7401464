"""What the outputs of another program's model mean, told from their names.

Only what is certain is taken: a map that is read as another one gives objects that look
right and are not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .model_store import ModelFormatError

NOT_KNOWN = (
    "{path}: what its output means is not known ({names}). Say it with --outputs, a "
    "name for each channel: foreground, boundary, distance, background, ignore, the "
    "name of a class, or stardist for all of them."
)
WRONG_NUMBER = "{path}: got {given} names of outputs, the model has {n}: {names}."

FOREGROUND = {
    "foreground", "fg", "nucleus", "nuclei", "cell", "cells", "object", "objects",
    "interior", "inside", "mask", "foreground probability",
}  # fmt: skip
BOUNDARY = {"boundary", "boundaries", "border", "borders", "outline", "contour", "edge"}
BACKGROUND = {"background", "bg"}
PROBABILITY = {"prob", "probability", "object probability"}
ACTIVATED = {"sigmoid", "softmax", "binarize"}
STARDIST = "stardist"
GENERIC = re.compile(r"(channel|ch|c|class|out|output|prediction)?[ _-]?\d*")
"""Names that say nothing."""


def meaning(
    about: dict[str, Any], given: Sequence[str], path: Path
) -> tuple[list[str], dict[str, float] | None]:
    """Return a name for each channel of the outputs, and what polygons need."""
    found = [name for tensor in about["outputs"] for name in _names(tensor)]
    stars = _stars(about, found)
    if list(given) == [STARDIST]:
        stars = stars or {"threshold": 0.5, "overlap": 0.4}
    elif given:
        if len(given) != len(found):
            told = ", ".join(found)
            raise ModelFormatError(
                WRONG_NUMBER.format(
                    path=path, given=len(given), n=len(found), names=told
                )
            )
        return _checked_names(list(given), found, path), None
    if stars is not None:
        if len(found) < 4:
            raise ModelFormatError(NOT_KNOWN.format(path=path, names=", ".join(found)))
        return found, stars
    if len(found) == 1:
        return _only_one(about, found[0], path), None
    return _checked_names([_usual(name) for name in found], found, path), None


def _names(tensor: Mapping[str, Any]) -> list[str]:
    """Return the names of the channels of an output, or its own where it has one."""
    axis = next((a for a in tensor["axes"] if a["type"] == "channel"), None)
    names = [str(n).strip() for n in axis["channel_names"]] if axis else [""]
    own = str(tensor.get("id") or "")
    known = FOREGROUND | BOUNDARY | BACKGROUND | PROBABILITY | {"distance"}
    if len(names) == 1 and own.lower() in known and GENERIC.fullmatch(names[0].lower()):
        return [own]
    if own.lower() in ("dist", "distances"):
        return [f"dist{i}" for i in range(len(names))]
    return names


def _usual(name: str) -> str:
    """Return the word used here for a name of a channel."""
    low = name.lower().replace("_", " ")
    for word, others in (
        ("foreground", FOREGROUND), ("boundary", BOUNDARY), ("background", BACKGROUND),
    ):  # fmt: skip
        if low in others:
            return word
    return low if low in ("distance", "ignore") else name


def _checked_names(names: list[str], found: list[str], path: Path) -> list[str]:
    """Return the names if objects or classes follow from them."""
    used = [n for n in names if n != "ignore"]
    classes = [n for n in used if n not in ("background", "boundary", "distance")]
    says_something = not any(GENERIC.fullmatch(n.lower()) for n in used)
    maps = {"boundary", "distance"}
    objects = "foreground" in used and bool(maps & set(used))
    objects = objects and set(used) <= {"foreground", "background"} | maps
    semantic = classes == [n for n in used if n != "background"] and (
        "background" in used or len(classes) == 1
    )
    fits = says_something and classes and (objects or semantic)
    if not fits or len(set(used)) != len(used):
        told = ", ".join(n or "a channel without a name" for n in found)
        raise ModelFormatError(NOT_KNOWN.format(path=path, names=told))
    return names


def _only_one(about: dict[str, Any], name: str, path: Path) -> list[str]:
    """Return the name of the only channel, if it is the probability of something."""
    tensor = about["outputs"][0]
    steps = {str(s.get("id")) for s in steps_of(tensor)}
    tags = {str(t).lower() for t in about.get("tags") or []}
    usual = _usual(name)
    if usual == "foreground":
        return [name]
    known = steps & ACTIVATED or any("segmentation" in tag for tag in tags)
    if not known or usual in ("background", "distance", "ignore"):
        raise ModelFormatError(NOT_KNOWN.format(path=path, names=name or "one channel"))
    return ["foreground" if GENERIC.fullmatch(name.lower()) else name]


def is_star_step(step: Mapping[str, Any]) -> bool:
    """Return whether a step makes objects from polygons."""
    return step.get("id") == "stardist_postprocessing"


def _stars(about: dict[str, Any], names: list[str]) -> dict[str, float] | None:
    """Return threshold and overlap of polygons, if the outputs are some."""
    steps = [s for t in about["outputs"] for s in steps_of(t)]
    kwargs = next((s["kwargs"] for s in steps if is_star_step(s)), None)
    if kwargs is not None:
        return {
            "threshold": float(kwargs["prob_threshold"]),
            "overlap": float(kwargs["nms_threshold"]),
        }
    config = (about.get("config") or {}).get("stardist")
    first, rest = names[0].lower().replace("_", " "), [n.lower() for n in names[1:]]
    rays = all(n.startswith(("dist", "ray", "radial")) for n in rest)
    if config is None and not (first in PROBABILITY and len(rest) > 2 and rays):
        return None
    limits = (config or {}).get("thresholds") or {}
    return {
        "threshold": float(limits.get("prob", 0.5)),
        "overlap": float(limits.get("nms", 0.4)),
    }


def steps_of(tensor: Mapping[str, Any]) -> list[Any]:
    """Return the steps after an output."""
    return list(tensor.get("postprocessing") or [])
