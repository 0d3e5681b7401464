"""Controller of the dock "Segment from prompts": its runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ...core.image import ImageError
from ...core.jobs.stored_labels import Filled, StoredLabels
from ...core.prompt import PromptError, PromptSet
from ...core.settings import NO_GPU, split_settings
from ...workflows.segment_image import describe_device, segment
from ...workflows.segment_live import segment_stored
from ...workflows.segment_several import Segmented, segment_several
from ..callbacks import reports_errors
from ..layers.results.run_step import (
    RunQueue,
    Step,
    all_of,
    closed,
    expected_shape,
    found_classes,
    named_channels,
    recipe_with_plane,
)
from ..messages import NO_MODEL, STARTING, count, device_line, sentence
from .controller import DockController, DockView
from .warm_up import WarmUp

if TYPE_CHECKING:
    from napari.layers import Image

    from ...core.model_card import ModelCard
    from ...core.result import Result
    from ..layers.images.image_source import ImageSource
    from ..layers.prompts.prompt_book import PromptBook
    from ..layers.results.run_layers import RunLayers
    from ..panels.image_panel import ImagePanel
    from ..services.engine_process import Engine

LOW_TRUST = 0.4
"""Below this a result needs another look."""

CHECK_AN_IMAGE = "Check at least one image in the list."
OR_UNCHECK = " Or uncheck it."
NEEDS_NO_PROMPT = "This model needs no prompt: press Preview or Run."
STOPPED = "Stopped. What was finished is kept."
RUN_CONTINUES = " Run goes on from there."
ENGINE_OFF = "The engine is off; the next run starts it."
CHANGED_MEANWHILE = "'{name}' changed while it was segmented: run again."
NO_CLASS_FOUND = "None of the classes"
IS_LOW = (
    ", which is low. Mask every object in the box to its edge, or draw a second box."
)
RUN_WHOLE = ". Press Run for the whole image."
ADJUST_OR_SAVE = ". Adjust it under Result options, or save it."
SHOW_BY_NAME = " Click on the name of an image to see its result."


@dataclass(frozen=True)
class RunChoices:
    """The values of the controls that a run depends on.

    Parameters
    ----------
    model : ModelCard, optional
        None where no model is installed.
    settings : dict
        Values of `SegmentSettings` and `PostprocessSettings`.
    all_planes : bool
        Whether all planes of a stack are segmented, or the one that is shown.
    maps : tuple of str
        Maps to be added as layers: ``probability``, ``uncertainty``.
    """

    model: ModelCard | None
    settings: dict[str, Any]
    all_planes: bool = False
    maps: tuple[str, ...] = ()

    @property
    def takes_prompts(self) -> bool:
        """Whether the model finds what prompts show."""
        return self.model is None or self.model.takes_prompts

    @property
    def knows_classes(self) -> bool:
        """Whether the model finds classes of its own, without a prompt."""
        return self.model is not None and bool(self.model.classes)


class SegmentView(DockView, Protocol):
    """The dock, as the controllers of segmentation see it."""

    def complain(self, text: str, error: bool = False) -> None:
        """Show what a prompt lacks, until no prompt lacks anything."""

    def run_choices(self) -> RunChoices:
        """Return the values of the controls."""

    def store_for(self, source: ImageSource, plane: tuple[int, ...] | None) -> str:
        """Return where a result too large for memory is stored, else ""."""

    def leave_tools(self) -> None:
        """End drawing and correcting, because a run begins."""

    def set_options(self, values: dict[str, Any], *, quiet: bool = False) -> None:
        """Show result options; quietly, as the result is shown with them already."""

    def apply_options_soon(self) -> None:
        """Call `OptionsController.apply` once the options rest for a moment."""

    def show_device(self, text: str) -> None:
        """Show where models run."""


@dataclass
class RunReport:
    """Counts and notes of a run so far, and the messages made of them."""

    n_images: int = 0
    is_preview: bool = False
    n_objects: int = 0
    seconds: float = 0.0
    trusts: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    remark: str = ""
    is_hidden: bool = False

    @property
    def trust(self) -> float:
        """Mean trust of the images where it could be computed, else NaN."""
        known = [t for t in self.trusts if np.isfinite(t)]
        return float(np.mean(known)) if known else np.nan

    def add(self, result: Result, seconds: float) -> None:
        """Count the result of one more image, and the seconds it took."""
        self.n_objects += result.n_objects
        self.seconds += seconds
        self.trusts.append(result.trust)

    def text(self, result: Result, n_left: int) -> str:
        """Return the message after an image; ``n_left`` are still to be segmented."""
        text = self._found(result)
        if self.n_images > 1:
            n_done = self.n_images - n_left - len(self.failed)
            text += f" in {count(n_done, 'image')}"
        text += f"{' in this view' if self.is_preview else ''}, {self.seconds:.1f} s"
        if np.isfinite(self.trust):
            text += f", trust {self.trust:.2f}"
        text += self._advice(result)
        if self.is_hidden:
            text += SHOW_BY_NAME
        notes = [n for n in result.recipe.notes if NO_GPU not in n]
        if notes:
            text += f" ({'; '.join(notes)})"
        return text + self.remark

    def _found(self, result: Result) -> str:
        are_classes = result.recipe.postprocess.get("labels") == "classes"
        if result.classes and are_classes:
            return ", ".join(found_classes(result)) or NO_CLASS_FOUND
        return count(self.n_objects, "object")

    def _advice(self, result: Result) -> str:
        if self.n_objects == 0:
            other = "." if result.classes else ", or draw a box on a clearer cell."
            return f". Lower the threshold{other}"
        if self.trust < LOW_TRUST:
            return IS_LOW
        return RUN_WHOLE if self.is_preview else ADJUST_OR_SAVE

    def failure_text(self) -> str:
        """Return the message at the end of a run in which an image failed."""
        n = len(self.failed)
        more = f" {n - 1} more could not be segmented." if n > 1 else ""
        n_done = self.n_images - n
        found = count(self.n_objects, "object")
        rest = f" {count(n_done, 'other image')} done: {found}." if n_done else ""
        return f"{self.failed[0]}{more}{rest}"


@reports_errors(
    "follow_model",
    "ask_device",
    "end_engine",
    "start_preview",
    "start_run",
    "cancel",
    "undo_last",
)
class SegmentController(DockController):
    """Segments images in their order, small ones a few at a time.

    Parameters
    ----------
    view : SegmentView
    engine : Engine
    images : ImagePanel
        The selected image, the checked ones, and their axes.
    book : PromptBook
    layers : RunLayers
    """

    view: SegmentView

    def __init__(
        self,
        view: SegmentView,
        engine: Engine,
        images: ImagePanel,
        book: PromptBook,
        layers: RunLayers,
    ) -> None:
        super().__init__(view, engine)
        self.images, self.book, self.layers = images, book, layers
        self.report = RunReport()
        self._queue: RunQueue[Step] = RunQueue(lambda step: step)
        self._step: Step
        self._prompts: PromptSet | None = None
        self._is_closed = self._is_device_known = False
        self._known_of_model = (True, False)
        self.warm_up = WarmUp(self)

    # ------------------------------------------------------------ starting

    def start_preview(self) -> None:
        """Segment the visible field of the selected image."""
        layer = self.images.selected()
        if layer is None or self.is_busy:
            return
        try:
            source = self.images.source_of(layer)
            plane = self.layers.shown_plane(source)
        except ImageError as error:
            self.view.say(sentence(error), True)
            return
        self.layers.bring_into_sight(layer)
        self._start(
            [Step(source, plane, self.layers.visible_tile(source))], is_preview=True
        )

    def start_run(self) -> None:
        """Segment all checked images."""
        if self.is_busy:
            return
        checked = self.images.checked()
        try:
            steps = [self._step_for(layer) for layer in checked]
        except ImageError as error:
            more = OR_UNCHECK if len(checked) > 1 else ""
            self.view.say(f"{sentence(error)}{more}", True)
            return
        if not steps:
            self.view.say(CHECK_AN_IMAGE, True)
            return
        self._start(steps)

    def _step_for(self, layer: Image) -> Step:
        source, choices = self.images.source_of(layer), self.view.run_choices()
        everything = choices.all_planes or source.n_planes == 1
        plane = None if everything else self.layers.shown_plane(source)
        store = self.view.store_for(source, plane) if choices.takes_prompts else ""
        return Step(source, plane, store=store)

    def _start(self, steps: list[Step], *, is_preview: bool = False) -> None:
        self.view.leave_tools()
        choices = self.view.run_choices()
        if choices.model is None:
            self.view.say(NO_MODEL, True)
            return
        try:
            self._prompts = self.book.prompts() if choices.takes_prompts else None
        except PromptError as error:
            self.view.complain(sentence(error), True)
            return
        self._queue.fill(steps)
        self.report = RunReport(len(steps), is_preview)
        if not is_preview:
            self.layers.begin()
        self._next()

    def _next(self) -> None:
        """Submit the next image of the run, or a few small ones together."""
        steps = self._queue.take()
        step = self._step = steps[0]
        self._is_closed = False
        prepared = [self._prepare(step) for step in steps]
        if self._queue.together:
            self.view.say(f"Segmenting {count(len(steps), 'image')}…")
            self.follow(self.engine.submit_prepared(segment_several, all_of(prepared)))
            return
        self.view.say(f"Segmenting '{step.source.name}'…")
        function = segment_stored if step.store else segment
        self.follow(self.engine.submit_prepared(function, prepared[0]))

    def _prepare(self, step: Step) -> Callable[[], Any]:
        """Return a function that makes the arguments of a step of this run."""
        prompts = self._prompts
        if prompts is not None and any(i.here_only for i in self.book.items):
            prompts = self.book.prompts(step.source.layer)
        return self.arguments(step, prompts, self.view.run_choices().settings)

    def arguments(
        self, step: Step, prompts: PromptSet | None, settings: dict[str, Any]
    ) -> Callable[[], Any]:
        """Return a function that makes the arguments of a step, away from the GUI."""
        source = step.source
        choices, intensities = self.view.run_choices(), self.book.intensities
        # a part of an image is scaled by the intensities of the whole
        is_part = bool(step.tile or step.store) or (
            step.plane is not None and source.n_planes > 1
        )
        promise = intensities.request(source, step.plane) if is_part else None
        assert choices.model is not None
        query = source.query(step.plane, step.tile)
        kwargs: dict[str, Any] = {
            "model": choices.model.path or choices.model.name,
            "axes": source.query_axes(step.plane),
            "channels": source.channels or named_channels(prompts, source),
            "rgb": bool(source.layer.rgb),
        }
        args: tuple[Any, ...] = (query, prompts)
        if step.store:
            query, about = self.layers.stored_arguments(step)
            args, kwargs = (query, prompts, step.store), kwargs | about

        def prepare() -> Any:
            kwargs["settings"], kwargs["postprocess"] = split_settings(settings)
            if promise is not None:
                kwargs["intensities"] = promise.result()
            return args, kwargs

        return prepare

    # ------------------------------------------------------------ stopping

    def cancel(self) -> None:
        """Stop the run; finished images and planes stay."""
        self._queue.left = []
        super().cancel()

    def skip_closed(self) -> None:
        """Leave out images that have been closed since the run began."""
        queue, is_open = self._queue, self.layers.has
        queue.left = [step for step in queue.left if is_open(step.source)]
        if self.job is None:
            return
        in_work = queue.together.values() or [self._step]
        if not any(is_open(step.source) for step in in_work):
            self._is_closed = True
            self.job.cancel()

    # ------------------------------------------------------------ of a running job

    def on_progress(self, done: int, total: int, text: str) -> None:
        """Show how far the image is, and which of the run's images it is."""
        n = self.report.n_images
        if self._queue.together:
            n_done = n - len(self._queue)
            self.view.show_progress(n_done, n, f"{n_done} of {n} images done")
            return
        which = f"image {n - len(self._queue)} of {n}, " if n > 1 else ""
        self.view.show_progress(done, total, f"{which}{text or '%p %'}")

    def on_partial(self, value: Any) -> None:
        """Show a finished image, plane or part while the rest is computed."""
        if isinstance(value, Segmented):
            self._step = self._queue.together.pop(value.index)
            if value.result is None:
                self._note_failure(value.error)
            else:
                self._show(value.result, value.seconds)
            return
        step = self._step
        if not self.layers.has(step.source):
            return
        if isinstance(value, StoredLabels | Filled):
            self.layers.show_stored(step, value)
            return
        index, labels = value
        is_stack = step.plane is None and step.source.n_planes > 1
        if is_stack and isinstance(index, tuple) and not self.report.is_preview:
            self.layers.show_plane(step.source, index, labels)

    def on_result(self, value: Result | StoredLabels | None) -> None:
        """Show the result of an image; several images come one by one before it."""
        if isinstance(value, StoredLabels):
            self._on_stored(value)
        elif value is not None:
            self._show(value, value.seconds)

    def _show(self, value: Result, seconds: float) -> None:
        """Show the result of an image, and what to do with it."""
        step = self._step
        if not self.layers.has(step.source):
            self.view.say(closed(step))
            return
        if value.labels.shape != expected_shape(step):
            self.view.say(CHANGED_MEANWHILE.format(name=step.source.name), True)
            return
        result = replace(value, recipe=recipe_with_plane(value.recipe, step))
        maps = self.view.run_choices().maps
        layer, remark = self.layers.show(step, result, maps)
        self.report.add(result, seconds)
        self.report.remark += remark
        self.report.is_hidden |= not layer.visible
        self.view.say(self.report.text(result, len(self._queue)))

    def _on_stored(self, labels: StoredLabels) -> None:
        """Show what became of a result on the disk."""
        stored = self.layers.stored
        layer = stored.end(labels)
        self.report.n_objects += max(labels.objects, 0)
        notes = "".join(f" ({text})" for text in labels.notes if NO_GPU not in text)
        where = f" It lies in {self._step.store}." if layer is not None else ""
        self.view.say(
            f"{count(labels.objects, 'object')}, {labels.seconds:.0f} s."
            f"{where} Save writes it elsewhere.{notes}{stored.remark}"
        )

    def on_failed(self, text: str) -> None:
        """Show why an image failed; the images that are left have their turn.

        Where the engine ended on several images, those left are tried one by one.
        """
        self.layers.stored.stop()
        if not self._queue.put_back():
            self._note_failure(text)

    def _note_failure(self, text: str) -> None:
        """Show why an image failed, and tell it again when the run ends."""
        self.report.failed.append(f"'{self._step.source.name}': {text}")
        self.view.say(self.report.failed[0], True)

    def on_error(self, error: Exception) -> None:
        """Show what went wrong around an image; it is told again when the run ends."""
        if self.job is None:
            super().on_error(error)
            return
        text = f"'{self._step.source.name}': {sentence(error)}"
        if text not in self.report.failed:
            self.report.failed.append(text)
        self.view.say(text, True)

    def on_cancelled(self) -> None:
        """Show that the run was stopped, by the user or by closing its image."""
        self.layers.stored.stop()
        self._queue.together = {}
        if self._is_closed:
            self.view.say(closed(self._step))
            return
        self._queue.clear()
        self.report.failed = []
        self.view.say(STOPPED + (RUN_CONTINUES if self._step.store else ""))

    def on_finished(self) -> None:
        """Go on with the next image, or end the run."""
        if self._queue.left:
            self._next()
            return
        self.layers.end()
        if self.report.failed:
            self.view.say(self.report.failure_text(), True)

    # ------------------------------------------------------------ around a run

    def undo_last(self) -> None:
        """Take our last change of the viewer back."""
        text, recipe = self.layers.undo(self.images.selected())
        self.view.say(text)
        if recipe is not None:
            self.view.set_options(recipe.postprocess, quiet=True)
        self.view.show_state()

    def follow_model(self) -> None:
        """Ask for classes of a model that knows them, for objects of others."""
        if self._is_device_known:
            self.warm_up.ask()
        choices = self.view.run_choices()
        known = choices.takes_prompts, choices.knows_classes
        if known == self._known_of_model:
            return
        self._known_of_model = known
        kind = "classes" if choices.knows_classes else "objects"
        self.view.set_options({"labels": kind})
        if not choices.takes_prompts:
            self.view.say(NEEDS_NO_PROMPT)

    def ask_device(self) -> None:
        """Start the engine if need be, and show where models will run."""
        self.view.show_device(STARTING)
        device = self.view.run_choices().settings["device"]
        job = self.engine.submit(describe_device, device)
        show = self.view.show_device
        job.returned.connect(self.receive(self._on_device))
        job.failed.connect(self.receive(show))

    def _on_device(self, about: dict[str, Any]) -> None:
        self.view.show_device(device_line(about))
        self._is_device_known = True
        self.warm_up.ask()

    def end_engine(self) -> None:
        """End the engine and give its memory back."""
        self.engine.close()
        self.warm_up.forget()
        self.view.show_device(ENGINE_OFF)
