"""Tasks done in this process, or by Dask workers that are started here.

Which task runs where and in which order has no influence on the result. Nothing large
goes through a scheduler. Nothing here imports torch on loading.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from typing import Any

from ...core.progress import Progress, ignore_progress
from .allocator import keep_freed_memory
from .job import JobError
from .processors import physical_cores, use_threads_asked_for

logger = logging.getLogger(__name__)

CONNECT_S = 10.0
"""How long a scheduler may take to answer."""

LOOK_EVERY_S = 0.2
"""How often a run looks whether it is to stop."""

SUBMITTED_PER_WORKER = 4
"""Tasks that wait at a worker; more would only fill the scheduler."""

WORKER_BYTES = 1_500_000_000
"""Memory a worker of this machine may need."""

ENCRYPTED = ("tls", "wss")
"""Schemes of addresses whose connections are encrypted."""

INSTALL = "{package} is not installed: pip install 'napari-svpseg[cluster]'"
NO_ANSWER = "No Dask scheduler answers at {address}: {reason}"
NO_TLS_FILES = (
    "{address} is encrypted: name the certificates by --tls-ca, --tls-cert and "
    "--tls-key, or in Dask's configuration (distributed.comm.tls)"
)
BAD_TLS_FILES = "{files}: no certificates or keys that fit together: {reason}"
NOT_ENCRYPTED = (
    "The connection to {address} is not encrypted: whoever reaches this address can "
    "run programs as its user (https://distributed.dask.org/en/stable/tls.html)"
)


class NoDaskError(JobError):
    """Dask is needed, and not installed."""


class NoSchedulerError(JobError):
    """No Dask scheduler answers at an address."""


class TlsFilesError(JobError):
    """The certificates of an encrypted connection are missing or cannot be used."""


@dataclass(frozen=True)
class TlsAddress:
    """The address of a Dask scheduler, and the files of the encrypted connection to it.

    Parameters
    ----------
    address : str
        Such as ``tls://host:8786``.
    ca, cert : str
        Files of the certificate authority and of this side's certificate (PEM).
    key : str, optional
        File of its key, where that is not in the file of the certificate.
    """

    address: str
    ca: str
    cert: str
    key: str | None = None

    def __str__(self) -> str:
        """Return the address."""
        return self.address

    def security(self) -> Any:
        """Return what Dask connects with.

        Raises
        ------
        TlsFilesError
            If the files cannot be used.
        """
        security = import_distributed().Security(
            require_encryption=True,
            tls_ca_file=self.ca,
            tls_client_cert=self.cert,
            tls_client_key=self.key,
        )
        try:
            security.get_connection_args("client")
        except (OSError, ValueError) as error:
            files = ", ".join(filter(None, (self.ca, self.cert, self.key)))
            raise TlsFilesError(
                BAD_TLS_FILES.format(files=files, reason=error)
            ) from error
        return security


def import_distributed() -> Any:
    """Return the package ``distributed``.

    Raises
    ------
    NoDaskError
        If it is not installed.
    """
    try:
        import distributed
    except ImportError as error:
        raise NoDaskError(INSTALL.format(package="Dask")) from error
    return distributed


def open_client(scheduler: Any) -> Any:
    """Return a new `distributed.Client`.

    Where its connection is not encrypted, that is logged.

    Parameters
    ----------
    scheduler : str, TlsAddress or cluster
        ``tcp://host:port`` or ``tls://host:port``, with the certificates that Dask's
        configuration names; or a cluster such as those of dask-jobqueue.

    Raises
    ------
    NoDaskError, NoSchedulerError, TlsFilesError
        If Dask is not installed, the scheduler does not answer, or the certificates
        are missing or cannot be used.
    """
    distributed = import_distributed()
    options: dict[str, Any] = {"timeout": f"{CONNECT_S} s", "set_as_default": False}
    if isinstance(scheduler, TlsAddress):
        options["security"] = scheduler.security()
        scheduler = scheduler.address
    elif _is_encrypted(scheduler):
        configured = distributed.Security().get_tls_config_for_role("client")
        if not (configured["ca_file"] and configured["cert"]):
            raise TlsFilesError(NO_TLS_FILES.format(address=scheduler))
    try:
        opened = distributed.Client(scheduler, **options)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise NoSchedulerError(
            NO_ANSWER.format(address=scheduler, reason=error)
        ) from error
    warn_unless_encrypted(opened)
    return opened


def warn_unless_encrypted(client: Any) -> None:
    """Log a line where others on its network may use a client's connection."""
    address = client.scheduler.address
    if not (_is_encrypted(address) or address.startswith("inproc://")):
        logger.warning(NOT_ENCRYPTED.format(address=address))


