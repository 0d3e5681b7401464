"""Drawn scenes are repeatable and hold what they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_svpseg.engine.training.superpixels import superpixel_masks
from napari_svpseg.engine.training.synthetic import draw_scene, texture_noise


@pytest.mark.parametrize("seed", range(12))
def test_a_scene_holds_images_and_ids_of_one_size(seed):
    scene = draw_scene(seed, size=96)
    assert len(scene.kinds) == len(scene.instances) >= 1
    for image in scene.images:
        assert image.shape == (96, 96, 3)
        assert image.dtype == np.uint8
        assert np.ptp(image) > 100, "the image uses the grey levels it has"
    for ids in scene.kinds:
        assert [i.shape for i in ids] == [(96, 96)] * len(scene.images)
        assert all(i.dtype == np.uint16 for i in ids)


def test_a_seed_always_draws_the_same_scene():
    one, two, other = draw_scene(3), draw_scene(3), draw_scene(4)
    for a, b in zip(one.images, two.images, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(one.kinds, two.kinds, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one.images[0], other.images[0])


def test_kinds_of_objects_do_not_overlap():
    for seed in range(40):
        scene = draw_scene(seed, size=96)
        if len(scene.kinds) == 2 and all(scene.instances):
            both = (scene.kinds[0][0] > 0) & (scene.kinds[1][0] > 0)
            if not both.any():
                break
    else:
        pytest.fail("no scene of two separate kinds in 40")


def _touching_share(ids: np.ndarray) -> float:
    """Return the share of objects within two pixels of another."""
    objects = np.unique(ids[ids > 0])
    near = [
        np.setdiff1d(ids[ndimage.binary_dilation(ids == n, iterations=2)], [0, n]).size
        for n in objects
    ]
    return float(np.mean(np.array(near) > 0))


def test_objects_of_clusters_touch_and_do_not_cover_each_other():
    shares, usual = [], []
    for seed in range(12):
        shares.append(_touching_share(draw_scene(seed, touching=True).kinds[0][0]))
        usual.append(_touching_share(draw_scene(seed).kinds[0][0]))
    assert np.median(shares) > 0.8
    assert np.median(shares) > np.median(usual)


def test_textures_are_cut_from_the_images_and_have_no_uneven_light():
    rng = np.random.default_rng(0)
    y = np.arange(90)[:, None, None]
    stripes = 90 + 60 * (y // 3 % 2) + 0 * np.zeros((90, 70, 3))
    shaded = (stripes + y).astype(np.uint8)  # brighter towards one side
    field = texture_noise([shaded])(rng, 64, 1.0)
    assert field.shape == (64, 64)
    assert abs(field.mean()) < 1e-4
    assert field.std() == pytest.approx(1, abs=1e-3)
    assert np.ptp(field, axis=1).max() < 1e-3, "the stripes are those of the image"
    assert abs(field[:32].mean() - field[32:].mean()) < 0.3

    plain = draw_scene(2)
    textured = draw_scene(2, noise=texture_noise([shaded]))
    assert not np.array_equal(plain.images[0], textured.images[0])


def test_superpixel_masks_are_legal_and_repeatable():
    image = draw_scene(0, size=128).images[0]
    masks = superpixel_masks(image, 4, np.random.default_rng(1))
    again = superpixel_masks(image, 4, np.random.default_rng(1))
    assert 1 <= len(masks) <= 4
    for mask, same in zip(masks, again, strict=True):
        assert 0.02 <= mask.mean() <= 0.6
        np.testing.assert_array_equal(mask, same)


def test_a_blank_image_gives_no_superpixel_task():
    blank = np.full((64, 64, 3), 9, np.uint8)
    assert superpixel_masks(blank, 3, np.random.default_rng(0)) == []
