"""CSV files that a spreadsheet opens."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_svpseg.core.escapes import escaped
from napari_svpseg.core.jobs.folder_job import FileOutcome
from napari_svpseg.io.folder_records import read_summary, write_summary
from napari_svpseg.io.tables import quoted, unquoted, write_table
from napari_svpseg.io.tag_files import Tags, read_tags, write_tags

EVIL = ("=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "＝1", "'=1", "''@")


def cells(path) -> list[list[str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("text", EVIL)
def test_a_formula_becomes_text(text) -> None:
    assert quoted(text) == f"'{text}"
    assert unquoted(quoted(text)) == text


@given(st.text("='+-@\t\r ab", max_size=6))
def test_quoting_is_taken_back(text) -> None:
    assert unquoted(quoted(text)) == text
    assert quoted(text)[:1] not in set("=+-@\t\r")


def test_numbers_stay_numbers(tmp_path) -> None:
    columns = {
        "name": np.array(["=1", "a"]),
        "x (=um)": np.array([-1.5, np.nan]),
        "=y": np.array([-3, 4]),
    }
    rows = cells(write_table(tmp_path / "a.csv", columns))
    assert rows == [["name", "x (=um)", "'=y"], ["'=1", "-1.5", "-3"], ["a", "", "4"]]


def test_numbers_keep_their_digits(tmp_path) -> None:
    values = [1_236_543.0, 1e12, 1 / 3, 123_456.789, 1e-9, 0.1 + 0.2]
    columns = {"ids": np.array([2**40 + 1] * 6), "area": np.array(values)}
    rows = cells(write_table(tmp_path / "a.csv", columns))[1:]
    assert {row[0] for row in rows} == {"1099511627777"}
    assert [row[1] for row in rows[:2]] == ["1236543", "1000000000000"]
    assert rows[5][1] == "0.3"
    read = [float(row[1]) for row in rows]
    np.testing.assert_allclose(read, values, rtol=1e-14)


def test_a_summary_is_read_back(tmp_path) -> None:
    names = [f"{text}.tif" for text in EVIL]
    outcomes = [FileOutcome(name, objects=3, notes=("-note", "b")) for name in names]
    path = write_summary(tmp_path / "summary.csv", outcomes)
    assert not [c for row in cells(path)[1:] for c in row if c[:1] in set("=+@\t\r")]
    read = read_summary(path)
    assert list(read) == [escaped(name) for name in names]
    assert {outcome.notes for outcome in read.values()} == {("-note", "b")}


def test_tags_are_read_back(tmp_path) -> None:
    names = [f"{text}.tif" for text in EVIL if not text[0].isspace()]
    tags = Tags({name: ["-b", "=a"] for name in names})
    path = write_tags(tmp_path / "tags.csv", tags)
    assert read_tags(path) == tags
    assert not [c for row in cells(path)[1:] for c in row if c[:1] in set("=+-@\t\r")]
