"""Seconds to segment one image, by torch's threads and by how they wait.

    python benchmarks/bench_threads.py [--size 512] [--repeats 7] [--loops 2]

Each setting has a process of its own, which starts with it in its environment. They
segment the same generated image one after the other, first with nothing else and then
beside programs that never pause. Medians, in brackets the slowest, and the
core-seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from napari_svpseg.engine.jobs.processors import (
    NOT_ASKED,
    PASSIVE,
    THREADS,
    WAITING,
    physical_cores,
    prepare_threads,
)

LOOP = "while True: pass"

SPINS = "GOMP_SPINCOUNT"
"""Environment variable of GNU's OpenMP: rounds of waiting before a thread sleeps."""


def settings() -> dict[str, dict[str, str]]:
    """Return the environment of each setting; of the last one, what svpseg chooses."""
    cores = str(max(2, physical_cores()))
    return {
        "1 thread": {THREADS: "1"},
        f"{cores} threads that spin": {THREADS: cores, WAITING: "ACTIVE"},
        f"{cores} threads, default": {THREADS: cores},
        **{
            f"{cores} threads that spin {n:,} times": {THREADS: cores, SPINS: str(n)}
            for n in (1_000, 10_000, 100_000)
        },
        f"{cores} threads that sleep": {THREADS: cores, WAITING: PASSIVE},
        "as svpseg sets them": {},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="svp")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--loops", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.model, options.size)
        return
    words = ["--serve", "--model", options.model, "--size", str(options.size)]
    alone = measured(words, options.repeats)
    with ExitStack() as stack:
        for _ in range(options.loops):
            stack.enter_context(running([sys.executable, "-c", LOOP]))
        beside = measured(words, options.repeats)
    print(f"| | alone | beside {options.loops} busy loops |\n|---|---|---|")
    for name in alone:
        print(f"| {name} | {shown(alone[name])} | {shown(beside[name])} |")
    if options.json:
        options.json.write_text(json.dumps({"alone": alone, "beside": beside}))


def serve(model: str, size: int) -> None:
    """Segment the image for each line that is read; print seconds and core-seconds."""
    if THREADS not in os.environ:
        prepare_threads()
    import time

    import napari_svpseg as svpseg
    from bench_speed import cells
    from napari_svpseg.io.model_store import load_model

    prompt = svpseg.Prompt.from_image(*cells(256, seed=1), box=(64, 64))
    query, _ = cells(size, seed=2)
    loaded = load_model(model)

    settings = svpseg.SegmentSettings(trust=False, device="cpu")

    def once() -> tuple[float, float]:
        start, work = time.perf_counter(), time.process_time()
        svpseg.segment(query, [prompt], model=loaded, settings=settings)
        return time.perf_counter() - start, time.process_time() - work

    once()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(*once(), flush=True)


@contextmanager
def server(
    environment: dict[str, str], words: list[str]
) -> Iterator[subprocess.Popen[str]]:
    """Give a process that segments with an environment, when it is ready."""
    left = {THREADS, WAITING, SPINS, NOT_ASKED, "MKL_NUM_THREADS"}
    env = {k: v for k, v in os.environ.items() if k not in left} | environment
    with running([sys.executable, __file__, *words], env) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process


@contextmanager
def running(
    command: list[str], env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run a command until the end of the context."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def measured(words: list[str], repeats: int) -> dict[str, list[list[float]]]:
    """Return seconds and core-seconds of each setting, in a process of its own.

    One after the other: threads that spin do so while their process has nothing to do.
    """
    spent: dict[str, list[list[float]]] = {}
    for name, environment in settings().items():
        with server(environment, words) as process:
            assert process.stdin is not None and process.stdout is not None
            for _ in range(repeats):
                process.stdin.write("\n")
                process.stdin.flush()
                line = process.stdout.readline()
                spent.setdefault(name, []).append([float(w) for w in line.split()])
    return spent


def shown(spent: list[list[float]]) -> str:
    """Return the median and the slowest, and the median of the core-seconds."""
    seconds, work = zip(*spent, strict=True)
    middle = statistics.median
    return f"{middle(seconds):.2f} s ({max(seconds):.2f}), {middle(work):.2f}"


if __name__ == "__main__":
    main()
