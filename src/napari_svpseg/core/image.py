"""Axes, channels, intensities and resampling of images.

What an axis or a channel means is declared by the file or the user, never guessed from
the shape of an array.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

AXES = "TZCYX"
"""Letters of the axes, in the order in which files and layers have them."""

LOW_PERCENTILE, HIGH_PERCENTILE = 1.0, 99.8
"""Percentiles that `normalise` maps to 0 and 1.

The upper one is near 100, as bright objects may cover less than 1 % of an image.
"""

SAMPLE_BLOCKS, SAMPLE_SIDE = 4, 512
"""Grid (4 x 4) and side in pixels of the blocks that a lazy plane is sampled in."""

AXES_INVALID = "axes must be letters of {known}, each once, with Y and X, got {order!r}"
AXES_UNKNOWN = (
    "The image has {ndim} dimensions {shape}: declare them, for example axes=ZYX, TYX, "
    "CYX or YXC."
)
AXES_MISMATCH = "axes {order} name {n} dimensions, but the image has {ndim} {shape}."
SMALL_FLOAT32, LARGE_FLOAT32 = 1e-30, 1e30
"""Limits beyond which intensities are scaled in float64."""

NOT_REAL = "the image must hold real numbers, got dtype {dtype}"
NOT_A_PLANE = "image must be (Y, X) or (Y, X, C), got shape {shape}"
EMPTY_IMAGE = "the image is empty: shape {shape}"
CHANNELS_ABSENT = "the image has channels 0 to {last}, asked for {channels}"
TOO_MANY_CHANNELS = "the image has {n} channels: choose up to three of them"


class Plane(Protocol):
    """A ``(Y, X, C)`` array, or anything sliced like one (dask, zarr, a reader)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width and number of channels."""

    def __getitem__(self, index: Any) -> Any: ...


class ImageError(ValueError):
    """An image that cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Axes:
    """The meaning of each axis of an array, such as ``YX``, ``ZYX`` or ``YXC``.

    Parameters
    ----------
    order : str
        Letters out of T, Z, C, Y, X, each at most once, with Y and X.

    Raises
    ------
    ImageError
        For any other letters.
    """

    order: str

    def __post_init__(self) -> None:
        order = self.order.upper()
        if (
            set(order) - set(AXES)
            or len(set(order)) != len(order)
            or not {"Y", "X"} <= set(order)
        ):
            raise ImageError(AXES_INVALID.format(known=AXES, order=self.order))
        object.__setattr__(self, "order", order)

    @classmethod
    def for_image(cls, shape: tuple[int, ...], *, rgb: bool = False) -> Axes:
        """Return the axes of an image that need no declaration: YX, or YXC if RGB.

        Raises
        ------
        ImageError
            For any other number of dimensions, whose meaning the user has to declare.
        """
        if len(shape) == 2:
            return cls("YX")
        if len(shape) == 3 and rgb:
            return cls("YXC")
        raise ImageError(AXES_UNKNOWN.format(ndim=len(shape), shape=shape))

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise `ImageError` where an array of ``shape`` cannot have these axes."""
        if len(shape) != len(self.order):
            raise ImageError(
                AXES_MISMATCH.format(
                    order=self.order,
                    n=len(self.order),
                    ndim=len(shape),
                    shape=tuple(shape),
                )
            )

    @property
    def channel(self) -> int | None:
        """Position of the channel axis, or None."""
        return self.order.find("C") if "C" in self.order else None

    @property
    def stack(self) -> str:
        """The axes that planes are taken along (T and Z), in array order."""
        return "".join(a for a in self.order if a not in "CYX")

    @property
    def labels(self) -> str:
        """Axes of the labels: those of the image without C."""
        return self.order.replace("C", "")

    def labels_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the labels of an image of ``shape``."""
        return tuple(n for n, a in zip(shape, self.order, strict=True) if a != "C")

    def plane_indices(self, shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """Yield the index of each plane along the stack axes, in array order."""
        sizes = [n for n, a in zip(shape, self.order, strict=True) if a in self.stack]
        yield from np.ndindex(*sizes)

    def plane_slices(self, index: tuple[int, ...]) -> tuple[int | slice, ...]:
        """Return the index that takes one plane, with its channels, out of an image."""
        positions = iter(index)
        return tuple(
            next(positions) if a in self.stack else slice(None) for a in self.order
        )

    def to_plane(self, plane: np.ndarray) -> np.ndarray:
        """Return an array taken by `plane_slices` as ``(Y, X, C)``."""
        # T and Z are gone after `plane_slices`: positions count the other axes only.
        rest = [a for a in self.order if a in "CYX"]
        plane = np.moveaxis(plane, [rest.index("Y"), rest.index("X")], [0, 1])
        return plane if plane.ndim == 3 else plane[..., None]


class StackedChannels:
    """Arrays of one shape, shown as one array with a channel axis in front.

    Nothing is copied; slicing reads the wanted part of each array.

    Parameters
    ----------
    arrays : sequence of arrays
        One for each channel; may be lazy.
    """

    def __init__(self, arrays: Sequence[Any]) -> None:
        self.arrays = tuple(arrays)
        self.dtype = np.result_type(*(np.dtype(a.dtype) for a in self.arrays))
        self.shape = (len(self.arrays), *(int(n) for n in self.arrays[0].shape))
        self.ndim = len(self.shape)

    def part(self, index: tuple[Any, ...]) -> StackedChannels:
        """Return a region of all channels without reading it.

        Parameters
        ----------
        index : tuple
            Index into the axes behind the channel axis.
        """
        return StackedChannels([array[index] for array in self.arrays])

    def __getitem__(self, index: Any) -> np.ndarray:
        # The first index chooses channels; the rest is passed on to each array.
        index = index if isinstance(index, tuple) else (index,)
        own, rest = index[0], index[1:]
        if isinstance(own, slice):
            chosen = self.arrays[own]
            return np.stack([np.asarray(array[rest], self.dtype) for array in chosen])
        return np.asarray(self.arrays[own][rest], self.dtype)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self[:,], dtype)


