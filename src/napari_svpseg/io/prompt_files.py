"""A prompt set as one file: ``.svprompt``, a zip of JSON and small TIFF pairs."""

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
from ..core.prompt import Prompt, PromptError, PromptSet
from .atomic import atomic_path
from .images import quiet_tifffile, read_image, read_mask

FORMAT, FORMAT_VERSION = "svprompt", 1
INDEX = "prompts.json"
MAX_PROMPTS, MAX_CHANNELS = 1000, 64
MAX_MEMBERS, MAX_MEMBER_BYTES, MAX_BYTES = 2 * MAX_PROMPTS + 1, 4_000_000, 400_000_000
PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class PromptFileError(ValueError):
    """A prompt file that cannot be read; the message names it and says why."""


def save_prompts(prompts: PromptSet, path: str | Path) -> Path:
    """Write a prompt set, whole or not at all.

    Parameters
    ----------
    prompts : PromptSet
    path : path
        ``.svprompt`` is added where it is missing.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    WriteError
        If the disk is full or the folder cannot be written.
    PromptError
        If there are more prompts or channels than a file may hold.
    """
    path = Path(path)
    if path.suffix.lower() != ".svprompt":
        path = path.with_name(f"{path.name}.svprompt")
    if len(prompts) > MAX_PROMPTS or any(p.n_channels > MAX_CHANNELS for p in prompts):
        raise PromptError(
            f"A prompt file holds up to {MAX_PROMPTS} prompts of up to {MAX_CHANNELS} "
            "channels: save fewer."
        )
    index: dict[str, Any] = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "name": prompts.name,
        "prompts": [_entry(i, prompt) for i, prompt in enumerate(prompts)],
    }
    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        archive.writestr(INDEX, json.dumps(index, indent=1))
        for entry, prompt in zip(index["prompts"], prompts, strict=True):
            image = np.ascontiguousarray(np.moveaxis(prompt.image, -1, 0))
            archive.writestr(entry["image"], _tiff(image, "CYX"))
            archive.writestr(entry["mask"], _tiff(prompt.mask.astype(np.uint16), "YX"))
    return path


def _entry(i: int, prompt: Prompt) -> dict[str, Any]:
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
        "image": f"prompt-{i:03d}-image.tif",
        "mask": f"prompt-{i:03d}-mask.tif",
    }


def _tiff(array: np.ndarray, axes: str) -> bytes:
    """Return a TIFF that Fiji opens; float images keep all their digits."""
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
    """Read a prompt set; nothing in the file is executed or unpacked to disk.

    Raises
    ------
    PromptFileError
        One line: the file and why it is refused.
    """
    path = Path(path)
    if not path.is_file():
        raise PromptFileError(f"{path}: no such file.")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive)
            index = _index(archive)
            prompts = [_prompt(archive, entry) for entry in index["prompts"]]
        return PromptSet(prompts, str(index.get("name", path.stem)))
    except (PromptFileError, PromptError) as error:
        raise PromptFileError(f"{path}: {short_line(error)}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise PromptFileError(
            f"{path}: not a prompt file, or damaged ({short_line(error)})."
        ) from error
    except _ODD_CONTENT as error:
        raise PromptFileError(
            f"{path}: damaged, {INDEX} does not describe its prompts "
            f"({type(error).__name__}: {short_line(error)})."
        ) from error


_ODD_CONTENT = (
    LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError,
)  # fmt: skip


