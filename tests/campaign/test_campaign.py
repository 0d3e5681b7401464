"""A fault that is planted turns the table of the campaign red, in its own column."""

from __future__ import annotations

import errno
import multiprocessing
import sys
import time
from pathlib import Path

import pytest

from .case import Case, Expected, Place, Seen, either, partly, refused, right
from .faults import Writes, disk_is_full, kill
from .programs import compared
from .table import Table
from .verdict import COLUMNS, HUNG, LOST, RIGHT, UNCLEAR, WRONG, judge
from .watchdog import call_in_child, run_cases


@pytest.fixture(autouse=True)
def _only_where_cases_can_be_forked():
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("cases are forked")


def is_right(here: Path, seen: Seen) -> None:
    assert (here / "out.txt").read_text() == "5"


def program(place: Place, what: str):
    """Return a program that has the fault ``what``."""
    Path("raw.txt").write_text("the only copy")

    def run() -> None:
        if what == "deletes the image":
            Path("raw.txt").unlink()
        if what == "hangs":
            time.sleep(60)
        if what == "leaves a file":
            Path(".svpseg-0123456789ab-out.txt").write_text("half")
        if what == "names nothing":
            raise ValueError("Something is wrong here.")
        if what == "shows its inside":
            raise KeyError("raw.txt")
        if what == "warns":
            print("raw.txt:12: RuntimeWarning: divide by zero", file=sys.stderr)
        if what == "refuses":
            raise ValueError("raw.txt: cannot be read, convert it to TIFF.")
        if what == "dies":
            import os

            os._exit(3)
        Path("out.txt").write_text("4" if what == "is wrong" else "5")

    return run


FAULTS = {
    "nothing": (right(is_right), RIGHT),
    "refuses": (refused("raw.txt"), RIGHT),
    "deletes the image": (right(is_right), LOST),
    "hangs": (right(is_right), HUNG),
    "is wrong": (either(is_right, "raw.txt"), WRONG),
    "says nothing": (refused("raw.txt"), WRONG),
    "names nothing": (refused("raw.txt"), UNCLEAR),
    "shows its inside": (refused("raw.txt"), UNCLEAR),
    "warns": (right(is_right), UNCLEAR),
    "leaves a file": (right(is_right), UNCLEAR),
    "dies": (right(is_right), UNCLEAR),
}


def test_each_fault_turns_its_column_red(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = tmp_path / "base"
    base.mkdir()
    cases = [
        Case("planted", what, lambda place, w=what: program(place, w), expected)
        for what, (expected, _) in FAULTS.items()
    ]
    table, found = Table(), {}
    for case, verdict, _ in run_cases(cases, base, limit_s=2.0):
        table.add(case.title, verdict)
        found[case.name] = verdict.column
    assert found == {what: column for what, (_, column) in FAULTS.items()}
    assert set(table.rows["planted"]) == set(COLUMNS)
    assert table.status == 1
    for case in cases:
        assert (f": {case.title}\n" in str(table)) == (found[case.name] != RIGHT)


def test_a_table_is_green_only_with_cases_that_are_right():
    table = Table()
    assert table.status == 1
    table.add("a/b", judge(Expected(check=is_right), Seen()))
    assert table.status == 0


@pytest.mark.parametrize(
    ("expected", "seen", "column"),
    [
        (right(is_right), Seen(status=1, error="svpseg: a.tif: is odd."), UNCLEAR),
        (refused("b.tif"), Seen(1, error="svpseg: a.tif: is odd."), UNCLEAR),
        (refused("a.tif"), Seen(1, error="svpseg: a.tif: \x1b[31m is odd."), UNCLEAR),
        (refused("a.tif"), Seen(1), UNCLEAR),
        (refused("a.tif"), Seen(1, error="svpseg: A.TIF: is odd."), RIGHT),
        (right(is_right, "out/"), Seen(changed=["out/x"]), RIGHT),
        (right(is_right, "out/"), Seen(changed=["raw/x"]), LOST),
        (
            partly(is_right, "a.tif"),
            Seen(1, error="svpseg: a.tif: odd", fault="x"),
            WRONG,
        ),
    ],
)
def test_verdicts(expected, seen, column):
    assert judge(expected, seen).column == column


@pytest.mark.parametrize(
    ("outcome", "status", "column"),
    [
        ({"a": "1", "b": "2"}, 0, RIGHT),
        ({"a": "1"}, 0, LOST),
        ({"a": "1", "b": "3"}, 0, WRONG),
        ({"a": "1", "b": "2", ".9-b": "3"}, 0, UNCLEAR),
        ({}, 1, UNCLEAR),
    ],
)
def test_a_resumed_program_is_compared_with_an_undisturbed_one(outcome, status, column):
    undisturbed = {"a": "1", "b": "2"}
    assert compared(outcome, undisturbed, status, "svpseg: no").column == column


def write_three(folder: Path, at: int, fault) -> int:
    """Write three files, a fault at one of them; return how many were begun."""
    writes = Writes(folder, at, fault)
    for name in "abc":
        (folder / name).write_text("x")
    writes.stopped = True
    return writes.count


def test_a_kill_and_a_full_disk_hit_the_write_that_they_are_meant_for(tmp_path):
    assert call_in_child(write_three, tmp_path, 0, None) == 3
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(EOFError):
        call_in_child(write_three, tmp_path, 2, kill)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert call_in_child(full_at, tmp_path, 3) == errno.ENOSPC
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def full_at(folder: Path, at: int) -> int | None:
    try:
        write_three(folder, at, disk_is_full)
    except OSError as error:
        return error.errno
    return None
