"""Partial labels: what is known of an image, pixel by pixel, and what is not.

Partial labels are an int array of the image's height and width: 0 = unknown,
1 = background, 2, 3, ... = objects (or classes). Scribbles already have this form;
functions here bring complete objects, boxes and corrections of a result into it, and
keep a part of it back to check a model with.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from scipy import ndimage

from ..geometry import Box
from ..jobs.finetune_job import FineTuneError

Array = np.ndarray

UNLABELLED, BACKGROUND, FIRST_OBJECT = 0, 1, 2
UNKNOWN = -1
"""In ids (0 = background, 1, 2, ... = objects): nothing is known of this pixel."""

FEWEST_PIXELS = 25
"""Fewer labelled pixels than this teach nothing."""
JOINED = 6
"""Labels at most this many pixels apart belong to one region."""
EDGE = 2
"""Pixels beside unknown ones at which borders of objects are not known."""
EIGHT = np.ones((3, 3), bool)


class PartialLabelError(FineTuneError):
    """Partial labels that cannot be used; the message says what to do."""


# ---------------------------------------------------------------- forms of labels


def from_labels(
    labels: Array, boxes: Iterable[Box | Sequence[int]] | None = None
) -> Array:
    """Return partial labels of ordinary ones: all of it, or what lies in boxes.

    Parameters
    ----------
    labels : (Y, X) int array
        Object or class ids, 0 = background.
    boxes : iterable of Box or (y, x, height, width), optional
        Inside them everything is labelled; outside nothing is known. By default all
        of the image is labelled.

    Returns
    -------
    (Y, X) int32 array
        0 = unknown, 1 = background, ids + 1 elsewhere.

    Examples
    --------
    >>> labels = np.zeros((40, 40), int); labels[2:8, 2:8] = 5
    >>> sorted(np.unique(from_labels(labels, [Box(0, 0, 16)])).tolist())
    [0, 1, 6]
    """
    labels = _whole_numbers(labels, "labels")
    partial = (labels + 1).astype(np.int32)
    if boxes is None:
        return partial
    inside = np.zeros(labels.shape, bool)
    for box in boxes:
        where = box.slices if isinstance(box, Box) else _slices(box)
        if not inside[where].size:
            raise PartialLabelError(
                f"The box {box} lies outside the image ({labels.shape[0]} x "
                f"{labels.shape[1]}): move it inside."
            )
        inside[where] = True
    return np.where(inside, partial, UNLABELLED).astype(np.int32)


def _slices(box: Sequence[int]) -> tuple[slice, slice]:
    y, x, height, width = (int(n) for n in box)
    return slice(max(y, 0), max(y + height, 0)), slice(max(x, 0), max(x + width, 0))


def from_objects(labels: Array, ring: int = 2) -> Array:
    """Return partial labels of some completely drawn objects.

    Parameters
    ----------
    labels : (Y, X) int array
        Ids of the drawn objects; 0 = nothing was drawn here.
    ring : int
        Pixels around each object that are known not to belong to it, taken as
        background; 0 where objects touch others that were not drawn.

    Returns
    -------
    (Y, X) int32 array
    """
    labels = _whole_numbers(labels, "labels")
    drawn = labels > 0
    partial = np.where(drawn, labels + 1, UNLABELLED).astype(np.int32)
    if ring > 0 and drawn.any():
        around = ndimage.binary_dilation(drawn, EIGHT, iterations=ring) & ~drawn
        partial[around] = BACKGROUND
    return partial


def from_correction(
    before: Array, after: Array, accepted: Iterable[int] = (), ring: int = 2
) -> Array:
    """Return what correcting a result says.

    Objects that were painted, changed or accepted are known as they are now, with a
    thin ring of what is around them; what was erased is background.

    Parameters
    ----------
    before, after : (Y, X) int arrays
        The result and what the user made of it; ids, 0 = background.
    accepted : iterable of int
        Ids of ``after`` that the user called good.
    ring : int
        As for `from_objects`; pixels of other objects of ``after`` are left out.

    Returns
    -------
    (Y, X) int32 array
    """
    before = _whole_numbers(before, "the result")
    after = _whole_numbers(after, "the corrected labels")
    if before.shape != after.shape:
        raise PartialLabelError(
            f"The result and its correction differ in shape, {before.shape} and "
            f"{after.shape}: correct the layer that came out."
        )
    changed = before != after
    touched = np.unique(after[changed])
    known = np.union1d(touched[touched > 0], np.asarray(list(accepted), np.int64))
    partial = from_objects(np.where(np.isin(after, known), after, 0), ring)
    others = (after > 0) & ~np.isin(after, known)
    partial[others] = UNLABELLED
    partial[changed & (after == 0)] = BACKGROUND
    return partial


def merge_partial_labels(first: Array, second: Array, name: str = "the image") -> Array:
    """Return the labels of two partial labels of one image.

    Raises
    ------
    PartialLabelError
        Where one calls background what the other calls an object.
    """
    if first.shape != second.shape:
        raise PartialLabelError(
            f"Two labels of {name} differ in shape, {first.shape} and {second.shape}: "
            "remove one of them."
        )
    both = (first > 0) & (second > 0)
    n = int((both & ((first == BACKGROUND) != (second == BACKGROUND))).sum())
    if n:
        raise PartialLabelError(
            f"Two labels of {name} contradict each other at {n} pixels (object in one, "
            "background in the other): remove one of them."
        )
    offset = max(0, int(first.max(initial=0)) - BACKGROUND)
    shifted = np.where(second > BACKGROUND, second + offset, second)
    return np.where(first > 0, first, shifted).astype(np.int32)


def check_partial_labels(
    labels: Array, shape: tuple[int, ...], name: str = "the image"
) -> Array:
    """Return partial labels as int32, after all that can be wrong was looked at.

    Parameters
    ----------
    labels : (Y, X) int array
    shape : (int, int)
        Height and width of the image.
    name : str
        Named in errors.

    Raises
    ------
    PartialLabelError
        For another shape, negative or fractional values, or ids that are too large.
    """
    labels = _whole_numbers(labels, f"the labels of {name}")
    if labels.shape != tuple(shape[:2]):
        raise PartialLabelError(
            f"{name}: the labels are {_size(labels.shape)} pixels, the image is "
            f"{_size(shape[:2])}: give labels of this image."
        )
    return labels.astype(np.int32)


def _whole_numbers(labels: Array, what: str) -> Array:
    labels = np.asarray(labels)
    if labels.ndim != 2:
        raise PartialLabelError(
            f"{what} must be one plane (Y, X), got shape {labels.shape}."
        )
    if (
        labels.dtype.kind == "f"
        and labels.size
        and np.array_equal(labels, np.round(labels))
    ):
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "biu":
        raise PartialLabelError(
            f"{what} must hold whole numbers, got dtype {labels.dtype}."
        )
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < 2**31 - 2:
        raise PartialLabelError(
            f"{what} must hold ids from 0 to {2**31 - 3}, got {int(labels.min())} to "
            f"{int(labels.max())}."
        )
    return labels.astype(np.int64)


def _size(shape: Sequence[int]) -> str:
    return " x ".join(str(int(n)) for n in shape)


def label_counts(partial: Array, *, semantic: bool = False) -> dict[str, int]:
    """Return the labelled pixels of each class, and how many objects there are.

    Returns
    -------
    dict
        ``background`` and ``objects`` (pixels) and ``n_objects``; with ``semantic``
        ``background`` and ``class 2``, ``class 3``, ...
    """
    values, n = np.unique(partial, return_counts=True)
    found = {int(v): int(k) for v, k in zip(values, n, strict=True) if v > 0}
    background = {"background": found.pop(BACKGROUND, 0)}
    if semantic:
        return background | {f"class {v}": k for v, k in found.items()}
    return background | {"objects": sum(found.values()), "n_objects": len(found)}


# ---------------------------------------------------------------- ids with unknown


def to_ids(
    partial: Array, *, unlabelled_is_background: bool = False, wanted: int | None = None
) -> Array:
    """Return partial labels as ids: -1 = unknown, 0 = background, 1, 2, ... objects.

    Parameters
    ----------
    partial : (Y, X) int array
    unlabelled_is_background : bool
    wanted : int, optional
        Labels are classes and this one is what to find: its pixels become 1, those of
        other classes background.
    """
    ids = partial.astype(np.int32) - BACKGROUND
    if wanted is not None:
        ids = np.where(ids > 0, (ids == wanted - BACKGROUND).astype(np.int32), ids)
    return np.maximum(ids, 0) if unlabelled_is_background else ids


def complete_ids(ids: Array) -> Array:
    """Return the ids of objects no pixel of which lies beside an unknown one."""
    beside = ndimage.binary_dilation(ids == UNKNOWN, EIGHT)
    there = np.unique(ids[ids > 0])
    return np.asarray(np.setdiff1d(there, ids[beside & (ids > 0)]))


def known_borders(ids: Array, complete: Array) -> tuple[Array, Array]:
    """Return where depth and where outlines of objects are known.

    Parameters
    ----------
    ids : (Y, X) int array
        With -1 = unknown.
    complete : (N,) int array
        Ids of objects that are drawn completely.

    Returns
    -------
    depth, outline : (Y, X) bool arrays
        Depth is known inside complete objects and of background; outlines wherever no
        unknown pixel is near.
    """
    known = ids != UNKNOWN
    distance = ndimage.distance_transform_edt(known)
    inside = np.ones_like(known) if known.all() else distance > EDGE
    depth = np.isin(ids, complete) | ((ids == 0) & inside)
    return depth, inside


def label_regions(known: Array) -> tuple[Array, int]:
    """Return regions of labels; those a few pixels apart are one region."""
    if not known.any():
        return np.zeros(known.shape, np.int32), 0
    far = ndimage.distance_transform_edt(~known) > JOINED / 2
    regions, n = ndimage.label(~far, EIGHT)
    return np.where(known, regions, 0), int(n)
