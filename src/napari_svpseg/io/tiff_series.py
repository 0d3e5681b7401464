"""Images of a TIFF: series, positions, pyramids, and files of one set."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from ..core.image import ImageError

POSITIONS = "RMP"
"""Letters of tifffile for axes along which positions or tiles lie."""

ASIDE = ("thumbnail", "label", "macro", "overview", "map", "preview")
"""Names of series that show the slide and no cells, such as ``label image``."""

MAX_NAMED = 8
"""Series or files that a message names; the rest is counted."""

FILE_NAME = re.compile(r'FileName="([^"]+)"')

ONE_OF_SERIES = (
    "series {index} of the {n} in this file is read (it holds {others} too): choose "
    "with --series"
)
SERIES_ABSENT = "it has the series {known}, asked for {index}"
NO_SERIES = "there is no image in it"

MODULO = re.compile(r'<(?:\w+:)?ModuloAlong([TZC])\b[^>]*\bType="([^"]+)"')
"""Axis that is divided, and what its steps are."""

FILES_MISSING = (
    "it is one of a set of files, and {names} are missing: only the planes that are "
    "there are read ({kept})"
)
PLANES_MISSING = (
    "its metadata name more planes than there are: only the planes that are there are "
    "read ({kept})"
)
SET_INCOMPLETE = (
    "planes are missing here and there{names}: put the whole set of files in one folder"
)
PART_OF_SET = "it is one file of a set that {name} describes, and is read alone"


@dataclass(frozen=True, eq=False)
class TiffSeries:
    """One image of a TIFF.

    Parameters
    ----------
    index : int
        Position in the list of the file's images.
    series : tifffile.TiffPageSeries
    number : int or None
        Index of ``series`` for tifffile; None for pages that it does not list.
    name : str
    position : int or None
        Index along an axis of positions, for one of several.
    axes : str
        Letters of tifffile, without the axis of positions.
    shape : tuple of int
    is_aside : bool
        A thumbnail, label or mask, and not the image itself.
    is_here : bool
        Some of its pixels are in this file, and not in another one of its set.
    """

    index: int
    series: Any
    number: int | None
    name: str
    position: int | None
    axes: str
    shape: tuple[int, ...]
    is_aside: bool
    is_here: bool

    @property
    def label(self) -> str:
        """Index and name, or the shape."""
        return series_label(self.index, self.name, self.axes, self.shape)

    def read(self) -> np.ndarray:
        """Return the pixels at full size."""
        array = np.asarray(self.series.asarray())
        if self.position is None:
            return array.reshape(self.shape)  # see `_without_modulo`
        return array.take(self.position, axis=_positions(self.series.axes))


@dataclass(frozen=True)
class Present:
    """Which planes of a series are there.

    Parameters
    ----------
    index : tuple
        Index into the axes before those of a plane; empty if all are there.
    notes : tuple of str
    """

    index: tuple[Any, ...] = ()
    notes: tuple[str, ...] = field(default_factory=tuple)


def list_tiff_series(tiff: tifffile.TiffFile) -> list[TiffSeries]:
    """Return the images of an open TIFF file."""
    found: list[TiffSeries] = []
    modulo = _modulo(tiff)
    for number, series in _all_series(tiff):
        at = _positions(series.axes)
        here = any(
            page is not None and page.parent is tiff for page in _pages(series)
        ) or not _is_set(series)
        name = str(series.name or "")
        kind = int(series.keyframe.subfiletype)
        # as whole names: an image may well be called cells_labels or heatmap
        aside = name.lower().removesuffix(" image").strip() in ASIDE
        aside = aside or bool(kind & 0b101) or _is_sub(series.keyframe)
        places = [None] if at is None else list(range(series.shape[at]))
        for position in places:
            axes, shape, called = series.axes, tuple(series.shape), name
            if at is not None:
                axes, shape = axes[:at] + axes[at + 1 :], shape[:at] + shape[at + 1 :]
                called = f"{name} position {position}".strip()
            else:
                axes, shape = _without_modulo(axes, shape, modulo)
            found.append(
                TiffSeries(
                    len(found),
                    series,
                    number,
                    called,
                    position,
                    axes,
                    shape,
                    aside,
                    here,
                )
            )
    return found


def _modulo(tiff: tifffile.TiffFile) -> dict[str, str]:
    """Return the axes that OME-XML divides another one by, and that axis for each."""
    text = (tiff.ome_metadata or "") if tiff.is_ome else ""
    codes = tifffile.TIFF.AXES_CODES
    found = {codes.get(kind.lower(), ""): a for a, kind in MODULO.findall(text)}
    return {axis: parent for axis, parent in found.items() if axis}


def _without_modulo(
    axes: str, shape: tuple[int, ...], modulo: dict[str, str]
) -> tuple[str, tuple[int, ...]]:
    """Return axes and shape of an image in the plain axes of OME.

    Lifetimes, angles or wavelengths are steps of T, Z or C, which tifffile makes axes
    of their own.

    Examples
    --------
    >>> _without_modulo("THYX", (2, 3, 9, 8), {"H": "T"})
    ('TYX', (6, 9, 8))
    >>> _without_modulo("HYX", (3, 9, 8), {"H": "T"})
    ('TYX', (3, 9, 8))
    """
    for axis, parent in modulo.items():
        if f"{parent}{axis}" in axes:
            at = axes.index(axis)
            axes = axes.replace(axis, "")
            shape = (*shape[: at - 1], shape[at - 1] * shape[at], *shape[at + 1 :])
        elif parent not in axes:
            axes = axes.replace(axis, parent)
    return axes, shape


def _all_series(tiff: tifffile.TiffFile) -> list[tuple[int | None, Any]]:
    """Return the series of tifffile with their index, and the images in sub-IFDs.

    Sub-IFDs may hold smaller levels, which belong to their series, or masks.
    """
    found: list[tuple[int | None, Any]] = []
    inside: list[Any] = []
    for number, series in enumerate(tiff.series):
        if series.kind == "generic":
            top = [page for page in series.pages if not _is_sub(page)]
            if 0 < len(top) < len(series.pages):  # equal to a page, so put with it
                inside += [page for page in series.pages if _is_sub(page)]
                found.append((None, _of_pages(top)))
                continue
        elif series.kind in ("shaped", "imagej", "uniform") and len(series.levels) == 1:
            subs = series.keyframe.subifds or ()
            inside += [_sub_page(tiff, series, i, at) for i, at in enumerate(subs)]
        found.append((number, series))
    return found + [(None, _of_pages([page])) for page in inside]


def _is_sub(page: Any) -> bool:
    """Return whether a page is in a sub-IFD."""
    return len(page.treeindex) > 1


def _of_pages(pages: list[Any]) -> tifffile.TiffPageSeries:
    """Return a series of pages of one shape."""
    page = pages[0]
    shape = (len(pages), *page.shape) if len(pages) > 1 else page.shape
    axes = f"I{page.axes}" if len(pages) > 1 else page.axes
    return tifffile.TiffPageSeries(pages, shape, page.dtype, axes, kind="generic")


def _sub_page(tiff: tifffile.TiffFile, series: Any, i: int, offset: int) -> Any:
    """Return the page of a sub-IFD."""
    tiff.filehandle.seek(offset)
    return tifffile.TiffPage(tiff, (series.keyframe.index, i))


def choose_tiff_series(
    tiff: tifffile.TiffFile, index: int | None
) -> tuple[TiffSeries, list[str]]:
    """Return one image of an open TIFF file, and notes on the others.

    Parameters
    ----------
    tiff : tifffile.TiffFile
    index : int, optional
        By default the first whose pixels are in this file, and that is no thumbnail.

    Raises
    ------
    ImageError
        If there is no such series; the message lists those that there are.
    """
    known = list_tiff_series(tiff)
    if not known:
        raise ImageError(NO_SERIES)
    if index is not None:
        if not 0 <= index < len(known):
            listed = few([s.label for s in known])
            raise ImageError(SERIES_ABSENT.format(known=listed, index=index))
        return known[index], []
    here = [s for s in known if s.is_here] or known
    images = [s for s in here if not s.is_aside] or here
    chosen = images[0]
    others = [s.label for s in images[1:]]
    if not others:
        return chosen, []
    note = ONE_OF_SERIES.format(index=chosen.label, n=len(known), others=few(others))
    return chosen, [note]


def present_planes(tiff: tifffile.TiffFile, chosen: TiffSeries) -> Present:
    """Return which planes of a series are there, with a note on missing ones.

    tifffile fills planes of absent files with zeros.

    Raises
    ------
    ImageError
        If planes are missing here and there, so that no stack is complete.
    """
    series = chosen.series
    if not _is_set(series):
        return Present(notes=tuple(_notes_on_companions(tiff)))
    there = np.array([page is not None for page in _pages(series)])
    outer = _outer_shape(series, len(there))
    if there.all() or outer is None:
        return Present()
    there = there.reshape(outer)
    letters = series.axes[: len(outer)]
    if chosen.position is not None:
        at = letters.index(series.axes[_positions(series.axes) or 0])
        there = there.take(chosen.position, axis=at)
        letters = letters[:at] + letters[at + 1 :]
        if there.all():
            return Present()
    absent = missing_files(tiff)
    keep = _complete_part(there)
    if keep is None:
        names = f": {few(absent)} are not there" if absent else ""
        raise ImageError(SET_INCOMPLETE.format(names=names))
    kept = ", ".join(
        f"{letter} {_ranges(indices)} of {n}"
        for letter, indices, n in zip(letters, keep, there.shape, strict=True)
        if len(indices) < n
    )
    if absent:
        note = FILES_MISSING.format(names=few(absent), kept=kept)
    else:
        note = PLANES_MISSING.format(kept=kept)
    return Present(np.ix_(*keep), (note,))


def missing_files(tiff: tifffile.TiffFile) -> list[str]:
    """Return the names of the files of an OME set that are not in its folder."""
    names = dict.fromkeys(FILE_NAME.findall(tiff.ome_metadata or ""))
    folder = Path(tiff.filehandle.dirname)
    return [n for n in names if n != tiff.filename and not (folder / n).exists()]


def ome_sets(text: str) -> list[set[str]]:
    """Return the names of the files that hold each image of an OME-XML."""
    if "FileName=" not in text:
        return []
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return []
    images = [node for node in root if node.tag.endswith("Image")]
    return [
        {u.attrib["FileName"] for u in image.iter() if "FileName" in u.attrib}
        for image in images
    ]


def series_label(index: int, name: str, axes: str, shape: tuple[int, ...]) -> str:
    """Return index and name of an image, or its shape where it has no name.

    Examples
    --------
    >>> series_label(0, "DAPI", "YX", (9, 8)), series_label(1, "", "YX", (9, 8))
    ('0 DAPI', '1 (YX 9 x 8)')
    """
    size = " x ".join(map(str, shape))
    return f"{index} {name or f'({axes} {size})'}"


def few(names: list[str]) -> str:
    """Return names as text, cut where there are many."""
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def ome_pixels(ome: dict[str, Any], index: int) -> dict[str, Any]:
    """Return the attributes of the Pixels element of an image in OME-XML."""
    images = ome.get("OME", {}).get("Image", {})
    if isinstance(images, list):
        images = images[index if index < len(images) else 0]
    pixels = images.get("Pixels", {})
    return pixels if isinstance(pixels, dict) else {}


def tiff_channel_names(tiff: tifffile.TiffFile, index: int) -> tuple[str, ...]:
    """Return the names of the channels of an image; empty where there are none."""
    names: list[Any] = []
    if tiff.is_ome and tiff.ome_metadata:
        pixels = ome_pixels(tifffile.xml2dict(tiff.ome_metadata), index)
        channels = pixels.get("Channel", [])
        channels = channels if isinstance(channels, list) else [channels]
        names = [c.get("Name") for c in channels if isinstance(c, dict)]
    elif tiff.is_lsm:
        colours = (tiff.lsm_metadata or {}).get("ChannelColors", {})
        names = list(colours.get("ColorNames", []))
    elif tiff.is_qpi:
        pages = tiff.series[index].pages if index < len(tiff.series) else []
        names = [_qpi_name(page) for page in pages]
    return tuple(map(str, names)) if names and all(names) else ()


def vendor_sizes(tiff: tifffile.TiffFile, chosen: TiffSeries) -> dict[str, float]:
    """Return the size in micrometres along each axis that a scanner has written.

    Empty for files whose sizes are in the resolution tags, in OME-XML or nowhere.
    """
    sizes: dict[str, float] = {}
    if tiff.is_lsm:
        metadata = tiff.lsm_metadata or {}
        sizes = {a: 1e6 * float(metadata.get(f"VoxelSize{a}", 0)) for a in "ZYX"}
    elif tiff.is_svs:
        found = re.search(r"MPP\s*=\s*([\d.]+)", tiff.pages[0].description)
        if found:
            sizes = dict.fromkeys("YX", float(found.group(1)))
    elif tiff.is_scn:
        sizes = _scn_sizes(tiff.pages[0].description, chosen.name)
    elif tiff.is_stk:
        metadata = tiff.stk_metadata or {}
        if metadata.get("CalibrationUnits", "").strip("\0 ").lower() in ("um", "µm"):
            sizes = {a: float(metadata.get(f"{a}Calibration", 0)) for a in "YX"}
    return {a: n for a, n in sizes.items() if 0 < n < float("inf")}


def _scn_sizes(text: str, name: str) -> dict[str, float]:
    """Return micrometres of a pixel of the image of that name in Leica's XML."""
    images = [n for n in ElementTree.fromstring(text).iter() if n.tag.endswith("image")]
    for image in images:
        parts = {node.tag.rpartition("}")[2]: node.attrib for node in image}
        view, pixels = parts.get("view", {}), parts.get("pixels", {})
        if image.attrib.get("name") == name and view and pixels:
            # the view is in nanometres
            return {
                a: float(view[f"size{a}"]) / float(pixels[f"size{a}"]) / 1000
                for a in "YX"
            }
    return {}


