"""Tasks done here or on workers."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

import pytest

from napari_svpseg.core.progress import Cancelled
from napari_svpseg.engine.jobs import workers
from napari_svpseg.engine.jobs.workers import (
    NOT_ENCRYPTED,
    NoDaskError,
    NoSchedulerError,
    TlsAddress,
    TlsFilesError,
    open_client,
    run_tasks,
    warn_unless_encrypted,
    workers_of,
)


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


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """Return the address of an encrypted scheduler, and files that open it."""
    distributed = pytest.importorskip("distributed")
    folder = tmp_path_factory.mktemp("keys")
    security = distributed.Security.temporary()
    with distributed.LocalCluster(
        n_workers=0, processes=False, security=security, dashboard_address=None
    ) as cluster:
        yield written(security, folder, cluster.scheduler_address)


def written(security, folder: Path, address: str) -> TlsAddress:
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_text(security.tls_client_cert)
    key.write_text(security.tls_client_key)
    return TlsAddress(address, str(cert), str(cert), str(key))


def told_by_us(caplog) -> list[str]:
    ours = (r for r in caplog.records if r.name == workers.__name__)
    return [record.getMessage() for record in ours]


def test_an_encrypted_scheduler_is_opened_with_the_files_of_its_owner(
    tls, tmp_path, caplog
):
    from distributed import Security

    with workers_of(tls) as client:
        assert client.scheduler.address == tls.address
    assert told_by_us(caplog) == []
    with pytest.raises(TlsFilesError):
        open_client(tls.address)
    with pytest.raises(NoSchedulerError):
        open_client(written(Security.temporary(), tmp_path, tls.address))


def test_files_without_certificates_are_named(tls, tmp_path):
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("no certificate")
    for ca, cert, key in (
        (nothing, tls.cert, tls.key),
        (tls.ca, nothing, tls.key),
        (tls.ca, tls.cert, nothing),
        (tls.ca, tls.cert, None),
    ):
        address = TlsAddress(tls.address, str(ca), str(cert), key and str(key))
        with pytest.raises(TlsFilesError) as caught:
            open_client(address)
        assert all(name in str(caught.value) for name in (address.ca, address.cert))


def test_dasks_own_configuration_opens_an_encrypted_scheduler(tls):
    import dask

    names = {"ca-file": tls.ca, "client.cert": tls.cert, "client.key": tls.key}
    with (
        dask.config.set({f"distributed.comm.tls.{k}": v for k, v in names.items()}),
        workers_of(tls.address) as client,
    ):
        assert client.scheduler.address == tls.address


@pytest.mark.parametrize(
    ("address", "told"),
    [("tcp://h:1", 1), ("ws://h:1", 1), ("tls://h:1", 0), ("inproc://h:1", 0)],
)
def test_a_connection_that_is_not_encrypted_is_told(address, told, caplog):
    class Client:
        scheduler = type("", (), {"address": address})

    with caplog.at_level(logging.WARNING):
        warn_unless_encrypted(Client)
    assert told_by_us(caplog) == [NOT_ENCRYPTED.format(address=address)] * told


def test_workers_here_are_not_started_without_a_key(monkeypatch):
    def found(name):
        return None if name == "cryptography" else find_spec(name)

    monkeypatch.setattr(workers, "find_spec", found)
    with pytest.raises(NoDaskError, match="cryptography"), workers_of(workers=1):
        pass
