"""The tile loop, and tiles on a fixed grid."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_svpseg.engine.inference.tiles import as_bytes, blend, run_tiles
from napari_svpseg.engine.inference.tiling import ScaledQuery, TileGrid


def grid_of(shape, scale=1.0, tile=64, overlap=32):
    return TileGrid.of(shape, scale, tile=tile, overlap=overlap, radius=4, stride=16)


def store_in(found):
    """Return what keeps the tiles of a loop as they are stored on the disk."""
    return lambda at, maps: found.__setitem__(at, as_bytes(maps))


def predicted(image, grid, places=None, batch=1, scale=1.0, at_once=1):
    """Return the tiles of an image as a network would that only smooths it."""
    found = {}
    query = ScaledQuery(image[..., None], np.array([[0.0, 1.0]]), scale)
    pool = torch.nn.AvgPool2d(3, 1, 1)
    run_tiles(
        query,
        grid,
        grid.places if places is None else places,
        lambda pieces: pool(pieces[:, :1]).sigmoid(),
        store_in(found),
        batch=batch,
        at_once=at_once,
    )
    return found


@settings(max_examples=12, deadline=None)
@given(
    st.integers(40, 200),
    st.integers(40, 200),
    st.sampled_from([0.6, 1.0, 1.7]),
    st.integers(17, 90),
)
def test_a_pixel_does_not_depend_on_the_window_it_is_read_in(high, wide, scale, side):
    image = np.random.default_rng(0).random((high, wide), np.float32)
    grid = grid_of(image.shape, scale)
    tiles = predicted(image, grid, scale=scale)
    whole = blend(grid, tiles.__getitem__, np.s_[0:high, 0:wide])
    assert whole.shape == (1, high, wide) and 0 < whole.min() < whole.max() < 1
    for y in range(0, high, side):
        for x in range(0, wide, side):
            window = np.s_[y : min(high, y + side), x : min(wide, x + side)]
            part = blend(grid, tiles.__getitem__, window)
            assert np.array_equal(part, whole[:, *window])


def test_batches_and_groups_of_tiles_change_nothing():
    image = np.random.default_rng(1).random((150, 130), np.float32)
    grid = grid_of(image.shape)
    one = predicted(image, grid)
    assert len(one) == grid.shape[0] * grid.shape[1] > 4
    many = predicted(image, grid, batch=3)
    part = predicted(image, grid, places=list(one)[2:4])
    assert all(np.array_equal(one[at], many[at]) for at in one)
    assert list(part) == list(one)[2:4]
    for at_once in (2, 3, 50):
        beside = predicted(image, grid, batch=2, at_once=at_once)
        assert list(beside) == list(one)
        assert all(np.array_equal(one[at], beside[at]) for at in one)
    assert all(np.array_equal(one[at], part[at]) for at in part)


def test_tiles_of_one_value_are_computed_once_and_come_out_the_same():
    image = np.full((150, 130), 0.25, np.float32)
    image[:70, :60] = np.random.default_rng(2).random((70, 60))
    grid = grid_of(image.shape)
    query = ScaledQuery(image[..., None], np.array([[0.0, 1.0]]), 1.0)
    pool, seen = torch.nn.AvgPool2d(3, 1, 1), []

    def forward(pieces):
        seen.extend(pieces)
        return pool(pieces[:, :1]).sigmoid()

    places = grid.places
    for batch in (1, 3):
        found = {}
        seen.clear()
        run_tiles(query, grid, places, forward, store_in(found), batch=batch)
        plain = sum(bool(piece.min() == piece.max()) for piece in seen)
        assert plain == 1 < len(seen) < len(places)
        each = {}
        for at in places:  # each by itself, so that nothing is known from before
            run_tiles(query, grid, [at], forward, store_in(each))
        assert all(np.array_equal(found[at], each[at]) for at in places)
    flat = {}
    run_tiles(query, grid, places, forward, store_in(found), flat=flat)
    seen.clear()
    run_tiles(query, grid, places[-1:], forward, store_in(found), flat=flat)
    assert len(flat) == 1 and not seen


def test_tiles_run_side_by_side_and_are_taken_in_their_order():
    image = np.random.default_rng(3).random((150, 130), np.float32)
    query = ScaledQuery(image[..., None], np.array([[0.0, 1.0]]), 1.0)
    grid, together, taken = grid_of(image.shape), threading.Barrier(3), []

    def forward(pieces):
        together.wait(20)  # goes on only with three tiles in work
        return pieces[:, :1]

    places = grid.places[:6]
    run_tiles(query, grid, places, forward, lambda at, _: taken.append(at), at_once=3)
    assert taken == places


def test_a_tile_that_fails_beside_others_ends_the_loop():
    image = np.random.default_rng(4).random((150, 130), np.float32)
    query = ScaledQuery(image[..., None], np.array([[0.0, 1.0]]), 1.0)
    grid, taken, begun = grid_of(image.shape), [], []

    def forward(pieces):
        begun.append(1)
        if len(begun) == 2:
            raise MemoryError("full")
        return pieces[:, :1]

    with pytest.raises(MemoryError, match="full"):
        run_tiles(
            query, grid, grid.places, forward, lambda at, _: taken.append(at), at_once=2
        )
    assert len(taken) < 4 and len(begun) < len(grid.places)


def test_a_window_touches_the_tiles_that_hold_its_pixels():
    grid = grid_of((150, 130))
    assert grid.touching(np.s_[0:150, 0:130]) == grid.places
    rows, columns = zip(*grid.touching(np.s_[70:75, 0:1]), strict=True)
    assert set(columns) == {0}
    for i, span in enumerate(grid.rows):
        assert (i in rows) == (span.first < 75 and span.last > 70)


def test_a_loop_of_no_tiles_ends():
    grid, told = grid_of((40, 40)), []
    query = ScaledQuery(np.zeros((40, 40, 1)), np.array([[0.0, 1.0]]), 1.0)
    run_tiles(
        query, grid, [], print, print, on_progress=lambda *what: told.append(what[:2])
    )
    assert told == [(0, 0)]


def test_a_failing_read_ends_the_loop():
    class Damaged:
        shape = (150, 130, 1)

        def __getitem__(self, region):
            raise OSError("the file is damaged")

    query = ScaledQuery(Damaged(), np.array([[0.0, 1.0]]), 1.0)
    grid, found = grid_of((150, 130)), {}
    with pytest.raises(OSError, match="the file is damaged"):
        run_tiles(query, grid, grid.places, torch.sigmoid, store_in(found))
    assert not found
