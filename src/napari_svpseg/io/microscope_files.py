"""Files of microscopes and of other programs, through the readers that are installed.

``pip install 'napari-svpseg[formats]'`` brings them. HDF5, MRC and Olympus files have
readers of their own; all others go through bioio, whose plugins say what they read.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..core.image import ImageError
from .tiff_series import series_label

READERS = {
    "bioio_czi": "bioio-czi (GPL-3)",
    "bioio_lif": "bioio-lif",
    "bioio_nd2": "bioio-nd2",
    "bioio_dv": "bioio-dv",
    "oiffile": "oiffile",
    "mrcfile": "mrcfile",
    "h5py": "h5py",
}
"""Packages of the extra ``formats``, by module; the licence, if not BSD or MIT."""

SUFFIXES = {
    ".czi": "bioio_czi",
    ".lif": "bioio_lif",
    ".nd2": "bioio_nd2",
    ".dv": "bioio_dv",
    ".r3d": "bioio_dv",
    ".oib": "oiffile",
    ".oif": "oiffile",
    ".mrc": "mrcfile",
    ".rec": "mrcfile",
    ".h5": "h5py",
    ".hdf5": "h5py",
}
"""Reader that is named where the file cannot be read without it."""

HDF5_START = b"\x89HDF\r\n\x1a\n"
OLE_START = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
MRC_START, MRC_AT = b"MAP ", 208

LAZY_BYTES = 2**30
"""Larger images are read where they are sliced."""

MAX_CHANNELS = 32

ANGSTROM = 1e-4
"""Micrometres of an angstrom."""

NO_READER = (
    "no reader that is installed takes it ({tried}); {missing} could: "
    "pip install 'napari-svpseg[formats]'"
)
NO_READER_AT_ALL = "no reader takes it ({tried}): convert it to TIFF"
MANY_SCENES = (
    "it holds {n} scenes, but its metadata do not name them, so that its reader shows "
    "one: export the others from the program of the microscope"
)
NO_DATASET = "there is no dataset with an image in it"


class Scene(NamedTuple):
    """One image of a file: its name, shape and axes (empty if they are not said)."""

    name: str
    shape: tuple[int, ...]
    axes: str
    channel_names: tuple[str, ...] = ()


class Contents(NamedTuple):
    """The images of a file, and what reads one of them.

    Parameters
    ----------
    scenes : tuple of Scene
    read : callable
        Takes the index of a scene.
    """

    scenes: tuple[Scene, ...]
    read: Callable[[int], MicroscopeImage]


class MicroscopeImage(NamedTuple):
    """Pixels of one scene, their axes as the file calls them, sizes in micrometres."""

    array: Any
    axes: str
    sizes: dict[str, float]
    channel_names: tuple[str, ...] = ()
    rgb: bool = False
    notes: tuple[str, ...] = ()


def open_contents(path: Path) -> Contents:
    """Return the images of a file that is neither TIFF nor bitmap.

    Raises
    ------
    ImageError
        If no installed reader takes the file; the message names those that could.
    """
    with path.open("rb") as file:
        start = file.read(MRC_AT + 4)
    own: Sequence[tuple[str, bool, Callable[[Path], Contents]]] = (
        ("h5py", start.startswith(HDF5_START), _hdf5),
        ("mrcfile", start[MRC_AT:] == MRC_START, _mrc),
        ("oiffile", _is_olympus(path, start), _olympus),
    )
    for module, fits, open_file in own:
        # a DeltaVision file has MRC's shape, but is none of its
        if fits and has_module(module):
            return open_file(path)
    if has_module("bioio"):
        reader = _bioio_reader(path)
        if reader is not None:
            return _bioio(path, reader)
    raise ImageError(_no_reader(path))


def has_module(name: str) -> bool:
    """Return whether an optional package is installed."""
    return importlib.util.find_spec(name) is not None


def _no_reader(path: Path) -> str:
    """Return which readers were tried and which could read a file."""
    there = [text for module, text in READERS.items() if has_module(module)]
    tried = ", ".join(["tifffile", "Pillow", *there])
    named = SUFFIXES.get(path.suffix.lower())
    missing = [
        text
        for module, text in READERS.items()
        if not has_module(module) and named in (None, module)
    ]
    if not missing:
        return NO_READER_AT_ALL.format(tried=tried)
    return NO_READER.format(tried=tried, missing=", ".join(missing))


def _is_olympus(path: Path, start: bytes) -> bool:
    suffix = path.suffix.lower()
    return suffix == ".oif" or (suffix == ".oib" and start.startswith(OLE_START))


# ---------------------------------------------------------------- bioio


def _bioio_reader(path: Path) -> Any:
    """Return bioio's reader of a file, or None."""
    from bioio import BioImage
    from bioio_base.exceptions import UnsupportedFileFormatError

    try:
        return BioImage(str(path)).reader
    except UnsupportedFileFormatError:
        return None


