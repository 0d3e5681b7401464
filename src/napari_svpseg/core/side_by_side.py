"""Work that is done in threads and taken in its order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from .progress import Cancelled, Progress

S = TypeVar("S")
T = TypeVar("T")


def in_order(
    pool: Executor, work: Callable[[S], T], items: Iterable[S], ahead: int
) -> Iterator[T]:
    """Yield what ``work`` makes of each item, in order.

    Parameters
    ----------
    pool : Executor
        Where the work is done. Whoever made it shuts it down, also after an error.
    work : callable
    items : iterable
        Asked for the next item only when it is to be worked on.
    ahead : int
        Items in work or done while the receiver has one.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor(2) as pool:
    ...     list(in_order(pool, abs, [-1, 2, -3], ahead=2))
    [1, 2, 3]
    """
    waiting: deque[Future[T]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@contextmanager
def stoppable_pool(
    n: int, name: str, *, wait: bool = True
) -> Iterator[tuple[Executor, Progress]]:
    """Give threads, and the progress to hand to what they work on.

    When the context ends, also by an error, what has not begun is dropped, and what is
    in work ends at its next step: there the progress raises `Cancelled`.

    Parameters
    ----------
    n : int
        Number of threads.
    name : str
        Begins their names.
    wait : bool
        Whether the context ends only after all work has.
    """
    stopped = threading.Event()

    def check(done: int, total: int, message: str = "") -> None:
        if stopped.is_set():
            raise Cancelled

    pool = ThreadPoolExecutor(n, thread_name_prefix=name)
    try:
        yield pool, check
    finally:
        stopped.set()
        pool.shutdown(wait=wait, cancel_futures=True)
