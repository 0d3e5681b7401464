"""Folders and paths: odd names, odd files, results that would replace what is there."""

from __future__ import annotations

import csv
import os
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import tifffile
import zarr

from napari_svpseg.core.jobs.folder_job import FORMATS, with_end

from ..case import Action, Case, Place, Seen, either, partly, refused, right
from ..scene import N_DISCS, discs, objects, segment, write_image
from ..watchdog import act

NAMES = (
    "with space",
    "ünïcödé",
    "日本語",
    "🙂",
    "שלום",
    "a{b}",
    "{name}",
    "a%20b",
    "a%s",
    "[a]",
    "a*",
    "a?",
    "-a",
    "--help",
    "=1+1",
    "+1",
    "@x",
    "'quoted'",
    '"double"',
    "a;b",
    "$HOME",
    "`id`",
    "<b>bold",
    "# head",
    "[x](y)",
    "a&b",
    "~",
    "a.b.c",
    "a..",
    "A",
    "\N{ZERO WIDTH SPACE}",
    "e\N{COMBINING ACUTE ACCENT}",
    "x" * 200,
    "x" * 240,
    "CON",
    "\x1b[31mred",
    "a\nb",
    "a\tb",
    "a\\b",
    "\x07",
    "a\rb",
)
NOT_UTF8 = os.fsdecode(b"caf\xe9")


def cases() -> Iterator[Case]:
    """Yield the cases of this group."""
    for name in NAMES:
        long = len(name.encode()) > 220
        printed = (
            right(_segmented(name)) if not long else either(_segmented(name), name[:99])
        )
        title = f"file {name[:20]!r} of {len(name)}".replace("/", "|")
        yield Case("folders", title, partial(_file, name, ""), printed)
    for name in (*NAMES[:6], "=1+1", "a\nb", "\x1b[31mred"):
        yield Case(
            "folders",
            f"in folder {name!r}",
            partial(_in_folder, name),
            right(_segmented("a")),
        )
    yield Case(
        "folders",
        "a file name that is not UTF-8",
        partial(_beside, _not_utf8),
        partly(_others_done, "caf"),
    )
    for name, odd in _odd_files():
        yield Case(
            "folders",
            f"folder with {name}",
            partial(_beside, odd),
            partly(_others_done, "odd.tif"),
        )
    for name, odd in _no_images():
        yield Case(
            "folders", f"folder with {name}", partial(_beside, odd), right(_others_done)
        )
    yield from _outputs()
    yield from _collisions()
    yield from _foreign()
    for pattern in ("[", "", "*.doc", "[!", "**", "../*"):
        yield Case(
            "folders",
            f"include {pattern}".replace("/", " "),
            partial(_include, pattern),
            either(_others_done, "d"),
        )
    yield Case(
        "folders", "include *.TIF", partial(_include, "*.TIF"), right(_others_done)
    )
    for name in ("=1+1", "+cmd", "-2+3", "@SUM(A1)", "\t=1", "a,=1"):
        yield Case(
            "folders",
            f"table cells {name!r}",
            partial(_cells, name),
            right(_no_formula),
        )


def _segmented(name: str):
    found = objects(N_DISCS)

    def check(here: Path, seen: Seen) -> None:
        written = [p for p in (here / "out").iterdir() if p.name.endswith(".ome.tif")]
        assert len(written) == 1, f"{len(written)} results"
        written[0].rename(here / "out" / "a_labels.ome.tif")
        found(here, seen)

    return check


def _file(name: str, folder: str, place: Place) -> Action:
    path = Path(folder, f"{name}.tif")
    tifffile.imwrite(path, discs()[0])
    return segment(place, f"./{path}" if name.startswith("-") else path)


def _in_folder(name: str, place: Place) -> Action:
    Path(name).mkdir()
    return _file("a", name, place)


def _three(folder: str = "d") -> None:
    Path(folder).mkdir(exist_ok=True)
    for name in ("a", "z"):
        write_image(Path(folder, f"{name}.tif"))


def _others_done(here: Path, seen: Seen) -> None:
    for name in ("a", "z"):
        objects(N_DISCS, name=name)(here, seen)
    import json

    record = json.loads((here / "out/run.json").read_text())
    assert record["state"] == "done", f"run.json says {record['state']}"
    assert record["done"] == 2, f"run.json says that {record['done']} are done"


