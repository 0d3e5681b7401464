"""Memory: its peak in a piece of work, and keeping what was freed."""

from __future__ import annotations

import ctypes
import re
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")

MALLOPT = {"M_MMAP_THRESHOLD": (-3, 32), "M_TRIM_THRESHOLD": (-1, 64)}
"""Numbers of glibc's parameters, and what they are set to, in MiB."""


@cache
def keep_freed_memory() -> bool:
    """Let this process reuse what it freed instead of asking the system for it again.

    A network's maps are of a few megabytes, made and freed for every tile. glibc gives
    such blocks back at once under the settings that Dask starts its workers with, and
    getting fresh pages then takes longer than the network. Up to 64 MiB of freed
    memory stay with the process.

    Returns
    -------
    bool
        Whether this system's library knows such settings (glibc).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # macOS, musl, Windows
        return False
    return all(mallopt(number, mib << 20) for number, mib in MALLOPT.values())


class PeakMemory:
    """Measures the peak of this process above where it stood, in MB.

    On Linux freed memory is given back and the kernel's high-water mark reset first, so
    that each piece of work gets its own peak. Elsewhere only growth beyond all earlier
    peaks is seen; where the system gives no number, the peak stays None. If a GPU was
    used, its peak is added.

    Examples
    --------
    >>> with PeakMemory() as memory:
    ...     block = bytearray(50_000_000)
    >>> memory.peak_mb is None or memory.peak_mb < 1000
    True
    """

    peak_mb: float | None = None

    def __enter__(self) -> PeakMemory:
        with suppress(OSError, AttributeError):  # only glibc has it
            ctypes.CDLL(None).malloc_trim(0)  # what was freed is no head start
        with suppress(OSError):
            _CLEAR.write_text("5")  # resets VmHWM
        self._before = _resident_mb("VmRSS")
        self._cuda = _cuda()
        if self._cuda is not None:
            self._cuda.reset_peak_memory_stats()
            self._held = self._cuda.memory_allocated()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        after = _resident_mb("VmHWM")
        if self._before is not None and after is not None:
            self.peak_mb = max(0.0, after - self._before)
        if self._cuda is not None:
            peak = (self._cuda.max_memory_allocated() - self._held) / 1e6
            self.peak_mb = (self.peak_mb or 0.0) + peak


def _resident_mb(name: str) -> float | None:
    try:
        found = re.search(rf"{name}:\s+(\d+) kB", _STATUS.read_text())
    except OSError:
        found = None
    if found:
        return int(found[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _cuda() -> Any:
    """Return `torch.cuda` where torch is loaded and has used a GPU."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None
