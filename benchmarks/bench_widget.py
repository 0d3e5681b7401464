"""Time to open the dock in a running napari.

Run with a display: ``python benchmarks/bench_widget.py`` (or under ``xvfb-run``).
Prints medians in milliseconds and whether torch was loaded.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time


def open_once(viewer: object) -> float:
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
    print(f"torch loaded in this process: {found['torch_loaded']}")


if __name__ == "__main__":
    main()
