"""Controller of the dock "Train from tags": its decisions, without Qt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ...core.annotation.image_tags import (
    BankPatch,
    TagTrainingPreview,
    TagTrainingProgress,
    TagTrainingResult,
    TagTrainingSettings,
)
from ...io.tag_files import Tags
from ...workflows.segment_image import segment
from ...workflows.tag_training import (
    discard_tag_training,
    find_patch_bank,
    stop_tag_training,
    train_from_tags,
    training_folder,
)
from ..callbacks import reports_errors
from ..messages import count, sentence
from .controller import DockController, DockView, Files
from .model_names import clean_name, new_model_folder

if TYPE_CHECKING:
    from ...core.prompt import PromptSet
    from ..layers.images.tagged_image import TaggedImage
    from ..services.engine_process import Engine, EngineJob

STAGES = {
    "reading": "Reading images",
    "bank": "Filling the image bank",
    "first stage": "Learning where the classes are",
    "pseudo masks": "Drawing masks",
    "second stage": "Training on the masks",
    "saving": "Saving",
}
SECOND_STAGE = "second stage"
LOSS, SECOND_LOSS = "loss", "loss, second stage"
TAG_SCORE, MASK_SCORE = "correct tags", "agreement with the masks"
"""Names of the curves."""

PRESS_TRAIN = "Press Train."
FINDING = "Finding patches that show each class…"
CHECK_PATCHES = "Remove patches that show the wrong thing, then press Train."
KEEPING_BEST = "Stopping; the best so far is kept…"
STOPPED = "Stopped."
CANCELLED = "Cancelled: no model was made. The tags are kept."
TO_CONTINUE = " Press Train to continue from where it stopped."
TRAINED = "Trained in {}. '{}' is now among the models."
BANK_SHOWN = "This is the image bank of '{}'."
PROMPT_ADDED = "{} is now a prompt: press Run in Segment from prompts."
CHOSEN = "The model is chosen in Segment from prompts: press Run there."
NO_CLASS = "none of the classes"


@dataclass(frozen=True)
class TagsChoices:
    """The values of the controls that a training depends on.

    Parameters
    ----------
    name : str
        Of the new model, as it was typed.
    tagged : list of (TaggedImage, tuple of str)
        Images with their classes.
    classes : tuple of str
    options : dict
        Fields of `TagTrainingSettings`.
    problem : str
        Why these tags cannot be trained with; or "".
    bank : tuple of BankPatch, optional
        Patches to train with; None to find new ones.
    device : str
    """

    name: str
    tagged: list[tuple[TaggedImage, tuple[str, ...]]]
    classes: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    problem: str = ""
    bank: tuple[BankPatch, ...] | None = None
    device: str = "auto"

    def settings(self) -> TagTrainingSettings:
        """Return the settings of the training.

        Raises
        ------
        ValueError
            For a value that is not allowed.
        """
        return TagTrainingSettings(**self.options, classes=self.classes)

    def tags(self) -> Tags:
        """Return the tags by the keys of the images."""
        return Tags({image.key: of for image, of in self.tagged}, self.classes)


@dataclass(frozen=True)
class TagsRun:
    """Start of a training; with the same values it continues after a failure."""

    name: str
    tags: Tags
    settings: TagTrainingSettings
    bank: tuple[BankPatch, ...] | None


class TagsView(DockView, Protocol):
    """The dock, as the controller sees it."""

    def run_choices(self) -> TagsChoices:
        """Return the values of the controls."""

    def selected_image(self) -> TaggedImage | None:
        """Return the image whose row is selected."""

    def model(self) -> str:
        """Return the folder of the model that was trained or opened last, or ""."""

    def show_run(self) -> None:
        """Show empty curves, and no bank or map of an earlier model."""

    def show_keeping(self, text: str) -> None:
        """Show that the training is ending with its best model so far."""

    def add_point(self, series: str, seconds: float, value: float) -> None:
        """Add a point to a curve."""

    def show_patches(self, patches: Sequence[BankPatch]) -> None:
        """Show an image bank that has no masks yet."""

    def show_result(self, result: TagTrainingResult) -> None:
        """Show the image bank of a new model, and list the model in all docks."""

    def show_image(self, image: TaggedImage) -> None:
        """Show an image on the canvas."""

    def show_map(
        self, image: TaggedImage, classes: np.ndarray, foreground: np.ndarray
    ) -> None:
        """Show a class map over an image that is on the canvas."""

    def segment_with_prompts(self, prompts: PromptSet) -> None:
        """Add prompts to the dock that segments."""

    def segment_with_model(self, model: str) -> None:
        """Choose a model in the dock that segments."""


@reports_errors(
    "find_bank",
    "follow_opened",
    "use_patches",
    "start",
    "stop_and_keep",
    "cancel",
    "show_map",
    "use_model",
)
class TagsController(DockController):
    """Trains a model from tags, finds image banks, and shows class maps.

    Parameters
    ----------
    view : TagsView
    engine : Engine
    files : Files
        Where files are read and written.
    """

    view: TagsView

    def __init__(self, view: TagsView, engine: Engine, files: Files) -> None:
        super().__init__(view, engine)
        self.map_job: EngineJob | None = None
        self._files = files
        self._run: TagsRun | None = None
        self._output = Path()
        self._stage = ""
        self._scores: dict[str, float] = {}

    @property
    def is_training(self) -> bool:
        """Whether a model is trained, whose best so far can be kept."""
        return self.job is not None and self.job.function is train_from_tags

    def follow_tags(self, advice: str) -> None:
        """Show what the tags lack, until a model is trained.

        Parameters
        ----------
        advice : str
            What would make the training better; or "".
        """
        if not self.is_busy and not self.view.model():
            self.view.say(self.view.run_choices().problem or advice or PRESS_TRAIN)
        self.view.show_state()

    # ------------------------------------------------------------ training

    def start(self) -> None:
        """Train with the tags that there are."""
        choices = self.view.run_choices()
        try:
            name = clean_name(choices.name)
            settings = self._checked_settings(choices)
        except ValueError as error:
            self.view.say(sentence(error), True)
            return
        run = TagsRun(name, choices.tags(), settings, choices.bank)
        goes_on = run == self._run
        if not goes_on:
            self._run, self._output = run, new_model_folder(name)
        self.view.show_run()
        self._stage, self._scores = "", {}
        verb = "Continuing" if goes_on else "Training"
        self.view.say(f"{verb} with {count(len(choices.tagged), 'image')}…")
        self._submit(
            train_from_tags,
            choices,
            settings=settings,
            output=str(self._output),
            device=choices.device,
            bank=choices.bank,
            resume=goes_on,
        )

    def find_bank(self) -> None:
        """Fill the image bank without training, to look through it first."""
        choices = self.view.run_choices()
        try:
            settings = self._checked_settings(choices)
        except ValueError as error:
            self.view.say(sentence(error), True)
            return
        self.view.say(FINDING)
        self._submit(find_patch_bank, choices, settings=settings, device=choices.device)

    @staticmethod
    def _checked_settings(choices: TagsChoices) -> TagTrainingSettings:
        if choices.problem:
            raise ValueError(choices.problem)
        return choices.settings()

    def _submit(
        self, function: Callable[..., Any], choices: TagsChoices, **kwargs: Any
    ) -> None:
        """Start a job; open images are read in a thread."""

        def prepare() -> Any:
            images = {image.key: image.for_engine() for image, _ in choices.tagged}
            return (images, choices.tags()), kwargs

        self.follow(self.engine.submit_prepared(function, prepare))

    def stop_and_keep(self) -> None:
        """End the training; the best so far becomes the model."""
        if not self.is_training:
            return
        self.view.show_keeping(KEEPING_BEST)
        output = self._output
        self._files.call(
            lambda: stop_tag_training(output),
            lambda _: None,
            lambda error: self.view.say(sentence(error), True),
        )

    def cancel(self) -> None:
        """End what runs and keep nothing of it."""
        if self.map_job is not None:
            self.map_job.cancel()
        super().cancel()

    # ------------------------------------------------------------ of a running job

    def on_partial(self, value: Any) -> None:
        """Show losses and scores, the bank, or a map of the selected image."""
        if isinstance(value, TagTrainingProgress):
            self._show_progress(value)
        elif isinstance(value, TagTrainingPreview):
            image = self.view.selected_image()
            if image is not None and image.key == value.image:
                self.view.show_map(image, value.classes, value.foreground / 255)
        elif isinstance(value, list | tuple):
            self.view.show_patches(value)

    def _show_progress(self, value: TagTrainingProgress) -> None:
        if value.stage != self._stage:
            self._stage = value.stage
            self.view.say(f"{STAGES.get(value.stage, value.stage)}…")
        is_second = value.stage == SECOND_STAGE
        if "total" in value.losses:
            series = SECOND_LOSS if is_second else LOSS
            self.view.add_point(series, value.seconds, value.losses["total"])
        series = MASK_SCORE if is_second else TAG_SCORE
        score = value.validation
        # it is measured once an epoch, and reported with each step until the next
        if score is not None and score != self._scores.get(series):
            self._scores[series] = score
            self.view.add_point(series, value.seconds, score)

    def on_result(self, value: TagTrainingResult | Sequence[BankPatch]) -> None:
        """Show a new model with its bank, or a bank that was found without one."""
        if not isinstance(value, TagTrainingResult):
            self.view.show_patches(value)
            self.view.say(CHECK_PATCHES)
            return
        self._run = None
        text = TRAINED.format(duration(value.seconds), Path(value.model).name)
        notes = "; ".join(value.notes)
        self.view.say(f"{text} ({notes})" if notes else text)
        self.view.show_result(value)

    def on_failed(self, text: str) -> None:
        """Show why it failed, and whether the training can be continued."""
        if self.is_training and any(training_folder(self._output).rglob("checkpoint*")):
            text += TO_CONTINUE
        self.view.say(text, True)

    def on_cancelled(self) -> None:
        """Leave nothing of a training that was cancelled."""
        if not self.is_training:
            self.view.say(STOPPED)
            return
        self.view.say(CANCELLED)
        output, self._run = self._output, None
        self._files.call(lambda: discard_tag_training(output), lambda _: None)

    # ------------------------------------------------------------ using the model

    def follow_opened(self, result: TagTrainingResult) -> None:
        """Follow that the bank of an earlier model was opened."""
        self.view.say(BANK_SHOWN.format(Path(result.model).name))
        self.view.show_state()

    def use_patches(self, prompts: PromptSet) -> None:
        """Segment with patches of the bank as prompts."""
        self.view.segment_with_prompts(prompts)
        names = ", ".join(f"'{p.name}'" for p in prompts)
        self.view.say(PROMPT_ADDED.format(names))

    def use_model(self) -> None:
        """Segment with the model."""
        model = self.view.model()
        if model:
            self.view.segment_with_model(Path(model).name)
            self.view.say(CHOSEN)

    def show_map(self) -> None:
        """Show which classes the model finds in the selected image."""
        image, model = self.view.selected_image(), self.view.model()
        if image is None or not model:
            return
        self.view.show_image(image)
        try:
            pixels = image.for_engine()
        except ValueError as error:
            self.view.say(sentence(error), True)
            return
        self.view.say(f"Segmenting '{image.title}'…")
        call = map_call(pixels, model, self.view.run_choices().device)
        job = self.map_job = self.engine.submit_prepared(segment, call)
        job.returned.connect(self.receive(lambda result: self._on_map(image, result)))
        job.failed.connect(self.receive(lambda text: self.view.say(text, True)))
        job.finished.connect(self.receive(self._on_map_finished))
        self.view.show_state()

    def _on_map(self, image: TaggedImage, result: Any) -> None:
        self.view.show_map(image, result.maps.classes, result.maps.foreground)
        self.view.say(f"'{image.title}': {class_shares(result)}.")

    def _on_map_finished(self) -> None:
        self.map_job = None
        self.view.show_state()


def map_call(
    pixels: str | np.ndarray, model: str, device: str
) -> Callable[[], tuple[tuple[Any, None], dict[str, Any]]]:
    """Return a function that makes the arguments of `segment`; it reads the file."""

    def prepare() -> tuple[tuple[Any, None], dict[str, Any]]:
        from ...io.images import read_image

        kwargs = {"model": model, "device": device, "labels": "classes"}
        if not isinstance(pixels, str):
            return (pixels, None), {**kwargs, "axes": "YXC"}
        file = read_image(pixels)
        axes, rgb = file.axes.order, file.rgb or None
        return (file.array, None), {**kwargs, "axes": axes, "rgb": rgb}

    return prepare


def class_shares(result: Any) -> str:
    """Return how much of an image each class covers, for the user."""
    names = list(result.classes)
    n = np.bincount(result.labels[result.labels > 0].astype(np.int64))
    parts = [
        f"{names[v - 1]} {100 * n[v] / result.labels.size:.0f} %"
        for v in np.flatnonzero(n).tolist()
    ]
    return ", ".join(parts) or NO_CLASS


def duration(seconds: float) -> str:
    """Return a time in seconds or minutes.

    Examples
    --------
    >>> duration(12.3), duration(400)
    ('12 s', '6.7 min')
    """
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
