"""Overhead of a job: our child process against a local Dask worker.

    python benchmarks/bench_jobs.py [--repeats 7] [--json out.json]

Import and start are measured in new processes; the rest in one process with both
engines warm, alternating. Prints medians in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

NAMES = ("child", "dask")

IMPORT = {
    "child": "import napari_svpseg.engine.jobs.child_process",
    "dask": "import distributed",
}

START = {
    "child": """
from napari_svpseg.engine.jobs.child_process import ChildProcess
runner = ChildProcess()
runner.submit(operator.add, 1, 2).result()
end = time.perf_counter()
runner.close()
""",
    "dask": """
if __name__ == "__main__":
    from contextlib import ExitStack
    from napari_svpseg.engine.jobs.workers import workers_of
    stack = ExitStack()
    client = stack.enter_context(workers_of(workers=1))
    client.submit(sum, [1, 2]).result()
    end = time.perf_counter()
    stack.close()
""",
}

STOP_SILENT = {
    "child": """
from napari_svpseg.engine.jobs.child_process import ChildProcess
runner = ChildProcess()
job = runner.submit(time.sleep, 30)
time.sleep(1)
start = time.perf_counter()
job.cancel()
job.wait()
end = time.perf_counter()
runner.close()
""",
    # nothing less than a restart of the worker stops a task that does not ask
    "dask": """
if __name__ == "__main__":
    from contextlib import ExitStack
    from napari_svpseg.engine.jobs.workers import workers_of
    stack = ExitStack()
    client = stack.enter_context(workers_of(workers=1))
    client.submit(time.sleep, 30)
    time.sleep(1)
    start = time.perf_counter()
    client.restart(timeout=20, wait_for_workers=False)
    end = time.perf_counter()
    stack.close()
""",
}

TIMER = """
import operator, time
start = time.perf_counter()
{code}
print((globals().get("end") or time.perf_counter()) - start)
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = (
        {
            "import": fresh(IMPORT, options.repeats),
            "start to first result": fresh(START, options.repeats),
        }
        | warm(options.repeats)
        | {
            "cancel a silent job": fresh(STOP_SILENT, min(3, options.repeats)),
        }
    )
    print(f"{'median, ms':28s}" + "".join(f"{name:>10s}" for name in NAMES))
    for what, values in rows.items():
        print(f"{what:28s}" + "".join(f"{values[name]:10.1f}" for name in NAMES))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


def fresh(codes: dict[str, str], repeats: int) -> dict[str, float]:
    """Return the medians of pieces of code, each in a process of its own."""
    times: dict[str, list[float]] = {name: [] for name in NAMES}
    for _ in range(repeats):
        for name in NAMES:
            out = subprocess.run(
                [sys.executable, "-c", TIMER.format(code=codes[name])],
                check=True,
                capture_output=True,
                text=True,
            )
            times[name].append(float(out.stdout.split()[-1]))
    return medians(times)


def warm(repeats: int) -> dict[str, dict[str, float]]:
    """Return the medians of round trips and cancels with both engines running."""
    from napari_svpseg.engine.jobs.child_process import ChildProcess
    from napari_svpseg.engine.jobs.dask_runner import DaskRunner
    from napari_svpseg.engine.jobs.workers import workers_of

    rows: dict[str, dict[str, float]] = {}
    with workers_of(workers=1) as client:
        runners = {"child": ChildProcess(), "dask": DaskRunner(client)}
        for text, n in (
            ("small", 1),
            ("1 MB", 125_000),
            ("16 MB", 2_000_000),
            ("100 MB", 12_500_000),
        ):
            rows[f"round trip, {text}"] = in_turns(
                {name: partial(echo, r, np.ones(n)) for name, r in runners.items()},
                repeats,
            )
        rows["cancel a reporting job"] = in_turns(
            {name: partial(cancel, r, report) for name, r in runners.items()},
            repeats,
        )
        for runner in runners.values():
            runner.close()
    return rows


def echo(runner: Any, array: np.ndarray) -> float:
    """Return how long an array takes there and back."""
    start = time.perf_counter()
    runner.submit(list, [array]).result()
    return time.perf_counter() - start


def cancel(runner: Any, function: Callable[..., Any]) -> float:
    """Return how long it takes from cancel to the job's end."""
    job = runner.submit(function)
    time.sleep(0.5)
    start = time.perf_counter()
    job.cancel()
    job.wait()
    return time.perf_counter() - start


def report(on_progress: Callable[..., None]) -> None:
    """Report progress until cancelled."""
    for i in range(10_000):
        on_progress(i, 10_000)
        time.sleep(0.01)


def in_turns(works: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Return the medians of measurements taken in turns, after one that is dropped."""
    times: dict[str, list[float]] = {name: [] for name in NAMES}
    for turn in range(repeats + 1):
        for name in NAMES:
            value = works[name]()
            if turn:
                times[name].append(value)
    return medians(times)


def medians(times: dict[str, list[float]]) -> dict[str, float]:
    """Return medians in milliseconds."""
    return {name: 1000 * statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    import os

    # the jobs' own functions are found by name, here and in the engines
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    )
    main()
