"""Tasks done here or on workers."""

from __future__ import annotations

import pytest

from napari_svpseg.core.progress import Cancelled
from napari_svpseg.engine.jobs.workers import NoSchedulerError, run_tasks, workers_of


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
    monkeypatch.setattr("napari_svpseg.engine.jobs.workers.CONNECT_S", 0.3)
    with (
        pytest.raises(NoSchedulerError, match="tcp://127"),
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
