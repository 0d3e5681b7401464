"""Files of a folder run: images, ``run.json``, ``summary.csv`` and ``run.log``."""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ..core.jobs.folder_job import BatchJob, FileOutcome
from ..core.labels.measure import object_sizes
from .atomic import atomic_path
from .images import BITMAP_SUFFIXES, TIFF_SUFFIXES, read_image
from .ome_zarr import is_zarr
from .tables import write_rows

RUN, SUMMARY, LOG = "run.json", "summary.csv", "run.log"
CUT_PROMPTS = "prompts.svprompt"
"""File of the prompts of a run that were not read from a prompt file."""

RUN_FILES = (RUN, SUMMARY, LOG, CUT_PROMPTS)
VERSION = 1
IMAGE_SUFFIXES = (*TIFF_SUFFIXES, *BITMAP_SUFFIXES)
"""Suffixes of the files that are images of a folder."""

COLUMNS = {
    "file": "source",
    "status": "status",
    "objects": "objects",
    "area_mean": "area_mean",
    "area_median": "area_median",
    "area_total": "area_total",
    "area_mean_um2": "",
    "covered": "covered",
    "trust": "trust",
    "seconds": "seconds",
    "note": "",
}
"""Columns of the summary, and the field of `FileOutcome` in each.

An empty field is computed from others.
"""

NO_IMAGE = "the folder {folder} holds no image"
NO_SUCH_IMAGE = "the folder {folder} holds no image that is called {include}"
SAME_TARGET = (
    "{first} and {second} would both become {target}: run them into separate folders, "
    "or add {{folder}} to the name pattern"
)
OVERWRITES = "{path} would be replaced: choose another folder"
NOT_A_JOB = "{path}: no job file ({reason})."
NO_JOB = "it holds no job"
OTHER_VERSION = "its version is {version!r}, not {known}"


class JobFileError(ValueError):
    """A job file that cannot be read; the message names it and says why."""


def find_images(
    inputs: Iterable[str | Path], include: str = "*", job: BatchJob | None = None
) -> list[Path]:
    """Return the image files among the inputs and inside folders, each once.

    An OME-Zarr image is a folder on the disk, but counts as one image.

    Parameters
    ----------
    inputs : iterable of path
        Files are taken as they are; of folders the images directly inside.
    include : str
        Pattern of the files that are taken of a folder, such as ``*.tif``.
    job : BatchJob, optional
        Job whose own results are skipped, if they lie among the images.

    Returns
    -------
    list of Path

    Raises
    ------
    ValueError
        If a folder holds no image.
    """
    files: dict[Path, None] = {}
    for path in map(Path, inputs):
        if not path.is_dir() or is_zarr(path):
            files[path] = None
            continue
        inside = [
            p
            for p in sorted(path.iterdir())
            if (p.suffix.lower() in IMAGE_SUFFIXES or is_zarr(p))
            and not p.name.startswith(".")
            and fnmatch(p.name.lower(), include.lower())
        ]
        # A second run into the folder of the images would segment its own labels.
        if job is not None:
            written = {
                Path(target).resolve()
                for p in inside
                for target in job.targets(str(p)).values()
            }
            inside = [p for p in inside if p.resolve() not in written]
        if not inside:
            message = NO_IMAGE if include == "*" else NO_SUCH_IMAGE
            raise ValueError(message.format(folder=path, include=include))
        files.update(dict.fromkeys(inside))
    return list(files)


def check_collisions(job: BatchJob, files: Iterable[Path]) -> None:
    """Raise `ValueError` if a result would replace an image or another result."""
    taken: dict[str, Path] = {}
    for path in files:
        for target in job.targets(str(path)).values():
            if target in taken:
                raise ValueError(
                    SAME_TARGET.format(first=taken[target], second=path, target=target)
                )
            if Path(target).resolve() == path.resolve():
                raise ValueError(OVERWRITES.format(path=path))
            taken[target] = path


