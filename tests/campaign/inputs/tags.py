"""Tables of tags and the images that they name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from ..case import Action, Case, Check, Expected, Place, Seen, either, refused, right
from ..scene import CPU, write_image

TABLE = "tags.csv"
QUICK = (
    "--epochs",
    1,
    "--second-epochs",
    1,
    "--batch",
    4,
    "--n-prototypes",
    1,
    "--no-second-stage",
)
ROWS = [f"{i}.png,{('disc', 'square', '')[i % 3]}" for i in range(6)]


def cases() -> Iterator[Case]:
    """Yield the cases of this group."""
    yield Case(
        "tags",
        "as it is",
        partial(_table, "\n".join(ROWS).encode()),
        right(_classes("disc", "square")),
    )
    for name, text, expected in _tables():
        data = text if isinstance(text, bytes) else text.encode()
        yield Case("tags", name, partial(_table, data), expected)
    for kind in ("folder", "gone", "link to itself", "pipe"):
        yield Case(
            "tags", f"the table is a {kind}", partial(_no_table, kind), refused(TABLE)
        )
    for name, array in {
        "a stack": np.zeros((3, 48, 48), np.uint8),
        "too small": np.zeros((3, 3), np.uint8),
        "blank": np.zeros((48, 48), np.uint8),
        "NaN": np.full((48, 48), np.nan, np.float32),
        "complex": np.zeros((48, 48), np.complex64),
    }.items():
        expected = either(_classes("disc", "square"), "0.tif")
        yield Case("tags", f"an image is {name}", partial(_image, array), expected)
    yield Case(
        "tags",
        "an image is damaged",
        _damaged,
        either(_classes("disc", "square"), "0.png"),
    )
    for name, folders in {
        "no folder": [],
        "one empty": ["disc"],
        "no class": ["none"],
        "hidden": [".disc"],
        "a comma": ["a,b"],
        "plus only": ["+"],
        "twice": ["disc+disc"],
    }.items():
        yield Case(
            "tags",
            f"folders: {name}",
            partial(_folders, folders),
            # one class that all images show is no folder's fault
            refused("pictures" if name != "twice" else "every image"),
        )


def _tables() -> Iterator[tuple[str, str | bytes, Expected]]:
    """Yield tables and what has to come of them."""
    rows, no = "\n".join(ROWS), refused(TABLE)
    fine = right(_classes("disc", "square"))
    yield "empty", "", no
    yield "blank lines", "\n\n  \n", no
    yield "heading only", "file,classes\n", no
    yield "comment only", "# classes: disc, square\n", refused("tag")
    yield "no class at all", "\n".join(f"{i}.png" for i in range(6)), refused("tag")
    yield "a heading", f"file,classes\n{rows}", fine
    yield "semicolons", rows.replace(",", ";"), fine
    yield "tabs", rows.replace(",", "\t"), fine
    yield "byte order mark", b"\xef\xbb\xbf" + rows.encode(), fine
    yield "Windows lines", rows.replace("\n", "\r\n"), fine
    yield "old Mac lines", rows.replace("\n", "\r"), fine
    yield "spaces", rows.replace(",", " , "), fine
    yield (
        "quotes",
        "\n".join(f'"{r.replace(",", chr(34) + "," + chr(34))}"' for r in ROWS),
        fine,
    )
    yield "without suffixes", rows.replace(".png", ""), fine
    yield "with folders", "\n".join(f"pictures/{r}" for r in ROWS), refused("pictures")
    yield "a row twice", f"{rows}\n{ROWS[0]}", no
    yield "a row twice, other classes", f"{rows}\n0.png,square", no
    yield "no file name", f"{rows}\n,disc", no
    yield "an unknown file", f"{rows}\ngone.png,disc", right(_noted("gone.png"))
    yield "only unknown files", "x.png,disc\ny.png,square", refused("x.png")
    yield "one image", "0.png,disc", refused("tag")
    yield "a class with a line break", f'{rows}\n5.png,"a\nb"', no
    yield "an open quote", f'{rows}\n"9.png,disc', either(fine.check or _never, TABLE)
    yield (
        "an unlisted class",
        f"# classes: disc\n{rows}",
        either(_classes("disc", "square"), "square"),
    )
    yield "a class twice in the comment", f"# classes: disc, disc\n{rows}", fine
    yield "UTF-16", rows.encode("utf-16"), fine
    latin = rows.replace("disc", "Gewebe ä").encode("latin-1")
    yield "Latin-1", latin, right(_classes("Gewebe ä", "square"))
    yield "zeros", bytes(3000), no
    yield "an image", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9, no
    yield "a cell of 1 MB", f"{rows}\n{'x' * 1_000_000},disc", no
    yield "60 MB", b"a" * 60_000_000, no
    yield (
        "paths that lead out",
        f"{rows}\n../../../etc/passwd,disc",
        either(_noted("passwd"), TABLE),
    )
    yield (
        "an absolute path",
        f"{rows}\n/etc/hostname,disc",
        either(_noted("hostname"), TABLE),
    )
    yield (
        "a terminal escape",
        f"{rows}\n\x1b[31m.png,disc",
        either(_noted("31m"), TABLE),
    )
    yield (
        "a class of 300 letters",
        rows.replace("disc", "d" * 300),
        either(_classes("d" * 300, "square"), TABLE),
    )
    for name in ("=1+1", "<b>x</b>", "none", "..", "a/b", "è", "🙂", "-1", "class 1"):
        yield (
            f"a class called {name}".replace("/", " "),
            rows.replace("disc", name),
            either(_classes(name, "square"), TABLE),
        )


def _never(here: Path, seen: Seen) -> None:
    raise AssertionError("no result is right")


def _classes(*names: str) -> Check:
    """Return a check of the classes of the model that was written."""

    def check(here: Path, seen: Seen) -> None:
        from napari_svpseg.io.model_store import load_model

        found = list(load_model(here / "m").card.classes)
        assert sorted(found) == sorted(names), f"classes {found}"

    return check


def _noted(name: str) -> Check:
    def check(here: Path, seen: Seen) -> None:
        assert name in seen.error, f"no word about {name}"

    return check


def _pictures() -> None:
    """Write six noisy pictures: discs, squares, and nothing."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :48]
    Path("pictures").mkdir(exist_ok=True)
    for i in range(6):
        image = rng.normal(110, 8, (48, 48))
        if i % 3 == 0:
            image[(y - 24) ** 2 + (x - 20 - i) ** 2 <= 100] += 90
        elif i % 3 == 1:
            image[10 + i : 28 + i, 12:30] -= 90
        write_image(Path("pictures", f"{i}.png"), image.clip(0, 255).astype(np.uint8))


