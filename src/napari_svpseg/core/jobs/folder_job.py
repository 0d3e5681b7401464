"""A folder run as one value: inputs, settings, and files to write."""

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
    "cellpose-png": "_cp_masks.png",
    "cellpose-tif": "_cp_masks.tif",
    "cellpose-seg": "_seg.npy",
    "npy": ".npy",
}
"""Formats of results, and the ends of their file names."""

FORMAT_TITLES = {
    "ome-tiff": "OME-TIFF labels",
    "rois": "ImageJ ROIs",
    "geojson": "GeoJSON for QuPath",
    "csv": "CSV of measurements",
    "ome-zarr": "OME-Zarr labels",
    "cellpose-png": "Cellpose masks, PNG",
    "cellpose-tif": "Cellpose masks, TIFF",
    "cellpose-seg": "Cellpose session, _seg.npy",
    "npy": "NumPy array",
}

ALL_SERIES = "all"
"""Stands for every image of a file that holds several."""

CONTAINERS = (".zarr", ".zip", ".ozx")
"""Ends of folders and files inside of which paths lead to images."""

OWN_END = "_labels"
PATTERN = f"{{name}}{OWN_END}"
WORDS = ("name", "folder", "model", "prompts")
"""Fields of a name pattern: stem and folder of the image, model, prompt file."""

NO_INPUTS = "Choose the images: files, or a folder."
NO_OUTPUT = "Choose a folder for the results."
NO_FORMAT = "Choose at least one format to write."
UNKNOWN_FORMAT = "unknown format {names}: choose from {known}"
BAD_SERIES = "series are numbers such as 0 or 0,2, or all; got {text!r}"
PATTERN_NOT_CLOSED = "a brace of the name pattern is not closed"
PATTERN_FIELDS = (
    "a name pattern holds {name}, and if you like {folder}, {model} and {prompts}"
)
PATTERN_FOLDERS = "a name pattern names no folders"


@dataclass(frozen=True)
class BatchJob:
    """Inputs and settings of a folder run; stored as ``run.json``.

    Parameters
    ----------
    inputs : tuple of str
        Image files, OME-Zarr images, and folders of them.
    prompts : str
        A prompt file; empty for models that bring their own.
    output : str
        Folder for the results.
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
    series : str
        Which images of files with several: numbers such as ``0,2``, ``all``, or empty
        for the first.
    channels : tuple of int or None
    skip_done : bool
        Skip images whose results are there already.
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
    series: str = ""
    channels: tuple[int, ...] | None = None
    skip_done: bool = False

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, list):
                object.__setattr__(self, f.name, tuple(value))
        if not self.inputs:
            raise ValueError(NO_INPUTS)
        if not self.output:
            raise ValueError(NO_OUTPUT)
        if not self.formats:
            raise ValueError(NO_FORMAT)
        unknown = sorted(set(self.formats) - set(FORMATS))
        if unknown:
            raise ValueError(
                UNKNOWN_FORMAT.format(
                    names=", ".join(unknown), known=", ".join(FORMATS)
                )
            )
        check_pattern(self.pattern)
        series_numbers(self.series)
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
                ("series", str),
                ("skip_done", bool),
                ("axes", str | None),
                ("channels", list | tuple | None),
            )
            if name in values and not isinstance(values[name], kind)
        ]
        wrong += [
            name
            for name, kind in (("inputs", str), ("formats", str), ("channels", int))
            if name not in wrong
            and not all(isinstance(v, kind) for v in values.get(name) or ())
        ]
        if wrong:
            raise ValueError(f"the job's {wrong[0]} is {values[wrong[0]]!r}")
        return cls(**values)

    def targets(self, image: str) -> dict[str, str]:
        """Return the path of each file that is written for an image, by format."""
        stem = file_stem(image, self.pattern, model=self.model, prompts=self.prompts)
        folder = PurePath(self.output)
        return {k: str(folder / with_end(stem, k, image)) for k in self.formats}


@dataclass(frozen=True)
class FileOutcome:
    """Outcome of one file of a folder run; a row of ``summary.csv``.

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
        Deviations from the settings, and warnings.
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
    fingerprint : str
        Of all that decides on the result, the pixels of the image among it.
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
    fingerprint: str = ""

    @property
    def skipped(self) -> bool:
        """Whether its files were there already."""
        return self.status == "skipped"


