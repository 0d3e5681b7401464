"""PNG, JPEG, GIF, BMP and other bitmaps, as a viewer shows them or as ids."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from ..core.image import ImageError

START = 26
"""Bytes at the start of a file that tell its format, and the colours of a PNG."""

PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_COLOURS = (2, 4, 6)
"""Colour types of PNG with several samples, which Pillow cuts to 8 bits."""

JPEG_START = b"\xff\xd8"
JPEG_SCAN, JPEG_END = 0xDA, 0xD9
JPEG_ALONE = (0x01, *range(0xD0, 0xD9))
"""Markers of JPEG without a length, but for its end."""

ZEROS_AT_END = 16
"""Zero bytes with which no picture in WebP ends."""

JPEG_2000_STARTS = (b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")

CUT_SHORT = "its end is missing, as after a copy that was broken off: copy it again"
CUT_TO_8_BITS = (
    "its 16 bits of each colour would be cut to 8: convert it to PNG or TIFF"
)


def read_bitmap(path: Path, *, as_ids: bool = False) -> tuple[np.ndarray, str]:
    """Return the pixels of a bitmap and their axes.

    Axes are YX or YXC, where C is red, green and blue (and alpha); frames of an
    animation are times. Palettes become colours, or grey if all of theirs are.

    Parameters
    ----------
    path : path
    as_ids : bool
        Indices of a palette stay as they are.

    Raises
    ------
    ImageError
        For 16-bit colours in a format whose reader would cut them, and for a file whose
        end is missing or filled with zeros.
    """
    with path.open("rb") as file:
        start = file.read(START)
    _check_whole(path, start)
    array = _with_16_bits(path, start)
    letters = ""
    if array is None:
        array, letters = _with_pillow(path, as_ids)
    if array.ndim > 2 and array.shape[-1] == 2 and not letters:  # grey and alpha
        array = array[..., 0]
    if not letters:
        letters = "YX" if array.ndim == 2 else "YXC"
    return array, letters


def is_bitmap(path: Path) -> bool:
    """Return whether Pillow knows a file by how it starts."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return image.format not in ("TIFF", "HDF5", "GRIB", "BUFR", "MIC", "FPX")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return False


def _check_whole(path: Path, start: bytes) -> None:
    """Raise `ImageError` for a file that was cut, where its reader would fill it up.

    Pillow raises by itself for a file that is too short, but not for one of the right
    length that ends with zeros, which is what a copy that was broken off may leave.
    """
    from PIL import Image

    if start.startswith(PNG_START):
        with Image.open(path) as image:
            try:
                image.verify()
            except (SyntaxError, OSError) as error:
                raise ImageError(CUT_SHORT) from error
    elif start.startswith(JPEG_START) and not _has_end_of_jpeg(path.read_bytes()):
        raise ImageError(CUT_SHORT)
    elif start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        length = 8 + int.from_bytes(start[4:8], "little")
        with path.open("rb") as file:
            file.seek(max(0, length - ZEROS_AT_END))
            if not any(file.read(ZEROS_AT_END)):
                raise ImageError(CUT_SHORT)


def _has_end_of_jpeg(data: bytes) -> bool:
    """Return whether the first image in the bytes of a JPEG has its end.

    Source: ITU-T T.81, annex B (segments with lengths, and scans without).
    """
    at = len(JPEG_START)
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return False
        marker = data[at + 1]
        if marker == JPEG_END:
            return True
        at += 1
        if marker == 0xFF:  # a fill byte
            continue
        at += 1
        if marker not in JPEG_ALONE:
            at += int.from_bytes(data[at : at + 2])
        if marker == JPEG_SCAN or marker in JPEG_ALONE:
            at = _end_of_scan(data, at)
    return data[at : at + 2] == bytes((0xFF, JPEG_END))


def _end_of_scan(data: bytes, at: int) -> int:
    """Return where the next marker that is no part of a scan stands, else the end."""
    while (at := data.find(b"\xff", at)) >= 0:
        if data[at + 1 : at + 2] not in (b"\x00", b"\xff", b""):
            return at
        at += 1
    return len(data)


def _with_16_bits(path: Path, start: bytes) -> np.ndarray | None:
    """Return pixels of formats in which Pillow cuts 16 bits to 8; None for others."""
    if start.startswith(PNG_START) and len(start) == START:
        depth, kind = struct.unpack("BB", start[24:26])
        if depth != 16 or kind not in PNG_COLOURS:
            return None
        from imagecodecs import png_decode

        return np.asarray(png_decode(path.read_bytes()))
    if start.startswith(JPEG_2000_STARTS):
        from imagecodecs import jpeg2k_decode

        return np.asarray(jpeg2k_decode(path.read_bytes()))
    return None


def _with_pillow(path: Path, as_ids: bool) -> tuple[np.ndarray, str]:
    """Return the pixels of all frames and their axes."""
    from PIL import Image, ImageSequence

    with Image.open(path) as image:
        if image.format == "PPM" and image.mode == "RGB" and _has_16_bits(path):
            raise ImageError(CUT_TO_8_BITS)
        n = int(getattr(image, "n_frames", 1))
        if n == 1:
            array = _pixels(image, as_ids)
            return array, "YX" if array.ndim == 2 else "YXC"
        frames = [_pixels(frame, as_ids) for frame in ImageSequence.Iterator(image)]
    # Pillow gives the first frame of a GIF by its palette and the others in colour.
    if len({frame.ndim for frame in frames}) > 1:
        frames = [_in_colour(frame) for frame in frames]
    frames = [f[..., :3] if f.ndim == 3 else f for f in frames]
    if all(f.ndim == 3 and _is_grey(f) for f in frames):
        frames = [f[..., 0] for f in frames]
    array = np.stack(frames)
    return array, "TYX" if array.ndim == 3 else "TYXC"


def _pixels(image: Any, as_ids: bool) -> np.ndarray:
    """Return the pixels of one frame as Pillow would show them."""
    mode = image.mode
    if mode == "P" and not as_ids:
        array = np.asarray(image.convert("RGB"))
        return array[..., 0] if _is_grey(array) else array
    if mode in ("LA", "La", "PA"):
        return np.asarray(image)[..., 0]
    if mode in ("CMYK", "YCbCr", "LAB", "HSV", "RGBX"):
        return np.asarray(image.convert("RGB"))
    return np.asarray(image)


def _in_colour(frame: np.ndarray) -> np.ndarray:
    """Return a frame with three channels."""
    return np.repeat(frame[..., None], 3, axis=2) if frame.ndim == 2 else frame


def _is_grey(array: np.ndarray) -> bool:
    """Return whether red, green and blue are the same everywhere."""
    return bool((array[..., :3] == array[..., :1]).all())


def _has_16_bits(path: Path) -> bool:
    """Return whether a PPM has more than 8 bits for each colour."""
    with path.open("rb") as file:
        words = b" ".join(
            line.partition(b"#")[0] for line in file.read(400).split(b"\n")
        ).split()
    return len(words) > 3 and words[3].isdigit() and int(words[3]) > 255
