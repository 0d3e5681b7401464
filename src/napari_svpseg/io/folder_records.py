"""Files of a folder run: images, ``run.json``, ``summary.csv`` and ``run.log``."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ..core.errors import one_line
from ..core.escapes import escaped
from ..core.jobs.folder_job import BatchJob, FileOutcome
from ..core.labels.measure import object_sizes
from .atomic import atomic_path
from .image_series import with_series, without_masks, without_set_members
from .images import IMAGE_SUFFIXES, read_image
from .ome_zarr import is_zarr
from .ownership import (
    FOREIGN,
    WRITTEN,
    ChangedTargetError,
    ForeignTargetError,
    check_no_inputs,
    check_replaceable,
    file_hash,
    read_json,
    sealed_json,
    written_files,
)
from .tables import unquoted, write_rows

RUN, SUMMARY, LOG = "run.json", "summary.csv", "run.log"
CUT_PROMPTS = "prompts.svprompt"
"""File of the prompts of a run that were not read from a prompt file."""

RUN_FILES = (RUN, SUMMARY, LOG, CUT_PROMPTS)
VERSION = 1
WRITING = "writing"
"""Entry of ``run.json``: files that a run which was killed may have written."""

CLAIM = 64
"""Images whose files are entered there at once, before they are written."""

LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")
UNSEALED = (".csv", ".npy", "_cp_masks.png", "_cp_masks.tif")
"""Ends of the results that carry no seal, see `io.ownership`."""

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
    "fingerprint": "fingerprint",
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
NOT_A_JOB = "{path}: no job file ({reason})."
NO_JOB = "it holds no job"
OTHER_VERSION = "its version is {version!r}, not {known}"


class JobFileError(ValueError):
    """A job file that cannot be read; the message names it and says why."""


def find_images(
    inputs: Iterable[str | Path],
    include: str = "*",
    job: BatchJob | None = None,
    on_masks: Callable[[list[Path]], None] | None = None,
    series: str = "",
) -> list[Path]:
    """Return the image files among the inputs and inside folders, each once.

    An OME-Zarr image is a folder on the disk, but counts as one image; a plate counts
    as its fields. Masks that lie beside their images are left out.

    Parameters
    ----------
    inputs : iterable of path
        Files are taken as they are; of folders the images directly inside.
    include : str
        Pattern of the files that are taken of a folder, such as ``*.tif``.
    job : BatchJob, optional
        Job whose own results are skipped, if they lie among the images; its ``series``
        counts.
    on_masks : callable, optional
        Called with the masks of a folder that are left out.
    series : str
        Which images of files with several, see `image_series.with_series`.

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
        if not path.is_dir() or _is_one_image(path):
            files[path] = None
            continue
        try:
            listed = sorted(path.iterdir())
        except OSError as error:
            raise ValueError(one_line(error)) from error
        inside = [
            p
            for p in listed
            if not p.name.startswith(".")
            and fnmatch(p.name.lower(), include.lower())
            and (p.suffix.lower() in IMAGE_SUFFIXES or _is_one_image(p))
        ]
        # A second run into the folder of the images would segment its own labels.
        if job is not None:
            written = {
                real_path(target)
                for p in inside
                for target in job.targets(str(p)).values()
            }
            inside = [p for p in inside if real_path(p) not in written]
        inside, masks = without_masks(without_set_members(inside))
        if masks and on_masks is not None:
            on_masks(masks)
        if not inside:
            message = NO_IMAGE if include == "*" else NO_SUCH_IMAGE
            raise ValueError(message.format(folder=path, include=include))
        files.update(dict.fromkeys(inside))
    chosen = series if job is None else job.series
    return list(dict.fromkeys(with_series(files, chosen)))


def _is_one_image(folder: Path) -> bool:
    """Return whether a folder is a Zarr image, also one that lost its metadata.

    What lies in such a one are the levels of a pyramid, and no images.
    """
    is_image = is_zarr(folder) or folder.suffix.lower() == ".zarr"
    return is_image or is_zarr(folder / "0")