def _bioio(path: Path, reader: Any) -> Contents:
    """Return the scenes of a file that bioio reads."""
    scenes = []
    for name in reader.scenes:
        reader.set_scene(name)
        dims, shape = reader.dims, tuple(int(n) for n in reader.shape)
        order = str(dims.order)
        scenes.append(Scene(str(name), shape, order, _bioio_names(reader)))
    notes = _unnamed_scenes(path, len(scenes))
    names = reader.scenes
    return Contents(
        tuple(scenes), lambda index: _bioio_image(reader, names[index], notes)
    )


def _bioio_image(reader: Any, name: str, notes: tuple[str, ...]) -> MicroscopeImage:
    """Return one scene of bioio, in the axes of its reader."""
    reader.set_scene(name)
    order = str(reader.dims.order)
    # bioio-czi 3.0.1 repeats the first colour where RGB is read piece by piece
    is_large = "S" not in order and _n_bytes(reader) > LAZY_BYTES
    if "M" in order:  # the tiles of a mosaic, which the reader puts together
        kind = "mosaic_xarray_dask_data" if is_large else "mosaic_xarray_data"
    else:
        kind = "xarray_dask_data" if is_large else "xarray_data"
    read = getattr(reader, kind)
    array, order = read.data, "".join(map(str, read.dims))
    sizes = _bioio_sizes(reader)
    names = _bioio_names(reader)
    letters = order
    if "S" in order and "C" in order and array.shape[order.index("C")] == 1:
        array, letters = array.take(0, order.index("C")), order.replace("C", "")
        names = ()
    rgb = "S" in letters and array.shape[letters.index("S")] in (3, 4)
    letters = letters.replace("S", "C") if "C" not in letters else letters
    return MicroscopeImage(array, letters, sizes, names, rgb, notes)


def _bioio_names(reader: Any) -> tuple[str, ...]:
    """Return the names of the channels; numbers and indices are none."""
    names = tuple(str(n) for n in reader.channel_names or ())
    if any(n.isdigit() or n.startswith("Channel:") for n in names):
        return ()
    return names


def _n_bytes(reader: Any) -> int:
    n = math.prod(int(n) for n in reader.shape)
    return n * np.dtype(reader.dtype).itemsize


def _bioio_sizes(reader: Any) -> dict[str, float]:
    """Return the size of a pixel in micrometres along each axis that has one."""
    sizes = reader.physical_pixel_sizes
    found = {a: getattr(sizes, a) for a in "ZYX"}
    return {a: float(n) for a, n in found.items() if n is not None and n > 0}


def _unnamed_scenes(path: Path, n: int) -> tuple[str, ...]:
    """Return a note where a CZI has more scenes than its reader shows."""
    if path.suffix.lower() != ".czi" or not has_module("pylibCZIrw"):
        return ()
    from pylibCZIrw import czi

    with czi.open_czi(str(path)) as document:
        there = len(document.scenes_bounding_rectangle)
    return (MANY_SCENES.format(n=there),) if there > n else ()


# ---------------------------------------------------------------- HDF5


def _hdf5(path: Path) -> Contents:
    """Return the datasets of an HDF5 file that can be images."""
    import h5py

    found: list[tuple[str, Scene]] = []

    def visit(name: str, node: Any) -> None:
        is_numbers = isinstance(node, h5py.Dataset) and node.dtype.kind in "biuf"
        if is_numbers and node.ndim >= 2 and min(node.shape[-2:] or (0,)) > 0:
            scene = Scene(name, tuple(node.shape), _dataset_axes(node))
            found.append((name, scene))

    with h5py.File(path) as file:
        file.visititems(visit)
    if not found:
        raise ImageError(NO_DATASET)

    def read(index: int) -> MicroscopeImage:
        with h5py.File(path) as file:
            node = file[found[index][0]]
            sizes = _dataset_sizes(node)
            array = np.asarray(node[()])
        return MicroscopeImage(array, found[index][1].axes, sizes)

    return Contents(tuple(scene for _, scene in found), read)