def _is_encrypted(scheduler: Any) -> bool:
    return isinstance(scheduler, str) and scheduler.partition("://")[0] in ENCRYPTED


@contextmanager
def workers_of(
    scheduler: Any = None, workers: int | None = None, folder: str | None = None
) -> Iterator[Any]:
    """Give a `distributed.Client`, or None where this process does everything.

    Parameters
    ----------
    scheduler : str, TlsAddress, Client or cluster, optional
        ``tcp://host:port`` or ``tls://host:port``; a `distributed.Client`, which is
        left open; or a cluster, such as those of dask-jobqueue. By default a cluster on
        this machine that nobody else can connect to.
    workers : int, optional
        Processes of a cluster on this machine; 0 for none, by default one for each
        core, as far as the memory goes.
    folder : str, optional
        Where a cluster on this machine keeps its temporary files.

    Raises
    ------
    NoDaskError, NoSchedulerError, TlsFilesError
        If Dask is not installed, no scheduler answers, or certificates cannot be used.
    """
    if scheduler is None and workers == 0:
        yield None
        return
    if isinstance(scheduler, import_distributed().Client):
        warn_unless_encrypted(scheduler)
        yield scheduler
        return
    with _cluster_here(workers, folder, wanted=scheduler is None) as cluster:
        client = open_client(scheduler or cluster)
        try:
            yield client
        finally:
            client.close()


@contextmanager
def _cluster_here(
    workers: int | None, folder: str | None, *, wanted: bool
) -> Iterator[Any]:
    """Give a cluster on this machine if one is wanted, or else None."""
    if not wanted:
        yield None
        return
    from .local_cluster import private_cluster

    if find_spec("cryptography") is None:
        raise NoDaskError(INSTALL.format(package="The package cryptography"))
    with private_cluster(workers or _default_workers(), folder) as cluster:
        yield cluster


def _default_workers() -> int:
    """Return how many workers, each on one core, this machine has room for."""
    import psutil

    room = psutil.virtual_memory().total // WORKER_BYTES
    return int(max(1, min(physical_cores(), room)))


def run_tasks(
    function: Callable[..., Any],
    tasks: Iterable[tuple[Any, ...]],
    client: Any = None,
    on_progress: Progress = ignore_progress,
    message: str = "",
) -> None:
    """Call a function with each task's arguments, on workers where there are some.

    A task whose worker died is given to another. Progress is reported after each task;
    if that raises, tasks that have not begun are taken back.

    Parameters
    ----------
    function : callable
        Can be imported on the workers; safe to be repeated; returns nothing.
    tasks : iterable of tuple
    client : distributed.Client, optional
    on_progress : callable
        ``(done, total, message)``; may raise `Cancelled`.
    message : str
    """
    todo = list(tasks)
    total = len(todo)
    on_progress(0, total, message)
    if client is None:
        for n, arguments in enumerate(todo, start=1):
            function(*arguments)
            on_progress(n, total, message)
        return
    _run_on(client, function, todo, on_progress, message)


def _on_worker(function: Callable[..., Any], *arguments: Any) -> Any:
    keep_freed_memory()
    use_threads_asked_for()
    return function(*arguments)


def _run_on(
    client: Any,
    function: Callable[..., Any],
    todo: list[tuple[Any, ...]],
    on_progress: Progress,
    message: str,
) -> None:
    from distributed import wait

    running: set[Any] = set()
    total, done, rest = len(todo), 0, iter(todo)
    try:
        while True:
            room = SUBMITTED_PER_WORKER * max(1, len(client.nthreads())) - len(running)
            for arguments in islice(rest, max(0, room)):
                running.add(client.submit(_on_worker, function, *arguments, pure=False))
            if not running:
                return
            try:
                with client.as_current():
                    ended = wait(
                        running, timeout=LOOK_EVERY_S, return_when="FIRST_COMPLETED"
                    ).done
            except TimeoutError:
                ended = set()
            for future in ended:
                future.result()  # raises what the task raised
            running -= ended
            done += len(ended)
            on_progress(done, total, message)
    finally:
        if running:
            client.cancel(list(running), force=True)