def _qpi_name(page: Any) -> str:
    """Return the name of a channel in the description of a page."""
    found = re.search(r"<(?:Name|Biomarker)>([^<]+)</", page.description or "")
    return found.group(1) if found else ""


def _is_set(series: Any) -> bool:
    """Return whether tifffile puts a series together from planes that may be absent."""
    return series.kind in ("ome", "mmstack", "ndtiff")


def _pages(series: Any) -> list[Any]:
    """Return the pages of a series, None for those that are missing."""
    return list(series.pages) if _is_set(series) else [series.keyframe]


def _positions(axes: str) -> int | None:
    """Return where an axis of positions is, or None."""
    return next((i for i, a in enumerate(axes) if a in POSITIONS), None)


def _outer_shape(series: Any, n: int) -> tuple[int, ...] | None:
    """Return the shape of the axes along which ``n`` planes are stacked."""
    shape = tuple(series.shape)
    outer = shape[: len(shape) - len(series.keyframe.shape)]
    return outer if int(np.prod(outer, dtype=int)) == n else None


def _complete_part(there: np.ndarray) -> list[np.ndarray] | None:
    """Return the indices along each axis of a block without gaps; None if none is.

    If the planes that are there are no such block, indices of one axis are dropped:
    that of which the fewest planes are lost.
    """
    if not there.any():
        return None
    keep = [
        np.flatnonzero(there.any(axis=tuple(b for b in range(there.ndim) if b != a)))
        for a in range(there.ndim)
    ]
    block = there[np.ix_(*keep)]
    if block.all():
        return keep
    best: tuple[int, list[np.ndarray]] | None = None
    for a in range(block.ndim):
        whole = block.all(axis=tuple(b for b in range(block.ndim) if b != a))
        n = int(whole.sum()) * int(np.prod(block.shape, dtype=int)) // block.shape[a]
        if n and (best is None or n > best[0]):
            best = (n, [*keep[:a], keep[a][whole], *keep[a + 1 :]])
    return None if best is None else best[1]


def _ranges(indices: np.ndarray) -> str:
    """Return indices as text, such as ``0-3`` or ``1``."""
    first, last = int(indices[0]), int(indices[-1])
    if len(indices) == 1:
        return str(first)
    if len(indices) == last - first + 1:
        return f"{first}-{last}"
    return few([str(int(i)) for i in indices])


def _notes_on_companions(tiff: tifffile.TiffFile) -> list[str]:
    """Return a note where another file describes the set that this file is of."""
    first = tiff.pages[0].description or ""
    found = re.search(r'<BinaryOnly[^>]*MetadataFile="([^"]+)"', first)
    return [PART_OF_SET.format(name=found.group(1))] if found else []
