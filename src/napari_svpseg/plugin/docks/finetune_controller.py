"""Controller of the dock "Fine-tune": its decisions, without Qt."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ...core.jobs.finetune_job import (
    NOT_BETTER,
    FineTuneProgress,
    FineTuneResult,
    FineTuneSettings,
)
from ...core.settings import NO_GPU
from ...io.model_archive import export_model, import_model
from ...io.model_store import model_prompts
from ...workflows.finetuning import (
    discard_finetune,
    finetune,
    move_finetune,
    needs_other_place,
    stop_finetune,
    unfinished_finetunes,
)
from ..callbacks import reports_errors
from ..messages import NO_MODEL, count, sentence
from .controller import DockController, DockView, Files
from .finetune_advice import next_steps
from .model_names import new_model_folder
from .run_clock import RunClock

if TYPE_CHECKING:
    from ...core.model_card import ModelCard
    from ...core.prompt import PromptSet
    from ..services.engine_process import Engine

LOSS, VALIDATION = "training loss", "validation score"
"""Names of the two curves."""

CUSTOM = "custom"
"""The preset whose settings are those of the training options."""

KEEP, LATER, STAY = "Stop and keep best", "Continue next time", "Cancel"
"""Answers to what becomes of a training when the window is closed."""

TRAINING = "Training. You can continue to work."
PREPARING = "Preparing: reading the training set and the model…"
STAGE = "Training"
CONTINUING = "Continuing the training…"
KEEPING_BEST = "Stopping; the best so far is kept…"
STOPPED = "Stopped."
BETTER = "Better on the validation labels. '{}' is in every Model menu."
NO_BETTER = (
    "Not better on the validation labels: '{}' is the model it started from. What to "
    "do next stands under Progress."
)
NOT_VALIDATED = "There were no validation labels, so the model could not be checked."
CUT_OFF = "The training of '{}' was interrupted. Its checkpoint is kept."
NO_ROOM = (
    "The disk is full, so the training of '{}' has stopped. Its checkpoint is kept: "
    "free some space, or choose another folder when you continue."
)
ELSEWHERE = "Trained. '{}' is in {}: import it from there once there is room."
CHOSEN = "The model is chosen in Segment from prompts: press Run there."
IMPORTED = "'{}' is now among the models."
EXPORTED = "Exported '{}' as {}."


@dataclass(frozen=True)
class FineTuneChoices:
    """The values of the controls that a training depends on.

    Parameters
    ----------
    model : ModelCard, optional
        Which is trained further; None where no model is installed.
    known_models : tuple of str
        Names of all installed models.
    name : str
        Of the new model, as it was typed.
    preset : str
        ``quick``, ``thorough`` or ``custom``.
    options : dict
        Fields of `FineTuneSettings` of the custom preset.
    meaning : dict
        Further fields, of any preset: the meaning of the labels.
    training_set : str
        Folder of the training set.
    learns_unlabelled : bool
        Whether it first learns from images without labels.
    unlabelled : str
        Folder of such images; empty for those of the training set only.
    """

    model: ModelCard | None
    known_models: tuple[str, ...] = ()
    name: str = ""
    preset: str = "quick"
    options: dict[str, Any] = field(default_factory=dict)
    meaning: dict[str, Any] = field(default_factory=dict)
    training_set: str = ""
    learns_unlabelled: bool = False
    unlabelled: str = ""

    def settings(self) -> FineTuneSettings:
        """Return the settings of the training.

        Raises
        ------
        ValueError
            For a value that is not allowed.
        """
        if self.preset == CUSTOM:
            chosen = FineTuneSettings(preset=CUSTOM, **self.options)
        else:
            chosen = FineTuneSettings.of_preset(self.preset)
        return replace(
            chosen, self_supervised_first=self.learns_unlabelled, **self.meaning
        )


@dataclass(frozen=True)
class FineTuneRun:
    """Start of a training; an interrupted run continues with the same values.

    Parameters
    ----------
    output : str
        Folder of the new model.
    start_from : str
        The model that is trained further.
    settings : FineTuneSettings
    training_set : str
    unlabelled : str, optional
    """

    output: str
    start_from: str
    settings: FineTuneSettings
    training_set: str
    unlabelled: str | None = None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FineTuneRun:
        """Return the run that a checkpoint belongs to.

        Raises
        ------
        ValueError
            If the checkpoint is of another version.
        """
        try:
            return cls(
                values["output"],
                values["start_from"],
                FineTuneSettings(**values["settings"]),
                values["training_set"],
                values.get("unlabelled") or None,
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"this checkpoint cannot be read: {error}") from error

    @property
    def name(self) -> str:
        """Name of the new model."""
        return Path(self.output).name


class FineTuneView(DockView, Protocol):
    """The dock, as the controller sees it."""

    def run_choices(self) -> FineTuneChoices:
        """Return the values of the controls."""

    def show_run(self, name: str) -> None:
        """Show the name of the new model, and empty curves."""

    def show_stage(self, text: str) -> None:
        """Show what the training is doing, and how long it will."""

    def show_keeping(self, text: str) -> None:
        """Show that the training is ending with its best model so far."""

    def add_point(self, series: str, step: int, value: float) -> None:
        """Add a point to a curve."""

    def show_scores(self, text: str) -> None:
        """Show the scores of a result."""

    def offer_run(self, text: str) -> None:
        """Offer to continue a run that was cut off; an empty text withdraws it."""

    def ask_folder(self) -> str:
        """Ask for a folder to go on in; an empty text for none."""

    def refresh_models(self, name: str = "") -> None:
        """List the models anew in all docks; choose one in this one."""

    def segment_with(self, model: str, prompts: PromptSet) -> None:
        """Choose a model, and its prompts, in the dock that segments."""

    def close_window(self) -> None:
        """Close the window that the dock is in."""


@reports_errors(
    "resume",
    "discard",
    "start",
    "stop_and_keep",
    "use_model",
    "export_model",
    "import_model",
)
class FineTuneController(DockController):
    """Trains a model further, and hands the new one on.

    Parameters
    ----------
    view : FineTuneView
    engine : Engine
    files : Files
        Where files are read and written.
    device : str
        Where the model is trained.
    """

    view: FineTuneView

    def __init__(
        self, view: FineTuneView, engine: Engine, files: Files, device: str = "auto"
    ) -> None:
        super().__init__(view, engine)
        self.result: FineTuneResult | None = None
        self.started_from = ""
        """Model that the latest result started from."""
        self._files, self._device = files, device
        self._run: FineTuneRun | None = None
        self._offered: dict[str, Any] = {}
        self._closes_window = False
        self._is_elsewhere = False
        self.clock = RunClock()

    # ------------------------------------------------------------ training

    def start(self) -> None:
        """Train with the images of the set."""
        choices = self.view.run_choices()
        if choices.model is None:
            self.view.say(NO_MODEL, True)
            return
        try:
            output = new_model_folder(choices.name, choices.known_models)
            settings = choices.settings()
        except ValueError as error:
            self.fail(error)
            return
        run = FineTuneRun(
            str(output),
            choices.model.path or choices.model.name,
            settings,
            choices.training_set,
            choices.unlabelled or None if choices.learns_unlabelled else None,
        )
        self._submit(run, resume=False)

    def resume(self) -> None:
        """Continue the training that was cut off."""
        values, self._offered = self._offered, {}
        if not values:
            return
        if not values.get("is_full") or not needs_other_place(values["output"]):
            self._resume(values)
            return
        folder = self.view.ask_folder()
        if not folder:
            self._offered = values
            return
        self._files.call(
            lambda: move_finetune(values["output"], folder),
            lambda output: self._resume({**values, "output": output}, moved=True),
            self.fail,
        )

    def _resume(self, values: dict[str, Any], *, moved: bool = False) -> None:
        self.view.offer_run("")
        try:
            run = FineTuneRun.from_dict(values)
        except ValueError as error:
            self.fail(error)
            return
        self._submit(run, resume=True)
        self._is_elsewhere = moved

    def _submit(self, run: FineTuneRun, *, resume: bool) -> None:
        self._run, self.result, self._is_elsewhere = run, None, False
        self.view.show_run(run.name)
        self.view.say(CONTINUING if resume else TRAINING)
        self.view.show_stage(PREPARING)
        self.clock.begin()
        job = self.engine.submit(
            finetune,
            [],
            [],
            start_from=run.start_from,
            settings=run.settings,
            output=run.output,
            training_set=run.training_set,
            unlabelled=run.unlabelled,
            device=self._device,
            resume=resume,
        )
        self.follow(job)

    def stop_and_keep(self) -> None:
        """End the training; the best model so far is saved."""
        if not self.is_busy or self._run is None:
            return
        output = self._run.output
        self.view.show_keeping(KEEPING_BEST)
        self.view.say(KEEPING_BEST)
        self._files.call(lambda: stop_finetune(output), self._on_stop, self.fail)

    def _on_stop(self, was_there: bool) -> None:
        if not was_there and self.job is not None:  # it has not begun yet
            self.job.cancel()

    def answer_close(self, answer: str) -> bool:
        """Do what the user wants of a training; return whether the window may close.

        Parameters
        ----------
        answer : str
            `KEEP`, `LATER` or `STAY`.
        """
        if answer == LATER:
            self.cancel()
            return True
        if answer == KEEP:
            self._closes_window = True
            self.stop_and_keep()
        return False

    # ------------------------------------------------------------ of a running job

    def on_progress(self, done: int, total: int, text: str) -> None:
        """Show the stage, the step, and the time gone and left."""
        self.view.show_progress(done, total, self.clock.bar(done, total))
        stage = f"{STAGE}, {text}" if text else STAGE
        self.view.show_stage(self.clock.line(stage, done, total))

    def on_partial(self, value: Any) -> None:
        """Add the latest losses and scores to the curves."""
        if not isinstance(value, FineTuneProgress):
            return
        if np.isfinite(value.train_loss):
            self.view.add_point(LOSS, value.step, value.train_loss)
        if value.validation_dice is not None and np.isfinite(value.validation_dice):
            self.view.add_point(VALIDATION, value.step, value.validation_dice)

    def on_result(self, value: FineTuneResult) -> None:
        """Show the scores, and which model was kept."""
        assert self._run is not None
        self.result, self.started_from = value, self._run.start_from
        self.view.show_scores(score_lines(value))
        text = BETTER if value.kept == "after" else NO_BETTER
        if self._is_elsewhere:
            text = ELSEWHERE
        notes = [n for n in value.notes if n != NOT_BETTER and NO_GPU not in n]
        more = f" ({'; '.join(notes)})" if notes else ""
        model = Path(value.model)
        self.view.say(text.format(model.name, model.parent) + more)
        self.view.refresh_models()

    def on_failed(self, text: str) -> None:
        """Show why it failed, and offer to continue where it can be continued."""
        super().on_failed(text)
        self.look_for_unfinished()

    def on_cancelled(self) -> None:
        """Show that it was stopped, and offer to continue."""
        self.view.say(STOPPED)
        self.look_for_unfinished()

    def on_finished(self) -> None:
        """Close the window where that waited for the training to end."""
        if self._closes_window:
            self.view.close_window()

    # ------------------------------------------------------------ what was cut off

    def look_for_unfinished(self) -> None:
        """Offer the latest training that was cut off, if there is one."""

        def look() -> list[dict[str, Any]]:
            runs = unfinished_finetunes()
            return [r | {"is_full": needs_other_place(r["output"])} for r in runs]

        self._files.call(look, self.receive(self._on_unfinished))

    def _on_unfinished(self, runs: list[dict[str, Any]]) -> None:
        runs = [r for r in runs if r.get("training_set")]
        if not runs or self.is_busy:
            return
        self._offered = runs[-1]
        text = NO_ROOM if self._offered.get("is_full") else CUT_OFF
        self.view.offer_run(text.format(Path(self._offered["output"]).name))

    def discard(self) -> None:
        """Delete the checkpoint of the training that was cut off."""
        values, self._offered = self._offered, {}
        self.view.offer_run("")
        if values:
            self._files.call(
                lambda: discard_finetune(values["output"]),
                lambda _: self.look_for_unfinished(),
                self.fail,
            )

    # ------------------------------------------------------------ using the model

    def use_model(self) -> None:
        """Segment with the new model and its prompts."""
        if self.result is not None:
            model = self.result.model
            self._files.call(lambda: model_prompts(model), self._on_prompts, self.fail)

    def _on_prompts(self, prompts: PromptSet) -> None:
        assert self.result is not None
        self.view.segment_with(Path(self.result.model).name, prompts)
        self.view.say(CHOSEN)

    @property
    def exportable(self) -> str:
        """Folder of the latest model, else of the chosen one; empty for none."""
        if self.result is not None:
            return self.result.model
        card = self.view.run_choices().model
        return card.path if card is not None else ""

    @property
    def exportable_name(self) -> str:
        """Name of the model that is exported; empty for none."""
        return Path(self.exportable).name

    def export_model(self, path: str) -> None:
        """Write the latest, or the chosen, model as one zip."""
        model = self.exportable
        self._files.call(
            lambda: export_model(model, path, overwrite=True),  # the dialog has asked
            lambda file: self.view.say(EXPORTED.format(Path(model).name, file)),
            self.fail,
        )

    def import_model(self, path: str) -> None:
        """Add a model from a zip; the engine checks its weights first."""
        job = self.engine.submit(import_model, path)
        job.returned.connect(self.receive(self._on_imported))
        job.failed.connect(self.receive(self.fail))

    def _on_imported(self, card: ModelCard) -> None:
        self.view.refresh_models(card.name)
        self.view.say(IMPORTED.format(card.name))

    def fail(self, error: Exception | str) -> None:
        """Show an error."""
        text = sentence(error) if isinstance(error, Exception) else str(error)
        self.view.say(text, True)


def score_lines(result: FineTuneResult) -> str:
    """Return the scores before and after, as HTML; the model that is kept is bold.

    Below them stands what to do next.
    """
    return f"{_scores(result)}<br>{escape(next_steps(result))}"


def _scores(result: FineTuneResult) -> str:
    before, after = result.before, result.after
    if after.n_pixels == 0:
        return NOT_VALIDATED
    objects = f" and {count(after.n_objects, 'cell')}" if after.n_objects else ""
    where = f"on {after.n_pixels:,} validation pixels{objects}"
    if result.kept == "after":
        return f"{escape(str(before))} → <b>{escape(str(after))}</b><br>{where}"
    return f"<b>{escape(str(before))}</b>, new {escape(str(after))}<br>{where}"
