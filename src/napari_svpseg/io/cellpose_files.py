"""Labels in the files of Cellpose, and as NumPy arrays, written atomically."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile

from ..core.image import Axes
from .atomic import atomic_path
from .label_files import IDS_TOO_LARGE, labels_dtype
from .seg_npy import MASKS

MAX_OBJECTS = 2**24
"""Largest id in a ``_seg.npy``, which has an entry for each id up to it."""

ONE_PLANE = (
    "a PNG holds one plane, the labels have the axes {axes}: write cellpose-tif, in a "
    "file that ends in _cp_masks.tif"
)
PNG_TOO_SMALL = (
    "a PNG holds ids up to 65535, the labels have {largest}: write cellpose-tif, in a "
    "file that ends in _cp_masks.tif"
)
TOO_MANY = "a _seg.npy holds ids up to {limit}, the labels have {largest}"


def write_npy(path: Path, labels: np.ndarray, *, overwrite: bool = False) -> Path:
    """Write labels as a NumPy array of the smallest dtype that holds them."""
    values = _as_small(labels, labels_dtype(int(labels.max(initial=0))))
    return _written(path, overwrite, lambda file: np.save(file, values))


def write_masks_png(
    path: Path, labels: np.ndarray, *, axes: str, overwrite: bool = False
) -> Path:
    """Write a plane of labels as Cellpose's ``_cp_masks.png``, of 16 bits.

    Raises
    ------
    ValueError
        For a stack, and ids above 65535, which Cellpose writes as TIFF.
    """
    from PIL import Image

    if Axes(axes).stack:
        raise ValueError(ONE_PLANE.format(axes=axes))
    largest = int(labels.max(initial=0))
    if largest > np.iinfo(np.uint16).max:
        raise ValueError(PNG_TOO_SMALL.format(largest=largest))
    image = Image.fromarray(_as_small(labels, np.dtype(np.uint16)))
    return _written(path, overwrite, lambda file: image.save(file, "PNG"))


def write_masks_tif(
    path: Path, labels: np.ndarray, *, axes: str, overwrite: bool = False
) -> Path:
    """Write labels as Cellpose's ``_cp_masks.tif``, of 16 or 32 bits."""
    values = _as_small(labels, _mask_dtype(labels))
    with atomic_path(path, overwrite) as temporary:
        tifffile.imwrite(
            temporary,
            values,
            photometric="minisblack",
            compression="zlib",
            metadata={"axes": axes},
        )
    return path


def write_seg_npy(
    path: Path,
    labels: np.ndarray,
    *,
    axes: str,
    source: str = "",
    overwrite: bool = False,
) -> Path:
    """Write labels as a ``_seg.npy``, which Cellpose's window opens and edits.

    Parameters
    ----------
    path : path
        Cellpose looks for ``NAME_seg.npy`` beside the image ``NAME.tif``.
    labels : int array
    axes : str
        Axes of ``labels``.
    source : str
        Image that Cellpose's window opens with them; if it is not there, it looks for
        a file of that name beside the ``_seg.npy``.
    overwrite : bool
        Allow to replace a file that no run of this program wrote.
    """
    from skimage.segmentation import find_boundaries

    largest = int(labels.max(initial=0))
    if largest > MAX_OBJECTS:
        raise ValueError(TOO_MANY.format(limit=MAX_OBJECTS, largest=largest))
    values = _as_small(labels, _mask_dtype(labels))
    layout, edges = Axes(axes), np.zeros(values.shape, bool)
    for index in layout.plane_indices(values.shape):
        at = layout.plane_slices(index)
        edges[at] = find_boundaries(values[at], mode="inner")
    held: dict[str, Any] = {
        MASKS: values,
        "outlines": np.where(edges, values, 0).astype(values.dtype),
        "filename": source,
        "chan_choose": [0, 0],
        "ismanual": np.zeros(largest, bool),
        "diameter": _diameter(values),
    }
    return _written(path, overwrite, lambda file: np.save(file, held))  # type: ignore[arg-type]


def _diameter(labels: np.ndarray) -> float:
    """Return the median diameter of the objects in pixels, NaN without any."""
    areas = np.unique(labels[labels > 0], return_counts=True)[1]
    return float(2 * np.sqrt(np.median(areas) / np.pi)) if areas.size else float("nan")


def _mask_dtype(labels: np.ndarray) -> np.dtype[Any]:
    """Return uint16, or uint32 where it is needed, as Cellpose has masks."""
    dtype = labels_dtype(int(labels.max(initial=0)))
    if dtype == np.uint64:
        raise ValueError(IDS_TOO_LARGE)
    return max(dtype, np.dtype(np.uint16), key=lambda known: known.itemsize)


def _as_small(labels: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    return np.ascontiguousarray(labels, dtype)


def _written(path: Path, overwrite: bool, save: Callable[[BinaryIO], None]) -> Path:
    """Return the path after a function has written the file."""
    with atomic_path(path, overwrite) as temporary, open(temporary, "wb") as file:
        save(file)
    return path
