"""How long the window freezes while a model is fine-tuned.

Run with a display: ``python benchmarks/bench_fluid.py`` (or under ``xvfb-run``). Opens
napari with the Fine-tune dock, paints, trains for a while, and requests a tick of the
event loop every millisecond. Prints the longest gaps between ticks, as wall time and as
processor time of napari's own process (all its threads), which other programs on the
machine do not lengthen. For gaps over ``--threshold`` milliseconds it also prints which
code was running. The same is measured before the training, for comparison.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np


class Ticks:
    """Gaps between ticks of the event loop, and the code that ran in long gaps.

    Parameters
    ----------
    threshold_ms : float
        Length from which a gap is long.
    """

    def __init__(self, threshold_ms: float) -> None:
        from qtpy.QtCore import QTimer

        self.threshold_s = threshold_ms / 1000
        self.gaps: list[tuple[float, float]] = []
        self.places: collections.Counter[str] = collections.Counter()
        self._main = threading.get_ident()
        self._last = (time.perf_counter(), time.process_time())
        self._timer = QTimer()
        self._timer.setInterval(1)
        self._timer.timeout.connect(self._tick)
        self._on = True
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Start to measure."""
        self._last = (time.perf_counter(), time.process_time())
        self._timer.start()
        self._watcher.start()

    def stop(self) -> dict[str, Any]:
        """Stop, and return the longest gaps in milliseconds and the places."""
        self._timer.stop()
        self._on = False
        self._watcher.join()
        wall, own = (sorted((g[i] for g in self.gaps), reverse=True) for i in (0, 1))
        return {
            "ticks": len(self.gaps),
            "longest_ms": [round(1000 * g, 1) for g in wall[:5]],
            "longest_own_ms": [round(1000 * g, 1) for g in own[:5]],
            "over_50_ms": sum(g > 0.05 for g in wall),
            "own_over_50_ms": sum(g > 0.05 for g in own),
            "places": self.places.most_common(12),
        }

    def _tick(self) -> None:
        now = (time.perf_counter(), time.process_time())
        self.gaps.append((now[0] - self._last[0], now[1] - self._last[1]))
        self._last = now

    def _watch(self) -> None:
        """Record the stack of the GUI thread whenever a tick is overdue."""
        seen = 0.0
        while self._on:
            time.sleep(0.005)
            began = self._last[0]
            if time.perf_counter() - began > self.threshold_s and began != seen:
                seen = began
                frame = sys._current_frames()[self._main]
                self.places[_place(traceback.extract_stack(frame))] += 1


def _place(stack: traceback.StackSummary) -> str:
    """Return the three innermost frames, and the innermost one of the plugin."""
    shown = stack[-3:]
    shown += [f for f in stack[:-3] if "napari_svpseg" in f.filename][-1:]
    names = [f"{os.path.basename(f.filename)}:{f.lineno} {f.name}" for f in shown]
    return " > ".join([*names[3:], *names[:3]])


def run(seconds: float, until: Callable[[], bool] = lambda: False) -> None:
    """Run Qt's event loop for some seconds, or until something is true."""
    from qtpy.QtCore import QEventLoop, QTimer

    loop = QEventLoop()
    end = time.monotonic() + seconds

    def check() -> None:
        if until() or time.monotonic() > end:
            loop.quit()

    timer = QTimer()
    timer.timeout.connect(check)
    timer.start(50)
    loop.exec()
    timer.stop()


def measured(
    seconds: float, threshold_ms: float, until: Callable[[], bool]
) -> dict[str, Any]:
    """Return the gaps in some seconds of the event loop."""
    ticks = Ticks(threshold_ms)
    ticks.start()
    run(seconds, until)
    return ticks.stop()


def scene(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image of bright discs of two sizes, and their labels."""
    rng = np.random.default_rng(0)
    yy, xx = np.indices((side, side))
    labels = np.zeros((side, side), np.int32)
    for n in range(1, side * side // 2000):
        y, x, r = rng.integers(side), rng.integers(side), rng.integers(6, 13)
        labels[(yy - y) ** 2 + (xx - x) ** 2 <= r * r] = n
    return np.where(labels > 0, 160.0, 60.0) + rng.normal(0, 25, labels.shape), labels


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30, help="of training")
    parser.add_argument("--side", type=int, default=512, help="of the image")
    parser.add_argument(
        "--threshold", type=float, default=25, help="length of a long gap in ms"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["NAPARI_SVPSEG_HOME"] = home
        found = measure(options.seconds, options.side, options.threshold)
    if options.json:
        print(json.dumps(found))
        return
    for phase, gaps in found.items():
        print(f"{phase}: {gaps['ticks']} ticks")
        for name in ("longest", "longest_own"):
            title = "by the clock" if name == "longest" else "of napari's own time"
            values = ", ".join(f"{v:.0f}" for v in gaps[f"{name}_ms"])
            print(f"  longest gaps {title}: {values} ms")
        print(f"  over 50 ms: {gaps['over_50_ms']}, own time {gaps['own_over_50_ms']}")
        for place, n in gaps["places"]:
            print(f"    {n} x {place}")


def measure(seconds: float, side: int, threshold_ms: float) -> dict[str, Any]:
    """Return the gaps before, at the start of, during and at the end of a training."""
    import napari

    from napari_svpseg.plugin.layers.partial_label_layers import paint_layer

    viewer = napari.Viewer()
    _, dock = viewer.window.add_plugin_dock_widget("napari-svpseg", "Fine-tune")
    image, labels = scene(side)
    viewer.add_image(image.astype(np.float32), name="discs")
    dock.paint_cell.click()
    layer = paint_layer(viewer, dock.source())
    half = side // 2
    for n in np.unique(labels[:half, :half])[1:]:
        layer.data_setitem(np.nonzero(labels == n), int(n) + 1)
    inside = np.nonzero(labels[:half, :half] == 0)
    layer.data_setitem(inside, 1)
    dock.add.click()
    run(20, lambda: bool(dock.training_set.entries))
    run(3)
    found = {"before": measured(5, threshold_ms, lambda: False)}
    dock.start_button.click()
    found["the start, to the first point"] = measured(
        300, threshold_ms, lambda: bool(dock.curves.points)
    )
    run(1)
    found["training"] = measured(seconds, threshold_ms, lambda: dock._job is None)
    dock.stop.click()
    found["the end"] = measured(300, threshold_ms, lambda: dock._job is None)
    found["training"]["points"] = {k: len(v[0]) for k, v in dock.curves.points.items()}
    dock.engine.close()
    viewer.close()
    return found


if __name__ == "__main__":
    main()
