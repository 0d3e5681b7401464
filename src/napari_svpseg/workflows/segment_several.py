"""Segment several images side by side, each handed over when it is done.

Importing this module loads neither torch nor Qt.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from ..core.errors import one_line
from ..core.progress import Cancelled, Progress, ignore_progress
from ..core.result import Result
from ..core.settings import SegmentSettings
from .segment_image import segment

logger = logging.getLogger(__name__)

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of `segment`."""

CHECK_EVERY_S = 0.1
"""Time between two looks at whether the run was cancelled."""


@dataclass(frozen=True, eq=False)
class Segmented:
    """What became of one of several images.

    Parameters
    ----------
    index : int
        Which of the calls.
    result : Result or None
        None where it failed.
    error : str
        Why it failed, in one line.
    seconds : float
        Since the image before it was done, or since the start. The result has the
        seconds of the image alone, which overlap with those of others.
    """

    index: int
    result: Result | None
    error: str = ""
    seconds: float = 0.0


def segment_several(
    calls: Sequence[Call],
    *,
    on_progress: Progress | None = None,
    on_partial: Callable[[Segmented], None],
) -> None:
    """Segment several images; on a CPU each core works on one.

    One image with one core takes less than two thirds of the time that two cores take
    for one after the other.

    Parameters
    ----------
    calls : sequence of (tuple, dict)
        Arguments of `segment` for each image, which all run on the device of the first
        one's settings.
    on_progress : callable, optional
        ``(done, total, message)`` with the number of images done; may raise
        `Cancelled`.
    on_partial : callable
        Gets what became of each image, in the order in which they are done. Called in
        the thread of the caller.
    """
    from ..engine.inference.device import working_threads

    report = on_progress or ignore_progress
    device = SegmentSettings.of(calls[0][1].get("settings")).device
    last = time.perf_counter()
    stopped = threading.Event()

    def check(done: int, total: int, message: str = "") -> None:
        if stopped.is_set():
            raise Cancelled

    def work(call: Call) -> Result:
        args, kwargs = call
        return segment(*args, **kwargs, on_progress=check)

    with working_threads(len(calls), device) as n:
        pool = ThreadPoolExecutor(n, thread_name_prefix="svpseg-several")
        numbers: dict[Future[Result], int] = {}
        try:
            report(0, len(calls), "")
            for i, call in enumerate(calls):
                numbers[pool.submit(work, call)] = i
            running = set(numbers)
            while running:
                ended, running = wait(running, CHECK_EVERY_S, FIRST_COMPLETED)
                for future in ended:
                    now = time.perf_counter()
                    on_partial(_outcome(numbers[future], future, now - last))
                    last = now
                report(len(calls) - len(running), len(calls), "")
        finally:  # images in work end at their next step
            stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)


def _outcome(index: int, future: Future[Result], seconds: float) -> Segmented:
    error = future.exception()
    if error is None:
        return Segmented(index, future.result(), seconds=seconds)
    logger.error("image %d of several failed", index, exc_info=error)
    return Segmented(index, None, one_line(error, hint=""), seconds)
