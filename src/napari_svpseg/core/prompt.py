"""The prompt: a 64 x 64 crop and its mask, and what must be known to use it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from .fingerprint import fingerprint
from .geometry import PROMPT_SIZE, Box
from .image import (
    as_float32,
    channels_last,
    intensity_range,
    resize_image,
    resize_labels,
)


class PromptError(ValueError):
    """A prompt that cannot be used; the message says what to do."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """An image crop and its mask, both 64 x 64: "find more of *these*".

    Parameters
    ----------
    image : (64, 64, C) float32 array
        Intensities as in the source (not normalised), resampled to 64 x 64.
    mask : (64, 64) int32 array
        Object ids; 0 is background. All zero means a negative prompt.
    intensities : (C, 2) float array
        Low and high percentile of each channel of the *whole* source image.
    box : Box
        Where it was cut, in pixels of the source.
    name : str
        Shown in lists.
    source : str
        File or layer it was cut from.
    rgb : bool
        The channels are red, green and blue (alpha dropped).
    channels : tuple of int, optional
        Which channels of the source were taken, in order; None means all.
    pixel_size : (float, float), optional
        Height and width of a source pixel, in ``unit``.
    unit : str
        Unit of ``pixel_size``.
    color : str
        Outline colour, ``#rrggbb``.
    enabled : bool
        Whether it takes part in a run.
    channel_names : tuple of str
        Of the images that its channels were taken from, where each was one of its own.
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

    def __post_init__(self) -> None:
        side = (PROMPT_SIZE, PROMPT_SIZE)
        shape = self.image.shape
        if len(shape) != 3 or shape[:2] != side or not shape[2]:
            raise PromptError(
                f"a prompt image must be 64 x 64 x channels, got {self.image.shape}"
            )
        if self.mask.shape != side:
            raise PromptError(f"a prompt mask must be 64 x 64, got {self.mask.shape}")
        if self.image.dtype.kind not in "biuf":
            raise PromptError(
                f"a prompt image must be real numbers, got dtype {self.image.dtype}"
            )
        image = as_float32(self.image)
        if not np.isfinite(image).all():
            raise PromptError(
                f"The prompt '{self.name}' holds NaN or infinite pixels: "
                "draw the box elsewhere."
            )
        if self.mask.dtype.kind not in "biu":
            raise PromptError(
                f"a prompt mask must hold whole numbers, got dtype {self.mask.dtype}"
            )
        if self.mask.max(initial=0) > np.iinfo(np.int32).max:
            raise PromptError(
                f"The mask of prompt '{self.name}' holds ids above "
                f"{np.iinfo(np.int32).max}: renumber its objects."
            )
        if self.mask.min(initial=0) < 0:
            raise PromptError(
                f"The mask of prompt '{self.name}' holds negative ids: "
                "object ids start at 1."
            )
        object.__setattr__(self, "image", image)
        object.__setattr__(self, "mask", self.mask.astype(np.int32, copy=False))
        intensities = np.asarray(self.intensities, np.float64).reshape(-1, 2)
        if len(intensities) != self.image.shape[2]:
            raise PromptError(
                f"a prompt of {self.image.shape[2]} channels needs as many intensity "
                f"ranges, got {len(intensities)}"
            )
        if not np.isfinite(intensities).all():
            raise PromptError(f"The prompt '{self.name}' has no finite intensities.")
        object.__setattr__(self, "intensities", intensities)

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
        """Cut a prompt out of an image and its labels.

        Parameters
        ----------
        image : (Y, X) or (Y, X, C) array
            One plane; any real dtype. ``channel_axis`` says where C is if not last.
        labels : (Y, X) int array or None
            Object ids, 0 = background. None only for a negative prompt.
        box : Box or (int, int)
            The box, or the top-left corner ``(y, x)`` of a box of ``size``.
        size : int
            Side of the box in pixels, used when ``box`` is a corner.
        channel_axis : int, optional
            Axis of the channels of a 3-D ``image``; by default the last.
        channels : tuple of int, optional
            Channels to take, in order; None takes all.
        rgb : bool, optional
            Whether the channels are red, green, blue (and alpha). By default an 8-bit
            image whose last axis is 3 or 4 long *and* no ``channels`` are given.
        negative : bool
            "This is not it": the mask is emptied, labels are not needed.
        intensities : (C, 2) array, optional
            Percentiles of the whole source when ``image`` is only a part of it.

        Returns
        -------
        Prompt

        Raises
        ------
        PromptError
            If the box leaves the image, shapes differ, or the mask has no foreground
            (unless ``negative``).

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
        if not box.fits(image.shape[:2]):
            raise PromptError(
                f"The box at y={box.y}, x={box.x} of {box.size} pixels leaves the "
                f"image ({image.shape[0]} x {image.shape[1]}): move it inside."
            )
        if negative:
            mask = np.zeros((box.size, box.size), np.int32)
        elif labels is None:
            raise PromptError("A prompt needs labels: paint or choose a mask.")
        else:
            labels = np.asarray(labels)
            if labels.shape != image.shape[:2]:
                raise PromptError(
                    f"image and labels differ in shape: {image.shape[:2]} and "
                    f"{labels.shape}"
                )
            if labels.dtype.kind not in "iub":
                raise PromptError(
                    f"labels must be whole numbers, got dtype {labels.dtype}"
                )
            mask = labels[box.slices]
            if mask.min(initial=0) < 0:
                raise PromptError(
                    f"The mask of prompt '{name}' holds negative ids: "
                    "object ids start at 1."
                )
            if not mask.any():
                raise PromptError(
                    f"The mask of prompt '{name}' is empty: paint at least one object "
                    "in the box, or mark the prompt as negative."
                )
            ranks = np.unique(mask, return_inverse=True)[1].reshape(mask.shape)
            mask = (ranks + (0 if (mask == 0).any() else 1)).astype(np.int32)
        if intensities is None:
            intensities = intensity_range(image)
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
        """Whether the mask is empty: "this is not it"."""
        return not self.mask.any()

    @property
    def n_objects(self) -> int:
        """Number of objects in the mask."""
        return int(np.unique(self.mask[self.mask > 0]).size)

    @property
    def n_channels(self) -> int:
        """Number of image channels."""
        return int(self.image.shape[2])


@dataclass(frozen=True, eq=False)
class PromptSet:
    """An ordered, named list of prompts that agree in their channels.

    Parameters
    ----------
    prompts : iterable of Prompt
    name : str
    """

    prompts: tuple[Prompt, ...] = field(default=())
    name: str = "prompts"

    def __init__(self, prompts: Iterable[Prompt] = (), name: str = "prompts") -> None:
        prompts = tuple(prompts)
        for prompt in prompts[1:]:
            if prompt.n_channels != prompts[0].n_channels:
                raise PromptError(
                    f"Prompt '{prompt.name}' has {prompt.n_channels} channels, "
                    f"'{prompts[0].name}' has {prompts[0].n_channels}: "
                    "use prompts of one kind of image."
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
        """Return the set with ``prompts`` at its end."""
        return PromptSet((*self.prompts, *prompts), self.name)

    def usable(self) -> PromptSet:
        """Return the enabled prompts, checked: at least one shows an object.

        Raises
        ------
        PromptError
            If none is enabled, or all enabled ones are negative.
        """
        enabled = PromptSet((p for p in self.prompts if p.enabled), self.name)
        if not len(enabled):
            raise PromptError("No prompt: draw a box on a few cells, or switch one on.")
        if all(p.is_negative for p in enabled):
            raise PromptError(
                "All prompts are negative: add one that shows what to find."
            )
        return enabled


def prompt_hash(prompt: Prompt) -> str:
    """Return the hash of what a prompt shows: its image and its mask."""
    return fingerprint(prompt.image, prompt.mask)


def renamed(prompt: Prompt, name: str) -> Prompt:
    """Return ``prompt`` under another name."""
    return replace(prompt, name=name)
