"""Labels made block by block are those of the whole image, in 2-D and 3-D."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_svpseg.core.labels import instances
from napari_svpseg.core.labels.blocks import (
    block_grid,
    compare,
    describe,
    label_blocks,
    neighbours_before,
    offsets_of,
    renamed,
    renumber,
    seam,
    stitch,
    union,
    within,
)
from napari_svpseg.core.labels.instances import (
    filter_objects,
    instances_from_maps,
    instances_in_blocks,
    targets,
)
from napari_svpseg.core.result import Maps, ObjectProperties
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
@pytest.mark.parametrize("even", [True, False])
def test_cores_fill_the_image_once(shape, side, even):
    seen = np.zeros(shape, int)
    for block in block_grid(shape, side, 5, even=even).values():
        seen[block.core] += 1
        assert max(seen[block.core].shape) <= side
        assert seen[block.view].shape <= tuple(n + 10 for n in seen[block.core].shape)
    assert (seen == 1).all()


@pytest.mark.parametrize("side", [50, 64, 100, 133])
@pytest.mark.parametrize("full", [True, False])
def test_blocks_equal_the_whole(side, full):
    labels = discs((300, 260), 220)
    maps = noisy_maps(labels, objects=ObjectProperties(14.0))
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
            for post in (PLAIN, UNSPLIT):
                whole = instances_from_maps(maps, post)
                found = instances_in_blocks(maps, post, 100, 16)
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
    for extra, post in (
        ({"objects": ObjectProperties(9.0, net=True)}, PostprocessSettings()),
        ({}, PostprocessSettings(split=False)),
        ({}, PostprocessSettings(labels="classes")),
        ({}, PostprocessSettings(labels="classes", fill_holes=False, min_area=90)),
    ):
        maps = Maps(net, **extra)
        whole = instances_from_maps(maps, post)
        for side in (31, 80, 230):
            assert same_objects(instances_in_blocks(maps, post, side), whole)


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
    monkeypatch.setattr(instances, "MAX_WHOLE_PIXELS", 120 * 90 - 1)
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
    common = compare(one, two)
    assert common.pairs[common.same].tolist() == [[1, 7], [2, 8]]
    assert common.pairs.tolist() == [[1, 7], [1, 8], [2, 8]]
    assert not len(compare(one, 0 * two).pairs)


def test_joined_ids_are_one_group_through_others():
    pairs = np.array([[2, 5], [5, 3], [1, 6]])
    assert union(6, pairs).tolist() == [0, 1, 2, 2, 4, 2, 1]
    assert union(2, np.zeros((0, 2), int)).tolist() == [0, 1, 2]


def test_more_objects_than_16_bits_hold():
    dots = np.zeros((520, 520), np.float32)
    dots[::2, ::2] = 1
    found = instances_in_blocks(Maps(dots), UNSPLIT, 128)
    assert found.max() == 260 * 260
    assert same_objects(found, instances_from_maps(Maps(dots), UNSPLIT))


# -------------------------------- by tables, as the workers of a large run do it


def label_by_tables(label, shape, side, halo, min_area=1, maps=(), confidence=0.0):
    """Return labels as the workers of a large run make them: by tables of blocks."""
    grid = block_grid(shape, side, halo)
    found = {at: np.asarray(label(block.view)) for at, block in grid.items()}
    tables = {
        at: describe(found[at], block, *(values[block.view] for values in maps))
        for at, block in grid.items()
    }
    seams = [
        (other, at, seam(found[other], grid[other], found[at], block))
        for at, block in grid.items()
        for other in neighbours_before(at).values()
    ]
    new, offsets = stitch(tables, seams, min_area, confidence), offsets_of(tables)
    labels = np.zeros(shape, np.int64)
    for at, block in grid.items():
        core = found[at][within(block.core, block.view)]
        labels[block.core] = renamed(core, new, offsets[at], tables[at].n)
    return labels


def blobs(seed, shape):
    """Return random shapes of any size, each of one piece."""
    noise = np.random.default_rng(seed).normal(size=shape)
    return ndimage.gaussian_filter(noise, 1.2) > 0.05


def pieces(mask):
    return ndimage.label(mask)[0]


def squares(seed, shape, side=8):
    """Return labels of touching objects that a window alone cannot tell apart.

    Each is a full square of a grid with a gap here and there.
    """
    rng = np.random.default_rng(seed)
    grid = [-(-n // side) for n in shape]
    ids = rng.permutation(np.arange(1, np.prod(grid) + 1)).reshape(grid)
    ids[rng.random(grid) < 0.2] = 0
    for axis, n in enumerate(shape):
        ids = np.repeat(ids, side, axis=axis).take(range(n), axis=axis)
    return ids


def in_order(labels):
    """Return labels with ids 1, 2, 3, ... in the order in which objects begin."""
    ids, first = np.unique(labels, return_index=True)
    first, ids = first[ids > 0], ids[ids > 0]
    new = np.zeros(int(labels.max(initial=0)) + 1, np.int64)
    new[ids[np.argsort(first)]] = np.arange(1, len(ids) + 1)
    return new[labels]


def local(labels, window):
    """Return a window's labels with ids of its own, as from a method that sees it."""
    part = labels[window]
    ids, ranks = np.unique(part, return_inverse=True)
    return ranks.reshape(part.shape) + (ids[0] > 0)


