"""The device on which torch runs: its choice, the reason, and its memory."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from ...core.settings import NO_GPU, check_device
from ..jobs.processors import physical_cores

ASKED_FOR = "asked for"
NOT_THERE = "{asked} was asked for, but {why}"
N_FOUND = "{n} found"


@dataclass(frozen=True)
class Device:
    """A device that was chosen.

    Parameters
    ----------
    torch_device : torch.device
    name : str
        Such as ``NVIDIA A100``.
    reason : str
        Why it was chosen.
    is_fallback : bool
        True if another device was asked for.
    """

    torch_device: torch.device
    name: str
    reason: str
    is_fallback: bool = False

    @property
    def type(self) -> str:
        """``cpu``, ``cuda`` or ``mps``."""
        return str(self.torch_device.type)

    def __str__(self) -> str:
        """Return one line, as recipes and the dock show it."""
        return f"{self.torch_device} ({self.name}; {self.reason})"


@contextmanager
def working_threads(wanted: int, asked: str | Device = "auto") -> Iterator[int]:
    """Share the processor cores among images, or tiles, that are in work together.

    On a CPU each gets one core, if there are enough of them: several images at once
    are faster than several cores on one image. On a GPU two images are in work, so that
    it computes one while the other is read or written.

    Parameters
    ----------
    wanted : int
        Number of images, or of tiles of one image.
    asked : str or Device
        The device, as for `choose`.

    Yields
    ------
    int
        Number to work on at once.
    """
    if choose(asked).type != "cpu":
        yield max(1, min(wanted, 2))
        return
    before = torch.get_num_threads()
    n = max(1, min(wanted, before))
    torch.set_num_threads(before // n)
    try:
        yield n
    finally:
        torch.set_num_threads(before)


def choose(asked: str | torch.device | Device = "auto") -> Device:
    """Return the device that is asked for, or the CPU if there is no such device.

    Parameters
    ----------
    asked : str
        ``auto`` (first GPU, else CPU), ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    Raises
    ------
    ValueError
        For any other text.
    """
    if isinstance(asked, Device):
        return asked
    asked = check_device(str(asked))
    if asked == "auto":
        if torch.cuda.is_available():
            return _cuda(0, "first GPU found")
        if _has_mps():
            return Device(torch.device("mps"), _processor(), "Apple GPU found")
        return _cpu(f"{NO_GPU}: {_why_no_gpu()}")
    if asked == "cpu":
        return _cpu(ASKED_FOR)
    if asked == "mps":
        if _has_mps():
            return Device(torch.device("mps"), _processor(), ASKED_FOR)
        why = "there is no Apple GPU"
        return _cpu(NOT_THERE.format(asked=asked, why=why), fallback=True)
    number, found = int(asked.partition(":")[2] or 0), _n_cuda()
    if number < found:
        return _cuda(number, ASKED_FOR)
    why = N_FOUND.format(n=found) if found else _why_no_gpu()
    return _cpu(NOT_THERE.format(asked=asked, why=why), fallback=True)


def describe(device: str = "auto") -> dict[str, Any]:
    """Return a description of the device as plain values, for the device line.

    Returns
    -------
    dict
        ``device``, ``name``, ``reason``, ``line`` (text), ``torch``, ``python``,
        ``threads``, and for CUDA ``memory_mb`` and ``free_mb``.
    """
    chosen = choose(device)
    about: dict[str, Any] = {
        "device": str(chosen.torch_device),
        "name": chosen.name,
        "reason": chosen.reason,
        "line": str(chosen),
        "torch": str(torch.__version__),  # a plain text: its own type needs torch
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }
    if chosen.type == "cuda":
        free, total = torch.cuda.mem_get_info(chosen.torch_device)
        about |= {"memory_mb": total // 2**20, "free_mb": free // 2**20}
    return about


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether torch raised ``error`` because a device's memory is full."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text
    )


def free_memory(device: torch.device) -> None:
    """Free the memory that torch caches on ``device``."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def _cpu(reason: str, *, fallback: bool = False) -> Device:
    return Device(torch.device("cpu"), _processor(), reason, fallback)


def _cuda(index: int, reason: str) -> Device:
    name = torch.cuda.get_device_name(index)
    return Device(torch.device("cuda", index), name, reason)


def _n_cuda() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _has_mps() -> bool:
    return bool(torch.backends.mps.is_available())


def _why_no_gpu() -> str:
    if torch.version.cuda is None and torch.version.hip is None:
        return "this torch is built for the CPU only"
    return "torch sees no GPU (driver missing, or too old?)"


def _processor() -> str:
    name = platform.processor() or platform.machine() or "CPU"
    return f"{name}, {physical_cores()} cores"
