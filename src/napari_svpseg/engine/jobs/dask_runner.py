"""Jobs on a Dask cluster that somebody else set up; needs the ``cluster`` extra."""

from __future__ import annotations

import logging
import pickle
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .job import Event, Job, OnEvent, failure, name_of, run_target
from .processors import use_threads_asked_for
from .workers import import_distributed, open_client, warn_unless_encrypted

logger = logging.getLogger(__name__)

POLL_S = 0.2
"""How often a running job looks whether it is to stop."""

SCATTER_BYTES = 1_000_000
"""Larger arguments go to a worker directly, not through the scheduler's task graph."""

GIVE_UP_AFTER_S = 0.8
"""A job that has not stopped by then is left to itself; its result is dropped."""


class DaskRunner:
    """Runs jobs on the workers of a Dask scheduler, as many at once as there are.

    Parameters
    ----------
    address : str, TlsAddress or Client
        See `workers.open_client`; a `distributed.Client` is left open.
    """

    def __init__(self, address: Any) -> None:
        self._owned = not isinstance(address, import_distributed().Client)
        self._client = open_client(address) if self._owned else address
        if not self._owned:
            warn_unless_encrypted(address)
        self._jobs: set[Job] = set()

    def submit(
        self,
        function: Callable[..., Any],
        *args: Any,
        on_event: OnEvent | None = None,
        **kwargs: Any,
    ) -> Job:
        """Start a call on a worker.

        The function and what it imports must be installed there.
        """
        from dask.sizeof import sizeof
        from distributed import Event as Flag
        from distributed import Queue

        name = f"svpseg-{uuid.uuid4().hex}"
        flag = Flag(f"{name}-stop", client=self._client)
        events = Queue(f"{name}-events", client=self._client)
        target = name_of(function)
        job = Job(target, on_event, lambda job: self._stop(job, flag))
        self._jobs.add(job)
        call: Any = (target, args, kwargs)
        if sizeof(args) + sizeof(kwargs) > SCATTER_BYTES:
            [call] = self._client.scatter([call], hash=False)
        future = self._client.submit(run_on_worker, name, call, key=name, pure=False)
        threading.Thread(
            target=self._follow,
            args=[job, future, events],
            daemon=True,
            name="svpseg-dask-reader",
        ).start()
        return job

    def close(self) -> None:
        """Stop all jobs and leave the cluster as it was."""
        jobs = list(self._jobs)
        for job in jobs:
            job.cancel()
        for job in jobs:
            job.wait(2 * GIVE_UP_AFTER_S)
        if self._owned:
            self._client.close()

    def _stop(self, job: Job, flag: Any) -> None:
        def give_up() -> None:
            job.post(Event("cancelled"))

        threading.Thread(target=flag.set, daemon=True).start()
        timer = threading.Timer(GIVE_UP_AFTER_S, give_up)
        timer.daemon = True
        timer.start()

    def _follow(self, job: Job, future: Any, events: Any) -> None:
        """Pass on a job's events until its future is done, then its end."""
        ended = threading.Event()
        try:
            future.add_done_callback(lambda _: ended.set())
            while not ended.wait(POLL_S) and not job.done:
                _post_waiting(job, events)
            if not job.done:
                end = pickle.loads(future.result())
                _post_waiting(job, events)
                job.post(end)
        except Exception as error:  # noqa: BLE001  (sent to whoever submitted the job)
            job.post(failure(error))
        finally:
            self._jobs.discard(job)
            with suppress(Exception):  # the cluster may be gone
                future.release()
                events.close()


def _post_waiting(job: Job, events: Any) -> None:
    """Pass on the events that are there (to wait for one fills the cluster's log)."""
    n = events.qsize()
    for packed in events.get(batch=n) if n else []:
        job.post(pickle.loads(packed))


def run_on_worker(
    name: str, call: tuple[str, tuple[Any, ...], dict[str, Any]]
) -> bytes:
    """Run a job in a Dask worker and return its end, pickled."""
    from distributed import Event as Flag
    from distributed import Queue, get_client

    client = get_client()
    flag = Flag(f"{name}-stop", client=client)
    events = Queue(f"{name}-events", client=client)
    ends: list[Event] = []
    looked_at = 0.0

    def send(event: Event) -> None:
        if event.is_end:
            ends.append(event)
        else:
            events.put(pickle.dumps(event, protocol=5))

    def is_cancelled() -> bool:
        nonlocal looked_at
        if time.monotonic() - looked_at < POLL_S:
            return False
        looked_at = time.monotonic()
        return bool(flag.is_set())

    use_threads_asked_for()
    run_target(*call, send, is_cancelled)
    return pickle.dumps(ends[0], protocol=5)
