"""Calls in threads, whose results arrive in the thread of the GUI."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from qtpy.QtCore import QObject, Signal

logger = logging.getLogger(__name__)

Then = Callable[[Any], object]


class Background(QObject):
    """Calls functions in threads, so that the window stays responsive.

    Parameters
    ----------
    report : callable
        Takes an error that nobody else takes: of a call without ``failed``, or of what
        is done with a result.
    n_threads : int
    newest_first : bool
        Make the latest call first: for thumbnails, while the user scrolls.
    limit : int, optional
        Calls that may wait; the oldest ones beyond that are dropped.
    """

    _arrived = Signal(object, object)

    def __init__(
        self,
        report: Then,
        n_threads: int = 1,
        *,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> None:
        super().__init__()
        self._report = report
        self._newest_first = newest_first
        self._waiting: deque[tuple[Callable[[], Any], Then, Then | None]]
        self._waiting = deque(maxlen=limit)
        self._lock = threading.Lock()
        self._closed = False
        self._n_open = 0
        self._pool = ThreadPoolExecutor(n_threads, thread_name_prefix="svpseg-files")
        self._arrived.connect(self._deliver)

    @property
    def is_busy(self) -> bool:
        """Whether a result has not arrived yet."""
        return self._n_open > 0

    def call(
        self, work: Callable[[], Any], then: Then, failed: Then | None = None
    ) -> None:
        """Call ``work`` in a thread, then pass its result, or its error, to the GUI."""
        if self._closed:
            return
        with self._lock:
            is_full = len(self._waiting) == self._waiting.maxlen
            self._n_open += not is_full  # a full queue drops its oldest call
            self._waiting.append((work, then, failed))
        self._pool.submit(self._work_one)

    def close(self, *, finish: bool = False) -> None:
        """Refuse further calls; drop those that wait, or finish them first."""
        self._closed = True
        self._pool.shutdown(wait=finish, cancel_futures=not finish)

    def _work_one(self) -> None:
        with self._lock:
            if not self._waiting:
                return
            take = self._waiting.pop if self._newest_first else self._waiting.popleft
            work, then, failed = take()
        try:
            value, receiver = work(), then
        except Exception as error:
            level = logging.WARNING if self._closed else logging.INFO
            logger.log(level, "a call in the background failed", exc_info=True)
            value, receiver = error, failed or self._report
        try:
            self._arrived.emit(receiver, value)
        except RuntimeError:  # the window is gone, and this object with it
            logger.debug("a result came too late")

    def _deliver(self, receiver: Then, value: Any) -> None:
        with self._lock:
            self._n_open -= 1
        if self._closed:
            return
        try:
            receiver(value)
        except Exception as error:  # noqa: BLE001  (the user is told)
            self._report(error)
