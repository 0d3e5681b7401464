"""Images are read with their axes and sizes, labels come back, damage is named."""

from __future__ import annotations

import contextlib
import errno
import json
import logging

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_svpseg.core.image import AXES_MISMATCH, AXES_UNKNOWN, ImageError
from napari_svpseg.core.result import Recipe
from napari_svpseg.io.atomic import (
    CANNOT_WRITE,
    REASONS,
    WriteError,
    atomic_folder,
    atomic_path,
)
from napari_svpseg.io.images import (
    NO_NUMBERS,
    NO_SUCH_FILE,
    UNREADABLE,
    read_image,
)
from napari_svpseg.io.label_files import (
    IDS_TOO_LARGE,
    NEGATIVE_IDS,
    NO_LABELS,
    NOT_WHOLE_NUMBERS,
    labels_dtype,
    write_labels,
)
from napari_svpseg.io.seg_npy import NO_MASKS

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ("YX", (20, 31)),
        ("ZYX", (3, 20, 31)),
        ("TYX", (2, 9, 9)),
        ("TZYX", (2, 3, 8, 9)),
    ],
)
@pytest.mark.parametrize("largest", [1, 255, 256, 65_535, 65_536, 4_000_000_000])
def test_labels_come_back(tmp_path, axes, shape, largest):
    labels = RNG.integers(0, largest, shape, endpoint=True, dtype=np.uint32)
    labels.flat[0] = largest
    path = write_labels(tmp_path / "a_labels.ome.tif", labels, axes=axes)
    back = read_image(path)
    np.testing.assert_array_equal(back.array, labels)
    assert back.axes.order == axes
    assert back.array.dtype == labels_dtype(largest)
    assert [p.name for p in tmp_path.iterdir()] == ["a_labels.ome.tif"]


@settings(max_examples=20, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_pixel_sizes_come_back(tmp_path_factory, y, x):
    path = tmp_path_factory.mktemp("size") / "a.ome.tif"
    write_labels(path, np.ones((4, 5), np.uint8), pixel_size=(y, x), unit="um")
    back = read_image(path)
    assert back.unit == "um"
    assert back.pixel_size == pytest.approx((y, x), rel=1e-5)


def test_the_recipe_comes_back(tmp_path, read_recipe):
    recipe = Recipe("svp", "abc", notes=("kleinere Kacheln für µm <&>",), scale=0.5)
    path = write_labels(tmp_path / "a.ome.tif", np.ones((4, 5), int), recipe=recipe)
    assert read_recipe(path) == recipe
    plain = write_labels(tmp_path / "b.ome.tif", np.ones((4, 5), int))
    assert read_recipe(plain) is None


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.full((4, 4), -1), NEGATIVE_IDS),
        (np.ones((4, 4)), NOT_WHOLE_NUMBERS),
        (np.full((4, 4), 2**32), IDS_TOO_LARGE),
        (np.ones((4, 4, 4), int), AXES_MISMATCH),
        (np.ones((0, 4), int), NO_LABELS),
    ],
)
def test_labels_that_cannot_be_written_leave_nothing(
    tmp_path, labels, message, pattern
):
    with pytest.raises(ValueError, match=pattern(message, order="YX", n=2, ndim=3)):
        write_labels(tmp_path / "a.ome.tif", labels)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_reported_and_keeps_the_old_file(tmp_path, monkeypatch, pattern):
    path = write_labels(tmp_path / "a.ome.tif", np.ones((4, 4), int))
    before = path.read_bytes()

    def full(file, *args, **kwargs):
        with open(file, "wb") as f:
            f.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tifffile, "imwrite", full)
    message = pattern(CANNOT_WRITE, target=path, reason=REASONS[errno.ENOSPC])
    with pytest.raises(WriteError, match=message):
        write_labels(path, np.zeros((4, 4), int))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.ome.tif"]


def test_a_missing_folder_is_reported(tmp_path):
    with pytest.raises(WriteError, match=REASONS[errno.ENOENT]):
        write_labels(tmp_path / "no" / "a.ome.tif", np.ones((4, 4), int))