def write_run(path: str | Path, job: BatchJob, record: dict[str, Any]) -> Path:
    """Write a job and the record of its run to a ``run.json``, atomically.

    Paths become absolute, so that the run can be repeated from another folder.

    Parameters
    ----------
    path : path
    job : BatchJob
    record : dict
        Plain values that are stored beside the job.

    Returns
    -------
    Path
        The file written.
    """
    job = replace(
        job,
        inputs=tuple(str(Path(p).resolve()) for p in job.inputs),
        prompts=str(Path(job.prompts).resolve()) if job.prompts else "",
        output=str(Path(job.output).resolve()),
    )
    values = {"version": VERSION, "job": job.to_dict(), **record}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return Path(path)


def read_run(path: str | Path) -> tuple[BatchJob, dict[str, Any]]:
    """Return the job in a ``run.json``, and all values of the file.

    Raises
    ------
    JobFileError
        If the file holds no job, or one of another version.
    OSError
        If the file cannot be opened.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(values, dict) or not isinstance(values.get("job"), dict):
            raise ValueError(NO_JOB)
        version = values.get("version")
        if version != VERSION:
            raise ValueError(OTHER_VERSION.format(version=version, known=VERSION))
        return BatchJob.from_dict(values["job"]), values
    except OSError:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise JobFileError(NOT_A_JOB.format(path=path, reason=error)) from error


def write_summary(path: str | Path, outcomes: Iterable[FileOutcome]) -> Path:
    """Write the ``summary.csv`` of a run, with one row for each file."""
    return write_rows(path, list(COLUMNS), [_row(outcome) for outcome in outcomes])


def _row(outcome: FileOutcome) -> Sequence[Any]:
    """Return the row of a file, in the order of `COLUMNS`."""
    shown: dict[str, Any] = {
        column: getattr(outcome, name) for column, name in COLUMNS.items() if name
    }
    # A skipped file was done in an earlier run: the next run has to know this.
    shown["status"] = "done" if outcome.skipped else outcome.status
    shown["objects"] = "" if outcome.objects < 0 else outcome.objects
    shown["area_mean_um2"] = outcome.area_mean * outcome.pixel_area
    shown["note"] = outcome.error or "; ".join(outcome.notes)
    return [shown[column] for column in COLUMNS]


def read_summary(path: str | Path) -> dict[str, FileOutcome]:
    """Return the finished files of an earlier run; none if the file is unreadable."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return {
                row["file"]: _outcome(row)
                for row in csv.DictReader(file)
                if row.get("file") and row.get("status") == "done"
            }
    except (OSError, ValueError, csv.Error, TypeError):
        return {}


def _outcome(row: dict[str, str]) -> FileOutcome:
    """Return the outcome that a row of the summary describes."""
    numbers: dict[str, Any] = {
        name: float(row.get(column) or "nan")
        for column, name in COLUMNS.items()
        if name and isinstance(_DEFAULTS[name], float)
    }
    # The area of a pixel has no column: it follows from the mean area in both units.
    mean, mean_um2 = numbers["area_mean"], float(row.get("area_mean_um2") or "nan")
    return FileOutcome(
        row["file"],
        objects=int(row.get("objects") or -1),
        status="skipped",
        pixel_area=mean_um2 / mean if mean else math.nan,
        notes=tuple((row.get("note") or "").split("; ")) if row.get("note") else (),
        **numbers,
    )


_DEFAULTS = {f.name: f.default for f in fields(FileOutcome)}
"""Default of each field, whose type is that of the column."""


def outcome_from_labels(skipped: FileOutcome) -> FileOutcome:
    """Return the outcome of a skipped image, with the numbers from its labels file.

    Needed if the summary of the earlier run is lost.
    """
    if not skipped.labels.lower().endswith((".tif", ".tiff")):
        return skipped
    try:
        found = read_image(skipped.labels)
    except (ValueError, OSError):
        return skipped
    return replace(skipped, **object_sizes(found.array, found.pixel_size))


def append_log(path: str | Path, lines: Iterable[str]) -> None:
    """Append lines, each with the time, to the log of a run."""
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(f"{now} {line}\n" for line in lines)
