"""Time to segment a folder of 512 x 512 images, one of which is unreadable.

    python benchmarks/bench_folder.py --images 500
    python benchmarks/bench_folder.py --images 50 --formats ome-tiff,rois,geojson,csv

The images are synthetic, with about 190 different cells each; the last file is not an
image. `svpseg segment` runs over the folder, and again into another folder, where it is
interrupted at a third and resumed. Prints seconds and core-seconds (processor time,
which other programs on the machine do not lengthen), and checks that the bad file was
named, the exit status is 1, and both folders contain the same labels.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

from napari_svpseg.core.prompt import Prompt, PromptSet
from napari_svpseg.engine.inference.device import choose
from napari_svpseg.io.folder_records import SUMMARY, read_summary
from napari_svpseg.io.prompt_files import save_prompts

SIDE, STEP = 512, 36
BAD = "unreadable.tif"
POLL_S = 0.1


def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a uint8 image of discs and their labels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    labels = np.zeros((SIDE, SIDE), np.int32)
    corners = range(STEP // 2, SIDE - STEP // 2, STEP)
    for n, (cy, cx) in enumerate(((a, b) for a in corners for b in corners), start=1):
        dy, dx = rng.integers(-5, 6, 2)
        labels[(y - cy - dy) ** 2 + (x - cx - dx) ** 2 <= rng.integers(7, 13) ** 2] = n
    image = 30 + 140 * (labels > 0) + rng.normal(0, 8, labels.shape)
    return np.clip(image, 0, 255).astype(np.uint8), labels


def make_folder(folder: Path, images: int) -> None:
    """Write images, the last of them unreadable, and a prompt file."""
    (folder / "images").mkdir()
    for seed in range(images - 1):
        tifffile.imwrite(folder / f"images/{seed:04}.tif", draw(seed)[0])
    (folder / "images" / BAD).write_bytes(b"II*\0 and then nothing that is an image")
    prompt = Prompt.from_image(*draw(images), (8, 8))
    save_prompts(PromptSet([prompt]), folder / "cells.svprompt")


class Command:
    """`svpseg segment` over the images of a folder.

    Parameters
    ----------
    folder : Path
        Made by `make_folder`.
    options : list of str
    """

    def __init__(self, folder: Path, options: list[str]) -> None:
        self.folder = folder
        self._words = [
            sys.executable,
            "-m",
            "napari_svpseg.cli.main",
            "segment",
            str(folder / "images"),
            "--prompts",
            str(folder / "cells.svprompt"),
            *options,
        ]

    def run(self, out: str, *more: str, stop_at: int | None = None) -> dict:
        """Run the command, and return its time and results.

        Parameters
        ----------
        out : str
            Output folder.
        *more : str
            Further arguments.
        stop_at : int, optional
            Interrupt it when there are this many label files.
        """
        target = self.folder / out
        before, start = _core_seconds(), time.perf_counter()
        with subprocess.Popen(
            [*self._words, "-o", str(target), *more],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_can_be_interrupted,
        ) as process:
            while stop_at is not None and process.poll() is None:
                if len(labels_in(target)) >= stop_at:
                    process.send_signal(signal.SIGINT)
                    break
                time.sleep(POLL_S)
            _, said = process.communicate()
        seconds = time.perf_counter() - start
        return {
            "status": process.returncode,
            "results": len(labels_in(target)),
            "bad_one_named": BAD in said,
            "seconds": round(seconds, 1),
            "core_seconds": round(_core_seconds() - before, 1),
        }


def _can_be_interrupted() -> None:
    """Let Ctrl-C reach a program that is started in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _core_seconds() -> float:
    """Return the processor time of all finished child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def labels_in(folder: Path) -> list[Path]:
    """Return the label images of a folder."""
    return sorted(folder.glob("*_labels.ome.tif"))


def same(one: Path, two: Path) -> bool:
    """Return whether two folders contain the same labels under the same names."""
    a, b = labels_in(one), labels_in(two)
    return [p.name for p in a] == [p.name for p in b] and all(
        np.array_equal(tifffile.imread(p), tifffile.imread(q))
        for p, q in zip(a, b, strict=True)
    )


def main() -> int:
    """Run the benchmark, print, and return 0 if all checks pass."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=12, help="including the bad one")
    parser.add_argument("--formats", default="ome-tiff")
    parser.add_argument("--model", default="svp")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    arguments = [
        "--formats",
        options.formats,
        "--model",
        options.model,
        "--device",
        options.device,
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_folder(folder, options.images)
        command = Command(folder, arguments)
        found = {
            "images": options.images,
            "formats": options.formats,
            "device": str(choose(options.device)),
            "cores": os.cpu_count(),
        }
        for run, out, more in (
            ("whole", "whole", {}),
            ("interrupted", "broken", {"stop_at": options.images // 3}),
        ):
            found[run] = command.run(out, **more)
            print(
                run, *(f"{k} {v}" for k, v in found[run].items()), sep="  ", flush=True
            )
        kept = {p: p.stat().st_mtime_ns for p in labels_in(folder / "broken")}
        found["resumed"] = command.run("broken", "--skip-done")
        print(
            "resumed",
            *(f"{k} {v}" for k, v in found["resumed"].items()),
            sep="  ",
            flush=True,
        )
        again = sum(p.stat().st_mtime_ns != t for p, t in kept.items())
        alike = same(folder / "whole", folder / "broken")
        summary = read_summary(folder / "whole" / SUMMARY)
        first = next(o for o in summary.values() if o.objects >= 0)
    found |= {"same": alike, "made_again": again}
    n = options.images
    print(
        f"{n} images, {options.formats}, on {found['device']}: "
        f"{found['whole']['seconds'] / n:.3f} s an image, "
        f"{found['whole']['core_seconds'] / n:.3f} s of one core; "
        f"{first.objects} objects in the first, trust {first.trust:.2f}; interrupted "
        f"and resumed {'the same' if alike else 'OTHER'} labels, {again} made again"
    )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(found, indent=1), "utf-8")
    right = all(
        found[run]["status"] == 1
        and found[run]["bad_one_named"]
        and found[run]["results"] == options.images - 1
        for run in ("whole", "resumed")
    )
    return 0 if right and alike and not again else 1


if __name__ == "__main__":
    sys.exit(main())