def _dataset_axes(node: Any) -> str:
    """Return the axes of a dataset: ilastik's tags, or the labels of its dimensions."""
    tags = _axis_tags(node)
    letters = [str(tag.get("key", "?")) for tag in tags]
    if not letters:
        letters = [str(dim.label) for dim in node.dims]
    axes = "".join(letters).upper()
    return axes if len(axes) == node.ndim and len(letters) == node.ndim else ""


def _axis_tags(node: Any) -> list[dict[str, Any]]:
    text = node.attrs.get("axistags")
    if text is None:
        return []
    if isinstance(text, bytes):
        text = text.decode()
    tags = json.loads(str(text)).get("axes", [])
    return [tag for tag in tags if isinstance(tag, dict)]


def _dataset_sizes(node: Any) -> dict[str, float]:
    """Return micrometres of a pixel; of ilastik's tags, and of ``element_size_um``."""
    sizes = node.attrs.get("element_size_um")  # of the h5 files of ImageJ and Imaris
    if sizes is not None and len(sizes) == 3:
        found = dict(zip("ZYX", map(float, sizes), strict=True))
        return {a: n for a, n in found.items() if n > 0}
    return {}


# ---------------------------------------------------------------- MRC, Olympus


def _mrc(path: Path) -> Contents:
    """Return the volume, image or stack of an MRC file."""
    import mrcfile

    with mrcfile.mmap(path, permissive=True) as file:
        is_volume = file.is_volume()
        shape = tuple(int(n) for n in file.data.shape)
        step = file.voxel_size
        sizes = {a: float(step[a.lower()]) * ANGSTROM for a in "ZYX"}
    axes = {2: "YX", 3: "ZYX" if is_volume else ""}.get(len(shape), "")
    sizes = {a: n for a, n in sizes.items() if n > 0}

    def read(index: int) -> MicroscopeImage:
        # mapped: the rows are read where it is sliced
        array = mrcfile.mmap(path, permissive=True).data
        return MicroscopeImage(array, axes, sizes)

    return Contents((Scene("", shape, axes),), read)


def _olympus(path: Path) -> Contents:
    """Return the image of an OIB or OIF file."""
    from oiffile import OifFile

    with OifFile(path) as file:
        series = file.series[0]
        plane = file.asarray(str(series[0]))
        shape = (*series.shape, *plane.shape)
        axes = str(series.axes) + "YX"[-plane.ndim :]
        sizes = _olympus_sizes(file.mainfile)
        names = _olympus_names(file.mainfile)

    def read(index: int) -> MicroscopeImage:
        with OifFile(path) as file:
            array = file.asarray()
        return MicroscopeImage(array, axes, sizes, names)

    return Contents((Scene("", shape, axes, names),), read)


def _olympus_sizes(main: Any) -> dict[str, float]:
    """Return micrometres of a pixel along each axis of an Olympus file."""
    sizes = {}
    for i in range(8):
        axis = main.get(f"Axis {i} Parameters Common", {})
        letter, n = str(axis.get("AxisCode", "")), int(axis.get("MaxSize", 0) or 0)
        unit = {"um": 1.0, "nm": 1e-3}.get(str(axis.get("UnitName", "")), 0.0)
        start, end = axis.get("StartPosition", 0), axis.get("EndPosition", 0)
        if letter in ("Z", "Y", "X") and unit and n > 1:  # from centre to centre
            sizes[letter] = abs(float(end) - float(start)) * unit / (n - 1)
    return {a: n for a, n in sizes.items() if n > 0}


def _olympus_names(main: Any) -> tuple[str, ...]:
    """Return the dyes of the channels of an Olympus file, or their own names."""
    names = []
    for i in range(1, MAX_CHANNELS + 1):
        channel = main.get(f"Channel {i} Parameters", {})
        dye = str(channel.get("DyeName", ""))
        names.append(str(channel.get("CH Name", "")) if dye in ("", "None") else dye)
    return tuple(name for name in names if name)


def scene_labels(scenes: Sequence[Scene]) -> list[str]:
    """Return index and name of each scene, or its shape where it has no name."""
    return [series_label(i, s.name, s.axes, s.shape) for i, s in enumerate(scenes)]
