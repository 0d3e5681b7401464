"""Base of the controllers, which decide for a dock and know no window."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from ..messages import sentence

if TYPE_CHECKING:
    from ..services.engine_process import Engine, EngineJob


logger = logging.getLogger(__name__)


class DockView(Protocol):
    """The setters of a dock that every controller uses."""

    def say(self, text: str, error: bool = False) -> None:
        """Show a message."""

    def show_busy(self, busy: bool) -> None:
        """Show or hide the row of the progress."""

    def show_progress(self, done: int, total: int, text: str = "") -> None:
        """Show how far the job is."""

    def show_stopping(self) -> None:
        """Show that the job was asked to stop."""

    def show_state(self) -> None:
        """Show and enable what can be done now."""


class DockController:
    """Runs one job at a time in the engine and follows it to its end.

    A subclass says what comes of a job in `on_partial`, `on_result`, `on_failed` and
    `on_cancelled`; exactly one of the last three is called, then `on_finished`.

    Parameters
    ----------
    view : DockView
    engine : Engine
    """

    def __init__(self, view: DockView, engine: Engine) -> None:
        self.view = view
        self.engine = engine
        self.job: EngineJob | None = None
        self._is_attached = True

    def detach(self, *_: object) -> None:
        """Call nobody any more, because the view is gone."""
        self._is_attached = False

    def receive(self, handler: Callable[..., None]) -> Callable[..., None]:
        """Return a handler for a job's signal that is called only while attached.

        Its errors go to `on_error`.
        """

        def receiver(*args: Any) -> None:
            if not self._is_attached:
                return
            try:
                handler(*args)
            except Exception as error:  # any error of napari or another plugin
                logger.exception("%s failed", handler)
                self.on_error(error)

        return receiver

    @property
    def is_busy(self) -> bool:
        """Whether a job is running."""
        return self.job is not None

    def follow(self, job: EngineJob) -> None:
        """Make this the running job and show its progress."""
        self.job = job
        job.progressed.connect(self.receive(self.on_progress))
        job.partial.connect(self.receive(self.on_partial))
        job.returned.connect(self.receive(self.on_result))
        job.failed.connect(self.receive(self.on_failed))
        job.cancelled.connect(self.receive(self.on_cancelled))
        job.finished.connect(self.receive(self._end))
        self.view.show_busy(True)
        self.view.show_state()

    def cancel(self) -> None:
        """Stop the running job, if any."""
        if self.job is not None:
            self.view.show_stopping()
            self.job.cancel()

    def _end(self) -> None:
        self.job = None
        self.on_finished()
        if self.job is None:  # no further one was begun
            self.view.show_busy(False)
        self.view.show_state()

    # ------------------------------------------------------------ of a running job

    def on_progress(self, done: int, total: int, text: str) -> None:
        """Show how far it is."""
        self.view.show_progress(done, total, text)

    def on_partial(self, value: Any) -> None:
        """Take a part of the result while the rest is computed."""

    def on_result(self, value: Any) -> None:
        """Take the result."""

    def on_failed(self, text: str) -> None:
        """Show why it failed."""
        self.view.say(text, True)

    def on_cancelled(self) -> None:
        """Show that it was stopped."""

    def on_error(self, error: Exception) -> None:
        """Show an error of a handler, such as one of drawing a result."""
        self.view.say(sentence(error), True)

    def on_finished(self) -> None:
        """Go on after the job has ended, however it ended."""


class Files(Protocol):
    """A thread that reads and writes files."""

    def call(
        self,
        work: Callable[[], Any],
        then: Callable[[Any], None],
        failed: Callable[[Any], None] | None = None,
    ) -> None:
        """Call ``work`` in the thread, then hand on its result, or its error."""
