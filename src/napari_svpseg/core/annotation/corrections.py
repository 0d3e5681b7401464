"""Corrections of a result as prompts: *not this* object, and *this too*.

A wrong object becomes a negative prompt: its own pixels are background, the rest of the
box is unknown. A missed one becomes a positive prompt: its pixels are an object, a ring
around it is background where the result has none, the rest is unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage

from ..geometry import PROMPT_SIZE, Box, window_of
from ..image import channels_last, resize_labels
from ..labels.metrics import dice
from ..labels.reliability import stability
from ..prompt import UNKNOWN, Prompt, PromptError, PromptSet
from ..result import Maps

Array = np.ndarray
Point = tuple[float, float]

RING = 0.35
"""Width of the ring of background around an object, in diameters of the object."""

MIN_RING = 2
"""Smallest width of that ring in pixels."""

LEAST_KEPT = 0.65
"""Least Dice between what was found before and with a new example."""

OUTSIDE = (
    "The point y={y:.10g}, x={x:.10g} lies outside the image ({height} x {width})."
)
NO_OBJECT = (
    "There is no object at y={y:.10g}, x={x:.10g}: click on an object of the result."
)
NO_SUCH_ID = "The labels hold no object {id}."
NO_POSITIVE = "No prompt shows an object: the size of the new one cannot be chosen."
EMPTY_OUTLINE = "The outline of the new object is empty: paint it."
SHAPES_DIFFER = "image and labels differ in shape: {image} and {labels}"


class CorrectionError(PromptError):
    """A correction that cannot be made; the message says why."""


def pixel_at(point: Point, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the pixel (y, x) of a point; pixel 0 spans -0.5 to 0.5.

    Raises
    ------
    CorrectionError
        If it lies outside the image.
    """
    height, width = (int(n) for n in shape[:2])
    y, x = float(point[0]), float(point[1])
    if not (-0.5 <= y < height - 0.5 and -0.5 <= x < width - 0.5):
        raise CorrectionError(OUTSIDE.format(y=y, x=x, height=height, width=width))
    return int(np.floor(y + 0.5)), int(np.floor(x + 0.5))


def object_at(labels: Array, point: Point) -> int:
    """Return the id of the object at a point.

    Parameters
    ----------
    labels : (Y, X) int array
    point : (float, float)
        y and x in pixels.

    Raises
    ------
    CorrectionError
        If there is none.
    """
    found = int(labels[pixel_at(point, labels.shape)])
    if found <= 0:
        raise CorrectionError(NO_OBJECT.format(y=point[0], x=point[1]))
    return found


def negative_example(
    image: Array,
    labels: Array,
    object_id: int,
    like: PromptSet,
    *,
    intensities: Array | None = None,
    name: str = "not this",
    source: str = "",
) -> Prompt:
    """Return the negative prompt of a wrong object: its pixels are background.

    Parameters
    ----------
    image : (Y, X) or (Y, X, C) array
        With the channels of the prompts, in their order.
    labels : (Y, X) int array
        The result.
    object_id : int
        Id of the wrong object.
    like : PromptSet
        Whose boxes the new one resembles in size; at least one shows an object.
    intensities : (C, 2) array, optional
        Percentiles of the whole image where ``image`` is only a part of it.
    name, source : str

    Returns
    -------
    Prompt
        A box around the object; what is not the object is unknown. As large as other
        boxes, or smaller where the object would be lost in so few pixels.

    Raises
    ------
    CorrectionError
        If there is no such object.
    PromptError
        If the box cannot be cut out.
    """
    wrong = np.asarray(labels) == object_id
    if object_id <= 0 or not wrong.any():
        raise CorrectionError(NO_SUCH_ID.format(id=object_id))
    mask = np.where(wrong, 0, UNKNOWN).astype(np.int32)
    return _example(
        image, mask, wrong, like, intensities, name, source, is_negative=True
    )