def check_pattern(pattern: str) -> None:
    """Raise ValueError for a name pattern that cannot name files.

    Examples
    --------
    >>> check_pattern("{name}_cells")
    """
    try:
        words = {word for _, word, _, _ in string.Formatter().parse(pattern)} - {None}
    except ValueError as error:
        raise ValueError(f"{PATTERN_NOT_CLOSED}, got {pattern!r}") from error
    if not words <= set(WORDS) or "name" not in words:
        raise ValueError(f"{PATTERN_FIELDS}, got {pattern!r}")
    if set(pattern) & set('/\\:*?"<>|'):
        raise ValueError(f"{PATTERN_FOLDERS}, got {pattern!r}")


def image_name(path: str) -> str:
    """Return an image's name without its ends.

    Examples
    --------
    >>> image_name("day1/cells.ome.tif"), image_name("plate.zarr/A/1/0")
    ('cells', 'plate_A_1_0')
    >>> image_name("cells.lif/2")
    'cells_2'
    """
    container, inner = _split_container(PurePath(path))
    stem = container.stem
    for end in (".zarr", ".ome"):
        stem = stem[: -len(end)] if stem.lower().endswith(end) else stem
    return "_".join((stem, *inner))


def _split_container(path: PurePath) -> tuple[PurePath, tuple[str, ...]]:
    """Return the file of an image, and the path inside it where it holds several."""
    for place in path.parents:
        if place.suffix.lower() in CONTAINERS:
            return place, path.relative_to(place).parts
    if path.name.isdecimal() and path.parent.suffix:  # a series of a file
        return path.parent, (path.name,)
    return path, ()


def file_label(path: str) -> str:
    """Return the name of an image as it is shown in a list.

    Examples
    --------
    >>> file_label("day1/cells.lif/2"), file_label("plate.zarr/A/1/0")
    ('cells.lif/2', 'plate.zarr/A/1/0')
    """
    container, inner = _split_container(PurePath(path))
    return "/".join((container.name, *inner))


def with_end(stem: str, kind: str, image: str = "") -> str:
    """Return the file name of a result in a format.

    Cellpose and scripts for its files find them by the name of the image, of which
    only the last end is left out.

    Examples
    --------
    >>> with_end("a_labels", "csv"), with_end("a_labels", "cellpose-seg")
    ('a_labels.csv', 'a_seg.npy')
    >>> with_end("a_labels", "cellpose-seg", "day1/a.ome.tif")
    'a.ome_seg.npy'
    """
    end = FORMATS[kind]
    if end[0] != "_":
        return f"{stem}{end}"
    is_ome = PurePath(image).stem.lower().endswith(".ome")
    return f"{stem.removesuffix(OWN_END)}{'.ome' if is_ome else ''}{end}"


def format_of(path: str) -> str | None:
    """Return the format that the end of a file name stands for; None for others.

    Examples
    --------
    >>> format_of("cells.ZIP"), format_of("a_seg.npy"), format_of("a.txt")
    ('rois', 'cellpose-seg', None)
    """
    ends = [kind for kind, end in FORMATS.items() if path.lower().endswith(end)]
    return ends[0] if ends else None


def series_numbers(text: str) -> tuple[int, ...]:
    """Return the numbers of series in a text; none for all and for the first.

    Raises
    ------
    ValueError
        For other words.

    Examples
    --------
    >>> series_numbers("0, 2"), series_numbers("all")
    ((0, 2), ())
    """
    words = text.replace(",", " ").split()
    if words in ([], [ALL_SERIES]):
        return ()
    if not all(word.isdecimal() for word in words):
        raise ValueError(BAD_SERIES.format(text=text))
    return tuple(dict.fromkeys(map(int, words)))


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
        folder=_split_container(PurePath(path))[0].parent.name,
        model=PurePath(model).name,
        prompts=PurePath(prompts).stem,
    )
