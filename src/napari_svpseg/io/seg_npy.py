"""Labels in NumPy files: arrays, and the ``_seg.npy`` of Cellpose's window.

A ``_seg.npy`` is a pickle, which may run code when it is opened by ordinary means.
Here it is opened with an unpickler that makes arrays and plain containers only.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from ..core.image import ImageError

MASKS = "masks"
"""Key of the labels in Cellpose's dictionary."""

ALLOWED: dict[tuple[str, str], Any] = {
    (module, name): value
    for module in ("numpy", "numpy._core.multiarray", "numpy.core.multiarray")
    for name, value in {
        "_reconstruct": np.zeros(0).__reduce__()[0],
        "scalar": np.float64(0).__reduce__()[0],
        "ndarray": np.ndarray,
        "dtype": np.dtype,
    }.items()
}
"""What a pickle may name, by module and name; only arrays, scalars and dtypes."""

ALLOWED |= {
    (module, f"{kind}Path"): lambda *parts: "/".join(parts)
    for module in ("pathlib", "pathlib._local")
    for kind in ("Posix", "Windows", "PurePosix", "PureWindows")
}
"""Paths of images, which become plain text."""

NO_OBJECT = -1
"""Background in the masks of the first versions of Cellpose, whose ids begin at 0."""

NOT_PLAIN = (
    "it is a pickle that holds more than arrays and plain values ({name}), and is "
    "refused, as it could run code: save its masks as TIFF"
)
NO_IMAGE = "it holds labels of Cellpose, and not an image: give it as labels"
NO_MASKS = "it is a pickle without {key!r}: save the labels as TIFF or .npy of numbers"


def read_npy(path: Path, *, as_ids: bool) -> np.ndarray:
    """Return the array in a ``.npy`` file, or the masks in a ``_seg.npy`` of Cellpose.

    Parameters
    ----------
    path : path
    as_ids : bool
        Labels are wanted, and not an image.

    Raises
    ------
    ImageError
        If it is another pickle, or holds masks where an image is wanted.
    """
    with path.open("rb") as file:
        version = npy.read_magic(file)
        header: dict[tuple[int, int], Callable[..., Any]] = {
            (1, 0): npy.read_array_header_1_0,
            (2, 0): npy.read_array_header_2_0,
        }
        read_header = header.get(version)
        if read_header is None:  # names in UTF-8, as structured arrays may have
            return np.asarray(np.load(path, allow_pickle=False))
        _, _, dtype = read_header(file)
        if not dtype.hasobject:
            return np.asarray(np.load(path, allow_pickle=False))
        held = _Unpickler(file).load()
    if isinstance(held, np.ndarray) and held.shape == () and held.dtype.hasobject:
        held = held.item()
    masks = held.get(MASKS) if isinstance(held, dict) else None
    if not isinstance(masks, np.ndarray) or masks.dtype.hasobject:
        raise ImageError(NO_MASKS.format(key=MASKS))
    if not as_ids:
        raise ImageError(NO_IMAGE)
    if masks.ndim > 2 and masks.shape[0] == 1:
        masks = masks[0]
    if masks.dtype.kind == "i" and masks.min(initial=0) == NO_OBJECT:
        masks = masks + 1  # as Cellpose itself does
    return masks


class _Unpickler(pickle.Unpickler):
    """Makes arrays, scalars and plain containers, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise ImageError(NOT_PLAIN.format(name=f"{module}.{name}")) from None
