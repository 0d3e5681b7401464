"""Images: every dtype and format, odd intensities, damage, axes, sizes, channels."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import tifffile

from napari_svpseg.io.images import quiet_tifffile

from ..case import Action, Case, Expected, Place, Seen, either, refused, right
from ..scene import N_DISCS, SIDE, discs, noted, objects, result, segment, write_image

FOUND = objects(N_DISCS)
NOTHING = noted(objects(0))
"""Nothing is found, and the user is told why that may be."""


def case(name: str, make: object, expected: Expected) -> Case:
    """Return a case of this group."""
    return Case("images", name, make, expected)  # type: ignore[arg-type]


def cases() -> Iterator[Case]:
    """Yield the cases of this group."""
    yield from _dtypes()
    yield from _intensities()
    yield from _damaged()
    yield from _axes()
    yield from _sizes()
    yield from _odd_files()
    yield from _channels()


def _segment_array(array: np.ndarray, name: str, *more: object, **tiff: object):
    """Return what writes an array and segments it."""

    def make(place: Place) -> Action:
        return segment(place, write_image(Path(name), array, **tiff), *more)

    return make


def _dtypes() -> Iterator[Case]:
    image = discs()[0].astype(float)
    known = (
        "uint8", "uint16", "uint32", "uint64", "int16", "int32", "int64", "float16",
        "float32", "float64", ">u2", ">f4",
    )  # fmt: skip
    for dtype in known:
        for suffix in (".tif", ".npy"):
            array = image.astype(dtype)
            make = _segment_array(array, f"a{suffix}")
            yield case(f"{dtype}{suffix}", make, right(FOUND))
    for suffix in (".png", ".bmp", ".gif", ".jpg"):
        make = _segment_array(image.astype(np.uint8), f"a{suffix}")
        # a GIF has a palette of colours
        expected = either(FOUND, "channel") if suffix == ".gif" else right(FOUND)
        yield case(f"uint8{suffix}", make, expected)
    yield case(
        "uint16.png", _segment_array(image.astype(np.uint16), "a.png"), right(FOUND)
    )
    mask = image > 100
    for suffix in (".tif", ".npy"):
        yield case(f"bool{suffix}", _segment_array(mask, f"a{suffix}"), right(FOUND))
    for dtype in ("complex64", "complex128"):
        for suffix in (".tif", ".npy"):
            make = _segment_array(image.astype(dtype), f"a{suffix}")
            yield case(f"{dtype}{suffix}", make, refused(f"a{suffix}"))
    for dtype, value in (("U5", "cell"), ("M8[s]", 0), ("S3", b"a"), ("O", None)):
        array = np.full((SIDE, SIDE), value, dtype)
        yield case(f"{dtype}.npy", _segment_array(array, "a.npy"), refused("a.npy"))
    record = np.zeros((SIDE, SIDE), [("red", "u1"), ("green", "u1")])
    yield case("record.npy", _segment_array(record, "a.npy"), refused("a.npy"))
    for packing in ("zlib", "lzw", "zstd", "packbits", "jpeg2000"):
        make = _segment_array(image.astype(np.uint8), "a.tif", compression=packing)
        yield case(f"{packing}.tif", make, right(FOUND))


def _intensities() -> Iterator[Case]:
    image = discs()[0].astype(np.float64)
    rng = np.random.default_rng(1)
    hole = rng.random(image.shape) < 0.02
    valid = {
        "x1e-6": image * 1e-6,
        "x1e-15": image * 1e-15,
        "x1e-30": image * 1e-30,
        "x1e30": image * 1e30,
        "x1e300": image * 1e300,
        "plus 1e6": image + 1e6,
        "plus 1e9": image + 1e9,
        "minus 1000": image - 1000,
        "some NaN": np.where(hole, np.nan, image),
        "some inf": np.where(hole, np.inf, image),
        "some -inf": np.where(hole, -np.inf, image),
        "a fill value": np.where(rng.random(image.shape) < 0.001, -1.7e308, image),
        "one hot pixel": np.where(
            np.arange(SIDE * SIDE).reshape(image.shape) == 7, 1e12, image
        ),
    }
    for name, array in valid.items():
        yield case(name, _segment_array(array, "a.tif"), right(FOUND))
    blank = {
        "all NaN": np.full((SIDE, SIDE), np.nan),
        "all inf": np.full((SIDE, SIDE), np.inf),
        "all -inf": np.full((SIDE, SIDE), -np.inf),
        "all zero": np.zeros((SIDE, SIDE)),
        "constant": np.full((SIDE, SIDE), 7e9),
        "constant uint8": np.full((SIDE, SIDE), 255, np.uint8),
    }
    for name, array in blank.items():
        yield case(name, _segment_array(array, "a.tif"), either(NOTHING, "a.tif"))


def _damaged() -> Iterator[Case]:
    for suffix in (".tif", ".png", ".jpg", ".bmp", ".gif", ".npy"):
        for part in (0, 3, 20, 60, 90):
            yield case(
                f"cut to {part} percent{suffix}",
                partial(_cut, suffix, part),
                refused(f"a{suffix}"),
            )
    other = {
        "text": b"not an image\n" * 50,
        "zeros": bytes(5000),
        "0xff": b"\xff" * 5000,
    }
    for suffix in (".tif", ".png", ".jpg", ".npy"):
        for name, data in other.items():
            make = partial(_bytes, f"a{suffix}", data)
            yield case(f"{name} as {suffix}", make, refused(f"a{suffix}"))
    for real, called in ((".png", ".tif"), (".tif", ".png"), (".npy", ".tif")):
        yield case(
            f"{real} called {called}",
            partial(_renamed, real, called),
            either(FOUND, f"a{called}"),
        )
    for seed in range(15):
        yield case(
            f"bytes changed {seed}.tif",
            partial(_flipped, seed),
            either(_has_the_shape_of_its_image, "a.tif"),
        )


def _cut(suffix: str, percent: int, place: Place) -> Action:
    path = write_image(Path(f"a{suffix}"))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * percent // 100])
    return segment(place, path)


def _bytes(name: str, data: bytes, place: Place) -> Action:
    Path(name).write_bytes(data)
    return segment(place, name)


def _renamed(real: str, called: str, place: Place) -> Action:
    path = write_image(Path(f"b{real}"))
    return segment(place, path.rename(f"a{called}"))


def _has_the_shape_of_its_image(here: Path, seen: Seen) -> None:
    with quiet_tifffile():
        shape = tifffile.imread(here / "a.tif").shape
    assert tifffile.imread(here / result()).shape == shape


def _flipped(seed: int, place: Place) -> Action:
    """Change bytes of the tags of a TIFF, in front of its pixels."""
    path = write_image(Path("a.tif"), compression="zlib")
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    data[int(rng.integers(4, 200))] = int(rng.integers(256))
    data[int(rng.integers(4, 200))] = int(rng.integers(256))
    path.write_bytes(data)
    return segment(place, path)


def _axes() -> Iterator[Case]:
    image = discs()[0]
    stack = np.stack([image] * 3)
    for ndim in (3, 4, 5, 6):
        array = image.reshape((1,) * (ndim - 2) + image.shape).repeat(3, axis=0)
        yield case(
            f"{ndim} axes, not declared",
            _segment_array(array, "a.npy"),
            refused("a.npy"),
        )
    shapes = {"ZYX": (3, SIDE, SIDE), "TYX": (3, SIDE, SIDE), "zyx": (3, SIDE, SIDE)}
    for axes, shape in shapes.items():
        check = right(objects(3 * N_DISCS, shape))
        yield case(
            f"declared {axes}", _segment_array(stack, "a.npy", "--axes", axes), check
        )
    for axes in (
        "YX",
        "TZYX",
        "ZZX",
        "QYX",
        "XY",
        "",
        "Z,Y,X",
        "YXS",
        "🙂YX",
        "Y" * 99,
    ):
        yield case(
            f"wrong axes {axes[:6]}",
            _segment_array(stack, "a.npy", "--axes", axes),
            refused("a.npy"),
        )
    for ndim in (0, 1):
        yield case(
            f"{ndim} axes",
            _segment_array(np.ones((5,) * ndim), "a.npy"),
            refused("a.npy"),
        )
    for axes in ("ZYX", "TYX"):
        make = _segment_array(stack, "a.tif", imagej=True, metadata={"axes": axes})
        yield case(f"ImageJ {axes}", make, right(objects(3 * N_DISCS, stack.shape)))
        make = _segment_array(stack, "a.ome.tif", metadata={"axes": axes})
        yield case(f"OME {axes}", make, right(objects(3 * N_DISCS, stack.shape)))
    for xml in (
        "<OME",
        "<OME/>",
        "<OME><Image><Pixels SizeX='-1'/></Image></OME>",
        "é" * 9,
    ):
        make = partial(_ome, xml)
        yield case(f"OME-XML {xml[:12]}", make, either(FOUND, "a.ome.tif"))


def _ome(xml: str, place: Place) -> Action:
    tifffile.imwrite("a.ome.tif", discs()[0], description=xml.encode(), metadata=None)
    return segment(place, "a.ome.tif")


def _sizes() -> Iterator[Case]:
    whole = np.pad(discs()[0], 0)
    for shape in ((1, 1), (1, 300), (300, 1), (2, 3), (7, 96), (63, 65)):
        array = np.resize(whole, shape)
        yield case(
            f"{shape[0]} x {shape[1]}",
            _segment_array(array, "a.tif"),
            either(objects(range(99), shape), "a.tif"),
        )
    for shape in ((0, 0), (0, 50), (50, 0), (2, 0, 5)):
        yield case(
            f"empty {shape}", _segment_array(np.zeros(shape), "a.npy"), refused("a.npy")
        )
    huge = {"a.npy": _huge_npy, "a.tif": _huge_tiff}
    for name, make in huge.items():
        yield case(f"declares 1e6 x 1e6 {name}", make, refused(name))


def _huge_npy(place: Place) -> Action:
    with open("a.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)}
        )
        file.write(bytes(1000))
    return segment(place, "a.npy")


def _huge_tiff(place: Place) -> Action:
    path = write_image(Path("a.tif"))
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for tag in ("ImageWidth", "ImageLength"):
            tiff.pages[0].tags[tag].overwrite(10**6)
    return segment(place, path)


def _odd_files() -> Iterator[Case]:
    def folder(place: Place) -> Action:
        Path("a.tif").mkdir()
        return segment(place, "a.tif")

    def loop(place: Place) -> Action:
        os.symlink("b.tif", "a.tif")
        os.symlink("a.tif", "b.tif")
        return segment(place, "a.tif")

    def dangling(place: Place) -> Action:
        os.symlink("gone.tif", "a.tif")
        return segment(place, "a.tif")

    def pipe(place: Place) -> Action:
        os.mkfifo("a.tif")
        return segment(place, "a.tif")

    def listening(place: Place) -> Action:
        socket.socket(socket.AF_UNIX).bind("a.tif")
        return segment(place, "a.tif")

    def link(place: Place) -> Action:
        write_image(Path("real.tif"))
        os.symlink("real.tif", "a.tif")
        return segment(place, "a.tif")

    for make in (folder, loop, dangling, pipe, listening):
        yield case(make.__name__, make, refused("a.tif"))
    yield case("link", link, right(FOUND))
    for name in (
        "/dev/null",
        "/dev/zero",
        "gone.tif",
        "gone/a.tif",
        "a.doc",
        "a",
        ".tif",
    ):
        yield case(
            f"file {name.replace('/', ' ')}",
            partial(_named, name),
            refused(name),
        )


def _named(name: str, place: Place) -> Action:
    if name in ("a.doc", "a", ".tif"):
        Path(name).write_bytes(b"some text")
    return segment(place, name)


def _channels() -> Iterator[Case]:
    image = discs()[0]
    two = np.stack([image, image[::-1]])
    for words in ("2", "0,5", "-1", "x", "0,0", "", "1.5", "99999999999999999999"):
        yield case(
            f"channels {words}",
            _segment_array(two, "a.npy", "--axes", "CYX", "--channels", words),
            either(objects(range(20)), "channel"),
        )
    yield case(
        "channel 0 of 2",
        _segment_array(two, "a.npy", "--axes", "CYX", "--channels", "0"),
        right(FOUND),
    )
    rgb = np.dstack([image] * 3)
    alpha = np.dstack([image] * 3 + [np.full_like(image, 255)])
    for name, array in (("RGB", rgb), ("RGBA", alpha)):
        for suffix in (".tif", ".png"):
            make = _segment_array(array, f"a{suffix}")
            yield case(f"{name}{suffix}", make, either(FOUND, "channel"))
    many = np.stack([image] * 70)
    yield case(
        "70 channels",
        _segment_array(many, "a.npy", "--axes", "CYX"),
        refused("channel"),
    )
