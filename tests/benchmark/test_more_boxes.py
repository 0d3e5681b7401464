"""Rows of own and other boxes: what they show, and where they are scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_svpseg.benchmark.more_boxes import ROWS, rows_of, scored, to_markdown
from napari_svpseg.benchmark.one_shot_tasks import BenchmarkSettings, Task, plan
from napari_svpseg.benchmark.protocol import BoxRule, find_good_box

pytest.importorskip("sklearn")


def squares(shift: int, side: int = 240) -> np.ndarray:
    labels = np.zeros((side, side), np.uint16)
    for number, (y, x) in enumerate(
        (y, x) for y in range(4 + shift, side - 14, 24) for x in range(4, side - 14, 24)
    ):
        labels[y : y + 12, x : x + 12] = number + 1
    return labels


@pytest.fixture
def task(tmp_path: Path) -> Task:
    folder = tmp_path / "squares"
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for i in range(3):
        labels = squares(3 * i)
        image = np.where(labels > 0, 200, 30).astype(np.uint8)
        tifffile.imwrite(folder / "images" / f"{i}.tif", image)
        tifffile.imwrite(folder / "labels" / f"{i}.tif", labels)
    (folder / "dataset.toml").write_text('name = "squares"\nkind = "instance"\n')
    return plan([folder], BenchmarkSettings(prompts=1, max_queries=100))[0]


def test_rows_of_an_image_are_scored_on_the_same_pixels(task: Task) -> None:
    rows = {row.name: row for row in rows_of(task, "0")}
    assert set(rows) == set(ROWS)
    for name, row in rows.items():
        kind, n = name.split()
        assert len(row.prompts) == int(n)
        assert all((p.source == "0") == (kind == "own") for p in row.prompts)
        assert np.array_equal(row.ignore, rows["own 8"].ignore)
    for prompt in rows["own 8"].prompts:
        assert rows["own 8"].ignore[prompt.box.slices].all()
    again = {row.name: row for row in rows_of(task, "0")}
    assert [p.box for p in again["own 8"].prompts] == [
        p.box for p in rows["own 8"].prompts
    ]


def test_the_tables_name_every_row(task: Task) -> None:
    rows = [row for row in rows_of(task, "0") if row.name in ("own 1", "other 1")]
    records = [r for row in rows for r in scored(task, "0", row, {"forest": None})]
    assert all(r["dice"] > 0.7 for r in records)
    text = to_markdown(records)
    assert "| own 1 |" in text and "forest own 1 - forest other 1" in text


def test_a_person_takes_whole_objects_and_a_third_of_foreground() -> None:
    labels = squares(0).astype(np.int32)
    labels[100:, 100:] = 0
    labels[100:, 120:] = 999  # a large region: legal, but a person takes the squares
    boxes = [
        find_good_box(labels, BoxRule(64), np.random.default_rng(seed))
        for seed in range(10)
    ]
    for box in boxes:
        assert box is not None
        assert len(np.unique(labels[box.slices])) > 3
    assert find_good_box(0 * labels, BoxRule(64), np.random.default_rng(0)) is None
