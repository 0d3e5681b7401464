"""Every way to store pixels gives what a viewer shows, or ids where ids are meant."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_svpseg.core.image import ImageError
from napari_svpseg.io.images import read_image
from napari_svpseg.io.mask_files import read_mask
from napari_svpseg.io.ome_zarr import open_image

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 255, (24, 32), dtype=np.uint8)
RGB = np.full((24, 32, 3), (200, 100, 50), np.uint8)
RGB[:12] = (60, 130, 90)
IDS = np.zeros((24, 32), np.uint8)
IDS[2:9, 2:9], IDS[12:20, 12:20] = 1, 2


def both_ways(path) -> np.ndarray:
    """Return an image read in one piece, which is the same read in parts."""
    whole = read_image(path)
    lazy = open_image(path)
    assert lazy.axes == whole.axes
    assert lazy.array.shape == whole.array.shape
    np.testing.assert_array_equal(lazy.array[:], whole.array)
    np.testing.assert_array_equal(lazy.array[3:9, 4:7], whole.array[3:9, 4:7])
    return whole.array


# ---------------------------------------------------------------- TIFF


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_white_is_zero(tmp_path, dtype):
    image = GREY.astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="miniswhite")
    shown = both_ways(tmp_path / "a.tif").astype(float)
    assert np.corrcoef(shown.ravel(), GREY.ravel())[0, 1] == pytest.approx(-1)
    if dtype != "float32":
        assert shown.max() == np.iinfo(dtype).max - int(GREY.min())


def test_white_is_zero_in_a_mask(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", IDS == 0, photometric="miniswhite")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif") > 0, IDS > 0)
    eight = np.where(IDS > 0, 0, 255).astype(np.uint8)
    tifffile.imwrite(tmp_path / "b.tif", eight, photometric="miniswhite")
    np.testing.assert_array_equal(read_mask(tmp_path / "b.tif") > 0, IDS > 0)


@pytest.mark.parametrize("imagej", [True, False])
def test_ids_are_not_turned_upside_down(tmp_path, imagej):
    tifffile.imwrite(tmp_path / "a.tif", IDS, photometric="miniswhite", imagej=imagej)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif"), IDS)


def test_masks_of_imagej_keep_their_objects(tmp_path):
    """ImageJ shows 255, its object, as black where its lookup table is inverted."""
    mask = np.where(IDS > 0, 255, 0).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", mask, photometric="miniswhite", imagej=True)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif"), mask)


def palette(colours: np.ndarray) -> dict:
    return {"photometric": "palette", "colormap": (colours.T.astype(np.uint16) * 257)}


def test_palettes(tmp_path):
    colours = RNG.integers(0, 255, (256, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", GREY, **palette(colours))
    shown = both_ways(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif").rgb
    np.testing.assert_array_equal(shown, colours[GREY])
    grey = np.repeat(np.arange(255, -1, -1)[:, None], 3, axis=1)
    tifffile.imwrite(tmp_path / "b.tif", GREY, **palette(grey))
    np.testing.assert_array_equal(both_ways(tmp_path / "b.tif"), 255 - GREY)
    tifffile.imwrite(tmp_path / "c.tif", IDS, **palette(colours))
    np.testing.assert_array_equal(read_mask(tmp_path / "c.tif"), IDS)


def test_lookup_tables_of_imagej_are_not_the_intensities(tmp_path):
    green = np.zeros((256, 3), np.uint8)
    green[:, 1] = np.arange(256)
    tifffile.imwrite(
        tmp_path / "a.tif", GREY, imagej=True,
        extratags=[(320, 3, 768, (green.T.astype(int) * 257).ravel().tolist(), True)],
    )  # fmt: skip
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tiff:
        tiff.pages[0].tags["PhotometricInterpretation"].overwrite(3)
    assert read_image(tmp_path / "a.tif").axes.order == "YX"
    np.testing.assert_array_equal(both_ways(tmp_path / "a.tif"), GREY)


def test_printing_inks(tmp_path):
    inks = np.asarray(Image.fromarray(RGB).convert("CMYK"))
    tifffile.imwrite(tmp_path / "a.tif", inks, photometric="separated")
    np.testing.assert_allclose(both_ways(tmp_path / "a.tif"), RGB, atol=2)
    assert read_image(tmp_path / "a.tif").rgb
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "b.tif")
    np.testing.assert_allclose(both_ways(tmp_path / "b.tif"), RGB, atol=2)


@pytest.mark.parametrize(("mode", "atol"), [("YCbCr", 2), ("LAB", 12)])
def test_other_colours(tmp_path, mode, atol):
    if mode == "LAB":
        from PIL import ImageCms

        to_lab = ImageCms.buildTransform(
            ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
        )
        ImageCms.applyTransform(Image.fromarray(RGB), to_lab).save(tmp_path / "a.tif")
    else:
        Image.fromarray(RGB).convert(mode).save(tmp_path / "a.tif")
    shown = both_ways(tmp_path / "a.tif")
    np.testing.assert_allclose(shown.astype(int), RGB, atol=atol)


def test_what_cannot_be_shown_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY, photometric=32803)  # of a raw camera
    for read in (read_image, open_image):
        with pytest.raises(ImageError, match=r"a\.tif"):
            read(tmp_path / "a.tif")


# ---------------------------------------------------------------- bitmaps


def test_png_of_16_bits(tmp_path):
    from imagecodecs import png_encode

    image = (RGB.astype(np.uint16) * 7)[..., ::-1].copy()
    (tmp_path / "a.png").write_bytes(png_encode(image))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").array, image)
    Image.fromarray(GREY.astype(np.uint16) * 7).save(tmp_path / "b.png")
    grey = read_image(tmp_path / "b.png")
    assert (grey.axes.order, grey.array.dtype) == ("YX", np.uint16)
    np.testing.assert_array_equal(grey.array, GREY.astype(np.uint16) * 7)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.bmp", "a.webp", "a.jp2"])
def test_one_frame_of_grey_and_of_colour(tmp_path, name):
    if name != "a.webp":  # which has colours only
        Image.fromarray(GREY).save(tmp_path / name)
        image = read_image(tmp_path / name)
        assert (image.axes.order, image.rgb) == ("YX", False)
        np.testing.assert_array_equal(image.array, GREY)
    options = {"lossless": True} if name == "a.webp" else {}
    Image.fromarray(RGB).save(tmp_path / name, **options)
    image = read_image(tmp_path / name)
    assert (image.axes.order, image.rgb) == ("YXC", True)
    np.testing.assert_allclose(image.array, RGB, atol=3)


BROKEN_OFF = [
    ("a.png", {}),
    ("a.jpg", {}),
    ("a.jpg", {"progressive": True}),
    ("a.jpg", {"restart_marker_rows": 1}),
    ("a.webp", {"lossless": True}),
    ("a.webp", {}),
    ("a.gif", {}),
]


@pytest.mark.parametrize("share", [0.4, 0.7, 0.95])
@pytest.mark.parametrize(("name", "options"), BROKEN_OFF)
def test_a_copy_that_was_broken_off_is_no_image(tmp_path, name, options, share):
    picture = np.zeros((200, 200), np.uint8)
    for i in range(1, 20):
        picture[10 * i : 10 * i + 7, 5 * i : 5 * i + 30] = i
    if name in ("a.jpg", "a.webp"):  # long enough to be cut
        picture = RNG.integers(0, 255, (64, 64), dtype=np.uint8)
    small = Image.fromarray(picture[:16, :16])
    exif = small.getexif()
    if name == "a.jpg":  # a picture in the picture, with an end of its own
        small.save(tmp_path / "small.jpg")
        exif[0x9286] = (tmp_path / "small.jpg").read_bytes()
    path = tmp_path / name
    Image.fromarray(picture).save(path, exif=exif, **options)
    whole = path.read_bytes()
    assert read_image(path).array.shape[:2] == picture.shape
    kept = whole[: int(share * len(whole))]
    for damaged in (kept, kept + bytes(len(whole) - len(kept))):
        path.write_bytes(damaged)
        for read in (read_image, read_mask):
            with pytest.raises(ImageError, match=name):
                read(path)


def test_bytes_after_the_end_of_a_picture_change_nothing(tmp_path):
    for name in ("a.png", "a.jpg", "a.webp", "a.gif"):
        Image.fromarray(GREY).save(tmp_path / name)
        with (tmp_path / name).open("ab") as file:
            file.write(bytes(600))
        assert read_image(tmp_path / name).array.shape[:2] == GREY.shape


@pytest.mark.parametrize("name", ["a.gif", "a.apng", "a.webp"])
def test_animations_are_times(tmp_path, name):
    frames = [Image.fromarray(np.roll(RGB, n, axis=0)) for n in range(3)]
    kind = {"a.apng": {"format": "PNG"}, "a.webp": {"lossless": True}}.get(name, {})
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **kind)
    image = read_image(tmp_path / name)
    assert (image.axes.order, image.rgb) == ("TYXC", True)
    expected = np.stack([np.asarray(frame) for frame in frames])
    np.testing.assert_allclose(image.array, expected, atol=3)


def test_cmyk_of_a_jpeg(tmp_path):
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    image = read_image(tmp_path / "a.jpg")
    assert image.rgb
    np.testing.assert_allclose(image.array.astype(int), RGB, atol=8)


def test_palette_of_a_png_and_of_labels(tmp_path):
    image = Image.fromarray(IDS, mode="P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), IDS)
    shown = read_image(tmp_path / "a.png")
    assert shown.rgb
    assert shown.array[3, 3].tolist() == [255, 0, 0]


def test_colours_that_would_be_cut_are_refused(tmp_path):
    path = tmp_path / "a.ppm"
    path.write_bytes(b"P6 # a\n2 2 65535\n" + bytes(24))
    with pytest.raises(ImageError):
        read_image(path)
