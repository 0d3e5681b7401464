"""An older version and this one in turns: processor time and clock of each task.

    python benchmarks/versions.py bench-output/old/site [--repeats 7] [--loops 2]

`make bench-speed` builds the older version first, `make bench-busy` measures beside two
programs that never pause. Each version has a process of its own, with the threads that
its engine sets. Each task gets another image every time. Medians of the seconds and, of
each turn, the older version's by this one's: the median, the least and the largest.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

PAUSE_S = 0.3
"""Time before each task: threads of the other version that still spin then sleep."""

LOOP = "while True: pass"
SPOTS = [(40 + 110 * (k % 4), 40 + 110 * (k // 4)) for k in range(8)]

Task = Callable[[int], Any]


def scene(side: int, seed: int, *, rgb: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return a synthetic image of bright cells (16 bit, or RGB), and its labels."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((side, side), np.int32)
    for i in range(1, side * side // 1600):
        height, width = rng.uniform(7, 13, 2)
        cy, cx = rng.integers(13, side - 13, 2)
        y, x = np.mgrid[-13:14, -13:14]
        inside = (y / height) ** 2 + (x / width) ** 2 <= 1
        part = labels[cy - 13 : cy + 14, cx - 13 : cx + 14]
        if not part[inside].any():
            part[inside] = i
    image = 900 * ndimage.gaussian_filter((labels > 0).astype(float), 1.5)
    image = rng.poisson(100 + image * rng.uniform(0.5, 1.5, labels.max() + 1)[labels])
    if not rgb:
        return image.astype(np.uint16), labels
    grey = np.clip(image // 8, 0, 255).astype(np.uint8)
    return np.stack([grey, grey // 2, 255 - grey], axis=2), labels


def tasks(folder: Path, n_files: int, n_steps: int) -> dict[str, Task]:
    """Return what is measured, by name; each is called with the number of the turn.

    Parameters
    ----------
    folder : Path
        For images and results.
    n_files, n_steps : int
        Images of the folder run, steps of fine-tuning.
    """
    import napari_svpseg as svpseg

    model = svpseg.load_model("svp")
    queries = {rgb: scene(512, 2, rgb=rgb)[0] for rgb in (False, True)}
    large = scene(2048, 3)[0]
    several = np.stack([scene(512, 40 + i)[0] for i in range(8)])

    def prompts(n: int, seed: int = 1, *, rgb: bool = False) -> Any:
        shown = scene(512, seed, rgb=rgb)
        return svpseg.PromptSet(
            [svpseg.Prompt.from_image(*shown, box=spot) for spot in SPOTS[:n]]
        )

    def run(query: np.ndarray, given: Any, turn: int) -> None:
        changed = np.roll(query, turn, axis=0)
        svpseg.segment(changed, given, model=model, device="cpu")

    one, eight, coloured = prompts(1), prompts(8), prompts(1, rgb=True)
    return {
        "512 x 512, grey, 1 box": lambda turn: run(queries[False], one, turn),
        "512 x 512, RGB, 1 box": lambda turn: run(queries[True], coloured, turn),
        "512 x 512, grey, 8 boxes": lambda turn: run(queries[False], eight, turn),
        "the same, with new boxes": lambda turn: run(
            queries[False], prompts(8, 10 + turn), turn
        ),
        "2,048 x 2,048, grey, 1 box": lambda turn: run(large, one, turn),
        "8 images in the window": lambda turn: window_run(several, one, turn),
        "a stack of 8 planes": lambda turn: svpseg.segment(
            np.roll(several, turn, axis=1), one, model, "cpu", axes="ZYX"
        ),
        "random forest, 512 x 512": lambda turn: forest(one[0], queries[False]),
        f"a folder of {n_files} images": lambda turn: folder_run(
            folder, one, turn, n_files
        ),
        f"fine-tuning: {n_steps} steps, 8 looks": lambda turn: finetuning(
            turn, n_steps
        ),
    }


def forest(prompt: Any, query: np.ndarray) -> None:
    """Fit the random forest that the docs compare with, and predict."""
    try:
        from napari_svpseg.benchmark.baselines import ForestBaseline, Query

        ForestBaseline(n_threads=2).fit(prompt)(Query(query[..., None]))
    except ImportError:  # the older version's own
        from napari_svpseg.engine.rivals import ForestRival, Query

        ForestRival(n_threads=2).fit(prompt)(Query(query[..., None]))


def window_run(images: np.ndarray, given: Any, turn: int) -> None:
    """Segment images as the window does: the older version has one job for each."""
    import napari_svpseg as svpseg

    options = {"model": "svp", "device": "cpu"}
    calls = [((np.roll(image, turn, axis=0), given), options) for image in images]
    try:
        from napari_svpseg.workflows.segment_several import segment_several
    except ImportError:
        for args, kwargs in calls:
            svpseg.segment(*args, **kwargs)
        return
    segment_several(calls, on_partial=lambda _: None)


def finetuning(turn: int, n_steps: int = 16) -> None:
    """Fine-tune on five labelled boxes; the model is scored eight times on the way."""
    import napari_svpseg as svpseg

    image, labels = scene(512, 30)
    partial = np.zeros(labels.shape, np.int32)  # 0 is unknown, 1 is background
    for y, x in SPOTS[:5]:
        box = slice(y, y + 64), slice(x, x + 64)
        partial[box] = labels[box] + 1
    settings = svpseg.FineTuneSettings(steps=n_steps, seconds=10_000, seed=turn)
    svpseg.finetune([image], [partial], device="cpu", settings=settings)


def folder_run(folder: Path, given: Any, turn: int, n_files: int) -> None:
    """Segment a folder of images with the command line, in a new process."""
    import napari_svpseg as svpseg

    images = folder / "images"
    if not images.exists():
        import tifffile

        images.mkdir()
        for i in range(n_files):
            tifffile.imwrite(images / f"{i}.tif", scene(512, 20 + i)[0])
        svpseg.save_prompts(given, folder / "cells.svprompt")
    code = "import sys, napari_svpseg.cli as c; m = getattr(c, 'main', None)\n"
    code += "from importlib import import_module as load\n"
    code += "m if callable(m) else (m := load('napari_svpseg.cli.main').main)\nm()"
    words = ["segment", str(images), "--prompts", str(folder / "cells.svprompt")]
    words += ["-o", str(folder / f"results{turn}")]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr or done.stdout)


def serve(n_files: int, n_steps: int) -> None:
    """Do the task of each line that is read; print seconds and core-seconds."""
    with suppress(ImportError):
        from napari_svpseg.engine.jobs.processors import prepare_threads

        prepare_threads()
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))  # the older version
    with suppress(ImportError):
        from napari_svpseg.engine.jobs.allocator import keep_freed_memory

        keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        known = tasks(Path(folder), n_files, n_steps)
        print(json.dumps(list(known)), flush=True)
        for line in sys.stdin:
            name, turn = json.loads(line)
            try:
                work, start = spent(), time.perf_counter()
                known[name](turn)
                found = [time.perf_counter() - start, spent() - work]
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a row says so
                found = [str(error)[-300:]]
            print(json.dumps(found), flush=True)


def spent() -> float:
    """Return the processor time of this process and its children so far."""
    kinds = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    used = [resource.getrusage(kind) for kind in kinds]
    return sum(u.ru_utime + u.ru_stime for u in used)


def start(
    stack: ExitStack, path: str | None, sizes: list[str]
) -> subprocess.Popen[str]:
    """Start the process of a version; its folder of packages comes first."""
    left = {"OMP_NUM_THREADS", "OMP_WAIT_POLICY", "PYTHONPATH"}
    env = {k: v for k, v in os.environ.items() if k not in left}
    path = path or os.environ.get("PYTHONPATH")
    if path:
        env["PYTHONPATH"] = path
    pipe = subprocess.PIPE
    words = [sys.executable, __file__, "--serve", *sizes]
    process = subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, env=env)
    stack.callback(process.communicate)
    stack.callback(process.kill)
    return process


def ask(process: subprocess.Popen[str], name: str, turn: int) -> list[Any]:
    """Return seconds and core-seconds of a task, or what failed."""
    assert process.stdin is not None and process.stdout is not None
    time.sleep(PAUSE_S)
    process.stdin.write(json.dumps([name, turn]) + "\n")
    process.stdin.flush()
    return list(json.loads(process.stdout.readline()))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", nargs="?", help="folder of the older version's package")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--loops", type=int, default=0, help="programs beside it")
    parser.add_argument("--only", default="", help="tasks with this in their name")
    parser.add_argument("--files", type=int, default=8, help="images of the folder")
    parser.add_argument("--steps", type=int, default=16, help="of fine-tuning")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.files, options.steps)
        return
    if not options.old or not Path(options.old, "napari_svpseg").is_dir():
        parser.error("name the folder that holds the older napari_svpseg")
    found: dict[str, list[list[float]]] = {}
    with ExitStack() as stack:
        paths = os.path.abspath(options.old), None
        sizes = ["--files", str(options.files), "--steps", str(options.steps)]
        both = [start(stack, path, sizes) for path in paths]
        ready = [json.loads(p.stdout.readline()) for p in both if p.stdout]
        for _ in range(options.loops):
            loop = subprocess.Popen([sys.executable, "-c", LOOP])
            stack.callback(loop.wait)
            stack.callback(loop.kill)
        print(HEAD, flush=True)
        for name in (n for n in ready[0] if options.only in n):
            turns = [
                [*ask(both[0], name, turn), *ask(both[1], name, turn)]
                for turn in range(options.repeats + 1)
            ][1:]  # the first one warms up
            failed = [str(v) for row in turns for v in row if isinstance(v, str)]
            row = f"| {name} | {failed[0]} |" if failed else shown(name, turns)
            print(row, flush=True)
            found[name] = turns
    if options.json:
        options.json.write_text(json.dumps(found))


HEAD = (
    "| | core-seconds old | new | ratio | seconds old | new | ratio |\n"
    "|---|---|---|---|---|---|---|"
)


def shown(name: str, turns: list[list[float]]) -> str:
    """Return a row: core-seconds, then seconds, with their ratios."""
    cells = [name]
    for i in (1, 0):
        old, new = ([row[k] for row in turns] for k in (i, i + 2))
        ratios = [a / b for a, b in zip(old, new, strict=True)]
        middle = statistics.median
        cells += [f"{middle(old):.2f}", f"{middle(new):.2f}"]
        cells.append(f"{middle(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
