"""Events of jobs, one in each turn of the event loop, so that clicks come in between.

Results of several images can arrive at once, and napari takes a tenth of a second and
more for each new layer. Qt would hand all of them over before the next click.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from qtpy.QtCore import QTimer

from ..callbacks import reports_errors


@reports_errors()
class Turns:
    """Calls what is added, in this order, one call in a turn of the event loop."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], object]] = deque()
        self._n_held = 0
        self._timer = QTimer()
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._on_turn)

    def add(self, call: Callable[[], object]) -> None:
        """Call this in a later turn, after all that was added before."""
        self._waiting.append(call)
        self._go_on()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Call nothing meanwhile, even if events are handled inside."""
        self._n_held += 1
        try:
            yield
        finally:
            self._n_held -= 1
            self._go_on()

    def _go_on(self) -> None:
        if self._waiting and not self._n_held:
            self._timer.start(0)

    def _on_turn(self) -> None:
        if self._n_held or not self._waiting:
            return
        call = self._waiting.popleft()
        self._go_on()  # before the call, which may open a dialog with its own loop
        call()


@cache
def shared_turns() -> Turns:
    """Return the one order of events of this napari."""
    return Turns()
