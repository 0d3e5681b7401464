"""How many processor cores there are to work with. No torch here."""

from __future__ import annotations

import os
from contextlib import suppress


def physical_cores() -> int:
    """Return how many processor cores this process may use, without hyper-threads."""
    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Windows and macOS
        usable = os.cpu_count() or 1
    return max(1, min(usable, _cores_of_machine() or usable))


def _cores_of_machine() -> int | None:
    with suppress(OSError):
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = [
                line.split(":")[-1].strip()
                for line in file
                if line.startswith(("physical id", "core id"))
            ]
        pairs = set(zip(lines[::2], lines[1::2], strict=False))
        return len(pairs) or None
    return None
