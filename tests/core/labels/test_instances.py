"""Objects to maps and back, and what a re-run may not touch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import label as connected_components

from napari_svpseg.core.labels.instances import (
    MAX_SPLIT,
    SPLIT_STRENGTHS,
    best_split_strength,
    chosen_strength,
    fill_object_holes,
    filter_objects,
    instances_from_maps,
    object_properties,
    targets,
)
from napari_svpseg.core.labels.metrics import dice, f1
from napari_svpseg.core.result import DEFAULT_SPLIT, Maps, ObjectProperties
from napari_svpseg.core.settings import PostprocessSettings

PLAIN = PostprocessSettings(min_area=0, min_confidence=0.0)


def discs(centres, radius: int = 8, shape=(96, 96)) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    labels = np.zeros(shape, np.int32)
    for i, (cy, cx) in enumerate(centres, 1):
        labels[((y - cy) ** 2 + (x - cx) ** 2 <= radius**2) & (labels == 0)] = i
    return labels


TOUCHING = [(30, 30), (30, 45), (44, 37), (70, 70)]


def maps_of(labels: np.ndarray, **extra) -> Maps:
    return Maps(*targets(labels), **extra)


def test_targets_are_inside_centre_and_outline():
    labels = discs([(40, 40)], 10)
    foreground, distance, boundary = targets(labels)
    np.testing.assert_array_equal(foreground, labels > 0)
    assert np.unravel_index(distance.argmax(), distance.shape) == (40, 40)
    assert distance.max() == 1
    assert (distance[labels == 0] == 0).all()
    assert boundary[40, 30] == 1
    assert boundary[40, 40] == 0


def test_every_object_reaches_depth_one_whatever_its_size():
    labels = discs([(20, 20)], 5) + 2 * (discs([(60, 60)], 20) > 0)
    distance = targets(labels)[1]
    assert distance[labels == 1].max() == distance[labels == 2].max() == 1


def test_where_two_objects_touch_there_is_a_boundary():
    labels = np.zeros((32, 32), int)
    labels[8:24, 4:16], labels[8:24, 16:28] = 1, 2
    _, distance, boundary = targets(labels)
    assert boundary[16, 15] == boundary[16, 16] == 1
    assert distance[16, 15] < 0.2


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (7, 3), (64, 65)])
def test_empty_labels_of_any_shape(shape):
    maps = maps_of(np.zeros(shape, int))
    assert instances_from_maps(maps, PLAIN).shape == shape
    assert not instances_from_maps(maps, PLAIN).any()
    full = Maps(np.ones(shape, np.float32))
    assert instances_from_maps(full, PLAIN).max() == 1


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 5)),
        min_size=1,
        max_size=20,
        unique=True,
    ),
    st.integers(4, 8),
)
def test_discs_come_back(cells, radius):
    labels = discs([(10 + 16 * y, 10 + 16 * x) for y, x in cells], radius, (106, 106))
    found = instances_from_maps(maps_of(labels), PLAIN)
    assert f1(found, labels) == 1
    assert dice(found, labels) == 1
    assert found.dtype == np.uint32


def test_touching_discs_are_split_with_and_without_a_distance_map():
    labels = discs(TOUCHING)
    assert f1(instances_from_maps(maps_of(labels), PLAIN), labels) == 1
    alone = Maps((labels > 0).astype(np.float32))
    assert f1(instances_from_maps(alone, PLAIN), labels) == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_all_foreground_is_divided_among_connected_objects(seed, with_distance):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 40, 2))
    noise = [rng.random(shape).astype(np.float32) for _ in range(3)]
    maps = Maps(*noise) if with_distance else Maps(noise[0])
    found = instances_from_maps(maps, PLAIN)
    inside = noise[0] >= 0.5
    assert (found[inside] > 0).all()
    pieces = connected_components(found, background=0, connectivity=1)
    assert pieces.max() == found.max(), "no object lies in two pieces"
    assert len(np.unique(found[found > 0])) == found.max(), "ids are consecutive"


def test_a_net_without_prompts_breaks_at_its_crossings_at_most():
    net = np.zeros((256, 256), bool)
    for start in range(0, 256, 24):
        net[start : start + 3], net[:, start : start + 3] = True, True
    n_crossings = 11 * 11
    for maps in (maps_of(net.astype(int)), Maps(net.astype(np.float32))):
        assert instances_from_maps(maps, PostprocessSettings()).max() <= n_crossings
    known = Maps(net.astype(np.float32), objects=ObjectProperties(9.0, net=True))
    assert instances_from_maps(known, PostprocessSettings()).max() == 1


def test_a_clump_is_split_by_the_prompts_size_without_a_distance_map():
    labels = discs([(60, 20), (60, 31), (60, 42)], 6) + 4 * (
        discs([(40, 62)], 26) > 0
    ) * (discs([(60, 20), (60, 31), (60, 42)], 6) == 0)
    maps = Maps((labels > 0).astype(np.float32))
    sized = Maps(maps.foreground, objects=ObjectProperties(12.0))
    small = {int(i) for i in labels[60, [20, 31, 42]]}
    assert len(small) == 3
    found = instances_from_maps(sized, PLAIN)
    assert len({int(i) for i in found[60, [20, 31, 42]]}) == 3


def test_without_split_touching_discs_are_one():
    labels = discs(TOUCHING)
    found = instances_from_maps(
        maps_of(labels), PostprocessSettings(split=False, min_area=0)
    )
    assert found.max() == 2


def test_prompts_that_show_a_net_are_not_split():
    labels = discs(TOUCHING)
    found = instances_from_maps(
        maps_of(labels, objects=ObjectProperties(5.0, net=True)), PLAIN
    )
    assert found.max() == 2


def test_split_strength_never_makes_fewer_objects():
    rng = np.random.default_rng(0)
    labels = discs(rng.uniform(8, 88, (30, 2)), 9)
    maps = Maps((labels > 0).astype(np.float32))
    counts = [
        instances_from_maps(
            maps, PostprocessSettings(split_strength=s, min_area=0)
        ).max()
        for s in (0.0, 0.3, 0.6, 1.0)
    ]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_semantic_output_is_zero_and_one():
    labels = discs(TOUCHING)
    found = instances_from_maps(
        maps_of(labels),
        PostprocessSettings(labels="classes", min_area=0, fill_holes=False),
    )
    np.testing.assert_array_equal(found, labels > 0)


def test_the_smallest_object_follows_the_prompts_unless_it_is_given():
    labels = discs([(30, 30)], 10) + 2 * (discs([(70, 70)], 2) > 0)
    maps = maps_of(labels, objects=ObjectProperties(20.0))
    assert instances_from_maps(maps, PostprocessSettings()).max() == 1
    assert instances_from_maps(maps, PostprocessSettings(min_area=5)).max() == 2
    assert instances_from_maps(maps, PostprocessSettings(min_area=1000)).max() == 0


def test_holes_are_filled_but_not_over_another_object():
    labels = discs([(30, 30)], 14)
    labels[28:33, 28:33] = 0
    ring = discs([(70, 70)], 14) * 2
    ring[66:75, 66:75] = 0
    ring[69:72, 69:72] = 3
    filled = fill_object_holes(labels + ring)
    assert filled[30, 30] == 1
    assert filled[70, 70] == 3
    assert filled[0, 0] == 0
    np.testing.assert_array_equal(fill_object_holes(filled), filled)


def test_holes_stay_where_the_prompts_objects_have_some():
    ring = discs([(48, 48)], 20)
    ring[40:57, 40:57] = 0
    look = object_properties([ring[16:80, 16:80]], [1.0])
    assert (look.holes, look.net) == (True, False)
    assert not object_properties([discs(TOUCHING)[:64, :64]], [1.0]).holes
    for kind in ("objects", "classes"):
        settings = PostprocessSettings(labels=kind, split=False)
        assert instances_from_maps(maps_of(ring, objects=look), settings)[48, 48] == 0
        assert instances_from_maps(maps_of(ring), settings)[48, 48] == 1


def test_background_beside_unknown_pixels_is_no_hole():
    y, x = np.mgrid[:64, :64]
    far = np.hypot(y - 32, x - 32)
    labels = np.select([far <= 10, far <= 13], [1, 0], -1)
    look = object_properties([labels], [1.0])
    assert not look.holes
    assert look.diameter == pytest.approx(20, abs=1)


def test_a_net_is_not_filled():
    net = np.zeros((64, 64), int)
    net[::16], net[:, ::16] = 1, 1
    maps = Maps((net > 0).astype(np.float32), objects=object_properties([net], [1.0]))
    np.testing.assert_array_equal(instances_from_maps(maps, PLAIN) > 0, net > 0)


def test_object_properties_are_in_pixels_of_the_query():
    labels = discs([(32, 32)], 10, (64, 64))
    assert object_properties([labels], [0.5]).diameter == pytest.approx(40, abs=1)


def test_a_hole_at_the_border_stays_open():
    labels = np.ones((20, 20), int)
    labels[:5, 8:12] = 0
    np.testing.assert_array_equal(fill_object_holes(labels), labels)


def test_small_objects_go_and_ids_are_renumbered():
    labels = np.zeros((20, 20), np.int64)
    labels[:2, :2], labels[5:15, 5:15], labels[18, 18] = 70_000, 12, 5
    kept = filter_objects(labels, 4)
    assert (kept[0, 0], kept[10, 10], kept[18, 18]) == (2, 1, 0)
    np.testing.assert_array_equal(filter_objects(kept, 4), kept)


def test_parts_of_one_object_need_a_larger_drop() -> None:
    """A saddle that parts two objects does not part one object in two."""
    labels = discs([(40, 30), (40, 50)], radius=11)
    foreground, distance, _ = targets(labels)
    distance = (0.72 + 0.28 * ndimage.gaussian_filter(distance, 2)) * foreground

    def found(diameter: float) -> int:
        maps = Maps(foreground, distance, objects=ObjectProperties(diameter))
        return int(instances_from_maps(maps, replace(PLAIN, split_strength=0.8)).max())

    assert found(22.0) == 2
    assert found(44.0) == 1


def with_a_pass(depth: float) -> Maps:
    """Return maps of two discs that touch; between them the middle sinks by that."""
    labels = discs([(32, 22), (32, 43)], radius=11, shape=(64, 64))
    foreground = (labels > 0).astype(np.float32)
    x = np.arange(64, dtype=np.float32)
    height = 0.9 - depth * np.exp(-(((x - 32) / 3) ** 2))
    return Maps(
        foreground,
        np.broadcast_to(height, (64, 64)) * foreground,
        objects=ObjectProperties(22.0),
    )


def test_the_split_strength_follows_the_prompts():
    shallow = with_a_pass(0.26)
    two = discs([(32, 22), (32, 43)], radius=11, shape=(64, 64))
    one = (two > 0).astype(np.int32)
    assert instances_from_maps(shallow, PLAIN).max() == 1
    readily = best_split_strength([shallow], [two])
    assert readily in SPLIT_STRENGTHS and readily > DEFAULT_SPLIT
    fitted = replace(shallow, objects=ObjectProperties(22.0, split=readily))
    assert instances_from_maps(fitted, PLAIN).max() == 2

    # the second disc is unknown: its pixels speak neither for splitting nor against it
    unknown = np.where(two == 2, -1, two)
    assert best_split_strength([shallow], [unknown]) == DEFAULT_SPLIT

    deep = with_a_pass(0.35)
    assert instances_from_maps(deep, PLAIN).max() == 2
    rarely = best_split_strength([replace(deep, objects=ObjectProperties(22.0))], [one])
    assert rarely < DEFAULT_SPLIT
    lobed = replace(deep, objects=ObjectProperties(22.0, split=rarely))
    assert instances_from_maps(lobed, PLAIN).max() == 1


def test_the_prompts_choose_no_strength_that_cuts_other_images_to_pieces():
    scores = np.array([[0.2, 0.2, 0.2, 0.3, 0.4, 0.5, 0.9]])
    assert chosen_strength(scores) == MAX_SPLIT == 0.5
    assert chosen_strength(scores, highest=1.0) == 0.8
    assert chosen_strength(scores[:, ::-1]) == 0.1


def test_prompts_without_touching_objects_keep_the_default_split():
    alone = discs([(32, 32)], shape=(64, 64))
    assert best_split_strength(
        [maps_of(alone, objects=ObjectProperties(16.0))], [alone]
    ) == (DEFAULT_SPLIT)
    assert best_split_strength([], []) == DEFAULT_SPLIT
    net = maps_of(alone, objects=ObjectProperties(16.0, net=True))
    assert best_split_strength([net], [alone]) == DEFAULT_SPLIT


def test_strengths_that_find_the_same_are_scored_once(monkeypatch):
    compared = []

    def counted(*given, **more):
        compared.append(given)
        return f1(*given, **more)

    monkeypatch.setattr("napari_svpseg.core.labels.instances.f1", counted)
    alone = discs([(32, 32)], shape=(64, 64))
    objects = ObjectProperties(16.0)
    best_split_strength([maps_of(alone, objects=objects)] * 2, [alone] * 2)
    assert len(compared) == 2


@pytest.mark.parametrize(("asked", "n"), [(0.0, 1), (0.5, 2), (1.0, 2)])
def test_the_split_setting_is_centred_on_the_prompts(asked, n):
    maps = replace(with_a_pass(0.2), objects=ObjectProperties(22.0, split=0.65))
    found = instances_from_maps(maps, replace(PLAIN, split_strength=asked))
    assert found.max() == n


def faint_and_clear() -> tuple[Maps, np.ndarray]:
    """Return maps of four clear squares and a faint one, and the labels of all."""
    labels = np.zeros((60, 60), int)
    for i, (y, x) in enumerate([(4, 4), (4, 40), (40, 4), (40, 40), (22, 22)], 1):
        labels[y : y + 12, x : x + 12] = i
    foreground = np.where(labels > 0, 0.98, 0.02)
    foreground[labels == 5] = 0.7
    return Maps(foreground.astype(np.float32)), labels


@pytest.mark.parametrize(("confidence", "n"), [(0.0, 5), (0.7, 5), (0.75, 4), (1.0, 4)])
def test_objects_of_low_confidence_are_removed(confidence, n):
    maps, labels = faint_and_clear()
    found = instances_from_maps(maps, replace(PLAIN, min_confidence=confidence))
    assert found.max() == n
    np.testing.assert_array_equal(found > 0, (labels > 0) & (labels <= n))


def test_faint_images_keep_their_objects():
    maps, _ = faint_and_clear()
    faint = Maps(0.6 * maps.foreground)
    found = instances_from_maps(faint, PostprocessSettings(threshold=0.4))
    assert found.max() == 4  # as sure as each other, though none is sure
    empty = Maps(np.zeros((9, 9), np.float32))
    assert instances_from_maps(empty, PostprocessSettings()).max() == 0