def _beside(odd, place: Place) -> Action:
    _three()
    odd(Path("d"))
    return segment(place, "d")


def _not_utf8(folder: Path) -> None:
    tifffile.imwrite(folder / "b.tif", discs()[0])
    (folder / "b.tif").rename(folder / f"{NOT_UTF8}.tif")
    (folder / f"{NOT_UTF8}.tif").write_bytes(b"no image")


def _odd_files():
    def loop(folder: Path) -> None:
        os.symlink("odd.tif", folder / "odd.tif")

    def dangling(folder: Path) -> None:
        os.symlink("gone.tif", folder / "odd.tif")

    def pipe(folder: Path) -> None:
        os.mkfifo(folder / "odd.tif")

    def a_folder(folder: Path) -> None:
        (folder / "odd.tif").mkdir()

    def empty(folder: Path) -> None:
        (folder / "odd.tif").touch()

    def text(folder: Path) -> None:
        (folder / "odd.tif").write_text("no image")

    def device(folder: Path) -> None:
        os.symlink("/dev/zero", folder / "odd.tif")

    def a_stack(folder: Path) -> None:
        import numpy as np

        tifffile.imwrite(folder / "odd.tif", np.zeros((3, 96, 97), np.uint8))

    for odd in (loop, dangling, pipe, a_folder, empty, text, device, a_stack):
        yield odd.__name__.replace("_", " "), odd


def _no_images():
    def notes(folder: Path) -> None:
        (folder / "notes.txt").write_text("my notes")

    def hidden(folder: Path) -> None:
        (folder / ".b.tif").write_text("hidden")

    def a_sub_folder(folder: Path) -> None:
        (folder / "more").mkdir()
        write_image(folder / "more/b.tif")

    def a_link_to_itself(folder: Path) -> None:
        os.symlink(".", folder / "self")

    for odd in (notes, hidden, a_sub_folder, a_link_to_itself):
        yield odd.__name__.replace("_", " "), odd


def _include(pattern: str, place: Place) -> Action:
    _three()
    return segment(place, "d", "--include", pattern)


def _outputs() -> Iterator[Case]:
    """Yield places to write to that are no folders, or that hold something."""

    def into(name: str, place: Place) -> Action:
        _three()
        if name == "a file":
            Path("out").write_text("my notes")
        elif name == "a file's inside":
            Path("out").write_text("my notes")
            return segment(place, "d", "-o", "out/more")
        elif name == "a loop":
            os.symlink("out", "out")
        elif name == "a dangling link":
            os.symlink("gone/gone", "out")
        elif name == "an image":
            return segment(place, "d", "-o", "d/a.tif")
        else:
            return segment(place, "d", "-o", name)
        return segment(place, "d")

    for name in ("a file", "a file's inside", "a loop", "a dangling link", "an image"):
        yield Case(
            "folders",
            f"into {name}",
            partial(into, name),
            refused("d/a.tif" if name == "an image" else "out"),
        )
    for name in ("/dev/null", "/dev/null/x", "/proc/x", "x" * 300):
        yield Case(
            "folders",
            f"into {name[:12]!r}".replace("/", "|"),
            partial(into, name),
            refused(name[:99]),
        )

    def full_of_notes(place: Place) -> Action:
        _three()
        Path("out").mkdir()
        Path("out/notes.txt").write_text("my notes")
        return segment(place, "d")

    yield Case("folders", "into my notes", full_of_notes, right(_others_done))

    def own(place: Place) -> Action:
        _three()
        return segment(place, "d", "-o", "d")

    yield Case("folders", "into the images", own, right(_done_beside))


def _done_beside(here: Path, seen: Seen) -> None:
    assert len(list((here / "d").glob("*_labels.ome.tif"))) == 2


def _collisions() -> Iterator[Case]:
    """Yield images whose results would have one name."""

    def two(first: str, second: str, place: Place) -> Action:
        for name in (first, second):
            Path(name).parent.mkdir(exist_ok=True)
            write_image(Path(name))
        return segment(place, first, second)

    for first, second in (
        ("a.tif", "a.png"), ("a.tif", "a.ome.tif"), ("d/a.tif", "e/a.tif"),
        ("a.tif", "a.tif"), ("a.tif", "./a.tif"),
    ):  # fmt: skip
        same = Path(first) == Path(second)
        expected = right(objects(N_DISCS)) if same else refused("a.")
        yield Case(
            "folders",
            f"{first} and {second}".replace("/", "|"),
            partial(two, first, second),
            expected,
        )