def _check_members(archive: zipfile.ZipFile) -> None:
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise PromptFileError(f"refused, it holds {len(members)} files.")
    names = [info.filename for info in members]
    if len(set(names)) != len(names):
        raise PromptFileError("refused, two files in it have one name.")
    for info in members:
        name = info.filename.replace("\\", "/")
        if "/" in name or ":" in name or name in ("", ".", ".."):
            raise PromptFileError(f"refused, it holds the path {info.filename!r}.")
        if info.file_size > MAX_MEMBER_BYTES:
            raise PromptFileError(
                f"refused, {info.filename} unpacks to {info.file_size} bytes."
            )
        if info.compress_type not in PLAIN or info.flag_bits & 1:
            raise PromptFileError(
                f"refused, {info.filename} is encrypted or packed in an odd way."
            )
    if sum(info.file_size for info in members) > MAX_BYTES:
        raise PromptFileError(f"refused, it unpacks to over {MAX_BYTES} bytes.")
    if INDEX not in names:
        raise PromptFileError(f"not a prompt file, {INDEX} is missing.")


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a member; sizes are counted, as what a zip declares may be a lie."""
    with archive.open(name) as file:
        data = file.read(MAX_MEMBER_BYTES + 1)
    if len(data) > MAX_MEMBER_BYTES:
        raise PromptFileError(f"refused, {name} unpacks to too many bytes.")
    return data


def _index(archive: zipfile.ZipFile) -> dict[str, Any]:
    index = json.loads(_read(archive, INDEX))
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise PromptFileError(f"not a prompt file, {INDEX} is of another kind.")
    if index.get("version") != FORMAT_VERSION:
        raise PromptFileError(
            f"format version {index.get('version')!r} is not known here: "
            "update napari-svpseg."
        )
    if len(index["prompts"]) > MAX_PROMPTS:
        raise PromptFileError(f"refused, it lists {len(index['prompts'])} prompts.")
    return index


def _prompt(archive: zipfile.ZipFile, entry: dict[str, Any]) -> Prompt:
    image = _array(archive, str(entry["image"]))
    mask = _array(archive, str(entry["mask"]))
    image = image[None] if image.ndim == 2 else image
    side = (PROMPT_SIZE, PROMPT_SIZE)
    if image.ndim != 3 or image.shape[1:] != side or image.shape[0] > MAX_CHANNELS:
        raise PromptFileError(f"{entry['image']} has the shape {image.shape}.")
    if image.dtype.kind not in "biuf":
        raise PromptFileError(f"{entry['image']} has the dtype {image.dtype}.")
    if mask.shape != side or mask.dtype.kind not in "iu":
        raise PromptFileError(f"{entry['mask']} is no 64 x 64 mask.")
    channels, size = entry.get("channels"), entry.get("pixel_size")
    color = str(entry.get("color", "#ffb000"))
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", color):
        raise PromptFileError(f"prompt {entry['name']!r} has the colour {color!r}.")
    intensities = np.asarray(entry["intensities"], float)
    if not np.isfinite(intensities).all():
        raise PromptFileError(f"prompt {entry['name']!r} has no finite intensities.")
    if size is not None and not all(math.isfinite(s) and s > 0 for s in size):
        raise PromptFileError(f"prompt {entry['name']!r} has the pixel size {size}.")
    return Prompt(
        image=np.moveaxis(image, 0, -1).astype(np.float32),
        mask=mask.astype(np.int64),
        intensities=intensities,
        box=Box(entry["corner"][0], entry["corner"][1], entry["size"]),
        name=str(entry["name"]),
        source=str(entry.get("source", "")),
        rgb=bool(entry.get("rgb", False)),
        channels=None if channels is None else tuple(int(c) for c in channels),
        pixel_size=None if size is None else (float(size[0]), float(size[1])),
        unit=str(entry.get("unit", "pixel")),
        color=color,
        enabled=bool(entry.get("enabled", True)),
        channel_names=tuple(str(n) for n in entry.get("channel_names", ())),
    )


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    data = _read(archive, name)
    try:
        with quiet_tifffile(), tifffile.TiffFile(io.BytesIO(data)) as tiff:
            declared = tiff.series[0].nbytes
            if declared > MAX_MEMBER_BYTES:
                raise PromptFileError(f"refused, {name} declares {declared} bytes.")
            return np.asarray(tiff.series[0].asarray())
    except PromptFileError:
        raise
    except Exception as error:
        raise PromptFileError(f"{name} in it is no readable TIFF.") from error


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
    """Cut a prompt out of an image file and the file of its labels.

    Parameters
    ----------
    image, labels : path
        One plane each; no labels are needed for a negative prompt.
    box, size, channels, negative, name
        As for `Prompt.from_image`.
    axes : str, optional
        Axes of the image where the file does not say.

    Returns
    -------
    Prompt
    """
    source = read_image(image, axes=axes)
    if source.axes.stack:
        raise ImageError(
            f"{image}: a prompt is cut from one plane, this file has the axes "
            f"{source.axes.order}: save the plane by itself."
        )
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
