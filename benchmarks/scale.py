"""Segmentation of a large OME-Zarr with 1 worker, with 2, and with one of them killed.

Makes a synthetic image of discs, or tiles a real image, segments it three times, and
prints seconds (also until the first task), megapixels per second, core-seconds, peak
memory of all processes together, and whether all labels are the same. In the third run
a worker is killed, the tasks that started twice are counted, and the run is interrupted
and resumed.

    python benchmarks/scale.py --size 16384 --json bench-output/scale.json
    python benchmarks/scale.py --size 4096 --real image.tif --labels labels.tif
    python benchmarks/scale.py --size 40000 --filled 4096 --runs two
    python benchmarks/scale.py --size 2048 --runs here      time of each stage

With ``--folder`` everything is kept, and an interrupted call is continued.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import product
from pathlib import Path

import numpy as np
import psutil
import zarr
from distributed import WorkerPlugin
from skimage.measure import label

from napari_svpseg.core.progress import Cancelled
from napari_svpseg.core.prompt import Prompt
from napari_svpseg.engine.jobs.allocator import keep_freed_memory
from napari_svpseg.engine.jobs.workers import workers_of
from napari_svpseg.io.images import read_image
from napari_svpseg.io.ome_zarr import open_image
from napari_svpseg.workflows.segment_large import segment_zarr

PART = 2048
"""Side of the parts in which images are made and compared."""

BOX = 64
"""Side of the prompt's box."""

WORKERS = {"here": 0, "one": 1, "two": 2, "killed": 2}
"""Number of workers of each run."""

Part = Callable[[int, int], np.ndarray]
"""Returns the pixels of a part, given its first row and column."""


