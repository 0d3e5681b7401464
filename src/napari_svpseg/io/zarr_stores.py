"""Zarr on the disk: folders, zip files, and groups that hold several images."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

from ..core.image import ImageError

METADATA = (".zattrs", ".zgroup", ".zarray", "zarr.json")
"""Files that make a folder a Zarr group or array."""

ZIP_SUFFIXES = (".zip", ".ozx")
"""Ends of the names of zip files; ``.ozx`` is OME-Zarr's own."""

ZARR_MISSING = "Zarr is not installed: pip install 'napari-svpseg[zarr]'"
WRITER_MISSING = (
    "ome-zarr, which writes OME-Zarr, is not installed: pip install "
    "'napari-svpseg[zarr]'"
)


def import_zarr() -> Any:
    """Return the optional package zarr.

    Raises
    ------
    ImageError
        If it is not installed, with the command that installs it.
    """
    try:
        import zarr
    except ImportError as error:
        raise ImageError(ZARR_MISSING) from error
    return zarr


def check_writable() -> None:
    """Check that OME-Zarr can be written, before the work and not after it.

    Raises
    ------
    ImageError
        If ome-zarr is not installed, with the command that installs it. Other packages
        bring zarr without it.
    """
    if find_spec("ome_zarr") is None:
        raise ImageError(WRITER_MISSING)


def is_zarr_folder(path: str | Path) -> bool:
    """Return whether a path is the folder of a Zarr group or array."""
    # those of `os.path` raise no error, whatever a folder's permissions
    return any(os.path.isfile(Path(path) / name) for name in METADATA)


def is_zipped_zarr(path: str | Path) -> bool:
    """Return whether a path is a Zarr in a zip file, or a group inside of one."""
    archive, inner = split_zip(path)
    return archive is not None and _root_of(archive, inner) is not None


def split_zip(path: str | Path) -> tuple[Path | None, str]:
    """Return the zip file that a path is or leads into, and the path inside."""
    path = Path(path)
    for place in (path, *path.parents):
        if place.suffix.lower() in ZIP_SUFFIXES and os.path.isfile(place):
            return place, path.relative_to(place).as_posix().strip(".")
    return None, ""


def open_node(path: str | Path) -> Any:
    """Return the Zarr group or array of a folder or zip file, to be read."""
    zarr = import_zarr()
    archive, inner = split_zip(path)
    if archive is None:
        return zarr.open(Path(path), mode="r")
    root = _root_of(archive, inner)
    store = zarr.storage.ZipStore(archive, mode="r")
    return zarr.open(store, mode="r", path=root or None)


def image_groups(node: Any) -> list[str]:
    """Return the paths of the images inside a group that is none itself.

    They are the fields of a plate or a well (HCS), or the series of a container of
    bioformats2raw; empty for an image or an array.
    """
    return [name for name in _listed_images(node) if _is_inside(name)]


def _is_inside(name: str) -> bool:
    """Return whether a path leads down: any group may be written that lists others."""
    parts = PurePosixPath(name).parts
    return bool(parts) and parts[0] != "/" and ".." not in parts


def _listed_images(node: Any) -> list[str]:
    attributes = ome_attributes(node)
    if "multiscales" in attributes:
        return []
    if "plate" in attributes:
        wells = [str(well["path"]) for well in attributes["plate"]["wells"]]
        return [f"{well}/{field}" for well in wells for field in _fields(node, well)]
    if "well" in attributes:
        return [str(image["path"]) for image in attributes["well"]["images"]]
    if "bioformats2raw.layout" not in attributes:
        return []
    listed = ome_attributes(node["OME"]).get("series") if "OME" in node else None
    if listed:
        return [str(name) for name in listed]
    # without a list they are numbered from 0
    names: list[str] = []
    while str(len(names)) in node:
        names.append(str(len(names)))
    return names


def is_plate(node: Any) -> bool:
    """Return whether a group is a plate or a well, whose fields are images each."""
    return bool({"plate", "well"} & ome_attributes(node).keys())


def ome_attributes(node: Any) -> Mapping[str, Any]:
    """Return the attributes of OME-Zarr, which have a key of their own since 0.5."""
    attributes = dict(node.attrs)
    ome = attributes.get("ome", attributes)
    return ome if isinstance(ome, Mapping) else {}


def _fields(node: Any, well: str) -> list[str]:
    """Return the paths of the fields of a well; wells may be planned and absent."""
    if well not in node:
        return []
    images = ome_attributes(node[well]).get("well", {}).get("images", [])
    return [str(image["path"]) for image in images]


def _root_of(archive: Path, inner: str) -> str | None:
    """Return where a group or array is inside a zip file, or None.

    The zip may hold the content of a Zarr folder, or the folder itself.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            names = file.namelist()
    except (OSError, zipfile.BadZipFile):
        return None
    places = {
        PurePosixPath(name).parent
        for name in names
        if PurePosixPath(name).name in METADATA
    }
    if not places:
        return None
    root = min(places, key=lambda place: len(place.parts))
    wanted = root / inner if inner else root
    return wanted.as_posix().removeprefix(".") if wanted in places else None
