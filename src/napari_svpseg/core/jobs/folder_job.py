"""A folder run as one value: what is read, how, and what is written where."""

from __future__ import annotations

import math
import string
from dataclasses import asdict, dataclass, field, fields
from pathlib import PurePath
from typing import Any

from ..settings import split_settings

FORMATS = {
    "ome-tiff": ".ome.tif",
    "rois": ".zip",
    "geojson": ".geojson",
    "csv": ".csv",
    "ome-zarr": ".zarr",
}
"""What can be written of an image's objects, and how these files end."""

FORMAT_TITLES = {
    "ome-tiff": "OME-TIFF labels",
    "rois": "ImageJ ROIs",
    "geojson": "GeoJSON for QuPath",
    "csv": "CSV of measurements",
    "ome-zarr": "OME-Zarr labels",
}

PATTERN = "{name}_labels"
WORDS = ("name", "folder", "model", "prompts")
"""What a name pattern may hold: stem and folder of the image, model, prompt file."""


@dataclass(frozen=True)
class BatchJob:
    """Everything that a folder run needs; written as ``run.json``.

    Parameters
    ----------
    inputs : tuple of str
        Image files, OME-Zarr images, and folders of them.
    prompts : str
        A prompt file; empty for models that bring their own.
    output : str
        Folder for what is written.
    model : str
        Name or folder of a model.
    settings : dict
        Fields of `SegmentSettings` and `PostprocessSettings` that were chosen.
    formats : tuple of str
        Out of `FORMATS`, at least one.
    pattern : str
        Names of the files without their ends, see `WORDS`.
    include : str
        Which files of a folder are taken, such as ``*.tif``.
    axes : str or None
        Where files do not say.
    channels : tuple of int or None
    skip_done : bool
        Leave images alone whose files are there already.
    """

    inputs: tuple[str, ...]
    prompts: str
    output: str
    model: str = "svp"
    settings: dict[str, Any] = field(default_factory=dict)
    formats: tuple[str, ...] = ("ome-tiff",)
    pattern: str = PATTERN
    include: str = "*"
    axes: str | None = None
    channels: tuple[int, ...] | None = None
    skip_done: bool = False

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, list):
                object.__setattr__(self, f.name, tuple(value))
        if not self.inputs:
            raise ValueError("Choose the images: files, or a folder.")
        if not self.output:
            raise ValueError("Choose a folder for the results.")
        if not self.formats:
            raise ValueError("Choose at least one format to write.")
        unknown = sorted(set(self.formats) - set(FORMATS))
        if unknown:
            raise ValueError(
                f"unknown format {', '.join(unknown)}: choose of {', '.join(FORMATS)}"
            )
        check_pattern(self.pattern)
        split_settings(self.settings)  # raises where one is wrong

    def to_dict(self) -> dict[str, Any]:
        """Return the job as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> BatchJob:
        """Return the job of plain values.

        Raises
        ------
        ValueError
            For unknown or missing names, or values that make no sense.
        """
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"a job has no {', '.join(unknown)}")
        missing = sorted({"inputs", "prompts", "output"} - set(values))
        if missing:
            raise ValueError(f"the job lacks {', '.join(missing)}")
        wrong = [
            name
            for name, kind in (
                ("inputs", list | tuple),
                ("formats", list | tuple),
                ("settings", dict),
                ("prompts", str),
                ("output", str),
                ("model", str),
                ("pattern", str),
                ("include", str),
                ("skip_done", bool),
            )
            if name in values and not isinstance(values[name], kind)
        ]
        if wrong:
            raise ValueError(f"the job's {wrong[0]} is {values[wrong[0]]!r}")
        return cls(**values)

    def targets(self, image: str) -> dict[str, str]:
        """Return the path of each file that is written for an image, by format."""
        stem = file_stem(image, self.pattern, model=self.model, prompts=self.prompts)
        folder = PurePath(self.output)
        return {kind: str(folder / f"{stem}{FORMATS[kind]}") for kind in self.formats}


@dataclass(frozen=True)
class FileOutcome:
    """What became of one file of a folder run; a row of ``summary.csv``.

    Parameters
    ----------
    source : str
        The image.
    labels : str
        The first file that was written of it.
    objects : int
        Number of ids found; -1 where it is not known.
    seconds : float
    device : str
    trust : float
    notes : tuple of str
        What was done differently from what was asked.
    status : str
        ``done``, ``skipped`` (its files were there already), ``failed``, or
        ``running``.
    area_mean, area_median, area_total : float
        Of the objects, in pixels.
    pixel_area : float
        Of a pixel in square micrometres, NaN where it is not known.
    covered : float
        Share of the image that is object.
    error : str
        Why it failed, in one line.
    """

    source: str
    labels: str = ""
    objects: int = -1
    seconds: float = math.nan
    device: str = ""
    trust: float = math.nan
    notes: tuple[str, ...] = ()
    status: str = "done"
    area_mean: float = math.nan
    area_median: float = math.nan
    area_total: float = math.nan
    pixel_area: float = math.nan
    covered: float = math.nan
    error: str = ""

    @property
    def skipped(self) -> bool:
        """Whether its files were there already."""
        return self.status == "skipped"


def check_pattern(pattern: str) -> None:
    """Raise ValueError where a name pattern cannot name files.

    Examples
    --------
    >>> check_pattern("{name}_cells")
    """
    try:
        words = {word for _, word, _, _ in string.Formatter().parse(pattern)} - {None}
    except ValueError as error:
        raise ValueError(f"the name pattern {pattern!r} is not closed") from error
    if not words <= set(WORDS) or "name" not in words:
        raise ValueError(
            "a name pattern holds {name}, and if you like {folder}, {model} and "
            f"{{prompts}}, got {pattern!r}"
        )
    if set(pattern) & set('/\\:*?"<>|'):
        raise ValueError(f"a name pattern names no folders, got {pattern!r}")


def image_name(path: str) -> str:
    """Return an image's name without its ends.

    Examples
    --------
    >>> image_name("day1/cells.ome.tif")
    'cells'
    """
    stem = PurePath(path).stem
    return stem[: -len(".ome")] if stem.lower().endswith(".ome") else stem


def file_stem(
    path: str, pattern: str = PATTERN, *, model: str = "", prompts: str = ""
) -> str:
    """Return the name of an image's results, without their ends.

    Examples
    --------
    >>> file_stem("day1/cells.ome.tif", "{folder}_{name}_labels")
    'day1_cells_labels'
    """
    return pattern.format(
        name=image_name(path),
        folder=PurePath(path).parent.name,
        model=PurePath(model).name,
        prompts=PurePath(prompts).stem,
    )