def _foreign() -> Iterator[Case]:
    """Yield files in the place of results that this program did not write."""
    for kind, end in FORMATS.items():
        for what in ("a file", "a folder", "an image", "a link"):
            for pattern in ("{name}_labels", "{name}"):
                yield Case(
                    "folders",
                    f"{what} in the place of {kind}, {pattern}",
                    partial(_in_the_way, kind, end, what, pattern),
                    refused(with_end(f"a{pattern[6:]}", kind)),
                )
        yield Case(
            "folders",
            f"{kind} done twice",
            partial(_twice, kind, False),
            right(lambda here, seen: None, "out"),
        )
        own = ("out/run.", "out/summary.csv", "out/prompts.svprompt")
        expected = replace(either(lambda here, seen: None, "out"), replaced=own)
        yield Case(
            "folders",
            f"{kind} corrected by hand",
            partial(_twice, kind, True),
            expected,
        )
    for name in ("summary.csv", "run.json", "prompts.svprompt"):
        yield Case(
            "folders",
            f"my own {name}",
            partial(_own_record, name),
            either(lambda here, seen: None, name),
        )
    yield Case(
        "folders",
        "my own run.log",
        partial(_own_record, "run.log"),
        refused("run.log"),
    )


def _in_the_way(kind: str, end: str, what: str, pattern: str, place: Place) -> Action:
    write_image(Path("a.tif"))
    Path("out").mkdir()
    target = Path("out", with_end(pattern.replace("{name}", "a"), kind))
    if what == "a file":
        target.write_bytes(b"the only copy")
    elif what == "a folder":
        target.mkdir()
        write_image(target / "raw.tif", discs(1)[0])
    elif what == "an image" and end == ".zarr":
        import zarr

        zarr.create_array(target, data=discs(1)[0], chunks=(64, 64))
    elif what == "an image":
        tifffile.imwrite(target, discs(1)[0])
    else:
        write_image(Path("real.tif"))
        os.symlink("../real.tif", target)
    return segment(place, "a.tif", "--formats", kind, "--pattern", pattern)


def _twice(kind: str, corrected: bool, place: Place) -> Action:
    words = segment(place, write_image(Path("a.tif")), "--formats", kind)
    first = act(words)
    assert first.status == 0, first.error
    if corrected:
        target = Path("out", with_end("a_labels", kind))
        _correct(target, kind)
    return words


def _correct(target: Path, kind: str) -> None:
    """Change one pixel or outline of a result, as a user does in another program."""
    if kind == "ome-tiff":
        with tifffile.TiffFile(target) as tiff:
            labels, xml = tiff.asarray(), tiff.ome_metadata
        labels[0, 0] = 7
        tifffile.imwrite(target, labels, description=xml.encode(), metadata=None)
    elif kind == "rois":
        with zipfile.ZipFile(target) as old:
            kept = {n: old.read(n) for n in old.namelist()[1:]}
            comment = old.comment
        with zipfile.ZipFile(target, "w") as new:
            new.comment = comment
            for name, data in kept.items():
                new.writestr(name, data)
    elif target.is_dir():
        level = next(p for p in target.rglob("0") if (p / "zarr.json").is_file())
        zarr.open_array(level, mode="r+")[0, 0] = 7
    else:
        target.write_bytes(target.read_bytes() + b"corrected")
    for path in (target, *target.rglob("*")):
        os.utime(path, (1e9, 1e9))


def _own_record(name: str, place: Place) -> Action:
    write_image(Path("a.tif"))
    Path("out").mkdir()
    Path("out", name).write_text("my own notes\n")
    return segment(place, "a.tif")


def _cells(name: str, place: Place) -> Action:
    Path("d").mkdir()
    tifffile.imwrite(f"d/{name}.tif", discs()[0])
    os.chdir("d")
    return [
        "../out" if word == "out" else word for word in segment(place, f"./{name}.tif")
    ]


def _no_formula(here: Path, seen: Seen) -> None:
    with open(here / "out/summary.csv", newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    bad = [c for c in cells if c[:1] in tuple("=+-@\t\r") and not _is_number(c)]
    assert not bad, f"a spreadsheet runs {bad[0]!r}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
