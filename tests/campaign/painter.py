"""A napari that paints strokes until it is killed, a module to be run.

It restores the last session first, prints the strokes that came back, then a line for
each stroke that it paints.
"""

from __future__ import annotations

import itertools
import sys
import time

import napari
import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

from napari_svpseg.plugin.docks.segment_dock import SegmentWidget
from napari_svpseg.plugin.services.autosave import Autosave

SIDE, NAME = 600, "strokes"
EVERY_MS = 150


def place(launch: int, stroke: int) -> tuple[int, int]:
    """Return where a stroke of a launch lies; no two touch."""
    return 8 + 12 * launch, 8 + 12 * stroke


def strokes_in(labels: np.ndarray) -> list[str]:
    """Return the strokes in an array, as ``launch:stroke``."""
    n = SIDE // 12 - 1
    both = itertools.product(range(n), range(n))
    return [f"{a}:{b}" for a, b in both if labels[place(a, b)] == a + 1]


def main(image: str, launch: int) -> None:
    """Open a viewer with our dock, restore, and paint."""
    app = QApplication.instance() or QApplication([])
    viewer = napari.Viewer()
    viewer.open(image, plugin="napari")
    dock = SegmentWidget(viewer)
    viewer.window.add_dock_widget(dock)
    keeper = Autosave.of(viewer)

    def wait(ready) -> None:
        end = time.monotonic() + 60
        while not ready() and time.monotonic() < end:
            app.processEvents()
            time.sleep(0.01)

    wait(lambda: not keeper._files.is_busy)
    told: list[str] = []
    keeper.message.connect(lambda text, error: told.append(text))
    if keeper._saved is not None:
        dock.last_session.take.click()
        wait(lambda: bool(told))
    layers = [la for la in viewer.layers if la.name == NAME]
    back = sorted({s for layer in layers for s in strokes_in(layer.data)})
    print("restored", *back, flush=True)
    layer = layers[0] if layers else None
    if layer is None:
        layer = viewer.add_labels(np.zeros((SIDE, SIDE), np.uint16), name=NAME)
    layer.brush_size = 3
    layer.mode = "paint"
    numbers = itertools.count()

    def paint() -> None:
        stroke = next(numbers)
        if stroke < SIDE // 12 - 1:
            layer.paint(place(launch, stroke), launch + 1)
            print("stroke", f"{launch}:{stroke}", time.monotonic(), flush=True)

    timer = QTimer()
    timer.timeout.connect(paint)
    timer.start(EVERY_MS)
    napari.run()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
