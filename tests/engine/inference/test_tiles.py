"""Tiles on a fixed grid, and tasks on workers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_svpseg.core.progress import Cancelled
from napari_svpseg.engine.inference.tiles import (
    TileGrid,
    predict_tiles,
    run_tasks,
    workers_of,
)
from napari_svpseg.engine.inference.tiling import ScaledQuery, spans
from napari_svpseg.engine.jobs.job import JobError


def grid_of(shape, scale=1.0, tile=64, overlap=32):
    return TileGrid(*(spans(n, scale, tile, overlap, 4, 16) for n in shape))


def predicted(image, grid, places=None, batch=1, scale=1.0):
    """Return the tiles of an image as a network would that only smooths it."""
    found = {}
    query = ScaledQuery(image[..., None], np.array([[0.0, 1.0]]), scale)
    pool = torch.nn.AvgPool2d(3, 1, 1)
    predict_tiles(
        query,
        grid,
        grid.touching(np.s_[0 : image.shape[0], 0 : image.shape[1]])
        if places is None
        else places,
        lambda pieces: pool(pieces[:, :1]).sigmoid(),
        found.__setitem__,
        batch,
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
    whole = grid.blend(tiles.__getitem__, np.s_[0:high, 0:wide])
    assert whole.shape == (1, high, wide) and 0 < whole.min() < whole.max() < 1
    for y in range(0, high, side):
        for x in range(0, wide, side):
            window = np.s_[y : min(high, y + side), x : min(wide, x + side)]
            part = grid.blend(tiles.__getitem__, window)
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
    assert all(np.array_equal(one[at], part[at]) for at in part)


def test_tasks_run_here_in_order_and_stop_when_told():
    done, told = [], []
    run_tasks(done.append, [(1,), (2,)], None, lambda *what: told.append(what), "Work")
    assert done == [1, 2]
    assert told == [(0, 2, "Work"), (1, 2, "Work"), (2, 2, "Work")]

    def stop(n, total, message):
        if n == 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        run_tasks(done.append, [(3,), (4,)], None, stop)
    assert done == [1, 2, 3]


def test_a_scheduler_that_is_not_there_is_told_of(monkeypatch):
    monkeypatch.setattr("napari_svpseg.engine.inference.tiles.CONNECT_S", 0.3)
    with (
        pytest.raises(JobError, match="No Dask scheduler answers at tcp://127"),
        workers_of("tcp://127.0.0.1:9"),
    ):
        pass


def test_a_given_client_stays_open_and_gets_every_task(tmp_path):
    from distributed import Client, LocalCluster

    def mark(i):
        (tmp_path / str(i)).touch()

    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=False,
            dashboard_address=None,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        with workers_of(client) as same:
            run_tasks(mark, [(i,) for i in range(40)], same)
        assert same is client and client.status == "running"
        assert {int(p.name) for p in tmp_path.iterdir()} == set(range(40))

        def fail(i):
            raise ValueError("the tile is damaged")

        with pytest.raises(ValueError, match="the tile is damaged"):
            run_tasks(fail, [(1,)], client)


def test_tiles_of_one_value_are_computed_once_and_come_out_the_same():
    image = np.full((150, 130), 0.25, np.float32)
    image[:70, :60] = np.random.default_rng(2).random((70, 60))
    grid = grid_of(image.shape)
    query = ScaledQuery(image[..., None], np.array([[0.0, 1.0]]), 1.0)
    pool, seen = torch.nn.AvgPool2d(3, 1, 1), []

    def forward(pieces):
        seen.extend(pieces)
        return pool(pieces[:, :1]).sigmoid()

    places = grid.touching(np.s_[0:150, 0:130])
    for batch in (1, 3):
        found = {}
        seen.clear()
        predict_tiles(query, grid, places, forward, found.__setitem__, batch)
        plain = sum(bool(piece.min() == piece.max()) for piece in seen)
        assert plain == 1 < len(seen) < len(places)
        each = {}
        for at in places:  # each by itself, so that nothing is known from before
            predict_tiles(query, grid, [at], forward, each.__setitem__)
        assert all(np.array_equal(found[at], each[at]) for at in places)
    flat = {}
    predict_tiles(query, grid, places, forward, found.__setitem__, 1, flat)
    seen.clear()
    predict_tiles(query, grid, places[-1:], forward, found.__setitem__, 1, flat)
    assert len(flat) == 1 and not seen
