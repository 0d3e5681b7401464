"""Corrections: points that lie nowhere, examples with odd unknown pixels, results."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

import napari_svpseg as svpseg
from napari_svpseg.core.prompt import UNKNOWN
from napari_svpseg.io.prompt_files import load_prompts, save_prompts

from ..case import Action, Case, Check, Place, Seen, either, refused, right
from ..scene import CPU, DISCS, SIDE, copy, discs, objects, segment, write_image

FILE, NEW, IMAGE = "p.svprompt", "new.svprompt", "a.tif"
DISC, GROUND = "20,24", "3,3"
"""Points on a disc of the image, and on its background."""


def cases() -> Iterator[Case]:
    """Yield the cases of this group."""
    yield _case("one wrong object", _correct("--not-this", DISC), right(_grown(1, -1)))
    yield _case(
        "one wrong object, twice",
        _correct("--not-this", DISC, "--not-this", DISC),
        right(_grown(1, -1)),
    )
    yield _case(
        "every object is wrong",
        _correct(*(w for y, x, _ in DISCS for w in ("--not-this", f"{y},{x}"))),
        right(_grown(5, -5)),
    )
    yield _case(
        "one missed object", _correct("--this-too", GROUND), either(_grown(1, 1), "y=3")
    )
    yield _case(
        "an object that is there already",
        _correct("--this-too", DISC),
        refused("y=20"),
    )
    yield _case(
        "wrong and missed at one point",
        _correct("--not-this", DISC, "--this-too", DISC),
        refused("y=20", "x=24"),
    )
    yield _case("nothing wrong there", _correct("--not-this", GROUND), refused("y=3"))
    yield _case("no point", _correct(), refused("--not-this", "--this-too"))
    yield from _points()
    yield from _images()
    yield from _files()
    yield from _masks()
    yield from _results()
    yield from _sessions()


def _case(name: str, make: Any, expected: Any) -> Case:
    return Case("corrections", name, make, expected)


def _correct(*points: object, image: np.ndarray | None = None) -> Any:
    """Return what makes the words that correct an image."""

    def make(place: Place) -> Action:
        copy(place, "discs.svprompt", FILE)
        write_image(Path(IMAGE), image)
        return _words(*points)

    return make


def _words(*points: object, prompts: object = FILE, output: object = NEW) -> Action:
    return ["correct", IMAGE, "--prompts", prompts, "-o", output, *CPU, *points]


def _grown(examples: int, by: int) -> Check:
    """Return a check of the prompts, and of the objects that are told."""

    def check(here: Path, seen: Seen) -> None:
        before, after = load_prompts(here / FILE), load_prompts(here / NEW)
        assert len(after) == len(before) + examples
        for old, new in zip(before, after, strict=False):
            assert np.array_equal(old.mask, new.mask), "a prompt has changed"
        added = list(after)[len(before) :]
        assert all(p.is_negative == (by < 0) for p in added)
        assert all((p.mask == UNKNOWN).any() for p in added)
        assert f"{5 + by} objects (was 5)" in seen.out or by > 0, seen.out

    return check


def _points() -> Iterator[Case]:
    """Yield points outside of the image, and texts that are none."""
    for y, x in ((-1, 5), (5, -1), (SIDE, 5), (5, SIDE), (10**9, 10**9)):
        for tool in ("--not-this", "--this-too"):
            yield _case(
                f"{tool} {y},{x}", _correct(tool, f"{y},{x}"), refused(str(y), str(x))
            )
    for text in ("", "5", "5,5,5", "a,b", "nan,nan", "inf,1", "1e400,1", "5.5,5", ","):
        yield _case(
            f"point is {text!r}",
            _correct("--not-this", text),
            either(lambda here, seen: None, "two whole numbers"),
        )


def _images() -> Iterator[Case]:
    """Yield images other than those that the prompts are of."""
    image = discs()[0]
    for name, other, names in (
        ("colour", np.stack([image] * 3, -1), "channel"),
        ("a stack", np.stack([image] * 5), IMAGE),
        ("NaN", np.full((SIDE, SIDE), np.nan, np.float32), "y=20"),
        ("empty", np.zeros((0, 5), np.uint8), IMAGE),
    ):
        yield _case(
            f"image is {name}",
            _correct("--not-this", DISC, image=other),
            refused(names),
        )
    blank = np.full((SIDE, SIDE), 20, np.uint8)
    yield _case(
        "wrong object in a blank image",
        _correct("--not-this", DISC, image=blank),
        refused("y=20", "x=24"),
    )
    yield _case(
        "missed object in a blank image",
        _correct("--this-too", DISC, image=blank),
        either(_grown(1, 1), "y=20"),
    )
    yield _case(
        "image of one pixel",
        _correct("--this-too", "0,0", image=blank[:1, :1]),
        refused("1 x 1"),
    )


def _files() -> Iterator[Case]:
    """Yield files that must not be replaced, or that show nothing."""

    def over(name: str, place: Place) -> Action:
        copy(place, "discs.svprompt", FILE)
        write_image(Path(IMAGE))
        if name == NEW:
            Path(NEW).write_bytes(b"the work of a week")
        return _words("--not-this", DISC, output=name)

    yield _case("output is the prompt file", partial(over, FILE), refused(FILE))
    yield _case("output is another file", partial(over, NEW), refused(NEW))
    yield _case("output in no folder", partial(over, "no/x.svprompt"), refused("no"))

    def only(change: str, place: Place) -> Action:
        (prompt,) = load_prompts(place.base / "discs.svprompt")
        off = {"enabled": False}
        unwanted = {"mask": np.zeros_like(prompt.mask)}
        made = replace(prompt, **(off if change == "switched off" else unwanted))
        save_prompts(svpseg.PromptSet([made]), FILE)
        write_image(Path(IMAGE))
        return _words("--not-this", DISC)

    for change in ("switched off", "not wanted"):
        yield _case(
            f"only prompt is {change}", partial(only, change), refused("prompt")
        )


def _masks() -> Iterator[Case]:
    """Yield prompt files of version 2 with odd unknown pixels."""
    unknown = np.full((64, 64), UNKNOWN, np.int16)
    y, x = np.mgrid[:64, :64]
    disc = (y - 40) ** 2 + (x - 38) ** 2 <= 36
    known = np.where(disc, 1, UNKNOWN).astype(np.int16)
    many = right(objects(range(40)))
    one = right(objects(range(1, 20)))
    for name, mask, version, expected in (
        ("all of it", unknown, 2, refused(FILE)),
        ("all but an object", known, 2, many),
        ("a ring of background", np.where(disc, 1, 0) + unknown * (y < 20), 2, one),
        ("below -1", np.where(disc, 1, -2).astype(np.int16), 2, refused(FILE)),
        ("in a file of version 1", known, 1, refused(FILE)),
        ("in a file of version 3", known, 3, refused(FILE)),
        ("in 32 bits", known.astype(np.int32), 2, many),
        ("in 8 bits", known.astype(np.int8), 2, either(objects(range(40)), FILE)),
        ("as floats", known.astype(np.float32), 2, refused(FILE)),
        ("as 65535", known.astype(np.uint16), 2, either(objects(range(40)), FILE)),
        ("nowhere", np.where(disc, 1, 0).astype(np.int16), 2, one),
    ):
        make = partial(_unknown, mask, version, None)
        yield _case(f"unknown pixels: {name}", make, expected)
    wrong = np.where(disc, 0, UNKNOWN).astype(np.int16)
    for name, mask, expected in (
        ("a wrong object alone", wrong, refused("prompt")),
        ("nothing known", unknown, refused("prompt")),
        ("an object in it", known, either(objects(range(40)), FILE)),
    ):
        make = partial(_unknown, mask, 2, True)
        yield _case(f"unwanted, {name}", make, expected)


def _unknown(
    mask: np.ndarray, version: int, negative: bool | None, place: Place
) -> Action:
    """Write the shared prompt file with another mask and version; segment with it."""
    with zipfile.ZipFile(place.base / "discs.svprompt") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    index = json.loads(members["prompts.json"])
    index["version"] = version
    if negative is not None:
        index["prompts"][0]["negative"] = negative
    members["prompts.json"] = json.dumps(index).encode()
    file = io.BytesIO()
    tifffile.imwrite(file, mask)
    members[index["prompts"][0]["mask"]] = file.getvalue()
    with zipfile.ZipFile(FILE, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return segment(place, write_image(Path(IMAGE)), "--prompts", FILE)


def _results() -> Iterator[Case]:
    """Yield calls of Python with results and outlines that do not fit."""
    image, labels = discs()

    def call(what: str, place: Place) -> Action:
        prompts = load_prompts(place.base / "discs.svprompt")
        settings = svpseg.SegmentSettings(device="cpu", trust=False)

        def run() -> Any:
            result = svpseg.segment(image, prompts, settings=settings)
            given: dict[str, Any] = {"not_this": [(20, 24)]}
            if what == "an outline of another shape":
                given = {"this_too": [labels[:50] == 1]}
            if what == "an empty outline":
                given = {"this_too": [labels == 99]}
            if what == "an outline over all":
                given = {"this_too": [np.ones(labels.shape, bool)]}
            if what == "decisions of another shape":
                given["fixed"] = np.full((5, 5), UNKNOWN, np.int32)
            if what == "decisions on all":
                given["fixed"] = np.zeros(labels.shape, np.int32)
            other = image[:50] if what == "an image of another shape" else image
            return svpseg.correct(other, prompts, result, **given, device="cpu")

        return run

    def whole(here: Path, seen: Seen) -> None:
        assert seen.value.result.labels.shape == labels.shape
        assert len(seen.value.prompts) + len(seen.value.here_only) == 2

    for what, expected in (
        ("as it is", right(whole)),
        ("an outline of another shape", refused("shape")),
        ("an empty outline", refused("outline")),
        ("an outline over all", either(whole, "outline")),
        ("decisions of another shape", refused("shape")),
        ("decisions on all", right(whole)),
        ("an image of another shape", refused("shape")),
    ):
        yield _case(f"in Python: {what}", partial(call, what), expected)


def _sessions() -> Iterator[Case]:
    """Yield what a session keeps of corrections, damaged in many ways."""
    fixed = np.full((SIDE, SIDE), UNKNOWN, np.int32)
    fixed[10:30, 10:30] = 0
    fixed[40:50, 40:60] = 1

    def restore(entry: str, value: Any, place: Place) -> Action:
        write_image(Path(IMAGE))

        def run() -> Any:
            from napari.components import ViewerModel

            from napari_svpseg.core.annotation.patches import Patch
            from napari_svpseg.io.session import Session, crashed_sessions
            from napari_svpseg.plugin.layers.results.corrected import KEY
            from napari_svpseg.plugin.services.restoring import put_back, read_contents

            kept = {
                "plane": [],
                "size": list(fixed.shape),
                "patch": Patch.of(fixed).to_dict(),
            }
            if entry in kept:
                kept[entry] = value
            elif entry:
                kept["patch"][entry] = value
            image = {
                "id": "a", "name": "a", "path": "", "sample": "", "plugin": "",
                "axes": "", "channels": None, "corrected": [kept],
            }  # fmt: skip
            session = Session("sessions")
            session.write_state({"labels": [], "images": [image], "boxes": []})
            session._lock.release()  # as the system does for a killed process
            viewer = ViewerModel()
            layer = viewer.add_image(discs()[0], name="a")
            (saved,), _ = crashed_sessions("sessions")
            put_back(viewer, read_contents(saved), None, lambda labels: None)
            for problem in saved.problems:
                print(f"svpseg: {problem}", file=sys.stderr)
            return layer.metadata.get(KEY, {})

        return run

    def same(here: Path, seen: Seen) -> None:
        assert np.array_equal(seen.value[()], fixed)

    def told(here: Path, seen: Seen) -> None:
        assert not seen.value, "corrections that nobody made"
        assert seen.error, "corrections are gone without a word"

    yield _case("session as it is", partial(restore, "", None), right(same))
    for entry in ("plane", "size", "patch", "y", "shape", "ids", "lengths"):
        for value in (None, "x", -1, [], [-1, 5], [10**9, 10**9], {}):
            if entry != "plane" or not isinstance(value, list | dict):
                # other planes are planes that nobody looks at
                yield _case(
                    f"session, {entry} is {value!r}",
                    partial(restore, entry, value),
                    right(told),
                )
