"""Who can connect to the workers of a run on this machine: the run alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from napari_svpseg.engine.jobs import processors
from napari_svpseg.engine.jobs.workers import run_tasks, workers_of

distributed = pytest.importorskip("distributed")

INTRUDER = """
import asyncio, http.client, json, logging, os, ssl, sys
from distributed import Client, Security

logging.disable()
security = Security.temporary()
PATIENCE_S = 20


async def dask(scheme, port, **options):
    address = f"{scheme}://127.0.0.1:{port}"
    client = Client(address, asynchronous=True, set_as_default=False, **options)
    try:
        await client
        await client.scheduler.identity()
    finally:
        await client.close(timeout=0)


async def tcp(port):
    await dask("tcp", port)


async def tls(port):
    await dask("tls", port, security=security)


async def trusting_tls(port):  # an intruder's program need not check the server
    theirs = await asyncio.to_thread(
        ssl.get_server_certificate, ("127.0.0.1", port), timeout=PATIENCE_S
    )
    await dask("tls", port, security=Security(
        require_encryption=True,
        tls_ca_file=theirs,
        tls_client_cert=security.tls_client_cert,
        tls_client_key=security.tls_client_key,
    ))


def read(web):
    web.request("GET", "/")
    web.getresponse()


async def plain_http(port):
    web = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    await asyncio.to_thread(read, web)


async def https(port):
    context = ssl._create_unverified_context()
    web = http.client.HTTPSConnection(
        "127.0.0.1", port, timeout=PATIENCE_S, context=context
    )
    await asyncio.to_thread(read, web)


async def attempt(way, port, seconds=PATIENCE_S):
    try:
        await asyncio.wait_for(way(port), seconds)
    except (Exception, asyncio.CancelledError):
        return
    print(way.__name__, port, flush=True)


async def main():
    ways = [tcp, tls, trusting_tls, plain_http, https]
    # nobody listens there: imports what they need
    await asyncio.gather(*(attempt(way, 9, 0.3) for way in ways))
    if hasattr(os, "setuid") and os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    guarded, open_tcp, open_http = json.loads(sys.argv[1])
    tried = [(way, port) for way in ways for port in guarded]
    tried += [(tcp, port) for port in open_tcp]
    tried += [(plain_http, port) for port in open_http]
    await asyncio.gather(*(attempt(*one) for one in tried))
    os._exit(0)


asyncio.run(main())
"""
"""Tries all ways to connect to ports, as another user where it may become one."""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """Return the client of a run whose user allows two threads; check what it leaves.

    In the working folder lies a file that others put there.
    """
    folder = tmp_path_factory.mktemp("run")
    code = f"open({str(folder / 'was-run')!r}, 'w')"
    (folder / "multiprocessing.py").write_text(code)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("OMP_NUM_THREADS", "2")
        patch.setattr(processors, "physical_cores", lambda: 4)
        before = environment()
        with workers_of(workers=2, folder=str(folder / "scratch")) as client:
            client.wait_for_workers(2)
            yield client
        assert environment() == before


def environment() -> dict[str, str]:
    """Return what Dask sets for its workers, and would slow this process down."""
    names = ("MALLOC", "MKL", "OMP", "OPENBLAS", "PYTHON")
    return {k: v for k, v in os.environ.items() if k.startswith(names)}


def our_processes() -> list[psutil.Process]:
    own = psutil.Process()
    return [own, *own.children(recursive=True)]


def listening() -> set[int]:
    """Return the ports at which this process and those it started are listening."""
    return {
        connection.laddr.port
        for process in our_processes()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


def ways_in(*ports: set[int]) -> set[tuple[str, int]]:
    """Return which way leads an intruder into which port.

    All ways are tried on the first ports, ``tcp`` on the second, HTTP on the third.
    """
    done = subprocess.run(
        [sys.executable, "-c", INTRUDER, json.dumps([sorted(p) for p in ports])],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found = (line.split() for line in done.stdout.splitlines())
    return {(way, int(port)) for way, port in found}


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def test_nobody_else_connects_to_the_workers_of_a_run(client) -> None:
    ours = listening()
    addresses = [client.scheduler.address, *client.nthreads()]
    assert {port_of(a) for a in addresses} <= ours
    assert all(a.startswith("tls://127.0.0.1:") for a in addresses)
    with distributed.LocalCluster(
        n_workers=0, processes=False, protocol="tcp", dashboard_address=":0"
    ) as unguarded:
        dask = port_of(unguarded.scheduler_address)
        http = listening() - ours - {dask}
        found = ways_in(ours, {dask}, http)
    assert not {port for _, port in found} & ours
    # the same intruder enters where nothing keeps it out
    assert found == {("tcp", dask), *(("plain_http", port) for port in http)}
    assert http
    children = {p.pid for p in our_processes()[1:]}
    assert set(client.run(os.getpid).values()) <= children


def test_the_key_is_in_no_command_line_and_no_file(client) -> None:
    assert "PRIVATE KEY" in client.security.tls_client_key
    for process in our_processes():
        assert "PRIVATE KEY" not in " ".join(process.cmdline())
        assert "PRIVATE KEY" not in str(process.environ())
    files = [p for p in Path.cwd().rglob("*") if p.is_file()]
    assert files and not any(b"PRIVATE KEY" in p.read_bytes() for p in files)


def test_a_file_of_the_working_folder_is_not_run(client) -> None:
    assert Path("multiprocessing.py").exists() and not Path("was-run").exists()


def test_torch_in_a_worker_uses_the_threads_that_the_user_set(client, tmp_path) -> None:
    def write(path):
        import os

        import torch

        path.write_text(f"{torch.get_num_threads()} {os.environ['OMP_WAIT_POLICY']}")

    run_tasks(write, [(tmp_path / "a",)], client)
    assert (tmp_path / "a").read_text().split() == ["2", "PASSIVE"]
