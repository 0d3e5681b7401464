"""Segment several images side by side, each handed over in its turn.

Importing this module loads neither torch nor Qt.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any

from ..core.errors import one_line
from ..core.progress import Progress, ignore_progress
from ..core.result import Result
from ..core.settings import SegmentSettings
from ..core.side_by_side import stoppable_pool
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
        Since the image before it was handed over, or since the start. The result has
        the seconds of the image alone, which overlap with those of others.
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

    Parameters
    ----------
    calls : sequence of (tuple, dict)
        Arguments of `segment` for each image, which all run on the device of the first
        one's settings.
    on_progress : callable, optional
        ``(done, total, message)`` with the number of images done; may raise
        `Cancelled`.
    on_partial : callable
        Gets what became of each image, in the order of the calls. Called in the thread
        of the caller.
    """
    from ..engine.inference.device import working_threads

    report = on_progress or ignore_progress
    device = SegmentSettings.of(calls[0][1].get("settings")).device
    last = time.perf_counter()
    with (
        working_threads(len(calls), device) as n,
        stoppable_pool(n, "svpseg-several") as (pool, check),
    ):
        report(0, len(calls), "")
        begun = [
            pool.submit(segment, *args, **kwargs, on_progress=check)
            for args, kwargs in calls
        ]
        for i, future in enumerate(begun):
            while not wait([future], CHECK_EVERY_S).done:
                report(i, len(calls), "")
            now = time.perf_counter()
            on_partial(_outcome(i, future, now - last))
            last = now
            report(i + 1, len(calls), "")


def _outcome(index: int, future: Future[Result], seconds: float) -> Segmented:
    error = future.exception()
    if error is None:
        return Segmented(index, future.result(), seconds=seconds)
    logger.error("image %d of several failed", index, exc_info=error)
    return Segmented(index, None, one_line(error, hint=""), seconds)