def check_collisions(
    job: BatchJob, files: Sequence[Path], also_read: Iterable[str | Path] = ()
) -> None:
    """Raise an error if a result would replace what is read, or another result.

    Parameters
    ----------
    job : BatchJob
    files : sequence of Path
        The images.
    also_read : iterable of path
        Other files that the run reads, such as masks that prompts are cut from.

    Raises
    ------
    ValueError
        If two images would have one result.
    ReplaceError
        If a result is a file that is read.
    """
    taken: dict[str, tuple[Path, str]] = {}
    fold = str.casefold if _ignores_case(Path(job.output)) else str
    for path in files:
        for target in job.targets(str(path)).values():
            first, _ = taken.setdefault(fold(target), (path, target))
            if first != path:
                raise ValueError(
                    SAME_TARGET.format(first=first, second=path, target=target)
                )
    read = [*files, *filter(None, (job.prompts, job.model)), *also_read]
    check_no_inputs((target for _, target in taken.values()), read)


def _ignores_case(folder: Path) -> bool:
    """Return whether names of other letter case are the same on a disk."""
    there = next((p for p in (folder, *folder.absolute().parents) if p.exists()), None)
    if there is None:
        return False
    for place in (there.absolute(), *there.absolute().parents):
        other = place.with_name(place.name.swapcase()) if place.name else place
        if other.name != place.name:
            return other.exists() and os.path.samefile(place, other)
    return False


class WrittenFiles:
    """The hashes of a run's files that carry no seal; a part of ``run.json``.

    Made from the record of the runs before, under the lock of the folder.

    Parameters
    ----------
    folder : Path
        Of the results.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._hashes = written_files(folder)
        self._claimed = {SUMMARY: None}
        # Of a run that was killed: its files are taken as they are.
        self.note(map(str, read_json(folder / RUN).get(WRITING) or ()))

    def check(self, job: BatchJob, overwrite: bool) -> None:
        """Raise `ReplaceError` if the run's own files would replace anything else."""
        run, log = self.folder / RUN, self.folder / LOG
        if run.is_file() and not overwrite and not _holds_job(run, job):
            check_replaceable(run)
        self._check(self.folder / SUMMARY, overwrite)
        if log.is_file() and not overwrite:
            with open(log, encoding="utf-8", errors="replace") as file:
                if not LOG_LINE.match(file.readline()):
                    raise ForeignTargetError(FOREIGN.format(path=log))

    def check_targets(
        self, job: BatchJob, files: Iterable[Path], overwrite: bool
    ) -> None:
        """Raise `ForeignTargetError` if a result would replace what no run wrote.

        Results that were changed since do not stop a run: only their image fails.
        """
        for path in files:
            targets = list(job.targets(str(path)).values())
            there = [target for target in targets if os.path.lexists(target)]
            if job.skip_done and len(there) == len(targets):
                continue  # nothing is written
            for target in there:
                with suppress(ChangedTargetError):
                    self._check(Path(target), overwrite)

    def _check(self, path: Path, overwrite: bool) -> None:
        known = [self._hashes[path.name]] if path.name in self._hashes else []
        check_replaceable(path, overwrite, known=known)

    def claim(self, targets: Iterable[str], overwrite: bool = False) -> bool:
        """Note files that will be written soon; return whether there are any."""
        wanted = [Path(t).name for t in targets if t.lower().endswith(UNSEALED)]
        names = [n for n in wanted if overwrite or self._is_free(n)]
        self._claimed |= dict.fromkeys(names)
        return bool(names)

    def _is_free(self, name: str) -> bool:
        """Return whether a file is not there, or as a run wrote it."""
        path, known = self.folder / name, self._hashes.get(name)
        return not path.exists() or (known is not None and file_hash(path) == known)

    def note(self, targets: Iterable[str]) -> None:
        """Note the hashes of files that were written."""
        for name in (Path(t).name for t in targets):
            if (self.folder / name).is_file():
                self._hashes[name] = file_hash(self.folder / name)

    def note_summary(self) -> None:
        """Note the hash of the summary at the end of a run."""
        self.note([SUMMARY])
        self._claimed.pop(SUMMARY, None)

    def note_results(self, targets: Iterable[str]) -> None:
        """Note the hashes of an image's results, where they carry no seal."""
        targets = [t for t in targets if t.lower().endswith(UNSEALED)]
        self.note(targets)
        for target in targets:
            self._claimed.pop(Path(target).name, None)

    def release(self) -> None:
        """Note what there is of the claimed results, at the end of a run.

        Results of images that failed or were not begun are claimed, too. The next run
        would take them for those of a run that was killed, and so for unchanged.
        """
        names = [name for name in self._claimed if name != SUMMARY]
        self.note(names)
        for name in names:
            del self._claimed[name]

    def to_dict(self) -> dict[str, Any]:
        """Return the entries of ``run.json``."""
        return {WRITTEN: dict(self._hashes), WRITING: list(self._claimed)}


