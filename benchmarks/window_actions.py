"""The longest block of the event loop in single actions, and whose code it is.

Run with a display: ``python benchmarks/window_actions.py`` (or under ``xvfb-run``).
Opens napari with the dock *Segment* and 30 images with results. Prints for each action
the processor time of the longest block (the call, or one turn of the event loop) and,
from a second run with a profiler, which makes all slower, how much of the whole action
is our code with what it calls in other libraries, and how much is napari, vispy and Qt.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

TURNS = 6
"""Turns of the event loop that belong to an action."""
THEIRS = ("/napari/", "/vispy/", "/qtpy/", "/superqt/", "/app_model/", "/psygnal/")


def events() -> None:
    """Run one turn of the event loop."""
    from qtpy.QtWidgets import QApplication

    QApplication.processEvents()


def longest_block(action: Callable[[], Any]) -> float:
    """Return the processor time of the longest block, in milliseconds."""
    spent = []
    for work in (action, *[events] * TURNS):
        start = time.thread_time()
        work()
        spent.append(time.thread_time() - start)
    return 1000 * max(spent)


def shares(action: Callable[[], Any]) -> tuple[float, float]:
    """Return the milliseconds of our code and of napari's, with a profiler."""
    profile = cProfile.Profile(time.thread_time)
    profile.enable()
    action()
    for _ in range(TURNS):
        events()
    profile.disable()
    ours = theirs = 0.0
    stats: Any = pstats.Stats(profile)
    for (file, _, _), (_, _, own, _, callers) in stats.stats.items():
        if "/napari_svpseg/" in file:
            ours += own
        elif any(name in file for name in THEIRS):
            theirs += own
        else:  # of a library or of Python: whoever called it
            for (caller, _, _), (_, _, part, _) in callers.items():
                if "/napari_svpseg/" in caller:
                    ours += part
                else:
                    theirs += part
    return 1000 * ours, 1000 * theirs


def actions(viewer: Any, dock: Any, n: int) -> dict[str, list[Callable[[], Any]]]:
    """Return what is done, twice each, by name; images and results are added."""
    from napari_svpseg.core.geometry import Box
    from napari_svpseg.plugin.layers.images.visibility import bring_into_sight
    from napari_svpseg.plugin.layers.metadata import METADATA_KEY, layer_id

    rng = np.random.default_rng(0)
    images = [
        viewer.add_image(rng.random((512, 512), np.float32), name=f"image {i}")
        for i in range(n)
    ]
    labels = np.zeros((512, 512), np.uint32)
    labels[10:50, 10:50] = 1

    def add(i: int, name: str) -> Any:
        known = {"kind": "labels", "source_id": layer_id(images[i])}
        return viewer.add_labels(labels, name=name, metadata={METADATA_KEY: known})

    for i in range(n):
        add(i, f"result {i}")
        events()
    bring_into_sight(viewer, images[0])
    source = dock.source_of(images[2])

    def select(i: int) -> None:
        viewer.layers.selection.active = images[i]

    return {
        "select an image": [lambda: select(3), lambda: select(5)],
        "show another image": [
            lambda: bring_into_sight(viewer, images[2]),
            lambda: bring_into_sight(viewer, images[4]),
        ],
        "add a result": [lambda: add(2, "one"), lambda: add(2, "two")],
        "remove a result": [
            lambda: viewer.layers.remove("one"),
            lambda: viewer.layers.remove("two"),
        ],
        "place a box": [
            lambda: dock.book.place(source, (), Box(14, 14, 64)),
            lambda: dock.book.place(source, (), Box(114, 14, 64)),
        ],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=30)
    options = parser.parse_args()
    import napari

    with tempfile.TemporaryDirectory() as home:
        os.environ["NAPARI_SVPSEG_HOME"] = home
        viewer = napari.Viewer()
        _, dock = viewer.window.add_plugin_dock_widget(
            "napari-svpseg", "Segment from prompts"
        )
        known = actions(viewer, dock, options.images)
        print("| action | longest block | our code | napari |\n|---|---|---|---|")
        for name, (first, second) in known.items():
            for _ in range(20):
                events()
            longest = longest_block(first)
            for _ in range(20):
                events()
            ours, theirs = shares(second)
            row = " | ".join(f"{ms:.0f} ms" for ms in (longest, ours, theirs))
            print(f"| {name} | {row} |", flush=True)
        dock.engine.close()
        viewer.close()


if __name__ == "__main__":
    main()
