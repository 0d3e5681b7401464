"""Runs cases in a process of their own, which is killed when one takes too long.

The process is forked from this one, which has imported everything: starting it anew
costs little. This process must therefore stay free of threads.
"""

from __future__ import annotations

import contextlib
import io
import logging
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from napari_svpseg.cli.main import main
from napari_svpseg.core.errors import one_line
from napari_svpseg.io.atomic import TEMPORARY

from .case import Action, Case, Place, Seen, content
from .verdict import HUNG, UNCLEAR, Verdict, judge

LIMIT_S = 40.0
"""After so long a case counts as hung; most take less than a second."""

MEMORY = 4_000_000_000
"""Bytes that a case may take beyond what its process has at the start."""

FORK = multiprocessing.get_context("fork")


def run_cases(
    cases: Sequence[Case], base: Path, limit_s: float = LIMIT_S
) -> Iterator[tuple[Case, Verdict, Seen | None]]:
    """Yield each case with its verdict, and what was seen of it."""
    worker = None
    for index, case in enumerate(cases):
        worker = worker or _Worker(cases, base)
        try:
            seen = worker.run(index, limit_s)
        except TimeoutError:
            verdict = Verdict(HUNG, f"killed after {limit_s:.0f} s")
        except (EOFError, ConnectionError):
            verdict = Verdict(UNCLEAR, f"its process died ({worker.epitaph()})")
        else:
            yield case, judge(case.expected, seen), seen
            continue
        worker.end()
        worker = None
        yield case, verdict, None
    if worker is not None:
        worker.end()


class _Worker:
    """A forked process that runs one case after the other."""

    def __init__(self, cases: Sequence[Case], base: Path) -> None:
        self._pipe, other = FORK.Pipe()
        self._process = FORK.Process(target=_serve, args=(other, cases, base))
        self._process.start()
        other.close()

    def run(self, index: int, limit_s: float) -> Seen:
        """Return what is seen of a case; TimeoutError where it does not end."""
        self._pipe.send(index)
        if not self._pipe.poll(limit_s):
            raise TimeoutError
        seen: Seen = self._pipe.recv()
        return seen

    def epitaph(self) -> str:
        """Return how the process ended."""
        self._process.join(5)
        return f"status {self._process.exitcode}"

    def end(self) -> None:
        """Kill the process and all that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid or 0, signal.SIGKILL)
        self._process.join()
        self._pipe.close()


def _serve(pipe: Connection, cases: Sequence[Case], base: Path) -> None:
    """Run the cases whose numbers come through a pipe."""
    os.setsid()
    most = psutil.Process().memory_info().vms + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    with contextlib.suppress(EOFError):
        while True:
            pipe.send(run_case(cases[pipe.recv()], base))


def run_case(case: Case, base: Path) -> Seen:
    """Return what is seen of a case that runs in a folder of its own."""
    here = Path(tempfile.mkdtemp(prefix="case-", dir=base.parent))
    os.chdir(here)
    try:
        action = case.make(Place(here, base))
        before = content(here)
        seen = act(action)
        after = content(here)
        # what was moved aside is not lost
        kept = set(after.values())
        seen.changed = [
            path
            for path, digest in before.items()
            if after.get(path) != digest and digest not in kept
        ]
        seen.left = [p for p in after if TEMPORARY.match(Path(p).name)]
        checks = [case.expected.always]
        if seen.status == 0:
            checks.append(case.expected.check)
        for check in filter(None, checks):
            try:
                check(here, seen)
            except Exception as error:  # noqa: BLE001, any fault is a wrong result
                seen.fault = f"{type(error).__name__}: {error}"[:300]
        seen.value = None if seen.value is None else str(seen.value)[:200]
        return seen
    finally:
        os.chdir(base)
        shutil.rmtree(here, ignore_errors=True)


def act(action: Action) -> Seen:
    """Do what a case does, as a user does it, and return what there is to see."""
    # the handler of the last case writes to the standard error of that case
    logging.getLogger("napari_svpseg").handlers.clear()
    out, err = io.StringIO(), io.StringIO()
    seen = Seen()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if callable(action):
                seen.value = action()
            else:
                seen.status = main([str(word) for word in action])
        except BaseException as error:  # noqa: BLE001
            seen.status = 1
            known = isinstance(error, ValueError | OSError | RuntimeError | TypeError)
            text = one_line(error) if known else f"Traceback: {type(error).__name__}"
            print(f"svpseg: {text}", file=sys.stderr)
    seen.out, seen.error = out.getvalue(), err.getvalue()
    return seen


def call_in_child(function: Any, *args: Any, limit_s: float = 600) -> Any:
    """Return what a function returns in a forked process; raises if it does not."""
    here, there = FORK.Pipe()

    def work() -> None:
        os.setsid()
        there.send(function(*args))

    process = FORK.Process(target=work)
    process.start()
    there.close()
    try:
        if not here.poll(limit_s):
            raise TimeoutError(f"no answer after {limit_s:.0f} s")
        return here.recv()
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()
