from __future__ import annotations

import numpy as np
import pytest

from napari_svpseg.benchmark.protocol import (
    BoxRule,
    choose_rule,
    cut_borders,
    find_box,
    is_mosaic,
    is_network,
    objects_of_class,
)


def squares(side: int, pitch: int, shape: tuple[int, int] = (256, 256)) -> np.ndarray:
    labels = np.zeros(shape, np.int32)
    count = 0
    for y in range(4, shape[0] - side, pitch):
        for x in range(4, shape[1] - side, pitch):
            count += 1
            labels[y : y + side, x : x + side] = count
    return labels


def net(pitch: int = 24, width: int = 3) -> np.ndarray:
    y, x = np.mgrid[:256, :256]
    return (((y % pitch) < width) | ((x % pitch) < width)).astype(np.int32)


def test_legal_box_needs_share_and_whole_object() -> None:
    labels = np.zeros((64, 64), np.int32)
    rule = BoxRule(64, 50)
    assert not rule.allows(labels)
    labels[:10, :20] = 1  # cut by the border
    labels[:20, 40:60] = 2
    assert not rule.allows(labels)
    assert BoxRule(64).allows(labels)
    labels[30:40, 30:40] = 3
    assert rule.allows(labels)
    assert not BoxRule(64, 101).allows(labels)
    labels[labels == 0] = 4
    assert not rule.allows(labels)


@pytest.mark.parametrize(
    ("side", "pitch", "size"), [(5, 9, 32), (9, 18, 48), (20, 40, 64), (80, 110, 96)]
)
def test_box_grows_with_the_objects(side: int, pitch: int, size: int) -> None:
    images = [squares(side, pitch, (300, 320)) for _ in range(3)]
    rule = choose_rule(images)
    assert rule is not None and rule.size == size and rule.min_whole_area > 0


def test_box_starts_at_the_stated_size() -> None:
    rule = choose_rule([squares(20, 40)], start=128)
    assert rule is not None and rule.size == 128


def test_regions_without_whole_objects_get_the_largest_legal_box() -> None:
    halves = np.zeros((300, 300), np.int32)
    halves[:, :150] = 1
    rule = choose_rule([halves])
    assert rule == BoxRule(256)
    assert choose_rule([np.zeros((99, 99), np.int32)]) is None
    assert choose_rule([]) is None


def test_nets_keep_a_small_box() -> None:
    assert choose_rule([net()], whole=False) == BoxRule(64)


def test_find_box_is_legal_repeatable_and_inside() -> None:
    labels = np.zeros((200, 300), np.int32)
    labels[150:170, 270:290] = 5  # a rare object
    rule = BoxRule(64, 200)
    boxes = [find_box(labels, rule, np.random.default_rng(s)) for s in (1, 1, 2)]
    assert boxes[0] == boxes[1] != boxes[2]
    for box in boxes:
        assert box is not None and box.fits(labels.shape)
        assert rule.allows(labels[box.slices])
    assert find_box(labels[:50], rule, np.random.default_rng(0)) is None
    ignore = np.zeros(labels.shape, np.uint8)
    ignore[160, 280] = 1
    assert find_box(labels, rule, np.random.default_rng(1), ignore) is None


def test_nets_and_mosaics_are_known() -> None:
    assert is_network([objects_of_class(net(), 1)])
    assert not is_network([squares(20, 40)])
    ring = squares(40, 60)
    ring[squares(20, 60) > 0] = 0
    assert not is_network([ring])
    assert not is_network([]) and not is_mosaic([])
    blocks = np.kron(np.arange(1, 65).reshape(8, 8), np.ones((16, 16), int))
    assert is_mosaic([blocks]) and not is_mosaic([squares(20, 40)])


def test_cut_borders_leaves_one_object_per_cell() -> None:
    blocks = np.kron(np.arange(1, 5).reshape(2, 2), np.ones((8, 8), int))
    cut = cut_borders(blocks)
    assert set(np.unique(cut)) == {0, 1, 2, 3, 4}
    assert (cut == 0).sum() == 16 * 4 - 4
    alone = np.pad(np.ones((8, 8), int), 4)
    assert np.array_equal(cut_borders(alone), alone)


def test_classes_become_components() -> None:
    labels = np.array([[1, 0, 2], [0, 1, 2], [2, 0, 0]])
    found = objects_of_class(labels, 2)
    assert found.max() == 2
    assert np.array_equal(found > 0, labels == 2)
    assert objects_of_class(labels, 1).max() == 1  # diagonal neighbours