SHAPES = st.one_of(
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.tuples(st.integers(1, 12), st.integers(1, 20), st.integers(1, 20)),
)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), SHAPES, st.integers(3, 40), st.integers(1, 5))
def test_pieces_are_those_of_the_whole_whatever_the_blocks(seed, shape, side, halo):
    mask = blobs(seed, shape)
    labels = label_by_tables(lambda window: pieces(mask[window]), shape, side, halo)
    assert np.array_equal(labels, in_order(pieces(mask)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), SHAPES, st.integers(9, 40))
def test_touching_objects_are_those_of_the_whole_whatever_the_blocks(seed, shape, side):
    whole = squares(seed, shape)
    labels = label_by_tables(lambda window: local(whole, window), shape, side, halo=8)
    assert np.array_equal(labels, in_order(whole))


@pytest.mark.parametrize("shape", [(40, 44), (12, 20, 22)])
def test_without_a_halo_the_law_is_broken(shape):
    mask = blobs(1, shape)
    labels = label_by_tables(lambda window: pieces(mask[window]), shape, 9, halo=0)
    assert labels.max() > pieces(mask).max()


def test_a_corner_that_four_blocks_share_is_one_object():
    mask = np.zeros((20, 20), bool)
    mask[7:13, 7:13] = True
    labels = label_by_tables(lambda window: pieces(mask[window]), mask.shape, 10, 3)
    assert np.array_equal(labels, mask.astype(int))


def test_two_objects_that_touch_at_a_seam_stay_two():
    whole = np.zeros((16, 32), int)
    whole[2:14, 4:16], whole[2:14, 16:28] = 1, 2
    labels = label_by_tables(lambda window: local(whole, window), whole.shape, 16, 12)
    assert np.array_equal(labels, whole)


def test_small_objects_go_by_their_whole_area():
    mask = np.zeros((10, 20), bool)
    mask[2, 8:12], mask[6, 9:11] = True, True
    labels = label_by_tables(
        lambda window: pieces(mask[window]), mask.shape, 10, 3, min_area=3
    )
    assert labels.max() == 1 and np.count_nonzero(labels) == 4


def test_an_object_larger_than_the_halo_is_told_of():
    mask = np.zeros((10, 40), bool)
    mask[5, 2:38] = True
    blocks = block_grid(mask.shape, 10, 3)
    reach = [describe(pieces(mask[b.view]), b).beyond.any() for b in blocks.values()]
    assert reach == [True, True, True, True]
    mask[5, 12:] = False
    block = blocks[0, 0]
    assert not describe(pieces(mask[block.view]), block).beyond.any()


def test_tables_of_nothing_give_no_ids():
    grid = block_grid((5, 5), 3, 1)
    tables = {
        at: describe(np.zeros([s.stop - s.start for s in block.view], int), block)
        for at, block in grid.items()
    }
    assert stitch(tables, []).tolist() == [0]


def test_union_takes_ids_above_what_32_bits_hold_in_pairs_of_any_order():
    pairs = np.array([[5, 9], [9, 2], [7, 8]], np.int64)
    expected = np.arange(11)
    expected[[5, 9]], expected[8] = 2, 7
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        assert np.array_equal(union(10, pairs[order]), expected)
    assert union(3, pairs[:0]).dtype == np.int64


def test_more_ids_than_16_bits_hold():
    whole = np.zeros((600, 600), bool)
    whole[::2, ::2] = True
    labels = label_by_tables(lambda window: pieces(whole[window]), whole.shape, 128, 2)
    assert labels.max() == 90_000
    assert np.array_equal(labels[whole], np.arange(1, 90_001))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(9, 40), st.floats(0.3, 1))
def test_doubtful_objects_are_those_of_the_whole_whatever_the_blocks(seed, side, share):
    whole = squares(seed, (60, 54))
    rng = np.random.default_rng(seed)
    level = rng.random(int(whole.max()) + 1)[whole]
    foreground = (level * (0.5 + 0.5 * rng.random(whole.shape))).astype(np.float32)
    boundary = rng.random(whole.shape).astype(np.float32) ** (1 + 3 * level)
    maps = foreground, boundary
    labels = label_by_tables(
        lambda window: local(whole, window), whole.shape, side, 8, 1, maps, share
    )
    expected = filter_objects(in_order(whole), 1, *maps, confidence=share)
    assert np.array_equal(labels, expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(9, 40))
def test_indistinct_objects_are_those_of_the_whole_in_memory_too(seed, side):
    whole = squares(seed, (60, 54))
    rng = np.random.default_rng(seed)
    of_object = rng.random(int(whole.max()) + 1)[whole]
    boundary = (of_object * rng.random(whole.shape)).astype(np.float32)
    maps = np.ones_like(boundary), boundary
    grid = block_grid(whole.shape, side, 8)
    labels, owner = label_blocks(lambda window: local(whole, window), grid)
    renumber(labels, owner, grid, 1, *maps, confidence=0.95)
    expected = filter_objects(in_order(whole), 1, *maps, confidence=0.95)
    assert np.array_equal(labels > 0, expected > 0)


def test_planes_are_measured_by_their_own_objects():
    tables = {
        (plane, 0, 0): replace(
            describe(np.array([[1, 1, 0, 2, 2, 2]]), block_grid((1, 6), 6, 0)[0, 0]),
            peaks=np.array([low, high]),
            first=np.array([6 * plane, 6 * plane + 3]),
        )
        for plane, (low, high) in enumerate([(0.5, 0.9), (0.45, 0.5)])
    }
    together = stitch(tables, [], confidence=0.8)
    apart = stitch(tables, [], confidence=0.8, plane_of=lambda at: at[0])
    assert together.tolist() == [0, 1, 2, 3, 4]
    assert apart.tolist() == [0, 0, 1, 2, 3]