def _holds_job(path: Path, job: BatchJob) -> bool:
    """Return whether a ``run.json`` holds just this job, maybe edited by hand."""
    try:
        return read_run(path)[0] == _absolute(job)
    except (ValueError, OSError):
        return False


def _absolute(job: BatchJob) -> BatchJob:
    """Return a job with absolute paths, so that it runs from any folder."""
    return replace(
        job,
        inputs=tuple(map(real_path, job.inputs)),
        prompts=real_path(job.prompts) if job.prompts else "",
        output=real_path(job.output),
    )


def write_run(
    path: str | Path, job: BatchJob, record: dict[str, Any], *, overwrite: bool = False
) -> Path:
    """Write a job and the record of its run to a ``run.json``, atomically.

    Paths become absolute, so that the run can be repeated from another folder.

    Parameters
    ----------
    path : path
    job : BatchJob
    record : dict
        Plain values that are stored beside the job.
    overwrite : bool
        Allow to replace a file that this program did not write.

    Returns
    -------
    Path
        The file written.
    """
    values = {"version": VERSION, "job": _absolute(job).to_dict(), **record}
    with atomic_path(path, overwrite) as temporary:
        sealed_json(temporary, values)
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


def write_summary(
    path: str | Path, outcomes: Iterable[FileOutcome], *, overwrite: bool = False
) -> Path:
    """Write the ``summary.csv`` of a run, with one row for each file."""
    rows = [_row(outcome) for outcome in outcomes]
    return write_rows(path, list(COLUMNS), rows, overwrite=overwrite)


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
    """Return the finished files of an earlier run; none if the file is unreadable.

    They are known by their paths as the summary shows them, see `escaped`.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return {
                row["file"]: _outcome(row)
                for row in map(_unquoted, csv.DictReader(file))
                if row.get("file") and row.get("status") == "done"
            }
    except (OSError, ValueError, csv.Error, TypeError):
        return {}


def _unquoted(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the summary with the text that its cells were made of."""
    return {k: unquoted(v) if isinstance(v, str) else v for k, v in row.items()}


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
        fingerprint=row.get("fingerprint") or "",
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
        found = read_image(skipped.labels, as_ids=True)
    except (ValueError, OSError):
        return skipped
    return replace(skipped, **object_sizes(found.array, found.pixel_size))


def append_log(path: str | Path, lines: Iterable[str]) -> None:
    """Append lines, each with the time, to the log of a run; see `escaped`."""
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(f"{now} {escaped(line)}\n" for line in lines)


def real_path(path: str | Path) -> str:
    """Return a path that is absolute and free of links; a loop of links stays one.

    `Path.resolve` raises an error for such a loop.
    """
    return os.path.realpath(path)
