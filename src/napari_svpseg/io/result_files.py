"""What a file that we may have written is, told from its name and its first bytes.

Nothing here reads pixels, and no file makes it fail: what cannot be read is not ours.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, Literal

import tifffile

from .foreign_package import DESCRIPTIONS
from .images import TIFF_SUFFIXES, quiet_tifffile
from .model_store import CARD, WEIGHTS
from .ownership import PROGRAM, zarr_attributes
from .zarr_stores import is_zarr_folder

Kind = Literal["labels", "outlines", "model", "session", ""]

SESSION_END = ".svpsession"
"""End of the name of a saved session."""

LABELS_ENDS = ("_labels", "_cp_masks")
"""Ends, before the suffix, of names that stand for labels."""
SEG_END = "_seg.npy"

OURS_IN_TIFF = (f"{PROGRAM}", "weights_sha256")
"""Texts, one of which is in the OME-XML of labels that a run wrote."""

MAX_HEAD = 4_096
"""Bytes that are looked at to know a GeoJSON."""


def kind_of_result(path: str | Path) -> Kind:
    """Return what a file or folder of ours is; empty for all others.

    Parameters
    ----------
    path : path

    Returns
    -------
    str
        ``labels``: ids as pixels. ``outlines``: ImageJ ROIs or GeoJSON, which need an
        image. ``model``: a model folder, the zip of one, or a package of bioimage.io.
        ``session``. Empty: neither, or nothing that can be read.
    """
    try:
        return _kind(Path(path))
    except Exception:  # noqa: BLE001  (a damaged file makes its readers raise anything)
        return ""


def image_stem(path: str | Path) -> str:
    """Return the name of the image that labels with this file name belong to.

    Examples
    --------
    >>> image_stem("day1/cells_labels.ome.tif"), image_stem("a_seg.npy")
    ('cells', 'a')
    """
    stem = PurePath(path).name.split(".")[0]
    for end in (*LABELS_ENDS, "_seg", "_rois", "_masks"):
        if stem.lower().endswith(end):
            return stem[: -len(end)]
    return stem


def _kind(path: Path) -> Kind:
    name = path.name.lower()
    if path.is_dir():
        if is_zarr_folder(path):
            return "labels" if _is_zarr_of_labels(path) else ""
        is_model = (path / CARD).is_file() and (path / WEIGHTS).is_file()
        return "model" if is_model else ""
    if name.endswith(SESSION_END):
        return "session"
    if name.endswith(SEG_END):
        return "labels"
    if name.endswith(".roi"):
        return "outlines"
    if name.endswith((".geojson", ".json")):
        return "outlines" if _is_geojson(path) else ""
    if name.endswith(".zip"):
        return _kind_of_zip(path)
    if name.endswith(TIFF_SUFFIXES):
        return "labels" if _is_tiff_of_labels(path) else ""
    return "labels" if name.endswith("_cp_masks.png") else ""


def _is_zarr_of_labels(path: Path) -> bool:
    attributes = zarr_attributes(path)
    held = attributes.get("ome", attributes)
    if "svpseg" in attributes or "image-label" in held:
        return True
    if "multiscales" in held:  # an image, with or without labels of it
        return False
    inside = path / "labels"
    return inside.is_dir() and any(
        "svpseg" in zarr_attributes(group) for group in inside.iterdir()
    )


def _is_geojson(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(MAX_HEAD).lstrip()
    is_collection = b'"FeatureCollection"' in head or b'"Feature"' in head
    return head[:1] in (b"{", b"[") and is_collection


def _kind_of_zip(path: Path) -> Kind:
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if not n.endswith("/")]
        is_ours = archive.comment.startswith(PROGRAM.encode())
    ends = {PurePath(n).name for n in names}
    if {CARD, WEIGHTS} <= ends or ends & set(DESCRIPTIONS):
        return "model"
    are_rois = all(n.lower().endswith(".roi") for n in names)
    return "outlines" if are_rois and (names or is_ours) else ""


def _is_tiff_of_labels(path: Path) -> bool:
    stem = path.name.split(".")[0].lower()
    with quiet_tifffile(), tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        if (
            page.dtype is None
            or page.dtype.kind not in "iu"
            or page.samplesperpixel > 1
        ):
            return False
        told = tiff.ome_metadata or ""
    return any(text in told for text in OURS_IN_TIFF) or stem.endswith(LABELS_ENDS)


def geojson_features(path: str | Path) -> list[dict[str, Any]]:
    """Return the properties of each feature of a GeoJSON; none where it is damaged.

    Parameters
    ----------
    path : path

    Returns
    -------
    list of dict
        ``label`` : int, ``class`` and ``color`` (``#rrggbb``) where the file has them,
        and the measurements by name.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        return list(_rows(values))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []


def _rows(values: Any) -> Iterator[dict[str, Any]]:
    for feature in values["features"]:
        known = feature.get("properties") or {}
        if not isinstance(known.get("label"), int):
            continue
        row: dict[str, Any] = {"label": known["label"]}
        told = known.get("classification") or {}
        if "name" in told:
            row["class"] = str(told["name"])
            red, green, blue = (int(n) for n in told.get("color", (255, 255, 0)))
            row["color"] = f"#{red:02x}{green:02x}{blue:02x}"
        measured = known.get("measurements") or {}
        yield row | {
            str(k): float(v) for k, v in measured.items() if isinstance(v, int | float)
        }
