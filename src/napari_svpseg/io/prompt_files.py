"""Prompt sets as ``.svprompt`` files: a zip of JSON and pairs of small TIFFs.

Files come from anywhere, so that everything in them is checked: paths, sizes, packing,
types and values. Nothing is executed or unpacked to the disk.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from ..core.errors import short_line
from ..core.geometry import PROMPT_SIZE, Box
from ..core.image import ImageError
from ..core.prompt import (
    NEGATIVE_IDS,
    UNKNOWN,
    Prompt,
    PromptError,
    Prompts,
    PromptSet,
    as_prompt_set,
)
from .atomic import atomic_path
from .images import quiet_tifffile
from .mask_files import read_mask
from .ome_zarr import read_any
from .ownership import members_hash

FORMAT = "svprompt"
PLAIN_VERSION, UNKNOWN_PIXELS_VERSION = 1, 2
"""Versions of the format; masks of version 2 hold unknown pixels, -1.

A file without unknown pixels has version 1, which older installations read too.
"""

INDEX = "prompts.json"
MAX_PROMPTS, MAX_CHANNELS = 1000, 64
MAX_MEMBERS, MAX_MEMBER_BYTES, MAX_BYTES = 2 * MAX_PROMPTS + 1, 4_000_000, 400_000_000
"""Limits of what a file may hold, in bytes where they are sizes."""

PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

ENTRY_TYPES = {
    "name": str,
    "image": str,
    "mask": str,
    "corner": list,
    "size": int,
    "intensities": list,
    "channels": list | None,
    "channel_names": list | None,
    "pixel_size": list | None,
}
"""Type of each entry of a prompt in the index that more than describes it."""

TOO_MANY = (
    f"A prompt file holds up to {MAX_PROMPTS} prompts of up to {MAX_CHANNELS} "
    "channels: save fewer."
)
NO_SUCH_FILE = "no such file."
NOT_A_ZIP = "not a prompt file, or damaged ({reason})."
BAD_INDEX = f"damaged, {INDEX} does not describe its prompts: save them again."
BAD_ENTRY = f"damaged, {INDEX} lacks the {{entry}} of prompt {{i}}: save them again."
TOO_MANY_FILES = "refused, it holds {n} files."
SAME_NAMES = "refused, two files in it have one name."
BAD_PATH = "refused, it holds the path {name!r}."
MEMBER_TOO_LARGE = "refused, {name} unpacks to {n} bytes."
MEMBER_UNDECLARED = "refused, {name} unpacks to too many bytes."
BAD_PACKING = "refused, {name} is encrypted or packed in an odd way."
TOO_LARGE = f"refused, it unpacks to over {MAX_BYTES} bytes."
NO_INDEX = f"not a prompt file, {INDEX} is missing."
OTHER_KIND = f"not a prompt file, {INDEX} is of another kind."
UNKNOWN_VERSION = "format version {version!r} is not known here: update napari-svpseg."
TOO_MANY_LISTED = "refused, it lists {n} prompts."
BAD_SHAPE = "{name} has the shape {shape}."
BAD_DTYPE = "{name} has the dtype {dtype}."
BAD_MASK = "{name} is no 64 x 64 mask."
BAD_COLOUR = "prompt {name!r} has the colour {colour!r}."
BAD_INTENSITIES = "prompt {name!r} has no finite intensities."
BAD_PIXEL_SIZE = "prompt {name!r} has the pixel size {size}."
TIFF_TOO_LARGE = "refused, {name} declares {n} bytes."
BAD_TIFF = "{name} in it is no readable TIFF."
NOT_ONE_PLANE = (
    "{path}: a prompt is cut from one plane, this file has the axes {axes}: save the "
    "plane by itself."
)


class PromptFileError(ValueError):
    """A prompt file that cannot be read; the message names it and says why."""


def save_prompts(
    prompts: Prompts,
    path: str | Path,
    *,
    private: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write prompts to one file, atomically.

    Parameters
    ----------
    prompts : Prompt, PromptSet or iterable of Prompt
    path : path
        The suffix ``.svprompt`` is added if it is missing.
    private : bool
        Only this user may read it.
    overwrite : bool
        Allow to replace a file of other content. Prompts are a user's own work: a
        file of them is never replaced without this, whoever wrote it.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    WriteError
        If the file cannot be written.
    PromptError
        If there are more prompts or channels than a file may hold.
    """
    prompts, path = as_prompt_set(prompts), with_end(path)
    if len(prompts) > MAX_PROMPTS or any(p.n_channels > MAX_CHANNELS for p in prompts):
        raise PromptError(TOO_MANY)
    index: dict[str, Any] = {
        "format": FORMAT,
        "version": _version(prompts),
        "name": prompts.name,
        "prompts": [_entry(i, prompt) for i, prompt in enumerate(prompts)],
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(INDEX, json.dumps(index, indent=1))
        for entry, prompt in zip(index["prompts"], prompts, strict=True):
            # Channels first, as Fiji shows them as slices.
            image = np.ascontiguousarray(np.moveaxis(prompt.image, -1, 0))
            archive.writestr(entry["image"], _tiff(image, "CYX"))
            archive.writestr(entry["mask"], _tiff(_smallest(prompt.mask), "YX"))
        if _holds(path, members_hash(archive)):
            return path
    with atomic_path(path, overwrite, private=private) as temporary:
        temporary.write_bytes(packed.getvalue())
    return path


def with_end(path: str | Path) -> Path:
    """Return a path that ends in ``.svprompt``."""
    path = Path(path)
    is_complete = path.suffix.lower() == ".svprompt"
    return path if is_complete else path.with_name(f"{path.name}.svprompt")


def _version(prompts: PromptSet) -> int:
    """Return the version of the format that these prompts need."""
    unknown = any((p.mask == UNKNOWN).any() for p in prompts)
    return UNKNOWN_PIXELS_VERSION if unknown else PLAIN_VERSION


def _holds(path: Path, content: str) -> bool:
    """Return whether a prompt file has this content already."""
    try:
        with zipfile.ZipFile(path) as archive:
            return members_hash(archive) == content
    except (OSError, zipfile.BadZipFile):
        return False


def _entry(i: int, prompt: Prompt) -> dict[str, Any]:
    """Return the entry of the i-th prompt in the index, without its pixels."""
    return {
        "name": prompt.name,
        "source": prompt.source,
        "corner": [prompt.box.y, prompt.box.x],
        "size": prompt.box.size,
        "axes": "CYX",
        "rgb": prompt.rgb,
        "channels": None if prompt.channels is None else list(prompt.channels),
        "pixel_size": None if prompt.pixel_size is None else list(prompt.pixel_size),
        "unit": prompt.unit,
        "channel_names": list(prompt.channel_names),
        "intensities": prompt.intensities.tolist(),
        "color": prompt.color,
        "enabled": prompt.enabled,
        "negative": prompt.is_negative,
        **({"clicked": True} if prompt.clicked else {}),
        "image": f"prompt-{i:03d}-image.tif",
        "mask": f"prompt-{i:03d}-mask.tif",
    }


def _smallest(mask: np.ndarray) -> np.ndarray:
    """Return a mask in 16 bits if its ids allow: ImageJ has no 32-bit integers.

    Signed where pixels are unknown.
    """
    kinds = (np.uint16, np.uint32) if mask.min() >= 0 else (np.int16, np.int32)
    small, large = kinds
    return mask.astype(small if mask.max() <= np.iinfo(small).max else large)


def _tiff(array: np.ndarray, axes: str) -> bytes:
    """Return the bytes of a TIFF that other programs such as Fiji open."""
    file = io.BytesIO()
    tifffile.imwrite(
        file,
        array,
        photometric="minisblack",
        compression="zlib",
        imagej=False,
        metadata={"axes": axes},
    )
    return file.getvalue()


def load_prompts(path: str | Path) -> PromptSet:
    """Return the prompt set in a file.

    Parameters
    ----------
    path : path
        File written by `save_prompts`.

    Returns
    -------
    PromptSet

    Raises
    ------
    PromptFileError
        If the file is missing, damaged or unsafe; one line that names it.
    """
    path = Path(path)
    if not path.is_file():
        raise PromptFileError(f"{path}: {NO_SUCH_FILE}")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive)
            index = _index(archive)
            prompts = [
                _prompt(archive, e, index["version"])
                for e in _entries(index["prompts"])
            ]
        return PromptSet(prompts, str(index.get("name", path.stem)))
    except (PromptFileError, PromptError) as error:
        raise PromptFileError(f"{path}: {short_line(error)}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        message = NOT_A_ZIP.format(reason=short_line(error))
        raise PromptFileError(f"{path}: {message}") from error
    except _ODD_CONTENT as error:
        raise PromptFileError(f"{path}: {BAD_INDEX}") from error


_ODD_CONTENT = (
    LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError,
)  # fmt: skip
"""Errors that reading an index of unexpected content can raise."""


def _check_members(archive: zipfile.ZipFile) -> None:
    """Raise `PromptFileError` for paths, sizes or packings that may do harm."""
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise PromptFileError(TOO_MANY_FILES.format(n=len(members)))
    names = [info.filename for info in members]
    if len(set(names)) != len(names):
        raise PromptFileError(SAME_NAMES)
    for info in members:
        # A flat list of names: no folder, no drive, no way out on any system.
        name = info.filename.replace("\\", "/")
        if "/" in name or ":" in name or name in ("", ".", ".."):
            raise PromptFileError(BAD_PATH.format(name=info.filename))
        if info.file_size > MAX_MEMBER_BYTES:
            raise PromptFileError(
                MEMBER_TOO_LARGE.format(name=info.filename, n=info.file_size)
            )
        # bit 0 of the flags: encrypted
        if info.compress_type not in PACKINGS or info.flag_bits & 1:
            raise PromptFileError(BAD_PACKING.format(name=info.filename))
    if sum(info.file_size for info in members) > MAX_BYTES:
        raise PromptFileError(TOO_LARGE)
    if INDEX not in names:
        raise PromptFileError(NO_INDEX)


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a member, with its size checked again: a zip may declare a wrong one."""
    with archive.open(name) as file:
        data = file.read(MAX_MEMBER_BYTES + 1)
    if len(data) > MAX_MEMBER_BYTES:
        raise PromptFileError(MEMBER_UNDECLARED.format(name=name))
    return data


def _index(archive: zipfile.ZipFile) -> dict[str, Any]:
    """Return the index of a prompt file, checked for its format."""
    index = json.loads(_read(archive, INDEX))
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise PromptFileError(OTHER_KIND)
    version = index.get("version")
    if version not in (PLAIN_VERSION, UNKNOWN_PIXELS_VERSION):
        raise PromptFileError(UNKNOWN_VERSION.format(version=version))
    if len(index.get("prompts") or ()) > MAX_PROMPTS:
        raise PromptFileError(TOO_MANY_LISTED.format(n=len(index["prompts"])))
    return index


def _entries(listed: object) -> list[dict[str, Any]]:
    """Return the entries of an index, checked for the types of their values."""
    if not isinstance(listed, list) or not all(isinstance(e, dict) for e in listed):
        raise PromptFileError(BAD_INDEX)
    for i, values in enumerate(listed, start=1):
        for entry, kind in ENTRY_TYPES.items():
            if not isinstance(values.get(entry), kind):
                raise PromptFileError(BAD_ENTRY.format(entry=entry, i=i))
    return listed


def _prompt(archive: zipfile.ZipFile, entry: dict[str, Any], version: int) -> Prompt:
    """Return the prompt that an entry of the index describes."""
    name, image_name, mask_name = entry["name"], entry["image"], entry["mask"]
    image = _array(archive, str(image_name))
    mask = _array(archive, str(mask_name))
    image = image[None] if image.ndim == 2 else image
    side = (PROMPT_SIZE, PROMPT_SIZE)
    if image.ndim != 3 or image.shape[1:] != side or image.shape[0] > MAX_CHANNELS:
        raise PromptFileError(BAD_SHAPE.format(name=image_name, shape=image.shape))
    if image.dtype.kind not in "biuf":
        raise PromptFileError(BAD_DTYPE.format(name=image_name, dtype=image.dtype))
    if mask.shape != side or mask.dtype.kind not in "iu":
        raise PromptFileError(BAD_MASK.format(name=mask_name))
    if version == PLAIN_VERSION and mask.min(initial=0) < 0:
        raise PromptFileError(NEGATIVE_IDS.format(name=name))
    channels, size = entry.get("channels"), entry.get("pixel_size")
    color = str(entry.get("color", "#ffb000"))
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", color):  # it becomes part of a style sheet
        raise PromptFileError(BAD_COLOUR.format(name=name, colour=color))
    intensities = np.asarray(entry["intensities"], float)
    if not np.isfinite(intensities).all():
        raise PromptFileError(BAD_INTENSITIES.format(name=name))
    if size is not None and not all(math.isfinite(s) and s > 0 for s in size):
        raise PromptFileError(BAD_PIXEL_SIZE.format(name=name, size=size))
    return Prompt(
        image=np.moveaxis(image, 0, -1).astype(np.float32),
        mask=mask.astype(np.int64),
        intensities=intensities,
        box=_box(entry),
        name=str(name),
        source=str(entry.get("source", "")),
        rgb=bool(entry.get("rgb", False)),
        channels=None if channels is None else tuple(int(c) for c in channels),
        pixel_size=None if size is None else (float(size[0]), float(size[1])),
        unit=str(entry.get("unit", "pixel")),
        color=color,
        enabled=bool(entry.get("enabled", True)),
        channel_names=tuple(str(n) for n in entry.get("channel_names") or ()),
        clicked=bool(entry.get("clicked", False)),
    )


def _box(entry: dict[str, Any]) -> Box:
    """Return the box of a prompt; what is wrong with it is told by `Box`."""
    if len(entry["corner"]) != 2:
        raise PromptFileError(BAD_INDEX)
    try:
        return Box(entry["corner"][0], entry["corner"][1], entry["size"])
    except (ValueError, TypeError) as error:
        raise PromptFileError(short_line(error)) from error


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Return the pixels of a TIFF in the zip."""
    data = _read(archive, name)
    try:
        with quiet_tifffile(), tifffile.TiffFile(io.BytesIO(data)) as tiff:
            declared = tiff.series[0].nbytes
            if declared > MAX_MEMBER_BYTES:  # compressed pixels may expand a lot
                raise PromptFileError(TIFF_TOO_LARGE.format(name=name, n=declared))
            return np.asarray(tiff.series[0].asarray())
    except PromptFileError:
        raise
    except Exception as error:
        raise PromptFileError(BAD_TIFF.format(name=name)) from error


def prompt_from_files(
    image: str | Path,
    labels: str | Path | None,
    box: Box | tuple[int, int],
    size: int = PROMPT_SIZE,
    *,
    axes: str | None = None,
    channels: tuple[int, ...] | None = None,
    negative: bool = False,
    name: str = "prompt",
) -> Prompt:
    """Return the prompt that a box cuts out of an image file and its labels file.

    Parameters
    ----------
    image, labels : path
        Files of one plane each; a negative prompt needs no labels.
    box, size, channels, negative, name
        As for `Prompt.from_image`.
    axes : str, optional
        Axes of the image, if the file does not say.

    Returns
    -------
    Prompt

    Raises
    ------
    ImageError
        If a file cannot be read, or is a stack; one line that names it.
    PromptError
        If they give no prompt, see `Prompt.from_image`; one line that names the files.
    """
    source = read_any(image, axes)
    if source.axes.stack:
        raise ImageError(NOT_ONE_PLANE.format(path=image, axes=source.axes.order))
    plane = source.axes.to_plane(np.asarray(source.array))
    mask = None if labels is None else read_mask(labels)
    try:
        return Prompt.from_image(
            plane,
            mask,
            box,
            size,
            channels=channels,
            rgb=source.rgb and channels is None,
            negative=negative,
            name=name,
            source=str(image),
            pixel_size=source.pixel_size,
            unit=source.unit,
        )
    except PromptError as error:
        where = image if labels is None else f"{image} with {labels}"
        raise PromptError(f"{where}: {error}") from error
