"""Files of a folder run: its images, ``run.json``, ``summary.csv``, ``run.log``."""

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
"""Prompts of a run that came from no prompt file of their own."""

RUN_FILES = (RUN, SUMMARY, LOG, CUT_PROMPTS)
VERSION = 1
KNOWN = (*TIFF_SUFFIXES, *BITMAP_SUFFIXES)

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
"""Columns of the summary, and the fields of `FileOutcome` that they show."""


class JobFileError(ValueError):
    """A job file cannot be read; the message names it and says why."""


def find_images(
    inputs: Iterable[str | Path], include: str = "*", job: BatchJob | None = None
) -> list[Path]:
    """Return the files, and the images inside each folder, each once.

    An OME-Zarr image is a folder, and counts as one image.

    Parameters
    ----------
    inputs : iterable of path
    include : str
        Which files of a folder are taken, such as ``*.tif``.
    job : BatchJob, optional
        Whose own results are passed over where they lie among the images.

    Raises
    ------
    ValueError
        For a folder that holds no image.
    """
    files: dict[Path, None] = {}
    for path in map(Path, inputs):
        if not path.is_dir() or is_zarr(path):
            files[path] = None
            continue
        inside = [
            p
            for p in sorted(path.iterdir())
            if (p.suffix.lower() in KNOWN or is_zarr(p))
            and not p.name.startswith(".")
            and fnmatch(p.name.lower(), include.lower())
        ]
        if job is not None:
            written = {
                Path(target).resolve()
                for p in inside
                for target in job.targets(str(p)).values()
            }
            inside = [p for p in inside if p.resolve() not in written]
        if not inside:
            what = "image" if include == "*" else f"image that is called {include}"
            raise ValueError(f"the folder {path} holds no {what}")
        files.update(dict.fromkeys(inside))
    return list(files)


def check_collisions(job: BatchJob, files: Iterable[Path]) -> None:
    """Raise ValueError where two images would be written under one name."""
    taken: dict[str, Path] = {}
    for path in files:
        for target in job.targets(str(path)).values():
            if target in taken:
                raise ValueError(
                    f"{taken[target]} and {path} would both become {target}: run them "
                    "into separate folders, or add {folder} to the name pattern"
                )
            if Path(target).resolve() == path.resolve():
                raise ValueError(f"{path} would be replaced: choose another folder")
            taken[target] = path


def write_run(path: str | Path, job: BatchJob, record: dict[str, Any]) -> Path:
    """Write a job and what is known of its run; the paths become absolute."""
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
    """Return the job of a ``run.json``, and what is known of its run.

    Raises
    ------
    JobFileError
        If the file holds no job, or one of a later version.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(values, dict) or not isinstance(values.get("job"), dict):
            raise ValueError("it holds no job")
        if values.get("version") != VERSION:
            raise ValueError(f"its version is {values.get('version')!r}, not {VERSION}")
        return BatchJob.from_dict(values["job"]), values
    except OSError:
        raise
    except (ValueError, TypeError) as error:
        raise JobFileError(f"{path}: no job file ({error}).") from error


def write_summary(path: str | Path, outcomes: Iterable[FileOutcome]) -> Path:
    """Write one row for each file."""
    return write_rows(path, list(COLUMNS), [_row(outcome) for outcome in outcomes])


def _row(outcome: FileOutcome) -> Sequence[Any]:
    shown: dict[str, Any] = {
        column: getattr(outcome, name) for column, name in COLUMNS.items() if name
    }
    shown["status"] = "done" if outcome.skipped else outcome.status
    shown["objects"] = "" if outcome.objects < 0 else outcome.objects
    shown["area_mean_um2"] = outcome.area_mean * outcome.pixel_area
    shown["note"] = outcome.error or "; ".join(outcome.notes)
    return [shown[column] for column in COLUMNS]


def read_summary(path: str | Path) -> dict[str, FileOutcome]:
    """Return the rows of an earlier run by file; none where there is no such file."""
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
    numbers: dict[str, Any] = {
        name: float(row.get(column) or "nan")
        for column, name in COLUMNS.items()
        if name and isinstance(_DEFAULTS[name], float)
    }
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


def outcome_from_labels(skipped: FileOutcome) -> FileOutcome:
    """Return what a labels file itself tells of an image that was done before."""
    if not skipped.labels.lower().endswith((".tif", ".tiff")):
        return skipped
    try:
        found = read_image(skipped.labels)
    except (ValueError, OSError):
        return skipped
    return replace(skipped, **object_sizes(found.array, found.pixel_size))


def append_log(path: str | Path, lines: Iterable[str]) -> None:
    """Add lines, each with the time, to a run's log."""
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(f"{now} {line}\n" for line in lines)
