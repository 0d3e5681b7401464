"""Training curves: points, colours, beginning anew, and life without pyqtgraph."""

from __future__ import annotations

import subprocess
import sys

import pytest

from napari_svpseg.plugin.panels.training.curves import Curves


@pytest.fixture
def curves(qtbot):
    curves = Curves(scores=("validation score",))
    qtbot.addWidget(curves)
    return curves


def test_points_become_lines(curves, qtbot):
    for step in range(5):
        curves.add_point("loss", step, 1 / (step + 1))
        curves.add_point("validation score", step, step / 5)
    assert len(curves._lines["loss"].getData()[0]) == 1  # the rest is drawn at once
    qtbot.waitUntil(lambda: len(curves._lines["loss"].getData()[0]) == 5)
    xs, ys = curves._lines["loss"].getData()
    assert list(xs) == [0, 1, 2, 3, 4] and ys[-1] == pytest.approx(0.2)
    assert len(curves._plots[True].listDataItems()) == 1
    assert "loss 0.2" in curves._numbers.text() and "0.8" in curves._numbers.text()
    assert curves.color("loss") != curves.color("validation score")


@pytest.mark.parametrize("color", ["#102030", "#f0e0d0"])
def test_the_background_follows_the_theme(curves, qtbot, color):
    curves.resize(200, 200)
    curves.add_point("loss", 0, 1.0)
    curves.show()
    for now in ("#808080", color):
        curves.setStyleSheet(f"QWidget {{background-color: {now};}}")
        qtbot.waitUntil(
            lambda now=now: (
                curves._frame.grab().toImage().pixelColor(198, 2).name() == now
            )
        )


def test_all_points_are_seen(curves, qtbot):
    for step in range(50):
        curves.add_point("loss", step, 5 - step / 10)
    curves.add_point("validation score", 20, 0.5)
    curves.draw()
    curves.show()
    for plot in curves._plots.values():
        qtbot.waitUntil(
            lambda plot=plot: (
                plot.viewRange()[0][0] <= 0 and plot.viewRange()[0][1] >= 49
            )
        )


def test_begin_anew(curves):
    curves.add_point("loss", 0, 1)
    curves.clear()
    assert not curves.points and curves._numbers.text() == ""
    curves.add_point("loss", 7, 2)
    assert list(curves._lines["loss"].getData()[0]) == [7]
    assert len(curves._plots[False].listDataItems()) == 1


def test_numbers_without_pyqtgraph(curves, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyqtgraph", None)
    curves.add_point("loss", 0, 1.25)
    assert "loss 1.25" in curves._numbers.text()
    assert "train" in curves._numbers.toolTip()
    curves.clear()


def test_pyqtgraph_waits_for_the_first_point():
    code = (
        "import sys; import napari_svpseg.plugin.panels.training.curves;"
        "print([m for m in ('pyqtgraph', 'torch') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_axes_are_drawn_anew_only_when_points_reach_their_ends(curves):
    ends = []
    for step in range(1, 41):
        curves.add_point("loss", step, 2.0 / step)
        curves.draw()
        (x0, x1), (y0, y1) = curves._plots[False].viewRange()
        assert x0 == y0 == 0 and x1 >= step and y1 >= 2.0
        ends.append((x1, y1))
    assert len(set(ends)) < 15
    curves.clear()
    curves.add_point("loss", 1, 0.1)
    curves.draw()
    assert curves._plots[False].viewRange()[0][1] < 2