def _train(place: Place, *more: object) -> Action:
    start = ("--start-from", place.base / "tiny-svp")
    return ["train-tags", "pictures", "-o", "m", *start, *CPU, *QUICK, *more]


def _table(data: bytes, place: Place) -> Action:
    _pictures()
    Path(TABLE).write_bytes(data)
    return _train(place, "--tags", TABLE)


def _no_table(kind: str, place: Place) -> Action:
    _pictures()
    if kind == "folder":
        Path(TABLE).mkdir()
    elif kind == "pipe":
        os.mkfifo(TABLE)
    elif kind == "link to itself":
        os.symlink(TABLE, TABLE)
    return _train(place, "--tags", TABLE)


def _image(array: np.ndarray, place: Place) -> Action:
    _pictures()
    Path("pictures/0.png").unlink()
    write_image(Path("pictures/0.tif"), array)
    return _table("\n".join(ROWS).replace("0.png", "0.tif").encode(), place)


def _damaged(place: Place) -> Action:
    _pictures()
    words = _table("\n".join(ROWS).encode(), place)
    Path("pictures/0.png").write_bytes(b"no image")
    return words


def _folders(names: list[str], place: Place) -> Action:
    Path("pictures").mkdir()
    for name in names:
        there = Path("pictures", name)
        there.mkdir()
        for i in range(2 if name not in ("disc",) else 0):
            write_image(there / f"{i}.png", np.full((48, 48), 100 + i, np.uint8))
    return _train(place)
