"""How long a training has run, and how long it will."""

from __future__ import annotations

import time
from collections.abc import Callable

STEP = "step {done} of {total}"
SO_FAR = "{elapsed} so far"
LEFT = "about {left} left"
ENOUGH = 3
"""Steps after which the time of a step is known."""


class RunClock:
    """Times the steps of one run; a run that is resumed begins at a later step.

    Parameters
    ----------
    now : callable
        Returns seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.begin()

    def begin(self) -> None:
        """Start counting."""
        self._start = self._now()
        self._first: tuple[int, float] | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return self._now() - self._start

    def remaining(self, done: int, total: int) -> float | None:
        """Return the seconds left; None while that is not known."""
        if self._first is None or done < self._first[0]:
            self._first = (done, self._now())
        step, since = self._first
        if done - step < ENOUGH or done > total:
            return None
        return (self._now() - since) / (done - step) * (total - done)

    def bar(self, done: int, total: int) -> str:
        """Return the text on the bar, short enough for a narrow dock."""
        left = self.remaining(done, total)
        step = f"{done} / {total}"
        return step if left is None else f"{step} · {duration(left)} left"

    def line(self, stage: str, done: int, total: int) -> str:
        """Return the stage, the step, and the time gone and left, as a sentence."""
        parts = [STEP.format(done=done, total=total)]
        parts.append(SO_FAR.format(elapsed=duration(self.elapsed)))
        left = self.remaining(done, total)
        if left is not None:
            parts.append(LEFT.format(left=duration(left)))
        return f"{stage}: {', '.join(parts)}."


def duration(seconds: float) -> str:
    """Return a time as people read it.

    Examples
    --------
    >>> duration(7.4), duration(131), duration(4000)
    ('7 s', '2:11 min', '1:06 h')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"
