"""Which images of files and folders a run takes: series, fields, sets, no masks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import tifffile

from ..core.image import ImageError
from ..core.jobs.folder_job import ALL_SERIES, image_name, series_numbers
from .images import list_series, quiet_tifffile
from .ome_zarr import is_zarr, list_images
from .tiff_series import ome_sets

MASK_ENDS = re.compile(
    r"[ _.-](cp[_-]?(masks?|outlines?|output)|seg|masks?|labels?|flows?|outlines?|"
    r"probabilities|simple segmentation|object[ _](predictions|identities)|gt)$",
    re.IGNORECASE,
)
"""What Cellpose, ilastik and others add to the name of an image for its masks."""

MASK_STARTS = ("mask of ", "mask_of_")
"""What ImageJ writes before the name of an image."""

OME_ENDS = (".ome.tif", ".ome.tiff", ".ome.btf", ".ome.tf2", ".ome.tf8")


def names_of_images(path: str | Path) -> list[str]:
    """Return index and name of each image in a file, or in a Zarr group.

    Raises
    ------
    ImageError
        If a file cannot be read.
    """
    if is_zarr(path):
        inside, _ = list_images(path)
        return [f"{i} {name}" for i, name in enumerate(inside)] or ["0"]
    return list_series(path)


def with_series(paths: Iterable[Path], series: str) -> list[Path]:
    """Return the images to be segmented of files that may hold several.

    Parameters
    ----------
    paths : iterable of path
    series : str
        Numbers, ``all``, or empty for the first image of each file. Of a plate (HCS)
        all fields are taken then.

    Returns
    -------
    list of Path
        Such as ``cells.lif/2`` or ``plate.zarr/A/1/0``, see `images.split_series`.
    """
    return [image for path in paths for image in _images_of(path, series)]


def _images_of(path: Path, series: str) -> list[Path]:
    if is_zarr(path):
        inside, is_plate = list_images(path)
        if not (series or is_plate):
            return [path]
        places = [path / name for name in inside] or [path]
    elif series:
        try:
            n = len(list_series(path))
        except ImageError:  # reading it names the reason
            return [path]
        places = [path / str(i) for i in range(n)] if n > 1 else [path]
    else:
        return [path]
    if series in ("", ALL_SERIES):
        return places
    numbers = series_numbers(series)
    # a number that is not there is an image that fails, and is named
    return [places[i] if i < len(places) else path / str(i) for i in numbers]


def without_masks(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return images, and the masks among them that lie beside their images.

    Examples
    --------
    >>> without_masks([Path("a.tif"), Path("a_cp_masks.png"), Path("b_mask.tif")])[1]
    [PosixPath('a_cp_masks.png')]
    """
    stems = {image_name(str(path)).lower() for path in paths}
    masks = [path for path in paths if _is_mask_of(path, stems)]
    return [path for path in paths if path not in set(masks)], masks


def _is_mask_of(path: Path, stems: set[str]) -> bool:
    """Return whether a file is called as the mask of an image of that name."""
    name = image_name(str(path)).lower()
    for start in MASK_STARTS:
        if name.startswith(start) and name.removeprefix(start) in stems:
            return True
    found = MASK_ENDS.search(name)
    # Cellpose leaves out the last end of a name only: cells.ome_cp_masks.tif
    return found is not None and name[: found.start()].removesuffix(".ome") in stems


def without_set_members(paths: Sequence[Path]) -> list[Path]:
    """Return image files, each set of OME-TIFFs by its first file only.

    Any file of a set stands for the whole image.
    """
    taken: dict[Path, list[Path]] = {}  # of each folder, the OME-TIFFs before
    kept = []
    for path in paths:
        if path.name.lower().endswith(OME_ENDS) and path.is_file():
            before = taken.setdefault(path.parent, [])
            sets = _sets_of(path)
            own = [names for names in sets if path.name in names]
            if own and all(any(b.name in names for b in before) for names in own):
                continue
            if sets:
                before.append(path)
        kept.append(path)
    return kept


def _sets_of(path: Path) -> list[set[str]]:
    """Return the file names of each image that an OME-TIFF describes."""
    try:
        with quiet_tifffile(), tifffile.TiffFile(path) as tiff:
            return ome_sets(tiff.ome_metadata or "")
    except Exception:  # noqa: BLE001  (reading it will name the reason)
        return []
