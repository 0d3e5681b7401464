"""Loads the chosen model before the first run asks for it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ...core.settings import split_settings
from ...workflows.warm_up import warm_up
from ..callbacks import reports_errors
from ..messages import READY, device_line

if TYPE_CHECKING:
    from ..services.engine_process import EngineJob
    from .segment_controller import SegmentController

logger = logging.getLogger(__name__)


@reports_errors("ask")
class WarmUp:
    """Has the engine load the chosen model and run it once on noise.

    One model is loaded at a time; a run that is started meanwhile has its turn next.
    What fails here is left to the run to tell.

    Parameters
    ----------
    runs : SegmentController
        Whose model and device are chosen in the dock.
    """

    def __init__(self, runs: SegmentController) -> None:
        self.runs, self.view = runs, runs.view
        self.job: EngineJob | None = None
        self.is_on = False  # the dock says whether the user wants it
        self._asked: tuple[str, str] | None = None

    def ask(self) -> None:
        """Load the model that is chosen now, unless it was loaded before."""
        choices = self.runs.view.run_choices()
        if not self.is_on or choices.model is None or self.job is not None:
            return
        settings, _ = split_settings(choices.settings)
        model = choices.model.path or choices.model.name
        if self._asked == (model, settings.device):
            return
        self._asked = (model, settings.device)
        job = self.job = self.runs.engine.submit(warm_up, model, settings)
        job.returned.connect(self.runs.receive(self._on_ready))
        job.failed.connect(self.runs.receive(self._on_failed))
        job.cancelled.connect(self.runs.receive(self.forget))
        job.finished.connect(self.runs.receive(self._on_finished))

    def forget(self) -> None:
        """Load the model again when asked, because the engine has ended."""
        self._asked = None

    def _on_ready(self, about: dict[str, Any]) -> None:
        self.view.show_device(READY.format(device_line(about)))

    def _on_failed(self, text: str) -> None:
        logger.info("the model could not be loaded beforehand: %s", text)

    def _on_finished(self) -> None:
        self.job = None
        if self._asked is not None:
            self.ask()  # another model may have been chosen meanwhile