def positive_example(
    image: Array,
    labels: Array,
    outline: Array,
    like: PromptSet,
    *,
    intensities: Array | None = None,
    name: str = "this too",
    source: str = "",
) -> Prompt:
    """Return the prompt of a missed object, with a ring of background around it.

    Parameters
    ----------
    image : (Y, X) or (Y, X, C) array
        With the channels of the prompts, in their order.
    labels : (Y, X) int array
        The result: where it has an object, the ring is unknown.
    outline : (Y, X) bool array
        Pixels of the missed object.
    like, intensities, name, source
        As for `negative_example`.

    Returns
    -------
    Prompt

    Raises
    ------
    CorrectionError
        If the outline is empty.
    PromptError
        If the box cannot be cut out.
    """
    outline = np.asarray(outline) > 0
    mask = positive_mask(labels, outline)
    return _example(
        image, mask, outline, like, intensities, name, source, is_negative=False
    )


def positive_mask(labels: Array, outline: Array) -> Array:
    """Return the mask of a missed object, with a ring of background around it.

    Parameters
    ----------
    labels : (Y, X) int array
        The result: where it has an object, the ring is unknown.
    outline : (Y, X) bool array
        Pixels of the missed object.

    Returns
    -------
    (Y, X) int32 array
        1 in the object, 0 in the ring, -1 elsewhere.

    Raises
    ------
    CorrectionError
        If the outline is empty.
    """
    if not outline.any():
        raise CorrectionError(EMPTY_OUTLINE)
    if outline.shape != np.shape(labels):
        raise CorrectionError(
            SHAPES_DIFFER.format(image=outline.shape, labels=np.shape(labels))
        )
    diameter = 2 * np.sqrt(np.count_nonzero(outline) / np.pi)
    width = max(MIN_RING, round(RING * diameter))
    mask = np.full(outline.shape, UNKNOWN, np.int32)
    window = window_of(outline, width + 1)
    near = ndimage.distance_transform_edt(~outline[window]) <= width
    mask[window][near & (labels[window] <= 0)] = 0
    mask[outline] = 1
    return mask


def _example(
    image: Array,
    mask: Array,
    shown: Array,
    like: PromptSet,
    intensities: Array | None,
    name: str,
    source: str,
    *,
    is_negative: bool,
) -> Prompt:
    """Return the prompt of a box around the pixels ``shown``, like other prompts."""
    typical = like.typical()
    if not typical:
        raise CorrectionError(NO_POSITIVE)
    first = typical[0]
    plane, _ = channels_last(image, None, None, first.rgb)
    if plane.shape[:2] != mask.shape:
        raise CorrectionError(
            SHAPES_DIFFER.format(image=plane.shape[:2], labels=mask.shape)
        )
    box = example_box(shown, [p.box.size for p in typical])
    prompt = Prompt.from_image(
        plane,
        mask,
        box,
        channel_axis=2,
        rgb=first.rgb,
        negative=is_negative,
        name=name,
        source=source,
        intensities=intensities,
        pixel_size=first.pixel_size,
        unit=first.unit,
    )
    return replace(
        prompt,
        channels=first.channels,
        channel_names=first.channel_names,
        clicked=True,
    )