def channels_last(
    image: np.ndarray,
    channel_axis: int | None = None,
    channels: tuple[int, ...] | None = None,
    rgb: bool | None = None,
) -> tuple[np.ndarray, bool]:
    """Return one plane as ``(Y, X, C)`` and whether it is RGB (alpha is dropped).

    Parameters
    ----------
    image : (Y, X) or (Y, X, C) array
        Or with C at ``channel_axis``.
    channel_axis : int, optional
        Axis of the channels of a 3-D image; by default the last.
    channels : tuple of int, optional
        Channels to take, in order; by default all.
    rgb : bool, optional
        By default True for an 8-bit image whose last axis is 3 or 4 long, unless
        ``channels`` are selected.

    Returns
    -------
    image : (Y, X, C) array
        Of the dtype of ``image``.
    rgb : bool

    Raises
    ------
    ImageError
        For other shapes, dtypes that are not real numbers, or absent channels.
    """
    image = np.asarray(image)
    if image.dtype.kind not in "biuf":
        raise ImageError(NOT_REAL.format(dtype=image.dtype))
    if image.ndim == 2:
        if channel_axis is not None:
            raise ImageError(f"a 2-D image {image.shape} has no channel axis")
        image, rgb = image[..., None], False
    elif image.ndim == 3:
        axis = -1 if channel_axis is None else channel_axis
        if not -3 <= axis < 3:
            raise ImageError(f"channel_axis must be -3 to 2, got {channel_axis}")
        image = np.moveaxis(image, axis, -1)
        if rgb is None:
            # Three 16-bit channels are stains rather than the colours of a camera.
            rgb = image.dtype == np.uint8 and image.shape[2] in (3, 4) and not channels
        if rgb and image.shape[2] == 4:
            image = image[..., :3]
        if rgb and image.shape[2] != 3:
            raise ImageError(f"an RGB image needs 3 or 4 channels, got {image.shape}")
    else:
        raise ImageError(NOT_A_PLANE.format(shape=image.shape))
    if 0 in image.shape:
        raise ImageError(EMPTY_IMAGE.format(shape=image.shape))
    if channels is not None:
        n = image.shape[2]
        if not channels or not all(0 <= c < n for c in channels):
            raise ImageError(
                CHANNELS_ABSENT.format(last=n - 1, channels=tuple(channels))
            )
        image = image[..., list(channels)]
    return image, bool(rgb)


