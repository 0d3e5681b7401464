"""The first minutes: time to open the dock, until it is ready, and to a first mask.

Run with a display: ``python benchmarks/bench_widget.py`` (or under ``xvfb-run``).
Prints medians in milliseconds and whether torch was loaded. The first run is pressed
ten seconds after the dock was opened, on an image of 512 x 512 pixels; a run is timed
from the click to the painted mask.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

SIDE = 512
FIRST_RUN_AFTER = 10.0
"""Seconds from the opening of the dock to the first run."""
MOST_SECONDS = 120.0


def open_once(viewer: Any) -> float:
    """Open the dock through the manifest, close it, and return the seconds."""
    from qtpy.QtWidgets import QApplication

    start = time.perf_counter()
    dock, widget = viewer.window.add_plugin_dock_widget(
        "napari-svpseg", "Segment from prompts"
    )
    QApplication.processEvents()
    seconds = time.perf_counter() - start
    widget.engine.close()
    viewer.window.remove_dock_widget(dock)
    return seconds


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Return a noisy image of discs, 512 x 512, and their labels."""
    rng = np.random.default_rng(0)
    labels = np.zeros((SIDE, SIDE), np.int32)
    y, x = np.mgrid[:SIDE, :SIDE]
    for n, (cy, cx) in enumerate(np.argwhere(np.ones((12, 12))) * 42 + 24, start=1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 < rng.integers(60, 200)] = n
    image = 0.2 + 0.5 * (labels > 0) + rng.normal(0, 0.08, labels.shape)
    return image.astype(np.float32), labels


def until(condition: Callable[[], bool]) -> float:
    """Let Qt work until a condition holds; return the seconds."""
    from qtpy.QtWidgets import QApplication

    start = time.perf_counter()
    while not condition():
        QApplication.processEvents()
        time.sleep(0.001)
        if time.perf_counter() - start > MOST_SECONDS:
            raise TimeoutError
    return time.perf_counter() - start


def first_minutes(viewer: Any, repeats: int) -> dict[str, float]:
    """Open the dock on an image, and run ten seconds later; return milliseconds."""
    from napari_svpseg.core.geometry import Box
    from napari_svpseg.plugin.messages import READY

    image, labels = scene()
    layer = viewer.add_image(image, name="cells")
    viewer.add_labels(labels, name="truth")
    opened = time.perf_counter()
    _, dock = viewer.window.add_plugin_dock_widget(
        "napari-svpseg", "Segment from prompts"
    )
    ready = READY.format("")
    until(lambda: dock.device_line.text().endswith(ready))
    found = {"ready_ms": 1000 * (time.perf_counter() - opened)}
    dock.prompt_panel.tool.stop()
    dock.book.place(dock.source_of(layer), (), Box(200, 200))
    until(lambda: dock.book.is_ready and time.perf_counter() - opened > FIRST_RUN_AFTER)

    def run() -> float:
        dock.run.click()
        return 1000 * until(lambda: not dock.is_busy)

    found["first_run_ms"] = run()
    found["warm_run_ms"] = statistics.median(run() for _ in range(repeats))
    dock.engine.close()
    return {name: round(value) for name, value in found.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    import napari

    viewer = napari.Viewer()
    first = open_once(viewer)
    others = [open_once(viewer) for _ in range(options.repeats)]
    found = {
        "first_ms": round(1000 * first),
        "median_ms": round(1000 * statistics.median(others)),
        "repeats": options.repeats,
        **first_minutes(viewer, options.repeats),
        "torch_loaded": "torch" in sys.modules,
    }
    viewer.close()
    if options.json:
        print(json.dumps(found))
        return
    print(
        f"dock opens: first {found['first_ms']} ms (with imports), "
        f"then {found['median_ms']} ms (median of {options.repeats})"
    )
    print(
        f"ready {found['ready_ms']} ms after opening; a run on {SIDE} x {SIDE}: first "
        f"{found['first_run_ms']} ms, then {found['warm_run_ms']} ms"
    )
    print(f"torch loaded in this process: {found['torch_loaded']}")


if __name__ == "__main__":
    main()
