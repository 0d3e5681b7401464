"""Job files and sessions: every entry with odd values, damaged logs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from napari_svpseg.core.errors import joined
from napari_svpseg.io.session import Session, crashed_sessions

from ..case import Action, Case, Expected, Place, Seen, either, refused, right
from ..scene import N_DISCS, objects, segment, write_image
from ..watchdog import act

JOB = "out/run.json"
ODD: dict[str, Any] = {
    "null": None,
    "text": "x",
    "empty": "",
    "number": 7,
    "list": [],
    "list of numbers": [1],
    "dict": {},
    "dict of text": {"x": 1},
    "missing": ...,
    "a folder": "/proc",
}
ENTRIES = (
    "prompts",
    "model",
    "axes",
    "channels",
    "include",
    "formats",
    "settings",
    "pattern",
    "skip_done",
    "inputs",
    "output",
)
SHAPE = (300, 300)


def cases() -> Iterator[Case]:
    """Yield the cases of this group."""
    yield Case(
        "jobs",
        "as it is",
        partial(_job, lambda values: None),
        right(objects(N_DISCS), "out"),
    )
    for entry in ENTRIES:
        for name, value in ODD.items():
            yield Case(
                "jobs",
                f"{entry} is {name}",
                partial(_job, partial(_entry, entry, value)),
                _expected(entry, name),
            )
    for entry in ("version", "job"):
        for name, value in ODD.items():
            yield Case(
                "jobs",
                f"file's {entry} is {name}",
                partial(_job, partial(_top, entry, value)),
                refused("run.json"),
            )
    for text in ("", "{", "[]", "null", "[" * 100_000, "\0" * 99, '{"job": {}}'):
        yield Case(
            "jobs",
            f"file is {text[:9]!r}",
            partial(_job_text, text.encode()),
            refused("run.json"),
        )
    yield Case(
        "jobs",
        "file is no UTF-8",
        partial(_job_text, b"\xff\xfe{"),
        refused("run.json"),
    )
    yield from _sessions()


FINE = {
    ("axes", "null"), ("axes", "empty"), ("channels", "null"), ("settings", "dict"),
    ("include", "text"), ("include", "a folder"), ("include", "empty"),
    *((entry, "missing") for entry in ENTRIES if entry not in ("inputs", "output")),
}  # fmt: skip
"""Values with which a job can be done."""

GOOD_KINDS = ("text", "a folder", "list", "list of numbers")
"""Values of the right type, which only the image shows to be wrong."""


def _expected(entry: str, name: str) -> Expected:
    """Return what has to come of a changed entry; the run's own files may change."""
    if (entry, name) in FINE:
        return replace(either(objects(N_DISCS), "run.json"), replaced=("out/",))
    own = ("out/run.", "out/summary.csv", "out/prompts.svprompt")
    if entry == "axes" and name in GOOD_KINDS:  # the file knows its axes
        return replace(either(objects(N_DISCS), ""), replaced=("out/",))
    if entry == "output" and name == "text":  # a relative one is as good as any
        return replace(either(lambda here, seen: None, "x"), replaced=own)
    # a file or a model is named itself, what is no file at all by the job file
    named = entry in ("prompts", "model", "inputs", "output") and name in (
        "text", "a folder", "empty"
    )  # fmt: skip
    named = named or (entry in ("axes", "channels") and name in GOOD_KINDS)
    return replace(refused("" if named else "run.json"), replaced=own)


def _job(change: Callable[[dict], None], place: Place) -> Action:
    words = segment(place, write_image(Path("a.tif")))
    first = act(words)
    assert first.status == 0, first.error
    values = json.loads(Path(JOB).read_text())
    change(values)
    Path(JOB).write_text(json.dumps(values))
    return ["segment", "--job", JOB]


def _entry(entry: str, value: Any, values: dict) -> None:
    if value is ...:
        values["job"].pop(entry, None)
    else:
        values["job"][entry] = value


def _top(entry: str, value: Any, values: dict) -> None:
    values[entry] = value
    if value is ...:
        del values[entry]


def _job_text(data: bytes, place: Place) -> Action:
    _job(lambda values: None, place)
    Path(JOB).write_bytes(data)
    return ["segment", "--job", JOB]


# ------------------------------------------------------------------- sessions


