"""Programs that are killed or run out of disk: what they read, what they leave."""

from __future__ import annotations

import csv
import functools
import os
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import scene
from .case import Place, content
from .inputs.tags import QUICK, ROWS, _pictures
from .inputs.training import CONFIG
from .scene import CPU, discs, segment, write_image
from .verdict import LOST, RIGHT, UNCLEAR, WRONG, Verdict

Prepare = Callable[[Path], list]
"""Writes the input into the working folder; returns the words of the command line."""

Outcome = Callable[[], dict[str, str]]
"""Returns the content of what a program has to leave, by its name."""


@dataclass(frozen=True)
class Program:
    """A program that can be stopped anywhere, and goes on when it is started again."""

    name: str
    prepare: Prepare
    outcome: Outcome


def at_every_step() -> None:
    """Let all trainings write a checkpoint after each step, not by the clock."""
    from napari_svpseg.engine.finetuning import loop
    from napari_svpseg.engine.tag_training import stages
    from napari_svpseg.engine.training.trainer import Trainer
    from napari_svpseg.workflows import training, training_tasks

    # eight batches of 16 drawn scenes take longer than all steps of the training
    one = functools.partial(training_tasks.validation_batches, n_batches=1)
    training.validation_batches = one
    loop.CHECKPOINT_S = stages.CHECKPOINT_S = -1.0
    Trainer.run.__kwdefaults__["checkpoint_seconds"] = -1.0


def _folder(base: Path) -> list:
    os.mkdir("d")
    for i in range(5):
        write_image(Path(f"d/{i}.tif"), discs(i)[0])
    place = Place(Path.cwd(), base)
    formats = "ome-tiff,csv,geojson,rois,ome-zarr"
    return segment(place, "d", "--formats", formats, "--skip-done", model="tiny")


def timeless(folder: Path) -> dict[str, str]:
    """Return the content of files, without the times that two libraries put into it.

    A zip has the time of each member; tifffile gives each OME-TIFF a UUID of its own.
    """
    found = content(folder)
    for name in found:
        path = folder / name
        if path.suffix in (".zip", ".svprompt"):
            with zipfile.ZipFile(path) as archive:
                found[name] = str({n: archive.read(n) for n in archive.namelist()})
        elif path.suffix == ".tif":
            found[name] = re.sub(
                rb"urn:uuid:[0-9a-f-]{36}", b"", path.read_bytes()
            ).hex()
    return found


def _folder_outcome() -> dict[str, str]:
    found = timeless(Path("out"))
    kept = {p: h for p, h in found.items() if not p.startswith("run.")}
    with open("out/summary.csv", newline="", encoding="utf-8") as file:
        rows = [{**row, "seconds": ""} for row in csv.DictReader(file)]
    return kept | {"summary.csv": str(sorted(rows, key=lambda r: r["file"]))}


def large_field(side: int = 400) -> np.ndarray:
    """Return an image of many discs."""
    image = discs()[0]
    times = -(-side // image.shape[0])
    return np.tile(image, (times, times))[:side, :side]


def _zarr(base: Path) -> list:
    import zarr

    zarr.create_array("a.zarr", data=large_field(), chunks=(128, 128))
    place = Place(Path.cwd(), base)
    tiles = ("--tile", 128, "--overlap", 32, "--no-scale-objects", "--min-area", 20)
    words = segment(place, "a.zarr", *tiles, model="tiny")
    at = words.index("-o")
    return [*words[:at], "-o", "out.zarr", *words[at + 2 :], "--workers", 0]


def _zarr_outcome() -> dict[str, str]:
    return content(Path("out.zarr"))


def _finetune(base: Path) -> list:
    image, labels = discs()
    write_image(Path("a.tif"), image)
    write_image(Path("b.tif"), scene.partial(labels))
    start = ("--start-from", base / "tiny-svp", "--steps", 6, "--minutes", 60)
    return ["finetune", "a.tif=b.tif", "-o", "m", *start, *CPU, "--resume"]


def _weights() -> dict[str, str]:
    """Return weights and prompts of a model; its card tells the time it took."""
    folder = Path("m") if Path("m").is_dir() else Path("runs/m")
    ends = (".safetensors", ".svprompt")
    return {n: c for n, c in timeless(folder).items() if n.endswith(ends)}


def _train(base: Path) -> list:
    Path("c.toml").write_text(
        CONFIG.replace("steps = 1", "steps = 5\nvalidate_every = 2")
    )
    return ["train", "c.toml", "-o", "runs/m", *CPU, "--resume"]


def _train_tags(base: Path) -> list:
    _pictures()
    Path("tags.csv").write_text("\n".join(ROWS))
    start = ("--start-from", base / "tiny-svp")
    quick = [w for w in QUICK if w != "--no-second-stage"]
    return [
        "train-tags",
        "pictures",
        "-o",
        "m",
        *start,
        *CPU,
        *quick,
        "--tags",
        "tags.csv",
        "--resume",
    ]


PROGRAMS = (
    Program("folder run", _folder, _folder_outcome),
    Program("zarr run", _zarr, _zarr_outcome),
    Program("fine-tune", _finetune, _weights),
    Program("train", _train, _weights),
    Program("tag training", _train_tags, _weights),
)


def compared(
    outcome: dict[str, str], undisturbed: dict[str, str], status: int, error: str
) -> Verdict:
    """Return the verdict of a program that was disturbed and has ended since."""
    if status:
        return Verdict(UNCLEAR, f"it does not go on: {' '.join(error.split())[-250:]}")
    gone = sorted(set(undisturbed) - set(outcome))
    if gone:
        return Verdict(LOST, f"gone: {', '.join(gone[:3])}")
    other = [p for p, h in undisturbed.items() if outcome[p] != h]
    if other:
        return Verdict(WRONG, f"not as undisturbed: {', '.join(other[:3])}")
    more = sorted(set(outcome) - set(undisturbed))
    if more:
        return Verdict(UNCLEAR, f"left behind: {', '.join(more[:3])}")
    return Verdict(RIGHT)
