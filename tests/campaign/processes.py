"""Real processes killed from outside: a run with Dask workers, a worker, the engine.

Moments are drawn by the title of the case: after so many files of the run, or so long
after the job began.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np
import psutil

from .case import content
from .programs import compared, large_field
from .verdict import HUNG, LOST, RIGHT, UNCLEAR, WRONG, Verdict, unclear_in
from .watchdog import call_in_child

KILLS = 15
LIMIT_S = 180.0
"""A run of a few seconds that does nothing for so long hangs."""

ENDS_S = 15.0
"""How long workers may live after the program that started them."""


def runs() -> Iterator[tuple[str, Callable[[Path], Verdict]]]:
    """Yield the title of each case, and what does it and returns the verdict."""
    for i in range(KILLS):
        yield f"zarr run with workers {i}", partial(_parent_killed, i)
    for i in range(KILLS // 3):
        yield f"three workers killed {i}", partial(_workers_killed, i)
    yield f"engine killed {KILLS} times", _engine_killed


def _start(base: Path, workers: int) -> tuple[Path, subprocess.Popen[str]]:
    """Start a run over a store in a fresh folder, always at the same path."""
    here = base.parent / "processes"
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir()
    call_in_child(_write_store, here)
    return here, _go_on(base, here, workers)


def _go_on(base: Path, here: Path, workers: int) -> subprocess.Popen[str]:
    words = [
        "segment",
        "a.zarr",
        "--prompts",
        base / "discs.svprompt",
        "-o",
        "out.zarr",
        "--model",
        base / "tiny",
        "--device",
        "cpu",
        "--tile",
        128,
        "--overlap",
        32,
        "--no-scale-objects",
        "--min-area",
        20,
        "--workers",
        workers,
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "napari_svpseg.cli", *map(str, words)],
        cwd=here,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _write_store(here: Path) -> None:
    import zarr

    zarr.create_array(here / "a.zarr", data=large_field(1200), chunks=(128, 128))


@cache
def _undisturbed(base: Path) -> tuple[int, dict[str, str]]:
    """Return the number of files of a run at its end, and its labels."""
    here, process = _start(base, 0)
    most = 0
    while process.poll() is None:
        most = max(most, _files(here))
        time.sleep(0.02)
    assert process.returncode == 0, process.communicate()[1]
    return most, content(here / "out.zarr")


def _files(here: Path) -> int:
    """Return how many files a run keeps while it works."""
    return sum(len(names) for _, _, names in os.walk(here / "out.zarr.cells.work"))


def _wait_for(here: Path, process: subprocess.Popen[str], files: int) -> bool:
    """Wait until a run has written so many files; False if it ended before."""
    seen, end = 0, time.monotonic() + LIMIT_S
    while process.poll() is None and (now := _files(here)) < files:
        if now > seen:  # slow, as on a busy machine, is not hung
            seen, end = now, time.monotonic() + LIMIT_S
        if time.monotonic() > end:
            raise TimeoutError(
                f"{seen} of {files} files were written, and no more in {LIMIT_S:.0f} s"
            )
        time.sleep(0.01)
    return process.poll() is None


def _parent_killed(number: int, base: Path) -> Verdict:
    """Kill a run; its workers end by themselves, and the next run goes on."""
    most, undisturbed = _undisturbed(base)
    draw = random.Random(f"parent {number}")
    here, process = _start(base, 2)
    before = content(here / "a.zarr")
    try:
        _wait_for(here, process, draw.randint(1, most - 1))
        family = _children(process)
        process.kill()
        process.wait()
        alive = psutil.wait_procs(family, timeout=ENDS_S)[1]
        if alive:
            return Verdict(UNCLEAR, f"{len(alive)} workers live on")
        again = _go_on(base, here, 0)
        error = again.communicate(timeout=LIMIT_S)[1]
    except (TimeoutError, subprocess.TimeoutExpired) as late:
        return Verdict(HUNG, str(late))
    finally:
        _end(process)
    if content(here / "a.zarr") != before:
        return Verdict(LOST, "the image is changed")
    outcome = content(here / "out.zarr")
    return compared(outcome, undisturbed, again.returncode, error)


def _workers_killed(number: int, base: Path) -> Verdict:
    """Kill a worker at three moments of a run, which goes on without it."""
    most, undisturbed = _undisturbed(base)
    draw = random.Random(f"workers {number}")
    here, process = _start(base, 2)
    try:
        for files in sorted(draw.randint(1, most - 1) for _ in range(3)):
            if not _wait_for(here, process, files):
                break
            workers = [p for p in _children(process) if _is_worker(p)]
            if workers:
                draw.choice(workers).kill()
        error = process.communicate(timeout=LIMIT_S)[1]
    except (TimeoutError, subprocess.TimeoutExpired) as late:
        return Verdict(HUNG, str(late))
    finally:
        _end(process)
    return compared(content(here / "out.zarr"), undisturbed, process.returncode, error)


def _children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _is_worker(process: psutil.Process) -> bool:
    """Return whether a process is a Dask worker, not a helper of multiprocessing."""
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _end(process: subprocess.Popen[str]) -> None:
    for child in [*_children(process), process]:
        try:
            child.kill()
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
    process.wait()


def _engine_killed(base: Path) -> Verdict:
    """Kill the engine while it works; the job fails with a word, the next one works."""
    try:
        return call_in_child(_kill_engines, base, limit_s=600)
    except (TimeoutError, EOFError) as late:
        return Verdict(HUNG, str(late) or "died")


def _kill_engines(base: Path) -> Verdict:
    from napari_svpseg.engine.jobs.child_process import ChildProcess
    from napari_svpseg.engine.jobs.job import JobError
    from napari_svpseg.io.prompt_files import load_prompts
    from napari_svpseg.workflows.segment_image import segment

    draw = random.Random("engine")
    image, prompts = large_field(300), load_prompts(base / "discs.svprompt")
    engine = ChildProcess(log=base.parent / "engine.log")

    def submit():
        return engine.submit(segment, image, prompts, str(base / "tiny"), device="cpu")

    try:
        whole = submit().result(120).labels
        start = time.monotonic()
        submit().result(120)
        length = time.monotonic() - start
        for _ in range(KILLS):
            job = submit()
            time.sleep(draw.uniform(0, length))
            psutil.Process(engine.pid).kill()
            try:
                labels = job.result(120).labels
                if not np.array_equal(labels, whole):
                    return Verdict(WRONG, "a job that ended has other labels")
            except JobError as error:
                problem = unclear_in(f"svpseg: {error}", ())
                if problem:
                    return Verdict(UNCLEAR, f"{problem}: {error}")
            if not np.array_equal(submit().result(120).labels, whole):
                return Verdict(WRONG, "the job after a kill has other labels")
    finally:
        engine.close()
    return Verdict(RIGHT)
