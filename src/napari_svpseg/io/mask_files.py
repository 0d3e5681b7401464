"""Label images from files of any kind, as whole numbers."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import tifffile

from ..core.errors import short_line
from ..core.image import ImageError
from ..core.labels.ids import MaskError, black_and_white, is_binary, whole_numbers
from .images import TIFF_SUFFIXES, check_readable, quiet_tifffile, read_image

LOSSY_SUFFIXES = (".jpg", ".jpeg")
LOSSY_TIFF = {"JPEG", "OJPEG", "JPEG_LOSSY", "ALT_JPEG"}
"""Names that tifffile has for compressions which change values."""

NOT_A_MASK = (
    "{path}: labels are one plane of whole numbers, this file has the axes {axes}."
)
LOSSY = (
    "{path}: JPEG has changed its values, so that ids cannot be told any more: save "
    "the labels as PNG or TIFF."
)
BLURRED = (
    "%s: black and white with blurred edges (JPEG or smoothing); taken as 0 and 255, "
    "halfway between"
)
INVERTED = "%s: says that 0 is white; taken as viewers show it, white are the objects"
UNREADABLE = "{path}: cannot be read, it may be damaged ({reason})."

logger = logging.getLogger(__name__)


def read_mask(path: str | Path) -> np.ndarray:
    """Return the labels in an image file, which must be one plane.

    Float images of whole numbers become integers, as ImageJ has no other type for ids
    above 65,535. Of images with a palette the indices are the ids. What the file says
    in another way than by ids is logged: black and white masks blurred by JPEG, and
    masks in which 0 is white.

    Parameters
    ----------
    path : path

    Returns
    -------
    (Y, X) int array

    Raises
    ------
    ImageError
        If the file cannot be read, is no plane, or holds colours, fractions or ids that
        JPEG has changed; one line that names it.
    """
    path = Path(path)
    check_readable(path)
    suffix = path.suffix.lower()
    is_lossy = suffix in LOSSY_SUFFIXES
    if suffix in TIFF_SUFFIXES:
        values, is_lossy = _of_tiff(path)
    else:
        indices = _palette_indices(path)
        values = _of_image(path) if indices is None else indices
    try:
        values = whole_numbers(values, f"{path}:")
    except MaskError as error:
        raise ImageError(f"{error}.") from error
    blurred = black_and_white(values)
    if blurred is not None:
        logger.warning(BLURRED, path)
        return blurred
    if is_lossy and not is_binary(values) and values.any():
        raise ImageError(LOSSY.format(path=path))
    return values


def _of_image(path: Path) -> np.ndarray:
    """Return the plane of a file, or colours (Y, X, C)."""
    image = read_image(path)
    if image.axes.order != "YX" and not image.rgb:
        raise ImageError(NOT_A_MASK.format(path=path, axes=image.axes.order))
    return np.asarray(image.array)


def _of_tiff(path: Path) -> tuple[np.ndarray, bool]:
    """Return the plane of a TIFF as it is stored, and whether JPEG has changed it."""
    try:
        with quiet_tifffile(), tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            is_lossy = page.compression.name in LOSSY_TIFF
            white_is_zero = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
            is_palette = page.photometric == tifffile.PHOTOMETRIC.PALETTE
            # ImageJ inverts how it shows a mask, and not the mask: 255 are objects
            white_is_zero = white_is_zero and not tiff.is_imagej
            one_value = page.samplesperpixel == 1
            stored = tiff.series[0].asarray() if one_value else None
    except Exception as error:  # a damaged file makes the library raise anything
        reason = short_line(error)
        raise ImageError(UNREADABLE.format(path=path, reason=reason)) from error
    # a reader of images shows palettes and inverted values as colours and intensities
    if stored is None or not (white_is_zero or is_palette):
        return _of_image(path), is_lossy
    stack = tuple(n for n in stored.shape[:-2] if n > 1)
    values = stored.reshape(*stack, *stored.shape[-2:])
    if white_is_zero and np.unique(values).size <= 2:
        logger.warning(INVERTED, path)
        values = values == 0
    return values, is_lossy


def _palette_indices(path: Path) -> np.ndarray | None:
    """Return the indices of a PNG, GIF or BMP with a palette, or None."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image) if image.mode in ("P", "1") else None
    except (OSError, ValueError, Image.DecompressionBombError):
        return None  # `read_image` says what is wrong