def example_box(shown: Array, sizes: Sequence[int]) -> Box:
    """Return the box around the pixels of an object, as large as other boxes.

    Of an object that is larger, the box shows a part near its middle. It is smaller
    than others where the object would be lost in 64 x 64 pixels.

    Parameters
    ----------
    shown : (Y, X) bool array
        Pixels of the object.
    sizes : sequence of int
        Sides of the other boxes.

    Raises
    ------
    CorrectionError
        If the image is smaller than any box.
    """
    box = _box_of_side(shown, round(float(np.median(sizes))))
    while box.size > PROMPT_SIZE and not _survives(shown, box):
        box = _box_of_side(shown, max(PROMPT_SIZE, box.size // 2))
    return box


def _survives(shown: Array, box: Box) -> bool:
    """Return whether pixels are left when a box is brought to 64 x 64.

    A small object in a large box can fall between the pixels that are kept.
    """
    side = (PROMPT_SIZE, PROMPT_SIZE)
    return bool(resize_labels(shown[box.slices].astype(np.uint8), side).any())


def _box_of_side(shown: Array, side: int) -> Box:
    """Return the box of a side that is around an object, or shows a part of it."""
    rows, columns = window_of(shown)
    middle = (rows.start + rows.stop - 1) / 2, (columns.start + columns.stop - 1) / 2
    height, width = shown.shape
    try:
        box = Box.centred(middle, side).clamped((height, width))
        if not shown[box.slices].any():  # a large ring or arc, around the box
            y, x = np.nonzero(shown)
            nearest = np.argmin(np.hypot(y - middle[0], x - middle[1]))
            middle = float(y[nearest]), float(x[nearest])
            box = Box.centred(middle, side).clamped((height, width))
        return box
    except ValueError as error:
        raise CorrectionError(str(error)) from error


def fixed_by(
    fixed: Array | None, shape: tuple[int, ...], wrong: list[Array], right: list[Array]
) -> Array:
    """Return what a user has decided in an image, grown by more corrections.

    Parameters
    ----------
    fixed : (Y, X) int array or None
        What was decided before: -1 = the model decides, 0 = no object, 1, 2, ... =
        objects.
    shape : (int, int)
    wrong, right : list of (Y, X) bool arrays
        Pixels of wrong objects, and of missed ones.

    Returns
    -------
    (Y, X) int32 array
    """
    grown = np.full(shape, UNKNOWN, np.int32)
    if fixed is not None:
        grown[...] = fixed
    for mask in wrong:
        grown[mask] = 0
    for mask in right:
        grown[mask] = max(0, int(grown.max(initial=0))) + 1
    return grown


def with_fixed(labels: Array, fixed: Array) -> Array:
    """Return labels in which the user's decisions hold, whatever the model says.

    Parameters
    ----------
    labels : (Y, X) int array
        Of the model.
    fixed : (Y, X) int array
        From `fixed_by`.

    Returns
    -------
    (Y, X) uint32 array
        Objects of which the user took most are gone, the others lose the pixels that
        the user decided on; ids are consecutive.
    """
    decided = fixed != UNKNOWN
    kept = np.where(decided, 0, without_covered(labels, decided))
    largest = int(kept.max(initial=0))
    joined = np.where(fixed > 0, fixed + largest, kept)
    _, ranks = np.unique(np.append(joined.ravel(), 0), return_inverse=True)
    return ranks[:-1].reshape(labels.shape).astype(np.uint32)


def overturns(before: Maps, after: Maps, decided: Array | None = None) -> bool:
    """Return whether an example overturns the result that its user was looking at.

    She corrected what she saw to be wrong, and left the rest. An example that changes
    most of that rest, and leaves the model less sure of it, resembles the background.

    Parameters
    ----------
    before, after : Maps
        Of the image, without and with the example.
    decided : (Y, X) bool array, optional
        Where she has corrected.

    Returns
    -------
    bool
    """
    old, new = before.foreground, after.foreground
    if old.shape != new.shape:
        return False
    kept = dice(new > 0.5, old > 0.5, decided)
    return kept < LEAST_KEPT and stability(new) < stability(old)


def without_covered(labels: Array, mask: Array) -> Array:
    """Return labels without the objects that lie mostly in a mask.

    Parameters
    ----------
    labels : (Y, X) int array
    mask : (Y, X) bool array
    """
    n = int(labels.max(initial=0)) + 1
    areas = np.bincount(labels.ravel(), minlength=n)
    covered = np.bincount(labels[mask], minlength=n)
    return np.where((covered * 2 > areas)[labels], 0, labels)
