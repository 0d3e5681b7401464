"""Where jobs run: in a child process, or on the workers of a Dask scheduler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from .child_process import ChildProcess
from .dask_runner import DaskRunner
from .job import Job, OnEvent
from .workers import TlsAddress


class Runner(Protocol):
    """Where jobs run, one after the other."""

    def submit(
        self,
        function: Callable[..., Any],
        *args: Any,
        on_event: OnEvent | None = None,
        **kwargs: Any,
    ) -> Job:
        """Start a call of a module's function; the arguments must be picklable."""

    def close(self) -> None:
        """Stop what runs and give everything back."""


def connect(
    address: str | TlsAddress | None = None,
    python: str | None = None,
    threads: int = 0,
) -> Runner:
    """Return where jobs run.

    Parameters
    ----------
    address : str or TlsAddress, optional
        Of a Dask scheduler, such as ``tls://host:8786``; needs the ``cluster`` extra.
    python : str, optional
        Interpreter of the child process, by default this one.
    threads : int
        Threads of torch in the child process; 0 for one on each core.
    """
    if address:
        return DaskRunner(address)
    return ChildProcess(python, threads=threads)
