"""Partial labels: labels of some pixels of an image, unknown elsewhere.

Partial labels are an int array of the image's height and width: 0 = unknown,
1 = background, 2, 3, ... = objects (or classes). Scribbles are painted in this form;
the functions here convert complete objects, boxes and corrections of a result to it.
Training uses them as *ids*: -1 = unknown, 0 = background, 1, 2, ... = objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from scipy import ndimage

from ..geometry import Box
from ..jobs.finetune_job import FineTuneError
from ..labels.ids import MaskError, as_objects, compact_ids, whole_numbers

Array = np.ndarray

UNLABELLED, BACKGROUND, FIRST_OBJECT = 0, 1, 2
"""Values in partial labels."""

UNKNOWN = -1
"""Value of unlabelled pixels in ids."""

FEWEST_PIXELS = 25
"""Fewer labelled pixels than this are not enough to train on."""

MAX_GAP = 6
"""Labels at most this many pixels apart belong to one region."""

UNKNOWN_MARGIN = 2
"""Distance in pixels from unknown pixels at which outlines are unknown too."""

EIGHT_NEIGHBOURS = np.ones((3, 3), bool)

LIKE_AREA, LIKE_LENGTH = 4.0, 2.5
"""Most that a piece may differ from objects of its kind in area, and be longer."""

MAX_LABEL = 2**31 - 3
"""Largest value of labels whose ids + 1 fit into int32."""

BOX_OUTSIDE = (
    "The box {box} lies outside the image ({height} x {width}): move it inside."
)
RESULTS_DIFFER = (
    "The result and its correction differ in shape, {before} and {after}: correct the "
    "layer that came out."
)
LABELS_DIFFER = (
    "Two labels of {name} differ in shape, {first} and {second}: remove one of them."
)
CONTRADICTION = (
    "Two labels of {name} contradict each other at {n} pixels (object in one, "
    "background in the other): remove one of them."
)
WRONG_SIZE = (
    "{name}: the labels are {labels} pixels, the image is {image}: give labels of this "
    "image."
)
BAD_IDS = "{what} must hold ids from 0 to {largest}, got {high}."


class PartialLabelError(FineTuneError):
    """Partial labels that cannot be used; the message says what to do."""


# ---------------------------------------------------------------- forms of labels


def from_labels(
    labels: Array,
    boxes: Iterable[Box | Sequence[int]] | None = None,
    *,
    classes: bool = False,
) -> Array:
    """Return partial labels of an image that is labelled completely, or in boxes.

    Parameters
    ----------
    labels : (Y, X) int array
        Object or class ids, 0 = background. In a mask with a single id, such as one of
        0 and 255, each piece is an object of its own.
    boxes : iterable of Box or (y, x, height, width), optional
        Everything inside them is labelled, everything outside is unknown. By default
        the whole image is labelled.
    classes : bool
        The labels are classes: a single one stays one.

    Returns
    -------
    (Y, X) int32 array
        0 = unknown, 1 = background, ids + 1 elsewhere.

    Raises
    ------
    PartialLabelError
        If the labels are no plane of whole numbers, or a box lies outside the image.

    Examples
    --------
    >>> labels = np.zeros((40, 40), int); labels[2:8, 2:8] = 5
    >>> sorted(np.unique(from_labels(labels, [Box(0, 0, 16)])).tolist())
    [0, 1, 6]
    """
    labels = _whole_numbers(labels, "labels")
    labels = labels if classes else as_objects(labels)
    # One higher, as 0 means unknown in partial labels and background in ordinary ones.
    partial = (labels + 1).astype(np.int32)
    if boxes is None:
        return partial
    inside = np.zeros(labels.shape, bool)
    for box in boxes:
        where = box.slices if isinstance(box, Box) else _slices(box)
        if not inside[where].size:
            height, width = labels.shape
            raise PartialLabelError(
                BOX_OUTSIDE.format(box=box, height=height, width=width)
            )
        inside[where] = True
    return np.where(inside, partial, UNLABELLED).astype(np.int32)


def _slices(box: Sequence[int]) -> tuple[slice, slice]:
    """Return the index of a box (y, x, height, width), cut at the upper left border."""
    y, x, height, width = (int(n) for n in box)
    return slice(max(y, 0), max(y + height, 0)), slice(max(x, 0), max(x + width, 0))


def from_objects(labels: Array, ring: int = 2) -> Array:
    """Return partial labels of an image in which some objects are drawn completely.

    Parameters
    ----------
    labels : (Y, X) int array
        Ids of the drawn objects; 0 = not drawn.
    ring : int
        Width in pixels of the ring around each object that is labelled as background,
        so that outlines are known. Use 0 if objects touch others that are not drawn.

    Returns
    -------
    (Y, X) int32 array
        0 = unknown, 1 = background, ids + 1 elsewhere.
    """
    labels = _whole_numbers(labels, "labels")
    drawn = labels > 0
    partial = np.where(drawn, labels + 1, UNLABELLED).astype(np.int32)
    if ring > 0 and drawn.any():
        around = (
            ndimage.binary_dilation(drawn, EIGHT_NEIGHBOURS, iterations=ring) & ~drawn
        )
        partial[around] = BACKGROUND
    return partial


def from_correction(
    before: Array, after: Array, accepted: Iterable[int] = (), ring: int = 2
) -> Array:
    """Return the partial labels that the correction of a result gives.

    Objects that were painted, changed or accepted are labelled as they are now, with a
    ring of background around them; erased pixels are background. Everything else is
    unknown: the user may not have checked it.

    Parameters
    ----------
    before, after : (Y, X) int arrays
        The result, and its correction by the user; ids, 0 = background.
    accepted : iterable of int
        Ids of ``after`` that the user accepted.
    ring : int
        As for `from_objects`; pixels of other objects of ``after`` are not labelled.

    Returns
    -------
    (Y, X) int32 array
        0 = unknown, 1 = background, ids + 1 elsewhere.

    Raises
    ------
    PartialLabelError
        If the arrays differ in shape, or are no planes of whole numbers.
    """
    before = _whole_numbers(before, "the result")
    after = _whole_numbers(after, "the corrected labels")
    if before.shape != after.shape:
        raise PartialLabelError(
            RESULTS_DIFFER.format(before=before.shape, after=after.shape)
        )
    changed = before != after
    # An object with a changed pixel counts as corrected as a whole.
    touched = np.unique(after[changed])
    known = np.union1d(touched[touched > 0], np.asarray(list(accepted), np.int64))
    partial = from_objects(np.where(np.isin(after, known), after, 0), ring)
    # The ring of a corrected object may reach into a neighbour that nobody checked.
    others = (after > 0) & ~np.isin(after, known)
    partial[others] = UNLABELLED
    partial[changed & (after == 0)] = BACKGROUND
    return partial


def merge_partial_labels(first: Array, second: Array, name: str = "the image") -> Array:
    """Return two partial labels of one image as one.

    Parameters
    ----------
    first, second : (Y, X) int arrays
        Partial labels. Objects of both stay separate: those of ``second`` get new ids,
        and ``first`` counts where both label a pixel.
    name : str
        Name of the image, for errors.

    Returns
    -------
    (Y, X) int32 array

    Raises
    ------
    PartialLabelError
        If the shapes differ, or a pixel is an object in one and background in the
        other.
    """
    if first.shape != second.shape:
        raise PartialLabelError(
            LABELS_DIFFER.format(name=name, first=first.shape, second=second.shape)
        )
    both = (first > 0) & (second > 0)
    n = int((both & ((first == BACKGROUND) != (second == BACKGROUND))).sum())
    if n:
        raise PartialLabelError(CONTRADICTION.format(name=name, n=n))
    if int(first.max(initial=0)) + int(second.max(initial=0)) > MAX_LABEL:
        # as ids, in which the background is 0 and stays what it is
        first, second = (
            compact_ids(a - BACKGROUND) + BACKGROUND for a in (first, second)
        )
    # Ids of the second labels start behind those of the first.
    offset = max(0, int(first.max(initial=0)) - BACKGROUND)
    shifted = np.where(second > BACKGROUND, second + offset, second)
    return np.where(first > 0, first, shifted).astype(np.int32)


def check_partial_labels(
    labels: Array, shape: tuple[int, ...], name: str = "the image"
) -> Array:
    """Return partial labels as int32, checked against the size of their image.

    Parameters
    ----------
    labels : (Y, X) int array
        Floats are accepted if they are whole numbers.
    shape : (int, int)
        Height and width of the image.
    name : str
        Name of the image, for errors.

    Returns
    -------
    (Y, X) int32 array

    Raises
    ------
    PartialLabelError
        For another shape, negative or fractional values, or ids that are too large.
    """
    labels = _whole_numbers(labels, f"the labels of {name}")
    if labels.shape != tuple(shape[:2]):
        raise PartialLabelError(
            WRONG_SIZE.format(
                name=name, labels=_size(labels.shape), image=_size(shape[:2])
            )
        )
    return labels.astype(np.int32)


def look_ordinary(partial: Array) -> bool:
    """Return whether partial labels look like ordinary ones, in which 1 is an object.

    Nothing but the user knows what is meant. But background that was painted on purpose
    is no compact piece of the size of the objects.

    Parameters
    ----------
    partial : (Y, X) int array
        0 = unknown, 1 = background, 2, 3, ... = objects.
    """
    pieces, n = ndimage.label(partial == BACKGROUND, EIGHT_NEIGHBOURS)
    if n != 1 or not (partial == UNLABELLED).any():
        return False
    objects = compact_ids(np.maximum(partial - BACKGROUND, 0))
    _, areas = np.unique(objects[objects > 0], return_counts=True)
    if not areas.size:
        return False
    # a stroke of a brush is longer than objects are, and background is larger
    lengths = [_length(where) for where in ndimage.find_objects(objects) if where]
    length = _length(ndimage.find_objects(pieces)[0]) / np.median(lengths)
    area = np.count_nonzero(pieces) / np.median(areas)
    return bool(1 / LIKE_AREA <= area <= LIKE_AREA and length <= LIKE_LENGTH)


def _length(where: tuple[slice, ...]) -> int:
    """Return the longer side of a region."""
    return max(part.stop - part.start for part in where)


def _whole_numbers(labels: Array, what: str) -> Array:
    """Return one plane of labels as int64; ``what`` names them in errors."""
    try:
        labels = whole_numbers(labels, what)
    except MaskError as error:
        raise PartialLabelError(f"{error}.") from error
    high = int(labels.max(initial=0))
    if high > MAX_LABEL:
        raise PartialLabelError(BAD_IDS.format(what=what, largest=MAX_LABEL, high=high))
    return labels.astype(np.int64)


def _size(shape: Sequence[int]) -> str:
    """Return a shape as text, such as ``64 x 64``."""
    return " x ".join(str(int(n)) for n in shape)


def label_counts(partial: Array, *, semantic: bool = False) -> dict[str, int]:
    """Return how many pixels and objects are labelled.

    Parameters
    ----------
    partial : (Y, X) int array
    semantic : bool
        The labels are classes instead of objects.

    Returns
    -------
    dict of str to int
        Pixels of ``background`` and ``objects``, and the number ``n_objects``. If
        semantic, pixels of ``background``, ``class 2``, ``class 3``, ...
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
        Take unlabelled pixels as background instead of unknown.
    wanted : int, optional
        The labels are classes, and this one is to be found: its pixels become 1, those
        of other classes background.

    Returns
    -------
    (Y, X) int32 array
    """
    ids = partial.astype(np.int32) - BACKGROUND
    if wanted is not None:
        ids = np.where(ids > 0, (ids == wanted - BACKGROUND).astype(np.int32), ids)
    return np.maximum(ids, 0) if unlabelled_is_background else ids


def complete_ids(ids: Array) -> Array:
    """Return the ids of objects that are labelled completely.

    An object beside an unknown pixel may go on there: its size and depth are unknown.

    Parameters
    ----------
    ids : (Y, X) int array

    Returns
    -------
    (N,) int array
    """
    beside = ndimage.binary_dilation(ids == UNKNOWN, EIGHT_NEIGHBOURS)
    there = np.unique(ids[ids > 0])
    return np.asarray(np.setdiff1d(there, ids[beside & (ids > 0)]))


def known_borders(ids: Array, complete: Array) -> tuple[Array, Array]:
    """Return the pixels at which the distance and boundary maps are known.

    Parameters
    ----------
    ids : (Y, X) int array
        -1 = unknown, 0 = background, 1, 2, ... = objects.
    complete : (N,) int array
        Ids of the objects that are labelled completely, from `complete_ids`.

    Returns
    -------
    depth : (Y, X) bool array
        True inside complete objects and in background that is not beside unknown
        pixels: the distance map is relative to the whole object.
    outline : (Y, X) bool array
        True where no unknown pixel is within `UNKNOWN_MARGIN`, behind which an outline
        may lie.
    """
    known = ids != UNKNOWN
    distance = ndimage.distance_transform_edt(known)
    # without any unknown pixel the distance transform is not defined
    inside = np.ones_like(known) if known.all() else distance > UNKNOWN_MARGIN
    depth = np.isin(ids, complete) | ((ids == 0) & inside)
    return depth, inside


def label_regions(known: Array) -> tuple[Array, int]:
    """Return the connected regions of labelled pixels and their number.

    Labels at most `MAX_GAP` pixels apart are one region, such as strokes of a brush.

    Parameters
    ----------
    known : (Y, X) bool array

    Returns
    -------
    regions : (Y, X) int array
        Ids from 1, 0 where nothing is labelled.
    n : int
    """
    if not known.any():
        return np.zeros(known.shape, np.int32), 0
    # Grown by half the gap from both sides, regions meet.
    far = ndimage.distance_transform_edt(~known) > MAX_GAP / 2
    regions, n = ndimage.label(~far, EIGHT_NEIGHBOURS)
    return np.where(known, regions, 0), int(n)
