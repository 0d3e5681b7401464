"""Labels made block by block are those of the whole image."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from scipy import ndimage

from napari_svpseg.core.labels import instances
from napari_svpseg.core.labels.blocks import block_grid, compare, join, label_blocks
from napari_svpseg.core.labels.instances import (
    instances_from_maps,
    instances_in_blocks,
    targets,
)
from napari_svpseg.core.result import Maps, ObjectLook
from napari_svpseg.core.settings import PostprocessSettings

PLAIN = PostprocessSettings(min_area=0)
UNSPLIT = PostprocessSettings(min_area=0, split=False)


def discs(shape, n: int, radii=(5, 9), seed: int = 0, gap: float = 0.8) -> np.ndarray:
    """Crowded discs, many of them touching, ids from 1."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    labels, centres = np.zeros(shape, np.int32), []
    for _ in range(20 * n):
        centre, radius = rng.uniform(0, shape), rng.uniform(*radii)
        if all(np.hypot(*(centre - c)) > 2 * gap * max(r, radius) for c, r in centres):
            centres.append((centre, radius))
            inside = np.hypot(y - centre[0], x - centre[1]) <= radius
            labels[inside & (labels == 0)] = len(centres)
        if len(centres) == n:
            break
    return labels


def noisy_maps(labels: np.ndarray, **extra) -> Maps:
    rng = np.random.default_rng(1)
    noise = ndimage.gaussian_filter(rng.normal(0, 1, (3, *labels.shape)), (0, 2, 2))
    blurred = [ndimage.gaussian_filter(m, 1) for m in targets(labels)]
    return Maps(
        *(
            np.clip(m + 0.3 * n, 0, 1).astype(np.float32)
            for m, n in zip(blurred, noise, strict=True)
        ),
        **extra,
    )


def same_objects(one: np.ndarray, two: np.ndarray) -> bool:
    """Tell whether two labellings are the same but for the ids."""
    pairs = np.unique(np.stack([one.ravel(), two.ravel()]), axis=1)
    counts = [len(np.unique(side)) for side in pairs]
    return counts == [pairs.shape[1]] * 2 and bool((pairs[:, 0] == 0).all())


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (200, 143)])
@pytest.mark.parametrize("side", [1000, 64, 17])
def test_cores_fill_the_image_once(shape, side):
    seen = np.zeros(shape, int)
    for block in chain.from_iterable(block_grid(shape, side, 5)):
        seen[block.core] += 1
        assert max(seen[block.core].shape) <= side
        assert seen[block.view].shape <= tuple(n + 10 for n in seen[block.core].shape)
    assert (seen == 1).all()


@pytest.mark.parametrize("side", [50, 64, 100, 133])
@pytest.mark.parametrize("full", [True, False])
def test_blocks_equal_the_whole(side, full):
    labels = discs((300, 260), 220)
    maps = noisy_maps(labels, objects=ObjectLook(14.0))
    if not full:
        maps = Maps(maps.foreground, objects=maps.objects)
    whole = instances_from_maps(maps, PostprocessSettings())
    assert 150 < whole.max() <= 230
    found = instances_in_blocks(maps, PostprocessSettings(), side)
    assert found.dtype == np.uint32
    assert same_objects(found, whole)
    torn = instances_in_blocks(maps, PostprocessSettings(), side, halo=0)
    assert torn.max() > whole.max()
    assert not same_objects(torn, whole)


def test_two_discs_that_touch_at_a_seam_stay_two():
    y, x = np.mgrid[:100, :200]
    labels = (np.hypot(y - 50, x - 84) <= 16) + 2 * (np.hypot(y - 50, x - 116) < 16)
    found = instances_in_blocks(Maps(*targets(labels)), PLAIN, 100)
    assert found.max() == 2
    assert same_objects(found, labels)


def test_a_disc_on_the_corner_of_four_blocks_is_one():
    y, x = np.mgrid[:200, :200]
    labels = (np.hypot(y - 101, x - 98) <= 30).astype(int)
    for halo in (2, 8, 64):
        found = instances_in_blocks(Maps(*targets(labels)), PLAIN, 100, halo)
        assert same_objects(found, labels)


