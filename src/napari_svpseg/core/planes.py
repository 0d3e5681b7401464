"""Planes of a query of any axes, and results put back into its shape."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .contrast import DRIFTING, Profile, contrast_for, percentile_table
from .image import EMPTY_IMAGE, Axes, ImageError, channels_last, sample_pixels
from .prompt import PromptSet

MAX_SAMPLED_PLANES = 64
MAX_SAMPLED_PIXELS = 4_000_000
"""Limits of what is read to find the intensity range of a large query."""

OTHER_RANGES = "got {n} ranges of intensities for {planes} planes"
OTHER_CHANNELS = (
    "The query has {taken}, the prompts have {n}: choose {wanted} of the query, or cut "
    "prompts from an image like it."
)


@dataclass(frozen=True, eq=False)
class Planes:
    """The query as planes ``(Y, X, C)`` with the channels of the prompts.

    Parameters
    ----------
    array : array
        The query as it was given; a lazy array is read plane by plane.
    axes : Axes
        Meaning of the axes of ``array``.
    channels : tuple of int or None
        Channels that are taken, in order; None takes all.
    rgb : bool
        The channels are red, green and blue (alpha is dropped).
    """

    array: Any
    axes: Axes
    channels: tuple[int, ...] | None
    rgb: bool

    @classmethod
    def of(
        cls,
        query: Any,
        prompts: PromptSet,
        *,
        axes: str | None = None,
        channels: tuple[int, ...] | None = None,
        rgb: bool | None = None,
    ) -> Planes:
        """Return the planes of a query, checked against the prompts.

        Parameters
        ----------
        query : array
            Anything with a shape and a dtype, or what numpy makes an array of.
        prompts : PromptSet
            Decide on channels and colour where these are not given. Empty for a model
            that needs no prompt.
        axes : str, optional
            Needed unless the query is 2-D or RGB.
        channels : tuple of int, optional
        rgb : bool, optional

        Raises
        ------
        ImageError
            If the axes do not fit, the query is empty, or it has other channels than
            the prompts.
        """
        # A lazy array must not be read here: only what has no shape becomes an array.
        if not hasattr(query, "shape") or not hasattr(query, "dtype"):
            query = np.asarray(query)
        shape = tuple(int(n) for n in query.shape)
        if axes is None:
            # A last axis of 3 or 4 is only taken for colours where the prompts (or the
            # caller) have colours too: it may as well be a narrow image.
            coloured = len(shape) == 3 and shape[-1] in (3, 4)
            as_prompted = bool(rgb or not len(prompts) or prompts[0].rgb)
            layout = Axes.for_image(shape, rgb=coloured and as_prompted)
        else:
            layout = Axes(axes)
        layout.check(shape)
        if 0 in shape:
            raise ImageError(EMPTY_IMAGE.format(shape=shape))
        n = 1 if layout.channel is None else shape[layout.channel]
        if not len(prompts):  # a model with its own classes needs no prompt
            rgb = n in (3, 4) and query.dtype == np.uint8 if rgb is None else rgb
        if channels is None and layout.channel is not None and len(prompts):
            channels = prompts[0].channels
        if rgb is None:
            rgb = prompts[0].rgb
        # Chosen channels are no colours any more, even if there are three.
        rgb = bool(rgb) and channels is None and n in (3, 4)
        planes = cls(query, layout, channels, rgb)
        taken = planes.n_channels
        wanted = prompts[0].n_channels if len(prompts) else taken
        if taken != wanted:
            raise ImageError(
                OTHER_CHANNELS.format(
                    taken=_count(taken), n=wanted, wanted=_count(wanted)
                )
            )
        return planes

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole query."""
        return tuple(int(n) for n in self.array.shape)

    @property
    def n_channels(self) -> int:
        """Number of channels that are taken of each plane."""
        if self.channels is not None:
            return len(self.channels)
        at = self.axes.channel
        return 1 if at is None else 3 if self.rgb else self.shape[at]

    @property
    def indices(self) -> list[tuple[int, ...]]:
        """Index of each plane into the stack axes."""
        return list(self.axes.plane_indices(self.shape))

    def view(self, index: tuple[int, ...]) -> np.ndarray | PlaneView:
        """Return one plane ``(Y, X, C)``, as a lazy view if the query is lazy."""
        plane = PlaneView(self, index)
        return plane[:, :] if isinstance(self.array, np.ndarray) else plane

    def profile(self) -> Profile:
        """Return the percentiles of the whole query, and of the times of a movie.

        Planes of a stack share one range, so that a dim plane stays dim.
        """
        indices = self.indices
        n = min(len(indices), MAX_SAMPLED_PLANES)
        # Planes spread evenly along the stack, as brightness often changes along it.
        chosen = [indices[i] for i in np.linspace(0, len(indices) - 1, n).astype(int)]
        share = MAX_SAMPLED_PIXELS // n
        read = {i: sample_pixels(self.view(i), share) for i in chosen}
        sizes = dict(zip(self.axes.order, self.shape, strict=True))
        whole = percentile_table(np.concatenate(list(read.values())))
        profile = Profile(whole, sizes["Y"] * sizes["X"])
        if sizes.get("T", 1) < 2:
            return profile
        at = self.axes.stack.index("T")
        last, n = sizes["T"] - 1, min(sizes["T"], MAX_SAMPLED_PLANES)
        times = sorted({int(t) for t in np.linspace(0, last, n)})
        tables = []
        for t in times:
            here = [i for i in indices if i[at] == t]
            some = here[:: max(1, len(here) * n // MAX_SAMPLED_PLANES)]
            pixels = [
                read[i] if i in read else sample_pixels(self.view(i), share)
                for i in some
            ]
            tables.append(percentile_table(np.concatenate(pixels)))
        return replace(profile, times=tuple(times), of_times=np.stack(tables))

    def time_of(self, index: tuple[int, ...]) -> int | None:
        """Return the time of a plane of a movie, else None."""
        stack = self.axes.stack
        return index[stack.index("T")] if "T" in stack else None

    def contrasts(self, profile: Profile, prompts: PromptSet) -> PlaneContrasts:
        """Return the range of each plane, judged against the prompts.

        Parameters
        ----------
        profile : Profile
            Of the whole image, also where the query is a part of it.
        prompts : PromptSet
        """
        times = [self.time_of(index) for index in self.indices]
        each = {t: contrast_for(profile.at(t), prompts) for t in dict.fromkeys(times)}
        notes = dict.fromkeys(n for c in each.values() for n in c.notes)
        if profile.drifts and len(each) > 1:
            notes |= {DRIFTING: None}
        ranges = np.stack([each[t].intensities for t in times])
        return PlaneContrasts(ranges, tuple(notes))


@dataclass(frozen=True, eq=False)
class PlaneContrasts:
    """The intensity range of each plane of a query.

    Parameters
    ----------
    ranges : (P, C, 2) array
    notes : tuple of str
        Why they are not the plain ones.
    """

    ranges: np.ndarray
    notes: tuple[str, ...] = ()

    @classmethod
    def given(cls, ranges: ArrayLike, n_planes: int) -> PlaneContrasts:
        """Return ranges (C, 2) that all planes share, or those (P, C, 2) of each."""
        found = np.asarray(ranges, np.float64)
        if found.ndim < 3:
            found = np.repeat(found.reshape(1, -1, 2), n_planes, axis=0)
        if len(found) != n_planes:
            raise ImageError(OTHER_RANGES.format(n=len(found), planes=n_planes))
        return cls(found)

    @property
    def recorded(self) -> tuple[Any, ...]:
        """The ranges as plain values, for a recipe; empty where planes share one."""
        if (self.ranges == self.ranges[:1]).all():
            return ()
        return tuple(
            tuple((float(low), float(high)) for low, high in one) for one in self.ranges
        )


@dataclass(frozen=True, eq=False)
class PlaneView:
    """One plane of a lazy query, sliced like a ``(Y, X, C)`` array."""

    planes: Planes
    index: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and number of channels."""
        sizes = dict(zip(self.planes.axes.order, self.planes.shape, strict=True))
        return sizes["Y"], sizes["X"], self.planes.n_channels

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the query."""
        return np.dtype(self.planes.array.dtype)

    @property
    def ndim(self) -> int:
        """Always 3."""
        return 3

    def __getitem__(self, region: tuple[slice, ...]) -> np.ndarray:
        """Read the region ``[rows, columns]`` with all channels."""
        axes = self.planes.axes
        # Only the wanted region of the wanted plane is read from a lazy array.
        where = list(axes.plane_slices(self.index))
        where[axes.order.index("Y")], where[axes.order.index("X")] = region[:2]
        part = axes.to_plane(np.asarray(self.planes.array[tuple(where)]))
        plane, _ = channels_last(
            part, channels=self.planes.channels, rgb=self.planes.rgb
        )
        return plane


def take_plane(array: np.ndarray, layout: Axes, index: tuple[int, ...]) -> np.ndarray:
    """Return a view of one plane ``(Y, X)`` of an array without channels."""
    return _transposed(array[layout.plane_slices(index)], layout)


def put_plane(
    array: np.ndarray, layout: Axes, index: tuple[int, ...], plane: np.ndarray
) -> None:
    """Write one plane ``(Y, X)`` into an array without channels."""
    take_plane(array, layout, index)[...] = plane


def plane_to_stack(
    plane: np.ndarray, layout: Axes, shape: tuple[int, ...]
) -> np.ndarray:
    """Return a single plane ``(Y, X)`` in the shape of the stack that it fills."""
    return _transposed(plane, layout).reshape(shape)


def _transposed(plane: np.ndarray, layout: Axes) -> np.ndarray:
    """Return a plane transposed where the layout has X before Y; its own inverse."""
    return plane if layout.order.index("Y") < layout.order.index("X") else plane.T


def _count(n: int) -> str:
    return "1 channel" if n == 1 else f"{n} channels"
