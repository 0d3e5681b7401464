"""Faults at the n-th write of a program: it is killed there, or the disk is full."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.link")


class Writes:
    """Counts what a process writes below a folder, and does something at the n-th.

    Python tells of each file that is opened, renamed or deleted before it happens (its
    audit events), so that a fault hits the same place of a program on any machine.
    """

    def __init__(
        self,
        folder: Path,
        at: int,
        fault: Callable[[], None] | None,
        *,
        new_only: bool = False,
    ) -> None:
        self.count, self.stopped = 0, False
        self._folder, self._at, self._fault = str(folder.resolve()), at, fault
        self._changes = ("os.mkdir",) if new_only else CHANGES
        sys.addaudithook(self._look)

    def _look(self, event: str, args: tuple[object, ...]) -> None:
        if self.stopped or not (event == "open" or event in self._changes):
            return
        if event == "open":
            flags = args[2]
            if not (isinstance(flags, int) and flags & WRITING):
                return
        path = args[0]
        if isinstance(path, int) or path is None:
            return
        if not os.path.abspath(os.fsdecode(path)).startswith(self._folder):  # type: ignore[arg-type]
            return
        self.count += 1
        if self._fault is not None and self.count >= self._at:
            self._fault()


def kill() -> None:
    """End this process at once, as ``kill -9`` does."""
    os.kill(os.getpid(), signal.SIGKILL)


def disk_is_full() -> None:
    """Fail as a write to a full disk does."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