def test_an_object_larger_than_the_halo_is_one_piece():
    y, x = np.mgrid[:400, :400]
    disc = (np.hypot(y - 190, x - 210) <= 170).astype(int)
    horseshoe = disc * (np.hypot(y - 190, x - 210) > 100) * ~((y < 190) & (x < 210))
    for labels in (disc, horseshoe):
        for maps in (Maps(*targets(labels)), Maps(labels.astype(np.float32))):
            for settings in (PLAIN, UNSPLIT):
                whole = instances_from_maps(maps, settings)
                found = instances_in_blocks(maps, settings, 100, 16)
                assert same_objects(found, whole)
                assert found.max() == 1


def test_blocks_that_disagree_by_a_pixel_do_not_merge_neighbours():
    y, x = np.mgrid[:40, :80]
    grid = block_grid((40, 80), 40, 10)

    def label(window):
        right = window[1].start > 0
        return np.where(y < x // 2 + right, 1, 2)[window]  # a slanted border, moved

    labels, owner = label_blocks(label, grid)
    assert labels.max() == 4
    assert len(np.unique(owner)) == 3  # background and two objects
    upper, lower = owner[labels[:, 38:42]][[2, 37]]
    assert len(set(upper)) == len(set(lower)) == 1
    assert upper[0] != lower[0]


def test_nets_and_masks_are_labelled_exactly():
    rng = np.random.default_rng(3)
    noise = ndimage.gaussian_filter(rng.normal(0, 1, (230, 310)), 2.5)
    net = (np.abs(noise) < 0.5 * noise.std()).astype(np.float32)
    for extra, settings in (
        ({"objects": ObjectLook(9.0, net=True)}, PostprocessSettings()),
        ({}, PostprocessSettings(split=False)),
        ({}, PostprocessSettings(labels="classes")),
        ({}, PostprocessSettings(labels="classes", fill_holes=False, min_area=90)),
    ):
        maps = Maps(net, **extra)
        whole = instances_from_maps(maps, settings)
        for side in (31, 80, 230):
            assert same_objects(instances_in_blocks(maps, settings, side), whole)


def test_holes_are_filled_across_seams():
    y, x = np.mgrid[:200, :200]
    depth = np.hypot(y - 100, x - 100)
    rings = (depth < 90) & (depth > 60)
    full = rings | (depth < 20)  # the hole holds another object, so it stays
    for labels in (rings, full):
        maps = Maps(labels.astype(np.float32))
        whole = instances_from_maps(maps, UNSPLIT)
        for side in (40, 70, 100):
            assert same_objects(instances_in_blocks(maps, UNSPLIT, side), whole)
    assert instances_in_blocks(Maps(rings.astype(np.float32)), UNSPLIT, 40)[100, 100]


@pytest.mark.parametrize("value", [0, 1])
def test_empty_and_full_maps(value):
    found = instances_in_blocks(Maps(np.full((90, 70), value, np.float32)), PLAIN, 32)
    assert (found == value).all()


def test_large_maps_go_by_blocks(monkeypatch):
    labels = discs((120, 90), 30)
    maps = Maps(*targets(labels))
    whole = instances_from_maps(maps, PLAIN)
    monkeypatch.setattr(instances, "LARGEST_WHOLE", 120 * 90 - 1)
    monkeypatch.setattr(instances, "BLOCK_SIDE", 160)
    called = []
    monkeypatch.setattr(
        instances, "label_blocks", lambda *a: called.append(1) or label_blocks(*a)
    )
    assert same_objects(instances_from_maps(maps, PLAIN), whole)
    assert called


def test_best_matches_are_mutual_and_cover_the_smaller():
    one = np.array([[1, 1, 1, 1, 2, 2, 0, 3]])
    two = np.array([[7, 7, 7, 8, 8, 8, 8, 0]])
    pairs, same = compare(one, two)
    assert pairs[same].tolist() == [[1, 7], [2, 8]]
    assert pairs.tolist() == [[1, 7], [1, 8], [2, 8]]
    assert not len(compare(one, 0 * two)[0])


def test_joined_ids_are_one_group_through_others():
    pairs = np.array([[2, 5], [5, 3], [1, 6]])
    assert join(6, pairs).tolist() == [0, 1, 2, 2, 4, 2, 1]
    assert join(2, np.zeros((0, 2), int)).tolist() == [0, 1, 2]


def test_more_objects_than_16_bits_hold():
    dots = np.zeros((520, 520), np.float32)
    dots[::2, ::2] = 1
    settings = PostprocessSettings(min_area=0, split=False)
    found = instances_in_blocks(Maps(dots), settings, 128)
    assert found.max() == 260 * 260
    assert same_objects(found, instances_from_maps(Maps(dots), settings))
