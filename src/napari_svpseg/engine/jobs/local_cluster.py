"""A Dask cluster of this machine that only the process which started it can use.

Every user of a machine reaches its loopback interface, and whoever reaches a Dask
scheduler or worker runs code as its user. So all connections are encrypted, with a key
made for the run that both sides must have, and no port of HTTP is opened. The key is
kept in memory and reaches the workers through the pipe that starts them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask
from distributed import Nanny, Scheduler, Security, SpecCluster, Worker
from distributed.system import MEMORY_LIMIT

from .processors import worker_environment

LOOPBACK = "127.0.0.1"

QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1 s",
}
"""Dask's own statistics, at some percent of each core; nobody here looks at them."""

SAFE_PATH = "PYTHONSAFEPATH"
"""With it a file multiprocessing.py in the working folder, which others may have put
there, is not run by the processes that are started."""


class _NoHttp:
    """A server of Dask without its pages, which anybody could read."""

    def start_http_server(self, *_args: Any, **_options: Any) -> None:
        """Open no port: Dask starts this server even without a dashboard."""


class PrivateScheduler(_NoHttp, Scheduler):
    """A scheduler without HTTP."""


class PrivateWorker(_NoHttp, Worker):
    """A worker without HTTP."""


@contextmanager
def private_cluster(workers: int, folder: str | None = None) -> Iterator[SpecCluster]:
    """Give a cluster of processes on this machine that nobody else can connect to.

    Dask's own `LocalCluster` always opens ports of HTTP.

    Parameters
    ----------
    workers : int
        Number of processes, each of which does one task at a time.
    folder : str, optional
        Where they keep their temporary files.

    Raises
    ------
    ImportError
        If ``cryptography``, which makes the key, is not installed.
    """
    security = Security.temporary()
    server = {
        "host": LOOPBACK,
        "protocol": "tls://",
        "security": security,
        "dashboard": False,
    }
    worker = {
        "cls": Nanny,
        "options": server
        | {
            "worker_class": PrivateWorker,
            "nthreads": 1,
            "local_directory": folder,
            "memory_limit": MEMORY_LIMIT // workers,
            "env": worker_environment(workers),
            "silence_logs": 50,
        },
    }
    with dask.config.set(QUIET), _environment_of_workers():
        cluster = SpecCluster(
            scheduler={"cls": PrivateScheduler, "options": server | {"port": 0}},
            workers=dict.fromkeys(range(workers), worker),
            security=security,
            silence_logs=50,
        )
        try:
            yield cluster
        finally:
            cluster.close()


@contextmanager
def _environment_of_workers() -> Iterator[None]:
    """Set what new workers read, and at the end undo that and what Dask sets."""
    of_dask = dask.config.get("distributed.nanny.pre-spawn-environ")
    before = {
        name: os.environ.get(name) for name in {*of_dask, "PYTHONHASHSEED", SAFE_PATH}
    }
    os.environ.setdefault(SAFE_PATH, "1")
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
