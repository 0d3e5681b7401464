"""Object ids: what a mask of any kind stands for, and ids of any size renumbered."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..image import ImageError

EIGHT_NEIGHBOURS = np.ones((3, 3), bool)
"""Pieces that meet at a corner are one piece, as in `skimage.measure.label`."""

DARK, BRIGHT = 50, 205
"""Limits of black and white in an 8-bit mask whose edges are blurred."""

MIN_BRIGHT_SHARE = 0.5
"""Share of the pixels above `DARK` that are white in such a mask.

Ids from 1 to 255 are spread over all grey values: about a quarter of their pixels would
be white.
"""

MIN_GREYS = 6
"""Grey values of a blurred mask; one with fewer may hold ids."""

MAX_WHOLE = 2.0**53
"""Floats below this tell neighbouring whole numbers apart."""

NOT_A_PLANE = "{what} must be one plane (Y, X), got shape {shape}"
COLOURED = (
    "{what} is a colour image, and colours are no ids: save the labels as a grey image "
    "of whole numbers"
)
NOT_NUMBERS = "{what} must hold whole numbers, got dtype {dtype}"
NOT_FINITE = "{what} holds NaN or infinite values, labels are whole numbers"
FRACTIONS = (
    "{what} holds fractions such as {value:.6g}, labels are whole numbers: give a "
    "label image, no image of intensities or probabilities"
)
NEGATIVE = "{what} holds negative ids: object ids start at 1"


class MaskError(ImageError):
    """A mask that cannot be understood; the message says why."""


def whole_numbers(mask: np.ndarray, what: str = "the mask") -> np.ndarray:
    """Return a mask as whole numbers of 0 and above.

    Parameters
    ----------
    mask : (Y, X) array
        Integers, booleans, or floats that are whole numbers, as ImageJ stores ids above
        65,535. A grey image that was saved as colours is one plane too.
    what : str
        Names it in errors.

    Returns
    -------
    (Y, X) int array
        Integers keep their dtype.

    Raises
    ------
    MaskError
        For colours, fractions, NaN, negative values, or another shape.
    """
    mask = np.asarray(mask)
    if mask.ndim == 3 and mask.shape[2] in (3, 4):
        mask = _grey(mask, what)
    if mask.ndim != 2:
        raise MaskError(NOT_A_PLANE.format(what=what, shape=mask.shape))
    if mask.dtype == bool:
        return mask.astype(np.uint8)
    if mask.dtype.kind == "f":
        if not np.isfinite(mask).all():
            raise MaskError(NOT_FINITE.format(what=what))
        fractions = (mask != np.round(mask)) | (np.abs(mask) > MAX_WHOLE)
        if fractions.any():
            value = float(mask[fractions][0])
            raise MaskError(FRACTIONS.format(what=what, value=value))
        mask = mask.astype(np.int64)
    if mask.dtype.kind not in "iu":
        raise MaskError(NOT_NUMBERS.format(what=what, dtype=mask.dtype))
    if mask.min(initial=0) < 0:
        raise MaskError(NEGATIVE.format(what=what))
    return mask


def _grey(mask: np.ndarray, what: str) -> np.ndarray:
    """Return the one plane of a grey image with three equal channels (and alpha)."""
    if (mask[..., 1:3] != mask[..., :1]).any():
        raise MaskError(COLOURED.format(what=what))
    return mask[..., 0]


def as_objects(mask: np.ndarray) -> np.ndarray:
    """Return a mask with an id for each object.

    In a mask with a single id, such as one of 0 and 255, each piece becomes an object
    of its own. This holds for masks of all origins: files, layers and arrays.

    Parameters
    ----------
    mask : (Y, X) int array
        0 is background; values below 0 stay as they are.

    Returns
    -------
    (Y, X) int array
        The mask itself if it has several ids or one piece only.

    Examples
    --------
    >>> as_objects(np.array([[255, 0, 255]]))
    array([[1, 0, 2]], dtype=int32)
    """
    if not is_binary(mask):
        return mask
    pieces, n = ndimage.label(mask > 0, EIGHT_NEIGHBOURS)
    if n <= 1:
        return mask
    pieces = np.asarray(pieces)
    return np.where(mask < 0, mask.astype(pieces.dtype), pieces)


def is_binary(mask: np.ndarray) -> bool:
    """Return whether a mask has a single id above 0."""
    largest = mask.max(initial=0)
    return bool(largest > 0) and not ((mask > 0) & (mask < largest)).any()


def black_and_white(mask: np.ndarray) -> np.ndarray | None:
    """Return a black and white mask whose edges were blurred as 0 and 255, else None.

    JPEG and smoothing turn 0 and 255 into many grey values, each of which would be an
    object.

    Parameters
    ----------
    mask : (Y, X) int array
    """
    if mask.dtype != np.uint8 or is_binary(mask):
        return None
    n = np.bincount(mask.ravel(), minlength=256)
    if np.count_nonzero(n) < MIN_GREYS:
        return None
    blurred = n[BRIGHT:].sum() >= MIN_BRIGHT_SHARE * n[DARK + 1 :].sum() > 0
    return np.where(mask > 127, np.uint8(255), np.uint8(0)) if blurred else None


def count_objects(labels: np.ndarray) -> int:
    """Return the number of ids above 0.

    Examples
    --------
    >>> count_objects(np.array([0, 3, 3, 9])), count_objects(np.array([-1, 0]))
    (2, 0)
    """
    return int(present_ids(labels).size)


def present_ids(labels: np.ndarray) -> np.ndarray:
    """Return the ids above 0 that occur, in order.

    Examples
    --------
    >>> present_ids(np.array([[0, 3], [9, 3]])).tolist()
    [3, 9]
    """
    above = labels[labels > 0]
    if above.size and above.max() <= labels.size:  # counting is faster than sorting
        return np.flatnonzero(np.bincount(above.astype(np.int64)))
    return np.unique(above)


def compact_ids(labels: np.ndarray) -> np.ndarray:
    """Return labels whose ids are no larger than the number of pixels.

    Much in numpy and scipy takes memory for every id up to the largest: 16 GB where one
    is 2e9. The order of the ids stays; 0 and negative values stay what they are.

    Examples
    --------
    >>> compact_ids(np.array([[0, 2_000_000_000, 7, -1]]))
    array([[ 0,  2,  1, -1]])
    """
    if labels.max(initial=0) <= labels.size:
        return labels
    values, ranks = np.unique(labels, return_inverse=True)
    new = np.minimum(values, 0).astype(np.int64)
    above = values > 0
    new[above] = np.arange(1, np.count_nonzero(above) + 1)
    return new[ranks.reshape(labels.shape)]