def field(y: int, x: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a part of an endless image of discs, and the mask of the discs."""
    rows, columns = np.mgrid[y : y + side, x : x + side]
    pitch = 28
    cell_y, cell_x = rows // pitch, columns // pitch
    chance = (cell_y * 7919 + cell_x * 104729) % 997  # the same wherever it is cut
    radius = 7 + chance % 7
    radius = np.where(chance % 5 == 0, 0, radius)
    off = (rows % pitch - pitch // 2) ** 2 + (columns % pitch - pitch // 2) ** 2
    inside = off < radius**2
    ground = 40 + 20 * np.sin(rows / 900) + 20 * np.cos(columns / 700)
    noise = np.random.default_rng([y, x]).normal(0, 6, inside.shape)
    image = (ground + 90 * inside + noise).clip(0, 255).astype(np.uint8)
    return image, inside


def drawn() -> tuple[Part, Prompt, str]:
    """Return the function that draws parts, a prompt, and the image's name."""
    image, inside = field(0, 0, 512)
    prompt = Prompt.from_image(image, label(inside), (112, 112), name="discs")
    return lambda y, x: field(y, x, PART)[0], prompt, "discs"


def tiled_up(image_file: Path, labels_file: Path) -> tuple[Part, Prompt, str]:
    """Return the same for a real image, which is mirrored at its borders endlessly.

    The prompt is the box that shows the most whole objects.
    """
    image, labels = (np.asarray(read_image(p).array) for p in (image_file, labels_file))
    twice = np.concatenate([image, image[::-1]], axis=0)
    twice = np.concatenate([twice, twice[:, ::-1]], axis=1)

    def part(y: int, x: int) -> np.ndarray:
        rows, columns = (
            np.arange(first, first + PART) % n
            for first, n in zip((y, x), twice.shape[:2], strict=True)
        )
        return twice[np.ix_(rows, columns)]

    def whole(at: tuple[int, int]) -> int:
        box = labels[at[0] : at[0] + BOX, at[1] : at[1] + BOX]
        border = np.concatenate([box[0], box[-1], box[:, 0], box[:, -1]])
        return len(np.setdiff1d(box, np.append(border, 0)))

    corners = product(*(range(0, n - BOX + 1, BOX // 4) for n in labels.shape))
    prompt = Prompt.from_image(image, labels, max(corners, key=whole), name="real")
    return part, prompt, image_file.name


def make_image(path: Path, size: int, part: Part, filled: int) -> None:
    """Write the image part by part; beyond ``filled`` pixels it stays empty."""
    sample = part(0, 0)
    colours = sample.shape[2:]
    group = zarr.open_group(path, mode="w", zarr_format=3)
    array = group.create_array(
        "0",
        shape=(size, size, *colours),
        chunks=(512, 512, *colours),
        dtype=sample.dtype,
        fill_value=0,
    )
    for y, x in product(range(0, min(size, filled), PART), repeat=2):
        array[y : y + PART, x : x + PART] = part(y, x)[: size - y, : size - x]
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "yx"]
    axes += [{"name": "c", "type": "channel"}] * len(colours)
    scale = [{"type": "scale", "scale": [0.5, 0.5] + [1.0] * len(colours)}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"axes": axes, "datasets": datasets}],
    }


class Watch:
    """Peak memory and processor time of this process and its children together.

    Attributes
    ----------
    bytes : int
        Peak of the summed resident memory.
    core_seconds : float
        Processor time, which other programs on the machine do not lengthen.
    """

    def __enter__(self) -> Watch:
        self.bytes, self._spent, self._stop = 0, {}, threading.Event()
        self._before = sum(psutil.Process().cpu_times()[:2])
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.core_seconds = sum(self._spent.values()) - self._before

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(0.25):
            total = 0
            for process in (me, *me.children(recursive=True)):
                with suppress(psutil.Error):
                    total += process.memory_info().rss
                    self._spent[process.pid] = sum(process.cpu_times()[:2])
            self.bytes = max(self.bytes, total)


class TaskLog(WorkerPlugin):
    """Plugin that logs each task that a worker starts.

    Parameters
    ----------
    path : str
        File with a line for each task.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def transition(self, key: str, start: str, finish: str, **_: object) -> None:
        """Log a task that starts."""
        if finish == "executing":
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(f"{key}\n")


def same(one: Path, two: Path) -> bool:
    """Return whether two label images are equal, pixel by pixel."""
    a, b = (open_image(path).array for path in (one, two))
    return a.shape == b.shape and all(
        np.array_equal(a[y : y + PART, x : x + PART], b[y : y + PART, x : x + PART])
        for y, x in product(range(0, a.shape[0], PART), range(0, a.shape[1], PART))
    )


def run(folder: Path, prompt: Prompt, name: str, model: str, workers: int) -> dict:
    """Segment the image and return the record; a finished run is not repeated."""
    kept = folder / f"{name}.json"
    if kept.exists():
        record = json.loads(kept.read_text("utf-8"))
    else:
        began = time.perf_counter()
        begun = {"Reading the prompts": (began, time.process_time())}

        def clock(done: int, total: int, message: str = "") -> None:
            begun.setdefault(message, (time.perf_counter(), time.process_time()))

        with Watch() as watch:
            made = segment_zarr(
                folder / "image.zarr",
                prompt,
                folder / f"{name}.zarr",
                model,
                workers=workers,
                on_progress=clock,
            )
        record = {
            "run": name,
            "workers": workers,
            "objects": made.objects,
            "seconds": round(made.seconds, 1),
            "start_s": round(begun["Predicting"][0] - began, 1),
            "megapixels_per_s": round(made.megapixels / made.seconds, 3),
            "core_seconds": round(watch.core_seconds, 1),
            "megapixels_per_core_s": round(made.megapixels / watch.core_seconds, 3),
            "peak_mb": round(watch.bytes / 2**20),
        }
        if not workers:  # all was done in this process
            ends = [*list(begun.values())[1:], (0.0, time.process_time())]
            record["core_seconds_of"] = {
                stage: round(end - start, 2)
                for (stage, (_, start)), (_, end) in zip(
                    begun.items(), ends, strict=True
                )
            }
        kept.write_text(json.dumps(record, indent=1), "utf-8")
    print("  ".join(f"{k} {v}" for k, v in record.items()), flush=True)
    return record


def broken_run(folder: Path, prompt: Prompt, model: str) -> dict:
    """Kill a worker, interrupt the run, and return the number of repeated tasks."""
    kept = folder / "broken.json"
    if kept.exists():
        return json.loads(kept.read_text("utf-8"))
    killed: list[int] = []
    begun = folder / "begun.txt"
    begun.unlink(missing_ok=True)
    modified: dict[str, dict[Path, int]] = {}

    def note(when: str) -> None:
        done = (folder / "killed.zarr.cells.work" / "tiles.done").glob("[0-9]*.json")
        modified[when] = {p: p.stat().st_mtime_ns for p in done}

    def disturb(done: int, total: int, message: str = "") -> None:
        if message == "Predicting" and done >= total // 3 and not killed:
            killed.append(next(iter(client.run(os.getpid).values())))
            psutil.Process(killed[0]).kill()
            note("killed")
            print(f"killed worker {killed[0]} after {done} of {total}", flush=True)
        if message == "Finding objects" and "after" not in modified:
            note("after")
        if message == "Finding objects" and done >= max(1, total // 2):
            print(f"interrupted after {done} of {total} blocks", flush=True)
            raise Cancelled

    shutil.rmtree(folder / "killed.zarr.cells.work", ignore_errors=True)
    with workers_of(workers=2, folder=str(folder / "dask")) as client:
        client.register_plugin(TaskLog(str(begun)))
        with suppress(Cancelled):
            segment_zarr(
                folder / "image.zarr",
                prompt,
                folder / "killed.zarr",
                model,
                scheduler=client,
                on_progress=disturb,
            )
    tasks = begun.read_text("utf-8").split("\n")[:-1]
    again = sum(modified["after"].get(p) != at for p, at in modified["killed"].items())
    cost = {
        "tasks": len(set(tasks)),
        "begun_again": len(tasks) - len(set(tasks)),
        "done_again": again,
    }
    kept.write_text(json.dumps(cost), "utf-8")
    return cost


def main() -> int:
    """Run all, and return 0 if all labels are the same."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=16384)
    parser.add_argument(
        "--filled",
        type=int,
        default=sys.maxsize,
        help="pixels along the corner that is not empty",
    )
    parser.add_argument("--real", type=Path, help="an image to be tiled up")
    parser.add_argument("--labels", type=Path, help="the labels of that image")
    parser.add_argument("--runs", default="one,two,killed")
    parser.add_argument("--model", default="svp")
    parser.add_argument("--folder", type=Path, help="default: a temporary folder")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    keep_freed_memory()  # as the command line does
    if (options.real is None) != (options.labels is None):
        parser.error("--real and --labels go together")
    runs = options.runs.split(",")
    if not runs or set(runs) - set(WORKERS):
        parser.error(f"--runs takes {', '.join(WORKERS)}, with commas between them")
    part, prompt, what = (
        tiled_up(options.real, options.labels) if options.real else drawn()
    )
    folder = options.folder or Path(tempfile.mkdtemp(prefix="svpseg-scale-"))
    folder.mkdir(parents=True, exist_ok=True)
    found = {"size": options.size, "image": what, "model": options.model}
    if options.filled < options.size:
        found["filled"] = options.filled
    try:
        if not (folder / "image.json").exists():
            make_image(folder / "image.zarr", options.size, part, options.filled)
            (folder / "image.json").write_text(json.dumps(found), "utf-8")
        elif json.loads((folder / "image.json").read_text("utf-8")) != found:
            parser.error(f"{folder} holds another benchmark: choose another folder")
        size = f"{options.size} x {options.size} pixels"
        print(f"{size} of {what}, model {options.model}", flush=True)
        records = []
        for name in runs:
            if name == "killed":
                found["broken"] = broken_run(folder, prompt, options.model)
                print(
                    "a worker killed: {begun_again} of {tasks} tasks started twice, "
                    "{done_again} finished ones were repeated".format(**found["broken"])
                )
            records.append(run(folder, prompt, name, options.model, WORKERS[name]))
        found["records"] = records
        if {"one", "two"} <= set(runs):
            one, two = records[runs.index("one")], records[runs.index("two")]
            found["efficiency"] = round(one["seconds"] / two["seconds"] / 2, 3)
            work = [r["seconds"] - r["start_s"] for r in (one, two)]
            found["efficiency_without_start"] = round(work[0] / work[1] / 2, 3)
            print(
                f"efficiency of 2 workers: {found['efficiency']}, from their first "
                f"task on {found['efficiency_without_start']}"
            )
        alike = all(
            same(folder / f"{runs[0]}.zarr", folder / f"{name}.zarr")
            for name in runs[1:]
        )
        found["same"] = alike
        if len(runs) > 1:
            print(f"all labels the same: {'yes' if alike else 'NO'}")
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(found, indent=1), "utf-8")
        return 0 if alike else 1
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
