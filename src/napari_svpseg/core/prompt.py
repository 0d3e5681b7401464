"""Prompts: a 64 x 64 image crop with its mask, and ordered sets of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from .contrast import percentile_table, plain_range, range_of_prompt
from .fingerprint import fingerprint
from .geometry import PROMPT_SIZE, Box
from .image import (
    as_float32,
    channels_last,
    every_nth,
    resize_image,
    resize_labels,
)
from .labels.ids import MaskError, as_objects, count_objects, whole_numbers

FLOAT32 = np.finfo(np.float32)
LARGEST_ID = int(np.iinfo(np.int32).max)

UNKNOWN = -1
"""Value of the pixels of a mask that are neither object nor background."""

BAD_IMAGE_SHAPE = "a prompt image must be 64 x 64 x channels, got {shape}"
BAD_IMAGE_DTYPE = "a prompt image must be real numbers, got dtype {dtype}"
NOT_FINITE = "The prompt '{name}' holds NaN or infinite pixels: draw the box elsewhere."
BEYOND_FLOAT32 = (
    "The prompt '{name}' holds intensities that 32-bit floats cannot hold (above 3e38 "
    "or below 1e-38): multiply the image by a number that brings them near 1."
)
BAD_MASK_SHAPE = "a prompt mask must be 64 x 64, got {shape}"
BAD_MASK_DTYPE = "a prompt mask must hold whole numbers, got dtype {dtype}"
ID_TOO_LARGE = (
    "The mask of prompt '{name}' holds ids above {largest}: renumber its objects."
)
NEGATIVE_IDS = (
    "The mask of prompt '{name}' holds negative ids: object ids start at 1, and only "
    "-1, unknown, is below 0."
)
ALL_UNKNOWN = (
    "All of the mask of prompt '{name}' is unknown: mark an object or background in it."
)
INTENSITY_COUNT = (
    "a prompt of {n_channels} channels needs as many intensity ranges, got {n}"
)
INTENSITIES_NOT_FINITE = "The prompt '{name}' has no finite intensities."
BOX_OUTSIDE = (
    "The box at y={box.y}, x={box.x} of {box.size} pixels leaves the image "
    "({height} x {width}): move it inside."
)
NO_LABELS = "A prompt needs labels: paint or choose a mask."
SHAPES_DIFFER = "image and labels differ in shape: {image} and {labels}"
EMPTY_MASK = (
    "The mask of prompt '{name}' is empty: paint at least one object in the box, or "
    "mark the prompt as negative."
)
CHANNELS_DIFFER = (
    "Prompt '{name}' has {n} channels, '{first}' has {n_first}: use prompts of one "
    "kind of image."
)
NO_PROMPT = "No prompt: draw a box on a few cells, or switch one on."
ALL_NEGATIVE = "All prompts are negative: add one that shows what to find."


class PromptError(ValueError):
    """A prompt that cannot be used; the message says what to do."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """An image crop and its mask, both 64 x 64: the example of what to find.

    Parameters
    ----------
    image : (64, 64, C) float32 array
        Intensities as in the source (not normalised), resampled to 64 x 64.
    mask : (64, 64) int32 array
        Object ids; 0 is background, -1 unknown. A negative prompt, which shows what is
        not to be found, has no object: what is 0 in it is not wanted.
    intensities : (C, 2) float64 array
        Low and high percentile of each channel of the *whole* source image.
    box : Box
        Where the crop was taken, in pixels of the source.
    name : str
        Name that is shown in lists.
    source : str
        File or layer that the crop was taken from.
    rgb : bool
        The channels are red, green and blue (alpha is dropped).
    channels : tuple of int, optional
        Channels of the source that were taken, in order; None means all.
    pixel_size : (float, float), optional
        Height and width of a source pixel in ``unit``.
    unit : str
        Unit of ``pixel_size``.
    color : str
        Colour of the outline, ``#rrggbb``.
    enabled : bool
        Whether the prompt takes part in a run.
    channel_names : tuple of str
        Names of the images, if each channel was an image of its own.
    clicked : bool
        Whether it was made by a click on one object, and tells of no other.

    Raises
    ------
    PromptError
        If shapes, dtypes or values are not as described.
    """

    image: np.ndarray
    mask: np.ndarray
    intensities: np.ndarray
    box: Box
    name: str = "prompt"
    source: str = ""
    rgb: bool = False
    channels: tuple[int, ...] | None = None
    pixel_size: tuple[float, float] | None = None
    unit: str = "pixel"
    color: str = "#ffb000"
    enabled: bool = True
    channel_names: tuple[str, ...] = ()
    clicked: bool = False

    def __post_init__(self) -> None:
        image = self._checked_image()
        mask = self._checked_mask()
        intensities = np.asarray(self.intensities, np.float64).reshape(-1, 2)
        if len(intensities) != image.shape[2]:
            raise PromptError(
                INTENSITY_COUNT.format(n_channels=image.shape[2], n=len(intensities))
            )
        if not np.isfinite(intensities).all():
            raise PromptError(INTENSITIES_NOT_FINITE.format(name=self.name))
        # Frozen: converted arrays can only be stored this way.
        object.__setattr__(self, "image", image)
        object.__setattr__(self, "mask", mask)
        object.__setattr__(self, "intensities", intensities)

    def _checked_image(self) -> np.ndarray:
        """Return the image as float32, or raise `PromptError`."""
        shape = self.image.shape
        if len(shape) != 3 or shape[:2] != (PROMPT_SIZE, PROMPT_SIZE) or not shape[2]:
            raise PromptError(BAD_IMAGE_SHAPE.format(shape=shape))
        if self.image.dtype.kind not in "biuf":
            raise PromptError(BAD_IMAGE_DTYPE.format(dtype=self.image.dtype))
        if not np.isfinite(self.image).all():
            raise PromptError(NOT_FINITE.format(name=self.name))
        _check_float32(self.image, self.name)
        return as_float32(self.image)

    def _checked_mask(self) -> np.ndarray:
        """Return the mask as int32, or raise `PromptError`."""
        if self.mask.shape != (PROMPT_SIZE, PROMPT_SIZE):
            raise PromptError(BAD_MASK_SHAPE.format(shape=self.mask.shape))
        if self.mask.dtype.kind not in "biu":
            raise PromptError(BAD_MASK_DTYPE.format(dtype=self.mask.dtype))
        # Before the conversion to int32, in which larger ids would wrap around.
        if self.mask.max(initial=0) > LARGEST_ID:
            raise PromptError(ID_TOO_LARGE.format(name=self.name, largest=LARGEST_ID))
        if self.mask.min(initial=0) < UNKNOWN:
            raise PromptError(NEGATIVE_IDS.format(name=self.name))
        if self.mask.max(initial=UNKNOWN) == UNKNOWN:
            raise PromptError(ALL_UNKNOWN.format(name=self.name))
        return self.mask.astype(np.int32, copy=False)

    @classmethod
    def from_image(
        cls,
        image: np.ndarray,
        labels: np.ndarray | None,
        box: Box | tuple[int, int],
        size: int = PROMPT_SIZE,
        *,
        channel_axis: int | None = None,
        channels: tuple[int, ...] | None = None,
        rgb: bool | None = None,
        negative: bool = False,
        name: str = "prompt",
        source: str = "",
        intensities: np.ndarray | None = None,
        pixel_size: tuple[float, float] | None = None,
        unit: str = "pixel",
    ) -> Prompt:
        """Return the prompt that a box cuts out of an image and its labels.

        Parameters
        ----------
        image : (Y, X) or (Y, X, C) array
            One plane of any real dtype, or with C at ``channel_axis``.
        labels : (Y, X) int array or None
            Object ids, 0 = background, -1 = unknown. None only for a negative prompt.
        box : Box or (int, int)
            The box, or the top left corner ``(y, x)`` of a box of ``size``.
        size : int
            Side of the box in pixels, used if ``box`` is a corner.
        channel_axis : int, optional
            Axis of the channels of a 3-D ``image``; by default the last.
        channels : tuple of int, optional
            Channels to take, in order; by default all.
        rgb : bool, optional
            Whether the channels are red, green, blue (and alpha). By default True for
            an 8-bit image whose last axis is 3 or 4 long, unless ``channels`` are
            given.
        negative : bool
            The box shows what is not to be found: all of it, or, with labels, what is
            not unknown in them. Objects become background.
        name : str
            Name that is shown in lists.
        source : str
            File or layer that the image comes from.
        intensities : (C, 2) array, optional
            Percentiles of the whole source; needed if ``image`` is only a part of it.
        pixel_size : (float, float), optional
            Height and width of a pixel in ``unit``.
        unit : str

        Returns
        -------
        Prompt
            Ids of the mask are renumbered 1, 2, 3, ...

        Raises
        ------
        PromptError
            If the box leaves the image, shapes differ, or the mask has no foreground
            (unless ``negative``).
        ImageError
            If the image is no plane of real numbers.

        Examples
        --------
        >>> image = np.arange(100 * 90, dtype=float).reshape(100, 90)
        >>> labels = np.zeros((100, 90), int); labels[20:40, 20:40] = 7
        >>> Prompt.from_image(image, labels, box=(5, 8)).n_objects
        1
        """
        image, rgb = channels_last(image, channel_axis, channels, rgb)
        if not isinstance(box, Box):
            box = Box(int(box[0]), int(box[1]), size)
        height, width = image.shape[:2]
        if not box.fits((height, width)):
            raise PromptError(BOX_OUTSIDE.format(box=box, height=height, width=width))
        if negative:
            mask = _negative_mask(labels, (height, width), box)
        else:
            mask = _mask_in_box(labels, (height, width), box, name)
        _check_float32(image[box.slices], name)
        if intensities is None:
            # Of the whole image and not of the crop, see `image.normalise`.
            table = percentile_table(every_nth(image))
            intensities = (
                plain_range(table) if rgb else range_of_prompt(table, image[box.slices])
            )
        return cls(
            image=resize_image(image[box.slices], (PROMPT_SIZE, PROMPT_SIZE)),
            mask=resize_labels(mask, (PROMPT_SIZE, PROMPT_SIZE)),
            intensities=intensities,
            box=box,
            name=name,
            source=source,
            rgb=rgb,
            channels=channels,
            pixel_size=pixel_size,
            unit=unit,
        )

    @property
    def is_negative(self) -> bool:
        """Whether the mask has no object: the prompt shows what is not to be found."""
        return not (self.mask > 0).any()

    @property
    def marks_object(self) -> bool:
        """Whether it is negative and marks an object as wrong, not a whole box."""
        return self.is_negative and bool((self.mask == UNKNOWN).any())

    @property
    def n_objects(self) -> int:
        """Number of objects in the mask."""
        return count_objects(self.mask)

    @property
    def n_channels(self) -> int:
        """Number of image channels."""
        return int(self.image.shape[2])


def _check_float32(image: np.ndarray, name: str) -> None:
    """Raise `PromptError` for intensities that a float32 cannot hold.

    Parameters
    ----------
    image : array
    name : str
        Of the prompt.
    """
    if image.dtype.kind != "f" or image.dtype.itemsize <= 4:
        return
    size = np.abs(image)
    lost = (size > FLOAT32.max) | ((size > 0) & (size < FLOAT32.tiny))
    if (lost & np.isfinite(image)).any():
        raise PromptError(BEYOND_FLOAT32.format(name=name))


def _mask_in_box(
    labels: np.ndarray | None, shape: tuple[int, int], box: Box, name: str
) -> np.ndarray:
    """Return the labels in a box, renumbered 1, 2, 3, ...; -1 stays.

    Parameters
    ----------
    labels : (Y, X) int array or None
    shape : (int, int)
        Height and width of the image.
    box : Box
        Inside the image.
    name : str
        Name of the prompt, for errors.
    """
    if labels is None:
        raise PromptError(NO_LABELS)
    crop = _labels_in_box(labels, shape, box)
    unknown = crop == UNKNOWN
    try:
        mask = whole_numbers(
            np.where(unknown, 0, crop) if unknown.any() else crop,
            f"The mask of prompt '{name}'",
        )
    except MaskError as error:
        raise PromptError(f"{error}.") from error
    if not mask.any():
        raise PromptError(EMPTY_MASK.format(name=name))
    mask = as_objects(mask)
    # Ids may be of any size: ranks fit into the int32 of a prompt. Without background
    # the smallest id has rank 0, which would make this object background.
    ranks = np.unique(mask, return_inverse=True)[1].reshape(mask.shape)
    mask = (ranks + (0 if (mask == 0).any() else 1)).astype(np.int32)
    mask[unknown] = UNKNOWN
    return mask


def _negative_mask(
    labels: np.ndarray | None, shape: tuple[int, int], box: Box
) -> np.ndarray:
    """Return the mask of a box that shows what is not to be found.

    Parameters
    ----------
    labels : (Y, X) int array or None
    shape : (int, int)
        Height and width of the image.
    box : Box
        Inside the image.
    """
    mask = np.zeros((box.size, box.size), np.int32)
    if labels is not None:
        mask[_labels_in_box(labels, shape, box) == UNKNOWN] = UNKNOWN
    return mask


def _labels_in_box(labels: np.ndarray, shape: tuple[int, int], box: Box) -> np.ndarray:
    """Return the labels in a box, if they are those of the image."""
    labels = np.asarray(labels)
    if labels.shape != shape:
        raise PromptError(SHAPES_DIFFER.format(image=shape, labels=labels.shape))
    return labels[box.slices]


@dataclass(frozen=True, eq=False)
class PromptSet:
    """An ordered, named list of prompts with the same number of channels.

    Parameters
    ----------
    prompts : iterable of Prompt
    name : str

    Raises
    ------
    PromptError
        If the prompts differ in their number of channels.
    """

    prompts: tuple[Prompt, ...] = field(default=())
    name: str = "prompts"

    def __init__(self, prompts: Iterable[Prompt] = (), name: str = "prompts") -> None:
        prompts = tuple(prompts)
        for prompt in prompts[1:]:
            if prompt.n_channels != prompts[0].n_channels:
                raise PromptError(
                    CHANNELS_DIFFER.format(
                        name=prompt.name,
                        n=prompt.n_channels,
                        first=prompts[0].name,
                        n_first=prompts[0].n_channels,
                    )
                )
        object.__setattr__(self, "prompts", prompts)
        object.__setattr__(self, "name", name)

    def __len__(self) -> int:
        return len(self.prompts)

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self.prompts)

    def __getitem__(self, index: int) -> Prompt:
        return self.prompts[index]

    def added(self, *prompts: Prompt) -> PromptSet:
        """Return a set with ``prompts`` added at the end."""
        return PromptSet((*self.prompts, *prompts), self.name)

    def usable(self) -> PromptSet:
        """Return the enabled prompts, of which at least one shows an object.

        Raises
        ------
        PromptError
            If none is enabled, or all enabled ones are negative.
        """
        enabled = PromptSet((p for p in self.prompts if p.enabled), self.name)
        if not len(enabled):
            raise PromptError(NO_PROMPT)
        if all(p.is_negative for p in enabled):
            raise PromptError(ALL_NEGATIVE)
        return enabled

    def typical(self) -> tuple[Prompt, ...]:
        """Return the prompts whose objects tell how large typical ones are.

        Those that show an object, and of these the boxes where there are any: an
        object was clicked because it was missed, often as the odd one.
        """
        positive = tuple(p for p in self.prompts if not p.is_negative)
        return tuple(p for p in positive if not p.clicked) or positive


def prompt_hash(prompt: Prompt) -> str:
    """Return the hash of what a prompt says: its image, its mask, and if by a click."""
    clicked = ("clicked",) if prompt.clicked else ()
    return fingerprint(*clicked, prompt.image, prompt.mask)


def renamed(prompt: Prompt, name: str) -> Prompt:
    """Return ``prompt`` under another name."""
    return replace(prompt, name=name)


Prompts = Prompt | PromptSet | Iterable[Prompt]
"""Prompts in any form that a user may have them in."""


def as_prompt_set(prompts: Prompts) -> PromptSet:
    """Return one prompt, or several, as a set."""
    if isinstance(prompts, PromptSet):
        return prompts
    return PromptSet([prompts] if isinstance(prompts, Prompt) else prompts)