def test_cancelled_work_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "b") as temporary:
        (temporary / "file").write_text("half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "model"
    for name in ("old", "new"):
        with atomic_folder(target, overwrite=True) as temporary:
            (temporary / "zarr.json").write_text("{}")
            (temporary / name).write_text(name)
    assert {p.name for p in target.iterdir()} == {"zarr.json", "new"}
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
def test_plain_tiff_of_one_plane_needs_no_axes(tmp_path, dtype):
    image = RNG.integers(0, 200, (12, 17)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", image)
    back = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(back.array, image)
    assert (back.axes.order, back.rgb, back.unit) == ("YX", False, "pixel")


def test_plain_stacks_must_be_declared(tmp_path, pattern):
    stack = RNG.integers(0, 200, (5, 12, 17), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack")
    with pytest.raises(ImageError, match=r"a\.tif: " + pattern(AXES_UNKNOWN)):
        read_image(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif", axes="TYX").axes.order == "TYX"
    with pytest.raises(
        ImageError, match=r"a\.tif: " + pattern(AXES_MISMATCH, order="YX")
    ):
        read_image(tmp_path / "a.tif", axes="YX")


def test_imagej_stacks_have_axes(tmp_path):
    stack = RNG.integers(0, 200, (5, 12, 17), dtype=np.uint16)
    tifffile.imwrite(
        tmp_path / "a.tif",
        stack,
        imagej=True,
        resolution=(2.0, 4.0),
        metadata={"axes": "ZYX", "unit": "um"},
    )
    back = read_image(tmp_path / "a.tif")
    assert back.axes.order == "ZYX"
    assert back.pixel_size == pytest.approx((0.25, 0.5))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_colour(tmp_path, suffix):
    from skimage.io import imsave

    image = np.full((16, 24, 3), 120, np.uint8)
    image[:8, :, 0] = 250
    path = tmp_path / f"a{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(path, image, photometric="rgb")
    else:
        imsave(path, image, check_contrast=False)
    back = read_image(path)
    assert (back.axes.order, back.rgb, back.array.shape) == ("YXC", True, (16, 24, 3))


@pytest.mark.parametrize(
    ("shape", "options", "expected"),
    [
        ((9, 8, 2), {"photometric": "minisblack", "planarconfig": "contig"}, "YXC"),
        ((9, 8, 3), {"photometric": "minisblack", "planarconfig": "contig"}, "YXC"),
        ((5, 9, 8), {"photometric": "minisblack", "planarconfig": "separate"}, "CYX"),
    ],
)
def test_samples_that_are_no_colours_are_channels(tmp_path, shape, options, expected):
    image = RNG.integers(0, 9, shape).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", image, **options)
    back = read_image(tmp_path / "a.tif")
    assert (back.axes.order, back.rgb) == (expected, False)
    np.testing.assert_array_equal(back.array, image)


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_transparency_of_a_grey_image_goes(tmp_path, suffix):
    from skimage.io import imsave

    image = RNG.integers(0, 255, (9, 8, 2), dtype=np.uint8)
    if suffix == ".tif":
        tifffile.imwrite(
            tmp_path / "a.tif", image, photometric="minisblack", extrasamples=[2]
        )
    else:
        imsave(tmp_path / "a.png", image, check_contrast=False)
    back = read_image(tmp_path / f"a{suffix}")
    assert (back.axes.order, back.rgb) == ("YX", False)
    np.testing.assert_array_equal(back.array, image[..., 0])


@pytest.mark.parametrize(
    ("axes", "shape", "expected", "rgb"),
    [
        ("YXS", (9, 8, 3), "YXC", True),
        ("ZYXS", (4, 9, 8, 3), "ZYXC", True),
        ("CYXS", (1, 9, 8, 3), "YXC", True),
        ("TCYX", (2, 3, 9, 8), "TCYX", False),
        ("TZCYX", (2, 1, 3, 9, 8), "TCYX", False),
    ],
)
def test_axes_of_ome(tmp_path, axes, shape, expected, rgb):
    path = tmp_path / "a.ome.tif"
    colours = {"photometric": "rgb" if rgb else "minisblack"}
    tifffile.imwrite(
        path, np.zeros(shape, np.uint8), metadata={"axes": axes}, **colours
    )
    back = read_image(path)
    assert (back.axes.order, back.rgb) == (expected, rgb)
    assert back.array.ndim == len(expected)


@pytest.mark.parametrize(
    ("axes", "written"),
    [("YXZ", "ZYX"), ("ZTYX", "TZYX"), ("zyx", "ZYX"), ("XY", "YX")],
)
def test_labels_are_written_in_the_order_of_ome(tmp_path, axes, written):
    labels = RNG.integers(0, 9, (4, 5, 6, 7)[: len(axes)], dtype=np.uint8)
    back = read_image(write_labels(tmp_path / "a.ome.tif", labels, axes=axes))
    assert back.axes.order == written
    order = [axes.upper().index(a) for a in written]
    np.testing.assert_array_equal(back.array, labels.transpose(order))


def test_the_log_level_of_tifffile_is_restored(tmp_path, caplog):
    (tmp_path / "a.tif").write_bytes(b"II*\0nonsense" * 9)
    level = logging.getLogger("tifffile").level
    with pytest.raises(ImageError):
        read_image(tmp_path / "a.tif")
    assert logging.getLogger("tifffile").level == level
    assert not caplog.records


def test_a_resolution_without_a_length_is_not_believed(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", np.ones((4, 5), np.uint8), resolution=(72, 72),
        resolutionunit="INCH",
    )  # fmt: skip
    assert read_image(tmp_path / "a.tif").pixel_size is None


def test_the_first_series_and_the_full_level_are_read(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(np.ones((64, 64), np.uint8), subifds=1)
        tiff.write(np.ones((32, 32), np.uint8), subfiletype=1)
    assert read_image(tmp_path / "a.tif").array.shape == (64, 64)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9), st.integers(1, 40))
def test_bytes_changed_at_random_are_read_or_refused(tmp_path_factory, seed, n):
    rng = np.random.default_rng(seed)
    path = tmp_path_factory.mktemp("fuzz") / "a.ome.tif"
    write_labels(path, rng.integers(0, 900, (20, 31)), pixel_size=(1, 1), unit="um")
    data = bytearray(path.read_bytes())
    for at in rng.integers(0, len(data), n):
        data[at] = rng.integers(256)
    path.write_bytes(data)
    with contextlib.suppress(ImageError):
        read_image(path)


def test_numpy_files(tmp_path, pattern):
    np.save(tmp_path / "a.npy", np.ones((4, 5)))
    assert read_image(tmp_path / "a.npy").axes.order == "YX"
    np.save(tmp_path / "b.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(ImageError, match=r"b\.npy: " + pattern(NO_MASKS)):
        read_image(tmp_path / "b.npy")


def test_a_gif_of_one_picture_is_a_plane(tmp_path):
    from PIL import Image

    Image.fromarray(np.full((12, 15), 9, np.uint8)).save(tmp_path / "a.gif")
    found = read_image(tmp_path / "a.gif")
    assert found.array.shape[:2] == (12, 15) and not found.axes.stack


def test_no_message_advises_to_load_pickles(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"some text")
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / "a.npy")
    assert "pickle" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif", "a.png", "a.jpg", "a.npy"])
@pytest.mark.parametrize("content", [b"", b"nonsense" * 40])
def test_damaged_files_are_one_line_with_their_name(tmp_path, name, content, pattern):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        ImageError, match=pattern(UNREADABLE, path=tmp_path / name)
    ) as caught:
        read_image(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_truncated_tiff_is_named(tmp_path, pattern):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, RNG.integers(0, 255, (200, 200), dtype=np.uint8), compression="zlib"
    )
    path.write_bytes(path.read_bytes()[:-15_000])
    with pytest.raises(ImageError, match=pattern(UNREADABLE, path=path)):
        read_image(path)


def test_missing_and_unknown_files_are_named(tmp_path, pattern):
    with pytest.raises(
        ImageError, match=pattern(NO_SUCH_FILE, path=tmp_path / "none.tif")
    ):
        read_image(tmp_path / "none.tif")
    (tmp_path / "a.what").write_bytes(b"x")
    with pytest.raises(ImageError, match=r"a\.what: .*tifffile, Pillow"):
        read_image(tmp_path / "a.what")


def test_the_recipe_in_the_file_is_plain_json(tmp_path):
    path = write_labels(
        tmp_path / "a.ome.tif", np.ones((4, 5), int), recipe=Recipe("m")
    )
    with tifffile.TiffFile(path) as tiff:
        text = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Description"]
    values = json.loads(text) if isinstance(text, str) else text
    assert values["model"] == "m"


@pytest.mark.parametrize(
    ("unit", "size"), [("nanometer", 0.0005), ("um", 0.5), ("millimeter", 500.0)]
)
def test_sizes_are_written_in_micrometres_and_planes_keep_their_distance(
    tmp_path, unit, size
):
    path = write_labels(
        tmp_path / "a.ome.tif",
        np.ones((3, 8, 9), np.uint8),
        axes="ZYX",
        pixel_size=(0.5, 0.5),
        unit=unit,
        z_step=2.0,
    )
    with tifffile.TiffFile(path) as tiff:
        assert 'PhysicalSizeZUnit="µm"' in tiff.ome_metadata
    back = read_image(path)
    assert back.pixel_size == pytest.approx((size, size))
    assert back.z_step == pytest.approx(4 * size)


def test_imagej_stacks_keep_the_distance_of_their_planes(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.zeros((5, 12, 17), np.uint16),
        imagej=True,
        resolution=(2.0, 2.0),
        metadata={"axes": "ZYX", "unit": "um", "spacing": 3.0},
    )
    assert read_image(tmp_path / "a.tif").z_step == pytest.approx(3.0)


def test_colours_stored_plane_by_plane_are_colours(tmp_path):
    image = RNG.integers(0, 255, (3, 16, 24), dtype=np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif", image, photometric="rgb", planarconfig="separate"
    )
    back = read_image(tmp_path / "a.tif")
    assert back.rgb and back.axes.order == "YXC"
    np.testing.assert_array_equal(back.array, np.moveaxis(image, 0, -1))
    assert read_image(tmp_path / "a.tif", axes="ZYX").rgb  # the file says what it is


def test_complex_numbers_are_no_intensities(tmp_path, pattern):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((4, 5), np.complex64))
    with pytest.raises(ImageError, match=pattern(NO_NUMBERS)):
        read_image(tmp_path / "a.tif")
