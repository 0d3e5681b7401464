"""Exports: labels of every kind in every format, read back by another library."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import roifile
import tifffile
from skimage.io import imread

from napari_svpseg.core.jobs.folder_job import FORMATS
from napari_svpseg.io.exports import ExportData, export
from napari_svpseg.io.images import quiet_tifffile

from ..case import Action, Case, Check, Place, Seen, either, refused, right
from ..scene import discs


def cases() -> Iterator[Case]:
    """Yield the cases of this group."""
    labels = discs()[1].astype(np.int64)
    valid: dict[str, np.ndarray] = {
        dtype: labels.astype(dtype)
        for dtype in ("uint8", "int8", "int16", "uint32", "int32", "uint64", "int64")
    }
    valid |= {
        "no object": labels * 0,
        "gaps in the ids": labels * 1000,
        "ids at 2e9": labels * 400_000_000,
        "one pixel": np.ones((1, 1), np.uint8),
        "one row": labels[20:21],
        "one column": labels[:, 24:25],
        "all one object": np.ones((50, 60), np.uint16),
        "at the border": np.pad(np.zeros((5, 5), np.uint8), 3, constant_values=2),
        "single pixels": np.where((labels * 0 + np.arange(96)) % 2 == 0, 1, 0) * _ids(),
        "with holes": np.where(np.roll(labels, 3) > 0, 0, labels),
        "in two pieces": np.where(labels > 0, 1, 0),
        "not contiguous": labels[::-2, ::3],
        "read-only": np.broadcast_to(np.uint16(3), (20, 20)),
    }
    bad: dict[str, np.ndarray] = {
        "negative": labels - 3, "fractions": labels * 0.5, "NaN": labels * np.nan,
        "complex": labels.astype(complex), "text": labels.astype("U3"),
        "one axis": labels[0], "empty": labels[:0], "four axes": labels[None, None],
    }  # fmt: skip
    for kind in FORMATS:
        for name, array in valid.items():
            yield Case(
                "exports",
                f"{kind} of {name}",
                partial(_export, kind, array, {}),
                right(READ[kind](array)) if _fits(kind, array) else refused(),
            )
        for name, array in bad.items():
            yield Case(
                "exports",
                f"{kind} of {name}",
                partial(_export, kind, array, {}),
                refused(),
            )
        for name, size in {
            "0": (0.0, 0.0), "negative": (-1.0, 1.0), "NaN": (float("nan"), 1.0),
            "inf": (float("inf"), 1.0), "1e-300": (1e-300, 1e-300),
        }.items():  # fmt: skip
            more = {"pixel_size": size, "unit": "um"}
            yield Case(
                "exports",
                f"{kind}, pixel size {name}",
                partial(_export, kind, labels, more),
                either(READ[kind](labels)),
            )
        for unit in ("", "parsec", "µm", "<um>", "\x00", "x" * 1000):
            more = {"pixel_size": (0.5, 0.5), "unit": unit}
            yield Case(
                "exports",
                f"{kind}, unit {unit[:8]!r}",
                partial(_export, kind, labels, more),
                either(READ[kind](labels)),
            )
        for target in ("gone/a", "/dev/null/a", "x" * 300):
            yield Case(
                "exports",
                f"{kind} to {target[:12]}".replace("/", "|"),
                partial(_to, kind, target),
                either(lambda here, seen: None, target[:99]),
            )


def _fits(kind: str, labels: np.ndarray) -> bool:
    """Return whether a format can hold these ids; those of Cellpose are small."""
    limit = {"cellpose-png": 2**16 - 1, "cellpose-seg": 2**24}.get(kind, 2**32 - 1)
    return bool(labels.max(initial=0) <= limit) or kind == "npy"


def _ids() -> np.ndarray:
    return np.arange(1, 96 * 96 + 1).reshape(96, 96)


def _export(
    kind: str, labels: np.ndarray, more: dict[str, Any], place: Place
) -> Action:
    return lambda: export(f"a{FORMATS[kind]}", kind, ExportData(labels, **more))


def _to(kind: str, target: str, place: Place) -> Action:
    data = ExportData(discs()[1])
    return lambda: export(f"{target}{FORMATS[kind]}", kind, data)


def _ome_tiff(labels: np.ndarray) -> Check:
    def check(here: Path, seen: Seen) -> None:
        with quiet_tifffile(), tifffile.TiffFile(here / "a.ome.tif") as tiff:
            series = tiff.series[0]
            assert series.kind == "ome", "its OME-XML cannot be read"
            assert np.array_equal(series.asarray(), labels)

    return check


def _zarr(labels: np.ndarray) -> Check:
    def check(here: Path, seen: Seen) -> None:
        import zarr

        group = zarr.open_group(here / "a.zarr", mode="r")
        while "labels" in group:
            group = group["labels"][next(iter(group["labels"].group_keys()))]
        assert np.array_equal(group["0"][:], labels)

    return check


def _csv(labels: np.ndarray) -> Check:
    def check(here: Path, seen: Seen) -> None:
        with open(here / "a.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        areas = np.unique(labels[labels > 0], return_counts=True)
        found = {
            int(r["label"]): round(float(r["area_px"] if "area_px" in r else r["area"]))
            for r in rows
        }
        assert found == dict(zip(*(a.tolist() for a in areas), strict=True))

    return check


def _geojson(labels: np.ndarray) -> Check:
    from shapely.geometry import shape

    def check(here: Path, seen: Seen) -> None:
        values = json.loads((here / "a.geojson").read_text())
        features = values if isinstance(values, list) else values["features"]
        area = sum(shape(f["geometry"]).area for f in features)
        assert len(features) == len(np.unique(labels[labels > 0])), "other objects"
        assert area == np.count_nonzero(labels), f"area {area}"

    return check


def _rois(labels: np.ndarray) -> Check:
    def check(here: Path, seen: Seen) -> None:
        if not labels.any() and not (here / "a.zip").exists():
            return
        rois = roifile.roiread(here / "a.zip") if labels.any() else []
        rois = rois if isinstance(rois, list) else [rois]
        assert len(rois) == len(np.unique(labels[labels > 0])), f"{len(rois)} ROIs"

    return check


def _pixels(
    name: str, read: Callable[[Path], np.ndarray]
) -> Callable[[np.ndarray], Check]:
    def of(labels: np.ndarray) -> Check:
        def check(here: Path, seen: Seen) -> None:
            assert np.array_equal(read(here / name), labels)

        return check

    return of


def _held(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = np.load(path, allow_pickle=True).item()
    return values


READ: dict[str, Callable[[np.ndarray], Check]] = {
    "ome-tiff": _ome_tiff, "ome-zarr": _zarr, "csv": _csv, "geojson": _geojson,
    "rois": _rois, "cellpose-png": _pixels("a_cp_masks.png", imread),
    "cellpose-tif": _pixels("a_cp_masks.tif", tifffile.imread),
    "cellpose-seg": _pixels("a_seg.npy", lambda path: _held(path)["masks"]),
    "npy": _pixels("a.npy", np.load),
}  # fmt: skip
"""Check of each format, which reads it with a library that is not ours."""