def _sessions() -> Iterator[Case]:
    """Yield sessions that a killed napari left, damaged in many ways."""
    yield Case(
        "jobs",
        "session as it is",
        partial(_session, lambda folder: None),
        right(_restored, "sessions"),
    )
    for percent in (0, 5, 30, 60, 90, 99):
        yield Case(
            "jobs",
            f"session log cut to {percent} percent",
            partial(_session, partial(_cut, percent)),
            right(_part, "sessions"),
        )
    for text in (
        "",
        "{",
        "[]",
        "null",
        "7",
        "[" * 100_000,
        '{"format": 99}',
        "\0" * 99,
    ):
        yield Case(
            "jobs",
            f"session state is {text[:9]!r}",
            partial(_session, partial(_write, "session.json", text.encode())),
            right(_told, "sessions"),
        )
    for head in (
        b"",
        b"{}\n",
        b"[]\n",
        b"\0" * 99,
        b'{"shape": [300, 300], "dtype": "object"}\n',
        b'{"shape": [1000000, 1000000], "dtype": "<u2"}\n',
        b'{"shape": [-1, 5], "dtype": "<u2"}\n',
        b'{"shape": "x", "dtype": "<u2"}\n',
        b'{"shape": [300, 300], "dtype": "<V9999999"}\n',
        b'{"shape": [1e400, 3], "dtype": "<u2"}\n',
    ):
        yield Case(
            "jobs",
            f"session log is {head[:55]!r}",
            partial(_session, partial(_write, "labels-a.log", head)),
            right(_told, "sessions"),
        )
    for record in (
        {"start": [-5, 0]},
        {"start": [0, 999]},
        {"start": [0]},
        {"start": "x"},
        {"n": -1},
        {"n": 10**12},
        {"n": "x"},
        {"crc": 0},
        {"crc": None},
        {"start": None},
    ):
        yield Case(
            "jobs",
            f"session block {record}",
            partial(_session, partial(_record, record)),
            right(_told, "sessions"),
        )
    for data in (b"", b"no zip", bytes(999)):
        yield Case(
            "jobs",
            f"session prompts {data[:6]!r}",
            partial(_session, partial(_write, "prompts.svprompt", data)),
            right(_told, "sessions"),
        )


def _labels() -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint16)
    labels[10:40, 20:50] = 2
    labels[270:290, 270:299] = 3
    return labels


def _session(change: Callable[[Path], None], place: Place) -> Action:
    session = Session("sessions")
    labels = _labels()
    starts = ((0, 0), (0, 256), (256, 0), (256, 256))
    blocks = [(s, labels[s[0] : s[0] + 256, s[1] : s[1] + 256]) for s in starts]
    session.write_blocks("a", SHAPE, "<u2", blocks)
    session.write_state({"labels": [{"key": "a"}], "images": [], "boxes": []})
    session._lock.release()  # as the system does for a killed process
    change(session.folder)
    return _restore


def _restore() -> tuple[int, np.ndarray | None]:
    """Restore as napari does; print what it tells of damage."""
    sessions, problems = crashed_sessions("sessions")
    arrays = [s.labels(e["key"]) for s in sessions for e in s.state["labels"]]
    for saved in sessions:
        saved.prompts()
        problems += saved.problems
    for problem in problems:
        print(f"svpseg: {joined(problem)}", file=sys.stderr)
    return len(sessions), (arrays[0] if arrays else None)


def _restored(here: Path, seen: Seen) -> None:
    n, labels = seen.value
    assert n == 1 and np.array_equal(labels, _labels())


def _part(here: Path, seen: Seen) -> None:
    """Check that a log that ends early, as after a kill, gives what is whole in it."""
    _, labels = seen.value
    assert labels is None or ((labels == 0) | (labels == _labels())).all()
    assert labels is not None or seen.error, "strokes are gone without a word"


def _told(here: Path, seen: Seen) -> None:
    """Check that damage is told, what is whole is back, and the files are kept."""
    _, labels = seen.value
    whole = labels is not None and np.array_equal(labels, _labels())
    assert whole or seen.error, "strokes are gone without a word"
    if labels is not None:
        assert ((labels == 0) | (labels == _labels())).all(), "strokes that nobody made"
    assert any((here / "sessions").rglob("labels-a.log")), "the session is deleted"


def _cut(percent: int, folder: Path) -> None:
    path = folder / "labels-a.log"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * percent // 100])


def _write(name: str, data: bytes, folder: Path) -> None:
    (folder / name).write_bytes(data)


def _record(changed: dict[str, Any], folder: Path) -> None:
    path = folder / "labels-a.log"
    head, record, rest = path.read_bytes().split(b"\n", 2)
    values = json.dumps(json.loads(record) | changed).encode()
    path.write_bytes(b"\n".join((head, values, rest)))
