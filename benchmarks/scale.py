"""A large OME-Zarr with 1 worker, with 2, and with one of them killed.

Makes a synthetic image of discs on uneven ground, runs it three times, and prints
seconds, megapixels per second, peak memory of all processes together, and whether all
labels are the same. In the third run a worker is killed and the run is broken off; it
is then resumed.

    python benchmarks/scale.py --size 16384 --json bench-output/scale.json
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import psutil
import zarr
from skimage.measure import label

from napari_svpseg.core.progress import Cancelled
from napari_svpseg.core.prompt import Prompt
from napari_svpseg.engine.distributed import workers_of
from napari_svpseg.io.zarr import open_image
from napari_svpseg.large import segment_zarr

PART = 2048
"""Pixels along the parts in which images are made and compared."""


def field(y: int, x: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a part of an endless field of discs, and which pixels are in one."""
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


def make_image(path: Path, size: int) -> None:
    """Write the image part by part."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    array = group.create_array("0", shape=(size, size), chunks=(512, 512), dtype="u1")
    for y in range(0, size, PART):
        for x in range(0, size, PART):
            image, _ = field(y, x, PART)
            array[y : y + PART, x : x + PART] = image[: size - y, : size - x]
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "yx"]
    scale = [{"type": "scale", "scale": [0.5, 0.5]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["ome"] = {
        "version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}],
    }


class PeakMemory:
    """Highest memory of this process and its children, of all of them together."""

    def __enter__(self) -> PeakMemory:
        self.bytes, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(0.25):
            total = 0
            for process in (me, *me.children(recursive=True)):
                try:
                    total += process.memory_info().rss
                except psutil.Error:
                    continue
            self.bytes = max(self.bytes, total)


def same(one: Path, two: Path) -> bool:
    """Tell whether two label images are alike, pixel by pixel."""
    a, b = (open_image(path).array for path in (one, two))
    return a.shape == b.shape and all(
        np.array_equal(a[y : y + PART, x : x + PART], b[y : y + PART, x : x + PART])
        for y in range(0, a.shape[0], PART)
        for x in range(0, a.shape[1], PART)
    )


def run(folder: Path, prompt: Prompt, name: str, model: str, workers: int) -> dict:
    """Run the image and return what it took."""
    with PeakMemory() as peak:
        made = segment_zarr(
            folder / "image.zarr", prompt, folder / f"{name}.zarr", model,
            workers=workers,
        )
    record = {
        "run": name, "workers": workers, "objects": made.objects,
        "seconds": round(made.seconds, 1),
        "megapixels_per_s": round(made.megapixels / made.seconds, 3),
        "peak_mb": round(peak.bytes / 2**20),
    }
    print("  ".join(f"{k} {v}" for k, v in record.items()), flush=True)
    return record


def broken_run(folder: Path, prompt: Prompt, model: str) -> None:
    """Kill a worker in the middle, and then the run itself."""
    killed: list[int] = []

    def disturb(done: int, total: int, message: str = "") -> None:
        if message == "Predicting" and done >= total // 3 and not killed:
            killed.append(next(iter(client.run(os.getpid).values())))
            psutil.Process(killed[0]).kill()
            print(f"killed worker {killed[0]} after {done} of {total}", flush=True)
        if message == "Finding objects" and done >= max(1, total // 2):
            print(f"broken off after {done} of {total} blocks", flush=True)
            raise Cancelled

    with workers_of(workers=2, folder=str(folder / "dask")) as client:
        try:
            segment_zarr(
                folder / "image.zarr", prompt, folder / "killed.zarr", model,
                scheduler=client, on_progress=disturb,
            )
        except Cancelled:
            return


def main() -> int:
    """Run all and return 0 if the labels are the same."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=16384)
    parser.add_argument("--model", default="svp")
    parser.add_argument("--folder", type=Path, help="default: a temporary folder")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="svpseg-scale-"))
    folder.mkdir(parents=True, exist_ok=True)
    image, inside = field(0, 0, 512)
    prompt = Prompt.from_image(image, label(inside), (112, 112), name="discs")
    try:
        make_image(folder / "image.zarr", options.size)
        print(f"{options.size} x {options.size} pixels, model {options.model}")
        records = [
            run(folder, prompt, "one", options.model, 1),
            run(folder, prompt, "two", options.model, 2),
        ]
        broken_run(folder, prompt, options.model)
        records.append(run(folder, prompt, "killed", options.model, 2))
        alike = all(
            same(folder / "one.zarr/labels/cells", folder / f"{n}.zarr/labels/cells")
            for n in ("two", "killed")
        )
        print(f"all labels the same: {'yes' if alike else 'NO'}")
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            found = {"size": options.size, "model": options.model, "same": alike,
                     "records": records}
            options.json.write_text(json.dumps(found, indent=1), "utf-8")
        return 0 if alike else 1
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
