"""How many processor cores there are to work with, and how torch uses them.

Torch reads the environment when it is first imported. Nothing here imports it on
loading.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

THREADS = "OMP_NUM_THREADS"
"""Environment variable of OpenMP, and so of torch; a user's own value is kept."""

WAITING = "OMP_WAIT_POLICY"

PASSIVE = "PASSIVE"
"""Threads that wait for others sleep. By default they spin, and where other programs
need the cores too, the thread they wait for is the one that gets no core."""

NOT_ASKED = "NAPARI_SVPSEG_THREADS"
"""Environment variable that holds the number of threads where no user chose it."""

GROUPS = Path("/proc/self/cgroup")
GROUP_FOLDERS = Path("/sys/fs/cgroup")


def physical_cores() -> int:
    """Return how many processor cores this process may use, without hyper-threads.

    Its affinity and the quota of its control groups (of a container or a batch system)
    may allow fewer than the machine has.
    """
    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Windows and macOS
        usable = os.cpu_count() or 1
    found = min(usable, psutil.cpu_count(logical=False) or usable)
    quota = min(_quotas(), default=math.inf)
    return max(1, found if quota >= found else math.ceil(quota))


def prepare_threads() -> None:
    """Let torch use the cores that this process has, and let waiting threads sleep.

    For processes of our own, before torch is imported. What the user has set is kept.
    """
    os.environ.setdefault(WAITING, PASSIVE)
    if THREADS not in os.environ:
        os.environ[THREADS] = os.environ[NOT_ASKED] = str(physical_cores())


def threads_asked_for() -> int | None:
    """Return the number of threads that the user has set, None where nobody has."""
    text = os.environ.get(THREADS, "")
    if text == os.environ.get(NOT_ASKED):
        return None
    first = text.partition(",")[0].strip()  # others are for nested threads
    return int(first) if first.isdecimal() and int(first) > 0 else None


def worker_environment(workers: int) -> dict[str, str]:
    """Return what each of the workers on this machine has in its environment.

    A worker has one thread, or as many as the user has set and there are cores for.
    """
    threads = min(threads_asked_for() or 1, max(1, physical_cores() // workers))
    waiting = os.environ.get(WAITING, PASSIVE)
    return {THREADS: str(threads), NOT_ASKED: "", WAITING: waiting}


def use_threads_asked_for() -> None:
    """Let torch, in a worker of Dask, use as many threads as the environment says.

    Dask sets ``MKL_NUM_THREADS`` to 1 in its workers, and torch follows that before
    ``OMP_NUM_THREADS``. To be called in the thread that works.
    """
    wanted = threads_asked_for()
    if wanted is None:
        return
    import torch

    if torch.get_num_threads() != wanted:
        torch.set_num_threads(wanted)


def _quotas() -> Iterator[float]:
    """Yield the cores that each control group above this process may use at once."""
    try:
        lines = GROUPS.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, names = GROUP_FOLDERS, ["cpu.max"]
        elif "cpu" in controllers.split(","):  # version 1
            top = GROUP_FOLDERS / controllers
            names = ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        own = Path(path.lstrip("/"))  # in a container only its top may be there
        for folder in (own, *own.parents):
            try:
                text = " ".join((top / folder / name).read_text() for name in names)
                quota, period = (float(word) for word in text.split())
            except (OSError, ValueError):  # "max" in place of a number: no limit
                continue
            if quota > 0 and period > 0:
                yield quota / period
