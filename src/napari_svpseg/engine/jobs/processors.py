"""How many processor cores there are to work with. No torch here."""

from __future__ import annotations

import os

import psutil


def physical_cores() -> int:
    """Return how many processor cores this process may use, without hyper-threads."""
    try:
        usable = len(os.sched_getaffinity(0))  # a container may have fewer
    except AttributeError:  # not on Windows and macOS
        usable = os.cpu_count() or 1
    return max(1, min(usable, psutil.cpu_count(logical=False) or usable))
