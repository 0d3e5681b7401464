"""How long ``import napari_svpseg`` takes in a new Python, and what it loads.

Prints the median in milliseconds over several starts, beside a Python that imports
nothing: ``python benchmarks/bench_import.py``. The aim is under 100 ms.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

HEAVY = ("torch", "numpy", "qtpy", "napari")
LOOK = f"import napari_svpseg, sys; print([m for m in {HEAVY} if m in sys.modules])"


def milliseconds(code: str, repeats: int) -> float:
    """Return the median time of a Python that runs ``code``."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    bare = milliseconds("pass", repeats)
    ours = milliseconds("import napari_svpseg", repeats)
    loaded = subprocess.run(
        [sys.executable, "-c", LOOK], check=True, capture_output=True, text=True
    )
    print(
        f"import napari_svpseg: {ours - bare:.0f} ms beyond a bare Python "
        f"({bare:.0f} ms), median of {repeats}; heavy modules: {loaded.stdout.strip()}"
    )


if __name__ == "__main__":
    main()
