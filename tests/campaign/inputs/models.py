"""Models: every entry of a card with odd values, damaged weights, odd archives."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..case import Action, Case, Place, Seen, either, refused
from ..scene import copy, objects, segment, write_image

ODD: dict[str, Any] = {
    "null": None, "text": "x", "empty": "", "number": 7, "NaN": float("nan"),
    "list": [], "dict": {"x": 1}, "true": True, "missing": ...,
}  # fmt: skip
ENTRIES = (
    "name", "method", "arguments", "licence", "sha256", "channels", "title", "paper",
    "n_parameters", "training", "scores", "classes", "version",
)  # fmt: skip
OPTIONAL = set(ENTRIES) - {"name", "method", "sha256", "version", "arguments"}
FINE = (("name", "text"), ("version", "true"))
RUNS = objects(range(500))
"""An untrained network finds anything; that it runs is enough."""


def cases() -> Iterator[Case]:
    """Yield the cases of this group."""
    for entry in ENTRIES:
        for name, value in ODD.items():
            fine = entry in OPTIONAL or (entry, name) in FINE
            yield Case(
                "models",
                f"{entry} is {name}",
                partial(_changed_card, entry, value),
                either(RUNS, "m") if fine else refused("m"),
            )
    for name, arguments in {
        "width 0": {"width": 0, "features": 8},
        "width -1": {"width": -1, "features": 8},
        "width 1e9": {"width": 10**9, "features": 8},
        "features 9": {"width": 4, "features": 9},
        "width 4.5": {"width": 4.5, "features": 8},
        "width text": {"width": "4", "features": 8},
        "unknown": {"width": 4, "features": 8, "colour": 1},
    }.items():
        make = partial(_changed_card, "arguments", arguments)
        yield Case("models", f"arguments {name}", make, refused("m"))
    for method in ("svp", "alpnet", "unet", "../svp", "os.system", "SVP", "panet "):
        make = partial(_changed_card, "method", method)
        # the networks of alpnet and panet are the same, their weights fit
        expected = either(RUNS, "m") if method == "alpnet" else refused("m")
        yield Case("models", f"method {method!r}", make, expected)
    yield from _cards()
    yield from _weights()
    yield from _names()
    yield from _archives()


def _run(place: Place) -> Action:
    # absolute: a process keeps networks by the path of their folder
    return segment(place, write_image(Path("a.tif")), "--model", place.here / "m")


def _changed_card(entry: str, value: Any, place: Place) -> Action:
    path = copy(place, "tiny", "m") / "model.json"
    card = json.loads(path.read_text())
    if value is ...:
        del card[entry]
    else:
        card[entry] = value
    path.write_text(json.dumps(card))
    return _run(place)


def _cards() -> Iterator[Case]:
    """Yield cards that are no JSON object."""
    texts = (
        "",
        "[]",
        "null",
        "{",
        "{}",
        "[" * 100_000,
        "\0" * 100,
        '"text"',
        "\ufeff{}",
    )
    for text in texts:
        yield Case("models", f"card {text[:9]!r}", partial(_card, text), refused("m"))
    yield Case("models", "no card", partial(_without, "model.json"), refused("m"))
    yield Case(
        "models", "no weights", partial(_without, "weights.safetensors"), refused("m")
    )


def _card(text: str, place: Place) -> Action:
    (copy(place, "tiny", "m") / "model.json").write_text(text)
    return _run(place)


def _without(name: str, place: Place) -> Action:
    (copy(place, "tiny", "m") / name).unlink()
    return _run(place)


def _weights() -> Iterator[Case]:
    """Yield weights that are damaged, of another network, or hold no numbers."""
    for percent in (0, 1, 50, 99):
        yield Case(
            "models",
            f"weights cut to {percent} percent",
            partial(_bytes, lambda d, p=percent: d[: len(d) * p // 100], False),
            refused("m"),
        )
        yield Case(
            "models",
            f"weights cut to {percent} percent, with their hash",
            partial(_bytes, lambda d, p=percent: d[: len(d) * p // 100], True),
            refused("m"),
        )
    for seed in range(5):
        yield Case(
            "models",
            f"one bit changed {seed}",
            partial(_bytes, partial(_flip, seed), False),
            refused("m"),
        )
    for name, data in {
        "text": b"no weights at all" * 9,
        "a pickle": b"\x80\x04\x95",
        "a huge header": (2**62).to_bytes(8, "little") + b"{}",
        "no tensors": (2).to_bytes(8, "little") + b"{}",
    }.items():
        yield Case(
            "models",
            f"weights are {name}",
            partial(_bytes, lambda _, d=data: d, True),
            refused("m"),
        )
    for name, change in {
        "NaN": lambda v: v * np.nan,
        "inf": lambda v: v + np.inf,
        "one NaN": _one_nan,
        "1e38": lambda v: v * 1e38,
        "half": lambda v: v.astype(np.float16),
        "double": lambda v: v.astype(np.float64),
        "whole numbers": lambda v: v.astype(np.int64),
        "transposed": lambda v: v.T.copy(),
        "flat": lambda v: v.ravel(),
    }.items():
        fine = name in ("half", "double", "whole numbers")
        yield Case(
            "models",
            f"weights are {name}",
            partial(_tensors, change),
            either(RUNS, "m") if fine else refused("m"),
        )
    yield Case("models", "weights of another network", _other, refused("m"))
    yield Case("models", "weights are a folder", _folder, refused("m"))


def _flip(seed: int, data: bytes) -> bytes:
    changed = bytearray(data)
    changed[int(np.random.default_rng(seed).integers(len(data)))] ^= 8
    return bytes(changed)


def _one_nan(values: np.ndarray) -> np.ndarray:
    values = values.copy()
    values.flat[0] = np.nan
    return values


def _bytes(change: Callable[[bytes], bytes], hashed: bool, place: Place) -> Action:
    folder = copy(place, "tiny", "m")
    path = folder / "weights.safetensors"
    _put(folder, change(path.read_bytes()), hashed)
    return _run(place)


def _put(folder: Path, data: bytes, hashed: bool = True) -> None:
    """Write weights, with their hash in the card."""
    from napari_svpseg.core.fingerprint import fingerprint

    (folder / "weights.safetensors").write_bytes(data)
    if hashed:
        card = json.loads((folder / "model.json").read_text())
        card["sha256"] = fingerprint(data)
        (folder / "model.json").write_text(json.dumps(card))


def _tensors(change: Callable[[np.ndarray], np.ndarray], place: Place) -> Action:
    from safetensors.numpy import load, save

    folder = copy(place, "tiny", "m")
    tensors = load((folder / "weights.safetensors").read_bytes())
    with np.errstate(all="ignore"):
        _put(folder, save({k: change(v) for k, v in tensors.items()}))
    return _run(place)


def _other(place: Place) -> Action:
    folder = copy(place, "tiny", "m")
    _put(folder, (place.base / "tiny-svp" / "weights.safetensors").read_bytes())
    return _run(place)


def _folder(place: Place) -> Action:
    path = copy(place, "tiny", "m") / "weights.safetensors"
    path.unlink()
    path.mkdir()
    return _run(place)


def _names() -> Iterator[Case]:
    """Yield names of no model."""
    names = (
        "gone", "", " ", "SVP", "svp ", "../svp", "/etc/passwd", ".", "a.pt", "a.pth",
        "a.ckpt", "x" * 300, "a\nb", "/dev/zero",
    )  # fmt: skip
    for name in names:
        yield Case(
            "models",
            f"name {name[:12].replace('/', ' ')!r}",
            lambda place, name=name: segment(
                place, write_image(Path("a.tif")), "--model", name
            ),
            refused(name.strip()[:100].replace("\n", " ")),
        )
        yield Case(
            "models",
            f"show {name[:12].replace('/', ' ')!r}",
            lambda place, name=name: ["models", "show", name],
            refused(name.strip()[:100].replace("\n", " ")),
        )


def _archives() -> Iterator[Case]:
    """Yield zips that are no exported model; nothing of them may be written."""
    for name, members in {
        "up and out": {"../evil.txt": b"x"},
        "absolute": {"/tmp/evil.txt": b"x"},
        "no card": {"model.json": None},
        "no weights": {"weights.safetensors": None},
        "a card of text": {"model.json": b"text"},
        "other weights": {"weights.safetensors": b"other"},
    }.items():
        yield Case(
            "models",
            f"archive with {name}",
            partial(_archive, members),
            refused("m.zip"),
        )
    for name in ("a folder", "another file"):
        member = {"m/x.txt" if name == "a folder" else "x.txt": b"x"}
        yield Case(
            "models",
            f"archive with {name}",
            partial(_archive, member),
            either(_imported, "m.zip"),
        )
    for name in ("", ".", "..", "a/b", "../up", "svp", ".hidden", "x" * 300):
        yield Case(
            "models",
            f"import as {name[:9]!r}".replace("/", " "),
            partial(_archive, {}, name),
            either(_imported, "m.zip" if len(name) > 99 else name[:50]),
        )
    for name, data in (("empty", b""), ("text", b"no zip"), ("cut", None)):
        yield Case(
            "models", f"archive is {name}", partial(_no_archive, data), refused("m.zip")
        )
    for target in (".", "gone/m.zip", "m.zip/m.zip", ""):
        yield Case(
            "models",
            f"export to {target!r}".replace("/", " "),
            lambda place, target=target: _export(place, target),
            refused(target.partition("/")[0]),
        )


def _imported(here: Path, seen: Seen) -> None:
    assert Path(seen.out.split(": ")[-1].strip(), "model.json").is_file(), seen.out


def _archive(
    members: dict[str, bytes | None], place_or_name: Any, place: Place | None = None
) -> Action:
    name = place_or_name if place is not None else None
    where = place or place_or_name
    found: dict[str, bytes | None] = {
        path.name: path.read_bytes() for path in (where.base / "tiny").iterdir()
    }
    with zipfile.ZipFile("m.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in (found | members).items():
            if data is not None:
                archive.writestr(member, data)
    shutil.rmtree(where.base.parent / "home", ignore_errors=True)
    return ["models", "import", "m.zip", *([] if name is None else ["--name", name])]


def _no_archive(data: bytes | None, place: Place) -> Action:
    if data is None:
        _archive({}, place)
        data = Path("m.zip").read_bytes()[:900]
    Path("m.zip").write_bytes(data)
    return ["models", "import", "m.zip"]


def _export(place: Place, target: str) -> Action:
    if target.startswith("m.zip/"):
        Path("m.zip").write_bytes(b"in the way")
    return ["models", "export", place.base / "tiny", "-o", target]
