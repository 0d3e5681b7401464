"""Prompt files: every entry of the index with every odd value, and odd archives."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from napari_svpseg.io.prompt_files import load_prompts

from ..case import Action, Case, Place, Seen, either, refused, right
from ..scene import copy, objects, segment, write_image

FILE = "p.svprompt"
ODD: dict[str, Any] = {
    "null": None, "text": "x", "-1": -1, "1e9": 10**9, "1e400": float("inf"),
    "NaN": float("nan"), "list": [], "dict": {}, "true": True, "nested": [[[1]]],
}  # fmt: skip
NEEDED = ("corner", "size", "intensities", "image", "mask", "name")
DESCRIBING = (
    "source", "rgb", "channels", "pixel_size", "unit", "channel_names", "color",
    "enabled", "negative", "axes",
)  # fmt: skip
FINE = {
    ("name", "text"), ("name", "-1"), ("name", "1e9"), ("name", "true"),
    ("name", "NaN"), ("name", "1e400"),
}  # fmt: skip
"""Odd values of needed entries that still can be read as what they should be."""


def cases() -> Iterator[Case]:
    """Yield the cases of this group."""
    for entry in (*NEEDED, *DESCRIBING):
        for name, value in ODD.items():
            loads = entry in DESCRIBING or (entry, name) in FINE
            yield Case(
                "prompts",
                f"{entry} is {name}",
                partial(_changed_entry, entry, value),
                either(_same_pixels, FILE) if loads else refused(FILE),
            )
        yield Case(
            "prompts",
            f"{entry} is missing",
            partial(_changed_entry, entry, ...),
            either(_same_pixels, FILE) if entry in DESCRIBING else refused(FILE),
        )
    for entry in ("format", "version", "prompts"):
        for name, value in ODD.items():
            yield Case(
                "prompts",
                f"{entry} of the file is {name}",
                partial(_changed_index, entry, value),
                either(lambda here, seen: None, FILE)
                if (entry, name) in (("prompts", "list"), ("version", "true"))
                else refused(FILE),
            )
    yield from _pixels()
    yield from _archives()
    yield Case(
        "prompts",
        "as it is",
        lambda place: _use(copy(place, "discs.svprompt", FILE), place),
        right(objects(5)),
    )
    for side in (10**9, 10**6, 97, 1):
        yield Case(
            "prompts",
            f"side of {side}, segmented",
            partial(_segmented, side),
            either(objects(range(1, 20)), FILE) if side == 97 else refused(FILE),
        )


def _segmented(side: int, place: Place) -> Action:
    _changed_entry("size", side, place)
    return _use(FILE, place)


def _use(path: object, place: Place) -> Action:
    return segment(place, write_image(Path("a.tif")), "--prompts", path)


def _same_pixels(here: Path, seen: Seen) -> None:
    """Check that the pixels of the prompt are those that were saved."""
    y, x = np.mgrid[:64, :64]
    (prompt,) = load_prompts(here / FILE)
    assert prompt.image.shape == (64, 64, 1) and np.isfinite(prompt.image).all()
    assert prompt.mask[(y - 40) ** 2 + (x - 38) ** 2 <= 36].all(), "the mask is lost"
    assert np.isfinite(prompt.intensities).all()
    assert isinstance(prompt.unit, str) and isinstance(prompt.source, str)
    json.dumps(seen.out)


def _rewritten(place: Place, change: Callable[[dict[str, bytes]], None]) -> None:
    """Write the shared prompt file with changed members."""
    with zipfile.ZipFile(place.base / "discs.svprompt") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(FILE, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def _changed_index(entry: str, value: Any, place: Place) -> Action:
    def change(members: dict[str, bytes]) -> None:
        index = json.loads(members["prompts.json"])
        index[entry] = value
        members["prompts.json"] = json.dumps(index).encode()

    _rewritten(place, change)
    return ["prompts", "show", FILE]


def _changed_entry(entry: str, value: Any, place: Place) -> Action:
    def change(members: dict[str, bytes]) -> None:
        index = json.loads(members["prompts.json"])
        if value is ...:
            del index["prompts"][0][entry]
        else:
            index["prompts"][0][entry] = value
        members["prompts.json"] = json.dumps(index).encode()

    _rewritten(place, change)
    return ["prompts", "show", FILE]


def _pixels() -> Iterator[Case]:
    """Yield images and masks of the wrong kind."""
    side = np.zeros((64, 64), np.uint16)
    images = {
        "a mask": side,
        "too small": side[:60],
        "NaN": np.full((1, 64, 64), np.nan, "f4"),
        "inf": np.full((1, 64, 64), np.inf, "f4"),
        "complex": side.astype("c8"),
        "65 channels": np.stack([side] * 65),
        "four axes": side[None, None, None],
    }
    masks = {
        "floats": side.astype("f4"), "negative": side.astype("i2") - 4,
        "too large": np.zeros((65, 64), np.uint16), "a stack": np.stack([side] * 2),
        "ids at 2e9": np.full((64, 64), 2**32 - 1, np.uint32),
    }  # fmt: skip
    for kind, arrays in (("image", images), ("mask", masks)):
        for name, array in arrays.items():
            fine = name in ("a mask", "ids at 2e9")
            yield Case(
                "prompts",
                f"pixels of {kind}: {name}",
                partial(_changed_pixels, kind, array),
                either(lambda here, seen: load_prompts(here / FILE), FILE)
                if fine
                else refused(FILE),
            )
    for kind in ("image", "mask"):
        for name, data in (("empty", b""), ("text", b"no TIFF"), ("a cut TIFF", None)):
            yield Case(
                "prompts",
                f"pixels of {kind}: {name}",
                partial(_changed_bytes, kind, data),
                refused(FILE),
            )


def _changed_pixels(kind: str, array: np.ndarray, place: Place) -> Action:
    file = io.BytesIO()
    tifffile.imwrite(file, array)
    return _changed_bytes(kind, file.getvalue(), place)


def _changed_bytes(kind: str, data: bytes | None, place: Place) -> Action:
    def change(members: dict[str, bytes]) -> None:
        name = f"prompt-000-{kind}.tif"
        members[name] = members[name][:100] if data is None else data

    _rewritten(place, change)
    return ["prompts", "show", FILE]


def _archives() -> Iterator[Case]:
    """Yield files that are no prompt files."""
    for percent in (0, 1, 10, 50, 90, 99):
        yield Case(
            "prompts",
            f"cut to {percent} percent",
            partial(_cut, percent),
            refused(FILE),
        )
    for name in ("../up.tif", "/etc/x.tif", "a/b.tif", "c:\\x.tif", "x" * 300):
        yield Case(
            "prompts",
            f"member {name[:12].replace('/', ' ')}",
            partial(_with_member, name, b"x"),
            either(_same_pixels, FILE) if name[0] == "x" else refused(FILE),
        )
    yield Case(
        "prompts",
        "a bomb",
        partial(_with_member, "b.tif", bytes(5_000_000)),
        refused(FILE),
    )
    for name, data in (("text", b"hello"), ("a TIFF", None), ("JSON", b"{}")):
        yield Case("prompts", f"is {name}", partial(_other, data), refused(FILE))
    for index in (
        "",
        "[]",
        "{}",
        "nul",
        '{"format": "svprompt"}',
        "[" * 100_000,
        "\ud800",
    ):
        yield Case(
            "prompts",
            f"index {index[:22].encode(errors='replace').decode()!r}",
            partial(_index, index),
            refused(FILE),
        )
    for name in ("gone.svprompt", "/dev/null", ".", "a.tif"):
        yield Case(
            "prompts",
            f"file {name.replace('/', ' ')}",
            lambda place, name=name: ["prompts", "show", name],
            refused(name),
        )


def _cut(percent: int, place: Place) -> Action:
    path = copy(place, "discs.svprompt", FILE)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * percent // 100])
    return ["prompts", "show", FILE]


def _with_member(name: str, data: bytes, place: Place) -> Action:
    _rewritten(place, lambda members: members.update({name: data}))
    return ["prompts", "show", FILE]


def _other(data: bytes | None, place: Place) -> Action:
    path = write_image(Path("a.tif"))
    path.rename(FILE)
    if data is not None:
        Path(FILE).write_bytes(data)
    return ["prompts", "show", FILE]


def _index(text: str, place: Place) -> Action:
    data = text.encode(errors="surrogatepass")
    _rewritten(place, lambda members: members.update({"prompts.json": data}))
    return ["prompts", "show", FILE]