def intensity_range(image: np.ndarray, max_pixels: int = 4_000_000) -> np.ndarray:
    """Return the 1st and 99.8th percentile of each channel of a whole image.

    Parameters
    ----------
    image : (..., C) array
        Channels last. NaN and infinite pixels are ignored.
    max_pixels : int
        Larger images are sampled on a regular grid of about this many pixels.

    Returns
    -------
    (C, 2) float64 array
        Low and high intensity; (0, 0) for a channel without a finite pixel.
    """
    ranges = []
    for channel in every_nth(image, max_pixels).T:
        # float64, as a percentile of float16 or of large integers would be rounded
        values = channel[np.isfinite(channel)].astype(np.float64)
        ranges.append(
            np.percentile(values, [LOW_PERCENTILE, HIGH_PERCENTILE])
            if values.size
            else np.zeros(2)
        )
    return np.asarray(ranges)


def every_nth(image: np.ndarray, max_pixels: int = 4_000_000) -> np.ndarray:
    """Return about ``max_pixels`` pixels (N, C) of an image (..., C).

    At a regular step instead of random ones: the same image gives the same pixels.
    """
    flat = image.reshape(-1, image.shape[-1])
    return flat[:: max(1, len(flat) // max_pixels)]


def sample_pixels(plane: Plane, max_pixels: int = 4_000_000) -> np.ndarray:
    """Return pixels (N, C) from all parts of a plane, to estimate its intensities.

    Parameters
    ----------
    plane : (Y, X, C) array, or anything sliced like one
        Every n-th pixel is taken of a numpy array; a lazy plane (dask, zarr) is read in
        a grid of blocks.
    max_pixels : int
        About how many pixels are taken at most.

    Returns
    -------
    (N, C) array
    """
    if isinstance(plane, np.ndarray):
        flat = plane.reshape(-1, plane.shape[2])
    else:
        # Blocks, as single pixels would make a lazy array read all of its chunks.
        blocks = [
            np.asarray(plane[y : y + SAMPLE_SIDE, x : x + SAMPLE_SIDE])
            for y in _block_starts(plane.shape[0])
            for x in _block_starts(plane.shape[1])
        ]
        flat = np.concatenate([b.reshape(-1, plane.shape[2]) for b in blocks])
    return flat[:: max(1, len(flat) // max(max_pixels, 1))]


def _block_starts(length: int) -> list[int]:
    """Return where blocks start, evenly spread from one border to the other."""
    last = max(0, length - SAMPLE_SIDE)
    n = min(SAMPLE_BLOCKS, -(-length // SAMPLE_SIDE))
    return sorted({round(at) for at in np.linspace(0, last, n)})


def normalise(image: np.ndarray, intensities: np.ndarray) -> np.ndarray:
    """Return an image scaled for the network by the percentiles of its whole source.

    A crop is scaled by the percentiles of the image that it was cut from, so that a
    prompt and a tile of the same image look alike to the network.

    Parameters
    ----------
    image : (Y, X, C) array
    intensities : (C, 2) array
        From `intensity_range`.

    Returns
    -------
    (Y, X, C) float32 array
        ``(v - 0.5) / 0.25`` where v is 0 at the low and 1 at the high percentile,
        clipped to [-0.2, 1.2]. A constant channel becomes 0; NaN becomes the low end.
    """
    flat = is_flat(intensities)
    # float32 cannot tell neighbouring values of 32-bit integers apart: float64 for them
    kind = np.promote_types(image.dtype, np.float32)
    span = intensities[:, 1] - intensities[:, 0]
    if (np.abs(intensities) > LARGE_FLOAT32).any() or (span < SMALL_FLOAT32).any():
        kind = np.dtype(np.float64)
    low, span = intensities[:, 0].astype(kind), span.astype(kind)
    with np.errstate(over="ignore", invalid="ignore"):  # infinity is replaced below
        scaled = (image.astype(kind) - low) / np.where(flat, 1, span)
    scaled = np.nan_to_num(scaled, nan=0.0, posinf=1.2, neginf=-0.2)
    scaled = np.where(flat, 0.5, np.clip(scaled, -0.2, 1.2))
    # Most values come to lie between -2 and 2, centred like the input of a network.
    return np.asarray((scaled - 0.5) / 0.25, np.float32)


def is_flat(intensities: np.ndarray) -> np.ndarray:
    """Return whether each channel has no contrast, from its range (..., C, 2).

    Relative to the offset, as on 1e9 a range below the rounding error is none; how
    large the values are does not count otherwise.
    """
    low, high = np.moveaxis(np.asarray(intensities, np.float64), -1, 0)
    with np.errstate(over="ignore", invalid="ignore"):
        span = high - low
    return ~(span > 1e-12 * np.abs(low)) | ~np.isfinite(span)


def as_float32(image: np.ndarray) -> np.ndarray:
    """Return an image as float32; values above its range become infinite, unwarned."""
    with np.errstate(over="ignore"):
        return image.astype(np.float32, copy=False)


def to_three_channels(image: np.ndarray) -> np.ndarray:
    """Return an image with the three channels that all networks take.

    Parameters
    ----------
    image : (Y, X, C) array
        One to three channels.

    Returns
    -------
    (Y, X, 3) array
        One channel is repeated; two are followed by their mean.

    Raises
    ------
    ImageError
        For more than three channels.
    """
    n = image.shape[2]
    if n == 3:
        return image
    if n == 1:
        return np.repeat(image, 3, axis=2)
    if n == 2:
        return np.concatenate([image, image.mean(axis=2, keepdims=True)], axis=2)
    raise ImageError(TOO_MANY_CHANNELS.format(n=n))


def resize_image(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return an image resampled by linear interpolation.

    Parameters
    ----------
    image : (Y, X, C) array
    shape : (int, int)
        Height and width of the result.

    Returns
    -------
    (*shape, C) float32 array
        Smoothed against aliasing if it is smaller; intensities keep their range.
    """
    image = as_float32(image)
    if image.shape[:2] == tuple(shape):
        return image
    from skimage.transform import resize  # slow to load

    # Without smoothing, a reduced image keeps some pixels and drops their neighbours:
    # thin structures and noise would alias.
    reduced = image.shape[0] > shape[0] or image.shape[1] > shape[1]
    return np.asarray(
        resize(
            image,
            (*shape, image.shape[2]),
            order=1,
            mode="reflect",
            anti_aliasing=reduced,
            preserve_range=True,
        ),
        np.float32,
    )


def resize_labels(labels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return labels ``(Y, X)`` resampled to ``shape`` by nearest neighbour."""
    if labels.shape == tuple(shape):
        return labels
    # Indexing instead of skimage's resize, which would turn large ids into floats.
    rows = _nearest(labels.shape[0], shape[0])
    columns = _nearest(labels.shape[1], shape[1])
    return labels[np.ix_(rows, columns)]


def _nearest(source: int, target: int) -> np.ndarray:
    """Return the source pixel that holds the centre of each target pixel."""
    # Pixel centres lie at half coordinates, so that both borders stay where they are.
    centres = (np.arange(target) + 0.5) * source / target
    return np.minimum(centres.astype(int), source - 1)
