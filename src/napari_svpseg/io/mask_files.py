"""Label images from files of any kind, as whole numbers."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import tifffile

from ..core.image import ImageError
from ..core.labels.ids import MaskError, black_and_white, is_binary, whole_numbers
from .bitmaps import JPEG_START
from .images import quiet_tifffile, read_image, starts_as_tiff

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
    image = read_image(path, as_ids=True)
    if image.axes.order not in ("YX", "YXC"):
        raise ImageError(NOT_A_MASK.format(path=path, axes=image.axes.order))
    is_lossy, is_inverted = _how_stored(Path(path))
    try:
        values = whole_numbers(np.asarray(image.array), f"{path}:")
    except MaskError as error:
        raise ImageError(f"{error}.") from error
    blurred = black_and_white(values)
    if blurred is not None:
        logger.warning(BLURRED, path)
        return blurred
    if is_lossy and not is_binary(values) and values.any():
        raise ImageError(LOSSY.format(path=path))
    if is_inverted and is_binary(values):
        logger.warning(INVERTED, path)
    return values


def _how_stored(path: Path) -> tuple[bool, bool]:
    """Return whether JPEG has changed the values of a file, and whether 0 is white.

    ImageJ inverts how it shows a mask, and not the mask: 255 are objects.
    """
    if not path.is_file():
        return False, False
    if not starts_as_tiff(path):
        with path.open("rb") as file:
            return file.read(2) == JPEG_START, False
    with quiet_tifffile(), tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        is_inverted = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
        return page.compression.name in LOSSY_TIFF, is_inverted and not tiff.is_imagej
