"""Drawn scenes are repeatable and hold what they say."""

from __future__ import annotations

import numpy as np
import pytest

from napari_svpseg.engine.training.superpixels import superpixel_masks
from napari_svpseg.engine.training.synthetic import draw_scene


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
