"""Label images as other programs write them give the ids that are meant."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_svpseg.core.image import ImageError
from napari_svpseg.core.labels.ids import COLOURED, FRACTIONS, as_objects, count_objects
from napari_svpseg.core.prompt import Prompt, PromptSet
from napari_svpseg.io.mask_files import LOSSY, NOT_A_MASK, read_mask
from napari_svpseg.io.prompt_files import load_prompts, save_prompts


def palette(labels, path):
    image = Image.fromarray(labels.astype(np.uint8), mode=None).convert("P")
    image.putpalette(np.random.default_rng(0).integers(0, 255, 768).tolist())
    image.putdata(labels.ravel().tolist())
    image.save(path)


WRITERS = {
    "plain.tif": lambda a, p: tifffile.imwrite(p, a.astype(np.uint16)),
    "imagej.tif": lambda a, p: tifffile.imwrite(p, a.astype(np.float32), imagej=True),
    "palette.tif": lambda a, p: tifffile.imwrite(
        p,
        a.astype(np.uint8),
        photometric="palette",
        colormap=np.random.default_rng(0).integers(0, 65535, (3, 256), np.uint16),
    ),
    "page.tif": lambda a, p: tifffile.imwrite(p, a.astype(np.uint16)[None, None]),
    "grey.png": lambda a, p: Image.fromarray(a.astype(np.uint8)).save(p),
    "sixteen.png": lambda a, p: Image.fromarray(a.astype(np.uint16)).save(p),
    "colours.png": lambda a, p: Image.fromarray(
        np.repeat(a.astype(np.uint8)[..., None], 3, axis=2)
    ).save(p),
    "palette.png": palette,
    "palette.gif": palette,
    "plain.npy": lambda a, p: np.save(p, a.astype(np.float64)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_ids_are_read_as_they_are_meant(tmp_path, disc_scene, name):
    WRITERS[name](disc_scene.labels, tmp_path / name)
    read = read_mask(tmp_path / name)
    assert read.dtype.kind in "iu" and np.array_equal(read, disc_scene.labels)


@pytest.mark.parametrize(
    ("name", "options", "stored"),
    [
        ("white.tif", {"photometric": "miniswhite"}, lambda m: ~m),
        ("white8.tif", {"photometric": "miniswhite"}, lambda m: np.uint8(255) * ~m),
        ("black.tif", {"photometric": "minisblack"}, lambda m: m),
        ("fiji.tif", {"photometric": "miniswhite", "imagej": True},
         lambda m: np.uint8(255) * m),
    ],
)  # fmt: skip
def test_white_on_black_are_objects(tmp_path, disc_scene, name, options, stored):
    mask = disc_scene.labels > 0
    tifffile.imwrite(tmp_path / name, stored(mask), **options)
    assert np.array_equal(read_mask(tmp_path / name) > 0, mask)


@pytest.mark.parametrize("name", ["mask.jpg", "mask.tif"])
def test_black_and_white_is_mended_after_jpeg(tmp_path, disc_scene, name, caplog):
    mask = np.where(disc_scene.labels > 0, 255, 0).astype(np.uint8)
    options = {} if name.endswith("jpg") else {"compression": "jpeg"}
    Image.fromarray(mask).save(tmp_path / name, quality=50, **options)
    read = read_mask(tmp_path / name)
    assert count_objects(as_objects(read)) == 5 and name in caplog.text


@pytest.mark.parametrize("name", ["ids.jpg", "ids.tif"])
def test_ids_are_lost_in_jpeg(tmp_path, disc_scene, name, pattern):
    options = {} if name.endswith("jpg") else {"compression": "jpeg"}
    ids = (20 * disc_scene.labels).astype(np.uint8)
    Image.fromarray(ids).save(tmp_path / name, quality=70, **options)
    with pytest.raises(ImageError, match=pattern(LOSSY, path=tmp_path / name)):
        read_mask(tmp_path / name)


def test_what_is_no_mask_is_refused_by_name(tmp_path, disc_scene, pattern):
    colours = np.random.default_rng(0).integers(0, 255, (9, 9, 3), np.uint8)
    for name, array, options, message in (
        ("rgb.tif", colours, {"photometric": "rgb"}, COLOURED),
        ("p.tif", disc_scene.image / 255, {}, FRACTIONS),
        ("z.tif", np.zeros((4, 9, 9), np.uint8), {"imagej": True}, NOT_A_MASK),
    ):
        tifffile.imwrite(tmp_path / name, array, **options)
        known = {"what": f"{tmp_path / name}:", "path": tmp_path / name}
        with pytest.raises(ImageError, match=pattern(message, **known)):
            read_mask(tmp_path / name)


def test_a_prompt_is_the_same_from_a_mask_of_ids_and_of_one_value(disc_scene):
    ids = Prompt.from_image(*disc_scene, (8, 8))
    white = np.where(disc_scene.labels > 0, 255, 0).astype(np.uint8)
    for mask in (white, white > 0, white.astype(np.float32)):
        other = Prompt.from_image(disc_scene.image, mask, (8, 8))
        assert other.n_objects == ids.n_objects == 5
        assert np.array_equal(other.mask > 0, ids.mask > 0)


def test_large_ids_come_back_from_a_prompt_file(tmp_path, disc_prompt):
    mask = np.where(disc_prompt.mask > 0, disc_prompt.mask + 70_000, 0)
    prompt = Prompt(disc_prompt.image, mask, disc_prompt.intensities, disc_prompt.box)
    path = save_prompts(PromptSet([prompt, disc_prompt]), tmp_path / "a")
    first, second = load_prompts(path)
    assert np.array_equal(first.mask, mask)
    assert np.array_equal(second.mask, disc_prompt.mask)


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_a_bitmap_that_is_called_tiff_is_read_as_what_it_is(tmp_path, kind):
    labels = np.zeros((9, 8), np.uint8)
    labels[2:5, 3:6] = 7
    Image.fromarray(labels).save(tmp_path / "a.tif", kind)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif"), labels)


def test_ids_are_lost_in_a_jpeg_that_is_called_tiff(tmp_path, disc_scene, pattern):
    Image.fromarray((disc_scene.labels * 30).astype(np.uint8)).save(
        tmp_path / "a.tif", "JPEG", quality=100
    )
    with pytest.raises(ImageError, match=pattern(LOSSY)):
        read_mask(tmp_path / "a.tif")
