"""Work that is done in threads and taken in its order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

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
