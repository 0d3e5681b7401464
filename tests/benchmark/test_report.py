from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_svpseg.benchmark import report


def record(
    model: str,
    task: str,
    dice: float,
    *,
    draw: int = 0,
    query: str = "a",
    f1: float | None = 0.5,
    seconds: float = 1.0,
) -> dict[str, Any]:
    return {
        "dataset": task,
        "class": "objects",
        "model": model,
        "draw": draw,
        "query": query,
        "dice": dice,
        "iou": dice,
        "f1": f1,
        "ap": f1,
        "seconds": seconds,
        "peak_mb": None,
    }


def test_mean_over_draws_of_the_mean_over_queries() -> None:
    records = [
        record("m", "t", 0.0, draw=0, query="a"),
        record("m", "t", 0.4, draw=0, query="b"),
        record("m", "t", 1.0, draw=1, query="a"),
    ]
    assert report.task_means(records, "dice") == {"m": {"t / objects": 0.6}}


def test_null_scores_leave_the_task_out() -> None:
    records = [record("m", "t", 0.5, f1=None), record("m", "u", 0.5, f1=0.2)]
    assert report.task_means(records, "f1") == {"m": {"u / objects": 0.2}}


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.5], 0.5), ([0.1, 0.2, 0.9, 0.8], 0.1), ([0.1, 0.2, 0.9, 0.8, 0.7], 0.15)],
)
def test_worst_quarter(values: list[float], expected: float) -> None:
    assert report.worst_quarter(values) == pytest.approx(expected)


def test_interval_is_paired() -> None:
    theirs = {str(i): i / 40 for i in range(20)}
    better = {task: score + 0.1 for task, score in theirs.items()}
    assert report.paired_interval(better, theirs) == pytest.approx((0.1, 0.1, 0.1))
    mixed = {t: s + (0.3 if i % 2 else -0.2) for i, (t, s) in enumerate(theirs.items())}
    mean, low, high = report.paired_interval(mixed, theirs)
    assert low < 0 < mean < high and mean == pytest.approx(0.05)
    assert report.paired_interval(mixed, theirs) == (mean, low, high)
    assert np.isnan(report.paired_interval(mixed, {})[0])


def test_summary_against_the_baseline() -> None:
    records = [
        *(record("forest", t, 0.5, seconds=2.0) for t in "abcd"),
        *(record("ours", t, 0.7, seconds=0.5) for t in "abc"),
        record("ours", "d", 0.4, seconds=0.5),
    ]
    summary = report.summarise(records)
    assert "dice_gain" not in summary["forest"]
    ours = summary["ours"]
    assert ours["tasks"] == 4 and ours["dice_worst_quarter"] == 0.4
    assert ours["dice_gain"][0] == pytest.approx(0.125)
    assert ours["times_faster"] == 4
    assert ours["tasks_below"] == ["d / objects"]
    assert ours["peak_mb"] is None


def test_markdown_names_everything() -> None:
    records = [record("forest", "a", 0.5), record("ours", "a", 0.75, f1=None)]
    text = report.to_markdown(
        {"records": records, "summary": report.summarise(records)}
    )
    assert "| a / objects | 0.500 | 0.750 |" in text
    assert "| a / objects | 0.500 | - |" in text
    assert "+0.250" in text
    tables = [part.strip().splitlines() for part in text.split("\n\n")]
    for lines in (t for t in tables if t[0].startswith("|")):
        widths = {line.count("|") for line in lines if line.startswith("|")}
        assert len(widths) == 1 and lines[1].startswith("|---")


def test_outlined_fits_the_square() -> None:
    labels = np.zeros((30, 60), int)
    labels[10:20, 10:30] = 3
    square = report.outlined(np.full((30, 60, 3), 0.5), labels, 120)
    assert square.shape == (120, 120, 3) and square.dtype == np.uint8
    assert (square[60:] == 0).all()
    assert (square == report.COLOURS[0]).all(-1).sum() > 50
    assert not (report.outlined(np.full((30, 60, 3), 0.5), None, 120) == 176).any()
    with pytest.raises(ValueError, match=report.NO_ROWS):
        report.sheet([], ["a"])
