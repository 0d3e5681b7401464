"""Controller of the result options of the dock "Segment from prompts"."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.settings import PostprocessSettings, split_settings
from ...workflows.segment_image import postprocess
from ..callbacks import reports_errors
from ..messages import count

if TYPE_CHECKING:
    from napari.layers import Image

    from ..layers.results.result_layers import Kept
    from ..layers.results.run_layers import ShownResult
    from ..services.engine_process import EngineJob
    from .segment_controller import SegmentController, SegmentView

EDITED_IS_KEPT = (
    "You edited '{name}', so it is left as it is: press Run for a new result with "
    "these options."
)
LOWER_OPTIONS = " Lower the threshold or the smallest object."
RUN_FOR_OPTIONS = "Press Run for a result with these options."
RUN_LARGE_FOR_OPTIONS = "Press Run for a large result with these options."
WITH_OPTIONS = "{objects} with these options."
OF_IMAGE = "'{image}': {objects}"
TRUST = ", trust {:.2f}"
APPLIED = "These options are applied to {results}: {objects}."
LEFT_OUT = " Left as they are (edited, large, or of an earlier session): {names}."
NOTHING_TO_APPLY = "There is no result to apply the options to: press Run."


@dataclass
class Batch:
    """Results that get the same options together, and are shown together."""

    options: dict[str, Any]
    n_left: int
    left_out: list[str]
    found: list[tuple[Kept, np.ndarray]] = field(default_factory=list)


@reports_errors("follow_options", "follow_selection", "apply", "apply_to_all")
class OptionsController:
    """Applies result options to the selected image's result, without the model.

    The options show those of the selected image's result, at the plane that is shown.

    Parameters
    ----------
    view : SegmentView
    runs : SegmentController
        While it runs, options wait.
    """

    def __init__(self, view: SegmentView, runs: SegmentController) -> None:
        self.view, self.runs, self.layers = view, runs, runs.layers
        self.job: EngineJob | None = None
        self._waiting: list[tuple[Kept, PostprocessSettings, Batch | None]] = []
        self._image: Image | None = None
        self._changed: tuple[Image, PostprocessSettings] | None = None

    # ------------------------------------------------------------ following

    def follow_options(self) -> None:
        """Follow the controls, where there is a result that they act on."""
        image = self.runs.images.selected()
        if image is not None and self.layers.shown_result(image) is not None:
            self._changed = (image, self._options())
            self.view.apply_options_soon()

    def follow_selection(self) -> None:
        """Show the options and the count of the image that is selected now."""
        image = self.runs.images.selected()
        if image == self._image or self.runs.is_busy:
            return
        if self._changed is not None:  # of the image selected before
            self.apply()
        self._image = image
        shown = self._show_options()
        if shown is not None and image is not None:
            self.view.say(describe(image.name, shown))

    def follow_plane(self) -> None:
        """Show the options of the plane that is shown now."""
        if not self.runs.is_busy and self._changed is None:
            self._show_options()

    def _show_options(self) -> ShownResult | None:
        """Show the options that the selected image's result was made with."""
        image = self.runs.images.selected()
        shown = None if image is None else self.layers.shown_result(image)
        if shown is not None and shown.options:
            self.view.set_options(shown.options, quiet=True)
        return shown

    def _options(self) -> PostprocessSettings:
        return split_settings(self.view.run_choices().settings)[1]

    # ------------------------------------------------------------ applying

    def apply(self) -> None:
        """Make the objects of the result anew whose image the options changed for."""
        changed, self._changed = self._changed, None
        if changed is not None:
            image, options = changed
            shown = self.layers.shown_result(image)
            problem = NOTHING_TO_APPLY if shown is None else self._problem(shown)
            if shown is None or shown.kept is None or problem:
                self.view.say(problem)
            else:
                self._wait_for(shown.kept, options)
        self._next()

    def apply_to_all(self) -> None:
        """Make the objects of all results with the options that are shown."""
        options, self._changed = self._options(), None
        every = self.layers.every_result()
        fit = [one for one in every if not self._problem(one)]
        if not fit:
            self.view.say(NOTHING_TO_APPLY, True)
            return
        left_out = [one.layer.name for one in every if one not in fit]
        batch = Batch(options.to_dict(), len(fit), left_out)
        for one in fit:
            assert one.kept is not None
            self._wait_for(one.kept, options, batch)
        self._next()

    def _problem(self, shown: ShownResult) -> str:
        """Return why options cannot be applied to a result; empty where they can."""
        if shown.is_stored:
            return RUN_LARGE_FOR_OPTIONS
        if shown.kept is None:
            return RUN_FOR_OPTIONS
        if self.layers.is_edited(shown.kept):
            return EDITED_IS_KEPT.format(name=shown.layer.name)
        return ""

    def _wait_for(
        self, kept: Kept, options: PostprocessSettings, batch: Batch | None = None
    ) -> None:
        """Put a result at the end of those that wait; a single one only once."""
        if batch is None:
            self._waiting = [w for w in self._waiting if w[2] or w[0] is not kept]
        self._waiting.append((kept, options, batch))

    def _next(self) -> None:
        """Submit the next result that waits, if nothing else is at work."""
        if not self._waiting:
            return
        if self.runs.is_busy or self.job is not None:
            self.view.apply_options_soon()
            return
        kept, options, batch = self._waiting.pop(0)
        axes = kept.source.query_axes(kept.plane)
        job = self.runs.engine.submit(postprocess, kept.maps, options, axes=axes)
        self.job = job
        values = options.to_dict()
        receive = self.runs.receive
        job.returned.connect(
            receive(lambda labels: self._on_labels(kept, values, batch, labels))
        )
        job.failed.connect(receive(lambda text: self._on_failed(kept, batch, text)))
        job.finished.connect(receive(self._on_finished))

    def _on_labels(
        self, kept: Kept, values: dict[str, Any], batch: Batch | None, labels: Any
    ) -> None:
        if batch is not None:
            batch.found.append((kept, labels))
            self._end_of(batch)
        elif self.layers.holds(kept):
            n = self.layers.show_again(kept, labels, values)
            hint = "" if n else LOWER_OPTIONS
            self.view.say(WITH_OPTIONS.format(objects=count(n, "object")) + hint)

    def _on_failed(self, kept: Kept, batch: Batch | None, text: str) -> None:
        self.view.say(text, True)
        if batch is not None:
            batch.left_out.append(kept.layer.name)
            self._end_of(batch)

    def _end_of(self, batch: Batch) -> None:
        """Show the results of a batch once all are there; one undo takes them back."""
        batch.n_left -= 1
        if batch.n_left:
            return
        n = 0
        self.layers.begin(options=True)
        try:
            for kept, labels in batch.found:
                if self.layers.holds(kept) and not self.layers.is_edited(kept):
                    n += self.layers.show_again(kept, labels, batch.options)
        finally:
            self.layers.end()
        text = APPLIED.format(
            results=count(len(batch.found), "result"), objects=count(n, "object")
        )
        if batch.left_out:
            text += LEFT_OUT.format(names=", ".join(batch.left_out))
        self.view.say(text)

    def _on_finished(self) -> None:
        self.job = None
        self.view.show_state()
        self._next()


def describe(image: str, shown: ShownResult) -> str:
    """Return the number of objects of an image's result, and its trust."""
    text = OF_IMAGE.format(image=image, objects=count(shown.n_objects, "object"))
    return text + ("" if np.isnan(shown.trust) else TRUST.format(shown.trust)) + "."
