"""Samples of a TIFF as a viewer shows them, or as ids where they are labels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from tifffile import EXTRASAMPLE, PHOTOMETRIC

from ..core.image import ImageError

ALPHA_SAMPLES = {EXTRASAMPLE.ASSOCALPHA, EXTRASAMPLE.UNASSALPHA}
AS_STORED = (
    PHOTOMETRIC.MINISBLACK,
    PHOTOMETRIC.RGB,
    PHOTOMETRIC.MASK,
    PHOTOMETRIC.LINEAR_RAW,
    PHOTOMETRIC.DEPTH_MAP,
    PHOTOMETRIC.SEMANTIC_MASK,
)
"""Interpretations whose samples are intensities as they are."""

JPEG = (6, 7)
"""Compressions whose decoder makes RGB of YCbCr by itself."""

CMYK_INKS = 1
"""Value of the tag InkSet for cyan, magenta, yellow and black."""

LEAST_LUMINANCE = np.array([0.299, 0.587, 0.114])
"""Share of red, green and blue in luminance."""

NOT_SHOWN = (
    "its pixels are stored as {name}, which is not read: save it as RGB or greyscale"
)
NOT_CMYK = "it has {n} inks that are not those of CMYK: save it as RGB"


class Stored(NamedTuple):
    """How the samples of a page are stored.

    Parameters
    ----------
    photometric : int
    bits : int
        Of a sample.
    compression : int
    palette : (3, N) uint16 array or None
    inks : int
        Value of the tag InkSet.
    is_imagej : bool
        ImageJ's palettes and white-is-zero are its lookup tables, not other values.
    is_alpha : bool
        The last sample is transparency.
    """

    photometric: int
    bits: int
    compression: int
    palette: np.ndarray | None
    inks: int
    is_imagej: bool
    is_alpha: bool

    @classmethod
    def of(cls, page: Any, is_imagej: bool) -> Stored:
        """Return how the samples of a page of tifffile are stored."""
        inks = page.tags.get("InkSet")
        return cls(
            int(page.photometric),
            int(page.bitspersample),
            int(page.compression),
            page.colormap,
            CMYK_INKS if inks is None else int(inks.value),
            is_imagej,
            bool(set(page.extrasamples) & ALPHA_SAMPLES),
        )

    def becomes_colour(self, samples: int) -> bool:
        """Return whether a page of that many samples is shown in colour."""
        kind = self.photometric
        if kind == PHOTOMETRIC.PALETTE:
            return self._palette_kind() == "colour"
        if kind == PHOTOMETRIC.SEPARATED:
            return samples in (4, 5)
        colours = (
            PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR, PHOTOMETRIC.CIELAB, PHOTOMETRIC.ICCLAB
        )  # fmt: skip
        return kind in colours and samples in (3, 4)

    def changes(self, samples: int) -> bool:
        """Return whether pixels are shown in another way than they are stored."""
        kind = self.photometric
        if kind in (PHOTOMETRIC.MINISWHITE,):
            return True
        if kind == PHOTOMETRIC.PALETTE:
            return self._palette_kind() != "intensities"
        if kind == PHOTOMETRIC.YCBCR:
            return self.compression not in JPEG and samples == 3
        return kind in (
            PHOTOMETRIC.SEPARATED, PHOTOMETRIC.CIELAB, PHOTOMETRIC.ICCLAB
        )  # fmt: skip

    def check(self, samples: int) -> None:
        """Raise `ImageError` for pixels that are not read, with the reason."""
        kind = self.photometric
        if kind == PHOTOMETRIC.SEPARATED:
            if samples not in (4, 5) or self.inks != CMYK_INKS:
                raise ImageError(NOT_CMYK.format(n=samples))
        elif kind not in (*AS_STORED, PHOTOMETRIC.YCBCR) and not self.changes(samples):
            if kind == PHOTOMETRIC.PALETTE:
                return
            known = {int(p): p.name for p in PHOTOMETRIC}
            raise ImageError(NOT_SHOWN.format(name=known.get(kind, kind)))

    def shown(self, array: np.ndarray) -> np.ndarray:
        """Return pixels as a viewer shows them.

        Parameters
        ----------
        array : (..., S) or (...) array
            Samples last, where there are several.

        Returns
        -------
        (..., 3) or (...) array
        """
        kind = self.photometric
        if kind == PHOTOMETRIC.MINISWHITE:
            return inverted(array, self.bits)
        if kind == PHOTOMETRIC.PALETTE:
            table = self._table()
            if self._palette_kind() == "grey":
                table = table[:, 0]
            return np.asarray(table[array])
        if kind == PHOTOMETRIC.SEPARATED:
            return cmyk_to_rgb(array[..., :4])
        if kind == PHOTOMETRIC.YCBCR:
            return ycbcr_to_rgb(array)
        return lab_to_rgb(array, signed=kind == PHOTOMETRIC.CIELAB)

    def ids(self, array: np.ndarray) -> np.ndarray:
        """Return pixels as ids: palette indices, and no ids turned upside down.

        A mask of two values is read as it is shown: where white is zero, zero is the
        object. Only for ImageJ it is 255 that is the object in both.
        """
        if self.photometric != PHOTOMETRIC.MINISWHITE or self.is_imagej:
            return array
        values = np.unique(array)
        top = (1 << self.bits) - 1
        if array.dtype == bool or set(values.tolist()) <= {0, top}:
            return inverted(array, self.bits)
        return array

    def _table(self) -> np.ndarray:
        """Return the colours of the palette, (N, 3) uint8."""
        assert self.palette is not None
        table = np.asarray(self.palette).T
        # 16 bits by the specification; some programs write 8.
        return (table >> 8 if table.max() > 255 else table).astype(np.uint8)

    def _palette_kind(self) -> str:
        """Return what a palette makes of indices: intensities, grey or colour.

        A lookup table of ImageJ that gets brighter with each step is the colour in
        which intensities are shown.
        """
        if self.palette is None:
            return "intensities"
        table = self._table()
        if (table == table[:, :1]).all():
            same = len(table) == 256 and (table[:, 0] == np.arange(256)).all()
            return "intensities" if same else "grey"
        if self.is_imagej and (np.diff(table @ LEAST_LUMINANCE) >= 0).all():
            return "intensities"
        return "colour"


def inverted(array: np.ndarray, bits: int) -> np.ndarray:
    """Return pixels of which white is 0 with black as 0.

    Examples
    --------
    >>> inverted(np.array([0, 255], np.uint8), 8).tolist()
    [255, 0]
    """
    if array.dtype.kind == "f":
        return -array
    if array.dtype.kind == "u":
        # fewer bits than the dtype has, as of a camera of 12 bits
        return np.asarray(array.dtype.type((1 << bits) - 1) - array)
    return ~array


def cmyk_to_rgb(array: np.ndarray) -> np.ndarray:
    """Return red, green and blue of cyan, magenta, yellow and black.

    Examples
    --------
    >>> cmyk_to_rgb(np.array([0, 255, 0, 0], np.uint8)).tolist()
    [255, 0, 255]
    """
    full = float(np.iinfo(array.dtype).max) if array.dtype.kind in "iu" else 1.0
    inks = array.astype(np.float32)
    light = (full - inks[..., :3]) * (full - inks[..., 3:4]) / full
    return np.rint(light).astype(array.dtype) if full > 1 else light


def ycbcr_to_rgb(array: np.ndarray) -> np.ndarray:
    """Return red, green and blue of luminance and two differences of colour."""
    full = float(np.iinfo(array.dtype).max)
    y, cb, cr = np.moveaxis(array.astype(np.float32), -1, 0)
    cb, cr = cb - (full + 1) / 2, cr - (full + 1) / 2
    rgb = np.stack(
        [y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1
    )
    return np.rint(np.clip(rgb, 0, full)).astype(array.dtype)


def lab_to_rgb(array: np.ndarray, *, signed: bool) -> np.ndarray:
    """Return red, green and blue, 8 bits, of lightness and two axes of colour.

    Parameters
    ----------
    array : (..., 3) array
    signed : bool
        The axes of colour are signed numbers (CIELAB), not shifted by half (ICCLAB).
    """
    from skimage.color import lab2rgb

    full = float(np.iinfo(array.dtype).max) if array.dtype.kind in "iu" else 1.0
    kind = np.dtype(f"i{array.dtype.itemsize}")
    unit = (full + 1) / 256  # 16 bits have 256 steps for each of 8 bits
    lab = np.empty((*array.shape[:-1], 3), np.float64)
    lab[..., 0] = array[..., 0] / full * 100
    colour = array[..., 1:3]
    if signed:
        lab[..., 1:] = colour.astype(array.dtype).view(kind) / unit
    else:
        lab[..., 1:] = colour / unit - 128
    return np.rint(np.clip(lab2rgb(lab), 0, 1) * 255).astype(np.uint8)


class ShownArray:
    """A lazy array whose pixels are converted where it is sliced.

    Parameters
    ----------
    array : array
        Anything that is sliced like one, with the samples last.
    stored : Stored
    samples : int
        Samples of each pixel; 1 if there is no axis of samples.
    """

    def __init__(self, array: Any, stored: Stored, samples: int) -> None:
        self._array, self._stored, self._samples = array, stored, samples
        shape = tuple(int(n) for n in array.shape)
        self._n_outer = len(shape) - (samples > 1)
        pixel = np.zeros((1,) * self._n_outer + shape[self._n_outer :], array.dtype)
        like = stored.shown(pixel)
        self.dtype = like.dtype
        self._is_colour = like.ndim > self._n_outer
        self.shape = shape[: self._n_outer] + like.shape[self._n_outer :]
        self.ndim = len(self.shape)

    def __getitem__(self, index: Any) -> np.ndarray:
        index = index if isinstance(index, tuple) else (index,)
        if Ellipsis in index:
            at = index.index(Ellipsis)
            gap = (slice(None),) * (self.ndim - len(index) + 1)
            index = index[:at] + gap + index[at + 1 :]
        index += (slice(None),) * (self.ndim - len(index))
        shown = self._stored.shown(np.asarray(self._array[index[: self._n_outer]]))
        return np.asarray(shown[..., index[-1]] if self._is_colour else shown)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self[...], dtype)
