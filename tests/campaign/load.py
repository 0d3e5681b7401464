"""Long runs: 1,000 images in one run, 200 jobs in one engine; memory stays flat.

``python -m tests.campaign.load 1000 FOLDER`` is one of them in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import tifffile

from .scene import discs
from .verdict import HUNG, RIGHT, UNCLEAR, WRONG, Verdict

IMAGES, JOBS, START = 1000, 200, 0.1
"""Images, jobs, and the share of them after which memory may not grow."""

GROWTH = 0.03
LIMIT_S = 900.0


def runs() -> Iterator[tuple[str, Callable[[Path], Verdict]]]:
    """Yield the title of each case, and what does it and returns the verdict."""
    yield f"{IMAGES} images in one run", partial(_flat, "images")
    yield f"{JOBS} jobs in one engine", partial(_flat, "jobs")


def _flat(what: str, base: Path) -> Verdict:
    """Return whether the memory of a long run stays as it was after its start."""
    words = [sys.executable, "-m", "tests.campaign.load", what, str(base)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired as late:
        return Verdict(HUNG, str(late))
    if done.returncode:
        return Verdict(UNCLEAR, " ".join(done.stderr.split())[-250:])
    seen = json.loads(done.stdout.splitlines()[-1])
    if seen["wrong"]:
        return Verdict(WRONG, f"{seen['wrong']} results are not right")
    memory, files = seen["memory"], seen["files"]
    n = len(memory)
    around = max(3, n // 50)
    early = median(memory[int(n * START) - around : int(n * START)])
    growth = median(memory[-around:]) / early - 1
    print(f"{what}: {early / 1e6:.0f} MB, then {growth:+.1%}", file=sys.stderr)
    if growth > GROWTH:
        return Verdict(
            UNCLEAR, f"memory grows by {growth:.1%} from {early / 1e6:.0f} MB"
        )
    if files[-1] > files[n // 10] + 5:
        return Verdict(UNCLEAR, f"open files grow from {files[n // 10]} to {files[-1]}")
    return Verdict(RIGHT)


def images(base: Path) -> dict[str, object]:
    """Segment a folder of a thousand images; return the memory after each."""
    from napari_svpseg.core.jobs.folder_job import BatchJob
    from napari_svpseg.workflows.folder_run import run_batch

    folder = base.parent / "thousand"
    folder.mkdir()
    for i in range(IMAGES):
        tifffile.imwrite(folder / f"{i:04d}.tif", discs(i % 7)[0])
    me, memory, files = psutil.Process(), [], []

    def look(outcomes: list) -> None:
        for outcome in outcomes:
            if outcome.status != "running":
                memory.append(me.memory_info().rss)
                files.append(me.num_fds())

    job = BatchJob(
        inputs=(str(folder),),
        prompts=str(base / "discs.svprompt"),
        output=str(folder / "out"),
        model=str(base / "tiny"),
        settings={"device": "cpu"},
    )
    outcomes = run_batch(job, on_partial=look)
    wrong = sum(o.status != "done" or not Path(o.labels).exists() for o in outcomes)
    return {"memory": memory, "files": files, "wrong": wrong + IMAGES - len(outcomes)}


def jobs(base: Path) -> dict[str, object]:
    """Do many jobs in one engine; return its memory after each."""
    from napari_svpseg.engine.jobs.child_process import ChildProcess
    from napari_svpseg.io.prompt_files import load_prompts
    from napari_svpseg.workflows.segment_image import segment

    engine = ChildProcess(log=base.parent / "jobs.log")
    prompts = load_prompts(base / "discs.svprompt")
    image, memory, files, wrong, first = discs()[0], [], [], 0, None
    for _ in range(JOBS):
        job = engine.submit(segment, image, prompts, str(base / "tiny"), device="cpu")
        labels = job.result(120).labels
        first = labels if first is None else first
        wrong += not np.array_equal(labels, first)
        child = psutil.Process(engine.pid)
        memory.append(child.memory_info().rss)
        files.append(child.num_fds() + psutil.Process().num_fds())
    engine.close()
    return {"memory": memory, "files": files, "wrong": wrong}


if __name__ == "__main__":
    print(json.dumps({"images": images, "jobs": jobs}[sys.argv[1]](Path(sys.argv[2]))))
