"""Tasks done in this process, or by Dask workers that are started here.

Which task runs where and in which order has no influence on the result. Nothing large
goes through a scheduler. Nothing here imports torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from ...core.progress import Progress, ignore_progress
from .allocator import keep_freed_memory
from .job import JobError
from .processors import physical_cores

LOOPBACK = "127.0.0.1"

CONNECT_S = 10.0
"""How long a scheduler may take to answer."""

LOOK_EVERY_S = 0.2
"""How often a run looks whether it is to stop."""

SUBMITTED_PER_WORKER = 4
"""Tasks that wait at a worker; more would only fill the scheduler."""

WORKER_BYTES = 1_500_000_000
"""Memory a worker of this machine may need."""

UNWATCHED = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1 s",
}
"""Dask's own statistics, at some percent of each core; nobody here looks at them."""


class NoDaskError(JobError):
    """Dask is needed, and not installed."""


class NoSchedulerError(JobError):
    """No Dask scheduler answers at an address."""


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
        raise NoDaskError(
            "Dask is not installed: pip install 'napari-svpseg[cluster]'"
        ) from error
    return distributed


def open_client(scheduler: Any) -> Any:
    """Return a new `distributed.Client`.

    Parameters
    ----------
    scheduler : str or cluster
        ``tcp://host:port``, or a cluster such as those of dask-jobqueue.

    Raises
    ------
    NoDaskError, NoSchedulerError
        If Dask is not installed, or the scheduler does not answer.
    """
    client = import_distributed().Client
    try:
        return client(scheduler, timeout=f"{CONNECT_S} s", set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise NoSchedulerError(
            f"No Dask scheduler answers at {scheduler}: {error}"
        ) from error


@contextmanager
def workers_of(
    scheduler: Any = None, workers: int | None = None, folder: str | None = None
) -> Iterator[Any]:
    """Give a `distributed.Client`, or None where this process does everything.

    Parameters
    ----------
    scheduler : str, Client or cluster, optional
        ``tcp://host:port``; a `distributed.Client`, which is left open; or a cluster,
        such as those of dask-jobqueue. By default a cluster on this machine that only
        this machine can reach.
    workers : int, optional
        Processes of a cluster on this machine; 0 for none, by default one for each
        core, as far as the memory goes.
    folder : str, optional
        Where a cluster on this machine keeps its temporary files.

    Raises
    ------
    NoDaskError, NoSchedulerError
        If Dask is not installed, or no scheduler answers.
    """
    if scheduler is None and workers == 0:
        yield None
        return
    if isinstance(scheduler, import_distributed().Client):
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
    import dask

    with dask.config.set(UNWATCHED), warnings.catch_warnings():
        # another port will do as well
        warnings.filterwarnings("ignore", "Port .* already in use")
        cluster = import_distributed().LocalCluster(
            n_workers=workers or _default_workers(),
            threads_per_worker=1,
            processes=True,
            host=LOOPBACK,
            dashboard_address=None,
            local_directory=folder,
            silence_logs=50,
        )
    try:
        yield cluster
    finally:
        cluster.close()


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
